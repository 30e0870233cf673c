//! `bench catch-up`: a follower is away while much is written, or comes for the first time; how long until it has all of it,
//! and what that costs the others.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use trilemma::{Backend, Effect, Keyspace, NodeId, Version};

use crate::cluster::{Cluster, NODES, keyspace, one_of_each};
use crate::fill::fill;
use crate::load::{nanos, new_histogram};
use crate::report::Measurement;
use crate::{BenchError, Result};

/// Longest time until it has caught up.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often nodes are asked how they stand.
const LOOK: Duration = Duration::from_millis(250);

/// How much state, how much is missed, and what goes on meanwhile.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// A backend whose nodes have one order.
    #[arg(long, default_value = "raft")]
    pub backend: Backend,
    /// Keys of the state.
    #[arg(long, default_value_t = 100_000)]
    pub keys: u64,
    /// Bytes of each of their values.
    #[arg(long, default_value_t = 1000)]
    pub value_bytes: usize,
    /// MiB of values that are written to these keys while the follower is away.
    #[arg(long, default_value_t = 256)]
    pub away_mib: u64,
    /// The follower is not killed and started again: it comes for the first time, with an empty disk.
    #[arg(long)]
    pub empty: bool,
    /// Puts per second that go on all the time.
    #[arg(long, default_value_t = 2_000)]
    pub rate: u32,
    /// Clients that write them.
    #[arg(long, default_value_t = 64)]
    pub clients: u32,
    /// Seconds of rest before the follower goes, and after it has caught up.
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
}

/// What the clients that write all the time share.
struct Shared {
    stop: Cell<bool>,
    /// How often the clients have had to begin their times afresh.
    afresh: Cell<u32>,
    latency: RefCell<Histogram<u64>>,
    refused: Cell<u64>,
    unknown: Cell<u64>,
}

impl Shared {
    /// What was measured since the last call.
    fn take(&self) -> Result<Histogram<u64>> {
        Ok(self.latency.replace(new_histogram()?))
    }
}

/// Measures one program.
pub async fn measure(binary: &Path, directory: &Path, options: &Options) -> Result<Vec<Measurement>> {
    let backend = options.backend;
    let name = keyspace(backend);
    let first = if options.empty { NODES - 1 } else { NODES };
    let mut cluster = Cluster::start_first(binary, directory, &one_of_each(&[backend]), first).await?;
    let leader = cluster
        .leader(&name)
        .await?
        .ok_or_else(|| BenchError::system("catch-up", format!("no node orders the writes of {backend}")))?;
    let follower = if leader.0 == NODES { 1 } else { NODES };
    let handle = cluster.handle(&name, backend).await?;
    eprintln!("{backend}, writing {} keys …", options.keys);
    fill(&handle, backend, options.keys, options.keys, options.value_bytes).await?;
    let (shared, writers) = begin(&handle, options)?;
    let rest = Duration::from_secs(options.seconds);
    tokio::time::sleep(rest).await;
    let _filling = shared.take()?;
    tokio::time::sleep(rest).await;
    let before = shared.take()?;
    if !options.empty {
        eprintln!(
            "{backend}, node {follower} is killed; {} MiB are written …",
            options.away_mib
        );
        cluster.kill(follower).await?;
        let puts = (options.away_mib << 20) / options.value_bytes.max(1) as u64;
        fill(&handle, backend, options.keys, puts, options.value_bytes).await?;
        // What the clients were late for beside all these writes says nothing of the follower.
        shared.afresh.set(1);
        tokio::time::sleep(rest).await;
    }
    eprintln!("{backend}, node {follower} starts …");
    let _away = shared.take()?;
    let began = Instant::now();
    cluster.spawn(follower)?.ready().await?;
    let ready = began.elapsed();
    let mut memory: f64 = 0.0;
    let mut leaders = vec![leader];
    let caught_up = loop {
        memory = memory.max(cluster.memory()?);
        let (behind, seen) = look(&cluster, &name, NodeId(follower), options).await?;
        leaders.extend(seen);
        if behind == 0 {
            break began.elapsed();
        }
        if began.elapsed() > PATIENCE {
            return Err(BenchError::system(
                "catch-up",
                format!("still {behind} versions behind"),
            ));
        }
        tokio::time::sleep(LOOK).await;
    };
    let during = shared.take()?;
    let end = Instant::now() + rest;
    let mut falls_back = 0;
    while Instant::now() < end {
        let (behind, seen) = look(&cluster, &name, NodeId(follower), options).await?;
        falls_back += u64::from(behind > 0);
        leaders.extend(seen);
        tokio::time::sleep(LOOK).await;
    }
    let after = shared.take()?;
    shared.stop.set(true);
    for writer in writers {
        writer
            .await
            .map_err(|error| BenchError::system("a writer", error))?;
    }
    leaders.dedup();
    let p99 = |histogram: &Histogram<u64>| histogram.value_at_quantile(0.99) as f64 / 1e6;
    let load = if options.empty {
        format!("an empty node, {} keys", options.keys)
    } else {
        format!("{} MiB missed, {} keys", options.away_mib, options.keys)
    };
    Ok(vec![
        Measurement::new(backend.name(), load)
            .figure("ready s", ready.as_secs_f64())
            .figure("caught up s", caught_up.as_secs_f64())
            .figure("p99 before ms", p99(&before))
            .figure("p99 meanwhile ms", p99(&during))
            .figure("p99 after ms", p99(&after))
            .figure("meanwhile / before", p99(&during) / p99(&before).max(1e-9))
            .figure("worst meanwhile ms", during.max() as f64 / 1e6)
            .figure("behind again", falls_back as f64)
            .figure("leader changes", (leaders.len() - 1) as f64)
            .figure(
                "longest turn ms",
                cluster.longest_turn().await?.as_secs_f64() * 1e3,
            )
            .figure(
                "MiB of the largest node",
                memory.max(cluster.memory()?) / 1_048_576.0,
            )
            .figure("refused", shared.refused.get() as f64)
            .figure("unknown", shared.unknown.get() as f64),
    ])
}

/// How many versions the follower is behind, beyond what a second of writes makes, and who leads, as the nodes say. A
/// node that is busy may be late to answer; what it does not say is unknown.
async fn look(
    cluster: &Cluster,
    name: &str,
    follower: NodeId,
    options: &Options,
) -> Result<(u64, Option<NodeId>)> {
    let Ok(overviews) = cluster.overviews().await else {
        return Ok((u64::MAX, None));
    };
    let (mut first, mut reached, mut leader) = (Version(0), Version(0), None);
    for overview in &overviews {
        let Some(found) = overview.keyspaces.iter().find(|found| found.name == name) else {
            continue;
        };
        first = first.max(found.status.version);
        if overview.node == follower {
            reached = found.status.version;
        } else {
            leader = leader.or(found.status.leader);
        }
    }
    let behind = first.0.saturating_sub(reached.0);
    Ok((behind.saturating_sub(u64::from(options.rate)), leader))
}

/// Starts the clients that write all the time: each at its own times, and what is late counts from then.
fn begin(handle: &Keyspace, options: &Options) -> Result<(Rc<Shared>, Vec<tokio::task::JoinHandle<()>>)> {
    let shared = Rc::new(Shared {
        stop: Cell::new(false),
        afresh: Cell::new(0),
        latency: RefCell::new(new_histogram()?),
        refused: Cell::new(0),
        unknown: Cell::new(0),
    });
    let pause = Duration::from_secs(1) * options.clients / options.rate.max(1);
    let writer = |number: u32| {
        let (handle, shared) = (handle.clone(), Rc::clone(&shared));
        let first = Instant::now() + pause * number / options.clients.max(1);
        tokio::task::spawn_local(write(handle, number, first, pause, shared))
    };
    let writers = (0..options.clients).map(writer).collect();
    Ok((shared, writers))
}

async fn write(handle: Keyspace, number: u32, first: Instant, pause: Duration, shared: Rc<Shared>) {
    let value = bytes::Bytes::from(vec![b'v'; 256]);
    let (mut due, mut afresh) = (first, 0);
    for sequence in 0_u64.. {
        tokio::time::sleep_until(due.into()).await;
        if shared.stop.get() {
            return;
        }
        if afresh != shared.afresh.get() {
            (due, afresh) = (Instant::now(), shared.afresh.get());
        }
        let put = handle.put(format!("client/{number}/{}", sequence % 100), value.clone());
        match put.await {
            Ok(_) => {
                shared
                    .latency
                    .borrow_mut()
                    .saturating_record(nanos(due.elapsed()));
            }
            Err(error) => {
                let count = match error.effect() {
                    Effect::Unknown => &shared.unknown,
                    _ => &shared.refused,
                };
                count.set(count.get() + 1);
            }
        }
        due += pause;
    }
}
