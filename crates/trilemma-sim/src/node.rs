//! One node: its disk, which outlives it, and its process, which does not.
//!
//! The process does what the driver of `trilemma-runtime` does: one log for all keyspaces, records before messages,
//! promises when the disk has said so, snapshots of all keyspaces at one position, a life that is durable before
//! anything else. Only threads are missing: a sync begins in one event and ends in another.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use trilemma_core::host::{Appended, GroupInput, Output};
use trilemma_core::liveness::{Liveness, LivenessConfig};
use trilemma_core::protocol::Force;
use trilemma_core::{AppendSeq, Checkpoint, Corrupt, Incarnation, KeyspaceId, NodeId, Now, Rng};
use trilemma_storage::snapshot::{self, Section};
use trilemma_storage::{Log, LogError, LogOptions, LogSeq, MemoryDisk, SnapshotError};

use crate::engine::{Engine, Knobs};
use crate::scenario::{Protocol, Scenario};

/// Under which the node itself keeps the numbers of its lives.
const NODE_RECORDS: KeyspaceId = KeyspaceId(u32::MAX - 1);
/// Rounds of wakes asked for *now* within one turn, as in the driver.
const WAKE_ROUNDS_MAX: usize = 4;

/// A keyspace of a running process.
pub struct Slot {
    /// The instance.
    pub engine: Engine,
    /// What its steps of this turn want done.
    pub output: Output,
    /// Its appends that are not durable, and where they are in the log.
    pending: VecDeque<(AppendSeq, LogSeq)>,
}

/// What the log is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    Idle,
    /// Handed to the disk; the sync ends later.
    Busy,
    /// There is no space for another segment.
    Full,
}

/// A snapshot under way.
enum SnapshotState {
    None,
    /// Waits until the log is durable up to there.
    Taken(LogSeq, Vec<Section>),
    /// May be written at any moment.
    Ready(LogSeq, Vec<Section>),
}

/// A running process.
pub struct Process {
    /// Its life.
    pub life: Incarnation,
    /// The keyspaces, in the scenario's order.
    pub slots: Vec<Slot>,
    /// Beats.
    pub liveness: Liveness,
    log: Log<MemoryDisk>,
    backlog: VecDeque<(KeyspaceId, Bytes)>,
    promised: LogSeq,
    forced: bool,
    writing: Writing,
    snapshot: SnapshotState,
    bytes_since_snapshot: u64,
    covered: LogSeq,
}

/// Why a node does not start or has stopped.
#[derive(Debug)]
pub enum Stopped {
    /// Its log said no.
    Log(LogError),
    /// Its snapshot said no.
    Snapshot(SnapshotError),
    /// A protocol said no to its own records.
    Corrupt(Corrupt),
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stopped::Log(error) => write!(f, "log: {error}"),
            Stopped::Snapshot(error) => write!(f, "snapshot: {error}"),
            Stopped::Corrupt(error) => error.fmt(f),
        }
    }
}

impl From<LogError> for Stopped {
    fn from(error: LogError) -> Self {
        Stopped::Log(error)
    }
}

impl From<SnapshotError> for Stopped {
    fn from(error: SnapshotError) -> Self {
        Stopped::Snapshot(error)
    }
}

/// What a start found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// The last record.
    pub last: LogSeq,
    /// Records replayed.
    pub records: u64,
    /// Where the snapshot stood.
    pub snapshot: LogSeq,
}

/// What a node is started with.
#[derive(Clone, Copy)]
pub struct Start<'a> {
    /// The scenario.
    pub scenario: &'a Scenario,
    /// The node.
    pub node: NodeId,
    /// The least number of this life: above all that a lost disk may have held.
    pub life_min: u64,
}

fn keyspace(slot: usize) -> KeyspaceId {
    KeyspaceId(slot as u32 + 1)
}

/// Reads everything that a disk holds: chunks of the snapshot, records of the log, the last life.
struct Stored {
    log: Log<MemoryDisk>,
    found: Found,
    chunks: Vec<(KeyspaceId, Vec<u8>)>,
    records: Vec<(KeyspaceId, Vec<u8>)>,
    life: Option<u64>,
    proven_bytes: u64,
}

/// Bytes of a log's last segment in which damage must be noticed; 0 if the disk cannot be read. Changes the disk.
pub fn proven_bytes(disk: &MemoryDisk, scenario: &Scenario, node: NodeId) -> u64 {
    read(disk, scenario, node).map_or(0, |stored| stored.proven_bytes)
}

fn read(disk: &MemoryDisk, scenario: &Scenario, node: NodeId) -> Result<Stored, Stopped> {
    let newest = snapshot::newest(disk)?;
    let mut chunks = Vec::new();
    let mut records = Vec::new();
    if let (Some(id), true) = (Log::id_of(disk)?, newest > LogSeq(0)) {
        snapshot::read(disk, id, newest, |keyspace, chunk| {
            chunks.push((keyspace, chunk.to_vec()));
            Ok::<(), SnapshotError>(())
        })?;
    }
    let options = LogOptions {
        segment_bytes: scenario.disk.segment,
        new_log_id: scenario.seed ^ u64::from(node.0) << 32 | 1,
    };
    let (log, recovery) = Log::open(disk.clone(), options, newest, |record| {
        records.push((record.keyspace, record.payload.to_vec()));
        Ok::<(), LogError>(())
    })?;
    let lives = chunks
        .iter()
        .chain(&records)
        .filter(|(owner, _)| *owner == NODE_RECORDS);
    let life = lives
        .filter_map(|(_, bytes)| Some(u64::from_le_bytes(bytes.as_slice().try_into().ok()?)))
        .next_back();
    let found = Found {
        last: recovery.last,
        records: recovery.records,
        snapshot: newest,
    };
    Ok(Stored {
        log,
        found,
        chunks,
        records,
        life,
        proven_bytes: recovery.proven_bytes,
    })
}

impl Process {
    /// Starts a process from what its disk holds.
    pub fn start(disk: &MemoryDisk, start: Start<'_>, rng: &mut Rng) -> Result<(Self, Found), Stopped> {
        let Start {
            scenario,
            node,
            life_min,
        } = start;
        let Stored {
            mut log,
            found,
            chunks,
            records,
            life,
            ..
        } = read(disk, scenario, node)?;
        let life = Incarnation(life.map_or(life_min, |life| life + 1).max(1));
        let parts = scenario.protocol.parts();
        let mut slots: Vec<Slot> = Vec::new();
        for part in parts {
            slots.push(Slot {
                engine: build(*part, start, life, rng.next_u64(), &scenario.knobs),
                output: Output::default(),
                pending: VecDeque::new(),
            });
        }
        for (owner, chunk) in &chunks {
            if let Some(slot) = slots.get_mut((owner.0 as usize).wrapping_sub(1)) {
                slot.engine.restore(chunk).map_err(Stopped::Corrupt)?;
            }
        }
        for (owner, record) in &records {
            if let Some(slot) = slots.get_mut((owner.0 as usize).wrapping_sub(1)) {
                slot.engine.replay(record).map_err(Stopped::Corrupt)?;
            }
        }
        log.append(NODE_RECORDS, &life.0.to_le_bytes())?;
        log.sync()?;
        let peers = (1..=scenario.nodes).map(NodeId).filter(|peer| *peer != node);
        let process = Self {
            life,
            slots,
            liveness: Liveness::new(LivenessConfig::default(), life, peers),
            promised: log.last(),
            log,
            backlog: VecDeque::new(),
            forced: false,
            writing: Writing::Idle,
            snapshot: SnapshotState::None,
            bytes_since_snapshot: 0,
            covered: found.snapshot,
        };
        Ok((process, found))
    }

    /// Steps one keyspace.
    pub fn step(&mut self, slot: usize, now: Now, input: GroupInput) {
        let slot = &mut self.slots[slot];
        slot.engine.step(now, input, &mut slot.output);
    }

    /// Wakes the keyspaces that want it now; part of the end of every turn.
    pub fn wake_due(&mut self, now: Now) {
        for _ in 0..WAKE_ROUNDS_MAX {
            let mut any = false;
            for slot in &mut self.slots {
                if slot.engine.wake_at() <= now.instant {
                    slot.engine.step(now, GroupInput::Wake, &mut slot.output);
                    any = true;
                }
            }
            if !any {
                return;
            }
        }
    }

    /// Gives the records of this turn their places in the log. Returns them with their keyspaces.
    pub fn append(&mut self) -> Vec<(usize, LogSeq, Bytes)> {
        let mut appended = Vec::new();
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            for Appended { seq, force, bytes } in slot.output.records.drain(..) {
                self.promised = self.promised.plus(1);
                slot.pending.push_back((seq, self.promised));
                self.forced |= force == Force::Now;
                self.bytes_since_snapshot += bytes.len() as u64 + 40;
                appended.push((index, self.promised, bytes.clone()));
                self.backlog.push_back((keyspace(index), bytes));
            }
        }
        appended
    }

    /// Whether records wait that nothing else waits for.
    #[must_use]
    pub fn has_lazy(&self) -> bool {
        self.writing == Writing::Idle && !self.forced && !self.backlog.is_empty()
    }

    /// Makes lazy records as urgent as the others: their time has come.
    pub fn force(&mut self) {
        self.forced |= !self.backlog.is_empty();
    }

    /// Hands what waits to the disk if it is idle and something is urgent. `true` if a sync must end later.
    pub fn begin_write(&mut self) -> Result<bool, Stopped> {
        if self.writing == Writing::Busy || !self.forced {
            return Ok(false);
        }
        self.writing = Writing::Busy;
        while let Some((keyspace, payload)) = self.backlog.front() {
            match self.log.append(*keyspace, payload) {
                Ok(_) => {
                    self.backlog.pop_front();
                }
                Err(LogError::NoSpace { .. }) => {
                    self.writing = Writing::Full;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.log.write()?;
        self.forced = !self.backlog.is_empty();
        if self.writing == Writing::Full && self.log.written() == self.log.durable() {
            return Ok(false);
        }
        self.writing = Writing::Busy;
        Ok(true)
    }

    /// Ends the sync that [`Process::begin_write`] began. Nobody is told yet.
    pub fn end_write(&mut self) -> Result<LogSeq, Stopped> {
        let durable = self.log.sync()?;
        self.writing = Writing::Idle;
        match self.log.prepare_next() {
            // Only the next segment needs the space, and it will be asked for again.
            Ok(()) | Err(LogError::NoSpace { .. }) => Ok(durable),
            Err(error) => Err(error.into()),
        }
    }

    /// Tells the keyspaces what is durable.
    pub fn tell_durable(&mut self, now: Now) {
        let durable = self.log.durable();
        for slot in &mut self.slots {
            let mut up_to = None;
            while let Some((seq, at)) = slot.pending.front()
                && *at <= durable
            {
                up_to = Some(*seq);
                slot.pending.pop_front();
            }
            if let Some(up_to) = up_to {
                slot.engine
                    .step(now, GroupInput::Persisted { up_to }, &mut slot.output);
            }
        }
    }

    /// The last record that is durable.
    #[must_use]
    pub fn durable(&self) -> LogSeq {
        self.log.durable()
    }

    /// Whether something that was appended is not durable yet.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.log.durable() < self.promised
    }

    /// Takes the states for a snapshot if one is due, or `now`. It can be written later.
    pub fn take_snapshot(&mut self, every: u64, now: bool) {
        if !matches!(self.snapshot, SnapshotState::None) || (!now && self.bytes_since_snapshot < every) {
            return;
        }
        self.bytes_since_snapshot = 0;
        let life = self.life.0.to_le_bytes().to_vec();
        let own: Section = (NODE_RECORDS, Checkpoint::new(std::iter::once(life), |_| Ok(())));
        let keyspaces = self.slots.iter().enumerate();
        let sections =
            keyspaces.map(|(index, slot)| -> Section { (keyspace(index), slot.engine.checkpoint()) });
        let sections = std::iter::once(own).chain(sections).collect();
        self.snapshot = SnapshotState::Taken(self.promised, sections);
    }

    /// Whether a snapshot has become ready to be written by this call.
    pub fn snapshot_ready(&mut self) -> bool {
        match std::mem::replace(&mut self.snapshot, SnapshotState::None) {
            SnapshotState::Taken(at, sections) if at <= self.log.durable() => {
                self.snapshot = SnapshotState::Ready(at, sections);
                true
            }
            other => {
                self.snapshot = other;
                false
            }
        }
    }

    /// Whether a snapshot is under way.
    #[must_use]
    pub fn is_snapshotting(&self) -> bool {
        !matches!(self.snapshot, SnapshotState::None)
    }

    /// Writes the snapshot that is ready and lets the log go of what it covers. `false` if that failed: the log then
    /// still holds everything, and the next snapshot is tried after as much log again.
    pub fn write_snapshot(&mut self, disk: &MemoryDisk) -> Result<bool, Stopped> {
        let SnapshotState::Ready(at, sections) = std::mem::replace(&mut self.snapshot, SnapshotState::None)
        else {
            return Ok(false);
        };
        if at <= self.covered {
            return Ok(false);
        }
        match snapshot::write(disk, self.log.id(), at, sections) {
            Ok(()) => {
                self.covered = at;
                self.log.release(at)?;
                Ok(true)
            }
            Err(SnapshotError::Io { .. }) => Ok(false),
            // A state that its own node could not restore.
            Err(error) => panic!("{error}"),
        }
    }
}

fn build(part: Protocol, start: Start<'_>, life: Incarnation, seed: u64, knobs: &Knobs) -> Engine {
    Engine::new(part, start.node, start.scenario.nodes, life, seed, knobs)
}
