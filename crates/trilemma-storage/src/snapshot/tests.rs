//! A snapshot is whole or refused, whenever a crash comes.

use trilemma_core::Rng;

use super::*;
use crate::memory::MemoryDisk;

const LOG: u64 = 99;

fn sections(version: u8) -> Vec<Section> {
    let chunks = |keyspace: u32| -> Section {
        let chunks = (0..4_u8).map(move |index| vec![version ^ index; 500 + keyspace as usize]);
        (KeyspaceId(keyspace), Checkpoint::new(chunks, |_| Ok(())))
    };
    vec![chunks(1), chunks(2)]
}

fn load(disk: &MemoryDisk, at: LogSeq) -> Result<Vec<(u32, Vec<u8>)>, SnapshotError> {
    let mut shown = Vec::new();
    read(disk, LOG, at, |keyspace, chunk| {
        shown.push((keyspace.0, chunk.to_vec()));
        Ok::<(), SnapshotError>(())
    })?;
    Ok(shown)
}

fn expected(version: u8) -> Vec<(u32, Vec<u8>)> {
    sections(version)
        .into_iter()
        .flat_map(|(keyspace, chunks)| chunks.map(move |chunk| (keyspace.0, chunk)).collect::<Vec<_>>())
        .collect()
}

#[test]
fn the_newest_is_read_back_and_older_ones_go() {
    let disk = MemoryDisk::new();
    assert_eq!(newest(&disk).unwrap(), LogSeq(0));
    write(&disk, LOG, LogSeq(10), sections(1)).unwrap();
    write(&disk, LOG, LogSeq(20), sections(2)).unwrap();
    assert_eq!(newest(&disk).unwrap(), LogSeq(20));
    assert_eq!(load(&disk, LogSeq(20)).unwrap(), expected(2));
    assert_eq!(disk.list().unwrap(), ["snapshot-0000000000000014"]);
}

#[test]
fn a_large_one_goes_to_the_disk_bit_by_bit() {
    // One sync at the end would keep the log's syncs waiting for all of it.
    const MIB: usize = 1024 * 1024;
    let disk = MemoryDisk::new();
    let chunks = Checkpoint::new((0..40).map(|_| vec![7; MIB]), |_| Ok(()));
    let before = disk.syncs();
    write(&disk, LOG, LogSeq(10), [(KeyspaceId(1), chunks)]).unwrap();
    assert!(disk.syncs() - before >= 5, "{} syncs", disk.syncs() - before);
}

#[test]
fn every_damaged_byte_is_refused_and_named() {
    let disk = MemoryDisk::new();
    write(&disk, LOG, LogSeq(10), sections(1)).unwrap();
    let name = "snapshot-000000000000000a";
    for offset in 0..disk.bytes(name).len() as u64 {
        let copy = disk.copy();
        copy.damage(name, offset, |bytes| bytes[0] ^= 0x10);
        let error = load(&copy, LogSeq(10)).expect_err("damage is found").to_string();
        assert!(
            error.contains(name) && error.contains("offset"),
            "byte {offset}: {error}"
        );
    }
    assert!(
        read(&disk, LOG + 1, LogSeq(10), |_, _| Ok::<(), SnapshotError>(())).is_err(),
        "another log's"
    );
}

#[test]
fn after_a_crash_there_is_always_one_whole_snapshot() {
    for seed in 0..500 {
        let mut rng = Rng::new(seed);
        let disk = MemoryDisk::new();
        write(&disk, LOG, LogSeq(10), sections(1)).unwrap();
        // The second is broken off at some point by a disk that takes no more.
        let room = Some(rng.below(6000));
        disk.set_faults(crate::MemoryFaults {
            room,
            ..crate::MemoryFaults::default()
        });
        let second = write(&disk, LOG, LogSeq(20), sections(2));
        disk.crash(&mut rng);
        let at = newest(&disk).unwrap();
        let version = if at == LogSeq(20) { 2 } else { 1 };
        assert_eq!(load(&disk, at).unwrap(), expected(version), "seed {seed}");
        assert!(
            second.is_err() || at == LogSeq(20),
            "seed {seed}: a finished snapshot is lost"
        );
        write(&disk, LOG, LogSeq(30), sections(3)).unwrap();
        assert_eq!(load(&disk, LogSeq(30)).unwrap(), expected(3), "seed {seed}");
    }
}

/// Breaks the second of two snapshots off at every operation of the disk.
#[test]
fn power_failing_at_every_operation_leaves_a_whole_snapshot() {
    let mut points = 0;
    for operations in 0.. {
        let mut finished = false;
        for seed in 0..40 {
            let disk = MemoryDisk::new();
            write(&disk, LOG, LogSeq(10), sections(1)).unwrap();
            disk.set_faults(crate::MemoryFaults {
                operations: Some(operations),
                ..crate::MemoryFaults::default()
            });
            finished = write(&disk, LOG, LogSeq(20), sections(2)).is_ok();
            disk.crash(&mut Rng::new(seed));
            let at = newest(&disk).unwrap();
            let version = if at == LogSeq(20) { 2 } else { 1 };
            let shown = load(&disk, at).unwrap_or_else(|error| panic!("{operations}, {seed}: {error}"));
            assert_eq!(shown, expected(version), "operation {operations}, seed {seed}");
            assert!(
                !finished || at == LogSeq(20),
                "operation {operations}, seed {seed}"
            );
        }
        if finished {
            break;
        }
        points += 1;
    }
    assert!(
        points >= 6,
        "create, write, sync, rename, sync names, remove: {points}"
    );
}

#[test]
fn a_snapshot_cut_at_any_length_is_refused() {
    let disk = MemoryDisk::new();
    write(&disk, LOG, LogSeq(10), sections(1)).unwrap();
    let name = "snapshot-000000000000000a";
    let bytes = disk.bytes(name);
    for length in 0..bytes.len() {
        let cut = MemoryDisk::new();
        cut.create(name).unwrap().write_at(&bytes[..length], 0).unwrap();
        let error = load(&cut, LogSeq(10)).expect_err("it is cut");
        assert!(
            matches!(error, SnapshotError::Corrupt { .. }),
            "{length}: {error}"
        );
    }
}

#[test]
fn a_failed_snapshot_leaves_no_file_and_the_former_one() {
    let disk = MemoryDisk::new();
    write(&disk, LOG, LogSeq(10), sections(1)).unwrap();
    let large: Section = (
        KeyspaceId(1),
        Checkpoint::new(std::iter::once(vec![0; CHUNK_BYTES_MAX + 1]), |_| Ok(())),
    );
    let error = write(&disk, LOG, LogSeq(20), [large]).unwrap_err();
    assert!(matches!(error, SnapshotError::TooLarge { .. }), "{error}");
    let full = crate::MemoryFaults {
        room: Some(100),
        ..crate::MemoryFaults::default()
    };
    let broken = crate::MemoryFaults {
        fail_next_sync: true,
        ..crate::MemoryFaults::default()
    };
    for faults in [full, broken] {
        disk.set_faults(faults);
        let error = write(&disk, LOG, LogSeq(20), sections(2)).unwrap_err();
        assert!(matches!(error, SnapshotError::Io { .. }), "{error}");
        assert_eq!(disk.list().unwrap(), ["snapshot-000000000000000a"]);
    }
    disk.set_faults(crate::MemoryFaults {
        fail_next_read: true,
        ..crate::MemoryFaults::default()
    });
    assert!(matches!(load(&disk, LogSeq(10)), Err(SnapshotError::Io { .. })));
    assert_eq!(load(&disk, LogSeq(10)).unwrap(), expected(1));
}

/// The format is frozen: a change of these bytes needs another magic, and a note for who upgrades.
#[test]
fn the_bytes_of_a_snapshot_are_as_documented() {
    let disk = MemoryDisk::new();
    let chunks = Checkpoint::new(std::iter::once(b"hello".to_vec()), |_| Ok(()));
    let section: Section = (KeyspaceId(7), chunks);
    write_with_table(&disk, LOG, LogSeq(10), [0xab; 32], [section]).unwrap();
    let bytes = disk.bytes("snapshot-000000000000000a");
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        concat!(
            "5452494c534e503263000000000000000a00000000000000abababababababababababababababab",
            "abababababababababababababababab8dc56df22a52b986d9e9e5bee6ecedc70500000007000000",
            "010000000000000068656c6c6f7ff41d07eb1091cf00000000010000000200000000000000",
        )
    );
    let summary = verify(&disk, LOG, LogSeq(10)).unwrap();
    assert_eq!(
        summary,
        Summary {
            table: [0xab; 32],
            chunks: 1,
            bytes: bytes.len() as u64
        }
    );
}

/// The snapshot was written, the log released, and then nothing could restore the state.
#[test]
fn c1_a_snapshot_that_its_keyspace_cannot_read_back_is_refused_and_the_former_one_stays() {
    let disk = MemoryDisk::new();
    write(&disk, LOG, LogSeq(10), sections(1)).unwrap();
    let check = |chunk: &[u8]| match chunk {
        [3, ..] => Err(Corrupt("a chunk that no decoder takes".into())),
        _ => Ok(()),
    };
    let chunks = Checkpoint::new((0..5).map(|index| vec![index; 100]), check);
    let sound = Checkpoint::new(std::iter::once(vec![3; 100]), |_| Ok(()));
    let sections = [(KeyspaceId(1), sound), (KeyspaceId(2), chunks)];
    let error = write(&disk, LOG, LogSeq(20), sections).unwrap_err();
    let unreadable = matches!(
        error,
        SnapshotError::Unreadable {
            keyspace: KeyspaceId(2),
            ..
        }
    );
    assert!(
        unreadable && error.to_string().contains("no decoder takes"),
        "{error}"
    );
    assert_eq!(disk.list().unwrap(), ["snapshot-000000000000000a"]);
    assert_eq!(load(&disk, LogSeq(10)).unwrap(), expected(1));
}

#[test]
fn what_the_disk_does_not_give_back_is_no_snapshot() {
    let disk = MemoryDisk::new();
    write(&disk, LOG, LogSeq(10), sections(1)).unwrap();
    disk.set_faults(crate::MemoryFaults {
        fail_next_read: true,
        ..crate::MemoryFaults::default()
    });
    let error = write(&disk, LOG, LogSeq(20), sections(2)).unwrap_err();
    assert!(matches!(error, SnapshotError::Io { .. }), "{error}");
    assert_eq!(load(&disk, LogSeq(10)).unwrap(), expected(1));
}

/// Earlier versions wrote chunks of up to 16 MiB.
#[test]
fn larger_chunks_than_are_written_are_read() {
    let (disk, at) = (MemoryDisk::new(), LogSeq(10));
    let chunk = vec![7; STORED_CHUNK_BYTES_MAX];
    let mut writer = Writer {
        file: disk.create(&name(at)).unwrap(),
        log_id: LOG,
        at,
        offset: 0,
        synced: 0,
        buffer: file_header(LOG, at, &[0; 32]).to_vec(),
        chunks: 1,
    };
    writer.frame(CHUNK, 1, &chunk).unwrap();
    writer.frame(END, 1, &[]).unwrap();
    writer.finish().unwrap();
    assert_eq!(load(&disk, at).unwrap(), [(1, chunk)]);
}

#[test]
fn a_snapshot_is_read_once() {
    let disk = MemoryDisk::new();
    write(&disk, LOG, LogSeq(10), sections(1)).unwrap();
    let name = "snapshot-000000000000000a";
    // What was written is read back once before it counts.
    let before = disk.bytes_read(name);
    load(&disk, LogSeq(10)).unwrap();
    assert_eq!(disk.bytes_read(name) - before, disk.bytes(name).len() as u64);
}

#[test]
fn l1_an_unfinished_snapshot_can_be_removed() {
    let disk = MemoryDisk::new();
    assert!(!remove_unfinished(&disk).unwrap());
    disk.create("snapshot-unfinished").unwrap();
    assert!(remove_unfinished(&disk).unwrap());
    assert_eq!(disk.list().unwrap(), [""; 0]);
}
