//! How large records are, and what is left of a turn of which some records are durable.

use std::collections::{BTreeMap, BTreeSet};

use trilemma_core::host::{Host, Output};
use trilemma_core::session::OpResult;
use trilemma_core::{AppendSeq, Incarnation, Input, LeaseId, NodeId, Now, OpId, Protocol, SessionId};
use trilemma_core::{Version, Versioned, codec};

use super::*;
use crate::message::{Answer, Ask, Message};
use crate::register::{FLOORS_MAX, Floor, PROPOSERS_MAX, RECENT_MAX, Recent};
use crate::{Paxos, PaxosConfig};

const ME: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);

/// All that a register can hold, every number as large as it gets.
fn largest_register() -> Arc<Register> {
    let most = Version(u64::MAX);
    let session = SessionId {
        basis: most,
        nonce: u64::MAX,
    };
    let op = OpId {
        session,
        seq: u64::MAX,
    };
    let result = OpResult::Applied {
        succeeded: true,
        version: most,
        found: most,
    };
    Arc::new(Register {
        version: most,
        state: Some(Versioned {
            value: vec![7; trilemma_core::data::VALUE_BYTES_MAX].into(),
            created: most,
            modified: most,
            lease: Some(LeaseId(std::num::NonZeroU64::MAX)),
        }),
        recent: vec![Recent { op, result }; RECENT_MAX],
        floors: vec![
            Floor {
                session,
                seq: u64::MAX
            };
            FLOORS_MAX
        ],
        horizon: Some(most),
        proposers: vec![largest_ballot(); PROPOSERS_MAX],
    })
}

fn largest_ballot() -> Ballot {
    Ballot {
        counter: u64::MAX,
        node: NodeId(u32::MAX),
        incarnation: Incarnation(u64::MAX),
    }
}

fn ballot(counter: u64) -> Ballot {
    Ballot {
        counter,
        node: PEER,
        incarnation: Incarnation(1),
    }
}

fn register(version: u64, bytes: usize) -> Arc<Register> {
    Arc::new(Register {
        version: Version(version),
        state: Some(Versioned {
            value: vec![7; bytes].into(),
            created: Version(1),
            modified: Version(version),
            lease: None,
        }),
        ..Register::default()
    })
}

#[test]
fn nothing_is_larger_than_it_says() {
    let (ballot, register) = (largest_ballot(), largest_register());
    assert_eq!(codec::encode(&ballot).len(), Ballot::BYTES_MAX);
    let bytes = codec::encode(&*register).len();
    assert!(bytes <= register.size() && register.size() == Register::BYTES_MAX);
    assert!(
        bytes + 16 > register.size(),
        "a limit that is far too large hides the real one"
    );
    let key = Key::from(vec![b'k'; KEY_BYTES_MAX]);
    let accepted = AcceptedRecord {
        key: key.clone(),
        ballot,
        promised: ballot,
        register: Arc::clone(&register).into(),
    };
    assert!(codec::encode(&accepted).len() <= accepted.size() && accepted.size() <= ITEM_BYTES_MAX);
    let chosen = ChosenRecord {
        key,
        ballot,
        register: Some(register),
    };
    assert!(codec::encode(&chosen).len() <= chosen.size() && chosen.size() <= ITEM_BYTES_MAX);
}

/// The largest items, behind others that have nearly closed a record: each record is within the bound.
#[test]
fn a_record_of_the_largest_items_is_within_the_bound() {
    let key = Key::from(vec![b'k'; KEY_BYTES_MAX]);
    let (ballot, register) = (largest_ballot(), largest_register());
    let small = AcceptedRecord {
        key: key.clone(),
        ballot,
        promised: ballot,
        register: Proposed::Whole(Arc::default()),
    };
    let large = AcceptedRecord {
        register: Arc::clone(&register).into(),
        ..small.clone()
    };
    let chosen = ChosenRecord {
        key: key.clone(),
        ballot,
        register: Some(register),
    };
    let turn = Record {
        promised: vec![(key, ballot); 10],
        accepted: [vec![small; 3], vec![large; 4]].concat(),
        chosen: vec![chosen; 3],
    };
    let records = turn.cut();
    assert!(records.len() >= 7, "{} records", records.len());
    for record in records {
        let bytes = codec::encode(&record).len();
        assert!(bytes <= BYTES_MAX, "{bytes} bytes");
    }
}

#[test]
fn records_of_the_smallest_items_decode() {
    let turn = Record {
        promised: vec![(Key::from("k"), ballot(1)); 5000],
        ..Record::default()
    };
    let records = turn.cut();
    assert_eq!(
        records.iter().map(|record| record.promised.len()).sum::<usize>(),
        5000
    );
    for record in records {
        assert!(codec::decode::<Record>(&codec::encode(&record)).is_ok());
    }
}

#[test]
fn a_small_turn_is_one_record() {
    let (key, register) = (Key::from("k"), register(1, 100));
    let turn = Record {
        promised: vec![(key.clone(), ballot(3))],
        accepted: vec![AcceptedRecord {
            key: key.clone(),
            ballot: ballot(1),
            promised: ballot(2),
            register: register.into(),
        }],
        chosen: vec![ChosenRecord {
            key,
            ballot: ballot(1),
            register: None,
        }],
    };
    assert_eq!(turn.clone().cut(), [turn]);
    assert!(Record::default().cut().is_empty());
}

fn paxos() -> Paxos {
    let members = [ME, PEER, NodeId(3)];
    Paxos::new(PaxosConfig::new(ME, members, Incarnation(1), 7))
}

/// What a node holds of each key.
fn held(paxos: &Paxos) -> BTreeMap<Key, (Ballot, Ballot, Arc<Register>)> {
    let held = paxos.held();
    held.map(|held| (held.key, (held.promised, held.accepted, held.register)))
        .collect()
}

fn decoded(output: &Output) -> Vec<Message> {
    let messages = output.sends.iter();
    messages
        .map(|sent| codec::decode(&sent.bytes).expect("it was encoded here"))
        .collect()
}

/// Promises and acceptances in these messages.
fn promises(messages: &[Message]) -> usize {
    let answers = messages.iter().flat_map(|message| match message {
        Message::Answers(answers) => &answers[..],
        _ => &[],
    });
    answers
        .filter(|answer| matches!(answer, Answer::Promise { .. } | Answer::Accepted { .. }))
        .count()
}

/// One turn in which a peer has 60 keys of 2 to 4 KB prepared, accepted, prepared again, some accepted once more, and some
/// called chosen.
fn large_turn() -> Vec<Ask> {
    let mut asks = Vec::new();
    for number in 0..60_u64 {
        let key = Key::from(format!("key {number}"));
        let accept = |under: u64, next: u64| Ask::Accept {
            key: key.clone(),
            ballot: ballot(under),
            register: register(under, 2000 + 30 * number as usize).into(),
            next: ballot(next),
        };
        let prepare = |under: u64| Ask::Prepare {
            key: key.clone(),
            ballot: ballot(under),
        };
        asks.extend([prepare(1), accept(1, 2), accept(2, 3), prepare(7)]);
        if number % 2 == 0 {
            asks.extend([accept(7, 8), accept(7, 9)]);
        }
        if number % 3 == 0 {
            let ballot = ballot(if number % 2 == 0 { 7 } else { 2 });
            let key = key.clone();
            asks.push(Ask::Chosen { key, ballot });
        }
    }
    asks
}

/// A turn that takes several records is answered when the last one is durable; a crash between two of them leaves each key
/// as it was at some moment of the turn.
#[test]
fn a_large_turn_is_answered_as_a_whole_and_may_be_cut_anywhere() {
    let mut host = Host::new(paxos());
    let mut output = Output::default();
    host.run(Now::default(), Input::Start, &mut output);
    host.run(Now::default(), Input::EndTurn, &mut output);
    assert!(output.records.is_empty());
    let mut moments: BTreeMap<Key, BTreeSet<(Ballot, Ballot, Version)>> = BTreeMap::new();
    for ask in large_turn() {
        let message = Message::Asks(vec![ask]);
        host.run(
            Now::default(),
            Input::Receive { from: PEER, message },
            &mut output,
        );
        for (key, (promised, accepted, register)) in held(host.protocol()) {
            moments
                .entry(key)
                .or_default()
                .insert((promised, accepted, register.version));
        }
    }
    host.run(Now::default(), Input::EndTurn, &mut output);
    let records: Vec<(AppendSeq, Record)> = output
        .records
        .iter()
        .map(|record| {
            assert!(record.bytes.len() <= BYTES_MAX, "{} bytes", record.bytes.len());
            let bytes = &record.bytes;
            (record.seq, codec::decode(bytes).expect("it was encoded here"))
        })
        .collect();
    assert!(records.len() > 10, "{} records", records.len());

    // Recovery from every prefix.
    let nothing = (Ballot::ZERO, Ballot::ZERO, Version::ABSENT);
    for length in 0..=records.len() {
        let mut recovered = paxos();
        for (_, record) in &records[..length] {
            recovered
                .replay(record.clone())
                .expect("a prefix of a turn is a legal state");
        }
        for (key, (promised, accepted, register)) in held(&recovered) {
            let state = (promised, accepted, register.version);
            assert!(
                state == nothing || moments[&key].contains(&state),
                "after {length} records {key} is at {state:?}, which it never was: {:?}",
                moments[&key]
            );
        }
        if length == records.len() {
            assert_eq!(held(&recovered), held(host.protocol()));
            assert!(recovered.learned().eq(host.protocol().learned()));
        }
    }

    // Answers.
    assert_eq!(promises(&decoded(&output)), 0, "nothing is durable");
    let mut answered = 0;
    for (seq, _) in &records {
        assert_eq!(
            answered, 0,
            "answered before the last record of the turn is durable"
        );
        let mut output = Output::default();
        host.run(Now::default(), Input::Persisted { up_to: *seq }, &mut output);
        answered += promises(&decoded(&output));
    }
    assert_eq!(
        answered,
        60 * 4 + 30 * 2,
        "every prepare and accept has its answer"
    );
}
