//! The write queue without a thread: what is due when, and what is reported.

use trilemma_testkit::caught;

use super::*;
use crate::log::{LogOptions, Record, fill_spare};
use crate::memory::{MemoryDisk, MemoryFaults};

const MS: u64 = 1_000_000;

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * MS)
}

fn open(disk: &MemoryDisk, reports_written: bool) -> WriteQueue<MemoryDisk> {
    let options = LogOptions {
        segment_bytes: 64 * 1024,
        new_log_id: 1,
    };
    let replay = |_: Record<'_>| Ok::<(), LogError>(());
    let (log, _) = Log::open(disk.clone(), options, LogSeq(0), replay).unwrap();
    WriteQueue::new(log, reports_written)
}

fn batch(bytes: usize, forced: bool) -> Batch {
    Batch {
        records: vec![(KeyspaceId(1), vec![7; bytes].into())],
        forced,
    }
}

fn progress(queue: &mut WriteQueue<MemoryDisk>) -> Vec<(u64, u64)> {
    let numbers = |event| match event {
        LogEvent::Progress(progress) => Some((progress.written.0, progress.durable.0)),
        LogEvent::Space { .. } | LogEvent::Failed(_) => None,
    };
    queue.take_events().filter_map(numbers).collect()
}

#[test]
fn a_forced_record_is_due_at_once_and_reported_when_durable() {
    let mut queue = open(&MemoryDisk::new(), false);
    queue.submit(at(1), batch(10, true)).unwrap();
    assert_eq!(queue.write(at(1)).unwrap(), Due::Sync);
    assert_eq!(progress(&mut queue), []);
    // What comes between a write and its sync is not made durable by it.
    queue.submit(at(2), batch(10, true)).unwrap();
    queue.sync().unwrap();
    // The log's own sync writes what it holds, so both are durable; none is reported without being so.
    assert_eq!(progress(&mut queue), [(2, 2)]);
    assert!(queue.is_idle());
}

#[test]
fn lazy_records_wait_for_company_and_no_longer_than_the_delay() {
    let mut queue = open(&MemoryDisk::new(), true);
    queue.submit(at(5), batch(10, false)).unwrap();
    assert_eq!(queue.write(at(5)).unwrap(), Due::At(at(15)));
    assert_eq!(progress(&mut queue), [(1, 0)]);
    queue.submit(at(9), batch(10, false)).unwrap();
    assert_eq!(queue.write(at(9)).unwrap(), Due::At(at(15)));
    assert_eq!(queue.write(at(15)).unwrap(), Due::Sync);
    queue.sync().unwrap();
    assert_eq!(progress(&mut queue), [(2, 0), (2, 2)]);
    assert_eq!(queue.write(at(99)).unwrap(), Due::At(Instant::NEVER));
}

#[test]
fn a_spare_that_could_not_be_made_and_is_not_wanted_any_more_is_not_due() {
    let disk = MemoryDisk::new();
    let mut queue = open(&disk, false);
    // More than half of a segment: a spare is wanted, and there is no room for it.
    for _ in 0..10 {
        queue.submit(at(0), batch(4000, true)).unwrap();
    }
    queue.write(at(0)).unwrap();
    queue.sync().unwrap();
    assert!(queue.take_spare_job(at(0)).is_some());
    queue.spare_not_begun(at(0));
    assert_eq!(queue.next_due(), at(1000));
    // The log goes on in a segment that it makes itself: nothing is wanted before that one is half full.
    for _ in 0..8 {
        queue.submit(at(1), batch(4000, true)).unwrap();
    }
    queue.write(at(1)).unwrap();
    queue.sync().unwrap();
    assert!(queue.take_spare_job(at(5000)).is_none());
    assert_eq!(queue.next_due(), Instant::NEVER, "nothing is due, now or later");
}

#[test]
fn space_is_reported_again_although_no_spare_is_wanted_any_more() {
    let disk = MemoryDisk::new();
    let mut queue = open(&disk, false);
    for _ in 0..10 {
        queue.submit(at(0), batch(4000, true)).unwrap();
    }
    queue.write(at(0)).unwrap();
    queue.sync().unwrap();
    let job = queue.take_spare_job(at(0)).unwrap();
    let refused = LogError::NoSpace {
        file: job.name,
        source: std::io::ErrorKind::StorageFull.into(),
    };
    queue.on_spare(at(0), Err(refused)).unwrap();
    let full = |events: Vec<LogEvent>| {
        events.into_iter().find_map(|event| match event {
            LogEvent::Space { full } => Some(full.is_some()),
            LogEvent::Progress(_) | LogEvent::Failed(_) => None,
        })
    };
    assert_eq!(full(queue.take_events().collect()), Some(true));
    // What has begun goes on in the next segment, for which there was room; the writes of clients are refused.
    for _ in 0..8 {
        queue.submit(at(1), batch(4000, true)).unwrap();
    }
    queue.write(at(1)).unwrap();
    queue.sync().unwrap();
    assert_eq!(queue.next_due(), at(1000));
    let job = queue.take_spare_job(at(1000)).unwrap();
    let made = fill_spare(&disk, &job.name, job.bytes);
    queue.on_spare(at(1000), made).unwrap();
    assert_eq!(full(queue.take_events().collect()), Some(false));
}

#[test]
fn a_full_disk_is_reported_once_and_tried_again_each_second() {
    let disk = MemoryDisk::new();
    let mut queue = open(&disk, false);
    disk.set_faults(MemoryFaults {
        room: Some(0),
        ..MemoryFaults::default()
    });
    for _ in 0..40 {
        queue.submit(at(0), batch(4000, true)).unwrap();
    }
    // The segment was synced before the next one was tried, so nothing is left to sync; it is reported all the same.
    assert_eq!(queue.write(at(0)).unwrap(), Due::At(at(1000)));
    let events: Vec<_> = queue.take_events().collect();
    let durable = queue.log().durable();
    assert!(
        matches!(&events[..], [LogEvent::Space { full: Some(_) }, LogEvent::Progress(now)] if now.durable == durable),
        "{events:?}"
    );
    assert!(LogSeq(0) < durable && durable < LogSeq(40));
    assert!(queue.take_spare_job(at(10)).is_none(), "not before a second");
    assert!(queue.take_spare_job(at(1000)).is_some());
    let refused = LogError::NoSpace {
        file: "spare".into(),
        source: std::io::ErrorKind::StorageFull.into(),
    };
    queue.on_spare(at(1001), Err(refused)).unwrap();
    assert_eq!(queue.take_events().count(), 0, "nothing new");
    disk.set_faults(MemoryFaults::default());
    let mut now = 3000;
    while !queue.is_idle() || queue.log().durable() < LogSeq(40) {
        if let Some(job) = queue.take_spare_job(at(now)) {
            let made = fill_spare(&disk, &job.name, job.bytes);
            queue.on_spare(at(now), made).unwrap();
        }
        if queue.write(at(now)).unwrap() == Due::Sync {
            queue.sync().unwrap();
        }
        now += 1000;
        assert!(now < 60_000, "the log goes on");
    }
    let events: Vec<_> = queue.take_events().collect();
    assert!(
        matches!(events.first(), Some(LogEvent::Space { full: None })),
        "{events:?}"
    );
}

#[test]
fn the_check_sees_records_that_wait_for_nothing() {
    let mut queue = open(&MemoryDisk::new(), true);
    queue.submit(at(5), batch(10, false)).unwrap();
    queue.write(at(5)).unwrap();
    queue.lazy_since = None;
    assert!(caught(|| queue.check()).contains("records up to 1 are written and would never be synced"));
    queue.sync().unwrap();
    queue.blocked = true;
    assert!(caught(|| queue.check()).contains("records wait for space and for nothing else"));
    queue.backlog.extend(batch(10, true).records);
    assert!(caught(|| queue.check()).contains("nobody knows that there is none"));
    queue.reported_full = true;
    assert!(caught(|| queue.check()).contains("there is no space and nothing looks for it"));
}

#[test]
fn the_check_sees_a_report_of_what_is_not_so() {
    let mut queue = open(&MemoryDisk::new(), true);
    queue.submit(at(5), batch(10, true)).unwrap();
    queue.write(at(5)).unwrap();
    queue.sync().unwrap();
    queue.reported.durable = LogSeq(2);
    assert!(caught(|| queue.check()).contains("the log has come to 1 and 1"));
    queue.reported = Progress {
        written: LogSeq(0),
        durable: LogSeq(1),
    };
    assert!(caught(|| queue.check()).contains("is reported"));
}

#[test]
fn a_spare_that_was_not_asked_for_is_a_mistake_of_the_host() {
    let disk = MemoryDisk::new();
    let mut queue = open(&disk, false);
    let spare = fill_spare(&disk, "spare-1", 8192);
    let unasked = caught(|| queue.on_spare(at(1), spare).unwrap());
    assert!(unasked.contains("nobody was asked for a spare"));
    assert!(caught(|| queue.spare_not_begun(at(1))).contains("nobody was asked for a spare"));
}

/// Goes on until the queue is idle, in steps of a second. Returns what was reported of space.
fn go_on(queue: &mut WriteQueue<MemoryDisk>, disk: &MemoryDisk, from_ms: u64) -> Vec<bool> {
    let mut reported = Vec::new();
    for second in 0..20 {
        let now = at(from_ms + second * 1000);
        if let Some(job) = queue.take_spare_job(now) {
            let made = fill_spare(disk, &job.name, job.bytes);
            queue.on_spare(now, made).unwrap();
        }
        if queue.write(now).unwrap() == Due::Sync {
            queue.sync().unwrap();
        }
        let space = |event| match event {
            LogEvent::Space { full } => Some(full.is_some()),
            LogEvent::Progress(_) | LogEvent::Failed(_) => None,
        };
        reported.extend(queue.take_events().filter_map(space));
        if queue.is_idle() {
            return reported;
        }
    }
    panic!("the log does not go on: {queue:?}")
}

fn payloads(disk: &MemoryDisk) -> Vec<usize> {
    let mut found = Vec::new();
    let options = LogOptions {
        segment_bytes: 64 * 1024,
        new_log_id: 1,
    };
    Log::open(disk.clone(), options, LogSeq(0), |record: Record<'_>| {
        found.push(record.payload.len());
        Ok::<(), LogError>(())
    })
    .unwrap();
    found
}

#[test]
fn a_system_without_files_to_give_is_waited_out_like_a_full_disk() {
    let disk = MemoryDisk::new();
    let mut queue = open(&disk, false);
    disk.set_faults(MemoryFaults {
        refuse_files: true,
        ..MemoryFaults::default()
    });
    let sizes: Vec<usize> = (0..40).map(|number| 4000 + number).collect();
    for size in &sizes {
        queue.submit(at(0), batch(*size, true)).unwrap();
    }
    assert_eq!(queue.write(at(0)).unwrap(), Due::At(at(1000)));
    let reported: Vec<_> = queue.take_events().collect();
    assert!(
        matches!(&reported[..], [LogEvent::Space { full: Some(why) }, ..] if why.contains("os error 24")),
        "{reported:?}"
    );
    disk.set_faults(MemoryFaults::default());
    assert_eq!(go_on(&mut queue, &disk, 1000), [false]);
    assert_eq!(payloads(&disk), sizes);
}

#[test]
fn a_spare_that_waits_is_begun_although_no_file_can_be_opened() {
    let disk = MemoryDisk::new();
    let mut queue = open(&disk, false);
    for _ in 0..10 {
        queue.submit(at(0), batch(4000, true)).unwrap();
    }
    assert_eq!(queue.write(at(0)).unwrap(), Due::Sync);
    queue.sync().unwrap();
    let job = queue.take_spare_job(at(0)).unwrap();
    let made = fill_spare(&disk, &job.name, job.bytes);
    queue.on_spare(at(0), made).unwrap();
    disk.set_faults(MemoryFaults {
        refuse_files: true,
        ..MemoryFaults::default()
    });
    for _ in 0..10 {
        queue.submit(at(1), batch(4000, true)).unwrap();
    }
    assert_eq!(queue.write(at(1)).unwrap(), Due::Sync);
    queue.sync().unwrap();
    assert_eq!(queue.log().durable(), LogSeq(20));
}

#[test]
fn l7_a_write_that_finds_no_space_is_tried_again_and_loses_nothing() {
    let disk = MemoryDisk::new();
    let mut queue = open(&disk, false);
    queue.submit(at(0), batch(100, true)).unwrap();
    assert_eq!(queue.write(at(0)).unwrap(), Due::Sync);
    queue.sync().unwrap();
    drop(queue.take_events());
    disk.set_faults(MemoryFaults {
        refuse_writes: true,
        ..MemoryFaults::default()
    });
    // Far into the third segment.
    let sizes: Vec<usize> = (0..40).map(|number| 4000 + number).collect();
    for size in &sizes {
        queue.submit(at(1), batch(*size, true)).unwrap();
    }
    assert_eq!(
        queue.write(at(1)).unwrap(),
        Due::At(at(1001)),
        "not again at once"
    );
    assert!(matches!(
        queue.take_events().next(),
        Some(LogEvent::Space { full: Some(_) })
    ));
    // Again and again, each second, and nothing piles up.
    for second in 1..10 {
        let now = at(1 + second * 1000);
        if let Some(job) = queue.take_spare_job(now) {
            let made = fill_spare(&disk, &job.name, job.bytes);
            queue.on_spare(now, made).unwrap();
        }
        assert_eq!(queue.write(now).unwrap(), Due::At(at(1001 + second * 1000)));
        assert_eq!(queue.take_events().count(), 0, "said once");
    }
    disk.set_faults(MemoryFaults::default());
    assert_eq!(go_on(&mut queue, &disk, 20_000), [false]);
    let expected: Vec<usize> = std::iter::once(100).chain(sizes).collect();
    assert_eq!(payloads(&disk), expected);
}

#[test]
fn l7_what_a_sync_finds_no_space_for_is_not_taken_for_durable() {
    let disk = MemoryDisk::new();
    let mut queue = open(&disk, false);
    queue.submit(at(0), batch(100, true)).unwrap();
    assert_eq!(queue.write(at(0)).unwrap(), Due::Sync);
    queue.submit(at(0), batch(200, true)).unwrap();
    disk.set_faults(MemoryFaults {
        refuse_writes: true,
        ..MemoryFaults::default()
    });
    queue.sync().unwrap();
    assert_eq!(progress(&mut queue), [(1, 1)]);
    assert_eq!(queue.next_due(), Instant::ZERO, "to be written at once");
    assert_eq!(queue.write(at(1)).unwrap(), Due::At(at(1001)));
    disk.set_faults(MemoryFaults::default());
    assert_eq!(go_on(&mut queue, &disk, 1001), [true, false]);
    assert_eq!(payloads(&disk), [100, 200]);
}

/// It used to end the log.
#[test]
fn what_cannot_be_recycled_on_a_full_disk_is_recycled_later() {
    let disk = MemoryDisk::new();
    let mut queue = open(&disk, false);
    for _ in 0..60 {
        queue.submit(at(0), batch(4000, true)).unwrap();
    }
    queue.write(at(0)).unwrap();
    queue.sync().unwrap();
    assert_eq!(queue.log().spares(), 0);
    disk.set_faults(MemoryFaults {
        full_after: Some(0),
        ..MemoryFaults::default()
    });
    queue.release(at(5), LogSeq(50)).unwrap();
    assert_eq!(queue.next_due(), at(1005));
    queue.write(at(1005)).unwrap();
    assert_eq!(queue.next_due(), at(2005), "still full");
    disk.set_faults(MemoryFaults::default());
    queue.write(at(2005)).unwrap();
    assert!(queue.log().spares() > 0);
    assert_eq!(queue.next_due(), Instant::NEVER);
}

/// Its wake-up was used up by a spare that nobody wants any more: it used to wait for the next batch.
#[test]
fn what_a_sync_finds_no_space_for_is_due_whatever_became_of_a_spare() {
    let disk = MemoryDisk::new();
    let mut queue = open(&disk, false);
    for _ in 0..10 {
        queue.submit(at(0), batch(4000, true)).unwrap();
    }
    queue.write(at(0)).unwrap();
    queue.sync().unwrap();
    assert!(queue.take_spare_job(at(0)).is_some());
    queue.spare_not_begun(at(0));
    for _ in 0..8 {
        queue.submit(at(1), batch(4000, true)).unwrap();
    }
    assert_eq!(queue.write(at(1)).unwrap(), Due::Sync);
    queue.submit(at(2), batch(100, true)).unwrap();
    disk.set_faults(MemoryFaults {
        refuse_writes: true,
        ..MemoryFaults::default()
    });
    queue.sync().unwrap();
    assert!(!queue.is_idle());
    assert_eq!(queue.next_due(), Instant::ZERO, "to be written at once");
    assert_eq!(queue.write(at(3)).unwrap(), Due::At(at(1003)));
}
