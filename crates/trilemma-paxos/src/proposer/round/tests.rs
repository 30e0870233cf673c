//! What a round's own check sees.

use trilemma_core::{Incarnation, Rng};

use super::*;
use crate::PaxosConfig;
use crate::proposer::Proposer;
use crate::tests::harness::caught;

/// What rounds share at node 1 of three.
fn shared() -> Shared {
    let config = PaxosConfig::new(NodeId(1), [1, 2, 3].map(NodeId), Incarnation(1), 7);
    Proposer::new(config, Rng::new(7)).shared
}

/// A round that has prepared a ballot for somebody who reads.
fn preparing(shared: &mut Shared) -> Round {
    let mut round = Round::new();
    round.batch.push(Operation {
        kind: Kind::Get,
        ticket: None,
        deadline: Instant::NEVER,
        accepts: Vec::new(),
        trips_before: 0,
        syncs_before: 0,
    });
    round.start_prepare(&"x".into(), Instant::ZERO, shared);
    round.check(&"x".into(), shared);
    round
}

fn vote(node: u32) -> Vote {
    Vote {
        node: NodeId(node),
        accepted: Ballot::ZERO,
        register: Arc::default(),
    }
}

#[test]
fn the_check_sees_a_phase_without_an_end() {
    let mut shared = shared();
    let mut round = preparing(&mut shared);
    round.due = Instant::NEVER;
    assert!(caught(|| round.check(&"x".into(), &shared)).contains("every phase has an end"));
}

#[test]
fn the_check_sees_a_ballot_that_is_not_ours() {
    let mut shared = shared();
    let mut round = preparing(&mut shared);
    let Phase::Preparing { ballot, .. } = &mut round.phase else {
        panic!("it prepares");
    };
    ballot.counter += 1;
    assert!(caught(|| round.check(&"x".into(), &shared)).contains("is our own"));
}

#[test]
fn the_check_sees_a_majority_that_was_overlooked() {
    let mut shared = shared();
    let mut round = preparing(&mut shared);
    let Phase::Preparing { votes, .. } = &mut round.phase else {
        panic!("it prepares");
    };
    votes.extend([vote(2), vote(3)]);
    assert!(caught(|| round.check(&"x".into(), &shared)).contains("a majority of promises ends the phase"));
}

#[test]
fn the_check_sees_an_acceptor_that_promises_and_refuses() {
    let mut shared = shared();
    let mut round = preparing(&mut shared);
    let Phase::Preparing { votes, refused, .. } = &mut round.phase else {
        panic!("it prepares");
    };
    votes.push(vote(2));
    refused.push(NodeId(2));
    assert!(caught(|| round.check(&"x".into(), &shared)).contains("no acceptor promises and refuses"));
}

#[test]
fn the_check_sees_operations_without_a_phase_and_phases_without_operations() {
    let mut shared = shared();
    let mut forgotten = preparing(&mut shared);
    forgotten.phase = Phase::Idle;
    forgotten.due = Instant::NEVER;
    assert!(caught(|| forgotten.check(&"x".into(), &shared)).contains("what waits has a phase"));
    let mut idle = preparing(&mut shared);
    idle.batch.clear();
    assert!(caught(|| idle.check(&"x".into(), &shared)).contains("a prepare serves somebody"));
}

#[test]
fn the_check_sees_an_accept_whose_verdicts_are_not_its_batch() {
    let mut shared = shared();
    let mut round = preparing(&mut shared);
    let plan = Plan::of(&round.batch, &Arc::default(), Ballot::ZERO, shared.keep());
    let ballot = shared.clock.ballot();
    let proposed = Proposed::Whole(Arc::clone(&plan.register));
    round.start_accept(&"x".into(), ballot, plan, proposed, Instant::ZERO, &mut shared);
    round.check(&"x".into(), &shared);
    let Phase::Accepting(accepting) = &mut round.phase else {
        panic!("it accepts");
    };
    accepting.verdicts.clear();
    assert!(caught(|| round.check(&"x".into(), &shared)).contains("one verdict for each operation"));
}
