//! `bench restart`: a cluster with much state is killed and started again: how long until it serves, and whether it comes
//! to rest.

use std::path::Path;
use std::time::{Duration, Instant};

use trilemma::{Backend, Client};

use crate::cluster::{Cluster, NODES, keyspace, one_of_each};
use crate::fill::{fill, key};
use crate::report::Measurement;
use crate::{BenchError, Result};

/// Time in which the cluster is looked at after its start.
const WATCHED: Duration = Duration::from_secs(10);
/// Longest time until it serves.
const PATIENCE: Duration = Duration::from_secs(120);

/// How much state.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Backends, each in a cluster of its own.
    #[arg(long, value_delimiter = ',', default_value = "raft")]
    pub backends: Vec<Backend>,
    /// Keys.
    #[arg(long, default_value_t = 100_000)]
    pub keys: u64,
    /// Bytes of each value.
    #[arg(long, default_value_t = 100)]
    pub value_bytes: usize,
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
    let mut cluster = Cluster::start(binary, directory, &one_of_each(&[backend])).await?;
    let name = keyspace(backend);
    eprintln!("{backend}, writing {} keys …", options.keys);
    let began = Instant::now();
    let handle = cluster.handle(&name, backend).await?;
    fill(&handle, backend, options.keys, options.keys, options.value_bytes).await?;
    let filled = began.elapsed();
    let memory = cluster.memory()?;
    eprintln!("{backend}, killed and started again …");
    for node in 1..=NODES {
        cluster.kill(node).await?;
    }
    let ready = cluster.start_all().await?;
    let began = Instant::now();
    let first_read = first_read(&cluster, &name, backend, options.keys).await?;
    let changes = leader_changes(&cluster, &name, began).await?;
    Ok(Measurement::new(backend.name(), format!("{} keys", options.keys))
        .figure("fill keys/s", options.keys as f64 / filled.as_secs_f64())
        .figure("ready s", ready.as_secs_f64())
        .figure("first read ms", first_read.as_secs_f64() * 1e3)
        .figure("leader changes", changes)
        .figure(
            "longest turn ms",
            cluster.longest_turn().await?.as_secs_f64() * 1e3,
        )
        .figure("MiB before", memory / 1_048_576.0)
        .figure("MiB after", cluster.memory()? / 1_048_576.0)
        .figure(
            "read/stored",
            cluster.bytes_read()? / cluster.bytes_stored()?.max(1.0),
        ))
}

/// The time until a read at the strongest level is answered.
pub(crate) async fn first_read(
    cluster: &Cluster,
    name: &str,
    backend: Backend,
    keys: u64,
) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let read = async {
            let handle = cluster.handle_anywhere(name, backend).await?;
            let handle = handle.with_timeout(Duration::from_secs(1));
            Ok::<_, BenchError>(handle.get(key(keys / 2)).await?)
        };
        match read.await {
            Ok(Some(_)) => return Ok(began.elapsed()),
            Ok(None) => return Err(BenchError::system("restart", "a key is gone")),
            Err(error) if began.elapsed() > PATIENCE => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// How often the keyspace's leader is another one than before, as its nodes say.
async fn leader_changes(cluster: &Cluster, name: &str, began: Instant) -> Result<f64> {
    let mut last = None;
    let mut changes = 0;
    while began.elapsed() < WATCHED {
        // A node that is busy may be late; what it does not say is no change.
        if let Ok(client) = Client::connect(cluster.config()?).await
            && let Ok(overview) = client.overview().await
        {
            let found = overview.keyspaces.iter().find(|found| found.name == name);
            let leader = found.and_then(|found| found.status.leader);
            if leader.is_some() {
                changes += u64::from(last.is_some() && last != leader);
                last = leader;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(changes as f64)
}
