//! Bugs seen elsewhere, each as a scenario; they are the pitfalls of docs/src/inside/two-phase.md.

use std::time::Duration;

use trilemma_core::data::VALUE_BYTES_MAX;
use trilemma_core::{Attempt, Command, Mutation, Outcome, Reason, Reply, Value};
use trilemma_testkit::{op, succeeded, value, write};

use super::harness::*;
use super::invariants::Invariants;
use crate::batch::Transaction;
use crate::message::Verdict;
use crate::{BatchId, Message};

/// inside/two-phase#decision-before-commit: nothing leaves before the decision is durable.
#[test]
fn no_reply_and_no_announcement_before_the_decision_is_durable() {
    let mut cluster = cluster(3, 1);
    rest(&mut cluster);
    let sent = lose(&mut cluster, &[]);
    cluster.hold_disk(N1, true);
    let ticket = propose_put(&mut cluster, N1, 1, "k", 5 * SECOND);
    cluster.run_for(millis(400));
    assert_eq!(count(&sent, "vote"), 2);
    assert_eq!(cluster.reply(N1, ticket), None);
    let tells = |message: &Message| match message {
        Message::Announce { head } | Message::Prepare { head, .. } => head.decided > BatchId::ORIGIN,
        Message::Resolved(resolved) => {
            resolved.head.decided > BatchId::ORIGIN || !resolved.committed.is_empty()
        }
        _ => false,
    };
    assert!(!sent.borrow().iter().any(|(_, _, message)| tells(message)));
    assert_eq!(
        value(cluster.get(N1, "k").as_ref()),
        Ok(None),
        "not even the sequencer shows it"
    );
    cluster.crash_losing_all(N1);
    cluster.restart(N1);
    resolve(&mut cluster);
    assert_eq!(local(&cluster, N2, "k"), None);
}

/// inside/two-phase#prepare-before-vote: no yes before the prepare is durable.
#[test]
fn no_vote_before_the_prepare_is_durable() {
    let mut cluster = cluster(3, 2);
    rest(&mut cluster);
    let sent = lose(&mut cluster, &[]);
    cluster.hold_disk(N2, true);
    propose_put(&mut cluster, N1, 1, "k", SECOND);
    cluster.run_for(millis(300));
    let voted = sent
        .borrow()
        .iter()
        .any(|(from, _, message)| *from == N2 && matches!(message, Message::Vote { .. } | Message::Hello(_)));
    assert!(!voted, "node 2 voted for what its disk does not hold");
    cluster.hold_disk(N2, false);
    resolve(&mut cluster);
}

/// No acknowledgement before the outcome is durable, no watermark before all acknowledgements
/// (inside/two-phase#outcome-before-acknowledgement, inside/two-phase#watermark-waits-for-all).
#[test]
fn the_watermark_waits_for_durable_acknowledgements_of_all() {
    let mut cluster = cluster(3, 3);
    rest(&mut cluster);
    let sent = lose(&mut cluster, &[]);
    assert!(succeeded(put(&mut cluster, N1, 1, "k").as_ref()));
    let (batch, _) = cluster.protocol(N1).decided();
    cluster.hold_disk(N3, true);
    cluster.run_for(millis(400));
    let acked = sent.borrow().iter().any(|(from, _, message)| {
        *from == N3 && matches!(message, Message::Vote { acked, .. } if *acked >= batch)
    });
    assert!(!acked && cluster.protocol(N1).watermark() <= batch);
    // It forgets the outcome with the crash, is in doubt again, and is notified again.
    cluster.crash_losing_all(N3);
    cluster.restart(N3);
    assert_eq!(in_doubt(&cluster, N3), 1);
    resolve(&mut cluster);
    rest(&mut cluster);
    assert!(cluster.protocol(N1).watermark() > batch);
    assert_eq!(local(&cluster, N3, "k").as_deref(), Some("1"));
}

/// inside/two-phase#not-found: a commit for a batch that the member does not have is not acknowledged.
#[test]
fn not_found_is_not_success() {
    let mut cluster = cluster(3, 4);
    put(&mut cluster, N1, 1, "k");
    rest(&mut cluster);
    let sent = lose(&mut cluster, &["prepare"]);
    propose_put(&mut cluster, N1, 2, "k", SECOND);
    cluster.run_until(SECOND, |_| count(&sent, "prepare") > 0);
    let Some(Message::Prepare { batch, mut head }) = first(&sent, "prepare", N2) else {
        panic!("nothing was prepared");
    };
    head.decided = batch.id;
    inject(&mut cluster, N1, N2, &Message::Announce { head });
    cluster.run_for(millis(100));
    let acked = sent
        .borrow()
        .iter()
        .any(|(_, _, message)| matches!(message, Message::Vote { acked, .. } if *acked >= batch.id));
    assert!(!acked);
    assert_eq!(local(&cluster, N2, "k").as_deref(), Some("1"));
}

/// A `Prepare` that arrives after the outcome, below the watermark, is refused, also after a checkpoint has dropped
/// every record of it and the node has restarted (inside/two-phase#late-prepare,
/// inside/two-phase#records-after-the-watermark).
#[test]
fn a_late_prepare_is_fenced_permanently() {
    let mut cluster = cluster(3, 6);
    let sent = tap(&mut cluster, |_, to, message| {
        matches!(message, Message::Prepare { .. }) && to == N3
    });
    let reply = put(&mut cluster, N1, 1, "k");
    assert!(matches!(refusal(reply), Reason::NotAllParticipants { .. }));
    let late = first(&sent, "prepare", N3).expect("it was sent");
    cluster.filter = None;
    put(&mut cluster, N1, 2, "k");
    resolve(&mut cluster);
    rest(&mut cluster);
    for node in [N2, N3] {
        inject(&mut cluster, N1, node, &late);
        assert_eq!(in_doubt(&cluster, node), 0);
        cluster.checkpoint(node);
        cluster.crash_losing_all(node);
        cluster.restart(node);
        inject(&mut cluster, N1, node, &late);
        assert_eq!(
            in_doubt(&cluster, node),
            0,
            "node {node} prepares what was aborted"
        );
    }
    resolve(&mut cluster);
    assert_eq!(result_at(&cluster, N3, op(1)), None);
}

/// inside/two-phase#batch-numbers: a storm of retries over restarts of the sequencer: ids are never used twice, effects
/// never doubled.
#[test]
fn retries_over_restarts_have_one_effect() {
    let mut cluster = cluster(3, 9);
    let invariants = Invariants::watch(&mut cluster);
    let mut expected: Option<Value> = None;
    for seq in 1..=20_u64 {
        // Increments: a doubled effect, or a lost one, breaks the sequence.
        let next = Value::from(format!("{seq}"));
        let command = Command::compare_and_set("counter", expected.clone(), Some(next.clone()));
        let node = [N1, N2, N3][(seq % 3) as usize];
        let mut attempt = Attempt::First;
        cluster.propose(node, write(seq, attempt, command.clone()), millis(300));
        cluster.run_for(Duration::from_micros(150 * (seq % 9)));
        invariants.borrow_mut().on_crash(N1);
        cluster.crash(N1);
        cluster.restart(N1);
        loop {
            attempt = Attempt::Retry;
            match cluster.ask(node, write(seq, attempt, command.clone()), millis(300)) {
                Some(Reply::Write(Ok(receipt))) => {
                    assert!(receipt.succeeded, "increment {seq} lost against itself");
                    break;
                }
                Some(_) => {}
                None => panic!("increment {seq} is not answered"),
            }
            invariants.borrow_mut().check(&cluster);
        }
        expected = Some(next);
    }
    resolve(&mut cluster);
    assert_eq!(local(&cluster, N2, "counter").as_deref(), Some("20"));
}

/// inside/two-phase#no-clock: nobody decides, and nothing is forgotten, by a clock.
#[test]
fn a_week_changes_nothing() {
    let mut cluster = cluster(3, 10);
    lose(&mut cluster, &["announce"]);
    assert!(succeeded(put(&mut cluster, N1, 1, "k").as_ref()));
    cluster.crash_losing_all(N1);
    // Timers are coarse while nothing can be done, so a week costs little.
    for node in [N2, N3] {
        cluster.set_wall_offset(node, 7 * 24 * 3600 * 1000);
    }
    cluster.run_for(Duration::from_secs(600));
    for node in [N2, N3] {
        assert_eq!(in_doubt(&cluster, node), 1);
        assert_eq!(local(&cluster, node, "k"), None);
    }
    cluster.filter = None;
    cluster.restart(N1);
    resolve(&mut cluster);
    assert_eq!(local(&cluster, N3, "k").as_deref(), Some("1"));
}

/// inside/two-phase#locks-before-serving, inside/two-phase#read-of-a-prepared-key: keys of a prepared batch are held
/// again before the first read after a restart.
#[test]
fn a_restarted_member_does_not_show_the_old_value() {
    let mut cluster = cluster(3, 12);
    put(&mut cluster, N1, 1, "k");
    rest(&mut cluster);
    lose(&mut cluster, &["announce"]);
    assert!(succeeded(put(&mut cluster, N1, 2, "k").as_ref()));
    for node in [N2, N3] {
        let waits = cluster.propose(node, trilemma_testkit::get("k", None), 5 * SECOND);
        assert_eq!(
            cluster.reply(node, waits),
            None,
            "the new value is acknowledged: node {node} must wait"
        );
        cluster.crash_losing_all(node);
        cluster.restart(node);
        let waits = cluster.propose(node, trilemma_testkit::get("k", None), 5 * SECOND);
        assert_eq!(
            cluster.reply(node, waits),
            None,
            "node {node} serves before its locks are taken"
        );
        let reply = await_reply(&mut cluster, node, waits);
        assert_eq!(value(reply.as_ref()), Ok(Some("2".into())));
    }
}

/// inside/two-phase#everybody-shows-it: after Ok, every node shows the value or waits, never the old one; under load
/// and in every order of events.
#[test]
fn after_ok_no_node_shows_the_old_value() {
    for seed in 0..50 {
        let mut cluster = cluster(3, 1400 + seed);
        for seq in 1..=5 {
            let writer = [N1, N2, N3][(seed as usize + seq as usize) % 3];
            assert!(succeeded(put(&mut cluster, writer, seq, "k").as_ref()));
            for node in [N1, N2, N3] {
                let reply = cluster.get(node, "k");
                assert_eq!(
                    value(reply.as_ref()),
                    Ok(Some(format!("{seq}"))),
                    "seed {seed}, node {node}"
                );
            }
        }
    }
}

/// inside/two-phase#retry-after-a-refusal: errors are classified by what the logs say, whatever is lost.
#[test]
fn the_class_of_each_error_is_right() {
    for kind in ["prepare", "vote", "announce", "forwards", "answers", "resolved"] {
        for client in [N1, N2] {
            let mut cluster = cluster(3, 19);
            tap(&mut cluster, move |_, _, message| {
                trilemma_core::Message::kind(message) == kind
            });
            let reply = put(&mut cluster, client, 1, "k");
            cluster.filter = None;
            resolve(&mut cluster);
            let applied = result_at(&cluster, N3, op(1)).is_some();
            match reply {
                Some(Reply::Write(Ok(_))) => assert!(applied, "without {kind}, client {client}"),
                ref reply if is_unknown(reply.as_ref()) => {}
                reply => {
                    refusal(reply);
                    assert!(!applied, "without {kind}, client {client}");
                }
            }
        }
    }
}

/// inside/two-phase#speculative-state: an answer never comes from a state that is not decided.
#[test]
fn a_failed_guard_is_answered_only_when_what_it_saw_is_decided() {
    let mut cluster = cluster(3, 26);
    let sent = lose(&mut cluster, &["vote", "hello"]);
    let ticket = propose_put(&mut cluster, N1, 1, "k", 3 * SECOND);
    cluster.run_until(SECOND, |_| count(&sent, "prepare") > 0);
    // In the speculative state the key exists, so this guard fails; but that state never comes to be.
    let create = Command::compare_and_set("k", None, Some("2".into()));
    let guarded = cluster.propose(N1, write(2, Attempt::First, create.clone()), 3 * SECOND);
    cluster.run_for(millis(100));
    assert_eq!(cluster.reply(N1, guarded), None);
    assert!(matches!(
        refusal(await_reply(&mut cluster, N1, ticket)),
        Reason::NotAllParticipants { .. }
    ));
    let reply = await_reply(&mut cluster, N1, guarded);
    assert!(
        !matches!(reply, Some(Reply::Write(Ok(_)))),
        "{reply:?} tells of a value that never existed"
    );
    assert!(cluster.applied(N1).is_empty());
    cluster.filter = None;
    resolve(&mut cluster);
    assert!(succeeded(
        cluster.ask(N2, write(3, Attempt::First, create), SECOND).as_ref()
    ));
}

/// inside/two-phase#discarded-batch: batches prepared out of order, duplicated and re-sent after an abort.
#[test]
fn a_discarded_batch_is_never_prepared_again() {
    let mut cluster = cluster(3, 27);
    let sent = tap(&mut cluster, |from, _, message| {
        matches!(message, Message::Vote { .. } | Message::Hello(_)) && from == N3
    });
    put(&mut cluster, N1, 1, "k");
    let aborted: Vec<Message> = [N2, N3]
        .map(|node| first(&sent, "prepare", node).expect("sent"))
        .into();
    let vote = Message::Vote {
        prepared: match &aborted[0] {
            Message::Prepare { batch, .. } => batch.id,
            other => panic!("{other:?}"),
        },
        acked: BatchId::ORIGIN,
    };
    cluster.filter = None;
    resolve(&mut cluster);
    assert!(succeeded(put(&mut cluster, N1, 2, "k").as_ref()));
    for (node, prepare) in [N2, N3].into_iter().zip(&aborted) {
        inject(&mut cluster, N1, node, prepare);
        inject(&mut cluster, node, N1, &vote);
        assert!(
            !cluster
                .protocol(node)
                .in_doubt(now(&cluster))
                .iter()
                .any(|doubt| doubt.batch.seq == 1)
        );
    }
    resolve(&mut cluster);
    assert_eq!(outcome(ask_outcome(&mut cluster, N1, 1)), Outcome::NotApplied);
}

/// inside/two-phase#unknown-is-no-abort and inside/two-phase#durable-refusal are tested with the partitions.
/// inside/two-phase#prepared-means-possible: a prepared batch commits whatever the limits say by then.
#[test]
fn limits_are_checked_before_the_vote_not_after() {
    let mut cluster = cluster_with(3, 13, |config| {
        config.queue_bytes = 1000;
        config.batch_bytes = 100;
    });
    let value = Value::from(vec![1; 900]);
    assert!(succeeded(
        cluster.write(N1, 1, Command::put("a", value.clone())).as_ref()
    ));
    let reply = cluster.write(N1, 2, Command::put("b", vec![1; 1100]));
    assert!(matches!(refusal(reply), Reason::Overloaded { .. }));
    resolve(&mut cluster);
    assert_eq!(result_at(&cluster, N2, op(2)), None);
}

/// A member that passes on what no client may ask for is refused: a batch beyond what the log takes would end the sequencer.
#[test]
fn a_command_beyond_the_limits_is_not_ordered() {
    let mut cluster = cluster(3, 14);
    put(&mut cluster, N1, 1, "k");
    let sent = lose(&mut cluster, &[]);
    put(&mut cluster, N2, 2, "k");
    let forwards = first(&sent, "forwards", N1).expect("a write at a member is passed on");
    let Message::Forwards {
        sequencer,
        incarnation,
        done_below,
        mut items,
    } = forwards
    else {
        panic!("{forwards:?}");
    };
    let mutations = (0..9).map(|number| Mutation::Put {
        key: format!("large {number}").into(),
        value: vec![1; VALUE_BYTES_MAX - 100].into(),
        lease: None,
    });
    items[0].number += 1;
    items[0].transaction = Transaction::Write {
        op: op(3),
        command: Command {
            guards: Vec::new(),
            mutations: mutations.collect(),
        },
    };
    sent.borrow_mut().clear();
    let forwards = Message::Forwards {
        sequencer,
        incarnation,
        done_below,
        items,
    };
    inject(&mut cluster, N2, N1, &forwards);
    resolve(&mut cluster);
    let Some(Message::Answers { items, .. }) = first(&sent, "answers", N2) else {
        panic!("no answer");
    };
    assert!(
        matches!(&items[0].verdict, Verdict::Refused(refused) if matches!(refused.reason, Reason::TooLarge { .. })),
        "{items:?}"
    );
    assert_eq!(count(&sent, "prepare"), 0);
    assert!(succeeded(put(&mut cluster, N3, 4, "k").as_ref()));
}

/// A broken or hostile peer makes nobody panic.
#[test]
fn messages_that_make_no_sense_are_survived() {
    let mut cluster = cluster(3, 30);
    put(&mut cluster, N1, 1, "k");
    let sent = lose(&mut cluster, &[]);
    put(&mut cluster, N2, 2, "k");
    resolve(&mut cluster);
    let samples: Vec<Message> = sent
        .borrow()
        .iter()
        .map(|(_, _, message)| message.clone())
        .collect();
    for message in &samples {
        for (from, to) in [
            (N2, N1),
            (N3, N2),
            (N1, N3),
            (trilemma_core::NodeId(9), N1),
            (trilemma_core::NodeId(9), N2),
        ] {
            inject(&mut cluster, from, to, message);
        }
    }
    let far = BatchId {
        seq: u64::MAX,
        ..BatchId::ORIGIN
    };
    let others = [
        Message::Fetch { nonce: 1, index: 7 },
        Message::Resend { after: far },
        Message::Inquire {
            in_doubt: vec![far, BatchId::ORIGIN],
            is_urgent: true,
        },
        Message::Evidence {
            committed: Some(far),
            aborted: Some(far),
            finished: BatchId::ORIGIN,
        },
        Message::Refusal {
            id: far,
            why: String::new(),
        },
    ];
    for message in &others {
        for (from, to) in [(N2, N1), (N3, N2), (N1, N3)] {
            inject(&mut cluster, from, to, message);
        }
    }
    cluster.filter = None;
    resolve(&mut cluster);
    assert!(succeeded(put(&mut cluster, N3, 3, "k").as_ref()));
}

/// A read that waits for a batch which then aborts goes on waiting for the one before it: that one may have been
/// acknowledged, though its outcome is not known here.
#[test]
fn a_read_whose_batch_aborts_waits_for_the_batch_before() {
    let mut cluster = cluster(3, 31);
    let sent = tap(&mut cluster, |_, to, message| match message {
        Message::Announce { .. } => true,
        Message::Prepare { batch, .. } => to == N2 && batch.id.seq == 2,
        _ => false,
    });
    let acknowledged = propose_put(&mut cluster, N1, 1, "k", SECOND);
    cluster.run_for(Duration::from_micros(10));
    propose_put(&mut cluster, N1, 2, "k", SECOND);
    assert!(succeeded(await_reply(&mut cluster, N1, acknowledged).as_ref()));
    assert_eq!(count(&sent, "prepare"), 4);
    cluster.run_until(millis(20), |cluster| in_doubt(cluster, N3) == 2);
    cluster.crash_losing_all(N1);
    let read = cluster.propose(N3, trilemma_testkit::get("k", None), 5 * SECOND);
    assert!(cluster.run_until(2 * SECOND, |cluster| in_doubt(cluster, N3) == 1));
    cluster.run_for(millis(500));
    assert_eq!(
        cluster.reply(N3, read),
        None,
        "the first write was acknowledged, and is not known here"
    );
    cluster.filter = None;
    cluster.restart(N1);
    let reply = await_reply(&mut cluster, N3, read);
    assert_eq!(value(reply.as_ref()), Ok(Some("1".into())));
    resolve(&mut cluster);
}

/// inside/two-phase#refusal-of-a-former-incarnation: what it refused, the next one may have ordered.
#[test]
fn a_refusal_of_a_former_incarnation_is_not_believed() {
    let mut cluster = cluster(3, 32);
    let sent = lose(&mut cluster, &["answers", "vote", "hello"]);
    let ticket = propose_put(&mut cluster, N2, 1, "k", 5 * SECOND);
    assert!(cluster.run_until(2 * SECOND, |_| count(&sent, "answers") > 0));
    let refused = first(&sent, "answers", N2).expect("it was sent");
    cluster.crash_losing_all(N1);
    let sent = lose(&mut cluster, &["vote"]);
    cluster.restart(N1);
    assert!(cluster.run_until(2 * SECOND, |_| count(&sent, "prepare") > 0));
    inject(&mut cluster, N1, N2, &refused);
    assert_eq!(cluster.reply(N2, ticket), None, "the write is under way again");
    cluster.filter = None;
    assert!(succeeded(await_reply(&mut cluster, N2, ticket).as_ref()));
}

/// A member that got its state by transfer knows the last decided batch; a peer in doubt learns from it.
#[test]
fn a_restored_member_tells_what_it_knows_and_no_more() {
    let mut cluster = cluster(3, 33);
    tap(&mut cluster, |_, to, message| {
        to == N2 && matches!(message, Message::Announce { .. } | Message::Resolved(_))
    });
    for seq in 1..=2 {
        let ticket = propose_put(&mut cluster, N1, seq, "k", SECOND);
        cluster.run_for(Duration::from_micros(10 * seq));
        if seq == 2 {
            assert!(succeeded(await_reply(&mut cluster, N1, ticket).as_ref()));
        }
    }
    assert_eq!(in_doubt(&cluster, N2), 2);
    cluster.wipe(N3);
    cluster.restart(N3);
    assert!(cluster.run_until(SECOND, |cluster| local(cluster, N3, "k").is_some()));
    // The sequencer repeats what it has announced, so node 2 must not learn of it before the cut.
    cluster.crash_losing_all(N1);
    assert!(cluster.run_until(3 * SECOND, |cluster| in_doubt(cluster, N2) == 0));
    assert_eq!(local(&cluster, N2, "k").as_deref(), Some("2"));
    cluster.filter = None;
    cluster.restart(N1);
    resolve(&mut cluster);
}
