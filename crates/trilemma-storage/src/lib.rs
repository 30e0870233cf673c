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
//!   was not appended, and never half of one. What recovery shows is durable when [`Log::open`] returns.
//! - Damage to a record that is *provably* durable is refused with file and offset, never cut, and nothing in the
//!   directory is changed. Proofs are: a later record, as each states how far the log was durable when it was written;
//!   a later segment, as all before it is durable when one is begun; a snapshot; and the mark of a clean end, a record
//!   in a block of its own.
//! - A full disk is said before anything is lost: only making a new segment needs space, and a failure to make one
//!   leaves the log as it was. So does a write that finds none, as on file systems that write nothing in place, and a
//!   system that has no file or memory left to give.
//!
//! # What cannot be distinguished
//!
//! By no log without a second copy; the protocols above have one, on the other nodes.
//!
//! - After a crash (no mark of a clean end): damage to records of the very last sync, from a write that the crash
//!   tore. Both are cut. A record written after that sync, even if it is itself lost to nobody, is already the proof.
//! - The loss of the newest segment files as a whole, or of all files, from a log that ended earlier.
//! - Damage to the mark of a clean end itself: the log then looks crashed, and is whole.
//! - A disk that brings back an older state of all its sectors at once.
//!
//! # Bytes
//!
//! Integers are little-endian. `wal-<index, 16 hex digits>` is a segment, `spare-<number>` one that waits for use and
//! is removed at the next start, `lock` an empty file whose lock keeps a second process out.
//!
//! | segment offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `TRILWAL2`; the last byte is the format's version |
//! | 8 | 8 | log id, random, the same in every file of a data directory |
//! | 16 | 8 | segment index, from 1, contiguous |
//! | 24 | 8 | sequence number of its first record |
//! | 32 | 8 | length of the file |
//! | 40 | 8 | checksum of the 40 bytes before, seed 0 |
//! | 48 | 4048 | not used |
//! | 4096 | … | records, each at a multiple of 8, without gaps but before a mark of a clean end |
//!
//! | record offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | checksum of the rest of header and payload |
//! | 8 | 4 | length of the payload |
//! | 12 | 4 | keyspace |
//! | 16 | 8 | sequence number, contiguous over all segments |
//! | 24 | 8 | sequence number up to which the log was durable when this record was written |
//! | 32 | 4 | kind: 1 record, 2 clean end (begins at the next multiple of 4096) |
//! | 36 | 4 | low half of the checksum of the 28 bytes from offset 8 |
//! | 40 | … | payload, zeros up to the next multiple of 8 |
//!
//! Checksums are XXH3 with 64 bits. The seed of a record's two is `log id ^ segment index * 0x9e3779b97f4a7c15 ^ offset
//! in the segment * 0xc2b2ae3d27d4eb4f`, wrapping. As they cover the address, and no index is used twice, a record of a
//! recycled segment, or one that a disk wrote to the wrong place, never verifies. What stands behind the last record of
//! the last segment is wiped when a log is opened. [`snapshot`] describes snapshot files.

mod disk;
mod error;
mod log;
mod memory;
#[cfg(unix)]
mod os;
pub mod queue;
pub mod snapshot;
mod writer;

pub use disk::{Disk, DiskFile};
pub use error::{KEEP, LogError, SnapshotError};
pub use log::{Log, LogOptions, ReadLog, Record, Recovery, SegmentSummary, Spare, Verification, fill_spare};
pub use memory::{MemoryDisk, MemoryFaults};
#[cfg(unix)]
pub use os::{OsDisk, OsFile};
pub use queue::{Batch, Due, LogEvent, Progress, SpareJob, WriteQueue};
pub use writer::{Counters, LogWriter};

use std::fmt;

/// A position in the node's log: the number of a record, from 1. 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogSeq(pub u64);

impl LogSeq {
    /// The position `records` further on; the greatest one at most.
    #[must_use]
    pub const fn plus(self, records: u64) -> Self {
        Self(self.0.saturating_add(records))
    }
}

impl fmt::Display for LogSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
