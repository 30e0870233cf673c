//! What a turn of a node wants done, and who looks on.

use bytes::Bytes;
use trilemma_core::protocol::Discarded;
use trilemma_core::{ChangeBatch, KeyspaceId, Lane, NodeId, Reply};
use trilemma_storage::{Batch, LogSeq};

use crate::engine::Engine;
use crate::snapshots::SnapshotJob;
use crate::watchers::Sent;

/// One message for a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The keyspace; [`NODE_RECORDS`](crate::config::NODE_RECORDS) for the node's own.
    pub keyspace: KeyspaceId,
    /// The receiver.
    pub to: NodeId,
    /// The lane.
    pub lane: Lane,
    /// The kind's name.
    pub kind: &'static str,
    /// The encoded message.
    pub bytes: Bytes,
}

/// What a turn wants done, in the order of the fields. `W` says where an answer goes.
#[derive(Debug)]
pub struct Effects<W> {
    /// Records for the log; positions follow [`crate::Node::last`] as it was before the turn.
    pub batch: Batch,
    /// Messages for peers; any of them may be lost.
    pub messages: Vec<Envelope>,
    /// Answers to requests.
    pub replies: Vec<(W, Reply)>,
    /// Items for the readers of watches, which then must say when they have room again.
    pub items: Vec<Sent>,
    /// A snapshot to be written in the background.
    pub snapshot: Option<SnapshotJob>,
    /// The log may recycle what stands up to here.
    pub release: Option<LogSeq>,
    /// What is to be freed in the background.
    pub discarded: Vec<Discarded>,
}

impl<W> Default for Effects<W> {
    fn default() -> Self {
        Self {
            batch: Batch::default(),
            messages: Vec::new(),
            replies: Vec::new(),
            items: Vec::new(),
            snapshot: None,
            release: None,
            discarded: Vec::new(),
        }
    }
}

/// Looks on while a turn is made: for invariants. The default looks at nothing.
pub trait Observer {
    /// A keyspace has appended a record.
    fn appended(&mut self, _replica: usize, _bytes: &Bytes) {}
    /// The first of its records that had no place in the log has got this one.
    fn placed(&mut self, _replica: usize, _seq: LogSeq) {}
    /// The steps of a keyspace are over for this turn: whether its state has jumped, and its changes after that.
    fn stepped(&mut self, _replica: usize, _engine: &Engine, _reset: Option<u64>, _applied: &[ChangeBatch]) {}
    /// A part of the turn is over: for those who have a clock.
    fn passed(&mut self, _part: &'static str) {}
}

impl Observer for () {}
