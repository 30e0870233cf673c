//! A log on a thread of its own: batches in, progress out, one sync for all that waits.

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
/// Longest time that a record nobody waits for stays unsynced.
const LAZY_DELAY: Duration = Duration::from_millis(10);
/// Time between attempts to make a spare segment while there is no space.
const SPARE_RETRY: Duration = Duration::from_secs(1);

/// Records that belong together: written in one piece, in this order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The records.
    pub records: Vec<(KeyspaceId, Bytes)>,
    /// Whether something waits for them; otherwise they ride the next forced sync, at the latest after 10 ms.
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

/// Figures of a log since it was opened.
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
    sync_micros_max: AtomicU64,
    /// Set when the thread is to end at once, as a kill would end it.
    aborted: OnceLock<()>,
}

enum Job {
    Batch(Batch, usize),
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
    thread: Option<JoinHandle<Result<(), LogError>>>,
}

impl LogWriter {
    /// Moves a log to a thread of its own. `report` is called from there.
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
        let last = log.last();
        let worker = Worker {
            log,
            disk,
            segment_bytes,
            inbox,
            jobs: jobs.clone(),
            shared: Arc::clone(&shared),
            report: Box::new(report),
            lazy_since: None,
            spare: Spare::Idle,
        };
        let thread = thread::Builder::new()
            .name("trilemma-log".into())
            .spawn(move || worker.run())?;
        Ok(Self {
            jobs,
            shared,
            last,
            thread: Some(thread),
        })
    }

    /// The last record submitted.
    #[must_use]
    pub fn last(&self) -> LogSeq {
        self.last
    }

    /// Hands records over; returns the position of the first. Never waits.
    pub fn submit(&mut self, batch: Batch) -> Result<LogSeq, LogError> {
        let bytes: usize = batch.records.iter().map(|(_, payload)| payload.len()).sum();
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
        self.jobs
            .send(Job::Batch(batch, bytes))
            .map_err(|_| LogError::Closed)?;
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
    segment_bytes: u64,
    inbox: Receiver<Job>,
    jobs: Sender<Job>,
    shared: Arc<Shared>,
    report: Box<dyn Fn(LogEvent) + Send>,
    /// Since when records wait that nobody waits for.
    lazy_since: Option<Instant>,
    spare: Spare,
}

/// Whether the thread goes on.
enum Next {
    Go,
    End,
}

impl<D: Disk> Worker<D> {
    fn run(mut self) -> Result<(), LogError> {
        loop {
            match self.turn() {
                Ok(Next::Go) => {}
                Ok(Next::End) => return Ok(()),
                Err(error) => {
                    let copy = LogError::Closed;
                    (self.report)(LogEvent::Failed(error));
                    return Err(copy);
                }
            }
        }
    }

    /// Takes everything that waits, writes it in one piece, syncs once if something waits for it.
    fn turn(&mut self) -> Result<Next, LogError> {
        let Some(first) = self.wait() else {
            return Ok(Next::End);
        };
        let mut forced = false;
        let mut close = false;
        let before = (self.log.written(), self.log.durable());
        let mut next = first;
        while let Some(job) = next {
            if self.shared.aborted.get().is_some() {
                return Ok(Next::End);
            }
            match job {
                Job::Batch(batch, bytes) => {
                    forced |= batch.forced;
                    self.append(batch, bytes)?;
                }
                Job::Release(up_to) => self.log.release(up_to)?,
                Job::Close => close = true,
                Job::Spare(made) => self.take_spare(made)?,
            }
            next = self.inbox.try_recv().ok();
        }
        if close {
            self.log.close()?;
            return Ok(Next::End);
        }
        self.log.write()?;
        let overdue = self.lazy_since.is_some_and(|since| since.elapsed() >= LAZY_DELAY);
        if forced || overdue {
            // Those who wait for the operating system alone need not wait for the disk.
            self.report_progress(before);
            self.sync()?;
            self.lazy_since = None;
        } else if self.log.durable() < self.log.written() {
            self.lazy_since.get_or_insert_with(Instant::now);
        }
        self.report_progress(before);
        self.make_spare();
        Ok(Next::Go)
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

    fn append(&mut self, batch: Batch, bytes: usize) -> Result<(), LogError> {
        for (keyspace, payload) in &batch.records {
            self.log.append(*keyspace, payload)?;
        }
        self.shared.queued.fetch_sub(bytes, Ordering::Relaxed);
        self.shared
            .records
            .fetch_add(batch.records.len() as u64, Ordering::Relaxed);
        self.shared.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), LogError> {
        let start = Instant::now();
        self.log.sync()?;
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        self.shared.sync_micros.fetch_add(micros, Ordering::Relaxed);
        self.shared.sync_micros_max.fetch_max(micros, Ordering::Relaxed);
        Ok(())
    }

    fn report_progress(&self, before: (LogSeq, LogSeq)) {
        let progress = Progress {
            written: self.log.written(),
            durable: self.log.durable(),
        };
        if (progress.written, progress.durable) != before {
            (self.report)(LogEvent::Progress(progress));
        }
    }

    /// Makes the next segment ready on another thread, so that no append waits for zeros.
    fn make_spare(&mut self) {
        let due = match self.spare {
            Spare::Idle => true,
            Spare::InWork => false,
            Spare::Full(since) => since.elapsed() >= SPARE_RETRY,
        };
        if !due || !self.log.wants_spare() {
            return;
        }
        let (disk, name, bytes) = (self.disk.clone(), self.log.spare_name(), self.segment_bytes);
        let jobs = self.jobs.clone();
        let fill = move || {
            let made = fill_spare(&disk, &name, bytes).map(|()| name);
            // The log has been closed meanwhile: the spare is removed at the next start.
            let _closed = jobs.send(Job::Spare(made));
        };
        match thread::Builder::new().name("trilemma-spare".into()).spawn(fill) {
            Ok(_detached) => self.spare = Spare::InWork,
            Err(error) => {
                tracing::warn!(%error, "no thread to make a spare log segment; trying again");
                self.spare = Spare::Full(Instant::now());
            }
        }
    }

    fn take_spare(&mut self, made: Result<String, LogError>) -> Result<(), LogError> {
        let was_full = self.spare != Spare::InWork;
        match made {
            Ok(name) => {
                self.log.add_spare(name);
                self.spare = Spare::Idle;
                (self.report)(LogEvent::Space { full: None });
                Ok(())
            }
            Err(error @ LogError::NoSpace { .. }) => {
                if !was_full {
                    (self.report)(LogEvent::Space {
                        full: Some(error.to_string()),
                    });
                }
                self.spare = Spare::Full(Instant::now());
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
