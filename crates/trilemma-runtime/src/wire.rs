//! What travels inside frames: items of many keyspaces between nodes, requests and answers of clients.
//!
//! A peer frame is a sequence of items `keyspace id (u32 LE) · length (u32 LE) · bytes`, so that all messages of a
//! turn to one peer leave together. A client request is one postcard value; its answers carry the same request id.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use trilemma_core::codec::{bounded_text, bounded_vec};
use trilemma_core::{
    Attempt, Backend, Command, Incarnation, KeyspaceId, LiveStatus, NodeId, OpId, Outcome, ReadError,
    ReadReply, ReadRequest, Receipt, WatchItem, WatchSpec, WriteError,
};

/// Bytes in front of each item.
pub(crate) const ITEM_HEADER_BYTES: usize = 8;

/// Adds one item to a frame.
pub(crate) fn put_item(frame: &mut BytesMut, keyspace: KeyspaceId, bytes: &[u8]) {
    frame.reserve(ITEM_HEADER_BYTES + bytes.len());
    frame.put_u32_le(keyspace.0);
    frame.put_u32_le(bytes.len() as u32);
    frame.put_slice(bytes);
}

/// Takes the next item off a frame; `Err` if what is left is not an item.
pub(crate) fn take_item(frame: &mut Bytes) -> Result<Option<(KeyspaceId, Bytes)>, &'static str> {
    if frame.is_empty() {
        return Ok(None);
    }
    if frame.len() < ITEM_HEADER_BYTES {
        return Err("a frame ends inside an item's header");
    }
    let keyspace = KeyspaceId(frame.get_u32_le());
    let length = frame.get_u32_le() as usize;
    if length > frame.len() {
        return Err("an item is longer than its frame");
    }
    Ok(Some((keyspace, frame.split_to(length))))
}

/// What a client asks of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientRequest {
    /// Who are you, what do you serve, how does it stand?
    Overview,
    /// Read.
    Read {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// How long the client waits, in milliseconds.
        timeout_ms: u32,
        /// What is read.
        request: ReadRequest,
    },
    /// Write.
    Write {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// How long the client waits, in milliseconds.
        timeout_ms: u32,
        /// The operation.
        op: OpId,
        /// Whether it may have been sent before.
        attempt: Attempt,
        /// The change.
        command: Command,
    },
    /// Settle an operation.
    Outcome {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// How long the client waits, in milliseconds.
        timeout_ms: u32,
        /// The operation.
        op: OpId,
        /// What it carried, if known.
        command: Option<Command>,
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
    /// To `Read`.
    Read(Result<ReadReply, ReadError>),
    /// To `Write`.
    Write(Result<Receipt, WriteError>),
    /// To `Outcome`.
    Outcome(Result<Outcome, ReadError>),
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
    /// The life of its process.
    pub incarnation: Incarnation,
    /// Its peers.
    #[serde(deserialize_with = "bounded_vec::<_, _, 16384>")]
    pub peers: Vec<PeerOverview>,
    /// Its keyspaces.
    #[serde(deserialize_with = "bounded_vec::<_, _, 16384>")]
    pub keyspaces: Vec<KeyspaceOverview>,
    /// Its log.
    pub log: LogOverview,
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

#[cfg(test)]
mod tests;
