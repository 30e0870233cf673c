//! Three `trilemma serve` processes on loopback.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use trilemma::{Backend, Client, ClientConfig, Keyspace, Needs, NodeId, NodeOverview, Server};

use crate::load::{cpu_seconds, process_figure};
use crate::{BenchError, Result};

/// Nodes of the cluster.
pub const NODES: u32 = 3;
/// Longest time for a cluster to come to rest.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running cluster. Its processes end with it.
#[derive(Debug)]
pub struct Cluster {
    binary: PathBuf,
    directory: PathBuf,
    nodes: BTreeMap<u32, Child>,
}

/// A node that was started and has not said that it serves.
#[derive(Debug)]
pub struct Starting {
    node: u32,
    began: Instant,
    stdout: BufReader<ChildStdout>,
}

impl Starting {
    /// Waits for the line that says that it serves; the time since its start.
    pub async fn ready(mut self) -> Result<Duration> {
        let what = format!("node {}", self.node);
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, self.stdout.read_line(&mut line)).await;
        match read {
            Ok(Ok(_)) if line.starts_with("ready") => Ok(self.began.elapsed()),
            Ok(Ok(_)) => Err(BenchError::system(what, format!("ended, or said {line:?}"))),
            Ok(Err(error)) => Err(BenchError::system(what, error)),
            Err(_) => Err(BenchError::system(what, format!("not ready within {PATIENCE:?}"))),
        }
    }
}

/// The keyspace of a backend in the benchmarks' clusters.
#[must_use]
pub fn keyspace(backend: Backend) -> String {
    format!("bench-{backend}")
}

/// One keyspace of each of these backends.
#[must_use]
pub fn one_of_each(backends: &[Backend]) -> Vec<(String, Backend)> {
    backends
        .iter()
        .map(|backend| (keyspace(*backend), *backend))
        .collect()
}

/// What the benchmarks need of a backend: all that it has.
pub(crate) fn needs(backend: Backend) -> Needs {
    match backend {
        Backend::Gossip => Needs::Available,
        Backend::Paxos => Needs::Linearizable,
        Backend::Raft | Backend::TwoPhase => Needs::Atomic,
    }
}

impl Cluster {
    /// Writes a configuration into `directory` and starts the nodes with this binary, with these keyspaces.
    pub async fn start(binary: &Path, directory: &Path, keyspaces: &[(String, Backend)]) -> Result<Self> {
        let keyspaces: Vec<String> = keyspaces
            .iter()
            .map(|(name, backend)| format!("{name}={backend}"))
            .collect();
        let output = Command::new(binary)
            .arg("init")
            .arg(directory)
            .args(["--nodes", &NODES.to_string(), "--cluster", "bench"])
            .args(["--base-port", &free_ports()?.to_string()])
            .args(["--keyspaces", &keyspaces.join(",")])
            .output()
            .await
            .map_err(|error| BenchError::system(binary.display().to_string(), error))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(BenchError::system("trilemma init", why));
        }
        let mut cluster = Self {
            binary: binary.to_path_buf(),
            directory: directory.to_path_buf(),
            nodes: BTreeMap::new(),
        };
        cluster.start_all().await?;
        cluster.wait_writable().await?;
        Ok(cluster)
    }

    /// Starts all nodes at once; the time until the last of them serves.
    pub async fn start_all(&mut self) -> Result<Duration> {
        let mut starting = Vec::new();
        for node in 1..=NODES {
            starting.push(self.spawn(node)?);
        }
        let mut last = Duration::ZERO;
        for node in starting {
            last = last.max(node.ready().await?);
        }
        Ok(last)
    }

    /// Starts a node.
    pub fn spawn(&mut self, node: u32) -> Result<Starting> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.directory.join(format!("node-{node}.log")))
            .map_err(|error| BenchError::system("log file", error))?;
        let began = Instant::now();
        let mut child = Command::new(&self.binary)
            .arg("serve")
            .arg("--config")
            .arg(self.directory.join(format!("node-{node}.toml")))
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| BenchError::system("trilemma serve", error))?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| BenchError::system("trilemma serve", "it has no standard output"))?;
        self.nodes.insert(node, child);
        Ok(Starting {
            node,
            began,
            stdout: BufReader::new(stdout),
        })
    }

    /// Kills a node: SIGKILL.
    pub async fn kill(&mut self, node: u32) -> Result<()> {
        if let Some(mut child) = self.nodes.remove(&node) {
            child
                .kill()
                .await
                .map_err(|error| BenchError::system(format!("node {node}"), error))?;
        }
        Ok(())
    }

    /// The file with the configuration of a client of all nodes.
    pub(crate) fn client_config(&self) -> PathBuf {
        self.directory.join("client.toml")
    }

    /// The configuration of a client of all nodes.
    pub fn config(&self) -> Result<ClientConfig> {
        Ok(ClientConfig::load(self.client_config())?)
    }

    /// A client of one node alone.
    pub async fn client_of(&self, server: &Server) -> Result<Client> {
        let mut config = self.config()?;
        config.servers = vec![server.clone()];
        Ok(Client::connect(config).await?)
    }

    /// A client of each node alone. To look at a cluster under load with clients that are kept costs the load next to
    /// nothing; a new client each time costs ten milliseconds of the thread that the load's own clients share.
    pub async fn clients(&self) -> Result<BTreeMap<NodeId, Client>> {
        let mut clients = BTreeMap::new();
        for server in self.config()?.servers {
            clients.insert(server.node, self.client_of(&server).await?);
        }
        Ok(clients)
    }

    /// How each node that runs stands, as these clients see it.
    pub async fn overviews_by(&self, clients: &BTreeMap<NodeId, Client>) -> Result<Vec<NodeOverview>> {
        let mut overviews = Vec::new();
        for (node, client) in clients {
            if self.nodes.contains_key(&node.0) {
                overviews.push(client.overview().await?);
            }
        }
        Ok(overviews)
    }

    /// How each node that runs stands.
    pub async fn overviews(&self) -> Result<Vec<NodeOverview>> {
        let mut overviews = Vec::new();
        for server in self.config()?.servers {
            if self.nodes.contains_key(&server.node.0) {
                overviews.push(self.client_of(&server).await?.overview().await?);
            }
        }
        Ok(overviews)
    }

    /// The longest turn of any node since its start.
    pub async fn longest_turn(&self) -> Result<Duration> {
        let overviews = self.overviews().await?;
        let longest = overviews.iter().map(|node| node.load.turn_micros_max).max();
        Ok(Duration::from_micros(longest.unwrap_or_default()))
    }

    /// Waits until every keyspace can be written at every node that runs.
    pub async fn wait_writable(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let able = |overview: &NodeOverview| overview.keyspaces.iter().all(|k| k.status.can_write);
            let last = match self.overviews().await {
                Ok(overviews) if overviews.iter().all(able) => return Ok(()),
                Ok(_) => "some keyspace cannot be written yet".to_owned(),
                Err(error) => error.to_string(),
            };
            if start.elapsed() > PATIENCE {
                let what = format!("the cluster was not ready within {PATIENCE:?}");
                return Err(BenchError::system(what, last));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The node that orders the keyspace's writes, if there is one. One that was just killed is none: the others need a
    /// moment to notice.
    pub async fn leader(&self, keyspace: &str) -> Result<Option<NodeId>> {
        let client = Client::connect(self.config()?).await?;
        let began = Instant::now();
        loop {
            let overview = client.overview().await?;
            let found = overview.keyspaces.iter().find(|found| found.name == keyspace);
            let leader = found.and_then(|found| found.status.leader);
            if leader.is_none_or(|leader| self.nodes.contains_key(&leader.0)) || began.elapsed() > PATIENCE {
                return Ok(leader);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A handle at the node that orders the keyspace's writes; at the first node where there is none.
    pub async fn handle(&self, name: &str, backend: Backend) -> Result<Keyspace> {
        let leader = self.leader(name).await?;
        let servers = self.config()?.servers;
        let server = servers
            .iter()
            .find(|server| Some(server.node) == leader)
            .or(servers.first())
            .ok_or_else(|| BenchError::system("client.toml", "no servers"))?;
        Ok(self
            .client_of(server)
            .await?
            .keyspace(name, needs(backend))
            .await?)
    }

    /// A handle that may use any node.
    pub async fn handle_anywhere(&self, name: &str, backend: Backend) -> Result<Keyspace> {
        let client = Client::connect(self.config()?).await?;
        Ok(client.keyspace(name, needs(backend)).await?)
    }

    /// Ids of the running processes.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        self.nodes.values().filter_map(Child::id).collect()
    }

    /// The process of a node that was started, if it has not ended.
    pub(crate) fn process(&mut self, node: u32) -> Result<Option<u32>> {
        let Some(child) = self.nodes.get_mut(&node) else {
            return Ok(None);
        };
        let ended = child
            .try_wait()
            .map_err(|error| BenchError::system(format!("node {node}"), error))?;
        Ok(if ended.is_some() { None } else { child.id() })
    }

    /// Memory of the largest node in bytes, as the system counts it.
    pub fn memory(&self) -> Result<f64> {
        self.largest("VmRSS:")
    }

    /// The most that [`memory`](Self::memory) of any node has been, at any moment since its start or since
    /// [`forget_memory_peaks`](Self::forget_memory_peaks).
    pub fn memory_peak(&self) -> Result<f64> {
        self.largest("VmHWM:")
    }

    /// Lets the peaks begin at what is used now.
    pub fn forget_memory_peaks(&self) -> Result<()> {
        for id in self.processes() {
            let path = format!("/proc/{id}/clear_refs");
            std::fs::write(&path, "5").map_err(|error| BenchError::system(&path, error))?;
        }
        Ok(())
    }

    /// The largest of a figure of all nodes, in bytes.
    fn largest(&self, name: &str) -> Result<f64> {
        let of = |id: u32| Ok(process_figure(&format!("/proc/{id}/status"), name)? * 1024.0);
        let figures: Result<Vec<f64>> = self.processes().into_iter().map(of).collect();
        Ok(figures?.into_iter().fold(0.0, f64::max))
    }

    /// Bytes that the nodes' processes have read from files, all together.
    pub fn bytes_read(&self) -> Result<f64> {
        let read = |id: u32| process_figure(&format!("/proc/{id}/io"), "rchar:");
        self.processes().into_iter().map(read).sum()
    }

    /// Bytes of the nodes' files, all together.
    pub fn bytes_stored(&self) -> Result<f64> {
        let failed = |error: std::io::Error| BenchError::system("data directory", error);
        let mut total = 0;
        for node in 1..=NODES {
            let data = self.directory.join(format!("data/node-{node}"));
            for entry in std::fs::read_dir(data).map_err(failed)? {
                total += entry.and_then(|entry| entry.metadata()).map_err(failed)?.len();
            }
        }
        Ok(total as f64)
    }
}

/// CPU seconds of these processes so far.
pub fn cpu_of(processes: &[u32]) -> Result<f64> {
    processes.iter().copied().map(cpu_seconds).sum()
}

/// The first of as many free UDP ports in a row as there are nodes.
fn free_ports() -> Result<u16> {
    for base in (21_000..60_000).step_by(7) {
        let free = (0..NODES as u16).all(|offset| UdpSocket::bind(("127.0.0.1", base + offset)).is_ok());
        if free {
            return Ok(base);
        }
    }
    Err(BenchError::system("ports", "no three free UDP ports in a row"))
}
