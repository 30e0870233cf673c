//! Stored bytes change behind the log's back: each sector, each bit. The test knows what every byte belongs to, and
//! for each says exactly what must come of it: refused, cut at the damaged record, or without effect.

use super::*;

/// A stretch of bytes that must not change.
struct Part {
    file: String,
    start: u64,
    end: u64,
    /// The record; `None` for a segment's header.
    seq: Option<u64>,
}

struct Stored {
    disk: MemoryDisk,
    parts: Vec<Part>,
    /// The last record that something proves to have been durable.
    proven: u64,
    /// The last record that is shown.
    last: u64,
}

/// Writes batches of four records. In segments of 8 KiB the mark of a clean end has one of its own, in longer ones it
/// stands behind a gap.
fn stored(batches: u64, segment_bytes: u64, close: bool) -> Stored {
    let disk = MemoryDisk::new();
    let options = LogOptions {
        segment_bytes,
        ..OPTIONS
    };
    let (mut log, _) = Log::open(disk.clone(), options, LogSeq(0), |_| Ok::<(), LogError>(())).unwrap();
    let mut parts: Vec<Part> = Vec::new();
    let mut proven = 0;
    for _ in 0..batches {
        for _ in 0..4 {
            let seq = log.last().0 + 1;
            let body = payload(seq);
            proven = log.durable().0;
            log.append(KEYSPACE, &body).unwrap();
            // A roll syncs, so the record may know more than was known before it.
            proven = proven.max(log.durable().0);
            let end = log.offset + log.buffer.len() as u64;
            let start = end - padded(RECORD_HEADER_BYTES + body.len()) as u64;
            parts.push(Part {
                file: segment_name(log.current().index),
                start,
                end: start + (RECORD_HEADER_BYTES + body.len()) as u64,
                seq: Some(seq),
            });
        }
        log.sync().unwrap();
    }
    let last = log.last().0;
    if close {
        log.close().unwrap();
        proven = last;
        parts.push(Part {
            file: segment_name(log.current().index),
            start: log.offset - RECORD_HEADER_BYTES as u64,
            end: log.offset,
            seq: Some(last + 1),
        });
    }
    for file in disk.list().unwrap() {
        parts.push(Part {
            file,
            start: 0,
            end: SEGMENT_HEADER_BYTES as u64,
            seq: None,
        });
    }
    Stored {
        disk,
        parts,
        proven,
        last,
    }
}

#[derive(Default)]
struct Tally {
    refused: u64,
    cut: u64,
    harmless: u64,
}

impl Stored {
    /// Changes `length` bytes at `offset` and checks what comes of it.
    fn damage(&self, file: &str, offset: u64, length: usize, change: impl Fn(&mut [u8]), tally: &mut Tally) {
        let copy = self.disk.copy();
        copy.damage(file, offset, |bytes| change(&mut bytes[..length]));
        let (before, after) = (self.disk.bytes(file), copy.bytes(file));
        let changed = |part: &&Part| {
            let range = part.start as usize..part.end as usize;
            part.file == file && before[range.clone()] != after[range]
        };
        let hit: Vec<Option<u64>> = self.parts.iter().filter(changed).map(|part| part.seq).collect();
        let what = format!("{file}, offset {offset}, {length} bytes, hits {hit:?}");
        let opened = open(&copy);
        let first = hit.iter().flatten().min().copied();
        if hit.contains(&None) || first.is_some_and(|seq| seq <= self.proven) {
            let error = opened.err().unwrap_or_else(|| panic!("{what}: not refused"));
            assert!(matches!(error, LogError::Corrupt { .. }), "{what}: {error}");
            assert_eq!(
                after,
                copy.bytes(file),
                "{what}: what is refused is left as it is"
            );
            tally.refused += 1;
            return;
        }
        let (_, recovery, records) = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
        let last = first.map_or(self.last, |seq| seq - 1).min(self.last);
        assert!(
            records == expected(1, last),
            "{what}: other records than were appended"
        );
        if first.is_some() {
            assert!(!recovery.clean, "{what}");
            tally.cut += 1;
        } else {
            tally.harmless += 1;
        }
    }

    fn every_sector(&self) -> Tally {
        let mut tally = Tally::default();
        for file in self.disk.list().unwrap() {
            for sector in 0..self.disk.bytes(&file).len() as u64 / 512 {
                self.damage(&file, sector * 512, 512, |bytes| bytes.fill(0), &mut tally);
                self.damage(&file, sector * 512, 512, |bytes| bytes.fill(0xff), &mut tally);
                let flip = |bytes: &mut [u8]| bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
                self.damage(&file, sector * 512, 512, flip, &mut tally);
            }
        }
        tally
    }

    fn every_bit(&self) -> Tally {
        let mut tally = Tally::default();
        for file in self.disk.list().unwrap() {
            let length = self.disk.bytes(&file).len() as u64;
            for offset in (0..length).filter(|offset| !(64..HEADER_BYTES).contains(offset)) {
                for bit in 0..8 {
                    self.damage(&file, offset, 1, |bytes| bytes[0] ^= 1 << bit, &mut tally);
                }
            }
        }
        tally
    }
}

#[test]
fn every_damaged_sector_is_refused_where_proven_and_cut_where_not() {
    for (segment_bytes, close) in [(8192, false), (8192, true), (32 * 1024, false), (32 * 1024, true)] {
        let tally = stored(20, segment_bytes, close).every_sector();
        assert!(tally.refused > 60, "{} refused", tally.refused);
        assert!(tally.cut > 0, "{} cut", tally.cut);
        assert!(tally.harmless > 60, "{} without effect", tally.harmless);
    }
}

pub(super) fn every_bit() {
    for (segment_bytes, close) in [(8192, false), (8192, true), (12 * 1024, true)] {
        let tally = stored(5, segment_bytes, close).every_bit();
        assert!(tally.refused > 10_000, "{} refused", tally.refused);
        assert!(tally.cut >= 40 * 8, "{} cut", tally.cut);
    }
}

/// A disk that writes to the wrong place leaves whole records where others belong.
#[test]
fn records_in_a_wrong_place_are_never_taken() {
    let stored = stored(20, 8192, true);
    let files = stored.disk.list().unwrap();
    let mut tally = Tally::default();
    for from in &files {
        let bytes = stored.disk.bytes(from);
        for to in files.iter().filter(|to| *to != from) {
            for block in (4096..8192).step_by(512) {
                let copied = |target: &mut [u8]| target.copy_from_slice(&bytes[block..block + 512]);
                stored.damage(to, block as u64, 512, copied, &mut tally);
            }
            let all = |target: &mut [u8]| target.copy_from_slice(&bytes[4096..]);
            stored.damage(to, 4096, 4096, all, &mut tally);
        }
    }
    assert!(tally.refused > 50, "{} refused", tally.refused);
}

#[test]
fn what_a_snapshot_covers_was_durable() {
    let disk = MemoryDisk::new();
    let (mut log, ..) = open(&disk).unwrap();
    append(&mut log, 4);
    log.sync().unwrap();
    drop(log);
    let file = "wal-0000000000000001";
    disk.damage(file, 4096, |bytes| bytes[0] ^= 1);
    let damaged = disk.bytes(file);
    // Nothing in the log proves the only batch durable, so without a snapshot it may be a torn write.
    assert_eq!(open(&disk.copy()).unwrap().2, expected(1, 0));
    let error = open_at(&disk, LogSeq(2)).unwrap_err().to_string();
    assert!(error.contains("a snapshot proves"), "{error}");
    assert_eq!(disk.bytes(file), damaged, "the evidence is kept");
}

/// A whole record, found in another record's payload, is not a record.
#[test]
fn a_payload_that_looks_like_a_log_is_only_a_payload() {
    let disk = MemoryDisk::new();
    let (mut log, ..) = open(&disk).unwrap();
    append(&mut log, 3);
    log.sync().unwrap();
    let copy = disk.bytes("wal-0000000000000001")[4096..4096 + 300].to_vec();
    log.append(KEYSPACE, &copy).unwrap();
    log.append(KEYSPACE, &copy).unwrap();
    log.write().unwrap();
    drop(log);
    // The first of the two is torn: recovery looks for records within it and behind it.
    let stored = disk.bytes("wal-0000000000000001");
    let place = stored
        .windows(copy.len())
        .enumerate()
        .filter(|(offset, window)| *offset > 4096 && *window == &copy[..])
        .map(|(offset, _)| offset as u64)
        .next()
        .expect("it was written");
    disk.damage("wal-0000000000000001", place - 1, |bytes| bytes[0] ^= 1);
    let (_, recovery, records) = open(&disk).unwrap();
    assert_eq!(records, expected(1, 3));
    assert_eq!(recovery.cut_records, 1);
}
