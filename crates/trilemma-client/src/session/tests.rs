//! Ids are fresh, and never further apart than the servers remember.

use trilemma_testkit::caught;

use super::*;

fn begin(basis: u64, nonce: u64) -> impl Fn() -> (Version, u64) {
    move || (Version(basis), nonce)
}

fn expired() -> WriteError {
    Reason::SessionExpired.into()
}

#[test]
fn a_stuck_operation_makes_a_new_session_rather_than_being_forgotten() {
    let mut session = Session::new(Version(3), 1);
    let stuck = session.next(begin(3, 2));
    let mut last = stuck;
    for _ in 0..=SPREAD_MAX {
        last = session.next(begin(9, 2));
        session.done(last);
    }
    assert_ne!(last.session, stuck.session);
    assert_eq!((last.session.basis, last.seq), (Version(9), 1));
}

#[test]
fn a_session_is_renewed_once_for_all_who_find_it_expired() {
    let mut session = Session::new(Version(0), 1);
    let (a, b) = (session.next(begin(0, 2)), session.next(begin(0, 2)));
    let first = session
        .again(a, &expired(), begin(5, 3))
        .expect("it may go again");
    let second = session
        .again(b, &expired(), begin(5, 4))
        .expect("so may this one");
    assert_eq!(first.session, second.session, "one new session for both");
    assert_eq!(
        first.session,
        SessionId {
            basis: Version(5),
            nonce: 3
        }
    );
    assert_ne!(first.seq, second.seq);
}

#[test]
fn only_a_forgotten_session_sends_a_command_again() {
    let mut session = Session::new(Version(0), 1);
    let op = session.next(begin(0, 2));
    assert_eq!(session.again(op, &Reason::NoLeader.into(), begin(5, 3)), None);
    // An earlier attempt may have run: nobody can tell any more, and a new id would run it a second time.
    let unknown = WriteError::Unknown {
        op,
        cause: trilemma_core::UnknownCause::SessionExpired,
    };
    assert_eq!(session.again(op, &unknown, begin(5, 3)), None);
    assert_eq!(session.id(), op.session);
}

#[test]
fn the_check_sees_an_operation_that_was_not_numbered_or_is_forgotten_already() {
    let mut session = Session::with_spread(Version(0), 1, 4);
    let op = session.next(begin(0, 2));
    session.under_way.insert(2);
    assert!(caught(|| session.check()).contains("operation 2 was not numbered yet"));
    session.done(OpId { seq: 2, ..op });
    session.last = 6;
    assert!(caught(|| session.check()).contains("operation 1 is forgotten before 6 is answered"));
}
