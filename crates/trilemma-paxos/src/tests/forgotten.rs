//! What a register has forgotten runs no second time, and what it has never seen is not refused for that.

use std::collections::BTreeSet;
use std::sync::Arc;

use trilemma_core::session::OpResult;
use trilemma_core::{
    Attempt, Command, Incarnation, NodeId, OpId, Outcome, Reason, Reply, Rng, SessionId, UnknownCause,
    Version, WriteError,
};
use trilemma_testkit::{op, succeeded, value, write};

use super::harness::*;
use crate::register::{Change, Draft, Earlier, Keep, Recent, Ruling};
use crate::{Ballot, Register};

fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

/// The reason for which nobody can tell what became of a write.
fn unknown(reply: Option<Reply>) -> UnknownCause {
    match reply {
        Some(Reply::Write(Err(WriteError::Unknown { cause, .. }))) => cause,
        other => panic!("expected an unknown outcome, found {other:?}"),
    }
}

/// So many writes of the key, at this node, in one session.
fn others_write(cluster: &mut Paxi, node: NodeId, count: u64) {
    for seq in 1..=count {
        let request = write_as(op_of(88, seq), Attempt::First, Command::put("k", "other"));
        assert!(succeeded(cluster.ask(node, request, SECOND).as_ref()));
    }
}

#[test]
fn a_first_attempt_under_way_does_not_run_after_its_repeat_was_forgotten() {
    let mut cluster = cluster_with(3, 30, |config| config.recent_max = 2);
    lose(&mut cluster, |from, to, _| from == N1 || to == N1);
    let late = cluster.propose(
        N1,
        write(1, Attempt::First, Command::put("k", "mine")),
        5 * SECOND,
    );
    cluster.run_for(millis(200));
    let again = write(1, Attempt::Retry, Command::put("k", "mine"));
    assert!(succeeded(cluster.ask(N2, again, SECOND).as_ref()));
    others_write(&mut cluster, N2, 5);
    cluster.filter = None;
    assert_eq!(
        refusal(await_reply(&mut cluster, N1, late)),
        Reason::SessionExpired,
        "this attempt had no effect"
    );
    assert_eq!(value(cluster.get(N3, "k").as_ref()), Ok(text("other")));
}

/// The node gets to see the first attempt only when all is over.
#[test]
fn a_first_attempt_that_comes_after_its_repeat_was_forgotten_does_not_run() {
    let mut cluster = cluster_with(3, 31, |config| config.recent_max = 2);
    let again = write(1, Attempt::Retry, Command::put("k", "mine"));
    assert!(succeeded(cluster.ask(N2, again, SECOND).as_ref()));
    others_write(&mut cluster, N2, 5);
    let late = cluster.ask(N1, write(1, Attempt::First, Command::put("k", "mine")), SECOND);
    assert_eq!(refusal(late), Reason::SessionExpired);
    assert_eq!(value(cluster.get(N3, "k").as_ref()), Ok(text("other")));
}

/// An attempt that has sent an accept cannot say that it had no effect.
#[test]
fn an_attempt_in_doubt_whose_record_may_be_gone_is_unknown() {
    let mut cluster = cluster_with(3, 32, |config| config.recent_max = 2);
    let _ = receipt(cluster.write(N1, 7, Command::put("k", "first")));
    // Its next write is one accept, which nobody gets.
    lose(&mut cluster, |from, to, _| from == N1 || to == N1);
    let late = cluster.propose(
        N1,
        write(8, Attempt::First, Command::put("k", "mine")),
        5 * SECOND,
    );
    cluster.run_for(millis(50));
    let again = write(8, Attempt::Retry, Command::put("k", "mine"));
    assert!(succeeded(cluster.ask(N2, again, SECOND).as_ref()));
    others_write(&mut cluster, N2, 5);
    cluster.filter = None;
    assert_eq!(
        unknown(await_reply(&mut cluster, N1, late)),
        UnknownCause::SessionExpired
    );
    assert_eq!(value(cluster.get(N3, "k").as_ref()), Ok(text("other")));
}

#[test]
fn a_session_that_goes_on_writing_is_never_refused() {
    let mut cluster = cluster_with(3, 33, |config| {
        (config.recent_max, config.sessions_max) = (2, 1);
    });
    for seq in 1..=50 {
        let node = NodeId(1 + seq as u32 % 3);
        let written = receipt(cluster.write(node, seq, Command::put("k", "v")));
        assert_eq!(written.version, Version(seq));
    }
}

/// Sessions that write in turn are all remembered while there is room, whatever their results.
#[test]
fn sessions_that_write_in_turn_are_not_refused() {
    let mut cluster = cluster_with(3, 34, |config| {
        (config.recent_max, config.sessions_max) = (2, 8);
    });
    for seq in 1..=20 {
        for client in 1..=8 {
            let request = write_as(op_of(client, seq), Attempt::First, Command::put("k", "v"));
            assert!(succeeded(cluster.ask(N1, request, SECOND).as_ref()));
        }
    }
}

/// Whatever was forgotten, and wherever it begins, a new session writes; if not at once, because its node was behind, then
/// after one refusal.
#[test]
fn a_new_session_is_served_whatever_was_forgotten() {
    let mut cluster = cluster_with(3, 35, |config| {
        (config.recent_max, config.sessions_max) = (2, 2);
    });
    cluster.split(&[N3]);
    for seq in 1..=30 {
        let op = fresh_op(&cluster, N1, seq);
        let request = write_as(op, Attempt::First, Command::put("k", "v"));
        assert!(succeeded(cluster.ask(N1, request, SECOND).as_ref()));
    }
    let behind = fresh_op(&cluster, N3, 1);
    cluster.heal();
    let old = write_as(behind, Attempt::First, Command::put("k", "w"));
    assert_eq!(refusal(cluster.ask(N3, old, SECOND)), Reason::SessionExpired);
    for node in [N3, N2] {
        let new = write_as(
            fresh_op(&cluster, node, 1),
            Attempt::First,
            Command::put("k", "w"),
        );
        assert!(succeeded(cluster.ask(node, new, SECOND).as_ref()), "at {node}");
    }
    let new = write_as(
        fresh_op(&cluster, N3, 1),
        Attempt::First,
        Command::put("other", "w"),
    );
    assert!(
        succeeded(cluster.ask(N3, new, SECOND).as_ref()),
        "keys do not share it"
    );
}

#[test]
fn a_dropped_fence_still_fences() {
    let mut cluster = cluster_with(3, 13, |config| config.recent_max = 2);
    for seq in 1..=4 {
        let question = outcome_of(op(seq), Command::put("k", "a"));
        assert_eq!(outcome(cluster.ask(N1, question, SECOND)), Outcome::NotApplied);
    }
    let late = cluster.write(N2, 1, Command::put("k", "a"));
    assert_eq!(refusal(late), Reason::SessionExpired);
    assert!(succeeded(cluster.write(N2, 5, Command::put("k", "b")).as_ref()));
}

#[test]
fn a_retry_finds_its_result_and_one_that_may_be_forgotten_is_unknown() {
    let mut cluster = cluster_with(3, 14, |config| config.recent_max = 4);
    let first = receipt(cluster.write(N1, 1, Command::put("k", "a")));
    let again = receipt(cluster.ask(N2, write(1, Attempt::Retry, Command::put("k", "a")), SECOND));
    assert_eq!((again.version, again.succeeded), (first.version, true));
    for seq in 3..=8 {
        let _ = receipt(cluster.write(N1, seq, Command::put("k", "c")));
    }
    let put = || Command::put("k", "a");
    let forgotten = cluster.ask(N2, write(1, Attempt::Retry, put()), SECOND);
    assert_eq!(unknown(forgotten), UnknownCause::SessionExpired);
    assert_eq!(value(cluster.get(N2, "k").as_ref()), Ok(text("c")));
    assert_eq!(
        outcome(cluster.ask(N2, outcome_of(op(1), put()), SECOND)),
        Outcome::Expired
    );
    // Of what was certainly not forgotten, a retry runs and a question is answered.
    let unseen = receipt(cluster.ask(N3, write(9, Attempt::Retry, put()), SECOND));
    assert_eq!(unseen.version, Version(8));
    assert_eq!(
        outcome(cluster.ask(N2, outcome_of(op(10), put()), SECOND)),
        Outcome::NotApplied
    );
}

/// A basis that no node can have named neither runs nor moves a clock.
#[test]
fn a_basis_from_nowhere_is_refused() {
    let mut cluster = cluster(3, 36);
    let session = SessionId {
        basis: Version(u64::MAX),
        nonce: 1,
    };
    let op = OpId { session, seq: 1 };
    let first = cluster.ask(N1, write_as(op, Attempt::First, Command::put("k", "v")), SECOND);
    assert_eq!(refusal(first), Reason::SessionExpired);
    let retry = cluster.ask(N1, write_as(op, Attempt::Retry, Command::put("k", "v")), SECOND);
    assert_eq!(unknown(retry), UnknownCause::SessionExpired);
    let question = cluster.ask(N1, outcome_of(op, Command::put("k", "v")), SECOND);
    assert_eq!(refusal(question), Reason::SessionExpired);
    assert!(succeeded(cluster.write(N1, 1, Command::put("k", "v")).as_ref()));
}

/// What makes `register` of the one before it, with these results.
fn change(register: &Register, results: Vec<Recent>, keep: Keep) -> Change {
    Change {
        base: Ballot::ZERO,
        version: register.version,
        state: register.state.clone(),
        results,
        keep,
    }
}

/// Random writes, repeats and questions of few sessions at one register, against a memory without bounds. What is sent of
/// a change makes the same register.
#[test]
fn a_register_never_runs_what_it_has_recorded() {
    let (mut ran, mut refused, mut refused_new) = (0, 0, 0);
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let keep = Keep {
            recent: 2 + rng.below(5) as u16,
            floors: 1 + rng.below(4) as u16,
        };
        let mut recorded: BTreeSet<OpId> = BTreeSet::new();
        let mut register = Arc::new(Register::default());
        for counter in 1..200 {
            let session = SessionId {
                basis: Version(rng.below(4) + counter / 50),
                nonce: rng.below(2),
            };
            let op = OpId {
                session,
                seq: 1 + rng.below(6) + counter / 20,
            };
            let ballot = Ballot {
                counter,
                node: NodeId(1 + rng.below(3) as u32),
                incarnation: Incarnation(1),
            };
            let mut draft = Draft::new(Arc::clone(&register), ballot, keep);
            let before = draft.register().find(op);
            let earlier = Earlier {
                by_others: rng.per_mille(500),
                by_us: &[],
            };
            let result = if rng.per_mille(200) {
                draft.fence(op)
            } else {
                match draft.write(op, &Command::put("k", "v"), earlier) {
                    Ruling::Result { result, .. } => Some(result),
                    Ruling::Forgotten => None,
                }
            };
            let base = register;
            let results;
            (register, results) = draft.finish();
            if register != base {
                let change = change(&register, results, keep);
                assert_eq!(change.apply(&base, ballot), *register, "seed {seed}: {op}");
            }
            match (result, before) {
                (Some(result), Some(before)) => assert_eq!(result, before, "seed {seed}: {op}"),
                (Some(result), None) => {
                    assert!(recorded.insert(op), "seed {seed}: {op} ran a second time");
                    ran += usize::from(result != OpResult::Fenced);
                }
                (None, _) => {
                    assert_eq!(before, None, "seed {seed}: {op} is remembered");
                    refused += 1;
                    if !recorded.contains(&op) {
                        refused_new += 1;
                        let is_later = |other: &&OpId| {
                            (other.session == session && other.seq > op.seq)
                                || (other.session != session && other.session.basis >= session.basis)
                        };
                        assert!(
                            recorded.iter().any(|other| is_later(&other)),
                            "seed {seed}: {op} is refused for nothing"
                        );
                    }
                }
            }
            assert!(register.recent.len() <= keep.recent.into());
            assert!(register.floors.len() <= keep.floors.into());
        }
    }
    assert!(
        ran > 1000 && refused > 1000 && refused_new > 100,
        "{ran} {refused} {refused_new}"
    );
}
