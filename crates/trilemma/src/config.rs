//! Configuration: one TOML file for one node, or the same through a builder.
//!
//! Unknown keys are errors, and every error names the file, the line and the column.

mod builder;
mod check;
mod file;

pub(crate) use file::{by_id, from_toml, read};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use trilemma_core::NODES_MAX;
use trilemma_core::{Backend, DiskId, NodeId};
use trilemma_runtime::NodeConfig;
pub use trilemma_runtime::{
    Durability, GossipSettings, KeyspaceConfig, MembershipSettings, NEW_NODE_FILE, Tuning,
};

pub use builder::ConfigBuilder;
pub use check::{check_cluster, check_keyspaces};

use crate::error::Result;

/// Most keyspaces of one cluster.
pub const KEYSPACES_MAX: usize = 1024;
/// Longest name of a keyspace or cluster, in bytes.
pub const NAME_BYTES_MAX: usize = 63;

/// Everything one node is started with. Made by [`Config::load`], [`Config::parse`] or [`Config::builder`].
#[derive(Clone, Debug)]
pub struct Config(pub(crate) NodeConfig);

impl Config {
    /// Reads a configuration file. Relative paths in it are relative to the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = file::read(path)?;
        let base = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        Self::parse(&text, &path.display().to_string(), &base)
    }

    /// Reads configuration text. `origin` names it in errors; relative paths in it are relative to `base`.
    pub fn parse(text: &str, origin: &str, base: &Path) -> Result<Self> {
        file::parse(text, origin, base)
    }

    /// Starts building the configuration of node `node`.
    #[must_use]
    pub fn builder(node: u32) -> ConfigBuilder {
        ConfigBuilder::new(NodeId(node))
    }

    /// Says that the node is new, so that an empty data directory is right. Without it an empty directory is refused: it
    /// is a volume that is not mounted, a wrong path or a loss, and a node that has lost its directory must not come
    /// back under its id. A directory that holds data is opened either way.
    ///
    /// `trilemma init` marks the directories that it makes, so that they need it not.
    #[must_use]
    pub fn new_node(mut self) -> Self {
        self.0.new_node = true;
        self
    }

    /// Accepts another disk of a node that has lost its own for good: `gossip` and `two-phase` keyspaces go on with it,
    /// `raft` and `paxos` do without that node. Both disks are named where the node is refused. Kept once this node has
    /// started.
    #[must_use]
    pub fn accept_disk(mut self, node: NodeId, disk: DiskId) -> Self {
        self.0.accept_disks.insert(node, disk);
        self
    }

    /// The node that this configuration is for.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.0.cluster
    }

    /// The UDP address to listen on.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.0.listen
    }

    /// The directory that belongs to this node.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.0.data
    }

    /// The other nodes.
    #[must_use]
    pub fn peers(&self) -> &BTreeMap<NodeId, SocketAddr> {
        &self.0.peers
    }

    /// The keyspaces with their backends, by name.
    pub fn keyspaces(&self) -> impl Iterator<Item = (&str, Backend)> {
        self.0
            .keyspaces
            .iter()
            .map(|(name, config)| (name.as_str(), config.backend))
    }

    /// For each keyspace a sentence that says what its backend needs and what that means for availability.
    pub fn explain(&self) -> impl Iterator<Item = String> + '_ {
        self.0
            .keyspaces
            .iter()
            .map(|(name, config)| explain(name, config.backend, self.0.peers.len() as u32 + 1))
    }
}

/// What a keyspace of this backend needs in a cluster of this size, as a sentence.
#[must_use]
pub fn explain(name: &str, backend: Backend, nodes: u32) -> String {
    use trilemma_core::{Descriptor, Requires};
    /// The availability of one node that the printed figures assume.
    const NODE_AVAILABILITY: f64 = 0.999;
    let descriptor = backend.descriptor();
    let needed = |requires: Requires| match requires {
        Requires::AnyNode => "any node".to_owned(),
        Requires::Majority => format!("{} of {nodes} nodes", requires.count(nodes)),
        Requires::AllMembers => format!("all {nodes} nodes"),
    };
    let available = |requires| 100.0 * Descriptor::availability(requires, nodes, NODE_AVAILABILITY);
    let level = if descriptor.linearizable_reads {
        "linearizable"
    } else {
        "local"
    };
    let but = if descriptor.reads_but.is_empty() {
        String::new()
    } else {
        format!(" ({})", descriptor.reads_but)
    };
    format!(
        "{name}: {backend}; writes need {}; reads need {}{but}, {level}; where the node asked is up and each other \
         node is 99.9 % available, writes are {:.4} % and reads {:.4} %; in a partition it gives up {}",
        needed(descriptor.writes_need),
        needed(descriptor.reads_need),
        available(descriptor.writes_need),
        available(descriptor.reads_need),
        descriptor.gives_up,
    )
}

#[cfg(test)]
mod tests;
