//! Ids are fresh, and never further apart than the servers remember.

use super::*;

#[test]
fn a_stuck_operation_makes_a_new_session_rather_than_being_forgotten() {
    let session = Session::new(Version(3));
    let stuck = session.next(Version(3));
    let mut last = stuck;
    for _ in 0..=SPREAD_MAX {
        last = session.next(Version(9));
        session.done(last);
    }
    assert_ne!(last.session, stuck.session);
    assert_eq!((last.session.basis, last.seq), (Version(9), 1));
}

#[test]
fn a_session_is_renewed_once_for_all_who_find_it_expired() {
    let session = Session::new(Version(0));
    let (a, b) = (session.next(Version(0)), session.next(Version(0)));
    session.renew(a.session, Version(5));
    let renewed = session.next(Version(5)).session;
    session.renew(b.session, Version(5));
    assert_eq!(session.next(Version(5)).session, renewed);
}
