//! What clients and nodes say to each other. A request is one postcard value; its answers carry the same request id.

use serde::{Deserialize, Serialize};
use trilemma_core::codec::{bounded_text, bounded_vec};
use trilemma_core::{
    Backend, DiskId, Incarnation, KeyspaceId, LiveStatus, NodeId, ReadError, Reply, Request, WatchItem,
    WatchSpec,
};

/// What a client asks of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientRequest {
    /// Who are you, what do you serve, how does it stand?
    Overview,
    /// Read, write, or learn the outcome of a write.
    Ask {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// How long the client waits, in milliseconds.
        timeout_ms: u32,
        /// What is asked.
        request: Request,
    },
    /// Watch; many answers follow.
    Watch {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// What and from where.
        spec: WatchSpec,
    },
}

/// What a node answers. Each variant answers the request of its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientReply {
    /// To `Overview`.
    Overview(Box<NodeOverview>),
    /// To `Ask`, of the same kind.
    Answer(Reply),
    /// One item of a `Watch`; an error ends it.
    Watch(Result<WatchItem, ReadError>),
    /// The request could not be understood; nothing was done.
    Bad(#[serde(deserialize_with = "bounded_text::<_, 4096>")] String),
}

/// A node as it sees itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeOverview {
    /// The cluster's name.
    #[serde(deserialize_with = "bounded_text::<_, 256>")]
    pub cluster: String,
    /// The node.
    pub node: NodeId,
    /// The incarnation of its process.
    pub incarnation: Incarnation,
    /// The disk that its log is on.
    pub disk: DiskId,
    /// Its peers.
    #[serde(deserialize_with = "bounded_vec::<_, _, 16384>")]
    pub peers: Vec<PeerOverview>,
    /// Its keyspaces.
    #[serde(deserialize_with = "bounded_vec::<_, _, 16384>")]
    pub keyspaces: Vec<KeyspaceOverview>,
    /// Its log.
    pub log: LogOverview,
    /// Why its last snapshot could not be written, so that the log keeps growing; empty if it was.
    #[serde(deserialize_with = "bounded_text::<_, 4096>")]
    pub snapshot_failure: String,
}

/// One peer as a node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerOverview {
    /// The peer.
    pub node: NodeId,
    /// Where it is configured to listen.
    #[serde(deserialize_with = "bounded_text::<_, 64>")]
    pub address: String,
    /// Whether both directions of the link work.
    pub connected: bool,
    /// Why not, if the peer or this node refused the connection.
    #[serde(deserialize_with = "bounded_text::<_, 8192>")]
    pub refused: String,
}

/// One keyspace as a node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyspaceOverview {
    /// Its name.
    #[serde(deserialize_with = "bounded_text::<_, 256>")]
    pub name: String,
    /// Its id in requests to this node.
    pub id: KeyspaceId,
    /// Its backend.
    pub backend: Backend,
    /// What holds now.
    pub status: LiveStatus,
}

/// The node's log in figures since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOverview {
    /// The last record's number.
    pub last: u64,
    /// The last durable record's number.
    pub durable: u64,
    /// The record up to which the newest snapshot reaches.
    pub snapshot: u64,
    /// Syncs so far.
    pub syncs: u64,
    /// Records so far.
    pub records: u64,
    /// Bytes so far.
    pub bytes: u64,
    /// Time spent in syncs, in microseconds.
    pub sync_micros: u64,
    /// CPU time of the process so far, in milliseconds; 0 where the system does not tell.
    pub cpu_ms: u64,
}
