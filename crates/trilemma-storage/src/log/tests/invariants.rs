//! What a log sees of its own mistakes.

use trilemma_testkit::caught;

use super::*;

/// An open log of several segments, with two records that are not written yet.
fn log() -> Log<MemoryDisk> {
    let (mut log, ..) = open(&MemoryDisk::new()).unwrap();
    append(&mut log, 300);
    log.sync().unwrap();
    append(&mut log, 2);
    log.check();
    log
}

#[test]
fn the_check_sees_records_that_reach_the_disk_out_of_order_or_twice() {
    let mut ahead = log();
    ahead.durable = LogSeq(301);
    assert!(caught(|| ahead.check()).contains("durable 301, written 300, appended 302"));
    let mut lost = log();
    lost.buffer.clear();
    assert!(caught(|| lost.check()).contains("the buffer holds what is not written"));
}

#[test]
fn the_check_sees_a_write_outside_of_its_segment_or_between_records() {
    let mut beyond = log();
    beyond.offset = 8192;
    assert!(caught(|| beyond.check()).contains("of 8192 B is written to at 8192"));
    let mut between = log();
    between.offset -= 4;
    assert!(caught(|| between.check()).contains("where none may begin"));
}

#[test]
fn the_check_sees_segments_with_a_gap_or_out_of_order() {
    let mut late = log();
    let last = late.segments.len() - 1;
    late.segments[last].first = LogSeq(304);
    assert!(caught(|| late.check()).contains("begins after the last record"));
    let mut gap = log();
    gap.segments.remove(1);
    assert!(caught(|| gap.check()).contains("segments follow each other"));
    let mut swapped = log();
    swapped.segments[0].first = LogSeq(200);
    assert!(caught(|| swapped.check()).contains("segments follow each other"));
}

#[test]
fn the_check_sees_a_spare_that_waits_twice_and_too_many() {
    let spare = |number: usize| Spare {
        name: format!("spare-{number}"),
        file: MemoryDisk::new().create("spare").unwrap(),
    };
    let mut twice = log();
    twice.spares = vec![spare(1), spare(1)];
    assert!(caught(|| twice.check()).contains("a spare waits once"));
    let mut many = log();
    many.spares = (0..5).map(spare).collect();
    assert!(caught(|| many.check()).contains("spares are bounded"));
}
