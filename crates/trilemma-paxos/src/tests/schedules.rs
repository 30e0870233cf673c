//! Schedules that have broken CASPaxos implementations, each played exactly.

use std::cell::RefCell;
use std::rc::Rc;

use trilemma_core::{
    Attempt, Command, Key, KeyRange, NodeId, Protocol, ReadLevel, Reply, Version, WriteError,
};
use trilemma_testkit::{get, succeeded, value, write};

use super::harness::*;
use super::invariants::Invariants;
use crate::Ballot;
use crate::message::{Answer, Ask, Message};

/// What one node's acceptor has promised for a key.
fn promised(cluster: &Paxi, node: NodeId, key: &str) -> Ballot {
    let key = Key::from(key);
    cluster
        .protocol(node)
        .held()
        .find(|held| held.key == key)
        .map_or(Ballot::ZERO, |held| held.promised)
}

/// inside/paxos#ballot-reuse: a one-trip write under the cached ballot reaches one acceptor alone, and its outcome is
/// unknown. If the proposer used that ballot again for the next write, a later prepare could return the first: a lost
/// write.
#[test]
fn a_ballot_is_never_used_again_after_an_unknown_accept() {
    for seed in 0..20 {
        let mut cluster = cluster(3, seed);
        let invariants = Rc::new(RefCell::new(Invariants::default()));
        assert!(succeeded(cluster.write(N1, 1, Command::put("k", "w0")).as_ref()));
        // accept(b, W1) reaches acceptor 3 alone: the proposer's own disk stands still, and 2 never learns of it.
        cluster.hold_disk(N1, true);
        let used: Rc<RefCell<Vec<Ballot>>> = Rc::default();
        let (seen, listener) = (Rc::clone(&used), Rc::clone(&invariants));
        lose(&mut cluster, move |from, to, message| {
            listener.borrow_mut().on_message(from, message);
            if let Message::Asks(asks) = message {
                let accepts = asks.iter().filter_map(|ask| match ask {
                    Ask::Accept { ballot, .. } => Some(*ballot),
                    _ => None,
                });
                seen.borrow_mut().extend(accepts);
            }
            (from, to) == (N1, N2) || (from, to) == (N3, N1)
        });
        let unknown = cluster.ask(N1, write(2, Attempt::First, Command::put("k", "w1")), millis(50));
        assert!(is_unknown(unknown.as_ref()), "{unknown:?}");
        let first = used.borrow()[0];
        // The next write is acknowledged by 1 and 2.
        cluster.hold_disk(N1, false);
        let listener = Rc::clone(&invariants);
        let seen = Rc::clone(&used);
        lose(&mut cluster, move |from, to, message| {
            listener.borrow_mut().on_message(from, message);
            if let Message::Asks(asks) = message
                && from == N1
            {
                for ask in asks {
                    if let Ask::Accept { ballot, .. } = ask {
                        seen.borrow_mut().push(*ballot);
                    }
                }
            }
            from == N3 || to == N3
        });
        assert!(succeeded(cluster.write(N1, 3, Command::put("k", "w2")).as_ref()));
        assert!(
            used.borrow().iter().filter(|ballot| **ballot == first).count() <= 4,
            "only repeats of the first"
        );
        // A proposer that hears 3 and one of the others must find W2.
        let listener = Rc::clone(&invariants);
        lose(&mut cluster, move |from, to, message| {
            listener.borrow_mut().on_message(from, message);
            from == N1 || to == N1
        });
        cluster.run_for(millis(10));
        assert_eq!(
            value(cluster.get(N3, "k").as_ref()),
            Ok(Some("w2".into())),
            "seed {seed}"
        );
        invariants.borrow_mut().check(&cluster);
    }
}

/// inside/paxos#tombstone, as far as it can happen without collection: an old proposer's accept, delayed beyond a
/// delete and a new creation, changes nothing.
#[test]
fn a_late_accept_of_a_low_counter_is_refused() {
    let mut cluster = cluster(3, 21);
    assert!(succeeded(cluster.write(N1, 1, Command::put("k", "old")).as_ref()));
    // The next accept of node 1 is under way to both others for a second, and node 1 takes no part in the delete.
    let mut delayed = 0;
    cluster.filter = Some(Box::new(move |from, to, message| {
        if from == N2 && to == N1 && delayed == 2 && !has_accept(message) {
            trilemma_testkit::Verdict::Drop
        } else if from == N1 && has_accept(message) && delayed < 2 {
            delayed += 1;
            trilemma_testkit::Verdict::Delay(SECOND)
        } else {
            trilemma_testkit::Verdict::Deliver
        }
    }));
    let late = cluster.propose(
        N1,
        write(2, Attempt::First, Command::put("k", "late")),
        3 * SECOND,
    );
    cluster.run_for(millis(5));
    let low = promised(&cluster, N2, "k");
    assert!(succeeded(cluster.write(N2, 3, Command::delete("k")).as_ref()));
    assert!(promised(&cluster, N3, "k") > low);
    assert_eq!(value(cluster.get(N3, "k").as_ref()), Ok(None), "deleted");
    let reply = await_reply(&mut cluster, N1, late);
    let receipt = receipt(reply);
    assert!(
        receipt.succeeded && receipt.version > Version(2),
        "it ran again, after the delete: {receipt:?}"
    );
    cluster.run_for(2 * SECOND);
    assert_eq!(value(cluster.get(N3, "k").as_ref()), Ok(Some("late".into())));
}

/// inside/paxos#restarted-proposer: a proposer that restarts without having made anything durable has forgotten its
/// counter. Its first ballot is new all the same, and its old ballots get no second promise.
#[test]
fn a_restarted_proposer_does_not_recycle_its_ballots() {
    for seed in 0..20 {
        let mut cluster = cluster(3, seed);
        let ballots: Rc<RefCell<Vec<(NodeId, Ballot)>>> = Rc::default();
        let seen = Rc::clone(&ballots);
        lose(&mut cluster, move |from, to, message| {
            if let Message::Asks(asks) = message {
                for ask in asks {
                    if let Ask::Prepare { ballot, .. } = ask {
                        seen.borrow_mut().push((to, *ballot));
                    }
                }
            }
            has_accept(message) && from == N1
        });
        for _ in 0..4 {
            cluster.hold_disk(N1, true);
            let ticket = cluster.propose(N1, write(1, Attempt::First, Command::put("k", "a")), SECOND);
            cluster.run_for(millis(2));
            assert_eq!(cluster.reply(N1, ticket), None);
            cluster.crash_losing_all(N1);
            cluster.restart(N1);
        }
        let mut all = ballots.borrow().clone();
        let sent = all.len();
        all.sort_unstable();
        all.dedup();
        assert!(sent >= 8, "{sent}");
        assert_eq!(all.len(), sent, "no ballot was prepared twice at one acceptor");
    }
}

/// A read that begins while a prepare is under way must not be answered from its promises: one of them may be older
/// than a write that another proposer has finished since.
#[test]
fn a_late_read_is_not_answered_from_an_old_promise() {
    for seed in 0..20 {
        let mut cluster = cluster_with(3, seed, |config| {
            if config.node == N1 {
                config.round_timeout = 2 * SECOND;
            }
        });
        assert!(succeeded(cluster.write(N2, 1, Command::put("k", "old")).as_ref()));
        cluster.run_for(millis(100));
        // Node 1 hears node 3 alone, and its first promise arrives late.
        let mut is_first = true;
        cluster.filter = Some(Box::new(move |from, to, message| {
            use trilemma_testkit::Verdict;
            let promises = |answer: &Answer| matches!(answer, Answer::Promise { .. });
            let is_promise = matches!(message, Message::Answers(answers) if answers.iter().any(promises));
            if [(N1, N2), (N2, N1)].contains(&(from, to)) {
                Verdict::Drop
            } else if is_promise && to == N1 && is_first {
                is_first = false;
                Verdict::Delay(millis(900))
            } else {
                Verdict::Deliver
            }
        }));
        let losing = Command::compare_and_set("k", Some("none".into()), Some("x".into()));
        let lost = cluster.propose(N1, write(2, Attempt::First, losing), 5 * SECOND);
        cluster.run_for(millis(5));
        assert!(succeeded(cluster.write(N2, 3, Command::put("k", "new")).as_ref()));
        assert_eq!(cluster.reply(N1, lost), None, "the promise is still under way");
        let late = cluster.get(N1, "k");
        assert_eq!(value(late.as_ref()), Ok(Some("new".into())), "seed {seed}");
        assert!(!receipt(cluster.reply(N1, lost).cloned()).succeeded);
    }
}

/// inside/paxos#partial-accept: during a partial accept, a quorum read that took the highest register for chosen would
/// show a value that a later read does not show.
#[test]
fn a_read_during_a_partial_accept_writes_back() {
    for seed in 0..20 {
        let mut cluster = cluster(3, seed);
        assert!(succeeded(cluster.write(N1, 1, Command::put("k", "a")).as_ref()));
        cluster.run_for(millis(100));
        // The second write reaches node 2 alone, and node 1 stops.
        cluster.hold_disk(N1, true);
        lose(&mut cluster, |_, to, message| has_accept(message) && to != N2);
        cluster.propose(N1, write(2, Attempt::First, Command::put("k", "b")), SECOND);
        cluster.run_for(millis(5));
        cluster.crash_losing_all(N1);
        let sent = count(&mut cluster);
        let first = value(cluster.ask(N2, get("k", None), SECOND).as_ref());
        assert_eq!(
            first,
            Ok(Some("b".into())),
            "node 2 holds it, so the read must confirm it"
        );
        assert!(sent.borrow().accepts >= 1, "it was written back");
        // Now it is chosen for everybody, whichever majority answers.
        cluster.restart(N1);
        cluster.split(&[N2]);
        cluster.run_for(SECOND);
        assert_eq!(
            value(cluster.ask(N3, get("k", None), SECOND).as_ref()),
            first,
            "seed {seed}"
        );
    }
}

/// inside/paxos#repeated-operation, inside/paxos#duelling-proposers: three proposers count up one key by
/// compare-and-set at the same time, and lose answers. No increment is lost, none happens twice, and everybody gets
/// through.
#[test]
fn duelling_proposers_lose_no_update_and_all_get_through() {
    const EACH: u64 = 8;
    for seed in 0..seeds(60) {
        let mut cluster = cluster(3, seed);
        cluster.faults.loss = if seed % 2 == 0 { 0 } else { 40 };
        let invariants = Invariants::watch(&mut cluster);
        let mut clients: Vec<Client> = (1..=3).map(|id| Client::new(NodeId(id))).collect();
        let end = cluster.now() + 60 * SECOND;
        while clients.iter().any(|client| client.done < EACH) {
            assert!(cluster.now() < end, "seed {seed}: no progress: {clients:?}");
            for client in &mut clients {
                if client.done < EACH {
                    client.turn(&mut cluster);
                }
            }
            cluster.run_until(millis(1), |cluster| {
                invariants.borrow_mut().check(cluster);
                false
            });
        }
        let total = value(cluster.get(N1, "counter").as_ref());
        assert_eq!(total, Ok(Some((3 * EACH).to_string())), "seed {seed}");
    }
}

/// Number of seeds to run: `default`, or `TRILEMMA_SEEDS`.
pub(super) fn seeds(default: u64) -> u64 {
    std::env::var("TRILEMMA_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// A client that increments a counter: read, then compare-and-set; an unknown outcome is retried under its id.
#[derive(Debug)]
struct Client {
    node: NodeId,
    done: u64,
    seq: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle,
    Reading(trilemma_core::Ticket),
    Writing(trilemma_core::Ticket, Command),
}

impl Client {
    fn new(node: NodeId) -> Self {
        Self {
            node,
            done: 0,
            seq: 0,
            state: State::Idle,
        }
    }

    fn turn(&mut self, cluster: &mut Paxi) {
        let op = op_of(u64::from(self.node.0), self.seq);
        match &self.state {
            State::Idle => {
                self.state = State::Reading(cluster.propose(self.node, get("counter", None), 5 * SECOND));
            }
            State::Reading(ticket) => match cluster.reply(self.node, *ticket) {
                None => {}
                Some(Reply::Read(Ok(read))) => {
                    let found = read.value().cloned();
                    let count: u64 = found
                        .as_ref()
                        .map_or(0, |found| found.to_string().parse().expect("a number"));
                    let command =
                        Command::compare_and_set("counter", found, Some((count + 1).to_string().into()));
                    self.seq += 1;
                    let op = op_of(u64::from(self.node.0), self.seq);
                    let request = write_as(op, Attempt::First, command.clone());
                    self.state = State::Writing(cluster.propose(self.node, request, millis(300)), command);
                }
                Some(_) => self.state = State::Idle,
            },
            State::Writing(ticket, command) => match cluster.reply(self.node, *ticket) {
                None => {}
                Some(Reply::Write(Ok(receipt))) => {
                    self.done += u64::from(receipt.succeeded);
                    self.state = State::Idle;
                }
                Some(Reply::Write(Err(WriteError::Unknown { .. }))) => {
                    let request = write_as(op, Attempt::Retry, command.clone());
                    let command = command.clone();
                    self.state = State::Writing(cluster.propose(self.node, request, SECOND), command);
                }
                Some(_) => self.state = State::Idle,
            },
        }
    }
}

/// Every third answer is lost; every write is retried until it is answered; none takes effect twice.
#[test]
fn lost_answers_do_not_repeat_an_effect() {
    for seed in 0..seeds(30) {
        let mut cluster = cluster(3, seed);
        let mut answers = seed;
        lose(&mut cluster, move |_, _, message| {
            answers += u64::from(matches!(message, Message::Answers(_)));
            matches!(message, Message::Answers(_)) && answers % 3 == 0
        });
        for seq in 1..=10 {
            let node = NodeId(1 + (seq % 3) as u32);
            let command = Command::put("k", format!("{seq}"));
            let mut reply = cluster.ask(node, write(seq, Attempt::First, command.clone()), millis(150));
            for _ in 0..50 {
                if !is_unknown(reply.as_ref()) && reply.as_ref().is_some_and(|reply| succeeded(Some(reply))) {
                    break;
                }
                reply = cluster.ask(node, write(seq, Attempt::Retry, command.clone()), millis(150));
            }
            assert_eq!(
                receipt(reply).version,
                Version(seq),
                "seed {seed}: each write ran once"
            );
        }
    }
}

/// A proposer counts itself only when its own disk has the record, and answers nobody before.
#[test]
fn the_own_acceptor_counts_only_when_it_is_durable() {
    let mut cluster = cluster(3, 31);
    assert!(succeeded(cluster.write(N1, 1, Command::put("k", "a")).as_ref()));
    cluster.crash(N3);
    cluster.hold_disk(N1, true);
    let ticket = cluster.propose(N1, write(2, Attempt::First, Command::put("k", "b")), 3 * SECOND);
    cluster.run_for(SECOND);
    assert_eq!(
        cluster.reply(N1, ticket),
        None,
        "one durable acceptor is no majority"
    );
    cluster.hold_disk(N1, false);
    assert!(succeeded(await_reply(&mut cluster, N1, ticket).as_ref()));
}

/// A crash between the append and its durability must not lose what anybody has received.
#[test]
fn a_promise_is_durable_before_it_is_sent() {
    for seed in 0..40 {
        let mut cluster = cluster(3, seed);
        let invariants = Invariants::watch(&mut cluster);
        let mut acknowledged = 0;
        for seq in 1..=12u64 {
            let node = NodeId(1 + (seq % 3) as u32);
            let victim = NodeId(1 + ((seq + 1 + seed % 2) % 3) as u32);
            let request = write(seq, Attempt::First, Command::put("k", format!("{seq}")));
            cluster.hold_disk(victim, true);
            let ticket = cluster.propose(node, request, SECOND);
            cluster.run_for(millis(1 + seed % 4));
            cluster.crash_losing_all(victim);
            invariants.borrow_mut().on_crash(victim);
            cluster.restart(victim);
            invariants.borrow_mut().check(&cluster);
            cluster.run_until(SECOND, |cluster| {
                invariants.borrow_mut().check(cluster);
                cluster.reply(node, ticket).is_some() || node == victim
            });
            if succeeded(cluster.reply(node, ticket)) {
                acknowledged = seq;
            }
            let read = value(cluster.get(node, "k").as_ref()).expect("a majority is there");
            let found: u64 = read.map_or(0, |text| text.parse().expect("a number"));
            assert!(
                found >= acknowledged,
                "seed {seed}: {acknowledged} was acknowledged, {found} is there"
            );
        }
    }
}

/// A node that missed everything, messages about what was chosen included, shows it in the end.
#[test]
fn a_node_that_missed_everything_catches_up() {
    let mut cluster = cluster(3, 33);
    cluster.crash(N3);
    for seq in 1..=1500u64 {
        cluster.propose(
            N1,
            write(seq, Attempt::First, Command::put(format!("k{seq}"), "v")),
            3 * SECOND,
        );
    }
    cluster.run_for(2 * SECOND);
    for seq in 1..=100u64 {
        cluster.propose(
            N2,
            write(2000 + seq, Attempt::First, Command::delete(format!("k{seq}"))),
            3 * SECOND,
        );
    }
    cluster.run_for(2 * SECOND);
    assert_eq!(cluster.protocol(N1).scan(&KeyRange::all(), 10_000).len(), 1400);
    cluster.restart(N3);
    let caught_up = cluster.run_until(60 * SECOND, |cluster| {
        cluster.protocol(N3).learned().count() == 1500
            && cluster.protocol(N3).scan(&KeyRange::all(), 10_000).len() == 1400
    });
    assert!(caught_up, "{} keys", cluster.protocol(N3).learned().count());
    // And it knows without a notice for each: local reads, and what it holds as an acceptor.
    let reply = cluster.ask(N3, get("k1500", Some(ReadLevel::Local)), SECOND);
    assert_eq!(value(reply.as_ref()), Ok(Some("v".into())));
    assert_eq!(
        cluster
            .protocol(N3)
            .held()
            .filter(|held| held.accepted > Ballot::ZERO)
            .count(),
        1500
    );
}

/// A register that was chosen although its proposer crashed before anybody could learn it is confirmed by its
/// acceptors, without a client.
#[test]
fn what_was_chosen_unseen_is_confirmed() {
    let mut cluster = cluster(3, 34);
    lose(&mut cluster, |_, to, message| to == N1 && has_accepted(message));
    cluster.propose(N1, write(1, Attempt::First, Command::put("k", "a")), SECOND);
    cluster.run_for(millis(20));
    cluster.crash_losing_all(N1);
    cluster.filter = None;
    assert_eq!(cluster.protocol(N2).learned().count(), 0);
    cluster.run_for(5 * SECOND);
    for node in [N2, N3] {
        assert_eq!(
            cluster.protocol(node).scan(&KeyRange::all(), 9).len(),
            1,
            "at {node}"
        );
    }
}
