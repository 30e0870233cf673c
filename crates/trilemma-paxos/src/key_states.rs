//! What a node holds of each key: one state for acceptor, learner and proposer, in one map.
//!
//! Each write of a key looks for it in several roles, and to find a key among many costs more than what is then done with
//! it. So the roles share a key state, and a register that is both accepted and known to be chosen is held once.

use std::sync::Arc;

use trilemma_core::data::map_bounds;
use trilemma_core::tree::Tree;
use trilemma_core::view::{Frozen, MapView};
use trilemma_core::{Key, KeyRange, View};

use super::acceptor::CHECKED_KEYS_MAX;
use super::ballot::Ballot;
use super::register::Register;

/// What a node holds of one key.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyState {
    /// The highest ballot promised.
    pub(crate) promised: Ballot,
    /// The ballot of the register; [`Ballot::ZERO`] if none is accepted.
    pub(crate) accepted: Ballot,
    /// The register accepted.
    pub(crate) register: Arc<Register>,
    /// The turn whose records make the acceptor's part durable as it is; 0: it came from the disk.
    pub(crate) touched: u64,
    /// The ballot under which the key's newest register was chosen, as far as this node knows.
    learned: Ballot,
    /// The digest of the register of that ballot.
    digest: u64,
    /// The register of that ballot, if it is not the one accepted.
    shown: Option<Arc<Register>>,
    /// Whether this node's proposer may use `promised` for a write of one round trip; see [`Cached`].
    is_cached: bool,
}

/// A ballot that a majority has promised in advance, at a moment when `register` was the highest that this majority held.
///
/// It leaves its key state *before* it is used. So whatever then happens (conflict, timeout, cancelled operation, lost answer),
/// it cannot be used a second time with another value. Forgetting it costs a round trip, nothing else.
#[derive(Clone, Debug)]
pub(crate) struct Cached {
    /// The ballot. Never sent in an accept so far.
    pub(crate) ballot: Ballot,
    /// The ballot of `register`.
    pub(crate) base: Ballot,
    /// What to change under `ballot`.
    pub(crate) register: Arc<Register>,
}

impl KeyState {
    /// What holds of a key state after every change. Acceptance under a ballot is a promise of that ballot, and a register
    /// comes with the ballot under which it was accepted.
    pub(crate) fn check(&self, key: &Key) {
        assert!(
            self.promised >= self.accepted,
            "the state of key {key:?} accepted {} but promised only {}",
            self.accepted,
            self.promised
        );
        assert!(
            self.accepted > Ballot::ZERO || *self.register == Register::default(),
            "key {key:?} holds a register that was never accepted"
        );
        assert_eq!(
            self.shown.is_some(),
            self.learned > Ballot::ZERO && self.learned != self.accepted,
            "key {key:?} holds a chosen register beside the accepted one if they differ"
        );
        assert!(
            !self.is_cached || self.promised > self.accepted,
            "key {key:?}: a promised ballot is above what its promise reported"
        );
    }

    /// Whether something was promised and nothing accepted.
    fn is_unwritten(&self) -> bool {
        self.accepted == Ballot::ZERO && self.promised > Ballot::ZERO
    }

    /// Whether what is accepted is not known to be chosen.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.accepted > self.learned
    }

    /// The highest ballot that refuses others: acceptance under a ballot promises at least that ballot.
    pub(crate) fn bar(&self) -> Ballot {
        self.promised.max(self.accepted)
    }

    /// Promises this ballot, if it is news. A cached one is overtaken: it would only be refused.
    pub(crate) fn promise(&mut self, ballot: Ballot) {
        if ballot > self.promised {
            self.promised = ballot;
            self.is_cached = false;
        }
    }

    /// Holds another register as accepted. What was chosen before is still shown.
    pub(crate) fn accept(&mut self, ballot: Ballot, register: Arc<Register>) {
        let before = std::mem::replace(&mut self.register, register);
        if self.learned == ballot {
            self.shown = None;
        } else if self.learned > Ballot::ZERO && self.learned == self.accepted {
            self.shown = Some(before);
        }
        self.accepted = ballot;
        self.is_cached = false;
    }

    /// The ballot under which the register was chosen that this node knows of; [`Ballot::ZERO`] if it knows of none.
    pub(crate) fn learned(&self) -> Ballot {
        self.learned
    }

    /// That register.
    pub(crate) fn shown(&self) -> Option<&Arc<Register>> {
        let is_held = self.learned > Ballot::ZERO && self.learned == self.accepted;
        if is_held {
            Some(&self.register)
        } else {
            self.shown.as_ref()
        }
    }

    /// The digest of that register.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// Shows another register as chosen.
    pub(crate) fn learn(&mut self, ballot: Ballot, register: &Arc<Register>) {
        self.learned = ballot;
        self.digest = register.digest();
        self.shown = (ballot != self.accepted).then(|| Arc::clone(register));
    }

    /// Takes what was cached. It is not there any more.
    fn take_cached(&mut self) -> Option<Cached> {
        std::mem::take(&mut self.is_cached).then(|| Cached {
            ballot: self.promised,
            base: self.accepted,
            register: Arc::clone(&self.register),
        })
    }

    fn counts(&self) -> Counts {
        let shown = self.shown();
        Counts {
            keys: u64::from(shown.is_some_and(|register| register.state.is_some())),
            tombstones: u64::from(shown.is_some_and(|register| register.is_tombstone())),
            unwritten: u64::from(self.is_unwritten()),
            cached: u64::from(self.is_cached),
        }
    }
}

/// Numbers of key states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Of keys that exist, as far as this node knows.
    pub(crate) keys: u64,
    /// Of keys that were deleted.
    pub(crate) tombstones: u64,
    /// Of keys of which a ballot was promised and nothing accepted: their writes did nothing, or never came.
    pub(crate) unwritten: u64,
    /// Of keys whose next write needs one round trip.
    pub(crate) cached: u64,
}

impl Counts {
    /// These, where a key state that counted as `before` counts as `after` now.
    fn moved(self, before: Counts, after: Counts) -> Counts {
        let moved = |all: u64, before: u64, after: u64| {
            let rest = all
                .checked_sub(before)
                .expect("what a key state counts as was counted");
            rest + after
        };
        Counts {
            keys: moved(self.keys, before.keys, after.keys),
            tombstones: moved(self.tombstones, before.tombstones, after.tombstones),
            unwritten: moved(self.unwritten, before.unwritten, after.unwritten),
            cached: moved(self.cached, before.cached, after.cached),
        }
    }
}

/// The key states of a node, by key. A clone is O(1).
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyStates {
    map: Tree<Key, Arc<KeyState>>,
    counts: Counts,
}

impl KeyStates {
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&KeyState> {
        self.map.get(key).map(|slot| &**slot)
    }

    /// The ballot under which the register of `key` was chosen that this node knows of; [`Ballot::ZERO`] if none.
    pub(crate) fn learned(&self, key: &[u8]) -> Ballot {
        self.get(key).map_or(Ballot::ZERO, KeyState::learned)
    }

    /// All key states, in key order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &KeyState)> {
        self.map.iter().map(|(key, slot)| (key, &**slot))
    }

    /// The key states of a range, in key order.
    pub(crate) fn range<'a>(&'a self, range: &'a KeyRange) -> impl Iterator<Item = (&'a Key, &'a KeyState)> {
        let found = self.map.range::<[u8]>(map_bounds(range));
        found.map(|(key, slot)| (key, &**slot))
    }

    /// The key states as they are now, to be read later.
    pub(crate) fn frozen(&self) -> impl Iterator<Item = (Key, Arc<KeyState>)> + Send + use<> {
        Frozen::new(&self.map)
    }

    /// The keys of a range that exist now, to be read later.
    pub(crate) fn view(&self, range: &KeyRange) -> impl View + use<> {
        MapView::new(&self.map, range, |_, slot| slot.shown()?.state.clone())
    }

    /// Changes the state of a key, if it has one.
    pub(crate) fn change<R>(&mut self, key: &Key, change: impl FnOnce(&mut KeyState) -> R) -> Option<R> {
        let slot = self.map.get_mut(key)?;
        Some(counted(&mut self.counts, Arc::make_mut(slot), key, change))
    }

    /// Changes the state of a key, a new one if it has none.
    pub(crate) fn change_or_make<R>(&mut self, key: &Key, change: impl FnOnce(&mut KeyState) -> R) -> R {
        if let Some(slot) = self.map.get_mut(key) {
            return counted(&mut self.counts, Arc::make_mut(slot), key, change);
        }
        let mut slot = KeyState::default();
        let result = counted(&mut self.counts, &mut slot, key, change);
        self.map.insert(key.clone(), Arc::new(slot));
        result
    }

    /// Keeps a promised ballot for the next write of the key, unless so many are kept, or something has come between.
    pub(crate) fn keep(&mut self, key: &Key, ballot: Ballot, base: Ballot, max: usize) {
        let has_room = self.counts.cached < max as u64;
        self.change(key, |slot| slot.keep(ballot, base, has_room));
    }

    /// Takes what is cached of a key.
    pub(crate) fn take_cached(&mut self, key: &Key) -> Option<Cached> {
        self.change(key, KeyState::take_cached)?
    }

    /// The invariants of all key states: counts say what the map holds.
    pub(crate) fn check(&self) {
        let Counts {
            keys,
            tombstones,
            unwritten,
            cached,
        } = self.counts;
        let len = self.map.len() as u64;
        assert!(
            keys + tombstones <= len && unwritten <= len && cached <= len,
            "{:?} are counted among {len} key states",
            self.counts
        );
        if cfg!(debug_assertions) && self.map.len() <= CHECKED_KEYS_MAX {
            let mut counts = Counts::default();
            for (key, slot) in self.iter() {
                slot.check(key);
                counts = counts.moved(Counts::default(), slot.counts());
            }
            assert_eq!(counts, self.counts, "key states are counted");
        }
    }
}

impl KeyState {
    /// Marks `ballot` as usable, which was promised on top of what `base` carries, if that is still so.
    pub(crate) fn keep(&mut self, ballot: Ballot, base: Ballot, has_room: bool) {
        self.is_cached = has_room && self.promised == ballot && self.accepted == base;
    }
}

/// Changes a key state and counts it again.
fn counted<R>(
    counts: &mut Counts,
    slot: &mut KeyState,
    key: &Key,
    change: impl FnOnce(&mut KeyState) -> R,
) -> R {
    let before = slot.counts();
    let result = change(slot);
    slot.check(key);
    *counts = counts.moved(before, slot.counts());
    result
}

#[cfg(test)]
mod tests;
