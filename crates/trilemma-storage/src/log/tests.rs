//! The log against rot, a full disk and a failing sync, and what it does when all is well.

mod crash;
mod invariants;
mod rot;

use trilemma_core::Rng;

use super::*;
use crate::log::format::SEGMENT_HEADER_BYTES;
use crate::memory::{MemoryDisk, MemoryFaults};

const OPTIONS: LogOptions = LogOptions {
    segment_bytes: 8192,
    new_log_id: 42,
};
const KEYSPACE: KeyspaceId = KeyspaceId(7);

type Records = Vec<(u64, Vec<u8>)>;

fn open_at(disk: &MemoryDisk, snapshot: LogSeq) -> Result<(Log<MemoryDisk>, Recovery, Records), LogError> {
    let mut records = Records::new();
    let (log, recovery) = Log::open(disk.clone(), OPTIONS, snapshot, |record: Record<'_>| {
        assert_eq!(record.keyspace, KEYSPACE);
        records.push((record.seq.0, record.payload.to_vec()));
        Ok::<(), LogError>(())
    })?;
    Ok((log, recovery, records))
}

fn open(disk: &MemoryDisk) -> Result<(Log<MemoryDisk>, Recovery, Records), LogError> {
    open_at(disk, LogSeq(0))
}

fn payload(seq: u64) -> Vec<u8> {
    let length = (seq * 37 % 200) as usize;
    let mut payload = seq.to_le_bytes().to_vec();
    payload.resize(8 + length, seq as u8 | 1);
    payload
}

fn append(log: &mut Log<MemoryDisk>, count: u64) {
    for _ in 0..count {
        let seq = log.last().0 + 1;
        assert_eq!(log.append(KEYSPACE, &payload(seq)).unwrap(), LogSeq(seq));
    }
}

fn expected(first: u64, last: u64) -> Records {
    (first..=last).map(|seq| (seq, payload(seq))).collect()
}

#[test]
fn what_was_synced_comes_back_in_order_over_many_segments() {
    let disk = MemoryDisk::new();
    let (mut log, recovery, _) = open(&disk).unwrap();
    assert_eq!(
        recovery,
        Recovery {
            clean: true,
            ..Recovery::default()
        }
    );
    append(&mut log, 300);
    log.sync().unwrap();
    assert!(log.segments.len() > 5);
    drop(log);
    let (mut log, recovery, records) = open(&disk).unwrap();
    assert_eq!(records, expected(1, 300));
    assert!(!recovery.clean);
    append(&mut log, 1);
    log.close().unwrap();
    assert!(matches!(log.append(KEYSPACE, b"late"), Err(LogError::Closed)));
    let (_, recovery, records) = open(&disk).unwrap();
    assert_eq!(records, expected(1, 301));
    assert!(recovery.clean);
}

#[test]
fn many_appends_share_one_sync() {
    let disk = MemoryDisk::new();
    let (mut log, ..) = open(&disk).unwrap();
    let before = disk.syncs();
    append(&mut log, 20);
    log.sync().unwrap();
    assert_eq!(disk.syncs() - before, 1);
    log.sync().unwrap();
    assert_eq!(disk.syncs() - before, 1, "nothing new, nothing to sync");
}

/// A closed log of several segments, and the number of its records.
fn closed_log() -> (MemoryDisk, u64) {
    let disk = MemoryDisk::new();
    let (mut log, ..) = open(&disk).unwrap();
    for _ in 0..10 {
        append(&mut log, 8);
        log.sync().unwrap();
    }
    log.close().unwrap();
    (disk, 80)
}

#[test]
fn a_crash_loses_nothing_durable_and_invents_nothing() {
    crash::many_lives();
}

#[test]
fn every_flipped_bit_of_a_closed_log_is_found_or_harmless() {
    rot::every_bit();
}

#[test]
fn damage_that_is_provably_old_is_refused_and_names_the_place() {
    let disk = MemoryDisk::new();
    let (mut log, ..) = open(&disk).unwrap();
    append(&mut log, 3);
    log.sync().unwrap();
    append(&mut log, 1);
    log.sync().unwrap();
    disk.damage("wal-0000000000000001", 4096 + 20, |bytes| bytes[0] ^= 1);
    let error = open(&disk).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("wal-0000000000000001") && text.contains("offset 4096"),
        "{text}"
    );
    assert!(text.contains("durable"), "{text}");
}

#[test]
fn a_missing_segment_is_refused() {
    let (disk, _) = closed_log();
    for name in ["wal-0000000000000001", "wal-0000000000000002"] {
        let copy = disk.copy();
        copy.remove(name).unwrap();
        assert!(
            matches!(open(&copy), Err(LogError::Corrupt { .. } | LogError::Gap { .. })),
            "without {name}"
        );
    }
}

#[test]
fn a_torn_tail_of_any_length_is_cut_and_never_read_again() {
    let disk = MemoryDisk::new();
    let (mut log, ..) = open(&disk).unwrap();
    append(&mut log, 4);
    log.sync().unwrap();
    let end = log.offset;
    append(&mut log, 6);
    log.write().unwrap();
    let name = "wal-0000000000000001";
    let torn = disk.bytes(name);
    for cut in end..log.offset {
        let copy = disk.copy();
        copy.damage(name, cut, |bytes| bytes.fill(0));
        let (mut log, recovery, records) =
            open(&copy).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        assert!(recovery.last.0 >= 4, "cut at {cut}");
        assert_eq!(records, expected(1, recovery.last.0), "cut at {cut}");
        // New records, shorter than the torn ones, must not be followed by what is left of those.
        log.append(KEYSPACE, &payload(recovery.last.0 + 1)).unwrap();
        log.sync().unwrap();
        let (_, again, records) = open(&copy).unwrap();
        assert_eq!(records, expected(1, recovery.last.0 + 1), "cut at {cut}");
        assert_eq!(again.cut_bytes, 0, "cut at {cut}");
    }
    assert_eq!(torn, disk.bytes(name));
}

#[test]
fn a_recycled_segment_never_shows_its_old_records() {
    let disk = MemoryDisk::new();
    let (mut log, ..) = open(&disk).unwrap();
    append(&mut log, 200);
    log.sync().unwrap();
    log.release(LogSeq(200)).unwrap();
    assert!(!log.spares.is_empty());
    // Rolls into recycled segments, and a crash tears the beginning of one.
    append(&mut log, 60);
    log.sync().unwrap();
    drop(log);
    let (log, _, records) = open_at(&disk, LogSeq(200)).unwrap();
    assert_eq!(records, expected(201, 260));
    assert_eq!(log.last(), LogSeq(260));
}

#[test]
fn a_failed_sync_or_write_ends_the_log_for_good() {
    let faults = [
        MemoryFaults {
            fail_next_sync: true,
            ..MemoryFaults::default()
        },
        MemoryFaults {
            fail_next_write: true,
            ..MemoryFaults::default()
        },
    ];
    for fault in faults {
        let disk = MemoryDisk::new();
        let (mut log, ..) = open(&disk).unwrap();
        append(&mut log, 1);
        log.sync().unwrap();
        append(&mut log, 1);
        disk.set_faults(fault);
        assert!(matches!(log.sync(), Err(LogError::Io { .. })));
        assert!(
            matches!(log.sync(), Err(LogError::Closed)),
            "a second sync may lie, so there is none"
        );
        assert_eq!(log.durable(), LogSeq(1));
    }
}

#[test]
fn a_full_disk_is_said_before_anything_is_lost() {
    let disk = MemoryDisk::new();
    let (mut log, ..) = open(&disk).unwrap();
    disk.set_faults(MemoryFaults {
        room: Some(1000),
        ..MemoryFaults::default()
    });
    let mut refused = None;
    for _ in 0..100 {
        let seq = log.last().0 + 1;
        match log.append(KEYSPACE, &payload(seq)) {
            Ok(_) => {}
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    assert!(matches!(refused, Some(LogError::NoSpace { .. })), "{refused:?}");
    let last = log.last().0;
    assert_eq!(log.durable().0, last, "everything accepted before is durable");
    disk.set_faults(MemoryFaults::default());
    append(&mut log, 5);
    log.sync().unwrap();
    let (_, _, records) = open(&disk).unwrap();
    assert_eq!(records, expected(1, last + 5));
}

/// Appends, syncs and releases until 120 records are durable, on a disk that is full after so many operations. At each
/// refusal `at_refusal` says whether to go on. Returns up to where was released.
fn run_on_a_full_disk(
    disk: &MemoryDisk,
    operations: u64,
    mut at_refusal: impl FnMut(&Log<MemoryDisk>, &LogError) -> bool,
) -> LogSeq {
    let (mut log, ..) = open(disk).unwrap();
    disk.set_faults(MemoryFaults {
        full_after: Some(operations),
        ..MemoryFaults::default()
    });
    let mut released = LogSeq(0);
    while log.durable() < LogSeq(120) {
        let next = log.last().0 + 1;
        let mut step = || {
            log.append(KEYSPACE, &payload(next))?;
            log.sync()?;
            if next % 40 == 0 {
                released = LogSeq(next - 5);
            }
            log.release(released)
        };
        if let Err(error) = step()
            && !at_refusal(&log, &error)
        {
            return released;
        }
        log.check();
    }
    released
}

/// At whichever step of a new segment, or of the end of an old one. They used to end the log.
#[test]
fn a_disk_that_is_full_at_any_operation_ends_no_log_and_loses_nothing() {
    let mut refused = 0;
    for operations in 0..200 {
        let disk = MemoryDisk::new();
        let mut refusals = 0;
        let released = run_on_a_full_disk(&disk, operations, |_, error| {
            assert!(matches!(error, LogError::NoSpace { .. }), "{operations}: {error}");
            refusals += 1;
            if refusals == 3 {
                disk.set_faults(MemoryFaults::default());
            }
            assert!(refusals < 4, "{operations}: there is space again");
            true
        });
        refused += refusals;
        disk.set_faults(MemoryFaults::default());
        let (log, _, records) = open_at(&disk, released).unwrap();
        assert!(log.last() >= LogSeq(120), "{operations}");
        assert_eq!(records, expected(released.0 + 1, log.last().0), "{operations}");
    }
    assert!(refused > 300, "{refused} refusals");
}

/// The power fails so many operations after there is space again.
#[test]
fn a_crash_after_a_full_disk_loses_nothing_durable() {
    for seed in 0..100 {
        for operations in 20..60 {
            let disk = MemoryDisk::new();
            let mut durable = LogSeq(0);
            let released = run_on_a_full_disk(&disk, operations, |log, error| {
                durable = log.durable();
                disk.set_faults(MemoryFaults {
                    operations: Some(seed),
                    ..MemoryFaults::default()
                });
                matches!(error, LogError::NoSpace { .. })
            });
            disk.crash(&mut Rng::new(seed * 1000 + operations));
            let (log, _, records) =
                open_at(&disk, released).unwrap_or_else(|error| panic!("{seed} {operations}: {error}"));
            assert!(log.last() >= durable, "{seed} {operations}");
            assert_eq!(records, expected(released.0 + 1, log.last().0));
        }
    }
}

#[test]
fn nothing_is_appended_to_a_segment_whose_successor_has_begun() {
    let disk = MemoryDisk::new();
    let (mut log, ..) = open(&disk).unwrap();
    append(&mut log, 20);
    log.add_spare(fill_spare(&disk, "spare-9", OPTIONS.segment_bytes).unwrap());
    log.sync().unwrap();
    // The header and the rename find room, the sync of the directory does not.
    disk.set_faults(MemoryFaults {
        full_after: Some(2),
        ..MemoryFaults::default()
    });
    let large = vec![7; log.record_bytes_max()];
    assert!(matches!(
        log.append(KEYSPACE, &large),
        Err(LogError::NoSpace { .. })
    ));
    let names = disk.list().unwrap();
    assert!(
        names.iter().any(|name| name == "wal-0000000000000002"),
        "{names:?}"
    );
    let next = payload(21);
    assert!(matches!(
        log.append(KEYSPACE, &next),
        Err(LogError::NoSpace { .. })
    ));
    assert_eq!(open(&disk.copy()).unwrap().2, expected(1, 20));
    disk.set_faults(MemoryFaults::default());
    append(&mut log, 3);
    log.close().unwrap();
    assert_eq!(open(&disk).unwrap().2, expected(1, 23));
}

#[test]
fn a_record_too_large_is_refused_and_the_log_goes_on() {
    let disk = MemoryDisk::new();
    let (mut log, ..) = open(&disk).unwrap();
    assert!(matches!(
        log.append(KEYSPACE, &[0; 8192]),
        Err(LogError::TooLarge { .. })
    ));
    append(&mut log, 1);
    log.sync().unwrap();
}

#[cfg(unix)]
#[test]
fn a_real_directory_is_locked_recovered_and_checked() {
    let target = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    std::fs::create_dir_all(&target).unwrap();
    let directory = tempfile::tempdir_in(target).unwrap();
    let path = directory.path().join("node");
    let disk = crate::OsDisk::open(&path).unwrap();
    let locked = crate::OsDisk::open(&path).unwrap_err();
    assert!(
        locked.to_string().contains("in use by another process"),
        "{locked}"
    );
    let replay = |_: Record<'_>| Ok::<(), LogError>(());
    let (mut log, _) = Log::open(disk.clone(), OPTIONS, LogSeq(0), replay).unwrap();
    for seq in 1..=100 {
        log.append(KEYSPACE, &payload(seq)).unwrap();
    }
    log.close().unwrap();
    drop(log);
    for sector in 8..16_u64 {
        let mut file = disk.open("wal-0000000000000001").unwrap();
        let mut saved = [0; 512];
        DiskFile::read_at(&file, &mut saved, sector * 512).unwrap();
        file.write_at(&[0xee; 512], sector * 512).unwrap();
        let error = Log::open(disk.clone(), OPTIONS, LogSeq(0), replay).err();
        assert!(
            matches!(error, Some(LogError::Corrupt { .. })),
            "sector {sector}: {error:?}"
        );
        file.write_at(&saved, sector * 512).unwrap();
    }
    let (_, recovery) = Log::open(disk, OPTIONS, LogSeq(0), replay).unwrap();
    assert_eq!((recovery.records, recovery.clean), (100, true));
}

#[test]
fn a_log_ends_without_its_mark_where_the_disk_refuses_writes_in_place() {
    // As a file system that copies on write does when it is full.
    let disk = MemoryDisk::new();
    let (mut log, ..) = open(&disk).unwrap();
    log.append(KEYSPACE, &payload(1)).unwrap();
    log.sync().unwrap();
    disk.set_faults(MemoryFaults {
        refuse_writes: true,
        ..MemoryFaults::default()
    });
    log.close().expect("nothing is lost");
    disk.set_faults(MemoryFaults::default());
    let (_, _, records) = open(&disk).unwrap();
    assert_eq!(records, [(1, payload(1))]);
}

#[test]
fn records_after_a_clean_end_come_back_too() {
    // A mark within a segment has a gap before it; one that does not fit begins the next segment.
    for segment_bytes in [8192, 32 * 1024] {
        let options = LogOptions {
            segment_bytes,
            ..OPTIONS
        };
        let open = |disk: &MemoryDisk| {
            let mut records = Records::new();
            let (log, recovery) = Log::open(disk.clone(), options, LogSeq(0), |record: Record<'_>| {
                records.push((record.seq.0, record.payload.to_vec()));
                Ok::<(), LogError>(())
            })
            .unwrap_or_else(|error| panic!("segments of {segment_bytes}: {error}"));
            (log, recovery, records)
        };
        let disk = MemoryDisk::new();
        let mut expected = Records::new();
        for incarnation in 0..20 {
            let (mut log, recovery, records) = open(&disk);
            assert!(recovery.clean, "incarnation {incarnation}");
            assert_eq!(records, expected, "incarnation {incarnation}");
            for _ in 0..5 {
                let seq = log.last().0 + 1;
                log.append(KEYSPACE, &payload(seq)).unwrap();
                expected.push((seq, payload(seq)));
            }
            log.sync().unwrap();
            // What a kill at this moment would leave.
            let (_, recovery, records) = open(&disk.copy());
            assert!(!recovery.clean, "incarnation {incarnation}");
            assert_eq!(records, expected, "killed in incarnation {incarnation}");
            log.close().unwrap();
        }
    }
}

#[test]
fn options_that_cannot_work_are_refused_and_say_what_can() {
    for segment_bytes in [0, 4096, 8191, u64::MAX] {
        let options = LogOptions {
            segment_bytes,
            ..OPTIONS
        };
        let disk = MemoryDisk::new();
        let opened = Log::open(disk.clone(), options, LogSeq(0), |_| Ok::<(), LogError>(()));
        let error = opened.expect_err("refused").to_string();
        assert!(error.contains("from 8192 to"), "{error}");
        assert!(disk.list().unwrap().is_empty());
    }
}

#[test]
fn the_length_of_segments_may_change_between_starts() {
    let disk = MemoryDisk::new();
    let mut last = 0;
    for segment_bytes in [8192, 32 * 1024, 12_000, 8192] {
        let options = LogOptions {
            segment_bytes,
            ..OPTIONS
        };
        let mut shown = last;
        let (mut log, _) = Log::open(disk.clone(), options, LogSeq(last), |record: Record<'_>| {
            shown = record.seq.0;
            Ok::<(), LogError>(())
        })
        .unwrap();
        assert_eq!(shown, last);
        append(&mut log, 200);
        log.sync().unwrap();
        last = log.last().0;
        log.release(LogSeq(last)).unwrap();
        // Recycled segments of another length are not used.
        append(&mut log, 200);
        last = log.sync().unwrap().0;
        log.release(LogSeq(last)).unwrap();
        assert!(log.segments.iter().all(|segment| segment.bytes == segment_bytes));
    }
    let verified = Log::verify(&disk, LogSeq(last)).unwrap();
    assert!(verified.problems.is_empty(), "{:?}", verified.problems);
}

#[test]
fn a_failing_read_is_reported_and_changes_nothing() {
    let (disk, last) = closed_log();
    disk.set_faults(MemoryFaults {
        fail_next_read: true,
        ..MemoryFaults::default()
    });
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, LogError::Io { .. }), "{error}");
    assert_eq!(open(&disk).unwrap().2, expected(1, last));
}

#[test]
fn a_segment_is_made_ready_ahead() {
    let disk = MemoryDisk::new();
    let (mut log, ..) = open(&disk).unwrap();
    log.prepare_next().unwrap();
    assert_eq!(log.spares(), 0, "not wanted yet");
    while !log.wants_spare() {
        append(&mut log, 1);
        log.write().unwrap();
    }
    log.prepare_next().unwrap();
    assert_eq!(log.spares(), 1);
    // From here on a full disk does not matter until the next segment is full.
    disk.set_faults(MemoryFaults {
        room: Some(0),
        ..MemoryFaults::default()
    });
    while log.spares() == 1 {
        append(&mut log, 1);
    }
    log.close().unwrap();
}

#[test]
fn a_log_without_space_for_its_mark_still_closes() {
    let disk = MemoryDisk::new();
    let (mut log, ..) = open(&disk).unwrap();
    append(&mut log, 4);
    disk.set_faults(MemoryFaults {
        room: Some(0),
        ..MemoryFaults::default()
    });
    // In segments of 8 KiB the mark never fits behind records.
    log.close().unwrap();
    disk.set_faults(MemoryFaults::default());
    let (_, recovery, records) = open(&disk).unwrap();
    assert_eq!(records, expected(1, 4));
    assert!(!recovery.clean);
}

#[test]
fn segments_left_over_by_a_broken_release_go() {
    let (disk, last) = closed_log();
    let copy = disk.copy();
    copy.remove("wal-0000000000000002").unwrap();
    assert!(matches!(open(&copy), Err(LogError::Corrupt { .. })));
    let (log, _, records) = open_at(&copy, LogSeq(60)).unwrap();
    assert_eq!(records, expected(61, last));
    assert_eq!(log.segments[0].index, 3);
    assert!(
        !copy
            .list()
            .unwrap()
            .iter()
            .any(|name| name == "wal-0000000000000001")
    );
}

#[test]
fn a_check_lists_everything_and_changes_nothing() {
    let (disk, last) = closed_log();
    let found = Log::verify(&disk, LogSeq(0)).unwrap();
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    assert_eq!((found.id, found.clean, found.records), (Some(42), true, last));
    assert_eq!((found.first, found.last), (LogSeq(1), LogSeq(last + 1)));
    assert_eq!(found.segments.len(), disk.list().unwrap().len());
    // The first segment has a damaged record, the third a damaged header.
    disk.damage("wal-0000000000000001", 4200, |bytes| bytes[0] ^= 1);
    disk.damage("wal-0000000000000003", 16, |bytes| bytes[0] ^= 1);
    let names = disk.list().unwrap();
    let before: Vec<_> = names.iter().map(|name| disk.bytes(name)).collect();
    let found = Log::verify(&disk, LogSeq(0)).unwrap();
    let problems: Vec<String> = found.problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems.iter().any(|text| text.contains("wal-0000000000000001")));
    assert!(problems.iter().any(|text| text.contains("wal-0000000000000003")));
    let after: Vec<_> = names.iter().map(|name| disk.bytes(name)).collect();
    assert!(before == after && disk.list().unwrap() == names);
    let empty = Log::verify(&MemoryDisk::new(), LogSeq(0)).unwrap();
    assert_eq!((empty.records, empty.id), (0, None));
}

/// The format is frozen: a change of these bytes needs another magic, and a note for who upgrades.
#[test]
fn the_bytes_of_a_segment_are_as_documented() {
    let disk = MemoryDisk::new();
    let (mut log, ..) = open(&disk).unwrap();
    log.append(KEYSPACE, b"hello").unwrap();
    log.sync().unwrap();
    log.append(KEYSPACE, &[]).unwrap();
    log.close().unwrap();
    let hex = |range: std::ops::Range<usize>| -> String {
        let bytes = disk.bytes("wal-0000000000000001");
        bytes[range].iter().map(|byte| format!("{byte:02x}")).collect()
    };
    assert_eq!(
        hex(0..48),
        concat!(
            "5452494c57414c322a00000000000000010000000000000001000000000000000020000000000000",
            "5c3565744c0b6e9d",
        )
    );
    assert_eq!(
        hex(4096..4144),
        concat!(
            "bcff654b394de52a05000000070000000100000000000000000000000000000001000000f08a9a48",
            "68656c6c6f000000",
        )
    );
    assert_eq!(
        hex(4144..4184),
        "3fd465c825327e1d000000000700000002000000000000000100000000000000010000006973ae69"
    );
    let mark = disk.bytes("wal-0000000000000002")[4096..4136].to_vec();
    let mark: String = mark.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        mark,
        "88a274b41d1adbd400000000ffffffff0300000000000000020000000000000002000000fa50956c"
    );
}

#[test]
fn a_spare_with_the_greatest_number_does_not_keep_a_log_from_starting() {
    let disk = MemoryDisk::new();
    let last = format!("spare-{}", u64::MAX);
    disk.create(&last).unwrap();
    let (mut log, ..) = open(&disk).unwrap();
    append(&mut log, 1);
    log.sync().unwrap();
    disk.create(&last).unwrap();
    let (mut log, _, records) = open(&disk).unwrap();
    assert_eq!(records, expected(1, 1));
    assert_ne!(log.spare_name(), log.spare_name());
    assert!(!disk.list().unwrap().contains(&last));
}

#[test]
fn a_record_whose_padding_does_not_fit_was_written_by_no_log() {
    let header = RecordHeader {
        length: 5,
        keyspace: KEYSPACE,
        seq: LogSeq(1),
        durable: LogSeq(0),
        kind: Kind::Record,
    };
    let mut bytes = Vec::new();
    header.write(&mut bytes, b"hello", 42, 1, 4096);
    assert_eq!(
        RecordHeader::read(&bytes, 42, 1, 4096),
        Some((header, &b"hello"[..]))
    );
    bytes.truncate(RECORD_HEADER_BYTES + 5);
    assert_eq!(RecordHeader::read(&bytes, 42, 1, 4096), None);
}

#[test]
fn a_segment_that_the_snapshot_covers_begins_before_the_next() {
    let disk = MemoryDisk::new();
    let (mut log, ..) = open(&disk).unwrap();
    append(&mut log, 300);
    log.sync().unwrap();
    let next = log.segments[1].first;
    drop(log);
    open_at(&disk, LogSeq(300)).unwrap();
    disk.damage(&segment_name(1), 0, |bytes| {
        let bytes = bytes.first_chunk_mut::<SEGMENT_HEADER_BYTES>().unwrap();
        let header = SegmentHeader::decode(bytes).unwrap();
        let first = next.plus(1);
        *bytes = SegmentHeader { first, ..header }.encode();
    });
    let error = open_at(&disk, LogSeq(300)).unwrap_err();
    assert!(error.to_string().contains("it begins with record"), "{error}");
}
