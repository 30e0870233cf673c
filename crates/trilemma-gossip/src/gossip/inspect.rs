//! What can be seen of a keyspace from outside, for checkers and tests.

use std::collections::BTreeSet;

use trilemma_core::view::View;
use trilemma_core::{DataType, Entry, Key, KeyRange, NodeId, Reason};

use super::Gossip;
use crate::clock::Stamp;
use crate::config::GossipConfig;
use crate::dot::Dot;
use crate::replica::{Replica, Sibling};

impl Gossip {
    /// A digest of everything that reads can see once nothing is deferred, concurrent values included: equal on
    /// converged replicas.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.store.replica.digest()
    }

    /// What this node reflects, deferred changes included, for checkers and tests.
    #[must_use]
    pub fn replica(&self) -> &Replica {
        &self.store.replica
    }

    /// The siblings of a key that reads may see, for checkers and tests.
    #[must_use]
    pub fn shown(&self, key: &[u8]) -> &[Sibling] {
        self.store.shown(key)
    }

    /// Whether a change is reflected and not deferred.
    #[must_use]
    pub fn is_taken(&self, dot: Dot) -> bool {
        self.store.replica.context().contains(dot) && !self.store.deferred.dots().contains(&dot)
    }

    /// The changes that are reflected and deferred, for checkers and tests.
    #[must_use]
    pub fn deferred_dots(&self) -> &BTreeSet<Dot> {
        self.store.deferred.dots()
    }

    /// The configuration, every value in its range.
    #[must_use]
    pub fn config(&self) -> &GossipConfig {
        &self.shared.config
    }

    /// Whether this disk was empty and not every member has been met since.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.rejoin.is_blank
    }

    /// Whether what a lost disk of this node may have promised to a member is made good, or nothing was lost.
    #[must_use]
    pub fn has_met(&self, peer: NodeId) -> bool {
        !self.rejoin.is_unmet(peer)
    }

    /// The newest stamp that this node has issued or followed.
    #[must_use]
    pub fn clock(&self) -> Stamp {
        self.shared.clock.last()
    }

    /// Number of changes that are not shown yet because their stamps are too far ahead.
    #[must_use]
    pub fn deferred(&self) -> usize {
        self.store.deferred.len()
    }

    /// What a value of a data type reads as, a collection with all its elements, for checkers and tests.
    pub fn typed(&self, key: &Key, of: DataType) -> Result<Vec<Entry>, Reason> {
        self.store.check_typed(key, of)?;
        if !matches!(of, DataType::Set | DataType::Map) {
            return self.store.reading(key, of);
        }
        let mut view = self.store.elements(key, of, &KeyRange::all());
        let mut entries = Vec::new();
        while !view.read(usize::MAX, usize::MAX, &mut entries).ended {}
        Ok(entries)
    }

    /// How often, in this incarnation, a member with an equal context had an unequal state.
    #[must_use]
    pub fn divergences(&self) -> u64 {
        self.exchange.divergences().values().sum()
    }
}
