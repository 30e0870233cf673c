//! Makes the protocol instance of a keyspace from its configuration.

use std::collections::BTreeSet;

use trilemma_core::host::{Group, Host};
use trilemma_core::{Backend, Incarnation, NodeId};
use trilemma_gossip::{Gossip, GossipConfig};
use trilemma_paxos::{Paxos, PaxosConfig};
use trilemma_raft::{Raft, RaftConfig};
use trilemma_two_phase::{TwoPhase, TwoPhaseConfig};

use crate::config::{Durability, KeyspaceConfig, NodeConfig};
use crate::replicator::EPOCH;

/// The instance of one keyspace for one life of the node.
pub(crate) fn build(config: &NodeConfig, keyspace: &KeyspaceConfig, life: Incarnation) -> Box<dyn Group> {
    let node = config.node;
    let members: BTreeSet<NodeId> = config.members().0;
    let seed = crate::random_u64();
    match keyspace.backend {
        Backend::Gossip => {
            let mut gossip = GossipConfig::new(node, life, members, seed);
            gossip.durability = match keyspace.effective_durability() {
                Durability::None => trilemma_gossip::Durability::None,
                Durability::Os => trilemma_gossip::Durability::Os,
                Durability::Fsync => trilemma_gossip::Durability::Fsync,
            };
            Box::new(Host::new(Gossip::new(gossip)))
        }
        Backend::Paxos => {
            let mut paxos = PaxosConfig::new(node, members, life, seed);
            paxos.epoch = EPOCH;
            Box::new(Host::new(Paxos::new(paxos)))
        }
        Backend::Raft => {
            let mut raft = RaftConfig::new(node, members, seed);
            raft.epoch = EPOCH;
            raft.heartbeat = config.tuning.raft_heartbeat;
            raft.election_timeout = config.tuning.raft_election_timeout;
            Box::new(Host::new(Raft::new(raft)))
        }
        Backend::TwoPhase => {
            let mut two_phase = TwoPhaseConfig::new(node, members, life, seed);
            two_phase.epoch = EPOCH;
            Box::new(Host::new(TwoPhase::new(two_phase)))
        }
    }
}
