//! How long it rests, and that what is written is what would be written without.

use trilemma_core::KeyspaceId;
use trilemma_core::checkpoint::Checkpoint;
use trilemma_storage::{LogSeq, MemoryDisk, snapshot};

use super::*;

const MS: Duration = Duration::from_millis(1);

#[test]
fn it_rests_twice_as_long_as_it_works_unless_it_hurries() {
    let pace = Pace::default();
    assert_eq!(pace.rest(3 * MS), 6 * MS);
    assert_eq!(pace.rest(10_000 * MS), REST_MAX);
    pace.clone().hurry();
    assert_eq!(pace.rest(3 * MS), Duration::ZERO);
}

#[test]
fn a_snapshot_is_written_and_read_back_in_pieces() {
    let (disk, pace) = (MemoryDisk::new(), Pace::default());
    let chunks = (0..32).map(|chunk| vec![chunk; PIECE_BYTES / 8]);
    let section = (KeyspaceId(1), Checkpoint::new(chunks, |_| Ok(())));
    let paced = PacedDisk::new(disk.clone(), pace);
    let summary = snapshot::write(&paced, 7, LogSeq(1), [section]).expect("a snapshot");
    assert_eq!(summary.chunks, 32);
    let read = snapshot::verify(&disk, 7, LogSeq(1)).expect("the same snapshot");
    assert_eq!((read.chunks, read.bytes), (32, summary.bytes));
}
