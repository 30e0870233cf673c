//! Who may say that a member is gone for good: signatures, which the host makes and verifies.

use std::fmt::Debug;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trilemma_core::NodeId;
use trilemma_core::codec;

/// What is signed. It ends one epoch of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Statement {
    /// The member leaves. Signed with its own key.
    Leave {
        /// The member.
        node: NodeId,
        /// Its epoch.
        epoch: u64,
    },
    /// The member is excluded. Signed with the key of an operator, or of whom else the host allows it.
    Evict {
        /// The member.
        node: NodeId,
        /// The last epoch that is excluded.
        epoch: u64,
    },
}

impl Statement {
    /// The bytes to sign: no signature of another purpose has the same ones.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        codec::encode(&("trilemma membership 1", self))
    }
}

/// Makes and verifies signatures. Ed25519 in production.
pub trait Authority: Debug + Send {
    /// Signs this node's own leave; `None` if it has no key, and then it cannot leave but only stop.
    fn sign(&self, leave: &Statement) -> Option<Bytes>;

    /// Whether one who may make this statement signed it.
    fn verify(&self, statement: &Statement, signature: &[u8]) -> bool;
}
