//! What the proposer's own check sees.

use trilemma_core::{Attempt, Command, Epoch, OpId};

use super::*;
use crate::tests::harness::caught;

const NOW: Instant = Instant::from_nanos(1_000);

/// A proposer of three nodes that has begun to write one key, and whose wishes were carried out.
fn proposer() -> Proposer {
    let members = [1, 2, 3].map(NodeId);
    let mut config = PaxosConfig::new(NodeId(1), members, trilemma_core::Incarnation(1), 7);
    config.epoch = Epoch(1);
    let mut proposer = Proposer::new(config, Rng::new(7));
    let kind = Kind::Write {
        op: OpId::default(),
        attempt: Attempt::First,
        command: Command::put("x", "1"),
    };
    proposer.propose(&"x".into(), Ticket(1), NOW + Duration::from_secs(1), kind, NOW);
    proposer.shared.actions = Actions::default();
    proposer.check();
    proposer
}

#[test]
fn the_check_sees_a_round_that_nothing_would_end() {
    let mut proposer = proposer();
    proposer.shared.timers.clear();
    assert!(caught(|| proposer.check()).contains("each round has one timer"));
}

#[test]
fn the_check_sees_an_operation_that_nobody_would_answer() {
    let mut undated = proposer();
    undated.shared.deadlines.clear();
    assert!(caught(|| undated.check()).contains("each ticket has one deadline"));
    let mut unowned = proposer();
    unowned.shared.tickets.insert(Ticket(1), "y".into());
    assert!(caught(|| unowned.check()).contains("an operation that waits has a ticket for this key"));
}

#[test]
fn the_check_sees_a_quorum_that_is_too_small() {
    let mut proposer = proposer();
    proposer.shared.quorum = 1;
    assert!(caught(|| proposer.check()).contains("two quorums meet"));
}

#[test]
fn the_check_sees_wishes_that_nobody_carried_out() {
    let mut proposer = proposer();
    let ballot = Ballot::ZERO;
    let ask = Ask::Chosen {
        key: "x".into(),
        ballot,
    };
    proposer.shared.ask(Audience::Others, ask);
    assert!(caught(|| proposer.check()).contains("is done before the step ends"));
}

#[test]
fn the_check_sees_a_node_that_cannot_reach_itself() {
    let mut proposer = proposer();
    proposer.shared.connected.remove(&NodeId(1));
    assert!(caught(|| proposer.check()).contains("a node reaches itself"));
}

#[test]
fn a_promise_that_no_correct_acceptor_makes_is_not_counted() {
    let mut proposer = proposer();
    let ballot = proposer.shared.clock.ballot();
    let promised = Ballot {
        counter: ballot.counter - 1,
        ..ballot
    };
    for from in [1, 2].map(NodeId) {
        let answer = Answer::Promise {
            key: "x".into(),
            ballot: promised,
            accepted: promised,
            register: Arc::default(),
        };
        proposer.on_answer(from, answer, NOW);
    }
    let accepts = proposer.shared.actions.asks.iter();
    assert_eq!(
        accepts
            .filter(|wanted| matches!(wanted.ask, Ask::Accept { .. }))
            .count(),
        0
    );
    proposer.check();
}
