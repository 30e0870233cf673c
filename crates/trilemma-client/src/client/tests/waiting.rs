//! Deadlines and dials.

use super::*;

#[test]
fn h11_callers_of_silent_servers_share_one_dial_and_are_refused_at_their_deadlines() {
    let mut bench = Bench::new(1);
    let calls: Vec<Ticket> = (1..=5)
        .map(|seq| bench.call(write(Backend::Raft, seq), 200 * MS))
        .collect();
    assert_eq!(bench.dials.len(), 1, "five callers share one dial");
    bench.pass(199 * MS);
    assert!(bench.answers.is_empty());
    bench.pass(MS);
    for call in calls {
        let reason = refusal(bench.replied(call));
        assert!(matches!(reason, Reason::Unreachable { .. }), "{reason}");
    }
    assert_eq!(bench.dials.len(), 1, "and nothing is dialed after them");
}

#[test]
fn h11_the_next_server_is_dialed_beside_a_silent_one() {
    let mut bench = Bench::new(3);
    let call = bench.call(read(Backend::Raft), 5000 * MS);
    let silent = bench.dialed(1);
    bench.pass(199 * MS);
    assert!(bench.is_idle());
    bench.pass(MS);
    let second = bench.dialed(2);
    bench.introduce(second);
    let sent = bench.sent_to(2);
    bench.succeed(&sent);
    assert!(is_ok(&bench.replied(call)));
    // The first answers at last, and nobody waits for it.
    bench.connect(silent);
    assert_eq!(bench.closed, [silent]);
    assert!(bench.is_idle());
}

#[test]
fn h11_a_failed_dial_is_remembered_for_a_moment() {
    let mut bench = Bench::new(1);
    let first = bench.call(read(Backend::Raft), 1000 * MS);
    let connection = bench.dialed(1);
    bench.lose(connection);
    let reason = refusal(bench.replied(first));
    assert!(reason.to_string().contains("node 1: it is gone"), "{reason}");
    let second = bench.call(read(Backend::Raft), 1000 * MS);
    assert!(matches!(
        refusal(bench.replied(second)),
        Reason::Unreachable { .. }
    ));
    assert!(bench.is_idle(), "nothing is dialed for it");
    bench.pass(300 * MS);
    bench.call(read(Backend::Raft), 1000 * MS);
    bench.dialed(1);
}

#[test]
fn a_dial_that_fails_leads_to_the_next_server_at_once() {
    let mut bench = Bench::new(2);
    let call = bench.call(read(Backend::Raft), 1000 * MS);
    let first = bench.dialed(1);
    bench.lose(first);
    let second = bench.dialed(2);
    bench.introduce(second);
    let sent = bench.sent_to(2);
    bench.succeed(&sent);
    assert!(is_ok(&bench.replied(call)));
}

#[test]
fn a_dial_that_takes_too_long_is_ended() {
    let mut bench = Bench::new(1);
    let call = bench.call(read(Backend::Raft), 60_000 * MS);
    let connection = bench.dialed(1);
    bench.connect(connection);
    let asked = bench.sent();
    bench.pass(2000 * MS);
    assert_eq!(bench.closed, [connection], "it did not introduce itself in time");
    assert!(matches!(refusal(bench.replied(call)), Reason::Unreachable { .. }));
    // What comes late changes nothing.
    let late = Box::new(overview(NodeId(1), 0));
    bench.reply(&asked, Ok(ClientReply::Overview(late)));
    assert!(bench.is_idle());
}

#[test]
fn what_was_sent_and_not_answered_by_the_deadline_is_unknown() {
    let mut bench = Bench::connected(1);
    let call = bench.call(write(Backend::Raft, 1), 1000 * MS);
    let asked = bench.call(read(Backend::Raft), 1000 * MS);
    let (sent, _) = (bench.sent(), bench.sent());
    assert_eq!(sent.timeout(), 900 * MS, "the node answers a little earlier");
    bench.pass(1000 * MS);
    assert_eq!(unknown(bench.replied(call)), UnknownCause::Deadline);
    assert_eq!(refusal(bench.replied(asked)), Reason::Deadline);
    bench.succeed(&sent);
    assert!(bench.answers.is_empty(), "a late answer is nobody's");
}

#[test]
fn a_dropped_call_leaves_nothing_behind() {
    let mut bench = Bench::new(2);
    let waiting = bench.call(write(Backend::Raft, 1), 1000 * MS);
    bench.drop_call(waiting);
    let connection = bench.dialed(1);
    bench.connect(connection);
    assert_eq!(
        bench.closed,
        [connection],
        "nobody waits for the connection any more"
    );

    bench.connect_first();
    let sent = bench.call(write(Backend::Raft, 2), 1000 * MS);
    let request = bench.sent();
    bench.drop_call(sent);
    assert_eq!(bench.client.pending(), 0);
    bench.succeed(&request);
    bench.pass(5000 * MS);
    assert!(bench.answers.is_empty() && bench.is_idle());
    assert_eq!(bench.client.wake_at(), Instant::NEVER);
}

#[test]
fn a_server_that_is_not_configured_is_refused_at_once() {
    let mut bench = Bench::connected(2);
    let call = bench.call_at(read(Backend::Raft), 1000 * MS, Some(NodeId(7)));
    assert!(matches!(refusal(bench.replied(call)), Reason::Invalid { .. }));
}

#[test]
fn a_keyspace_that_the_node_does_not_serve_is_refused_with_those_it_does() {
    let mut bench = Bench::connected(1);
    let what = What::Request {
        keyspace: "carts".into(),
        backend: Backend::Raft,
        request: Request::Read(ReadRequest {
            query: Query::Get("k".into()),
            level: None,
        }),
    };
    let call = bench.call(what, 1000 * MS);
    let reason = refusal(bench.replied(call));
    assert!(
        reason.to_string().contains("gossip, paxos, raft, two-phase"),
        "{reason}"
    );
}
