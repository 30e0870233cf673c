//! Nodes whose links run through relays, so that any of them can be cut off: three of them, if a test does not say.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use trilemma_core::{Backend, NodeId, SharedReplicator};
use trilemma_runtime::pki::Authority;
use trilemma_runtime::{
    Identity, KeyspaceConfig, MembershipOverview, NodeConfig, NodeError, NodeHandle, RemoteConfig, Tuning,
};
use trilemma_testkit::conformance::Deployment;

use crate::relay::Relay;

/// Time in which every node notices a cut or a heal: six pings and some.
const NOTICE: Duration = Duration::from_millis(900);

/// The nodes of a cluster when a test does not say.
const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

/// The name of a backend's keyspace.
pub(crate) fn name(backend: Backend) -> &'static str {
    backend.name()
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Cluster {
    directory: TempDir,
    authority: Authority,
    /// All nodes that can be started.
    all: Vec<NodeId>,
    /// One for each node and each of its peers: nodes listen where the system lets them, and only relays know where.
    relays: BTreeMap<(NodeId, NodeId), Relay>,
    nodes: Mutex<BTreeMap<NodeId, NodeHandle>>,
    change: fn(&mut NodeConfig),
}

impl Cluster {
    /// Three nodes with a keyspace of each backend, on a real disk.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// The same with changed configurations.
    pub(crate) async fn start_with(change: fn(&mut NodeConfig)) -> Self {
        let cluster = Self::stopped(&NODES, change).await;
        for id in NODES {
            cluster.start_node(id).await.expect("a new node starts");
        }
        cluster
    }

    /// These nodes, none of which runs yet.
    pub(crate) async fn stopped(nodes: &[NodeId], change: fn(&mut NodeConfig)) -> Self {
        let target = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target");
        std::fs::create_dir_all(&target).expect("the target directory can be made");
        let directory = tempfile::tempdir_in(target).expect("a directory can be made");
        let authority = Authority::generate("test").expect("a new authority");
        let mut relays = BTreeMap::new();
        for from in nodes.iter().copied() {
            for to in nodes.iter().copied().filter(|to| *to != from) {
                relays.insert((from, to), Relay::start().await);
            }
        }
        Self {
            directory,
            authority,
            all: nodes.to_vec(),
            relays,
            nodes: Mutex::new(BTreeMap::new()),
            change,
        }
    }

    /// The configuration of one node.
    pub(crate) fn config(&self, id: NodeId) -> NodeConfig {
        let issued = self.authority.issue_node("test", id).expect("a certificate");
        let (authority, certificate, key) = (
            self.authority.certificate_pem(),
            issued.certificate_pem,
            issued.key_pem,
        );
        let identity = Identity::from_pem(authority.as_bytes(), certificate.as_bytes(), key.as_bytes());
        let mut config = NodeConfig {
            cluster: "test".into(),
            node: id,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            data: self.directory.path().join(format!("node-{id}")),
            new_node: true,
            accept_disks: BTreeMap::new(),
            peers: self
                .relays
                .iter()
                .filter(|((from, _), _)| *from == id)
                .map(|((_, to), relay)| (*to, relay.address))
                .collect(),
            identity: identity.expect("our own PEM is read"),
            keyspaces: Backend::ALL
                .map(|backend| (name(backend).to_owned(), KeyspaceConfig::new(backend)))
                .into(),
            membership: None,
            tuning: Tuning {
                segment_bytes: 16 * 1024 * 1024,
                ..Tuning::default()
            },
        };
        (self.change)(&mut config);
        config
    }

    /// Starts a node that does not run.
    pub(crate) async fn start_node(&self, id: NodeId) -> Result<(), NodeError> {
        self.start_node_among(id, &self.all).await
    }

    /// The same with these members in its configuration.
    pub(crate) async fn start_node_among(&self, id: NodeId, members: &[NodeId]) -> Result<(), NodeError> {
        let mut config = self.config(id);
        config.peers.retain(|peer, _| members.contains(peer));
        self.start_as(config).await
    }

    /// Starts a node that does not run with this configuration.
    pub(crate) async fn start_as(&self, config: NodeConfig) -> Result<(), NodeError> {
        let id = config.node;
        let node = NodeHandle::start(config).await?;
        self.redirect(id, node.listen());
        self.nodes.lock().expect("no panic while locked").insert(id, node);
        Ok(())
    }

    /// Lets the network bring what is for a node to another process, as if it had the node's address.
    pub(crate) fn redirect(&self, id: NodeId, listen: SocketAddr) {
        for ((_, to), relay) in &self.relays {
            if *to == id {
                relay.set_target(listen);
            }
        }
    }

    /// Takes a running node out, to be stopped.
    pub(crate) fn take(&self, id: NodeId) -> NodeHandle {
        self.nodes
            .lock()
            .expect("no panic while locked")
            .remove(&id)
            .expect("the node runs")
    }

    /// A keyspace at a node.
    pub(crate) fn keyspace(&self, id: NodeId, backend: Backend) -> SharedReplicator {
        let nodes = self.nodes.lock().expect("no panic while locked");
        let keyspaces = nodes[&id].keyspaces();
        keyspaces
            .into_iter()
            .find(|(found, _)| found == name(backend))
            .expect("every backend has a keyspace")
            .1
    }

    /// Where a running node listens.
    pub(crate) fn listen(&self, id: NodeId) -> SocketAddr {
        self.nodes.lock().expect("no panic while locked")[&id].listen()
    }

    /// The configuration of a client of these servers.
    pub(crate) fn client(&self, servers: &[(NodeId, SocketAddr)]) -> RemoteConfig {
        let issued = self
            .authority
            .issue_client("test", "alice")
            .expect("a certificate");
        let identity = Identity::from_pem(
            self.authority.certificate_pem().as_bytes(),
            issued.certificate_pem.as_bytes(),
            issued.key_pem.as_bytes(),
        );
        RemoteConfig {
            cluster: "test".into(),
            identity: identity.expect("our own PEM is read"),
            servers: servers
                .iter()
                .map(|(node, address)| (*node, (*address).into()))
                .collect(),
            connect_timeout: Duration::from_secs(2),
        }
    }

    /// Cuts a node off, or all links again.
    pub(crate) fn cut(&self, victim: Option<NodeId>) {
        for ((a, b), relay) in &self.relays {
            relay.set_cut(victim.is_some_and(|victim| victim == *a || victim == *b));
        }
    }

    /// Cuts all links between these nodes and the others.
    pub(crate) fn cut_off(&self, side: &[NodeId]) {
        for ((a, b), relay) in &self.relays {
            relay.set_cut(side.contains(a) != side.contains(b));
        }
    }

    /// The nodes that run and say that a keyspace of this backend can be written there.
    pub(crate) fn writable_now(&self, backend: Backend) -> Vec<NodeId> {
        let nodes = self.nodes.lock().expect("no panic while locked");
        let can_write = |node: &NodeHandle| {
            let mut keyspaces = node.overview_cached().into_iter();
            keyspaces.any(|keyspace| keyspace.name == name(backend) && keyspace.status.can_write)
        };
        let writable = nodes.iter().filter(|(_, node)| can_write(node));
        writable.map(|(id, _)| *id).collect()
    }

    /// Why a node and its peer have no connection, as the node tells it; empty if nobody has refused it.
    pub(crate) async fn refusal(&self, id: NodeId, peer: NodeId) -> String {
        let node = self.take(id);
        let overview = node.overview().await.expect("the node runs");
        self.nodes.lock().expect("no panic while locked").insert(id, node);
        let found = overview.peers.into_iter().find(|found| found.node == peer);
        found.map_or_else(String::new, |found| found.refused)
    }

    /// Whom a running node knows as members.
    pub(crate) async fn members(&self, id: NodeId) -> Option<MembershipOverview> {
        let node = self.take(id);
        let members = node.members().await.expect("the node runs");
        self.nodes.lock().expect("no panic while locked").insert(id, node);
        members
    }

    /// Waits until a keyspace can be written at a node.
    pub(crate) async fn writable(&self, id: NodeId, backend: Backend) {
        let status = self.keyspace(id, backend).status();
        let ready = status.wait_for(|status| status.can_write);
        let waited = tokio::time::timeout(Duration::from_secs(20), ready).await;
        waited.unwrap_or_else(|_| panic!("{backend} at node {id}: {:?}", status.current()));
    }
}

/// The nodes as the conformance suite sees them, for one backend.
pub(crate) struct One<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) backend: Backend,
}

#[async_trait]
impl Deployment for One<'_> {
    fn nodes(&self) -> Vec<NodeId> {
        NODES.to_vec()
    }

    fn replicator(&self, node: NodeId) -> SharedReplicator {
        self.cluster.keyspace(node, self.backend)
    }

    async fn isolate(&self, node: NodeId) {
        self.cluster.cut(Some(node));
        tokio::time::sleep(NOTICE).await;
    }

    async fn heal(&self) {
        self.cluster.cut(None);
        tokio::time::sleep(NOTICE).await;
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}
