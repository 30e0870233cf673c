//! Whether this node's disk makes progress, as far as its numbers tell.

use std::time::Duration;

use trilemma_core::{AppendSeq, Instant};

/// What the disk has been given, what it has finished, and when it last showed that it works.
///
/// The log is one queue for all keyspaces, so how long an append has waited says how long the queue is. A stall is that
/// nothing at all comes back while something waits.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    appended: AppendSeq,
    persisted: AppendSeq,
    /// When something last became durable, or was the first to wait.
    progressed: Instant,
}

impl Disk {
    /// Records up to this one have been appended.
    pub(crate) fn on_appended(&mut self, now: Instant, last: AppendSeq) {
        assert!(last >= self.appended, "record {last} after {}", self.appended);
        if self.appended <= self.persisted && last > self.persisted {
            self.progressed = now;
        }
        self.appended = last;
    }

    /// Records up to this one are durable. A number that comes again shows that the log goes on.
    pub(crate) fn on_persisted(&mut self, now: Instant, up_to: AppendSeq) {
        self.persisted = self.persisted.max(up_to);
        self.progressed = now;
    }

    /// The last record that the disk has been given.
    pub(crate) fn appended(&self) -> AppendSeq {
        self.appended
    }

    /// The last record that is durable.
    pub(crate) fn persisted(&self) -> AppendSeq {
        self.persisted
    }

    /// Whether something has waited for longer than `limit` while nothing became durable.
    pub(crate) fn is_stalled(&self, now: Instant, limit: Duration) -> bool {
        self.persisted < self.appended && now.since(self.progressed) > limit
    }

    pub(crate) fn check(&self) {
        let (persisted, appended) = (self.persisted, self.appended);
        assert!(
            persisted <= appended,
            "record {persisted} is durable, appended is {appended}"
        );
    }
}
