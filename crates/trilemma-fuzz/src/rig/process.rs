//! A running process: a [`Node`] and the write queue of its log, as in production, on a disk in memory.

use bytes::Bytes;
use trilemma_core::{Checkpoint, Instant, KeyspaceId, Now, Ticket};
use trilemma_node::{
    Effects, Node, NodeSettings, Observer, Recovered, RecoveryError, SnapshotJob, Storage, Tune, recover,
};
use trilemma_storage::snapshot::{self, Section, Summary};
use trilemma_storage::{
    Due, Log, LogError, LogEvent, LogOptions, LogSeq, MemoryDisk, SnapshotError, WriteQueue, fill_spare,
};

/// Bytes of a segment: the largest record of a run fits, and a run fills some.
pub(super) const SEGMENT_BYTES: u64 = 128 * 1024;
/// A disk without faults takes what a node gives it; a record that is too large for it was made by the node.
const TAKES: &str = "the log takes what the node appends";

/// See the module.
pub(super) struct Process {
    pub(super) node: Node<Ticket>,
    queue: WriteQueue<MemoryDisk>,
    disk: MemoryDisk,
    /// A sync has begun and not ended.
    syncing: bool,
    /// A snapshot that is to be written.
    pub(super) snapshot: Option<SnapshotJob>,
}

/// A disk that holds this checkpoint of one keyspace, and these records after it.
pub(super) fn disk_of(keyspace: KeyspaceId, checkpoint: Vec<Vec<u8>>, records: &[Bytes]) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let options = LogOptions {
        segment_bytes: SEGMENT_BYTES,
        new_log_id: 1,
    };
    let opened = Log::open(disk.clone(), options, LogSeq(0), |_| Ok::<(), LogError>(()));
    let (mut log, _) = opened.expect("a new log");
    if !checkpoint.is_empty() {
        // The record that the checkpoint covers.
        let at = log.append(keyspace, &[]).expect(TAKES);
        log.sync().expect(TAKES);
        let chunks = Checkpoint::new(checkpoint.into_iter(), |_| Ok(()));
        let section: Section = (keyspace, chunks);
        snapshot::write(&disk, log.id(), at, [section]).expect("a snapshot of any chunks");
    }
    for record in records {
        log.append(keyspace, record).expect(TAKES);
    }
    log.close().expect(TAKES);
    disk
}

impl Process {
    /// Starts a process from what its disk holds. Also returns the last record that it found.
    pub(super) fn start(
        disk: &MemoryDisk,
        settings: &NodeSettings,
        now: Now,
        tune: &dyn Tune,
    ) -> Result<(Self, LogSeq), RecoveryError> {
        let mut seed = now.wall.0 ^ u64::from(settings.node.0) << 48;
        let storage = Storage {
            disk,
            is_new: true,
            random: &mut || {
                seed += 1;
                seed
            },
            tune,
        };
        let Recovered { node, log, found } = recover(settings, now, storage)?;
        let process = Self {
            queue: WriteQueue::new(log, node.waits_for_written()),
            node,
            disk: disk.clone(),
            syncing: false,
            snapshot: None,
        };
        Ok((process, found.last.max(found.snapshot)))
    }

    /// Ends the node's turn, and hands over to the log what it wants of it. The rest is the caller's.
    pub(super) fn turn(&mut self, now: Now, observer: &mut impl Observer) -> Effects<Ticket> {
        let mut effects = Effects::default();
        self.node.turn(now, &mut effects, observer);
        let batch = std::mem::take(&mut effects.batch);
        self.queue.submit(now.instant, batch).expect(TAKES);
        if let Some(up_to) = effects.release.take() {
            self.queue.release(now.instant, up_to).expect(TAKES);
        }
        self.snapshot = effects.snapshot.take().or(self.snapshot.take());
        effects
    }

    /// Hands to the disk what waits, and if `whole` ends the sync that this or an earlier call has begun. Returns what
    /// the log then has to report.
    pub(super) fn write(&mut self, now: Instant, whole: bool) -> Vec<LogEvent> {
        if !self.syncing {
            self.syncing = self.queue.write(now).expect(TAKES) == Due::Sync;
        }
        if whole && std::mem::take(&mut self.syncing) {
            self.queue.sync().expect(TAKES);
        }
        if let Some(job) = self.queue.take_spare_job(now) {
            let made = fill_spare(&self.disk, &job.name, job.bytes);
            self.queue.on_spare(now, made).expect(TAKES);
        }
        self.queue.take_events().collect()
    }

    /// Writes the snapshot that is to be written. Returns its position, what it holds, and its chunks of one keyspace; the
    /// node's next input must say that it is written.
    ///
    /// # Panics
    /// If the node could not restore the state that it gives out.
    pub(super) fn write_snapshot(&mut self, keyspace: KeyspaceId) -> Option<(LogSeq, Summary, Vec<Vec<u8>>)> {
        let SnapshotJob { log_id, at, sections } = self.snapshot.take()?;
        let written = snapshot::write(&self.disk, log_id, at, sections);
        let summary = written.expect("a state that its own node can restore");
        let mut chunks = Vec::new();
        let read = snapshot::read(&self.disk, log_id, at, |of, chunk: &[u8]| {
            if of == keyspace {
                chunks.push(chunk.to_vec());
            }
            Ok::<(), SnapshotError>(())
        });
        read.expect("what was just written");
        Some((at, summary, chunks))
    }
}
