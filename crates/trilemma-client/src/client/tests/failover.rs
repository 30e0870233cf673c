//! Nodes that cannot serve, and servers that a caller wants.

use super::*;

#[test]
fn m12_a_call_leaves_a_node_that_has_no_quorum_and_the_next_ones_go_where_it_went() {
    let mut bench = Bench::connected(3);
    let call = bench.call(write(Backend::Raft, 1), 1000 * MS);
    let sent = bench.sent_to(1);
    bench.refuse(&sent, no_quorum());
    let second = bench.dialed(2);
    bench.introduce(second);
    let sent = bench.sent_to(2);
    assert_eq!(
        sent.attempt(),
        Some(Attempt::First),
        "nothing had happened at the first"
    );
    bench.succeed(&sent);
    assert!(is_ok(&bench.replied(call)));

    bench.call(write(Backend::Raft, 2), 1000 * MS);
    bench.sent_to(2);
    // Another keyspace has no reason to leave.
    bench.call(read(Backend::Gossip), 1000 * MS);
    bench.sent_to(1);
}

#[test]
fn m12_when_every_server_has_refused_the_first_refusal_is_the_answer_at_once() {
    let mut bench = Bench::connected(3);
    let call = bench.call(write(Backend::Raft, 1), 5000 * MS);
    let sent = bench.sent_to(1);
    bench.refuse(&sent, no_quorum());
    let second = bench.dialed(2);
    bench.introduce(second);
    let sent = bench.sent_to(2);
    bench.refuse(&sent, Reason::NoLeader);
    let third = bench.dialed(3);
    bench.lose(third);
    assert_eq!(refusal(bench.replied(call)), no_quorum());
    assert!(bench.is_idle());
}

#[test]
fn m12_the_time_for_another_server_is_that_of_the_call() {
    let mut bench = Bench::connected(2);
    let call = bench.call(write(Backend::Raft, 1), 1000 * MS);
    bench.pass(600 * MS);
    let sent = bench.sent_to(1);
    bench.refuse(&sent, Reason::Stopping);
    bench.dialed(2);
    bench.pass(399 * MS);
    assert!(bench.answers.is_empty());
    bench.pass(MS);
    assert_eq!(
        refusal(bench.replied(call)),
        Reason::Stopping,
        "what is known is said"
    );
}

#[test]
fn a_refusal_that_every_node_would_give_ends_the_call() {
    let mut bench = Bench::connected(3);
    for reason in [
        Reason::Fenced,
        Reason::Deadline,
        Reason::Overloaded { what: "x".into() },
        Reason::Invalid { what: "x".into() },
    ] {
        let call = bench.call(write(Backend::Raft, 1), 1000 * MS);
        let sent = bench.sent_to(1);
        bench.refuse(&sent, reason.clone());
        assert_eq!(refusal(bench.replied(call)), reason);
        assert!(bench.is_idle());
    }
}

#[test]
fn h6_a_retry_that_all_servers_refuse_stays_unknown() {
    let mut bench = Bench::connected(2);
    let call = bench.call(retry(Backend::Raft, 1), 1000 * MS);
    let sent = bench.sent_to(1);
    bench.refuse(&sent, no_quorum());
    let second = bench.dialed(2);
    bench.lose(second);
    assert!(
        bench.answers.is_empty(),
        "it goes on: an earlier attempt may have run"
    );
    bench.pass(1000 * MS);
    let cause = unknown(bench.replied(call));
    assert!(matches!(cause, UnknownCause::RetryRefused { .. }), "{cause}");
}

#[test]
fn h6_a_retry_goes_on_until_a_node_knows() {
    let mut bench = Bench::connected(1);
    let call = bench.call(retry(Backend::Raft, 1), 1000 * MS);
    let sent = bench.sent_to(1);
    bench.refuse(&sent, Reason::NoLeader);
    bench.pass(49 * MS);
    assert!(bench.is_idle());
    bench.pass(MS);
    let sent = bench.sent_to(1);
    bench.succeed(&sent);
    assert!(is_ok(&bench.replied(call)));
}

#[test]
fn a_retry_that_a_node_decides_is_over() {
    let mut bench = Bench::connected(2);
    let call = bench.call(retry(Backend::Raft, 1), 1000 * MS);
    let sent = bench.sent_to(1);
    bench.refuse(&sent, Reason::Fenced);
    assert_eq!(refusal(bench.replied(call)), Reason::Fenced);
}

#[test]
fn a_server_that_the_caller_wants_is_the_only_one_asked() {
    let mut bench = Bench::connected(3);
    let call = bench.call_at(write(Backend::Raft, 1), 1000 * MS, Some(NodeId(3)));
    let third = bench.dialed(3);
    bench.introduce(third);
    let sent = bench.sent_to(3);
    bench.refuse(&sent, no_quorum());
    assert_eq!(refusal(bench.replied(call)), no_quorum());
    assert!(bench.is_idle());
}

#[test]
fn before_a_caller_learns_that_its_session_is_gone_the_client_learns_where_a_new_one_begins() {
    let mut bench = Bench::connected(1);
    let call = bench.call(write(Backend::Raft, 1), 1000 * MS);
    let sent = bench.sent();
    bench.learned.clear();
    bench.refuse(&sent, Reason::SessionExpired);
    assert!(bench.answers.is_empty());
    let asked = bench.sent();
    let now = Box::new(overview(NodeId(1), 700));
    bench.reply(&asked, Ok(ClientReply::Overview(now)));
    assert_eq!(bench.learned.first(), Some(&Version(700)));
    assert_eq!(refusal(bench.replied(call)), Reason::SessionExpired);

    // It learns of it in time, whatever becomes of that.
    for lost in [true, false] {
        let call = bench.call(write(Backend::Raft, 2), 1000 * MS);
        let sent = bench.sent();
        bench.refuse(&sent, Reason::SessionExpired);
        let asked = bench.sent();
        if lost {
            bench.lose(asked.connection);
        } else {
            bench.pass(1000 * MS);
        }
        assert_eq!(refusal(bench.replied(call)), Reason::SessionExpired);
        if lost {
            bench.connect_first();
        }
    }
}

#[test]
fn good_answers_show_how_far_a_keyspace_with_one_order_has_come() {
    let mut bench = Bench::connected(1);
    bench.learned.clear();
    for what in [
        write(Backend::Raft, 1),
        read(Backend::TwoPhase),
        write(Backend::Paxos, 2),
        read(Backend::Gossip),
    ] {
        bench.call(what, 1000 * MS);
        let sent = bench.sent();
        bench.succeed(&sent);
    }
    assert_eq!(bench.learned, [Version(5), Version(9)]);
}
