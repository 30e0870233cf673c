//! Settings of one instance.

use std::collections::BTreeSet;
use std::time::Duration;

use trilemma_core::session::{SESSION_RESULTS_MAX, SESSIONS_MAX, SessionLimits};
use trilemma_core::table::CHUNK_BYTES;
use trilemma_core::{Epoch, Incarnation, NodeId};

use crate::batch::TRANSACTIONS_MAX;
use crate::message::FORWARDS_MAX;

/// Settings of one node's instance. The view (epoch, members, sequencer) must be the same on all members.
#[derive(Clone, Debug)]
pub struct TwoPhaseConfig {
    /// This node; a member.
    pub node: NodeId,
    /// All members: every one must vote for every write.
    pub members: BTreeSet<NodeId>,
    /// The member that orders and decides. Default: the lowest id.
    pub sequencer: NodeId,
    /// The view's number, at least 1.
    pub epoch: Epoch,
    /// This incarnation of the node's process; durable before the instance is made.
    pub incarnation: Incarnation,
    /// Seed of the instance's randomness; different for every incarnation.
    pub seed: u64,
    /// Batches under way at once. Default 4, right for a LAN; up to 32 for a WAN.
    pub pipeline_depth: usize,
    /// Size at which a batch is closed, in bytes. Default 1 MiB; a batch may exceed it by one command.
    pub batch_bytes: usize,
    /// Number of transactions at which a batch is closed, from 1 to [`TRANSACTIONS_MAX`]. Default 512: a member commits all
    /// batches under way in one turn, if it learns of them so, and that many take a few milliseconds.
    pub batch_transactions: usize,
    /// Most operations of which one turn decides beyond those that came in it: that are refused, or passed on again, all at
    /// once. Default 4,096. The rest follows in the next turns.
    pub turn_operations: usize,
    /// Bytes after which a turn passes no more operations to the sequencer. Default 4 MiB. The rest follows in the next turns.
    pub turn_bytes: usize,
    /// Most operations that wait at the sequencer. Default 65,536.
    pub queue_max: usize,
    /// Most operations under way from one forwarder, from 1 to [`FORWARDS_MAX`], which is the default: 4,096. While one waits
    /// for its answer, at most twice as many follow it. The same on all members.
    pub forwards_max: usize,
    /// Most bytes of operations that wait at the sequencer, or under way from one forwarder. Default 64 MiB.
    pub queue_bytes: usize,
    /// Most reads that wait for a batch or a version. Default 65,536.
    pub reads_max: usize,
    /// Least time after which the sequencer aborts a batch that lacks a vote. Default 500 ms. Where votes take longer, it
    /// waits for twice what they took recently, and twice as long after each batch that it has aborted for want of one, up
    /// to eight times this: see [`trilemma_core::patience`].
    pub prepare_timeout: Duration,
    /// How often unanswered messages are repeated, and how long a member is in doubt before it asks. Default 50 ms.
    pub retry_interval: Duration,
    /// Bytes after which a chunk of a snapshot is closed, from 1 to [`CHUNK_BYTES`], which is the default: 256 KiB.
    pub chunk_bytes: usize,
    /// Sessions whose operations are remembered. Default [`SESSIONS_MAX`]. The same on all members.
    pub sessions_max: usize,
    /// Results remembered of each of them, from 1 to [`SESSION_RESULTS_MAX`], which is the default: 1,024. The same on every
    /// node.
    pub session_results_max: u64,
}

impl TwoPhaseConfig {
    /// The default settings for `node` in a keyspace of these members.
    #[must_use]
    pub fn new(
        node: NodeId,
        members: impl IntoIterator<Item = NodeId>,
        incarnation: Incarnation,
        seed: u64,
    ) -> Self {
        let mut members: BTreeSet<NodeId> = members.into_iter().collect();
        members.insert(node);
        Self {
            node,
            sequencer: members.first().copied().unwrap_or(node),
            members,
            epoch: Epoch(1),
            incarnation,
            seed,
            pipeline_depth: 4,
            batch_bytes: 1024 * 1024,
            batch_transactions: 512,
            turn_operations: 4096,
            turn_bytes: 4 * 1024 * 1024,
            queue_max: 65_536,
            forwards_max: FORWARDS_MAX,
            queue_bytes: 64 * 1024 * 1024,
            reads_max: 65_536,
            prepare_timeout: Duration::from_millis(500),
            retry_interval: Duration::from_millis(50),
            chunk_bytes: CHUNK_BYTES,
            sessions_max: SESSIONS_MAX,
            session_results_max: SESSION_RESULTS_MAX,
        }
    }

    /// What is remembered of client sessions.
    pub(crate) fn session_limits(&self) -> SessionLimits {
        SessionLimits {
            results_each: self.session_results_max,
            ..SessionLimits::from(self.sessions_max)
        }
    }

    /// Number of transactions at which a batch is closed, within its range.
    pub(crate) fn transactions_max(&self) -> usize {
        self.batch_transactions.clamp(1, TRANSACTIONS_MAX)
    }

    /// How far the number of an operation under way may be beyond that of the oldest: what a sequencer remembers of one
    /// forwarder.
    pub(crate) fn forwards_window(&self) -> usize {
        2 * self.forwards_max.clamp(1, FORWARDS_MAX)
    }

    /// The members other than this node.
    pub(crate) fn others(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().copied().filter(|node| *node != self.node)
    }
}
