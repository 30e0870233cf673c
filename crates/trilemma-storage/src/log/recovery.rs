//! Opening a log: reads every segment, cuts a torn tail, refuses what was durable and is damaged.
//!
//! Why a damaged record may be cut, and when not: a crash may lose any of the sectors written since the last sync,
//! so behind a damaged record there may be valid ones that were never acknowledged. Each record says up to where the
//! log was durable when it was written. If any valid record behind the damage says that the damaged one was durable,
//! the damage is not a crash's, and nothing is cut.

use std::collections::{BTreeMap, VecDeque};

use super::format::{
    ALIGNMENT, HEADER_BYTES, Kind, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader,
    segment_index, segment_name,
};
use super::{CLEAN_END_ALIGNMENT, Log, LogOptions, Record, Recovery, Segment, begin, fill_spare};
use crate::LogSeq;
use crate::disk::{Disk, DiskFile};
use crate::error::LogError;

/// Bytes of zeros written at once while a torn tail is wiped.
const WIPE_BYTES: usize = 64 * 1024;

pub(super) fn open<D: Disk, E: From<LogError>>(
    disk: D,
    options: LogOptions,
    snapshot: LogSeq,
    mut replay: impl FnMut(Record<'_>) -> Result<(), E>,
) -> Result<(Log<D>, Recovery), E> {
    let Files {
        mut segments,
        spares,
        next_spare,
    } = Files::list(&disk)?;
    if segments.is_empty() {
        if snapshot > LogSeq(0) {
            return Err(LogError::Gap {
                first: LogSeq(0),
                snapshot,
            }
            .into());
        }
        return Ok(create(disk, options, &spares, next_spare)?);
    }
    let mut state = Scan {
        recovery: Recovery::default(),
        durable: LogSeq(0),
        end: 0,
    };
    let mut known: VecDeque<Segment> = VecDeque::new();
    let mut id = None;
    let mut segment_bytes = options.segment_bytes;
    let last_index = *segments.keys().next_back().expect("there is a segment");
    while let Some((index, name)) = segments.pop_first() {
        let bytes = read_all::<D>(&disk, &name)?;
        let header = check_header(&name, &bytes, index, id)?;
        match known.back() {
            None if header.first > snapshot.plus(1) => {
                return Err(LogError::Gap {
                    first: header.first,
                    snapshot,
                }
                .into());
            }
            None => state.recovery.last = LogSeq(header.first.0 - 1),
            Some(before) if before.index + 1 != index => {
                let what = format!("segment {} is missing before it", before.index + 1);
                return Err(LogError::corrupt(&name, 0, what).into());
            }
            Some(_) if header.first != state.recovery.last.plus(1) => {
                let what = format!(
                    "it begins with record {}, the segment before ends with record {}",
                    header.first, state.recovery.last
                );
                return Err(LogError::corrupt(&name, 24, what).into());
            }
            Some(_) => {}
        }
        id = Some(header.id);
        segment_bytes = bytes.len() as u64;
        known.push_back(Segment {
            index,
            first: header.first,
        });
        state.scan(&name, &bytes, &header, snapshot, index == last_index, &mut replay)?;
    }
    let name = segment_name(last_index);
    let mut file = disk.open(&name).map_err(LogError::io(&name, "open"))?;
    state.recovery.cut_bytes = wipe::<D>(&name, &mut file, state.end, segment_bytes)?;
    // What was read is on the disk or in its cache; only a sync tells.
    file.sync().map_err(LogError::io(&name, "sync"))?;
    if state.recovery.last < snapshot {
        return Err(LogError::corrupt(
            &name,
            state.end,
            format!(
                "the log ends with record {}, but the snapshot covers {snapshot}",
                state.recovery.last
            ),
        )
        .into());
    }
    let log = Log {
        disk,
        segment_bytes,
        id: id.expect("a segment was read"),
        segments: known,
        file,
        offset: state.end,
        buffer: Vec::new(),
        last: state.recovery.last,
        written: state.recovery.last,
        durable: state.recovery.last,
        spares,
        next_spare,
        closed: false,
    };
    Ok((log, state.recovery))
}

/// The random id of a directory's log; `None` if there is no log yet.
pub(super) fn id_of<D: Disk>(disk: &D) -> Result<Option<u64>, LogError> {
    let names = disk.list().map_err(LogError::io("data directory", "list"))?;
    let Some((index, name)) = names
        .iter()
        .filter_map(|name| Some((segment_index(name)?, name)))
        .min()
    else {
        return Ok(None);
    };
    let bytes = read_all::<D>(disk, name)?;
    Ok(Some(check_header(name, &bytes, index, None)?.id))
}

/// The log's files in a directory.
struct Files {
    segments: BTreeMap<u64, String>,
    spares: Vec<String>,
    next_spare: u64,
}

impl Files {
    fn list<D: Disk>(disk: &D) -> Result<Self, LogError> {
        let mut files = Self {
            segments: BTreeMap::new(),
            spares: Vec::new(),
            next_spare: 0,
        };
        for name in disk.list().map_err(LogError::io("data directory", "list"))? {
            if let Some(index) = segment_index(&name) {
                files.segments.insert(index, name);
            } else if let Some(number) = name
                .strip_prefix("spare-")
                .and_then(|digits| digits.parse::<u64>().ok())
            {
                // It may be half-made: a crash can come between creating and filling it.
                disk.remove(&name).map_err(LogError::io(&name, "remove"))?;
                files.next_spare = files.next_spare.max(number);
            }
        }
        Ok(files)
    }
}

fn create<D: Disk>(
    disk: D,
    options: LogOptions,
    spares: &[String],
    next_spare: u64,
) -> Result<(Log<D>, Recovery), LogError> {
    debug_assert_eq!(spares.len(), 0, "spares are removed before");
    let spare = format!("spare-{}", next_spare + 1);
    fill_spare(&disk, &spare, options.segment_bytes)?;
    let (file, segment) = begin(
        &disk,
        &spare,
        options.new_log_id,
        1,
        LogSeq(1),
        options.segment_bytes,
    )?;
    let log = Log {
        disk,
        segment_bytes: options.segment_bytes,
        id: options.new_log_id,
        segments: VecDeque::from([segment]),
        file,
        offset: HEADER_BYTES,
        buffer: Vec::new(),
        last: LogSeq(0),
        written: LogSeq(0),
        durable: LogSeq(0),
        spares: Vec::new(),
        next_spare: next_spare + 1,
        closed: false,
    };
    Ok((
        log,
        Recovery {
            clean: true,
            ..Recovery::default()
        },
    ))
}

fn read_all<D: Disk>(disk: &D, name: &str) -> Result<Vec<u8>, LogError> {
    /// A segment longer than this was not written by a log.
    const SEGMENT_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
    let file = disk.open(name).map_err(LogError::io(name, "open"))?;
    let length = file.length().map_err(LogError::io(name, "read the length"))?;
    if !(HEADER_BYTES..=SEGMENT_BYTES_MAX).contains(&length) {
        return Err(LogError::corrupt(
            name,
            length,
            format!("a segment of {length} bytes cannot be"),
        ));
    }
    let mut bytes = vec![0; length as usize];
    file.read_at(&mut bytes, 0).map_err(LogError::io(name, "read"))?;
    Ok(bytes)
}

fn check_header(name: &str, bytes: &[u8], index: u64, id: Option<u64>) -> Result<SegmentHeader, LogError> {
    let fixed = bytes[..SEGMENT_HEADER_BYTES]
        .try_into()
        .expect("the length was checked");
    let header = SegmentHeader::decode(fixed)
        .ok_or_else(|| LogError::corrupt(name, 0, "the segment's header is damaged"))?;
    if header.index != index {
        return Err(LogError::corrupt(
            name,
            16,
            format!("it is segment {} under a wrong name", header.index),
        ));
    }
    if header.length != bytes.len() as u64 {
        let what = format!(
            "the file has {} bytes, its header says {}",
            bytes.len(),
            header.length
        );
        return Err(LogError::corrupt(name, 32, what));
    }
    if id.is_some_and(|id| id != header.id) {
        return Err(LogError::corrupt(name, 8, "it belongs to another log"));
    }
    if header.first == LogSeq(0) {
        return Err(LogError::corrupt(name, 24, "record numbers start at 1"));
    }
    Ok(header)
}

/// What has been read so far.
struct Scan {
    recovery: Recovery,
    /// The furthest that any record says was durable.
    durable: LogSeq,
    /// Where the records of the segment end.
    end: u64,
}

impl Scan {
    fn scan<E: From<LogError>>(
        &mut self,
        name: &str,
        bytes: &[u8],
        header: &SegmentHeader,
        snapshot: LogSeq,
        is_last: bool,
        replay: &mut impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut offset = HEADER_BYTES as usize;
        while let Some((at, record, payload)) = next_record(bytes, header, offset, self.recovery.last) {
            if record.seq != self.recovery.last.plus(1) {
                let what = format!("record {} follows record {}", record.seq, self.recovery.last);
                return Err(LogError::corrupt(name, at as u64, what).into());
            }
            self.recovery.last = record.seq;
            self.recovery.clean = record.kind == Kind::CleanEnd;
            self.durable = self.durable.max(record.durable);
            if record.kind == Kind::Record && record.seq > snapshot {
                self.recovery.records += 1;
                replay(Record {
                    seq: record.seq,
                    keyspace: record.keyspace,
                    payload,
                })?;
            }
            offset = at + record.size();
        }
        self.end = offset as u64;
        let proof = later_records(bytes, header, offset, self.recovery.last);
        let expected = self.recovery.last.plus(1);
        if proof.durable >= expected {
            let what = format!("record {expected} is damaged; a later record proves that it was durable");
            return Err(LogError::corrupt(name, offset as u64, what).into());
        }
        if !is_last && proof.found {
            // A segment is durable before the next one begins.
            let what = format!("record {expected} is damaged within a finished segment");
            return Err(LogError::corrupt(name, offset as u64, what).into());
        }
        Ok(())
    }
}

/// The record at `offset`, or the mark of a clean end at the next block: it stands apart from what it proves, and the
/// next life goes on behind it.
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
    found: bool,
    durable: LogSeq,
}

/// Looks for valid records of this log at or behind `offset`, at every place where one could begin.
fn later_records(bytes: &[u8], header: &SegmentHeader, offset: usize, last: LogSeq) -> Later {
    let mut later = Later {
        found: false,
        durable: LogSeq(0),
    };
    let mut at = offset.next_multiple_of(ALIGNMENT);
    while at + RECORD_HEADER_BYTES <= bytes.len() {
        match RecordHeader::read(&bytes[at..], header.id, header.index, at as u64) {
            Some((record, _)) if record.seq > last => {
                later.found = true;
                later.durable = later.durable.max(record.durable);
                at += record.size();
            }
            _ => at += ALIGNMENT,
        }
    }
    later
}

/// Overwrites what stands behind the last record, so that a fragment can never be read as a record later. Returns how
/// many bytes were not zero.
fn wipe<D: Disk>(name: &str, file: &mut D::File, from: u64, to: u64) -> Result<u64, LogError> {
    let mut buffer = vec![0; WIPE_BYTES];
    let zeros = vec![0; WIPE_BYTES];
    let mut wiped = 0;
    let mut offset = from;
    while offset < to {
        let length = (to - offset).min(WIPE_BYTES as u64) as usize;
        file.read_at(&mut buffer[..length], offset)
            .map_err(LogError::io(name, "read"))?;
        let dirty = buffer[..length].iter().filter(|byte| **byte != 0).count() as u64;
        if dirty > 0 {
            wiped += dirty;
            file.write_at(&zeros[..length], offset)
                .map_err(LogError::io(name, "write"))?;
        }
        offset += length as u64;
    }
    Ok(wiped)
}
