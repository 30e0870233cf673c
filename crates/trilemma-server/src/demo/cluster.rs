//! Three nodes in this process, with real sockets and real logs.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use trilemma::pki::Authority;
use trilemma::{Backend, Config, Keyspace, Node, NodeId, Tuning};

use super::relay::Network;
use crate::cli::strongest;
use crate::exit::{Exit, Failure};

/// The nodes.
pub(super) const NODES: [u32; 3] = [1, 2, 3];
/// One keyspace of each backend.
pub(super) const KEYSPACES: [(&str, Backend); 4] = [
    ("catalog", Backend::Gossip),
    ("locks", Backend::Raft),
    ("settings", Backend::Paxos),
    ("orders", Backend::TwoPhase),
];
/// Longest time of one operation of a client.
pub(super) const OPERATION: Duration = Duration::from_secs(1);
/// Longest time for all keyspaces to be writable after the start.
const START: Duration = Duration::from_secs(15);
/// Name of the demo's cluster.
const CLUSTER: &str = "demo";

/// The cluster: some of its nodes may be down.
pub(super) struct Cluster {
    pub(super) network: Network,
    nodes: [Option<Node>; NODES.len()],
    data: PathBuf,
    authority: Authority,
}

impl Cluster {
    /// Starts all nodes with fresh data below `data`.
    pub(super) async fn start(data: &Path) -> Result<Self, Failure> {
        let network = Network::open(&NODES).await.map_err(|error| {
            Failure::new(
                Exit::Start,
                format!("the demo's relays: {error}"),
                "allow UDP on loopback",
            )
        })?;
        let authority = Authority::generate(CLUSTER).map_err(|error| {
            Failure::new(
                Exit::Start,
                format!("the demo's certificates: {error}"),
                "report this",
            )
        })?;
        let mut cluster = Self {
            network,
            nodes: [None, None, None],
            data: data.into(),
            authority,
        };
        for node in NODES {
            cluster.start_node(node).await?;
        }
        Ok(cluster)
    }

    /// Starts a node (again) with what its directory holds.
    pub(super) async fn start_node(&mut self, node: u32) -> Result<(), Failure> {
        let issued = self
            .authority
            .issue_node(CLUSTER, NodeId(node))
            .map_err(|error| {
                Failure::new(
                    Exit::Start,
                    format!("node {node}'s certificate: {error}"),
                    "report this",
                )
            })?;
        // Four keyspaces of a few thousand small writes: large segments would only be zeros to fill.
        let tuning = Tuning {
            segment_bytes: 16 * 1024 * 1024,
            ..Tuning::default()
        };
        let mut config = Config::builder(node)
            .cluster(CLUSTER)
            .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .data(self.data.join(format!("node-{node}")))
            .new_node()
            .identity_pem(
                self.authority.certificate_pem(),
                issued.certificate_pem,
                issued.key_pem,
            )
            .tuning(tuning);
        for peer in NODES.into_iter().filter(|peer| *peer != node) {
            config = config.peer(peer, self.network.address(node, peer));
        }
        for (name, backend) in KEYSPACES {
            config = config.keyspace(name, backend);
        }
        let started = Node::start(config.build()?).await?;
        self.network.set_listen(node, started.listen());
        self.nodes[index(node)] = Some(started);
        Ok(())
    }

    /// Ends a node as a kill would: nothing is flushed, nobody is notified.
    pub(super) async fn kill(&mut self, node: u32) {
        if let Some(node) = self.nodes[index(node)].take() {
            node.abort().await;
        }
    }

    /// A keyspace as clients at `node` see it.
    pub(super) fn keyspace(&self, node: u32, name: &str, backend: Backend) -> Result<Keyspace, Failure> {
        let running = self.nodes[index(node)].as_ref();
        let running = running
            .ok_or_else(|| Failure::new(Exit::Start, format!("node {node} is down"), "report this"))?;
        Ok(running
            .keyspace(name, strongest(backend))?
            .with_timeout(OPERATION))
    }

    /// The node that leads a keyspace, as far as the running nodes know.
    pub(super) fn leader(&self, name: &str) -> Option<u32> {
        let overviews = self.nodes.iter().flatten().flat_map(Node::keyspaces);
        let leaders = overviews.filter(|keyspace| keyspace.name == name);
        leaders
            .filter_map(|keyspace| keyspace.status.leader)
            .map(|leader| leader.0)
            .next()
    }

    /// Waits until every running node can read and write every keyspace.
    pub(super) async fn ready(&self) -> Result<(), Failure> {
        let began = Instant::now();
        loop {
            let all: Vec<_> = self
                .nodes
                .iter()
                .flatten()
                .flat_map(|node| node.keyspaces().into_iter().map(|keyspace| (node.id(), keyspace)))
                .collect();
            let waiting = all
                .iter()
                .find(|(_, keyspace)| !(keyspace.status.can_write && keyspace.status.can_read));
            let Some((node, keyspace)) = waiting else {
                return Ok(());
            };
            if began.elapsed() > START {
                return Err(Failure::new(
                    Exit::Start,
                    format!(
                        "keyspace \"{}\" on node {node} is not ready after {START:?}: {}",
                        keyspace.name, keyspace.status.why
                    ),
                    "run the demo on a machine with free processors, or report this",
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops every running node cleanly.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        for node in self.nodes.iter_mut().filter_map(Option::take) {
            node.shutdown().await?;
        }
        Ok(())
    }
}

fn index(node: u32) -> usize {
    NODES
        .iter()
        .position(|known| *known == node)
        .expect("the demo names its own nodes only")
}
