//! Three `trilemma serve` processes on loopback, and the load on them.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use trilemma::{Backend, Client, ClientConfig, Keyspace, Needs, Server};

use crate::load::{self, Measured, cpu_seconds, with_cpu};
use crate::{BenchError, Result};

/// Nodes of the cluster.
const NODES: u32 = 3;
/// Keys of each client. Enough that CASPaxos and two-phase see both fresh and repeated keys.
const KEYS_PER_CLIENT: u64 = 100;

/// A running cluster. Its processes end with it.
#[derive(Debug)]
pub struct Cluster {
    directory: PathBuf,
    nodes: Vec<Child>,
}

/// The keyspace of a backend in the benchmark's cluster.
#[must_use]
pub fn keyspace(backend: Backend) -> &'static str {
    match backend {
        Backend::Gossip => "bench-gossip",
        Backend::Raft => "bench-raft",
        Backend::Paxos => "bench-paxos",
        Backend::TwoPhase => "bench-two-phase",
    }
}

impl Cluster {
    /// Writes a configuration into `directory` and starts the nodes with this binary, with a keyspace of each of
    /// these backends.
    pub async fn start(binary: &Path, directory: &Path, backends: &[Backend]) -> Result<Self> {
        let keyspaces: Vec<String> = backends
            .iter()
            .map(|backend| format!("{}={backend}", keyspace(*backend)))
            .collect();
        let port = free_ports()?;
        let output = Command::new(binary)
            .arg("init")
            .arg(directory)
            .args([
                "--nodes",
                &NODES.to_string(),
                "--cluster",
                "bench",
                "--base-port",
                &port.to_string(),
            ])
            .args(["--keyspaces", &keyspaces.join(",")])
            .output()
            .await
            .map_err(|error| BenchError::system(binary.display().to_string(), error))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(BenchError::system("trilemma init", why));
        }
        let mut nodes = Vec::new();
        for node in 1..=NODES {
            let log = std::fs::File::create(directory.join(format!("node-{node}.log")))
                .map_err(|error| BenchError::system("log file", error))?;
            let child = Command::new(binary)
                .arg("serve")
                .arg("--config")
                .arg(directory.join(format!("node-{node}.toml")))
                .stdout(std::process::Stdio::null())
                .stderr(log)
                .kill_on_drop(true)
                .spawn()
                .map_err(|error| BenchError::system("trilemma serve", error))?;
            nodes.push(child);
        }
        let cluster = Self {
            directory: directory.to_path_buf(),
            nodes,
        };
        cluster.wait_until_ready().await?;
        Ok(cluster)
    }

    fn config(&self) -> Result<ClientConfig> {
        Ok(ClientConfig::load(self.directory.join("client.toml"))?)
    }

    /// A client of one node alone.
    pub async fn client(&self, server: Server) -> Result<Client> {
        let mut config = self.config()?;
        config.servers = vec![server];
        Ok(Client::connect(config).await?)
    }

    async fn wait_until_ready(&self) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(20);
        let start = Instant::now();
        let mut last = String::from("no node answered");
        while start.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(100)).await;
            match self.all_writable().await {
                Ok(true) => return Ok(()),
                Ok(false) => last = "some keyspace cannot be written yet".into(),
                Err(error) => last = error.to_string(),
            }
        }
        Err(BenchError::system(
            format!("the cluster was not ready within {PATIENCE:?}"),
            last,
        ))
    }

    async fn all_writable(&self) -> Result<bool> {
        for server in self.config()?.servers {
            let overview = self.client(server).await?.overview().await?;
            if !overview
                .keyspaces
                .iter()
                .all(|keyspace| keyspace.status.can_write)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A handle at the node that orders the keyspace's writes; at the first node where there is none.
    async fn handle(&self, backend: Backend) -> Result<Keyspace> {
        let servers = self.config()?.servers;
        let overview = self.client(servers[0]).await?.overview().await?;
        let leader = overview
            .keyspaces
            .iter()
            .find(|found| found.name == keyspace(backend))
            .and_then(|found| found.status.leader);
        let server = servers
            .iter()
            .find(|server| Some(server.node) == leader)
            .unwrap_or(&servers[0]);
        let needs = if backend == Backend::Gossip {
            Needs::Available
        } else {
            Needs::Linearizable
        };
        Ok(self
            .client(*server)
            .await?
            .keyspace(keyspace(backend), needs)
            .await?)
    }

    /// Puts values of this size into the keyspace of a backend for `time`.
    pub async fn measure(
        &self,
        backend: Backend,
        clients: usize,
        bytes: usize,
        time: Duration,
    ) -> Result<Measured> {
        let handle = self.handle(backend).await?;
        let value = bytes::Bytes::from(vec![b'v'; bytes]);
        let cpu = (self.cpu()?, cpu_seconds(std::process::id())?);
        let (measured, _) = load::run(clients, time, move |client, sequence| {
            let (handle, value) = (handle.clone(), value.clone());
            async move {
                let key = format!("client/{client}/{}", sequence % KEYS_PER_CLIENT);
                handle
                    .put(key, value)
                    .await
                    .map(drop)
                    .map_err(|error| error.to_string())
            }
        })
        .await?;
        // The warm-up's CPU is in the figure too, so it is scaled by the writes of the whole time.
        let share = 5.0 / 6.0;
        let nodes = (self.cpu()? - cpu.0) * share;
        Ok(with_cpu(
            measured,
            nodes,
            (cpu_seconds(std::process::id())? - cpu.1) * share,
        ))
    }

    /// A client's round trip to a node that has nothing to do but answer: what QUIC, the event loops and the
    /// codec cost without any protocol.
    pub async fn round_trip(&self, time: Duration) -> Result<crate::limits::Limit> {
        let client = self.client(self.config()?.servers[0]).await?;
        let mut histogram = load::new_histogram()?;
        let end = Instant::now() + time;
        while Instant::now() < end {
            let start = Instant::now();
            client.overview().await?;
            histogram.saturating_record(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        Ok(crate::limits::summary(&histogram, time))
    }

    fn cpu(&self) -> Result<f64> {
        self.nodes.iter().filter_map(Child::id).map(cpu_seconds).sum()
    }
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
