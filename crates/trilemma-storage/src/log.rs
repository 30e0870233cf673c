//! The write-ahead log: append, write, sync, roll to the next segment, recycle old ones.
//!
//! Pure over [`Disk`]: no thread, no clock. The crate's documentation has the format and the promises.

mod format;
mod recovery;
mod scan;
mod verify;

use std::collections::{BTreeSet, VecDeque};
use std::io;

use trilemma_core::KeyspaceId;
use trilemma_core::protocol::RECORD_BYTES_MAX;

use crate::LogSeq;
use crate::disk::{Disk, DiskFile};
use crate::error::LogError;

use format::{
    ALIGNMENT, HEADER_BYTES, Kind, RECORD_HEADER_BYTES, RecordHeader, SegmentHeader, padded, segment_name,
};
pub use recovery::ReadLog;
pub use verify::{SegmentSummary, Verification};

/// Largest segment. One is held in memory while it is recovered.
const SEGMENT_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Smallest segment: its header, and a block for the mark of a clean end.
const SEGMENT_BYTES_MIN: u64 = HEADER_BYTES + CLEAN_END_ALIGNMENT;
/// Spare segments kept for reuse; more are removed.
const SPARES_MAX: usize = 3;
/// Bytes written at once while a new segment is zero-filled.
const FILL_BYTES: usize = 1024 * 1024;
/// Bytes of them after which they are synced: a slow disk is seen to go on, and the syncs of records wait for no more.
const FILL_SYNC_BYTES: u64 = 8 * 1024 * 1024;

/// The mark of a clean end begins at a multiple of this.
const CLEAN_END_ALIGNMENT: u64 = 4096;

/// How a log is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Length of each new segment file, from 8 KiB to 4 GiB; 64 MiB is a good choice. At least the header and one
    /// record of [`RECORD_BYTES_MAX`] for general use; tests take less. May change from one start to the next.
    pub segment_bytes: u64,
    /// A random number for a log that does not exist yet.
    pub new_log_id: u64,
}

impl Default for LogOptions {
    /// Segments of 64 MiB. The id is 0: choose a random one.
    fn default() -> Self {
        Self {
            segment_bytes: 64 * 1024 * 1024,
            new_log_id: 0,
        }
    }
}

impl LogOptions {
    fn check(self) -> Result<(), LogError> {
        let (min, max) = (SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        if (min..=max).contains(&self.segment_bytes) {
            return Ok(());
        }
        Err(LogError::SegmentBytes {
            segment_bytes: self.segment_bytes,
            min,
            max,
        })
    }
}

/// One record as recovery shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its position.
    pub seq: LogSeq,
    /// Whose it is.
    pub keyspace: KeyspaceId,
    /// What was appended.
    pub payload: &'a [u8],
}

/// What opening a log found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The last record; 0 if there is none.
    pub last: LogSeq,
    /// Records read.
    pub records: u64,
    /// Whether the log was closed cleanly.
    pub clean: bool,
    /// Bytes behind the last record that were not zero and were wiped. Most of them are no loss: a recycled segment
    /// holds what it held before.
    pub cut_bytes: u64,
    /// Whole records that were cut because a crash lost what stood before them. They were never acknowledged.
    pub cut_records: u64,
    /// Bytes of the last segment in which damage is always distinguished from a torn write: what stands there is proven to have
    /// been durable by what follows.
    pub proven_bytes: u64,
}

/// A segment in use or still holding records that no snapshot covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    index: u64,
    first: LogSeq,
    /// Length of the file.
    bytes: u64,
}

/// A zero-filled file that can become a segment. It is open, so that the log can begin it when the system has no more
/// files to give.
#[derive(Debug)]
pub struct Spare<F> {
    name: String,
    file: F,
}

/// The write-ahead log. See the crate's documentation.
#[derive(Debug)]
pub struct Log<D: Disk> {
    disk: D,
    /// Length of new segments.
    segment_bytes: u64,
    id: u64,
    /// Ascending; the last is the one written to.
    segments: VecDeque<Segment>,
    file: D::File,
    /// Where the next write goes.
    offset: u64,
    /// Records appended but not written.
    buffer: Vec<u8>,
    /// The last record appended.
    last: LogSeq,
    /// The last record written.
    written: LogSeq,
    /// The last record known to be durable.
    durable: LogSeq,
    spares: Vec<Spare<D::File>>,
    last_spare: u64,
    /// The next segment, whose name may not be durable. Nothing is appended before it is: else the segment before it
    /// would end with what this one begins with.
    begun: Option<Spare<D::File>>,
    closed: bool,
}

impl<D: Disk> Log<D> {
    /// Opens the log of a directory, or makes one, and shows every record after `snapshot` in order.
    ///
    /// `replay` may refuse a record; opening then fails with its error, and nothing was changed.
    pub fn open<E: From<LogError>>(
        disk: D,
        options: LogOptions,
        snapshot: LogSeq,
        replay: impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<(Self, Recovery), E> {
        Ok(Self::read(disk, options, snapshot, replay)?.open()?)
    }

    /// The first half of [`Log::open`]: shows every record after `snapshot`, and changes nothing.
    pub fn read<E: From<LogError>>(
        disk: D,
        options: LogOptions,
        snapshot: LogSeq,
        replay: impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<ReadLog<D>, E> {
        recovery::read(disk, options, snapshot, replay)
    }

    /// The random id of a directory's log; `None` if there is no log yet.
    pub fn id_of(disk: &D) -> Result<Option<u64>, LogError> {
        recovery::id_of(disk)
    }

    /// Checks a log without changing anything, and lists all that is wrong with it. `snapshot` is what the newest
    /// snapshot covers. Fails only if the directory cannot be listed. Its writer must not be at work meanwhile: what
    /// it is writing would look torn.
    pub fn verify(disk: &D, snapshot: LogSeq) -> Result<Verification, LogError> {
        verify::verify(disk, snapshot)
    }

    /// The log's random id, which its snapshots carry too.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The last record appended.
    #[must_use]
    pub fn last(&self) -> LogSeq {
        self.last
    }

    /// The last record that was handed to the disk.
    #[must_use]
    pub fn written(&self) -> LogSeq {
        self.written
    }

    /// The last record that is durable.
    #[must_use]
    pub fn durable(&self) -> LogSeq {
        self.durable
    }

    /// Length of the segments that this log makes.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// The largest payload that fits.
    #[must_use]
    pub fn record_bytes_max(&self) -> usize {
        RECORD_BYTES_MAX.min((self.segment_bytes - HEADER_BYTES) as usize - RECORD_HEADER_BYTES)
    }

    /// Bytes appended but not yet handed to the disk.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Appends a record to the buffer. It is durable after [`Log::sync`].
    ///
    /// [`LogError::TooLarge`] and [`LogError::NoSpace`] leave the log as it was: everything appended before is kept,
    /// and this record can be tried again.
    pub fn append(&mut self, keyspace: KeyspaceId, payload: &[u8]) -> Result<LogSeq, LogError> {
        self.push(Kind::Record, keyspace, payload)
    }

    fn push(&mut self, kind: Kind, keyspace: KeyspaceId, payload: &[u8]) -> Result<LogSeq, LogError> {
        self.check_open()?;
        let limit = self.record_bytes_max();
        if payload.len() > limit {
            return Err(LogError::TooLarge {
                size: payload.len(),
                limit,
            });
        }
        let size = padded(RECORD_HEADER_BYTES + payload.len());
        let is_full = self.offset + (self.buffer.len() + size) as u64 > self.current().bytes;
        if is_full || self.begun.is_some() {
            self.roll()?;
        }
        let seq = self.last.plus(1);
        let header = RecordHeader {
            length: payload.len() as u32,
            keyspace,
            seq,
            durable: self.durable,
            kind,
        };
        let index = self.current().index;
        let at = self.offset + self.buffer.len() as u64;
        header.write(&mut self.buffer, payload, self.id, index, at);
        assert!(
            self.offset + self.buffer.len() as u64 == at + size as u64,
            "record {seq} takes the {size} B for which there was room"
        );
        self.last = seq;
        self.check();
        Ok(seq)
    }

    /// The log's invariants, while it is open. Records reach the disk in their order, a segment holds what is written
    /// into it, and what waits in the buffer is exactly what is appended and not written. Segments follow each other
    /// without a gap, as recovery refuses one, and no spare waits twice, as it would become two segments.
    pub(crate) fn check(&self) {
        if self.closed {
            return;
        }
        assert!(
            self.durable <= self.written && self.written <= self.last,
            "durable {}, written {}, appended {}",
            self.durable,
            self.written,
            self.last
        );
        assert_eq!(
            self.buffer.is_empty(),
            self.written == self.last,
            "the buffer holds what is not written"
        );
        let current = self.current();
        assert!(
            self.offset >= HEADER_BYTES && self.offset + self.buffer.len() as u64 <= current.bytes,
            "segment {} of {} B is written to at {}",
            current.index,
            current.bytes,
            self.offset
        );
        assert!(
            current.first <= self.last.plus(1),
            "segment {} begins after the last record",
            current.index
        );
        assert!(
            self.offset.is_multiple_of(ALIGNMENT as u64) && self.buffer.len().is_multiple_of(ALIGNMENT),
            "a record at {} + {} B, where none may begin",
            self.offset,
            self.buffer.len()
        );
        assert!(self.spares.len() <= SPARES_MAX + 1, "spares are bounded");
        if cfg!(debug_assertions) {
            let follows = |a: &&Segment, b: &&Segment| a.index + 1 == b.index && a.first <= b.first;
            assert!(
                self.segments.iter().is_sorted_by(follows),
                "segments follow each other: {:?}",
                self.segments
            );
            let names: BTreeSet<&String> = self.spares.iter().map(|spare| &spare.name).collect();
            assert_eq!(names.len(), self.spares.len(), "a spare waits once");
        }
    }

    fn current(&self) -> Segment {
        *self
            .segments
            .back()
            .expect("a log has a segment from the moment it is open")
    }

    fn check_open(&self) -> Result<(), LogError> {
        if self.closed {
            Err(LogError::Closed)
        } else {
            Ok(())
        }
    }

    /// Closes the log for good when `result` is a failure of the disk.
    fn fatal<T>(&mut self, result: Result<T, LogError>) -> Result<T, LogError> {
        self.closed |= result.is_err();
        result
    }

    /// Hands everything appended to the disk, in one write.
    ///
    /// [`LogError::NoSpace`] leaves the log as it was, to be tried again: a file system that writes nothing in place may
    /// need space for bytes that it has already. Nothing of what may stand there now was promised to anybody.
    pub fn write(&mut self) -> Result<LogSeq, LogError> {
        self.check_open()?;
        if !self.buffer.is_empty() {
            let name = segment_name(self.current().index);
            let written = self.file.write_at(&self.buffer, self.offset);
            match written.map_err(LogError::room(&name, "write")) {
                Err(full @ LogError::NoSpace { .. }) => return Err(full),
                result => self.fatal(result)?,
            }
            self.offset += self.buffer.len() as u64;
            self.buffer.clear();
            self.written = self.last;
        }
        self.check();
        Ok(self.written)
    }

    /// Writes what is appended and makes it durable.
    pub fn sync(&mut self) -> Result<LogSeq, LogError> {
        self.write()?;
        self.sync_written()
    }

    /// Makes durable what is written, whether or not more is appended.
    pub fn sync_written(&mut self) -> Result<LogSeq, LogError> {
        self.check_open()?;
        let written = self.written;
        if self.durable < written {
            let name = segment_name(self.current().index);
            let result = self.file.sync().map_err(LogError::io(&name, "sync"));
            self.fatal(result)?;
            self.durable = written;
        }
        self.check();
        Ok(self.durable)
    }

    /// Goes on in the next segment. The old one is durable first, so that a torn tail can only be in the last.
    ///
    /// [`LogError::NoSpace`] at any step leaves the log as it was, to be tried again.
    fn roll(&mut self) -> Result<(), LogError> {
        self.sync()?;
        assert!(
            self.durable == self.last,
            "a segment ends with what is durable, so that only the last one can be torn"
        );
        let header = SegmentHeader {
            id: self.id,
            index: self.current().index + 1,
            first: self.last.plus(1),
            length: self.segment_bytes,
        };
        let mut spare = self.take_spare()?;
        match begin(&self.disk, &mut spare, &header) {
            Ok(segment) => {
                self.file = spare.file;
                self.segments.push_back(segment);
                self.offset = HEADER_BYTES;
                Ok(())
            }
            Err(full @ LogError::NoSpace { .. }) => {
                if spare.name == segment_name(header.index) {
                    self.begun = Some(spare);
                } else {
                    self.spares.push(spare);
                }
                Err(full)
            }
            Err(error) => self.fatal(Err(error)),
        }
    }

    /// A file of the right length, filled now if none waits. No space for it harms nothing.
    fn take_spare(&mut self) -> Result<Spare<D::File>, LogError> {
        if let Some(mut spare) = self.begun.take() {
            // A sync that has failed may count as done when it is asked for again, so its name is changed once more.
            let name = self.spare_name();
            match self
                .disk
                .rename(&spare.name, &name)
                .map_err(LogError::room(&spare.name, "rename"))
            {
                Ok(()) => spare.name = name,
                Err(full @ LogError::NoSpace { .. }) => {
                    self.begun = Some(spare);
                    return Err(full);
                }
                Err(error) => return self.fatal(Err(error)),
            }
            return Ok(spare);
        }
        if let Some(spare) = self.spares.pop() {
            return Ok(spare);
        }
        let name = self.spare_name();
        match fill_spare(&self.disk, &name, self.segment_bytes) {
            Err(full @ LogError::NoSpace { .. }) => Err(full),
            result => self.fatal(result),
        }
    }

    /// Whether a spare segment should be made ready: the current one is half full and none waits.
    #[must_use]
    pub fn wants_spare(&self) -> bool {
        self.spares.is_empty() && self.offset > self.current().bytes / 2
    }

    /// Spare segments that wait.
    #[must_use]
    pub fn spares(&self) -> usize {
        self.spares.len()
    }

    /// A fresh name for [`fill_spare`]. Each call gives another.
    pub fn spare_name(&mut self) -> String {
        self.last_spare = self.last_spare.wrapping_add(1);
        format!("spare-{}", self.last_spare)
    }

    /// Takes a file that [`fill_spare`] has made ready, with this log's [`Log::segment_bytes`].
    pub fn add_spare(&mut self, spare: Spare<D::File>) {
        self.spares.push(spare);
    }

    /// Makes the next segment ready if one is wanted, in this thread: for hosts without threads, when idle.
    pub fn prepare_next(&mut self) -> Result<(), LogError> {
        self.check_open()?;
        if self.wants_spare() {
            let spare = self.take_spare()?;
            self.add_spare(spare);
        }
        Ok(())
    }

    /// Recycles the segments whose records are all at or before `up_to`, which a durable snapshot covers.
    ///
    /// [`LogError::NoSpace`] leaves the rest of them for another time: a file system may need space to give some back.
    pub fn release(&mut self, up_to: LogSeq) -> Result<(), LogError> {
        self.check_open()?;
        assert!(
            up_to <= self.durable,
            "a snapshot covers records up to {up_to}, and only those up to {} are durable",
            self.durable
        );
        let before = (self.segments.len(), self.spares.len());
        let mut result = Ok(());
        while result.is_ok() && self.segments.len() > 1 && self.segments[1].first <= up_to.plus(1) {
            result = self.release_first();
        }
        if self.segments.len() < before.0 {
            let synced = self
                .disk
                .sync_directory()
                .map_err(LogError::room("data directory", "sync"));
            if synced.is_err() {
                // Their old names may come back, and must not show what would be written into them.
                for spare in self.spares.split_off(before.1) {
                    remove_spare(&self.disk, &spare.name);
                }
            }
            result = result.and(synced);
        }
        self.check();
        match result {
            Err(full @ LogError::NoSpace { .. }) => Err(full),
            result => self.fatal(result),
        }
    }

    /// Recycles the first segment.
    fn release_first(&mut self) -> Result<(), LogError> {
        let name = segment_name(self.segments[0].index);
        let is_wanted = self.spares.len() < SPARES_MAX && self.segments[0].bytes == self.segment_bytes;
        // One that cannot be opened now would be of no use.
        if let (true, Ok(file)) = (is_wanted, self.disk.open(&name)) {
            // Its records name the old index in their checksums, so they can never pass for new ones.
            let spare = self.spare_name();
            let renamed = self.disk.rename(&name, &spare);
            renamed.map_err(LogError::room(&name, "rename"))?;
            self.spares.push(Spare { name: spare, file });
        } else {
            let removed = self.disk.remove(&name);
            removed.map_err(LogError::room(&name, "remove"))?;
        }
        self.segments.pop_front();
        Ok(())
    }

    /// Makes everything durable and leaves a mark that proves it. The log accepts nothing more.
    ///
    /// The mark stands in a block of its own, so that damage to one block takes the mark or records, never both. If
    /// there is no space for it, the log ends without: nothing is lost, only the proof.
    pub fn close(&mut self) -> Result<(), LogError> {
        self.sync()?;
        match self.mark_clean_end() {
            Err(error @ LogError::NoSpace { .. }) => {
                tracing::warn!(%error, "the log ends without the mark of a clean end");
                // What is durable stays; of the mark, nothing is.
                self.buffer.clear();
                self.last = self.written;
            }
            result => result?,
        }
        assert!(
            self.durable == self.last,
            "a log ends with all that it holds durable"
        );
        self.closed = true;
        Ok(())
    }

    fn mark_clean_end(&mut self) -> Result<(), LogError> {
        let aligned = self.offset.next_multiple_of(CLEAN_END_ALIGNMENT);
        if aligned + RECORD_HEADER_BYTES as u64 <= self.current().bytes {
            self.offset = aligned;
        } else {
            self.roll()?;
        }
        self.push(Kind::CleanEnd, KeyspaceId(u32::MAX), &[])?;
        self.sync()?;
        Ok(())
    }
}

/// Makes a zero-filled file that can become a segment. A sync into it later needs no allocation, which makes it about
/// a third cheaper. May run on another thread than the log's.
pub fn fill_spare<D: Disk>(disk: &D, name: &str, segment_bytes: u64) -> Result<Spare<D::File>, LogError> {
    let fill = || -> io::Result<D::File> {
        let mut file = disk.create(name)?;
        let zeros = vec![0; FILL_BYTES.min(segment_bytes as usize)];
        let mut offset = 0;
        while offset < segment_bytes {
            let length = (segment_bytes - offset).min(zeros.len() as u64) as usize;
            file.write_at(&zeros[..length], offset)?;
            offset += length as u64;
            if offset.is_multiple_of(FILL_SYNC_BYTES) && offset < segment_bytes {
                file.sync()?;
            }
        }
        file.sync()?;
        Ok(file)
    };
    match fill() {
        Ok(file) => Ok(Spare {
            name: name.to_owned(),
            file,
        }),
        Err(error) => {
            remove_spare(disk, name);
            Err(LogError::room(name, "zero-fill")(error))
        }
    }
}

/// Removes a spare segment that is of no use. The next start does it if it cannot be done now.
fn remove_spare<D: Disk>(disk: &D, name: &str) {
    match disk.remove(name) {
        Ok(()) => {}
        // It was not even made.
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {}
        Err(leftover) => {
            tracing::warn!(file = name, error = %leftover, "a spare segment could not be removed");
        }
    }
}

/// Makes a spare a segment: the header, then the name, both durable before any record.
///
/// After [`LogError::NoSpace`] it can be tried again, with a spare of whichever name it has then.
fn begin<D: Disk>(disk: &D, spare: &mut Spare<D::File>, header: &SegmentHeader) -> Result<Segment, LogError> {
    let written = spare.file.write_at(&header.encode(), 0);
    written.map_err(LogError::room(&spare.name, "write"))?;
    // Nothing but the header is not durable, and it is written again where this is tried again.
    spare.file.sync().map_err(LogError::room(&spare.name, "sync"))?;
    let name = segment_name(header.index);
    disk.rename(&spare.name, &name)
        .map_err(LogError::room(&spare.name, "rename"))?;
    spare.name = name;
    disk.sync_directory()
        .map_err(LogError::room("data directory", "sync"))?;
    Ok(Segment {
        index: header.index,
        first: header.first,
        bytes: header.length,
    })
}

#[cfg(test)]
mod tests;
