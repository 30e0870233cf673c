//! A running process: a [`Node`] of `trilemma-node` and the write queue of its log, as in production. Only threads are
//! missing: a sync begins in one event and ends in another, and so does the writing of a snapshot.

use std::collections::BTreeMap;
use std::fmt;

use trilemma_core::{Backend, Incarnation, NodeId, Now, Rng, Ticket, WallTime};
use trilemma_node::{
    Effects, Engine, KeyspaceConfig, Node, NodeSettings, Recovered, RecoveryError, SnapshotJob, Storage,
    Tuning, keyspace_id, recover,
};
use trilemma_storage::{
    Due, Log, LogError, LogEvent, LogOptions, LogSeq, MemoryDisk, Record, SnapshotError, WriteQueue,
    fill_spare, snapshot,
};

use crate::engine::{Knobs, Tuned};
use crate::scenario::{Protocol, Scenario};

pub use trilemma_node::Found;

/// A request of a client, as the node gives its answer back: the keyspace's place and the client's ticket.
pub type Asked = (usize, Ticket);

/// A running process.
pub struct Process {
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The node.
    pub node: Node<Asked>,
    /// What its last turn wants done, as far as that is not done yet.
    pub effects: Effects<Asked>,
    queue: WriteQueue<MemoryDisk>,
    disk: MemoryDisk,
    /// A sync has begun and not ended.
    syncing: bool,
    /// A snapshot that is to be written.
    snapshot: Option<SnapshotJob>,
    /// See [`Tuning::snapshot_state_percent`].
    pub snapshot_state_percent: u64,
}

/// Why a process does not start or has ended by itself.
#[derive(Debug)]
pub enum Stopped {
    /// It cannot be restored from its disk.
    Recovery(RecoveryError),
    /// Its log said no.
    Log(LogError),
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stopped::Recovery(error) => write!(f, "recovery: {error}"),
            Stopped::Log(error) => write!(f, "log: {error}"),
        }
    }
}

impl From<LogError> for Stopped {
    fn from(error: LogError) -> Self {
        Stopped::Log(error)
    }
}

/// What a process is started with.
#[derive(Clone, Copy)]
pub struct Start<'a> {
    /// The scenario.
    pub scenario: &'a Scenario,
    /// The node.
    pub node: NodeId,
    /// Its settings.
    pub knobs: &'a Knobs,
    /// Both clocks of the machine.
    pub now: Now,
    /// The least incarnation of a node whose disk is empty: above all that a lost disk may have held.
    pub incarnation_min: u64,
}

/// The name of a keyspace, so that keyspaces stand in the scenario's order.
pub(crate) fn name(slot: usize, part: Protocol) -> String {
    format!("{slot}-{part}")
}

/// The backend of a keyspace.
pub(crate) fn backend(part: Protocol) -> Backend {
    match part {
        Protocol::Raft | Protocol::Mixed => Backend::Raft,
        Protocol::Paxos => Backend::Paxos,
        Protocol::Gossip => Backend::Gossip,
        Protocol::TwoPhase => Backend::TwoPhase,
    }
}

fn settings(scenario: &Scenario, node: NodeId, knobs: &Tuned<'_>) -> NodeSettings {
    let parts = scenario.protocol.parts().iter().enumerate();
    let keyspaces: BTreeMap<String, KeyspaceConfig> = parts
        .map(|(slot, part)| {
            let config = KeyspaceConfig::new(backend(*part));
            (name(slot, *part), knobs.keyspace(config))
        })
        .collect();
    let mut limits = knobs.limits();
    if scenario.watch_bytes > 0 {
        limits.watch_bytes_max = scenario.watch_bytes;
    }
    NodeSettings {
        cluster: "simulated".into(),
        node,
        members: (1..=scenario.nodes).map(NodeId).collect(),
        keyspaces,
        membership: None,
        tuning: knobs.tuning(Tuning {
            segment_bytes: scenario.disk.segment,
            snapshot_log_bytes: scenario.disk.snapshot,
            limits,
            liveness: knobs.liveness(),
            ..Tuning::default()
        }),
    }
}

/// Bytes of a log's last segment in which damage must be noticed; 0 if the disk cannot be read. Changes the disk.
#[must_use]
pub fn proven_bytes(disk: &MemoryDisk, scenario: &Scenario) -> u64 {
    let read = || -> Result<u64, LogError> {
        let options = LogOptions {
            segment_bytes: scenario.disk.segment,
            new_log_id: 1,
        };
        let Ok(newest) = snapshot::newest(disk) else {
            return Ok(0);
        };
        let replay = |_: Record<'_>| Ok::<(), LogError>(());
        let (_, recovery) = trilemma_storage::Log::open(disk.clone(), options, newest, replay)?;
        Ok(recovery.proven_bytes)
    };
    read().unwrap_or(0)
}

/// Bytes that a record takes beside its payload, as a node counts them.
const RECORD_HEADER_BYTES: u64 = 40;

impl Process {
    /// Starts a process from what its disk holds.
    pub fn start(disk: &MemoryDisk, start: Start<'_>, rng: &mut Rng) -> Result<(Self, Found), Stopped> {
        let Start {
            scenario,
            node,
            knobs,
            now,
            incarnation_min,
        } = start;
        let tuned = Tuned(knobs);
        let storage = Storage {
            disk,
            // An operator who has lost a disk says that the empty one is a new node's: what protects the cluster then is that its
            // peers know better.
            is_new: true,
            random: &mut || rng.next_u64(),
            tune: &tuned,
        };
        let now = Now {
            wall: WallTime(now.wall.0.max(incarnation_min)),
            ..now
        };
        let settings = settings(scenario, node, &tuned);
        let Recovered { node, log, found } = recover(&settings, now, storage).map_err(Stopped::Recovery)?;
        let process = Self {
            incarnation: node.incarnation(),
            queue: WriteQueue::new(log, node.waits_for_written()),
            node,
            effects: Effects::default(),
            disk: disk.clone(),
            syncing: false,
            snapshot: None,
            snapshot_state_percent: settings.tuning.snapshot_state_percent,
        };
        Ok((process, found))
    }

    /// The protocol instance of a keyspace.
    #[must_use]
    pub fn engine(&self, slot: usize) -> &Engine {
        self.node.replicas()[slot].engine()
    }

    /// The id of a keyspace.
    #[must_use]
    pub fn keyspace(slot: usize, part: Protocol) -> trilemma_core::KeyspaceId {
        keyspace_id(&name(slot, part))
    }

    /// Hands the records of the last turn to the log. Whether there were any.
    pub fn submit(&mut self, now: Now) -> Result<bool, Stopped> {
        let batch = std::mem::take(&mut self.effects.batch);
        let any = !batch.records.is_empty();
        self.queue.submit(now.instant, batch)?;
        Ok(any)
    }

    /// Hands what waits to the disk, unless a sync is under way.
    pub fn write(&mut self, now: Now) -> Result<Option<Due>, Stopped> {
        if self.syncing {
            return Ok(None);
        }
        loop {
            let due = self.queue.write(now.instant)?;
            self.syncing = due == Due::Sync;
            // What a spare segment has made room for is written at once, as by the writer's thread.
            if self.syncing || !self.make_spare(now)? {
                return Ok(Some(due));
            }
        }
    }

    /// Ends the sync that [`Process::write`] began.
    pub fn sync(&mut self, now: Now) -> Result<LogSeq, Stopped> {
        assert!(std::mem::take(&mut self.syncing), "a sync ends once");
        self.queue.sync()?;
        self.make_spare(now)?;
        Ok(self.durable())
    }

    /// Makes the next segment ready if that is due. Whether it was: then what follows from it is to be written.
    fn make_spare(&mut self, now: Now) -> Result<bool, Stopped> {
        let Some(job) = self.queue.take_spare_job(now.instant) else {
            return Ok(false);
        };
        let made = fill_spare(&self.disk, &job.name, job.bytes);
        self.queue.on_spare(now.instant, made)?;
        Ok(true)
    }

    /// What the log has to report. Nothing is reported between the beginning of a sync and its end but what was said
    /// before.
    pub fn log_events(&mut self) -> Vec<LogEvent> {
        self.queue.take_events().collect()
    }

    /// Carries out what the last turn wants of snapshots and of the log. Whether a snapshot is to be written.
    pub fn background(&mut self, now: Now) -> Result<bool, Stopped> {
        if let Some(up_to) = self.effects.release.take() {
            self.queue.release(now.instant, up_to)?;
        }
        let job = self.effects.snapshot.take();
        let any = job.is_some();
        self.snapshot = job.or(self.snapshot.take());
        Ok(any)
    }

    /// Writes the snapshot that waits for it and tells the node, which learns of it in its next turn. `Err` if no fault of
    /// the disk excuses that there is none: a state that its own node could not restore.
    pub fn write_snapshot(&mut self) -> Result<(), String> {
        let Some(job) = self.snapshot.take() else {
            return Ok(());
        };
        let result = snapshot::write(&self.disk, job.log_id, job.at, job.sections);
        let broken = match &result {
            Ok(_) | Err(SnapshotError::Io { .. }) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        self.node.on_snapshot(result);
        broken
    }

    /// The last record that is durable.
    #[must_use]
    pub fn durable(&self) -> LogSeq {
        self.queue.log().durable()
    }

    /// The last records that are written and durable.
    #[must_use]
    pub fn reached(&self) -> (LogSeq, LogSeq) {
        (self.queue.log().written(), self.durable())
    }

    /// Whether something that was appended is not durable yet.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.durable() < self.node.last()
    }

    /// Bytes of records that a restart would replay now, and of the snapshot that it would read before.
    pub fn replayed_bytes(&self, scenario: &Scenario) -> Result<(u64, u64), String> {
        let disk = self.disk.copy();
        let options = LogOptions {
            segment_bytes: scenario.disk.segment,
            new_log_id: 1,
        };
        let newest = snapshot::newest(&disk).map_err(|error| error.to_string())?;
        let mut bytes = 0;
        let replay = |record: Record<'_>| {
            bytes += record.payload.len() as u64 + RECORD_HEADER_BYTES;
            Ok::<(), LogError>(())
        };
        let log_id = Log::id_of(&disk).map_err(|error| error.to_string())?;
        let mut snapshot = 0;
        if let Some(log_id) = log_id.filter(|_| newest > LogSeq(0)) {
            let summary = snapshot::verify(&disk, log_id, newest).map_err(|error| error.to_string())?;
            snapshot = summary.bytes;
        }
        Log::open(disk, options, newest, replay).map_err(|error| error.to_string())?;
        Ok((bytes, snapshot))
    }

    /// Whether a snapshot is under way.
    #[must_use]
    pub fn is_snapshotting(&self) -> bool {
        self.node.snapshots().is_busy()
    }
}
