//! Which resets are under way. Few at once: each is then over soon, before the changes that follow it are forgotten.
//! Where all began together, each would take as long as all, and on a busy keyspace none would ever end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use trilemma_core::Instant;

use super::WatchId;

/// Resets of a keyspace that are under way at once and move.
const MOVING_MAX: usize = 16;
/// Resets under way, those whose readers stand still included: each keeps what has been replaced since in memory.
const UNDER_WAY_MAX: usize = 64;
/// A reset of which no part was sent for so long does not move.
const STILL_AFTER: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Resets {
    /// Those under way, and when a part of each was last sent.
    under_way: BTreeMap<WatchId, Instant>,
    /// Those of them that move, as far as is known.
    moving: usize,
    /// Watches that wait for one to end.
    waiting: VecDeque<WatchId>,
    /// Watches that have waited, and for which a place is kept until they begin.
    invited: BTreeSet<WatchId>,
    /// When it was last looked.
    looked: Instant,
}

impl Resets {
    fn has_place(&self) -> bool {
        self.moving + self.invited.len() < MOVING_MAX
    }

    /// Begins a reset, if it may; else it waits.
    pub(super) fn begin(&mut self, now: Instant, id: WatchId) -> bool {
        self.invited.remove(&id);
        if !self.has_place() {
            self.waiting.push_back(id);
            return false;
        }
        self.under_way.insert(id, now);
        self.look(now);
        true
    }

    /// The one that has stood still longest, if there are too many.
    pub(super) fn one_too_many(&self) -> Option<WatchId> {
        let oldest = self.under_way.iter().min_by_key(|(_, at)| **at);
        let oldest = oldest.map(|(id, _)| *id);
        oldest.filter(|_| self.under_way.len() > UNDER_WAY_MAX)
    }

    /// A part was sent.
    pub(super) fn sent(&mut self, now: Instant, id: WatchId) {
        if let Some(at) = self.under_way.get_mut(&id) {
            *at = now;
        }
    }

    /// It cannot begin now. It will try again.
    pub(super) fn declined(&mut self, id: WatchId) {
        self.invited.remove(&id);
    }

    /// It is over, if it was under way.
    pub(super) fn ended(&mut self, id: WatchId) {
        self.invited.remove(&id);
        if self.under_way.remove(&id).is_some() {
            self.look(self.looked);
        }
    }

    /// Counts those that move.
    pub(super) fn look(&mut self, now: Instant) {
        self.looked = now;
        let moves = |at: &&Instant| now.since(**at) < STILL_AFTER;
        self.moving = self.under_way.values().filter(moves).count();
    }

    /// A watch that has waited and may begin now, if it is still there.
    pub(super) fn next_to_begin(&mut self) -> Option<WatchId> {
        self.has_place().then(|| self.waiting.pop_front()).flatten()
    }

    /// A place is kept for it.
    pub(super) fn invite(&mut self, id: WatchId) {
        self.invited.insert(id);
    }

    pub(super) fn under_way(&self) -> impl Iterator<Item = &WatchId> {
        self.under_way.keys()
    }

    pub(super) fn is_under_way(&self, id: WatchId) -> bool {
        self.under_way.contains_key(&id)
    }

    /// The invariants: what is under way is bounded, and nobody waits where there is a place.
    pub(super) fn check(&self) {
        assert!(
            self.under_way.len() <= UNDER_WAY_MAX,
            "{} resets are under way",
            self.under_way.len()
        );
        assert!(
            self.waiting.is_empty() || !self.has_place(),
            "resets wait, and only {} move",
            self.moving
        );
    }
}
