//! What one node is started with: plain values, already checked for syntax by the one who read them.

mod gossip;
mod membership;

use std::collections::BTreeMap;
use std::time::Duration;

use trilemma_core::liveness::LivenessConfig;
use trilemma_core::{Backend, KeyspaceId, NODES_MAX, NodeId, NodeSet};
use trilemma_paxos::register::PROPOSERS_MAX;

use crate::admission::Limits;

pub use gossip::GossipSettings;
pub use membership::MembershipSettings;

/// The keyspace id under which the node's own records stand in the log and its own messages in frames.
pub const NODE_RECORDS: KeyspaceId = KeyspaceId(u32::MAX);

/// The keyspace id under which the messages of membership travel in frames.
pub const MEMBERSHIP: KeyspaceId = KeyspaceId(u32::MAX - 1);

/// Everything one node is started with, but for addresses and certificates.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// The cluster's name; part of every certificate.
    pub cluster: String,
    /// This node.
    pub node: NodeId,
    /// All nodes of the cluster, this one included; the same on every node.
    pub members: NodeSet,
    /// The keyspaces by name; the same on every node.
    pub keyspaces: BTreeMap<String, KeyspaceConfig>,
    /// How members find out who works; `None` if they do not.
    pub membership: Option<MembershipSettings>,
    /// Sizes and times that rarely need a change.
    pub tuning: Tuning,
}

impl NodeSettings {
    /// Says what of it cannot work, before anything is opened.
    pub fn check(&self) -> Result<(), String> {
        let nodes = self.members.len();
        if nodes > NODES_MAX {
            return Err(format!("{nodes} nodes: the limit is {NODES_MAX}"));
        }
        if !self.members.contains(self.node) {
            return Err(format!(
                "node {} is not among the members {}",
                self.node, self.members
            ));
        }
        for (name, keyspace) in &self.keyspaces {
            let fits = keyspace
                .check()
                .and_then(|()| keyspace.check_members(&self.members));
            fits.map_err(|why| format!("keyspace \"{name}\": {why}"))?;
        }
        if let Some(membership) = &self.membership {
            membership.check().map_err(|why| format!("membership: {why}"))?;
        }
        Ok(())
    }
}

/// How one keyspace is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyspaceConfig {
    /// The protocol.
    pub backend: Backend,
    /// What a write waits for. Only `gossip` may wait for less than the disk: [`KeyspaceConfig::check`].
    pub durability: Durability,
    /// How `gossip` spreads changes, and whose word counts.
    pub gossip: GossipSettings,
}

impl KeyspaceConfig {
    /// A keyspace of this backend with the strongest durability.
    #[must_use]
    pub fn new(backend: Backend) -> Self {
        Self {
            backend,
            durability: Durability::Fsync,
            gossip: GossipSettings::default(),
        }
    }

    /// Whether its protocol counts what members have promised, so that a member that has lost its disk is not
    /// counted any more: see [`crate::peers`].
    #[must_use]
    pub const fn counts_majorities(&self) -> bool {
        match self.backend {
            Backend::Raft | Backend::Paxos => true,
            Backend::Gossip | Backend::TwoPhase => false,
        }
    }

    /// Refuses a durability, or settings, that the backend cannot serve.
    pub fn check(&self) -> Result<(), String> {
        self.gossip.check()?;
        if self.backend != Backend::Gossip && self.gossip != GossipSettings::default() {
            return Err(format!(
                "backend \"{}\" has no settings of \"gossip\":{}",
                self.backend,
                self.gossip.text().trim_start_matches(',')
            ));
        }
        if self.durability == self.effective_durability() {
            return Ok(());
        }
        let (backend, asked) = (self.backend, self.durability.name());
        Err(format!(
            "durability \"{asked}\" with backend \"{backend}\": its votes, promises and acknowledgements must be on \
             the disk before others learn of them; choose \"fsync\", or backend \"gossip\""
        ))
    }

    /// Refuses more members than the backend can serve, and settings that do not fit them.
    pub fn check_members(&self, nodes: &NodeSet) -> Result<(), String> {
        self.gossip.check_members(nodes)?;
        let members = nodes.len();
        let limit = match self.backend {
            Backend::Paxos => PROPOSERS_MAX,
            Backend::Gossip | Backend::Raft | Backend::TwoPhase => NODES_MAX,
        };
        if members <= limit {
            return Ok(());
        }
        Err(format!(
            "{members} nodes with backend \"{}\": the limit is {limit}, since each key remembers every one",
            self.backend
        ))
    }

    /// How durable a record of this keyspace must be before its protocol takes it for persisted. Here alone it is
    /// decided, and only `gossip` has a choice.
    ///
    /// With less the others break. In raft: 1 votes for 2 in term 5 and tells it before the disk has the vote. The
    /// power fails, 1 starts again without the vote and gives it to 3. Both 2 and 3 lead term 5.
    #[must_use]
    pub const fn effective_durability(&self) -> Durability {
        match self.backend {
            Backend::Gossip => self.durability,
            Backend::Paxos | Backend::Raft | Backend::TwoPhase => Durability::Fsync,
        }
    }
}

/// What an acknowledged gossip write has survived. Default `Fsync`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Durability {
    /// Memory of this node: a kill of the process loses what no peer has received yet.
    None,
    /// The operating system has it: a kill of the process loses nothing, a power cut may.
    Os,
    /// The disk has it.
    #[default]
    Fsync,
}

impl Durability {
    /// The name in configuration files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Durability::None => "none",
            Durability::Os => "os",
            Durability::Fsync => "fsync",
        }
    }
}

/// Sizes and times that rarely need a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Pings between nodes.
    pub liveness: LivenessConfig,
    /// Time between two Raft heartbeats. Default 50 ms.
    pub raft_heartbeat: Duration,
    /// Shortest Raft election timeout; the longest is twice as long. Default 150 ms; choose at least three
    /// heartbeats and ten round trips.
    pub raft_election_timeout: Duration,
    /// Least time that a phase of a paxos round waits for answers. Default 100 ms. It grows where answers take longer.
    pub paxos_round_timeout: Duration,
    /// Least time that a two-phase sequencer waits for votes. Default 500 ms. It grows where votes take longer.
    pub two_phase_prepare_timeout: Duration,
    /// Bytes of one log segment. Default 32 MiB; at least 16 MiB.
    pub segment_bytes: u64,
    /// Bytes of log after which a snapshot is taken in the background, at the earliest. Default 128 MiB: where the state is
    /// smaller, restart replays at most about this much.
    pub snapshot_log_bytes: u64,
    /// Percent of the last snapshot's size that the log must reach before the next one is taken. Default 100: with a large
    /// state, snapshots write as much as the log does, and restart replays at most about as much as it reads of the snapshot.
    pub snapshot_state_percent: u64,
    /// Bytes of records that are given to the log and not durable; what keyspaces append beyond that waits for its turn. So
    /// one sync is short, and a record waits for little of what other keyspaces have appended. Default 2 MiB.
    pub log_window_bytes: usize,
    /// What may wait at this node.
    pub limits: Limits,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            liveness: LivenessConfig::default(),
            raft_heartbeat: Duration::from_millis(50),
            raft_election_timeout: Duration::from_millis(150),
            paxos_round_timeout: Duration::from_millis(100),
            two_phase_prepare_timeout: Duration::from_millis(500),
            segment_bytes: 32 * 1024 * 1024,
            snapshot_log_bytes: 128 * 1024 * 1024,
            snapshot_state_percent: 100,
            log_window_bytes: 2 * 1024 * 1024,
            limits: Limits::default(),
        }
    }
}

/// The id of a keyspace: a hash of its name, so that adding one does not renumber the others.
#[must_use]
pub fn keyspace_id(name: &str) -> KeyspaceId {
    // The top bit stays free, so that no name meets the node's own records.
    KeyspaceId(xxhash_rust::xxh3::xxh3_64(name.as_bytes()) as u32 & 0x7fff_ffff)
}

/// The keyspace table as text: what nodes compare when they connect and print when they differ.
#[must_use]
pub fn table_text(keyspaces: &BTreeMap<String, KeyspaceConfig>) -> String {
    let line = |(name, config): (&String, &KeyspaceConfig)| match config.backend {
        Backend::Gossip => {
            let durability = config.durability.name();
            format!("{name} = gossip, durability {durability}{}", config.gossip.text())
        }
        backend => format!("{name} = {backend}"),
    };
    keyspaces.iter().map(line).collect::<Vec<_>>().join("; ")
}

/// The digest of a keyspace table.
#[must_use]
pub fn table_digest(text: &str) -> [u8; 32] {
    let mut digest = [0; 32];
    digest[..16].copy_from_slice(&xxhash_rust::xxh3::xxh3_128(text.as_bytes()).to_le_bytes());
    digest[16..].copy_from_slice(&xxhash_rust::xxh3::xxh3_128_with_seed(text.as_bytes(), 1).to_le_bytes());
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(backend: Backend, members: usize) -> NodeSettings {
        NodeSettings {
            cluster: "c".into(),
            node: NodeId(1),
            members: (1..=members as u32).map(NodeId).collect(),
            keyspaces: BTreeMap::from([("k".to_owned(), KeyspaceConfig::new(backend))]),
            membership: None,
            tuning: Tuning::default(),
        }
    }

    #[test]
    fn d15_a_paxos_keyspace_has_no_more_members_than_its_registers_remember() {
        assert_eq!(settings(Backend::Paxos, PROPOSERS_MAX).check(), Ok(()));
        let why = settings(Backend::Paxos, PROPOSERS_MAX + 1).check();
        assert!(why.is_err_and(|why| why.contains("257 nodes with backend \"paxos\": the limit is 256")));
        for backend in [Backend::Gossip, Backend::Raft, Backend::TwoPhase] {
            assert_eq!(settings(backend, NODES_MAX).check(), Ok(()));
        }
    }

    #[test]
    fn the_text_that_nodes_compare_says_what_gossip_is_set_to() {
        let mut config = KeyspaceConfig::new(Backend::Gossip);
        let text = |config: &KeyspaceConfig| table_text(&BTreeMap::from([("k".to_owned(), config.clone())]));
        assert_eq!(text(&config), "k = gossip, durability fsync");
        config.gossip = GossipSettings {
            tick: Duration::from_millis(50),
            fanout: 4,
            groups: vec![(1..=2).map(NodeId).collect(), NodeSet::of(NodeId(3))],
            top_senders_percent: 20,
            vouchers: 2,
            trusted: NodeSet::of(NodeId(3)),
            origins: Some(NodeSet::of(NodeId(1))),
            signatures: true,
        };
        assert_eq!(
            text(&config),
            "k = gossip, durability fsync, tick 50ms, fanout 4, group {1, 2}, group {3}, top senders 20 %, vouchers 2, \
             trusted {3}, origins {1}, signatures required"
        );
        assert_eq!(
            config.gossip.mates(NodeId(1)).collect::<Vec<_>>(),
            [NodeId(1), NodeId(2)]
        );
    }
}
