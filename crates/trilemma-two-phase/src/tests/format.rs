//! The bytes on the wire and on disk, frozen: a change here breaks running clusters and stored data.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use trilemma_core::session::OpResult;
use trilemma_core::{Command, Epoch, Incarnation, Reason, UnknownCause, Version, codec};
use trilemma_testkit::op;

use crate::recovery::{Chunk, Head as CheckpointHead};
use crate::{Answer, Batch, BatchId, Forward, Head, Hello, Message, Record, Resolved, Transaction, Verdict};

fn id(seq: u64) -> BatchId {
    BatchId {
        epoch: Epoch(1),
        incarnation: Incarnation(2),
        seq,
    }
}

fn batch() -> Arc<Batch> {
    Arc::new(Batch {
        id: id(300),
        prev: id(4),
        first: Version(9),
        transactions: vec![
            Transaction::Write {
                op: op(1),
                command: Command::compare_and_set("k", None, Some("v".into())),
            },
            Transaction::Fence { op: op(2) },
        ],
    })
}

fn head() -> Head {
    Head {
        decided: id(4),
        finished: id(3),
        digest: 300,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `value` has exactly these bytes, and they mean exactly that value.
fn frozen<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T, expected: &str) -> bool {
    let bytes = codec::encode(value);
    assert_eq!(codec::decode::<T>(&bytes).as_ref(), Ok(value));
    for length in 0..bytes.len() {
        assert!(
            codec::decode::<T>(&bytes[..length]).is_err(),
            "a cut value decodes: {value:?}"
        );
    }
    let found = hex(&bytes);
    if found != expected {
        eprintln!("FROZEN {expected} is now {found}: {value:?}");
    }
    found == expected
}

fn all_frozen<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(values: &[(T, &str)]) {
    let good = values
        .iter()
        .filter(|(value, expected)| frozen(value, expected))
        .count();
    assert_eq!(good, values.len(), "the format has changed");
}

#[test]
fn messages_are_frozen() {
    let resolved = Resolved {
        incarnation: Incarnation(2),
        after: id(1),
        committed: vec![id(2), id(4)],
        open: vec![id(5)],
        below: id(6),
        head: head(),
    };
    let hello = Hello {
        nonce: 77,
        is_blank: false,
        decided: id(4),
        acked: id(3),
        prepared: id(5),
        fence: id(6),
    };
    let forward = Forward {
        number: 5,
        timeout_ms: 300,
        transaction: Transaction::Fence { op: op(3) },
    };
    let answer = |verdict| Answer { number: 5, verdict };
    let result = OpResult::Applied {
        succeeded: true,
        version: Version(8),
        found: Version(0),
    };
    let answers = vec![
        answer(Verdict::Refused(Reason::Deadline.into())),
        answer(Verdict::Unknown(UnknownCause::LeaderLost)),
        answer(Verdict::Resolved(Some(result))),
    ];
    all_frozen(&[
        (
            Message::Prepare {
                batch: batch(),
                head: head(),
            },
            "000102ac020102040902000007010101016b000100016b01760001000702010204010203ac02",
        ),
        (Message::Announce { head: head() }, "01010204010203ac02"),
        (
            Message::Resolved(resolved),
            "02020102010201020201020401010205010206010204010203ac02",
        ),
        (Message::Probe, "03"),
        (Message::Hello(hello), "044d00010204010203010205010206"),
        (
            Message::Vote {
                prepared: id(5),
                acked: id(4),
            },
            "05010205010204",
        ),
        (
            Message::Refusal {
                id: id(5),
                why: "no".into(),
            },
            "06010205026e6f",
        ),
        (Message::Resend { after: id(4) }, "07010204"),
        (
            Message::Inquire {
                in_doubt: vec![id(5)],
                is_urgent: true,
            },
            "080101020501",
        ),
        (
            Message::Evidence {
                committed: Some(id(4)),
                aborted: None,
                finished: id(3),
            },
            "090101020400010203",
        ),
        (
            Message::Forwards {
                sequencer: Incarnation(2),
                incarnation: Incarnation(3),
                done_below: 4,
                items: vec![forward],
            },
            "0a0203040105ac0201000703",
        ),
        (
            Message::Answers {
                sequencer: Incarnation(2),
                incarnation: Incarnation(3),
                items: answers,
            },
            "0b020303050007010080c2d72f05010105020100010800",
        ),
        (
            Message::Install {
                nonce: 77,
                decided: id(4),
                position: Version(9),
                unknown_through: id(5),
            },
            "0c4d01020409010205",
        ),
        (Message::Fetch { nonce: 77, index: 1 }, "0d4d01"),
        (
            Message::Piece {
                nonce: 77,
                index: 1,
                bytes: Bytes::from_static(b"ab"),
                ends_chunk: true,
                is_last: false,
            },
            "0e4d010261620100",
        ),
    ]);
}

#[test]
fn records_are_frozen() {
    all_frozen(&[
        (Record::Joined { epoch: Epoch(1) }, "0001"),
        (
            Record::Prepare(batch()),
            "010102ac020102040902000007010101016b000100016b01760001000702",
        ),
        (
            Record::Decision(batch()),
            "020102ac020102040902000007010101016b000100016b01760001000702",
        ),
        (Record::Refuse { id: id(5) }, "03010205"),
        (Record::Outcome { decided: id(4) }, "04010204"),
        (Record::Watermark { below: id(3) }, "05010203"),
        (
            Record::Piece {
                nonce: 77,
                index: 1,
                bytes: Bytes::from_static(b"ab"),
                ends_chunk: true,
            },
            "064d0102616201",
        ),
        (
            Record::Installed {
                nonce: 77,
                decided: id(4),
                unknown_through: id(5),
            },
            "074d010204010205",
        ),
    ]);
}

#[test]
fn checkpoints_are_frozen() {
    let head = CheckpointHead {
        is_sequencer: false,
        is_joined: true,
        decided: id(4),
        floor: id(2),
        recent: vec![id(3), id(4)],
        finished: id(3),
        unknown_through: id(1),
        fence: id(5),
    };
    all_frozen(&[
        (
            Chunk::Head(head),
            "00000101020401020202010203010204010203010201010205",
        ),
        (Chunk::Table(vec![1, 2]), "01020102"),
        (
            Chunk::Prepared(batch()),
            "020102ac020102040902000007010101016b000100016b01760001000702",
        ),
        (
            Chunk::Piece {
                bytes: Bytes::from_static(b"ab"),
                ends_chunk: true,
            },
            "0302616201",
        ),
        (Chunk::End, "04"),
    ]);
}

/// What a log cannot hold is refused as corrupt, never a panic.
#[test]
fn impossible_records_are_corrupt() {
    use trilemma_core::{NodeId, Protocol};

    let at = |node: u32| {
        let config = crate::TwoPhaseConfig::new(NodeId(node), (1..=3).map(NodeId), Incarnation(3), 1);
        crate::TwoPhase::new(config)
    };
    let wrong = [
        (1, Record::Prepare(batch())),
        (1, Record::Decision(batch())),
        (1, Record::Refuse { id: id(1) }),
        (1, Record::Outcome { decided: id(4) }),
        (1, Record::Joined { epoch: Epoch(9) }),
        (2, Record::Prepare(batch())),
        (2, Record::Decision(batch())),
        (2, Record::Outcome { decided: id(4) }),
        (
            2,
            Record::Installed {
                nonce: 1,
                decided: id(4),
                unknown_through: id(4),
            },
        ),
        (
            2,
            Record::Piece {
                nonce: 1,
                index: 3,
                bytes: Bytes::new(),
                ends_chunk: true,
            },
        ),
        (
            2,
            Record::Piece {
                nonce: 1,
                index: 0,
                bytes: Bytes::from_static(b"x"),
                ends_chunk: true,
            },
        ),
    ];
    for (node, record) in wrong {
        let shown = format!("{record:?}");
        assert!(at(node).replay(record).is_err(), "node {node} accepts {shown}");
    }
    assert!(at(2).restore(b"\x09").is_err());
    assert!(at(2).restore(&codec::encode(&Chunk::End)).is_err());
    // The incarnation of the sequencer must have grown since its last batch.
    let own = Arc::new(Batch {
        id: BatchId {
            incarnation: Incarnation(3),
            ..id(1)
        },
        prev: BatchId::ORIGIN,
        first: Version(1),
        transactions: vec![Transaction::Fence { op: op(1) }],
    });
    assert!(at(1).replay(Record::Decision(own)).is_err());
}
