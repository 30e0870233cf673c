//! Exactly-once effects: a replicated record of what each session's operations did.
//!
//! Idea: Raft dissertation (Ongaro 2014) section 6.3, without its registration round trip. A session is registered
//! by its first operation. That is safe because a [`SessionId`] carries the history position known when it was made:
//! an unknown session whose `basis` is not above the *horizon* (the newest position at which an evicted session was
//! last used) may have been evicted, and is refused. A late duplicate of an evicted session's operation has a basis
//! below the position of that operation, hence at or below the horizon, and can never run twice.
//!
//! Eviction depends on the record alone, never on a clock, so all replicas evict the same sessions.

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::id::{OpId, SessionId, Version};

/// Sessions remembered when the configuration does not say.
pub const SESSIONS_MAX: usize = 10_000;
/// Results remembered for each session: a client keeps fewer operations of one session in flight than this.
pub const SESSION_RESULTS_MAX: u64 = 1024;

/// What an operation did, as far as a repeat of it must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpResult {
    /// It ran.
    Applied {
        /// Whether its guards held.
        won: bool,
        /// The version it made, or at which its guards were checked.
        version: Version,
        /// If not `won`, the version of the first key whose guard failed.
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

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Session {
    last_used: Version,
    /// Results up to this number have been dropped.
    floor: u64,
}

/// The record. Part of a replicated state machine: replicas that applied the same operations hold equal records.
#[derive(Clone, Debug)]
pub struct Sessions {
    sessions: OrdMap<SessionId, Session>,
    results: OrdMap<OpId, OpResult>,
    horizon: Version,
    sessions_max: usize,
}

impl Default for Sessions {
    fn default() -> Self {
        Self::new(SESSIONS_MAX)
    }
}

impl Sessions {
    /// A record of at most `sessions_max` sessions (at least 1).
    #[must_use]
    pub fn new(sessions_max: usize) -> Self {
        let sessions_max = sessions_max.max(1);
        Self {
            sessions: OrdMap::new(),
            results: OrdMap::new(),
            horizon: Version::ABSENT,
            sessions_max,
        }
    }

    /// Decides what to do with `op`.
    #[must_use]
    pub fn admit(&self, op: OpId) -> Admission {
        if let Some(result) = self.results.get(&op) {
            return Admission::Repeat(*result);
        }
        match self.sessions.get(&op.session) {
            Some(session) if op.seq <= session.floor => Admission::Expired,
            Some(_) => Admission::New,
            None if op.session.basis < self.horizon => Admission::Expired,
            None => Admission::New,
        }
    }

    /// Records what `op` did at position `at`, which must not be below that of any earlier call.
    pub fn record(&mut self, op: OpId, result: OpResult, at: Version) {
        let floor = self.sessions.get(&op.session).map_or(0, |session| session.floor);
        let floor = floor.max(op.seq.saturating_sub(SESSION_RESULTS_MAX));
        let first = self
            .results
            .range(
                OpId {
                    session: op.session,
                    seq: 0,
                }..,
            )
            .next();
        let stale: Vec<OpId> = match first {
            Some((first, _)) if first.session == op.session && first.seq <= floor => self
                .results
                .range(
                    *first..=OpId {
                        session: op.session,
                        seq: floor,
                    },
                )
                .map(|(op, _)| *op)
                .collect(),
            _ => Vec::new(),
        };
        for op in stale {
            self.results.remove(&op);
        }
        self.results.insert(op, result);
        self.sessions.insert(op.session, Session { last_used: at, floor });
        if self.sessions.len() > self.sessions_max {
            self.evict();
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

    /// Drops the least recently used eighth at once, so that the search for them is paid rarely.
    fn evict(&mut self) {
        let mut by_age: Vec<(Version, SessionId)> = self
            .sessions
            .iter()
            .map(|(id, session)| (session.last_used, *id))
            .collect();
        by_age.sort_unstable();
        let keep_max = self.sessions_max - self.sessions_max / 8;
        for (last_used, id) in by_age.into_iter().take(self.sessions.len() - keep_max) {
            self.sessions.remove(&id);
            self.horizon = self.horizon.max(last_used.next());
            let gone: Vec<OpId> = self
                .results
                .range(
                    OpId { session: id, seq: 0 }..=OpId {
                        session: id,
                        seq: u64::MAX,
                    },
                )
                .map(|(op, _)| *op)
                .collect();
            for op in gone {
                self.results.remove(&op);
            }
        }
    }

    /// The record as plain lists, for a checkpoint.
    #[must_use]
    pub fn export(&self) -> SessionsExport {
        SessionsExport {
            horizon: self.horizon,
            sessions: self
                .sessions
                .iter()
                .map(|(id, s)| (*id, s.last_used, s.floor))
                .collect(),
            results: self.results.iter().map(|(op, result)| (*op, *result)).collect(),
        }
    }

    /// The record that `export` was made from. `sessions_max` as in [`Sessions::new`].
    #[must_use]
    pub fn import(export: SessionsExport, sessions_max: usize) -> Self {
        let mut sessions = Self::new(sessions_max);
        sessions.horizon = export.horizon;
        for (id, last_used, floor) in export.sessions {
            sessions.sessions.insert(id, Session { last_used, floor });
        }
        sessions.results = export.results.into_iter().collect();
        sessions
    }
}

/// A session record in the form it has in snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsExport {
    horizon: Version,
    sessions: Vec<(SessionId, Version, u64)>,
    results: Vec<(OpId, OpResult)>,
}

#[cfg(test)]
mod tests;
