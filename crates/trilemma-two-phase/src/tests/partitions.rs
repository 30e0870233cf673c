//! What happens at a partition, row by row of the book's table (choosing/two-phase), and what a node without data may
//! do.

use trilemma_core::{
    Attempt, Command, NodeSet, Outcome, Protocol, ReadLevel, Reason, Reply, Request, UnknownCause, WriteError,
};
use trilemma_testkit::{Verdict, get, op, succeeded, value, write};

use super::harness::*;
use crate::Message;
use crate::two_phase::Role;

/// Every node answers a linearizable read of `key` at once, with no message.
fn readable(cluster: &mut TestCluster, key: &str, expected: Option<&str>) {
    for node in cluster.ids() {
        let ticket = cluster.propose(node, get(key, None), SECOND);
        cluster.catch_up();
        let reply = cluster.reply(node, ticket);
        assert_eq!(value(reply), Ok(expected.map(Into::into)), "at node {node}");
    }
}

#[test]
fn nothing_in_flight_writes_refuse_at_once_and_reads_go_on_everywhere() {
    let mut cluster = cluster(3, 1);
    put(&mut cluster, N1, 1, "k");
    rest(&mut cluster);
    cluster.split(&[N3]);
    cluster.run_for(millis(310));
    let missing = NodeSet::of(N3);
    let ticket = propose_put(&mut cluster, N1, 2, "k", SECOND);
    cluster.catch_up();
    assert_eq!(
        refusal(cluster.reply(N1, ticket).cloned()),
        Reason::NotAllParticipants {
            missing: missing.clone()
        }
    );
    // At a member on the sequencer's side: one round trip.
    let start = cluster.now();
    let reply = put(&mut cluster, N2, 3, "k");
    assert_eq!(refusal(reply), Reason::NotAllParticipants { missing });
    assert!(cluster.now().since(start) < millis(3));
    // On the other side: at once.
    let ticket = propose_put(&mut cluster, N3, 4, "k", SECOND);
    cluster.catch_up();
    assert_eq!(
        refusal(cluster.reply(N3, ticket).cloned()),
        Reason::NoSequencer { node: N1 }
    );
    readable(&mut cluster, "k", Some("1"));
    cluster.heal();
    resolve(&mut cluster);
    assert!(succeeded(put(&mut cluster, N3, 5, "k").as_ref()));
}

#[test]
fn an_outcome_that_is_known_is_reported_in_any_partition_and_others_say_who_is_missing() {
    let mut cluster = cluster(3, 2);
    put(&mut cluster, N1, 1, "k");
    rest(&mut cluster);
    cluster.split(&[N3]);
    cluster.run_for(millis(310));
    for node in [N1, N2, N3] {
        assert!(matches!(
            outcome(ask_outcome(&mut cluster, node, 1)),
            Outcome::Applied(_)
        ));
    }
    let missing = NodeSet::of(N3);
    for node in [N1, N2] {
        let reason = refusal(ask_outcome(&mut cluster, node, 2));
        assert_eq!(
            reason,
            Reason::NotAllParticipants {
                missing: missing.clone()
            }
        );
    }
    assert_eq!(
        refusal(ask_outcome(&mut cluster, N3, 2)),
        Reason::NoSequencer { node: N1 }
    );
}

#[test]
fn prepare_sent_and_a_vote_missing_the_sequencer_aborts_and_keys_are_readable_at_once() {
    let mut cluster = cluster(3, 3);
    put(&mut cluster, N1, 1, "k");
    rest(&mut cluster);
    let sent = tap(&mut cluster, |from, _, message| {
        matches!(message, Message::Vote { .. }) && from == N3
    });
    let ticket = propose_put(&mut cluster, N1, 2, "k", 3 * SECOND);
    cluster.run_until(SECOND, |_| count(&sent, "vote") >= 2);
    cluster.split(&[N3]);
    let start = cluster.now();
    let reply = await_reply(&mut cluster, N1, ticket);
    assert_eq!(
        refusal(reply),
        Reason::NotAllParticipants {
            missing: NodeSet::of(N3)
        }
    );
    assert!(
        cluster.now().since(start) <= millis(310),
        "as soon as the failure is known"
    );
    cluster.run_for(millis(2));
    for node in [N1, N2] {
        let ticket = cluster.propose(node, get("k", None), SECOND);
        cluster.catch_up();
        assert_eq!(value(cluster.reply(node, ticket)), Ok(Some("1".into())));
    }
    // The other side has prepared it and knows nothing: in doubt on that key, and on no other.
    assert_eq!(in_doubt(&cluster, N3), 1);
    let other = cluster.get(N3, "other");
    assert_eq!(value(other.as_ref()), Ok(None));
    let doubt = cluster.ask(N3, get("k", None), millis(100));
    let Reason::InDoubt {
        batch,
        can_resolve,
        since,
    } = refusal(doubt)
    else {
        panic!("a key in doubt was answered");
    };
    assert_eq!(batch, "1.1.2");
    assert!(can_resolve.contains(N1) && since >= millis(100));
    assert_eq!(cluster.protocol(N3).in_doubt(now(&cluster))[0].keys, 1);
    let stale = cluster.ask(N3, get("k", Some(ReadLevel::Local)), millis(100));
    assert_eq!(value(stale.as_ref()), Ok(Some("1".into())));
    cluster.heal();
    resolve(&mut cluster);
    readable(&mut cluster, "k", Some("1"));
}

#[test]
fn all_votes_in_the_decision_stands_and_the_other_side_learns_it() {
    let mut cluster = cluster(3, 4);
    let sent = lose(&mut cluster, &["announce"]);
    assert!(succeeded(put(&mut cluster, N1, 1, "k").as_ref()));
    assert_eq!(count(&sent, "vote"), 2);
    cluster.split(&[N1]);
    cluster.run_for(2 * SECOND);
    // Both others have prepared it, the sequencer is silent: blocked on this key. Nobody decides by a clock.
    for node in [N2, N3] {
        assert_eq!(in_doubt(&cluster, node), 1);
        let doubt = cluster.ask(node, get("k", None), millis(50));
        assert!(matches!(refusal(doubt), Reason::InDoubt { .. }));
        assert_eq!(value(cluster.get(node, "free").as_ref()), Ok(None));
    }
    let ticket = cluster.propose(N1, get("k", None), SECOND);
    cluster.catch_up();
    assert_eq!(value(cluster.reply(N1, ticket)), Ok(Some("1".into())));
    // Even over a week.
    cluster.run_for(std::time::Duration::from_secs(10));
    assert_eq!(in_doubt(&cluster, N2), 1);
    cluster.filter = None;
    cluster.heal();
    resolve(&mut cluster);
    readable(&mut cluster, "k", Some("1"));
}

#[test]
fn one_that_knows_the_decision_tells_its_side() {
    let mut cluster = cluster(3, 5);
    lose(&mut cluster, &["announce"]);
    let lost = tap(&mut cluster, |_, to, message| {
        matches!(message, Message::Announce { .. }) && to == N3
    });
    assert!(succeeded(put(&mut cluster, N1, 1, "k").as_ref()));
    cluster.run_until(SECOND, |_| count(&lost, "announce") > 0);
    cluster.run_for(millis(1));
    cluster.split(&[N1]);
    assert_eq!((in_doubt(&cluster, N2), in_doubt(&cluster, N3)), (0, 1));
    assert!(cluster.run_until(SECOND, |cluster| in_doubt(cluster, N3) == 0));
    assert_eq!(local(&cluster, N3, "k").as_deref(), Some("1"));
}

#[test]
fn one_that_has_not_prepared_refuses_durably_and_unblocks_its_side() {
    let mut cluster = cluster(3, 6);
    let sent = tap(&mut cluster, |_, to, message| {
        matches!(message, Message::Prepare { .. }) && to == N3
    });
    let ticket = propose_put(&mut cluster, N1, 1, "k", 4 * SECOND);
    cluster.run_until(SECOND, |_| count(&sent, "vote") > 0);
    cluster.crash_losing_all(N1);
    assert_eq!(in_doubt(&cluster, N2), 1);
    // Detection, one exchange and one forced write.
    assert!(cluster.run_until(millis(300 + 120), |cluster| in_doubt(cluster, N2) == 0));
    assert_eq!(value(cluster.get(N2, "k").as_ref()), Ok(None));
    // The refuser crashes, and the `Prepare` arrives late: it stays refused.
    let prepare = first(&sent, "prepare", N3).expect("it was sent");
    cluster.crash_losing_all(N3);
    cluster.restart(N3);
    inject(&mut cluster, N1, N3, &prepare);
    assert_eq!(in_doubt(&cluster, N3), 0);
    cluster.filter = None;
    cluster.restart(N1);
    resolve(&mut cluster);
    assert_eq!(cluster.reply(N1, ticket), None, "its node died");
    assert_eq!(outcome(ask_outcome(&mut cluster, N2, 1)), Outcome::NotApplied);
    readable(&mut cluster, "k", None);
}

#[test]
fn the_sequencer_dies_before_it_decides_and_its_next_incarnation_aborts() {
    let mut cluster = cluster(3, 7);
    put(&mut cluster, N1, 1, "k");
    rest(&mut cluster);
    let sent = lose(&mut cluster, &["vote"]);
    propose_put(&mut cluster, N1, 2, "k", SECOND);
    cluster.run_until(SECOND, |_| count(&sent, "vote") >= 2);
    cluster.crash_losing_all(N1);
    cluster.filter = None;
    cluster.run_for(SECOND);
    assert_eq!((in_doubt(&cluster, N2), in_doubt(&cluster, N3)), (1, 1));
    cluster.restart(N1);
    resolve(&mut cluster);
    assert_eq!(outcome(ask_outcome(&mut cluster, N3, 2)), Outcome::NotApplied);
    readable(&mut cluster, "k", Some("1"));
}

#[test]
fn the_sequencer_dies_after_it_decided_and_its_next_incarnation_commits() {
    let mut cluster = cluster(3, 8);
    lose(&mut cluster, &["announce"]);
    assert!(succeeded(put(&mut cluster, N1, 1, "k").as_ref()));
    cluster.crash_losing_all(N1);
    cluster.filter = None;
    cluster.run_for(SECOND);
    cluster.restart(N1);
    resolve(&mut cluster);
    readable(&mut cluster, "k", Some("1"));
}

#[test]
fn a_forwarded_write_whose_sequencer_dies_is_unknown_or_resolved() {
    for restarts in [false, true] {
        let mut cluster = cluster(3, 9);
        let sent = lose(&mut cluster, &["vote"]);
        let ticket = propose_put(&mut cluster, N2, 1, "k", 3 * SECOND);
        cluster.run_until(SECOND, |_| count(&sent, "vote") >= 2);
        cluster.crash_losing_all(N1);
        cluster.filter = None;
        if restarts {
            cluster.run_for(millis(500));
            cluster.restart(N1);
        }
        let reply = await_reply(&mut cluster, N2, ticket);
        if restarts {
            // The old incarnation aborted it; passed on again under the same id it has one effect.
            assert!(succeeded(reply.as_ref()), "{reply:?}");
        } else {
            let lost = Some(Reply::Write(Err(WriteError::Unknown {
                op: op(1),
                cause: UnknownCause::LeaderLost,
            })));
            assert_eq!(reply, lost);
            cluster.restart(N1);
        }
        resolve(&mut cluster);
        assert_eq!(result_at(&cluster, N1, op(1)).is_some(), restarts);
    }
}

#[test]
fn a_silent_member_that_seems_alive_costs_a_timeout_and_a_typed_refusal() {
    let mut cluster = cluster(3, 10);
    cluster.hold_disk(N2, true);
    let start = cluster.now();
    let reply = put(&mut cluster, N1, 1, "k");
    assert_eq!(
        refusal(reply),
        Reason::NotAllParticipants {
            missing: NodeSet::of(N2)
        }
    );
    assert!(cluster.now().since(start) < millis(600));
    cluster.hold_disk(N2, false);
    resolve(&mut cluster);
    assert_eq!(result_at(&cluster, N2, op(1)), None);
    assert!(succeeded(put(&mut cluster, N1, 2, "k").as_ref()));
}

/// A round trip takes longer than votes get at first: writes are refused until the sequencer has learned that, and no
/// longer.
#[test]
fn d6_votes_that_take_long_are_waited_for() {
    let mut cluster = cluster(3, 12);
    cluster.faults.delay = (millis(400), millis(400));
    let mut seqs = 1..;
    let mut refused = 0;
    while let Some(seq) = seqs.next()
        && !succeeded(put(&mut cluster, N1, seq, "k").as_ref())
    {
        refused += 1;
        assert!(refused < 3, "the sequencer does not learn");
    }
    for seq in seqs.take(5) {
        assert!(
            succeeded(put(&mut cluster, N1, seq, "k").as_ref()),
            "what was learned is kept"
        );
    }
}

/// Slow disks count, too: two that take 110 ms are far from what votes get.
#[test]
fn d6_slow_disks_cost_no_refusal() {
    let mut cluster = cluster(3, 13);
    cluster.faults.delay = (millis(55), millis(55));
    cluster.faults.disk = (millis(110), millis(110));
    for seq in 1..5 {
        let start = cluster.now();
        assert!(succeeded(put(&mut cluster, N1, seq, "k").as_ref()));
        assert!(cluster.now() - start < millis(500));
    }
}

/// The answer of one operation is lost each time. What follows is served until it would look like a late copy, and
/// is refused then, at once and for certain.
#[test]
fn d24_an_operation_that_is_never_answered_stops_others_with_a_word() {
    let mut cluster = cluster_with(3, 14, |config| config.forwards_max = 2);
    let is_of = |transaction: &crate::batch::Transaction, seq| transaction.op() == op(seq);
    // The sequencer never learns of the first one.
    cluster.filter = Some(Box::new(move |_, _, message| match message {
        Message::Forwards { items, .. } if items.iter().any(|item| is_of(&item.transaction, 1)) => {
            Verdict::Drop
        }
        _ => Verdict::Deliver,
    }));
    let first = propose_put(&mut cluster, N2, 1, "k", 30 * SECOND);
    cluster.run_for(millis(10));
    for seq in 2..=4 {
        assert!(succeeded(put(&mut cluster, N2, seq, "k").as_ref()), "{seq}");
    }
    let start = cluster.now();
    let reply = put(&mut cluster, N2, 5, "k");
    assert!(matches!(refusal(reply), Reason::Overloaded { .. }));
    assert!(cluster.now() - start < millis(1));
    cluster.filter = None;
    assert!(succeeded(await_reply(&mut cluster, N2, first).as_ref()));
    assert!(succeeded(put(&mut cluster, N2, 6, "k").as_ref()));
}

#[test]
fn a_decision_that_hangs_on_the_disk_is_unknown_not_aborted() {
    let mut cluster = cluster(3, 11);
    cluster.hold_disk(N1, true);
    let ticket = propose_put(&mut cluster, N1, 1, "k", SECOND);
    let queued = propose_put(&mut cluster, N1, 2, "k", SECOND);
    cluster.run_for(millis(10));
    let later = propose_put(&mut cluster, N1, 3, "k", SECOND);
    assert!(is_unknown(await_reply(&mut cluster, N1, ticket).as_ref()));
    assert!(is_unknown(await_reply(&mut cluster, N1, queued).as_ref()));
    assert!(await_reply(&mut cluster, N1, later).is_some());
    // All have voted, so it may be decided; no clock aborts it.
    assert!(in_doubt(&cluster, N2) > 0);
    cluster.hold_disk(N1, false);
    resolve(&mut cluster);
    assert!(result_at(&cluster, N3, op(1)).is_some());
}

#[test]
fn a_member_that_lost_its_disk_is_no_evidence_gets_the_state_and_serves_again() {
    let mut cluster = cluster(3, 12);
    for seq in 1..=20 {
        put(&mut cluster, N1, seq, &format!("k{seq}"));
    }
    lose(&mut cluster, &["announce", "resolved"]);
    assert!(succeeded(put(&mut cluster, N1, 21, "k").as_ref()));
    // Node 3 has voted for it; then its disk is gone and the sequencer is cut off.
    cluster.wipe(N3);
    cluster.cut(N1, N2);
    cluster.cut(N2, N1);
    cluster.cut(N1, N3);
    cluster.cut(N3, N1);
    cluster.restart(N3);
    cluster.filter = None;
    cluster.run_for(3 * SECOND);
    assert_eq!(in_doubt(&cluster, N2), 1, "a node without data resolves nothing");
    assert!(matches!(
        refusal(cluster.get(N3, "k1")),
        Reason::Recovering { .. }
    ));
    let status = cluster.protocol(N3).status(now(&cluster));
    assert!(!status.can_read && !status.can_write && status.why.contains("no data"));
    cluster.heal();
    resolve(&mut cluster);
    readable(&mut cluster, "k", Some("21"));
    readable(&mut cluster, "k7", Some("7"));
    assert!(succeeded(put(&mut cluster, N3, 22, "k").as_ref()));
    // What was transferred is durable, and it remembers what it cannot know.
    cluster.crash_losing_all(N3);
    cluster.restart(N3);
    assert!(cluster.protocol(N3).core.ledger.unknown_through > crate::BatchId::ORIGIN);
    resolve(&mut cluster);
    readable(&mut cluster, "k7", Some("7"));
}

#[test]
fn a_transfer_of_many_pieces_survives_loss_crash_and_checkpoint() {
    let mut cluster = cluster(3, 13);
    for seq in 1..=12 {
        let command = Command::put(format!("k{seq}"), vec![seq as u8; 120_000]);
        assert!(succeeded(cluster.write(N1, seq, command).as_ref()));
    }
    resolve(&mut cluster);
    cluster.wipe(N2);
    cluster.faults.loss = 200;
    let sent = lose(&mut cluster, &[]);
    cluster.restart(N2);
    cluster.run_until(5 * SECOND, |_| count(&sent, "piece") >= 3);
    cluster.checkpoint(N2);
    cluster.run_until(5 * SECOND, |_| count(&sent, "piece") >= 5);
    cluster.crash_losing_all(N2);
    cluster.restart(N2);
    cluster.faults.loss = 0;
    resolve(&mut cluster);
    cluster.crash_losing_all(N2);
    cluster.restart(N2);
    resolve(&mut cluster);
    assert!(count(&sent, "piece") > 6);
    assert_eq!(cluster.protocol(N2).digest(), cluster.protocol(N1).digest());
}

#[test]
fn a_sequencer_that_lost_its_disk_says_so_and_serves_nothing() {
    let mut cluster = cluster(3, 14);
    put(&mut cluster, N1, 1, "k");
    rest(&mut cluster);
    cluster.wipe(N1);
    cluster.restart(N1);
    cluster.run_for(2 * SECOND);
    let status = cluster.protocol(N1).status(now(&cluster));
    assert!(
        !status.can_write && !status.can_read && status.why.contains("has lost data"),
        "{}",
        status.why
    );
    assert!(matches!(
        refusal(put(&mut cluster, N1, 2, "k")),
        Reason::Recovering { .. }
    ));
    assert!(matches!(refusal(cluster.get(N1, "k")), Reason::Recovering { .. }));
    // The others still answer reads of what they hold.
    assert_eq!(value(cluster.get(N2, "k").as_ref()), Ok(Some("1".into())));
}

#[test]
fn d25_a_sequencer_whose_log_lost_decisions_shows_no_older_state_when_it_starts() {
    let mut cluster = cluster(3, 16);
    put(&mut cluster, N1, 1, "k");
    rest(&mut cluster);
    let older = cluster.disk(N1).to_vec();
    put(&mut cluster, N1, 2, "k");
    rest(&mut cluster);
    cluster.crash(N1);
    cluster.replace_disk(N1, older);
    cluster.restart(N1);
    assert!(!cluster.protocol(N1).status(now(&cluster)).can_read);
    assert!(matches!(refusal(cluster.get(N1, "k")), Reason::Recovering { .. }));
    cluster.run_for(2 * SECOND);
    let status = cluster.protocol(N1).status(now(&cluster));
    assert!(
        !status.can_read && status.why.contains("has lost data"),
        "{}",
        status.why
    );
    // Each incarnation finds that out again before it answers anything.
    cluster.crash(N1);
    cluster.restart(N1);
    assert!(matches!(refusal(cluster.get(N1, "k")), Reason::Recovering { .. }));
}

#[test]
fn a_sequencer_that_starts_alone_answers_reads() {
    let mut cluster = cluster(3, 17);
    put(&mut cluster, N1, 1, "k");
    rest(&mut cluster);
    for node in [N1, N2, N3] {
        cluster.crash(node);
    }
    cluster.restart(N1);
    cluster.run_for(SECOND);
    let status = cluster.protocol(N1).status(now(&cluster));
    assert!(status.can_read && !status.can_write, "{status:?}");
    assert_eq!(value(cluster.get(N1, "k").as_ref()), Ok(Some("1".into())));
    // When a member is back it is heard, and reads go on.
    cluster.restart(N2);
    cluster.run_for(SECOND);
    assert_eq!(value(cluster.get(N1, "k").as_ref()), Ok(Some("1".into())));
}

#[test]
fn a_repeat_that_is_refused_stays_unknown() {
    let mut cluster = cluster(3, 15);
    cluster.split(&[N3]);
    cluster.run_for(millis(310));
    for node in [N1, N2, N3] {
        let reply = cluster.ask(node, write(1, Attempt::Retry, Command::put("k", "1")), SECOND);
        assert!(
            is_unknown(reply.as_ref()),
            "at {node}: an earlier attempt may be under way: {reply:?}"
        );
    }
}

#[test]
fn a_dead_sequencer_does_not_stop_reads() {
    let mut cluster = cluster(5, 16);
    put(&mut cluster, N1, 1, "k");
    rest(&mut cluster);
    cluster.crash(N1);
    cluster.run_for(SECOND);
    for node in cluster.ids().into_iter().skip(1) {
        assert_eq!(value(cluster.get(node, "k").as_ref()), Ok(Some("1".into())));
        assert!(matches!(&cluster.protocol(node).role, Role::Member(_)));
        let request: Request = write(2, Attempt::First, Command::put("k", "2"));
        let ticket = cluster.propose(node, request, SECOND);
        cluster.catch_up();
        assert_eq!(
            refusal(cluster.reply(node, ticket).cloned()),
            Reason::NoSequencer { node: N1 }
        );
    }
}
