//! When a snapshot is taken, written and finished: all keyspaces at one position of the log.
//!
//! The states are taken between two turns (their clones share memory and cost nothing), so each holds exactly what
//! replaying the log up to that position would give, and what keyspaces have appended that has no place in the log yet. The
//! file is written once the log is durable that far and holds those records too, and says which places they have: they are
//! not replayed. The log releases what the snapshot covers once the file is durable and has been read back.
//!
//! A snapshot costs as much as the state is large, so the next one waits until the log is as long as the last one, or as the
//! setting says, if that is more. So a byte that is written costs no more than one byte of snapshots, however large the state
//! is.

use std::collections::BTreeMap;

use trilemma_core::{AppendSeq, KeyspaceId};
use trilemma_storage::snapshot::{Section, Summary};
use trilemma_storage::{LogSeq, SnapshotError};

use crate::config::Tuning;
use crate::record::{NodeRecord, section};

/// A snapshot to be written by [`trilemma_storage::snapshot::write`], on whatever thread suits the host. The result
/// goes to [`crate::Node::on_snapshot`].
pub struct SnapshotJob {
    /// The log's id.
    pub log_id: u64,
    /// The position that it covers.
    pub at: LogSeq,
    /// The states, made as they are written.
    pub sections: Vec<Section>,
}

impl std::fmt::Debug for SnapshotJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotJob")
            .field("at", &self.at)
            .field("sections", &self.sections.len())
            .finish_non_exhaustive()
    }
}

/// States that were taken, with all that keyspaces had appended by then.
pub(crate) struct Taken {
    /// What the node keeps of itself.
    pub(crate) own: Vec<NodeRecord>,
    /// The last record of each keyspace whose records still waited for their turn, and its place in the log once it has one.
    pub(crate) waiting: BTreeMap<KeyspaceId, (AppendSeq, Option<LogSeq>)>,
    /// The keyspaces' states.
    pub(crate) keyspaces: Vec<Section>,
}

impl Taken {
    /// Whether the log holds durably all that the states reflect.
    fn is_durable(&self, durable: LogSeq) -> bool {
        let mut places = self.waiting.values().map(|(_, place)| place);
        places.all(|place| place.is_some_and(|place| place <= durable))
    }

    fn sections(mut self) -> Vec<Section> {
        let places = self.waiting.into_iter();
        let places: Vec<(KeyspaceId, u64)> = places
            .filter_map(|(id, (_, place))| Some((id, place?.0)))
            .collect();
        if !places.is_empty() {
            self.own.push(NodeRecord::Reflected(places));
        }
        std::iter::once(section(&self.own))
            .chain(self.keyspaces)
            .collect()
    }
}

enum State {
    Idle,
    /// Taken; waits until the log is durable up to the position, and has all that the states reflect.
    Taken(LogSeq, Taken),
    /// Being written.
    Writing(LogSeq),
}

/// See the module.
pub struct Snapshots {
    log_id: u64,
    /// Bytes of log after which the next snapshot is due at the earliest.
    every_bytes: u64,
    /// Percent of the last snapshot's size that the log must reach, too.
    state_percent: u64,
    /// Bytes of the newest snapshot; 0 if there is none.
    size: u64,
    /// Bytes of log that no snapshot covers, since the last one was taken or found.
    bytes: u64,
    /// The record up to which the newest snapshot reaches.
    covered: LogSeq,
    /// A snapshot is wanted whatever the log's length.
    wanted: bool,
    failures: u64,
    failure: Option<String>,
    state: State,
}

impl Snapshots {
    /// The schedule of a node that has found a snapshot of `size` bytes that covers the log up to `covered` (0 and 0 if there
    /// is none), and `bytes` of log behind it.
    pub(crate) fn new(log_id: u64, tuning: &Tuning, (covered, size): (LogSeq, u64), bytes: u64) -> Self {
        Self {
            log_id,
            every_bytes: tuning.snapshot_log_bytes,
            state_percent: tuning.snapshot_state_percent,
            size,
            bytes,
            covered,
            wanted: false,
            failures: 0,
            failure: None,
            state: State::Idle,
        }
    }

    /// The record up to which the newest snapshot reaches.
    #[must_use]
    pub fn covered(&self) -> LogSeq {
        self.covered
    }

    /// Bytes of log that make the next snapshot due.
    #[must_use]
    pub fn due_bytes(&self) -> u64 {
        let share = u128::from(self.size) * u128::from(self.state_percent) / 100;
        self.every_bytes.max(u64::try_from(share).unwrap_or(u64::MAX))
    }

    /// Snapshots that could not be written.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// Why the last one could not be written; `None` if it was, or none was due.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// The invariants: what a snapshot covers is in the log, and each covers more than the one before.
    pub(crate) fn check(&self, last: LogSeq) {
        assert!(
            self.covered <= last,
            "a snapshot covers {}, the log ends at {last}",
            self.covered
        );
        assert!(
            self.failure.is_none() || self.failures > 0,
            "a failure is counted"
        );
        let at = match &self.state {
            State::Idle => return,
            State::Taken(at, taken) => {
                assert!(
                    !taken.own.is_empty(),
                    "a snapshot holds the node's own part at least"
                );
                *at
            }
            State::Writing(at) => *at,
        };
        assert!(
            self.covered < at && at <= last,
            "a snapshot is made at {at}, the last covers {} and the log ends at {last}",
            self.covered
        );
    }

    /// Whether one is under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    pub(crate) fn request(&mut self) {
        self.wanted = true;
    }

    pub(crate) fn appended(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// A record of a keyspace has got its place in the log.
    pub(crate) fn placed(&mut self, keyspace: KeyspaceId, seq: AppendSeq, at: LogSeq) {
        if let State::Taken(_, taken) = &mut self.state
            && let Some((last, place)) = taken.waiting.get_mut(&keyspace)
            && *last == seq
        {
            *place = Some(at);
        }
    }

    /// Takes a snapshot if one is due and `last` is news to it.
    pub(crate) fn take(&mut self, last: LogSeq, take: impl FnOnce() -> Taken) {
        let due = self.wanted || self.bytes >= self.due_bytes();
        if !due || self.is_busy() || last <= self.covered {
            return;
        }
        assert!(last > self.covered, "a snapshot covers more than the one before");
        self.wanted = false;
        self.bytes = 0;
        self.state = State::Taken(last, take());
    }

    /// The job, once what it covers is durable.
    pub(crate) fn job(&mut self, durable: LogSeq) -> Option<SnapshotJob> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Taken(at, taken) if at <= durable && taken.is_durable(durable) => {
                self.state = State::Writing(at);
                let sections = taken.sections();
                Some(SnapshotJob {
                    log_id: self.log_id,
                    at,
                    sections,
                })
            }
            other => {
                self.state = other;
                None
            }
        }
    }

    /// A job has ended. Returns the position up to which the log may be released.
    pub(crate) fn on_written(&mut self, result: Result<Summary, SnapshotError>) -> Option<LogSeq> {
        let State::Writing(at) = std::mem::replace(&mut self.state, State::Idle) else {
            panic!("a snapshot has ended that was not begun");
        };
        match result {
            Ok(Summary { bytes, .. }) => {
                tracing::info!(%at, bytes, "snapshot written");
                assert!(
                    at > self.covered,
                    "a snapshot at {at} covers no more than the one at {}",
                    self.covered
                );
                self.failure = None;
                self.covered = at;
                self.size = bytes;
                Some(at)
            }
            Err(error) => {
                // The log still holds everything; the next one is tried after as much log again.
                self.failures += 1;
                self.failure = Some(error.to_string());
                tracing::error!(%at, %error, "no snapshot; the log keeps growing");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
