//! Bugs that a reading of the code found. Each test is named after its finding and fails without the correction.

use trilemma_core::codec::encode;
use trilemma_core::host::{DynProtocol, GroupInput, Host, Output};
use trilemma_core::{
    Attempt, Incarnation, Instant, Mutation, Now, Proposal, Protocol, Reason, Ticket, WallTime, WriteError,
};
use trilemma_testkit::write;

use super::*;
use crate::clock::Stamp;
use crate::dot::{Dot, Observed};
use crate::message::{Compare, Message};
use crate::replica::{Item, Part};

const YEAR_MS: i64 = 365 * 24 * 3600 * 1000;
/// A first incarnation as the runtime makes it: the wall clock in milliseconds.
const FIRST_INCARNATION: u64 = 1_700_000_000_000;

fn refusal(reply: Option<&Reply>) -> Option<&Reason> {
    match reply {
        Some(Reply::Write(Err(WriteError::NotApplied(refusal)))) => Some(&refusal.reason),
        _ => None,
    }
}

/// Live changes that still wait for collection, on all running nodes together.
fn uncollected(cluster: &Cluster<Gossip>) -> usize {
    let up = cluster.ids().into_iter().filter(|id| cluster.is_up(*id));
    up.map(|id| cluster.protocol(id).replica().uncollected()).sum()
}

fn why(cluster: &Cluster<Gossip>, id: NodeId) -> String {
    cluster.protocol(id).status(Now::default()).why
}

/// One instance of node 1 of two, behind its host: bytes in, bytes out.
pub(super) struct Single {
    pub(super) host: Host<Gossip>,
    pub(super) now: Now,
    pub(super) output: Output,
}

impl Single {
    fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(adjust: impl FnOnce(&mut GossipConfig)) -> Self {
        let mut config = GossipConfig::new(N1, Incarnation(5), [N1, N2], 1);
        adjust(&mut config);
        let mut single = Self {
            host: Host::new(Gossip::new(config)),
            now: Now {
                instant: Instant::from_nanos(1),
                wall: WallTime(1_000_000),
            },
            output: Output::default(),
        };
        single.step(GroupInput::Start);
        single
    }

    pub(super) fn step(&mut self, input: GroupInput) {
        self.host.step(self.now, input, &mut self.output);
        self.host.step(self.now, GroupInput::EndTurn, &mut self.output);
    }

    pub(super) fn shown(&self) -> Vec<trilemma_core::Entry> {
        self.host.scan(&trilemma_core::KeyRange::all(), usize::MAX)
    }

    pub(super) fn rumors(&mut self, items: Vec<Item>) {
        let bytes = encode(&Message::Rumors { context: None, items });
        self.step(GroupInput::Receive { from: N2, bytes });
        assert_eq!(self.output.rejected, None);
    }
}

pub(super) fn item(seq: u64, key: &str, wall: u64, value: &str) -> Item {
    Item {
        dot: Dot::new(N2, Incarnation(1), seq),
        stamp: Stamp::at(WallTime(wall)),
        key: key.into(),
        content: Some(value.into()),
        observed: Observed::default(),
        part: Part { index: 0, of: 1 },
    }
}

#[test]
fn d7_what_was_deferred_is_logged_in_pages_when_its_time_has_come() {
    let mut single = Single::new();
    let value = "v".repeat(1_000_000);
    for seq in 1..=15 {
        single.rumors(vec![item(seq, &format!("k{seq}"), 1_005_000, &value)]);
    }
    assert!(single.shown().is_empty());
    single.output.clear();
    single.now.wall = WallTime(1_006_000);
    single.now.instant = Instant::from_nanos(1_000_000_000);
    single.step(GroupInput::Wake);
    assert_eq!(single.shown().len(), 1, "a turn shows a page");
    while single.host.goes_on() {
        single
            .host
            .step(single.now, GroupInput::EndTurn, &mut single.output);
    }
    assert_eq!(single.shown().len(), 15);
    let sizes = single.output.records.iter().map(|record| record.bytes.len());
    let largest = sizes.max().expect("something was logged");
    assert!(largest < 2_000_000, "one record of {largest} bytes");
}

#[test]
fn d7_a_command_that_is_larger_than_a_record_is_refused_when_it_is_proposed() {
    let mut single = Single::new();
    let name = |key: u64| format!("key {key}");
    for key in 0..4096 {
        let mut change = item(key + 1, &name(key), 999_000, "v");
        for incarnation in 1..=200 {
            change.observed.add(Dot::new(
                NodeId(2),
                Incarnation(FIRST_INCARNATION + incarnation),
                incarnation << 20,
            ));
        }
        single.rumors(vec![change]);
    }
    single.output.clear();
    let mutations = (0..4096).map(|key| Mutation::Delete {
        key: name(key).into(),
    });
    let command = Command {
        guards: Vec::new(),
        mutations: mutations.collect(),
    };
    single.step(GroupInput::Propose(Proposal {
        ticket: Ticket(1),
        deadline: Instant::from_nanos(60_000_000_000),
        request: write(1, Attempt::First, command),
    }));
    let reply = single.output.replies.first().map(|(_, reply)| reply);
    assert!(
        matches!(refusal(reply), Some(Reason::TooLarge { .. })),
        "{reply:?}, records of {:?} bytes",
        single
            .output
            .records
            .iter()
            .map(|record| record.bytes.len())
            .collect::<Vec<_>>()
    );
    assert!(single.output.records.is_empty());
    assert_eq!(single.host.protocol().replica().visible(), 4096);
}

#[test]
fn d7_bytes_that_wait_for_the_disk_are_bounded() {
    let mut cluster = cluster(3, 31);
    cluster.run_for(ms(100));
    cluster.hold_disk(N1, true);
    let value = "v".repeat(1_000_000);
    let mut refused = 0;
    for seq in 1..=100 {
        let command = Command::put(format!("k{seq}"), value.as_str());
        let ticket = cluster.propose(N1, write(seq, Attempt::First, command), ms(60_000));
        cluster.catch_up();
        let reason = refusal(cluster.reply(N1, ticket));
        assert!(
            reason.is_none_or(|reason| matches!(reason, Reason::Overloaded { .. })),
            "{reason:?}"
        );
        refused += u64::from(reason.is_some());
    }
    assert!(
        (20..=90).contains(&refused),
        "{refused} of 100 writes were refused"
    );
    cluster.hold_disk(N1, false);
    cluster.run_for(ms(1000));
    put(&mut cluster, N1, 101, "k", "there is room again");
    converge(&mut cluster, ms(5000));
}

/// The interleaving of the finding. Node 4 is cut off while the key is deleted, node 2 loses its disk and takes the old
/// value from node 4, which then learns of the delete; then node 2 meets only those that have forgotten it.
fn a_lost_disk_and_a_delete(age: Duration) {
    let n4 = NodeId(4);
    let mut cluster = cluster_with(4, 32, move |config| config.tombstone_age_min = age);
    put(&mut cluster, N1, 1, "k", "v");
    converge(&mut cluster, ms(2000));
    cluster.run_for(ms(10_000));
    cluster.split(&[n4]);
    cluster.run_for(ms(400));
    assert!(cluster.write(N1, 2, Command::delete("k")).is_some());
    cluster.run_for(ms(120_000));
    cluster.wipe(N2);
    for other in [N1, N3] {
        cluster.cut(N2, other);
        cluster.cut(other, N2);
    }
    cluster.restart(N2);
    // Node 2 and node 4 alone.
    cluster.heal();
    cluster.split(&[N2, n4]);
    cluster.run_for(ms(5000));
    assert_eq!(get(&mut cluster, N2, "k").as_deref(), Some("v"));
    // Node 4 changes sides: nodes 1, 3 and 4 agree about the delete.
    cluster.heal();
    cluster.split(&[N2]);
    cluster.run_for(ms(5000));
    // Node 2 meets node 1 before it meets node 4.
    cluster.heal();
    cluster.split(&[n4]);
    cluster.run_for(ms(5000));
    cluster.heal();
    cluster.run_for(ms(300_000));
    assert!(is_equal(&cluster), "{}", picture(&cluster));
    for node in cluster.ids() {
        assert_eq!(
            get(&mut cluster, node, "k"),
            None,
            "node {node} shows a deleted value"
        );
        assert!(why(&cluster, node).is_empty(), "{}", why(&cluster, node));
    }
}

#[test]
fn d8_a_member_that_lost_its_disk_brings_no_deleted_value_back() {
    a_lost_disk_and_a_delete(ms(60_000));
}

#[test]
fn d8_no_age_is_needed_for_that() {
    a_lost_disk_and_a_delete(ms(0));
}

/// Node 2 acknowledges a delete with a clock that is behind, and loses its disk (inside/gossip#write-after-a-lost-disk).
/// Its next write must not be older than the tombstone that the others have collected: they would show it after the
/// delete, and where the tombstone still is it would be hidden.
#[test]
fn a_write_after_a_lost_disk_is_newer_than_what_was_collected() {
    let mut cluster = cluster_with(3, 36, |config| {
        config.tombstone_age_min = ms(0);
        config.accept_drift = ms(5000);
    });
    cluster.set_wall_offset(N1, 2000);
    put(&mut cluster, N1, 1, "k", "v");
    converge(&mut cluster, ms(2000));
    let deleted = receipt(cluster.write(N1, 2, Command::delete("k")));
    let is_collected = |cluster: &Cluster<Gossip>| cluster.protocol(N1).replica().live() == 0;
    for _ in 0..300 {
        if is_collected(&cluster) {
            break;
        }
        cluster.run_for(ms(100));
    }
    assert!(is_collected(&cluster), "the tombstone is never collected");
    cluster.wipe(N2);
    cluster.split(&[N2]);
    cluster.restart(N2);
    let written = put(&mut cluster, N2, 3, "k", "w");
    cluster.heal();
    converge(&mut cluster, ms(5000));
    assert!(
        written.version > deleted.version,
        "the write has {}, what was collected {}",
        written.version,
        deleted.version
    );
    assert_eq!(get(&mut cluster, N1, "k").as_deref(), Some("w"));
}

/// Node 3 has lost its disk and holds, by a message that came late, what the others have replaced and whose replacement
/// no longer says so. All contexts are equal: that the states are not is no damage, and must not be repaired by taking
/// the old value in everywhere.
#[test]
fn a_blank_node_with_an_equal_context_is_no_divergence() {
    let mut cluster = cluster_with(3, 38, |config| {
        config.tombstone_age_min = ms(0);
        config.accept_drift = ms(10);
    });
    put(&mut cluster, N1, 1, "k", "old");
    converge(&mut cluster, ms(2000));
    let items = |cluster: &Cluster<Gossip>| -> Vec<Item> {
        let items = cluster.protocol(N1).replica().all_items_after(None);
        items.cloned().collect()
    };
    let old = items(&cluster);
    put(&mut cluster, N1, 2, "k", "new");
    converge(&mut cluster, ms(2000));
    cluster.run_for(ms(10_000));
    let new = items(&cluster);
    assert!(new[0].observed.is_empty(), "nothing was collected");
    cluster.split(&[N3]);
    cluster.wipe(N3);
    cluster.restart(N3);
    let items = old.into_iter().chain(new).collect();
    let bytes = encode(&Message::Rumors { context: None, items });
    cluster.input(N3, GroupInput::Receive { from: N1, bytes });
    cluster.heal();
    cluster.run_for(ms(10_000));
    for node in cluster.ids() {
        assert_eq!(
            siblings(&mut cluster, node, "k"),
            ["new"],
            "{}",
            picture(&cluster)
        );
        assert_eq!(cluster.protocol(node).divergences(), 0, "node {node}");
    }
}

/// Node 3 has lost its disk and has met node 1, but not node 2. A comparison of node 1's former incarnation comes late: it
/// must not count as having met the present one, nor stand in the way of it.
#[test]
fn a_late_message_of_a_former_incarnation_does_not_count_as_met() {
    let mut cluster = cluster(3, 39);
    put(&mut cluster, N1, 1, "k", "v");
    converge(&mut cluster, ms(2000));
    let former = cluster.protocol(N1).config().incarnation;
    cluster.crash(N1);
    cluster.crash(N2);
    cluster.restart(N1);
    cluster.wipe(N3);
    cluster.restart(N3);
    cluster.run_for(ms(5000));
    assert!(cluster.protocol(N3).has_met(N1) && cluster.protocol(N3).is_blank());
    let replica = cluster.protocol(N3).replica();
    let late = Message::Compare(Compare {
        incarnation: former,
        context: replica.context().hash(),
        digest: replica.digest(),
        deferred: Vec::new(),
    });
    let bytes = encode(&late);
    cluster.input(N3, GroupInput::Receive { from: N1, bytes });
    cluster.cut(N1, N3);
    for (seq, value) in [(2, "a"), (3, "b"), (4, "c")] {
        put(&mut cluster, N1, seq, "k", value);
    }
    cluster.run_for(ms(5000));
    cluster.heal();
    converge(&mut cluster, ms(10_000));
}

/// Each node that writes a winner back makes another sibling for those that have not seen the others' copies
/// (inside/gossip#one-node-writes-back). So it is left to the node that made the winner, here one that does not mind.
#[test]
fn a_winner_is_written_back_by_the_node_that_made_it_if_that_can_be_reached() {
    let mut cluster = cluster_with(3, 37, |config| {
        config.siblings_max = if config.node == N3 { 1 } else { 100 };
    });
    let written_back = |cluster: &Cluster<Gossip>| {
        let mut all = cluster.protocol(N3).replica().context().highest();
        all.any(|dot| dot.origin == N3)
    };
    cluster.split(&[N1]);
    put(&mut cluster, N1, 1, "k", "a");
    put(&mut cluster, N2, 2, "k", "b");
    cluster.heal();
    converge(&mut cluster, ms(3000));
    cluster.run_for(ms(10_000));
    assert!(!written_back(&cluster), "{}", picture(&cluster));
    // Not without end, and not at all if the node cannot be reached.
    cluster.crash(N2);
    cluster.run_for(ms(8000));
    assert!(written_back(&cluster), "{}", picture(&cluster));
}

#[test]
fn d9_equal_contexts_with_unequal_states_are_noticed_and_repaired() {
    let mut cluster = cluster(3, 33);
    converge(&mut cluster, ms(2000));
    // Node 1, which is broken, gives one name to two changes.
    for (node, value) in [(N2, "x"), (N3, "y")] {
        let mut change = item(7, "k", FIRST_INCARNATION + 1000, value);
        change.dot.origin = N1;
        change.dot.incarnation = Incarnation(0);
        let bytes = encode(&Message::Rumors {
            context: None,
            items: vec![change],
        });
        cluster.input(node, GroupInput::Receive { from: N1, bytes });
    }
    cluster.run_for(ms(10_000));
    assert!(is_equal(&cluster), "{}", picture(&cluster));
    let named = cluster
        .ids()
        .into_iter()
        .filter(|id| why(&cluster, *id).contains("differ"));
    assert!(named.count() > 0, "no status speaks of it");
}

#[test]
fn d10_contexts_are_compacted_with_incarnations_from_the_wall_clock() {
    let mut cluster = Cluster::new(3, 34, |node, incarnation, seed| {
        let incarnation = Incarnation(FIRST_INCARNATION + u64::from(node.0) * 1000 + incarnation.0);
        Gossip::new(GossipConfig::new(node, incarnation, [N1, N2, N3], seed))
    });
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
fn d5_a_node_whose_clock_was_set_right_is_heard_after_a_restart() {
    let mut cluster = cluster(3, 35);
    put(&mut cluster, N2, 1, "k", "before");
    put(&mut cluster, N3, 10, "another", "v");
    converge(&mut cluster, ms(2000));
    cluster.set_wall_offset(N1, YEAR_MS);
    put(&mut cluster, N1, 2, "k", "ahead");
    cluster.set_wall_offset(N1, 0);
    cluster.run_for(ms(1000));
    put(&mut cluster, N1, 3, "still ahead", "v");
    cluster.run_for(ms(1000));
    let reported = |cluster: &Cluster<Gossip>| {
        let now = Now {
            instant: cluster.now(),
            wall: WallTime(FIRST_INCARNATION + 10_000),
        };
        cluster.protocol(N1).status(now).why
    };
    assert!(reported(&cluster).contains("ahead"), "the status is silent");
    cluster.crash(N1);
    cluster.restart(N1);
    assert!(
        reported(&cluster).contains("ahead"),
        "the status is silent after the restart"
    );
    put(&mut cluster, N1, 4, "j", "after");
    put(&mut cluster, N1, 5, "k", "after");
    cluster.run_for(ms(3000));
    for node in [N1, N2, N3] {
        assert_eq!(
            get(&mut cluster, node, "j").as_deref(),
            Some("after"),
            "node {node}"
        );
        assert_eq!(
            get(&mut cluster, node, "k").as_deref(),
            Some("after"),
            "node {node}"
        );
    }
    // What was written over is not waited for any more; what was not is.
    for node in [N2, N3] {
        let deferred: Vec<_> = cluster.protocol(node).store.deferred.items().collect();
        assert_eq!(deferred.len(), 1, "node {node}: {deferred:?}");
        assert_eq!(deferred[0].key, "still ahead".into());
    }
    // Sessions go on, and again after another restart with a checkpoint.
    let repeat = |cluster: &mut Cluster<Gossip>| {
        let request = write(5, Attempt::Retry, Command::put("k", "after"));
        receipt(cluster.ask(N1, request, ms(1000)))
    };
    let first = repeat(&mut cluster);
    cluster.checkpoint(N1);
    cluster.crash(N1);
    cluster.restart(N1);
    assert_eq!(repeat(&mut cluster), first);
    put(&mut cluster, N1, 6, "j", "again");
    cluster.run_for(ms(3000));
    assert_eq!(get(&mut cluster, N3, "j").as_deref(), Some("again"));
}

#[test]
fn d5_what_is_deferred_does_not_stop_collection() {
    let mut cluster = cluster_with(3, 36, |config| config.tombstone_age_min = ms(1000));
    for seq in 1..=10 {
        put(&mut cluster, N2, seq, &format!("k{seq}"), "v");
    }
    converge(&mut cluster, ms(2000));
    cluster.set_wall_offset(N1, YEAR_MS);
    put(&mut cluster, N1, 11, "k1", "a year ahead");
    cluster.set_wall_offset(N1, 0);
    cluster.run_for(ms(2000));
    // Much is overwritten and deleted while one node is not reached.
    let mut seq = 100;
    for _ in 0..10 {
        cluster.split(&[N3]);
        cluster.run_for(ms(400));
        for key in 2..=30 {
            seq += 2;
            put(&mut cluster, N2, seq, &format!("k{key}"), "w");
            cluster.write(N2, seq + 1, Command::delete(format!("k{key}")));
        }
        cluster.heal();
        cluster.run_for(ms(1500));
    }
    cluster.run_for(ms(60_000));
    let left = uncollected(&cluster);
    assert!(left <= 12, "{left} changes wait for collection");
    for node in cluster.ids() {
        let intervals = cluster.protocol(node).replica().context().intervals();
        assert!(intervals <= 12, "{intervals} intervals on {node}");
    }
    // And it is neither lost nor shown before its time, also over a restart.
    for node in [N2, N3] {
        cluster.crash(node);
        cluster.restart(node);
        assert_eq!(get(&mut cluster, node, "k1").as_deref(), Some("v"));
    }
    for node in cluster.ids() {
        cluster.set_wall_offset(node, YEAR_MS + 200_000);
    }
    converge(&mut cluster, ms(3000));
    for node in cluster.ids() {
        assert_eq!(get(&mut cluster, node, "k1").as_deref(), Some("a year ahead"));
    }
}

#[test]
fn d20_collection_keeps_pace_with_many_deletes() {
    let mut cluster = cluster_with(1, 37, |config| config.tombstone_age_min = ms(0));
    for batch in 0..10 {
        let mutations = (0..2000).map(|key| Mutation::Delete {
            key: format!("{batch} {key}").into(),
        });
        let command = Command {
            guards: Vec::new(),
            mutations: mutations.collect(),
        };
        assert!(cluster.write(N1, batch + 1, command).is_some());
    }
    cluster.run_for(ms(2500));
    assert_eq!(uncollected(&cluster), 0);
}
