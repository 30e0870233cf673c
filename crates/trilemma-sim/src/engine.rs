//! The real protocol cores under one roof: what is built from which knobs, and typed access for invariants.
//!
//! Every knob of a scenario is `protocol.setting`, as in the configuration types of the protocol crates; durations are
//! in microseconds.

use std::collections::BTreeMap;
use std::time::Duration;

use trilemma_core::host::{Group, GroupInput, Host, Output};
use trilemma_core::{Checkpoint, Corrupt, Entry, Incarnation, Instant, KeyRange, LiveStatus, NodeId, Now};
use trilemma_gossip::{Gossip, GossipConfig};
use trilemma_paxos::{Paxos, PaxosConfig};
use trilemma_raft::{Raft, RaftConfig};
use trilemma_two_phase::{TwoPhase, TwoPhaseConfig};

use crate::scenario::Protocol;

/// The settings of a scenario.
pub type Knobs = BTreeMap<String, u64>;

/// One protocol instance with its host.
#[allow(
    clippy::large_enum_variant,
    reason = "there is one for each keyspace of each node"
)]
pub enum Engine {
    /// Of backend `raft`.
    Raft(Host<Raft>),
    /// Of backend `paxos`.
    Paxos(Host<Paxos>),
    /// Of backend `gossip`.
    Gossip(Host<Gossip>),
    /// Of backend `two-phase`.
    TwoPhase(Host<TwoPhase>),
}

macro_rules! knobs {
    ($table:ident, $config:ty, $($name:literal => $field:ident : $kind:ident),+ $(,)?) => {
        const $table: &[&str] = &[$($name),+];

        impl Knob for $config {
            fn set(&mut self, name: &str, value: u64) {
                match name {
                    $($name => self.$field = $kind(value),)+
                    _ => {}
                }
            }
        }
    };
}

trait Knob {
    fn set(&mut self, name: &str, value: u64);
}

fn micros(value: u64) -> Duration {
    Duration::from_micros(value)
}

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn number(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

knobs!(RAFT, RaftConfig,
    "raft.heartbeat" => heartbeat: micros,
    "raft.election_timeout" => election_timeout: micros,
    "raft.disk_stall" => disk_stall: micros,
    "raft.append_entries_max" => append_entries_max: size,
    "raft.append_bytes" => append_bytes: size,
    "raft.inflight_max" => inflight_max: size,
    "raft.inflight_bytes" => inflight_bytes: size,
    "raft.uncommitted_bytes" => uncommitted_bytes: size,
    "raft.kept_entries" => kept_entries: size,
    "raft.kept_bytes" => kept_bytes: size,
    "raft.pinned_bytes_max" => pinned_bytes_max: size,
    "raft.waiting_max" => waiting_max: size,
    "raft.chunk_bytes" => chunk_bytes: size,
    "raft.chunks_inflight" => chunks_inflight: size,
    "raft.sessions_max" => sessions_max: size,
);
knobs!(PAXOS, PaxosConfig,
    "paxos.round_timeout" => round_timeout: micros,
    "paxos.backoff_min" => backoff_min: micros,
    "paxos.backoff_max" => backoff_max: micros,
    "paxos.sync_interval" => sync_interval: micros,
    "paxos.sync_page_max" => sync_page_max: size,
    "paxos.settle_after" => settle_after: micros,
    "paxos.operations_max" => operations_max: size,
    "paxos.operations_per_key_max" => operations_per_key_max: size,
    "paxos.keys_max" => keys_max: size,
    "paxos.cache_max" => cache_max: size,
    "paxos.recent_max" => recent_max: size,
    "paxos.combine_max" => combine_max: size,
);
knobs!(GOSSIP, GossipConfig,
    "gossip.tick" => tick: micros,
    "gossip.fanout" => fanout: number,
    "gossip.flush_peers_max" => flush_peers_max: size,
    "gossip.sync_ticks" => sync_ticks: number,
    "gossip.accept_drift" => accept_drift: micros,
    "gossip.tombstone_age_min" => tombstone_age_min: micros,
    "gossip.siblings_max" => siblings_max: size,
    "gossip.deferred_max" => deferred_max: size,
    "gossip.rumors_max" => rumors_max: size,
    "gossip.tick_bytes_max" => tick_bytes_max: size,
    "gossip.page_bytes" => page_bytes: size,
    "gossip.intervals_max" => intervals_max: size,
    "gossip.serving_max" => serving_max: size,
    "gossip.sessions_max" => sessions_max: size,
);
knobs!(TWO_PHASE, TwoPhaseConfig,
    "two-phase.pipeline_depth" => pipeline_depth: size,
    "two-phase.batch_bytes" => batch_bytes: size,
    "two-phase.queue_max" => queue_max: size,
    "two-phase.queue_bytes" => queue_bytes: size,
    "two-phase.reads_max" => reads_max: size,
    "two-phase.prepare_timeout" => prepare_timeout: micros,
    "two-phase.retry_interval" => retry_interval: micros,
    "two-phase.chunk_bytes" => chunk_bytes: size,
    "two-phase.sessions_max" => sessions_max: size,
);

/// Whether a scenario may set this.
#[must_use]
pub fn is_knob(name: &str) -> bool {
    [RAFT, PAXOS, GOSSIP, TWO_PHASE]
        .iter()
        .any(|table| table.contains(&name))
}

fn tuned<C: Knob>(mut config: C, knobs: &Knobs) -> C {
    knobs.iter().for_each(|(name, value)| config.set(name, *value));
    config
}

impl Engine {
    /// An instance of a backend for one life of a node among nodes 1 to `nodes`. `protocol` is not `Mixed`.
    #[must_use]
    pub fn new(
        protocol: Protocol,
        node: NodeId,
        nodes: u32,
        life: Incarnation,
        seed: u64,
        knobs: &Knobs,
    ) -> Self {
        let members = (1..=nodes).map(NodeId);
        match protocol {
            Protocol::Raft | Protocol::Mixed => {
                let config = tuned(RaftConfig::new(node, members, seed), knobs);
                Engine::Raft(Host::new(Raft::new(config)))
            }
            Protocol::Paxos => {
                let config = tuned(PaxosConfig::new(node, members, life, seed), knobs);
                Engine::Paxos(Host::new(Paxos::new(config)))
            }
            Protocol::Gossip => {
                let config = tuned(GossipConfig::new(node, life, members, seed), knobs);
                Engine::Gossip(Host::new(Gossip::new(config)))
            }
            Protocol::TwoPhase => {
                let config = tuned(TwoPhaseConfig::new(node, members, life, seed), knobs);
                Engine::TwoPhase(Host::new(TwoPhase::new(config)))
            }
        }
    }

    fn group(&mut self) -> &mut dyn Group {
        match self {
            Engine::Raft(host) => host,
            Engine::Paxos(host) => host,
            Engine::Gossip(host) => host,
            Engine::TwoPhase(host) => host,
        }
    }

    fn view(&self) -> &dyn Group {
        match self {
            Engine::Raft(host) => host,
            Engine::Paxos(host) => host,
            Engine::Gossip(host) => host,
            Engine::TwoPhase(host) => host,
        }
    }

    /// See [`Group::restore`].
    pub fn restore(&mut self, chunk: &[u8]) -> Result<(), Corrupt> {
        self.group().restore(chunk)
    }

    /// See [`Group::replay`].
    pub fn replay(&mut self, record: &[u8]) -> Result<(), Corrupt> {
        self.group().replay(record)
    }

    /// See [`Group::step`].
    pub fn step(&mut self, now: Now, input: GroupInput, output: &mut Output) {
        self.group().step(now, input, output);
    }

    /// See [`Group::wake_at`].
    #[must_use]
    pub fn wake_at(&self) -> Instant {
        self.view().wake_at()
    }

    /// See [`Group::checkpoint`].
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        self.view().checkpoint()
    }

    /// See [`Group::status`].
    #[must_use]
    pub fn status(&self, now: Now) -> LiveStatus {
        self.view().status(now)
    }

    /// A digest of everything that replicas must have in common, beyond the entries: siblings and what is deleted.
    #[must_use]
    pub fn digest(&self) -> u64 {
        match self {
            Engine::Gossip(host) => host.protocol().digest(),
            Engine::TwoPhase(host) => host.protocol().digest(),
            Engine::Raft(_) | Engine::Paxos(_) => 0,
        }
    }

    /// What [`Engine::digest`] covers and [`Engine::entries`] does not show, as text.
    #[must_use]
    pub fn hidden(&self) -> String {
        let Engine::Gossip(host) = self else {
            return String::new();
        };
        let replica = host.protocol().replica();
        let entries = self.entries();
        let siblings = |entry: &Entry| format!("{}: {:?}", entry.key, replica.siblings(&entry.key));
        entries.iter().map(siblings).collect::<Vec<_>>().join("; ")
    }

    /// All entries that this node shows.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.view().scan(&KeyRange::all(), usize::MAX)
    }
}
