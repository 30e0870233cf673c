//! What can be wrong with a log or a snapshot, and what to do.

use std::io;

use thiserror::Error;
use trilemma_core::{Corrupt, KeyspaceId};

use crate::LogSeq;

/// What is safe when durable data cannot be read. A node that starts without what it has promised, from an empty or an
/// older directory, can break the promises of its whole cluster; so both are left out.
pub const KEEP: &str = "Keep the data directory as it is, with a copy elsewhere. Check the disk, and that the whole \
                        directory is mounted; then start again. If the error stays, the other nodes go on as long as \
                        they are enough: export the keyspaces from them, or set all nodes back to one backup";

/// Why a log cannot be opened or has stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// A read, write or sync failed. The log accepts nothing more; restart the node once the disk is well.
    #[error(
        "{file}: {action} failed: {source}; the log is closed. What was durable before is untouched, what was being written may be there or not. Check the disk, then restart the node"
    )]
    Io {
        /// The file.
        file: String,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// No room for more of the log: the disk is full, or the system has no file or memory left to give. Nothing is lost,
    /// and the log goes on when there is room again.
    #[error("{file}: no space for more of the log ({source}); nothing was lost")]
    NoSpace {
        /// The file that could not be made or written.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes that were durable are not what was written.
    #[error(
        "{file}, offset {offset}: {what}; the data was durable, so it is not cut. {}",
        KEEP
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
        "the log begins with record {first} (0: there is no log), but the newest snapshot ends with record {snapshot}; files are missing from the data directory. {}",
        KEEP
    )]
    Gap {
        /// The first record of the log.
        first: LogSeq,
        /// The last record that the snapshot covers.
        snapshot: LogSeq,
    },
    /// The options cannot be used. Nothing was touched.
    #[error(
        "a log with segments of {segment_bytes} bytes cannot be made; from {min} to {max} are possible. Nothing was touched; change the setting"
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
    #[error(
        "a record of {size} bytes is too large for the log, the limit is {limit}; it was not written, the log goes on"
    )]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The log has failed before; see the first error.
    #[error("the log is closed after an earlier failure; see the first error, then restart the node")]
    Closed,
}

/// Whether an operation failed because the system had nothing left of something that may come back: space, open files,
/// memory.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    /// `EMFILE` and `ENFILE`, which no stable kind of error tells: the same numbers on every Unix.
    const TOO_MANY_OPEN_FILES: [i32; 2] = [24, 23];
    let kind = matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge
            | io::ErrorKind::OutOfMemory
            | io::ErrorKind::WouldBlock
    );
    kind || (cfg!(unix)
        && error
            .raw_os_error()
            .is_some_and(|number| TOO_MANY_OPEN_FILES.contains(&number)))
}

impl LogError {
    /// What a failure to write or to make a file means: see [`is_shortage`].
    pub(crate) fn room(file: &str, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_owned();
        move |source| {
            if is_shortage(&source) {
                LogError::NoSpace { file, source }
            } else {
                LogError::Io { file, action, source }
            }
        }
    }

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
    #[error(
        "{file}: {action} failed: {source}; the former snapshot and the log are untouched. Check the disk"
    )]
    Io {
        /// The file.
        file: String,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A chunk is larger than a snapshot may hold. No snapshot was written; the former one and the log are untouched.
    #[error(
        "keyspace {keyspace}: a chunk of {size} bytes is too large for a snapshot, the limit is {limit}; none was \
         written, the former one and the log are untouched. Please report it"
    )]
    TooLarge {
        /// Whose chunk it is.
        keyspace: KeyspaceId,
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The keyspace could not restore its state from the snapshot that was just written. It was removed; the former
    /// one and the log are untouched.
    #[error(
        "keyspace {keyspace}: its state could not be read back from the snapshot just written ({why}); that one was \
         removed, the former one and the log are untouched. Please report it"
    )]
    Unreadable {
        /// Whose state it is.
        keyspace: KeyspaceId,
        /// What its backend says.
        why: Corrupt,
    },
    /// The thread that wrote it ended by a broken invariant. The former snapshot and the log are untouched.
    #[error("the writing of the snapshot ended by a broken invariant; please report it")]
    Interrupted,
    /// The newest snapshot is not what was written.
    #[error(
        "{file}, offset {offset}: {what}; the snapshot was durable, so it is not skipped. {}",
        KEEP
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
