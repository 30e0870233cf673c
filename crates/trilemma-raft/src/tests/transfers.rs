//! Snapshots on their way, under a network that reorders.

use std::cell::Cell;
use std::rc::Rc;

use trilemma_core::data::COMMAND_BYTES_MAX;
use trilemma_core::{AppendSeq, Attempt, Command};
use trilemma_testkit::{Verdict, op, succeeded, write};

use super::node::{Node, append, end, follow, noop, put};
use super::*;

#[test]
fn late_answers_do_not_begin_a_transfer_again() {
    // Every third answer of the follower comes 2 ms late, behind newer ones, while writes go on.
    let mut cluster = cluster_with(3, 21, |config| config.kept_entries = 4);
    let id = elect(&mut cluster);
    let behind = cluster.ids().into_iter().find(|other| *other != id).unwrap();
    cluster.crash(behind);
    for seq in 1..=200 {
        let command = Command::put(format!("key/{seq}"), "x".repeat(20_000));
        assert!(succeeded(cluster.write(id, seq, command).as_ref()), "write {seq}");
    }
    let begun = Rc::new(Cell::new(0));
    let (firsts, answers) = (Rc::clone(&begun), Cell::new(0));
    cluster.filter = Some(Box::new(move |_, _, message| match message {
        Message::Snapshot { part: 0, .. } => {
            firsts.set(firsts.get() + 1);
            Verdict::Deliver
        }
        Message::SnapshotReply { .. } => {
            answers.set(answers.get() + 1);
            if answers.get() % 3 == 0 {
                Verdict::Delay(2 * MS)
            } else {
                Verdict::Deliver
            }
        }
        _ => Verdict::Deliver,
    }));
    cluster.restart(behind);
    for seq in 201..=220 {
        assert!(succeeded(
            cluster.write(id, seq, Command::put("key", "x")).as_ref()
        ));
        cluster.run_for(MS);
    }
    assert!(cluster.run_until(5000 * MS, |cluster| {
        cluster.protocol(behind).table().digest() == cluster.protocol(id).table().digest()
    }));
    assert!(
        begun.get() <= 2,
        "{} transfers where one does, and perhaps one of what came since",
        begun.get()
    );
}

#[test]
fn a_follower_catches_up_while_writes_go_on() {
    // 400 kB of state in a hundred parts; two writes a millisecond; fifty entries kept. Each transfer lasts longer than
    // fifty entries do, so that without the log from its position on, each would end in the next.
    let mut cluster = cluster_with(3, 22, |config| {
        config.kept_entries = 50;
        config.chunk_bytes = 4096;
    });
    let id = elect(&mut cluster);
    let behind = cluster.ids().into_iter().find(|other| *other != id).unwrap();
    cluster.crash(behind);
    for seq in 1..=400 {
        let command = Command::put(format!("key/{seq:03}"), "x".repeat(1000));
        assert!(succeeded(cluster.write(id, seq, command).as_ref()), "write {seq}");
    }
    cluster.restart(behind);
    let lag = |cluster: &Cluster<Raft>| {
        let (leader, follower) = (cluster.protocol(id).commit(), cluster.protocol(behind).commit());
        leader.0 - follower.0.min(leader.0)
    };
    let (mut seq, mut longest) = (400, 0);
    for _ in 0..2000 {
        for _ in 0..2 {
            seq += 1;
            let request = write(
                seq,
                Attempt::First,
                Command::put(format!("key/{:03}", seq % 400), "y"),
            );
            cluster.propose(id, request, 5000 * MS);
        }
        cluster.run_for(MS);
        longest = longest.max(cluster.protocol(id).shared.log.len());
        if lag(&cluster) < 50 {
            break;
        }
    }
    assert!(seq < 4400, "{} entries behind after 2 s of load", lag(&cluster));
    assert!(longest > 100, "the load did not outrun what is always kept");
    cluster.run_for(500 * MS);
    assert!(
        cluster.protocol(id).shared.log.len() <= 51,
        "and nothing is kept for it any more"
    );
}

/// A follower needs 400 kB of state, at 1 MB a second. How long that takes, while entries of so many bytes are written.
fn time_of_a_transfer(entry_bytes: usize) -> Duration {
    let mut cluster = cluster_with(3, 25, |config| {
        (config.kept_entries, config.pinned_bytes_max) = (4, 1_000_000);
        (config.chunk_bytes, config.transfer_rate) = (4096, 1_000_000);
    });
    let id = elect(&mut cluster);
    let behind = cluster.ids().into_iter().find(|other| *other != id).unwrap();
    cluster.crash(behind);
    cluster.run_for(1000 * MS);
    for seq in 1..=100 {
        let command = Command::put(format!("key/{seq:03}"), "x".repeat(4000));
        assert!(succeeded(cluster.write(id, seq, command).as_ref()), "write {seq}");
    }
    cluster.restart(behind);
    let is_begun = |cluster: &Cluster<Raft>| {
        let follower = cluster.protocol(behind).role.as_ref().and_then(Role::follower);
        follower.is_some_and(|follower| follower.incoming().is_some())
    };
    assert!(cluster.run_until(5000 * MS, is_begun));
    let (begun, mut seq) = (cluster.now(), 100);
    while cluster.protocol(behind).table().version() < Version(100) {
        if seq < 120 && cluster.now() > begun + 50 * MS {
            seq += 1;
            let command = Command::put("key/000", "y".repeat(entry_bytes));
            cluster.propose(id, write(seq, Attempt::First, command), 5000 * MS);
        }
        cluster.run_for(MS);
        assert!(cluster.now() < begun + 5000 * MS, "no transfer ends");
    }
    cluster.now().since(begun)
}

#[test]
fn a_transfer_leaves_time_to_others() {
    let time = time_of_a_transfer(100);
    assert!((350 * MS..700 * MS).contains(&time), "{time:?}");
}

#[test]
fn a_transfer_hurries_before_the_log_that_it_needs_is_trimmed() {
    // Twenty entries are six tenths of what may be pinned.
    let time = time_of_a_transfer(30_000);
    assert!(time < 250 * MS, "{time:?}");
}

/// A flood of large writes must not push out of memory what a follower needs next, or have a transfer hurry.
#[test]
fn what_is_not_committed_leaves_room_for_what_followers_need() {
    let config = RaftConfig::new(NodeId(1), Incarnation(1), [NodeId(1), NodeId(2), NodeId(3)], 1);
    assert!(config.uncommitted_bytes <= config.pinned_bytes_max / 4);
    // Nor may it be so little that the largest command waits for the one before it.
    assert!(config.uncommitted_bytes >= 4 * COMMAND_BYTES_MAX);
}

#[test]
fn the_log_that_is_kept_for_followers_is_bounded() {
    // The follower takes its time: none of its answers to parts arrive. The leader keeps what its budget allows.
    let mut cluster = cluster_with(3, 23, |config| {
        config.kept_entries = 4;
        config.pinned_bytes_max = 100_000;
        config.chunk_bytes = 10_000;
    });
    let id = elect(&mut cluster);
    let behind = cluster.ids().into_iter().find(|other| *other != id).unwrap();
    cluster.crash(behind);
    for seq in 1..=50 {
        let command = Command::put(format!("key/{seq}"), "x".repeat(10_000));
        assert!(succeeded(cluster.write(id, seq, command).as_ref()), "write {seq}");
    }
    cluster.run_for(1000 * MS);
    assert!(succeeded(
        cluster.write(id, 51, Command::put("key", "x")).as_ref()
    ));
    cluster.run_for(10 * MS);
    assert!(
        cluster.protocol(id).shared.log.len() <= 5,
        "nothing is kept for a follower that is away"
    );
    cluster.filter = Some(Box::new(|_, _, message| match message {
        Message::SnapshotReply { .. } => Verdict::Drop,
        _ => Verdict::Deliver,
    }));
    cluster.restart(behind);
    cluster.run_for(500 * MS);
    let held = |cluster: &Cluster<Raft>| -> usize {
        let raft = cluster.protocol(id);
        let indices = (raft.shared.log.base().index.0 + 1..=raft.shared.log.last().0).map(Index);
        indices
            .filter_map(|index| raft.entry(index))
            .map(Entry::size)
            .sum()
    };
    let status = |cluster: &Cluster<Raft>| cluster.protocol(id).status(Now::default());
    assert_eq!(status(&cluster).why, "");
    for seq in 52..=60 {
        let command = Command::put(format!("key/{seq}"), "x".repeat(8_000));
        assert!(succeeded(cluster.write(id, seq, command).as_ref()), "write {seq}");
    }
    cluster.run_for(10 * MS);
    assert!(
        cluster.protocol(id).shared.log.len() > 5 && held(&cluster) > 70_000,
        "{}",
        held(&cluster)
    );
    assert_eq!(status(&cluster).why, "");
    for seq in 61..=80 {
        let command = Command::put(format!("key/{seq}"), "x".repeat(10_000));
        assert!(succeeded(cluster.write(id, seq, command).as_ref()), "write {seq}");
    }
    assert!(held(&cluster) <= 120_000, "{} bytes are kept", held(&cluster));
    let why = status(&cluster).why;
    assert!(
        why.contains(&format!("node {behind}")) && why.contains("100000 bytes"),
        "{why}"
    );
    // It goes away while its transfer runs.
    cluster.crash(behind);
    cluster.run_for(1000 * MS);
    assert!(succeeded(
        cluster.write(id, 81, Command::put("key", "x")).as_ref()
    ));
    cluster.run_for(10 * MS);
    assert!(cluster.protocol(id).shared.log.len() <= 5);
}

#[test]
fn a_leader_never_names_an_entry_that_it_does_not_hold() {
    // The slower follower's acknowledgement comes when the entry is gone: named as one of term 0, it would contradict
    // what is committed there.
    let mut cluster = cluster_with(3, 24, |config| {
        (config.kept_entries, config.kept_bytes, config.pinned_bytes_max) = (0, 0, 0);
    });
    let id = elect(&mut cluster);
    let slow = cluster.ids().into_iter().find(|other| *other != id).unwrap();
    cluster.filter = Some(Box::new(move |from, _, message| match message {
        Message::AppendReply { .. } if from == slow => Verdict::Delay(3 * MS),
        Message::Append { prev, .. } => {
            assert!(prev.index == Index(0) || prev.term > Term(0), "{prev:?}");
            Verdict::Deliver
        }
        _ => Verdict::Deliver,
    }));
    for seq in 1..=100 {
        assert!(succeeded(
            cluster.write(id, seq, Command::put("key", "x")).as_ref()
        ));
        cluster.run_for(seq as u32 % 7 * MS);
    }
    cluster.run_for(1000 * MS);
    for node in cluster.ids() {
        assert_eq!(cluster.protocol(node).contradiction(), None);
    }
}

/// A table of ten keys in many parts.
fn table() -> (Table, Vec<bytes::Bytes>) {
    let mut table = Table::new(10);
    for seq in 1..=10 {
        table.apply(
            op(seq),
            &Command::put(format!("key/{seq}"), "x".repeat(100)),
            Version(seq),
        );
    }
    let parts: Vec<_> = table.chunks(100).map(bytes::Bytes::from).collect();
    assert!(parts.len() > 5);
    (table, parts)
}

const AT: LogEnd = LogEnd {
    term: Term(1),
    index: Index(10),
};

fn send_part(node: &mut Node, parts: &[bytes::Bytes], part: usize) {
    node.receive(
        2,
        Message::Snapshot {
            term: Term(1),
            round: 0,
            at: AT,
            part: part as u32,
            last: part + 1 == parts.len(),
            chunk: parts[part].clone(),
        },
    );
}

#[test]
fn a_snapshot_is_appended_part_by_part_as_it_comes() {
    // All of it in one batch is more than a log takes, so that the node would stop, and again after each restart.
    let (table, parts) = table();
    let mut node = Node::new(3, 1);
    follow(&mut node, 2);
    node.persist();
    for part in 0..parts.len() {
        let before = node.records.len();
        send_part(&mut node, &parts, part);
        let appended: Vec<Record> = node.records[before..]
            .iter()
            .map(|record| codec::decode(record).expect("our own records decode"))
            .collect();
        let mut expected = vec![Record::SnapshotPart(parts[part].clone())];
        if part + 1 == parts.len() {
            expected.push(Record::SnapshotEnd { at: AT });
        }
        assert_eq!(appended, expected, "part {part}");
    }
    assert_eq!(
        node.discarded, 2,
        "the state and the log before are not freed in a turn"
    );
    assert_eq!(node.raft().table().digest(), table.digest());
    assert_eq!(node.replayed().expect("whole").table().digest(), table.digest());
}

#[test]
fn parts_that_come_early_are_appended_in_their_order() {
    let (table, parts) = table();
    let mut node = Node::new(3, 1);
    follow(&mut node, 2);
    for part in (0..parts.len()).rev() {
        assert_eq!(node.raft().shared.applied(), Index(0));
        send_part(&mut node, &parts, part);
        send_part(&mut node, &parts, part);
    }
    assert_eq!(node.raft().table().digest(), table.digest());
    assert_eq!(node.replayed().expect("whole").table().digest(), table.digest());
}

#[test]
fn a_checkpoint_in_the_middle_of_a_transfer_holds_the_parts_so_far() {
    // The records before a checkpoint are gone: without the parts, the end mark would stand behind the half of a state.
    let (table, parts) = table();
    let mut node = Node::new(3, 1);
    follow(&mut node, 2);
    for part in 0..parts.len() / 2 {
        send_part(&mut node, &parts, part);
    }
    let (checkpoint, covered) = (node.raft().checkpoint(), node.records.len());
    for part in parts.len() / 2..parts.len() {
        send_part(&mut node, &parts, part);
    }
    let mut next = Raft::new(node.raft().shared.config.clone());
    for chunk in checkpoint {
        next.restore(&chunk).expect("our own checkpoint");
    }
    for record in &node.records[covered..] {
        let record = codec::decode(record).expect("our own records decode");
        next.replay(record).expect("our own records");
    }
    assert_eq!(next.table().digest(), table.digest());
    assert_eq!(next.log_end(), AT);
}

#[test]
fn a_transfer_that_a_crash_broke_off_begins_again() {
    let (table, parts) = table();
    for broken in 0..parts.len() {
        let mut node = Node::new(3, 1);
        follow(&mut node, 2);
        for part in 0..broken {
            send_part(&mut node, &parts, part);
        }
        let mut next = Node::new(3, 2);
        next.records.clone_from(&node.records);
        next.revive();
        // In its next incarnation the parts of the former one are no part of a checkpoint.
        let mut restored = Raft::new(node.raft().shared.config.clone());
        for chunk in next.raft().checkpoint() {
            restored.restore(&chunk).expect("our own checkpoint");
        }
        assert_eq!(restored.shared.applied(), Index(0));
        for part in 0..parts.len() {
            send_part(&mut next, &parts, part);
        }
        assert_eq!(next.raft().table().digest(), table.digest());
        let last = next.replayed().expect("torn parts, and then all");
        assert_eq!(last.table().digest(), table.digest());
    }
}

#[test]
fn a_part_that_does_not_decode_is_not_appended() {
    let (table, parts) = table();
    let mut node = Node::new(3, 1);
    follow(&mut node, 2);
    send_part(&mut node, &parts, 0);
    let records = node.records.len();
    let mut broken = parts.clone();
    broken[1] = bytes::Bytes::from_static(b"\xff\xff");
    send_part(&mut node, &broken, 1);
    assert_eq!(node.records.len(), records);
    assert!(matches!(
        node.sent.last(),
        Some((_, Message::SnapshotReply { next: 0, .. }))
    ));
    for part in 0..parts.len() {
        send_part(&mut node, &parts, part);
    }
    assert_eq!(node.replayed().expect("whole").table().digest(), table.digest());
}

#[test]
fn a_follower_takes_no_more_parts_than_its_disk_can_write() {
    // An answer asks for the next parts. While many wait for the disk, answers wait for it too.
    let mut node = Node::new(3, 1);
    follow(&mut node, 2);
    node.persist();
    node.sent.clear();
    let mut table = Table::new(10);
    for seq in 1..=40 {
        let value = "x".repeat(CHUNK_BYTES);
        table.apply(op(seq), &Command::put(format!("key/{seq}"), value), Version(seq));
    }
    let at = LogEnd {
        term: Term(1),
        index: Index(40),
    };
    for (part, chunk) in table.chunks(CHUNK_BYTES).enumerate().take(40) {
        let (term, round, part, last) = (Term(1), 0, part as u32, false);
        let chunk = chunk.into();
        node.receive(
            2,
            Message::Snapshot {
                term,
                round,
                at,
                part,
                last,
                chunk,
            },
        );
    }
    let answered = node.sent.len();
    assert!(
        (10..=20).contains(&answered),
        "{answered} parts are answered at once"
    );
    node.step(Input::Persisted {
        up_to: AppendSeq(node.records.len() as u64),
    });
    assert_eq!(node.sent.len(), 40);
}

#[test]
fn what_has_come_of_a_transfer_that_ends_is_not_freed_in_a_turn() {
    // It may be most of a state of millions of keys.
    let (_, parts) = table();
    let begun = || {
        let mut node = Node::new(3, 1);
        follow(&mut node, 2);
        node.persist();
        send_part(&mut node, &parts, 0);
        node.persist();
        assert_eq!(node.discarded, 0);
        node
    };
    // Another leader sends another state.
    let mut node = begun();
    let (term, round, at, part, last) = (Term(2), 0, end(2, 20), 0, false);
    let chunk = parts[0].clone();
    node.receive(
        3,
        Message::Snapshot {
            term,
            round,
            at,
            part,
            last,
            chunk,
        },
    );
    assert_eq!(node.discarded, 1, "another leader");
    // The log has come after all.
    let mut node = begun();
    append(&mut node, 2, 1, end(0, 0), vec![noop(1); 10], 10);
    send_part(&mut node, &parts, 1);
    assert_eq!(node.discarded, 1, "the log has come");
    // It stands for election itself.
    let mut node = begun();
    node.win();
    assert_eq!(node.discarded, 1, "it leads");
    // It restarts.
    let mut node = begun();
    node.revive();
    assert_eq!(node.discarded, 1, "it has restarted");
}

#[test]
fn the_state_that_a_leader_sent_is_not_freed_in_the_turn_in_which_it_steps_down() {
    let mut config = RaftConfig::new(NodeId(1), Incarnation(1), (1..=3).map(NodeId), 1);
    (config.kept_entries, config.chunk_bytes, config.chunks_inflight) = (0, 1, 1);
    let mut node = Node::with(config);
    node.win();
    let (term, round) = (node.raft().term(), 0);
    for seq in 1..=5 {
        node.propose(put(seq));
        node.persist();
        let result = AppendResult::Matched(node.raft().log_end().index);
        node.receive(2, Message::AppendReply { term, round, result });
    }
    let view = |node: &Node| {
        let mut view = node.raft().shared.view.clone();
        view.peers.get_mut(&NodeId(3)).expect("a member").connected = false;
        view
    };
    let without_three = view(&node);
    node.step(Input::Peers(without_three));
    node.now = node.now + 1000 * MS;
    let result = AppendResult::Matched(node.raft().log_end().index);
    node.receive(2, Message::AppendReply { term, round, result });
    let result = AppendResult::Mismatch(Index(1));
    node.receive(3, Message::AppendReply { term, round, result });
    let is_part =
        |(to, message): &(NodeId, Message)| *to == NodeId(3) && matches!(message, Message::Snapshot { .. });
    assert!(node.sent.iter().any(is_part), "a transfer begins");
    assert_eq!(node.discarded, 0);
    append(&mut node, 2, term.0 + 1, LogEnd::default(), Vec::new(), 0);
    assert!(!node.raft().is_leader());
    assert_eq!(node.discarded, 1);
}
