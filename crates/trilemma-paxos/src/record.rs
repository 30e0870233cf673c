//! What a paxos node must not forget.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trilemma_core::Key;
use trilemma_core::codec::bounded_vec;

use super::ballot::Ballot;
use super::register::Register;

/// Most items of each kind in one record. A turn with more appends several.
pub const RECORD_ITEMS_MAX: usize = 1024;

/// Everything that one turn of the driver changed, in the order promises, accepts, chosen.
///
/// Replaying a record again, or over a newer state, changes nothing: each item only moves its key forward.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Promises of this node's acceptor. Safety rests on them: no ballot below is accepted.
    #[serde(deserialize_with = "bounded_vec::<_, _, RECORD_ITEMS_MAX>")]
    pub promised: Vec<(Key, Ballot)>,
    /// Registers that this node's acceptor has accepted. Safety rests on them.
    #[serde(deserialize_with = "bounded_vec::<_, _, RECORD_ITEMS_MAX>")]
    pub accepted: Vec<AcceptedRecord>,
    /// What this node has learned to be chosen: soft state, anti-entropy would bring it back.
    #[serde(deserialize_with = "bounded_vec::<_, _, RECORD_ITEMS_MAX>")]
    pub chosen: Vec<ChosenRecord>,
}

/// A register accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedRecord {
    /// The key.
    pub key: Key,
    /// The ballot accepted.
    pub ballot: Ballot,
    /// What is promised from now on.
    pub promised: Ballot,
    /// The register.
    pub register: Arc<Register>,
}

/// A register learned to be chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChosenRecord {
    /// The key.
    pub key: Key,
    /// The ballot under which it was chosen.
    pub ballot: Ballot,
    /// The register; `None`: the one this node has accepted under the same ballot.
    pub register: Option<Arc<Register>>,
}

impl Record {
    /// Whether there is nothing to remember.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.promised.is_empty() && self.accepted.is_empty() && self.chosen.is_empty()
    }

    /// Whether an answer to a proposer may wait for it.
    pub(crate) fn is_forced(&self) -> bool {
        !self.promised.is_empty() || !self.accepted.is_empty()
    }
}
