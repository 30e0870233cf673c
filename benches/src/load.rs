//! Closed-loop load: each client keeps one write in flight; latencies go into one histogram.

use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{BenchError, Result};

/// What one level of load gave.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Clients with one write in flight each.
    pub clients: usize,
    /// Acknowledged writes.
    pub writes: u64,
    /// Writes that failed. A run with failures is no measurement.
    pub failures: u64,
    /// The first failure, if any.
    pub first_failure: Option<String>,
    /// Acknowledged writes per second.
    pub per_second: f64,
    /// Latency in milliseconds.
    pub p50_ms: f64,
    /// Latency in milliseconds.
    pub p99_ms: f64,
    /// Latency in milliseconds.
    pub p999_ms: f64,
    /// CPU seconds of all nodes per 100,000 acknowledged writes.
    pub node_cpu_s_per_100k: f64,
    /// CPU seconds of the load generator per 100,000 acknowledged writes.
    pub client_cpu_s_per_100k: f64,
}

struct Client {
    histogram: Histogram<u64>,
    failures: u64,
    first_failure: Option<String>,
}

/// Runs `clients` clients for `time` after a warm-up of a fifth of it. `write` is given the client's number and a
/// running number and makes one write. Runs on the current thread's `LocalSet`.
pub async fn run<W, F>(clients: usize, time: Duration, write: W) -> Result<(Measured, Duration)>
where
    W: Fn(usize, u64) -> F + 'static,
    F: Future<Output = std::result::Result<(), String>>,
{
    let write = Rc::new(write);
    let start = Instant::now() + time / 5;
    let end = start + time;
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let write = Rc::clone(&write);
            tokio::task::spawn_local(async move { one_client(client, start, end, &*write).await })
        })
        .collect();
    let mut total = new_histogram()?;
    let (mut failures, mut first_failure) = (0, None);
    for task in tasks {
        let client = task
            .await
            .map_err(|error| BenchError::system("a client", error))??;
        total
            .add(client.histogram)
            .map_err(|error| BenchError::system("histogram", error))?;
        failures += client.failures;
        first_failure = first_failure.or(client.first_failure);
    }
    let elapsed = start.elapsed();
    let millis = |quantile| total.value_at_quantile(quantile) as f64 / 1e6;
    let measured = Measured {
        clients,
        writes: total.len(),
        failures,
        first_failure,
        per_second: total.len() as f64 / elapsed.as_secs_f64(),
        p50_ms: millis(0.5),
        p99_ms: millis(0.99),
        p999_ms: millis(0.999),
        node_cpu_s_per_100k: 0.0,
        client_cpu_s_per_100k: 0.0,
    };
    Ok((measured, elapsed))
}

/// Nanoseconds up to a minute, three significant digits.
pub(crate) fn new_histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(|error| BenchError::system("histogram", error))
}

async fn one_client<W, F>(number: usize, start: Instant, end: Instant, write: &W) -> Result<Client>
where
    W: Fn(usize, u64) -> F,
    F: Future<Output = std::result::Result<(), String>>,
{
    let mut client = Client {
        histogram: new_histogram()?,
        failures: 0,
        first_failure: None,
    };
    for sequence in 0.. {
        let sent = Instant::now();
        if sent >= end {
            break;
        }
        let result = write(number, sequence).await;
        if sent < start {
            continue;
        }
        match result {
            Ok(()) => {
                let nanos = u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX);
                client.histogram.saturating_record(nanos);
            }
            Err(why) => {
                client.failures += 1;
                client.first_failure.get_or_insert(why);
            }
        }
    }
    Ok(client)
}

/// CPU time of a process so far, user and system, in seconds (Linux).
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    /// Linux fixes the unit of these figures at 100 a second.
    const TICKS_PER_SECOND: f64 = 100.0;
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).map_err(|error| BenchError::system(&path, error))?;
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: Vec<f64> = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|t| t.parse().ok())
        .collect();
    Ok(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
}

/// Fills in CPU figures from the totals before and after.
pub fn with_cpu(mut measured: Measured, nodes: f64, client: f64) -> Measured {
    let per = 100_000.0 / measured.writes.max(1) as f64;
    measured.node_cpu_s_per_100k = nodes * per;
    measured.client_cpu_s_per_100k = client * per;
    measured
}
