//! `bench reads`: gets at the strongest level and at what a node has, and the same on etcd and ZooKeeper.

use std::path::Path;
use std::time::Duration;

use trilemma::{Backend, ReadLevel};

use crate::Result;
use crate::cluster::{Cluster, cpu_of, keyspace, one_of_each};
use crate::load::{self, Load};
use crate::puts::{Options, Others, key};
use crate::report::Measurement;

/// The levels of a backend, by their names.
fn levels(backend: Backend) -> &'static [(&'static str, Option<ReadLevel>)] {
    const STRONGEST: (&str, Option<ReadLevel>) = ("linearizable", None);
    const LOCAL: (&str, Option<ReadLevel>) = ("local", Some(ReadLevel::Local));
    if backend.descriptor().linearizable_reads {
        &[STRONGEST, LOCAL]
    } else {
        &[LOCAL]
    }
}

/// Measures one program.
pub async fn measure(binary: &Path, directory: &Path, options: &Options) -> Result<Vec<Measurement>> {
    let cluster = Cluster::start(binary, directory, &one_of_each(&options.backends)).await?;
    let mut found = Vec::new();
    for backend in &options.backends {
        fill(&cluster, *backend, options).await?;
        for (name, level) in levels(*backend) {
            for clients in &options.clients {
                eprintln!("{backend}, {name}, {clients} clients …");
                let load = gets(&cluster, *backend, *level, *clients, options).await?;
                found.push(load.measurement(format!("{backend}, {name}"), "gets/s"));
            }
        }
    }
    Ok(found)
}

/// Writes what is read.
async fn fill(cluster: &Cluster, backend: Backend, options: &Options) -> Result<()> {
    let handle = cluster.handle(&keyspace(backend), backend).await?;
    let value = bytes::Bytes::from(vec![b'v'; options.value_bytes]);
    let clients = options.clients.iter().copied().max().unwrap_or(1);
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..clients {
        let (handle, value) = (handle.clone(), value.clone());
        tasks.spawn_local(async move {
            for sequence in 0..100 {
                handle.put(key(client, sequence), value.clone()).await?;
            }
            Ok::<(), trilemma::Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|error| crate::BenchError::system("a client", error))??;
    }
    Ok(())
}

async fn gets(
    cluster: &Cluster,
    backend: Backend,
    level: Option<ReadLevel>,
    clients: usize,
    options: &Options,
) -> Result<Load> {
    let mut handle = cluster.handle(&keyspace(backend), backend).await?;
    if let Some(level) = level {
        handle = handle.with_read_level(level);
    }
    let processes = cluster.processes();
    let time = Duration::from_secs(options.seconds);
    load::closed(
        clients,
        time,
        move || cpu_of(&processes),
        move |client, sequence| {
            let handle = handle.clone();
            async move {
                match handle.get(key(client, sequence)).await {
                    Ok(Some(_)) => Ok(()),
                    Ok(None) => Err("a key is missing".into()),
                    Err(error) => Err(error.to_string()),
                }
            }
        },
    )
    .await
}

/// Measures etcd and ZooKeeper, those that are wanted and installed.
pub async fn others(directory: &Path, options: &Options, wanted: &Others) -> Result<Vec<Measurement>> {
    let time = Duration::from_secs(options.seconds);
    let most = options.clients.iter().copied().max().unwrap_or(1);
    let mut found = Vec::new();
    if let Some((etcd, version)) = wanted.etcd(directory).await? {
        etcd.puts(most, options.value_bytes, time).await?;
        for clients in &options.clients {
            eprintln!("{version}, linearizable, {clients} clients …");
            let load = etcd.gets(*clients, time).await?;
            found.push(load.measurement(format!("{version}, linearizable"), "gets/s"));
        }
    }
    if let Some((zookeeper, version)) = wanted.zookeeper(directory).await? {
        zookeeper.puts(most, options.value_bytes, time).await?;
        for clients in &options.clients {
            eprintln!("{version}, local, {clients} clients …");
            let load = zookeeper.gets(*clients, time).await?;
            found.push(load.measurement(format!("{version}, local"), "gets/s"));
        }
    }
    Ok(found)
}
