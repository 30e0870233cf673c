//! `bench memory`: what a state costs in memory: while it is written, while a node that has nothing is sent it, and after a
//! restart.

use std::path::Path;
use std::time::{Duration, Instant};

use trilemma::{Backend, NodeOverview};

use crate::cluster::{Cluster, NODES, keyspace, one_of_each};
use crate::fill::{fill, key};
use crate::report::Measurement;
use crate::restart::first_read;
use crate::{BenchError, Result};

/// Longest time until all nodes have everything.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often nodes are asked how they stand.
const LOOK: Duration = Duration::from_millis(250);
const MIB: f64 = 1_048_576.0;

/// How much state.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Backends, each in a cluster of its own.
    #[arg(long, value_delimiter = ',', default_value = "gossip,raft,paxos,two-phase")]
    pub backends: Vec<Backend>,
    /// Keys.
    #[arg(long, default_value_t = 100_000)]
    pub keys: u64,
    /// Bytes of each value.
    #[arg(long, default_value_t = 100)]
    pub value_bytes: usize,
    /// One node is killed before anything is written, comes back when everything is, and is sent all of it; not for a
    /// backend that needs every member.
    #[arg(long)]
    pub empty: bool,
    /// Seconds of rest before what a node holds is read.
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
}

impl Options {
    /// Bytes of keys and values.
    fn state(&self) -> f64 {
        (self.keys * (key(0).len() + self.value_bytes) as u64) as f64
    }
}

/// Measures one program.
pub async fn measure(binary: &Path, directory: &Path, options: &Options) -> Result<Vec<Measurement>> {
    let mut found = Vec::new();
    for backend in &options.backends {
        let directory = directory.join(backend.name());
        found.push(one(binary, &directory, *backend, options).await?);
    }
    Ok(found)
}

async fn one(binary: &Path, directory: &Path, backend: Backend, options: &Options) -> Result<Measurement> {
    let name = keyspace(backend);
    let state = options.state();
    let rest = Duration::from_secs(options.seconds);
    let mut cluster = Cluster::start(binary, directory, &one_of_each(&[backend])).await?;
    let nothing = cluster.memory()?;
    if options.empty {
        cluster.kill(NODES).await?;
        cluster.wait_writable().await?;
    }
    // Beyond a node without keys, and beyond keys and values.
    let per_key = |memory: f64| (memory - nothing - state) / options.keys.max(1) as f64;
    eprintln!("{backend}, writing {} keys …", options.keys);
    let handle = cluster.handle(&name, backend).await?;
    fill(&handle, backend, options.keys, options.keys, options.value_bytes).await?;
    complete(&cluster, &name, options.keys).await?;
    tokio::time::sleep(rest).await;
    let (written, peak) = (cluster.memory()?, cluster.memory_peak()?);
    let mut measurement = Measurement::new(backend.name(), format!("{} keys", options.keys))
        .figure("state MiB", state / MIB)
        .figure("empty MiB", nothing / MIB)
        .figure("written MiB", written / MIB)
        .figure("B/key", per_key(written))
        .figure("peak/state written", peak / state.max(1.0));
    if options.empty {
        eprintln!("{backend}, node {NODES} starts …");
        cluster.forget_memory_peaks()?;
        let began = Instant::now();
        cluster.spawn(NODES)?.ready().await?;
        complete(&cluster, &name, options.keys).await?;
        measurement = measurement.figure("sent s", began.elapsed().as_secs_f64());
        tokio::time::sleep(rest).await;
        measurement = measurement.figure("peak/state sent", cluster.memory_peak()? / state.max(1.0));
    }
    eprintln!("{backend}, killed and started again …");
    for node in 1..=NODES {
        cluster.kill(node).await?;
    }
    let ready = cluster.start_all().await?;
    let began = Instant::now();
    first_read(&cluster, &name, backend, options.keys).await?;
    let served = ready + began.elapsed();
    complete(&cluster, &name, options.keys).await?;
    tokio::time::sleep(rest).await;
    let (restarted, peak) = (cluster.memory()?, cluster.memory_peak()?);
    Ok(measurement
        .figure("restart s", served.as_secs_f64())
        .figure("restarted MiB", restarted / MIB)
        .figure("B/key restarted", per_key(restarted))
        .figure("peak/state started", peak / state.max(1.0)))
}

/// Waits until every node says that it has every key.
async fn complete(cluster: &Cluster, name: &str, keys: u64) -> Result<()> {
    let began = Instant::now();
    let has = |node: &NodeOverview| {
        let found = node.keyspaces.iter().find(|found| found.name == name);
        found.is_some_and(|found| found.status.keys >= keys)
    };
    loop {
        // A node that is busy may be late to answer; what it does not say is unknown.
        match cluster.overviews().await {
            Ok(overviews) if overviews.iter().all(has) => return Ok(()),
            _ if began.elapsed() > PATIENCE => {
                return Err(BenchError::system(
                    "memory",
                    format!("keys are missing after {PATIENCE:?}"),
                ));
            }
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}
