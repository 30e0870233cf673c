//! Who learns what, and when.

use super::*;
use crate::data::Command;
use crate::error::NotApplied;
use crate::id::{SessionId, Version};
use crate::receipt::Receipt;

fn op() -> OpId {
    OpId {
        session: SessionId::default(),
        seq: 7,
    }
}

fn write(attempt: Attempt) -> PendingKind {
    PendingKind::of(&Request::Write {
        op: op(),
        attempt,
        command: Command::default(),
    })
}

/// A receipt of something that ran.
fn receipt(op: OpId, (succeeded, version, found): (bool, Version, Version)) -> Receipt {
    Receipt {
        op,
        succeeded,
        version,
        found,
        epoch: crate::id::Epoch(1),
        achieved: crate::receipt::Achieved::StrictSerializable,
        durable_on: crate::id::NodeSet::default(),
        served_by: crate::id::NodeId(1),
        round_trips: 1,
        syncs: 1,
    }
}

/// Reasons that a node, its admission or a client's library may have before anything was done.
fn reasons() -> Vec<Reason> {
    vec![
        Reason::Stopping,
        Reason::NoLeader,
        Reason::Overloaded { what: "x".into() },
        Reason::NoSpace { why: "x".into() },
        Reason::Unreachable { why: "x".into() },
        Reason::StaleEpoch {
            now: crate::id::Epoch(2),
        },
        Reason::NoSuchKeyspace {
            name: "x".into(),
            configured: String::new(),
        },
        Reason::SessionExpired,
    ]
}

#[test]
fn d14_a_refused_first_attempt_is_certain_and_a_refused_retry_is_not() {
    for reason in reasons() {
        let first = write(Attempt::First).refused(reason.clone());
        let NotApplied { reason: given, .. } = match first {
            Reply::Write(Err(WriteError::NotApplied(refusal))) => refusal,
            other => panic!("{reason}: {other:?}"),
        };
        assert_eq!(given, reason);
        let again = write(Attempt::Retry).refused(reason.clone());
        assert!(
            matches!(again, Reply::Write(Err(WriteError::Unknown { op: of, .. })) if of == op()),
            "{reason}: {again:?}"
        );
    }
}

#[test]
fn a_reason_that_decides_the_operation_is_certain_for_a_retry_too() {
    let decided = [
        Reason::Fenced,
        Reason::Invalid { what: "x".into() },
        Reason::TooLarge {
            what: "x".into(),
            size: 2,
            limit: 1,
        },
    ];
    for reason in decided {
        let reply = write(Attempt::Retry).refused(reason.clone());
        assert!(
            matches!(reply, Reply::Write(Err(WriteError::NotApplied(_)))),
            "{reason}"
        );
    }
}

#[test]
fn the_refusal_of_a_retry_says_what_was_refused() {
    let Reply::Write(Err(error)) = write(Attempt::Retry).refused(Reason::NoLeader) else {
        panic!("not a write's answer");
    };
    let text = error.to_string();
    assert!(text.contains("no leader"), "{text}");
    assert!(text.contains("an earlier attempt may have run"), "{text}");
}

#[test]
fn each_request_is_answered_once_by_its_deadline_at_the_backstop() {
    let mut pending = Pending::default();
    let grace = Duration::from_millis(50);
    let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
    let first = pending.add('a', write(Attempt::First), at(100), 10);
    pending.add('b', PendingKind::Read, at(200), 20);
    assert_eq!((pending.len(), pending.bytes()), (2, 30));
    assert_eq!(pending.wake_at(grace), at(150));
    assert!(pending.take_expired(at(149), grace).is_none());
    let answer = PendingKind::Read.refused(Reason::Deadline);
    let expired = pending.take_expired(at(150), grace);
    assert!(
        matches!(
            &expired,
            Some((
                'a',
                Reply::Write(Err(WriteError::Unknown {
                    cause: UnknownCause::Deadline,
                    ..
                }))
            ))
        ),
        "{expired:?}"
    );
    assert_eq!(pending.answered(first, &answer), None, "answered before");
    assert_eq!(pending.bytes(), 20);
    let closed = pending.close(&Reason::Stopping);
    assert_eq!(closed, [('b', PendingKind::Read.refused(Reason::Stopping))]);
    assert!(pending.is_empty());
    assert_eq!(pending.wake_at(grace), Instant::NEVER);
}

#[test]
fn d21_a_lease_is_refused_by_every_backend_until_leases_exist() {
    let mut command = Command::put("key", "value");
    if let Some(crate::data::Mutation::Put { lease, .. }) = command.mutations.first_mut() {
        *lease = Some(crate::id::LeaseId(std::num::NonZeroU64::MIN));
    }
    let refused = command.validate().expect_err("nothing would end the lease");
    assert!(matches!(refused.reason, Reason::Unsupported { .. }), "{refused}");
}

#[test]
fn an_answer_is_of_the_kind_and_of_the_operation_that_it_answers() {
    let of = |seq| OpId { seq, ..op() };
    let receipt = |op| receipt(op, (true, Version(1), Version::ABSENT));
    let lost = |op| {
        Reply::Write(Err(WriteError::Unknown {
            op,
            cause: UnknownCause::Deadline,
        }))
    };
    let write = write(Attempt::First);
    let outcome = PendingKind::Outcome { op: op() };
    let applied = |op| Reply::Outcome(Ok(Outcome::Applied(receipt(op))));
    for (kind, right, wrong) in [
        (
            write,
            Reply::Write(Ok(receipt(op()))),
            Reply::Write(Ok(receipt(of(8)))),
        ),
        (write, lost(op()), lost(of(8))),
        (
            write,
            write.refused(Reason::Deadline),
            outcome.refused(Reason::Deadline),
        ),
        (outcome, applied(op()), applied(of(8))),
        (
            outcome,
            Reply::Outcome(Ok(Outcome::Expired)),
            Reply::Write(Ok(receipt(op()))),
        ),
        (
            PendingKind::Read,
            PendingKind::Read.refused(Reason::Deadline),
            lost(op()),
        ),
    ] {
        assert!(kind.is_answered_by(&right), "{kind:?}, {right:?}");
        assert!(!kind.is_answered_by(&wrong), "{kind:?}, {wrong:?}");
    }
}

#[test]
fn a_final_result_answers_a_write_and_a_question_each_in_its_own_way() {
    let made = (false, Version(4), Version(2));
    let applied = OpResult::Applied {
        succeeded: made.0,
        version: made.1,
        found: made.2,
    };
    let asked = PendingKind::Outcome { op: op() };
    let cases = [
        (
            write(Attempt::First),
            Some(applied),
            Reply::Write(Ok(receipt(op(), made))),
        ),
        (
            write(Attempt::Retry),
            Some(OpResult::Fenced),
            Reply::Write(Err(Reason::Fenced.into())),
        ),
        (
            write(Attempt::First),
            None,
            Reply::Write(Err(Reason::SessionExpired.into())),
        ),
        (
            write(Attempt::Retry),
            None,
            Reply::Write(Err(WriteError::Unknown {
                op: op(),
                cause: UnknownCause::SessionExpired,
            })),
        ),
        (
            asked,
            Some(applied),
            Reply::Outcome(Ok(Outcome::Applied(receipt(op(), made)))),
        ),
        (
            asked,
            Some(OpResult::Fenced),
            Reply::Outcome(Ok(Outcome::NotApplied)),
        ),
        (asked, None, Reply::Outcome(Ok(Outcome::Expired))),
    ];
    for (kind, result, reply) in cases {
        assert_eq!(kind.resolved(result, receipt), reply, "{kind:?}, {result:?}");
        assert!(kind.is_answered_by(&reply));
    }
}
