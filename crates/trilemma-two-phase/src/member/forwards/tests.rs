//! What the check of forwarded operations sees.

use trilemma_core::{Attempt, Command};
use trilemma_testkit::op;

use super::*;
use crate::tests::harness::{caught, core_of};

/// What both roles share, and a member with one operation under way.
fn forwarding() -> (Core, Member) {
    let mut core = core_of(2);
    let mut member = Member::new(&core.config);
    let (op, attempt) = (op(1), Attempt::First);
    let kind = PendingKind::Write { op, attempt };
    let command = Command::put("x", "1");
    let transaction = Transaction::Write { op, command };
    let mut effects = Out::default();
    let deadline = Instant::from_nanos(9);
    member.forward(&mut core, Ticket(1), deadline, kind, transaction, &mut effects);
    member.forwards.check(&core);
    (core, member)
}

#[test]
fn the_check_sees_an_operation_whose_client_is_forgotten() {
    let (core, mut member) = forwarding();
    member.forwards.by_ticket.clear();
    assert!(caught(|| member.forwards.check(&core)).contains("each operation has one ticket"));
    let (mut core, member) = forwarding();
    core.pending.take(Ticket(1));
    assert!(caught(|| member.forwards.check(&core)).contains("request t1 waits"));
}

#[test]
fn the_check_sees_an_operation_that_no_commit_would_answer() {
    let (core, mut member) = forwarding();
    member.forwards.by_op.clear();
    assert!(caught(|| member.forwards.check(&core)).contains("is found by its id"));
}

#[test]
fn the_check_sees_bytes_and_numbers_that_are_off() {
    let (core, mut member) = forwarding();
    member.forwards.bytes += 1;
    assert!(caught(|| member.forwards.check(&core)).contains("bytes are counted"));
    let (core, mut member) = forwarding();
    member.forwards.last = 0;
    assert!(caught(|| member.forwards.check(&core)).contains("number 1 was given out"));
}
