//! Data types on whole clusters: what each promises, in partitions, over crashes and lost disks.

mod bounded;
mod model;

use trilemma_core::datatype::{Escrow, Number};
use trilemma_core::{
    Attempt, DataType, KeyRange, Mutation, NotApplied, Outcome, Protocol, Reason, Update, WriteError,
};
use trilemma_testkit::{op, write};

use super::*;
use crate::config::Durability;
use crate::typed::layout;

pub(super) fn update(cluster: &mut Cluster<Gossip>, at: NodeId, seq: u64, key: &str, update: Update) {
    receipt(cluster.write(at, seq, Command::update(key, update)));
}

fn refusal(reply: Option<Reply>) -> Reason {
    match reply {
        Some(Reply::Write(Err(WriteError::NotApplied(NotApplied { reason, .. })))) => reason,
        Some(Reply::Read(Err(error))) => error.reason,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn typed(key: &str, of: DataType) -> Request {
    Request::Read(ReadRequest {
        query: Query::Typed {
            key: key.into(),
            of,
            range: KeyRange::all(),
            limit: 0,
        },
        level: None,
    })
}

fn entries(cluster: &mut Cluster<Gossip>, at: NodeId, key: &str, of: DataType) -> Vec<trilemma_core::Entry> {
    match cluster.ask(at, typed(key, of), ms(1000)) {
        Some(Reply::Read(Ok(read))) => read.entries,
        other => panic!("expected a reading, got {other:?}"),
    }
}

/// What a counter, a maximum or a minimum reads as.
fn number(cluster: &mut Cluster<Gossip>, at: NodeId, key: &str, of: DataType) -> Option<i128> {
    let found = entries(cluster, at, key, of);
    let number = found.first().map(|entry| Number::from_value(&entry.state.value));
    number.map(|number| number.expect("it was written here").0)
}

pub(super) fn count(cluster: &mut Cluster<Gossip>, at: NodeId, key: &str) -> Option<i128> {
    number(cluster, at, key, DataType::Counter)
}

pub(super) fn escrow(cluster: &mut Cluster<Gossip>, at: NodeId, key: &str) -> Escrow {
    let found = entries(cluster, at, key, DataType::BoundedCounter);
    let first = found.first().expect("it exists");
    Escrow::from_value(&first.state.value).expect("it was written here")
}

fn members(cluster: &mut Cluster<Gossip>, at: NodeId, key: &str) -> Vec<String> {
    let found = entries(cluster, at, key, DataType::Set);
    found.iter().map(|entry| entry.key.to_string()).collect()
}

fn fields(cluster: &mut Cluster<Gossip>, at: NodeId, key: &str) -> Vec<String> {
    let found = entries(cluster, at, key, DataType::Map);
    let field = |entry: &trilemma_core::Entry| format!("{}={}", entry.key, entry.state.value);
    found.iter().map(field).collect()
}

fn insert(element: &str) -> Update {
    Update::Insert(element.into())
}

fn remove(element: &str) -> Update {
    Update::Remove(element.into())
}

fn assign(field: &str, value: &str) -> Update {
    Update::Assign {
        field: field.into(),
        value: value.into(),
    }
}

/// Three nodes that have learned of each other.
fn three(seed: u64) -> Cluster<Gossip> {
    let mut cluster = cluster(3, seed);
    cluster.run_for(ms(500));
    cluster
}

/// Node 1 alone on one side.
fn split(cluster: &mut Cluster<Gossip>) {
    cluster.split(&[N1]);
    cluster.run_for(ms(500));
}

fn heal(cluster: &mut Cluster<Gossip>) {
    cluster.heal();
    converge(cluster, ms(10_000));
}

#[test]
fn additions_on_both_sides_of_a_partition_all_count() {
    let mut cluster = three(1);
    assert_eq!(count(&mut cluster, N1, "visits"), None);
    update(&mut cluster, N1, 1, "visits", Update::Add(5));
    converge(&mut cluster, ms(1000));
    split(&mut cluster);
    update(&mut cluster, N1, 2, "visits", Update::Add(10));
    update(&mut cluster, N2, 3, "visits", Update::Add(-3));
    update(&mut cluster, N3, 4, "visits", Update::Add(100));
    assert_eq!(count(&mut cluster, N1, "visits"), Some(15));
    heal(&mut cluster);
    for node in [N1, N2, N3] {
        assert_eq!(count(&mut cluster, node, "visits"), Some(112));
    }
}

#[test]
fn additions_in_one_command_follow_each_other() {
    let mut cluster = three(2);
    let add = |delta| Mutation::Update {
        key: "k".into(),
        update: Box::new(Update::Add(delta)),
    };
    let mutations = vec![add(1), add(2), add(-10)];
    receipt(cluster.write(
        N1,
        1,
        Command {
            guards: Vec::new(),
            mutations,
        },
    ));
    assert_eq!(count(&mut cluster, N1, "k"), Some(-7));
    converge(&mut cluster, ms(1000));
    assert_eq!(count(&mut cluster, N3, "k"), Some(-7));
    assert_eq!(cluster.protocol(N3).replica().live(), 1, "one part");
}

#[test]
fn a_repeated_addition_counts_once_over_crashes_restarts_and_checkpoints() {
    let mut cluster = three(3);
    let add = |attempt| write(7, attempt, Command::update("k", Update::Add(5)));
    let first = receipt(cluster.ask(N1, add(Attempt::First), ms(1000)));
    assert_eq!(receipt(cluster.ask(N1, add(Attempt::Retry), ms(1000))), first);
    cluster.crash(N1);
    cluster.restart(N1);
    cluster.run_for(ms(500));
    assert_eq!(receipt(cluster.ask(N1, add(Attempt::Retry), ms(1000))), first);
    cluster.checkpoint(N1);
    cluster.crash(N1);
    cluster.restart(N1);
    cluster.run_for(ms(500));
    assert_eq!(receipt(cluster.ask(N1, add(Attempt::Retry), ms(1000))), first);
    converge(&mut cluster, ms(2000));
    assert_eq!(count(&mut cluster, N2, "k"), Some(5));
}

#[test]
fn an_addition_in_doubt_is_resolved_by_the_node_that_had_it() {
    let mut cluster = three(4);
    cluster.hold_disk(N1, true);
    let asked = write(1, Attempt::First, Command::update("k", Update::Add(5)));
    let ticket = cluster.propose(N1, asked, ms(100));
    cluster.run_for(ms(200));
    assert!(matches!(
        cluster.reply(N1, ticket),
        Some(Reply::Write(Err(WriteError::Unknown { .. })))
    ));
    assert_eq!(count(&mut cluster, N2, "k"), None, "it waits for the disk");
    cluster.crash_losing_all(N1);
    cluster.hold_disk(N1, false);
    cluster.restart(N1);
    cluster.run_for(ms(500));
    let outcome = Request::Outcome {
        op: op(1),
        command: None,
    };
    assert!(matches!(
        cluster.ask(N1, outcome, ms(1000)),
        Some(Reply::Outcome(Ok(Outcome::NotApplied)))
    ));
    let again = write(1, Attempt::Retry, Command::update("k", Update::Add(5)));
    assert!(matches!(
        refusal(cluster.ask(N1, again, ms(1000))),
        Reason::Fenced
    ));
    assert_eq!(count(&mut cluster, N1, "k"), None);
}

#[test]
fn a_counter_has_one_part_for_each_disk_however_often_nodes_restart() {
    let mut cluster = three(5);
    for round in 0..20 {
        update(&mut cluster, N1, 10 + round, "k", Update::Add(1));
        cluster.crash(N1);
        cluster.restart(N1);
        cluster.run_for(ms(200));
    }
    converge(&mut cluster, ms(2000));
    assert_eq!(count(&mut cluster, N2, "k"), Some(20));
    assert_eq!(cluster.protocol(N2).replica().parts(), 1);
}

#[test]
fn a_node_with_a_lost_disk_counts_on_in_another_part() {
    let mut cluster = three(6);
    update(&mut cluster, N1, 1, "k", Update::Add(5));
    converge(&mut cluster, ms(1000));
    cluster.wipe(N1);
    cluster.restart(N1);
    cluster.run_for(ms(1));
    update(&mut cluster, N1, 2, "k", Update::Add(2));
    heal(&mut cluster);
    assert_eq!(count(&mut cluster, N1, "k"), Some(7));
    assert_eq!(cluster.protocol(N1).replica().parts(), 2);
}

#[test]
fn without_syncs_each_incarnation_counts_in_a_part_of_its_own() {
    let mut cluster = cluster_with(2, 7, |config| config.durability = Durability::None);
    cluster.run_for(ms(500));
    for round in 0..3 {
        update(&mut cluster, N1, 10 + round, "k", Update::Add(1));
        converge(&mut cluster, ms(1000));
        cluster.crash_losing_all(N1);
        cluster.restart(N1);
        converge(&mut cluster, ms(3000));
    }
    assert_eq!(
        count(&mut cluster, N2, "k"),
        Some(3),
        "no dot and no part is used twice"
    );
    assert_eq!(count(&mut cluster, N1, "k"), Some(3));
}

#[test]
fn a_reset_takes_what_it_has_seen_and_no_more() {
    let mut cluster = three(8);
    update(&mut cluster, N1, 1, "k", Update::Add(100));
    update(&mut cluster, N2, 2, "k", Update::Add(10));
    converge(&mut cluster, ms(1000));
    split(&mut cluster);
    update(&mut cluster, N1, 3, "k", Update::Reset);
    assert_eq!(count(&mut cluster, N1, "k"), Some(0));
    update(&mut cluster, N1, 4, "k", Update::Add(1));
    update(&mut cluster, N2, 5, "k", Update::Add(1000));
    update(&mut cluster, N3, 6, "k", Update::Reset);
    update(&mut cluster, N2, 7, "k", Update::Add(20_000));
    heal(&mut cluster);
    // Node 3 has seen the thousand, or not: 110 is gone in either case, and never twice.
    let left = count(&mut cluster, N1, "k");
    assert!(left == Some(20_001) || left == Some(21_001), "{left:?}");
    update(&mut cluster, N2, 8, "k", Update::Reset);
    heal(&mut cluster);
    assert_eq!(count(&mut cluster, N3, "k"), Some(0));
}

#[test]
fn a_deleted_counter_leaves_nothing_and_an_addition_that_it_had_not_seen_brings_its_part_back() {
    let mut cluster = cluster_with(3, 9, |config| config.tombstone_age_min = ms(0));
    cluster.run_for(ms(500));
    update(&mut cluster, N1, 1, "k", Update::Add(100));
    update(&mut cluster, N2, 2, "k", Update::Add(10));
    converge(&mut cluster, ms(1000));
    split(&mut cluster);
    receipt(cluster.write(N1, 3, Command::delete("k")));
    assert_eq!(count(&mut cluster, N1, "k"), None);
    update(&mut cluster, N2, 4, "k", Update::Add(1));
    heal(&mut cluster);
    assert_eq!(count(&mut cluster, N1, "k"), Some(11));
    receipt(cluster.write(N3, 5, Command::delete("k")));
    heal(&mut cluster);
    let is_empty = |cluster: &Cluster<Gossip>| cluster.protocol(N1).replica().live() == 0;
    assert!(cluster.run_until(ms(20_000), is_empty), "{}", picture(&cluster));
    update(&mut cluster, N1, 6, "k", Update::Add(3));
    heal(&mut cluster);
    assert_eq!(count(&mut cluster, N2, "k"), Some(3));
}

#[test]
fn of_an_addition_and_a_concurrent_removal_the_addition_wins_whatever_the_clocks_say() {
    for ahead in [-400, 0, 400] {
        let mut cluster = three(10);
        update(&mut cluster, N1, 1, "tags", insert("red"));
        update(&mut cluster, N1, 2, "tags", insert("blue"));
        converge(&mut cluster, ms(1000));
        cluster.set_wall_offset(N1, ahead);
        split(&mut cluster);
        update(&mut cluster, N1, 3, "tags", remove("red"));
        update(&mut cluster, N2, 4, "tags", insert("red"));
        update(&mut cluster, N2, 5, "tags", remove("blue"));
        update(&mut cluster, N3, 6, "tags", remove("green"));
        assert_eq!(members(&mut cluster, N1, "tags"), ["blue"]);
        heal(&mut cluster);
        for node in [N1, N2, N3] {
            assert_eq!(members(&mut cluster, node, "tags"), ["red"], "{ahead} ms ahead");
        }
        update(&mut cluster, N3, 7, "tags", remove("red"));
        heal(&mut cluster);
        assert_eq!(members(&mut cluster, N1, "tags"), [""; 0]);
    }
}

#[test]
fn tombstones_of_removed_elements_are_collected() {
    let mut cluster = cluster_with(3, 11, |config| config.tombstone_age_min = ms(0));
    cluster.run_for(ms(500));
    for seq in 1..=20 {
        update(&mut cluster, N1, seq, "s", insert(&format!("e{seq}")));
    }
    converge(&mut cluster, ms(1000));
    for seq in 1..=20 {
        update(&mut cluster, N2, 100 + seq, "s", remove(&format!("e{seq}")));
    }
    let is_empty = |cluster: &Cluster<Gossip>| {
        let ids = [N1, N2, N3];
        ids.iter().all(|id| cluster.protocol(*id).replica().live() == 0)
    };
    assert!(cluster.run_until(ms(30_000), is_empty), "{}", picture(&cluster));
}

#[test]
fn fields_of_a_map_are_registers_of_their_own() {
    let mut cluster = three(12);
    update(&mut cluster, N1, 1, "user", assign("name", "Ada"));
    update(&mut cluster, N2, 2, "user", assign("mail", "a@b"));
    converge(&mut cluster, ms(1000));
    split(&mut cluster);
    update(&mut cluster, N1, 3, "user", Update::Unassign("mail".into()));
    update(&mut cluster, N1, 4, "user", assign("name", "Ada L"));
    cluster.run_for(ms(5));
    update(&mut cluster, N2, 5, "user", assign("mail", "c@d"));
    heal(&mut cluster);
    for node in [N1, N2, N3] {
        assert_eq!(fields(&mut cluster, node, "user"), ["mail=c@d", "name=Ada L"]);
    }
}

#[test]
fn the_greatest_and_the_least_report_win() {
    let mut cluster = three(13);
    split(&mut cluster);
    for (node, seq, number) in [(N1, 1, 5), (N2, 2, -7), (N3, 3, 9), (N1, 4, 3)] {
        update(&mut cluster, node, seq, "high", Update::Raise(number));
        update(&mut cluster, node, 10 + seq, "low", Update::Lower(number));
    }
    heal(&mut cluster);
    assert_eq!(number(&mut cluster, N1, "high", DataType::Maximum), Some(9));
    assert_eq!(number(&mut cluster, N2, "low", DataType::Minimum), Some(-7));
}

#[test]
fn a_multi_value_register_keeps_every_value_that_nobody_has_replaced() {
    // A plain key would be written back with one value.
    let mut cluster = cluster_with(3, 20, |config| config.siblings_max = 1);
    cluster.run_for(ms(500));
    let set = |value: &str| Update::Set(value.into());
    update(&mut cluster, N1, 1, "k", set("before"));
    converge(&mut cluster, ms(1000));
    for node in [N1, N2, N3] {
        cluster.split(&[node]);
    }
    cluster.run_for(ms(500));
    update(&mut cluster, N1, 2, "k", set("one"));
    cluster.run_for(ms(5));
    update(&mut cluster, N2, 3, "k", set("two"));
    cluster.run_for(ms(5));
    receipt(cluster.write(N3, 4, Command::delete("k")));
    heal(&mut cluster);
    cluster.run_for(ms(20_000));
    let values = |cluster: &mut Cluster<Gossip>, at| {
        let found = entries(cluster, at, "k", DataType::MultiValue);
        found
            .iter()
            .map(|entry| entry.state.value.to_string())
            .collect::<Vec<String>>()
    };
    for node in [N1, N2, N3] {
        assert_eq!(values(&mut cluster, node), ["two", "one"]);
    }
    update(&mut cluster, N3, 5, "k", set("both"));
    heal(&mut cluster);
    assert_eq!(values(&mut cluster, N1), ["both"]);
}

#[test]
fn a_key_is_used_as_what_it_holds() {
    let mut cluster = three(14);
    update(&mut cluster, N1, 1, "c", Update::Add(1));
    put(&mut cluster, N1, 2, "plain", "v");
    update(&mut cluster, N1, 3, "s", insert("e"));
    let wrong = |reason: Reason| match reason {
        Reason::WrongType { key, why } => format!("{key}: {why}"),
        other => panic!("{other}"),
    };
    let get = trilemma_testkit::get("c", None);
    assert_eq!(
        wrong(refusal(cluster.ask(N1, get, ms(100)))),
        "c: it holds a counter, not a plain value; use it as a counter, or delete it first"
    );
    assert!(wrong(refusal(cluster.write(N1, 4, Command::put("c", "v")))).contains("a counter"));
    let add = Command::update("plain", Update::Add(1));
    assert_eq!(
        wrong(refusal(cluster.write(N1, 5, add))),
        "plain: it holds a plain value, not a counter"
    );
    let add = Command::update("s", Update::Add(1));
    assert_eq!(
        wrong(refusal(cluster.write(N1, 6, add))),
        "s: it holds a set, not a counter"
    );
    let reading = typed("s", DataType::Counter);
    assert_eq!(
        wrong(refusal(cluster.ask(N1, reading, ms(100)))),
        "s: it holds a set, not a counter"
    );
    assert!(wrong(refusal(cluster.ask(N1, typed("plain", DataType::Set), ms(100)))).contains("plain value"));
    assert_eq!(count(&mut cluster, N1, "c"), Some(1), "nothing was lost");
    receipt(cluster.write(N1, 7, Command::delete("c")));
    put(&mut cluster, N1, 8, "c", "now plain");
    assert_eq!(get_plain(&mut cluster, "c").as_deref(), Some("now plain"));
}

fn get_plain(cluster: &mut Cluster<Gossip>, key: &str) -> Option<String> {
    super::get(cluster, N1, key)
}

#[test]
fn types_that_meet_in_one_key_are_both_kept() {
    let mut cluster = three(15);
    split(&mut cluster);
    update(&mut cluster, N1, 1, "k", Update::Add(1));
    update(&mut cluster, N2, 2, "k", insert("e"));
    put(&mut cluster, N3, 3, "other", "v");
    heal(&mut cluster);
    assert_eq!(count(&mut cluster, N3, "k"), Some(1));
    assert_eq!(members(&mut cluster, N3, "k"), ["e"]);
    update(&mut cluster, N3, 4, "k", Update::Add(1));
    assert_eq!(count(&mut cluster, N3, "k"), Some(2));
    receipt(cluster.write(N3, 5, Command::delete("k")));
    assert_eq!(
        (count(&mut cluster, N3, "k"), members(&mut cluster, N3, "k").len()),
        (None, 0)
    );
}

#[test]
fn users_cannot_name_a_part_and_scans_and_watches_show_none() {
    let mut cluster = three(16);
    update(&mut cluster, N1, 1, "c", Update::Add(1));
    put(&mut cluster, N1, 2, "plain", "v");
    let reserved = [&b"\xff"[..], b"\xff\0"];
    for (place, key) in reserved.into_iter().enumerate() {
        let seq = 10 + 3 * place as u64;
        for (more, command) in [
            Command::put(key, "v"),
            Command::delete(key),
            Command::update(key, Update::Add(1)),
        ]
        .into_iter()
        .enumerate()
        {
            let reason = refusal(cluster.write(N1, seq + more as u64, command));
            assert!(matches!(reason, Reason::Invalid { .. }), "{reason}");
        }
    }
    let shown = cluster.protocol(N1).scan(&KeyRange::all(), usize::MAX);
    assert_eq!(shown.len(), 1, "{shown:?}");
    let status = cluster.protocol(N1).status(trilemma_core::Now::default());
    assert_eq!(status.keys, 1);
    let changes = cluster.applied(N1).iter().flat_map(|batch| &batch.changes);
    let keys: Vec<String> = changes.map(|change| change.key.to_string()).collect();
    assert_eq!(keys, ["plain"]);
}

#[test]
fn what_is_too_large_or_too_much_for_one_command_is_refused_whole() {
    let mut cluster = three(17);
    let long = Update::Insert("e".repeat(2000).into());
    assert!(matches!(
        refusal(cluster.write(N1, 1, Command::update("s", long))),
        Reason::TooLarge { limit: 1024, .. }
    ));
    for batch in 0..5 {
        let insert = |number: u64| Mutation::Update {
            key: "s".into(),
            update: Box::new(insert(&format!("e{batch}/{number}"))),
        };
        let command = Command {
            guards: Vec::new(),
            mutations: (0..1000).map(insert).collect(),
        };
        receipt(cluster.write(N1, 10 + batch, command));
    }
    let reason = refusal(cluster.write(N1, 20, Command::delete("s")));
    assert!(matches!(reason, Reason::TooLarge { .. }), "{reason}");
    assert_eq!(members(&mut cluster, N1, "s").len(), 5000);
}

#[test]
fn elements_are_read_in_pages_and_in_ranges() {
    let mut cluster = three(18);
    for (seq, element) in ["a", "b", "c", "d"].into_iter().enumerate() {
        update(&mut cluster, N1, 1 + seq as u64, "s", insert(element));
    }
    let page = |start: &str, end: Option<&str>, limit| {
        Request::Read(ReadRequest {
            query: Query::Typed {
                key: "s".into(),
                of: DataType::Set,
                range: KeyRange {
                    start: start.into(),
                    end: end.map(Into::into),
                },
                limit,
            },
            level: None,
        })
    };
    let mut read = |request| match cluster.ask(N1, request, ms(100)) {
        Some(Reply::Read(Ok(read))) => {
            let keys: Vec<String> = read.entries.iter().map(|entry| entry.key.to_string()).collect();
            (keys.concat(), read.more)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(read(page("", None, 3)), ("abc".into(), true));
    assert_eq!(read(page("c\0", None, 3)), ("d".into(), false));
    assert_eq!(read(page("b", Some("d"), 0)), ("bc".into(), false));
}

#[test]
fn a_counter_at_its_end_is_refused_and_nothing_is_lost() {
    let mut cluster = three(19);
    // What a faulty node may have left: a part of node 9 beyond every number.
    let actor = [&9_u32.to_be_bytes()[..], &1_u64.to_be_bytes()].concat();
    let part = layout::part(&layout::family(b"k", DataType::Counter), &actor);
    let sums = (1_u64, 1_u64, u128::MAX, 0_u128, 0_u128, 0_u128);
    let item = crate::replica::Item {
        dot: crate::dot::Dot::new(N2, trilemma_core::Incarnation(0), 1),
        stamp: crate::clock::Stamp(1),
        key: part,
        content: Some(trilemma_core::codec::encode_vec(&sums).into()),
        observed: crate::dot::Observed::default(),
        part: crate::replica::Part { index: 0, of: 1 },
    };
    let rumors = crate::message::Message::Rumors {
        context: None,
        items: vec![item],
    };
    let bytes = trilemma_core::codec::encode(&rumors);
    cluster.input(N1, trilemma_core::host::GroupInput::Receive { from: N2, bytes });
    update(&mut cluster, N1, 1, "k", Update::Add(1));
    let reason = refusal(cluster.ask(N1, typed("k", DataType::Counter), ms(100)));
    assert!(matches!(reason, Reason::WrongType { .. }), "{reason}");
}
