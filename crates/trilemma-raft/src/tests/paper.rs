//! Claims of the paper, one by one, on a single node.

use trilemma_core::{Reply, Request};

use super::node::{Node, append, end, noop};
use super::*;

#[test]
fn figure_8_an_entry_of_an_old_term_is_not_committed_by_counting() {
    // Raft paper figure 8: an entry of term 2 on a majority is not committed in term 4 before an entry of term 4 is.
    let mut node = Node::new(5, 1);
    append(&mut node, 2, 2, LogEnd::default(), vec![noop(1), noop(2)], 1);
    node.persist();
    let (asked, term, granted) = (Term(3), Term(3), false);
    node.receive(3, Message::PreVoteReply { asked, term, granted });
    node.persist();
    node.now = node.now + 1000 * MS;
    node.step(Input::Wake);
    let (asked, granted) = (Term(4), true);
    for voter in [2, 3] {
        node.receive(voter, Message::PreVoteReply { asked, term, granted });
    }
    node.persist();
    for voter in [2, 3] {
        node.receive(
            voter,
            Message::VoteReply {
                term: Term(4),
                granted,
            },
        );
    }
    node.persist();
    assert!(node.raft().is_leader());
    assert_eq!(node.raft().log_end(), end(4, 3));
    let acknowledge = |node: &mut Node, from, index| {
        let (term, round, result) = (Term(4), 0, AppendResult::Matched(Index(index)));
        node.receive(from, Message::AppendReply { term, round, result });
    };
    for from in [2, 3, 4] {
        acknowledge(&mut node, from, 2);
    }
    assert_eq!(node.raft().commit(), Index(1), "index 2 is of term 2");
    for from in [2, 3] {
        acknowledge(&mut node, from, 3);
    }
    assert_eq!(node.raft().commit(), Index(3));
}

#[test]
fn an_older_shorter_append_never_shortens_the_log() {
    // inside/raft#shorter-append.
    let mut node = Node::new(3, 1);
    append(
        &mut node,
        2,
        1,
        LogEnd::default(),
        vec![noop(1), noop(1), noop(1)],
        0,
    );
    assert_eq!(node.raft().log_end(), end(1, 3));
    append(&mut node, 2, 1, LogEnd::default(), vec![noop(1)], 0);
    assert_eq!(node.raft().log_end(), end(1, 3));
}

#[test]
fn a_follower_commits_no_further_than_it_has_validated() {
    // inside/raft#validated-commit.
    let mut node = Node::new(3, 1);
    append(
        &mut node,
        2,
        1,
        LogEnd::default(),
        vec![noop(1), noop(1), noop(1)],
        0,
    );
    append(&mut node, 3, 2, end(1, 1), Vec::new(), 3);
    let why = "entries 2 and 3 may differ from the leader's";
    assert_eq!(node.raft().commit(), Index(1), "{why}");
}

#[test]
fn an_old_acknowledgement_never_counts_for_a_new_read_round() {
    // inside/raft#read-round: the round of a read is above every round that was ever sent before it.
    let mut node = Node::new(3, 1);
    node.win();
    let (term, last) = (node.raft().term(), node.raft().log_end().index);
    let acknowledge = |node: &mut Node, round| {
        let result = AppendResult::Matched(last);
        node.receive(2, Message::AppendReply { term, round, result });
        node.step(Input::Wake);
    };
    acknowledge(&mut node, 0);
    assert_eq!(node.raft().commit(), last);
    let read = trilemma_core::ReadRequest {
        query: trilemma_core::Query::Get("key".into()),
        level: None,
    };
    let ticket = node.propose(Request::Read(read));
    acknowledge(&mut node, 0);
    assert_eq!(
        node.reply(ticket),
        None,
        "an answer to round 0 was sent before the read began"
    );
    acknowledge(&mut node, 1);
    assert!(matches!(node.reply(ticket), Some(Reply::Read(Ok(_)))));
}
