//! A log on a thread of its own: batches in, progress out, one sync for all that waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use trilemma_core::Instant;

use crate::LogSeq;
use crate::disk::Disk;
use crate::error::LogError;
use crate::log::{Log, Spare, fill_spare};
use crate::queue::{Batch, Due, LogEvent, SpareJob, WriteQueue};

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
    /// A spare segment was made, or why not: it waits in the worker's own place.
    Spare,
}

/// How long an aborted thread that a disk holds up is waited for.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// The submitting side of a log on its own thread. Dropping it ends the thread without a final sync.
#[derive(Debug)]
pub struct LogWriter {
    jobs: Sender<Job>,
    shared: Arc<Shared>,
    last: LogSeq,
    record_bytes_max: usize,
    thread: Option<JoinHandle<Result<(), LogError>>>,
    /// Has no sender any more when the thread has ended.
    ended: Receiver<()>,
}

impl LogWriter {
    /// Moves a log to a thread of its own. `report` is called from there and must not wait for the log.
    /// `reports_written` as in [`WriteQueue::new`].
    pub fn spawn<D: Disk + Sync>(
        log: Log<D>,
        disk: D,
        reports_written: bool,
        report: impl Fn(LogEvent) + Send + 'static,
    ) -> std::io::Result<Self>
    where
        D::File: Send,
    {
        let (jobs, inbox) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let last = log.last();
        let record_bytes_max = log.record_bytes_max();
        let worker = Worker {
            queue: WriteQueue::new(log, reports_written),
            disk,
            inbox,
            jobs: jobs.clone(),
            shared: Arc::clone(&shared),
            report: Box::new(report),
            clock: std::time::Instant::now(),
            due: Instant::NEVER,
            spare_thread: None,
            spare: Arc::default(),
        };
        let (alive, ended) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("trilemma-log".into())
            .spawn(move || {
                let _alive: Sender<()> = alive;
                worker.run()
            })?;
        Ok(Self {
            jobs,
            shared,
            last,
            record_bytes_max,
            thread: Some(thread),
            ended,
        })
    }

    /// The last record submitted.
    #[must_use]
    pub fn last(&self) -> LogSeq {
        self.last
    }

    /// Hands records over; returns the position of the first. Never waits: who submits bounds what waits, by what it
    /// has submitted and not yet seen durable.
    ///
    /// [`LogError::TooLarge`] takes none of the records, and the log goes on.
    pub fn submit(&mut self, batch: Batch) -> Result<LogSeq, LogError> {
        let limit = self.record_bytes_max;
        if let Some((_, large)) = batch.records.iter().find(|(_, payload)| payload.len() > limit) {
            let size = large.len();
            return Err(LogError::TooLarge { size, limit });
        }
        let first = self.last.plus(1);
        self.last = self.last.plus(batch.records.len() as u64);
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

    /// Has the thread make everything durable, mark the log as cleanly ended, and end. Waits for nothing: when the thread
    /// has ended it drops what it reports by.
    pub fn begin_close(&mut self) {
        // One that has ended already says so with its result.
        let _ended = self.jobs.send(Job::Close);
    }

    /// [`LogWriter::begin_close`], and waits for the thread. Fails with what keeps the log from a clean end.
    pub fn close(&mut self) -> Result<(), LogError> {
        self.begin_close();
        self.join()
    }

    /// Ends the thread without another write, as a kill of the process would. `false` if the disk holds it up for more
    /// than a second: then it ends when the disk lets it, and keeps the directory locked until then.
    pub fn abort(&mut self) -> bool {
        self.shared.aborted.get_or_init(|| ());
        // Wakes a thread that waits; one that has ended needs no waking.
        let _ended = self.jobs.send(Job::Close);
        if self.ended.recv_timeout(ABORT_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
            self.thread = None;
            return false;
        }
        if let Err(error) = self.join() {
            tracing::debug!(%error, "the log had failed before it was aborted");
        }
        true
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
        if self.thread.is_some() && !self.abort() {
            tracing::warn!("the log's thread waits for the disk; it ends when the disk answers");
        }
    }
}

struct Worker<D: Disk> {
    queue: WriteQueue<D>,
    disk: D,
    inbox: Receiver<Job>,
    jobs: Sender<Job>,
    shared: Arc<Shared>,
    report: Box<dyn Fn(LogEvent) + Send>,
    /// When the thread began: where its clock starts.
    clock: std::time::Instant,
    /// When the queue wants to be looked at again.
    due: Instant,
    spare_thread: Option<JoinHandle<()>>,
    /// What its thread has made.
    spare: SparePlace<D::File>,
}

type SparePlace<F> = Arc<Mutex<Option<Result<Spare<F>, LogError>>>>;

/// Whether the thread goes on.
enum Next {
    Go,
    /// Nobody wants it any more, or it was closed, with this result.
    End(Result<(), LogError>),
}

impl<D: Disk> Worker<D> {
    fn run(mut self) -> Result<(), LogError> {
        let result = loop {
            match self.turn() {
                Ok(Next::Go) => {}
                Ok(Next::End(result)) => break result,
                Err(error) => {
                    self.report();
                    (self.report)(LogEvent::Failed(error));
                    break Err(LogError::Closed);
                }
            }
        };
        // It has a handle on the directory, which the next process may want to lock at once.
        if let Some(Err(_panic)) = self.spare_thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that makes spare log segments panicked");
        }
        result
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Takes what waits, writes it in one piece, syncs once if something waits for it.
    fn turn(&mut self) -> Result<Next, LogError> {
        let mut next = match self.inbox.recv_timeout(self.timeout()) {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(Next::End(Ok(()))),
        };
        while let Some(job) = next {
            if self.shared.aborted.get().is_some() {
                return Ok(Next::End(Ok(())));
            }
            let now = self.now();
            match job {
                Job::Batch(batch) => self.queue.submit(now, batch)?,
                Job::Release(up_to) => self.queue.release(now, up_to)?,
                Job::Spare => {
                    let made = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
                    let made = made.expect("a spare is put in its place before the worker is notified");
                    self.queue.on_spare(now, made)?;
                }
                Job::Close => {
                    let result = self.queue.close();
                    self.report();
                    return Ok(Next::End(result));
                }
            }
            if self.queue.is_full() {
                break;
            }
            next = self.inbox.try_recv().ok();
        }
        match self.queue.write(self.now())? {
            Due::Sync => {
                // Those who wait for the operating system alone need not wait for the disk.
                self.report();
                self.sync()?;
            }
            Due::At(_) => {}
        }
        self.due = self.queue.next_due();
        self.report();
        self.make_spare();
        Ok(Next::Go)
    }

    /// How long the thread may wait for a job.
    fn timeout(&self) -> Duration {
        self.due.since(self.now()).min(Duration::from_secs(3600))
    }

    fn sync(&mut self) -> Result<(), LogError> {
        let start = std::time::Instant::now();
        self.queue.sync()?;
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        self.shared.sync_micros.fetch_add(micros, Ordering::Relaxed);
        self.shared.sync_micros_last.store(micros, Ordering::Relaxed);
        self.shared.sync_micros_max.fetch_max(micros, Ordering::Relaxed);
        Ok(())
    }

    fn report(&mut self) {
        let (records, bytes) = self.queue.appended();
        self.shared.records.store(records, Ordering::Relaxed);
        self.shared.bytes.store(bytes, Ordering::Relaxed);
        for event in self.queue.take_events() {
            (self.report)(event);
        }
    }

    /// Makes the next segment ready on another thread, so that no append waits for zeros.
    fn make_spare(&mut self) {
        let now = self.now();
        let Some(SpareJob { name, bytes }) = self.queue.take_spare_job(now) else {
            return;
        };
        let disk = self.disk.clone();
        let (jobs, place) = (self.jobs.clone(), Arc::clone(&self.spare));
        let fill = move || {
            let made = fill_spare(&disk, &name, bytes);
            drop(disk);
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
            // The log has been closed meanwhile: the spare is removed at the next start.
            let _closed = jobs.send(Job::Spare);
        };
        match thread::Builder::new().name("trilemma-spare".into()).spawn(fill) {
            Ok(thread) => self.spare_thread = Some(thread),
            Err(error) => {
                tracing::warn!(%error, "no thread to make a spare log segment; trying again");
                self.queue.spare_not_begun(now);
            }
        }
    }
}

#[cfg(test)]
mod tests;
