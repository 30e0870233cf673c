//! `bench isolation`: what one keyspace's clients notice of the troubles of others: another keyspace that is flooded, a node
//! whose disk is slow, a node that stands still, clients that read nothing.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use trilemma::{Backend, NodeId};
use trilemma_core::Incarnation;

use crate::cluster::{Cluster, NODES, keyspace};
use crate::report::{Distribution, Measurement};
use crate::writers::{Options as Clients, Seen, Writers};
use crate::{BenchError, Result};

/// The keyspace that has the trouble, or its cause.
const TROUBLED: &str = "bench-troubled";
/// Bytes of its values.
const VALUE_BYTES: usize = 1024 * 1024;
/// Time for clients to come to a steady state.
const WARM_UP: Duration = Duration::from_secs(2);
/// Longest time until a flood flows, and how often that is looked at.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(250);
/// Connections of clients that read nothing, the watches that each opens, and its clients that read values.
const DEAF: (u32, u32, u32) = (8, 20, 8);
/// Clients that write to what these watch, and how much each second.
const CHANGES: (u32, u32) = (8, 20);
/// The thread of a node that writes and syncs its log.
const LOG_THREAD: &str = "trilemma-log";
const MIB: f64 = 1_048_576.0;

/// Which troubles, and beside which load.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Backend of the keyspace that is measured.
    #[arg(long, default_value = "raft")]
    pub backend: Backend,
    /// Backend of the keyspace that is flooded, and watched by nobody who reads.
    #[arg(long, default_value = "raft")]
    pub troubled: Backend,
    /// The troubles, each by itself.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "flood,slow-follower,slow-leader,stopped-follower,stopped-leader,deaf-clients"
    )]
    pub troubles: Vec<Trouble>,
    /// Puts per second at a steady rate.
    #[arg(long, default_value_t = 500)]
    pub rate: u32,
    /// Clients that write them, and as many that write as fast as they are answered.
    #[arg(long, default_value_t = 32)]
    pub clients: u32,
    /// Clients of the flood, each with a value of 1 MiB under way.
    #[arg(long, default_value_t = 300)]
    pub flood_clients: u32,
    /// Connections that they share.
    #[arg(long, default_value_t = 30)]
    pub flood_connections: u32,
    /// Seconds that a sync of a slow disk takes.
    #[arg(long, default_value_t = 2)]
    pub sync_seconds: u64,
    /// Seconds of each load.
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
}

/// What happens beside the keyspace that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Trouble {
    /// Another keyspace is flooded with values of 1 MiB.
    Flood,
    /// Each sync of a node that does not lead takes long (needs `strace`).
    SlowFollower,
    /// Each sync of the leader takes long (needs `strace`).
    SlowLeader,
    /// A node that does not lead is stopped: SIGSTOP.
    StoppedFollower,
    /// The leader is stopped: SIGSTOP.
    StoppedLeader,
    /// Clients open watches of values of 1 MiB and read nothing of them, for the second half not even their sockets; others
    /// have asked for such values and are stopped at once.
    DeafClients,
}

impl Trouble {
    fn name(self) -> &'static str {
        match self {
            Trouble::Flood => "beside a flood",
            Trouble::SlowFollower => "a slow follower",
            Trouble::SlowLeader => "a slow leader",
            Trouble::StoppedFollower => "a stopped follower",
            Trouble::StoppedLeader => "a stopped leader",
            Trouble::DeafClients => "clients read nothing",
        }
    }
}

/// What causes a trouble, until it ends.
#[derive(Default)]
struct Cause {
    clients: Vec<Writers>,
    /// Clients that are stopped for the second half.
    deaf: Option<Writers>,
    strace: Option<Child>,
    stopped: Option<u32>,
}

struct Bench {
    cluster: Cluster,
    name: String,
    options: Options,
    /// Memory of a node without keys, in bytes.
    empty: f64,
}

/// What the clients of both loads have seen.
struct Both {
    steady: Seen,
    closed: Seen,
}

/// The rows of the tables for one trouble.
struct Found {
    steady: Measurement,
    closed: Measurement,
    nodes: Measurement,
}

/// What clients have seen, by what they saw alone.
fn compared(system: String, load: &str, seen: &Seen, alone: &Seen) -> Measurement {
    let ratio = |value: f64, alone: f64| value / alone.max(1e-9);
    let mut measurement = Measurement::new(system, load)
        .figure("puts/s", seen.per_second)
        .figure("rate / alone", ratio(seen.per_second, alone.per_second))
        .figure("p50 ms", seen.quantile(0.5))
        .figure("p99 ms", seen.quantile(0.99))
        .figure("p99 / alone", ratio(seen.quantile(0.99), alone.quantile(0.99)))
        .figure("worst ms", seen.quantile(1.0))
        .figure("failed", seen.failed());
    measurement.histograms = vec![Distribution::new("latency", &seen.latency)];
    measurement
}

/// Measures one program.
pub async fn measure(binary: &Path, directory: &Path, options: &Options) -> Result<Vec<Measurement>> {
    let name = keyspace(options.backend);
    let keyspaces = [
        (name.clone(), options.backend),
        (TROUBLED.into(), options.troubled),
    ];
    let cluster = Cluster::start(binary, directory, &keyspaces).await?;
    let mut bench = Bench {
        empty: cluster.memory()?,
        cluster,
        name,
        options: options.clone(),
    };
    let (alone, first) = bench.one(None, None).await?;
    let mut found = vec![first];
    for trouble in &options.troubles {
        let slow = matches!(trouble, Trouble::SlowFollower | Trouble::SlowLeader);
        if slow && Command::new("strace").arg("--version").output().await.is_err() {
            eprintln!("strace is not installed; {} is left out", trouble.name());
            continue;
        }
        found.push(bench.one(Some(*trouble), Some(&alone)).await?.1);
    }
    let (mut rows, mut closed, mut nodes) = (Vec::new(), Vec::new(), Vec::new());
    for one in found {
        rows.push(one.steady);
        closed.push(one.closed);
        nodes.push(one.nodes);
    }
    rows.extend(closed.into_iter().chain(nodes));
    Ok(rows)
}

impl Bench {
    /// Measures beside one trouble.
    async fn one(&mut self, trouble: Option<Trouble>, alone: Option<&Both>) -> Result<(Both, Found)> {
        let load = trouble.map_or("alone", Trouble::name);
        eprintln!("{}, {load} …", self.name);
        let time = Duration::from_secs(self.options.seconds);
        self.cluster.forget_memory_peaks()?;
        let clients = Clients::new(&self.cluster, &self.name, self.options.backend)
            .first(self.cluster.leader(&self.name).await?);
        let mut writers =
            Writers::start(&clients.clone().clients(self.options.clients, self.options.rate)).await?;
        tokio::time::sleep(WARM_UP).await;
        let _warming = writers.take().await?;
        let mut cause = self.begin(trouble).await?;
        if trouble == Some(Trouble::Flood) {
            // It began while its clients were still getting up to speed.
            let _beginning = writers.take().await?;
        }
        tokio::time::sleep(time).await;
        let steady = writers.take().await?;
        writers.kill().await?;
        if let Some(deaf) = &cause.deaf {
            signal("STOP", deaf.process()).await?;
        }
        let clients = clients.first(self.cluster.leader(&self.name).await?);
        let mut writers = Writers::start(&clients.clients(self.options.clients, 0)).await?;
        tokio::time::sleep(WARM_UP).await;
        let _warming = writers.take().await?;
        tokio::time::sleep(time).await;
        let closed = writers.take().await?;
        writers.kill().await?;
        let peak = self.cluster.memory_peak()?;
        let trouble_made = match cause.clients.first_mut() {
            Some(clients) => Some(clients.take().await?),
            None => None,
        };
        let seen = [Some(&steady), Some(&closed), trouble_made.as_ref()];
        for why in seen
            .into_iter()
            .flatten()
            .filter_map(|seen| seen.first_failure.as_ref())
        {
            eprintln!("    a write failed: {why}");
        }
        let began = Instant::now();
        end(cause).await?;
        let mut alive = 0;
        for node in 1..=NODES {
            alive += u32::from(self.cluster.process(node)?.is_some());
        }
        self.cluster.wait_writable().await?;
        let in_service = began.elapsed();
        let both = Both { steady, closed };
        let base = alone.unwrap_or(&both);
        let made = |count: fn(&Seen) -> f64| trouble_made.as_ref().map_or(0.0, count);
        let mut nodes = Measurement::new("the nodes", load)
            .figure("alive", f64::from(alive))
            .figure("in service s", in_service.as_secs_f64())
            .figure("peak MiB", peak / MIB)
            .figure("bound MiB", self.bound() / MIB)
            .figure("its puts/s", made(|seen| seen.per_second))
            .figure("its failed", made(Seen::failed));
        let is_within = peak <= self.bound();
        nodes.failures = u64::from(NODES - alive) + u64::from(!is_within);
        nodes.first_failure = (nodes.failures > 0).then(|| match is_within {
            true => format!("a node has ended: {load}"),
            false => format!("a node holds more than its limits allow: {load}"),
        });
        let backend = self.options.backend;
        let system = |load: &str| format!("{backend}, {load}");
        let found = Found {
            steady: compared(system("at a rate"), load, &both.steady, &base.steady),
            closed: compared(system("closed loop"), load, &both.closed, &base.closed),
            nodes,
        };
        Ok((both, found))
    }

    /// Bytes that the limits allow a node: the states, of which a snapshot and a table that grows hold a part twice, all that
    /// may wait, the logs of both keyspaces in memory, and the program itself.
    fn bound(&self) -> f64 {
        const KEYSPACES: usize = 2;
        const STATE: f64 = 1.5;
        let state = self.options.flood_clients as usize * VALUE_BYTES;
        let clients = self.options.flood_connections.max(2 * DEAF.0) as usize + 2;
        let waiting = trilemma_node::Limits::default().bytes_max(KEYSPACES)
            + trilemma_transport::Limits::default().bytes_max(NODES as usize - 1, clients);
        let raft = trilemma_raft::RaftConfig::new(NodeId(1), Incarnation(1), [], 0);
        let logs = KEYSPACES * raft.log_bytes_max();
        STATE * state as f64 + (waiting + logs) as f64 + self.empty
    }

    async fn begin(&mut self, trouble: Option<Trouble>) -> Result<Cause> {
        let mut cause = Cause::default();
        let Some(trouble) = trouble else {
            return Ok(cause);
        };
        let clients = Clients::new(&self.cluster, TROUBLED, self.options.troubled)
            .first(self.cluster.leader(TROUBLED).await?)
            .values(VALUE_BYTES, 1);
        let leader = self.cluster.leader(&self.name).await?.map_or(1, |node| node.0);
        let follower = leader % NODES + 1;
        match trouble {
            Trouble::Flood => {
                let flood = clients
                    .clients(self.options.flood_clients, 0)
                    .connections(self.options.flood_connections);
                let mut flood = Writers::start(&flood).await?;
                flows(&mut flood).await?;
                cause.clients.push(flood);
            }
            Trouble::SlowFollower => cause.strace = Some(self.slow_disk(follower).await?),
            Trouble::SlowLeader => cause.strace = Some(self.slow_disk(leader).await?),
            Trouble::StoppedFollower => cause.stopped = self.stop(follower).await?,
            Trouble::StoppedLeader => cause.stopped = self.stop(leader).await?,
            Trouble::DeafClients => {
                let (number, rate) = CHANGES;
                let changes = clients.clone().clients(number, rate);
                cause.clients.push(Writers::start(&changes).await?);
                let (connections, watches, readers) = DEAF;
                let deaf = clients.clients(0, 0).connections(connections);
                cause.deaf = Some(Writers::start(&deaf.clone().reads(watches, 0)).await?);
                let readers = Writers::start(&deaf.reads(0, readers)).await?;
                signal("STOP", readers.process()).await?;
                cause.clients.push(readers);
            }
        }
        Ok(cause)
    }

    async fn stop(&mut self, node: u32) -> Result<Option<u32>> {
        let process = self.cluster.process(node)?;
        signal("STOP", process).await?;
        Ok(process)
    }

    /// Lets each sync of a node's log take long: by `strace`, which holds up the calls of that thread alone.
    async fn slow_disk(&mut self, node: u32) -> Result<Child> {
        let failed = |why: String| BenchError::system(format!("slow disk of node {node}"), why);
        let process = self.cluster.process(node)?;
        let process = process.ok_or_else(|| failed("it has ended".into()))?;
        let thread = thread_of(process, LOG_THREAD)?;
        let micros = self.options.sync_seconds * 1_000_000;
        let mut child = Command::new("strace")
            .args(["-q", "-o", "/dev/null", "-e", "trace=fdatasync", "-e"])
            .arg(format!("inject=fdatasync:delay_enter={micros}"))
            .args(["-p", &thread.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        // What cannot be traced ends at once.
        tokio::time::sleep(Duration::from_millis(300)).await;
        match child.try_wait() {
            Ok(None) => Ok(child),
            Ok(Some(status)) => Err(failed(format!("strace has ended: {status}"))),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

/// Waits until a flood flows: its process takes seconds to fill its memory, and floods nobody meanwhile.
async fn flows(flood: &mut Writers) -> Result<()> {
    let began = Instant::now();
    while flood.take().await?.latency.is_empty() {
        if began.elapsed() > PATIENCE {
            return Err(BenchError::system("the flood", "none of its values was taken"));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Ends a trouble.
async fn end(cause: Cause) -> Result<()> {
    signal("CONT", cause.stopped).await?;
    if let Some(mut strace) = cause.strace {
        signal("TERM", strace.id()).await?;
        let ended = strace.wait().await;
        ended.map_err(|error| BenchError::system("strace", error))?;
    }
    for clients in cause.clients.into_iter().chain(cause.deaf) {
        clients.kill().await?;
    }
    Ok(())
}

/// Sends a signal to a process, if there is one.
async fn signal(name: &str, process: Option<u32>) -> Result<()> {
    let Some(process) = process else { return Ok(()) };
    let sent = Command::new("kill")
        .args(["-s", name, &process.to_string()])
        .status()
        .await
        .map_err(|error| BenchError::system("kill", error))?;
    match sent.success() {
        true => Ok(()),
        false => Err(BenchError::system(format!("SIG{name} to {process}"), sent)),
    }
}

/// The id of a thread of a process, by its name (Linux).
fn thread_of(process: u32, name: &str) -> Result<u32> {
    let folder = format!("/proc/{process}/task");
    let failed = |error: std::io::Error| BenchError::system(&folder, error);
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_it = std::fs::read_to_string(path.join("comm")).is_ok_and(|found| found.trim() == name);
        let id = path.file_name().and_then(|id| id.to_str()?.parse().ok());
        if let (true, Some(id)) = (is_it, id) {
            return Ok(id);
        }
    }
    Err(BenchError::system(folder, format!("no thread {name}")))
}
