//! Reading segments: which records stand in one, where they end, and whether that end can be a crash's doing.
//!
//! Changes nothing, so that recovery and [`Log::verify`](super::Log::verify) share it.

use std::collections::{BTreeMap, VecDeque};

use super::format::{
    ALIGNMENT, HEADER_BYTES, Kind, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader,
    segment_index,
};
use super::{CLEAN_END_ALIGNMENT, Record, SEGMENT_BYTES_MAX};
use crate::LogSeq;
use crate::disk::{Disk, DiskFile};
use crate::error::LogError;

/// The log's files in a directory.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// By index.
    pub(super) segments: BTreeMap<u64, String>,
    pub(super) spares: Vec<String>,
    /// The greatest number of a spare.
    pub(super) last_spare: u64,
}

impl Files {
    pub(super) fn list<D: Disk>(disk: &D) -> Result<Self, LogError> {
        let mut files = Self::default();
        for name in disk.list().map_err(LogError::io("data directory", "list"))? {
            if let Some(index) = segment_index(&name) {
                files.segments.insert(index, name);
            } else if let Some(number) = name.strip_prefix("spare-").and_then(|digits| digits.parse().ok()) {
                files.last_spare = files.last_spare.max(number);
                files.spares.push(name);
            }
        }
        Ok(files)
    }
}

/// A segment whose header is in order.
#[derive(Clone, Debug)]
pub(super) struct SegmentFile {
    pub(super) name: String,
    pub(super) header: SegmentHeader,
}

impl SegmentFile {
    /// Reads and checks the header of segment `index`. It is durable before the segment gets its name, so damage to
    /// it is never a crash's doing.
    pub(super) fn open<D: Disk>(
        disk: &D,
        index: u64,
        name: String,
        id: Option<u64>,
    ) -> Result<Self, LogError> {
        let file = disk.open(&name).map_err(LogError::io(&name, "open"))?;
        let length = file.length().map_err(LogError::io(&name, "read the length"))?;
        if !(HEADER_BYTES..=SEGMENT_BYTES_MAX).contains(&length) {
            let what = format!("a segment of {length} bytes cannot be");
            return Err(LogError::corrupt(&name, length, what));
        }
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        file.read_at(&mut bytes, 0).map_err(LogError::io(&name, "read"))?;
        let header = SegmentHeader::decode(&bytes).map_err(|what| LogError::corrupt(&name, 0, what))?;
        if header.index != index {
            let what = format!("it is segment {} under a wrong name", header.index);
            return Err(LogError::corrupt(&name, 16, what));
        }
        if header.length != length {
            let what = format!("the file has {length} bytes, its header says {}", header.length);
            return Err(LogError::corrupt(&name, 32, what));
        }
        if id.is_some_and(|id| id != header.id) {
            return Err(LogError::corrupt(&name, 8, "it belongs to another log"));
        }
        if header.first == LogSeq(0) {
            return Err(LogError::corrupt(&name, 24, "record numbers start at 1"));
        }
        Ok(Self { name, header })
    }

    /// The whole file.
    pub(super) fn bytes<D: Disk>(&self, disk: &D) -> Result<Vec<u8>, LogError> {
        let file = disk.open(&self.name).map_err(LogError::io(&self.name, "open"))?;
        let mut bytes = vec![0; self.header.length as usize];
        file.read_at(&mut bytes, 0)
            .map_err(LogError::io(&self.name, "read"))?;
        Ok(bytes)
    }
}

/// What the rest of the directory proves about the end of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Follows {
    /// The next segment, which begins with this record. All before it was durable when the segment was begun.
    Segment(LogSeq),
    /// Nothing: it is the last. A snapshot covers this record, so all up to it was durable.
    Nothing(LogSeq),
}

/// What stands in a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content {
    /// The last record; the one before the segment's first if it has none.
    pub(super) last: LogSeq,
    /// Records of keyspaces.
    pub(super) records: u64,
    /// Records shown to `replay`.
    pub(super) shown: u64,
    /// Whether the last record marks a clean end.
    pub(super) clean: bool,
    /// Where the records end.
    pub(super) end: u64,
    /// Where the records begin that no later one proves to have been durable; `end` if there are none.
    pub(super) unproven: u64,
    /// The number of those records.
    pub(super) unproven_records: u64,
    /// Whole records behind the end: a crash lost something before them.
    pub(super) cut_records: u64,
}

/// Reads the records of a segment, shows those after `snapshot` in order, and refuses damage to what was durable.
pub(super) fn scan<E: From<LogError>>(
    segment: &SegmentFile,
    bytes: &[u8],
    follows: Follows,
    snapshot: LogSeq,
    mut replay: impl FnMut(Record<'_>) -> Result<(), E>,
) -> Result<Content, E> {
    let SegmentFile { name, header } = segment;
    let mut content = Content {
        last: LogSeq(header.first.0 - 1),
        records: 0,
        shown: 0,
        clean: false,
        end: HEADER_BYTES,
        unproven: HEADER_BYTES,
        unproven_records: 0,
        cut_records: 0,
    };
    let mut unproven: VecDeque<(LogSeq, u64)> = VecDeque::new();
    while let Some((at, record, payload)) = next_record(bytes, header, content.end as usize, content.last) {
        if record.seq != content.last.plus(1) {
            let what = format!("record {} follows record {}", record.seq, content.last);
            return Err(LogError::corrupt(name, at as u64, what).into());
        }
        content.last = record.seq;
        content.clean = record.kind == Kind::CleanEnd;
        content.end = (at + record.size()) as u64;
        while unproven.front().is_some_and(|(seq, _)| *seq <= record.durable) {
            unproven.pop_front();
        }
        unproven.push_back((record.seq, at as u64));
        if record.kind == Kind::Record {
            content.records += 1;
            if record.seq > snapshot {
                content.shown += 1;
                replay(Record {
                    seq: record.seq,
                    keyspace: record.keyspace,
                    payload,
                })?;
            }
        }
    }
    content.unproven = unproven.front().map_or(content.end, |(_, at)| *at);
    content.unproven_records = unproven.len() as u64;
    content.cut_records = check_end(segment, bytes, follows, &content)?;
    Ok(content)
}

/// Decides whether the records may end where they do. Returns how many whole records stand behind.
fn check_end(
    segment: &SegmentFile,
    bytes: &[u8],
    follows: Follows,
    content: &Content,
) -> Result<u64, LogError> {
    let expected = content.last.plus(1);
    let refuse = |proof: &str| {
        let what = format!("record {expected} is damaged or missing; {proof} proves that it was durable");
        Err(LogError::corrupt(&segment.name, content.end, what))
    };
    match follows {
        Follows::Segment(first) if first > expected => refuse("the next segment"),
        Follows::Segment(first) if first < expected => {
            let what = format!(
                "it ends with record {}, but the next segment begins with record {first}",
                content.last
            );
            Err(LogError::corrupt(&segment.name, content.end, what))
        }
        Follows::Segment(_) => Ok(0),
        Follows::Nothing(snapshot) => {
            let later = later_records(bytes, &segment.header, content.end as usize, content.last);
            if later.durable >= expected {
                refuse("a later record")
            } else if snapshot >= expected {
                refuse("a snapshot")
            } else {
                Ok(later.count)
            }
        }
    }
}

/// The record at `offset`, or the mark of a clean end at the next block: it stands apart from what it proves, and the
/// next incarnation goes on after it.
fn next_record<'a>(
    bytes: &'a [u8],
    header: &SegmentHeader,
    offset: usize,
    last: LogSeq,
) -> Option<(usize, RecordHeader, &'a [u8])> {
    let read = |at: usize| {
        let (record, payload) = RecordHeader::read(bytes.get(at..)?, header.id, header.index, at as u64)?;
        Some((at, record, payload))
    };
    read(offset).or_else(|| {
        read(offset.next_multiple_of(CLEAN_END_ALIGNMENT as usize))
            .filter(|(_, record, _)| record.kind == Kind::CleanEnd && record.seq == last.plus(1))
    })
}

/// What valid records stand behind a place where none was expected to end.
struct Later {
    count: u64,
    /// The furthest that any of them says was durable.
    durable: LogSeq,
}

/// Looks for valid records of this log at or behind `offset`, at every place where one could begin.
fn later_records(bytes: &[u8], header: &SegmentHeader, offset: usize, last: LogSeq) -> Later {
    let mut later = Later {
        count: 0,
        durable: LogSeq(0),
    };
    let mut at = offset.next_multiple_of(ALIGNMENT);
    while at + RECORD_HEADER_BYTES <= bytes.len() {
        match RecordHeader::read(&bytes[at..], header.id, header.index, at as u64) {
            Some((record, _)) if record.seq > last => {
                later.count += 1;
                later.durable = later.durable.max(record.durable);
                at += record.size();
            }
            _ => at += ALIGNMENT,
        }
    }
    later
}
