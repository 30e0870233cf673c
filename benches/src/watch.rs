//! `bench watch`: one writer, many watchers: how long a change takes to reach each of them, whether one is missing or out of
//! order, and what that costs the writers of another keyspace.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Notify;
use trilemma::{Backend, KeyRange, Version, Watch, WatchItem, WatchStart};

use crate::cluster::{Cluster, cpu_of, keyspace};
use crate::fill::{fill, key};
use crate::load::{nanos, new_histogram};
use crate::report::Measurement;
use crate::writers::{Options as Others, Seen as Beside, Writers};
use crate::{BenchError, Result};

/// Least number of keys that are changed in turn.
const KEYS: u64 = 1000;
/// The keyspace beside the watched one.
const BESIDE: &str = "bench-beside";
/// Seconds in which the other keyspace is written to alone.
const ALONE: Duration = Duration::from_secs(5);
/// Time after the last change for it to reach everybody.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many watch, and what.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Numbers of watchers.
    #[arg(long, value_delimiter = ',', default_value = "1,100")]
    pub watchers: Vec<usize>,
    /// Connections that they are spread over.
    #[arg(long, default_value_t = 1)]
    pub connections: usize,
    /// Changes per second.
    #[arg(long, default_value_t = 100)]
    pub rate: u32,
    /// Seconds for each level.
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// Bytes of each value; 8 at least.
    #[arg(long, default_value_t = 256)]
    pub value_bytes: usize,
    /// Ranges that the watchers are spread over, each with as many keys; changes go to them in turn.
    #[arg(long, default_value_t = 1)]
    pub ranges: u64,
    /// Keys that are there before; each watch is first sent those of its range.
    #[arg(long, default_value_t = 0)]
    pub keys: u64,
    /// Clients, in a process of their own, that write to another keyspace, alone for a while and then beside the watches.
    #[arg(long, default_value_t = 0)]
    pub beside: u32,
    /// Values that they write per second together.
    #[arg(long, default_value_t = 500)]
    pub beside_rate: u32,
    /// The backend; one that orders all changes, and whose watches show every one.
    #[arg(long, default_value = "raft")]
    pub backend: Backend,
}

impl Options {
    /// Keys of each range.
    fn width(&self) -> u64 {
        self.keys.max(KEYS).div_ceil(self.ranges.max(1))
    }

    /// The range that a watcher or change goes to, by its number.
    fn range_of(&self, number: u64) -> u64 {
        number % self.ranges.max(1)
    }

    fn range(&self, range: u64) -> KeyRange {
        KeyRange {
            start: key(range * self.width()).into(),
            end: Some(key((range + 1) * self.width()).into()),
        }
    }

    /// The key of a change, by its number.
    fn key(&self, number: u64) -> String {
        let within = number / self.ranges.max(1) % self.width();
        key(self.range_of(number) * self.width() + within)
    }
}

/// Changes in their order: how many, and a digest of their versions.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Chain {
    length: u64,
    digest: u64,
}

impl Chain {
    fn add(&mut self, version: Version) {
        /// The golden ratio's fraction: no bits are lost, and order matters.
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        self.length += 1;
        self.digest = (self.digest ^ version.0).wrapping_mul(FACTOR).rotate_left(23);
    }
}

/// What the writer tells the watchers.
struct Written {
    /// For each range the changes that are acknowledged, once there are no more of them.
    chains: RefCell<Option<Vec<Chain>>>,
    over: Notify,
}

impl Written {
    fn chain(&self, range: u64) -> Option<Chain> {
        let chains = self.chains.borrow();
        Some(chains.as_ref()?.get(range as usize).copied().unwrap_or_default())
    }
}

struct Seen {
    histogram: Histogram<u64>,
    changes: u64,
    missing: u64,
    resets: u64,
    out_of_order: u64,
}

/// Measures one program.
pub async fn measure(binary: &Path, directory: &Path, options: &Options) -> Result<Vec<Measurement>> {
    let name = keyspace(options.backend);
    let keyspaces = [(name.clone(), options.backend), (BESIDE.into(), Backend::Raft)];
    let cluster = Cluster::start(binary, directory, &keyspaces).await?;
    if options.keys > 0 {
        let handle = cluster.handle(&name, options.backend).await?;
        fill(
            &handle,
            options.backend,
            options.keys,
            options.keys,
            options.value_bytes,
        )
        .await?;
    }
    let mut found = Vec::new();
    for watchers in &options.watchers {
        eprintln!("{}, {watchers} watchers …", options.backend);
        found.push(level(&cluster, *watchers, options).await?);
    }
    Ok(found)
}

async fn level(cluster: &Cluster, watchers: usize, options: &Options) -> Result<Measurement> {
    let name = keyspace(options.backend);
    let mut handles = Vec::new();
    for _ in 0..options.connections.max(1) {
        handles.push(cluster.handle_anywhere(&name, options.backend).await?);
    }
    let (mut others, mut alone) = (None, None);
    if options.beside > 0 {
        let clients = Others::new(cluster, BESIDE, Backend::Raft)
            .first(cluster.leader(BESIDE).await?)
            .clients(options.beside, options.beside_rate);
        let mut writers = Writers::start(&clients).await?;
        tokio::time::sleep(ALONE).await;
        let _warming = writers.take().await?;
        tokio::time::sleep(ALONE).await;
        alone = Some(writers.take().await?);
        others = Some(writers);
    }
    let began = Instant::now();
    let mut opened = Vec::new();
    for watcher in 0..watchers {
        let handle = handles[watcher % handles.len()].clone();
        let range = options.range(options.range_of(watcher as u64));
        opened.push(tokio::task::spawn_local(async move {
            let mut watch = handle.watch(range, WatchStart::State).await?;
            while let Some(item) = watch.next().await {
                if matches!(item?, WatchItem::Reset { last: true, .. }) {
                    return Ok(watch);
                }
            }
            Err(BenchError::system("a watch", "ended before it had begun"))
        }));
    }
    let mut watches = Vec::new();
    for watch in opened {
        watches.push(
            watch
                .await
                .map_err(|error| BenchError::system("a watcher", error))??,
        );
    }
    let opening = began.elapsed();
    let written = Rc::new(Written {
        chains: RefCell::new(None),
        over: Notify::new(),
    });
    let start = Instant::now();
    let tasks: Vec<_> = watches
        .into_iter()
        .zip(0..)
        .map(|(watch, number)| {
            let range = options.range_of(number);
            tokio::task::spawn_local(follow(watch, range, Rc::clone(&written), start))
        })
        .collect();
    let processes = cluster.processes();
    let cpu = cpu_of(&processes)?;
    let during_opening = take(&mut others).await?;
    written
        .chains
        .replace(Some(write(cluster, options, start).await?));
    written.over.notify_waiters();
    let mut histogram = new_histogram()?;
    let (mut changes, mut missing, mut resets, mut out_of_order) = (0, 0, 0, 0);
    for task in tasks {
        let seen = task
            .await
            .map_err(|error| BenchError::system("a watcher", error))??;
        histogram
            .add(seen.histogram)
            .map_err(|error| BenchError::system("histogram", error))?;
        changes += seen.changes;
        missing += seen.missing;
        resets += seen.resets;
        out_of_order += seen.out_of_order;
    }
    let took = start.elapsed().as_secs_f64();
    let beside = take(&mut others).await?;
    let cpu = cpu_of(&processes)? - cpu;
    let mut measurement = Measurement::new(options.backend.name(), format!("{watchers} watchers"))
        .figure("open all ms", opening.as_secs_f64() * 1e3)
        .figure("changes/s", changes as f64 / took)
        .times("put to watcher", &histogram)
        .figure("node CPU s/100k", cpu * 100_000.0 / changes.max(1) as f64)
        .figure("resets", resets as f64)
        .figure("missing", missing as f64)
        .figure("out of order", out_of_order as f64);
    if let (Some(alone), Some(opening), Some(beside)) = (alone, during_opening, beside) {
        measurement = measurement
            .figure("other p99 alone", alone.p99())
            .figure("other p99 opening", opening.p99())
            .figure("other p99 beside", beside.p99())
            .figure("opening / alone", opening.p99() / alone.p99().max(1e-9))
            .figure("beside / alone", beside.p99() / alone.p99().max(1e-9))
            .figure("other failed", opening.failed() + beside.failed());
    }
    measurement.failures = missing + out_of_order;
    measurement.first_failure =
        (measurement.failures > 0).then(|| "a change did not reach a watcher in its order".into());
    Ok(measurement)
}

/// What the writers of the other keyspace have seen, if there are any.
async fn take(others: &mut Option<Writers>) -> Result<Option<Beside>> {
    match others {
        Some(writers) => Ok(Some(writers.take().await?)),
        None => Ok(None),
    }
}

/// Writes at the rate asked for, whatever the answers take; for each range the changes in the order of their versions.
async fn write(cluster: &Cluster, options: &Options, start: Instant) -> Result<Vec<Chain>> {
    let handle = cluster
        .handle(&keyspace(options.backend), options.backend)
        .await?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / options.rate.max(1));
    let total = options.seconds * u64::from(options.rate.max(1));
    let mut puts = tokio::task::JoinSet::new();
    for number in 0..total {
        ticks.tick().await;
        let (handle, size) = (handle.clone(), options.value_bytes.max(8));
        let (key, range) = (options.key(number), options.range_of(number));
        puts.spawn_local(async move {
            let mut value = vec![b'v'; size];
            value[..8].copy_from_slice(&nanos(start.elapsed()).to_be_bytes());
            let receipt = handle.put(key, value).await?;
            Ok::<_, trilemma::Error>((receipt.version, range))
        });
    }
    let mut versions = Vec::new();
    while let Some(put) = puts.join_next().await {
        versions.push(put.map_err(|error| BenchError::system("the writer", error))??);
    }
    versions.sort_unstable();
    let mut chains = vec![Chain::default(); options.ranges.max(1) as usize];
    for (version, range) in versions {
        chains[range as usize].add(version);
    }
    Ok(chains)
}

async fn follow(mut watch: Watch, range: u64, written: Rc<Written>, start: Instant) -> Result<Seen> {
    let mut seen = Seen {
        histogram: new_histogram()?,
        changes: 0,
        missing: 0,
        resets: 0,
        out_of_order: 0,
    };
    let (mut position, mut chain) = (0, Chain::default());
    loop {
        let all = written.chain(range);
        if let Some(all) = all.filter(|all| chain.length >= all.length) {
            seen.out_of_order = u64::from(chain != all);
            return Ok(seen);
        }
        let item = tokio::select! {
            item = watch.next() => item,
            () = written.over.notified(), if all.is_none() => continue,
            () = tokio::time::sleep(PATIENCE), if all.is_some() => {
                seen.missing = all.unwrap_or_default().length - chain.length;
                return Ok(seen);
            }
        };
        match item {
            Some(Ok(WatchItem::Changes { token, changes })) => {
                if token.position <= position {
                    return Err(BenchError::system("a watch", "went back"));
                }
                position = token.position;
                for change in changes {
                    let sent = change
                        .now
                        .as_ref()
                        .and_then(|state| state.value.first_chunk::<8>());
                    let sent = sent.map_or(0, |bytes| u64::from_be_bytes(*bytes));
                    let now = nanos(start.elapsed());
                    seen.histogram.saturating_record(now.saturating_sub(sent));
                    seen.changes += 1;
                    let version = change.now.as_ref().map(|state| state.modified);
                    chain.add(version.unwrap_or_default());
                }
            }
            Some(Ok(WatchItem::Reset { first, .. })) => seen.resets += u64::from(first),
            Some(Ok(WatchItem::Progress { .. })) => {}
            Some(Err(error)) => return Err(error.into()),
            None => return Err(BenchError::system("a watch", "has ended")),
        }
    }
}
