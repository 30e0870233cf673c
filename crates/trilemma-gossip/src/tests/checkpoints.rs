//! Checkpoints with many sessions, and those of earlier versions.

use trilemma_core::checkpoint::CHUNK_BYTES_MAX;
use trilemma_core::session::{OpResult, SESSION_RESULTS_MAX};
use trilemma_core::{Incarnation, NodeId, OpId, Protocol, SessionId, Version, codec};

use super::{Gossip, GossipConfig};
use crate::record::Record;

fn gossip(incarnation: u64) -> Gossip {
    let members = (1..=3).map(NodeId);
    Gossip::new(GossipConfig::new(NodeId(1), Incarnation(incarnation), members, 1))
}

/// A node with this many sessions, all of which hold all the results that they may.
fn with_sessions(sessions: u64) -> Gossip {
    let mut gossip = gossip(1);
    let mut at = Version(1_700_000_000_000 << 16);
    for seq in 1..=SESSION_RESULTS_MAX {
        for nonce in 0..sessions {
            at = at.next();
            let session = SessionId {
                basis: Version(1_700_000_000_000 << 16),
                nonce: u64::MAX - nonce,
            };
            let result = OpResult::Applied {
                succeeded: true,
                version: at,
                found: Version::ABSENT,
            };
            gossip.writes.sessions.record(OpId { session, seq }, result, at);
        }
    }
    gossip
}

fn restored(chunks: impl IntoIterator<Item = Vec<u8>>) -> Gossip {
    let mut gossip = gossip(2);
    for chunk in chunks {
        gossip.restore(&chunk).expect("a chunk that was written is read");
    }
    gossip
}

/// All sessions were one chunk: beyond 16 MiB no snapshot could be written any more.
#[test]
fn c1_a_checkpoint_with_many_full_sessions_is_many_chunks_and_is_read_back() {
    let gossip = with_sessions(600);
    let checkpoint = gossip.checkpoint();
    let check = checkpoint.check();
    let chunks: Vec<Vec<u8>> = checkpoint.collect();
    for chunk in &chunks {
        assert!(chunk.len() <= CHUNK_BYTES_MAX, "{} bytes", chunk.len());
        assert_eq!(check(chunk), Ok(()));
    }
    assert_eq!(restored(chunks).writes.sessions, gossip.writes.sessions);
}

#[test]
fn a_head_with_all_sessions_as_earlier_versions_wrote_it_is_read() {
    let gossip = with_sessions(1);
    let basis = 1_700_000_000_000 << 16;
    let session = SessionId {
        basis: Version(basis),
        nonce: u64::MAX,
    };
    let result = |seq: u64| {
        let result = OpResult::Applied {
            succeeded: true,
            version: Version(basis + seq),
            found: Version::ABSENT,
        };
        (OpId { session, seq }, result)
    };
    let results: Vec<_> = (1..=SESSION_RESULTS_MAX).map(result).collect();
    let sessions = vec![(session, Version(basis + SESSION_RESULTS_MAX), 0_u64)];
    // `WholeHead`, whose record is: horizon; id, last use and floor of each session; results.
    let whole = (Version::ABSENT, sessions, results);
    let (clock, durable_since) = (0_u64, Some(Incarnation(1)));
    let head = codec::encode_vec(&(0_u8, clock, durable_since, whole));
    let rest = gossip.checkpoint().last().expect("the context");
    let copy = restored([head, rest]);
    assert_eq!(copy.writes.sessions, gossip.writes.sessions);
    assert_eq!(copy.shared.durable_since, Some(Incarnation(1)));
}

/// Found by changed records: the node started and stopped at its first comparison.
#[test]
fn a_disk_that_has_lived_through_what_is_to_come_is_refused() {
    let mut gossip = gossip(2);
    let begin = |first| Record::Begin {
        durable_since: Some(Incarnation(first)),
    };
    assert_eq!(gossip.replay(begin(2)), Ok(()));
    let why = gossip.replay(begin(3)).expect_err("3 is to come");
    assert!(why.0.contains("from i3 on"), "{why}");
}
