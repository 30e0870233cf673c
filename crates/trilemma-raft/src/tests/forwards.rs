//! Requests that a node passes on to the leader.

use trilemma_core::{
    Achieved, Attempt, Command, Epoch, Incarnation, NodeSet, Receipt, Reply, Request, UnknownCause,
    WriteError,
};
use trilemma_testkit::op;

use super::node::{Node, follow, put};
use super::*;

fn forwarded(node: &Node) -> u64 {
    let id = node.sent.iter().rev().find_map(|(_, message)| match message {
        Message::Forward { id, .. } => Some(*id),
        _ => None,
    });
    id.expect("it was forwarded")
}

fn receipt(seq: u64) -> Reply {
    Reply::Write(Ok(Receipt {
        op: op(seq),
        succeeded: true,
        version: Version(7),
        found: Version::ABSENT,
        epoch: Epoch(1),
        achieved: Achieved::StrictSerializable,
        durable_on: NodeSet::of(NodeId(2)),
        served_by: NodeId(2),
        round_trips: 2,
        syncs: 1,
    }))
}

#[test]
fn an_answer_to_a_former_incarnation_answers_nothing_in_this_one() {
    // The leader still has an answer for the former incarnation; it goes to the one that is node 1 now.
    let mut former = Node::new(3, 1);
    follow(&mut former, 2);
    former.propose(put(1));
    let mut node = Node::new(3, 2);
    follow(&mut node, 2);
    let ticket = node.propose(put(2));
    let (id, reply) = (forwarded(&former), receipt(1));
    node.receive(2, Message::ForwardReply { id, reply });
    assert_eq!(node.reply(ticket), None);
    // And however ids may meet: a receipt of another operation proves nothing about this one.
    let (id, reply) = (forwarded(&node), receipt(1));
    node.receive(2, Message::ForwardReply { id, reply });
    let lost = WriteError::Unknown {
        op: op(2),
        cause: UnknownCause::ReplyLost,
    };
    assert_eq!(node.reply(ticket), Some(&Reply::Write(Err(lost))));
}

#[test]
fn a_write_at_a_leader_that_restarts_is_unknown_at_once() {
    // The same node may lead again, so a new leader alone does not tell.
    let mut node = Node::new(3, 1);
    follow(&mut node, 2);
    let ticket = node.propose(put(1));
    let mut view = node.raft().shared.view.clone();
    let peer = view.peers.get_mut(&NodeId(2)).expect("a member");
    peer.incarnation = Incarnation(2);
    node.step(Input::Peers(view));
    let lost = WriteError::Unknown {
        op: op(1),
        cause: UnknownCause::LeaderLost,
    };
    assert_eq!(node.reply(ticket), Some(&Reply::Write(Err(lost))));
}

#[test]
fn a_second_copy_of_a_forwarded_write_is_never_refused() {
    // The first copy is in the log and may yet be committed: a refusal of the second would be reported as *not applied*.
    let mut node = Node::new(3, 1);
    node.win();
    let forward = || Message::Forward {
        to: Incarnation(1),
        id: 5,
        timeout_ms: 5000,
        request: Request::Write {
            op: op(1),
            attempt: Attempt::First,
            command: Command::put("key", "x"),
        },
    };
    node.receive(3, forward());
    let end = node.raft().log_end();
    node.receive(3, forward());
    assert_eq!(node.raft().log_end(), end, "one copy is enough");
    node.step(Input::Wake);
    let (term, round, result) = (node.raft().term().next(), 0, AppendResult::Mismatch(Index(0)));
    node.receive(2, Message::AppendReply { term, round, result });
    node.sent.clear();
    node.receive(3, forward());
    let refused = node
        .sent
        .iter()
        .any(|(_, message)| matches!(message, Message::ForwardReply { .. } | Message::NotLeader { .. }));
    assert!(!refused, "{:?}", node.sent);
}

#[test]
fn a_second_copy_of_a_forwarded_write_is_answered_with_what_the_first_did() {
    // The answer to the first may be lost: without this one its client would wait until its deadline, and then know nothing.
    let mut node = Node::new(3, 1);
    node.win();
    let answers = |node: &Node| {
        let answer = |(to, message): &(NodeId, Message)| match message {
            Message::ForwardReply { id, reply } => Some((*to, *id, reply.clone())),
            _ => None,
        };
        node.sent.iter().filter_map(answer).collect::<Vec<_>>()
    };
    let forward = |request| Message::Forward {
        to: Incarnation(1),
        id: 5,
        timeout_ms: 5000,
        request,
    };
    node.receive(3, forward(put(1)));
    node.persist();
    let (term, round, result) = (
        node.raft().term(),
        0,
        AppendResult::Matched(node.raft().log_end().index),
    );
    node.receive(2, Message::AppendReply { term, round, result });
    let first = answers(&node);
    assert_eq!(first.len(), 1);
    let end = node.raft().log_end();
    node.sent.clear();
    node.receive(3, forward(put(1)));
    assert_eq!(answers(&node), first, "the same answer");
    assert_eq!(node.raft().log_end(), end, "and nothing happens");
    // A leader that does not lead any more knows what is final, too.
    let (term, round, result) = (node.raft().term().next(), 0, AppendResult::Mismatch(Index(0)));
    node.receive(2, Message::AppendReply { term, round, result });
    node.sent.clear();
    node.receive(3, forward(put(1)));
    assert_eq!(answers(&node).len(), 1);
}

#[test]
fn d18_a_forwarded_write_for_a_former_process_of_the_leader_is_ignored() {
    // What the former process has answered, a refusal perhaps, went with it; run now, the write would contradict that.
    let mut node = Node::new(3, 1);
    node.win();
    let forward = |to, id| Message::Forward {
        to: Incarnation(to),
        id,
        timeout_ms: 5000,
        request: put(id),
    };
    node.sent.clear();
    let end = node.raft().log_end();
    for (to, id) in [(0, 5), (2, 6)] {
        node.receive(3, forward(to, id));
    }
    assert_eq!(node.raft().log_end(), end, "neither is for this process");
    let is_answer =
        |message: &Message| matches!(message, Message::ForwardReply { .. } | Message::NotLeader { .. });
    assert!(
        !node.sent.iter().any(|(_, message)| is_answer(message)),
        "{:?}",
        node.sent
    );
    node.receive(3, forward(1, 7));
    assert!(node.raft().log_end() > end, "this one is");
}

/// What was forwarded to whom, with its number and the time left.
fn forwards(node: &Node) -> Vec<(NodeId, Incarnation, u64, u32)> {
    let forward = |(node, message): &(NodeId, Message)| match message {
        Message::Forward {
            to, id, timeout_ms, ..
        } => Some((*node, *to, *id, *timeout_ms)),
        _ => None,
    };
    node.sent.iter().filter_map(forward).collect()
}

#[test]
fn a_forwarded_request_without_an_answer_is_forwarded_again_under_its_name() {
    let mut node = Node::new(3, 1);
    follow(&mut node, 2);
    let ticket = node.propose(put(1));
    let id = forwarded(&node);
    let first = (NodeId(2), Incarnation(1), id, 5000);
    assert_eq!(forwards(&node), [first]);
    let started = node.now;
    let timeout = node.raft().shared.config.election_timeout;
    let wait = |node: &mut Node, time: Duration| {
        while node.now < started + time {
            node.now = node.wake_at().min(started + time);
            node.step(Input::Wake);
            follow(node, 2);
        }
    };
    wait(&mut node, timeout);
    let second = (NodeId(2), Incarnation(1), id, 4850);
    assert_eq!(
        forwards(&node),
        [first, second],
        "the same request, the rest of the time"
    );
    // A leader that has much to do is not asked ever more often.
    wait(&mut node, timeout * 2);
    assert_eq!(forwards(&node).len(), 2);
    wait(&mut node, timeout * 3);
    assert_eq!(forwards(&node).len(), 3);
    node.receive(
        2,
        Message::ForwardReply {
            id,
            reply: receipt(1),
        },
    );
    assert_eq!(node.reply(ticket), Some(&receipt(1)));
    wait(&mut node, timeout * 40);
    assert_eq!(forwards(&node).len(), 3, "an answered request goes nowhere");
}

#[test]
fn a_forwarded_request_goes_to_no_other_process_than_the_first_time() {
    let mut node = Node::new(3, 1);
    follow(&mut node, 2);
    let ticket = node.propose(put(1));
    let mut view = node.raft().shared.view.clone();
    view.peers.get_mut(&NodeId(2)).expect("a member").incarnation = Incarnation(2);
    node.step(Input::Peers(view));
    assert!(node.reply(ticket).is_some());
    follow(&mut node, 2);
    node.now = node.now + node.raft().shared.config.election_timeout;
    node.step(Input::Wake);
    assert_eq!(forwards(&node).len(), 1);
    follow(&mut node, 2);
    node.propose(put(2));
    assert_eq!(
        forwards(&node).last().map(|(_, to, ..)| *to),
        Some(Incarnation(2))
    );
}
