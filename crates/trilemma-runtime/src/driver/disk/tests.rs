//! What counts as a disk that hangs.

use trilemma_storage::LogSeq;

use super::*;

fn durable(seq: u64) -> Progress {
    Progress {
        written: LogSeq(seq),
        durable: LogSeq(seq),
    }
}

#[test]
fn m14_a_disk_that_answers_nothing_for_a_minute_hangs() {
    let mut watch = DiskWatch::default();
    for _ in 0..60 {
        assert_eq!(watch.look(durable(7), 3, true), None);
    }
    assert_eq!(watch.look(durable(7), 3, true), Some(Duration::from_secs(60)));
}

#[test]
fn m14_a_slow_disk_an_idle_one_and_a_full_one_do_not_hang() {
    let mut watch = DiskWatch::default();
    for look in 0..1000 {
        assert_eq!(
            watch.look(durable(look / 50), 3, true),
            None,
            "it goes on, slowly"
        );
    }
    for _ in 0..1000 {
        assert_eq!(watch.look(durable(20), 3, false), None, "nothing waits for it");
    }
}

/// It used to count as one that hangs, since zeros are no progress of the log.
#[test]
fn a_slow_disk_that_makes_a_segment_does_not_hang() {
    let mut watch = DiskWatch::default();
    for look in 0..1000 {
        assert_eq!(watch.look(durable(7), look / 50, true), None, "it writes zeros");
    }
}
