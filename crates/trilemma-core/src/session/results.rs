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
    len: usize,
}

impl Results {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn first(&self) -> Option<u64> {
        let chunk = self.chunks.front()?;
        chunk.first().map(|(seq, _)| *seq)
    }

    pub(super) fn last(&self) -> Option<u64> {
        self.chunks.back().and_then(|chunk| last(chunk))
    }

    pub(super) fn get(&self, seq: u64) -> Option<OpResult> {
        let chunk = self.chunks.get(self.chunk_of(seq))?;
        let place = chunk.binary_search_by_key(&seq, |(seq, _)| *seq).ok()?;
        Some(chunk[place].1)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// The first chunk that does not end before this number.
    fn chunk_of(&self, seq: u64) -> usize {
        self.chunks.partition_point(|chunk| last(chunk) < Some(seq))
    }

    pub(super) fn set(&mut self, seq: u64, result: OpResult) {
        let at = self.chunk_of(seq);
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(chunk) = chunks.get_mut(at) else {
            self.len += 1;
            return match chunks.back_mut() {
                Some(chunk) if chunk.len() < CHUNK_ENTRIES => Arc::make_mut(chunk).push((seq, result)),
                _ => chunks.push_back(Arc::new(vec![(seq, result)])),
            };
        };
        let chunk = Arc::make_mut(chunk);
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
    }

    /// Drops what is numbered up to `floor`.
    pub(super) fn drop_through(&mut self, floor: u64) {
        if self.first().is_none_or(|first| first > floor) {
            return;
        }
        let chunks = Arc::make_mut(&mut self.chunks);
        while let Some(chunk) = chunks.pop_front_if(|chunk| last(chunk) <= Some(floor)) {
            self.len -= chunk.len();
        }
        if let Some(chunk) = chunks.front_mut() {
            let dropped = chunk.partition_point(|(seq, _)| *seq <= floor);
            self.len -= dropped;
            if dropped > 0 {
                Arc::make_mut(chunk).drain(..dropped);
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
