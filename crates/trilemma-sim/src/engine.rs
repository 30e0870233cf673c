//! The settings of protocols that a scenario may change, and what the simulator wants to know of their instances.
//!
//! Every knob of a scenario is `protocol.setting`, as in the configuration types of the protocol crates; durations are
//! in microseconds. How an instance is built is decided by `trilemma-node`, as in production.

use std::collections::BTreeMap;
use std::time::Duration;

use trilemma_core::liveness::LivenessConfig;
use trilemma_core::{Backend, Entry, KeyRange};
use trilemma_gossip::GossipConfig;
use trilemma_node::{Durability, Engine, KeyspaceConfig, Limits, Tune, Tuning};
use trilemma_paxos::PaxosConfig;
use trilemma_raft::RaftConfig;
use trilemma_two_phase::TwoPhaseConfig;

/// The settings of a scenario.
pub type Knobs = BTreeMap<String, u64>;

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

fn per_mille(value: u64) -> f64 {
    f64::from(number(value).min(1000)) / 1000.0
}

const fn count(value: u64) -> u64 {
    value
}

knobs!(RAFT, RaftConfig,
    "raft.heartbeat" => heartbeat: micros,
    "raft.election_timeout" => election_timeout: micros,
    "raft.commit_delay" => commit_delay: micros,
    "raft.disk_stall" => disk_stall: micros,
    "raft.append_entries_max" => append_entries_max: size,
    "raft.append_bytes" => append_bytes: size,
    "raft.inflight_max" => inflight_max: size,
    "raft.inflight_bytes" => inflight_bytes: size,
    "raft.uncommitted_bytes" => uncommitted_bytes: size,
    "raft.feed_bytes" => feed_bytes: size,
    "raft.apply_entries_max" => apply_entries_max: size,
    "raft.apply_bytes" => apply_bytes: size,
    "raft.kept_entries" => kept_entries: size,
    "raft.kept_bytes" => kept_bytes: size,
    "raft.pinned_bytes_max" => pinned_bytes_max: size,
    "raft.waiting_max" => waiting_max: size,
    "raft.chunk_bytes" => chunk_bytes: size,
    "raft.chunks_inflight" => chunks_inflight: size,
    "raft.transfer_rate" => transfer_rate: count,
    "raft.sessions_max" => sessions_max: size,
    "raft.session_results_max" => session_results_max: count,
);
knobs!(PAXOS, PaxosConfig,
    "paxos.round_timeout" => round_timeout: micros,
    "paxos.backoff_min" => backoff_min: micros,
    "paxos.backoff_max" => backoff_max: micros,
    "paxos.sync_interval" => sync_interval: micros,
    "paxos.chosen_delay" => chosen_delay: micros,
    "paxos.turn_rounds" => turn_rounds: size,
    "paxos.sync_page_max" => sync_page_max: size,
    "paxos.confirm_after" => confirm_after: micros,
    "paxos.operations_max" => operations_max: size,
    "paxos.operations_per_key_max" => operations_per_key_max: size,
    "paxos.keys_max" => keys_max: size,
    "paxos.cache_max" => cache_max: size,
    "paxos.recent_max" => recent_max: size,
    "paxos.sessions_max" => sessions_max: size,
    "paxos.combine_max" => combine_max: size,
);
knobs!(GOSSIP, GossipConfig,
    "gossip.tick" => tick: micros,
    "gossip.fanout" => fanout: number,
    "gossip.vouchers" => vouchers: number,
    "gossip.flush_peers_max" => flush_peers_max: size,
    "gossip.sync_ticks" => sync_ticks: number,
    "gossip.accept_drift" => accept_drift: micros,
    "gossip.tombstone_age_min" => tombstone_age_min: micros,
    "gossip.siblings_max" => siblings_max: size,
    "gossip.deferred_max" => deferred_max: size,
    "gossip.rumors_max" => rumors_max: size,
    "gossip.turn_items" => turn_items: size,
    "gossip.loss" => loss: per_mille,
    "gossip.miss_probability" => miss_probability: per_mille,
    "gossip.tick_bytes_max" => tick_bytes_max: size,
    "gossip.lazy_bytes" => lazy_bytes: size,
    "gossip.fetch_ticks" => fetch_ticks: number,
    "gossip.fetch_bytes_max" => fetch_bytes_max: size,
    "gossip.page_bytes" => page_bytes: size,
    "gossip.intervals_max" => intervals_max: size,
    "gossip.serving_max" => serving_max: size,
    "gossip.sessions_max" => sessions_max: size,
    "gossip.session_results_max" => session_results_max: count,
);
knobs!(TWO_PHASE, TwoPhaseConfig,
    "two-phase.pipeline_depth" => pipeline_depth: size,
    "two-phase.batch_bytes" => batch_bytes: size,
    "two-phase.batch_transactions" => batch_transactions: size,
    "two-phase.turn_operations" => turn_operations: size,
    "two-phase.turn_bytes" => turn_bytes: size,
    "two-phase.forwards_max" => forwards_max: size,
    "two-phase.queue_max" => queue_max: size,
    "two-phase.queue_bytes" => queue_bytes: size,
    "two-phase.reads_max" => reads_max: size,
    "two-phase.prepare_timeout" => prepare_timeout: micros,
    "two-phase.retry_interval" => retry_interval: micros,
    "two-phase.chunk_bytes" => chunk_bytes: size,
    "two-phase.sessions_max" => sessions_max: size,
    "two-phase.session_results_max" => session_results_max: count,
);

knobs!(NODE, Limits,
    "node.log_bytes_max" => log_bytes_max: size,
    "node.pending_max" => pending_max: size,
    "node.pending_bytes_max" => pending_bytes_max: size,
);
knobs!(TUNING, Tuning,
    "node.snapshot_state_percent" => snapshot_state_percent: count,
    "node.log_window_bytes" => log_window_bytes: size,
);
knobs!(LIVENESS, LivenessConfig,
    "node.ping_interval" => interval: micros,
    "node.peer_timeout" => timeout: micros,
);
knobs!(KEYSPACE, KeyspaceConfig,
    "node.durability" => durability: durability,
);

/// What a gossip write waits for: 0 nothing, 1 the operating system, 2 the disk.
pub(crate) fn durability(value: u64) -> Durability {
    match value {
        0 => Durability::None,
        1 => Durability::Os,
        _ => Durability::Fsync,
    }
}

/// Whether a scenario may set this.
#[must_use]
pub fn is_knob(name: &str) -> bool {
    [RAFT, PAXOS, GOSSIP, TWO_PHASE, NODE, TUNING, LIVENESS, KEYSPACE]
        .iter()
        .any(|table| table.contains(&name))
}

/// Applies the settings of a scenario.
pub(crate) struct Tuned<'a>(pub(crate) &'a Knobs);

impl Tuned<'_> {
    pub(crate) fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        self.apply(&mut limits);
        limits
    }

    pub(crate) fn liveness(&self) -> LivenessConfig {
        let mut liveness = LivenessConfig::default();
        self.apply(&mut liveness);
        liveness
    }

    pub(crate) fn tuning(&self, mut tuning: Tuning) -> Tuning {
        self.apply(&mut tuning);
        tuning
    }

    /// Only gossip may wait for less than the disk.
    pub(crate) fn keyspace(&self, mut config: KeyspaceConfig) -> KeyspaceConfig {
        if config.backend == Backend::Gossip {
            self.apply(&mut config);
        }
        config
    }

    fn apply(&self, config: &mut impl Knob) {
        self.0.iter().for_each(|(name, value)| config.set(name, *value));
    }
}

impl Tune for Tuned<'_> {
    fn raft(&self, config: &mut RaftConfig) {
        self.apply(config);
    }

    fn paxos(&self, config: &mut PaxosConfig) {
        self.apply(config);
    }

    fn gossip(&self, config: &mut GossipConfig) {
        self.apply(config);
    }

    fn two_phase(&self, config: &mut TwoPhaseConfig) {
        self.apply(config);
    }
}

/// A digest of everything that replicas must have in common, beyond the entries: siblings and what is deleted.
#[must_use]
pub fn digest(engine: &Engine) -> u64 {
    match engine {
        Engine::Gossip(host) => host.protocol().digest(),
        Engine::TwoPhase(host) => host.protocol().digest(),
        Engine::Raft(_) | Engine::Paxos(_) => 0,
    }
}

/// What [`digest`] covers and [`entries`] does not show, as text.
#[must_use]
pub fn hidden(engine: &Engine) -> String {
    let Engine::Gossip(host) = engine else {
        return String::new();
    };
    let replica = host.protocol().replica();
    let siblings = |entry: &Entry| format!("{}: {:?}", entry.key, replica.siblings(&entry.key));
    let entries = entries(engine);
    entries.iter().map(siblings).collect::<Vec<_>>().join("; ")
}

/// All entries that this node shows.
#[must_use]
pub fn entries(engine: &Engine) -> Vec<Entry> {
    engine.scan(&KeyRange::all(), usize::MAX)
}
