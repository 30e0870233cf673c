//! Clients of nodes elsewhere: silent servers, full connections, nodes that cannot serve, nodes that die.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use trilemma_core::replicator::OpContext;
use trilemma_core::{
    Attempt, Backend, Command, Epoch, NodeId, OpId, Query, ReadRequest, Receipt, SessionId, SharedReplicator,
    Value, Version, WriteError,
};
use trilemma_runtime::{Remote, RemoteConfig};

use crate::cluster::Cluster;
use crate::relay::Relay;

pub(crate) const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
pub(crate) const ALL: [NodeId; 3] = [ONE, TWO, NodeId(3)];
/// Enough for whatever must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn connect(config: RemoteConfig) -> Arc<Remote> {
    Remote::connect(config).await.expect("a server answers")
}

pub(crate) async fn keyspace(remote: &Arc<Remote>, backend: Backend) -> SharedReplicator {
    let overview = remote.overview().await.expect("a server answers");
    let found = overview.keyspaces.iter().find(|found| found.backend == backend);
    remote.replicator(found.expect("every backend has a keyspace"), None)
}

pub(crate) fn context(seq: u64, timeout: Duration) -> OpContext {
    let session = SessionId {
        basis: Version::ABSENT,
        nonce: 11,
    };
    OpContext {
        op: OpId { session, seq },
        attempt: Attempt::First,
        timeout,
        epoch: Epoch(1),
    }
}

pub(crate) async fn put(
    at: &SharedReplicator,
    seq: u64,
    timeout: Duration,
    value: impl Into<Value>,
) -> Result<Receipt, WriteError> {
    let command = Command::put(format!("k{seq}"), value);
    at.write(&context(seq, timeout), command).await
}

pub(crate) async fn one_node(id: NodeId) -> Cluster {
    let cluster = Cluster::stopped(&[id], |_| {}).await;
    cluster.start_node(id).await.expect("a new node starts");
    cluster
}

/// Clients wait for a node that is there and says nothing, each with the same limit: the first used to dial, the second
/// after it, and so on.
#[tokio::test]
async fn h11_callers_of_a_silent_server_are_answered_by_their_deadlines() {
    let cluster = one_node(ONE).await;
    let relay = Relay::start().await;
    relay.set_target(cluster.listen(ONE));
    let remote = connect(cluster.client(&[(ONE, relay.address)])).await;
    let at = keyspace(&remote, Backend::Raft).await;
    relay.set_cut(true);
    // Long enough for the connection to be given up.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let limit = Duration::from_millis(200);
    let started = Instant::now();
    let calls: Vec<_> = (1..=5)
        .map(|seq| {
            let at = at.clone();
            tokio::spawn(async move {
                let result = put(&at, seq, limit, "x").await;
                (started.elapsed(), result)
            })
        })
        .collect();
    for call in calls {
        let (time, result) = call.await.expect("no panic");
        assert!(
            time < limit + Duration::from_millis(400),
            "answered after {time:?}"
        );
        result.expect_err("nobody is there");
    }
    relay.set_cut(false);
    let healed = put(&at, 9, PATIENCE, "x").await;
    healed.expect("the node is there again");
}

#[tokio::test]
async fn h11_a_silent_server_does_not_hold_up_the_next_one() {
    let cluster = one_node(TWO).await;
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a port is free");
    let nobody = silent.local_addr().expect("a bound socket has an address");
    let servers = [(ONE, nobody), (TWO, cluster.listen(TWO))];
    let started = Instant::now();
    let remote = connect(cluster.client(&servers)).await;
    assert_eq!(remote.node(), Some(TWO));
    let time = started.elapsed();
    assert!(time < Duration::from_millis(1500), "connected after {time:?}");
}

/// More than a connection takes at once. It used to be taken for a broken one.
#[tokio::test]
async fn m11_more_than_a_connection_takes_waits_for_room() {
    let cluster = one_node(ONE).await;
    cluster.writable(ONE, Backend::Raft).await;
    let remote = connect(cluster.client(&[(ONE, cluster.listen(ONE))])).await;
    let at = keyspace(&remote, Backend::Raft).await;
    let value = Value::from(vec![0; 1024 * 1024]);
    let calls: Vec<_> = (1..=96)
        .map(|seq| {
            let (at, value) = (at.clone(), value.clone());
            tokio::spawn(async move { put(&at, seq, 3 * PATIENCE, value).await })
        })
        .collect();
    for call in calls {
        call.await.expect("no panic").expect("the node has room");
    }
}

/// The client is connected to a node that has lost the others. They would serve it.
#[tokio::test]
async fn m12_a_client_leaves_a_node_that_has_no_quorum() {
    let cluster = Cluster::start().await;
    for backend in [Backend::Raft, Backend::Paxos] {
        cluster.writable(ONE, backend).await;
    }
    let servers: Vec<(NodeId, SocketAddr)> = ALL.map(|id| (id, cluster.listen(id))).into();
    let remote = connect(cluster.client(&servers)).await;
    let raft = keyspace(&remote, Backend::Raft).await;
    let paxos = keyspace(&remote, Backend::Paxos).await;
    cluster.cut(Some(ONE));
    cluster.writable(TWO, Backend::Raft).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for (at, seq) in [(&raft, 1), (&raft, 2), (&paxos, 3)] {
        let receipt = put(at, seq, PATIENCE, "x").await.expect("a majority is there");
        assert_ne!(receipt.served_by, ONE);
    }
    let query = Query::Get("k1".into());
    let request = ReadRequest { query, level: None };
    let read = raft.read(&context(0, PATIENCE), request).await;
    assert_eq!(read.expect("a majority is there").entries.len(), 1);
}

/// A caller who wants a certain server gets its refusal.
#[tokio::test]
async fn a_pinned_server_is_not_left() {
    let cluster = Cluster::start().await;
    let servers: Vec<(NodeId, SocketAddr)> = ALL.map(|id| (id, cluster.listen(id))).into();
    let remote = connect(cluster.client(&servers)).await;
    let overview = remote.overview().await.expect("a server answers");
    let raft = overview
        .keyspaces
        .iter()
        .find(|found| found.backend == Backend::Raft);
    let at = remote.replicator(raft.expect("it has a keyspace"), Some(ONE));
    cluster.cut(Some(ONE));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let refused = put(&at, 1, PATIENCE, "x").await.expect_err("it is alone");
    assert!(refused.to_string().contains("no quorum"), "{refused}");
}

/// Writes are under way at a node that dies. All replicas know them by their ids, so they go again, and happen once.
#[tokio::test]
async fn writes_survive_the_death_of_the_node_that_was_given_them() {
    let cluster = Cluster::start().await;
    cluster.writable(ONE, Backend::Raft).await;
    let servers: Vec<(NodeId, SocketAddr)> = ALL.map(|id| (id, cluster.listen(id))).into();
    let remote = connect(cluster.client(&servers)).await;
    let at = keyspace(&remote, Backend::Raft).await;
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let at = at.clone();
            tokio::spawn(async move {
                for seq in 1..=100 {
                    let written = put(&at, writer * 100 + seq, PATIENCE, "x").await;
                    written.unwrap_or_else(|error| panic!("writer {writer}, {seq}: {error}"));
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    cluster.take(ONE).abort().await;
    for writer in writers {
        writer.await.expect("every write succeeds");
    }
}

/// Forty answers of a mebibyte in one turn used to end the connection with everything on it.
#[tokio::test]
async fn h12_many_large_reads_at_once_over_one_connection_are_all_answered() {
    let cluster = one_node(ONE).await;
    let remote = connect(cluster.client(&[(ONE, cluster.listen(ONE))])).await;
    let at = keyspace(&remote, Backend::Raft).await;
    let value = vec![b'v'; 1024 * 1024];
    put(&at, 1, PATIENCE, value.clone()).await.expect("a write");
    let reads: Vec<_> = (2..=101)
        .map(|seq| {
            let at = at.clone();
            tokio::spawn(async move {
                let request = ReadRequest {
                    query: Query::Get("k1".into()),
                    level: None,
                };
                at.read(&context(seq, PATIENCE), request).await
            })
        })
        .collect();
    for read in reads {
        let reply = read.await.expect("no panic").expect("an answer");
        assert_eq!(reply.value().map(|found| found.len()), Some(value.len()));
    }
    let load = remote.overview().await.expect("the connection lives").load;
    assert_eq!((load.clients_cut_off, load.answers_refused), (0, 0));
    assert!(load.turns > 5 && load.turn_micros_max > 0, "{load:?}");
}
