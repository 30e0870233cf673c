//! Exactly-once effects: a replicated record of what each session's operations did.
//!
//! Idea: Raft dissertation (Ongaro 2014) section 6.3, without its registration round trip. A session is registered
//! by its first operation. That is safe because a [`SessionId`] carries the history position known when it was made:
//! an unknown session whose `basis` is not above the *horizon* (the newest position at which an evicted session was
//! last used) may have been evicted, and is refused. A late duplicate of an evicted session's operation has a basis
//! below the position of that operation, hence at or below the horizon, and can never run twice.
//!
//! The record is bounded thrice: sessions, results of one session, results of all sessions. Whatever it drops it refuses
//! from then on. What it drops depends on the record alone, never on a clock, so all replicas drop the same.

mod checkpoint;
mod results;

use serde::{Deserialize, Serialize};

use crate::id::{OpId, SessionId, Version};
use crate::tree::Tree;

use results::{Entry, Results};

pub use checkpoint::{StoredSession, WholeRecord};

/// Sessions remembered when the configuration does not say.
pub const SESSIONS_MAX: usize = 10_000;
/// Results remembered for each session: a client keeps fewer operations of one session in flight than this.
pub const SESSION_RESULTS_MAX: u64 = 1024;
/// Results remembered for all sessions of a keyspace: 1,024 sessions that are full. One takes 32 bytes, twice that where
/// a session's chunks have grown to hold more, so the record of a keyspace stays within 64 MiB, and within a third of it in a
/// snapshot. Replicas must agree on it.
pub const RESULTS_MAX: usize = 1024 * 1024;

/// How much a record remembers. Replicas must agree on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Sessions, at least 1. Default [`SESSIONS_MAX`].
    pub sessions: usize,
    /// Results of each, from 1 to [`SESSION_RESULTS_MAX`], which is the default.
    pub results_each: u64,
    /// Results of all of them. Default [`RESULTS_MAX`].
    pub results: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self::from(SESSIONS_MAX)
    }
}

impl From<usize> for SessionLimits {
    /// The defaults for this number of sessions.
    fn from(sessions: usize) -> Self {
        Self {
            sessions,
            results_each: SESSION_RESULTS_MAX,
            results: RESULTS_MAX,
        }
    }
}

impl SessionLimits {
    /// With every value in its range.
    fn in_range(self) -> Self {
        Self {
            sessions: self.sessions.max(1),
            results_each: self.results_each.clamp(1, SESSION_RESULTS_MAX),
            results: self.results,
        }
    }
}

/// Items up to which a build with debug assertions looks at each of them after every change. Beyond it that would make
/// tests with many items quadratic.
pub(crate) const CHECKED_MAX: usize = 64;

/// What an operation did, as far as a repeat of it must learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpResult {
    /// It ran.
    Applied {
        /// Whether its guards held.
        succeeded: bool,
        /// The version it made, or at which its guards were checked.
        version: Version,
        /// If not `succeeded`, the version of the first key whose guard failed.
        found: Version,
    },
    /// It was fenced before it ran and never will.
    Fenced,
}

/// What to do with an operation that has reached its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Never seen: run it, then [`Sessions::record`] its result.
    New,
    /// Seen: answer this and run nothing.
    Repeat(OpResult),
    /// Its record may have been evicted: run nothing.
    Expired,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Session {
    last_used: Version,
    /// Results up to this number have been dropped.
    floor: u64,
    /// Those above it, ascending: at most [`SessionLimits::results_each`], since the floor follows the highest number at
    /// that distance.
    results: Results,
}

impl Session {
    /// The position that a result counts as when the oldest are dropped. A fence has none of its own, and must have the
    /// same on every replica, whatever the state that it has started from tells: that of the session's last use.
    fn position(&self, (_, result): &Entry) -> Version {
        match result {
            OpResult::Applied { version, .. } => *version,
            OpResult::Fenced => self.last_used,
        }
    }

    /// Moves the floor up and drops what is not above it.
    fn raise_floor(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
        self.results.drop_through(self.floor);
    }

    fn record(&mut self, seq: u64, result: OpResult, results_max: u64) {
        self.raise_floor(seq.saturating_sub(results_max));
        if seq <= self.floor {
            return;
        }
        self.results.set(seq, result);
        self.check(results_max);
    }

    /// A session's invariants: results are in order, above the floor and within reach of it. A result at or below the
    /// floor would be answered by one replica and refused by another that has dropped it.
    fn check(&self, results_max: u64) {
        let first = self.results.first().unwrap_or(u64::MAX);
        let last = self.results.last().unwrap_or(self.floor);
        assert!(
            first > self.floor,
            "result {first} is not above the floor {}",
            self.floor
        );
        assert!(
            last >= self.floor && last - self.floor <= results_max,
            "result {last} is out of reach of the floor {}",
            self.floor
        );
        if cfg!(debug_assertions) && self.results.len() <= CHECKED_MAX {
            self.results.check();
        }
    }
}

/// The record. Part of a replicated state machine: replicas that applied the same operations hold equal records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sessions {
    sessions: Tree<SessionId, Session>,
    /// Results of all of them.
    results: usize,
    horizon: Version,
    limits: SessionLimits,
}

impl Default for Sessions {
    fn default() -> Self {
        Self::new(SessionLimits::default())
    }
}

impl Sessions {
    /// A record that remembers this much; of a number, this many sessions.
    #[must_use]
    pub fn new(limits: impl Into<SessionLimits>) -> Self {
        Self {
            sessions: Tree::new(),
            results: 0,
            horizon: Version::ABSENT,
            limits: limits.into().in_range(),
        }
    }

    /// Decides what to do with `op`.
    #[must_use]
    pub fn admit(&self, op: OpId) -> Admission {
        match self.sessions.get(&op.session) {
            Some(session) if op.seq <= session.floor => Admission::Expired,
            Some(session) => session
                .results
                .get(op.seq)
                .map_or(Admission::New, Admission::Repeat),
            None if op.session.basis < self.horizon => Admission::Expired,
            None => Admission::New,
        }
    }

    /// Records what `op` did at position `at`, which must not be below that of any earlier call.
    pub fn record(&mut self, op: OpId, result: OpResult, at: Version) {
        let mut new = None;
        // One descent where the session is known, which is the rule.
        let session = match self.sessions.get_mut(&op.session) {
            Some(session) => session,
            None => new.insert(Session::default()),
        };
        let before = session.results.len();
        session.last_used = at;
        session.record(op.seq, result, self.limits.results_each);
        let after = session.results.len();
        assert!(
            self.results >= before,
            "the results of session {} are counted",
            op.session
        );
        self.results = self.results - before + after;
        if let Some(session) = new {
            self.sessions.insert(op.session, session);
        }
        if self.sessions.len() > self.limits.sessions {
            self.evict();
        }
        if self.results > self.limits.results {
            self.drop_oldest();
        }
        self.check();
    }

    /// The record's invariants: it is bounded, and counted. Not those of a record that is still being loaded, which may
    /// come from a node with other limits.
    pub(crate) fn check(&self) {
        assert!(
            self.sessions.len() <= self.limits.sessions,
            "sessions are bounded"
        );
        assert!(self.results <= self.limits.results, "results are bounded");
        if cfg!(debug_assertions) && self.sessions.len() <= CHECKED_MAX {
            let results: usize = self.sessions.values().map(|session| session.results.len()).sum();
            assert_eq!(results, self.results, "results are counted");
            let each = self.limits.results_each;
            self.sessions.values().for_each(|session| session.check(each));
        }
    }

    /// Number of sessions remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether no session is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Number of results remembered.
    #[must_use]
    pub fn results(&self) -> usize {
        self.results
    }

    /// The newest position at which an evicted session was last used; see the module.
    #[must_use]
    pub fn horizon(&self) -> Version {
        self.horizon
    }

    /// Drops the least recently used eighth at once, so that the search for them is paid rarely.
    fn evict(&mut self) {
        let mut by_age: Vec<(Version, SessionId)> = self
            .sessions
            .iter()
            .map(|(id, session)| (session.last_used, *id))
            .collect();
        by_age.sort_unstable();
        let keep_max = self.limits.sessions - self.limits.sessions / 8;
        for (last_used, id) in by_age.into_iter().take(self.sessions.len() - keep_max) {
            let gone = self.sessions.remove(&id);
            assert!(gone.is_some(), "session {id} was there to be evicted");
            self.results -= gone.map_or(0, |session| session.results.len());
            self.horizon = self.horizon.max(last_used.next());
        }
    }

    /// Drops the oldest eighth of all results at once, so that the search for them is paid rarely. Their sessions stay,
    /// with a floor that refuses what is dropped and everything numbered below: a late duplicate of a dropped operation
    /// is expired, never new.
    fn drop_oldest(&mut self) {
        let keep_max = self.limits.results - self.limits.results / 8;
        let mut positions: Vec<Version> = Vec::with_capacity(self.results);
        for session in self.sessions.values() {
            positions.extend(session.results.iter().map(|entry| session.position(entry)));
        }
        assert_eq!(positions.len(), self.results, "results are counted");
        let surplus = self.results - keep_max;
        let (_, newest_dropped, _) = positions.select_nth_unstable(surplus - 1);
        let newest_dropped = *newest_dropped;
        let mut floors: Vec<(SessionId, u64)> = Vec::new();
        for (id, session) in &self.sessions {
            let dropped = session
                .results
                .iter()
                .rfind(|entry| session.position(entry) <= newest_dropped);
            floors.extend(dropped.map(|(seq, _)| (*id, *seq)));
        }
        for (id, floor) in floors {
            if let Some(session) = self.sessions.get_mut(&id) {
                self.results -= session.results.len();
                session.raise_floor(floor);
                self.results += session.results.len();
            }
        }
    }
}

#[cfg(test)]
mod tests;
