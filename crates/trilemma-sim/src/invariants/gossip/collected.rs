//! What collection takes away: nobody may still need it.

use std::collections::BTreeSet;

use trilemma_core::Key;
use trilemma_gossip::dot::Dot;
use trilemma_gossip::replica::{Replica, Sibling};

/// Something that a node has forgotten.
pub(super) struct Collected {
    pub(super) key: Key,
    /// The change whose observed set, or which itself, is gone.
    pub(super) change: Sibling,
    /// Whether it was a tombstone that is gone itself.
    pub(super) is_tombstone: bool,
}

impl Collected {
    /// What all members must reflect for it: the change, and whatever its origins made up to each change that it observed.
    pub(super) fn needed(&self) -> BTreeSet<(Dot, bool)> {
        let item = &self.change.item;
        let observed = item.observed.iter().map(|dot| (dot, true));
        observed.chain([(item.dot, false)]).collect()
    }

    /// A change of the key that the tombstone would have been held against.
    pub(super) fn would_hide<'a>(&self, siblings: &'a [Sibling]) -> Option<&'a Sibling> {
        let below = |sibling: &&Sibling| {
            self.is_tombstone
                && sibling.rank() < self.change.rank()
                && !sibling.item.observed.covers(self.change.item.dot)
        };
        siblings.iter().find(below)
    }
}

/// What a node has forgotten in a turn, and did not replace or `remove`.
pub(super) fn collected(before: &Replica, after: &Replica, removed: &BTreeSet<Dot>) -> Vec<Collected> {
    let mut all = Vec::new();
    for (key, old, new) in after.changed_since(before) {
        for change in old {
            let dot = change.item.dot;
            let still = new.iter().find(|sibling| sibling.item.dot == dot);
            let is_replaced = new.iter().any(|sibling| sibling.item.observed.covers(dot));
            let is_tombstone = still.is_none() && change.item.content.is_none();
            let is_pruned =
                still.is_some_and(|still| still.item.observed.is_empty() && !change.item.observed.is_empty());
            if is_pruned || is_tombstone && !is_replaced && !removed.contains(&dot) {
                all.push(Collected {
                    key: key.clone(),
                    change: change.clone(),
                    is_tombstone,
                });
            }
        }
    }
    all
}
