//! A cut at every message, in every direction, while one write is under way: the outcome is the same everywhere, and
//! it is what the caller learned (inside/two-phase#cut-at-any-message).

use std::cell::Cell;
use std::rc::Rc;

use trilemma_core::session::OpResult;
use trilemma_core::{NodeId, Reply, WriteError};
use trilemma_testkit::{Verdict, op};

use super::harness::*;
use super::invariants::Invariants;

#[derive(Clone, Copy, Debug)]
enum Direction {
    Both,
    FromSequencer,
    ToSequencer,
    AllToThird,
}

impl Direction {
    fn cuts(self, from: NodeId, to: NodeId) -> bool {
        match self {
            Direction::Both => true,
            Direction::FromSequencer => from == N1,
            Direction::ToSequencer => to == N1,
            Direction::AllToThird => to == N3 || from == N3,
        }
    }
}

/// What happens at the cut, besides.
#[derive(Clone, Copy, Debug)]
enum Also {
    Nothing,
    /// The nodes notice.
    Noticed,
    /// This node crashes, losing what is not durable.
    Crash(NodeId),
}

/// Cuts when message `at` is sent. Returns the answer and whether so many messages were sent at all.
fn write_with_cut(at: u32, client: NodeId, direction: Direction, also: Also) -> (Option<Reply>, bool) {
    let mut cluster = cluster(3, 100 + u64::from(at));
    put(&mut cluster, N1, 1, "k");
    rest(&mut cluster);
    let invariants = Invariants::watch(&mut cluster);
    let sent = Rc::new(Cell::new(0));
    let (counter, listener) = (Rc::clone(&sent), Rc::clone(&invariants));
    cluster.filter = Some(Box::new(move |from, to, message| {
        listener.borrow_mut().on_message(from, message);
        let number = counter.get();
        counter.set(number + 1);
        if number >= at && direction.cuts(from, to) {
            Verdict::Drop
        } else {
            Verdict::Deliver
        }
    }));
    let ticket = propose_put(&mut cluster, client, 2, "k", SECOND);
    let is_cut = cluster.run_until(millis(100), |_| sent.get() > at);
    match also {
        Also::Nothing => {}
        Also::Noticed => {
            for from in cluster.ids() {
                for to in cluster.ids() {
                    if from != to && direction.cuts(from, to) {
                        cluster.cut(from, to);
                    }
                }
            }
        }
        Also::Crash(node) => {
            invariants.borrow_mut().on_crash(node);
            cluster.crash_losing_all(node);
        }
    }
    cluster.run_until(3 * SECOND, |cluster| {
        invariants.borrow_mut().check(cluster);
        false
    });
    let reply = cluster.reply(client, ticket).cloned();
    cluster.filter = None;
    cluster.heal();
    for node in cluster.ids() {
        cluster.restart(node);
    }
    resolve(&mut cluster);
    invariants.borrow_mut().check(&cluster);
    let context = format!("cut at message {at}, {direction:?}, client at {client}, {also:?}: {reply:?}");
    let results = cluster
        .ids()
        .into_iter()
        .map(|node| result_at(&cluster, node, op(2)));
    let results: Vec<Option<OpResult>> = results.collect();
    assert!(
        results.iter().all(|result| *result == results[0]),
        "{context}: {results:?}"
    );
    let expected = if results[0].is_some() { "2" } else { "1" };
    for node in cluster.ids() {
        assert_eq!(local(&cluster, node, "k").as_deref(), Some(expected), "{context}");
    }
    match &reply {
        Some(Reply::Write(Ok(_))) => assert!(results[0].is_some(), "{context}"),
        Some(Reply::Write(Err(WriteError::NotApplied(_)))) => assert!(results[0].is_none(), "{context}"),
        Some(Reply::Write(Err(_))) => {}
        None => assert!(matches!(also, Also::Crash(node) if node == client), "{context}"),
        Some(other) => panic!("{context}: {other:?}"),
    }
    assert!(put(&mut cluster, N2, 3, "k").is_some_and(|reply| matches!(reply, Reply::Write(Ok(_)))));
    (reply, is_cut)
}

fn at_every_message(also: &[Also]) {
    let directions = [
        Direction::Both,
        Direction::FromSequencer,
        Direction::ToSequencer,
        Direction::AllToThird,
    ];
    let (mut committed, mut refused, mut unknown) = (0, 0, 0);
    for direction in directions {
        for client in [N1, N2] {
            for also in also {
                for at in 0.. {
                    let (reply, is_cut) = write_with_cut(at, client, direction, *also);
                    match reply {
                        Some(Reply::Write(Ok(_))) => committed += 1,
                        Some(Reply::Write(Err(WriteError::NotApplied(_)))) => refused += 1,
                        _ => unknown += 1,
                    }
                    if !is_cut {
                        assert!(at > 5, "a write takes more messages than {at}");
                        break;
                    }
                }
            }
        }
    }
    println!("{committed} committed, {refused} refused, {unknown} unknown");
    assert!(
        committed > 0 && refused > 0 && unknown > 0,
        "the cuts must show all outcomes"
    );
}

#[test]
fn a_cut_that_nobody_notices() {
    at_every_message(&[Also::Nothing]);
}

#[test]
fn a_cut_that_the_nodes_notice() {
    at_every_message(&[Also::Noticed]);
}

#[test]
fn a_cut_and_a_crash() {
    at_every_message(&[Also::Crash(N1), Also::Crash(N2), Also::Crash(N3)]);
}
