//! Opening a log: reads every segment, cuts a torn tail, refuses what was durable and is damaged.
//!
//! Why a damaged record may be cut, and when not: a crash may lose any of the sectors written since the last sync,
//! so behind a damaged record there may be valid ones that were never acknowledged. Each record says up to where the
//! log was durable when it was written. If any valid record behind the damage says that the damaged one was durable,
//! the damage is not a crash's, and nothing is cut.
//!
//! Why the end of the log is written again: after a failed sync the operating system may hold in its cache, marked as
//! clean, what the disk never got (Rebello et al. 2020, "Can Applications Recover from fsync Failures?"). A restart of
//! the process would read it, sync nothing, and call it durable. So every record that nothing proves to have been
//! durable is written once more, unchanged, before the sync.

use std::collections::VecDeque;

use super::format::{HEADER_BYTES, SegmentHeader};
use super::scan::{Content, Files, Follows, SegmentFile, scan};
use super::{Log, LogOptions, Record, Recovery, Segment, begin, fill_spare};
use crate::LogSeq;
use crate::disk::{Disk, DiskFile};
use crate::error::LogError;

/// Bytes of zeros written at once while a torn tail is wiped.
const WIPE_BYTES: usize = 64 * 1024;

/// A log that was read and is well. Nothing on the disk was changed yet: [`ReadLog::open`] makes it ready for more.
#[derive(Debug)]
pub struct ReadLog<D: Disk> {
    disk: D,
    options: LogOptions,
    files: Files,
    /// `None` if there is no log yet.
    found: Option<FoundLog>,
}

#[derive(Debug)]
struct FoundLog {
    /// Left over, to be removed.
    stale: Vec<SegmentFile>,
    live: Vec<SegmentFile>,
    /// What stands in the last segment, and its bytes.
    content: Content,
    bytes: Vec<u8>,
    recovery: Recovery,
}

pub(super) fn read<D: Disk, E: From<LogError>>(
    disk: D,
    options: LogOptions,
    snapshot: LogSeq,
    mut replay: impl FnMut(Record<'_>) -> Result<(), E>,
) -> Result<ReadLog<D>, E> {
    options.check()?;
    let files = Files::list(&disk)?;
    if files.segments.is_empty() {
        if snapshot > LogSeq(0) {
            let first = LogSeq(0);
            return Err(LogError::Gap { first, snapshot }.into());
        }
        return Ok(ReadLog {
            disk,
            options,
            files,
            found: None,
        });
    }
    let Sequence { stale, live, covered } = sequence(&disk, &files, snapshot)?;
    let mut recovery = Recovery::default();
    let mut end = None;
    for position in covered..live.len() {
        let segment = &live[position];
        let follows = live.get(position + 1).map_or(Follows::Nothing(snapshot), |next| {
            Follows::Segment(next.header.first)
        });
        let bytes = segment.bytes(&disk)?;
        let content = scan(segment, &bytes, follows, snapshot, &mut replay)?;
        recovery.last = content.last;
        recovery.records += content.shown;
        recovery.clean = content.clean;
        recovery.proven_bytes = content.unproven;
        end = Some((content, bytes));
    }
    let (content, bytes) = end.expect("the last segment is always read");
    let found = Some(FoundLog {
        stale,
        live,
        content,
        bytes,
        recovery,
    });
    Ok(ReadLog {
        disk,
        options,
        files,
        found,
    })
}

impl<D: Disk> ReadLog<D> {
    /// Removes what a crash has left behind and makes the end of the log what was read; or makes a log, if there is none.
    pub fn open(self) -> Result<(Log<D>, Recovery), LogError> {
        let Self {
            disk,
            options,
            files,
            found,
        } = self;
        let Some(found) = found else {
            return create(disk, options, &files);
        };
        let FoundLog {
            stale,
            live,
            content,
            bytes,
            mut recovery,
        } = found;
        tidy(&disk, &files, &stale)?;
        let current = live.last().expect("there is a segment");
        let file = mend::<D>(&disk, &current.name, &content, &bytes, &mut recovery)?;
        let segments = live.iter().map(|segment| Segment {
            index: segment.header.index,
            first: segment.header.first,
            bytes: segment.header.length,
        });
        let log = Log {
            disk,
            segment_bytes: options.segment_bytes,
            id: live[0].header.id,
            segments: segments.collect(),
            file,
            offset: content.end,
            buffer: Vec::new(),
            last: content.last,
            written: content.last,
            durable: content.last,
            spares: Vec::new(),
            last_spare: files.last_spare,
            begun: None,
            closed: false,
        };
        log.check();
        Ok((log, recovery))
    }
}

/// The random id of a directory's log; `None` if there is no log yet.
pub(super) fn id_of<D: Disk>(disk: &D) -> Result<Option<u64>, LogError> {
    let Some((index, name)) = Files::list(disk)?.segments.pop_first() else {
        return Ok(None);
    };
    Ok(Some(SegmentFile::open(disk, index, name, None)?.header.id))
}

/// A directory's segments, in order.
pub(super) struct Sequence {
    /// Left over by a release that a crash broke off: a snapshot covers them, and a gap follows.
    pub(super) stale: Vec<SegmentFile>,
    /// Without a gap, from the snapshot or before to the end.
    pub(super) live: Vec<SegmentFile>,
    /// How many of the live ones the snapshot covers wholly. They are not read.
    pub(super) covered: usize,
}

pub(super) fn sequence<D: Disk>(disk: &D, files: &Files, snapshot: LogSeq) -> Result<Sequence, LogError> {
    let mut segments: Vec<SegmentFile> = Vec::new();
    for (index, name) in &files.segments {
        let id = segments.first().map(|first| first.header.id);
        segments.push(SegmentFile::open(disk, *index, name.clone(), id)?);
    }
    let gap = segments
        .windows(2)
        .rposition(|pair| pair[0].header.index + 1 != pair[1].header.index);
    let live = segments.split_off(gap.map_or(0, |gap| gap + 1));
    let stale = segments;
    // Those that the snapshot covers are not read, so nothing else would show that one is not what it says.
    if let Some(pair) = live
        .windows(2)
        .find(|pair| pair[0].header.first > pair[1].header.first)
    {
        let (first, next) = (pair[0].header.first, pair[1].header.first);
        let what = format!("it begins with record {first}, the next segment with record {next}");
        return Err(LogError::corrupt(&pair[0].name, 24, what));
    }
    let first = live[0].header.first;
    if first > snapshot.plus(1) {
        return Err(match stale.last() {
            Some(before) => {
                let what = format!("segment {} is missing before it", before.header.index + 1);
                LogError::corrupt(&live[0].name, 0, what)
            }
            None => LogError::Gap { first, snapshot },
        });
    }
    let covered = live
        .windows(2)
        .take_while(|pair| pair[1].header.first <= snapshot.plus(1))
        .count();
    Ok(Sequence { stale, live, covered })
}

/// Removes what a crash has left behind, and makes sure of the names that were read.
fn tidy<D: Disk>(disk: &D, files: &Files, stale: &[SegmentFile]) -> Result<(), LogError> {
    // A spare may be half-made: a crash can come between creating and filling it.
    let stale = stale.iter().map(|segment| &segment.name);
    for name in files.spares.iter().chain(stale) {
        disk.remove(name).map_err(LogError::io(name, "remove"))?;
    }
    disk.sync_directory()
        .map_err(LogError::io("data directory", "sync"))
}

fn create<D: Disk>(disk: D, options: LogOptions, files: &Files) -> Result<(Log<D>, Recovery), LogError> {
    tidy(&disk, files, &[])?;
    // All spares were just removed, so numbering from the start finds free names.
    let last_spare = files.last_spare.wrapping_add(1);
    let name = format!("spare-{last_spare}");
    let LogOptions {
        segment_bytes,
        new_log_id: id,
    } = options;
    let mut spare = fill_spare(&disk, &name, segment_bytes)?;
    let header = SegmentHeader {
        id,
        index: 1,
        first: LogSeq(1),
        length: segment_bytes,
    };
    let segment = begin(&disk, &mut spare, &header)?;
    let log = Log {
        disk,
        segment_bytes,
        id,
        segments: VecDeque::from([segment]),
        file: spare.file,
        offset: HEADER_BYTES,
        buffer: Vec::new(),
        last: LogSeq(0),
        written: LogSeq(0),
        durable: LogSeq(0),
        spares: Vec::new(),
        last_spare,
        begun: None,
        closed: false,
    };
    let recovery = Recovery {
        clean: true,
        ..Recovery::default()
    };
    Ok((log, recovery))
}

/// Makes the end of the log what was read: writes again what may be in the cache alone, wipes what stands behind the
/// last record, so that a fragment can never be read as a record later, and syncs both.
fn mend<D: Disk>(
    disk: &D,
    name: &str,
    content: &Content,
    bytes: &[u8],
    recovery: &mut Recovery,
) -> Result<D::File, LogError> {
    assert!(
        HEADER_BYTES <= content.unproven
            && content.unproven <= content.end
            && content.end <= bytes.len() as u64,
        "{name}: what is written again is what was read: {content:?}"
    );
    let mut file = disk.open(name).map_err(LogError::io(name, "open"))?;
    let (unproven, end) = (content.unproven as usize, content.end as usize);
    if unproven < end {
        file.write_at(&bytes[unproven..end], content.unproven)
            .map_err(LogError::io(name, "write"))?;
    }
    let zeros = vec![0; WIPE_BYTES];
    let mut offset = end;
    for block in bytes[end..].chunks(WIPE_BYTES) {
        let dirty = block.iter().filter(|byte| **byte != 0).count() as u64;
        if dirty > 0 {
            recovery.cut_bytes += dirty;
            file.write_at(&zeros[..block.len()], offset as u64)
                .map_err(LogError::io(name, "write"))?;
        }
        offset += block.len();
    }
    recovery.cut_records = content.cut_records;
    file.sync().map_err(LogError::io(name, "sync"))?;
    Ok(file)
}
