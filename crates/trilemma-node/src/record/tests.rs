//! What a node's own records say of a directory, and that those of earlier versions are still read.

use std::collections::BTreeMap;

use trilemma_core::{Backend, Instant, Now, WallTime};
use trilemma_storage::{Disk as _, DiskFile as _, Log, LogOptions, LogSeq, MemoryDisk};

use super::*;
use crate::config::{KeyspaceConfig, Tuning};
use crate::recovery::{NEW_NODE_FILE, Recovered, Storage, recover};

/// Node 3 of cluster "shop" in incarnation 9, with `locks` in raft: as it was written before members were recorded.
const WITHOUT_MEMBERS: &[u8] = b"\x00\x04shop\x03\x09\x01\x05locks\x04raft";
/// The same with the members 1, 2, 3, as it was written before disks were recorded.
const WITHOUT_DISKS: &[u8] = b"\x01\x04shop\x03\x09\x01\x05locks\x04raft\x03\x01\x02\x03";
/// The same of a node that has not met all of them.
const STARTED: &[u8] = b"\x02\x04shop\x03\x09\x01\x05locks\x04raft\x03\x01\x02\x03\x00";

const NOW: Now = Now {
    instant: Instant::ZERO,
    wall: WallTime(1_700_000_000_000),
};
const SEGMENT_BYTES: u64 = 16 * 1024;

fn settings(members: &[u32]) -> NodeSettings {
    NodeSettings {
        cluster: "shop".into(),
        node: NodeId(3),
        members: members.iter().map(|id| NodeId(*id)).collect(),
        keyspaces: BTreeMap::from([("locks".to_owned(), KeyspaceConfig::new(Backend::Raft))]),
        membership: None,
        tuning: Tuning {
            segment_bytes: SEGMENT_BYTES,
            ..Tuning::default()
        },
    }
}

/// All files with their bytes.
fn files(disk: &MemoryDisk) -> BTreeMap<String, Vec<u8>> {
    let names = disk.list().expect("it can be listed");
    names
        .into_iter()
        .map(|name| (name.clone(), disk.bytes(&name)))
        .collect()
}

/// A disk whose log holds this record.
fn disk(record: &[u8]) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let options = LogOptions {
        segment_bytes: SEGMENT_BYTES,
        new_log_id: 1,
    };
    let (mut log, _) =
        Log::open(disk.clone(), options, LogSeq(0), |_| Ok::<(), RecoveryError>(())).expect("a new log");
    log.append(NODE_RECORDS, record).expect("there is room");
    log.close().expect("the log is written");
    disk
}

fn start(disk: &MemoryDisk, settings: &NodeSettings) -> Result<Incarnation, String> {
    let storage = Storage {
        disk,
        is_new: true,
        random: &mut || 7,
        tune: &(),
    };
    let recovered: Recovered<_, ()> = recover(settings, NOW, storage).map_err(|error| error.to_string())?;
    Ok(recovered.node.incarnation())
}

#[test]
fn node_records_of_all_forms_are_read_byte_for_byte() {
    for golden in [
        WITHOUT_MEMBERS,
        WITHOUT_DISKS,
        STARTED,
        b"\x03\x02\xac\x02\x00\x05\x07",
        b"\x04",
        b"\x05\x01\x07\x09",
    ] {
        let record: NodeRecord = codec::decode(golden).expect("a golden record");
        assert_eq!(codec::encode(&record), golden, "{record:?}");
    }
    let written = NodeRecord::started(&settings(&[1, 2, 3]), Incarnation(9), false);
    assert_eq!(codec::encode(&written), STARTED);
    let met = NodeRecord::Met(Kept {
        node: NodeId(2),
        disk: trilemma_core::DiskId(300),
        accepted: None,
        incarnation: Incarnation(5),
        nonce: 7,
    });
    assert_eq!(codec::encode(&met), b"\x03\x02\xac\x02\x00\x05\x07"[..]);
}

#[test]
fn h9_an_empty_directory_is_refused_unless_somebody_says_that_the_node_is_new() {
    let disk = MemoryDisk::new();
    let start = |is_new| {
        let storage = Storage {
            disk: &disk,
            is_new,
            random: &mut || 7,
            tune: &(),
        };
        let recovered: Result<Recovered<_, ()>, _> = recover(&settings(&[1, 2, 3]), NOW, storage);
        recovered.map(drop).map_err(|error| error.to_string())
    };
    let refused = start(false).expect_err("nobody says that it is new");
    for part in ["it is empty", "mount the volume", "serve --new"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    assert_eq!(
        disk.list().expect("it can be listed"),
        Vec::<String>::new(),
        "nothing was changed"
    );
    drop(disk.create(NEW_NODE_FILE).expect("a marker can be made"));
    start(false).expect("it is marked");
    let names = disk.list().expect("it can be listed");
    assert!(
        !names.iter().any(|name| name == NEW_NODE_FILE),
        "the marker counts once: {names:?}"
    );
    start(false).expect("it is not empty any more");
    start(true).expect("what a directory holds is never touched");
}

#[test]
fn d2_a_directory_from_before_members_were_recorded_starts_and_records_them() {
    let disk = disk(WITHOUT_MEMBERS);
    assert_eq!(start(&disk, &settings(&[1, 2, 3])), Ok(Incarnation(10)));
    let refused = start(&disk, &settings(&[1, 2, 3, 4, 5])).expect_err("other members");
    assert!(refused.contains("[1, 2, 3],"), "{refused}");
    assert_eq!(start(&disk, &settings(&[1, 2, 3])), Ok(Incarnation(11)));
}

#[test]
fn d2_a_start_with_other_members_than_stored_is_refused_and_changes_nothing() {
    let disk = disk(WITHOUT_DISKS);
    for members in [&[1, 2, 3, 4, 5][..], &[1, 3], &[3], &[1, 3, 4]] {
        let configured = settings(members);
        let refused = start(&disk, &configured).expect_err("other members");
        let both = [
            "the members [1, 2, 3],".to_owned(),
            format!("the members [{}].", configured.members),
            "cannot be changed by editing files".into(),
            "keep the directory".into(),
        ];
        for part in both {
            assert!(refused.contains(&part), "{part}: {refused}");
        }
    }
    assert_eq!(start(&disk, &settings(&[1, 2, 3])), Ok(Incarnation(10)));
}

/// What a crash has left behind used to be removed first.
#[test]
fn a_start_that_is_refused_changes_no_byte() {
    let disk = disk(WITHOUT_DISKS);
    // An unfinished snapshot, a spare segment that was half made, a torn write, a marker: all of them are tidied up by a
    // start that goes through.
    for name in ["snapshot-unfinished", "spare-7", NEW_NODE_FILE] {
        let mut file = disk.create(name).expect("it can be made");
        file.write_at(b"half", 0).expect("it can be written");
    }
    let segment = "wal-0000000000000001";
    let names = disk.list().expect("it can be listed");
    assert!(names.iter().any(|name| name == segment), "{names:?}");
    disk.damage(segment, SEGMENT_BYTES - 100, |bytes| bytes[0] = 1);
    let before = files(&disk);
    let right = settings(&[1, 2, 3]);
    let mut backend = right.clone();
    backend.keyspaces = BTreeMap::from([("locks".to_owned(), KeyspaceConfig::new(Backend::Paxos))]);
    let mut cluster = right.clone();
    cluster.cluster = "farm".into();
    let mut segments = right.clone();
    segments.tuning.segment_bytes = 1;
    for refused in [settings(&[1, 2, 3, 4, 5]), backend, cluster, segments] {
        start(&disk, &refused).expect_err("it is refused");
        assert!(files(&disk) == before, "{refused:?}");
    }
    assert_eq!(start(&disk, &right), Ok(Incarnation(10)));
    let after = files(&disk);
    for gone in ["snapshot-unfinished", "spare-7", NEW_NODE_FILE] {
        assert!(!after.contains_key(gone), "{gone}");
    }
}

/// Records that cannot be right used to be found after the end of the log had been mended.
#[test]
fn records_that_do_not_fit_are_found_before_anything_is_changed() {
    let disk = disk(STARTED);
    let options = LogOptions {
        segment_bytes: SEGMENT_BYTES,
        new_log_id: 1,
    };
    let (mut log, _) =
        Log::open(disk.clone(), options, LogSeq(0), |_| Ok::<(), RecoveryError>(())).expect("it is well");
    log.append(crate::config::keyspace_id("locks"), b"no record of raft")
        .expect("there is room");
    log.close().expect("the log is written");
    drop(disk.create("spare-7").expect("it can be made"));
    let before = files(&disk);
    let refused = start(&disk, &settings(&[1, 2, 3])).expect_err("it cannot be right");
    assert!(refused.contains("locks"), "{refused}");
    assert!(files(&disk) == before);
}

#[test]
fn a_directory_of_another_node_cluster_or_backend_is_refused() {
    let disk = disk(WITHOUT_DISKS);
    let mut other = settings(&[1, 2, 3]);
    other.cluster = "farm".into();
    assert!(
        start(&disk, &other)
            .expect_err("another cluster")
            .contains("cluster \"shop\"")
    );
    let mut other = settings(&[1, 2, 3]);
    other.node = NodeId(2);
    assert!(
        start(&disk, &other)
            .expect_err("another node")
            .contains("belongs to node 3")
    );
    let mut other = settings(&[1, 2, 3]);
    other.keyspaces = BTreeMap::from([("locks".to_owned(), KeyspaceConfig::new(Backend::Paxos))]);
    assert!(
        start(&disk, &other)
            .expect_err("another backend")
            .contains("is now \"paxos\"")
    );
}

#[test]
fn an_empty_disk_begins_above_every_incarnation_that_it_may_have_lost() {
    let disk = MemoryDisk::new();
    assert_eq!(start(&disk, &settings(&[1, 2, 3])), Ok(Incarnation(NOW.wall.0)));
    assert_eq!(
        start(&disk, &settings(&[1, 2, 3])),
        Ok(Incarnation(NOW.wall.0 + 1))
    );
}
