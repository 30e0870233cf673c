//! Checkpoints with many sessions.

use trilemma_core::checkpoint::CHUNK_BYTES_MAX;
use trilemma_core::session::SESSION_RESULTS_MAX;
use trilemma_core::{Command, Incarnation, NodeId, OpId, Protocol, SessionId, Version};

use crate::{TwoPhase, TwoPhaseConfig};

fn node(id: u32, incarnation: u64) -> TwoPhase {
    TwoPhase::new(TwoPhaseConfig::new(
        NodeId(id),
        (1..=3).map(NodeId),
        Incarnation(incarnation),
        1,
    ))
}

/// All sessions were one chunk: beyond 16 MiB no snapshot could be written any more.
#[test]
fn c1_a_checkpoint_with_many_full_sessions_is_many_chunks_and_is_read_back() {
    for id in [1, 2] {
        let mut two_phase = node(id, 1);
        let table = &mut two_phase.core.ledger.table;
        for seq in 1..=SESSION_RESULTS_MAX {
            for nonce in 0..600 {
                let session = SessionId {
                    basis: Version(1_000_000),
                    nonce: u64::MAX - nonce,
                };
                let at = table.version().next();
                table.apply(OpId { session, seq }, &Command::put("key", "x"), at);
            }
        }
        let checkpoint = two_phase.checkpoint();
        let check = checkpoint.check();
        let mut copy = node(id, 2);
        for chunk in checkpoint {
            assert!(chunk.len() <= CHUNK_BYTES_MAX, "{} bytes", chunk.len());
            assert_eq!(check(&chunk), Ok(()));
            copy.restore(&chunk).expect("a chunk that was written is read");
        }
        let (copy, table) = (&copy.core.ledger.table, &two_phase.core.ledger.table);
        assert_eq!(copy.digest(), table.digest());
        assert_eq!(copy.sessions(), table.sessions());
    }
}
