//! What a client sees: availability, conflicts, repeats; clocks and deletes in files of their own.

mod clocks;
mod deletes;

use trilemma_core::{
    Achieved, Attempt, Mutation, NodeSet, NotApplied, Outcome, Protocol, ReadLevel, Reason, UnknownCause,
    WriteError,
};
use trilemma_testkit::{Verdict, get as read, op, write};

use super::*;
use crate::config::Durability;
use crate::message::Message;

const YEAR_MS: i64 = 365 * 24 * 3600 * 1000;
const HOUR_MS: i64 = 3600 * 1000;

fn refusal(reply: Option<Reply>) -> Reason {
    match reply {
        Some(Reply::Write(Err(WriteError::NotApplied(NotApplied { reason, .. })))) => reason,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn a_write_is_everywhere_after_one_hop() {
    let mut cluster = cluster(3, 1);
    cluster.run_for(ms(50));
    let receipt = put(&mut cluster, N1, 1, "k", "v");
    assert_eq!(
        (receipt.achieved, receipt.durable_on.clone()),
        (Achieved::Convergent, NodeSet::of(N1))
    );
    assert_eq!(
        (receipt.round_trips, receipt.syncs, receipt.served_by),
        (0, 1, N1)
    );
    converge(&mut cluster, ms(2));
    assert_eq!(get(&mut cluster, N3, "k").as_deref(), Some("v"));
}

#[test]
fn an_isolated_node_reads_and_writes_and_says_who_is_missing() {
    let mut cluster = cluster(3, 2);
    cluster.split(&[N1]);
    cluster.run_for(ms(500));
    put(&mut cluster, N1, 1, "k", "alone");
    put(&mut cluster, N2, 2, "j", "others");
    assert_eq!(get(&mut cluster, N1, "k").as_deref(), Some("alone"));
    assert_eq!(get(&mut cluster, N1, "j"), None);
    let status = cluster.protocol(N1).status(trilemma_core::Now::default());
    assert!(
        status.can_write && status.can_read && status.why.contains("node 2, 3"),
        "{status:?}"
    );
    assert_eq!(status.missing, NodeSet::from_iter([N2, N3]));
    cluster.heal();
    converge(&mut cluster, ms(1000));
    assert_eq!(get(&mut cluster, N3, "k").as_deref(), Some("alone"));
    let status = cluster.protocol(N1).status(trilemma_core::Now::default());
    assert!(
        status.why.is_empty() && status.missing.is_empty() && status.keys == 2,
        "{status:?}"
    );
}

#[test]
fn a_node_that_misses_every_rumor_converges_by_anti_entropy() {
    let mut cluster = cluster(3, 3);
    cluster.filter = Some(Box::new(|_, to, message| match message {
        Message::Rumors { .. } if to == N3 => Verdict::Drop,
        _ => Verdict::Deliver,
    }));
    cluster.run_for(ms(300));
    for seq in 1..=300 {
        put(
            &mut cluster,
            N1,
            seq,
            &format!("k{}", seq % 100),
            &seq.to_string(),
        );
    }
    cluster.write(N2, 301, Command::delete("k5"));
    // A comparison a second from each node, half of them with node 3: after 6 seconds it is all but certain.
    converge(&mut cluster, ms(6000));
    assert_eq!(cluster.protocol(N3).replica().visible(), 99);
}

#[test]
fn what_would_weaken_a_promise_is_refused() {
    let mut cluster = cluster(3, 4);
    let guarded = Command::compare_and_set("k", None, Some("v".into()));
    assert!(matches!(
        refusal(cluster.write(N1, 1, guarded)),
        Reason::Unsupported { .. }
    ));
    let leased = Command {
        guards: Vec::new(),
        mutations: vec![Mutation::Put {
            key: "k".into(),
            value: "v".into(),
            lease: Some(trilemma_core::LeaseId(std::num::NonZeroU64::MIN)),
        }],
    };
    assert!(matches!(
        refusal(cluster.write(N1, 2, leased)),
        Reason::Unsupported { .. }
    ));
    assert!(matches!(
        refusal(cluster.write(N1, 3, Command::put("", "v"))),
        Reason::Invalid { .. }
    ));
    for level in [
        ReadLevel::Linearizable,
        ReadLevel::MinVersion(trilemma_core::Version(1)),
    ] {
        match cluster.ask(N1, read("k", Some(level)), ms(100)) {
            Some(Reply::Read(Err(error))) => {
                assert!(
                    matches!(&error.reason, Reason::Unsupported { strongest, .. } if strongest == "local")
                );
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(get(&mut cluster, N1, "k"), None);
}

#[test]
fn concurrent_writes_stay_siblings_until_somebody_writes_again() {
    let mut cluster = cluster(3, 5);
    cluster.split(&[N1]);
    cluster.run_for(ms(400));
    put(&mut cluster, N1, 1, "k", "one");
    cluster.run_for(ms(5));
    put(&mut cluster, N2, 2, "k", "two");
    cluster.heal();
    converge(&mut cluster, ms(2000));
    for node in [N1, N2, N3] {
        assert_eq!(siblings(&mut cluster, node, "k"), ["two", "one"]);
    }
    let receipt = put(&mut cluster, N3, 3, "k", "three");
    converge(&mut cluster, ms(1000));
    assert_eq!(siblings(&mut cluster, N1, "k"), ["three"]);
    let entries = cluster.protocol(N1).scan(&trilemma_core::KeyRange::all(), 9);
    assert_eq!(entries[0].state.modified, receipt.version);
}

#[test]
fn too_many_siblings_are_written_back_as_one_and_nothing_changes_for_readers() {
    let mut cluster = cluster_with(6, 6, |config| config.siblings_max = 3);
    for id in cluster.ids() {
        cluster.split(&[id]);
    }
    for id in 1..=6 {
        for other in 1..=6 {
            if other != id {
                cluster.cut(NodeId(id), NodeId(other));
            }
        }
    }
    cluster.run_for(ms(400));
    for id in 1..=6 {
        put(&mut cluster, NodeId(id), u64::from(id), "k", &format!("v{id}"));
        cluster.run_for(ms(3));
    }
    cluster.heal();
    let few = |cluster: &Cluster<Gossip>| {
        is_equal(cluster)
            && cluster.protocol(N1).replica().siblings(b"k").len() <= 3
            && cluster.protocol(N1).replica().visible() == 1
            && cluster
                .protocol(N1)
                .replica()
                .context()
                .contains(crate::dot::Dot::new(NodeId(6), trilemma_core::Incarnation(1), 1))
    };
    assert!(cluster.run_until(ms(20_000), few), "siblings stay");
    for id in 1..=6 {
        assert_eq!(get(&mut cluster, NodeId(id), "k").as_deref(), Some("v6"));
    }
}

#[test]
fn a_batch_becomes_visible_at_once_on_every_node() {
    for rumors in [true, false] {
        spread_batches(rumors);
    }
}

/// Also where a batch is larger than a page, and where anti-entropy alone brings it.
fn spread_batches(rumors: bool) {
    let mut cluster = cluster_with(3, 7, |config| config.page_bytes = 1);
    cluster.faults.loss = 300;
    cluster.filter = Some(Box::new(move |_, _, message| match message {
        Message::Rumors { .. } if !rumors => Verdict::Drop,
        _ => Verdict::Deliver,
    }));
    let batch = |value: &str| Command {
        guards: Vec::new(),
        mutations: ["a", "b", "c"]
            .map(|key| Mutation::Put {
                key: key.into(),
                value: value.into(),
                lease: None,
            })
            .into(),
    };
    for seq in 1..=20 {
        cluster.propose(
            NodeId(1 + (seq % 3) as u32),
            write(seq, Attempt::First, batch(&seq.to_string())),
            ms(500),
        );
        cluster.run_until(ms(150), |cluster| {
            for id in cluster.ids() {
                let entries = cluster.protocol(id).scan(&trilemma_core::KeyRange::all(), 9);
                assert!(
                    entries.is_empty() || entries.len() == 3,
                    "half a batch: {entries:?}"
                );
                assert!(
                    entries.windows(2).all(|pair| pair[0].state == pair[1].state),
                    "torn: {entries:?}"
                );
            }
            false
        });
    }
    converge(&mut cluster, ms(30_000));
    for id in cluster.ids() {
        assert!(
            cluster
                .applied(id)
                .iter()
                .all(|applied| applied.changes.len() == 3)
        );
        assert!(cluster.applied(id).is_sorted_by(|a, b| a.position < b.position));
    }
}

#[test]
fn an_empty_command_is_an_operation_like_others() {
    let mut cluster = cluster(3, 40);
    let first = receipt(cluster.write(N1, 1, Command::default()));
    cluster.run_for(ms(1000));
    cluster.crash_losing_all(N1);
    cluster.restart(N1);
    let repeat = cluster.ask(N1, write(1, Attempt::Retry, Command::default()), ms(1000));
    assert_eq!(receipt(repeat), first);
    converge(&mut cluster, ms(2000));
}

#[test]
fn a_repeat_is_answered_with_the_first_receipt_also_after_a_restart() {
    let mut cluster = cluster(3, 8);
    let first = put(&mut cluster, N1, 1, "k", "v1");
    put(&mut cluster, N1, 2, "k", "v2");
    let repeat = |cluster: &mut Cluster<Gossip>| {
        cluster.ask(N1, write(1, Attempt::Retry, Command::put("k", "v1")), ms(1000))
    };
    assert_eq!(receipt(repeat(&mut cluster)), first);
    cluster.crash_losing_all(N1);
    cluster.restart(N1);
    assert_eq!(receipt(repeat(&mut cluster)), first);
    cluster.checkpoint(N1);
    cluster.crash(N1);
    cluster.restart(N1);
    assert_eq!(receipt(repeat(&mut cluster)), first);
    assert_eq!(get(&mut cluster, N1, "k").as_deref(), Some("v2"));
    let outcome = |seq| Request::Outcome {
        op: op(seq),
        command: None,
    };
    assert_eq!(
        cluster.ask(N1, outcome(1), ms(1000)),
        Some(Reply::Outcome(Ok(Outcome::Applied(first))))
    );
    assert_eq!(
        cluster.ask(N1, outcome(9), ms(1000)),
        Some(Reply::Outcome(Ok(Outcome::NotApplied)))
    );
    cluster.crash_losing_all(N1);
    cluster.restart(N1);
    assert_eq!(
        refusal(cluster.write(N1, 9, Command::put("k", "late"))),
        Reason::Fenced
    );
}

#[test]
fn a_repeat_whose_record_was_evicted_is_unknown() {
    let mut cluster = cluster_with(1, 9, |config| config.sessions_max = 1);
    let basis = put(&mut cluster, N1, 1, "k", "v1").version;
    let other = trilemma_core::OpId {
        session: trilemma_core::SessionId { basis, nonce: 1 },
        seq: 1,
    };
    cluster.run_for(ms(5));
    let request = Request::Write {
        op: other,
        attempt: Attempt::First,
        command: Command::put("k", "v2"),
    };
    receipt(cluster.ask(N1, request, ms(1000)));
    let reply = cluster.ask(N1, write(1, Attempt::Retry, Command::put("k", "v1")), ms(1000));
    let cause = UnknownCause::SessionExpired;
    assert_eq!(
        reply,
        Some(Reply::Write(Err(WriteError::Unknown { op: op(1), cause })))
    );
    assert_eq!(
        refusal(cluster.write(N1, 2, Command::put("k", "v3"))),
        Reason::SessionExpired
    );
    assert_eq!(get(&mut cluster, N1, "k").as_deref(), Some("v2"));
}

#[test]
fn a_write_whose_disk_is_silent_is_unknown_at_its_deadline_and_is_not_spread() {
    let mut cluster = cluster(3, 10);
    cluster.run_for(ms(100));
    cluster.hold_disk(N1, true);
    let ticket = cluster.propose(N1, write(1, Attempt::First, Command::put("k", "v")), ms(300));
    cluster.run_for(ms(299));
    assert_eq!(cluster.reply(N1, ticket), None);
    cluster.run_for(ms(2));
    let cause = UnknownCause::Deadline;
    let expected = Reply::Write(Err(WriteError::Unknown { op: op(1), cause }));
    assert_eq!(cluster.reply(N1, ticket), Some(&expected));
    cluster.run_for(ms(3000));
    assert_eq!(
        get(&mut cluster, N2, "k"),
        None,
        "others must not have what a repeat would do again"
    );
    cluster.hold_disk(N1, false);
    converge(&mut cluster, ms(100));
    assert_eq!(get(&mut cluster, N2, "k").as_deref(), Some("v"));
}

#[test]
fn without_durability_a_write_is_answered_at_once_and_no_stamp_is_issued_twice() {
    let mut cluster = cluster_with(1, 11, |config| config.durability = Durability::None);
    let first = put(&mut cluster, N1, 1, "k", "v");
    assert_eq!((first.syncs, first.durable_on.len()), (0, 0));
    cluster.hold_disk(N1, true);
    let ticket = cluster.propose(N1, write(2, Attempt::First, Command::put("k", "w")), ms(1000));
    cluster.catch_up();
    assert!(
        matches!(cluster.reply(N1, ticket), Some(Reply::Write(Ok(_)))),
        "the lease is durable"
    );
    let second = receipt(cluster.reply(N1, ticket).cloned());
    cluster.crash_losing_all(N1);
    cluster.set_wall_offset(N1, -HOUR_MS);
    cluster.restart(N1);
    assert_eq!(
        get(&mut cluster, N1, "k").as_deref(),
        Some("v"),
        "durability none loses a write"
    );
    assert!(put(&mut cluster, N1, 3, "k", "x").version > second.version);
}

/// inside/gossip#lost-disk
#[test]
fn a_wiped_disk_reuses_no_dot_and_loses_nothing_that_others_have() {
    let mut cluster = cluster(3, 15);
    for seq in 1..=5 {
        put(&mut cluster, N1, seq, &format!("k{seq}"), "old");
    }
    cluster.write(N1, 6, Command::delete("k1"));
    converge(&mut cluster, ms(1000));
    cluster.wipe(N1);
    cluster.restart(N1);
    put(&mut cluster, N1, 101, "k1", "new");
    put(&mut cluster, N1, 102, "later", "new");
    converge(&mut cluster, ms(3000));
    for node in [N1, N2, N3] {
        assert_eq!(get(&mut cluster, node, "k1").as_deref(), Some("new"));
        assert_eq!(get(&mut cluster, node, "later").as_deref(), Some("new"));
        assert_eq!(get(&mut cluster, node, "k4").as_deref(), Some("old"));
    }
}

fn uncollected(cluster: &Cluster<Gossip>) -> usize {
    cluster
        .ids()
        .into_iter()
        .filter(|id| cluster.is_up(*id))
        .map(|id| cluster.protocol(id).replica().uncollected())
        .sum()
}

#[test]
fn restarts_do_not_grow_the_context() {
    let mut cluster = cluster(3, 19);
    for seq in 1..=60 {
        put(&mut cluster, N1, seq, "k", "v");
        cluster.crash_losing_all(N1);
        cluster.restart(N1);
        cluster.run_for(ms(2000));
    }
    converge(&mut cluster, ms(3000));
    cluster.run_for(ms(20_000));
    for node in [N1, N2, N3] {
        let intervals = cluster.protocol(node).replica().context().intervals();
        assert!(intervals <= 4, "{intervals} intervals on {node}");
    }
}

#[test]
fn a_former_incarnation_is_not_closed_while_a_member_may_know_more_of_it() {
    let mut cluster = cluster(3, 20);
    put(&mut cluster, N1, 1, "all", "v");
    converge(&mut cluster, ms(1000));
    cluster.run_for(ms(6000));
    cluster.split(&[N3]);
    cluster.run_for(ms(400));
    put(&mut cluster, N1, 2, "k", "only on 2 soon");
    cluster.run_for(ms(500));
    cluster.split(&[N2]);
    cluster.wipe(N1);
    cluster.heal();
    cluster.split(&[N2]);
    cluster.restart(N1);
    cluster.run_for(ms(10_000));
    assert_eq!(get(&mut cluster, N1, "all").as_deref(), Some("v"));
    assert_eq!(get(&mut cluster, N3, "k"), None);
    cluster.heal();
    converge(&mut cluster, ms(5000));
    assert_eq!(get(&mut cluster, N3, "k").as_deref(), Some("only on 2 soon"));
    assert_eq!(get(&mut cluster, N1, "k").as_deref(), Some("only on 2 soon"));
}
