//! What waits for room, and what is too large.

use super::*;
use crate::client::TooLarge;

#[test]
fn m11_what_goes_beyond_the_window_waits_and_no_other_server_is_dialed() {
    let mut bench = Bench::with(3, |settings| settings.window_bytes = 1000);
    bench.connect_first();
    let put = |seq| {
        write_as(
            Backend::Raft,
            seq,
            Attempt::First,
            Command::put("k", vec![0; 400]),
        )
    };
    let calls: Vec<Ticket> = (1..=5).map(|seq| bench.call(put(seq), 1000 * MS)).collect();
    assert_eq!(bench.sent.len(), 2, "two fit");
    assert!(bench.dials.is_empty());
    for call in calls {
        let sent = bench.sent();
        bench.succeed(&sent);
        assert!(is_ok(&bench.replied(call)), "in the order in which they came");
    }
}

/// Two queue behind what is under way: a large one that has no room, and a small one that would have.
#[test]
fn what_waits_behind_a_call_that_leaves_the_queue_is_sent() {
    for is_dropped in [true, false] {
        let mut bench = Bench::with(1, |settings| settings.window_bytes = 1000);
        bench.connect_first();
        let put = |seq, bytes| {
            write_as(
                Backend::Raft,
                seq,
                Attempt::First,
                Command::put("k", vec![0; bytes]),
            )
        };
        bench.call(put(1, 400), 5000 * MS);
        let large = bench.call(put(2, 800), 1000 * MS);
        let small = bench.call(put(3, 100), 5000 * MS);
        bench.sent();
        assert!(bench.is_idle(), "each waits for its turn");
        if is_dropped {
            bench.drop_call(large);
        } else {
            bench.pass(1000 * MS);
        }
        let sent = bench.sent();
        bench.succeed(&sent);
        assert!(is_ok(&bench.replied(small)));
    }
}

#[test]
fn m11_one_call_is_let_through_whatever_its_size() {
    let mut bench = Bench::with(1, |settings| settings.window_bytes = 10);
    bench.connect_first();
    let call = bench.call(write(Backend::Raft, 1), 1000 * MS);
    bench.call(write(Backend::Raft, 2), 1000 * MS);
    let sent = bench.sent();
    assert!(bench.is_idle());
    bench.succeed(&sent);
    assert!(is_ok(&bench.replied(call)));
    bench.sent();
}

#[test]
fn m11_a_call_that_never_got_room_was_certainly_not_done() {
    let mut bench = Bench::with(1, |settings| settings.window_calls = 1);
    bench.connect_first();
    bench.call(write(Backend::Raft, 1), 5000 * MS);
    let call = bench.call(write(Backend::Raft, 2), 1000 * MS);
    bench.pass(1000 * MS);
    assert!(matches!(refusal(bench.replied(call)), Reason::Overloaded { .. }));
}

#[test]
fn m11_a_request_that_is_too_large_was_certainly_not_done() {
    let mut bench = Bench::connected(2);
    let call = bench.call(write(Backend::Raft, 1), 1000 * MS);
    let sent = bench.sent();
    let size = TooLarge { size: 9, limit: 8 };
    bench
        .client
        .on_too_large(bench.now, sent.connection, sent.call, size);
    bench.take();
    let reason = refusal(bench.replied(call));
    assert!(
        matches!(
            reason,
            Reason::TooLarge {
                size: 9,
                limit: 8,
                ..
            }
        ),
        "{reason}"
    );
}

#[test]
fn m11_watches_beyond_the_limit_wait_for_one_to_end() {
    let mut bench = Bench::with(2, |settings| settings.watches_max = 2);
    bench.connect_first();
    let calls: Vec<Ticket> = (0..3).map(|_| bench.call(watch(), 1000 * MS)).collect();
    let mut open = Vec::new();
    while let Some((ticket, connection)) = bench.watches.pop_front() {
        bench.client.on_watch_open(ticket);
        bench.take();
        assert_eq!(bench.answer(ticket), Some(Answer::Watching(connection)));
        open.push(connection);
    }
    assert_eq!(open.len(), 2);
    assert!(bench.is_idle());
    bench.client.on_watch_ended(bench.now, open[0]);
    bench.take();
    let (ticket, _) = bench.watches.pop_front().expect("there is room for the third");
    assert_eq!(ticket, calls[2]);
}

#[test]
fn a_watch_that_cannot_be_opened_goes_to_the_next_server() {
    let mut bench = Bench::connected(2);
    let call = bench.call(watch(), 1000 * MS);
    let (_, connection) = bench.watches.pop_front().expect("a watch is opened");
    bench.lose(connection);
    let second = bench.dialed(2);
    bench.introduce(second);
    let (ticket, connection) = bench.watches.pop_front().expect("there it is opened");
    assert_eq!(ticket, call);
    bench.client.on_watch_open(ticket);
    bench.take();
    assert_eq!(bench.answer(call), Some(Answer::Watching(connection)));
}

#[test]
fn the_calls_of_a_client_are_bounded() {
    let mut bench = Bench::with(1, |settings| settings.calls_max = 2);
    bench.connect_first();
    bench.call(write(Backend::Raft, 1), 1000 * MS);
    bench.call(write(Backend::Raft, 2), 1000 * MS);
    let call = bench.call(write(Backend::Raft, 3), 1000 * MS);
    assert!(matches!(refusal(bench.replied(call)), Reason::Overloaded { .. }));
}

#[test]
fn an_answer_for_nobody_makes_room_all_the_same() {
    let mut bench = Bench::with(1, |settings| settings.window_calls = 1);
    bench.connect_first();
    let gone = bench.call(write(Backend::Raft, 1), 1000 * MS);
    bench.call(write(Backend::Raft, 2), 1000 * MS);
    bench.drop_call(gone);
    let sent = bench.sent();
    assert!(bench.is_idle(), "the node still works on it");
    bench.succeed(&sent);
    bench.sent();
}
