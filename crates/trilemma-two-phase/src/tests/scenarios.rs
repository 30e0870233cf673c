//! What works when all is well, and what each answer says.

use trilemma_core::host::{DynProtocol, GroupInput, Host, Output};
use trilemma_core::session::OpResult;
use trilemma_core::{
    Achieved, Attempt, Command, Incarnation, Instant, KeyRange, Now, Outcome, Proposal, Protocol, Query,
    ReadLevel, ReadRequest, Reason, Reply, Request, Ticket, Value, Version,
};
use trilemma_testkit::{get, op, succeeded, value, write};

use super::harness::*;
use crate::{Message, Transaction, TwoPhase, TwoPhaseConfig};

#[test]
fn a_write_is_durable_everywhere_and_readable_everywhere() {
    for size in [1, 2, 3, 5] {
        let mut cluster = cluster(size, 1);
        let receipt = receipt(put(&mut cluster, N1, 1, "k"));
        assert!(receipt.succeeded);
        assert_eq!(receipt.version, Version(1));
        assert_eq!(receipt.durable_on.len(), size as usize);
        assert_eq!(receipt.achieved, Achieved::StrictSerializable);
        assert_eq!(receipt.served_by, N1);
        for node in cluster.ids() {
            let reply = cluster.get(node, "k");
            assert_eq!(
                value(reply.as_ref()),
                Ok(Some("1".into())),
                "at node {node} of {size}"
            );
        }
        resolve(&mut cluster);
    }
}

#[test]
fn a_write_at_a_member_is_forwarded_and_read_there_at_once() {
    let mut cluster = cluster(3, 2);
    let receipt = receipt(put(&mut cluster, N3, 1, "k"));
    assert_eq!(
        (receipt.round_trips, receipt.syncs, receipt.served_by),
        (2, 2, N1)
    );
    assert_eq!(local(&cluster, N3, "k").as_deref(), Some("1"));
}

#[test]
fn the_decision_costs_one_forced_record_per_node() {
    let mut cluster = cluster(3, 3);
    rest(&mut cluster);
    let before: Vec<usize> = cluster
        .ids()
        .iter()
        .map(|node| cluster.durable_records(*node))
        .collect();
    let sent = lose(&mut cluster, &[]);
    assert!(succeeded(put(&mut cluster, N1, 1, "k").as_ref()));
    // N forced writes per batch, not 2N+1: a `Decision` at the sequencer, a `Prepare` at each other member. The lazy
    // records (outcome, watermark) ride along.
    assert_eq!((count(&sent, "prepare"), count(&sent, "vote")), (2, 2));
    assert!(cluster.durable_records(N1) == before[0] + 1);
    rest(&mut cluster);
    for (index, node) in cluster.ids().into_iter().enumerate() {
        let lazy = 2;
        assert!(
            cluster.durable_records(node) <= before[index] + 1 + lazy,
            "node {node}"
        );
    }
}

#[test]
fn proposals_of_one_turn_share_a_batch() {
    let mut cluster = cluster(3, 4);
    let sent = lose(&mut cluster, &[]);
    let tickets: Vec<_> = (1..=100)
        .map(|seq| propose_put(&mut cluster, N1, seq, &format!("k{seq}"), SECOND))
        .collect();
    for ticket in tickets {
        assert!(succeeded(await_reply(&mut cluster, N1, ticket).as_ref()));
    }
    assert_eq!(count(&sent, "prepare"), 2);
}

#[test]
fn a_full_pipeline_gathers_what_comes_and_keeps_its_order() {
    let mut cluster = cluster_with(3, 5, |config| config.pipeline_depth = 2);
    let tickets: Vec<_> = (1..=40)
        .map(|seq| {
            cluster.run_for(millis(0) + std::time::Duration::from_micros(20));
            propose_put(&mut cluster, N1, seq, "k", SECOND)
        })
        .collect();
    let mut last = Version::ABSENT;
    for ticket in tickets {
        let receipt = receipt(await_reply(&mut cluster, N1, ticket));
        assert!(receipt.version > last, "answers are in the order of proposals");
        last = receipt.version;
    }
    resolve(&mut cluster);
    assert_eq!(local(&cluster, N2, "k").as_deref(), Some("40"));
}

#[test]
fn guards_hold_or_nothing_happens() {
    let mut cluster = cluster(3, 6);
    let expected = |text: &str| Some(Value::from(text));
    put(&mut cluster, N1, 1, "k");
    let command = Command::compare_and_set("k", expected("other"), expected("2"));
    let lost = receipt(cluster.write(N2, 2, command));
    assert_eq!((lost.succeeded, lost.found), (false, Version(1)));
    let command = Command::compare_and_set("k", expected("1"), expected("3"));
    assert!(receipt(cluster.write(N3, 3, command)).succeeded);
    resolve(&mut cluster);
    assert_eq!(local(&cluster, N2, "k").as_deref(), Some("3"));
}

#[test]
fn a_failed_guard_is_final_for_a_late_copy_of_its_request() {
    let mut cluster = cluster(3, 7);
    let command = Command::compare_and_set("k", Some("1".into()), Some("2".into()));
    assert!(!receipt(cluster.write(N2, 2, command.clone())).succeeded);
    put(&mut cluster, N1, 1, "k");
    let again = cluster.ask(N3, write(2, Attempt::Retry, command), SECOND);
    assert!(!receipt(again).succeeded, "the answer says that it lost");
}

#[test]
fn a_transaction_of_many_keys_is_one_event_everywhere() {
    let mut cluster = cluster(3, 8);
    let mut command = Command::put("a", "1");
    command.mutations.extend(Command::put("b", "1").mutations);
    assert!(receipt(cluster.write(N2, 1, command)).succeeded);
    resolve(&mut cluster);
    for node in cluster.ids() {
        let applied = cluster.applied(node);
        assert_eq!(applied.len(), 1, "at node {node}");
        assert_eq!((applied[0].position, applied[0].changes.len()), (1, 2));
    }
}

#[test]
fn a_repeat_has_one_effect_and_one_answer() {
    let mut cluster = cluster(3, 9);
    let first = receipt(put(&mut cluster, N2, 1, "k"));
    put(&mut cluster, N1, 2, "k");
    for node in cluster.ids() {
        let again = cluster.ask(node, write(1, Attempt::Retry, Command::put("k", "1")), SECOND);
        assert_eq!(receipt(again).version, first.version);
    }
    // Two copies in flight at once.
    let both = [
        propose_put(&mut cluster, N1, 3, "k", SECOND),
        propose_put(&mut cluster, N1, 3, "k", SECOND),
    ];
    let both = both.map(|ticket| receipt(await_reply(&mut cluster, N1, ticket)).version);
    assert_eq!(both[0], both[1]);
    resolve(&mut cluster);
    assert_eq!(local(&cluster, N3, "k").as_deref(), Some("3"));
}

#[test]
fn an_outcome_is_final() {
    let mut cluster = cluster(3, 10);
    let receipt = receipt(put(&mut cluster, N1, 1, "k"));
    rest(&mut cluster);
    for node in cluster.ids() {
        match outcome(ask_outcome(&mut cluster, node, 1)) {
            Outcome::Applied(found) => assert_eq!((found.version, found.succeeded), (receipt.version, true)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(outcome(ask_outcome(&mut cluster, N3, 9)), Outcome::NotApplied);
    let late = cluster.ask(N2, write(9, Attempt::Retry, Command::put("k", "late")), SECOND);
    assert_eq!(refusal(late), Reason::Fenced);
    resolve(&mut cluster);
    assert_eq!(result_at(&cluster, N2, op(9)), Some(OpResult::Fenced));
    assert_eq!(local(&cluster, N2, "k").as_deref(), Some("1"));
}

#[test]
fn reads_come_at_every_level_and_never_weaker() {
    let mut cluster = cluster(3, 11);
    for seq in 1..=5 {
        put(&mut cluster, N1, seq, &format!("k{seq}"));
    }
    let range = |level| {
        Request::Read(ReadRequest {
            query: Query::Range {
                range: KeyRange::prefix("k"),
                limit: 3,
            },
            level,
        })
    };
    for node in cluster.ids() {
        let Some(Reply::Read(Ok(read))) = cluster.ask(node, range(None), SECOND) else {
            panic!("no answer at {node}");
        };
        assert_eq!(
            (read.entries.len(), read.more, read.achieved),
            (3, true, ReadLevel::Linearizable)
        );
        assert_eq!(read.round_trips, 0);
        let local = cluster.ask(node, range(Some(ReadLevel::Local)), SECOND);
        assert!(matches!(local, Some(Reply::Read(Ok(read))) if read.achieved == ReadLevel::Local));
    }
    // A version of the future is waited for, and refused at the deadline.
    let request = get("k6", Some(ReadLevel::MinVersion(Version(6))));
    let waits = cluster.propose(N2, request.clone(), SECOND);
    put(&mut cluster, N1, 6, "k6");
    let answer = await_reply(&mut cluster, N2, waits);
    assert_eq!(value(answer.as_ref()), Ok(Some("6".into())));
    let late = cluster.ask(
        N3,
        get("k6", Some(ReadLevel::MinVersion(Version(70)))),
        millis(200),
    );
    assert_eq!(refusal(late), Reason::Deadline);
    let siblings = Request::Read(ReadRequest {
        query: Query::Siblings("k1".into()),
        level: None,
    });
    assert!(matches!(
        refusal(cluster.ask(N2, siblings, SECOND)),
        Reason::Unsupported { .. }
    ));
}

#[test]
fn queues_are_bounded() {
    let mut cluster = cluster_with(3, 12, |config| {
        config.queue_max = 10;
        config.reads_max = 5;
    });
    cluster.hold_disk(N2, true);
    let tickets: Vec<_> = (1..=200)
        .map(|seq| {
            cluster.run_for(std::time::Duration::from_micros(1));
            propose_put(&mut cluster, N1, seq, "k", SECOND)
        })
        .collect();
    let overloaded = tickets.iter().filter(|ticket| {
        matches!(cluster.reply(N1, **ticket), Some(Reply::Write(Err(error))) if error.to_string().contains("overloaded"))
    });
    assert!(overloaded.count() > 100);
    cluster.run_for(millis(5));
    for _ in 0..20 {
        cluster.propose(N3, get("k", None), SECOND);
    }
    let reply = cluster.get(N3, "k");
    assert!(matches!(refusal(reply), Reason::Overloaded { .. }));
    cluster.hold_disk(N2, false);
    resolve(&mut cluster);
    for ticket in tickets {
        assert!(
            await_reply(&mut cluster, N1, ticket).is_some(),
            "every proposal is answered"
        );
    }
}

#[test]
fn a_member_that_missed_a_prepare_asks_for_it_and_skips_nothing() {
    let mut cluster = cluster(3, 13);
    let mut lost = 0;
    let sent = tap(&mut cluster, move |_, to, message| {
        let is_prepare = matches!(message, Message::Prepare { .. });
        lost += u32::from(is_prepare && to == N3);
        is_prepare && to == N3 && lost == 1
    });
    let tickets = [1, 2, 3].map(|seq| {
        let ticket = propose_put(&mut cluster, N1, seq, "k", SECOND);
        cluster.run_for(std::time::Duration::from_micros(10));
        ticket
    });
    for ticket in tickets {
        assert!(succeeded(await_reply(&mut cluster, N1, ticket).as_ref()));
    }
    resolve(&mut cluster);
    assert!(count(&sent, "prepare") > 6, "the lost one was sent again");
}

#[test]
fn checkpoints_give_back_what_the_log_would() {
    let mut cluster = cluster(3, 14);
    for seq in 1..=30 {
        put(&mut cluster, N2, seq, &format!("k{}", seq % 7));
        if seq % 10 == 0 {
            for node in cluster.ids() {
                cluster.checkpoint(node);
            }
        }
    }
    let digest = cluster.protocol(N1).digest();
    for node in cluster.ids() {
        cluster.crash_losing_all(node);
    }
    for node in cluster.ids() {
        cluster.restart(node);
    }
    resolve(&mut cluster);
    assert_eq!(cluster.protocol(N3).digest(), digest);
    assert!(succeeded(put(&mut cluster, N3, 31, "k").as_ref()));
}

#[test]
fn a_transaction_whose_guard_fails_travels_without_its_values() {
    let mut cluster = cluster(3, 15);
    let sent = lose(&mut cluster, &[]);
    let value = Value::from(vec![7; 100_000]);
    let command = Command::compare_and_set("k", Some("absent".into()), Some(value));
    assert!(!receipt(cluster.write(N1, 1, command)).succeeded);
    let Some(Message::Prepare { batch, .. }) = first(&sent, "prepare", N2) else {
        panic!("nothing was prepared");
    };
    let Transaction::Write { command, .. } = &batch.transactions[0] else {
        panic!("{batch:?}");
    };
    assert!(command.size() < 100 && command.mutations.is_empty());
}

#[test]
fn the_status_says_what_holds() {
    let mut cluster = cluster(3, 16);
    let status = cluster.protocol(N1).status(now(&cluster));
    assert_eq!((status.role.as_str(), status.leader), ("sequencer", Some(N1)));
    assert!(status.can_write && status.why.is_empty());
    cluster.crash(N3);
    cluster.run_for(millis(400));
    for node in [N1, N2] {
        let status = cluster.protocol(node).status(now(&cluster));
        assert!(!status.can_write && status.can_read);
        assert_eq!(status.why, "node 3 cannot be reached; writes need every member");
        assert!(status.missing.contains(N3));
    }
}

#[test]
fn a_busy_node_repeats_what_has_had_no_answer() {
    // Inputs come faster than the timer, and each turn has one before the wake that is due.
    let config = TwoPhaseConfig::new(N1, [N1, N2], Incarnation(1), 1);
    let mut host = Host::new(TwoPhase::new(config));
    let mut output = Output::default();
    host.step(Now::default(), GroupInput::Start, &mut output);
    host.step(Now::default(), GroupInput::EndTurn, &mut output);
    let asked = |output: &Output| output.sends.iter().filter(|sent| sent.kind == "probe").count();
    let at_start = asked(&output);
    for turn in 1..=100_u64 {
        let now = Now {
            instant: Instant::from_nanos(turn * 7_000_000),
            ..Now::default()
        };
        let local = get("k", Some(ReadLevel::Local));
        let proposal = Proposal {
            ticket: Ticket(turn),
            deadline: now.instant + SECOND,
            request: local,
        };
        host.step(now, GroupInput::Propose(proposal), &mut output);
        if host.wake_at() <= now.instant {
            host.step(now, GroupInput::Wake, &mut output);
        }
        host.step(now, GroupInput::EndTurn, &mut output);
    }
    let again = asked(&output) - at_start;
    assert!(
        (10..=14).contains(&again),
        "{again} probes in 700 ms, one is due each 50 ms"
    );
}
