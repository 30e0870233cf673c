//! Snapshots: the state of all keyspaces at one position of the log, in one file.
//!
//! `snapshot-<position, 16 hex digits>` begins with a header:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `TRILSNP2`; the last byte is the format's version |
//! | 8 | 8 | log id |
//! | 16 | 8 | position: the last record covered |
//! | 24 | 32 | digest of the keyspace table, as the caller gave it; zeros if it gave none |
//! | 56 | 8 | checksum of the 56 bytes before |
//!
//! Frames follow without gaps, in the order in which they were given, the last of kind 2:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | checksum of the rest of header and payload, seeded with log id, position and offset |
//! | 8 | 4 | length of the payload |
//! | 12 | 4 | keyspace |
//! | 16 | 8 | kind: 1 chunk, 2 end; the end's keyspace field counts the chunks |
//! | 24 | … | payload |
//!
//! Integers are little-endian, checksums XXH3 with 64 bits. The seed is `log id ^ position * 0x9e3779b97f4a7c15 ^
//! offset * 0xc2b2ae3d27d4eb4f`, wrapping; the header's is 0.
//!
//! A snapshot is written as `snapshot-unfinished`, synced, read back (every chunk must decode), renamed, and the
//! directory synced; only then are older ones removed and may the log release what it covers. So there is always one
//! whole snapshot with all of the log after it. One is kept: an older one helps only with the log behind it, which would double the disk's use for a fault that
//! the other nodes repair. So damage to the newest is refused, never papered over with an older one whose log is gone.
//!
//! [`write()`] needs nothing of a [`Log`](crate::Log) and may run on another thread while the log goes on.

use std::collections::BTreeMap;
use std::io;

use trilemma_core::checkpoint::{CHUNK_BYTES_MAX, STORED_CHUNK_BYTES_MAX};
use trilemma_core::{Checkpoint, Corrupt, KeyspaceId};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::LogSeq;
use crate::disk::{Disk, DiskFile};
use crate::error::SnapshotError;

/// Bytes gathered before a write.
const WRITE_BYTES: usize = 1024 * 1024;

/// Bytes after which what was written is synced. Left to the end, a state of gigabytes would go to the disk at once, and
/// all who wait for a sync of the log would wait for all of it.
const SYNC_BYTES: u64 = 8 * 1024 * 1024;

/// The last byte is the format's version.
const MAGIC: &[u8; 8] = b"TRILSNP2";
const FILE_HEADER_BYTES: usize = 64;
const HEADER_BYTES: usize = 24;
const CHUNK: u64 = 1;
const END: u64 = 2;
const TEMPORARY: &str = "snapshot-unfinished";

/// The chunks of one keyspace.
pub type Section = (KeyspaceId, Checkpoint);

/// What tells of each keyspace whether its chunks could be read.
type Checks = BTreeMap<KeyspaceId, fn(&[u8]) -> Result<(), Corrupt>>;

fn name(at: LogSeq) -> String {
    format!("snapshot-{:016x}", at.0)
}

fn position(name: &str) -> Option<LogSeq> {
    let digits = name.strip_prefix("snapshot-")?;
    (digits.len() == 16)
        .then(|| u64::from_str_radix(digits, 16).ok().map(LogSeq))
        .flatten()
}

fn seed(log_id: u64, at: LogSeq, offset: u64) -> u64 {
    log_id ^ at.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ offset.wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
}

/// A digest of whatever must be the same when a snapshot is read, such as the keyspace table. Not interpreted.
pub type TableDigest = [u8; 32];

/// Writes a snapshot that covers the log up to and including `at`, which must be durable in the log already.
///
/// The file is read back before the former snapshot is removed: every chunk must decode, or all of it is an error. After
/// an error the former snapshot is there, and perhaps this one; the log must not release anything. Returns what it holds.
pub fn write<D: Disk>(
    disk: &D,
    log_id: u64,
    at: LogSeq,
    sections: impl IntoIterator<Item = Section>,
) -> Result<Summary, SnapshotError> {
    write_with_table(disk, log_id, at, [0; 32], sections)
}

/// [`write()`], with a digest that [`verify`] gives back.
pub fn write_with_table<D: Disk>(
    disk: &D,
    log_id: u64,
    at: LogSeq,
    table: TableDigest,
    sections: impl IntoIterator<Item = Section>,
) -> Result<Summary, SnapshotError> {
    let names = disk.list().map_err(SnapshotError::io("data directory", "list"))?;
    remove_unfinished(disk)?;
    let file = disk
        .create(TEMPORARY)
        .map_err(SnapshotError::io(TEMPORARY, "create"))?;
    let written = fill(file, log_id, at, table, sections);
    let summary = match written.and_then(|checks| read_back(disk, log_id, at, &checks)) {
        Ok(summary) => summary,
        Err(error) => {
            // A full disk needs the space back at once.
            if let Err(leftover) = disk.remove(TEMPORARY) {
                tracing::warn!(file = TEMPORARY, error = %leftover, "an unfinished snapshot could not be removed");
            }
            return Err(error);
        }
    };
    disk.rename(TEMPORARY, &name(at))
        .map_err(SnapshotError::io(TEMPORARY, "rename"))?;
    disk.sync_directory()
        .map_err(SnapshotError::io("data directory", "sync"))?;
    for old in names
        .iter()
        .filter(|old| position(old).is_some_and(|position| position < at))
    {
        disk.remove(old).map_err(SnapshotError::io(old, "remove"))?;
    }
    Ok(summary)
}

fn fill<F: DiskFile>(
    file: F,
    log_id: u64,
    at: LogSeq,
    table: TableDigest,
    sections: impl IntoIterator<Item = Section>,
) -> Result<Checks, SnapshotError> {
    let failed = |action| SnapshotError::io(TEMPORARY, action);
    let mut writer = Writer {
        file,
        log_id,
        at,
        offset: 0,
        synced: 0,
        buffer: file_header(log_id, at, &table).to_vec(),
        chunks: 0,
    };
    let mut checks = Checks::new();
    for (keyspace, chunks) in sections {
        checks.insert(keyspace, chunks.check());
        for chunk in chunks {
            if chunk.len() > CHUNK_BYTES_MAX {
                return Err(SnapshotError::TooLarge {
                    keyspace,
                    size: chunk.len(),
                    limit: CHUNK_BYTES_MAX,
                });
            }
            writer.frame(CHUNK, keyspace.0, &chunk).map_err(failed("write"))?;
            writer.chunks += 1;
        }
    }
    let chunks = writer.chunks;
    writer.frame(END, chunks, &[]).map_err(failed("write"))?;
    writer.finish().map_err(failed("sync"))?;
    Ok(checks)
}

/// Reads the finished file as a start would.
fn read_back<D: Disk>(disk: &D, log_id: u64, at: LogSeq, checks: &Checks) -> Result<Summary, SnapshotError> {
    let file = disk
        .open(TEMPORARY)
        .map_err(SnapshotError::io(TEMPORARY, "open"))?;
    let check = |keyspace: KeyspaceId, chunk: &[u8]| match checks.get(&keyspace) {
        Some(check) => check(chunk).map_err(|why| SnapshotError::Unreadable { keyspace, why }),
        None => Err(SnapshotError::corrupt(
            TEMPORARY,
            0,
            "it has a keyspace that was not written",
        )),
    };
    walk(TEMPORARY, &file, log_id, at, check)
}

fn file_header(log_id: u64, at: LogSeq, table: &TableDigest) -> [u8; FILE_HEADER_BYTES] {
    let mut header = [0; FILE_HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..16].copy_from_slice(&log_id.to_le_bytes());
    header[16..24].copy_from_slice(&at.0.to_le_bytes());
    header[24..56].copy_from_slice(table);
    let checksum = xxh3_64_with_seed(&header[..56], 0);
    header[56..].copy_from_slice(&checksum.to_le_bytes());
    header
}

struct Writer<F> {
    file: F,
    log_id: u64,
    at: LogSeq,
    offset: u64,
    synced: u64,
    buffer: Vec<u8>,
    chunks: u32,
}

impl<F: DiskFile> Writer<F> {
    fn frame(&mut self, kind: u64, keyspace: u32, payload: &[u8]) -> io::Result<()> {
        const {
            assert!(
                CHUNK_BYTES_MAX <= STORED_CHUNK_BYTES_MAX,
                "a start would not read it"
            )
        };
        let start = self.buffer.len();
        let at = self.offset + start as u64;
        self.buffer.extend_from_slice(&[0; 8]);
        self.buffer
            .extend_from_slice(&(payload.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(&keyspace.to_le_bytes());
        self.buffer.extend_from_slice(&kind.to_le_bytes());
        self.buffer.extend_from_slice(payload);
        let checksum = xxh3_64_with_seed(&self.buffer[start + 8..], seed(self.log_id, self.at, at));
        self.buffer[start..start + 8].copy_from_slice(&checksum.to_le_bytes());
        if self.buffer.len() >= WRITE_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        if self.offset - self.synced >= SYNC_BYTES {
            self.file.sync()?;
            self.synced = self.offset;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.file.sync()
    }
}

/// The position of the newest snapshot; 0 if there is none.
pub fn newest<D: Disk>(disk: &D) -> Result<LogSeq, SnapshotError> {
    let names = disk.list().map_err(SnapshotError::io("data directory", "list"))?;
    Ok(names
        .iter()
        .filter_map(|name| position(name))
        .max()
        .unwrap_or_default())
}

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The digest it was written with.
    pub table: TableDigest,
    /// Its chunks.
    pub chunks: u32,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Reads the snapshot at `at`, once. Each chunk is verified before it is shown, and the whole only in the end: after an
/// error all that was shown is to be dropped.
pub fn read<D: Disk, E: From<SnapshotError>>(
    disk: &D,
    log_id: u64,
    at: LogSeq,
    show: impl FnMut(KeyspaceId, &[u8]) -> Result<(), E>,
) -> Result<Summary, E> {
    let name = name(at);
    let file = disk.open(&name).map_err(SnapshotError::io(&name, "open"))?;
    walk(&name, &file, log_id, at, show)
}

/// Removes what a crash has left of a snapshot that was being written: on a full disk its space is needed. Says whether
/// there was one.
pub fn remove_unfinished<D: Disk>(disk: &D) -> Result<bool, SnapshotError> {
    match disk.remove(TEMPORARY) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(SnapshotError::io(TEMPORARY, "remove")(error)),
    }
}

/// Reads and checks all of the snapshot at `at`, and changes nothing.
pub fn verify<D: Disk>(disk: &D, log_id: u64, at: LogSeq) -> Result<Summary, SnapshotError> {
    let name = name(at);
    let file = disk.open(&name).map_err(SnapshotError::io(&name, "open"))?;
    walk(&name, &file, log_id, at, |_, _| Ok::<(), SnapshotError>(()))
}

/// Checks the header against what the file should be; returns the digest.
fn check_header<F: DiskFile>(
    name: &str,
    file: &F,
    length: u64,
    log_id: u64,
    at: LogSeq,
) -> Result<TableDigest, SnapshotError> {
    let corrupt = |offset, what: &str| Err(SnapshotError::corrupt(name, offset, what));
    let mut header = [0; FILE_HEADER_BYTES];
    if length < FILE_HEADER_BYTES as u64 {
        return corrupt(length, "it ends within its header");
    }
    file.read_at(&mut header, 0)
        .map_err(SnapshotError::io(name, "read"))?;
    let mut table = [0; 32];
    table.copy_from_slice(&header[24..56]);
    if header == file_header(log_id, at, &table) {
        return Ok(table);
    }
    let field = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    if header[..8] != MAGIC[..] {
        corrupt(
            0,
            "it is of another version of the format, or its first bytes are damaged",
        )
    } else if field(56) != xxh3_64_with_seed(&header[..56], 0) {
        corrupt(0, "its header is damaged")
    } else if field(8) != log_id {
        corrupt(8, "it belongs to another log")
    } else {
        corrupt(16, "it covers another position than its name says")
    }
}

fn walk<F: DiskFile, E: From<SnapshotError>>(
    name: &str,
    file: &F,
    log_id: u64,
    at: LogSeq,
    mut show: impl FnMut(KeyspaceId, &[u8]) -> Result<(), E>,
) -> Result<Summary, E> {
    let length = file
        .length()
        .map_err(SnapshotError::io(name, "read the length"))?;
    let table = check_header(name, file, length, log_id, at)?;
    let mut offset = FILE_HEADER_BYTES as u64;
    let mut chunks = 0_u32;
    let mut frame = Vec::new();
    loop {
        let corrupt = |what: &str| SnapshotError::corrupt(name, offset, what);
        let mut header = [0; HEADER_BYTES];
        if offset + HEADER_BYTES as u64 > length {
            return Err(corrupt("it ends before its end mark").into());
        }
        file.read_at(&mut header, offset)
            .map_err(SnapshotError::io(name, "read"))?;
        let field = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let payload = field(8) as usize;
        let end = offset + (HEADER_BYTES + payload) as u64;
        if payload > STORED_CHUNK_BYTES_MAX || end > length {
            return Err(corrupt("a frame's length is damaged").into());
        }
        frame.resize(HEADER_BYTES + payload, 0);
        frame[..HEADER_BYTES].copy_from_slice(&header);
        file.read_at(&mut frame[HEADER_BYTES..], offset + HEADER_BYTES as u64)
            .map_err(SnapshotError::io(name, "read"))?;
        let checksum = u64::from_le_bytes(frame[..8].try_into().expect("eight bytes"));
        if xxh3_64_with_seed(&frame[8..], seed(log_id, at, offset)) != checksum {
            return Err(corrupt("a frame is damaged").into());
        }
        let kind = u64::from_le_bytes(frame[16..24].try_into().expect("eight bytes"));
        match kind {
            CHUNK => {
                chunks += 1;
                show(KeyspaceId(field(12)), &frame[HEADER_BYTES..])?;
            }
            END if field(12) == chunks && end == length => {
                return Ok(Summary {
                    table,
                    chunks,
                    bytes: length,
                });
            }
            END => return Err(corrupt("its end mark does not fit what stands before").into()),
            _ => return Err(corrupt("a frame is of no known kind").into()),
        }
        offset = end;
    }
}

#[cfg(test)]
mod tests;
