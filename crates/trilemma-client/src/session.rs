//! Operation ids: each handle writes within a session, so that a retry never takes effect twice.

use std::collections::BTreeSet;

use trilemma_core::session::SESSION_RESULTS_MAX;
use trilemma_core::{NotApplied, OpId, Reason, SessionId, Version, WriteError};

/// Distance between the oldest operation under way and the newest, beyond which a new session is begun: results
/// further apart are forgotten by the record on the servers.
const SPREAD_MAX: u64 = SESSION_RESULTS_MAX / 2;

/// The session of a keyspace handle and its clones. Randomness is passed in: a nonce must be one that no other session
/// has had.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    last: u64,
    under_way: BTreeSet<u64>,
    spread_max: u64,
}

impl Session {
    /// A session made when the keyspace's history had reached `basis`.
    #[must_use]
    pub fn new(basis: Version, nonce: u64) -> Self {
        Self::with_spread(basis, nonce, SPREAD_MAX)
    }

    /// The same, with a new session as soon as `spread_max` numbers lie between the oldest operation under way and the
    /// newest.
    #[must_use]
    pub fn with_spread(basis: Version, nonce: u64, spread_max: u64) -> Self {
        Self {
            id: SessionId { basis, nonce },
            last: 0,
            under_way: BTreeSet::new(),
            spread_max,
        }
    }

    /// The session's id now.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// A fresh operation id. `begin` gives the basis and nonce of a new session, if one must begin.
    pub fn next(&mut self, begin: impl FnOnce() -> (Version, u64)) -> OpId {
        let oldest = self.under_way.first().copied().unwrap_or(self.last);
        if self.last - oldest >= self.spread_max {
            self.begin(begin());
        }
        self.last += 1;
        self.under_way.insert(self.last);
        self.check();
        OpId {
            session: self.id,
            seq: self.last,
        }
    }

    /// Notes that nobody waits for `op` any more.
    pub fn done(&mut self, op: OpId) {
        if self.id == op.session {
            self.under_way.remove(&op.seq);
        }
        self.check();
    }

    /// The invariants: an operation under way was numbered by this session, and the servers still remember it when the
    /// newest has its answer.
    fn check(&self) {
        let oldest = self.under_way.first().copied().unwrap_or(self.last);
        let newest = self.under_way.last().copied().unwrap_or(self.last);
        assert!(newest <= self.last, "operation {newest} was not numbered yet");
        assert!(
            self.last - oldest <= self.spread_max,
            "operation {oldest} is forgotten before {} is answered",
            self.last
        );
    }

    /// The id under which a command goes again whose first attempt ended like this; `None` if that is its result.
    /// Only where the servers have forgotten the session nothing ran, and a new session helps. It is begun once for all
    /// operations that find the old one expired.
    pub fn again(
        &mut self,
        op: OpId,
        error: &WriteError,
        begin: impl Fn() -> (Version, u64),
    ) -> Option<OpId> {
        let WriteError::NotApplied(NotApplied {
            reason: Reason::SessionExpired,
            ..
        }) = error
        else {
            return None;
        };
        if self.id == op.session {
            self.begin(begin());
        }
        Some(self.next(begin))
    }

    fn begin(&mut self, (basis, nonce): (Version, u64)) {
        *self = Self::with_spread(basis, nonce, self.spread_max);
    }
}

#[cfg(test)]
mod tests;
