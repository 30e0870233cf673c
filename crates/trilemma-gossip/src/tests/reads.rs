//! Range reads take parts of turns.

use trilemma_core::host::{DynProtocol, GroupInput};
use trilemma_core::{Attempt, Command, KeyRange, Proposal, Query, ReadRequest, Reply, Request, Ticket};
use trilemma_testkit::write;

use super::findings::Single;
use crate::reads::SCANS_MAX;

fn propose(single: &mut Single, ticket: u64, request: Request) {
    let deadline = single.now.instant + std::time::Duration::from_secs(5);
    let ticket = Ticket(ticket);
    let input = GroupInput::Propose(Proposal {
        ticket,
        deadline,
        request,
    });
    single.host.step(single.now, input, &mut single.output);
}

fn range(start: &str) -> Request {
    let (start, end) = (start.into(), None);
    let range = KeyRange { start, end };
    Request::Read(ReadRequest {
        query: Query::Range { range, limit: 10 },
        level: None,
    })
}

/// A turn without input; what it answers: ticket, entries, whether there are more. `None` is a refusal.
fn turn(single: &mut Single) -> Vec<(u64, Option<(usize, bool)>)> {
    single.output.clear();
    single
        .host
        .step(single.now, GroupInput::EndTurn, &mut single.output);
    let answer = |(ticket, reply): &(Ticket, Reply)| match reply {
        Reply::Read(Ok(read)) => (ticket.0, Some((read.entries.len(), read.more))),
        Reply::Read(Err(_)) => (ticket.0, None),
        other => panic!("{other:?}"),
    };
    single.output.replies.iter().map(answer).collect()
}

/// A node with so many deleted keys, and one behind them that exists.
fn deleted(keys: u64, turn_items: usize) -> Single {
    let mut single = Single::with(|config| config.turn_items = turn_items);
    for key in 0..keys {
        let command = Command::delete(format!("k{key:05}"));
        propose(&mut single, key, write(key + 1, Attempt::First, command));
    }
    propose(
        &mut single,
        keys,
        write(keys + 1, Attempt::First, Command::put("z", "v")),
    );
    let up_to = single.output.records.last().expect("they were logged").seq;
    single.step(GroupInput::Persisted { up_to });
    single
}

#[test]
fn a_range_read_looks_at_a_limited_number_of_deleted_keys_in_a_turn() {
    let mut single = deleted(3000, 500);
    propose(&mut single, 7001, range("a"));
    propose(&mut single, 7002, range("y"));
    let mut turns = vec![turn(&mut single)];
    while single.host.goes_on() {
        assert!(turns.len() < 20, "{turns:?}");
        turns.push(turn(&mut single));
    }
    assert_eq!(
        turns[0],
        [(7002, Some((1, false)))],
        "a short read does not wait for a long one"
    );
    assert_eq!(turns.last(), Some(&vec![(7001, Some((1, false)))]));
    assert!((6..=12).contains(&turns.len()), "{} turns", turns.len());
}

#[test]
fn a_range_read_is_of_the_moment_at_which_it_began() {
    let mut single = deleted(1000, 100);
    propose(&mut single, 7001, range(""));
    assert_eq!(turn(&mut single), []);
    propose(
        &mut single,
        7002,
        write(2000, Attempt::First, Command::put("zz", "v")),
    );
    let mut answers = Vec::new();
    while single.host.goes_on() {
        answers.extend(turn(&mut single));
    }
    assert_eq!(answers, [(7001, Some((1, false)))]);
}

#[test]
fn range_reads_end_with_their_deadlines_and_are_bounded() {
    let mut single = deleted(5, 1);
    for ticket in 0..=SCANS_MAX as u64 {
        propose(&mut single, 7000 + ticket, range(""));
    }
    let refused = single
        .output
        .replies
        .iter()
        .filter(|(_, reply)| matches!(reply, Reply::Read(Err(_))));
    let refused: Vec<u64> = refused.map(|(ticket, _)| ticket.0).collect();
    assert_eq!(refused, [7000 + SCANS_MAX as u64]);
    assert_eq!(turn(&mut single), []);
    single.now.instant = single.now.instant + std::time::Duration::from_secs(5);
    let late = turn(&mut single);
    assert_eq!(late.len(), SCANS_MAX, "all are refused");
    assert!(late.iter().all(|(_, found)| found.is_none()));
    assert!(!single.host.goes_on());
}
