//! Why a node does not start, or has stopped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use thiserror::Error;
use trilemma_core::{Corrupt, NodeId, Reason};
use trilemma_node::RecoveryError;
use trilemma_storage::{KEEP, LogError, SnapshotError};
use trilemma_transport::TransportError;

/// Why a node does not start, or has stopped. Nothing that was acknowledged is lost by any of these.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The configuration cannot work.
    #[error("configuration: {0}")]
    Config(String),
    /// The log could not be opened.
    #[error("data directory {}: {source}", path.display())]
    Log {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: LogError,
    },
    /// The snapshots could not be read.
    #[error("data directory {}: {source}", path.display())]
    Snapshot {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: SnapshotError,
    },
    /// What the disk holds belongs to another node, cluster or keyspace table.
    #[error("data directory {}: {why}", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What differs and what to do.
        why: String,
    },
    /// The directory is empty, and nobody has said that the node is new.
    #[error("data directory {}: {why}", path.display())]
    Empty {
        /// The directory.
        path: PathBuf,
        /// What to do.
        why: String,
    },
    /// A keyspace's records passed their checksums but cannot be right.
    #[error(
        "data directory {}: keyspace \"{keyspace}\": {source}; its checksums are right, so it was written like this. Nothing was changed. Start the version that wrote it, and please report this. {}",
        path.display(),
        KEEP
    )]
    Corrupt {
        /// The directory.
        path: PathBuf,
        /// The keyspace.
        keyspace: String,
        /// What does not fit.
        source: Corrupt,
    },
    /// The network endpoint could not be opened.
    #[error("node {node} at {listen}: {source}")]
    Transport {
        /// The node.
        node: NodeId,
        /// Where it was to listen.
        listen: SocketAddr,
        /// The cause.
        source: TransportError,
    },
    /// The system refused a thread, a clock or randomness.
    #[error("the operating system refused {what}: {why}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// The refusal.
        why: String,
    },
    /// Storage failed while the node ran. It has stopped, because nobody can say what the disk holds now.
    #[error(
        "storage failed, the node has stopped: {why}. Writes under way may have been applied. Check the disk and restart the node, which verifies the log"
    )]
    Storage {
        /// What the disk said.
        why: String,
    },
    /// The network endpoint ended while the node ran: the system took its socket away, or a broken invariant ended it. The
    /// node has stopped, because nobody could reach it any more.
    #[error(
        "the network endpoint has ended, and the node with it; its log says why. Writes under way may have been applied. Restart the node"
    )]
    Network,
    /// The node's thread ended by a broken invariant. It has stopped rather than go on wrongly.
    #[error(
        "the node has stopped by a broken invariant; its log says which. Writes under way may have been applied; keep the data directory, restart the node, and please report it"
    )]
    Panicked,
}

impl NodeError {
    /// Why a node could not be restored from this directory.
    pub(crate) fn recovery(path: &Path, error: RecoveryError) -> Self {
        let path = path.to_path_buf();
        match error {
            RecoveryError::Log(source) => NodeError::Log { path, source },
            RecoveryError::Snapshot(source) => NodeError::Snapshot { path, source },
            RecoveryError::Corrupt { keyspace, source } => NodeError::Corrupt {
                path,
                keyspace,
                source,
            },
            RecoveryError::Foreign(why) => NodeError::Foreign { path, why },
            empty @ RecoveryError::Empty(_) => NodeError::Empty {
                path,
                why: empty.to_string(),
            },
            other => NodeError::Foreign {
                path,
                why: other.to_string(),
            },
        }
    }

    /// What callers are answered when a running node has ended so.
    pub(crate) fn reason(&self) -> Reason {
        let why = self.to_string();
        Reason::Failed { why }
    }

    /// The failure of a running log.
    #[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
    pub(crate) fn log(error: LogError) -> Self {
        NodeError::Storage {
            why: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever had failed, callers used to learn of a failure of storage.
    #[test]
    fn callers_learn_what_has_failed_and_what_to_do() {
        let storage = NodeError::Storage { why: "EIO".into() };
        for (error, what) in [
            (storage, "storage failed"),
            (NodeError::Network, "network endpoint"),
            (NodeError::Panicked, "broken invariant"),
        ] {
            let reported = error.reason().to_string();
            for part in [what, "may have been applied", "estart the node"] {
                assert!(reported.contains(part), "{part}: {reported}");
            }
            assert!(
                what == "storage failed" || !reported.contains("storage"),
                "{reported}"
            );
        }
    }
}
