//! What a raft node makes durable.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trilemma_core::NodeId;
use trilemma_core::checkpoint::CHUNK_BYTES_MAX;
use trilemma_core::codec::{bounded_bytes, bounded_vec};

use crate::log::{Entry, Index, Term};
use crate::message::{ENTRIES_MAX, LogEnd};

/// What a raft node makes durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The term, and whom the node voted for in it (Raft figure 2, persistent state).
    HardState {
        /// The term.
        term: Term,
        /// The vote.
        vote: Option<NodeId>,
    },
    /// Entries from `first` on. Whatever the log held from there on is gone.
    Entries {
        /// Index of the first of them.
        first: Index,
        /// The entries.
        #[serde(deserialize_with = "bounded_vec::<_, _, ENTRIES_MAX>")]
        entries: Vec<Entry>,
    },
    /// The next part of a state that a leader sends, appended as it comes. Lazy. The part that opens a state begins
    /// again: parts before it are of a transfer that broke off.
    SnapshotPart(#[serde(deserialize_with = "bounded_bytes::<_, CHUNK_BYTES_MAX>")] Bytes),
    /// The parts before are the state at this entry, whole; the log goes on after it.
    SnapshotEnd {
        /// The last entry that the state reflects.
        at: LogEnd,
    },
}
