//! Random worlds: whatever servers, links and callers do, every call is answered once, in time, and rightly.

use std::collections::{BTreeMap, BTreeSet};

use trilemma_core::Rng;

use super::*;

/// What a call may be answered with.
#[derive(Debug, Default)]
struct Known {
    deadline: Instant,
    /// Its operation, if it is a write; and whether the caller said that an earlier attempt may have run.
    write: Option<(OpId, Attempt)>,
    gossip: bool,
}

/// What nodes did with an operation.
#[derive(Debug, Default)]
struct Done {
    /// Some node has run it, or may.
    ran: bool,
    /// The nodes that were given it.
    given: BTreeSet<NodeId>,
}

fn timeout(rng: &mut Rng) -> Duration {
    u32::try_from(50 + rng.below(2000)).unwrap_or(50) * MS
}

fn begin(bench: &mut Bench, rng: &mut Rng, seq: &mut u64) -> (Ticket, Known) {
    let backend = *rng.pick(&Backend::ALL).expect("there are some");
    let wait = timeout(rng);
    let what = match rng.below(6) {
        0 => read(backend),
        1 => watch(),
        2 => What::Overview,
        _ => {
            *seq += 1;
            write(backend, *seq)
        }
    };
    let known = Known {
        deadline: bench.now + wait,
        write: match &what {
            What::Request {
                request: Request::Write { op, attempt, .. },
                ..
            } => Some((*op, *attempt)),
            _ => None,
        },
        gossip: backend == Backend::Gossip,
    };
    let server = rng.per_mille(50).then(|| NodeId(1 + rng.below(3) as u32));
    (bench.call_at(what, wait, server), known)
}

/// A node answers a request, or has run it and does not.
fn serve(bench: &mut Bench, rng: &mut Rng, sent: &Sent, done: &mut BTreeMap<OpId, Done>) {
    let reply = match &sent.request {
        ClientRequest::Overview => {
            let node = bench.client.server(sent.connection);
            ClientReply::Overview(Box::new(overview(node, rng.below(100))))
        }
        ClientRequest::Ask { request, .. } => {
            let kind = PendingKind::of(request);
            let reply = match rng.below(8) {
                0 => kind.refused(no_quorum()),
                1 => kind.refused(Reason::NoLeader),
                2 => kind.lost(UnknownCause::LeaderLost, Reason::NoLeader),
                3 => kind.refused(Reason::SessionExpired),
                4 => kind.refused(Reason::Overloaded { what: "x".into() }),
                _ => good(&sent.request),
            };
            ClientReply::Answer(rightly(&sent.request, request, reply, done))
        }
        ClientRequest::Members => ClientReply::Members(None),
        ClientRequest::Watch { .. } | ClientRequest::Room { .. } | ClientRequest::Cancel => return,
    };
    bench.reply(sent, Ok(reply));
}

/// A node that has run a write does not say for certain that it has not.
fn rightly(whole: &ClientRequest, request: &Request, reply: Reply, done: &mut BTreeMap<OpId, Done>) -> Reply {
    let Request::Write { op, .. } = request else {
        return reply;
    };
    let done = done.entry(*op).or_default();
    let certain = matches!(&reply, Reply::Write(Err(WriteError::NotApplied(_))));
    if certain && done.ran {
        return good(whole);
    }
    done.ran |= !certain;
    reply
}

fn judge(bench: &mut Bench, calls: &mut BTreeMap<Ticket, Known>, done: &BTreeMap<OpId, Done>) {
    for (ticket, answer) in std::mem::take(&mut bench.answers) {
        let call = calls.remove(&ticket).expect("a call is answered once");
        assert!(bench.now <= call.deadline, "it is answered by its deadline");
        let Some((op, attempt)) = call.write else {
            continue;
        };
        let done = done.get(&op);
        match answer {
            Answer::Reply(Reply::Write(Ok(_))) => {
                assert!(done.is_some_and(|done| done.ran), "what succeeded has run");
            }
            Answer::Reply(Reply::Write(Err(WriteError::NotApplied(refusal)))) => {
                assert_eq!(attempt, Attempt::First);
                let ran = done.is_some_and(|done| done.ran);
                assert!(!ran, "refused for certain ({refusal}), and it may have run");
            }
            Answer::Reply(Reply::Write(Err(_))) => {}
            other => panic!("a write was answered with {other:?}"),
        }
        if call.gossip && done.is_some_and(|done| done.ran) {
            let given = done.map_or(0, |done| done.given.len());
            assert!(given <= 1, "what one node may have run is at no other");
        }
    }
}

fn run(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut bench = Bench::with(3, |settings| {
        settings.window_calls = 1 + seed as usize % 4;
        settings.watches_max = 2;
    });
    let mut calls: BTreeMap<Ticket, Known> = BTreeMap::new();
    let mut done: BTreeMap<OpId, Done> = BTreeMap::new();
    let mut under_way: Vec<Sent> = Vec::new();
    let mut live: BTreeSet<ConnectionId> = BTreeSet::new();
    let mut watches: Vec<ConnectionId> = Vec::new();
    let mut seq = 0;
    for step in 0..400 {
        let goes_on = step < 300;
        match rng.below(12) {
            0..3 if goes_on => {
                let (ticket, known) = begin(&mut bench, &mut rng, &mut seq);
                calls.insert(ticket, known);
            }
            3 => {
                if let Some((connection, _)) = bench.dials.pop_front() {
                    if rng.per_mille(600) {
                        live.insert(connection);
                        bench.connect(connection);
                    } else if rng.per_mille(500) {
                        bench.lose(connection);
                    }
                }
            }
            4..8 if !under_way.is_empty() => {
                let place = rng.below(under_way.len() as u64) as usize;
                let sent = under_way.swap_remove(place);
                if live.contains(&sent.connection) {
                    serve(&mut bench, &mut rng, &sent, &mut done);
                }
            }
            8 if rng.per_mille(300) => {
                let connection = live.iter().copied().nth(rng.below(3) as usize);
                if let Some(connection) = connection {
                    live.remove(&connection);
                    bench.lose(connection);
                }
            }
            9 => {
                let ticket = calls.keys().copied().nth(rng.below(20) as usize);
                if let Some(ticket) = ticket.filter(|_| rng.per_mille(300)) {
                    bench.drop_call(ticket);
                    calls.remove(&ticket);
                }
            }
            10 => {
                if let Some((ticket, connection)) = bench.watches.pop_front() {
                    if rng.per_mille(700) {
                        bench.client.on_watch_open(ticket);
                        watches.push(connection);
                        bench.take();
                    } else {
                        live.remove(&connection);
                        bench.lose(connection);
                    }
                } else if let Some(connection) = watches.pop() {
                    bench.client.on_watch_ended(bench.now, connection);
                    bench.take();
                }
            }
            _ => {
                let time = u32::try_from(rng.below(80)).unwrap_or(0) * MS;
                // Answers are judged at the time at which they were given.
                let until = bench.now + time;
                while bench.now < until {
                    let next = bench.client.wake_at().min(until).max(bench.now);
                    let step = next.since(bench.now);
                    bench.pass(step);
                    judge(&mut bench, &mut calls, &done);
                }
            }
        }
        for connection in bench.closed.drain(..) {
            live.remove(&connection);
        }
        for sent in std::mem::take(&mut bench.sent) {
            if let ClientRequest::Ask {
                request: Request::Write { op, .. },
                ..
            } = &sent.request
            {
                let done = done.entry(*op).or_default();
                let to = bench.client.server(sent.connection);
                if done.ran || !done.given.contains(&to) {
                    // What was refused for certain elsewhere is not there.
                    if !done.ran {
                        done.given.clear();
                    }
                    done.given.insert(to);
                }
                // Until it answers, it may run it.
                if rng.per_mille(200) {
                    done.ran = true;
                }
            }
            under_way.push(sent);
        }
        judge(&mut bench, &mut calls, &done);
    }
    for _ in 0..100 {
        bench.pass(30 * MS);
        bench.answers.retain(|(ticket, _)| calls.remove(ticket).is_some());
        bench.answers.clear();
    }
    assert!(calls.is_empty(), "seed {seed}: not answered: {calls:?}");
    assert_eq!(bench.client.pending(), 0);
}

#[test]
fn every_call_is_answered_once_in_time_and_rightly() {
    for seed in 0..300 {
        run(seed);
    }
}
