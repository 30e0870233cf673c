//! Nodes that hold different registers under one ballot.

use std::sync::Arc;

use trilemma_core::host::GroupInput;
use trilemma_core::{Command, Incarnation, NodeId, Now, Protocol, ReadLevel, Reply, codec};
use trilemma_testkit::{get, succeeded};

use super::harness::*;
use crate::message::{ChosenValue, Message};
use crate::{Ballot, Register};

fn ballot(counter: u64) -> Ballot {
    Ballot {
        counter,
        node: N3,
        incarnation: Incarnation(1),
    }
}

/// Lets a node have learned that this version of `x` was chosen under the ballot.
fn learn(cluster: &mut Paxi, node: NodeId, ballot: Ballot, version: u64) {
    let register = Arc::new(Register {
        version: trilemma_core::Version(version),
        ..Register::default()
    });
    let key = "x".into();
    let items = vec![ChosenValue {
        key,
        ballot,
        register,
    }];
    let bytes = codec::encode(&Message::Values { items });
    let from = if node == N1 { N2 } else { N1 };
    cluster.input(node, GroupInput::Receive { from, bytes });
}

fn serves(cluster: &Paxi, node: NodeId) -> bool {
    let now = Now {
        instant: cluster.now(),
        ..Default::default()
    };
    let status = cluster.protocol(node).status(now);
    assert_eq!(status.can_read, status.can_write);
    let is_withdrawn = cluster.protocol(node).contradiction().is_some();
    assert_eq!(is_withdrawn, status.why.contains("of digest"));
    assert!(!(is_withdrawn && status.can_read));
    !is_withdrawn
}

/// inside/paxos#states-that-differ: of two nodes that have learned different registers under one ballot, one serves nobody
/// any more.
#[test]
fn d9_a_node_whose_register_is_not_its_peers_serves_nobody() {
    let mut cluster = cluster(3, 41);
    for (node, version) in [(N1, 7), (N2, 7), (N3, 8)] {
        learn(&mut cluster, node, ballot(100), version);
    }
    cluster.run_for(10 * SECOND);
    let serving: Vec<NodeId> = [N1, N2, N3]
        .into_iter()
        .filter(|node| serves(&cluster, *node))
        .collect();
    assert!(serving.len() < 3, "two histories of one key, and all nodes serve");
    for node in [N1, N2, N3].into_iter().filter(|node| !serving.contains(node)) {
        for level in [None, Some(ReadLevel::Local)] {
            let read = cluster.propose(node, get("x", level), SECOND);
            let refused = await_reply(&mut cluster, node, read);
            assert!(
                matches!(&refused, Some(Reply::Read(Err(refusal))) if refusal.to_string().contains("digest")),
                "{refused:?}"
            );
        }
        let refused = cluster.write(node, 1, Command::put("y", "1"));
        assert!(refusal(refused).to_string().contains("digest"));
    }
}

/// Those that hold the same go on, whatever else they lack of each other.
#[test]
fn nodes_that_hold_the_same_under_each_ballot_go_on() {
    let mut cluster = cluster(3, 42);
    for (node, at) in [(N1, 100), (N2, 100), (N3, 90)] {
        learn(&mut cluster, node, ballot(at), at);
    }
    cluster.run_for(10 * SECOND);
    for node in [N1, N2, N3] {
        assert!(serves(&cluster, node));
        assert!(succeeded(
            cluster
                .write(node, u64::from(node.0), Command::put("y", "1"))
                .as_ref()
        ));
    }
}

/// A node that has withdrawn answers what waits, promises nothing, and is not needed.
#[test]
fn a_node_that_has_withdrawn_answers_what_waits_and_the_others_go_on() {
    let mut cluster = cluster(3, 43);
    assert!(succeeded(cluster.write(N1, 1, Command::put("x", "1")).as_ref()));
    cluster.run_for(SECOND);
    let held = cluster.protocol(N1).held().next().expect("it was written");
    lose(&mut cluster, |from, _, _| from == N1);
    let waits = [
        cluster.propose(N1, get("y", None), SECOND),
        cluster.propose(
            N1,
            write_as(op_of(1, 2), trilemma_core::Attempt::First, Command::put("y", "1")),
            SECOND,
        ),
    ];
    learn(&mut cluster, N1, held.accepted, 9);
    cluster.run_for(millis(1));
    let contradiction = cluster.protocol(N1).contradiction().cloned();
    assert_eq!(
        contradiction.map(|found| (found.peer, found.key, found.ballot)),
        Some((N2, "x".into(), held.accepted))
    );
    for ticket in waits {
        let reply = cluster.reply(N1, ticket).cloned();
        assert!(refusal(reply).to_string().contains("digest"), "it was not sent");
    }
    let other = cluster.write(N2, 2, Command::put("x", "2"));
    assert_eq!(
        receipt(other).durable_on.iter().collect::<Vec<_>>(),
        [N2, N3],
        "the withdrawn node accepts nothing"
    );
    assert!(succeeded(cluster.write(N3, 3, Command::put("x", "3")).as_ref()));
    assert!(cluster.protocol(N1).contradiction().is_some());
}
