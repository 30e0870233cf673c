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
fn acceptor() -> Acceptor {
    let mut acceptor = Acceptor::default();
    let accepted = acceptor.accept(&"x".into(), ballot(1), &written().into(), None, ballot(5), 1);
    assert_eq!(accepted, Ok(ballot(5)));
    acceptor.check();
    acceptor
}

fn key_state(acceptor: &mut Acceptor) -> &mut KeyState {
    acceptor
        .key_states
        .get_mut(&Key::from("x"))
        .expect("it was accepted")
}

#[test]
fn the_check_sees_a_promise_below_what_was_accepted() {
    let mut acceptor = acceptor();
    acceptor.take_turn();
    key_state(&mut acceptor).promised = Ballot::ZERO;
    assert!(caught(|| acceptor.check()).contains("but promised only"));
}

#[test]
fn the_check_sees_a_register_that_was_never_accepted() {
    let mut acceptor = acceptor();
    acceptor.take_turn();
    key_state(&mut acceptor).accepted = Ballot::ZERO;
    assert!(caught(|| acceptor.check()).contains("holds a register that was never accepted"));
}

#[test]
fn the_check_sees_a_record_that_says_more_than_the_slot() {
    let mut promised = acceptor();
    promised.turn.promised.push(("x".into(), ballot(6)));
    assert!(caught(|| promised.check()).contains("lacks the promise of b6.1.i1"));
    let mut accepted = acceptor();
    accepted.turn.accepted[0].ballot = ballot(3);
    assert!(caught(|| accepted.check()).contains("lacks the accept of b3.1.i1"));
}

#[test]
fn a_checkpoint_with_such_a_slot_is_refused_and_panics_nothing() {
    let key_state = KeyState {
        register: written(),
        ..KeyState::default()
    };
    let refused = Acceptor::default().restore("x".into(), key_state);
    assert!(refused.is_err_and(|corrupt| corrupt.0.contains("never accepted")));
}
