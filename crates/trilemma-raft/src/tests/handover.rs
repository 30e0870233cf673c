//! A leader that is going to stop hands leadership over (inside/raft#handover).

use std::cell::Cell;
use std::rc::Rc;

use trilemma_core::host::GroupInput;
use trilemma_core::{Attempt, Command, Reason, Reply, WriteError};
use trilemma_testkit::{Verdict, get, succeeded, value, write};

use super::node::{Node, append, end, follow, noop, put};
use super::*;

/// How long a cluster of this size has no leader that serves, when its leader stops cleanly.
fn pause(size: u32, seed: u64) -> Duration {
    let mut cluster = cluster(size, seed);
    let old = elect(&mut cluster);
    let others: Vec<NodeId> = cluster.ids().into_iter().filter(|id| *id != old).collect();
    // Writes are under way everywhere.
    let tickets: Vec<_> = (1..)
        .zip(cluster.ids())
        .map(|(seq, id)| {
            let request = write(seq, Attempt::First, Command::put(format!("key {seq}"), "x"));
            (id, cluster.propose(id, request, 5000 * MS))
        })
        .collect();
    cluster.run_for(MS / 2);
    let begun = cluster.now();
    let took = cluster.stop(old);
    let timeout = cluster.protocol(others[0]).shared.config.election_timeout;
    assert!(took < timeout, "the stop took {took:?}");
    elect(&mut cluster);
    let pause = cluster.now().since(begun);
    for (id, ticket) in tickets {
        assert!(
            succeeded(cluster.reply(id, ticket)),
            "node {id}: {:?}",
            cluster.reply(id, ticket)
        );
    }
    for id in others {
        assert_eq!(value(cluster.get(id, "key 1").as_ref()), Ok(Some("x".into())));
    }
    pause
}

#[test]
fn m1_a_clean_stop_of_the_leader_costs_no_election_timeout() {
    for size in [3, 4, 5] {
        for seed in 1..=20 {
            let pause = pause(size, seed);
            assert!(pause < 100 * MS, "{size} nodes, seed {seed}: {pause:?}");
        }
    }
}

#[test]
fn a_handover_waits_for_a_follower_that_has_everything() {
    // One follower is cut off, the other lags: its disk is held.
    let mut cluster = cluster(3, 1);
    let old = elect(&mut cluster);
    let others: Vec<NodeId> = cluster.ids().into_iter().filter(|id| *id != old).collect();
    cluster.crash(others[0]);
    cluster.hold_disk(others[1], true);
    let request = write(1, Attempt::First, Command::put("key", "x"));
    let ticket = cluster.propose(old, request, 5000 * MS);
    cluster.run_for(20 * MS);
    assert_eq!(cluster.reply(old, ticket), None);
    cluster.input(old, GroupInput::Stopping);
    cluster.run_for(20 * MS);
    assert!(cluster.protocol(old).is_leader(), "nobody else has the entry");
    cluster.hold_disk(others[1], false);
    assert!(cluster.run_until(100 * MS, |cluster| leader(cluster) == Some(others[1])));
    assert!(
        succeeded(cluster.reply(old, ticket)),
        "{:?}",
        cluster.reply(old, ticket)
    );
}

#[test]
fn a_handover_that_comes_to_nothing_ends_with_an_election_timeout() {
    for is_lost in [true, false] {
        let mut cluster = cluster(3, 1);
        let old = elect(&mut cluster);
        let asked = Rc::new(Cell::new(0));
        let counter = Rc::clone(&asked);
        cluster.filter = Some(Box::new(move |_, _, message| {
            let is_asked = matches!(message, Message::TimeoutNow { .. });
            counter.set(counter.get() + u32::from(is_asked));
            // The second one comes through, or none does.
            if is_asked && (is_lost || counter.get() == 1) {
                Verdict::Drop
            } else {
                Verdict::Deliver
            }
        }));
        let took = cluster.stop(old);
        assert!(asked.get() > 1, "it is asked again");
        assert_eq!(took >= 150 * MS, is_lost, "{took:?}");
        assert!(took < 200 * MS, "{took:?}");
        elect(&mut cluster);
    }
}

#[test]
fn a_follower_that_does_not_stand_is_not_asked_alone() {
    let mut cluster = cluster(3, 1);
    let old = elect(&mut cluster);
    let asked = Rc::new(Cell::new(None));
    let first = Rc::clone(&asked);
    cluster.filter = Some(Box::new(move |_, to, message| {
        if !matches!(message, Message::TimeoutNow { .. }) {
            return Verdict::Deliver;
        }
        first.set(first.get().or(Some(to)));
        if first.get() == Some(to) {
            Verdict::Drop
        } else {
            Verdict::Deliver
        }
    }));
    let took = cluster.stop(old);
    assert!(took < 150 * MS, "{took:?}");
    assert_ne!(Some(elect(&mut cluster)), asked.get());
}

#[test]
fn who_hands_over_takes_reads_and_no_writes() {
    let mut node = Node::new(3, 1);
    node.win();
    let (term, round) = (node.raft().term(), 0);
    let last = node.raft().log_end();
    let matched = AppendResult::Matched(last.index);
    let result = matched;
    node.step(Input::Stopping);
    let written = node.propose(put(1));
    let Some(Reply::Write(Err(WriteError::NotApplied(refusal)))) = node.reply(written) else {
        panic!("{:?}", node.reply(written));
    };
    assert_eq!(refusal.reason, Reason::Stopping);
    let forward = Message::Forward {
        to: Incarnation(1),
        id: 5,
        timeout_ms: 5000,
        request: put(2),
    };
    node.sent.clear();
    node.receive(3, forward);
    assert_eq!(node.sent, [(NodeId(3), Message::NotLeader { id: 5 })]);
    assert_eq!(node.raft().log_end(), last);
    let read = node.propose(get("key", None));
    node.receive(2, Message::AppendReply { term, round, result });
    let asked = (NodeId(2), Message::TimeoutNow { term });
    assert!(node.sent.contains(&asked), "{:?}", node.sent);
    let round = 1;
    node.receive(2, Message::AppendReply { term, round, result });
    assert!(
        matches!(node.reply(read), Some(Reply::Read(Ok(_)))),
        "{:?}",
        node.reply(read)
    );
    assert!(node.is_handing_over());
    // The next leader is there.
    append(&mut node, 2, term.0 + 1, last, vec![noop(term.0 + 1)], 0);
    assert!(!node.is_handing_over());
}

#[test]
fn only_the_leader_that_a_node_follows_makes_it_stand() {
    let asked = |node: &mut Node, from: u32, term: u64| {
        node.persist();
        node.sent.clear();
        node.receive(from, Message::TimeoutNow { term: Term(term) });
        node.persist();
        node.raft().term()
    };
    let mut node = Node::new(3, 1);
    assert_eq!(asked(&mut node, 2, 0), Term(0), "it follows nobody");
    follow(&mut node, 2);
    assert_eq!(asked(&mut node, 3, 1), Term(1), "another node");
    assert_eq!(asked(&mut node, 2, 0), Term(1), "an older term");
    assert_eq!(asked(&mut node, 2, 2), Term(1), "a term that nobody leads yet");
    assert_eq!(asked(&mut node, 2, 1), Term(2));
    let vote = Message::Vote {
        term: Term(2),
        end: LogEnd::default(),
        is_handover: true,
    };
    assert!(node.sent.contains(&(NodeId(3), vote.clone())), "{:?}", node.sent);
    // A node that hears the former leader votes for who was asked, if that has all it has itself.
    for (has_more, granted) in [(false, true), (true, false)] {
        let mut voter = Node::new(3, 1);
        follow(&mut voter, 3);
        if has_more {
            append(&mut voter, 3, 1, end(0, 0), vec![noop(1)], 0);
        }
        voter.persist();
        voter.receive(2, vote.clone());
        voter.persist();
        let term = Term(2);
        let answer = (NodeId(2), Message::VoteReply { term, granted });
        assert!(voter.sent.contains(&answer), "{:?}", voter.sent);
    }
}

#[test]
fn a_node_whose_term_is_not_durable_does_not_take_over() {
    let mut node = Node::new(3, 1);
    follow(&mut node, 2);
    node.receive(2, Message::TimeoutNow { term: Term(1) });
    assert_eq!(node.raft().term(), Term(1));
}
