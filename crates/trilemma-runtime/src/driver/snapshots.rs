//! Snapshots in the background: all keyspaces at one position of the log, written by a thread of its own.
//!
//! The states are taken between two turns (their clones share memory and cost nothing), so each holds exactly what
//! replaying the log up to that position would give. The file is written once the log is durable that far, and the
//! log releases what it covers once the file is durable and has been read back.

use tokio::sync::oneshot;
use trilemma_core::KeyspaceId;
use trilemma_storage::snapshot::{self, Section};
use trilemma_storage::{LogSeq, SnapshotError};

use super::Driver;
use crate::error::NodeError;
use crate::recovery::{SnapshotTarget, node_section};

/// See the module.
pub(crate) struct Snapshots {
    target: SnapshotTarget,
    /// Bytes of log after which the next snapshot is due.
    every_bytes: u64,
    /// The log's bytes when the last one was taken.
    bytes_at_last: u64,
    state: State,
}

enum State {
    Idle,
    /// Taken; waits until the log is durable up to the position.
    Taken(LogSeq, Vec<Section>),
    /// Being written.
    Writing(LogSeq, oneshot::Receiver<Result<(), SnapshotError>>),
}

impl Snapshots {
    pub(crate) fn new(target: SnapshotTarget, every_bytes: u64) -> Self {
        Self {
            target,
            every_bytes,
            bytes_at_last: 0,
            state: State::Idle,
        }
    }

    /// The record up to which the newest snapshot reaches.
    pub(crate) fn covered(&self) -> LogSeq {
        self.target.newest
    }
}

impl Driver {
    /// Takes, writes or finishes a snapshot, whichever is due.
    pub(super) fn snapshot_if_due(&mut self) -> Result<(), NodeError> {
        match std::mem::replace(&mut self.snapshots.state, State::Idle) {
            State::Idle => {
                let bytes = self.log.counters().bytes;
                if bytes - self.snapshots.bytes_at_last >= self.snapshots.every_bytes {
                    self.snapshots.bytes_at_last = bytes;
                    let sections = self.sections();
                    self.snapshots.state = State::Taken(self.log.last(), sections);
                }
                Ok(())
            }
            State::Taken(at, sections) if self.progress.durable >= at => self.write_snapshot(at, sections),
            State::Writing(at, mut done) => match done.try_recv() {
                Ok(Ok(())) => {
                    tracing::info!(%at, "snapshot written");
                    self.snapshots.target.newest = at;
                    self.log.release(at).map_err(NodeError::log)
                }
                Ok(Err(error)) => {
                    // The log still holds everything; the next one is tried after as much log again.
                    tracing::error!(%at, %error, "no snapshot; the log keeps growing");
                    Ok(())
                }
                Err(oneshot::error::TryRecvError::Empty) => {
                    self.snapshots.state = State::Writing(at, done);
                    Ok(())
                }
                Err(oneshot::error::TryRecvError::Closed) => {
                    tracing::warn!(%at, "the snapshot's thread ended by a panic; the log keeps growing");
                    Ok(())
                }
            },
            waiting @ State::Taken(..) => {
                self.snapshots.state = waiting;
                Ok(())
            }
        }
    }

    fn sections(&self) -> Vec<Section> {
        let node = node_section(&self.snapshots.target.started);
        let keyspace = |slot: &crate::slot::Slot| -> (KeyspaceId, _) { (slot.id, slot.group.checkpoint()) };
        std::iter::once(node)
            .chain(self.slots.iter().map(keyspace))
            .collect()
    }

    fn write_snapshot(&mut self, at: LogSeq, sections: Vec<Section>) -> Result<(), NodeError> {
        let (finished, done) = oneshot::channel();
        let SnapshotTarget { disk, log_id, .. } = self.snapshots.target.clone();
        let write = move || {
            // The driver has ended: the snapshot is found at the next start all the same.
            let _ended = finished.send(snapshot::write(&disk, log_id, at, sections));
        };
        std::thread::Builder::new()
            .name("trilemma-snapshot".into())
            .spawn(write)
            .map_err(|error| NodeError::System {
                what: "a thread",
                why: error.to_string(),
            })?;
        self.snapshots.state = State::Writing(at, done);
        Ok(())
    }
}
