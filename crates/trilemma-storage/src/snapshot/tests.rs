//! A snapshot is whole or refused, whenever a crash comes.

use trilemma_core::Rng;

use super::*;
use crate::memory::MemoryDisk;

const LOG: u64 = 99;

fn sections(version: u8) -> Vec<Section> {
    let chunks = |keyspace: u32| -> Section {
        let chunks = (0..4_u8).map(move |index| vec![version ^ index; 500 + keyspace as usize]);
        (KeyspaceId(keyspace), Box::new(chunks))
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
