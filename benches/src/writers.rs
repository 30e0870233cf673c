//! Clients in a process of their own, so that what is measured there does not wait for what this process does beside: the
//! benchmark's program starts itself, as it starts nodes.
//!
//! The process says `ready`, and then answers each line that it is sent with a line of JSON: what its writers have seen
//! since the last one. It ends when its input does.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use trilemma::{Backend, Client, ClientConfig, KeyRange, Keyspace, NodeId, WatchStart};

use crate::cluster::{Cluster, needs};
use crate::load::new_histogram;
use crate::report::Distribution;
use crate::steady::{Pattern, Steady};
use crate::{BenchError, Result};

/// What such a process does.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The cluster's configuration for clients.
    #[arg(long)]
    config: PathBuf,
    /// The server that is asked first.
    #[arg(long)]
    first: Option<u32>,
    /// The keyspace.
    #[arg(long)]
    keyspace: String,
    /// Its backend.
    #[arg(long)]
    backend: Backend,
    /// Clients, each with one write under way.
    #[arg(long, default_value_t = 1)]
    clients: u32,
    /// Connections that they share.
    #[arg(long, default_value_t = 1)]
    connections: u32,
    /// Values per second together; 0: as fast as they are answered.
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Bytes of each value.
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Keys of each client.
    #[arg(long, default_value_t = 100)]
    keys: u64,
    /// Watches of the whole keyspace that each connection opens and never reads.
    #[arg(long, default_value_t = 0)]
    unread: u32,
    /// Clients of each connection that read the first key of a writer again and again.
    #[arg(long, default_value_t = 0)]
    readers: u32,
}

impl Options {
    /// Clients of a keyspace of this cluster; what is not said otherwise is as on the command line.
    pub(crate) fn new(cluster: &Cluster, keyspace: &str, backend: Backend) -> Self {
        Self {
            config: cluster.client_config(),
            first: None,
            keyspace: keyspace.into(),
            backend,
            clients: 1,
            connections: 1,
            rate: 0,
            value_bytes: 256,
            keys: 100,
            unread: 0,
            readers: 0,
        }
    }

    /// Asks this server first.
    pub(crate) fn first(mut self, node: Option<NodeId>) -> Self {
        self.first = node.map(|node| node.0);
        self
    }

    /// So many clients, that write so many values per second together, or as many as are answered.
    pub(crate) fn clients(mut self, clients: u32, rate: u32) -> Self {
        (self.clients, self.rate) = (clients, rate);
        self
    }

    /// Connections that the clients share.
    pub(crate) fn connections(mut self, connections: u32) -> Self {
        self.connections = connections;
        self
    }

    /// Values of this size, to so many keys of each client.
    pub(crate) fn values(mut self, bytes: usize, keys: u64) -> Self {
        (self.value_bytes, self.keys) = (bytes, keys);
        self
    }

    /// Each connection opens so many watches and reads none of them, and so many of its clients read values.
    pub(crate) fn reads(mut self, unread: u32, readers: u32) -> Self {
        (self.unread, self.readers) = (unread, readers);
        self
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["writers".into()];
        let mut add = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        add("config", self.config.display().to_string());
        if let Some(first) = self.first {
            add("first", first.to_string());
        }
        add("keyspace", self.keyspace.clone());
        add("backend", self.backend.to_string());
        add("clients", self.clients.to_string());
        add("connections", self.connections.to_string());
        add("rate", self.rate.to_string());
        add("value-bytes", self.value_bytes.to_string());
        add("keys", self.keys.to_string());
        add("unread", self.unread.to_string());
        add("readers", self.readers.to_string());
        arguments
    }
}

/// What the writers of a process have seen in some time.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    seconds: f64,
    /// Nanoseconds, and how often.
    nanos: Vec<(u64, u64)>,
    refused: u64,
    unknown: u64,
    first_failure: Option<String>,
}

/// The same, to be reckoned with.
pub(crate) struct Seen {
    /// The time that each write took.
    pub(crate) latency: Histogram<u64>,
    /// Writes that were acknowledged, per second.
    pub(crate) per_second: f64,
    /// Writes that certainly did nothing.
    pub(crate) refused: u64,
    /// Writes of which nobody knows.
    pub(crate) unknown: u64,
    /// Why the first write failed that did, ever.
    pub(crate) first_failure: Option<String>,
}

impl Seen {
    /// The time within which this part of the writes was acknowledged, in milliseconds.
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        self.latency.value_at_quantile(part) as f64 / 1e6
    }

    /// Writes that were not acknowledged.
    pub(crate) fn failed(&self) -> f64 {
        (self.refused + self.unknown) as f64
    }

    /// The 99th percentile, in milliseconds.
    pub(crate) fn p99(&self) -> f64 {
        self.quantile(0.99)
    }
}

/// A running process. It ends with this.
pub(crate) struct Writers {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Writers {
    /// Starts one, and waits until its clients are connected.
    pub(crate) async fn start(options: &Options) -> Result<Self> {
        let failed = |error: std::io::Error| BenchError::system("writers", error);
        let mut child = Command::new(std::env::current_exe().map_err(failed)?)
            .args(options.arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(BenchError::system("writers", "no pipes to it"));
        };
        let output = BufReader::new(output).lines();
        let mut writers = Self { child, input, output };
        let _ready = writers.line().await?;
        Ok(writers)
    }

    async fn line(&mut self) -> Result<String> {
        let failed = |why: String| BenchError::system("writers", why);
        let line = self.output.next_line().await;
        let line = line.map_err(|error| failed(error.to_string()))?;
        line.ok_or_else(|| failed("they have ended".into()))
    }

    /// What they have seen since the last call.
    pub(crate) async fn take(&mut self) -> Result<Seen> {
        let failed = |error: std::io::Error| BenchError::system("writers", error);
        self.input.write_all(b"take\n").await.map_err(failed)?;
        let line = self.line().await?;
        let report: Report =
            serde_json::from_str(&line).map_err(|error| BenchError::system("writers", error))?;
        let mut latency = new_histogram()?;
        for (nanos, count) in report.nanos {
            latency.saturating_record_n(nanos, count);
        }
        Ok(Seen {
            per_second: latency.len() as f64 / report.seconds,
            latency,
            refused: report.refused,
            unknown: report.unknown,
            first_failure: report.first_failure,
        })
    }

    /// The process.
    pub(crate) fn process(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends it: SIGKILL.
    pub(crate) async fn kill(mut self) -> Result<()> {
        let killed = self.child.kill().await;
        killed.map_err(|error| BenchError::system("writers", error))
    }
}

/// Is such a process.
pub async fn run(options: &Options) -> Result<()> {
    let mut handles = Vec::new();
    for _ in 0..options.connections.max(1) {
        handles.push(connect(options).await?);
    }
    let mut unread = Vec::new();
    for handle in &handles {
        for _ in 0..options.unread {
            unread.push(handle.watch(KeyRange::all(), WatchStart::State).await?);
        }
        for reader in 0..options.readers {
            tokio::task::spawn_local(read(handle.clone(), reader));
        }
    }
    let pattern = Pattern {
        clients: options.clients,
        rate: options.rate,
        value_bytes: options.value_bytes,
        keys: options.keys,
    };
    let steady = Steady::begin(&handles, pattern)?;
    let failed = |error: std::io::Error| BenchError::system("pipe", error);
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    let mut output = tokio::io::stdout();
    output.write_all(b"ready\n").await.map_err(failed)?;
    output.flush().await.map_err(failed)?;
    let (mut since, mut refused, mut unknown) = (Instant::now(), 0, 0);
    while input.next_line().await.map_err(failed)?.is_some() {
        let report = Report {
            seconds: since.elapsed().as_secs_f64(),
            nanos: Distribution::new("", &steady.take()?).nanos,
            refused: steady.refused() - refused,
            unknown: steady.unknown() - unknown,
            first_failure: steady.first_failure(),
        };
        (since, refused, unknown) = (Instant::now(), steady.refused(), steady.unknown());
        let mut line = serde_json::to_string(&report).map_err(|error| BenchError::system("JSON", error))?;
        line.push('\n');
        output.write_all(line.as_bytes()).await.map_err(failed)?;
        output.flush().await.map_err(failed)?;
    }
    Ok(())
}

async fn connect(options: &Options) -> Result<Keyspace> {
    let mut config = ClientConfig::load(&options.config)?;
    config
        .servers
        .sort_by_key(|server| Some(server.node.0) != options.first);
    let client = Client::connect(config).await?;
    Ok(client.keyspace(&options.keyspace, needs(options.backend)).await?)
}

/// Reads a value again and again, whatever becomes of it.
async fn read(handle: Keyspace, reader: u32) {
    loop {
        if handle.get(format!("client/{reader}/0")).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}
