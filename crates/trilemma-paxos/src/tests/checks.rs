//! What a node's own check sees between its machines. Each machine's check has tests beside the machine.

use trilemma_core::{AppendSeq, Incarnation, Instant, NodeId};

use super::harness::caught;
use crate::{Paxos, PaxosConfig, Waiting};

fn node() -> Paxos {
    let mut node = Paxos::new(PaxosConfig::new(
        NodeId(1),
        [1, 2, 3].map(NodeId),
        Incarnation(1),
        7,
    ));
    node.check();
    node
}

fn waiting(seq: u64, turn: u64) -> Waiting {
    Waiting {
        seq: AppendSeq(seq),
        turn,
        answers: Vec::new(),
    }
}

#[test]
fn the_check_sees_answers_that_would_never_leave() {
    let mut overdue = node();
    overdue.persisted = AppendSeq(3);
    overdue.waiting.push_back(waiting(3, 1));
    assert!(caught(|| overdue.check()).contains("what is durable does not wait"));
    let mut disordered = node();
    disordered.turn = 9;
    disordered.waiting.extend([waiting(4, 2), waiting(3, 3)]);
    assert!(caught(|| disordered.check()).contains("in the order of their records"));
}

#[test]
fn the_check_sees_a_turn_that_is_called_durable_too_early() {
    let mut node = node();
    node.durable_turn = node.turn;
    assert!(caught(|| node.check()).contains("not durable yet"));
}

#[test]
fn the_check_sees_an_unsettled_key_that_was_never_accepted() {
    let mut node = node();
    node.unsettled.insert("x".into(), Instant::ZERO);
    assert!(caught(|| node.check()).contains("what is unsettled was accepted"));
}
