//! Start: the newest snapshot, then the log behind it, then a new incarnation, durable before anything else.
//!
//! A function of a disk: the simulator crashes in the middle of it.

use std::collections::BTreeMap;

use thiserror::Error;
use trilemma_core::descriptor::WatchScope;
use trilemma_core::{Corrupt, DiskId, Incarnation, KeyspaceId, NodeId, Now, ProcessId, codec};
use trilemma_storage::{Disk, KEEP, Log, LogError, LogOptions, LogSeq, Progress, SnapshotError, snapshot};

use crate::config::{KeyspaceConfig, NODE_RECORDS, NodeSettings, keyspace_id};
use crate::engine::{Engine, Tune};
use crate::node::{Node, Parts};
use crate::peers::Peers;
use crate::record::{NodeRecord, StoredRecords};
use crate::replica::Replica;
use crate::snapshots::Snapshots;
use crate::watchers::Watchers;

/// What a record costs in the log beside its payload.
pub(crate) const RECORD_HEADER_BYTES: u64 = 40;

/// An empty directory with a file of this name is accepted as that of a new node; see [`Storage::is_new`]. The file is
/// removed once the node has started.
pub const NEW_NODE_FILE: &str = "new-node";

/// Where a node's state is kept, and what it is recovered with.
pub struct Storage<'a, D: Disk> {
    /// The disk.
    pub disk: &'a D,
    /// The operator says that the node is new, so that an empty disk is right. Otherwise it is a volume that is not
    /// mounted, a path that is wrong, or a loss, and the node does not start. What a disk holds is never touched.
    pub is_new: bool,
    /// Fresh randomness: for a new log's id, for this process, and for each protocol instance.
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
    /// The disk holds nothing, and nobody has said that the node is new.
    #[error(
        "it is empty, and nothing says that node {0} is new. If the node has run before, its data are elsewhere: mount the \
         volume, or correct `data`, and start again. If it has never run, start it once with `serve --new` (in code: \
         `new_node`). Nothing was changed"
    )]
    Empty(NodeId),
}

/// Restores a node from its disk. `now` is the time on both clocks.
pub fn recover<D: Disk, W>(
    settings: &NodeSettings,
    now: Now,
    storage: Storage<'_, D>,
) -> Result<Recovered<D, W>, RecoveryError> {
    let Storage {
        disk,
        is_new,
        random,
        tune,
    } = storage;
    let options = LogOptions {
        segment_bytes: settings.tuning.segment_bytes,
        new_log_id: random(),
    };
    let newest = snapshot::newest(disk)?;
    let is_marked = file_errors("list", disk.list())?
        .iter()
        .any(|name| name == NEW_NODE_FILE);
    let log_id = Log::id_of(disk)?;
    if log_id.is_none() && newest == LogSeq(0) && !is_new && !is_marked {
        return Err(RecoveryError::Empty(settings.node));
    }
    let log_id = log_id.filter(|_| newest > LogSeq(0));
    // The incarnation is needed to build the instances, so the node's own records are read first.
    let stored = own_records(disk, options, newest)?;
    // A directory that holds no incarnation may have been emptied, and dots and ballots of the lost incarnations must
    // not be made again: the clock puts this one above them. From then on they are counted.
    let first = Incarnation(now.wall.0.max(1));
    let incarnation = stored.check(settings)?.map_or(first, Incarnation::next);
    let nonce = random();
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
    let this = ProcessId {
        node: settings.node,
        incarnation,
        disk: DiskId(log.id()),
        nonce,
    };
    let others = settings.members.iter().filter(|peer| *peer != settings.node);
    let counts_majorities = settings.keyspaces.values().any(KeyspaceConfig::counts_majorities);
    let peers = Peers::new(this, others, counts_majorities, stored.is_founded, &stored.kept);
    let started = NodeRecord::started(settings, incarnation, peers.is_founded());
    log.append(NODE_RECORDS, &codec::encode(&started))?;
    let durable = log.sync()?;
    if is_marked {
        file_errors("remove", disk.remove(NEW_NODE_FILE))?;
        file_errors("sync", disk.sync_directory())?;
    }
    let node = Node::new(Parts {
        settings,
        peers,
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

fn file_errors<T>(action: &'static str, result: std::io::Result<T>) -> Result<T, LogError> {
    result.map_err(|source| LogError::Io {
        file: NEW_NODE_FILE.into(),
        action,
        source,
    })
}

/// Reads what the node itself has kept.
fn own_records<D: Disk>(
    disk: &D,
    options: LogOptions,
    newest: LogSeq,
) -> Result<StoredRecords, RecoveryError> {
    let mut stored = StoredRecords::default();
    if let (Some(log_id), true) = (Log::id_of(disk)?, newest > LogSeq(0)) {
        snapshot::read(disk, log_id, newest, |keyspace, chunk| {
            stored.take(keyspace, chunk)
        })?;
    }
    drop(Log::open(disk.clone(), options, newest, |record| {
        stored.take(record.keyspace, record.payload)
    })?);
    Ok(stored)
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
