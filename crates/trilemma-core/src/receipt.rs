//! Receipts: what a write achieved.

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, NodeId, NodeSet, OpId, Version};

/// The consistency that an operation reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Achieved {
    /// Visible here at once, everywhere eventually; concurrent writes are resolved by the keyspace's merge rule.
    Convergent,
    /// One key behaves as one copy.
    Linearizable,
    /// All keys of the keyspace behave as one copy, and commands as if run one after the other in real-time order.
    StrictSerializable,
}

impl std::fmt::Display for Achieved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Achieved::Convergent => "convergent",
            Achieved::Linearizable => "linearizable",
            Achieved::StrictSerializable => "strict serializable",
        })
    }
}

/// What one write did and what it cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The operation. Retrying with it has no second effect.
    pub op: OpId,
    /// Whether all guards held, so that the mutations happened.
    pub succeeded: bool,
    /// The version that the write made; if `!succeeded`, the version at which the guards were checked.
    pub version: Version,
    /// If `!succeeded`, the version of the first key whose guard failed ([`Version::ABSENT`]: the key did not exist).
    pub found: Version,
    /// The epoch that served it.
    pub epoch: Epoch,
    /// The consistency reached.
    pub achieved: Achieved,
    /// The nodes known, at the time of the answer, to hold the write durably. The keyspace's promise is a minimum. `raft` and
    /// `paxos` name those that have said so; `two-phase` all members, without whose durable votes nothing is decided.
    pub durable_on: NodeSet,
    /// The node that ordered the write (leader, proposer, sequencer or the local replica).
    pub served_by: NodeId,
    /// Message round trips between nodes on the path of this write. `paxos` counts those that its key took, repeats
    /// included; the others say what a write takes where nothing is lost. A repeat that is answered from the record of its
    /// session has the figure of a write that runs.
    pub round_trips: u8,
    /// Disk syncs, one after the other, on the path of this write; counted, or not, as the round trips are.
    pub syncs: u8,
}

impl Receipt {
    /// Whether all guards held, so that the mutations happened.
    #[must_use]
    pub const fn succeeded(&self) -> bool {
        self.succeeded
    }
}

/// The final answer to *did it happen?*
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It took effect, once.
    Applied(Receipt),
    /// It did not and never will: a late copy is refused. A convergent backend says so of the node that is asked, as
    /// nobody can speak for nodes that are out of reach: ask the node that was given the operation.
    NotApplied,
    /// Not decided yet; ask again.
    Pending,
    /// The record of the session is gone: nobody can tell any more.
    Expired,
}
