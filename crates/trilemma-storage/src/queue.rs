//! The write queue of a node's log: what is written next, when it is synced, what happens while the disk is full.
//!
//! A pure machine over a [`Log`]: it starts no thread and reads no clock. [`crate::LogWriter`] runs it on a thread of
//! its own, the simulator runs it in events of virtual time, so both have the same order, the same group commit, the
//! same delay of lazy records and the same behaviour on a full disk.
//!
//! The host calls, in this order and again and again: [`WriteQueue::submit`] for what has come,
//! [`WriteQueue::write`], then [`WriteQueue::sync`] if that is due, and passes on what [`WriteQueue::take_events`]
//! gives. Between `write` and `sync` any time may pass, and more may be submitted.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use trilemma_core::{Instant, KeyspaceId};

use crate::LogSeq;
use crate::disk::Disk;
use crate::error::LogError;
use crate::log::{Log, Spare};

/// Bytes gathered into one write. Without a bound, a submitter as fast as memory would put off the sync without end.
const WRITE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest time that a record nobody waits for stays unsynced.
pub const LAZY_DELAY: Duration = Duration::from_millis(10);
/// Time between attempts to make a spare segment while there is no space.
const SPARE_RETRY: Duration = Duration::from_secs(1);

/// Records that belong together: written in one piece, in this order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The records.
    pub records: Vec<(KeyspaceId, Bytes)>,
    /// Whether something waits for them; otherwise they ride the next forced sync, within 10 ms.
    pub forced: bool,
}

/// How far the log has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The operating system has everything up to here: it survives a kill of the process.
    pub written: LogSeq,
    /// The disk has everything up to here: it survives a power cut.
    pub durable: LogSeq,
}

/// What a log reports to its node.
#[derive(Debug)]
pub enum LogEvent {
    /// More is written or durable.
    Progress(Progress),
    /// Whether the disk has room for the segment after the current one. While it has not, new work should be refused:
    /// what is left of the current segment is kept for work that has begun.
    Space {
        /// Why there is none; `None` when there is again.
        full: Option<String>,
    },
    /// The log has failed for good. The last event.
    Failed(LogError),
}

/// What a write has left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// [`WriteQueue::sync`], now.
    Sync,
    /// Nothing before this instant, unless more is submitted.
    At(Instant),
}

/// A spare segment to be filled with zeros, on whatever thread suits the host: see [`crate::fill_spare`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpareJob {
    /// The file's name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpareState {
    Idle,
    InWork,
    /// There was no space at this time, for one or for what is to be written.
    Full(Instant),
}

/// See the module.
pub struct WriteQueue<D: Disk> {
    log: Log<D>,
    /// Whether somebody waits for what is written and not durable.
    reports_written: bool,
    /// Records that are not yet in the log: for a moment, or for as long as there is no space.
    backlog: VecDeque<(KeyspaceId, Bytes)>,
    /// Whether something waits for records that are not durable yet.
    forced: bool,
    /// The current segment is full and there is no space for another.
    blocked: bool,
    /// Since when records wait that nobody waits for.
    lazy_since: Option<Instant>,
    spare: SpareState,
    /// What is still to be recycled, because there was no space for that at this time.
    unreleased: Option<(LogSeq, Instant)>,
    /// Whether the last thing reported about space was that there is none.
    reported_full: bool,
    reported: Progress,
    events: Vec<LogEvent>,
    records: u64,
    bytes: u64,
}

impl<D: Disk> WriteQueue<D> {
    /// A queue in front of this log. `reports_written` asks for progress also when records are written and not yet
    /// durable; without it each sync is reported once.
    #[must_use]
    pub fn new(log: Log<D>, reports_written: bool) -> Self {
        let reported = Progress {
            written: log.written(),
            durable: log.durable(),
        };
        Self {
            log,
            reports_written,
            backlog: VecDeque::new(),
            forced: false,
            blocked: false,
            lazy_since: None,
            spare: SpareState::Idle,
            unreleased: None,
            reported_full: false,
            reported,
            events: Vec::new(),
            records: 0,
            bytes: 0,
        }
    }

    /// Records appended to the log so far, and the bytes of their payloads.
    #[must_use]
    pub fn appended(&self) -> (u64, u64) {
        (self.records, self.bytes)
    }

    /// The log behind the queue.
    #[must_use]
    pub fn log(&self) -> &Log<D> {
        &self.log
    }

    /// Whether records wait that are not durable.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.backlog.is_empty() && self.log.buffered_bytes() == 0 && self.log.durable() == self.log.written()
    }

    /// Whether enough waits for one write.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.log.buffered_bytes() >= WRITE_BYTES_MAX
    }

    /// Takes records. Their positions follow those of the batch before. [`LogError::TooLarge`] is for good: a record
    /// that the log cannot hold has been promised a position.
    pub fn submit(&mut self, now: Instant, batch: Batch) -> Result<(), LogError> {
        self.forced |= batch.forced;
        self.backlog.extend(batch.records);
        self.append_or_wait(now)?;
        self.check();
        Ok(())
    }

    /// Hands what waits to the operating system and says what is due.
    pub fn write(&mut self, now: Instant) -> Result<Due, LogError> {
        if let Some((up_to, since)) = self.unreleased
            && now.since(since) >= SPARE_RETRY
        {
            self.release(now, up_to)?;
        }
        if let SpareState::Full(since) = self.spare
            && self.log.spares() > 0
            && now.since(since) >= SPARE_RETRY
        {
            // A segment waits, so there was no room for what is to be written into one.
            self.spare = SpareState::Full(now);
            self.on_space(now)?;
        }
        self.append_or_wait(now)?;
        self.write_or_wait(now)?;
        if self.log.durable() == self.log.written() {
            self.lazy_since = None;
        } else {
            let since = *self.lazy_since.get_or_insert(now);
            if self.forced || now.since(since) >= LAZY_DELAY {
                self.report_written();
                self.check();
                return Ok(Due::Sync);
            }
        }
        self.report_written();
        self.check();
        Ok(Due::At(self.next_due()))
    }

    /// When the queue wants to be looked at again if nothing is submitted meanwhile.
    #[must_use]
    pub fn next_due(&self) -> Instant {
        let lazy = self.lazy_since.map_or(Instant::NEVER, |since| since + LAZY_DELAY);
        let release = self
            .unreleased
            .map_or(Instant::NEVER, |(_, since)| since + SPARE_RETRY);
        let space = match self.spare {
            // What came between a write and its sync, and found no room there: the next write says so.
            _ if self.log.buffered_bytes() > 0 && !self.reported_full => Instant::ZERO,
            // Only while something is wanted: otherwise the host would look at the queue again and again for nothing.
            SpareState::Full(since) if self.wants_spare() || self.reported_full => since + SPARE_RETRY,
            SpareState::Full(_) | SpareState::Idle | SpareState::InWork => Instant::NEVER,
        };
        lazy.min(release).min(space)
    }

    /// Makes everything written durable, and reports it.
    pub fn sync(&mut self) -> Result<(), LogError> {
        let is_whole = match self.log.write() {
            // What was submitted meanwhile. The next write says so.
            Err(LogError::NoSpace { .. }) => false,
            result => result.map(|_| true)?,
        };
        self.log.sync_written()?;
        self.forced &= !(is_whole && self.backlog.is_empty());
        self.lazy_since = None;
        self.report_progress();
        assert!(
            self.log.durable() == self.log.last() || !is_whole,
            "a sync leaves nothing of the log behind"
        );
        self.check();
        Ok(())
    }

    /// Recycles what a durable snapshot covers, which may be what makes room. What there is no space to recycle is tried
    /// again each second.
    pub fn release(&mut self, now: Instant, up_to: LogSeq) -> Result<(), LogError> {
        self.unreleased = match self.log.release(up_to) {
            Err(error @ LogError::NoSpace { .. }) => {
                tracing::warn!(%error, "log segments that are not needed any more could not be recycled; trying again");
                Some((up_to, now))
            }
            result => result.map(|()| None)?,
        };
        if self.log.spares() == 0 {
            self.check();
            return Ok(());
        }
        if self.spare != SpareState::InWork {
            self.spare = SpareState::Idle;
        }
        self.on_space(now)
    }

    /// Also while it has reported that there is no space: writes are refused then, so nothing else would ever find out
    /// that there is space again.
    fn wants_spare(&self) -> bool {
        self.log.wants_spare() || ((self.blocked || self.reported_full) && self.log.spares() == 0)
    }

    /// A spare segment that should be made now, if one should.
    pub fn take_spare_job(&mut self, now: Instant) -> Option<SpareJob> {
        let due = match self.spare {
            SpareState::Idle => true,
            SpareState::InWork => false,
            SpareState::Full(since) => now.since(since) >= SPARE_RETRY,
        };
        if !due || !self.wants_spare() {
            return None;
        }
        self.spare = SpareState::InWork;
        self.check();
        Some(SpareJob {
            name: self.log.spare_name(),
            bytes: self.log.segment_bytes(),
        })
    }

    /// A spare segment could not even be begun for want of a thread or the like; it is tried again.
    pub fn spare_not_begun(&mut self, now: Instant) {
        assert_eq!(self.spare, SpareState::InWork, "nobody was asked for a spare");
        self.spare = SpareState::Full(now);
        self.check();
    }

    /// A spare segment was made, or why not.
    pub fn on_spare(&mut self, now: Instant, made: Result<Spare<D::File>, LogError>) -> Result<(), LogError> {
        assert_eq!(self.spare, SpareState::InWork, "nobody was asked for a spare");
        match made {
            Ok(spare) => {
                self.log.add_spare(spare);
                self.spare = SpareState::Idle;
                self.on_space(now)
            }
            Err(error @ LogError::NoSpace { .. }) => {
                self.spare = SpareState::Full(now);
                self.report_space(Some(error.to_string()));
                self.check();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Ends the log with everything in it, or says what keeps it from that.
    pub fn close(&mut self) -> Result<(), LogError> {
        self.append()?;
        self.log.sync()?;
        self.report_progress();
        self.log.close()
    }

    /// What is to be reported, in order.
    pub fn take_events(&mut self) -> impl Iterator<Item = LogEvent> + '_ {
        self.events.drain(..)
    }

    /// Appends what waits. Without space for another segment it goes on waiting: its positions are promised, nothing
    /// of it is acknowledged, and it is written once there is space again.
    fn append_or_wait(&mut self, now: Instant) -> Result<(), LogError> {
        if self.blocked {
            return Ok(());
        }
        match self.append() {
            Err(error @ LogError::NoSpace { .. }) => {
                self.blocked = true;
                self.wait_for_space(now, &error);
                Ok(())
            }
            result => result,
        }
    }

    /// Writes what is appended. Without space it goes on waiting in the log's buffer.
    fn write_or_wait(&mut self, now: Instant) -> Result<(), LogError> {
        match self.log.write() {
            Err(error @ LogError::NoSpace { .. }) => {
                self.wait_for_space(now, &error);
            }
            result => drop(result?),
        }
        if self.log.durable() < self.log.written() {
            self.lazy_since.get_or_insert(now);
        }
        Ok(())
    }

    fn wait_for_space(&mut self, now: Instant, error: &LogError) {
        if self.spare != SpareState::InWork {
            self.spare = SpareState::Full(now);
        }
        self.report_space(Some(error.to_string()));
    }

    fn append(&mut self) -> Result<(), LogError> {
        while let Some((keyspace, payload)) = self.backlog.front() {
            self.log.append(*keyspace, payload)?;
            self.records += 1;
            self.bytes += payload.len() as u64;
            self.backlog.pop_front();
        }
        Ok(())
    }

    /// There is a spare segment again: what waits goes on, and if all of it does, there is space.
    fn on_space(&mut self, now: Instant) -> Result<(), LogError> {
        self.blocked = false;
        self.append_or_wait(now)?;
        self.write_or_wait(now)?;
        if !self.blocked && self.log.buffered_bytes() == 0 {
            self.report_space(None);
        }
        self.check();
        Ok(())
    }

    /// After a write: reports what it has made durable on its way (a new segment begins with a sync of the old one),
    /// and what is only written if somebody waits for that.
    fn report_written(&mut self) {
        if self.reports_written || self.log.durable() != self.reported.durable {
            self.report_progress();
        }
    }

    fn report_progress(&mut self) {
        let progress = Progress {
            written: self.log.written(),
            durable: self.log.durable(),
        };
        if progress != self.reported {
            self.reported = progress;
            self.events.push(LogEvent::Progress(progress));
        }
    }

    /// The queue's invariants. Records wait for one reason only, which is reported and looked at again; nothing is
    /// reported that the log has not reached.
    fn check(&self) {
        assert_eq!(
            self.blocked,
            !self.backlog.is_empty(),
            "records wait for space and for nothing else"
        );
        assert!(
            !self.blocked || self.reported_full,
            "records wait for space and nobody knows that there is none"
        );
        assert!(
            !self.reported_full || self.spare != SpareState::Idle,
            "there is no space and nothing looks for it"
        );
        assert!(
            self.lazy_since.is_some() || self.log.durable() == self.log.written(),
            "records up to {} are written and would never be synced",
            self.log.written()
        );
        assert!(
            self.reported.written <= self.log.written() && self.reported.durable <= self.log.durable(),
            "{:?} is reported, the log has come to {} and {}",
            self.reported,
            self.log.written(),
            self.log.durable()
        );
        assert!(
            self.reported.durable <= self.reported.written,
            "{:?} is reported",
            self.reported
        );
        self.log.check();
    }

    /// Reports a change, each once.
    fn report_space(&mut self, full: Option<String>) {
        if self.reported_full != full.is_some() {
            self.reported_full = full.is_some();
            self.events.push(LogEvent::Space { full });
        }
    }
}

impl<D: Disk> std::fmt::Debug for WriteQueue<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteQueue")
            .field("reported", &self.reported)
            .field("waiting", &self.backlog.len())
            .field("forced", &self.forced)
            .field("blocked", &self.blocked)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
