//! States that differ: a leader says what its own is, and a follower compares.

use std::cell::RefCell;
use std::rc::Rc;

use trilemma_core::{Command, OpId, ReadLevel, Reply, SessionId};
use trilemma_testkit::{Verdict, get};

use super::node::{Node, append, end, not_applied, put};
use super::*;

fn write(seq: u64, value: &str) -> Entry {
    let session = SessionId::default();
    Entry {
        term: Term(1),
        payload: Payload::Write {
            op: OpId { session, seq },
            command: Command::put("key", value.to_owned()).into(),
        },
    }
}

fn table(values: &[&str]) -> Table {
    let mut table = Table::new(1);
    for (value, seq) in values.iter().zip(1..) {
        let session = SessionId::default();
        let command = Command::put("key", (*value).to_owned());
        table.apply(OpId { session, seq }, &command, Version(seq));
    }
    table
}

fn claim(node: &mut Node, from: u32, term: u64, at: u64, digest: u64) {
    let (term, at) = (Term(term), Index(at));
    node.receive(from, Message::StateDigest { term, at, digest });
}

/// A follower of node 2 that has applied two entries.
fn follower() -> Node {
    let mut node = Node::new(3, 1);
    append(&mut node, 2, 1, end(0, 0), vec![write(1, "a"), write(2, "b")], 2);
    node.persist();
    assert_eq!(node.raft().table().digest(), table(&["a", "b"]).digest());
    node.sent.clear();
    node
}

#[test]
fn d9_a_follower_whose_state_is_not_the_leaders_serves_nobody() {
    let later = table(&["a", "b", "c"]).digest();
    for (at, digest) in [(2, table(&["a", "x"]).digest()), (3, later ^ 1)] {
        let mut node = follower();
        claim(&mut node, 2, 1, at, digest);
        let reads = [ReadLevel::MinVersion(Version(3)), ReadLevel::Local];
        let waits = node.propose(get("key", Some(reads[0])));
        append(&mut node, 2, 1, end(1, 2), vec![write(3, "c")], 3);
        node.persist();
        let found = node.raft().contradiction().expect("the states differ").clone();
        assert!(
            matches!(found.differs, Differs::State { at: Index(index), found, .. } if index == at && found == digest),
            "{found:?}"
        );
        let status = node.raft().status(Now::default());
        assert!(!status.can_read && !status.can_write);
        assert!(
            status
                .why
                .contains("node 2, leader of term 1, has a state of digest"),
            "{}",
            status.why
        );
        let asked = [waits]
            .into_iter()
            .chain(reads.map(|level| node.propose(get("key", Some(level)))));
        for read in asked.collect::<Vec<_>>() {
            let answer = node.reply(read);
            assert!(matches!(answer, Some(Reply::Read(Err(_)))), "{answer:?}");
        }
        let ticket = node.propose(put(9));
        assert!(not_applied(node.reply(ticket)), "{:?}", node.reply(ticket));
    }
}

#[test]
fn a_follower_whose_state_is_the_leaders_goes_on() {
    let mut node = follower();
    claim(&mut node, 2, 1, 2, table(&["a", "b"]).digest());
    claim(&mut node, 2, 1, 3, table(&["a", "b", "c"]).digest());
    // What others say, in other terms or of what is over, says nothing.
    claim(&mut node, 2, 1, 1, 1);
    claim(&mut node, 2, 2, 2, 1);
    claim(&mut node, 3, 1, 2, 1);
    append(&mut node, 2, 1, end(1, 2), vec![write(3, "c")], 3);
    node.persist();
    assert_eq!(node.raft().contradiction(), None);
    assert_eq!(node.raft().table().digest(), table(&["a", "b", "c"]).digest());
}

#[test]
fn a_leader_says_what_its_state_is_with_some_heartbeats() {
    let mut cluster = cluster(3, 5);
    let leader = elect(&mut cluster);
    let said = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&said);
    cluster.filter = Some(Box::new(move |_, to, message| {
        if let Message::StateDigest { at, digest, .. } = message {
            seen.borrow_mut().push((to, *at, *digest));
        }
        Verdict::Deliver
    }));
    let ticket = cluster.propose(leader, node::put(1), 1000 * MS);
    cluster.run_for(4000 * MS);
    assert!(cluster.reply(leader, ticket).is_some());
    let state = cluster.protocol(leader).table();
    let latest = |of| said.borrow().iter().rev().find(|(to, ..)| *to == of).copied();
    for follower in cluster.ids().into_iter().filter(|id| *id != leader) {
        let (at, digest) = (Index(state.version().0), state.digest());
        assert_eq!(latest(follower), Some((follower, at, digest)));
        assert_eq!(cluster.protocol(follower).contradiction(), None);
    }
    let count = said.borrow().len();
    assert!((6..=12).contains(&count), "{count} in four seconds");
}
