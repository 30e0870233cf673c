//! Changes whose stamps are too far ahead of our clock: reflected and kept, but not shown before their time.
//!
//! Showing one would let a broken clock win over every honest write until real time has caught up, and following it
//! would spread the fault. So a deferred change is in the store and in the context like any other (it is logged, it is
//! served to peers, digests cover it), and for its key this module keeps a *shadow*: the siblings as they would be
//! without it. Reads, and what local writes observe, go by the shadow. When time has come the change is merged into the
//! shadow, and with the last one of a key the shadow goes.
//!
//! A member that defers a change must not count as having acknowledged it: its next write of the key would not observe
//! it, so the change cannot be collected yet. Comparisons and pulls name what is deferred.
//!
//! Were such entries kept out of store and context, contexts could not be joined as long as one is deferred, and
//! collection would stop everywhere for as long as a clock had been ahead.

use std::collections::{BTreeMap, BTreeSet};

use trilemma_core::tree::Tree;
use trilemma_core::{Key, WallTime};

use crate::clock::{Stamp, is_acceptable};
use crate::config::GossipConfig;
use crate::dot::Dot;
use crate::message::{COMMAND_ITEMS_BYTES_MAX, ITEMS_MAX, size};
use crate::replica::{Item, Replica, Sibling, Siblings, merge, winner};
use crate::typed::is_part;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deferred {
    by_stamp: BTreeMap<(Stamp, Dot), Item>,
    dots: BTreeSet<Dot>,
    bytes: usize,
    shadows: Tree<Key, Shadow>,
}

/// A key as it would be without what is deferred.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shadow {
    siblings: Siblings,
    /// The deferred changes of the key.
    waiting: BTreeSet<(Stamp, Dot)>,
}

impl Shadow {
    /// The siblings of the key without what is deferred.
    pub(crate) fn siblings(&self) -> &[Sibling] {
        &self.siblings
    }
}

impl Deferred {
    /// Number of changes that are deferred.
    pub(crate) fn len(&self) -> usize {
        self.dots.len()
    }

    /// Their names.
    pub(crate) fn dots(&self) -> &BTreeSet<Dot> {
        &self.dots
    }

    /// Whether some change of the key is deferred.
    pub(crate) fn holds(&self, key: &[u8]) -> bool {
        self.shadows.contains_key(key)
    }

    /// The keys that have a shadow. A clone is O(1).
    pub(crate) fn shadows(&self) -> &Tree<Key, Shadow> {
        &self.shadows
    }

    /// The deferred changes, by stamp.
    pub(crate) fn items(&self) -> impl Iterator<Item = &Item> {
        self.by_stamp.values()
    }

    /// The siblings in all shadows.
    pub(crate) fn shadowed(&self) -> impl Iterator<Item = &Item> {
        let siblings = self.shadows.values().flat_map(Shadow::siblings);
        siblings.map(|sibling| &sibling.item)
    }

    /// The siblings of a key that reads may see, where they are not those of the store.
    pub(crate) fn shadow(&self, key: &[u8]) -> Option<&[Sibling]> {
        self.shadows.get(key).map(Shadow::siblings)
    }

    /// Keys that exist for readers less those that exist in the store.
    pub(crate) fn visible_more(&self, replica: &Replica) -> i64 {
        let exists = |winner: Option<&Sibling>| winner.is_some_and(|sibling| sibling.item.content.is_some());
        let more = |(key, shadow): (&Key, &Shadow)| {
            i64::from(exists(winner(&shadow.siblings))) - i64::from(exists(replica.winner(key)))
        };
        let plain = self.shadows.iter().filter(|(key, _)| !is_part(key));
        plain.map(more).sum()
    }

    /// Whether there is room for the changes of one command.
    pub(crate) fn has_room(&self, command: &[Item], config: &GossipConfig) -> bool {
        self.dots.len() + command.len() <= config.deferred_max
            && self.bytes + size(command) <= config.deferred_bytes_max
    }

    /// Whether another part of the same command is deferred.
    pub(crate) fn holds_part_of(&self, item: &Item) -> bool {
        let first = item.command();
        let last = Dot {
            seq: first.seq.saturating_add(u64::from(item.part.of)),
            ..first
        };
        self.dots.range(first..last).next().is_some()
    }

    /// Whether the time of some change has come.
    pub(crate) fn is_due(&self, wall: WallTime, config: &GossipConfig) -> bool {
        let first = self.by_stamp.first_key_value();
        first.is_some_and(|((stamp, _), _)| is_acceptable(*stamp, wall, config.accept_drift))
    }

    /// Defers one change that the store does not hold yet. Call before the store takes it.
    pub(crate) fn add(&mut self, replica: &Replica, item: &Item) {
        debug_assert!(
            replica.item(item.dot).is_none(),
            "{} is in the store already",
            item.dot
        );
        if !self.dots.insert(item.dot) {
            return;
        }
        self.bytes += item.size();
        self.by_stamp.insert((item.stamp, item.dot), item.clone());
        let shadow = self.shadows.get_or_insert_with(item.key.clone(), || Shadow {
            siblings: replica.shared_siblings(&item.key),
            waiting: BTreeSet::new(),
        });
        shadow.waiting.insert((item.stamp, item.dot));
    }

    /// Takes a change that is not deferred into the shadow of its key, if there is one. Deferred changes that it has
    /// observed are over: their time will not come.
    pub(crate) fn join(&mut self, item: &Item) {
        let Some(shadow) = self.shadows.get_mut(&item.key) else {
            return;
        };
        if !shadow.siblings.iter().any(|sibling| sibling.item.dot == item.dot) {
            shadow.siblings.change(|siblings| merge(siblings, item));
        }
        let over = shadow.waiting.iter().copied();
        let over: Vec<(Stamp, Dot)> = over.filter(|(_, dot)| item.observed.covers(*dot)).collect();
        for (stamp, dot) in over {
            self.take(stamp, dot);
        }
    }

    /// Takes a change that was restored into the shadow of its key, unless it is deferred itself.
    pub(crate) fn join_restored(&mut self, item: &Item) {
        if !self.dots.contains(&item.dot) {
            self.join(item);
        }
    }

    /// Brings back a deferred change of a checkpoint. What the shadow of its key holds comes apart. `false` if there is
    /// one of this name already.
    pub(crate) fn restore(&mut self, item: &Item) -> bool {
        let is_new = !self.dots.contains(&item.dot);
        if is_new {
            self.shadows.get_or_insert_with(item.key.clone(), Shadow::default);
            self.add(&Replica::default(), item);
        }
        is_new
    }

    /// Brings back what a checkpoint says of a shadow. `false` if nothing of the key is deferred.
    pub(crate) fn restore_shadow(&mut self, item: &Item) -> bool {
        let shadow = self.shadows.get_mut(&item.key);
        shadow
            .map(|shadow| shadow.siblings.change(|siblings| merge(siblings, item)))
            .is_some()
    }

    /// The next changes whose time has come, at most about a page: whole commands, but for one that is larger than a command
    /// can be. A peer that makes up such a one, in messages of its own, must not make a record that the log does not take.
    pub(crate) fn due(&self, wall: WallTime, config: &GossipConfig) -> Vec<Item> {
        let mut page: Vec<Item> = Vec::new();
        let mut bytes = 0;
        for ((stamp, _), item) in &self.by_stamp {
            let next_command = page.last().is_some_and(|last| last.command() != item.command());
            let is_full = bytes >= config.page_bytes || page.len() + usize::from(item.part.of) > ITEMS_MAX;
            if !is_acceptable(*stamp, wall, config.accept_drift)
                || next_command && is_full
                || page.len() == ITEMS_MAX
                || bytes + item.size() > config.page_bytes + COMMAND_ITEMS_BYTES_MAX
            {
                break;
            }
            bytes += item.size();
            page.push(item.clone());
        }
        debug_assert!(page.len() <= ITEMS_MAX, "a record that no restart would read");
        page
    }

    /// Shows a deferred change from now on. `false` if it was not deferred.
    pub(crate) fn show(&mut self, item: &Item) -> bool {
        let Some(item) = self.take(item.stamp, item.dot) else {
            return false;
        };
        self.join(&item);
        true
    }

    /// Forgets a change of `key` wherever it stands here.
    pub(crate) fn remove(&mut self, key: &Key, dot: Dot) {
        let Some(shadow) = self.shadows.get_mut(key) else {
            return;
        };
        shadow
            .siblings
            .change(|siblings| siblings.retain(|sibling| sibling.item.dot != dot));
        let deferred = shadow.waiting.iter().find(|(_, other)| *other == dot).copied();
        if let Some((stamp, dot)) = deferred {
            self.take(stamp, dot);
        }
    }

    /// Takes one change out; the last one of a key takes the shadow along.
    fn take(&mut self, stamp: Stamp, dot: Dot) -> Option<Item> {
        let item = self.by_stamp.remove(&(stamp, dot))?;
        self.dots.remove(&dot);
        self.bytes -= item.size();
        if let Some(shadow) = self.shadows.get_mut(&item.key) {
            let waited = shadow.waiting.remove(&(stamp, dot));
            assert!(waited, "a shadow that does not know what is deferred");
            if shadow.waiting.is_empty() {
                self.shadows.remove(&item.key);
            }
        }
        Some(item)
    }

    /// The module's own invariants.
    pub(crate) fn check(&self, replica: &Replica) {
        assert_eq!(
            self.dots.len(),
            self.by_stamp.len(),
            "names and bodies of what is deferred"
        );
        assert!(
            self.shadows.len() <= self.dots.len(),
            "a shadow of a key with nothing deferred"
        );
        debug_assert_eq!(self.bytes, self.by_stamp.values().map(Item::size).sum::<usize>());
        debug_assert!(
            self.dots.iter().all(|dot| replica.context().contains(*dot)),
            "a deferred change that is not reflected"
        );
        debug_assert_eq!(
            self.shadows
                .values()
                .map(|shadow| shadow.waiting.len())
                .sum::<usize>(),
            self.dots.len()
        );
    }
}

#[cfg(test)]
mod tests;
