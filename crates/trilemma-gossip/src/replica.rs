//! The replicated state of one keyspace: a dot store with its context. Merging is a lattice join.
//!
//! **What a key is.** A set of *siblings*: changes none of which has observed another. The winner, the sibling with
//! the greatest (stamp, origin, content hash), is picked when the key is read and never when replicas merge:
//! dropping the loser at the merge is not associative. A change carries what it has observed of its key, and removes
//! that wherever it arrives, whatever the clocks say.
//!
//! **A delete is a change too**: a tombstone with dot and stamp. Against a concurrent write the newer stamp wins, in
//! both directions: the older one is hidden for good, also when a third change wins over both. A write that had
//! observed the tombstone always wins, and the reverse. The parts of values of data types (module `typed`) are the one
//! exception: there a tombstone hides nothing, and only what it has observed goes.
//!
//! **The invariant that makes synchronisation exact**: if the context holds a dot, the store *reflects* it: nothing
//! that the change had observed is in the store, and nothing of that kind will be accepted. So a peer that sends
//! every live change outside of our context, and then its context, has sent us everything: what we hold and it has
//! removed was removed by a chain of changes whose last link is among those sent (observed sets are transitive).
//!
//! **Collection** ([`Replica::collect`]) forgets observed sets and tombstones once every member has acknowledged to
//! reflect them. It changes nothing that is visible, now or later, so replicas may do it at different times.

mod elements;
mod index;
mod item;
mod live;
mod siblings;

use std::ops::Bound;

use trilemma_core::tree::Tree;
use trilemma_core::{Entry, Key, Versioned};

use crate::context::Context;
use crate::dot::{Dot, Observed};
use crate::reconcile::{Secret, Sketch};
use elements::{Elements, Symbols, element};
use index::Index;
use siblings::{has_tombstone, hides};

pub(crate) use elements::dot_of;
pub use item::{Item, Part};
pub use siblings::{Rank, Sibling};
pub(crate) use siblings::{Siblings, merge, observed, values, winner};

/// The store and its context. A clone is O(1) and shares memory.
#[derive(Clone, Debug, Default)]
pub struct Replica {
    context: Context,
    keys: Tree<Key, Siblings>,
    index: Index,
    symbols: Symbols,
}

/// Largest store whose figures are counted again at the end of every step of a debug build.
const RECOUNT_MAX: usize = 64;

/// What taking in an item did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// Nothing: the context had it.
    Stale,
    /// It is covered now; a later change had already replaced it.
    Superseded,
    /// It is a sibling now.
    Live,
}

/// What taking in an item has made of its key.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) joined: Joined,
    /// What readers of the whole store would have seen before, and see now.
    pub(crate) was: Option<Versioned>,
    pub(crate) now: Option<Versioned>,
    /// Number of siblings now.
    pub(crate) siblings: usize,
}

impl Replica {
    /// An empty store whose symbols are made under a secret that all members share.
    #[must_use]
    pub fn new(secret: Secret) -> Self {
        Self {
            symbols: Symbols::new(secret),
            ..Self::default()
        }
    }

    /// The symbols of all live changes, for exchanges in which contexts do not tell what differs.
    #[must_use]
    pub fn sketch(&self) -> &Sketch {
        &self.symbols.sketch
    }

    /// The symbols of the live changes that `context` holds, and the other ones, ascending. `None` if those are more than
    /// `limit`.
    pub(crate) fn sketch_within(&self, context: &Context, limit: usize) -> Option<(Sketch, Vec<Dot>)> {
        let spans = self.context.minus(context);
        let (mut sketch, mut outside) = (self.sketch().clone(), Vec::new());
        for (looked, (dot, _)) in self.live_within(&spans, None).enumerate() {
            if looked == limit {
                return None;
            }
            let siblings = self.index.live.get(dot).map_or(&[][..], |siblings| siblings);
            let named = siblings.iter().find(|sibling| sibling.item.dot == dot);
            if let Some(sibling) = named.filter(|_| !context.contains(dot)) {
                sketch.remove(element(sibling));
                outside.push(dot);
            }
        }
        Some((sketch, outside))
    }

    /// What the store reflects.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Number of keys that exist, without parts of data types.
    #[must_use]
    pub fn visible(&self) -> u64 {
        self.index.visible
    }

    /// Number of parts of values of data types, deleted ones among them until they are collected.
    #[must_use]
    pub fn parts(&self) -> u64 {
        self.index.parts
    }

    /// Number of keys with more than one sibling.
    #[must_use]
    pub fn contested(&self) -> u64 {
        self.index.contested
    }

    /// Number of live changes, tombstones included.
    #[must_use]
    pub fn live(&self) -> usize {
        self.index.live.len()
    }

    /// Number of live changes that wait for collection: tombstones and changes with observed sets.
    #[must_use]
    pub fn uncollected(&self) -> usize {
        self.index.uncollected.len()
    }

    /// A digest of everything that reads can see, concurrent values included. Equal contexts have equal digests.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.index.digest
    }

    /// All siblings of a key, in no order.
    #[must_use]
    pub fn siblings(&self, key: &[u8]) -> &[Sibling] {
        self.keys.get(key).map_or(&[], |siblings| siblings)
    }

    /// Whether a tombstone of the key hides some other sibling, so that a write-back is needed before it can go.
    #[must_use]
    pub fn hides(&self, key: &[u8]) -> bool {
        hides(self.siblings(key))
    }

    /// The key of a live change.
    #[must_use]
    pub fn key_of(&self, dot: Dot) -> Option<&Key> {
        self.index.live.get(dot)?.key()
    }

    /// The state of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Versioned> {
        state(self.siblings(key))
    }

    /// The winning sibling of a key, which may be a tombstone.
    #[must_use]
    pub fn winner(&self, key: &[u8]) -> Option<&Sibling> {
        winner(self.siblings(key))
    }

    /// Every concurrent value of a key, the winner first; none that is older than a concurrent delete.
    #[must_use]
    pub fn values(&self, key: &Key) -> Vec<Entry> {
        values(key, self.siblings(key))
    }

    /// All siblings of all keys. A clone is O(1).
    pub(crate) fn keys(&self) -> &Tree<Key, Siblings> {
        &self.keys
    }

    /// All siblings of a key, to be kept.
    pub(crate) fn shared_siblings(&self, key: &[u8]) -> Siblings {
        self.keys.get(key).cloned().unwrap_or_default()
    }

    /// What a new change of `key` made here has observed.
    #[must_use]
    pub fn observed(&self, key: &[u8]) -> Observed {
        observed(self.siblings(key))
    }

    /// Whether some sibling of its key has observed this change.
    pub(crate) fn has_observed(&self, item: &Item) -> bool {
        let mut siblings = self.siblings(&item.key).iter();
        siblings.any(|sibling| sibling.item.observed.covers(item.dot))
    }

    /// Takes in one change. Commutative, associative and idempotent.
    pub fn join(&mut self, item: &Item) -> Joined {
        self.take_in(item).map_or(Joined::Stale, |taken| taken.joined)
    }

    /// The same, and what it has made of the key; `None` if the context had it.
    pub(crate) fn take_in(&mut self, item: &Item) -> Option<Taken> {
        if self.context.contains(item.dot) {
            return None;
        }
        self.context.insert(item.dot);
        // What the change observed is reflected from now on, also where its body never came: it must not be
        // accepted when it arrives late.
        item.observed.iter().for_each(|dot| self.context.insert(dot));
        let taken = self.replace(&item.key, |siblings| {
            let was = state(siblings);
            let is_live = merge(siblings, item);
            Taken {
                joined: if is_live { Joined::Live } else { Joined::Superseded },
                was,
                now: state(siblings),
                siblings: siblings.len(),
            }
        });
        debug_assert_eq!(
            self.item(item.dot).is_some(),
            taken.joined == Joined::Live,
            "an index that forgets {}",
            item.dot
        );
        Some(taken)
    }

    /// Takes in a context whose bodies, all of them, have been taken in before.
    pub fn join_context(&mut self, context: &Context) {
        self.context.join(context);
    }

    /// Takes in a change that another replica shows although this one, with an equal context, does not: one of the two
    /// is wrong, and nobody can tell which, so what either shows stays. Commutative, associative and idempotent, but for a
    /// name that was given to changes of two keys: each replica keeps its own.
    ///
    /// Returns whether the store has changed.
    pub fn restore(&mut self, item: &Item) -> bool {
        let known = self.item(item.dot);
        if known.is_some_and(|known| known == item || known.key != item.key) {
            return false;
        }
        self.context.insert(item.dot);
        item.observed.iter().for_each(|dot| self.context.insert(dot));
        let before: Vec<Dot> = self.dots(&item.key);
        let mut is_changed = false;
        self.replace(&item.key, |siblings| {
            let known = siblings.iter_mut().find(|sibling| sibling.item.dot == item.dot);
            if let Some(known) = known {
                // One name for two changes: the greater rank stays, and all that either had observed.
                let mut other = Sibling::new(item.clone());
                is_changed = other.rank() > known.rank() || other.item.observed != known.item.observed;
                other.item.observed.merge(&known.item.observed);
                known.item.observed.merge(&item.observed);
                if other.rank() > known.rank() {
                    *known = other;
                }
                let observed = known.item.observed.clone();
                siblings.retain(|sibling| !observed.covers(sibling.item.dot));
            } else {
                merge(siblings, item);
            }
        });
        is_changed || before != self.dots(&item.key)
    }

    /// Removes a live change that another replica reflects and does not hold. Its name stays in the context.
    pub fn remove(&mut self, dot: Dot) {
        if let Some(key) = self.key_of(dot).cloned() {
            debug_assert!(
                self.context.contains(dot),
                "a live change that is not reflected: {dot}"
            );
            self.replace(&key, |siblings| {
                siblings.retain(|sibling| sibling.item.dot != dot)
            });
        }
    }

    fn dots(&self, key: &Key) -> Vec<Dot> {
        let siblings = self.siblings(key).iter();
        siblings.map(|sibling| sibling.item.dot).collect()
    }

    /// Those of the next `limit` live changes after `after` that `other` reflects and its owner does not hold, as `is_listed`
    /// says; and the last one looked at, if there are more.
    #[must_use]
    pub fn dead_elsewhere(
        &self,
        other: &Context,
        is_listed: impl Fn(Dot) -> bool,
        after: Option<Dot>,
        limit: usize,
    ) -> (Vec<Dot>, Option<Dot>) {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let live = self.index.live.range(start, Bound::Unbounded);
        let looked: Vec<Dot> = live.take(limit).map(|(dot, _)| dot).collect();
        let last = looked.last().copied().filter(|_| looked.len() == limit);
        let is_dead = |dot: &Dot| other.contains(*dot) && !is_listed(*dot);
        (looked.into_iter().filter(is_dead).collect(), last)
    }

    /// Changes the siblings of one key and keeps every index and figure in step.
    fn replace<T>(&mut self, key: &Key, change: impl FnOnce(&mut Vec<Sibling>) -> T) -> T {
        let Some(siblings) = self.keys.get_mut(&key[..]) else {
            let mut siblings = Vec::new();
            let result = change(&mut siblings);
            if !siblings.is_empty() {
                let siblings = Siblings::from(siblings);
                self.index.add(&siblings);
                self.symbols
                    .replace(&Elements::default(), &Elements::of(&siblings));
                self.keys.insert(key.clone(), siblings);
                self.grow();
            }
            return result;
        };
        self.index.remove(siblings);
        let before = Elements::of(siblings);
        let result = siblings.change(change);
        self.index.add(siblings);
        self.symbols.replace(&before, &Elements::of(siblings));
        if siblings.is_empty() {
            self.keys.remove(&key[..]);
        }
        self.grow();
        result
    }

    /// Gives a store that has grown more symbols.
    fn grow(&mut self) {
        let live = self.index.live.len();
        if self.symbols.sketch.is_outgrown(live) {
            let siblings = self.keys.values().flat_map(|siblings| siblings.iter());
            self.symbols.sketch.grow(live, siblings.map(element));
        }
    }

    /// The live change of this name.
    #[must_use]
    pub fn item(&self, dot: Dot) -> Option<&Item> {
        self.index.live.get(dot)?.item(dot)
    }

    /// The live change of this name and key.
    pub(crate) fn item_of(&self, key: &Key, dot: Dot) -> Option<&Item> {
        self.keys.get(&key[..])?.item(dot)
    }

    /// The keys whose siblings are not what they were in `before`, with the siblings then and now, for checkers and tests.
    pub fn changed_since<'a>(
        &'a self,
        before: &'a Replica,
    ) -> impl Iterator<Item = (&'a Key, &'a [Sibling], &'a [Sibling])> {
        let all = |siblings: Option<&'a Siblings>| siblings.map_or(&[][..], |siblings| siblings);
        let changes = self.keys.changes_since(&before.keys);
        changes.map(move |(key, then, now)| (key, all(then), all(now)))
    }

    /// The live changes after `after` within `spans` (ascending), with their keys, in dot order.
    pub(crate) fn live_within<'a>(
        &'a self,
        spans: &'a [(Dot, Dot)],
        after: Option<Dot>,
    ) -> impl Iterator<Item = (Dot, &'a Key)> {
        let passed = spans.partition_point(|(_, last)| after.is_some_and(|after| *last <= after));
        spans[passed..].iter().flat_map(move |&(first, last)| {
            let start = match after {
                Some(after) if after >= first => Bound::Excluded(after),
                _ => Bound::Included(first),
            };
            let live = self.index.live.range(start, Bound::Included(last));
            live.filter_map(|(dot, siblings)| Some((dot, siblings.key()?)))
        })
    }

    /// Every live change after `after` in dot order.
    pub fn all_items_after(&self, after: Option<Dot>) -> impl Iterator<Item = &Item> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.index
            .live
            .range(start, Bound::Unbounded)
            .filter_map(|(dot, siblings)| siblings.item(dot))
    }

    /// The next live changes after `after` that collection can do something for, at most `limit`.
    #[must_use]
    pub fn uncollected_after(&self, after: Option<Dot>, limit: usize) -> Vec<Dot> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.index
            .uncollected
            .range((start, Bound::Unbounded))
            .take(limit)
            .map(|(dot, ())| *dot)
            .collect()
    }

    /// Forgets what no member needs any more about the key of `dot`. Returns whether anything was forgotten.
    ///
    /// `is_stable` says whether every member has acknowledged to reflect a change and everything it observed, and all
    /// that those members had written by then is here.
    ///
    /// A tombstone goes only when *every* sibling of its key is stable: a write still on its way would otherwise be
    /// judged against different siblings here and elsewhere. And it goes only when it hides nothing: a later write of
    /// the same incarnation covers it on replicas that have not collected yet, and would bring back there what it hid.
    /// Such a key is written back first, see [`Replica::hides`].
    pub fn collect(&mut self, dot: Dot, is_stable: impl Fn(&Item) -> bool) -> bool {
        let Some(key) = self.key_of(dot).cloned() else {
            return false;
        };
        let siblings = self.siblings(&key);
        let all_stable = siblings.iter().all(|sibling| is_stable(&sibling.item));
        // What hides nothing is one tombstone that wins, or, of a part of a data type, any number of them.
        let cut = all_stable && has_tombstone(siblings) && !hides(siblings);
        let prune = siblings
            .iter()
            .any(|sibling| !sibling.item.observed.is_empty() && is_stable(&sibling.item));
        if !cut && !prune {
            return false;
        }
        let digest = self.index.digest;
        self.replace(&key, |siblings| {
            siblings.retain(|sibling| !cut || sibling.item.content.is_some());
            for sibling in siblings.iter_mut().filter(|sibling| is_stable(&sibling.item)) {
                sibling.item.observed.clear();
            }
        });
        assert!(self.index.digest == digest, "what was collected of {key} is seen");
        debug_assert!(!self.hides(&key) || !cut, "a tombstone went that hid something");
        true
    }

    /// The store's own invariants.
    pub(crate) fn check(&self) {
        assert!(
            self.keys.len() <= self.index.live.len(),
            "a key without a live change"
        );
        assert!(
            self.index.uncollected.len() <= self.index.live.len(),
            "more to collect than there is"
        );
        let keys = self.keys.len() as u64;
        assert!(
            self.index.visible <= keys && self.index.contested <= keys,
            "more keys shown than there are"
        );
        debug_assert!(
            self.index.live.len() > RECOUNT_MAX || self.is_counted(),
            "a figure is wrong: {self:?}"
        );
        if self.index.live.len() <= RECOUNT_MAX {
            self.context.check();
        }
    }

    /// Whether every index and figure is what the siblings of all keys make it, and whether none of them has observed
    /// another.
    fn is_counted(&self) -> bool {
        let mut index = Index::default();
        self.keys.values().for_each(|siblings| index.add(siblings));
        let siblings = || self.keys.values().flat_map(|siblings| siblings.iter());
        let covered = siblings().all(|sibling| self.context.contains(sibling.item.dot));
        let apart = self.keys.values().all(|siblings| {
            let observes = |item: &Item| siblings.iter().any(|other| other.item.observed.covers(item.dot));
            !siblings.is_empty() && !siblings.iter().any(|sibling| observes(&sibling.item))
        });
        let sketch = Sketch::of(self.sketch().secret(), siblings().map(element));
        let symbols = sketch.symbols().iter().zip(self.sketch().symbols());
        covered && apart && index == self.index && symbols.into_iter().all(|(one, other)| one == other)
    }
}

/// What readers see of a key with these siblings.
fn state(siblings: &[Sibling]) -> Option<Versioned> {
    winner(siblings).and_then(Sibling::versioned)
}

#[cfg(test)]
mod tests;
