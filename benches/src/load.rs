//! Closed-loop load: each client keeps one operation in flight; latencies go into one histogram.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::report::Measurement;
use crate::{BenchError, Result};

/// A system is warm when two seconds in a row differ by no more than this part. A virtual machine that still compiles is
/// none.
const WARM: f64 = 0.1;
/// Longest time to get warm. Some disks never are.
const WARM_UP_MAX: Duration = Duration::from_secs(15);

/// What some clients did for some time.
#[derive(Clone, Debug)]
pub struct Load {
    /// Clients with one operation in flight each.
    pub clients: usize,
    /// Latency of each operation that began in that time, in nanoseconds.
    pub histogram: Histogram<u64>,
    /// Operations that were answered in that time, per second.
    pub per_second: f64,
    /// Operations that failed.
    pub failures: u64,
    /// The first of them.
    pub first_failure: Option<String>,
    /// CPU seconds of the servers, for each 100,000 operations.
    pub servers_cpu: f64,
    /// CPU seconds of this process, for each 100,000 operations.
    pub clients_cpu: f64,
}

impl Load {
    /// As a row of a table; `rate` names what is counted by the second.
    #[must_use]
    pub fn measurement(self, system: impl Into<String>, rate: &'static str) -> Measurement {
        let mut measurement = Measurement::new(system, format!("{} clients", self.clients))
            .figure(rate, self.per_second)
            .times("latency", &self.histogram)
            .figure("node CPU s/100k", self.servers_cpu)
            .figure("own CPU s/100k", self.clients_cpu);
        measurement.failures = self.failures;
        measurement.first_failure = self.first_failure;
        measurement
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Measure,
    Over,
}

struct Shared {
    phase: Cell<Phase>,
    /// Operations that were answered.
    done: Cell<u64>,
}

struct Client {
    histogram: Histogram<u64>,
    failures: u64,
    first_failure: Option<String>,
}

/// Runs `clients` clients for `time`, once they are warm. `operation` is given the client's number and a running number.
/// `cpu` tells the CPU seconds of the servers so far. Runs on the current thread's `LocalSet`.
pub async fn closed<O, F>(
    clients: usize,
    time: Duration,
    cpu: impl Fn() -> Result<f64>,
    operation: O,
) -> Result<Load>
where
    O: Fn(usize, u64) -> F + 'static,
    F: Future<Output = std::result::Result<(), String>>,
{
    let operation = Rc::new(operation);
    let shared = Rc::new(Shared {
        phase: Cell::new(Phase::WarmUp),
        done: Cell::new(0),
    });
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (operation, shared) = (Rc::clone(&operation), Rc::clone(&shared));
            tokio::task::spawn_local(async move { one_client(client, &shared, &*operation).await })
        })
        .collect();
    warm_up(&shared).await;
    let before = (shared.done.get(), cpu()?, cpu_seconds(std::process::id())?);
    let start = Instant::now();
    shared.phase.set(Phase::Measure);
    tokio::time::sleep(time).await;
    shared.phase.set(Phase::Over);
    let elapsed = start.elapsed().as_secs_f64();
    let done = shared.done.get() - before.0;
    let per_100k = 100_000.0 / done.max(1) as f64;
    let mut load = Load {
        clients,
        histogram: new_histogram()?,
        per_second: done as f64 / elapsed,
        failures: 0,
        first_failure: None,
        servers_cpu: (cpu()? - before.1) * per_100k,
        clients_cpu: (cpu_seconds(std::process::id())? - before.2) * per_100k,
    };
    for task in tasks {
        let client = task
            .await
            .map_err(|error| BenchError::system("a client", error))??;
        load.histogram
            .add(client.histogram)
            .map_err(|error| BenchError::system("histogram", error))?;
        load.failures += client.failures;
        load.first_failure = load.first_failure.or(client.first_failure);
    }
    Ok(load)
}

async fn warm_up(shared: &Shared) {
    let start = Instant::now();
    let mut last: Option<f64> = None;
    let mut before = shared.done.get();
    while start.elapsed() < WARM_UP_MAX {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = shared.done.get();
        let rate = (now - before) as f64;
        if last.is_some_and(|last| (last - rate).abs() <= WARM * last.max(rate)) {
            return;
        }
        (last, before) = (Some(rate), now);
    }
}

async fn one_client<O, F>(number: usize, shared: &Shared, operation: &O) -> Result<Client>
where
    O: Fn(usize, u64) -> F,
    F: Future<Output = std::result::Result<(), String>>,
{
    let mut client = Client {
        histogram: new_histogram()?,
        failures: 0,
        first_failure: None,
    };
    for sequence in 0.. {
        let phase = shared.phase.get();
        if phase == Phase::Over {
            break;
        }
        let sent = Instant::now();
        let result = operation(number, sequence).await;
        match result {
            Ok(()) => {
                shared.done.set(shared.done.get() + 1);
                if phase == Phase::Measure {
                    client.histogram.saturating_record(nanos(sent.elapsed()));
                }
            }
            Err(why) => {
                client.failures += 1;
                client.first_failure.get_or_insert(why);
                // A system that refuses at once must not keep this thread.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    Ok(client)
}

/// Nanoseconds up to a minute, three significant digits.
pub(crate) fn new_histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(|error| BenchError::system("histogram", error))
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
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

/// A figure of a file such as `/proc/PID/status`, by the name at the beginning of its line.
pub(crate) fn process_figure(path: &str, name: &str) -> Result<f64> {
    let text = std::fs::read_to_string(path).map_err(|error| BenchError::system(path, error))?;
    let found = text.lines().find_map(|line| line.strip_prefix(name));
    let number = found.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| BenchError::system(path, format!("no line {name}")))
}
