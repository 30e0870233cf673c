//! Repeats are answered, evicted sessions are refused, and nothing ever runs twice.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::codec;
use crate::rng::Rng;
use crate::tests::caught;

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
        succeeded: true,
        version: Version(version),
        found: Version::ABSENT,
    }
}

/// Limits of sessions and of all results.
fn limits(sessions: usize, results: usize) -> SessionLimits {
    SessionLimits {
        results,
        ..SessionLimits::from(sessions)
    }
}

/// The record that the parts of this one make.
fn restored(sessions: &Sessions, bytes: usize) -> Sessions {
    let mut copy = Sessions::restoring(sessions.horizon(), sessions.limits);
    for part in sessions.parts(bytes) {
        copy.add(&part).expect("its own parts");
    }
    copy
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
fn z8_what_is_remembered_of_a_session_is_a_setting() {
    let few = SessionLimits {
        results_each: 2,
        ..SessionLimits::default()
    };
    let mut sessions = Sessions::new(few);
    for seq in 1..=3 {
        sessions.record(op(0, 1, seq), applied(seq), Version(seq));
    }
    assert_eq!(sessions.admit(op(0, 1, 1)), Admission::Expired);
    assert_eq!(sessions.admit(op(0, 1, 2)), Admission::Repeat(applied(2)));
    assert_eq!(restored(&sessions, 1), sessions);

    // Of a node that remembered more, as much is taken over as is remembered here.
    let mut more = Sessions::default();
    for seq in 1..=3 {
        more.record(op(0, 1, seq), applied(seq), Version(seq));
    }
    let mut copy = Sessions::restoring(more.horizon(), few);
    for part in more.parts(1) {
        copy.add(&part).expect("its own parts");
    }
    assert_eq!(copy, sessions);
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
fn parts_and_the_form_of_earlier_versions_keep_every_answer() {
    let mut sessions = Sessions::new(8);
    for nonce in 1..=20 {
        sessions.record(op(nonce, nonce, 1), applied(nonce + 1), Version(nonce + 1));
    }
    let copy = restored(&sessions, 1);
    for nonce in 1..=25 {
        assert_eq!(
            copy.admit(op(nonce, nonce, 1)),
            sessions.admit(op(nonce, nonce, 1)),
            "session {nonce}"
        );
    }
    assert_eq!(copy, sessions);
    assert_eq!(Sessions::from_whole(WholeRecord::of(&sessions), 8), Ok(sessions));
}

/// A client writes with numbers that grow; what is on its way may arrive twice, late, out of order. Nothing runs twice,
/// what is reported is what happened, the record is bounded, and a copy that was restored at any moment behaves the same.
#[test]
fn d19_the_results_of_all_sessions_are_bounded_and_nothing_runs_twice() {
    let (mut repeats, mut dropped) = (0, 0);
    for seed in 0..100 {
        let mut rng = Rng::new(seed);
        let (sessions_max, results_max) = (2 + rng.below(30) as usize, 8 + rng.below(300) as usize);
        let mut sessions = Sessions::new(limits(sessions_max, results_max));
        let mut copy = sessions.clone();
        let mut ran: BTreeMap<OpId, OpResult> = BTreeMap::new();
        let mut expired = BTreeSet::new();
        for at in 1..2000 {
            let nonce = rng.below(40);
            // Sessions begin one after the other, and know what was there when they began.
            let op = op(nonce * 50, nonce, 1 + at / 10 + rng.below(30));
            if op.session.basis.0 >= at {
                continue;
            }
            let admission = sessions.admit(op);
            assert_eq!(copy.admit(op), admission, "seed {seed}, {op}");
            match admission {
                Admission::New => {
                    assert!(!ran.contains_key(&op), "seed {seed}: {op} runs twice");
                    assert!(!expired.contains(&op), "seed {seed}: {op} was refused as expired");
                    let result = if rng.below(10) == 0 {
                        OpResult::Fenced
                    } else {
                        applied(at)
                    };
                    ran.insert(op, result);
                    sessions.record(op, result, Version(at));
                    copy.record(op, result, Version(at));
                    assert_ne!(sessions.admit(op), Admission::New, "seed {seed}");
                }
                Admission::Repeat(result) => {
                    assert_eq!(ran.get(&op), Some(&result), "seed {seed}, {op}");
                    repeats += 1;
                }
                Admission::Expired => {
                    dropped += u32::from(ran.contains_key(&op));
                    expired.insert(op);
                }
            }
            assert!(
                sessions.results() <= results_max,
                "seed {seed}: {} results",
                sessions.results()
            );
            assert!(sessions.len() <= sessions_max);
            if rng.below(200) == 0 {
                copy = restored(&sessions, 1 + rng.below(2000) as usize);
            }
        }
        assert_eq!(copy, sessions, "seed {seed}");
    }
    assert!(
        repeats > 1000 && dropped > 500,
        "{repeats} repeats, {dropped} of what is dropped"
    );
}

#[test]
fn d19_the_oldest_results_of_all_sessions_go_first() {
    let mut sessions = Sessions::new(limits(100, 64));
    for at in 1..=65 {
        sessions.record(op(0, at % 13, at), applied(at), Version(at));
    }
    assert_eq!(sessions.results(), 56, "an eighth of 64 is dropped at once");
    assert_eq!(sessions.len(), 13, "their sessions stay");
    for at in 1..=65 {
        let op = op(0, at % 13, at);
        let expected = if at <= 9 {
            Admission::Expired
        } else {
            Admission::Repeat(applied(at))
        };
        assert_eq!(sessions.admit(op), expected, "operation {at}");
    }
}

/// A client may have half of [`SESSION_RESULTS_MAX`] operations under way: as many sessions as [`RESULTS_MAX`] holds at
/// least keep them all.
#[test]
fn the_limit_of_all_results_holds_a_thousand_full_sessions() {
    assert!(RESULTS_MAX as u64 >= 1000 * SESSION_RESULTS_MAX);
    assert_eq!(
        size_of::<Entry>(),
        32,
        "the bytes that the limit of all results is reckoned with"
    );
}

#[test]
fn stored_sessions_keep_their_bytes_and_impossible_ones_are_refused() {
    let mut sessions = Sessions::new(8);
    let lost = OpResult::Applied {
        succeeded: false,
        version: Version(300),
        found: Version(7),
    };
    sessions.record(op(5, 9, 1100), applied(200), Version(200));
    sessions.record(op(5, 9, 1101), lost, Version(300));
    sessions.record(op(5, 9, 1103), OpResult::Fenced, Version(301));
    let parts: Vec<_> = sessions.parts(1).collect();
    let hex: String = codec::encode(&parts[0])
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let expected = "01 05 09 ad02 4f 03 fd07 00 01 c801 00 fe07 00 00 ac02 07 8008 01";
    assert_eq!(hex, expected.replace(' ', ""));

    for (floor, distances) in [
        (0, vec![2, 1]),
        (0, vec![1, 1]),
        (0, vec![0]),
        (0, vec![1025]),
        (u64::MAX, vec![1]),
    ] {
        let results: Vec<(u16, OpResult)> = distances.into_iter().map(|d| (d, applied(1))).collect();
        let id = op(0, 1, 1).session;
        let bytes = codec::encode(&vec![(id, Version(1), floor, results)]);
        let part: Vec<StoredSession> = codec::decode(&bytes).expect("it has the form");
        assert!(Sessions::new(8).add(&part).is_err(), "{part:?}");
    }
    let twice: Vec<StoredSession> = [parts[0].clone(), parts[0].clone()].concat();
    assert!(Sessions::new(8).add(&twice).is_err());
}

/// A record of one session with two results.
fn two_results() -> Sessions {
    let mut sessions = Sessions::new(8);
    sessions.record(op(0, 1, 1), applied(1), Version(1));
    sessions.record(op(0, 1, 2), applied(2), Version(2));
    sessions
}

fn only_session(sessions: &mut Sessions) -> &mut Session {
    sessions
        .sessions
        .get_mut(&op(0, 1, 1).session)
        .expect("it was recorded")
}

#[test]
fn the_check_sees_results_that_are_miscounted() {
    let mut sessions = two_results();
    sessions.results = 3;
    assert!(caught(|| sessions.check()).contains("results are counted"));
}

#[test]
fn the_check_sees_a_record_beyond_its_limits() {
    let mut sessions = two_results();
    sessions.limits.sessions = 0;
    assert!(caught(|| sessions.check()).contains("sessions are bounded"));
    let mut sessions = two_results();
    sessions.limits.results = 1;
    assert!(caught(|| sessions.check()).contains("results are bounded"));
}

#[test]
fn the_check_sees_results_below_the_floor_out_of_reach_or_out_of_order() {
    let mut dropped = two_results();
    only_session(&mut dropped).floor = 1;
    assert!(caught(|| dropped.check()).contains("result 1 is not above the floor 1"));
    let mut distant = two_results();
    let results = &mut only_session(&mut distant).results;
    results.set(SESSION_RESULTS_MAX + 1, applied(2));
    distant.results = 3;
    assert!(caught(|| distant.check()).contains("out of reach"));
    let mut swapped = two_results();
    only_session(&mut swapped).results.swap_first();
    assert!(caught(|| swapped.check()).contains("in order of their numbers"));
}
