//! Repeats are answered, evicted sessions are refused, and nothing ever runs twice.

use super::*;

fn op(basis: u64, nonce: u64, seq: u64) -> OpId {
    OpId {
        session: SessionId {
            basis: Version(basis),
            nonce,
        },
        seq,
    }
}

fn applied(version: u64) -> OpResult {
    OpResult::Applied {
        won: true,
        version: Version(version),
        found: Version::ABSENT,
    }
}

#[test]
fn a_repeat_gets_the_first_result() {
    let mut sessions = Sessions::default();
    assert_eq!(sessions.admit(op(0, 1, 1)), Admission::New);
    sessions.record(op(0, 1, 1), applied(5), Version(5));
    assert_eq!(sessions.admit(op(0, 1, 1)), Admission::Repeat(applied(5)));
    assert_eq!(sessions.admit(op(0, 1, 2)), Admission::New);
}

#[test]
fn a_result_below_the_window_is_expired_not_new() {
    let mut sessions = Sessions::default();
    sessions.record(op(0, 1, 1), applied(1), Version(1));
    sessions.record(op(0, 1, 2 + SESSION_RESULTS_MAX), applied(2), Version(2));
    assert_eq!(sessions.admit(op(0, 1, 1)), Admission::Expired);
    assert_eq!(sessions.admit(op(0, 1, 2)), Admission::Expired);
    assert_eq!(sessions.admit(op(0, 1, 3)), Admission::New);
}

#[test]
fn an_evicted_session_can_never_run_again() {
    let mut sessions = Sessions::new(8);
    for nonce in 1..=9 {
        sessions.record(op(nonce - 1, nonce, 1), applied(nonce), Version(nonce));
    }
    assert_eq!(
        sessions.admit(op(0, 1, 1)),
        Admission::Expired,
        "the oldest session was evicted"
    );
    assert_eq!(
        sessions.admit(op(0, 1, 7)),
        Admission::Expired,
        "also with an operation never seen"
    );
    assert_eq!(sessions.admit(op(8, 9, 1)), Admission::Repeat(applied(9)));
    assert_eq!(
        sessions.admit(op(9, 77, 1)),
        Admission::New,
        "a session made since then is welcome"
    );
}

#[test]
fn export_and_import_keep_every_answer() {
    let mut sessions = Sessions::new(8);
    for nonce in 1..=20 {
        sessions.record(op(nonce, nonce, 1), applied(nonce + 1), Version(nonce + 1));
    }
    let copy = Sessions::import(sessions.export(), 8);
    for nonce in 1..=25 {
        assert_eq!(
            copy.admit(op(nonce, nonce, 1)),
            sessions.admit(op(nonce, nonce, 1)),
            "session {nonce}"
        );
    }
    assert_eq!(copy.export(), sessions.export());
}
