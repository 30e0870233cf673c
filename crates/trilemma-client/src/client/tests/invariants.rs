//! What the machine sees of its own mistakes.

use trilemma_testkit::caught;

use super::*;
use crate::client::Place;

/// A client with one call that waits for a dial.
fn waiting() -> (Bench, Ticket) {
    let mut bench = Bench::new(2);
    let ticket = bench.call(write(Backend::Raft, 1), 1000 * MS);
    bench.dialed(1);
    (bench, ticket)
}

fn said(bench: &Bench) -> String {
    caught(|| bench.client.check())
}

#[test]
fn the_check_sees_a_call_that_nothing_will_serve() {
    let (mut bench, _) = waiting();
    bench.client.next_dial = Instant::NEVER;
    bench.client.check();
    bench.client.servers[0].link = None;
    assert!(said(&bench).contains("no server is dialed"));
}

#[test]
fn the_check_sees_a_call_that_waits_beside_a_connection() {
    let mut bench = Bench::connected(2);
    let ticket = bench.call(write(Backend::Raft, 1), 1000 * MS);
    bench.client.wait(ticket);
    bench.client.next_dial = bench.now;
    assert!(said(&bench).contains("waits for a connection and there is one"));
}

#[test]
fn the_check_sees_a_call_that_is_not_where_it_says() {
    let (mut bench, ticket) = waiting();
    let call = bench.client.calls.get_mut(&ticket).unwrap();
    call.place = Place::Paused(Instant::ZERO);
    assert!(said(&bench).contains("is not where it says"));
}

#[test]
fn the_check_sees_what_waits_and_is_no_call() {
    let (mut bench, ticket) = waiting();
    bench.client.paused.insert((bench.now, ticket));
    assert!(said(&bench).contains("nothing waits but calls"));
}

#[test]
fn the_check_sees_a_call_with_another_deadline_or_none() {
    let (mut bench, ticket) = waiting();
    let (deadline, _) = bench.client.deadlines.pop_first().unwrap();
    assert!(said(&bench).contains("every call has its deadline"));
    bench.client.deadlines.insert((deadline + MS, ticket));
    assert!(said(&bench).contains("has its own deadline"));
}

#[test]
fn the_check_sees_more_than_the_client_may_hold() {
    let (mut bench, _) = waiting();
    bench.client.settings.calls_max = 0;
    assert!(said(&bench).contains("1 calls wait, 0 may"));
    let (mut bench, _) = waiting();
    bench.client.taken.insert(op(1), (1, 0));
    assert!(said(&bench).contains("remembered in order"));
    for number in 1..=4097 {
        bench.client.taken.insert(op(number), (number, 0));
        bench.client.taken_order.insert(number, op(number));
    }
    assert!(said(&bench).contains("operations remembered are bounded"));
}
