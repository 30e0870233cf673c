//! Lost, swapped and copied data directories.

use std::path::{Path, PathBuf};
use std::time::Duration;

use trilemma_core::{Backend, DiskId, NodeId};
use trilemma_runtime::{NodeError, NodeHandle};

use crate::cluster::Cluster;

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);

/// Several times the longest election.
const ELECTIONS: Duration = Duration::from_secs(2);

async fn all_writable(cluster: &Cluster) {
    for id in [ONE, TWO, THREE] {
        for backend in Backend::ALL {
            cluster.writable(id, backend).await;
        }
    }
}

fn aside(data: &Path) -> PathBuf {
    data.with_extension("aside")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory can be made");
    for entry in std::fs::read_dir(from).expect("the directory is there") {
        let entry = entry.expect("its entries can be read");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a file can be copied");
    }
}

#[tokio::test]
async fn h9_a_node_without_its_directory_is_refused_and_taken_back_with_it() {
    let cluster = Cluster::start().await;
    all_writable(&cluster).await;
    cluster.take(TWO).shutdown().await.expect("a clean end");
    let mut config = cluster.config(TWO);
    let data = config.data.clone();
    std::fs::rename(&data, aside(&data)).expect("the directory can be moved");

    // The volume is not mounted at boot.
    config.new_node = false;
    let refused = cluster.start_as(config.clone()).await.expect_err("it is empty");
    assert!(matches!(refused, NodeError::Empty { .. }), "{refused}");
    assert!(refused.to_string().contains("mount the volume"), "{refused}");

    // Somebody insists.
    config.new_node = true;
    cluster.start_as(config.clone()).await.expect("a new node starts");
    let refusal = refused_for(&cluster, ONE, TWO, "--accept-disk 2=").await;
    assert!(refusal.contains("keep both"), "{refusal}");
    tokio::time::sleep(ELECTIONS).await;
    for backend in [Backend::Raft, Backend::Paxos] {
        assert_eq!(cluster.writable_now(backend), [ONE, THREE], "{backend}");
        let why = cluster.keyspace(TWO, backend).status().current().why;
        assert!(why.contains("nodes 1, 3 have not"), "{why}");
    }

    // The volume is found.
    cluster.take(TWO).shutdown().await.expect("a clean end");
    std::fs::remove_dir_all(&data).expect("the new one can be removed");
    std::fs::rename(aside(&data), &data).expect("the directory can be moved");
    config.new_node = false;
    cluster.start_as(config).await.expect("it starts");
    all_writable(&cluster).await;
}

#[tokio::test]
async fn a_disk_that_is_lost_for_good_is_accepted_by_gossip_and_two_phase() {
    let cluster = Cluster::start().await;
    all_writable(&cluster).await;
    cluster.take(TWO).abort().await;
    std::fs::remove_dir_all(cluster.config(TWO).data).expect("the directory can be lost");
    cluster.start_node(TWO).await.expect("a new node starts");
    let refusal = refused_for(&cluster, ONE, TWO, "--accept-disk 2=").await;
    let (_, disk) = refusal.rsplit_once("--accept-disk 2=").expect("it is named");
    let disk = u64::from_str_radix(&disk[..16], 16).expect("a disk");
    for id in [ONE, THREE] {
        cluster.take(id).shutdown().await.expect("a clean end");
        let mut config = cluster.config(id);
        config.accept_disks = [(TWO, DiskId(disk))].into();
        cluster.start_as(config).await.expect("it starts again");
    }
    // It is kept.
    cluster.take(ONE).shutdown().await.expect("a clean end");
    cluster.start_node(ONE).await.expect("it starts again");
    for id in [ONE, TWO, THREE] {
        cluster.writable(id, Backend::Gossip).await;
        cluster.writable(id, Backend::TwoPhase).await;
    }
    for id in [ONE, THREE] {
        cluster.writable(id, Backend::Raft).await;
    }
    let why = cluster.keyspace(TWO, Backend::Raft).status().current().why;
    assert!(why.contains("knows this node on disk"), "{why}");
    assert_eq!(cluster.writable_now(Backend::Raft), [ONE, THREE]);
    refused_for(&cluster, ONE, TWO, "do without node 2").await;
}

#[tokio::test]
async fn h9_a_copy_of_a_directory_is_refused_while_its_node_runs() {
    let cluster = Cluster::start().await;
    all_writable(&cluster).await;
    cluster.take(THREE).shutdown().await.expect("a clean end");
    let config = cluster.config(THREE);
    let mut twin = config.clone();
    twin.data = aside(&config.data);
    copy(&config.data, &twin.data);
    cluster.start_as(config).await.expect("it starts again");
    cluster.writable(THREE, Backend::TwoPhase).await;
    let twin = NodeHandle::start(twin).await.expect("the copy is whole");
    // The network takes the one for the other.
    cluster.redirect(THREE, twin.listen());
    refused_for(&cluster, ONE, THREE, "copies of one data directory").await;
    refused_for(&cluster, TWO, THREE, "copies of one data directory").await;
    twin.abort().await;
}

/// Waits until a node gives a reason like this for having no peer.
async fn refused_for(cluster: &Cluster, id: NodeId, peer: NodeId, reason: &str) -> String {
    let mut last = String::new();
    for _ in 0..1000 {
        last = cluster.refusal(id, peer).await;
        if last.contains(reason) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("node {id} of node {peer}: {last:?}, not {reason:?}");
}
