//! The record of operations as it stands in checkpoints.
//!
//! It is written session by session, a session's id once, many sessions to a chunk. Earlier versions wrote all of it as
//! one [`WholeRecord`], which is still read.

use serde::{Deserialize, Serialize};

use super::results::Results;
use super::{OpResult, SESSION_RESULTS_MAX, Session, SessionLimits, Sessions};
use crate::codec::bounded_vec;
use crate::id::{OpId, SessionId, Version};
use crate::protocol::Corrupt;
use crate::view::Frozen;

/// Bytes of a session and of a result as chunks are measured: what they usually take.
const SESSION_BYTES: usize = 24;
const RESULT_BYTES: usize = 12;

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSession {
    id: SessionId,
    last_used: Version,
    floor: u64,
    /// Numbers as distances from the floor, ascending.
    #[serde(deserialize_with = "bounded_vec::<_, _, { SESSION_RESULTS_MAX as usize }>")]
    results: Vec<(u16, OpResult)>,
}

impl StoredSession {
    fn new(id: SessionId, session: &Session) -> Self {
        let result = |(seq, result): &(u64, OpResult)| {
            let distance = u16::try_from(seq - session.floor);
            let distance = distance.expect("results are within SESSION_RESULTS_MAX of the floor");
            (distance, *result)
        };
        Self {
            id,
            last_used: session.last_used,
            floor: session.floor,
            results: session.results.iter().map(result).collect(),
        }
    }

    fn size(&self) -> usize {
        SESSION_BYTES + RESULT_BYTES * self.results.len()
    }

    fn session(&self) -> Result<Session, Corrupt> {
        let corrupt = |what: &str| Corrupt(format!("session {}: {what}", self.id));
        let mut results = Results::default();
        let mut last = 0;
        for (distance, result) in &self.results {
            if *distance <= last || u64::from(*distance) > SESSION_RESULTS_MAX {
                return Err(corrupt("its results are out of order, or too many"));
            }
            last = *distance;
            let seq = self.floor.checked_add((*distance).into());
            let seq = seq.ok_or_else(|| corrupt("a result is numbered beyond all numbers"))?;
            results.set(seq, *result);
        }
        Ok(Session {
            last_used: self.last_used,
            floor: self.floor,
            results,
        })
    }
}

impl Sessions {
    /// The record in parts of about `bytes`, each with one session at least, made as they are taken. With the horizon,
    /// which is not in them, they make an equal record; see [`Sessions::restoring`].
    pub fn parts(&self, bytes: usize) -> impl Iterator<Item = Vec<StoredSession>> + Send + use<> {
        let mut sessions = Frozen::new(&self.sessions);
        std::iter::from_fn(move || {
            let mut part = Vec::new();
            let mut size = 0;
            while (part.is_empty() || size < bytes)
                && let Some((id, session)) = sessions.next()
            {
                let session = StoredSession::new(id, &session);
                size += session.size();
                part.push(session);
            }
            (!part.is_empty()).then_some(part)
        })
    }

    /// A record without sessions, to which the parts of another are added. `limits` as in [`Sessions::new`].
    #[must_use]
    pub fn restoring(horizon: Version, limits: impl Into<SessionLimits>) -> Self {
        let mut sessions = Self::new(limits);
        sessions.horizon = horizon;
        sessions
    }

    /// Adds one of the [`Sessions::parts`].
    pub fn add(&mut self, part: &[StoredSession]) -> Result<(), Corrupt> {
        for stored in part {
            self.insert(stored.id, stored.session()?)?;
        }
        Ok(())
    }

    fn insert(&mut self, id: SessionId, mut session: Session) -> Result<(), Corrupt> {
        // Of a node that remembered more.
        if let Some(last) = session.results.last() {
            session.raise_floor(last.saturating_sub(self.limits.results_each));
        }
        self.results += session.results.len();
        match self.sessions.insert(id, session) {
            None => Ok(()),
            Some(_) => Err(Corrupt(format!("session {id} is recorded twice"))),
        }
    }

    /// The record that an earlier version has written as one. `limits` as in [`Sessions::new`].
    pub fn from_whole(whole: WholeRecord, limits: impl Into<SessionLimits>) -> Result<Self, Corrupt> {
        let mut sessions = Self::restoring(whole.horizon, limits);
        let results_max = sessions.limits.results_each;
        for (id, last_used, floor) in whole.sessions {
            let session = Session {
                last_used,
                floor,
                ..Session::default()
            };
            sessions.insert(id, session)?;
        }
        for (op, result) in whole.results {
            let Some(session) = sessions.sessions.get_mut(&op.session) else {
                return Err(Corrupt(format!(
                    "operation {op} is of a session that is not recorded"
                )));
            };
            let before = session.results.len();
            session.record(op.seq, result, results_max);
            sessions.results = sessions.results - before + session.results.len();
        }
        Ok(sessions)
    }
}

/// A whole session record, as earlier versions wrote it. It is read, not written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WholeRecord {
    horizon: Version,
    sessions: Vec<(SessionId, Version, u64)>,
    results: Vec<(OpId, OpResult)>,
}

#[cfg(test)]
impl WholeRecord {
    /// What an earlier version would have written of this record.
    #[must_use]
    pub fn of(sessions: &Sessions) -> Self {
        let op = |session: SessionId, seq: u64| OpId { session, seq };
        let all = || sessions.sessions.iter();
        Self {
            horizon: sessions.horizon,
            sessions: all().map(|(id, s)| (*id, s.last_used, s.floor)).collect(),
            results: all()
                .flat_map(|(id, s)| {
                    s.results
                        .iter()
                        .map(move |(seq, result)| (op(*id, *seq), *result))
                })
                .collect(),
        }
    }
}
