//! What clients and nodes say to each other. A request is one postcard value; its answers carry the same request id.

mod members;

use serde::{Deserialize, Serialize};
use trilemma_core::codec::{bounded_text, bounded_vec};
use trilemma_core::{
    Backend, DiskId, Incarnation, KeyspaceId, LiveStatus, NodeId, ReadError, Reply, Request, WatchItem,
    WatchSpec,
};

pub use members::{MemberOverview, MemberState, MembershipCounts, MembershipOverview, RefusedOverview};

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
    /// Watch; many answers follow, under the number of this request, until it is cancelled or an error comes.
    Watch {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// What and from where.
        spec: WatchSpec,
        /// Bytes of items that the client has room for, as [`WatchItem::bytes`] counts. What comes is no more, but for the
        /// last item.
        room: u64,
    },
    /// There is room for more items of the watch of this number.
    Room {
        /// So many bytes more.
        bytes: u64,
    },
    /// Nobody reads the watch of this number any more.
    Cancel,
    /// Whom do you know as members, and who of them works?
    Members,
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
    /// To `Members`; `None` where membership is not configured.
    Members(Option<Box<MembershipOverview>>),
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
    /// How much it has to do.
    pub load: LoadOverview,
    /// When its certificate is valid.
    pub certificate: CertificateOverview,
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

/// How much a node has to do, and what it has refused for that, since the start of the process.
///
/// Everything of a node happens in turns, one after the other: a turn takes what has come, and answers. So the longest
/// turn is the longest time for which nothing else was answered, no heartbeat either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadOverview {
    /// Turns so far.
    pub turns: u64,
    /// Time that they took, in microseconds.
    pub turn_micros: u64,
    /// The longest, in microseconds.
    pub turn_micros_max: u64,
    /// Those that took more than 20 ms.
    pub turns_long: u64,
    /// Frames and news of peers that wait for a turn.
    pub peer_events: u64,
    /// Requests of clients that wait for a turn.
    pub client_events: u64,
    /// Requests of this process itself that wait for a turn.
    pub local_requests: u64,
    /// Requests whose answer is owed.
    pub pending: u64,
    /// Bytes of their commands.
    pub pending_bytes: u64,
    /// Bytes of records that wait for the disk.
    pub log_bytes: u64,
    /// Bytes of answers that wait for clients to read them.
    pub answer_bytes: u64,
    /// Requests that were refused because too much waited.
    pub refused: u64,
    /// Large answers that were refused because their clients read too slowly.
    pub answers_refused: u64,
    /// Messages of peers that were dropped because too much waited for the disk.
    pub messages_dropped: u64,
    /// Frames for peers that were dropped: the peer was away, or read too slowly.
    pub frames_dropped: u64,
    /// Handshakes that were put off because too many were begun.
    pub handshakes_put_off: u64,
    /// Clients that were cut off because they did not read their answers.
    pub clients_cut_off: u64,
}

/// When a certificate is valid, in seconds since 1970; both 0 where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateOverview {
    /// Its first second.
    pub from: i64,
    /// Its last second.
    pub until: i64,
}
