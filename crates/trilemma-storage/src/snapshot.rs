//! Snapshots: the state of all keyspaces at one position of the log, in one file.
//!
//! `snapshot-<position, 16 hex digits>` is a sequence of frames. Each has the same header:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | checksum of the rest of header and payload, seeded with log id, position and offset |
//! | 8 | 4 | length of the payload |
//! | 12 | 4 | keyspace |
//! | 16 | 8 | kind: 1 chunk, 2 end; the end's keyspace field counts the chunks |
//! | 24 | … | payload |
//!
//! A snapshot is written under another name, synced, renamed, and the directory synced; only then are older ones
//! removed and may the log let go of what it covers. So there is always one whole snapshot with all of the log behind
//! it, and damage to it is refused rather than papered over with an older one whose log is gone.

use std::io;

use trilemma_core::KeyspaceId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::LogSeq;
use crate::disk::{Disk, DiskFile};
use crate::error::SnapshotError;

/// Largest chunk.
pub const CHUNK_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes gathered before a write.
const WRITE_BYTES: usize = 1024 * 1024;

const HEADER_BYTES: usize = 24;
const CHUNK: u64 = 1;
const END: u64 = 2;
const TEMPORARY: &str = "snapshot-unfinished";

/// The chunks of one keyspace.
pub type Section = (KeyspaceId, Box<dyn Iterator<Item = Vec<u8>> + Send>);

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

/// Writes a snapshot that covers the log up to and including `at`, which must be durable in the log already.
pub fn write<D: Disk>(
    disk: &D,
    log_id: u64,
    at: LogSeq,
    sections: impl IntoIterator<Item = Section>,
) -> Result<(), SnapshotError> {
    let failed = |action| SnapshotError::io(TEMPORARY, action);
    let names = disk.list().map_err(SnapshotError::io("data directory", "list"))?;
    if names.iter().any(|name| name == TEMPORARY) {
        disk.remove(TEMPORARY).map_err(failed("remove"))?;
    }
    let file = disk.create(TEMPORARY).map_err(failed("create"))?;
    let mut writer = Writer {
        file,
        log_id,
        at,
        offset: 0,
        buffer: Vec::new(),
        chunks: 0,
    };
    for (keyspace, chunks) in sections {
        for chunk in chunks {
            writer.frame(CHUNK, keyspace.0, &chunk).map_err(failed("write"))?;
            writer.chunks += 1;
        }
    }
    let chunks = writer.chunks;
    writer.frame(END, chunks, &[]).map_err(failed("write"))?;
    writer.finish().map_err(failed("sync"))?;
    disk.rename(TEMPORARY, &name(at)).map_err(failed("rename"))?;
    disk.sync_directory()
        .map_err(SnapshotError::io("data directory", "sync"))?;
    for old in names
        .iter()
        .filter(|old| position(old).is_some_and(|position| position < at))
    {
        disk.remove(old).map_err(SnapshotError::io(old, "remove"))?;
    }
    Ok(())
}

struct Writer<F> {
    file: F,
    log_id: u64,
    at: LogSeq,
    offset: u64,
    buffer: Vec<u8>,
    chunks: u32,
}

impl<F: DiskFile> Writer<F> {
    fn frame(&mut self, kind: u64, keyspace: u32, payload: &[u8]) -> io::Result<()> {
        assert!(
            payload.len() <= CHUNK_BYTES_MAX,
            "a chunk of {} bytes",
            payload.len()
        );
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

/// Reads the snapshot at `at`. The whole file is verified before the first chunk is shown.
pub fn read<D: Disk, E: From<SnapshotError>>(
    disk: &D,
    log_id: u64,
    at: LogSeq,
    mut show: impl FnMut(KeyspaceId, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let name = name(at);
    let file = disk.open(&name).map_err(SnapshotError::io(&name, "open"))?;
    walk(&name, &file, log_id, at, |_, _| Ok::<(), SnapshotError>(()))?;
    walk(&name, &file, log_id, at, &mut show)
}

fn walk<F: DiskFile, E: From<SnapshotError>>(
    name: &str,
    file: &F,
    log_id: u64,
    at: LogSeq,
    mut show: impl FnMut(KeyspaceId, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let length = file
        .length()
        .map_err(SnapshotError::io(name, "read the length"))?;
    let mut offset = 0;
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
        if payload > CHUNK_BYTES_MAX || end > length {
            return Err(corrupt("a frame's length is damaged").into());
        }
        frame.resize(HEADER_BYTES + payload, 0);
        file.read_at(&mut frame, offset)
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
            END if field(12) == chunks && end == length => return Ok(()),
            END => return Err(corrupt("its end mark does not fit what stands before").into()),
            _ => return Err(corrupt("a frame is of no known kind").into()),
        }
        offset = end;
    }
}

#[cfg(test)]
mod tests;
