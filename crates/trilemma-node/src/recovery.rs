//! Start: the newest snapshot, then the log behind it, then a new incarnation, durable before anything else.
//!
//! A function of a disk: the simulator crashes in the middle of it.

use std::collections::BTreeMap;

use thiserror::Error;
use trilemma_core::descriptor::WatchScope;
use trilemma_core::{Corrupt, Incarnation, KeyspaceId, Now, codec};
use trilemma_storage::{Disk, KEEP, Log, LogError, LogOptions, LogSeq, Progress, SnapshotError, snapshot};

use crate::config::{NODE_RECORDS, NodeSettings, keyspace_id};
use crate::engine::{Engine, Tune};
use crate::node::{Node, Parts};
use crate::record::{NodeRecord, StoredRecord};
use crate::replica::Replica;
use crate::snapshots::Snapshots;
use crate::watchers::Watchers;

/// What a record costs in the log beside its payload.
pub(crate) const RECORD_HEADER_BYTES: u64 = 40;

/// Where a node's state is kept, and what it is recovered with.
pub struct Storage<'a, D: Disk> {
    /// The disk.
    pub disk: &'a D,
    /// Fresh randomness: for a new log's id, and for each protocol instance.
    pub random: &'a mut dyn FnMut() -> u64,
    /// Changes the settings of protocols.
    pub tune: &'a dyn Tune,
}

/// A node restored from its disk.
pub struct Recovered<D: Disk, W> {
    /// The node, not yet started: see [`Node::start`].
    pub node: Node<W>,
    /// Its log, durable up to the end.
    pub log: Log<D>,
    /// What was found.
    pub found: Found,
}

/// What a start found on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The position that the snapshot covers; 0 if there is none.
    pub snapshot: LogSeq,
    /// The last record.
    pub last: LogSeq,
    /// Records replayed.
    pub records: u64,
    /// Bytes behind the last record that a crash had left and that were cut.
    pub cut_bytes: u64,
    /// Whether the log was closed cleanly.
    pub clean: bool,
}

/// Why a node does not start from its disk. Nothing was lost by it, and nothing is by trying again.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// The log could not be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A snapshot could not be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Records or chunks passed their checksums but cannot be right.
    #[error("keyspace \"{keyspace}\": {source}")]
    Corrupt {
        /// The keyspace.
        keyspace: String,
        /// What does not fit.
        source: Corrupt,
    },
    /// What the disk holds belongs to another node, cluster, member list or keyspace table.
    #[error("{0}")]
    Foreign(String),
}

/// Restores a node from its disk. `now` is the time on both clocks.
pub fn recover<D: Disk, W>(
    settings: &NodeSettings,
    now: Now,
    storage: Storage<'_, D>,
) -> Result<Recovered<D, W>, RecoveryError> {
    let Storage { disk, random, tune } = storage;
    let options = LogOptions {
        segment_bytes: settings.tuning.segment_bytes,
        new_log_id: random(),
    };
    let newest = snapshot::newest(disk)?;
    let log_id = Log::id_of(disk)?.filter(|_| newest > LogSeq(0));
    // The incarnation is needed to build the instances, so the node's own records are read first.
    let incarnation = next_incarnation(settings, now, disk, options, newest)?;
    let mut loading = Loading::new(settings, incarnation, random, tune);
    if let Some(log_id) = log_id {
        snapshot::read(disk, log_id, newest, |keyspace, chunk| {
            loading.apply(keyspace, |engine| engine.restore(chunk))
        })?;
    }
    let mut bytes = 0;
    let (mut log, recovery) = Log::open(disk.clone(), options, newest, |record| {
        bytes += record.payload.len() as u64 + RECORD_HEADER_BYTES;
        loading.apply(record.keyspace, |engine| engine.replay(record.payload))
    })?;
    let found = Found {
        snapshot: newest,
        last: recovery.last,
        records: recovery.records,
        cut_bytes: recovery.cut_bytes,
        clean: recovery.clean,
    };
    tracing::info!(
        snapshot = %newest, records = found.records, last = %found.last, cut_bytes = found.cut_bytes,
        clean = found.clean, %incarnation, "recovered"
    );
    let started = NodeRecord::started(settings, incarnation);
    log.append(NODE_RECORDS, &codec::encode(&started))?;
    let durable = log.sync()?;
    let node = Node::new(Parts {
        settings,
        incarnation,
        replicas: loading.replicas(settings, incarnation, now),
        last: log.last(),
        progress: Progress {
            written: durable,
            durable,
        },
        snapshots: Snapshots::new(log.id(), settings.tuning.snapshot_log_bytes, newest, bytes),
        record: started,
    });
    Ok(Recovered { node, log, found })
}

/// Reads what the disk says of earlier incarnations, checks that it is this node's, and counts on.
fn next_incarnation<D: Disk>(
    settings: &NodeSettings,
    now: Now,
    disk: &D,
    options: LogOptions,
    newest: LogSeq,
) -> Result<Incarnation, RecoveryError> {
    let mut stored = StoredRecord::default();
    if let (Some(log_id), true) = (Log::id_of(disk)?, newest > LogSeq(0)) {
        snapshot::read(disk, log_id, newest, |keyspace, chunk| {
            stored.take(keyspace, chunk)
        })?;
    }
    drop(Log::open(disk.clone(), options, newest, |record| {
        stored.take(record.keyspace, record.payload)
    })?);
    // A directory that holds no incarnation may have been emptied, and dots and ballots of the lost incarnations must
    // not be made again: the clock puts this one above them. From then on they are counted.
    let first = Incarnation(now.wall.0.max(1));
    Ok(stored.check(settings)?.map_or(first, Incarnation::next))
}

/// The keyspaces while they are being restored.
struct Loading {
    engines: BTreeMap<KeyspaceId, (String, Engine)>,
}

impl Loading {
    fn new(
        settings: &NodeSettings,
        incarnation: Incarnation,
        random: &mut dyn FnMut() -> u64,
        tune: &dyn Tune,
    ) -> Self {
        let mut engines = BTreeMap::new();
        for (name, keyspace) in &settings.keyspaces {
            let engine = Engine::build(settings, keyspace, incarnation, random(), tune);
            engines.insert(keyspace_id(name), (name.clone(), engine));
        }
        Self { engines }
    }

    fn apply(
        &mut self,
        keyspace: KeyspaceId,
        work: impl FnOnce(&mut Engine) -> Result<(), Corrupt>,
    ) -> Result<(), RecoveryError> {
        if keyspace == NODE_RECORDS {
            return Ok(());
        }
        // The tables were compared before, so a record without a keyspace is not a removed keyspace's.
        let Some((name, engine)) = self.engines.get_mut(&keyspace) else {
            return Err(RecoveryError::Foreign(format!(
                "it holds records of {keyspace}, which no keyspace has had; nothing was changed. Check `data`: it must be \
                 the directory that this node alone has written. {KEEP}"
            )));
        };
        work(engine).map_err(|source| RecoveryError::Corrupt {
            keyspace: name.clone(),
            source,
        })
    }

    fn replicas(self, settings: &NodeSettings, incarnation: Incarnation, now: Now) -> Vec<Replica> {
        let limit = settings.tuning.limits.watch_bytes_max;
        let replica = |(id, (name, engine)): (KeyspaceId, (String, Engine))| {
            let config = &settings.keyspaces[&name];
            let (stream, position) = match config.backend.descriptor().watch {
                WatchScope::Shared => (0, engine.status(now).version.0),
                WatchScope::Node => (u64::from(settings.node.0) << 48 ^ incarnation.0, 0),
            };
            let watchers = Watchers::new(stream, position, limit);
            Replica::new(name, id, config, engine, watchers)
        };
        let mut replicas: Vec<Replica> = self.engines.into_iter().map(replica).collect();
        replicas.sort_by(|a, b| a.name().cmp(b.name()));
        replicas
    }
}
