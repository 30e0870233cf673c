//! Raft by scenarios and by random histories, on the deterministic cluster.

mod checkpoints;
mod claims;
mod explore;
mod forwards;
mod handover;
mod histories;
mod invariants;
mod node;
mod paper;
mod scenarios;
mod slices;
mod transfers;
mod turns;
mod wire;

use std::time::Duration;

use trilemma_core::table::CHUNK_BYTES;
use trilemma_core::{Incarnation, Version, codec};
use trilemma_testkit::Cluster;

use super::*;
use crate::checkpoint::Chunk;
use crate::log::Log;

const MS: Duration = Duration::from_millis(1);

fn cluster(size: u32, seed: u64) -> Cluster<Raft> {
    cluster_with(size, seed, |_| {})
}

fn cluster_with(size: u32, seed: u64, change: impl Fn(&mut RaftConfig) + 'static) -> Cluster<Raft> {
    Cluster::new(size, seed, move |node, incarnation, seed| {
        let mut config = RaftConfig::new(node, incarnation, (1..=size).map(NodeId), seed);
        change(&mut config);
        Raft::new(config)
    })
}

impl Raft {
    /// Whether this node, if it leads, has committed an entry of its term.
    fn is_ready(&self) -> bool {
        self.role().is_ready(&self.shared)
    }
}

/// The leader of the highest term among the nodes that run.
fn leader(cluster: &Cluster<Raft>) -> Option<NodeId> {
    let up = cluster.ids().into_iter().filter(|id| cluster.is_up(*id));
    let leaders = up.filter(|id| cluster.protocol(*id).is_leader());
    leaders.max_by_key(|id| cluster.protocol(*id).term())
}

/// Waits for a leader that has committed an entry of its term.
fn elect(cluster: &mut Cluster<Raft>) -> NodeId {
    let ready = |cluster: &Cluster<Raft>| leader(cluster).filter(|id| cluster.protocol(*id).is_ready());
    assert!(
        cluster.run_until(5000 * MS, |cluster| ready(cluster).is_some()),
        "no leader within 5 s"
    );
    ready(cluster).expect("it was there just now")
}
