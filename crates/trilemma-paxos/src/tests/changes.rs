//! What an accept carries: the change of what the acceptor holds, or the whole (inside/paxos#change).

use std::cell::RefCell;
use std::rc::Rc;

use trilemma_core::{Command, NodeId, codec};
use trilemma_testkit::Verdict;

use super::harness::*;
use crate::message::{Answer, Ask, Message};
use crate::register::Proposed;

/// What was sent: bytes of accepts, and how many carried a change, how many the whole, and how many acceptors lacked what
/// was changed.
#[derive(Clone, Copy, Debug, Default)]
struct Accepts {
    bytes: usize,
    changes: u32,
    wholes: u32,
    lacks: u32,
}

fn note_accepts(cluster: &mut Paxi) -> Rc<RefCell<Accepts>> {
    let accepts = Rc::new(RefCell::new(Accepts::default()));
    let shared = Rc::clone(&accepts);
    cluster.filter = Some(Box::new(move |_, _, message| {
        let mut accepts = shared.borrow_mut();
        match message {
            Message::Asks(asks) if has_accept(message) => {
                accepts.bytes += codec::encode(message).len();
                for ask in asks {
                    match ask {
                        Ask::Accept { register, .. } => match register {
                            Proposed::Whole(_) => accepts.wholes += 1,
                            Proposed::Change(_) => accepts.changes += 1,
                        },
                        Ask::Prepare { .. } | Ask::Read { .. } | Ask::Chosen { .. } => {}
                    }
                }
            }
            Message::Answers(answers) => {
                let lacks = answers
                    .iter()
                    .filter(|answer| matches!(answer, Answer::Lacks { .. }));
                accepts.lacks += lacks.count() as u32;
            }
            _ => {}
        }
        Verdict::Deliver
    }));
    accepts
}

fn put(cluster: &mut Paxi, seqs: std::ops::Range<u64>) {
    for seq in seqs {
        let written = receipt(cluster.write(N1, seq, Command::put("k", format!("{seq}"))));
        assert_eq!(written.version.0, seq);
    }
}

fn held(cluster: &Paxi, node: NodeId) -> crate::Held {
    cluster
        .protocol(node)
        .held()
        .next()
        .expect("it has accepted something")
}

/// The register of the key remembers 64 operations; the accept of the next one does not say them again, on the wire or on
/// the disk.
#[test]
fn a_write_says_what_it_changes() {
    let mut cluster = cluster(3, 41);
    put(&mut cluster, 1..101);
    assert_eq!(held(&cluster, N2).register.recent.len(), 64);
    cluster.run_for(SECOND);
    for node in cluster.ids() {
        cluster.checkpoint(node);
    }
    let accepts = note_accepts(&mut cluster);
    put(&mut cluster, 101..111);
    let accepts = *accepts.borrow();
    assert_eq!((accepts.changes, accepts.wholes, accepts.lacks), (20, 0, 0));
    assert!(accepts.bytes < 20 * 60, "{} bytes for 20 accepts", accepts.bytes);
    for node in cluster.ids() {
        let logged: usize = cluster.disk(node).iter().map(|record| record.len()).sum();
        assert!(
            logged < 10 * 100,
            "{node} has logged {logged} bytes for 10 writes"
        );
    }
    assert_eq!(held(&cluster, N2).register, held(&cluster, N1).register);
}

/// An acceptor that was away does not hold what is changed. It says so, and gets the whole at once.
#[test]
fn who_lacks_what_is_changed_gets_the_whole() {
    let mut cluster = cluster(3, 42);
    put(&mut cluster, 1..3);
    lose(&mut cluster, |_, to, _| to == N3);
    put(&mut cluster, 3..5);
    let accepts = note_accepts(&mut cluster);
    put(&mut cluster, 5..6);
    cluster.run_for(millis(50));
    let first = *accepts.borrow();
    assert_eq!((first.changes, first.wholes, first.lacks), (2, 1, 1));
    assert_eq!(held(&cluster, N3).register, held(&cluster, N1).register);
    put(&mut cluster, 6..9);
    assert_eq!(accepts.borrow().lacks, 1, "it holds what is changed again");
}

/// An accept whose answers were lost is repeated as a whole under the same ballot: it is the same register.
#[test]
fn a_repeat_is_whole_and_the_same() {
    let mut cluster = cluster(3, 43);
    put(&mut cluster, 1..4);
    let mut lost = 0;
    lose(&mut cluster, move |_, _, message| {
        let is_lost = has_accepted(message) && lost < 2;
        lost += u32::from(is_lost);
        is_lost
    });
    put(&mut cluster, 4..5);
    cluster.filter = None;
    put(&mut cluster, 5..6);
    for node in cluster.ids() {
        let now = trilemma_core::Now {
            instant: cluster.now(),
            ..Default::default()
        };
        let status = trilemma_core::Protocol::status(cluster.protocol(node), now);
        let doubled = status
            .details
            .iter()
            .find(|(name, _)| name == "ballots with two values");
        assert_eq!(doubled.map(|(_, count)| count.as_str()), Some("0"), "{node}");
    }
}

/// What is logged as changes is the same state after a restart.
#[test]
fn changes_are_replayed() {
    let mut cluster = cluster(3, 44);
    put(&mut cluster, 1..80);
    cluster.run_for(SECOND);
    for node in cluster.ids() {
        let before = held(&cluster, node);
        cluster.crash_losing_all(node);
        cluster.restart(node);
        assert_eq!(held(&cluster, node), before);
    }
    put(&mut cluster, 80..85);
}

/// A change that comes alone, of a key that this acceptor has never learned of, leaves nothing there.
#[test]
fn a_change_of_nothing_leaves_nothing() {
    let mut cluster = cluster(3, 45);
    lose(&mut cluster, |_, to, _| to == N3);
    put(&mut cluster, 1..2);
    let mut is_first = true;
    lose(&mut cluster, move |_, to, message| {
        let is_lost = to == N3 && !(has_accept(message) && is_first);
        is_first &= !has_accept(message) || to != N3;
        is_lost
    });
    put(&mut cluster, 2..3);
    cluster.run_for(millis(5));
    assert_eq!(cluster.protocol(N3).held().count(), 0);
}

/// What was chosen waits for a message that it can ride on, which carries the next accept of the same key. It stands before
/// it: a node that has accepted the next one cannot learn this one any more, and would learn nothing while one client
/// writes without a pause.
#[test]
fn others_learn_a_key_that_is_written_without_a_pause() {
    let mut cluster = cluster(3, 43);
    put(&mut cluster, 1..3);
    cluster.run_for(millis(20));
    for seq in 3..40 {
        put(&mut cluster, seq..seq + 1);
        for node in [N2, N3] {
            let learned = cluster.protocol(node).learned().next();
            let version = learned.map_or(0, |(_, _, register)| register.version.0);
            assert!(version + 3 >= seq, "{node} has learned {version} of {seq}");
        }
    }
}
