//! Start: the newest snapshot, then the log behind it, then a new incarnation, durable before anything else.
//!
//! Each file is read once. The incarnation is needed before the protocols are made and is known only when all is read,
//! so the last one also stands in a small file, as a hint. What was read tells whether it was right; if not, it is read
//! again.
//!
//! A function of a disk: the simulator crashes in the middle of it.

use std::collections::BTreeMap;

use thiserror::Error;
use trilemma_core::descriptor::WatchScope;
use trilemma_core::{Corrupt, DiskId, Incarnation, KeyspaceId, NodeId, Now, ProcessId, codec};
use trilemma_storage::{
    Disk, DiskFile, KEEP, Log, LogError, LogOptions, LogSeq, Progress, SnapshotError, snapshot,
};

use crate::config::{KeyspaceConfig, NODE_RECORDS, NodeSettings, keyspace_id};
use crate::engine::{Engine, Tune};
use crate::members::Members;
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

/// The file with the last incarnation, as a hint.
const HINT_FILE: &str = "incarnation";
/// Its bytes: the number, and the same number inverted.
const HINT_BYTES: usize = 16;

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

/// Restores a node from its disk. `now` is the time on both clocks. What refuses a start is found before anything is
/// changed, unless the disk itself fails.
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
    // A directory that holds no incarnation may have been emptied, and dots and ballots of the lost incarnations must
    // not be made again: the clock puts this one above them. From then on they are counted.
    let first = Incarnation(now.wall.0.max(1));
    let nonce = random();
    let mut incarnation = hint(disk).map_or(first, Incarnation::next);
    let (read, snapshot_bytes, log) = loop {
        let mut read = Loading::new(settings, incarnation, random, tune);
        let mut snapshot_bytes = 0;
        if let Some(log_id) = log_id.filter(|_| newest > LogSeq(0)) {
            let summary = snapshot::read(disk, log_id, newest, |keyspace, chunk| {
                read.apply(keyspace, chunk, Engine::restore)
            })?;
            snapshot_bytes = summary.bytes;
        }
        let log = Log::read(disk.clone(), options, newest, |record| {
            read.log_bytes += record.payload.len() as u64 + RECORD_HEADER_BYTES;
            // The state of the snapshot has it already.
            if read.stored.reflected.get(&record.keyspace) >= Some(&record.seq) {
                read.reflected += 1;
                return Ok(());
            }
            read.apply(record.keyspace, record.payload, Engine::replay)
        })?;
        let right = read.stored.incarnation().map_or(first, Incarnation::next);
        if incarnation == right {
            // What was read with another incarnation than the right one may not fit, and means nothing then.
            if let Some(error) = read.failed {
                return Err(error);
            }
            break (read, snapshot_bytes, log);
        }
        tracing::debug!(%incarnation, %right, "the hint was wrong; everything is read again");
        incarnation = right;
    };
    let Loading {
        engines,
        stored,
        log_bytes,
        reflected,
        ..
    } = read;
    // All is well, and only now anything is changed.
    let (mut log, recovery) = log.open()?;
    if snapshot::remove_unfinished(disk)? {
        tracing::info!("removed a snapshot that was not finished");
    }
    let found = Found {
        snapshot: newest,
        last: recovery.last,
        records: recovery.records - reflected,
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
    if let Err(error) = put_hint(disk, incarnation) {
        tracing::info!(%error, "the last incarnation could not be noted; the next start reads everything twice");
    }
    if is_marked {
        file_errors("remove", disk.remove(NEW_NODE_FILE))?;
        file_errors("sync", disk.sync_directory())?;
    }
    let members = settings
        .membership
        .as_ref()
        .map(|membership| (membership, random()));
    let node = Node::new(Parts {
        settings,
        peers,
        replicas: replicas(engines, settings, incarnation, now),
        last: log.last(),
        progress: Progress {
            written: durable,
            durable,
        },
        snapshots: Snapshots::new(log.id(), &settings.tuning, (newest, snapshot_bytes), log_bytes),
        record: started,
        members: members.map(|(membership, random_seed)| {
            Members::new(membership, settings.node, stored.member_epoch, random_seed)
        }),
        member_epoch: stored.member_epoch,
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

/// The last incarnation, as far as the hint goes.
fn hint<D: Disk>(disk: &D) -> Option<Incarnation> {
    let mut bytes = [0; HINT_BYTES];
    // Without it, or with half of it, a start takes longer and is right all the same.
    disk.open(HINT_FILE).ok()?.read_at(&mut bytes, 0).ok()?;
    let half = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    (half(0) == !half(8)).then(|| Incarnation(half(0)))
}

fn put_hint<D: Disk>(disk: &D, incarnation: Incarnation) -> std::io::Result<()> {
    let mut bytes = [0; HINT_BYTES];
    bytes[..8].copy_from_slice(&incarnation.0.to_le_bytes());
    bytes[8..].copy_from_slice(&(!incarnation.0).to_le_bytes());
    let mut file = match disk.open(HINT_FILE) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => disk.create(HINT_FILE)?,
        opened => opened?,
    };
    // Not synced: a power cut may take it.
    file.write_at(&bytes, 0)
}

/// What is being read: the node's own records, and the keyspaces while they are being restored.
struct Loading<'a> {
    settings: &'a NodeSettings,
    stored: StoredRecords,
    engines: Engines,
    /// The incarnation that they are restored for.
    incarnation: Incarnation,
    /// Why a keyspace cannot be restored.
    failed: Option<RecoveryError>,
    /// Bytes of the log behind the snapshot.
    log_bytes: u64,
    /// Records of it that the snapshot reflects.
    reflected: u64,
}

type Engines = BTreeMap<KeyspaceId, (String, Engine)>;

impl<'a> Loading<'a> {
    fn new(
        settings: &'a NodeSettings,
        incarnation: Incarnation,
        random: &mut dyn FnMut() -> u64,
        tune: &dyn Tune,
    ) -> Self {
        let mut engines = BTreeMap::new();
        for (name, keyspace) in &settings.keyspaces {
            let engine = Engine::build(settings, (name, keyspace), incarnation, random(), tune);
            engines.insert(keyspace_id(name), (name.clone(), engine));
        }
        Self {
            settings,
            stored: StoredRecords::default(),
            engines,
            incarnation,
            failed: None,
            log_bytes: 0,
            reflected: 0,
        }
    }

    /// Takes the next chunk or record.
    fn apply(
        &mut self,
        keyspace: KeyspaceId,
        bytes: &[u8],
        work: impl FnOnce(&mut Engine, &[u8]) -> Result<(), Corrupt>,
    ) -> Result<(), RecoveryError> {
        if keyspace == NODE_RECORDS {
            return self.stored.take(self.settings, bytes);
        }
        let is_wrong = self.stored.incarnation() >= Some(self.incarnation);
        if is_wrong || self.failed.is_some() {
            return Ok(());
        }
        // The tables were compared before, when the record of the start under which this was written came by. So one
        // without a keyspace is not a removed keyspace's.
        let Some((name, engine)) = self.engines.get_mut(&keyspace) else {
            return Err(RecoveryError::Foreign(format!(
                "it holds records of {keyspace}, which no keyspace has had; nothing was changed. Check `data`: it must be \
                 the directory that this node alone has written. {KEEP}"
            )));
        };
        if let Err(source) = work(engine, bytes) {
            let keyspace = name.clone();
            self.failed = Some(RecoveryError::Corrupt { keyspace, source });
        }
        Ok(())
    }
}

fn replicas(engines: Engines, settings: &NodeSettings, incarnation: Incarnation, now: Now) -> Vec<Replica> {
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
    let mut replicas: Vec<Replica> = engines.into_iter().map(replica).collect();
    replicas.sort_by(|a, b| a.name().cmp(b.name()));
    replicas
}
