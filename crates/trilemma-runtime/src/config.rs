//! What one node needs to know to start: plain values, already checked for syntax by the one who read them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use trilemma_core::{DiskId, NodeId, NodeSet};
use trilemma_node::{KeyspaceConfig, MembershipSettings, NodeSettings, Tuning};
use trilemma_transport::{Identity, TransportError};

use crate::error::NodeError;

/// Everything one node is started with.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The cluster's name; part of every certificate.
    pub cluster: String,
    /// This node.
    pub node: NodeId,
    /// The UDP address to listen on.
    pub listen: SocketAddr,
    /// The directory that belongs to this node alone.
    pub data: PathBuf,
    /// The node is new: an empty directory is right. Otherwise an empty one is refused, since it is a volume that is not
    /// mounted, a wrong path or a loss, unless it holds a file [`trilemma_node::NEW_NODE_FILE`]. What a directory holds
    /// is opened either way.
    pub new_node: bool,
    /// Disks of other nodes that are accepted although these nodes were known on others, which are lost for good: `gossip`
    /// and `two-phase` go on with them. Kept once the node has started.
    pub accept_disks: BTreeMap<NodeId, DiskId>,
    /// The other nodes and where they listen.
    pub peers: BTreeMap<NodeId, SocketAddr>,
    /// Certificate, key and the cluster's authority.
    pub identity: Identity,
    /// The keyspaces by name; the same on every node.
    pub keyspaces: BTreeMap<String, KeyspaceConfig>,
    /// How members find out who works; `None` if they do not. Its address and seeds may be left out: then they are `listen` and
    /// `peers`.
    pub membership: Option<MembershipSettings>,
    /// Sizes and times that rarely need a change.
    pub tuning: Tuning,
}

impl NodeConfig {
    /// The members of the cluster: this node and its peers.
    #[must_use]
    pub fn members(&self) -> NodeSet {
        self.peers.keys().copied().chain([self.node]).collect()
    }

    /// What of it the node itself needs, without addresses and certificates.
    #[must_use]
    pub fn settings(&self) -> NodeSettings {
        NodeSettings {
            cluster: self.cluster.clone(),
            node: self.node,
            members: self.members(),
            keyspaces: self.keyspaces.clone(),
            membership: self.membership.as_ref().map(|settings| self.complete(settings)),
            tuning: self.tuning.clone(),
        }
    }

    /// The settings of membership with what was left out.
    fn complete(&self, settings: &MembershipSettings) -> MembershipSettings {
        let mut settings = settings.clone();
        if settings.address.is_empty() {
            settings.address = self.listen.to_string();
        }
        if settings.seeds.is_empty() {
            let seed = |(node, address): (&NodeId, &SocketAddr)| (*node, address.to_string());
            settings.seeds = self.peers.iter().map(seed).collect();
        }
        settings
    }

    /// Why the node cannot be reached under this configuration.
    pub(crate) fn transport_error(&self, source: TransportError) -> NodeError {
        NodeError::Transport {
            node: self.node,
            listen: self.listen,
            source,
        }
    }
}
