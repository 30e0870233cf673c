//! What the node itself keeps in its log and snapshots: that it has started, as whom, among whom, serving what; and whom
//! of its peers it has met on which disk.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use trilemma_core::codec::{bounded_text, bounded_vec};
use trilemma_core::{Checkpoint, Incarnation, KeyspaceId, NODES_MAX, NodeId, NodeSet, codec};
use trilemma_storage::LogSeq;
use trilemma_storage::snapshot::Section;

use crate::config::{NODE_RECORDS, NodeSettings};
use crate::peers::{Kept, Peers};
use crate::recovery::RecoveryError;

/// What the node itself keeps in its log and snapshots, under the keyspace id [`NODE_RECORDS`].
///
/// The order of the variants is the format: new ones go to the end, and old ones stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeRecord {
    /// An incarnation of the process began, as written before members were recorded. It is read, never written.
    StartedWithoutMembers(Started),
    /// The same in a cluster of these members, as written before disks were recorded. It is read, never written.
    StartedWithoutDisks(Started, Members),
    /// An incarnation of the process began in a cluster of these members, and whether all of them had met by then.
    Started(Started, Members, bool),
    /// A peer's process was met. The newest record of a peer counts.
    Met(Kept),
    /// All members have met: from here on this node is counted.
    Founded,
    /// In snapshots alone: these keyspaces' states reflect their records up to these places of the log, which are behind
    /// the snapshot's position. Records of others stand between them.
    Reflected(#[serde(deserialize_with = "bounded_vec::<_, _, 4096>")] Vec<(KeyspaceId, u64)>),
    /// An epoch of this node among the members began: what it announces itself with once this is durable.
    MemberEpoch(u64),
}

/// The members of a cluster, this node among them, ascending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Members(#[serde(deserialize_with = "bounded_vec::<_, _, NODES_MAX>")] Vec<NodeId>);

/// What a node records at each start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
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
    pub(crate) fn started(settings: &NodeSettings, incarnation: Incarnation, is_founded: bool) -> Self {
        let keyspaces = settings.keyspaces.iter();
        let started = Started {
            cluster: settings.cluster.clone(),
            node: settings.node,
            incarnation,
            keyspaces: keyspaces
                .map(|(name, keyspace)| (name.clone(), keyspace.backend.to_string()))
                .collect(),
        };
        NodeRecord::Started(started, Members(settings.members.iter().collect()), is_founded)
    }
}

/// What a node finds of its own on its disk.
#[derive(Default)]
pub(crate) struct StoredRecords {
    started: Option<Started>,
    members: Option<Members>,
    /// Whether all members have met.
    pub(crate) is_founded: bool,
    /// The peers that it has met.
    pub(crate) kept: BTreeMap<NodeId, Kept>,
    /// Its last epoch among the members; 0 if it had none.
    pub(crate) member_epoch: u64,
    /// Up to where the snapshot reflects records of a keyspace that are behind its position.
    pub(crate) reflected: BTreeMap<KeyspaceId, LogSeq>,
}

impl StoredRecords {
    /// Takes the next of them. That of a start is compared with the configuration at once: what follows it was written
    /// under its table.
    pub(crate) fn take(&mut self, settings: &NodeSettings, payload: &[u8]) -> Result<(), RecoveryError> {
        let record = codec::decode(payload).map_err(|error| RecoveryError::Corrupt {
            keyspace: "(node)".into(),
            source: error.into(),
        })?;
        match record {
            // A cluster from before disks were recorded has long met; its nodes keep whom they meet next.
            NodeRecord::StartedWithoutMembers(started) => self.start(started, None, true),
            NodeRecord::StartedWithoutDisks(started, members) => self.start(started, Some(members), true),
            NodeRecord::Started(started, members, is_founded) => {
                self.start(started, Some(members), is_founded);
            }
            NodeRecord::Met(kept) => {
                self.kept.insert(kept.node, kept);
                return Ok(());
            }
            NodeRecord::Founded => {
                self.is_founded = true;
                return Ok(());
            }
            NodeRecord::Reflected(places) => {
                self.reflected = places
                    .into_iter()
                    .map(|(id, place)| (id, LogSeq(place)))
                    .collect();
                return Ok(());
            }
            NodeRecord::MemberEpoch(epoch) => {
                self.member_epoch = self.member_epoch.max(epoch);
                return Ok(());
            }
        }
        self.check(settings)
    }

    fn start(&mut self, started: Started, members: Option<Members>, is_founded: bool) {
        self.started = Some(started);
        self.members = members;
        self.is_founded |= is_founded;
    }

    /// The last incarnation.
    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        self.started.as_ref().map(|started| started.incarnation)
    }

    /// Whether the directory is this node's, with these members and keyspaces.
    fn check(&self, settings: &NodeSettings) -> Result<(), RecoveryError> {
        let Some(started) = &self.started else {
            return Ok(());
        };
        check_owner(started, settings)?;
        // A directory from before members were recorded gets those of the configuration with this start.
        if let Some(Members(members)) = &self.members {
            check_members(&members.iter().copied().collect(), &settings.members)?;
        }
        check_keyspaces(&started.keyspaces, settings)
    }
}

fn check_owner(started: &Started, settings: &NodeSettings) -> Result<(), RecoveryError> {
    let Started { cluster, node, .. } = started;
    if (cluster, *node) == (&settings.cluster, settings.node) {
        return Ok(());
    }
    let (here, id) = (&settings.cluster, settings.node);
    Err(RecoveryError::Foreign(format!(
        "it belongs to node {node} of cluster \"{cluster}\", the configuration is for node {id} of cluster \
         \"{here}\". Nothing was changed; check `data`, and give each node a directory of its own"
    )))
}

/// The members of a directory never change. Otherwise: nodes 1, 2, 3 run; somebody adds 4 and 5 to the files and
/// restarts node 3. It has voted in a majority of three with 1 and 2, and votes now in a majority of five with 4 and 5.
/// 1 and 2 are still two of three, so both sides elect a leader.
fn check_members(stored: &NodeSet, configured: &NodeSet) -> Result<(), RecoveryError> {
    if stored == configured {
        return Ok(());
    }
    Err(RecoveryError::Foreign(format!(
        "it was written in a cluster of the members [{stored}], the configuration has the members [{configured}]. \
         The members of a cluster cannot be changed by editing files: two majorities could then have no node in \
         common, and both would take writes. Nothing was changed; keep the directory. Give `peers` the stored members \
         and start again. For other members export the keyspaces, make a new cluster with directories of its own, and \
         load them there"
    )))
}

fn check_keyspaces(stored: &[(String, String)], settings: &NodeSettings) -> Result<(), RecoveryError> {
    let configured: BTreeSet<&String> = settings.keyspaces.keys().collect();
    for (name, backend) in stored {
        let now = settings
            .keyspaces
            .get(name)
            .map(|keyspace| keyspace.backend.to_string());
        if now.as_ref() != Some(backend) {
            let now = now.map_or("is not configured any more".to_owned(), |now| {
                format!("is now \"{now}\"")
            });
            return Err(RecoveryError::Foreign(format!(
                "keyspace \"{name}\" holds data of backend \"{backend}\" and {now} (configured: \
                 {configured:?}). Nothing was changed; put it back as it was and start. For another backend export \
                 its data and load them into a keyspace of a new name"
            )));
        }
    }
    Ok(())
}

/// What the node keeps of itself in a snapshot that is taken now: the record of its start, and what it has learned since.
pub(crate) fn kept_records(started: &NodeRecord, peers: &Peers, member_epoch: u64) -> Vec<NodeRecord> {
    let founded = peers.is_founded().then_some(NodeRecord::Founded);
    let epoch = (member_epoch > 0).then_some(NodeRecord::MemberEpoch(member_epoch));
    std::iter::once(started.clone())
        .chain(peers.kept().map(NodeRecord::Met))
        .chain(founded)
        .chain(epoch)
        .collect()
}

/// The node's own part of a snapshot.
pub(crate) fn section(records: &[NodeRecord]) -> Section {
    let chunks: Vec<Vec<u8>> = records
        .iter()
        .map(|record| codec::encode(record).to_vec())
        .collect();
    let check = |chunk: &[u8]| Ok(codec::decode::<NodeRecord>(chunk).map(drop)?);
    (NODE_RECORDS, Checkpoint::new(chunks.into_iter(), check))
}

#[cfg(test)]
mod tests;
