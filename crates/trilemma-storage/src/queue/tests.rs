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
    fill_spare(&disk, &job.name, job.bytes).unwrap();
    queue.on_spare(at(1000), Ok(job.name)).unwrap();
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
            fill_spare(&disk, &job.name, job.bytes).unwrap();
            queue.on_spare(at(now), Ok(job.name)).unwrap();
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
    let mut queue = open(&MemoryDisk::new(), false);
    let unasked = caught(|| queue.on_spare(at(1), Ok("spare-1".into())).unwrap());
    assert!(unasked.contains("nobody was asked for a spare"));
    assert!(caught(|| queue.spare_not_begun(at(1))).contains("nobody was asked for a spare"));
}
