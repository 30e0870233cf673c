//! Keyspaces share the disk: none waits behind all that another has appended, and what a snapshot holds is replayed once.

use super::*;

/// Two keyspaces.
fn two(backend: Backend) -> NodeSettings {
    let mut settings = settings(backend, 1, Limits::default());
    let other = KeyspaceConfig::new(Backend::Gossip);
    settings.keyspaces.insert("other".into(), other);
    settings.tuning.snapshot_log_bytes = 1024 * MIB as u64;
    settings
}

/// Bytes that the log has taken.
fn logged(rig: &Rig) -> usize {
    usize::try_from(rig.queue.appended().1).expect("as in memory")
}

fn put_other(rig: &mut Rig, key: u64) -> u64 {
    let asked = 1_000_000 + key;
    let op = OpId {
        session: SessionId::default(),
        seq: asked,
    };
    let (attempt, command) = (Attempt::First, Command::put(format!("key-{key}"), "value"));
    let request = Request::Write { op, attempt, command };
    let timeout = Duration::from_secs(60);
    rig.node
        .on_request(rig.now, keyspace_id("other"), timeout, request, asked);
    asked
}

#[test]
fn a_small_record_waits_for_one_batch_of_a_flood_and_not_for_all_of_it() {
    let mut rig = Rig::start(&two(Backend::Gossip), MemoryDisk::new());
    rig.until_it_writes();
    // The disk stands still, and 30 MiB wait.
    for _ in 0..31 {
        rig.put(MIB, Attempt::First);
        rig.turn(false);
    }
    assert!(rig.node.admission().log_bytes() >= 30 * MIB);
    let before = logged(&rig);
    for number in 0..10 {
        let from = logged(&rig);
        let asked = put_other(&mut rig, number);
        while !rig.replies.contains_key(&asked) {
            rig.turn(true);
            rig.turn(false);
        }
        assert!(matches!(rig.replies[&asked], Reply::Write(Ok(_))));
        assert!(
            logged(&rig) - from <= 3 * MIB,
            "{} B went before it",
            logged(&rig) - from
        );
    }
    rig.turns(100);
    assert!(logged(&rig) - before > 28 * MIB, "the flood goes on meanwhile");
    assert_eq!(rig.node.admission().log_bytes(), 0);
    assert_eq!(rig.node.pending(), 0);
}

#[test]
fn one_sync_of_a_flood_is_bounded() {
    let mut rig = Rig::start(&two(Backend::Gossip), MemoryDisk::new());
    rig.until_it_writes();
    for _ in 0..31 {
        rig.put(MIB, Attempt::First);
        rig.turn(false);
    }
    while rig.node.admission().log_bytes() > 0 {
        let from = logged(&rig);
        rig.turn(true);
        assert!(
            logged(&rig) - from <= 3 * MIB,
            "{} B in one sync",
            logged(&rig) - from
        );
    }
}

/// All that a keyspace holds.
fn content(rig: &Rig, name: &str) -> Vec<String> {
    let index = rig.node.find(keyspace_id(name)).expect("a keyspace of the rig");
    let entries = rig.node.replicas()[index].engine().scan(&KeyRange::all(), 10_000);
    entries
        .iter()
        .map(|entry| {
            format!(
                "{} {} {}",
                entry.key,
                entry.state.modified,
                entry.state.value.len()
            )
        })
        .collect()
}

/// The states are taken while records of one keyspace wait for their turn. Those get places behind the snapshot's, and others'
/// records between them.
#[test]
fn what_a_snapshot_reflects_is_not_replayed() {
    for backend in [Backend::Gossip, Backend::Raft] {
        reflected(backend);
    }
}

fn reflected(backend: Backend) {
    let disk = MemoryDisk::new();
    let settings = two(backend);
    let mut rig = Rig::start(&settings, disk.clone());
    rig.until_it_writes();
    for _ in 0..8 {
        rig.put(MIB, Attempt::First);
        rig.turn(false);
    }
    put_other(&mut rig, 1);
    rig.node.request_snapshot();
    rig.turn(false);
    let at = rig.node.last();
    assert_eq!(
        rig.node.snapshots().covered(),
        LogSeq(0),
        "not all of it is durable"
    );
    // These follow it, and the first of them comes before what it reflects.
    put_other(&mut rig, 2);
    rig.turn(true);
    rig.put(MIB / 2, Attempt::First);
    put_other(&mut rig, 3);
    rig.turns(20);
    assert_eq!(rig.node.snapshots().covered(), at);
    assert_eq!(rig.node.admission().log_bytes(), 0);
    let (now, last) = (rig.now, rig.node.last());
    let found = [content(&rig, "k"), content(&rig, "other")];
    drop(rig);
    let storage = Storage {
        disk: &disk.copy(),
        is_new: false,
        random: &mut || 7,
        tune: &(),
    };
    let recovered = recover::<_, u64>(&settings, now, storage).expect("the disk is sound");
    let records = last.0 - at.0;
    let replayed = recovered.found.records;
    assert!(
        replayed + 5 <= records,
        "{backend}: {replayed} of {records} records"
    );
    assert!(replayed >= 3, "{backend}: {replayed} of {records} records");
    let mut rig = Rig::start(&settings, disk);
    assert_eq!(rig.node.last(), last.plus(1));
    // Raft learns from its election that what it finds is committed.
    let shown = |rig: &Rig| [content(rig, "k"), content(rig, "other")];
    for _ in 0..2000 {
        if shown(&rig) == found {
            return;
        }
        rig.turn(true);
    }
    assert_eq!(shown(&rig), found, "{backend}");
}
