//! What a start reads and removes, and what a status says of the disk.

use trilemma_storage::Disk as _;

use super::*;

/// A disk with a snapshot and a log of several segments behind it.
fn grown(settings: &NodeSettings) -> MemoryDisk {
    let mut rig = Rig::start(settings, MemoryDisk::new());
    rig.until_it_writes();
    for _ in 0..40 {
        rig.put(MIB / 8, Attempt::First);
        rig.turns(2);
    }
    rig.turns(5);
    assert!(rig.node.snapshots().covered() > LogSeq(0));
    rig.node.request_snapshot();
    rig.turns(3);
    for _ in 0..10 {
        rig.put(MIB / 8, Attempt::First);
        rig.turns(2);
    }
    rig.queue.close().expect("the disk is sound");
    rig.disk
}

#[test]
fn e9_a_start_reads_each_file_once() {
    /// What is read of a segment's header, and the hint.
    const SMALL: u64 = 1024;
    for backend in Backend::ALL {
        let settings = settings(backend, 1, Limits::default());
        let disk = grown(&settings);
        let names = disk.list().expect("it can be listed");
        let files: Vec<(String, u64)> = names
            .into_iter()
            .map(|name| {
                let read = disk.bytes_read(&name);
                (name, read)
            })
            .collect();
        let opens = disk.opens();
        drop(Rig::start(&settings, disk.clone()));
        let mut whole = 0;
        for (name, before) in &files {
            let (read, length) = (disk.bytes_read(name) - before, disk.bytes(name).len() as u64);
            assert!(
                read <= length + SMALL,
                "{backend}: {read} B of {name} were read, which has {length} B"
            );
            whole += u64::from(read >= length && length > SMALL);
        }
        assert!(
            whole >= 2,
            "{backend}: a snapshot and a segment are read: {files:?}"
        );
        let opens = disk.opens() - opens;
        assert!(
            opens <= 3 * files.len() as u64 + 2,
            "{backend}: {} files were opened {opens} times",
            files.len()
        );
    }
}

#[test]
fn e9_a_start_without_the_right_hint_reads_twice_and_finds_the_same() {
    for backend in Backend::ALL {
        let settings = settings(backend, 1, Limits::default());
        let disk = grown(&settings);
        let incarnation = |disk: &MemoryDisk| Rig::start(&settings, disk.copy()).node.incarnation();
        let with_hint = incarnation(&disk);
        let damaged = disk.copy();
        damaged.damage("incarnation", 0, |bytes| bytes[0] ^= 1);
        assert_eq!(incarnation(&damaged), with_hint);
        // Of another time, as in a directory that was put together from two.
        for other in [3_u64, with_hint.0 + 100] {
            let stale = disk.copy();
            stale.damage("incarnation", 0, |bytes| {
                bytes[..8].copy_from_slice(&other.to_le_bytes());
                bytes[8..].copy_from_slice(&(!other).to_le_bytes());
            });
            assert_eq!(incarnation(&stale), with_hint, "{backend}");
        }
        let without = disk.copy();
        without.remove("incarnation").expect("it is there");
        assert_eq!(incarnation(&without), with_hint);
    }
}

#[test]
fn l1_a_start_removes_a_snapshot_that_was_not_finished() {
    let settings = settings(Backend::Gossip, 1, Limits::default());
    let disk = grown(&settings);
    disk.create("snapshot-unfinished").expect("there is room");
    drop(Rig::start(&settings, disk.clone()));
    let names = disk.list().expect("it can be listed");
    assert!(
        !names.iter().any(|name| name == "snapshot-unfinished"),
        "{names:?}"
    );
}

#[test]
fn a_status_says_that_nothing_can_be_written_while_the_disk_is_full() {
    let mut rig = Rig::start(
        &settings(Backend::Gossip, 1, Limits::default()),
        MemoryDisk::new(),
    );
    rig.until_it_writes();
    rig.turns(100);
    let shown = |rig: &Rig| {
        let replica = &rig.node.replicas()[0];
        let (computed, published) = (replica.status(rig.now), replica.status_watch().current());
        assert_eq!(computed.can_write, published.can_write);
        published
    };
    assert!(shown(&rig).can_write);
    let say = |rig: &mut Rig, full: Option<&str>| {
        let full = full.map(str::to_owned);
        let event = LogEvent::Space { full };
        rig.node.on_log(rig.now, event).expect("a full disk ends nothing");
        rig.turn(true);
    };
    say(&mut rig, Some("no room on /data"));
    let full = shown(&rig);
    assert!(!full.can_write && full.can_read, "{full:?}");
    assert_eq!(full.why, "no room on /data");
    say(&mut rig, None);
    assert!(shown(&rig).can_write);
}
