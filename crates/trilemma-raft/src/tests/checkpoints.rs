//! Checkpoints of states that are larger than those of other tests, and of earlier versions.

use trilemma_core::checkpoint::{CHUNK_BYTES_MAX, STORED_CHUNK_BYTES_MAX};
use trilemma_core::session::{OpResult, SESSION_RESULTS_MAX};
use trilemma_core::{Command, OpId, SessionId};

use super::*;
use crate::hard_state::HardState;

fn session(number: u64) -> SessionId {
    SessionId {
        basis: Version(1_000_000),
        // As large as random ones are.
        nonce: u64::MAX - number,
    }
}

/// A state in which this many sessions hold all the results that they may.
fn with_sessions(sessions: u64) -> Raft {
    let mut raft = Raft::new(RaftConfig::new(NodeId(1), Incarnation(1), (1..=3).map(NodeId), 1));
    let mut at = Version(0);
    for seq in 1..=SESSION_RESULTS_MAX {
        for number in 0..sessions {
            at = at.next();
            let session = session(number);
            raft.shared
                .table
                .apply(OpId { session, seq }, &Command::put("key", "x"), at);
        }
    }
    raft.shared.log = Log::at(LogEnd {
        term: Term(1),
        index: Index(at.0),
    });
    raft.shared.hard = HardState::restored(Term(1), None);
    raft.shared.commit = Index(at.0);
    raft
}

fn restored(chunks: impl IntoIterator<Item = Vec<u8>>) -> Raft {
    let mut raft = Raft::new(RaftConfig::new(NodeId(1), Incarnation(1), (1..=3).map(NodeId), 1));
    for (index, chunk) in chunks.into_iter().enumerate() {
        let read = raft.restore(&chunk);
        read.unwrap_or_else(|error| panic!("chunk {index} of {} bytes: {error}", chunk.len()));
    }
    raft
}

/// The session record was one chunk, which was written and never read again: 3.8 MB of 200 sessions.
#[test]
fn c1_a_checkpoint_with_many_full_sessions_is_read_back() {
    let raft = with_sessions(600);
    let checkpoint = raft.checkpoint();
    let check = checkpoint.check();
    let chunks: Vec<Vec<u8>> = checkpoint.collect();
    for chunk in &chunks {
        assert!(chunk.len() <= CHUNK_BYTES_MAX, "{} bytes", chunk.len());
        assert_eq!(check(chunk), Ok(()));
    }
    let copy = restored(chunks);
    assert_eq!(copy.table().digest(), raft.table().digest());
    assert_eq!(copy.table().sessions(), raft.table().sessions());
}

/// Of the data directories that nothing could read any more: they start again.
#[test]
fn c1_a_table_whose_first_chunk_has_up_to_16_mib_is_read() {
    const SESSIONS: u64 = 600;
    let raft = with_sessions(SESSIONS);
    // The whole session record as earlier versions wrote it: horizon; id, last use and floor of each session; results.
    let position = |session, seq| Version((seq - 1) * SESSIONS + session + 1);
    let last = |number| position(number, SESSION_RESULTS_MAX);
    let sessions: Vec<_> = (0..SESSIONS)
        .map(|number| (session(number), last(number), 0_u64))
        .collect();
    let mut results = Vec::new();
    for number in 0..SESSIONS {
        for seq in 1..=SESSION_RESULTS_MAX {
            let result = OpResult::Applied {
                succeeded: true,
                version: position(number, seq),
                found: Version::ABSENT,
            };
            let session = session(number);
            results.push((OpId { session, seq }, result));
        }
    }
    let whole = (Version::ABSENT, sessions, results);
    // `WholeHead` of a table, in `Table` of a checkpoint.
    let head = codec::encode_vec(&(0_u8, raft.table().version(), whole));
    assert!(
        head.len() > 10_000_000 && head.len() < STORED_CHUNK_BYTES_MAX,
        "{}",
        head.len()
    );
    let head = codec::encode_vec(&Chunk::Table(head.into()));
    let new: Vec<Vec<u8>> = raft.checkpoint().collect();
    let keys = |chunk: &&Vec<u8>| matches!(codec::decode(chunk), Ok(Chunk::Table(bytes)) if bytes[0] == 1);
    let keys: Vec<Vec<u8>> = new.iter().filter(keys).cloned().collect();
    let (first, last) = (new[0].clone(), new[new.len() - 1].clone());
    let copy = restored([first, head].into_iter().chain(keys).chain([last]));
    assert_eq!(copy.table().digest(), raft.table().digest());
    assert_eq!(copy.table().sessions(), raft.table().sessions());
}

#[test]
fn c1_the_largest_chunk_fits_a_message_and_a_record_and_no_larger_one_does() {
    for (length, fits) in [(CHUNK_BYTES_MAX, true), (CHUNK_BYTES_MAX + 1, false)] {
        let chunk = bytes::Bytes::from(vec![0; length]);
        let message = Message::Snapshot {
            term: Term(u64::MAX),
            round: u64::MAX,
            at: LogEnd::default(),
            part: u32::MAX,
            last: true,
            chunk: chunk.clone(),
        };
        let message = codec::encode(&message);
        assert_eq!(codec::decode::<Message>(&message).is_ok(), fits);
        let record = codec::encode(&Record::SnapshotPart(chunk));
        assert_eq!(codec::decode::<Record>(&record).is_ok(), fits);
        assert!(
            !fits || message.len() <= 4 * 1024 * 1024,
            "the default frame of the bulk lane"
        );
    }
}

#[test]
fn a_checkpoint_keeps_as_much_of_the_log_as_is_kept_for_all_and_what_is_not_applied() {
    let mut config = RaftConfig::new(NodeId(1), Incarnation(1), (1..=3).map(NodeId), 1);
    let base = LogEnd {
        term: Term(1),
        index: Index(5),
    };
    let mut log = Log::at(base);
    let entry = |term| Entry {
        term: Term(term),
        payload: Payload::Noop,
    };
    log.extend([1, 1, 2, 2, 2, 3, 4].map(entry));
    let size = entry(1).size();
    for applied in 5..=12 {
        for (entries, bytes) in [
            (0, 0),
            (0, 1000),
            (2, 1000),
            (100, 2 * size),
            (3, size),
            (100, 1000),
        ] {
            (config.kept_entries, config.kept_bytes) = (entries, bytes);
            let kept = entries.min(bytes / size).min(7) as u64;
            let begins = (12 - kept).min(applied);
            let found = log.for_checkpoint(Index(applied), &config);
            assert_eq!(found.base().index, Index(begins), "{applied} {entries} {bytes}");
            assert_eq!(Some(found.base().term), log.term(Index(begins)));
            let entries: Vec<Entry> = found.collect();
            assert_eq!(entries, log.slice(Index(begins).next(), log.last()));
        }
    }
}
