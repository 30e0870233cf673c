//! What can be wrong with a log or a snapshot, and what to do.

use std::io;

use thiserror::Error;

use crate::LogSeq;

/// Why a log cannot be opened or has stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// A read, write or sync failed. The log accepts nothing more; restart the node once the disk is well.
    #[error("{file}: {action} failed: {source}; the log is closed, check the disk and restart the node")]
    Io {
        /// The file.
        file: String,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// No room for another segment. Nothing is lost or half-written.
    #[error("{file}: no space for another log segment ({source}); free space on this file system")]
    NoSpace {
        /// The file that could not be made.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes that were durable are not what was written.
    #[error(
        "{file}, offset {offset}: {what}; the data was durable, so it is not cut. Restore this node from a backup, or wipe its data directory and let it rejoin under a new node id"
    )]
    Corrupt {
        /// The file.
        file: String,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// Records that are needed are not there.
    #[error(
        "the log begins with record {first} (0: there is no log), but the newest snapshot ends with record {snapshot}; files are missing from the data directory. Restore it from a backup, or wipe it and let the node rejoin under a new node id"
    )]
    Gap {
        /// The first record of the log.
        first: LogSeq,
        /// The last record that the snapshot covers.
        snapshot: LogSeq,
    },
    /// The options cannot be used. Nothing was touched.
    #[error(
        "a log with segments of {segment_bytes} bytes cannot be made; from {min} to {max} are possible, change the setting"
    )]
    SegmentBytes {
        /// What was asked for.
        segment_bytes: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A record is larger than a segment may hold. It was not appended; the log goes on.
    #[error("a record of {size} bytes is too large for the log, the limit is {limit}")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The log has failed before; see the first error.
    #[error("the log is closed after an earlier failure")]
    Closed,
    /// Too much waits to be written: the disk is slower than the load.
    #[error("{bytes} bytes wait to be written to the log, the limit is {limit}")]
    Overloaded {
        /// Bytes that wait.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

impl LogError {
    pub(crate) fn io(file: &str, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_owned();
        move |source| LogError::Io { file, action, source }
    }

    pub(crate) fn corrupt(file: &str, offset: u64, what: impl Into<String>) -> Self {
        LogError::Corrupt {
            file: file.into(),
            offset,
            what: what.into(),
        }
    }
}

/// Why a snapshot cannot be written or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// A read, write or sync failed. The former snapshot and the log are untouched.
    #[error("{file}: {action} failed: {source}")]
    Io {
        /// The file.
        file: String,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A chunk is larger than a snapshot may hold. No snapshot was written; the former one and the log are untouched.
    #[error("a chunk of {size} bytes is too large for a snapshot, the limit is {limit}")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The newest snapshot is not what was written.
    #[error(
        "{file}, offset {offset}: {what}; restore this node from a backup, or wipe its data directory and let it rejoin under a new node id"
    )]
    Corrupt {
        /// The file.
        file: String,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong.
        what: String,
    },
}

impl SnapshotError {
    pub(crate) fn io(file: &str, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_owned();
        move |source| SnapshotError::Io { file, action, source }
    }

    pub(crate) fn corrupt(file: &str, offset: u64, what: impl Into<String>) -> Self {
        SnapshotError::Corrupt {
            file: file.into(),
            offset,
            what: what.into(),
        }
    }
}
