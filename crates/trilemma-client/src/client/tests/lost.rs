//! Connections that are lost, and what was under way on them.

use super::*;

/// Loses the connection of the call that was sent, and lets the next server introduce itself.
fn lose_and_connect_second(bench: &mut Bench, sent: &Sent) {
    bench.lose(sent.connection);
    let second = bench.dialed(2);
    bench.introduce(second);
}

#[test]
fn a_read_is_asked_again_at_the_next_server() {
    let mut bench = Bench::connected(2);
    let call = bench.call(read(Backend::Raft), 1000 * MS);
    let sent = bench.sent_to(1);
    lose_and_connect_second(&mut bench, &sent);
    let again = bench.sent_to(2);
    bench.succeed(&again);
    assert!(is_ok(&bench.replied(call)));
}

#[test]
fn a_write_whose_session_all_replicas_remember_is_asked_again_as_a_retry() {
    for backend in [Backend::Raft, Backend::Paxos, Backend::TwoPhase] {
        let mut bench = Bench::connected(2);
        let call = bench.call(write(backend, 1), 1000 * MS);
        let sent = bench.sent_to(1);
        lose_and_connect_second(&mut bench, &sent);
        let again = bench.sent_to(2);
        assert_eq!(again.attempt(), Some(Attempt::Retry));
        bench.succeed(&again);
        assert!(is_ok(&bench.replied(call)));
    }
}

#[test]
fn a_write_that_one_node_knows_is_unknown_and_its_retry_goes_to_that_node_alone() {
    let mut bench = Bench::connected(2);
    let call = bench.call(write(Backend::Gossip, 1), 1000 * MS);
    let sent = bench.sent_to(1);
    bench.lose(sent.connection);
    assert_eq!(unknown(bench.replied(call)), UnknownCause::ReplyLost);
    // Other work has led it to the second server.
    let other = bench.call(read(Backend::Gossip), 1000 * MS);
    let second = bench.dialed(2);
    bench.introduce(second);
    let sent = bench.sent_to(2);
    bench.succeed(&sent);
    assert!(is_ok(&bench.replied(other)));

    let question = bench.call(outcome(Backend::Gossip, 1), 1000 * MS);
    let again = bench.call(retry(Backend::Gossip, 1), 1000 * MS);
    let first = bench.dialed(1);
    assert!(
        bench.is_idle(),
        "the second server would make another write of it"
    );
    bench.introduce(first);
    let sent = bench.sent_to(1);
    bench.succeed(&sent);
    assert!(is_ok(&bench.replied(question)));
    let sent = bench.sent_to(1);
    assert_eq!(sent.attempt(), Some(Attempt::Retry));
    bench.succeed(&sent);
    assert!(is_ok(&bench.replied(again)));
}

#[test]
fn a_retry_that_one_node_knows_stays_at_the_node_that_was_given_it() {
    let mut bench = Bench::connected(2);
    let call = bench.call(retry(Backend::Gossip, 1), 1000 * MS);
    let sent = bench.sent_to(1);
    bench.refuse(&sent, Reason::Stopping);
    assert!(bench.is_idle(), "no other server is asked");
    bench.pass(50 * MS);
    let sent = bench.sent_to(1);
    bench.succeed(&sent);
    assert!(is_ok(&bench.replied(call)));
}

#[test]
fn a_dropped_write_that_one_node_knows_is_remembered() {
    let mut bench = Bench::connected(2);
    let call = bench.call(write(Backend::Gossip, 1), 1000 * MS);
    let sent = bench.sent_to(1);
    bench.drop_call(call);
    bench.lose(sent.connection);
    bench.call(retry(Backend::Gossip, 1), 1000 * MS);
    bench.dialed(1);
}

#[test]
fn an_outcome_that_a_node_does_not_know_is_asked_for_again_until_the_deadline() {
    let mut bench = Bench::connected(1);
    let call = bench.call(write(Backend::Raft, 1), 1000 * MS);
    let sent = bench.sent();
    let lost = Reply::Write(Err(WriteError::Unknown {
        op: op(1),
        cause: UnknownCause::LeaderLost,
    }));
    bench.reply(&sent, Ok(ClientReply::Answer(lost)));
    bench.pass(50 * MS);
    let again = bench.sent();
    assert_eq!(again.attempt(), Some(Attempt::Retry));
    bench.refuse(&again, Reason::NoLeader);
    bench.pass(100 * MS);
    let again = bench.sent();
    bench.pass(850 * MS);
    assert_eq!(
        unknown(bench.replied(call)),
        UnknownCause::LeaderLost,
        "the cause is the first"
    );
    bench.succeed(&again);
    assert!(bench.answers.is_empty());
}

#[test]
fn a_request_that_ends_whatever_node_takes_it_does_not_go_round_all_of_them() {
    let mut bench = Bench::connected(9);
    let call = bench.call(read(Backend::Raft), 60_000 * MS);
    let mut losses = 0;
    while bench.answers.is_empty() {
        let sent = bench.sent();
        bench.lose(sent.connection);
        losses += 1;
        if let Some((connection, _)) = bench.dials.pop_front() {
            bench.introduce(connection);
        }
    }
    assert_eq!(losses, 3);
    assert!(matches!(refusal(bench.replied(call)), Reason::Unreachable { .. }));
}

#[test]
fn an_answer_that_is_none_leaves_a_write_unknown() {
    let mut bench = Bench::connected(1);
    for reply in [
        Err("it does not decode".to_owned()),
        Ok(ClientReply::Answer(good(&ClientRequest::Ask {
            keyspace: KeyspaceId(1),
            timeout_ms: 1,
            request: Request::Read(ReadRequest {
                query: Query::Get("k".into()),
                level: None,
            }),
        }))),
    ] {
        let call = bench.call(write(Backend::Raft, 1), 1000 * MS);
        let sent = bench.sent();
        bench.reply(&sent, reply);
        assert_eq!(unknown(bench.replied(call)), UnknownCause::ReplyLost);
    }
    let call = bench.call(write(Backend::Raft, 1), 1000 * MS);
    let sent = bench.sent();
    bench.reply(&sent, Ok(ClientReply::Bad("what is this?".into())));
    assert!(
        matches!(refusal(bench.replied(call)), Reason::Invalid { .. }),
        "nothing was done"
    );
}

#[test]
fn a_lost_connection_is_dialed_again_when_somebody_needs_it() {
    let mut bench = Bench::connected(1);
    bench.call(write(Backend::Raft, 1), 1000 * MS);
    let sent = bench.sent();
    bench.lose(sent.connection);
    let again = bench.dialed(1);
    assert_ne!(again, sent.connection);
    bench.introduce(again);
    bench.sent_to(1);
    // The late news of the old one is no news of the new one.
    bench.lose(sent.connection);
    assert!(bench.is_idle());
}
