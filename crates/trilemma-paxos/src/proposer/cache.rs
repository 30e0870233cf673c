//! Ballots that acceptors have promised in advance, for writes of one round trip.

use std::collections::BTreeMap;
use std::sync::Arc;

use trilemma_core::Key;

use crate::ballot::Ballot;
use crate::register::Register;

/// A ballot that a majority has promised, at a moment when `register` was the highest that this majority held.
#[derive(Clone, Debug)]
pub(crate) struct Cached {
    /// The ballot. Never sent in an accept so far.
    pub(crate) ballot: Ballot,
    /// The ballot of `register`.
    pub(crate) base: Ballot,
    /// What to change under `ballot`.
    pub(crate) register: Arc<Register>,
}

/// The cache, bounded in two generations: when the young one is full, it becomes the old one and the old one is
/// forgotten. Forgetting costs a round trip, nothing else.
///
/// An entry leaves the cache *before* its ballot is used. So whatever then happens (conflict, timeout, cancelled
/// operation, lost answer), the ballot cannot be used a second time with another value.
#[derive(Debug)]
pub(crate) struct Cache {
    young: BTreeMap<Key, Cached>,
    old: BTreeMap<Key, Cached>,
    generation_max: usize,
}

impl Cache {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            young: BTreeMap::new(),
            old: BTreeMap::new(),
            generation_max: max / 2,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    pub(crate) fn take(&mut self, key: &Key) -> Option<Cached> {
        let old = self.old.remove(key);
        self.young.remove(key).or(old)
    }

    pub(crate) fn put(&mut self, key: &Key, cached: Cached) {
        assert!(
            cached.base < cached.ballot,
            "a promised ballot is above what its promise reported"
        );
        if self.generation_max == 0 {
            return;
        }
        self.old.remove(key);
        if self.young.len() >= self.generation_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key.clone(), cached);
        self.check();
    }

    /// The cache's invariant: no generation is larger than its share.
    pub(crate) fn check(&self) {
        assert!(
            self.young.len() <= self.generation_max,
            "the young generation is bounded"
        );
        assert!(
            self.old.len() <= self.generation_max,
            "the old generation is bounded"
        );
    }
}

#[cfg(test)]
mod tests;
