//! Whether the disk stands still for so long that the node is of no use with it.
//!
//! A slow disk makes a node slow: raft's leader steps down, writes wait or are refused. One that answers no write for a
//! minute hangs, and nothing in the process can end its wait. Then the node ends by itself and says so, so that somebody
//! who supervises it can act; what it had acknowledged is durable all the same.

use std::time::Duration;

use trilemma_storage::Progress;

/// Time between two looks.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Looks without any progress after which the disk hangs. They are counted, and no clock is asked, so that a process that
/// was stopped for an hour finds its disk in order.
const LOOKS_MAX: u32 = 60;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct DiskWatch {
    progress: Progress,
    /// What the disk had answered.
    operations: u64,
    still: u32,
}

impl DiskWatch {
    /// Looks at the log's progress, and at what the disk has answered so far: a new segment is many writes without any
    /// progress. `waits` says whether something waits for the disk, and it has room. Returns how long the disk has stood
    /// still if it hangs.
    pub(super) fn look(&mut self, progress: Progress, operations: u64, waits: bool) -> Option<Duration> {
        if !waits || (progress, operations) != (self.progress, self.operations) {
            self.progress = progress;
            self.operations = operations;
            self.still = 0;
            return None;
        }
        self.still += 1;
        (self.still >= LOOKS_MAX).then_some(LOOK_INTERVAL * self.still)
    }
}

#[cfg(test)]
mod tests;
