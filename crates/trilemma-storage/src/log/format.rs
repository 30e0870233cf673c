//! The bytes of segments and records. The crate's documentation has the tables.

use trilemma_core::KeyspaceId;
use trilemma_core::protocol::RECORD_BYTES_MAX;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::LogSeq;

/// Bytes before the first record.
pub(super) const HEADER_BYTES: u64 = 4096;
/// Bytes of a segment's header that are used.
pub(super) const SEGMENT_HEADER_BYTES: usize = 48;
/// Bytes before a record's payload.
pub(super) const RECORD_HEADER_BYTES: usize = 40;
/// Records begin at multiples of this.
pub(super) const ALIGNMENT: usize = 8;

/// The last byte is the format's version.
const MAGIC: &[u8; 8] = b"TRILWAL2";

/// Rounds up to the next place where a record may begin.
pub(super) const fn padded(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}

pub(super) fn segment_name(index: u64) -> String {
    format!("wal-{index:016x}")
}

pub(super) fn segment_index(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("wal-")?;
    (digits.len() == 16)
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) id: u64,
    pub(super) index: u64,
    pub(super) first: LogSeq,
    pub(super) length: u64,
}

impl SegmentHeader {
    pub(super) fn encode(self) -> [u8; SEGMENT_HEADER_BYTES] {
        assert!(
            self.index > 0 && self.first > LogSeq(0),
            "segments and records are numbered from 1"
        );
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        for (at, field) in [
            (8, self.id),
            (16, self.index),
            (24, self.first.0),
            (32, self.length),
        ] {
            bytes[at..at + 8].copy_from_slice(&field.to_le_bytes());
        }
        let checksum = xxh3_64_with_seed(&bytes[..40], 0);
        bytes[40..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a header; says what is wrong with it otherwise.
    pub(super) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, &'static str> {
        if bytes[..8] != MAGIC[..] && bytes[..7] == MAGIC[..7] {
            return Err("the segment is of another version of the format, or its first bytes are damaged");
        }
        if bytes[..8] != MAGIC[..] || u64_at(bytes, 40) != xxh3_64_with_seed(&bytes[..40], 0) {
            return Err("the segment's header is damaged");
        }
        Ok(Self {
            id: u64_at(bytes, 8),
            index: u64_at(bytes, 16),
            first: LogSeq(u64_at(bytes, 24)),
            length: u64_at(bytes, 32),
        })
    }
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What a keyspace appended.
    Record,
    /// The proof that everything before is durable, written when a log is closed.
    CleanEnd,
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) length: u32,
    pub(super) keyspace: KeyspaceId,
    pub(super) seq: LogSeq,
    pub(super) durable: LogSeq,
    pub(super) kind: Kind,
}

/// Mixes the address into a seed, so that a record is valid in one place of one log only.
fn seed(id: u64, segment: u64, offset: u64) -> u64 {
    id ^ segment.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ offset.wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
}

/// Checks a record's header without its payload: the low half of the hash of what stands before.
fn header_check(fields: &[u8], seed: u64) -> u32 {
    xxh3_64_with_seed(fields, seed) as u32
}

impl RecordHeader {
    /// Appends header, payload and padding to `out`.
    pub(super) fn write(&self, out: &mut Vec<u8>, payload: &[u8], id: u64, segment: u64, offset: u64) {
        debug_assert_eq!(
            payload.len(),
            self.length as usize,
            "the header counts its payload"
        );
        debug_assert!(
            offset.is_multiple_of(ALIGNMENT as u64),
            "no record may begin at {offset}"
        );
        debug_assert!(
            self.durable < self.seq,
            "record {} is durable before it is written",
            self.seq
        );
        let start = out.len();
        let kind = match self.kind {
            Kind::Record => 1_u32,
            Kind::CleanEnd => 2,
        };
        let seed = seed(id, segment, offset);
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.keyspace.0.to_le_bytes());
        out.extend_from_slice(&self.seq.0.to_le_bytes());
        out.extend_from_slice(&self.durable.0.to_le_bytes());
        out.extend_from_slice(&kind.to_le_bytes());
        let check = header_check(&out[start + 8..], seed);
        out.extend_from_slice(&check.to_le_bytes());
        out.extend_from_slice(payload);
        let checksum = xxh3_64_with_seed(&out[start + 8..], seed);
        out[start..start + 8].copy_from_slice(&checksum.to_le_bytes());
        out.resize(start + padded(out.len() - start), 0);
    }

    /// Reads the record at the front of `bytes`, which stand at `offset` of the segment. `None` if it is not valid.
    ///
    /// The header is checked by itself first. Recovery tries every place behind a torn record; without that check a
    /// payload made to look like headers of long records would have it hash the same bytes over and over.
    pub(super) fn read(bytes: &[u8], id: u64, segment: u64, offset: u64) -> Option<(Self, &[u8])> {
        if bytes.len() < RECORD_HEADER_BYTES {
            return None;
        }
        let kind = match u32_at(bytes, 32) {
            1 => Kind::Record,
            2 => Kind::CleanEnd,
            _ => return None,
        };
        let seed = seed(id, segment, offset);
        if header_check(&bytes[8..36], seed) != u32_at(bytes, 36) {
            return None;
        }
        let length = u32_at(bytes, 8);
        let end = RECORD_HEADER_BYTES + length as usize;
        // A log writes the padding too, so one that does not fit was written by none.
        if length as usize > RECORD_BYTES_MAX || padded(end) > bytes.len() {
            return None;
        }
        if xxh3_64_with_seed(&bytes[8..end], seed) != u64_at(bytes, 0) {
            return None;
        }
        let header = Self {
            length,
            keyspace: KeyspaceId(u32_at(bytes, 12)),
            seq: LogSeq(u64_at(bytes, 16)),
            durable: LogSeq(u64_at(bytes, 24)),
            kind,
        };
        Some((header, &bytes[RECORD_HEADER_BYTES..end]))
    }

    /// Bytes that the record takes in its segment.
    pub(super) fn size(&self) -> usize {
        padded(RECORD_HEADER_BYTES + self.length as usize)
    }
}
