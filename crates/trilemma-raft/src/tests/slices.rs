//! What is committed is applied in slices: no turn is long, however much there is.

use trilemma_core::{Command, Mutation};
use trilemma_testkit::op;

use super::node::{Node, append, end, noop, put};
use super::*;

const SLICE: usize = 4;

fn config(nodes: u32) -> RaftConfig {
    let mut config = RaftConfig::new(NodeId(1), Incarnation(1), (1..=nodes).map(NodeId), 1);
    config.apply_entries_max = SLICE;
    config
}

fn heartbeats(node: &Node) -> usize {
    let heartbeat =
        |message: &Message| matches!(message, Message::Append { entries, .. } if entries.is_empty());
    node.sent.iter().filter(|(_, message)| heartbeat(message)).count()
}

#[test]
fn a_follower_applies_a_slice_in_each_turn_until_nothing_is_left() {
    let mut node = Node::with(config(3));
    append(&mut node, 2, 1, end(0, 0), vec![noop(1); 10], 10);
    assert!(!node.goes_on(), "what is not durable is not applied");
    for applied in [4, 8, 10] {
        if applied == 4 {
            node.persist();
        } else {
            node.input(Input::EndTurn);
        }
        assert_eq!(node.raft().table().version().0, applied);
        assert_eq!(node.goes_on(), applied < 10);
    }
    node.input(Input::EndTurn);
    assert_eq!(node.raft().table().version().0, 10);
}

#[test]
fn the_change_stream_reaches_every_version_that_is_applied() {
    // A receipt, a read and a restarted node name versions that changed nothing. A watch that begins at one would wait until
    // the next change, without end on a quiet keyspace.
    let mut node = Node::with(RaftConfig::new(NodeId(1), Incarnation(1), (1..=3).map(NodeId), 1));
    append(&mut node, 2, 1, end(0, 0), vec![noop(1); 3], 3);
    node.persist();
    assert_eq!(node.published, [1, 2, 3]);
}

#[test]
fn a_slice_is_bounded_by_bytes_too() {
    let mut config = config(3);
    (config.apply_entries_max, config.apply_bytes) = (1000, 1);
    let mut node = Node::with(config);
    append(&mut node, 2, 1, end(0, 0), vec![noop(1); 3], 3);
    node.persist();
    assert_eq!(node.raft().table().version().0, 1);
    assert!(node.goes_on());
}

#[test]
fn a_leader_that_has_much_to_apply_sends_heartbeats_meanwhile() {
    // As after a restart of all nodes: whatever their logs hold becomes committed with the first entry of the new leader.
    let mut node = Node::with(config(3));
    append(&mut node, 2, 1, end(0, 0), vec![noop(1); 40], 0);
    node.win();
    let last = node.raft().log_end().index;
    let ticket = node.propose(put(1));
    node.persist();
    let (term, round, result) = (node.raft().term(), 0, AppendResult::Matched(last.next()));
    node.receive(2, Message::AppendReply { term, round, result });
    assert_eq!(node.raft().commit(), last.next());
    assert!(node.raft().table().version().0 <= 2 * SLICE as u64, "in slices");
    let mut turns = 0;
    while node.goes_on() {
        assert_eq!(node.reply(ticket), None, "answered before it is applied");
        node.sent.clear();
        node.now = node.now + 100 * MS;
        node.input(Input::Wake);
        node.input(Input::EndTurn);
        assert!(heartbeats(&node) >= 2, "both followers hear their leader");
        turns += 1;
        assert!(node.raft().is_leader() && turns < 20);
        node.receive(2, Message::AppendReply { term, round, result });
    }
    assert!(node.reply(ticket).is_some());
    assert_eq!(node.raft().table().version().0, last.next().0);
}

/// An entry of term 1 whose command names so many keys.
fn batch(seq: u64, keys: u64) -> Entry {
    let put = |number: u64| Mutation::Put {
        key: format!("key/{number}").into(),
        value: "value".into(),
        lease: None,
    };
    let command = Command {
        guards: Vec::new(),
        mutations: (0..keys).map(put).collect(),
    };
    let (op, command) = (op(seq), command.into());
    Entry {
        term: Term(1),
        payload: Payload::Write { op, command },
    }
}

#[test]
fn a_command_counts_once_for_each_of_its_keys() {
    // Thousands of commands of hundreds of keys each are seconds of work.
    let mut node = Node::with(config(3));
    let entries = (1..=5).map(|seq| batch(seq, SLICE as u64 - 1)).collect();
    append(&mut node, 2, 1, end(0, 0), entries, 5);
    node.persist();
    for applied in [2, 4, 5] {
        assert_eq!(node.raft().table().version().0, applied);
        node.input(Input::EndTurn);
    }
}

#[test]
fn what_nobody_needs_any_more_is_freed_in_slices() {
    // A follower that goes away has pinned as much as `pinned_bytes_max`.
    let mut config = config(3);
    config.kept_entries = 0;
    let mut log = Log::default();
    log.extend(vec![noop(1); 40]);
    log.trim(Index(40), Index(0), &config);
    assert_eq!(log.len(), 40, "a follower needs all of it");
    for left in [32, 24, 16, 8, 0, 0] {
        log.trim(Index(40), Index(u64::MAX), &config);
        assert_eq!(log.len(), left);
    }
}

#[test]
fn a_follower_that_needs_much_is_fed_in_slices() {
    // All that may be in flight to it takes long to encode.
    let mut config = config(3);
    (config.append_entries_max, config.feed_bytes) = (1, 100);
    let mut node = Node::with(config);
    node.win();
    let (term, round, noop) = (node.raft().term(), 0, node.raft().log_end().index);
    let result = AppendResult::Matched(noop);
    node.receive(2, Message::AppendReply { term, round, result });
    for seq in 1..=10 {
        node.ask(put(seq));
    }
    let fed = |node: &Node| {
        let entries = |(to, message): &(NodeId, Message)| match message {
            Message::Append { entries, .. } if *to == NodeId(2) => entries.len(),
            _ => 0,
        };
        node.sent.iter().map(entries).sum::<usize>()
    };
    node.sent.clear();
    let mut turns = 0;
    while turns == 0 || node.goes_on() {
        node.input(Input::EndTurn);
        turns += 1;
        assert!(fed(&node) <= 2 * turns, "{} entries in {turns} turns", fed(&node));
    }
    assert_eq!(fed(&node), 10);
}
