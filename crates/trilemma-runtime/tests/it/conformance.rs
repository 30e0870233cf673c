//! Every backend against the suite that reads its descriptor.

use trilemma_core::{Backend, NodeId};
use trilemma_testkit::conformance;

use crate::cluster::{Cluster, One};

async fn conforms(backend: Backend) {
    let cluster = Cluster::start().await;
    for id in 1..=3 {
        cluster.writable(NodeId(id), backend).await;
    }
    let report = conformance::run(&One {
        cluster: &cluster,
        backend,
    })
    .await;
    assert!(report.passed(), "{backend}:\n{report}");
    println!("{backend}:\n{report}");
}

#[tokio::test]
async fn gossip_does_what_its_descriptor_claims() {
    conforms(Backend::Gossip).await;
}

#[tokio::test]
async fn raft_does_what_its_descriptor_claims() {
    conforms(Backend::Raft).await;
}

#[tokio::test]
async fn paxos_does_what_its_descriptor_claims() {
    conforms(Backend::Paxos).await;
}

#[tokio::test]
async fn two_phase_does_what_its_descriptor_claims() {
    conforms(Backend::TwoPhase).await;
}
