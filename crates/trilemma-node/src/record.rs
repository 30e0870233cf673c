//! What the node itself keeps in its log and snapshots: that it has started, as whom, among whom, serving what.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use trilemma_core::codec::{bounded_text, bounded_vec};
use trilemma_core::{Checkpoint, Incarnation, KeyspaceId, NODES_MAX, NodeId, NodeSet, codec};
use trilemma_storage::snapshot::Section;

use crate::config::{NODE_RECORDS, NodeSettings};
use crate::recovery::RecoveryError;

/// What the node itself keeps in its log and snapshots, under the keyspace id [`NODE_RECORDS`].
///
/// The order of the variants is the format: new ones go to the end, and old ones stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeRecord {
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
    pub(crate) fn started(settings: &NodeSettings, incarnation: Incarnation) -> Self {
        let keyspaces = settings.keyspaces.iter();
        let started = Started {
            cluster: settings.cluster.clone(),
            node: settings.node,
            incarnation,
            keyspaces: keyspaces
                .map(|(name, keyspace)| (name.clone(), keyspace.backend.to_string()))
                .collect(),
        };
        NodeRecord::Started(started, settings.members.iter().collect())
    }
}

/// The newest record of its own that a node finds on its disk.
#[derive(Default)]
pub(crate) struct StoredRecord {
    last: Option<NodeRecord>,
}

impl StoredRecord {
    /// Takes the next record or chunk, of whichever keyspace.
    pub(crate) fn take(&mut self, keyspace: KeyspaceId, payload: &[u8]) -> Result<(), RecoveryError> {
        if keyspace == NODE_RECORDS {
            let record = codec::decode(payload).map_err(|error| RecoveryError::Corrupt {
                keyspace: "(node)".into(),
                source: error.into(),
            })?;
            self.last = Some(record);
        }
        Ok(())
    }

    /// Whether the directory is this node's, with these members and keyspaces. Returns the last incarnation.
    pub(crate) fn check(&self, settings: &NodeSettings) -> Result<Option<Incarnation>, RecoveryError> {
        let (started, members) = match &self.last {
            Some(NodeRecord::StartedWithoutMembers(started)) => (started, None),
            Some(NodeRecord::Started(started, members)) => (started, Some(members)),
            None => return Ok(None),
        };
        check_owner(started, settings)?;
        // A directory from before members were recorded gets those of the configuration with this start.
        if let Some(members) = members {
            check_members(&members.iter().copied().collect(), &settings.members)?;
        }
        check_keyspaces(&started.keyspaces, settings)?;
        Ok(Some(started.incarnation))
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

/// The node's own part of a snapshot.
pub(crate) fn section(record: &NodeRecord) -> Section {
    let chunk = codec::encode(record).to_vec();
    let check = |chunk: &[u8]| Ok(codec::decode::<NodeRecord>(chunk).map(drop)?);
    (NODE_RECORDS, Checkpoint::new(std::iter::once(chunk), check))
}

#[cfg(test)]
mod tests;
