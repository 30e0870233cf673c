//! Named schedules: each forbids one known mistake.

use std::cell::Cell;
use std::rc::Rc;

use trilemma_core::{Attempt, Command, Outcome, ReadLevel, Reason, Reply, Request, UnknownCause, WriteError};
use trilemma_testkit::{Verdict, get, op, succeeded, value, write};

use super::*;

fn put(seq: u64, value: &str) -> Request {
    write(seq, Attempt::First, Command::put("key", value))
}

fn others(cluster: &Cluster<Raft>, id: NodeId) -> Vec<NodeId> {
    cluster.ids().into_iter().filter(|other| *other != id).collect()
}

#[test]
fn a_write_at_any_node_is_read_at_every_node() {
    let mut cluster = cluster(3, 1);
    elect(&mut cluster);
    for (seq, id) in cluster.ids().into_iter().enumerate() {
        let text = format!("by {id}");
        let reply = cluster.write(id, seq as u64 + 1, Command::put("key", text.as_str()));
        assert!(succeeded(reply.as_ref()), "{reply:?}");
        for reader in cluster.ids() {
            let reply = cluster.get(reader, "key");
            assert_eq!(value(reply.as_ref()), Ok(Some(text.clone())), "node {reader}");
        }
    }
}

#[test]
fn one_node_alone_serves_itself() {
    let mut cluster = cluster(1, 1);
    elect(&mut cluster);
    let reply = cluster.write(NodeId(1), 1, Command::put("key", "1"));
    assert!(succeeded(reply.as_ref()), "{reply:?}");
    cluster.crash(NodeId(1));
    cluster.restart(NodeId(1));
    elect(&mut cluster);
    assert_eq!(
        value(cluster.get(NodeId(1), "key").as_ref()),
        Ok(Some("1".into()))
    );
}

/// Two rounds of questions and a sync take longer than an election timeout, which the settings advise against.
#[test]
fn a_leader_is_found_where_an_election_takes_longer_than_its_timeout() {
    for seed in 1..=20 {
        let mut cluster = cluster(5, seed);
        cluster.faults.delay = (110 * MS, 120 * MS);
        elect(&mut cluster);
    }
}

#[test]
fn a_minority_refuses_at_once_and_names_who_is_missing() {
    let mut cluster = cluster(3, 2);
    let old = elect(&mut cluster);
    cluster.split(&[old]);
    cluster.run_for(1000 * MS);
    assert!(
        !cluster.protocol(old).is_leader(),
        "a leader without a majority steps down"
    );
    let ticket = cluster.propose(old, put(1, "x"), 5000 * MS);
    cluster.catch_up();
    let Some(Reply::Write(Err(WriteError::NotApplied(refusal)))) = cluster.reply(old, ticket) else {
        panic!("not refused at once: {:?}", cluster.reply(old, ticket));
    };
    let Reason::NoQuorum {
        have: 1,
        need: 2,
        of: 3,
        missing,
    } = &refusal.reason
    else {
        panic!("{refusal}")
    };
    assert_eq!(missing.len(), 2);
    let ticket = cluster.propose(old, get("key", None), 5000 * MS);
    let local = cluster.propose(old, get("key", Some(ReadLevel::Local)), 5000 * MS);
    cluster.catch_up();
    assert!(
        matches!(cluster.reply(old, ticket), Some(Reply::Read(Err(_)))),
        "a linearizable read"
    );
    assert_eq!(value(cluster.reply(old, local)), Ok(None), "a local read answers");
    let new = elect(&mut cluster);
    assert_ne!(new, old);
    assert!(succeeded(
        cluster.write(new, 2, Command::put("key", "y")).as_ref()
    ));
}

#[test]
fn a_write_in_flight_when_the_leader_is_cut_off_is_unknown_within_a_second() {
    let mut cluster = cluster(3, 3);
    let old = elect(&mut cluster);
    cluster.split(&[old]);
    let ticket = cluster.propose(old, put(1, "x"), 30_000 * MS);
    assert!(cluster.run_until(1000 * MS, |cluster| cluster.reply(old, ticket).is_some()));
    let unknown = WriteError::Unknown {
        op: op(1),
        cause: UnknownCause::LeaderLost,
    };
    assert_eq!(cluster.reply(old, ticket), Some(&Reply::Write(Err(unknown))));
}

#[test]
fn a_vote_survives_a_crash_between_append_and_reply() {
    // inside/raft#durable-vote: one durable vote per node and term. The disk of a voter is held; it crashes; in its
    // next incarnation it must not have reported the vote that it lost.
    for seed in 0..50 {
        let mut cluster = cluster(3, seed);
        let reported = Rc::new(Cell::new(0));
        let counter = Rc::clone(&reported);
        cluster.filter = Some(Box::new(move |from, _, message| {
            if from == NodeId(2) && matches!(message, Message::VoteReply { granted: true, .. }) {
                counter.set(counter.get() + 1);
            }
            Verdict::Deliver
        }));
        cluster.hold_disk(NodeId(2), true);
        cluster.run_for(400 * MS);
        assert_eq!(
            reported.get(),
            0,
            "seed {seed}: a vote was reported before it was durable"
        );
        cluster.hold_disk(NodeId(2), false);
        cluster.filter = None;
        elect(&mut cluster);
    }
}

#[test]
fn nothing_is_acknowledged_or_applied_before_it_is_durable_on_a_majority() {
    // inside/raft#leaders-own-disk, inside/raft#applied-is-durable: with both followers' disks held, a leader whose own
    // disk works has a majority of one.
    let mut cluster = cluster(3, 5);
    let id = elect(&mut cluster);
    for other in others(&cluster, id) {
        cluster.hold_disk(other, true);
    }
    let ticket = cluster.propose(id, put(1, "x"), 5000 * MS);
    cluster.run_for(200 * MS);
    assert_eq!(cluster.reply(id, ticket), None);
    assert_eq!(cluster.protocol(id).table().get(b"key"), None);
    let other = others(&cluster, id)[0];
    cluster.hold_disk(other, false);
    assert!(cluster.run_until(1000 * MS, |cluster| succeeded(cluster.reply(id, ticket))));
}

#[test]
fn a_leader_counts_itself_only_when_its_own_disk_has_the_entry() {
    let mut cluster = cluster(3, 6);
    let id = elect(&mut cluster);
    let silent = others(&cluster, id)[0];
    cluster.crash(silent);
    cluster.hold_disk(id, true);
    let ticket = cluster.propose(id, put(1, "x"), 5000 * MS);
    cluster.run_for(100 * MS);
    assert_eq!(
        cluster.reply(id, ticket),
        None,
        "one durable copy of three is no majority"
    );
    cluster.hold_disk(id, false);
    assert!(cluster.run_until(1000 * MS, |cluster| succeeded(cluster.reply(id, ticket))));
}

#[test]
fn a_leader_whose_disk_stalls_makes_room_for_another() {
    // inside/raft#stalled-disk.
    let mut cluster = cluster(3, 7);
    let id = elect(&mut cluster);
    cluster.hold_disk(id, true);
    cluster.propose(id, put(1, "x"), 5000 * MS);
    let replaced = |cluster: &Cluster<Raft>| leader(cluster).is_some_and(|new| new != id);
    assert!(cluster.run_until(2000 * MS, replaced), "no new leader within 2 s");
}

#[test]
fn a_leader_whose_disk_stalls_leaves_the_election_to_others() {
    let mut cluster = cluster(3, 7);
    let id = elect(&mut cluster);
    cluster.hold_disk(id, true);
    cluster.propose(id, put(1, "x"), 5000 * MS);
    let asked = Rc::new(Cell::new(0));
    let counter = Rc::clone(&asked);
    cluster.filter = Some(Box::new(move |from, _, message| {
        counter.set(counter.get() + u32::from(from == id && matches!(message, Message::PreVote { .. })));
        Verdict::Deliver
    }));
    // Nobody else can be heard by it, so that nothing but its own judgement holds it back.
    for other in others(&cluster, id) {
        cluster.cut(other, id);
    }
    cluster.run_for(5000 * MS);
    assert!(!cluster.protocol(id).is_leader());
    assert_eq!(asked.get(), 0);
    cluster.hold_disk(id, false);
    cluster.run_for(1000 * MS);
    assert!(asked.get() > 0, "a disk that works again");
}

#[test]
fn a_node_that_was_cut_off_disrupts_nobody_when_it_returns() {
    let mut cluster = cluster(3, 8);
    let id = elect(&mut cluster);
    let term = cluster.protocol(id).term();
    let lonely = others(&cluster, id)[0];
    cluster.split(&[lonely]);
    cluster.run_for(5000 * MS);
    cluster.heal();
    cluster.run_for(2000 * MS);
    assert_eq!(leader(&cluster), Some(id));
    assert_eq!(cluster.protocol(lonely).term(), term, "pre-votes raise no term");
}

#[test]
fn one_way_loss_in_either_direction_leaves_a_leader_that_commits() {
    for inbound in [false, true] {
        let mut cluster = cluster(3, 9);
        let id = elect(&mut cluster);
        for other in others(&cluster, id) {
            let (from, to) = if inbound { (other, id) } else { (id, other) };
            cluster.cut(from, to);
        }
        cluster.run_for(1200 * MS);
        let new = elect(&mut cluster);
        assert_ne!(new, id, "inbound {inbound}");
        assert!(
            succeeded(cluster.write(new, 1, Command::put("key", "x")).as_ref()),
            "inbound {inbound}"
        );
    }
}

#[test]
fn a_bridge_between_two_halves_gets_a_leader() {
    // inside/raft#bridge: the old leader sees only the bridge; {a, b, bridge} form a majority.
    let mut cluster = cluster(5, 10);
    let old = elect(&mut cluster);
    let rest = others(&cluster, old);
    let (bridge, far) = (rest[0], &rest[1..]);
    let (a, b, c) = (far[0], far[1], far[2]);
    for node in [a, b, c] {
        cluster.cut(old, node);
        cluster.cut(node, old);
    }
    for node in [a, b, bridge, old] {
        cluster.cut(c, node);
        cluster.cut(node, c);
    }
    cluster.run_for(1500 * MS);
    let new = elect(&mut cluster);
    assert!([a, b, bridge].contains(&new), "{new}");
    assert!(succeeded(
        cluster.write(new, 1, Command::put("key", "x")).as_ref()
    ));
}

#[test]
fn an_overwritten_entry_is_durable_only_when_its_last_append_is() {
    // inside/raft#overwritten-entry: comparing (index, term) is not enough.
    let mut log = Log::default();
    let entry = |term| Entry {
        term: Term(term),
        payload: Payload::Noop,
    };
    let seq = trilemma_core::AppendSeq;
    log.push(entry(1));
    log.push(entry(1));
    log.on_appended(seq(1), Index(1), Index(2));
    log.truncate(Index(2));
    log.push(entry(2));
    log.on_appended(seq(2), Index(2), Index(2));
    log.on_persisted(seq(1));
    assert_eq!(log.durable(), Index(1));
    log.on_persisted(seq(2));
    assert_eq!(log.durable(), Index(2));
}

#[test]
fn a_follower_far_behind_gets_a_snapshot_and_watchers_start_again() {
    let mut cluster = cluster_with(3, 11, |config| {
        config.kept_entries = 4;
        config.election_timeout = 150 * MS;
    });
    let id = elect(&mut cluster);
    let behind = others(&cluster, id)[0];
    cluster.crash(behind);
    cluster.run_for(400 * MS);
    for seq in 1..=60 {
        let command = Command::put(format!("key/{seq}"), "x".repeat(20_000));
        assert!(succeeded(cluster.write(id, seq, command).as_ref()), "write {seq}");
    }
    cluster.restart(behind);
    let same = |cluster: &Cluster<Raft>| {
        cluster.protocol(behind).table().digest() == cluster.protocol(id).table().digest()
    };
    assert!(
        cluster.run_until(5000 * MS, same),
        "{:?}",
        cluster.protocol(behind).log_end()
    );
    // The snapshot and what follows survive a restart.
    assert!(succeeded(
        cluster.write(id, 61, Command::put("key", "last")).as_ref()
    ));
    cluster.run_for(200 * MS);
    cluster.crash_losing_all(behind);
    cluster.restart(behind);
    assert!(cluster.run_until(5000 * MS, same));
}

#[test]
fn a_checkpoint_is_as_good_as_its_records() {
    let mut cluster = cluster(3, 12);
    let id = elect(&mut cluster);
    for seq in 1..=30 {
        assert!(succeeded(
            cluster
                .write(id, seq, Command::put(format!("key/{seq}"), "x"))
                .as_ref()
        ));
    }
    for node in cluster.ids() {
        cluster.checkpoint(node);
        assert_eq!(cluster.durable_records(node), 0);
    }
    for node in cluster.ids() {
        cluster.crash(node);
    }
    for node in cluster.ids() {
        cluster.restart(node);
    }
    cluster.run_for(500 * MS);
    let id = elect(&mut cluster);
    assert_eq!(value(cluster.get(id, "key/30").as_ref()), Ok(Some("x".into())));
    assert!(succeeded(
        cluster.write(id, 31, Command::put("key", "y")).as_ref()
    ));
}

#[test]
fn a_new_leader_serves_no_read_before_its_first_entry_is_committed() {
    // inside/raft#first-own-entry: the followers' acknowledgements are deferred from the new leader.
    let mut cluster = cluster(3, 13);
    let old = elect(&mut cluster);
    assert!(succeeded(
        cluster.write(old, 1, Command::put("key", "x")).as_ref()
    ));
    cluster.filter = Some(Box::new(|_, _, message| match message {
        Message::AppendReply {
            result: AppendResult::Matched(index),
            ..
        } if *index > Index(2) => Verdict::Drop,
        _ => Verdict::Deliver,
    }));
    cluster.crash(old);
    let elected = |cluster: &Cluster<Raft>| leader(cluster).is_some();
    assert!(cluster.run_until(3000 * MS, elected));
    let new = leader(&cluster).unwrap();
    let ticket = cluster.propose(new, get("key", None), 5000 * MS);
    cluster.run_for(250 * MS);
    if cluster.protocol(new).is_leader() && !cluster.protocol(new).is_ready() {
        assert_eq!(
            cluster.reply(new, ticket),
            None,
            "served before the first entry of the term"
        );
    }
    cluster.filter = None;
    elect(&mut cluster);
    assert_eq!(value(cluster.get(new, "key").as_ref()), Ok(Some("x".into())));
}

#[test]
fn a_retry_takes_effect_once_and_an_outcome_is_final() {
    let mut cluster = cluster(3, 14);
    let id = elect(&mut cluster);
    let first = cluster.write(id, 1, Command::put("key", "1"));
    assert!(succeeded(cluster.write(id, 2, Command::put("key", "2")).as_ref()));
    let other = others(&cluster, id)[0];
    let again = cluster.ask(
        other,
        write(1, Attempt::Retry, Command::put("key", "1")),
        3000 * MS,
    );
    let version = |reply: &Option<Reply>| match reply {
        Some(Reply::Write(Ok(receipt))) => receipt.version,
        other => panic!("{other:?}"),
    };
    assert_eq!(version(&again), version(&first));
    assert_eq!(value(cluster.get(id, "key").as_ref()), Ok(Some("2".into())));
    let ask = |seq| Request::Outcome {
        op: op(seq),
        command: None,
    };
    assert!(matches!(
        cluster.ask(id, ask(1), 3000 * MS),
        Some(Reply::Outcome(Ok(Outcome::Applied(_))))
    ));
    assert_eq!(
        cluster.ask(other, ask(3), 3000 * MS),
        Some(Reply::Outcome(Ok(Outcome::NotApplied)))
    );
    let late = cluster.ask(id, put(3, "3"), 3000 * MS);
    let Some(Reply::Write(Err(WriteError::NotApplied(refusal)))) = late else {
        panic!("{late:?}")
    };
    assert_eq!(refusal.reason, Reason::Fenced);
}

#[test]
fn messages_of_strangers_and_nonsense_change_nothing() {
    // inside/raft#strangers.
    let mut cluster = cluster(3, 15);
    let id = elect(&mut cluster);
    let term = cluster.protocol(id).term();
    let end = LogEnd {
        term: Term(u64::MAX),
        index: Index(u64::MAX),
    };
    for (from, message) in [
        (
            NodeId(9),
            Message::Vote {
                term: Term(99),
                end,
                is_handover: true,
            },
        ),
        (
            NodeId(2),
            Message::AppendReply {
                term,
                round: u64::MAX,
                result: AppendResult::Matched(Index(u64::MAX)),
            },
        ),
        (
            NodeId(2),
            Message::AppendReply {
                term,
                round: 0,
                result: AppendResult::Matched(Index(u64::MAX)),
            },
        ),
        (
            NodeId(3),
            Message::SnapshotReply {
                term,
                round: 0,
                at: end,
                next: u32::MAX,
            },
        ),
        (
            NodeId(3),
            Message::Append {
                term,
                round: 0,
                prev: end,
                entries: Vec::new(),
                commit: Index(u64::MAX),
            },
        ),
    ] {
        let bytes = codec::encode(&message);
        cluster.input(id, trilemma_core::host::GroupInput::Receive { from, bytes });
    }
    assert_eq!(cluster.protocol(id).term(), term);
    assert!(cluster.protocol(id).is_leader());
    assert!(succeeded(cluster.write(id, 1, Command::put("key", "x")).as_ref()));
}

#[test]
fn many_writes_of_one_turn_share_messages_and_records() {
    let mut cluster = cluster(3, 16);
    let id = elect(&mut cluster);
    cluster.run_for(100 * MS);
    let before = cluster.durable_records(id);
    let sent = Rc::new(Cell::new(0));
    let counter = Rc::clone(&sent);
    cluster.filter = Some(Box::new(move |_, _, message| {
        counter.set(
            counter.get()
                + u32::from(matches!(message, Message::Append { entries, .. } if !entries.is_empty())),
        );
        Verdict::Deliver
    }));
    let tickets: Vec<_> = (1..=256)
        .map(|seq| cluster.propose(id, put(seq, "x"), 5000 * MS))
        .collect();
    assert!(cluster.run_until(1000 * MS, |cluster| {
        tickets.iter().all(|ticket| succeeded(cluster.reply(id, *ticket)))
    }));
    assert!(sent.get() <= 6, "{} messages for 256 writes", sent.get());
    assert!(cluster.durable_records(id) - before <= 3);
}
