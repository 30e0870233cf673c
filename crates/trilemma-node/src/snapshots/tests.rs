//! When a snapshot is due.

use trilemma_core::Checkpoint;

use super::*;

const MIB: u64 = 1024 * 1024;

/// A node that has found a snapshot of this size.
fn found(size: u64) -> Snapshots {
    Snapshots::new(1, &Tuning::default(), (LogSeq(1), size), 0)
}

/// Appends `bytes` in records of 1 MiB, writes each snapshot that is due, all of the same size; returns how many that were.
fn written(snapshots: &mut Snapshots, bytes: u64, size: u64) -> usize {
    let mut count = 0;
    for _ in 0..bytes / MIB {
        snapshots.appended(MIB);
        let last = LogSeq(snapshots.covered().0 + 1);
        snapshots.take(last, || Taken {
            own: vec![NodeRecord::Founded],
            waiting: BTreeMap::new(),
            keyspaces: vec![(KeyspaceId(0), Checkpoint::new(std::iter::empty(), |_| Ok(())))],
        });
        if snapshots.job(last).is_some() {
            count += 1;
            let table = [0; 32];
            let (bytes, chunks) = (size, 1);
            snapshots.on_written(Ok(Summary { table, chunks, bytes }));
        }
    }
    count
}

#[test]
fn a_small_state_is_written_as_often_as_the_setting_says() {
    assert_eq!(written(&mut found(MIB), 1024 * MIB, MIB), 8);
}

#[test]
fn a_large_state_is_written_after_as_much_log() {
    // Snapshots of a state of 2 GiB cost no more than the log.
    let mut snapshots = found(2048 * MIB);
    assert_eq!(written(&mut snapshots, 8192 * MIB, 2048 * MIB), 4);
    // Also when it has grown so large since the node has started.
    let mut snapshots = found(0);
    assert_eq!(written(&mut snapshots, 128 * MIB, 2048 * MIB), 1);
    assert_eq!(written(&mut snapshots, 2047 * MIB, 2048 * MIB), 0);
    assert_eq!(written(&mut snapshots, MIB, 2048 * MIB), 1);
}

#[test]
fn a_share_that_no_number_holds_is_never_due() {
    let tuning = Tuning {
        snapshot_state_percent: u64::MAX,
        ..Tuning::default()
    };
    let snapshots = Snapshots::new(1, &tuning, (LogSeq(1), u64::MAX), 0);
    assert_eq!(snapshots.due_bytes(), u64::MAX);
}
