//! A node within the application's process.

use std::net::SocketAddr;
use std::sync::Arc;

use trilemma_core::{Backend, Incarnation, Needs, NodeId};
use trilemma_runtime::{KeyspaceOverview, MembershipOverview, NodeHandle, NodeOverview};

use crate::config::Config;
use crate::error::{OpenError, Result};
use crate::keyspace::Keyspace;

/// A running node. It has a thread of its own; dropping it stops the node as [`Node::abort`] does.
#[derive(Debug)]
pub struct Node(NodeHandle);

impl Node {
    /// Starts a node: opens its data directory, recovers what it holds, and begins to listen.
    ///
    /// Returns as soon as the node serves; whether a keyspace can be written yet is its status' matter.
    pub async fn start(config: Config) -> Result<Node> {
        Ok(Node(NodeHandle::start(config.0).await?))
    }

    /// Opens a keyspace for what the code needs of it; refused, with what would be lost, if its backend cannot.
    pub fn keyspace(&self, name: &str, needs: Needs) -> Result<Keyspace> {
        let keyspaces = self.0.keyspaces();
        let Some((_, replicator)) = keyspaces.iter().find(|(found, _)| found == name) else {
            return Err(no_such(name, keyspaces.iter().map(|(name, _)| name.as_str())).into());
        };
        check(name, needs, replicator.descriptor().backend)?;
        Ok(Keyspace::new(name, needs, Arc::clone(replicator)))
    }

    /// The node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.0.node()
    }

    /// The incarnation of the process.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.0.incarnation()
    }

    /// The UDP address it listens on.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.0.listen()
    }

    /// How the keyspaces stand now.
    #[must_use]
    pub fn keyspaces(&self) -> Vec<KeyspaceOverview> {
        self.0.overview_cached()
    }

    /// How the node stands: peers, keyspaces, log.
    pub async fn overview(&self) -> Result<NodeOverview> {
        Ok(self.0.overview().await?)
    }

    /// Whom the node knows as members; `None` where membership is not configured.
    pub async fn members(&self) -> Result<Option<MembershipOverview>> {
        Ok(self.0.members().await?)
    }

    /// Waits until the node has stopped by itself, which only a failure makes it do.
    pub async fn failed(&self) -> crate::Error {
        self.0.failed().await.into()
    }

    /// Stops the node; everything it has accepted becomes durable first.
    pub async fn shutdown(self) -> Result<()> {
        Ok(self.0.shutdown().await?)
    }

    /// Stops the node at once, as a kill of the process would: what is not durable yet is lost.
    pub async fn abort(self) {
        self.0.abort().await;
    }
}

pub(crate) fn no_such<'a>(name: &str, configured: impl Iterator<Item = &'a str>) -> OpenError {
    let configured = configured.collect::<Vec<_>>().join(", ");
    OpenError::NoSuchKeyspace {
        name: name.into(),
        configured,
    }
}

pub(crate) fn check(keyspace: &str, needs: Needs, backend: Backend) -> Result<(), OpenError> {
    match needs.lost_with(backend) {
        None => Ok(()),
        Some(lost) => Err(OpenError::Needs {
            keyspace: keyspace.into(),
            needs,
            backend,
            lost,
        }),
    }
}
