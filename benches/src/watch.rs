//! `bench watch`: one writer, many watchers of one range: how long a change takes to reach each of them, and whether one is
//! missing.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Notify;
use trilemma::{Backend, KeyRange, Watch, WatchItem, WatchStart};

use crate::cluster::{Cluster, cpu_of, keyspace};
use crate::load::{nanos, new_histogram};
use crate::report::Measurement;
use crate::{BenchError, Result};

/// Keys that are changed in turn.
const KEYS: u64 = 1000;
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
    /// The backend; one whose watches show every change.
    #[arg(long, default_value = "raft")]
    pub backend: Backend,
}

/// What the writer tells the watchers.
struct Written {
    /// Changes that are acknowledged, once there are no more of them.
    total: Cell<Option<u64>>,
    over: Notify,
}

struct Seen {
    histogram: Histogram<u64>,
    changes: u64,
    missing: u64,
    resets: u64,
}

/// Measures one program.
pub async fn measure(binary: &Path, directory: &Path, options: &Options) -> Result<Vec<Measurement>> {
    let name = keyspace(options.backend);
    let cluster = Cluster::start(binary, directory, &[(name, options.backend)]).await?;
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
    let began = Instant::now();
    let mut opened = Vec::new();
    for watcher in 0..watchers {
        let handle = handles[watcher % handles.len()].clone();
        opened.push(tokio::task::spawn_local(async move {
            let mut watch = handle.watch(KeyRange::prefix("w/"), WatchStart::State).await?;
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
        total: Cell::new(None),
        over: Notify::new(),
    });
    let start = Instant::now();
    let tasks: Vec<_> = watches
        .into_iter()
        .map(|watch| tokio::task::spawn_local(follow(watch, Rc::clone(&written), start)))
        .collect();
    let processes = cluster.processes();
    let cpu = cpu_of(&processes)?;
    let total = write(cluster, options, start).await?;
    written.total.set(Some(total));
    written.over.notify_waiters();
    let mut histogram = new_histogram()?;
    let (mut changes, mut missing, mut resets) = (0, 0, 0);
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
    }
    let cpu = cpu_of(&processes)? - cpu;
    let mut measurement = Measurement::new(options.backend.name(), format!("{watchers} watchers"))
        .figure("open all ms", opening.as_secs_f64() * 1e3)
        .figure("changes/s", changes as f64 / start.elapsed().as_secs_f64())
        .times("put to watcher", &histogram)
        .figure("node CPU s/100k", cpu * 100_000.0 / changes.max(1) as f64)
        .figure("resets", resets as f64);
    measurement.failures = missing;
    measurement.first_failure = (missing > 0).then(|| "a change did not reach a watcher".into());
    Ok(measurement)
}

/// Writes at the rate asked for, whatever the answers take; the number of changes.
async fn write(cluster: &Cluster, options: &Options, start: Instant) -> Result<u64> {
    let handle = cluster
        .handle(&keyspace(options.backend), options.backend)
        .await?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / options.rate.max(1));
    let total = options.seconds * u64::from(options.rate.max(1));
    let mut puts = tokio::task::JoinSet::new();
    for number in 0..total {
        ticks.tick().await;
        let (handle, size) = (handle.clone(), options.value_bytes.max(8));
        puts.spawn_local(async move {
            let mut value = vec![b'v'; size];
            value[..8].copy_from_slice(&nanos(start.elapsed()).to_be_bytes());
            handle.put(format!("w/{}", number % KEYS), value).await
        });
    }
    while let Some(put) = puts.join_next().await {
        put.map_err(|error| BenchError::system("the writer", error))??;
    }
    Ok(total)
}

async fn follow(mut watch: Watch, written: Rc<Written>, start: Instant) -> Result<Seen> {
    let mut seen = Seen {
        histogram: new_histogram()?,
        changes: 0,
        missing: 0,
        resets: 0,
    };
    let mut position = 0;
    loop {
        let total = written.total.get();
        if total.is_some_and(|total| seen.changes >= total) {
            return Ok(seen);
        }
        let item = tokio::select! {
            item = watch.next() => item,
            () = written.over.notified(), if total.is_none() => continue,
            () = tokio::time::sleep(PATIENCE), if total.is_some() => {
                seen.missing = total.unwrap_or_default() - seen.changes;
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
                }
            }
            Some(Ok(WatchItem::Reset { first, .. })) => seen.resets += u64::from(first),
            Some(Ok(WatchItem::Progress { .. })) => {}
            Some(Err(error)) => return Err(error.into()),
            None => return Err(BenchError::system("a watch", "has ended")),
        }
    }
}
