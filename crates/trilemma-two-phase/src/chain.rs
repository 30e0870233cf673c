//! A member's chain: batches it has prepared whose outcome it does not know, and the keys they touch.

use std::collections::VecDeque;
use std::sync::Arc;

use trilemma_core::{Instant, Key, KeyRange, Query, Version};

use crate::batch::Batch;
use crate::ids::BatchId;

/// One prepared batch.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) batch: Arc<Batch>,
    /// The keys it may change, sorted.
    keys: Vec<Key>,
    /// Since when it is in doubt here.
    pub(crate) since: Instant,
}

/// The prepared batches, each chained on the one before, the first on the last decided batch.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    links: VecDeque<Prepared>,
}

impl Prepared {
    fn check_after(&self, before: &Prepared) {
        let (batch, before) = (&self.batch, &before.batch);
        assert_eq!(
            batch.prev, before.id,
            "batch {} is chained on the one before it",
            batch.id
        );
        assert!(
            batch.id > before.id,
            "batch {} comes after {}",
            batch.id,
            before.id
        );
        assert!(
            batch.fits(before.last()),
            "batch {} continues the positions",
            batch.id
        );
    }

    /// Number of keys it may change.
    pub(crate) fn keys(&self) -> usize {
        self.keys.len()
    }
}

impl Chain {
    pub(crate) fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Prepared> {
        self.links.iter()
    }

    pub(crate) fn ids(&self) -> impl DoubleEndedIterator<Item = BatchId> + '_ {
        self.links.iter().map(|link| link.batch.id)
    }

    pub(crate) fn contains(&self, id: BatchId) -> bool {
        self.find(id).is_ok()
    }

    fn find(&self, id: BatchId) -> Result<usize, usize> {
        self.links.binary_search_by_key(&id, |link| link.batch.id)
    }

    pub(crate) fn get(&self, id: BatchId) -> Option<&Prepared> {
        self.find(id).ok().and_then(|index| self.links.get(index))
    }

    pub(crate) fn tip(&self) -> Option<&Batch> {
        self.links.back().map(|link| &*link.batch)
    }

    /// The end of the chain up to `id`, which is on it.
    pub(crate) fn end_of(&self, id: BatchId) -> Option<Version> {
        self.get(id).map(|link| link.batch.last())
    }

    pub(crate) fn push(&mut self, batch: Arc<Batch>, now: Instant) {
        if let Some(tip) = self.tip() {
            assert!(
                batch.prev == tip.id,
                "batch {} is not chained on {}",
                batch.id,
                tip.id
            );
        }
        let keys = batch.keys();
        self.links.push_back(Prepared {
            batch,
            keys,
            since: now,
        });
        self.check();
    }

    /// The chain's invariants: each batch follows the one before it, in name and in position. Of the older links the
    /// same was checked when they were the newest; builds with debug assertions look at all of them.
    pub(crate) fn check(&self) {
        let mut newest = self.links.iter().rev();
        if let (Some(tip), Some(before)) = (newest.next(), newest.next()) {
            tip.check_after(before);
        }
        if cfg!(debug_assertions) {
            let pairs = self.links.iter().zip(self.links.iter().skip(1));
            pairs.for_each(|(before, link)| link.check_after(before));
        }
    }

    /// Takes the first batch, if it is not beyond `id`.
    pub(crate) fn pop_through(&mut self, id: BatchId) -> Option<Prepared> {
        self.links.front().filter(|link| link.batch.id <= id)?;
        self.links.pop_front()
    }

    /// Takes the last batch, if it is beyond `id`.
    pub(crate) fn pop_beyond(&mut self, id: BatchId) -> Option<Prepared> {
        self.links.back().filter(|link| link.batch.id > id)?;
        self.links.pop_back()
    }

    /// What is in doubt counts from now: this incarnation has just begun.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.links.iter_mut().for_each(|link| link.since = now);
    }

    /// The last batch up to `bound` that may change what `query` looks at.
    pub(crate) fn last_touching(&self, query: &Query, bound: BatchId) -> Option<&Prepared> {
        let mut links = self.links.iter().rev().filter(|link| link.batch.id <= bound);
        match query {
            Query::Get(key) | Query::Siblings(key) | Query::Typed { key, .. } => {
                links.find(|link| link.keys.binary_search(key).is_ok())
            }
            Query::Range { range, .. } => links.find(|link| touches(&link.keys, range)),
        }
    }
}

fn touches(keys: &[Key], range: &KeyRange) -> bool {
    let first = keys.partition_point(|key| *key < range.start);
    keys.get(first).is_some_and(|key| range.contains(key))
}

#[cfg(test)]
mod tests;
