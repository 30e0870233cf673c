//! Stopping, killing and restarting nodes, and what a node refuses to start with.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::DirEntry;
use std::time::Duration;

use trilemma_core::replicator::OpContext;
use trilemma_core::{
    Attempt, Backend, Command, Epoch, NODES_MAX, NodeId, OpId, Query, ReadLevel, ReadRequest, SessionId,
    SharedReplicator, Version,
};
use trilemma_runtime::{Durability, KeyspaceConfig, NodeConfig, NodeError, NodeHandle};

use crate::cluster::{Cluster, name};

fn context(seq: u64) -> OpContext {
    let session = SessionId {
        basis: Version::ABSENT,
        nonce: 0x7e57,
    };
    OpContext {
        op: OpId { session, seq },
        attempt: Attempt::First,
        timeout: Duration::from_secs(10),
        epoch: Epoch(1),
    }
}

async fn put(at: &SharedReplicator, seq: u64, key: &str, value: Vec<u8>) {
    let written = at.write(&context(seq), Command::put(key, value)).await;
    written.unwrap_or_else(|error| panic!("{key}: {error}"));
}

async fn local(at: &SharedReplicator, key: &str) -> Option<Vec<u8>> {
    let request = ReadRequest {
        query: Query::Get(key.into()),
        level: Some(ReadLevel::Local),
    };
    let reply = at.read(&context(0), request).await.expect("a local read answers");
    reply.value().map(|value| value.to_vec())
}

async fn all_writable(cluster: &Cluster) {
    for id in 1..=3 {
        for backend in Backend::ALL {
            cluster.writable(NodeId(id), backend).await;
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_of_all_nodes() {
    let cluster = Cluster::start().await;
    all_writable(&cluster).await;
    for backend in Backend::ALL {
        let at = cluster.keyspace(NodeId(2), backend);
        for seq in 1..=20 {
            put(&at, seq, &format!("key/{seq}"), vec![seq as u8; 100]).await;
        }
    }
    for id in 1..=3 {
        cluster.take(NodeId(id)).abort().await;
    }
    for id in 1..=3 {
        cluster
            .start_node(NodeId(id))
            .await
            .expect("a killed node starts again");
    }
    all_writable(&cluster).await;
    for backend in Backend::ALL {
        let at = cluster.keyspace(NodeId(2), backend);
        for seq in 1..=20 {
            let request = ReadRequest {
                query: Query::Get(format!("key/{seq}").into()),
                level: None,
            };
            let reply = at
                .read(&context(0), request)
                .await
                .unwrap_or_else(|error| panic!("{backend}: {error}"));
            let found = reply.value().map(|value| value.to_vec());
            assert_eq!(found, Some(vec![seq as u8; 100]), "{backend}, key {seq}");
        }
    }
}

#[tokio::test]
async fn a_node_restarts_from_its_snapshot_and_the_log_behind_it() {
    let cluster = Cluster::start_with(|config| config.tuning.snapshot_log_bytes = 1024 * 1024).await;
    all_writable(&cluster).await;
    for backend in Backend::ALL {
        let at = cluster.keyspace(NodeId(1), backend);
        for seq in 1..=60 {
            put(&at, seq, &format!("key/{}", seq % 7), vec![seq as u8; 20_000]).await;
        }
    }
    let node = cluster.take(NodeId(1));
    let snapshot = async {
        while node.overview().await.expect("the node runs").log.snapshot == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), snapshot)
        .await
        .expect("a snapshot is taken");
    node.shutdown().await.expect("a clean end");
    cluster
        .start_node(NodeId(1))
        .await
        .expect("it starts from the snapshot");
    all_writable(&cluster).await;
    for backend in Backend::ALL {
        let at = cluster.keyspace(NodeId(1), backend);
        for seq in 54..=60 {
            let key = format!("key/{}", seq % 7);
            assert_eq!(
                local(&at, &key).await,
                Some(vec![seq as u8; 20_000]),
                "{backend}, {key}"
            );
        }
    }
}

/// Starts a node with a changed configuration over an existing directory; it must be refused.
async fn refused(cluster: &Cluster, change: impl FnOnce(&mut NodeConfig)) -> NodeError {
    let mut config = cluster.config(NodeId(1));
    change(&mut config);
    NodeHandle::start(config)
        .await
        .expect_err("the node must not start")
}

#[tokio::test]
async fn a_directory_that_does_not_fit_is_refused_and_nothing_in_it_changes() {
    let cluster = Cluster::start().await;
    all_writable(&cluster).await;
    let in_use = refused(&cluster, |_| {}).await.to_string();
    assert!(in_use.contains("in use by another process"), "{in_use}");
    cluster.take(NodeId(1)).shutdown().await.expect("a clean end");

    let two = |config: &mut NodeConfig| {
        let data = std::mem::take(&mut config.data);
        *config = NodeConfig {
            data,
            ..cluster.config(NodeId(2))
        };
    };
    let other_node = refused(&cluster, two).await.to_string();
    assert!(other_node.contains("belongs to node 1"), "{other_node}");
    let remove = |config: &mut NodeConfig| {
        config.keyspaces.remove(name(Backend::Raft));
    };
    let removed = refused(&cluster, remove).await.to_string();
    assert!(
        removed.contains("keyspace \"raft\"") && removed.contains("not configured any more"),
        "{removed}"
    );
    let moved = |config: &mut NodeConfig| {
        config
            .keyspaces
            .insert(name(Backend::Raft).into(), KeyspaceConfig::new(Backend::Gossip));
    };
    let moved = refused(&cluster, moved).await.to_string();
    assert!(
        moved.contains("backend \"raft\" and is now \"gossip\""),
        "{moved}"
    );
    cluster
        .start_node(NodeId(1))
        .await
        .expect("nothing was changed by the refusals");
}

/// A configuration that was made in code did not pass through any file's checks.
#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_before_anything_is_opened() {
    let cluster = Cluster::stopped(&[NodeId(1)], |_| {}).await;
    let weak = |config: &mut NodeConfig| {
        let raft = config
            .keyspaces
            .get_mut(name(Backend::Raft))
            .expect("it is there");
        raft.durability = Durability::None;
    };
    let weak = refused(&cluster, weak).await.to_string();
    assert!(
        weak.starts_with("configuration: keyspace \"raft\": durability \"none\""),
        "{weak}"
    );
    let many = |config: &mut NodeConfig| {
        let anywhere = config.listen;
        config.peers = (2..=NODES_MAX as u32 + 1)
            .map(|id| (NodeId(id), anywhere))
            .collect();
    };
    let many = refused(&cluster, many).await.to_string();
    assert!(many.contains("1025 nodes: the limit is 1024"), "{many}");
    assert!(!cluster.config(NodeId(1)).data.exists(), "a directory was made");
    let mut gossip = cluster.config(NodeId(1));
    let carts = gossip
        .keyspaces
        .get_mut(name(Backend::Gossip))
        .expect("it is there");
    carts.durability = Durability::None;
    let started = NodeHandle::start(gossip).await;
    let node = started.expect("gossip may choose");
    node.shutdown().await.expect("a clean end");
}

#[tokio::test]
async fn damage_to_a_cleanly_closed_log_is_refused_with_file_and_offset() {
    let cluster = Cluster::start().await;
    all_writable(&cluster).await;
    put(
        &cluster.keyspace(NodeId(1), Backend::Gossip),
        1,
        "key",
        vec![1; 100],
    )
    .await;
    cluster.take(NodeId(1)).shutdown().await.expect("a clean end");
    let segment = cluster.config(NodeId(1)).data.join("wal-0000000000000001");
    let mut bytes = std::fs::read(&segment).expect("the segment is there");
    bytes[4096 + 50] ^= 0x40;
    std::fs::write(&segment, bytes).expect("the segment is written");
    let error = refused(&cluster, |_| {}).await.to_string();
    assert!(error.contains("wal-0000000000000001, offset 4096"), "{error}");
    assert!(error.contains("Keep the data directory as it is"), "{error}");
}

/// All files of a node's directory with their bytes.
fn files(cluster: &Cluster, id: NodeId) -> BTreeMap<OsString, Vec<u8>> {
    let entries = std::fs::read_dir(cluster.config(id).data).expect("the directory is there");
    let read = |entry: std::io::Result<DirEntry>| {
        let entry = entry.expect("its entries can be read");
        let bytes = std::fs::read(entry.path()).expect("a file can be read");
        (entry.file_name(), bytes)
    };
    entries.map(read).collect()
}

#[tokio::test]
async fn a_start_that_is_refused_for_its_address_or_certificate_changes_no_byte() {
    let cluster = Cluster::start().await;
    all_writable(&cluster).await;
    cluster.take(NodeId(1)).shutdown().await.expect("a clean end");
    let before = files(&cluster, NodeId(1));
    let two = cluster.config(NodeId(2));
    let taken = refused(&cluster, |config| config.listen = cluster.listen(NodeId(2))).await;
    assert!(matches!(taken, NodeError::Transport { .. }), "{taken}");
    assert!(files(&cluster, NodeId(1)) == before);
    let other = refused(&cluster, |config| config.identity = two.identity).await;
    assert!(other.to_string().contains("names node 2"), "{other}");
    assert!(files(&cluster, NodeId(1)) == before);
    let nowhere = |config: &mut NodeConfig| {
        config.new_node = false;
        config.data.push("nowhere");
    };
    let empty = refused(&cluster, nowhere).await;
    assert!(matches!(empty, NodeError::Empty { .. }), "{empty}");
    assert!(!cluster.config(NodeId(1)).data.join("nowhere").exists());
}

#[tokio::test]
async fn a_wrong_certificate_keeps_a_node_from_starting() {
    let cluster = Cluster::start().await;
    let two = cluster.config(NodeId(2)).identity;
    cluster.take(NodeId(1)).shutdown().await.expect("a clean end");
    let error = refused(&cluster, |config| config.identity = two)
        .await
        .to_string();
    assert!(
        error.contains("names node 2") && error.contains("is node 1"),
        "{error}"
    );
}
