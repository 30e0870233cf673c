//! A disk that leaves time to others.
//!
//! A snapshot of gigabytes is encoded, written, read back and decoded. At full speed that takes a processor and the disk
//! for as long as it lasts, and everybody who waits for a turn or a sync waits longer. So its thread rests after each
//! piece, twice as long as the piece has taken: whatever the machine, a snapshot takes a third of one processor.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use trilemma_storage::{Disk, DiskFile};

/// Bytes after which it rests.
const PIECE_BYTES: usize = 1024 * 1024;
/// How often the time of a piece is rested.
const RESTS: u32 = 2;
/// Longest rest: a disk that hangs is not waited for twice, nor is a node that stops.
const REST_MAX: Duration = Duration::from_millis(100);

/// Whether there is anybody to leave time to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace(Arc<AtomicBool>);

impl Pace {
    /// From now on nobody is disturbed, and somebody waits for the end.
    pub(crate) fn hurry(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// How long to rest after a piece that took so long.
    fn rest(&self, took: Duration) -> Duration {
        if self.0.load(Ordering::Relaxed) {
            Duration::ZERO
        } else {
            took.saturating_mul(RESTS).min(REST_MAX)
        }
    }
}

/// A disk at a pace.
#[derive(Clone)]
pub(crate) struct PacedDisk<D> {
    disk: D,
    pace: Pace,
}

impl<D: Disk> PacedDisk<D> {
    pub(crate) fn new(disk: D, pace: Pace) -> Self {
        Self { disk, pace }
    }

    fn paced(&self, file: D::File) -> PacedFile<D::File> {
        PacedFile {
            file,
            pace: self.pace.clone(),
            began: Cell::new(Instant::now()),
            bytes: Cell::new(0),
        }
    }
}

impl<D: Disk> Disk for PacedDisk<D> {
    type File = PacedFile<D::File>;

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn open(&self, name: &str) -> io::Result<Self::File> {
        Ok(self.paced(self.disk.open(name)?))
    }

    fn create(&self, name: &str) -> io::Result<Self::File> {
        Ok(self.paced(self.disk.create(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.disk.sync_directory()
    }
}

/// A file of a [`PacedDisk`].
pub(crate) struct PacedFile<F> {
    file: F,
    pace: Pace,
    /// When the present piece began.
    began: Cell<Instant>,
    /// Its bytes so far.
    bytes: Cell<usize>,
}

impl<F> PacedFile<F> {
    /// Rests if a piece is done. What its caller did between two calls is part of it.
    fn passed(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
        if self.bytes.get() < PIECE_BYTES {
            return;
        }
        std::thread::sleep(self.pace.rest(self.began.get().elapsed()));
        self.began.set(Instant::now());
        self.bytes.set(0);
    }
}

impl<F: DiskFile> DiskFile for PacedFile<F> {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)?;
        self.passed(buffer.len());
        Ok(())
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)?;
        self.passed(bytes.len());
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }
}

#[cfg(test)]
mod tests;
