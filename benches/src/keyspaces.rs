//! `bench keyspaces`: what many keyspaces cost at rest and under load, and what a flooded one costs another.

use std::path::Path;
use std::time::Duration;

use trilemma::{Backend, Keyspace};

use crate::Result;
use crate::cluster::{Cluster, NODES, cpu_of};
use crate::load::{self, Load};
use crate::report::Measurement;

/// Bytes of the values of the flood.
const FLOOD_BYTES: usize = 1024 * 1024;

/// How many, and under which load.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Numbers of keyspaces, each in a cluster of its own.
    #[arg(long, value_delimiter = ',', default_value = "1,64")]
    pub numbers: Vec<usize>,
    /// Their backend.
    #[arg(long, default_value = "raft")]
    pub backend: Backend,
    /// Clients that write, spread over all keyspaces.
    #[arg(long, default_value_t = 64)]
    pub clients: usize,
    /// Clients that flood one keyspace with values of 1 MiB while others write to another.
    #[arg(long, default_value_t = 32)]
    pub flood_clients: usize,
    /// Seconds for each level.
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// Bytes of each value.
    #[arg(long, default_value_t = 256)]
    pub value_bytes: usize,
}

fn name(number: usize) -> String {
    format!("bench-{number:04}")
}

/// Measures one program.
pub async fn measure(binary: &Path, directory: &Path, options: &Options) -> Result<Vec<Measurement>> {
    let mut found = Vec::new();
    for number in &options.numbers {
        let names: Vec<_> = (0..*number)
            .map(|number| (name(number), options.backend))
            .collect();
        let cluster = Cluster::start(binary, &directory.join(number.to_string()), &names).await?;
        eprintln!("{number} keyspaces, at rest and under load …");
        let idle = at_rest(&cluster, options).await?;
        let memory = cluster.memory()? / 1_048_576.0;
        let load = puts(
            &cluster,
            0..*number,
            options.clients,
            options.value_bytes,
            options,
        )
        .await?;
        let system = format!("{}, {number} keyspaces", options.backend);
        let mut measurement = load.measurement(system, "puts/s");
        measurement = measurement.figure("idle CPU ms/s", idle).figure("MiB", memory);
        found.push(measurement);
    }
    found.extend(beside_a_flood(binary, &directory.join("flood"), options).await?);
    Ok(found)
}

/// CPU milliseconds that one node takes each second while nobody asks for anything.
async fn at_rest(cluster: &Cluster, options: &Options) -> Result<f64> {
    let processes = cluster.processes();
    let before = cpu_of(&processes)?;
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let used = cpu_of(&processes)? - before;
    Ok(used * 1000.0 / options.seconds.max(1) as f64 / f64::from(NODES))
}

async fn puts(
    cluster: &Cluster,
    keyspaces: std::ops::Range<usize>,
    clients: usize,
    bytes: usize,
    options: &Options,
) -> Result<Load> {
    let mut handles: Vec<Keyspace> = Vec::new();
    for number in keyspaces {
        handles.push(cluster.handle(&name(number), options.backend).await?);
    }
    let value = bytes::Bytes::from(vec![b'v'; bytes]);
    let processes = cluster.processes();
    let time = Duration::from_secs(options.seconds);
    load::closed(
        clients,
        time,
        move || cpu_of(&processes),
        move |client, sequence| {
            let (handle, value) = (handles[client % handles.len()].clone(), value.clone());
            async move {
                let put = handle
                    .put(format!("client/{client}/{}", sequence % 100), value)
                    .await;
                put.map(drop).map_err(|error| error.to_string())
            }
        },
    )
    .await
}

/// Writes to one keyspace alone, then while another is flooded.
async fn beside_a_flood(binary: &Path, directory: &Path, options: &Options) -> Result<Vec<Measurement>> {
    let names = [(name(0), options.backend), (name(1), options.backend)];
    let cluster = Cluster::start(binary, directory, &names).await?;
    eprintln!("one keyspace beside a flooded one …");
    let alone = puts(&cluster, 0..1, options.clients, options.value_bytes, options).await?;
    let (beside, flood) = tokio::join!(
        puts(&cluster, 0..1, options.clients, options.value_bytes, options),
        puts(&cluster, 1..2, options.flood_clients, FLOOD_BYTES, options),
    );
    let (alone, beside) = (
        alone.measurement(format!("{}, alone", options.backend), "puts/s"),
        beside?.measurement(format!("{}, beside a flood", options.backend), "puts/s"),
    );
    let mut flood = flood?.measurement(format!("{}, the flood, 1 MiB", options.backend), "puts/s");
    // A flood may be refused: that is how a node protects the others.
    let refused = std::mem::take(&mut flood.failures);
    flood.first_failure = None;
    Ok(vec![alone, beside, flood.figure("refused", refused as f64)])
}
