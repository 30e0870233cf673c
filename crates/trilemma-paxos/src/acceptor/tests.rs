//! What the acceptor's own check sees.

use trilemma_core::{Incarnation, NodeId};

use super::*;
use crate::tests::harness::caught;

fn ballot(counter: u64) -> Ballot {
    Ballot {
        counter,
        node: NodeId(1),
        incarnation: Incarnation(1),
    }
}

fn written() -> Arc<Register> {
    let version = trilemma_core::Version(1);
    Arc::new(Register {
        version,
        ..Register::default()
    })
}

/// An acceptor that has accepted `b1` for `x` and promised `b5`.
fn acceptor() -> (Acceptor, KeyStates) {
    let (mut acceptor, mut slots) = (Acceptor::default(), KeyStates::default());
    let key = Key::from("x");
    let accepted = slots.change_or_make(&key, |slot| {
        acceptor.accept(slot, &key, ballot(1), &written().into(), None, ballot(5), 1)
    });
    assert_eq!(accepted, Ok(ballot(5)));
    acceptor.check(&slots, false);
    (acceptor, slots)
}

#[test]
fn the_check_sees_a_record_that_says_more_than_the_slot() {
    let (mut promised, slots) = acceptor();
    promised.turn.promised.push(("x".into(), ballot(6)));
    assert!(caught(|| promised.check(&slots, false)).contains("lacks the promise of b6.1.i1"));
    let (mut accepted, slots) = acceptor();
    accepted.turn.accepted[0].ballot = ballot(3);
    accepted.check(&slots, false);
    assert!(caught(|| accepted.check(&slots, true)).contains("lacks the accept of b3.1.i1"));
}

#[test]
fn a_checkpoint_with_such_a_slot_is_refused_and_panics_nothing() {
    let mut slots = KeyStates::default();
    let refused = restore(&mut slots, &"x".into(), Ballot::ZERO, Ballot::ZERO, written());
    assert!(refused.is_err_and(|corrupt| corrupt.0.contains("never accepted")));
}
