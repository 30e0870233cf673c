//! Schedules inside one turn of the host, and across the incarnations of a process, on single nodes.

use trilemma_core::{AppendSeq, Attempt, Command, Incarnation};
use trilemma_testkit::{get, op, write};

use super::node::{Node, append, end, follow, not_applied, put};
use super::*;

#[test]
fn a_write_that_no_disk_and_no_node_has_seen_ends_with_its_leader() {
    // A proposal, and then a higher term, in one turn: the entry is in memory only. Kept, it would leave a gap in the
    // records when this node leads again, and count as durable.
    let mut node = Node::new(3, 1);
    node.win();
    let before = node.raft().log_end();
    let ticket = node.ask(put(1));
    let (term, round, result) = (node.raft().term().next(), 0, AppendResult::Mismatch(Index(0)));
    node.receive(2, Message::AppendReply { term, round, result });
    assert!(!node.raft().is_leader());
    assert_eq!(node.raft().log_end(), before);
    assert!(not_applied(node.reply(ticket)), "{:?}", node.reply(ticket));
    node.win();
    let next = node.replayed().expect("the records are whole");
    assert_eq!(next.log_end(), node.raft().log_end());
}

#[test]
fn an_entry_is_not_durable_before_it_is_appended() {
    // One node: a completion of older appends comes in the turn of a new proposal.
    let mut node = Node::new(1, 1);
    node.win();
    node.persist();
    let first = node.propose(put(1));
    let second = node.ask(put(2));
    node.persist();
    assert!(node.reply(first).is_some());
    assert_eq!(node.reply(second), None, "answered before it is on a disk");
    node.persist();
    assert!(node.reply(second).is_some());
}

#[test]
fn what_a_turn_has_gathered_leaves_at_its_end_and_asks_for_no_wake() {
    let mut node = Node::new(3, 1);
    node.win();
    let (term, round, result) = (node.raft().term(), 0, AppendResult::Matched(Index(1)));
    node.receive(2, Message::AppendReply { term, round, result });
    // The followers learn what is committed.
    node.now = node.wake_at();
    node.step(Input::Wake);
    let (records, wake_at) = (node.records.len(), node.wake_at());
    node.sent.clear();
    for seq in 1..=3 {
        node.ask(put(seq));
        node.ask(get("key", None));
    }
    assert_eq!(
        (node.records.len(), node.sent.len()),
        (records, 0),
        "before the end"
    );
    assert_eq!(node.wake_at(), wake_at);
    node.input(Input::EndTurn);
    assert_eq!(node.records.len(), records + 1, "one record for all writes");
    let to = |node: &Node, with_entries: bool| {
        let of_kind = |message: &Message| matches!(message, Message::Append { entries, .. } if entries.is_empty() != with_entries);
        let sent = node
            .sent
            .iter()
            .filter(|(to, message)| *to == NodeId(2) && of_kind(message));
        sent.count()
    };
    assert_eq!(to(&node, true), 1, "one message with the entries of all writes");
    assert_eq!(to(&node, false), 1, "one round for all reads");
    assert_eq!(node.wake_at(), wake_at, "nothing is left for a wake");
}

#[test]
fn the_next_entries_tell_what_is_committed_and_a_message_of_its_own_only_when_none_come() {
    let mut node = Node::new(3, 1);
    node.win();
    let term = node.raft().term();
    let acknowledge = |node: &mut Node, index: u64| {
        let (round, result) = (0, AppendResult::Matched(Index(index)));
        node.receive(2, Message::AppendReply { term, round, result });
        node.receive(3, Message::AppendReply { term, round, result });
    };
    let reported = |node: &Node| -> Vec<(bool, u64)> {
        let reported = |message: &Message| match message {
            Message::Append { entries, commit, .. } => Some((entries.is_empty(), commit.0)),
            _ => None,
        };
        node.sent
            .iter()
            .filter_map(|(_, message)| reported(message))
            .collect()
    };
    acknowledge(&mut node, 1);
    node.propose(put(1));
    node.persist();
    node.sent.clear();
    acknowledge(&mut node, 2);
    assert_eq!(node.raft().commit(), Index(2));
    assert_eq!(reported(&node), [], "the next write may tell");
    node.propose(put(2));
    assert_eq!(reported(&node), [(false, 2), (false, 2)], "it does");
    node.persist();
    node.sent.clear();
    acknowledge(&mut node, 3);
    let commit_delay = node.raft().shared.config.commit_delay;
    assert_eq!(node.wake_at(), node.now + commit_delay);
    node.now = node.wake_at();
    node.step(Input::Wake);
    assert_eq!(reported(&node), [(true, 3), (true, 3)], "no write came");
    assert!(node.wake_at() > node.now + commit_delay);
}

#[test]
fn a_checkpoint_holds_no_more_than_the_records_so_far() {
    let mut node = Node::new(3, 1);
    node.win();
    node.ask(put(1));
    let mut restored = Raft::new(node.raft().shared.config.clone());
    for chunk in node.raft().checkpoint() {
        restored.restore(&chunk).expect("our own checkpoint");
    }
    let replayed = node.replayed().expect("our own records");
    assert_eq!(restored.log_end(), replayed.log_end());
}

#[test]
fn an_acknowledgement_of_an_older_term_proves_nothing() {
    // What a follower held in an older term, a leader in between may have replaced.
    let mut node = Node::new(3, 1);
    node.win();
    let older = node.raft().term();
    let (term, round, result) = (older.next(), 0, AppendResult::Mismatch(Index(0)));
    node.receive(2, Message::AppendReply { term, round, result });
    node.win();
    node.propose(put(1));
    node.step(Input::Wake);
    node.persist();
    let last = node.raft().log_end().index;
    let result = AppendResult::Matched(last);
    let late = Message::AppendReply {
        term: older,
        round,
        result,
    };
    node.receive(2, late);
    assert_eq!(node.raft().matched(NodeId(2)), Some(Index(0)));
    assert!(node.raft().commit() < last);
    let term = node.raft().term();
    node.receive(2, Message::AppendReply { term, round, result });
    assert_eq!(node.raft().matched(NodeId(2)), Some(last));
    node.step(Input::Wake);
    assert_eq!(node.raft().commit(), last);
}

#[test]
fn a_round_of_an_older_term_is_echoed_in_no_other() {
    // A late heartbeat of the leader of term 1, which is elected in term 2 by this node meanwhile: there its rounds begin
    // again, and the answer must not confirm the one that will have that number.
    let mut node = Node::new(3, 1);
    let (term, end) = (Term(2), LogEnd::default());
    node.receive(
        2,
        Message::Vote {
            term,
            end,
            is_handover: false,
        },
    );
    node.persist();
    node.sent.clear();
    let (term, round, prev, commit) = (Term(1), 7, LogEnd::default(), Index(0));
    let entries = Vec::new();
    node.receive(
        2,
        Message::Append {
            term,
            round,
            prev,
            entries,
            commit,
        },
    );
    let (term, round, result) = (Term(2), 0, AppendResult::Mismatch(Index(0)));
    assert_eq!(
        node.sent,
        [(NodeId(2), Message::AppendReply { term, round, result })]
    );
}

#[test]
fn a_refused_pre_vote_teaches_the_higher_term() {
    // Else nodes whose logs are the shorter the higher their terms are would refuse each other without end.
    let mut node = Node::new(3, 1);
    node.now = node.now + 1000 * MS;
    node.step(Input::Wake);
    let (asked, term) = (node.raft().term().next(), Term(7));
    let granted = false;
    node.receive(2, Message::PreVoteReply { asked, term, granted });
    assert_eq!(node.raft().term(), term);
    node.win();
    assert_eq!(node.raft().term(), term.next());
}

#[test]
fn parts_of_a_snapshot_that_a_crash_tore_do_not_mix_with_the_next() {
    let mut older = Table::new(10);
    older.apply(op(1), &Command::put("gone", "x"), Version(1));
    let mut newer = older.clone();
    newer.apply(op(2), &Command::delete("gone"), Version(2));
    newer.apply(op(3), &Command::put("key", "x"), Version(3));
    let mut raft = Raft::new(RaftConfig::new(NodeId(1), Incarnation(1), (1..=3).map(NodeId), 1));
    let (term, vote) = (Term(1), None);
    raft.replay(Record::HardState { term, vote }).expect("a term");
    // The end mark of the older one was lost.
    for part in older.chunks(CHUNK_BYTES).chain(newer.chunks(CHUNK_BYTES)) {
        raft.replay(Record::SnapshotPart(part.into())).expect("a part");
    }
    let index = Index(3);
    let at = LogEnd { term, index };
    raft.replay(Record::SnapshotEnd { at }).expect("whole");
    assert_eq!(raft.table().get(b"gone"), None);
    assert_eq!(raft.table().digest(), newer.digest());
}

#[test]
fn nothing_before_a_snapshot_is_durable_before_the_snapshot_is() {
    let mut table = Table::new(10);
    for seq in 1..=5 {
        table.apply(op(seq), &Command::put("key", "x"), Version(seq));
    }
    let mut node = Node::new(3, 1);
    follow(&mut node, 2);
    node.persist();
    let term = Term(1);
    let at = LogEnd {
        term,
        index: Index(5),
    };
    let parts: Vec<_> = table.chunks(CHUNK_BYTES).collect();
    let count = parts.len();
    for (part, chunk) in parts.into_iter().enumerate() {
        node.receive(
            2,
            Message::Snapshot {
                term,
                round: 0,
                at,
                part: part as u32,
                last: part + 1 == count,
                chunk: chunk.into(),
            },
        );
    }
    node.sent.clear();
    // A message that the snapshot has overtaken: a crash now would leave nothing of what it holds.
    let payload = Payload::Noop;
    let append = Message::Append {
        term,
        round: 0,
        prev: LogEnd::default(),
        entries: vec![Entry { term, payload }],
        commit: Index(0),
    };
    node.receive(2, append);
    assert_eq!(node.sent, Vec::new(), "acknowledged before it is durable");
    node.persist();
    assert_eq!(node.sent.len(), 2);
    assert_eq!(node.raft().durable(), Index(5));
}

#[test]
fn what_is_not_committed_stays_bounded_when_its_clients_have_given_up() {
    // The followers' disks are held, so that they answer heartbeats and no appends; the leader goes on.
    let limit = 1024 * 1024;
    let mut config = RaftConfig::new(NodeId(1), Incarnation(1), (1..=3).map(NodeId), 1);
    config.uncommitted_bytes = limit;
    let mut node = Node::with(config);
    node.win();
    let value = "x".repeat(limit / 16);
    for seq in 1..=40 {
        let request = write(seq, Attempt::First, Command::put("key", value.as_str()));
        node.propose(request);
        // All that waited has passed its deadline.
        let (term, round, result) = (node.raft().term(), 0, AppendResult::Matched(Index(0)));
        for _ in 0..60 {
            node.now = node.now + 100 * MS;
            node.receive(2, Message::AppendReply { term, round, result });
            node.persist();
            node.step(Input::Wake);
        }
    }
    assert!(node.raft().is_leader());
    let held: usize = (1..=node.raft().log_end().index.0)
        .filter_map(|index| node.raft().entry(Index(index)))
        .map(Entry::size)
        .sum();
    assert!(held <= limit * 2, "{held} bytes are not committed");
}

#[test]
fn a_leader_that_contradicts_a_committed_entry_is_never_acknowledged() {
    // Only lost disks make that possible, and here is the one place to notice: an acknowledgement would let the leader
    // commit another history than the one that clients have seen.
    let entry = |term| Entry {
        term: Term(term),
        payload: Payload::Noop,
    };
    let ours = |node: &mut Node| {
        let (term, round, prev, commit) = (Term(1), 0, LogEnd::default(), Index(2));
        let entries = vec![entry(1), entry(1)];
        node.receive(
            2,
            Message::Append {
                term,
                round,
                prev,
                entries,
                commit,
            },
        );
        node.persist();
        assert_eq!(node.raft().commit(), Index(2));
        assert_eq!(node.raft().contradiction(), None);
        node.sent.clear();
    };
    let (term, round, commit) = (Term(3), 0, Index(0));
    let prev = LogEnd::default();
    let end = |term, index| LogEnd {
        term: Term(term),
        index: Index(index),
    };
    let contradictions = [
        Message::Append {
            term,
            round,
            prev,
            entries: vec![entry(1), entry(3), entry(3)],
            commit,
        },
        Message::Append {
            term,
            round,
            prev: end(3, 2),
            entries: Vec::new(),
            commit,
        },
        Message::Snapshot {
            term,
            round,
            at: end(3, 2),
            part: 0,
            last: true,
            chunk: Table::new(1).chunks(CHUNK_BYTES).next().expect("a head").into(),
        },
    ];
    for message in contradictions {
        let mut node = Node::new(3, 1);
        ours(&mut node);
        let waiting = node.propose(put(1));
        node.receive(3, message.clone());
        let found = node.raft().contradiction().expect("it is noticed").clone();
        let (leader, term) = (NodeId(3), Term(3));
        let differs = Differs::Entry {
            found: end(3, 2),
            committed: Term(1),
        };
        assert_eq!(
            found,
            Contradiction {
                leader,
                term,
                differs
            }
        );
        node.persist();
        // Nor does it take part in anything else from now on.
        let (term, prev, entries) = (Term(4), end(1, 2), Vec::new());
        node.receive(
            3,
            Message::Append {
                term,
                round,
                prev,
                entries,
                commit,
            },
        );
        node.receive(
            2,
            Message::Vote {
                term,
                end: end(3, 9),
                is_handover: false,
            },
        );
        node.now = node.now + 5000 * MS;
        node.step(Input::Wake);
        node.persist();
        assert_eq!(node.raft().log_end(), end(1, 2), "{message:?}");
        let promises: Vec<_> = node
            .sent
            .iter()
            .filter(|(_, sent)| !matches!(sent, Message::Forward { .. }))
            .collect();
        assert_eq!(promises, Vec::<&(NodeId, Message)>::new(), "{message:?}");
        // Those who ask learn it.
        let status = node.raft().status(Now::default());
        assert!(!status.can_write && !status.can_read);
        assert!(status.why.contains("node 3, leader of term 3"), "{}", status.why);
        let ticket = node.propose(put(2));
        assert!(not_applied(node.reply(ticket)), "{:?}", node.reply(ticket));
        assert!(
            node.reply(waiting).is_some(),
            "it was with a leader that is not followed any more"
        );
    }
}

#[test]
fn a_disk_that_is_busy_is_no_disk_that_stalls() {
    // The log is one queue for all keyspaces: each append waits longer than the limit, and yet it goes on.
    let mut node = Node::new(3, 1);
    node.win();
    let mut queued = std::collections::VecDeque::new();
    for seq in 1..=60 {
        node.propose(put(seq));
        node.step(Input::Wake);
        queued.push_back(AppendSeq(node.records.len() as u64));
        if queued.len() <= 8 {
            continue;
        }
        let up_to = queued.pop_front().expect("the length was checked");
        node.step(Input::Persisted { up_to });
        node.now = node.now + 100 * MS;
        let (term, round, result) = (node.raft().term(), 0, AppendResult::Matched(Index(0)));
        node.receive(2, Message::AppendReply { term, round, result });
        node.step(Input::Wake);
        assert!(node.raft().is_leader(), "it steps down after {seq} writes");
    }
    for _ in 0..7 {
        node.now = node.now + 100 * MS;
        let (term, round, result) = (node.raft().term(), 0, AppendResult::Matched(Index(0)));
        node.receive(2, Message::AppendReply { term, round, result });
        node.step(Input::Wake);
    }
    assert!(!node.raft().is_leader(), "nothing has become durable for 700 ms");
}

#[test]
fn a_node_asks_for_no_votes_in_a_term_that_its_disk_does_not_have() {
    // Its term would grow in memory alone, go out in answers, and keep the others from their elections.
    let mut node = Node::new(3, 1);
    let asked = |node: &Node| {
        let asks = |(_, message): &&(NodeId, Message)| matches!(message, Message::PreVote { .. });
        node.sent.iter().filter(asks).count()
    };
    node.receive(
        2,
        Message::Vote {
            term: Term(5),
            end: LogEnd::default(),
            is_handover: false,
        },
    );
    assert_eq!(node.raft().term(), Term(5));
    for _ in 0..20 {
        node.now = node.now + 300 * MS;
        node.step(Input::Wake);
    }
    assert_eq!(asked(&node), 0);
    node.persist();
    node.now = node.now + 300 * MS;
    node.step(Input::Wake);
    assert_eq!(asked(&node), 2);
}

#[test]
fn entries_and_states_that_no_leader_can_have_are_ignored() {
    let entry = |term| Entry {
        term: Term(term),
        payload: Payload::Noop,
    };
    let mut node = Node::new(3, 1);
    follow(&mut node, 2);
    node.persist();
    node.sent.clear();
    for terms in [[2, 1], [1, 9]] {
        append(&mut node, 2, 3, LogEnd::default(), terms.map(entry).to_vec(), 2);
    }
    for (term, index) in [(3, u64::MAX), (4, 5)] {
        let (round, part, last, chunk) = (0, 0, true, bytes::Bytes::new());
        let (at, term) = (end(term, index), Term(3));
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
    assert_eq!(node.sent, Vec::new());
    assert_eq!(node.raft().log_end(), LogEnd::default());
    assert_eq!(node.raft().contradiction(), None);
}
