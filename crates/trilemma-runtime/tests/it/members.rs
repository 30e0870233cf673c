//! Nodes whose configurations name different members: majorities of different lists need not share a node.

use std::time::Duration;

use trilemma_core::{Backend, NodeId};

use crate::cluster::Cluster;

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);
const FOUR: NodeId = NodeId(4);
const FIVE: NodeId = NodeId(5);

const OF_THREE: [NodeId; 3] = [ONE, TWO, THREE];
const OF_FIVE: [NodeId; 5] = [ONE, TWO, THREE, FOUR, FIVE];

/// Several times the longest election: long enough for a second leader, if there can be one.
const ELECTIONS: Duration = Duration::from_secs(3);
/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until a node tells of a refused connection with a peer.
async fn refusal(cluster: &Cluster, id: NodeId, peer: NodeId) -> String {
    let text = async {
        loop {
            let text = cluster.refusal(id, peer).await;
            if !text.is_empty() {
                return text;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(PATIENCE, text)
        .await
        .unwrap_or_else(|_| panic!("node {id} tells of no refusal by node {peer}"))
}

/// Both lists, whole: `1, 2, 3` is also the beginning of `1, 2, 3, 4, 5`.
fn names_both_lists(text: &str) -> bool {
    let longer = text.matches("1, 2, 3, 4, 5").count();
    longer > 0 && text.matches("1, 2, 3").count() > longer
}

/// Three nodes run; somebody adds two more to the files and restarts node after node. The third would be counted in a
/// majority of three with nodes 1 and 2, and in a majority of five with nodes 4 and 5.
#[tokio::test]
async fn a_cluster_that_grows_by_edited_files_never_has_two_leaders() {
    let cluster = Cluster::stopped(&OF_FIVE, |_| {}).await;
    for id in OF_THREE {
        let started = cluster.start_node_among(id, &OF_THREE).await;
        started.expect("a new node starts");
    }
    cluster.writable(ONE, Backend::Raft).await;
    cluster.take(THREE).shutdown().await.expect("a clean end");
    let third = cluster.start_node_among(THREE, &OF_FIVE).await;
    for id in [FOUR, FIVE] {
        let started = cluster.start_node_among(id, &OF_FIVE).await;
        started.expect("a new node starts");
    }
    cluster.cut_off(&[ONE, TWO]);
    cluster.writable(ONE, Backend::Raft).await;
    let end = tokio::time::Instant::now() + ELECTIONS;
    while tokio::time::Instant::now() < end {
        for backend in [Backend::Raft, Backend::Paxos] {
            let writable = cluster.writable_now(backend);
            let (left, right): (Vec<NodeId>, Vec<NodeId>) =
                writable.into_iter().partition(|id| [ONE, TWO].contains(id));
            assert!(
                left.is_empty() || right.is_empty(),
                "{backend}: nodes {left:?} take writes, and so do nodes {right:?}"
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
    let refused = third
        .expect_err("its directory belongs to a cluster of three")
        .to_string();
    assert!(names_both_lists(&refused), "{refused}");
    assert!(refused.contains("cannot be changed by editing"), "{refused}");
    let started = cluster.start_node_among(THREE, &OF_THREE).await;
    started.expect("the refusal has changed nothing");
    cluster.cut_off(&[]);
    cluster.writable(THREE, Backend::TwoPhase).await;
}

#[tokio::test]
async fn nodes_with_different_member_lists_refuse_each_other_with_both_lists_printed() {
    let cluster = Cluster::stopped(&OF_FIVE, |_| {}).await;
    for (id, members) in [(ONE, &OF_THREE[..]), (TWO, &OF_THREE), (THREE, &OF_FIVE)] {
        let started = cluster.start_node_among(id, members).await;
        started.expect("a new node starts");
    }
    for (id, peer) in [(ONE, THREE), (TWO, THREE), (THREE, ONE), (THREE, TWO)] {
        let text = refusal(&cluster, id, peer).await;
        assert!(names_both_lists(&text), "node {id} of node {peer}: {text}");
        assert!(text.contains("`peers`"), "what to do: {text}");
    }
    cluster.writable(ONE, Backend::Gossip).await;
    tokio::time::sleep(ELECTIONS).await;
    assert_eq!(cluster.writable_now(Backend::Raft), [], "no list is whole");
}

/// Nodes that have never met know no other list than their own. Each side would be a majority of its own.
#[tokio::test]
async fn fresh_directories_with_different_lists_never_found_two_clusters() {
    let cluster = Cluster::stopped(&OF_FIVE, |_| {}).await;
    cluster.cut_off(&[ONE, TWO]);
    for id in OF_FIVE {
        let members = if [ONE, TWO].contains(&id) {
            &OF_THREE[..]
        } else {
            &OF_FIVE
        };
        let started = cluster.start_node_among(id, members).await;
        started.expect("a new node starts");
    }
    cluster.writable(FIVE, Backend::Gossip).await;
    tokio::time::sleep(ELECTIONS).await;
    for backend in [Backend::Raft, Backend::Paxos] {
        assert_eq!(cluster.writable_now(backend), [], "{backend}");
        let why = cluster.keyspace(FOUR, backend).status().current().why;
        assert!(why.contains("nodes 1, 2 have not"), "{why}");
    }
}
