//! Identifiers: one newtype per meaning, so that a term can never be passed for an index.
//!
//! Every id is small, `Copy`, ordered and prints itself in the form operators see in logs and errors.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

/// Most nodes of one cluster. It bounds every list of members, in memory, on the wire and on disk.
pub const NODES_MAX: usize = 1024;

macro_rules! id {
    ($(#[$meta:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }

        impl $name {
            /// The id that follows this one. Saturates at the type's maximum.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }
    };
}

id!(
    /// A node of the cluster. Chosen in configuration, bound to the node's certificate, never reused.
    NodeId(u32), "{}"
);
id!(
    /// A keyspace, by its position in the sorted keyspace table that all nodes share.
    KeyspaceId(u32), "k{}"
);
id!(
    /// One run of a node's process. Durable before the node's first message; grows with every start.
    Incarnation(u64), "i{}"
);
id!(
    /// The disk that a node's log is on: random, made with the log and kept in it. A node whose disk is lost or set
    /// aside has another one.
    DiskId(u64), "{:016x}"
);
id!(
    /// The epoch in which a keyspace is served. Grows when a keyspace moves to another backend.
    Epoch(u64), "e{}"
);
id!(
    /// A position in the history of a keyspace. What it counts is the backend's matter (`raft`: the log index;
    /// `two-phase`: the decided position; `paxos`: writes of one key; `gossip`: a hybrid logical clock stamp).
    /// Greater is newer; 0 means *absent*.
    Version(u64), "v{}"
);
id!(
    /// A position in the records that one protocol instance has appended. Starts at 1 after each start.
    AppendSeq(u64), "a{}"
);
id!(
    /// Names one proposal between a protocol and its host. Never leaves the node.
    Ticket(u64), "t{}"
);

/// A lease under which a value lives. 0 is not a lease, so that a place for one is no larger than one: a keyspace holds
/// millions of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseId(pub NonZeroU64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "l{}", self.0)
    }
}

impl Version {
    /// The version of a key that does not exist.
    pub const ABSENT: Version = Version(0);
}

/// A process that speaks for a node. Two nodes tell each other theirs before anything else.
///
/// The certificate proves the node; the rest is the process' own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The node.
    pub node: NodeId,
    /// The incarnation.
    pub incarnation: Incarnation,
    /// The disk that its log is on.
    pub disk: DiskId,
    /// Random, made at each start: tells apart two processes with copies of one directory.
    pub nonce: u64,
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            incarnation,
            disk,
            nonce,
        } = self;
        write!(f, "node {node}, {incarnation}, disk {disk}, process {nonce:016x}")
    }
}

/// Names a client session: the history position known when it was made, and a random nonce.
///
/// A state machine registers a session at its first operation. `basis` makes that safe without a round trip: a
/// session that is unknown and whose basis is not above the newest evicted one may have been evicted, so its
/// operations are refused rather than executed a second time (see [`crate::session`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId {
    /// A version of the keyspace that the client knew to be reached when it made the session.
    pub basis: Version,
    /// Random, so that two clients never share a session.
    pub nonce: u64,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}-{:016x}", self.basis.0, self.nonce)
    }
}

/// Names one operation, permanently: a retry carries the same id and takes effect at most once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpId {
    /// The session that the operation belongs to.
    pub session: SessionId,
    /// Number within the session, from 1.
    pub seq: u64,
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.session, self.seq)
    }
}

impl std::str::FromStr for OpId {
    type Err = ParseOpIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || -> Option<OpId> {
            let (session, seq) = text.strip_prefix('s')?.split_once('/')?;
            let (basis, nonce) = session.split_once('-')?;
            Some(OpId {
                session: SessionId {
                    basis: Version(basis.parse().ok()?),
                    nonce: u64::from_str_radix(nonce, 16).ok()?,
                },
                seq: seq.parse().ok()?,
            })
        };
        parse().ok_or_else(|| ParseOpIdError(text.chars().take(80).collect()))
    }
}

/// The text was not an operation id as printed by `Display`: `s<basis>-<nonce, hex>/<seq>`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("operation id \"{0}\": expected s<basis>-<nonce>/<seq>, as printed by a receipt")]
pub struct ParseOpIdError(String);

/// A set of nodes, ordered by id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeSet(pub BTreeSet<NodeId>);

impl NodeSet {
    /// The set that holds `node` alone.
    #[must_use]
    pub fn of(node: NodeId) -> Self {
        Self(BTreeSet::from([node]))
    }

    /// Number of nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no node is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `node` is in the set.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.0.contains(&node)
    }

    /// The nodes, ascending.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.0.iter().copied()
    }
}

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Self {
        Self(nodes.into_iter().collect())
    }
}

impl fmt::Display for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, node) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            write!(f, "{separator}{node}")?;
        }
        Ok(())
    }
}
