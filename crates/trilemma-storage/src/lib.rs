//! The one write-ahead log of a node, and its snapshots.
//!
//! All keyspaces append to one [`Log`], so that one sync makes a whole turn durable. State lives in memory; restart is
//! the newest snapshot plus the log behind it. [`Log`] and [`snapshot`] are pure over the small trait [`Disk`], so the
//! simulator runs the same code on a disk that tears, loses and rots; [`LogWriter`] puts a log on a thread of its own.
//!
//! # What is promised
//!
//! - A record is durable once a sync that covers it has returned. A failed write or sync ends the log for good: what
//!   the disk holds is unknown then, and a second sync may report success for pages that were dropped.
//! - After a crash the log holds every durable record, in order, and perhaps some that were not; never a record that
//!   was not appended, and never half of one.
//! - Damage to a record that is *provably* durable is refused with file and offset, never cut. The proof is any later
//!   record: each states how far the log was durable when it was written; a clean end writes one on purpose. What
//!   cannot be told apart, by any log without a second copy, is damage to the very last sync's records after a crash
//!   from a write that the crash tore: both are cut.
//!
//! # Bytes
//!
//! Integers are little-endian. `wal-<index, 16 hex digits>` is a segment, `spare-<number>` one that waits for use.
//!
//! | segment offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `TRILWAL1` |
//! | 8 | 8 | log id, random, the same in every file of a data directory |
//! | 16 | 8 | segment index, from 1, contiguous |
//! | 24 | 8 | sequence number of its first record |
//! | 32 | 8 | length of the file |
//! | 40 | 8 | checksum of the 40 bytes before |
//! | 4096 | … | records, each at a multiple of 8 |
//!
//! | record offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | checksum of the rest of header and payload, seeded with log id, segment index and offset |
//! | 8 | 4 | length of the payload |
//! | 12 | 4 | keyspace |
//! | 16 | 8 | sequence number, contiguous over all segments |
//! | 24 | 8 | sequence number up to which the log was durable when this record was written |
//! | 32 | 8 | kind: 1 record, 2 clean end (begins at the next multiple of 4096) |
//! | 40 | … | payload, zeros up to the next multiple of 8 |
//!
//! Checksums are XXH3 with 64 bits. As they cover the address, a record of a recycled segment, or one that a disk
//! wrote to the wrong place, never verifies. [`snapshot`] describes snapshot files.

mod disk;
mod error;
mod log;
mod memory;
#[cfg(unix)]
mod os;
pub mod snapshot;
mod writer;

pub use disk::{Disk, DiskFile};
pub use error::{LogError, SnapshotError};
pub use log::{Log, LogOptions, RECORD_BYTES_MAX, Record, Recovery, fill_spare};
pub use memory::{MemoryDisk, MemoryFaults};
#[cfg(unix)]
pub use os::OsDisk;
pub use writer::{Batch, Counters, LogEvent, LogWriter, Progress};

use std::fmt;

/// A position in the node's log: the number of a record, from 1. 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogSeq(pub u64);

impl LogSeq {
    /// The position `records` further on.
    #[must_use]
    pub const fn plus(self, records: u64) -> Self {
        Self(self.0 + records)
    }
}

impl fmt::Display for LogSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
