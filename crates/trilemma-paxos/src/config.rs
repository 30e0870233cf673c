//! Settings of a paxos keyspace on one node.

use std::time::Duration;

use trilemma_core::{Epoch, Incarnation, NodeId, NodeSet};

/// Shortest time of any timer: a timer of zero would never let time pass.
const TIMER_MIN: Duration = Duration::from_micros(10);

/// Settings of [`super::Paxos`]. [`PaxosConfig::new`] fills in the defaults named at the fields.
#[derive(Clone, Debug)]
pub struct PaxosConfig {
    /// This node; one of `members`.
    pub node: NodeId,
    /// The nodes of the keyspace. Every one is acceptor and proposer.
    pub members: NodeSet,
    /// The incarnation of this process. The host has made it durable before, and never uses it twice: ballots rest on it.
    pub incarnation: Incarnation,
    /// The epoch that receipts name.
    pub epoch: Epoch,
    /// Seed of back-off, jitter and the choice of peers for anti-entropy.
    pub seed: u64,
    /// Least time without enough answers after which a phase is repeated. Default 100 ms. Less hides a lost message
    /// sooner. Where answers take longer, the node waits for twice what they took recently, and twice as long after each
    /// wait in vain, up to 64 times this: see [`trilemma_core::patience`].
    pub round_timeout: Duration,
    /// First back-off after a conflict, doubled by each further one, always randomised. Default 2 ms, about a round
    /// trip with a disk sync.
    pub backoff_min: Duration,
    /// Longest back-off. Default 60 ms. Where a round trip with its disk sync takes longer, so does the longest back-off:
    /// less lets proposers of one key preempt each other without end.
    pub backoff_max: Duration,
    /// How long what was chosen waits for other messages and records that it can ride on, before it is sent to
    /// the others and logged. Default 1 ms. Other nodes learn, show watchers and serve local reads that much later when little is written.
    pub chosen_delay: Duration,
    /// Mean time between two comparisons with a random peer. Default 500 ms. Less catches up sooner and costs 2 KiB
    /// each.
    pub sync_interval: Duration,
    /// Most keys of one page of a comparison. Default 512, which is also the limit.
    pub sync_page_max: usize,
    /// Time after which a register that was accepted here, and that nobody said was chosen, is confirmed by a read
    /// round. Default 1 s.
    pub confirm_after: Duration,
    /// Most operations that wait or run. Default 65,536.
    pub operations_max: usize,
    /// Most operations that wait or run on one key. Default 4,096.
    pub operations_per_key_max: usize,
    /// Most rounds that one turn repeats, refuses or looks at beyond those that its inputs are about. Default 4,096: a few
    /// milliseconds of work. The rest follows in the next turns.
    pub turn_rounds: usize,
    /// Most keys with a round under way. Default 16,384.
    pub keys_max: usize,
    /// Most keys whose next ballot is remembered for one-trip writes. Default: all that are held, for it is a mark in what
    /// is held of them anyway.
    pub cache_max: usize,
    /// Results remembered in each register for exactly-once; also fences. Default 64, at most
    /// [`super::register::RECENT_MAX`]. More lets later retries be answered and makes every accept larger (about
    /// 20 bytes each).
    pub recent_max: usize,
    /// Sessions of which a register remembers up to where it has dropped results. Default 128, at most
    /// [`super::register::FLOORS_MAX`]. Where more sessions write one key in turn, the oldest are refused there and
    /// must begin again. More makes every accept of a key that many sessions write larger (about 15 bytes each).
    pub sessions_max: usize,
    /// Most operations on one key that share an accept. Default 32; at most half of `recent_max`, so that a batch
    /// whose answer was lost is still remembered when the next one has run.
    pub combine_max: usize,
}

impl PaxosConfig {
    /// The defaults for a node with these members.
    #[must_use]
    pub fn new(
        node: NodeId,
        members: impl IntoIterator<Item = NodeId>,
        incarnation: Incarnation,
        seed: u64,
    ) -> Self {
        Self {
            node,
            members: members.into_iter().collect(),
            incarnation,
            epoch: Epoch(0),
            seed,
            round_timeout: Duration::from_millis(100),
            backoff_min: Duration::from_millis(2),
            backoff_max: Duration::from_millis(60),
            chosen_delay: Duration::from_millis(1),
            sync_interval: Duration::from_millis(500),
            sync_page_max: super::message::PAGE_MAX,
            confirm_after: Duration::from_secs(1),
            turn_rounds: 4096,
            operations_max: 65_536,
            operations_per_key_max: 4096,
            keys_max: 16_384,
            cache_max: usize::MAX,
            recent_max: 64,
            sessions_max: 128,
            combine_max: 32,
        }
    }

    /// Brings limits into the ranges that their fields name.
    pub(crate) fn clamp(mut self) -> Self {
        self.recent_max = self.recent_max.clamp(2, super::register::RECENT_MAX);
        self.sessions_max = self.sessions_max.clamp(1, super::register::FLOORS_MAX);
        self.combine_max = self.combine_max.clamp(1, self.recent_max / 2);
        self.sync_page_max = self.sync_page_max.clamp(1, super::message::PAGE_MAX);
        self.round_timeout = self.round_timeout.max(TIMER_MIN);
        self.backoff_min = self.backoff_min.max(TIMER_MIN * 2);
        self.sync_interval = self.sync_interval.max(TIMER_MIN);
        self.operations_per_key_max = self.operations_per_key_max.max(1);
        self.operations_max = self.operations_max.max(1);
        self.keys_max = self.keys_max.max(1);
        self.turn_rounds = self.turn_rounds.max(1);
        self
    }
}
