//! The bytes of messages and records are frozen: a change here breaks rolling upgrades and stored logs.

use bytes::Bytes;
use trilemma_core::{Attempt, Command, OpId, Outcome, Reply, Request, SessionId};

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
                command: Command::put("k", "v").into(),
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
    let request = Request::Write {
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
        (
            Message::Vote {
                term,
                end,
                is_handover: true,
            },
            "020403ac0201",
        ),
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
                to: Incarnation(6),
                id: 1,
                timeout_ms: 500,
                request,
            },
            "080601f40300050902010001 01016b",
        ),
        (
            Message::ForwardReply {
                id: 1,
                reply: Reply::Outcome(Ok(Outcome::NotApplied)),
            },
            "0901020001",
        ),
        (Message::NotLeader { id: 1 }, "0a01"),
        (Message::TimeoutNow { term }, "0b04"),
        (
            Message::StateDigest {
                term,
                at: Index(300),
                digest: 5,
            },
            "0c04ac0205",
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

#[test]
fn a_checkpoint_whose_log_begins_at_the_end_of_all_numbers_is_corrupt() {
    let mut raft = Raft::new(RaftConfig::new(NodeId(1), Incarnation(1), (1..=3).map(NodeId), 1));
    let head = |index| {
        let base = LogEnd {
            term: Term(1),
            index: Index(index),
        };
        codec::encode(&Chunk::Head {
            term: Term(1),
            vote: None,
            base,
        })
    };
    assert_eq!(raft.restore(&head(300)), Ok(()));
    assert!(raft.restore(&head(u64::MAX - 1)).is_err());
}

#[test]
fn a_record_after_a_checkpoint_without_its_end_is_corrupt() {
    let mut raft = Raft::new(RaftConfig::new(NodeId(1), Incarnation(1), (1..=3).map(NodeId), 1));
    let base = LogEnd {
        term: Term(1),
        index: Index(300),
    };
    let (term, vote) = (Term(1), None);
    let head = codec::encode(&Chunk::Head { term, vote, base });
    assert_eq!(raft.restore(&head), Ok(()));
    let (first, entries) = (Index(1), entries());
    assert!(raft.replay(Record::Entries { first, entries }).is_err());
}

#[test]
fn a_record_of_an_entry_beyond_the_nodes_term_is_corrupt() {
    for (own, is_sound) in [(1, false), (2, true)] {
        let mut raft = Raft::new(RaftConfig::new(NodeId(1), Incarnation(1), (1..=3).map(NodeId), 1));
        let (term, vote) = (Term(own), None);
        assert_eq!(raft.replay(Record::HardState { term, vote }), Ok(()));
        let entry = Entry {
            term: Term(2),
            payload: Payload::Noop,
        };
        let (first, entries) = (Index(1), vec![entry]);
        assert_eq!(raft.replay(Record::Entries { first, entries }).is_ok(), is_sound);
    }
}
