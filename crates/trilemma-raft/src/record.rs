//! What a raft node makes durable, and the chunks of its checkpoints.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trilemma_core::checkpoint::{CHUNK_BYTES_MAX, STORED_CHUNK_BYTES_MAX};
use trilemma_core::codec::{self, bounded_bytes, bounded_vec};
use trilemma_core::{Corrupt, NodeId, table};

use super::log::{Entry, Index, Term};
use super::message::{ENTRIES_MAX, LogEnd};

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

/// One chunk of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Chunk {
    /// The first chunk.
    Head {
        term: Term,
        vote: Option<NodeId>,
        /// The entry before the first that the log holds.
        base: LogEnd,
    },
    /// A chunk of the table.
    Table(#[serde(deserialize_with = "bounded_bytes::<_, STORED_CHUNK_BYTES_MAX>")] Bytes),
    /// Entries that follow those of earlier chunks.
    Entries(#[serde(deserialize_with = "bounded_vec::<_, _, ENTRIES_MAX>")] Vec<Entry>),
    /// The last chunk.
    End,
    /// A part of a state that is being received, in order. Stands before the last chunk.
    Part(#[serde(deserialize_with = "bounded_bytes::<_, CHUNK_BYTES_MAX>")] Bytes),
}

/// Whether `restore` could read this chunk of a checkpoint.
pub(crate) fn check_chunk(chunk: &[u8]) -> Result<(), Corrupt> {
    match codec::decode(chunk)? {
        Chunk::Table(bytes) | Chunk::Part(bytes) => table::check_chunk(&bytes),
        Chunk::Head { .. } | Chunk::Entries(_) | Chunk::End => Ok(()),
    }
}
