//! What this machine allows at best: a sync of the disk and a QUIC round trip, measured in the same run.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::load::new_histogram;
use crate::{BenchError, Result};

/// Bytes of one write before a sync.
const WRITE_BYTES: usize = 1024;
/// Bytes of the file, zero-filled beforehand as the log's segments are.
const FILE_BYTES: usize = 8 * 1024 * 1024;

/// A latency distribution of one physical operation.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Limit {
    /// Median in microseconds.
    pub p50_us: f64,
    /// 99th percentile in microseconds.
    pub p99_us: f64,
    /// Operations per second of all that ran at once.
    pub per_second: f64,
}

/// The physical limits.
#[derive(Clone, Debug, Serialize)]
pub struct Limits {
    /// fdatasync of 1 KiB into a zero-filled file.
    pub fdatasync: Limit,
    /// The same on three files at once, as three nodes on one disk do.
    pub fdatasync_three: Limit,
    /// A client's round trip to a node over QUIC, for a question that no protocol is asked.
    pub quic_round_trip: Option<Limit>,
}

/// Measures `files` files at once in `directory` for `time`.
pub fn fdatasync(directory: &Path, files: usize, time: Duration) -> Result<Limit> {
    let threads: Vec<_> = (0..files)
        .map(|index| {
            let path = directory.join(format!("fdatasync-{index}"));
            std::thread::spawn(move || one_file(&path, time))
        })
        .collect();
    let mut total = new_histogram()?;
    for thread in threads {
        let histogram = thread
            .join()
            .map_err(|_| BenchError::system("fdatasync", "a thread panicked"))??;
        total
            .add(histogram)
            .map_err(|error| BenchError::system("histogram", error))?;
    }
    Ok(summary(&total, time))
}

pub(crate) fn summary(histogram: &hdrhistogram::Histogram<u64>, time: Duration) -> Limit {
    let micros = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    Limit {
        p50_us: micros(0.5),
        p99_us: micros(0.99),
        per_second: histogram.len() as f64 / time.as_secs_f64(),
    }
}

fn one_file(path: &Path, time: Duration) -> Result<hdrhistogram::Histogram<u64>> {
    let failed = |error: std::io::Error| BenchError::system(path.display().to_string(), error);
    let file = File::create(path).map_err(failed)?;
    file.write_all_at(&vec![0; FILE_BYTES], 0).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    let mut histogram = new_histogram()?;
    let block = [7; WRITE_BYTES];
    let end = Instant::now() + time;
    let mut offset = 0;
    while Instant::now() < end {
        let start = Instant::now();
        file.write_all_at(&block, offset as u64).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        histogram.saturating_record(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        offset = (offset + WRITE_BYTES) % FILE_BYTES;
    }
    std::fs::remove_file(path).map_err(failed)?;
    Ok(histogram)
}
