//! Checking a log without changing it, for an operator's eyes: goes on behind a problem, so that all are listed.

use super::recovery::sequence;
use super::scan::{Files, Follows, SegmentFile, scan};
use crate::LogSeq;
use crate::disk::Disk;
use crate::error::LogError;

/// What [`Log::verify`](super::Log::verify) found.
#[derive(Debug, Default)]
pub struct Verification {
    /// The log's random id; `None` if no segment's header can be read.
    pub id: Option<u64>,
    /// The segments that can be read, in order.
    pub segments: Vec<SegmentSummary>,
    /// Files that wait to become segments.
    pub spares: usize,
    /// Records of keyspaces in all of them.
    pub records: u64,
    /// The first record; 0 if there is none.
    pub first: LogSeq,
    /// The last record; 0 if there is none.
    pub last: LogSeq,
    /// Whether the log was closed cleanly.
    pub clean: bool,
    /// Records at the end that nothing proves to have been durable. Opening the log keeps them.
    pub unproven_records: u64,
    /// Whole records behind the end, which a crash tore. Opening the log cuts them.
    pub cut_records: u64,
    /// Everything that is wrong, in the order of the files. The log can be opened only if there is nothing.
    pub problems: Vec<LogError>,
}

/// One segment of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    /// The file.
    pub file: String,
    /// The number of its first record, whether it has one or not.
    pub first: LogSeq,
    /// The last record that can be read; the one before `first` if there is none.
    pub last: LogSeq,
    /// Records of keyspaces that can be read.
    pub records: u64,
    /// Bytes in use, with the header.
    pub used_bytes: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

pub(super) fn verify<D: Disk>(disk: &D, snapshot: LogSeq) -> Result<Verification, LogError> {
    let files = Files::list(disk)?;
    let mut found = Verification {
        spares: files.spares.len(),
        ..Verification::default()
    };
    let mut segments: Vec<SegmentFile> = Vec::new();
    for (index, name) in &files.segments {
        match SegmentFile::open(disk, *index, name.clone(), found.id) {
            Ok(segment) => {
                found.id = Some(segment.header.id);
                segments.push(segment);
            }
            Err(problem) => found.problems.push(problem),
        }
    }
    if found.problems.is_empty()
        && !segments.is_empty()
        && let Err(problem) = sequence(disk, &files, snapshot)
    {
        found.problems.push(problem);
    }
    for (position, segment) in segments.iter().enumerate() {
        found.segment(disk, segment, segments.get(position + 1), snapshot);
    }
    found.first = found.segments.first().map_or(LogSeq(0), |segment| segment.first);
    if found.last < found.first {
        found.first = LogSeq(0);
    }
    Ok(found)
}

impl Verification {
    fn segment<D: Disk>(
        &mut self,
        disk: &D,
        segment: &SegmentFile,
        next: Option<&SegmentFile>,
        snapshot: LogSeq,
    ) {
        let header = segment.header;
        let follows = match next {
            Some(next) if next.header.index == header.index + 1 => Follows::Segment(next.header.first),
            // A gap, which is listed by itself, or harmless.
            Some(_) => Follows::Nothing(LogSeq(0)),
            None => Follows::Nothing(snapshot),
        };
        let mut last = LogSeq(header.first.0 - 1);
        let mut records = 0;
        let result = segment.bytes(disk).and_then(|bytes| {
            scan(segment, &bytes, follows, LogSeq(0), |record| {
                last = record.seq;
                records += 1;
                Ok::<(), LogError>(())
            })
        });
        let mut summary = SegmentSummary {
            file: segment.name.clone(),
            first: header.first,
            last,
            records,
            used_bytes: header.length,
            bytes: header.length,
        };
        match result {
            Ok(content) => {
                summary.last = content.last;
                summary.used_bytes = content.end;
                self.clean = content.clean;
                self.unproven_records = if next.is_some() {
                    0
                } else {
                    content.unproven_records
                };
                self.cut_records = content.cut_records;
            }
            // Opening does not read what the snapshot covers, so damage there is no reason to refuse.
            Err(_) if next.is_some_and(|next| next.header.first <= snapshot.plus(1)) => {}
            Err(problem) => {
                self.clean = false;
                self.problems.push(problem);
            }
        }
        self.records += summary.records;
        self.last = summary.last;
        self.segments.push(summary);
    }
}
