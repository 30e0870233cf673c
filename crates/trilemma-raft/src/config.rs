//! Settings of a raft keyspace on one node.

use std::collections::BTreeSet;
use std::time::Duration;

use trilemma_core::session::{SESSION_RESULTS_MAX, SESSIONS_MAX, SessionLimits};
use trilemma_core::table::CHUNK_BYTES;
use trilemma_core::{Epoch, Incarnation, NodeId};

/// Settings of [`super::Raft`]. [`RaftConfig::new`] fills in the defaults named at the fields.
#[derive(Clone, Debug)]
pub struct RaftConfig {
    /// This node; one of `members`.
    pub node: NodeId,
    /// This run of its process.
    pub incarnation: Incarnation,
    /// The voters.
    pub members: BTreeSet<NodeId>,
    /// The epoch that receipts name.
    pub epoch: Epoch,
    /// Seed of election timeouts.
    pub seed: u64,
    /// Time between two heartbeats of a leader. Default 50 ms.
    pub heartbeat: Duration,
    /// Election timeouts are random from this to twice this; elections that come to nothing spread them up to nine times
    /// this. Default 150 ms. At least three heartbeats, and ten times a round trip with its disk sync; more makes failover
    /// slower, less makes elections without cause.
    pub election_timeout: Duration,
    /// How long the news that an entry is committed waits for a message with entries to ride on, before it is sent alone.
    /// Followers apply, show watchers and serve stale reads that much later when little is written. Default 1 ms.
    pub commit_delay: Duration,
    /// Time without progress of its own disk after which a leader steps down. Default 500 ms.
    pub disk_stall: Duration,
    /// Most entries of one message. Default 4096.
    pub append_entries_max: usize,
    /// Bytes of entries after which a message is closed. Default 512 KiB.
    pub append_bytes: usize,
    /// Messages with entries in flight to one follower. Default 64.
    pub inflight_max: usize,
    /// Bytes of entries in flight to one follower. Default 8 MiB.
    pub inflight_bytes: usize,
    /// Bytes of entries that are appended and not committed, beyond which proposals are refused. Default 16 MiB: what other
    /// keyspaces write waits behind them in the log of the node, and they take a quarter of `pinned_bytes_max` at most, which
    /// is for those that a follower still needs.
    pub uncommitted_bytes: usize,
    /// Bytes of entries after which one turn sends a follower no more; what it may have beyond that, it gets in the next
    /// turns. Default 1 MiB.
    pub feed_bytes: usize,
    /// Committed entries applied in one turn, at least 1; an entry counts once for each key that its command names. Default
    /// 1024, some milliseconds of work: what is left is applied in the next turns, and heartbeats are sent between them.
    pub apply_entries_max: usize,
    /// Bytes of committed entries after which a turn applies no more. Default 4 MiB.
    pub apply_bytes: usize,
    /// Applied entries kept in memory for followers that lag. Default 20,000. Those further behind get a snapshot.
    pub kept_entries: usize,
    /// Bytes of applied entries kept in memory. Default 16 MiB.
    pub kept_bytes: usize,
    /// Bytes of log in memory up to which a leader keeps what its slowest connected follower still needs. Default 64 MiB.
    /// Beyond it the oldest entries go all the same; the status names the follower, which gets a snapshot.
    pub pinned_bytes_max: usize,
    /// Requests that wait for a leader, or for its answer. Default 16,384.
    pub waiting_max: usize,
    /// Bytes after which a chunk of a snapshot is closed, from 1 to [`CHUNK_BYTES`], which is the default: 256 KiB.
    pub chunk_bytes: usize,
    /// Snapshot chunks in flight to one follower. Default 4.
    pub chunks_inflight: usize,
    /// Bytes of a snapshot that a follower is sent in a second, so that both serve others meanwhile. Default 128 MiB. A leader
    /// hurries when the log that the follower needs afterwards takes more than half of `pinned_bytes_max`.
    pub transfer_rate: u64,
    /// Client sessions remembered for repeats. Default [`SESSIONS_MAX`]. The same on every node.
    pub sessions_max: usize,
    /// Results remembered of each of them, from 1 to [`SESSION_RESULTS_MAX`], which is the default: 1,024. The same on every
    /// node.
    pub session_results_max: u64,
}

impl RaftConfig {
    /// The defaults for a node with these members.
    #[must_use]
    pub fn new(
        node: NodeId,
        incarnation: Incarnation,
        members: impl IntoIterator<Item = NodeId>,
        seed: u64,
    ) -> Self {
        Self {
            node,
            incarnation,
            members: members.into_iter().chain([node]).collect(),
            epoch: Epoch(1),
            seed,
            heartbeat: Duration::from_millis(50),
            election_timeout: Duration::from_millis(150),
            commit_delay: Duration::from_millis(1),
            disk_stall: Duration::from_millis(500),
            append_entries_max: 4096,
            append_bytes: 512 * 1024,
            inflight_max: 64,
            inflight_bytes: 8 * 1024 * 1024,
            uncommitted_bytes: 16 * 1024 * 1024,
            feed_bytes: 1024 * 1024,
            apply_entries_max: 1024,
            apply_bytes: 4 * 1024 * 1024,
            kept_entries: 20_000,
            kept_bytes: 16 * 1024 * 1024,
            pinned_bytes_max: 64 * 1024 * 1024,
            waiting_max: 16_384,
            chunk_bytes: CHUNK_BYTES,
            chunks_inflight: 4,
            transfer_rate: 128 * 1024 * 1024,
            sessions_max: SESSIONS_MAX,
            session_results_max: SESSION_RESULTS_MAX,
        }
    }

    /// Bytes of entries that may be in memory beside the state: those that are not committed, and those that are kept or
    /// pinned for followers.
    #[must_use]
    pub fn log_bytes_max(&self) -> usize {
        self.uncommitted_bytes
            .saturating_add(self.pinned_bytes_max.max(self.kept_bytes))
    }

    /// What is remembered of client sessions.
    pub(crate) fn session_limits(&self) -> SessionLimits {
        SessionLimits {
            results_each: self.session_results_max,
            ..SessionLimits::from(self.sessions_max)
        }
    }

    /// Voters that make a majority.
    pub(crate) fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// The other voters.
    pub(crate) fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().copied().filter(|member| *member != self.node)
    }
}
