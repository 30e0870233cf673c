//! The bytes of messages and records are frozen: a change here breaks rolling upgrades and stored logs.

use bytes::Bytes;
use trilemma_core::{Attempt, Command, OpId, SessionId};

use super::*;

fn hex<T: serde::Serialize>(value: &T) -> String {
    codec::encode(value)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn entries() -> Vec<Entry> {
    let op = OpId {
        session: SessionId {
            basis: Version(5),
            nonce: 9,
        },
        seq: 2,
    };
    vec![
        Entry {
            term: Term(1),
            payload: Payload::Noop,
        },
        Entry {
            term: Term(2),
            payload: Payload::Write {
                op,
                command: Command::put("k", "v"),
            },
        },
        Entry {
            term: Term(2),
            payload: Payload::Fence { op },
        },
    ]
}

#[test]
fn messages_keep_their_bytes() {
    let end = LogEnd {
        term: Term(3),
        index: Index(300),
    };
    let (term, round) = (Term(4), 7);
    let op = OpId {
        session: SessionId {
            basis: Version(5),
            nonce: 9,
        },
        seq: 2,
    };
    let request = Forwarded::Write {
        op,
        attempt: Attempt::Retry,
        command: Command::delete("k"),
    };
    let messages = [
        (Message::PreVote { term, end }, "000403ac02"),
        (
            Message::PreVoteReply {
                asked: term,
                term: Term(3),
                granted: true,
            },
            "01040301",
        ),
        (Message::Vote { term, end }, "020403ac02"),
        (Message::VoteReply { term, granted: false }, "030400"),
        (
            Message::Append {
                term,
                round,
                prev: end,
                entries: entries(),
                commit: Index(299),
            },
            "04040703ac02030100020105090200010001 6b01760002020509 02ab02",
        ),
        (
            Message::AppendReply {
                term,
                round,
                result: AppendResult::Matched(Index(300)),
            },
            "05040700ac02",
        ),
        (
            Message::AppendReply {
                term,
                round,
                result: AppendResult::Mismatch(Index(1)),
            },
            "0504070101",
        ),
        (
            Message::Snapshot {
                term,
                round,
                at: end,
                part: 1,
                last: true,
                chunk: Bytes::from_static(b"ab"),
            },
            "06040703ac020101026162",
        ),
        (
            Message::SnapshotReply {
                term,
                round,
                at: end,
                next: 2,
            },
            "07040703ac0202",
        ),
        (
            Message::Forward {
                id: 1,
                timeout_ms: 500,
                request,
            },
            "0801f40300050902010001 01016b",
        ),
        (
            Message::ForwardReply {
                id: 1,
                answer: Answer::NotLeader,
            },
            "090103",
        ),
    ];
    for (message, golden) in messages {
        let golden: String = golden.split_whitespace().collect();
        assert_eq!(hex(&message), golden, "{message:?}");
        assert_eq!(
            codec::decode::<Message>(&codec::encode(&message)).unwrap(),
            message
        );
    }
}

#[test]
fn records_keep_their_bytes() {
    let records = [
        (
            Record::HardState {
                term: Term(4),
                vote: Some(NodeId(2)),
            },
            "00040102",
        ),
        (
            Record::HardState {
                term: Term(4),
                vote: None,
            },
            "000400",
        ),
        (
            Record::Entries {
                first: Index(300),
                entries: entries(),
            },
            "01ac02030100020105090200010001 6b01760002020509 02",
        ),
        (Record::SnapshotPart(Bytes::from_static(b"ab")), "02026162"),
        (
            Record::SnapshotEnd {
                at: LogEnd {
                    term: Term(3),
                    index: Index(300),
                },
            },
            "0303ac02",
        ),
    ];
    for (record, golden) in records {
        let golden: String = golden.split_whitespace().collect();
        assert_eq!(hex(&record), golden, "{record:?}");
        assert_eq!(codec::decode::<Record>(&codec::encode(&record)).unwrap(), record);
    }
}
