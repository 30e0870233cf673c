//! Descriptors: what each backend promises, in a form that code, docs and the conformance suite read.
//!
//! The tables of the documentation are generated from these values, and the conformance suite checks them against
//! what the backend then does.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Reason;
use crate::needs::Needs;
use crate::protocol::Request;
use crate::receipt::Achieved;

/// A protocol family that can serve a keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// Epidemic dissemination and anti-entropy: available everywhere, convergent.
    Gossip,
    /// Raft: one leader orders all writes of the keyspace.
    Raft,
    /// CASPaxos: leaderless, each key a register of its own.
    Paxos,
    /// Two-phase commit: every member agrees or nothing happens.
    TwoPhase,
}

impl Backend {
    /// All backends.
    pub const ALL: [Backend; 4] = [Backend::Gossip, Backend::Raft, Backend::Paxos, Backend::TwoPhase];

    /// The name in configuration files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Backend::Gossip => "gossip",
            Backend::Raft => "raft",
            Backend::Paxos => "paxos",
            Backend::TwoPhase => "two-phase",
        }
    }

    /// What it promises.
    #[must_use]
    pub const fn descriptor(self) -> &'static Descriptor {
        match self {
            Backend::Gossip => &GOSSIP,
            Backend::Raft => &RAFT,
            Backend::Paxos => &PAXOS,
            Backend::TwoPhase => &TWO_PHASE,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Backend {
    type Err = UnknownBackend;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Backend::ALL
            .into_iter()
            .find(|backend| backend.name() == text)
            .ok_or(UnknownBackend(text.into()))
    }
}

/// The text names no backend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown backend \"{0}\"; expected gossip, raft, paxos or two-phase")]
pub struct UnknownBackend(String);

/// Which nodes must be reachable for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requires {
    /// The node that is asked, alone.
    AnyNode,
    /// More than half of the members.
    Majority,
    /// Every member.
    AllMembers,
}

impl Requires {
    /// How many of `nodes` must be up and connected.
    #[must_use]
    pub const fn count(self, nodes: u32) -> u32 {
        match self {
            Requires::AnyNode => 1,
            Requires::Majority => nodes / 2 + 1,
            Requires::AllMembers => nodes,
        }
    }
}

impl fmt::Display for Requires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Requires::AnyNode => "any node",
            Requires::Majority => "majority",
            Requires::AllMembers => "all members",
        })
    }
}

/// How many keys one command may guard and change atomically.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionScope {
    /// One key.
    Key,
    /// Any keys of the keyspace, with guards.
    Keyspace,
    /// Any keys, without guards: each node shows the batch at once, other nodes' writes may interleave.
    UnguardedBatch,
}

/// Whether the change stream is the same on all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchScope {
    /// Same order and positions everywhere; a token resumes at any node.
    Shared,
    /// Each node shows what it learns, the latest value of a key eventually and never an older one after a newer;
    /// intermediate values may be skipped. A token resumes at its node, elsewhere with a reset.
    Node,
}

/// What a backend promises. See the fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The backend.
    pub backend: Backend,
    /// What a write needs.
    pub writes_need: Requires,
    /// What a read at the strongest level needs.
    pub reads_need: Requires,
    /// A condition on strongest reads beyond `reads_need`, in words; empty if there is none.
    pub reads_but: &'static str,
    /// PACELC class (Abadi 2012): in a partition / else.
    pub pacelc: &'static str,
    /// What a successful write achieves.
    pub isolation: Achieved,
    /// Whether the strongest read is linearizable (else it is local).
    pub linearizable_reads: bool,
    /// How far a command may reach.
    pub transaction_scope: TransactionScope,
    /// Whether keys may hold values of data types ([`crate::datatype`]): counters, sets, maps.
    pub data_types: bool,
    /// How many nodes hold a write durably when it is acknowledged.
    pub durable_on: Requires,
    /// When an operation may block rather than be refused, in words; empty if never.
    pub may_block: &'static str,
    /// What clocks are used for, in words.
    pub clock: &'static str,
    /// Cost of one write in the usual case: R is a round trip to the nodes needed, F a forced log write.
    pub write_cost: &'static str,
    /// Cost of one read at the strongest level.
    pub read_cost: &'static str,
    /// The change stream.
    pub watch: WatchScope,
    /// What is kept in a partition, for people.
    pub keeps: &'static str,
    /// What is given up in a partition, for people.
    pub gives_up: &'static str,
}

impl Descriptor {
    /// Whether code with this need may open a keyspace of this backend.
    #[must_use]
    pub const fn meets(&self, needs: Needs) -> bool {
        needs.lost_with(self.backend).is_none()
    }

    /// Refuses what concerns data types where the backend has none.
    pub fn check_data_types(&self, request: &Request) -> Result<(), Reason> {
        let of = request.data_type().filter(|_| !self.data_types);
        of.map_or(Ok(()), |of| {
            Err(Reason::Unsupported {
                asked: format!("a {of} in a keyspace of backend \"{}\"", self.backend),
                strongest: "a plain value, changed with compare_and_set; data types are in keyspaces of backend \"gossip\""
                    .into(),
            })
        })
    }

    /// The probability that an operation can be done when each node is up independently with probability
    /// `node_availability`, for a keyspace of `nodes` members asked at a node that is up.
    #[must_use]
    pub fn availability(requires: Requires, nodes: u32, node_availability: f64) -> f64 {
        let others = nodes.saturating_sub(1);
        let needed = requires.count(nodes).saturating_sub(1);
        (needed..=others)
            .map(|up| {
                binomial(others, up)
                    * node_availability.powi(up as i32)
                    * (1.0 - node_availability).powi((others - up) as i32)
            })
            .sum()
    }
}

fn binomial(n: u32, k: u32) -> f64 {
    (0..k).map(|i| f64::from(n - i) / f64::from(i + 1)).product()
}

const GOSSIP: Descriptor = Descriptor {
    backend: Backend::Gossip,
    writes_need: Requires::AnyNode,
    reads_need: Requires::AnyNode,
    reads_but: "",
    pacelc: "PA/EL",
    isolation: Achieved::Convergent,
    linearizable_reads: false,
    transaction_scope: TransactionScope::UnguardedBatch,
    data_types: true,
    durable_on: Requires::AnyNode,
    may_block: "",
    clock: "a hybrid logical clock orders concurrent writes; changes of a clock far ahead are deferred",
    write_cost: "F (0 with durability none or os)",
    read_cost: "0",
    watch: WatchScope::Node,
    keeps: "availability everywhere, convergence whose time is computable",
    gives_up: "agreement for a while",
};

const RAFT: Descriptor = Descriptor {
    backend: Backend::Raft,
    writes_need: Requires::Majority,
    reads_need: Requires::Majority,
    reads_but: "",
    pacelc: "PC/EC",
    isolation: Achieved::StrictSerializable,
    linearizable_reads: true,
    transaction_scope: TransactionScope::Keyspace,
    data_types: false,
    durable_on: Requires::Majority,
    may_block: "",
    clock: "none for safety; timeouts only start elections",
    write_cost: "R+F (one hop more at a follower)",
    read_cost: "R (ReadIndex)",
    watch: WatchScope::Shared,
    keeps: "linearizability, as long as a majority talks",
    gives_up: "the minority side",
};

const PAXOS: Descriptor = Descriptor {
    backend: Backend::Paxos,
    writes_need: Requires::Majority,
    reads_need: Requires::Majority,
    reads_but: "",
    pacelc: "PC/EC",
    isolation: Achieved::Linearizable,
    linearizable_reads: true,
    transaction_scope: TransactionScope::Key,
    data_types: false,
    durable_on: Requires::Majority,
    may_block: "",
    clock: "none for safety; timeouts only start new ballots",
    write_cost: "R+F with a cached ballot, else 2R+2F",
    read_cost: "R, with a write-back 2R+2F",
    watch: WatchScope::Node,
    keeps: "linearizability of each key without a leader, as long as a majority talks",
    gives_up: "the minority side",
};

const TWO_PHASE: Descriptor = Descriptor {
    backend: Backend::TwoPhase,
    writes_need: Requires::AllMembers,
    reads_need: Requires::AnyNode,
    reads_but: "not for a key in doubt",
    pacelc: "PC/EC, reads available",
    isolation: Achieved::StrictSerializable,
    linearizable_reads: true,
    transaction_scope: TransactionScope::Keyspace,
    data_types: false,
    durable_on: Requires::AllMembers,
    may_block: "keys of a prepared transaction, while its sequencer is unreachable and every reachable member is prepared",
    clock: "none for safety; a voter never decides by time",
    write_cost: "R+2F",
    read_cost: "0 (local, linearizable)",
    watch: WatchScope::Shared,
    keeps: "all nodes agree or nothing happens; linearizable reads on every node",
    gives_up: "writes, in any partition",
};
