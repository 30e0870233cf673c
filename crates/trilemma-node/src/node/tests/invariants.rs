//! What a node sees of its own mistakes at the end of a turn.

use trilemma_testkit::caught;

use super::*;

/// A node with a watch that is open, between two turns.
fn watching() -> Rig {
    let mut rig = Rig::start(
        &settings(Backend::Gossip, 1, Limits::default()),
        MemoryDisk::new(),
    );
    let spec = WatchSpec::new(KeyRange::all(), WatchStart::State);
    rig.node.on_watch(WatchId(1), ks(), spec, destination(1));
    rig.turns(3);
    rig.node.check();
    rig
}

#[test]
fn the_check_sees_a_watch_that_is_not_found_by_its_id() {
    let mut rig = watching();
    rig.node.watches.clear();
    assert!(caught(|| rig.node.check()).contains("found by its id"));
    rig.node.watches.insert(WatchId(1), 9);
    assert!(caught(|| rig.node.check()).contains("a watch is of a keyspace"));
}

#[test]
fn the_check_sees_progress_beyond_what_was_appended() {
    let mut rig = watching();
    rig.node.progress.durable = rig.node.last.plus(1);
    assert!(caught(|| rig.node.check()).contains("the log has"));
}

#[test]
fn the_check_sees_bytes_that_wait_for_nothing() {
    let mut rig = watching();
    rig.node.admission.appended(9);
    assert!(caught(|| rig.node.check()).contains("bytes that wait for the disk"));
}

#[test]
fn the_check_sees_what_a_turn_has_left_undone() {
    let mut rig = watching();
    rig.node.messages.push((NodeId(2), NodeMessage::Meet));
    assert!(!caught(|| rig.node.check()).is_empty());
}
