//! What a connection sees of its own mistakes.

use trilemma_core::NodeId;
use trilemma_testkit::caught;

use super::*;

fn settings() -> Settings {
    Settings {
        window_calls: 2,
        window_bytes: 100,
        watches_max: 1,
        ..Settings::new(vec![NodeId(1)])
    }
}

fn dialed() -> Link {
    let id = ConnectionId { server: 0, number: 1 };
    Link::new(id, Instant::ZERO)
}

/// A connection with two calls under way, one of which nobody waits for any more, a watch, and one more of each that
/// waits for room.
fn ready() -> Link {
    let mut link = dialed();
    link.stage = Stage::Ready;
    link.sent(CallId(1), Some(Ticket(1)), 60);
    link.sent(CallId(2), Some(Ticket(2)), 40);
    link.forget(CallId(1));
    link.queue.insert(Ticket(3));
    link.watches = 1;
    link.opening.insert(Ticket(4));
    link.watch_queue.insert(Ticket(5));
    link.check(&settings());
    assert_eq!(link.calls(), 4);
    link
}

fn said(link: &Link) -> String {
    caught(|| link.check(&settings()))
}

#[test]
fn the_check_sees_more_than_the_connection_takes() {
    let mut many = ready();
    many.sent(CallId(3), None, 0);
    assert!(said(&many).contains("3 calls are under way on c0.1"));
    let mut large = ready();
    large.bytes = 101;
    assert!(said(&large).contains("101 B are under way on c0.1"));
    let mut open = ready();
    open.watches = 2;
    assert!(said(&open).contains("2 watches are open on c0.1"));
}

#[test]
fn the_check_sees_what_is_not_counted() {
    let mut bytes = ready();
    bytes.bytes = 99;
    assert!(said(&bytes).contains("bytes under way on c0.1 are counted"));
    let mut watch = ready();
    watch.watches = 0;
    assert!(said(&watch).contains("counts as one"));
}

#[test]
fn the_check_sees_what_waits_for_nothing() {
    let mut calls = ready();
    calls.take(CallId(1));
    calls.take(CallId(2));
    assert!(said(&calls).contains("calls wait for room on c0.1, and nothing is under way"));
    let mut watches = ready();
    watches.watch_ended();
    watches.opening.clear();
    assert!(said(&watches).contains("watches wait for another on c0.1 to end"));
}

#[test]
fn the_check_sees_a_connection_that_serves_before_it_is_introduced() {
    let mut link = dialed();
    link.check(&settings());
    link.sent(CallId(1), None, 0);
    assert!(said(&link).contains("c0.1 is not connected yet"));
    link.stage = Stage::Introducing(CallId(1));
    link.check(&settings());
    link.queue.insert(Ticket(3));
    assert!(said(&link).contains("asked for nothing but its overview"));
    link.queue.clear();
    link.stage = Stage::Introducing(CallId(9));
    assert!(said(&link).contains("asked for nothing but its overview"));
}
