//! Names of batches.

use std::fmt;

use serde::{Deserialize, Serialize};
use trilemma_core::{Epoch, Incarnation};

/// Names one batch of one keyspace, permanently. Ordered lexicographically: the epoch names the view and its sequencer,
/// the incarnation one run of that sequencer, so ids grow over restarts and hand-overs and are never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BatchId {
    /// The view under which the batch was ordered.
    pub epoch: Epoch,
    /// The incarnation of the sequencer that ordered it.
    pub incarnation: Incarnation,
    /// Its number within that incarnation, from 1. Aborted batches leave gaps in the chain, never in the numbers.
    pub seq: u64,
}

impl BatchId {
    /// What the first batch of a keyspace is chained on; smaller than every batch.
    pub const ORIGIN: BatchId = BatchId {
        epoch: Epoch(0),
        incarnation: Incarnation(0),
        seq: 0,
    };
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch.0, self.incarnation.0, self.seq)
    }
}
