//! Needs: what code requires of a keyspace, checked against what its backend offers when the keyspace is opened.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::descriptor::Backend;

/// What an application's code needs of a keyspace. `Linearizable` is weaker than `Atomic`; `Available` compares
/// with neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Needs {
    /// Reads and writes answer on any live node, in any partition; replicas converge.
    Available,
    /// Each key behaves as one copy; compare-and-set decides races.
    Linearizable,
    /// As `Linearizable`, and a guarded batch over many keys applies wholly or not at all, strictly serializable
    /// within the keyspace.
    Atomic,
}

impl Needs {
    /// All needs.
    pub const ALL: [Needs; 3] = [Needs::Available, Needs::Linearizable, Needs::Atomic];

    /// What would be lost if `backend` served code with this need; `None` if it meets the need.
    #[must_use]
    pub const fn lost_with(self, backend: Backend) -> Option<&'static str> {
        use Backend::{Gossip, Paxos, Raft, TwoPhase};
        match (self, backend) {
            (Needs::Available, Gossip)
            | (Needs::Linearizable, Raft | Paxos | TwoPhase)
            | (Needs::Atomic, Raft | TwoPhase) => None,
            (Needs::Available, Raft | Paxos) => Some(
                "the side of a partition without a majority could neither write nor read the newest state",
            ),
            (Needs::Available, TwoPhase) => Some("no node could write while any member is unreachable"),
            (Needs::Linearizable, Gossip) => {
                Some("two nodes could both win the same compare_and_set while they cannot reach each other")
            }
            (Needs::Atomic, Gossip) => Some(
                "guards would be checked against one node's view, and two nodes could both apply conflicting batches",
            ),
            (Needs::Atomic, Paxos) => Some(
                "each key is decided on its own, so a batch over several keys could be seen, or left, half done",
            ),
        }
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Needs::Available => "available",
            Needs::Linearizable => "linearizable",
            Needs::Atomic => "atomic",
        })
    }
}
