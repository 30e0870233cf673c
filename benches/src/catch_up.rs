//! `bench catch-up`: a follower is away while much is written, or all that there is; how long until it has all of it,
//! and what that costs the others.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use trilemma::{Backend, Client, NodeId, Version};

use crate::cluster::{Cluster, NODES, keyspace, one_of_each};
use crate::fill::fill;
use crate::report::Measurement;
use crate::steady::{Pattern, Steady};
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
    /// The follower is killed before anything is written: it comes back with nothing and is sent all of it.
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

/// Measures one program.
pub async fn measure(binary: &Path, directory: &Path, options: &Options) -> Result<Vec<Measurement>> {
    let backend = options.backend;
    let name = keyspace(backend);
    let mut cluster = Cluster::start(binary, directory, &one_of_each(&[backend])).await?;
    let leader = cluster
        .leader(&name)
        .await?
        .ok_or_else(|| BenchError::system("catch-up", format!("no node orders the writes of {backend}")))?;
    let follower = if leader.0 == NODES { 1 } else { NODES };
    let handle = cluster.handle(&name, backend).await?;
    let clients = cluster.clients().await?;
    let watched = Watched {
        name: &name,
        follower: NodeId(follower),
        rate: options.rate,
        clients,
    };
    if options.empty {
        cluster.kill(follower).await?;
    }
    eprintln!("{backend}, writing {} keys …", options.keys);
    fill(&handle, backend, options.keys, options.keys, options.value_bytes).await?;
    let mut steady = Steady::begin(
        std::slice::from_ref(&handle),
        Pattern::at_rate(options.rate, options.clients),
    )?;
    let rest = Duration::from_secs(options.seconds);
    tokio::time::sleep(rest).await;
    let _filling = steady.take()?;
    tokio::time::sleep(rest).await;
    let before = steady.take()?;
    if !options.empty {
        eprintln!(
            "{backend}, node {follower} is killed; {} MiB are written …",
            options.away_mib
        );
        cluster.kill(follower).await?;
        let puts = (options.away_mib << 20) / options.value_bytes.max(1) as u64;
        fill(&handle, backend, options.keys, puts, options.value_bytes).await?;
        // What the clients were late for beside all these writes says nothing of the follower.
        steady.begin_afresh();
        tokio::time::sleep(rest).await;
    }
    eprintln!("{backend}, node {follower} starts …");
    let _away = steady.take()?;
    let began = Instant::now();
    cluster.spawn(follower)?.ready().await?;
    let ready = began.elapsed();
    let mut memory: f64 = 0.0;
    let mut leaders = vec![leader];
    let caught_up = loop {
        memory = memory.max(cluster.memory()?);
        let (behind, seen) = watched.look(&cluster).await?;
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
    let during = steady.take()?;
    let end = Instant::now() + rest;
    let mut falls_back = 0;
    while Instant::now() < end {
        let (behind, seen) = watched.look(&cluster).await?;
        falls_back += u64::from(behind > 0);
        leaders.extend(seen);
        tokio::time::sleep(LOOK).await;
    }
    let after = steady.take()?;
    steady.stop().await?;
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
            .figure("refused", steady.refused() as f64)
            .figure("unknown", steady.unknown() as f64),
    ])
}

/// What is looked at while the follower catches up.
struct Watched<'a> {
    name: &'a str,
    follower: NodeId,
    rate: u32,
    clients: BTreeMap<NodeId, Client>,
}

impl Watched<'_> {
    /// How many versions the follower is behind, beyond what a second of writes makes, and who leads, as the nodes say. A
    /// node that is busy may be late to answer; what it does not say is unknown.
    async fn look(&self, cluster: &Cluster) -> Result<(u64, Option<NodeId>)> {
        let Ok(overviews) = cluster.overviews_by(&self.clients).await else {
            return Ok((u64::MAX, None));
        };
        let (mut first, mut reached, mut leader) = (Version(0), Version(0), None);
        for overview in &overviews {
            let Some(found) = overview.keyspaces.iter().find(|found| found.name == self.name) else {
                continue;
            };
            first = first.max(found.status.version);
            if overview.node == self.follower {
                reached = found.status.version;
            } else {
                leader = leader.or(found.status.leader);
            }
        }
        let behind = first.0.saturating_sub(reached.0);
        Ok((behind.saturating_sub(u64::from(self.rate)), leader))
    }
}
