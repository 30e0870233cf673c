//! Start: the newest snapshot, then the log behind it, then a new life of the process, durable before anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trilemma_core::codec::{bounded_text, bounded_vec};
use trilemma_core::descriptor::WatchScope;
use trilemma_core::host::Group;
use trilemma_core::{Checkpoint, Corrupt, Incarnation, KeyspaceId, NODES_MAX, NodeId, NodeSet, Now, codec};
use trilemma_storage::snapshot::Section;
use trilemma_storage::{
    KEEP, Log, LogError, LogEvent, LogOptions, LogSeq, LogWriter, OsDisk, Progress, SnapshotError, snapshot,
};

use crate::config::{NODE_RECORDS, NodeConfig, keyspace_id};
use crate::error::NodeError;
use crate::groups;
use crate::slot::Slot;
use crate::watchers::Watchers;

/// What the node itself keeps in its log and snapshots, under the keyspace id [`NODE_RECORDS`].
///
/// The order of the variants is the format: new ones go to the end, and old ones stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NodeRecord {
    /// An incarnation of the process began, as written before members were recorded. It is read, never written.
    StartedWithoutMembers(Started),
    /// An incarnation of the process began in a cluster of these members, this node among them, ascending.
    Started(
        Started,
        #[serde(deserialize_with = "bounded_vec::<_, _, NODES_MAX>")] Vec<NodeId>,
    ),
}

/// What a node records at each start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Started {
    /// The cluster's name.
    #[serde(deserialize_with = "bounded_text::<_, 256>")]
    cluster: String,
    /// The node.
    node: NodeId,
    /// The incarnation.
    incarnation: Incarnation,
    /// The keyspaces with their backends, by name.
    #[serde(deserialize_with = "bounded_vec::<_, _, 4096>")]
    keyspaces: Vec<(String, String)>,
}

impl NodeRecord {
    /// The record of this incarnation.
    fn started(config: &NodeConfig, incarnation: Incarnation) -> Self {
        let keyspaces = config.keyspaces.iter();
        let started = Started {
            cluster: config.cluster.clone(),
            node: config.node,
            incarnation,
            keyspaces: keyspaces
                .map(|(name, keyspace)| (name.clone(), keyspace.backend.to_string()))
                .collect(),
        };
        NodeRecord::Started(started, config.members().iter().collect())
    }
}

/// A node's storage, opened, and its keyspaces, restored.
pub(crate) struct Recovered {
    pub(crate) slots: Vec<Slot>,
    pub(crate) log: LogWriter,
    pub(crate) snapshots: SnapshotTarget,
    pub(crate) incarnation: Incarnation,
    pub(crate) progress: Progress,
}

/// Where snapshots go.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotTarget {
    pub(crate) disk: OsDisk,
    pub(crate) log_id: u64,
    pub(crate) newest: LogSeq,
    pub(crate) started: NodeRecord,
}

/// A keyspace while it is being restored.
struct Restored {
    name: String,
    group: Box<dyn Group>,
}

/// What restoring can fail with, before the data directory is named.
enum Failure {
    Log(LogError),
    Snapshot(SnapshotError),
    Corrupt { keyspace: String, source: Corrupt },
    Foreign(String),
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        Failure::Log(error)
    }
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Self {
        Failure::Snapshot(error)
    }
}

impl Failure {
    fn at(self, path: &Path) -> NodeError {
        let path = path.to_path_buf();
        match self {
            Failure::Log(source) => NodeError::Log { path, source },
            Failure::Snapshot(source) => NodeError::Snapshot { path, source },
            Failure::Corrupt { keyspace, source } => NodeError::Corrupt {
                path,
                keyspace,
                source,
            },
            Failure::Foreign(why) => NodeError::Foreign { path, why },
        }
    }
}

/// Opens the data directory and restores every keyspace. `report` is called from the log's thread.
pub(crate) fn recover(
    config: &NodeConfig,
    now: Now,
    report: impl Fn(LogEvent) + Send + 'static,
) -> Result<Recovered, NodeError> {
    let foreign = |why: String| NodeError::Foreign {
        path: config.data.clone(),
        why,
    };
    let disk = OsDisk::open(&config.data).map_err(|error| foreign(error.to_string()))?;
    restore(config, now, disk, report).map_err(|failure| failure.at(&config.data))
}

fn restore(
    config: &NodeConfig,
    now: Now,
    disk: OsDisk,
    report: impl Fn(LogEvent) + Send + 'static,
) -> Result<Recovered, Failure> {
    // The life's number is needed to build the instances, so the node's own records are read first.
    let newest = snapshot::newest(&disk)?;
    let log_id = Log::id_of(&disk)?;
    let options = LogOptions {
        segment_bytes: config.tuning.segment_bytes,
        new_log_id: crate::random_u64(),
    };
    let mut lives = Lives::default();
    if let (Some(log_id), true) = (log_id, newest > LogSeq(0)) {
        snapshot::read(&disk, log_id, newest, |keyspace, chunk| {
            lives.take(keyspace, chunk)
        })?;
    }
    drop(Log::open(disk.clone(), options, newest, |record| {
        lives.take(record.keyspace, record.payload)
    })?);
    // A directory that holds no life may have been wiped, and dots and ballots of the lost lives must not be made
    // again: the clock puts this life above them. From then on lives are counted.
    let first = Incarnation(now.wall.0.max(1));
    let incarnation = lives.check(config)?.map_or(first, Incarnation::next);
    let mut restored = build_all(config, incarnation);
    if let (Some(log_id), true) = (log_id, newest > LogSeq(0)) {
        snapshot::read(&disk, log_id, newest, |keyspace, chunk| {
            apply(&mut restored, keyspace, |group| group.restore(chunk))
        })?;
    }
    let (mut log, found) = Log::open(disk.clone(), options, newest, |record| {
        apply(&mut restored, record.keyspace, |group| {
            group.replay(record.payload)
        })
    })?;
    tracing::info!(
        snapshot = %newest, records = found.records, last = %found.last, cut_bytes = found.cut_bytes,
        clean = found.clean, %incarnation, "recovered"
    );
    let started = NodeRecord::started(config, incarnation);
    log.append(NODE_RECORDS, &codec::encode(&started))?;
    let durable = log.sync()?;
    let progress = Progress {
        written: durable,
        durable,
    };
    let log_id = log.id();
    let slots = slots(config, restored, incarnation, now);
    let log = LogWriter::spawn(log, disk.clone(), true, report).map_err(|source| {
        Failure::Log(LogError::Io {
            file: "log thread".into(),
            action: "start",
            source,
        })
    })?;
    let snapshots = SnapshotTarget {
        disk,
        log_id,
        newest,
        started,
    };
    Ok(Recovered {
        slots,
        log,
        snapshots,
        incarnation,
        progress,
    })
}

fn build_all(config: &NodeConfig, incarnation: Incarnation) -> BTreeMap<KeyspaceId, Restored> {
    let restored = |(name, keyspace): (&String, _)| {
        let group = groups::build(config, keyspace, incarnation);
        (
            keyspace_id(name),
            Restored {
                name: name.clone(),
                group,
            },
        )
    };
    config.keyspaces.iter().map(restored).collect()
}

fn apply(
    restored: &mut BTreeMap<KeyspaceId, Restored>,
    keyspace: KeyspaceId,
    work: impl FnOnce(&mut dyn Group) -> Result<(), Corrupt>,
) -> Result<(), Failure> {
    if keyspace == NODE_RECORDS {
        return Ok(());
    }
    // The tables were compared before, so a record without a keyspace is not a removed keyspace's.
    let Some(found) = restored.get_mut(&keyspace) else {
        return Err(Failure::Foreign(format!(
            "it holds records of {keyspace}, which no keyspace has had; nothing was changed. Check `data`: it must be \
             the directory that this node alone has written. {KEEP}"
        )));
    };
    work(found.group.as_mut()).map_err(|source| Failure::Corrupt {
        keyspace: found.name.clone(),
        source,
    })
}

fn slots(
    config: &NodeConfig,
    restored: BTreeMap<KeyspaceId, Restored>,
    incarnation: Incarnation,
    now: Now,
) -> Vec<Slot> {
    let slot = |(id, Restored { name, group })| {
        let served = &config.keyspaces[&name];
        let watchers = match served.backend.descriptor().watch {
            WatchScope::Shared => Watchers::new(0, group.status(now).version.0),
            WatchScope::Node => Watchers::new(u64::from(config.node.0) << 48 ^ incarnation.0, 0),
        };
        Slot::new(name, id, served, group, watchers)
    };
    let mut slots: Vec<Slot> = restored.into_iter().map(slot).collect();
    slots.sort_by(|a, b| a.name.cmp(&b.name));
    slots
}

/// What the directory says of earlier lives.
#[derive(Default)]
struct Lives {
    last: Option<NodeRecord>,
}

impl Lives {
    fn take(&mut self, keyspace: KeyspaceId, payload: &[u8]) -> Result<(), Failure> {
        if keyspace == NODE_RECORDS {
            let record = codec::decode(payload).map_err(|error| Failure::Corrupt {
                keyspace: "(node)".into(),
                source: error.into(),
            })?;
            self.last = Some(record);
        }
        Ok(())
    }

    /// Whether the directory is this node's, with these members and keyspaces. Returns the last incarnation.
    fn check(&self, config: &NodeConfig) -> Result<Option<Incarnation>, Failure> {
        let (started, members) = match &self.last {
            Some(NodeRecord::StartedWithoutMembers(started)) => (started, None),
            Some(NodeRecord::Started(started, members)) => (started, Some(members)),
            None => return Ok(None),
        };
        check_owner(started, config)?;
        // A directory from before members were recorded gets those of the configuration with this start.
        if let Some(members) = members {
            check_members(&members.iter().copied().collect(), &config.members())?;
        }
        check_keyspaces(&started.keyspaces, config)?;
        Ok(Some(started.incarnation))
    }
}

fn check_owner(started: &Started, config: &NodeConfig) -> Result<(), Failure> {
    let Started { cluster, node, .. } = started;
    if (cluster, *node) == (&config.cluster, config.node) {
        return Ok(());
    }
    let (here, id) = (&config.cluster, config.node);
    Err(Failure::Foreign(format!(
        "it belongs to node {node} of cluster \"{cluster}\", the configuration is for node {id} of cluster \
         \"{here}\". Nothing was changed; check `data`, and give each node a directory of its own"
    )))
}

/// The members of a directory never change. Otherwise: nodes 1, 2, 3 run; somebody adds 4 and 5 to the files and
/// restarts node 3. It has voted in a majority of three with 1 and 2, and votes now in a majority of five with 4 and 5.
/// 1 and 2 are still two of three, so both sides elect a leader.
fn check_members(stored: &NodeSet, configured: &NodeSet) -> Result<(), Failure> {
    if stored == configured {
        return Ok(());
    }
    Err(Failure::Foreign(format!(
        "it was written in a cluster of the members [{stored}], the configuration has the members [{configured}]. \
         The members of a cluster cannot be changed by editing files: two majorities could then have no node in \
         common, and both would take writes. Nothing was changed; keep the directory. Give `peers` the stored members \
         and start again. For other members export the keyspaces, make a new cluster with directories of its own, and \
         load them there"
    )))
}

fn check_keyspaces(stored: &[(String, String)], config: &NodeConfig) -> Result<(), Failure> {
    let configured: BTreeSet<&String> = config.keyspaces.keys().collect();
    for (name, backend) in stored {
        let now = config
            .keyspaces
            .get(name)
            .map(|keyspace| keyspace.backend.to_string());
        if now.as_ref() != Some(backend) {
            let now = now.map_or("is not configured any more".to_owned(), |now| {
                format!("is now \"{now}\"")
            });
            return Err(Failure::Foreign(format!(
                "keyspace \"{name}\" holds data of backend \"{backend}\" and {now} (configured: \
                 {configured:?}). Nothing was changed; put it back as it was and start. For another backend export \
                 its data and load them into a keyspace of a new name"
            )));
        }
    }
    Ok(())
}

/// The node's own part of a snapshot.
pub(crate) fn node_section(started: &NodeRecord) -> Section {
    let chunk: Bytes = codec::encode(started);
    let check = |chunk: &[u8]| Ok(codec::decode::<NodeRecord>(chunk).map(drop)?);
    (
        NODE_RECORDS,
        Checkpoint::new(std::iter::once(chunk.to_vec()), check),
    )
}

#[cfg(test)]
mod tests;
