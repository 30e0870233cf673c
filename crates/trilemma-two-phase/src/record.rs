//! What a node makes durable.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trilemma_core::Epoch;
use trilemma_core::codec::bounded_bytes;

use crate::batch::Batch;
use crate::ids::BatchId;
use crate::message::PIECE_BYTES_MAX;

/// One record of the log. Forced unless it says lazy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The sequencer of a new keyspace has heard that no member has voted yet: it may order batches and answer.
    Joined {
        /// The view.
        epoch: Epoch,
    },
    /// A member is ready to commit the batch and will not abort it alone. Durable before the vote.
    Prepare(Arc<Batch>),
    /// The sequencer commits the batch; its own prepare is folded in. Durable before anybody is notified.
    Decision(Arc<Batch>),
    /// A member will never prepare this batch, nor one chained on it. Durable before anybody is notified.
    Refuse {
        /// The batch.
        id: BatchId,
    },
    /// A member has learned that its chain is committed up to here. Lazy; acknowledged when durable.
    Outcome {
        /// The last committed batch.
        decided: BatchId,
    },
    /// Every batch below is finished: committed and acknowledged by every member, or aborted. Lazy.
    Watermark {
        /// The first id that may be unfinished.
        below: BatchId,
    },
    /// A part of a state that is being transferred to a member without data. Lazy.
    Piece {
        /// Which transfer.
        nonce: u64,
        /// Its number, from 0. A piece 0 starts again.
        index: u32,
        /// Bytes of a chunk of the table.
        #[serde(deserialize_with = "bounded_bytes::<_, PIECE_BYTES_MAX>")]
        bytes: Bytes,
        /// Whether the chunk ends here.
        ends_chunk: bool,
    },
    /// The pieces of this transfer are whole and are this member's state.
    Installed {
        /// Which transfer.
        nonce: u64,
        /// The last batch that the state reflects.
        decided: BatchId,
        /// Of batches up to here, which an earlier incarnation may have voted for, this member is no evidence.
        unknown_through: BatchId,
    },
}
