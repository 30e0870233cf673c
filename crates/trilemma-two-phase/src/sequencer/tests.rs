//! What the sequencer's own check sees.

use trilemma_core::Command;
use trilemma_testkit::op;

use super::*;
use crate::tests::harness::{batch, caught, core_of};

/// A sequencer with one batch in flight and one operation in its queue.
fn sequencer() -> (Core, Sequencer) {
    let mut core = core_of(1);
    let mut sequencer = Sequencer::new(&core.config);
    let mut effects = Out::default();
    sequencer.start(&mut core, &mut effects);
    for link in sequencer.links.values_mut() {
        link.state = LinkState::Linked;
    }
    let transaction = |seq| Transaction::Write {
        op: op(seq),
        command: Command::put("x", format!("{seq}")),
    };
    let deadline = Instant::from_nanos(9);
    for seq in 1..=2 {
        let waiter = ReplyTo::Remote(NodeId(2), Incarnation(1), seq);
        sequencer.enqueue(Instant::ZERO, transaction(seq), waiter, deadline);
        if seq == 1 {
            sequencer.order(&mut core, Instant::ZERO, &mut effects);
        }
    }
    sequencer.check(&core);
    assert_eq!((sequencer.in_flight(), sequencer.queued()), (1, 1));
    (core, sequencer)
}

#[test]
fn the_check_sees_a_vote_for_a_batch_that_is_not_there() {
    let (core, mut sequencer) = sequencer();
    sequencer.links.get_mut(&NodeId(2)).expect("a member").voted = batch(2).id;
    assert!(caught(|| sequencer.check(&core)).contains("node 2 voted for 1.1.2, the last is 1.1.1"));
}

#[test]
fn the_check_sees_an_acknowledgement_of_what_is_not_decided() {
    let (core, mut sequencer) = sequencer();
    sequencer.links.get_mut(&NodeId(2)).expect("a member").acked = batch(1).id;
    assert!(caught(|| sequencer.check(&core)).contains("which is not decided"));
}

#[test]
fn the_check_sees_a_flight_that_does_not_follow() {
    let (mut core, sequencer) = sequencer();
    core.ledger.advance(batch(1).id);
    assert!(caught(|| sequencer.check(&core)).contains("is chained on the one before it"));
}

#[test]
fn the_check_sees_a_trial_that_is_not_of_the_last_flight() {
    let (core, mut sequencer) = sequencer();
    sequencer.speculative = core.ledger.table.clone();
    assert!(caught(|| sequencer.check(&core)).contains("follows the last flight"));
}

#[test]
fn the_check_sees_a_transaction_that_nobody_waits_for() {
    let (core, mut sequencer) = sequencer();
    sequencer.flights[0].waiters.clear();
    assert!(caught(|| sequencer.check(&core)).contains("each transaction has a waiter"));
}

#[test]
fn the_check_sees_a_decision_behind_an_open_batch() {
    let (mut core, mut sequencer) = sequencer();
    sequencer.order(&mut core, Instant::ZERO, &mut Out::default());
    sequencer.check(&core);
    sequencer.flights[1].decision = Some(AppendSeq(7));
    assert!(caught(|| sequencer.check(&core)).contains("is decided before the one it is chained on"));
}

#[test]
fn the_check_sees_bytes_that_are_off() {
    let (core, mut sequencer) = sequencer();
    sequencer.queue_bytes += 1;
    assert!(caught(|| sequencer.check(&core)).contains("queued bytes are counted"));
    sequencer.queue_bytes = 0;
    assert!(caught(|| sequencer.check(&core)).contains("queued bytes are counted"));
}

#[test]
fn the_check_sees_a_state_on_its_way_to_a_member_that_has_one() {
    let (core, mut sequencer) = sequencer();
    sequencer.flights.clear();
    sequencer.speculative = core.ledger.table.clone();
    sequencer.links.get_mut(&NodeId(2)).expect("a member").state = LinkState::Blank(5);
    sequencer.offer_transfers(&core, &mut Out::default());
    sequencer.check(&core);
    sequencer.links.get_mut(&NodeId(2)).expect("a member").state = LinkState::Linked;
    assert!(caught(|| sequencer.check(&core)).contains("waits for the state that is sent to it"));
}

/// The last vote comes in the turn in which the time of the batch is over.
#[test]
fn a_batch_that_all_have_voted_for_is_not_too_late() {
    let late = Instant::ZERO + std::time::Duration::from_secs(3600);
    let in_flight_after = |voters| {
        let (mut core, mut sequencer) = sequencer();
        for link in sequencer.links.values_mut().take(voters) {
            link.voted = batch(1).id;
        }
        sequencer.on_tick(&mut core, late, &mut Out::default());
        sequencer.in_flight()
    };
    assert_eq!(in_flight_after(2), 1, "it will be decided");
    assert_eq!(in_flight_after(1), 0, "it was aborted for want of a vote");
}
