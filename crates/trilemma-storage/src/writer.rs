//! A log on a thread of its own: batches in, progress out, one sync for all that waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use trilemma_core::KeyspaceId;

use crate::LogSeq;
use crate::disk::Disk;
use crate::error::LogError;
use crate::log::{Log, fill_spare};

/// Bytes that may wait to be written. Beyond it the disk is hopelessly behind, and the node must stop taking work.
const QUEUE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// What a record costs in the queue beside its payload, so that a flood of empty ones is bounded too.
const QUEUE_RECORD_BYTES: usize = 64;
/// Bytes gathered into one write. Without a bound, a submitter as fast as memory would put off the sync without end.
const WRITE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest time that a record nobody waits for stays unsynced.
const LAZY_DELAY: Duration = Duration::from_millis(10);
/// Time between attempts to make a spare segment while there is no space.
const SPARE_RETRY: Duration = Duration::from_secs(1);

/// Records that belong together: written in one piece, in this order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The records.
    pub records: Vec<(KeyspaceId, Bytes)>,
    /// Whether something waits for them; otherwise they ride the next forced sync, after 10 ms at most.
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

/// What a log's thread reports.
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

/// Figures of a log since it was opened. Records per sync is [`Counters::records`] over [`Counters::syncs`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Syncs of the disk.
    pub syncs: u64,
    /// Records written.
    pub records: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Time spent in syncs, in microseconds.
    pub sync_micros: u64,
    /// The last sync, in microseconds.
    pub sync_micros_last: u64,
    /// The longest sync, in microseconds.
    pub sync_micros_max: u64,
}

#[derive(Debug, Default)]
struct Shared {
    queued: AtomicUsize,
    syncs: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
    sync_micros: AtomicU64,
    sync_micros_last: AtomicU64,
    sync_micros_max: AtomicU64,
    /// Set when the thread is to end at once, as a kill would end it.
    aborted: OnceLock<()>,
}

enum Job {
    Batch(Batch),
    Release(LogSeq),
    Close,
    Spare(Result<String, LogError>),
}

/// The submitting side of a log on its own thread. Dropping it ends the thread without a final sync.
#[derive(Debug)]
pub struct LogWriter {
    jobs: Sender<Job>,
    shared: Arc<Shared>,
    last: LogSeq,
    record_bytes_max: usize,
    thread: Option<JoinHandle<Result<(), LogError>>>,
}

impl LogWriter {
    /// Moves a log to a thread of its own. `report` is called from there and must not wait for the log.
    ///
    /// `segment_bytes` is the length of the segments it makes, the same as in the options it was opened with.
    pub fn spawn<D: Disk + Sync>(
        log: Log<D>,
        disk: D,
        segment_bytes: u64,
        report: impl Fn(LogEvent) + Send + 'static,
    ) -> std::io::Result<Self>
    where
        D::File: Send,
    {
        let (jobs, inbox) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        assert_eq!(
            segment_bytes,
            log.segment_bytes(),
            "spares are of the log's own length"
        );
        let last = log.last();
        let record_bytes_max = log.record_bytes_max();
        let worker = Worker {
            log,
            disk,
            inbox,
            jobs: jobs.clone(),
            shared: Arc::clone(&shared),
            report: Box::new(report),
            backlog: VecDeque::new(),
            forced: false,
            blocked: false,
            lazy_since: None,
            spare: Spare::Idle,
            spare_thread: None,
            reported_full: false,
        };
        let thread = thread::Builder::new()
            .name("trilemma-log".into())
            .spawn(move || worker.run())?;
        Ok(Self {
            jobs,
            shared,
            last,
            record_bytes_max,
            thread: Some(thread),
        })
    }

    /// The last record submitted.
    #[must_use]
    pub fn last(&self) -> LogSeq {
        self.last
    }

    /// Hands records over; returns the position of the first. Never waits.
    ///
    /// [`LogError::TooLarge`] and [`LogError::Overloaded`] take none of the records, and the log goes on.
    pub fn submit(&mut self, batch: Batch) -> Result<LogSeq, LogError> {
        let limit = self.record_bytes_max;
        if let Some((_, large)) = batch.records.iter().find(|(_, payload)| payload.len() > limit) {
            let size = large.len();
            return Err(LogError::TooLarge { size, limit });
        }
        let bytes: usize = batch.records.iter().map(|(_, payload)| cost(payload)).sum();
        let queued = self.shared.queued.load(Ordering::Relaxed);
        if queued + bytes > QUEUE_BYTES_MAX {
            return Err(LogError::Overloaded {
                bytes: queued + bytes,
                limit: QUEUE_BYTES_MAX,
            });
        }
        let first = self.last.plus(1);
        self.last = self.last.plus(batch.records.len() as u64);
        self.shared.queued.fetch_add(bytes, Ordering::Relaxed);
        self.jobs.send(Job::Batch(batch)).map_err(|_| LogError::Closed)?;
        Ok(first)
    }

    /// Recycles what a durable snapshot covers.
    pub fn release(&mut self, up_to: LogSeq) -> Result<(), LogError> {
        self.jobs.send(Job::Release(up_to)).map_err(|_| LogError::Closed)
    }

    /// Figures so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let shared = &self.shared;
        Counters {
            syncs: shared.syncs.load(Ordering::Relaxed),
            records: shared.records.load(Ordering::Relaxed),
            bytes: shared.bytes.load(Ordering::Relaxed),
            sync_micros: shared.sync_micros.load(Ordering::Relaxed),
            sync_micros_last: shared.sync_micros_last.load(Ordering::Relaxed),
            sync_micros_max: shared.sync_micros_max.load(Ordering::Relaxed),
        }
    }

    /// Makes everything durable, marks the log as cleanly ended, and waits for the thread.
    pub fn close(&mut self) -> Result<(), LogError> {
        self.jobs.send(Job::Close).map_err(|_| LogError::Closed)?;
        self.join()
    }

    /// Ends the thread without another write, as a kill of the process would.
    pub fn abort(&mut self) {
        self.shared.aborted.get_or_init(|| ());
        // Wakes a thread that waits; one that has ended needs no waking.
        let _ended = self.jobs.send(Job::Close);
        if let Err(error) = self.join() {
            tracing::debug!(%error, "the log had failed before it was aborted");
        }
    }

    fn join(&mut self) -> Result<(), LogError> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_panic)) => Err(LogError::Closed),
            None => Ok(()),
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.abort();
        }
    }
}

fn cost(payload: &Bytes) -> usize {
    QUEUE_RECORD_BYTES + payload.len()
}

#[derive(PartialEq, Eq)]
enum Spare {
    Idle,
    InWork,
    /// There was no space; try again at this time.
    Full(Instant),
}

struct Worker<D: Disk> {
    log: Log<D>,
    disk: D,
    inbox: Receiver<Job>,
    jobs: Sender<Job>,
    shared: Arc<Shared>,
    report: Box<dyn Fn(LogEvent) + Send>,
    /// Records that are not yet in the log: for a moment, or for as long as there is no space.
    backlog: VecDeque<(KeyspaceId, Bytes)>,
    /// Whether something waits for records that are not durable yet.
    forced: bool,
    /// The current segment is full and there is no space for another.
    blocked: bool,
    /// Since when records wait that nobody waits for.
    lazy_since: Option<Instant>,
    spare: Spare,
    spare_thread: Option<JoinHandle<()>>,
    /// Whether the last thing said about space was that there is none.
    reported_full: bool,
}

/// Whether the thread goes on.
enum Next {
    Go,
    End,
}

impl<D: Disk> Worker<D> {
    fn run(mut self) -> Result<(), LogError> {
        let result = loop {
            match self.turn() {
                Ok(Next::Go) => {}
                Ok(Next::End) => break Ok(()),
                Err(error) => {
                    (self.report)(LogEvent::Failed(error));
                    break Err(LogError::Closed);
                }
            }
        };
        // It has a handle on the directory, which the next incarnation may want to lock at once.
        if let Some(Err(_panic)) = self.spare_thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that makes spare log segments panicked");
        }
        result
    }

    /// Takes what waits, writes it in one piece, syncs once if something waits for it.
    fn turn(&mut self) -> Result<Next, LogError> {
        let Some(first) = self.wait() else {
            return Ok(Next::End);
        };
        let mut close = false;
        let before = (self.log.written(), self.log.durable());
        let mut next = first;
        while let Some(job) = next {
            if self.shared.aborted.get().is_some() {
                return Ok(Next::End);
            }
            match job {
                Job::Batch(batch) => {
                    self.forced |= batch.forced;
                    self.backlog.extend(batch.records);
                    self.append_or_wait()?;
                }
                Job::Release(up_to) => self.release(up_to)?,
                Job::Close => close = true,
                Job::Spare(made) => self.take_spare(made)?,
            }
            if close || self.log.buffered_bytes() >= WRITE_BYTES_MAX {
                break;
            }
            next = self.inbox.try_recv().ok();
        }
        if close {
            return self.close(before);
        }
        self.log.write()?;
        let overdue = self.lazy_since.is_some_and(|since| since.elapsed() >= LAZY_DELAY);
        if self.forced || overdue {
            // Those who wait for the operating system alone need not wait for the disk.
            let reported = self.report_progress(before);
            self.sync()?;
            self.forced &= !self.backlog.is_empty();
            self.lazy_since = None;
            self.report_progress(reported);
        } else {
            if self.log.durable() < self.log.written() {
                self.lazy_since.get_or_insert_with(Instant::now);
            }
            self.report_progress(before);
        }
        self.make_spare();
        Ok(Next::Go)
    }

    /// Ends the log with everything in it, or says what keeps it from that.
    fn close(&mut self, before: (LogSeq, LogSeq)) -> Result<Next, LogError> {
        self.append()?;
        self.sync()?;
        self.report_progress(before);
        self.log.close()?;
        Ok(Next::End)
    }

    /// The next job; `Some(None)` when it is time for lazy records; `None` when nobody can submit any more.
    fn wait(&self) -> Option<Option<Job>> {
        let timeout = match (self.lazy_since, &self.spare) {
            (Some(since), _) => LAZY_DELAY.saturating_sub(since.elapsed()),
            (None, Spare::Full(_)) => SPARE_RETRY,
            (None, _) => Duration::from_secs(3600),
        };
        match self.inbox.recv_timeout(timeout) {
            Ok(job) => Some(Some(job)),
            Err(RecvTimeoutError::Timeout) => Some(None),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Appends what waits. Without space for another segment it goes on waiting: its positions are promised, nothing
    /// of it is acknowledged, and it is written once there is space again.
    fn append_or_wait(&mut self) -> Result<(), LogError> {
        if self.blocked {
            return Ok(());
        }
        match self.append() {
            Err(error @ LogError::NoSpace { .. }) => {
                self.blocked = true;
                if self.spare != Spare::InWork {
                    self.spare = Spare::Full(Instant::now());
                }
                self.report_space(Some(error.to_string()));
                Ok(())
            }
            result => result,
        }
    }

    fn append(&mut self) -> Result<(), LogError> {
        while let Some((keyspace, payload)) = self.backlog.front() {
            self.log.append(*keyspace, payload)?;
            let shared = &self.shared;
            shared.queued.fetch_sub(cost(payload), Ordering::Relaxed);
            shared.records.fetch_add(1, Ordering::Relaxed);
            shared.bytes.fetch_add(payload.len() as u64, Ordering::Relaxed);
            self.backlog.pop_front();
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), LogError> {
        self.log.write()?;
        if self.log.durable() == self.log.written() {
            return Ok(());
        }
        let start = Instant::now();
        self.log.sync()?;
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        self.shared.sync_micros.fetch_add(micros, Ordering::Relaxed);
        self.shared.sync_micros_last.store(micros, Ordering::Relaxed);
        self.shared.sync_micros_max.fetch_max(micros, Ordering::Relaxed);
        Ok(())
    }

    /// Reports what has changed since `before`; returns what has been reported.
    fn report_progress(&self, before: (LogSeq, LogSeq)) -> (LogSeq, LogSeq) {
        let progress = Progress {
            written: self.log.written(),
            durable: self.log.durable(),
        };
        if (progress.written, progress.durable) != before {
            (self.report)(LogEvent::Progress(progress));
        }
        (progress.written, progress.durable)
    }

    /// Makes the next segment ready on another thread, so that no append waits for zeros.
    fn make_spare(&mut self) {
        let due = match self.spare {
            Spare::Idle => true,
            Spare::InWork => false,
            Spare::Full(since) => since.elapsed() >= SPARE_RETRY,
        };
        if !due || !(self.log.wants_spare() || self.blocked) {
            return;
        }
        let (disk, name, bytes) = (self.disk.clone(), self.log.spare_name(), self.log.segment_bytes());
        let jobs = self.jobs.clone();
        let fill = move || {
            let made = fill_spare(&disk, &name, bytes).map(|()| name);
            drop(disk);
            // The log has been closed meanwhile: the spare is removed at the next start.
            let _closed = jobs.send(Job::Spare(made));
        };
        match thread::Builder::new().name("trilemma-spare".into()).spawn(fill) {
            Ok(thread) => {
                self.spare = Spare::InWork;
                self.spare_thread = Some(thread);
            }
            Err(error) => {
                tracing::warn!(%error, "no thread to make a spare log segment; trying again");
                self.spare = Spare::Full(Instant::now());
            }
        }
    }

    fn take_spare(&mut self, made: Result<String, LogError>) -> Result<(), LogError> {
        match made {
            Ok(name) => {
                self.log.add_spare(name);
                self.spare = Spare::Idle;
                self.on_space()
            }
            Err(error @ LogError::NoSpace { .. }) => {
                self.spare = Spare::Full(Instant::now());
                self.report_space(Some(error.to_string()));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Recycling may be what makes room.
    fn release(&mut self, up_to: LogSeq) -> Result<(), LogError> {
        self.log.release(up_to)?;
        if self.log.spares() == 0 {
            return Ok(());
        }
        if self.spare != Spare::InWork {
            self.spare = Spare::Idle;
        }
        self.on_space()
    }

    /// There is a spare segment again.
    fn on_space(&mut self) -> Result<(), LogError> {
        self.blocked = false;
        self.report_space(None);
        self.append_or_wait()
    }

    /// Reports a change, each once.
    fn report_space(&mut self, full: Option<String>) {
        if self.reported_full != full.is_some() {
            self.reported_full = full.is_some();
            (self.report)(LogEvent::Space { full });
        }
    }
}

#[cfg(test)]
mod tests;
