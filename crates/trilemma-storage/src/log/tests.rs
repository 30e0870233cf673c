//! The log against crashes, rot, a full disk and a failing sync.

use trilemma_core::Rng;

use super::*;
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

/// Runs a log through appends, syncs, snapshots, rolls and crashes, and checks after each restart that everything
/// reported durable is there and nothing else was invented.
fn crashes(seed: u64) {
    let mut rng = Rng::new(seed);
    let disk = MemoryDisk::new();
    let mut durable = 0;
    let mut snapshot = LogSeq(0);
    // What each position may hold: a crash may lose the end, and other records take its numbers.
    let mut salt: Vec<u64> = vec![0];
    for life in 1..=6 {
        let mut records = Records::new();
        let (mut log, _) = Log::open(disk.clone(), OPTIONS, snapshot, |record: Record<'_>| {
            records.push((record.seq.0, record.payload.to_vec()));
            Ok::<(), LogError>(())
        })
        .unwrap_or_else(|error| panic!("seed {seed}, life {life}: {error}"));
        let last = log.last().0;
        assert!(
            last >= durable,
            "seed {seed}: {durable} was durable, {last} is left"
        );
        assert!(
            last < salt.len() as u64,
            "seed {seed}: record {last} was never appended"
        );
        let first = snapshot.0 + 1;
        assert_eq!(records.len() as u64, last + 1 - first, "seed {seed}");
        for (index, (seq, payload)) in records.iter().enumerate() {
            assert_eq!(*seq, first + index as u64, "seed {seed}");
            assert_eq!(
                payload,
                &body(*seq, salt[*seq as usize]),
                "seed {seed}, record {seq}"
            );
        }
        salt.truncate(last as usize + 1);
        durable = last;
        for _ in 0..rng.below(40) {
            match rng.below(10) {
                0..=5 => {
                    let life_salt = life * 1000 + rng.below(1000);
                    let seq = log.last().0 + 1;
                    log.append(KEYSPACE, &body(seq, life_salt)).unwrap();
                    salt.push(life_salt);
                }
                6 | 7 => {
                    log.write().unwrap();
                }
                8 => durable = log.sync().unwrap().0,
                _ => {
                    durable = log.sync().unwrap().0;
                    snapshot = LogSeq(rng.below(durable + 1).max(snapshot.0));
                    log.release(snapshot).unwrap();
                }
            }
            durable = durable.max(log.durable().0);
        }
        drop(log);
        disk.crash(&mut rng);
    }
}

fn body(seq: u64, salt: u64) -> Vec<u8> {
    let mut rng = Rng::new(seq ^ (salt << 20));
    let length = 8 + rng.below(600) as usize;
    (0..length).map(|_| rng.next_u64() as u8).collect()
}

#[test]
fn a_crash_loses_nothing_durable_and_invents_nothing() {
    let seeds = std::env::var("TRILEMMA_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(2000);
    for seed in 0..seeds {
        crashes(seed);
    }
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

/// Opens a damaged copy: either it is refused, or every record is right. Returns whether it was refused.
fn refused_or_right(disk: &MemoryDisk, last: u64, what: &str) -> bool {
    match open(disk) {
        Err(LogError::Corrupt { .. } | LogError::Gap { .. }) => true,
        Err(other) => panic!("{what}: {other}"),
        Ok((_, _, records)) => {
            assert!(
                records == expected(1, last),
                "{what}: records are missing or wrong"
            );
            false
        }
    }
}

#[test]
fn every_damaged_sector_of_a_closed_log_is_found_or_harmless() {
    let (disk, last) = closed_log();
    let mut refused = 0;
    for name in disk.list().unwrap() {
        for sector in 0..disk.bytes(&name).len() / 512 {
            for fill in [0_u8, 0xff, 0x5a] {
                let copy = disk.copy();
                copy.damage(&name, sector as u64 * 512, |bytes| bytes[..512].fill(fill));
                let what = format!("{name}, sector {sector}, filled with {fill}");
                refused += u32::from(refused_or_right(&copy, last, &what));
            }
        }
    }
    // Seven sectors of each header are unused, and some of the last segment is empty; all else must be noticed.
    assert!(refused > 60, "only {refused} of the damaged sectors were noticed");
}

#[test]
fn every_flipped_bit_of_a_closed_log_is_found_or_harmless() {
    let (disk, last) = closed_log();
    for name in disk.list().unwrap() {
        let length = disk.bytes(&name).len();
        for offset in (0..length).filter(|offset| *offset < 48 || *offset >= 4096) {
            for bit in 0..8 {
                let copy = disk.copy();
                let was = disk.bytes(&name)[offset];
                copy.damage(&name, offset as u64, |bytes| bytes[0] ^= 1 << bit);
                let found = refused_or_right(&copy, last, &format!("{name}, byte {offset}, bit {bit}"));
                // A byte of a record that is not padding can never be changed unnoticed.
                assert!(
                    found || was == 0 || offset >= 4096,
                    "{name}, byte {offset}, bit {bit}"
                );
            }
        }
    }
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
        use std::os::unix::fs::FileExt;
        let file = disk.open("wal-0000000000000001").unwrap();
        let mut saved = [0; 512];
        DiskFile::read_at(&file, &mut saved, sector * 512).unwrap();
        file.write_all_at(&[0xee; 512], sector * 512).unwrap();
        let error = Log::open(disk.clone(), OPTIONS, LogSeq(0), replay).err();
        assert!(
            matches!(error, Some(LogError::Corrupt { .. })),
            "sector {sector}: {error:?}"
        );
        file.write_all_at(&saved, sector * 512).unwrap();
    }
    let (_, recovery) = Log::open(disk, OPTIONS, LogSeq(0), replay).unwrap();
    assert_eq!((recovery.records, recovery.clean), (100, true));
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
        for life in 0..20 {
            let (mut log, recovery, records) = open(&disk);
            assert!(recovery.clean, "life {life}");
            assert_eq!(records, expected, "life {life}");
            for _ in 0..5 {
                let seq = log.last().0 + 1;
                log.append(KEYSPACE, &payload(seq)).unwrap();
                expected.push((seq, payload(seq)));
            }
            log.sync().unwrap();
            // What a kill at this moment would leave.
            let (_, recovery, records) = open(&disk.copy());
            assert!(!recovery.clean, "life {life}");
            assert_eq!(records, expected, "killed in life {life}");
            log.close().unwrap();
        }
    }
}
