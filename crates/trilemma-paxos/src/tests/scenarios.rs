//! What the backend does, one behaviour at a time.

use std::num::NonZeroU64;

use trilemma_core::{
    Attempt, Command, KeyRange, LeaseId, Mutation, NodeSet, Outcome, Protocol, Query, ReadLevel, ReadRequest,
    Reason, Reply, Request, UnknownCause, Version, WriteError,
};
use trilemma_testkit::{get, op, succeeded, value, write};

use super::harness::*;
use crate::message::{Ask, Message};

fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

fn read(query: Query, level: Option<ReadLevel>) -> Request {
    Request::Read(ReadRequest { query, level })
}

fn tally(cluster: &Paxi, node: trilemma_core::NodeId, name: &str) -> String {
    let now = trilemma_core::Now {
        instant: cluster.now(),
        ..Default::default()
    };
    let status = cluster.protocol(node).status(now);
    status
        .details
        .into_iter()
        .find(|(of, _)| of == name)
        .expect("the figure exists")
        .1
}

#[test]
fn a_write_is_read_at_every_node() {
    for size in [1, 2, 3, 5] {
        let mut cluster = cluster(size, 1);
        let receipt = receipt(cluster.write(N1, 1, Command::put("k", "a")));
        assert_eq!((receipt.succeeded, receipt.version), (true, Version(1)));
        for node in cluster.ids() {
            let reply = cluster.get(node, "k");
            assert_eq!(value(reply.as_ref()), Ok(text("a")), "at {node} of {size}");
        }
    }
}

#[test]
fn the_first_write_takes_two_trips_and_the_next_one() {
    let mut cluster = cluster(3, 2);
    let sent = count(&mut cluster);
    let first = receipt(cluster.write(N1, 1, Command::put("k", "a")));
    assert_eq!((first.round_trips, first.syncs), (2, 2));
    assert_eq!((sent.borrow().prepares, sent.borrow().accepts), (2, 2));
    assert!(first.durable_on.len() >= 2, "{:?}", first.durable_on);
    let second = receipt(cluster.write(N1, 2, Command::put("k", "b")));
    assert_eq!((second.round_trips, second.syncs), (1, 1));
    assert_eq!(second.served_by, N1);
    assert_eq!((sent.borrow().prepares, sent.borrow().accepts), (2, 4));
}

#[test]
fn a_read_takes_one_trip_and_writes_nothing() {
    let mut cluster = cluster(3, 3);
    let _ = receipt(cluster.write(N1, 1, Command::put("k", "a")));
    cluster.run_for(SECOND);
    let records: Vec<usize> = cluster
        .ids()
        .iter()
        .map(|node| cluster.durable_records(*node))
        .collect();
    let sent = count(&mut cluster);
    for node in cluster.ids() {
        match cluster.get(node, "k") {
            Some(Reply::Read(Ok(reply))) => {
                assert_eq!((reply.round_trips, reply.achieved), (1, ReadLevel::Linearizable))
            }
            other => panic!("{other:?}"),
        }
        // A key that was never written is a quorum of absences.
        assert_eq!(value(cluster.get(node, "other").as_ref()), Ok(None));
    }
    assert_eq!((sent.borrow().prepares, sent.borrow().accepts), (0, 0));
    let after: Vec<usize> = cluster
        .ids()
        .iter()
        .map(|node| cluster.durable_records(*node))
        .collect();
    assert_eq!(records, after);
}

/// A compare-and-set that fails accepts nothing when a majority agrees, cached ballot or not
/// (inside/paxos#failed-guard).
#[test]
fn a_failed_compare_and_set_accepts_nothing() {
    let mut cluster = cluster(3, 4);
    let _ = receipt(cluster.write(N1, 1, Command::put("k", "a")));
    cluster.run_for(SECOND);
    let sent = count(&mut cluster);
    for (seq, node) in [(2, N1), (3, N2), (4, N2)] {
        let lost = receipt(cluster.write(
            node,
            seq,
            Command::compare_and_set("k", Some("x".into()), Some("y".into())),
        ));
        assert_eq!(
            (lost.succeeded, lost.version, lost.found),
            (false, Version(1), Version(1))
        );
    }
    assert_eq!(sent.borrow().accepts, 0);
}

/// A compare-and-set that loses on an absent key leaves a promise behind. It is counted, over a restart too.
#[test]
fn d19_keys_that_were_never_written_are_counted() {
    let name = "keys promised and never written";
    let mut cluster = cluster(3, 61);
    for seq in 1..=3 {
        let command = Command::compare_and_set(format!("k{seq}"), Some("x".into()), Some("y".into()));
        let lost = receipt(cluster.write(N1, seq, command));
        assert!(!lost.succeeded);
    }
    cluster.run_for(SECOND);
    assert_eq!(tally(&cluster, N2, name), "3");
    let _ = receipt(cluster.write(N1, 4, Command::put("k1", "v")));
    cluster.run_for(SECOND);
    assert_eq!(tally(&cluster, N2, name), "2");
    cluster.crash_losing_all(N2);
    cluster.restart(N2);
    assert_eq!(tally(&cluster, N2, name), "2");
    cluster.checkpoint(N2);
    cluster.crash_losing_all(N2);
    cluster.restart(N2);
    assert_eq!(tally(&cluster, N2, name), "2");
}

#[test]
fn compare_and_set_wins_and_deletes_keep_the_version() {
    let mut cluster = cluster(3, 5);
    let create = receipt(cluster.write(N1, 1, Command::compare_and_set("k", None, Some("a".into()))));
    assert!(create.succeeded);
    let delete = receipt(cluster.write(N2, 2, Command::delete("k")));
    assert_eq!(delete.version, Version(2));
    assert_eq!(value(cluster.get(N3, "k").as_ref()), Ok(None));
    let again = receipt(cluster.write(N3, 3, Command::compare_and_set("k", None, Some("b".into()))));
    assert_eq!((again.succeeded, again.version), (true, Version(3)));
    match cluster.get(N1, "k") {
        Some(Reply::Read(Ok(reply))) => {
            assert_eq!(
                (reply.entries[0].state.created, reply.entries[0].state.modified),
                (Version(3), Version(3))
            );
        }
        other => panic!("{other:?}"),
    }
    let _ = receipt(cluster.write(N1, 4, Command::delete("k")));
    cluster.run_for(SECOND);
    assert_eq!(tally(&cluster, N2, "tombstones"), "1");
}

#[test]
fn a_lease_is_kept_with_the_value() {
    let mut cluster = cluster(3, 6);
    let mut command = Command::put("k", "a");
    if let Mutation::Put { lease, .. } = &mut command.mutations[0] {
        *lease = Some(LeaseId(NonZeroU64::MAX));
    }
    let _ = receipt(cluster.write(N1, 1, command));
    match cluster.get(N2, "k") {
        Some(Reply::Read(Ok(reply))) => {
            assert_eq!(reply.entries[0].state.lease, Some(LeaseId(NonZeroU64::MAX)))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_the_backend_cannot_do_is_refused_with_the_strongest_it_can() {
    let mut cluster = cluster(3, 7);
    let mut two = Command::put("a", "1");
    two.mutations.extend(Command::put("b", "2").mutations);
    assert!(matches!(
        refusal(cluster.write(N1, 1, two.clone())),
        Reason::Unsupported { .. }
    ));
    let range = Query::Range {
        range: KeyRange::all(),
        limit: 0,
    };
    let reply = cluster.ask(N1, read(range.clone(), Some(ReadLevel::Linearizable)), SECOND);
    match refusal(reply) {
        Reason::Unsupported { strongest, .. } => assert!(strongest.contains("local"), "{strongest}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        refusal(cluster.ask(N1, read(Query::Siblings("k".into()), None), SECOND)),
        Reason::Unsupported { .. }
    ));
    let question = Request::Outcome {
        op: op(1),
        command: None,
    };
    assert!(matches!(
        refusal(cluster.ask(N1, question, SECOND)),
        Reason::Unsupported { .. }
    ));
    assert!(matches!(
        refusal(cluster.write(N1, 2, Command::default())),
        Reason::Invalid { .. }
    ));
    assert_eq!(
        outcome(cluster.ask(N1, outcome_of(op(1), two), SECOND)),
        Outcome::NotApplied
    );
    // Without a level, a range is served at the strongest there is.
    match cluster.ask(N1, read(range, None), SECOND) {
        Some(Reply::Read(Ok(reply))) => assert_eq!(reply.achieved, ReadLevel::Local),
        other => panic!("{other:?}"),
    }
}

#[test]
fn local_views_follow_and_watchers_see_each_change() {
    let mut cluster = cluster(3, 8);
    for (seq, key) in ["a", "b", "c"].into_iter().enumerate() {
        let _ = receipt(cluster.write(N1, seq as u64 + 1, Command::put(key, "v")));
    }
    cluster.run_for(millis(50));
    for node in cluster.ids() {
        let query = Query::Range {
            range: KeyRange::prefix("b"),
            limit: 0,
        };
        match cluster.ask(node, read(query, Some(ReadLevel::Local)), SECOND) {
            Some(Reply::Read(Ok(reply))) => assert_eq!(reply.entries.len(), 1),
            other => panic!("{other:?}"),
        }
        assert_eq!(
            value(
                cluster
                    .ask(node, get("c", Some(ReadLevel::Local)), SECOND)
                    .as_ref()
            ),
            Ok(text("v"))
        );
        assert_eq!(cluster.protocol(node).scan(&KeyRange::all(), 10).len(), 3);
        assert_eq!(cluster.protocol(node).scan(&KeyRange::all(), 2).len(), 2);
        let applied = cluster.applied(node);
        assert!(applied.windows(2).all(|pair| pair[0].position < pair[1].position));
        assert_eq!(
            applied.iter().map(|applied| applied.changes.len()).sum::<usize>(),
            3
        );
    }
}

#[test]
fn without_a_majority_the_refusal_comes_at_once() {
    let mut cluster = cluster(3, 9);
    let _ = receipt(cluster.write(N1, 1, Command::put("k", "a")));
    cluster.split(&[N1]);
    cluster.run_for(SECOND);
    let before = cluster.now();
    let reason = refusal(cluster.write(N1, 2, Command::put("k", "b")));
    let missing: NodeSet = [N2, N3].into_iter().collect();
    assert_eq!(
        reason,
        Reason::NoQuorum {
            have: 1,
            need: 2,
            of: 3,
            missing
        }
    );
    assert!(matches!(refusal(cluster.get(N1, "k")), Reason::NoQuorum { .. }));
    assert_eq!(cluster.now(), before, "refused at once");
    // Of a retry nobody here can say that it had no effect.
    let retry = cluster.ask(N1, write(3, Attempt::Retry, Command::put("k", "c")), SECOND);
    assert!(is_unknown(retry.as_ref()), "{retry:?}");
    assert_eq!(
        value(cluster.ask(N1, get("k", Some(ReadLevel::Local)), SECOND).as_ref()),
        Ok(text("a"))
    );
    assert!(succeeded(cluster.write(N2, 4, Command::put("k", "d")).as_ref()));
    cluster.heal();
    cluster.run_for(SECOND);
    assert_eq!(value(cluster.get(N1, "k").as_ref()), Ok(text("d")));
}

#[test]
fn a_waiting_write_is_refused_when_the_majority_goes() {
    let mut cluster = cluster(3, 10);
    lose(&mut cluster, |_, _, _| true);
    let write = cluster.propose(N1, write(1, Attempt::First, Command::put("k", "a")), 20 * SECOND);
    cluster.run_for(millis(10));
    cluster.split(&[N1]);
    cluster.run_for(SECOND);
    assert!(matches!(
        refusal(cluster.reply(N1, write).cloned()),
        Reason::NoQuorum { .. }
    ));
}

#[test]
fn the_class_at_the_deadline_depends_on_whether_an_accept_was_sent() {
    let mut cluster = cluster(3, 11);
    lose(&mut cluster, |_, _, _| true);
    let reply = cluster.ask(N1, write(1, Attempt::First, Command::put("k", "a")), millis(300));
    assert_eq!(refusal(reply), Reason::Deadline);
    lose(&mut cluster, |_, _, message| has_accepted(message));
    let reply = cluster.ask(N1, write(2, Attempt::First, Command::put("k", "b")), millis(300));
    match reply {
        Some(Reply::Write(Err(WriteError::Unknown { cause, .. }))) => {
            assert_eq!(cause, UnknownCause::Deadline)
        }
        other => panic!("{other:?}"),
    }
    cluster.filter = None;
    let reply = outcome(cluster.ask(N2, outcome_of(op(2), Command::put("k", "b")), SECOND));
    assert!(matches!(reply, Outcome::Applied(receipt) if receipt.succeeded && receipt.version == Version(1)));
}

#[test]
fn an_operation_that_did_not_run_is_fenced_for_good() {
    let mut cluster = cluster(3, 12);
    assert_eq!(
        outcome(cluster.ask(N1, outcome_of(op(5), Command::put("k", "a")), SECOND)),
        Outcome::NotApplied
    );
    for (node, attempt) in [(N1, Attempt::First), (N2, Attempt::First)] {
        let late = cluster.ask(node, write(5, attempt, Command::put("k", "a")), SECOND);
        assert_eq!(refusal(late), Reason::Fenced);
    }
    assert_eq!(value(cluster.get(N3, "k").as_ref()), Ok(None));
    assert_eq!(
        outcome(cluster.ask(N3, outcome_of(op(5), Command::put("k", "a")), SECOND)),
        Outcome::NotApplied
    );
}

/// A retry's failed guard is recorded: a late copy of the same operation must not win after it.
#[test]
fn a_retry_that_lost_has_lost_for_good() {
    let mut cluster = cluster(3, 15);
    let _ = receipt(cluster.write(N1, 1, Command::put("k", "a")));
    let change = Command::compare_and_set("k", Some("b".into()), Some("c".into()));
    let lost = receipt(cluster.ask(N1, write(2, Attempt::Retry, change.clone()), SECOND));
    assert!(!lost.succeeded);
    let _ = receipt(cluster.write(N1, 3, Command::put("k", "b")));
    let late = receipt(cluster.ask(N2, write(2, Attempt::First, change), SECOND));
    assert!(!late.succeeded);
    assert_eq!(value(cluster.get(N3, "k").as_ref()), Ok(text("b")));
}

#[test]
fn many_keys_share_messages() {
    let mut cluster = cluster(3, 16);
    for round in 0..2 {
        let sent = count(&mut cluster);
        let tickets: Vec<_> = (0..256)
            .map(|key| {
                let command = Command::put(format!("k{key}"), "v");
                cluster.propose(N1, write(round * 256 + key + 1, Attempt::First, command), SECOND)
            })
            .collect();
        cluster.run_until(millis(400), |cluster| {
            tickets.iter().all(|ticket| cluster.reply(N1, *ticket).is_some())
        });
        assert!(tickets.iter().all(|ticket| succeeded(cluster.reply(N1, *ticket))));
        // Two peers: asks and answers of two phases (then one), the news that they were chosen, and little more.
        let messages = sent.borrow().messages;
        assert!(
            messages <= 40,
            "round {round}: {messages} messages for 256 writes"
        );
    }
}

#[test]
fn many_operations_on_one_key_share_accepts() {
    let mut cluster = cluster(3, 17);
    let sent = count(&mut cluster);
    let tickets: Vec<_> = (1..=96)
        .map(|seq| {
            cluster.propose(
                N1,
                write(seq, Attempt::First, Command::put("k", format!("{seq}"))),
                SECOND,
            )
        })
        .collect();
    cluster.run_for(millis(100));
    for (position, ticket) in tickets.iter().enumerate() {
        let receipt = receipt(cluster.reply(N1, *ticket).cloned());
        assert_eq!(receipt.version, Version(position as u64 + 1), "applied in order");
    }
    assert!(sent.borrow().accepts <= 2 * 5, "{:?}", sent.borrow());
}

#[test]
fn limits_refuse_what_is_too_much() {
    let mut cluster = cluster_with(3, 18, |config| {
        config.operations_per_key_max = 4;
        config.keys_max = 2;
        config.operations_max = 6;
    });
    lose(&mut cluster, |_, _, _| true);
    let mut refused = Vec::new();
    for (seq, key) in ["a", "a", "a", "a", "a", "b", "c", "b", "b"]
        .into_iter()
        .enumerate()
    {
        let request = write(seq as u64 + 1, Attempt::First, Command::put(key, "v"));
        let ticket = cluster.propose(N1, request, SECOND);
        cluster.catch_up();
        if let Some(reply) = cluster.reply(N1, ticket).cloned() {
            assert!(matches!(refusal(Some(reply)), Reason::Overloaded { .. }));
            refused.push(seq);
        }
    }
    assert_eq!(refused, [4, 6, 8]);
}

/// Whatever a broken or malicious peer sends, the node goes on and gives nothing away.
#[test]
fn nonsense_from_a_peer_changes_nothing() {
    use trilemma_core::host::GroupInput;
    let mut cluster = cluster(3, 19);
    let _ = receipt(cluster.write(N1, 1, Command::put("k", "a")));
    let held: Vec<_> = cluster.protocol(N2).held().collect();
    let ballot = |counter, node| crate::Ballot {
        counter,
        node,
        incarnation: trilemma_core::Incarnation(1),
    };
    let register = std::sync::Arc::new(crate::Register::default());
    let accept = |ballot, next| Ask::Accept {
        key: "k".into(),
        ballot,
        register: std::sync::Arc::clone(&register).into(),
        next,
    };
    let asks = vec![
        Ask::Prepare {
            key: "k".into(),
            ballot: ballot(u64::MAX, N3),
        },
        Ask::Prepare {
            key: "k".into(),
            ballot: ballot(1000, N1),
        },
        Ask::Prepare {
            key: Default::default(),
            ballot: ballot(1000, N3),
        },
        accept(ballot(1000, N3), ballot(999, N3)),
        accept(ballot(1000, N1), ballot(1001, N1)),
        accept(ballot(1000, N3), ballot(u64::MAX, N3)),
        accept(crate::Ballot::ZERO, ballot(1, N3)),
    ];
    let messages = [
        Message::Asks(asks),
        Message::Digest { buckets: vec![1, 2] },
        Message::Listing {
            bucket: 3,
            after: Default::default(),
            entries: Vec::new(),
            more: true,
        },
    ];
    for message in messages {
        let bytes = trilemma_core::codec::encode(&message);
        cluster.input(N2, GroupInput::Receive { from: N3, bytes });
    }
    let after: Vec<_> = cluster.protocol(N2).held().collect();
    assert_eq!(held, after);
    assert!(succeeded(cluster.write(N2, 2, Command::put("k", "b")).as_ref()));
}
