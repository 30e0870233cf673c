//! The protocols, with limits so small that a short run meets them.

use std::collections::BTreeMap;
use std::time::Duration;

use trilemma_core::{Backend, Incarnation, NodeId, codec};
use trilemma_gossip::{self as gossip, GossipConfig};
use trilemma_node::{Engine, KeyspaceConfig, NodeSettings, Tune, Tuning};
use trilemma_paxos::{self as paxos, PaxosConfig};
use trilemma_raft::{self as raft, RaftConfig};
use trilemma_two_phase::{self as two_phase, TwoPhaseConfig};

use super::process::SEGMENT_BYTES;
use super::{NAME, NODES};

/// The protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Raft.
    Raft,
    /// CASPaxos.
    Paxos,
    /// Gossip.
    Gossip,
    /// Two-phase commit.
    TwoPhase,
}

/// Limits so small that a short run meets them.
pub(super) struct Small;

impl Tune for Small {
    fn raft(&self, config: &mut RaftConfig) {
        (config.kept_entries, config.kept_bytes, config.pinned_bytes_max) = (8, 4096, 4096);
        (config.append_entries_max, config.apply_entries_max) = (4, 2);
        config.chunk_bytes = 256;
        config.sessions_max = 4;
    }

    fn paxos(&self, config: &mut PaxosConfig) {
        (config.recent_max, config.sessions_max, config.combine_max) = (4, 2, 2);
        (config.sync_page_max, config.cache_max) = (1, 4);
    }

    fn gossip(&self, config: &mut GossipConfig) {
        config.tombstone_age_min = Duration::from_millis(100);
        config.sync_ticks = 2;
        config.page_bytes = 256;
        (config.deferred_max, config.rumors_max) = (8, 16);
        config.sessions_max = 4;
    }

    fn two_phase(&self, config: &mut TwoPhaseConfig) {
        config.batch_bytes = 512;
        config.chunk_bytes = 256;
        config.sessions_max = 4;
    }
}

impl Kind {
    /// All protocols.
    pub const ALL: [Kind; 4] = [Kind::Raft, Kind::Paxos, Kind::Gossip, Kind::TwoPhase];

    fn backend(self) -> Backend {
        match self {
            Kind::Raft => Backend::Raft,
            Kind::Paxos => Backend::Paxos,
            Kind::Gossip => Backend::Gossip,
            Kind::TwoPhase => Backend::TwoPhase,
        }
    }

    pub(super) fn settings(self, node: NodeId) -> NodeSettings {
        NodeSettings {
            cluster: "fuzzed".to_owned(),
            node,
            members: (1..=NODES).map(NodeId).collect(),
            keyspaces: BTreeMap::from([(NAME.to_owned(), KeyspaceConfig::new(self.backend()))]),
            membership: None,
            tuning: Tuning {
                segment_bytes: SEGMENT_BYTES,
                ..Tuning::default()
            },
        }
    }

    /// An instance of the protocol in one incarnation of `node`, with the rig's settings.
    #[must_use]
    pub fn engine(self, node: NodeId, incarnation: Incarnation) -> Engine {
        let settings = self.settings(node);
        Engine::build(
            &settings,
            (NAME, &settings.keyspaces[NAME]),
            incarnation,
            1,
            &Small,
        )
    }

    /// Whether `bytes` decode as a message.
    pub fn check_message(self, bytes: &[u8]) -> Result<(), codec::DecodeError> {
        match self {
            Kind::Raft => codec::decode::<raft::Message>(bytes).map(drop),
            Kind::Paxos => codec::decode::<paxos::Message>(bytes).map(drop),
            Kind::Gossip => codec::decode::<gossip::Message>(bytes).map(drop),
            Kind::TwoPhase => codec::decode::<two_phase::Message>(bytes).map(drop),
        }
    }

    /// Whether `bytes` decode as a record.
    pub fn check_record(self, bytes: &[u8]) -> Result<(), codec::DecodeError> {
        match self {
            Kind::Raft => codec::decode::<raft::Record>(bytes).map(drop),
            Kind::Paxos => codec::decode::<paxos::Record>(bytes).map(drop),
            Kind::Gossip => codec::decode::<gossip::Record>(bytes).map(drop),
            Kind::TwoPhase => codec::decode::<two_phase::Record>(bytes).map(drop),
        }
    }
}
