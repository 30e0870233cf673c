//! What this machine allows at best, measured in the same run: syncs of the disk, and the way to a neighbour and back.

use std::fs::File;
use std::net::UdpSocket;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::load::{nanos, new_histogram};
use crate::{BenchError, Result};

/// Bytes of one write before a sync.
const WRITE_BYTES: usize = 1024;
/// Bytes of the file, zero-filled beforehand as the log's segments are.
const FILE_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of one datagram.
const DATAGRAM_BYTES: usize = 256;
/// Time for each limit.
const TIME: Duration = Duration::from_secs(2);

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
pub struct Machine {
    /// Logical processors.
    pub cpus: usize,
    /// fdatasync of 1 KiB into a zero-filled file.
    pub fdatasync: Limit,
    /// The same on three files at once, as three nodes on one disk do.
    pub fdatasync_three: Limit,
    /// A datagram over loopback to another thread, and one back: two hops.
    pub udp_round_trip: Limit,
}

impl Machine {
    /// Measures this machine, with files in `directory`.
    pub fn measure(directory: &Path) -> Result<Self> {
        Ok(Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            fdatasync: fdatasync(directory, 1)?,
            fdatasync_three: fdatasync(directory, 3)?,
            udp_round_trip: udp_round_trip()?,
        })
    }

    /// The least time in microseconds of a write that another node must sync, too: two hops and a sync while three
    /// nodes sync.
    #[must_use]
    pub fn floor_us(&self) -> f64 {
        self.fdatasync_three.p50_us + self.udp_round_trip.p50_us
    }

    /// The limits for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} logical processors; three nodes and the clients on one machine\n\n",
            self.cpus
        );
        for (name, limit) in [
            ("fdatasync 1 KiB, one file", self.fdatasync),
            ("fdatasync 1 KiB, three files", self.fdatasync_three),
            ("UDP round trip, loopback", self.udp_round_trip),
        ] {
            text += &format!(
                "{name:<34} p50 {:>7.0} us   p99 {:>7.0} us   {:>9.0}/s\n",
                limit.p50_us, limit.p99_us, limit.per_second
            );
        }
        text + &format!(
            "floor of a replicated write        {:>11.0} us\n",
            self.floor_us()
        )
    }
}

fn summary(histogram: &hdrhistogram::Histogram<u64>) -> Limit {
    let micros = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    Limit {
        p50_us: micros(0.5),
        p99_us: micros(0.99),
        per_second: histogram.len() as f64 / TIME.as_secs_f64(),
    }
}

fn fdatasync(directory: &Path, files: usize) -> Result<Limit> {
    let threads: Vec<_> = (0..files)
        .map(|index| {
            let path = directory.join(format!("fdatasync-{index}"));
            std::thread::spawn(move || one_file(&path))
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
    Ok(summary(&total))
}

fn one_file(path: &Path) -> Result<hdrhistogram::Histogram<u64>> {
    let failed = |error: std::io::Error| BenchError::system(path.display().to_string(), error);
    let file = File::create(path).map_err(failed)?;
    file.write_all_at(&vec![0; FILE_BYTES], 0).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    let mut histogram = new_histogram()?;
    let block = [7; WRITE_BYTES];
    let end = Instant::now() + TIME;
    let mut offset = 0;
    while Instant::now() < end {
        let start = Instant::now();
        file.write_all_at(&block, offset as u64).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        histogram.saturating_record(nanos(start.elapsed()));
        offset = (offset + WRITE_BYTES) % FILE_BYTES;
    }
    std::fs::remove_file(path).map_err(failed)?;
    Ok(histogram)
}

fn udp_round_trip() -> Result<Limit> {
    let failed = |error: std::io::Error| BenchError::system("UDP over loopback", error);
    let socket = || UdpSocket::bind("127.0.0.1:0").map_err(failed);
    let (here, there) = (socket()?, socket()?);
    here.connect(there.local_addr().map_err(failed)?)
        .map_err(failed)?;
    there
        .connect(here.local_addr().map_err(failed)?)
        .map_err(failed)?;
    here.set_read_timeout(Some(TIME)).map_err(failed)?;
    let echo = std::thread::spawn(move || -> std::io::Result<()> {
        let mut datagram = [0; DATAGRAM_BYTES];
        loop {
            // An empty one is the end.
            match there.recv(&mut datagram)? {
                0 => return Ok(()),
                length => there.send(&datagram[..length])?,
            };
        }
    });
    let mut histogram = new_histogram()?;
    let mut datagram = [7; DATAGRAM_BYTES];
    let end = Instant::now() + TIME;
    while Instant::now() < end {
        let start = Instant::now();
        here.send(&datagram).map_err(failed)?;
        here.recv(&mut datagram).map_err(failed)?;
        histogram.saturating_record(nanos(start.elapsed()));
    }
    here.send(&[]).map_err(failed)?;
    match echo.join() {
        Ok(ended) => ended.map_err(failed)?,
        Err(_) => return Err(BenchError::system("UDP over loopback", "a thread panicked")),
    }
    Ok(summary(&histogram))
}
