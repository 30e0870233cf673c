//! Live status: what holds on this node now, computed from what it can reach.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use serde::{Deserialize, Serialize};

use crate::codec::{bounded_text, bounded_vec};
use crate::id::{NodeId, NodeSet, Version};

/// Longest [`LiveStatus::why`] in bytes; a longer one does not decode.
pub const WHY_BYTES_MAX: usize = 1024;
/// Longest [`LiveStatus::role`] in bytes; a longer one does not decode.
pub const ROLE_BYTES_MAX: usize = 64;
/// Most of [`LiveStatus::details`]; more do not decode.
pub const DETAILS_MAX: usize = 64;

/// What one node can do in one keyspace at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveStatus {
    /// Whether a write started now would be accepted, as far as this node can tell.
    pub can_write: bool,
    /// Whether a read at the backend's strongest level would be answered.
    pub can_read: bool,
    /// Why not, or what is limited; empty when all is well. One sentence.
    #[serde(deserialize_with = "bounded_text::<_, WHY_BYTES_MAX>")]
    pub why: String,
    /// Members that cannot be reached from here.
    pub missing: NodeSet,
    /// The node that orders writes (leader, sequencer), where there is one and it is known.
    pub leader: Option<NodeId>,
    /// The role of this node in the backend's own words.
    #[serde(deserialize_with = "bounded_text::<_, ROLE_BYTES_MAX>")]
    pub role: String,
    /// The position up to which this node has applied the keyspace's history. A session's basis.
    pub version: Version,
    /// Number of keys that exist here.
    pub keys: u64,
    /// Transactions prepared here whose outcome is not known.
    pub in_doubt: u64,
    /// Further figures of the backend, by name.
    #[serde(deserialize_with = "bounded_vec::<_, _, DETAILS_MAX>")]
    pub details: Vec<(String, String)>,
}

impl LiveStatus {
    /// Leaves out what would keep it from being decoded: texts beyond their limits, and details beyond theirs.
    #[must_use]
    pub fn clipped(mut self) -> Self {
        self.why.truncate(self.why.floor_char_boundary(WHY_BYTES_MAX));
        self.role.truncate(self.role.floor_char_boundary(ROLE_BYTES_MAX));
        self.details.truncate(DETAILS_MAX);
        self
    }
}

/// A live status that can be read at any time and waited on. Cloning is cheap; all clones see the same.
#[derive(Clone, Debug, Default)]
pub struct StatusWatch {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    status: LiveStatus,
    changes: u64,
    waiting: Vec<Waker>,
}

impl StatusWatch {
    /// A status that nobody has computed yet: nothing can be done.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // The lock is held for plain assignments only, so a poisoned one still holds a whole status.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The status now.
    #[must_use]
    pub fn current(&self) -> LiveStatus {
        self.lock().status.clone()
    }

    /// Replaces the status and wakes those who wait, if it differs.
    pub fn set(&self, status: LiveStatus) {
        let mut shared = self.lock();
        if shared.status == status {
            return;
        }
        shared.status = status;
        shared.changes += 1;
        let waiting = std::mem::take(&mut shared.waiting);
        drop(shared);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Notes that the keyspace's history has come at least this far, as an answer has shown.
    pub fn learn_version(&self, version: Version) {
        let mut shared = self.lock();
        shared.status.version = shared.status.version.max(version);
    }

    /// Waits until the status satisfies `wanted`; returns it.
    pub async fn wait_for(&self, mut wanted: impl FnMut(&LiveStatus) -> bool) -> LiveStatus {
        std::future::poll_fn(|cx: &mut Context<'_>| {
            let mut shared = self.lock();
            if wanted(&shared.status) {
                return Poll::Ready(shared.status.clone());
            }
            if !shared.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                shared.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    /// A backend names a thousand members that are out of reach; the status is read all the same.
    #[test]
    fn l4_what_is_said_at_length_is_clipped_and_decodes() {
        let status = LiveStatus {
            why: "über".repeat(1000),
            role: "ö".repeat(33),
            details: vec![("a".into(), "b".into()); DETAILS_MAX + 1],
            ..LiveStatus::default()
        };
        let decode = |status: &LiveStatus| codec::decode::<LiveStatus>(&codec::encode(status));
        assert!(decode(&status).is_err(), "it would not need to be clipped");
        let clipped = status.clipped();
        assert_eq!(decode(&clipped).as_ref(), Ok(&clipped));
        assert!(clipped.why.len() > WHY_BYTES_MAX - 4 && clipped.role.len() > ROLE_BYTES_MAX - 4);
        assert_eq!(clipped.clone().clipped(), clipped);
    }
}
