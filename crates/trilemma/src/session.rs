//! Operation ids: each handle writes within a session, so that a retry never takes effect twice.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use trilemma_core::session::SESSION_RESULTS_MAX;
use trilemma_core::{OpId, SessionId, Version};

/// Distance between the oldest operation under way and the newest, beyond which a new session is begun: results
/// further apart are forgotten by the record on the servers.
const SPREAD_MAX: u64 = SESSION_RESULTS_MAX / 2;

/// The session of a keyspace handle and its clones.
#[derive(Debug)]
pub(crate) struct Session {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    id: SessionId,
    last: u64,
    under_way: BTreeSet<u64>,
}

impl Session {
    /// A session made when the keyspace's history had reached `basis`.
    pub(crate) fn new(basis: Version) -> Self {
        Self {
            state: Mutex::new(State::new(basis)),
        }
    }

    /// A fresh operation id. `basis` is used if a new session must begin.
    pub(crate) fn next(&self, basis: Version) -> OpId {
        let mut state = self.lock();
        let oldest = state.under_way.first().copied().unwrap_or(state.last);
        if state.last - oldest >= SPREAD_MAX {
            *state = State::new(basis);
        }
        state.last += 1;
        let seq = state.last;
        state.under_way.insert(seq);
        OpId {
            session: state.id,
            seq,
        }
    }

    /// Notes that nobody waits for `op` any more.
    pub(crate) fn done(&self, op: OpId) {
        let mut state = self.lock();
        if state.id == op.session {
            state.under_way.remove(&op.seq);
        }
    }

    /// Begins a new session unless that has happened already since `expired` was used.
    pub(crate) fn renew(&self, expired: SessionId, basis: Version) {
        let mut state = self.lock();
        if state.id == expired {
            *state = State::new(basis);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Held for plain assignments only.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(basis: Version) -> Self {
        let nonce = trilemma_runtime::random_u64();
        Self {
            id: SessionId { basis, nonce },
            last: 0,
            under_way: BTreeSet::new(),
        }
    }
}

#[cfg(test)]
mod tests;
