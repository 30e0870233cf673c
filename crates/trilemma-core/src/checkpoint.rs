//! Checkpoints: a state as chunks, how large a chunk may be, and how it is checked before it is relied upon.
//!
//! Those who write and those who read a checkpoint use the limits of this module and no others: a chunk that was
//! written and is refused when it is read is a state that is lost.

use std::fmt;

use crate::protocol::Corrupt;

/// Size in bytes at which a chunk is closed. The entry that reaches it goes in whole.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// Largest chunk that is written to a disk or sent to a peer, in bytes. The largest single entries are a batch of
/// two-phase commit (1 MiB and a last command of 2 MiB) and a raft entry of 2 MiB behind nearly [`CHUNK_BYTES`] of
/// others. With its envelope it fits a frame of 4 MiB.
pub const CHUNK_BYTES_MAX: usize = 4 * 1024 * 1024 - 64 * 1024;

/// Largest chunk that is read from a disk, in bytes. Earlier versions put the whole session record of a keyspace into
/// one chunk and wrote up to this much.
pub const STORED_CHUNK_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The chunks of a state, in the order in which they are restored. Made lazily, by the thread that writes them.
pub struct Checkpoint {
    chunks: Box<dyn Iterator<Item = Vec<u8>> + Send>,
    check: fn(&[u8]) -> Result<(), Corrupt>,
}

impl Checkpoint {
    /// A checkpoint of these chunks. `check` says whether one could be read: it decodes a chunk as restoring would, and
    /// keeps nothing.
    #[must_use]
    pub fn new(
        chunks: impl Iterator<Item = Vec<u8>> + Send + 'static,
        check: fn(&[u8]) -> Result<(), Corrupt>,
    ) -> Self {
        Self {
            chunks: Box::new(chunks),
            check,
        }
    }

    /// What tells whether a chunk of this checkpoint could be read.
    #[must_use]
    pub fn check(&self) -> fn(&[u8]) -> Result<(), Corrupt> {
        self.check
    }
}

impl Iterator for Checkpoint {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        self.chunks.next()
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint").finish_non_exhaustive()
    }
}
