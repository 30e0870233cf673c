//! Which resets are under way. Few at once: each is then over soon, before the changes that follow it are forgotten.
//! Where all began together, each would take as long as all, and on a busy keyspace none would ever end.
//!
//! A reset counts among the few only while its reader keeps up with it. One whose reader or link has no room waits for
//! them with its view, and the next begins. Of those views there is a bounded number: where others wait for one, a
//! reset that takes less than [`RATE_MIN`] loses its own and begins again later.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use trilemma_core::Instant;

use super::WatchId;

/// Resets of a keyspace that are under way at once and whose readers keep up.
const MOVING_MAX: usize = 16;
/// Resets under way, those that wait for their readers included: each keeps what has been replaced since in memory.
const UNDER_WAY_MAX: usize = 64;
/// Bytes a second that a reset takes if its reader keeps up.
const RATE_MIN: u64 = 64 * 1024;
/// How long a reset may take less than that.
const SLOW_MAX: Duration = Duration::from_secs(1);

/// A reset under way.
#[derive(Debug)]
struct Place {
    /// What it has taken is enough for the time until then.
    keeps_up_until: Instant,
    /// Whether its reader and its link had room when it was last served.
    has_room: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Resets {
    under_way: BTreeMap<WatchId, Place>,
    /// Watches that wait for one to end.
    waiting: VecDeque<WatchId>,
    /// Watches that have waited, and for which a place is kept until they begin.
    invited: BTreeSet<WatchId>,
    /// When it was last looked.
    looked: Instant,
}

impl Resets {
    fn is_slow(&self, place: &Place) -> bool {
        place.keeps_up_until <= self.looked
    }

    fn has_place(&self) -> bool {
        let places = || self.under_way.values();
        let slow = places().filter(|place| self.is_slow(place)).count();
        let moving = places().filter(|place| place.has_room && !self.is_slow(place));
        let invited = self.invited.len();
        moving.count() + invited < MOVING_MAX && self.under_way.len() + invited < UNDER_WAY_MAX + slow
    }

    /// Begins a reset, if it may; else it waits.
    pub(super) fn begin(&mut self, now: Instant, id: WatchId) -> bool {
        self.looked = now;
        let was_invited = self.invited.remove(&id);
        if !self.has_place() {
            if was_invited {
                self.waiting.push_front(id);
            } else {
                self.waiting.push_back(id);
            }
            return false;
        }
        let place = Place {
            keeps_up_until: now + SLOW_MAX,
            has_room: true,
        };
        self.under_way.insert(id, place);
        true
    }

    /// The slowest one, if there are too many.
    pub(super) fn one_too_many(&self) -> Option<WatchId> {
        let slowest = self
            .under_way
            .iter()
            .min_by_key(|(_, place)| place.keeps_up_until);
        let slowest = slowest.map(|(id, _)| *id);
        slowest.filter(|_| self.under_way.len() > UNDER_WAY_MAX)
    }

    /// A part was sent, of so many bytes. `has_room` says whether its reader has room for another.
    pub(super) fn sent(&mut self, now: Instant, id: WatchId, bytes: usize, has_room: bool) {
        if let Some(place) = self.under_way.get_mut(&id) {
            let enough_for = Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000 / RATE_MIN));
            // Nobody is slow by what happened before, or saves up for later.
            place.keeps_up_until = (place.keeps_up_until + enough_for).min(now + SLOW_MAX);
            place.has_room = has_room;
        }
    }

    /// Its link has no room: it cannot begin or go on now, and will try again.
    pub(super) fn declined(&mut self, id: WatchId) {
        self.invited.remove(&id);
        if let Some(place) = self.under_way.get_mut(&id) {
            place.has_room = false;
        }
    }

    /// It is over, if it was under way.
    pub(super) fn ended(&mut self, id: WatchId) {
        self.invited.remove(&id);
        self.under_way.remove(&id);
    }

    /// Finds out who is slow.
    pub(super) fn look(&mut self, now: Instant) {
        self.looked = now;
    }

    /// A watch that has waited and may begin now, if it is still there.
    pub(super) fn next_to_begin(&mut self) -> Option<WatchId> {
        if self.waiting.is_empty() || !self.has_place() {
            return None;
        }
        self.waiting.pop_front()
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
            "resets wait, and there is a place for one"
        );
    }
}
