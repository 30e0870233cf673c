//! The entries of a log in chunks that its copies share: a checkpoint of a log of a million entries is taken between two
//! turns.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Entry, Payload, Term};

/// Entries of a chunk: what is copied when an entry is added beside a copy of the log.
const CHUNK: usize = 64;

/// A double-ended queue of entries. A copy costs a pointer for each chunk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entries {
    /// All of them full, but for the last.
    chunks: VecDeque<Arc<Vec<Entry>>>,
    /// Entries of the first chunk that have been taken out.
    taken: usize,
    length: usize,
}

impl Entries {
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn get(&self, at: usize) -> Option<&Entry> {
        let at = at.checked_add(self.taken)?;
        self.chunks.get(at / CHUNK)?.get(at % CHUNK)
    }

    pub(crate) fn front(&self) -> Option<&Entry> {
        self.get(0)
    }

    pub(crate) fn back(&self) -> Option<&Entry> {
        self.get(self.length.checked_sub(1)?)
    }

    /// Those from `first` on.
    pub(crate) fn iter_from(&self, first: usize) -> impl DoubleEndedIterator<Item = &Entry> {
        (first..self.length).filter_map(|at| self.get(at))
    }

    pub(crate) fn push_back(&mut self, entry: Entry) {
        match self.chunks.back_mut().filter(|chunk| chunk.len() < CHUNK) {
            Some(chunk) => Arc::make_mut(chunk).push(entry),
            None => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(entry);
                self.chunks.push_back(Arc::new(chunk));
            }
        }
        self.length += 1;
    }

    pub(crate) fn pop_back(&mut self) -> Option<Entry> {
        self.length = self.length.checked_sub(1)?;
        let chunk = Arc::make_mut(self.chunks.back_mut()?);
        let entry = chunk.pop();
        if chunk.is_empty() || self.length == 0 {
            self.chunks.pop_back();
        }
        self.end_chunk();
        entry
    }

    pub(crate) fn pop_front(&mut self) -> Option<Entry> {
        self.length = self.length.checked_sub(1)?;
        let chunk = self.chunks.front_mut()?;
        let entry = match Arc::get_mut(chunk) {
            // What it holds is freed now, not with its chunk.
            Some(chunk) => std::mem::replace(&mut chunk[self.taken], GONE),
            None => chunk[self.taken].clone(),
        };
        self.taken += 1;
        self.end_chunk();
        Some(entry)
    }

    /// Takes out the first `count`, which stay where copies have them.
    pub(crate) fn skip(&mut self, count: usize) {
        let count = count.min(self.length);
        self.length -= count;
        self.taken += count;
        self.chunks.drain(..(self.taken / CHUNK).min(self.chunks.len()));
        self.taken %= CHUNK;
        self.end_chunk();
    }

    /// Drops the first chunk if nothing is left in it.
    fn end_chunk(&mut self) {
        if self.length == 0 {
            self.chunks.clear();
            self.taken = 0;
        } else if self.taken == CHUNK {
            self.chunks.pop_front();
            self.taken = 0;
        }
    }
}

/// Where an entry was that has been taken out.
const GONE: Entry = Entry {
    term: Term(0),
    payload: Payload::Noop,
};

#[cfg(test)]
mod tests {
    use trilemma_core::rng::Rng;

    use super::*;

    fn entry(term: u64) -> Entry {
        Entry {
            term: Term(term),
            payload: Payload::Noop,
        }
    }

    #[test]
    fn it_is_a_queue_with_two_ends_and_copies_do_not_change() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let (mut entries, mut model) = (Entries::default(), VecDeque::new());
            let mut copies: Vec<(Entries, VecDeque<Entry>)> = Vec::new();
            for step in 1..4000 {
                match rng.below(if step < 2000 { 12 } else { 20 }) {
                    0..8 => {
                        entries.push_back(entry(step));
                        model.push_back(entry(step));
                    }
                    8..10 => assert_eq!(entries.pop_back(), model.pop_back()),
                    10 => copies.push((entries.clone(), model.clone())),
                    11 if step % 7 == 0 => {
                        let count = rng.below(200) as usize;
                        entries.skip(count);
                        model.drain(..count.min(model.len()));
                    }
                    _ => assert_eq!(entries.pop_front(), model.pop_front()),
                }
                assert_eq!(entries.len(), model.len());
                assert_eq!((entries.front(), entries.back()), (model.front(), model.back()));
                let at = rng.below(model.len() as u64 + 2) as usize;
                assert_eq!(entries.get(at), model.get(at));
                if step % 100 == 0 {
                    assert!(entries.iter_from(at).eq(model.iter().skip(at)));
                    assert!(entries.iter_from(0).rev().eq(model.iter().rev()));
                }
            }
            for (entries, model) in copies {
                assert!(entries.iter_from(0).eq(&model), "a copy has changed");
            }
            while let Some(last) = model.pop_back() {
                assert_eq!(entries.pop_back(), Some(last));
            }
            assert!(entries.chunks.is_empty());
        }
    }

    #[test]
    fn a_copy_of_many_entries_copies_none_of_them() {
        let mut entries = Entries::default();
        (0..100_000).for_each(|term| entries.push_back(entry(term)));
        let copy = entries.clone();
        entries.push_back(entry(100_000));
        let mut pairs = entries.chunks.iter().zip(&copy.chunks);
        let shared = pairs
            .by_ref()
            .filter(|(one, other)| Arc::ptr_eq(one, other))
            .count();
        assert!(
            shared >= copy.chunks.len() - 1,
            "{shared} of {}",
            copy.chunks.len()
        );
    }
}
