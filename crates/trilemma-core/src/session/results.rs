//! The results of one session, in the order of their numbers.
//!
//! In chunks that clones share: a protocol that keeps copies of its table, one for each batch in flight, changes a
//! session's results after each of them. Then one chunk is copied, not all results.

use std::collections::VecDeque;
use std::sync::Arc;

use super::OpResult;

/// What one operation did: its number, its result.
pub(super) type Entry = (u64, OpResult);

/// Entries of a chunk that is appended to; one that grows in the middle is cut at twice that.
const CHUNK_ENTRIES: usize = 32;

/// See the module. No chunk is empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Results {
    chunks: Arc<VecDeque<Arc<Vec<Entry>>>>,
    /// Entries at the front of the first chunk that are dropped, and go with it: fewer than it has.
    dropped: usize,
    len: usize,
    /// The first and the last number. Nothing if there are none. What is asked most often, whether a number is new and
    /// whether the oldest is to go, looks into no chunk.
    first: u64,
    last: u64,
}

impl Results {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn first(&self) -> Option<u64> {
        (self.len > 0).then_some(self.first)
    }

    pub(super) fn last(&self) -> Option<u64> {
        (self.len > 0).then_some(self.last)
    }

    pub(super) fn get(&self, seq: u64) -> Option<OpResult> {
        if self.len == 0 || seq < self.first || seq > self.last {
            return None;
        }
        let chunk = self.chunks.get(self.chunk_of(seq))?;
        let place = chunk.binary_search_by_key(&seq, |(seq, _)| *seq).ok()?;
        Some(chunk[place].1)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        let chunks = self.chunks.iter().enumerate();
        chunks.flat_map(|(at, chunk)| &chunk[if at == 0 { self.dropped } else { 0 }..])
    }

    /// The first chunk that does not end before this number.
    fn chunk_of(&self, seq: u64) -> usize {
        self.chunks.partition_point(|chunk| last(chunk) < Some(seq))
    }

    pub(super) fn set(&mut self, seq: u64, result: OpResult) {
        if self.last() < Some(seq) {
            self.push(seq, result);
        } else {
            self.insert(seq, result);
        }
    }

    /// Adds a result with the highest number.
    fn push(&mut self, seq: u64, result: OpResult) {
        let chunks = Arc::make_mut(&mut self.chunks);
        match chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK_ENTRIES => Arc::make_mut(chunk).push((seq, result)),
            Some(_) => {
                // Who has filled one chunk is going to fill the next.
                let mut chunk = Vec::with_capacity(CHUNK_ENTRIES);
                chunk.push((seq, result));
                chunks.push_back(Arc::new(chunk));
            }
            None => chunks.push_back(Arc::new(vec![(seq, result)])),
        }
        if self.len == 0 {
            self.first = seq;
        }
        self.last = seq;
        self.len += 1;
    }

    /// Adds or replaces a result whose number is not the highest.
    fn insert(&mut self, seq: u64, result: OpResult) {
        let at = self.chunk_of(seq);
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(&mut chunks[at]);
        if at == 0 {
            chunk.drain(..std::mem::take(&mut self.dropped));
        }
        match chunk.binary_search_by_key(&seq, |(seq, _)| *seq) {
            Ok(place) => chunk[place].1 = result,
            Err(place) => {
                chunk.insert(place, (seq, result));
                self.len += 1;
                if chunk.len() > 2 * CHUNK_ENTRIES {
                    let behind = chunk.split_off(CHUNK_ENTRIES);
                    chunks.insert(at + 1, Arc::new(behind));
                }
            }
        }
        self.first = self.first.min(seq);
    }

    /// Drops what is numbered up to `floor`.
    pub(super) fn drop_through(&mut self, floor: u64) {
        while self.first().is_some_and(|first| first <= floor) {
            self.dropped += 1;
            self.len -= 1;
            let mut next = self.chunks.front().and_then(|chunk| chunk.get(self.dropped));
            if next.is_none() {
                self.dropped = 0;
                let chunks = Arc::make_mut(&mut self.chunks);
                chunks.pop_front();
                next = chunks.front().and_then(|chunk| chunk.first());
            }
            if let Some((seq, _)) = next {
                self.first = *seq;
            }
        }
    }

    /// The invariants: numbers in order, in chunks that hold something and are cheap to copy, counted.
    pub(super) fn check(&self) {
        assert!(
            self.iter().is_sorted_by(|a, b| a.0 < b.0),
            "results are in order of their numbers"
        );
        assert!(
            self.chunks.iter().all(|chunk| !chunk.is_empty()),
            "no chunk of results is empty"
        );
        assert!(
            self.chunks.iter().all(|chunk| chunk.len() <= 2 * CHUNK_ENTRIES),
            "chunks of results are bounded"
        );
        assert_eq!(self.iter().count(), self.len, "results of a session are counted");
        let first = self.chunks.front().map_or(0, |chunk| chunk.len());
        assert!(
            self.dropped < first.max(1),
            "a chunk of which all is dropped has gone"
        );
        let ends = (self.iter().next(), self.iter().next_back());
        assert_eq!(
            (ends.0.map(|(seq, _)| *seq), ends.1.map(|(seq, _)| *seq)),
            (self.first(), self.last()),
            "the first and the last result of a session are known"
        );
    }
}

#[cfg(test)]
impl Results {
    /// Damages the order.
    pub(super) fn swap_first(&mut self) {
        let chunks = Arc::make_mut(&mut self.chunks);
        Arc::make_mut(&mut chunks[0]).swap(0, 1);
    }
}

fn last(chunk: &[Entry]) -> Option<u64> {
    chunk.last().map(|(seq, _)| *seq)
}

/// How they are cut into chunks depends on how they came.
impl PartialEq for Results {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl Eq for Results {}

impl FromIterator<Entry> for Results {
    /// From entries in the order of their numbers.
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        let mut results = Self::default();
        for (seq, result) in entries {
            results.set(seq, result);
        }
        results
    }
}

#[cfg(test)]
mod tests;
