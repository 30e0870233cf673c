//! `bench failover`: the node that orders the writes is killed under load, again and again: how long nothing is
//! acknowledged.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use trilemma::{Backend, Effect, Error, Keyspace};

use crate::cluster::{Cluster, keyspace, one_of_each};
use crate::load::{nanos, new_histogram};
use crate::report::Measurement;
use crate::{BenchError, Result};

/// Quiet time before each kill and after each return.
const REST: Duration = Duration::from_secs(2);
/// Longest time until writes go on.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often, and under which load.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Backends that go on without a node.
    #[arg(long, value_delimiter = ',', default_value = "raft,paxos")]
    pub backends: Vec<Backend>,
    /// Kills.
    #[arg(long, default_value_t = 5)]
    pub kills: u32,
    /// Clients, each with one write in flight; they know all nodes.
    #[arg(long, default_value_t = 16)]
    pub clients: usize,
}

struct Shared {
    stop: Cell<bool>,
    began: Instant,
    /// When the last write was acknowledged.
    last: Cell<Instant>,
    /// Longest time without an acknowledged write since it was set to zero.
    gap: Cell<Duration>,
    acknowledged: Cell<u64>,
    refused: Cell<u64>,
    unknown: Cell<u64>,
}

/// Measures one program.
pub async fn measure(binary: &Path, directory: &Path, options: &Options) -> Result<Vec<Measurement>> {
    let mut found = Vec::new();
    for backend in &options.backends {
        let mut cluster =
            Cluster::start(binary, &directory.join(backend.name()), &one_of_each(&[*backend])).await?;
        found.push(one(&mut cluster, *backend, options).await?);
    }
    Ok(found)
}

async fn one(cluster: &mut Cluster, backend: Backend, options: &Options) -> Result<Measurement> {
    let name = keyspace(backend);
    let now = Instant::now();
    let shared = Rc::new(Shared {
        stop: Cell::new(false),
        began: now,
        last: Cell::new(now),
        gap: Cell::new(Duration::ZERO),
        acknowledged: Cell::new(0),
        refused: Cell::new(0),
        unknown: Cell::new(0),
    });
    let mut writers = Vec::new();
    for number in 0..options.clients {
        let handle = cluster.handle_anywhere(&name, backend).await?;
        writers.push(tokio::task::spawn_local(write(
            handle,
            number,
            Rc::clone(&shared),
        )));
    }
    let mut gaps = new_histogram()?;
    for kill in 1..=options.kills {
        tokio::time::sleep(REST).await;
        let victim = cluster.leader(&name).await?.map_or(1, |node| node.0);
        eprintln!("{backend}, kill {kill}: node {victim} …");
        shared.gap.set(Duration::ZERO);
        let acknowledged = shared.acknowledged.get();
        cluster.kill(victim).await?;
        let killed = Instant::now();
        // Until it has gone on for a while.
        while shared.acknowledged.get() < acknowledged + 10 * options.clients as u64
            || killed.elapsed() < REST
        {
            if killed.elapsed() > PATIENCE {
                return Err(BenchError::system("failover", "writes did not go on"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        gaps.saturating_record(nanos(shared.gap.get()));
        cluster.spawn(victim)?.ready().await?;
        cluster.wait_writable().await?;
    }
    shared.stop.set(true);
    for writer in writers {
        writer
            .await
            .map_err(|error| BenchError::system("a writer", error))?;
    }
    Ok(Measurement::new(
        backend.name(),
        format!("{} kills, {} clients", options.kills, options.clients),
    )
    .figure("least gap ms", gaps.min() as f64 / 1e6)
    .figure("greatest gap ms", gaps.max() as f64 / 1e6)
    .times("nothing acknowledged", &gaps)
    .figure(
        "puts/s",
        shared.acknowledged.get() as f64 / shared.began.elapsed().as_secs_f64(),
    )
    .figure("refused", shared.refused.get() as f64)
    .figure("unknown", shared.unknown.get() as f64))
}

async fn write(handle: Keyspace, number: usize, shared: Rc<Shared>) {
    let one_more = |count: &Cell<u64>| count.set(count.get() + 1);
    for sequence in 0_u64.. {
        if shared.stop.get() {
            return;
        }
        let put: std::result::Result<_, Error> =
            handle.put(format!("client/{number}"), sequence.to_string()).await;
        match put {
            Ok(_) => {
                let now = Instant::now();
                shared.gap.set(shared.gap.get().max(now - shared.last.get()));
                shared.last.set(now);
                one_more(&shared.acknowledged);
            }
            Err(error) => {
                one_more(if error.effect() == Effect::Unknown {
                    &shared.unknown
                } else {
                    &shared.refused
                });
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}
