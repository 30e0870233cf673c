//! The log's thread: what it reports is so, and many batches share one sync.

use std::sync::mpsc;

use super::*;
use crate::log::{LogOptions, Record};
use crate::memory::{MemoryDisk, MemoryFaults};

const OPTIONS: LogOptions = LogOptions {
    segment_bytes: 64 * 1024,
    new_log_id: 1,
};

fn records(disk: &MemoryDisk) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    Log::open(disk.clone(), OPTIONS, LogSeq(0), |record: Record<'_>| {
        records.push(record.payload.to_vec());
        Ok::<(), LogError>(())
    })
    .unwrap();
    records
}

fn start(disk: &MemoryDisk) -> (LogWriter, mpsc::Receiver<LogEvent>) {
    let replay = |_: Record<'_>| Ok::<(), LogError>(());
    let (log, _) = Log::open(disk.clone(), OPTIONS, LogSeq(0), replay).unwrap();
    let (sender, events) = mpsc::channel();
    let report = move |event| drop(sender.send(event));
    (
        LogWriter::spawn(log, disk.clone(), OPTIONS.segment_bytes, report).unwrap(),
        events,
    )
}

fn batch(text: &str, forced: bool) -> Batch {
    Batch {
        records: vec![(KeyspaceId(1), Bytes::copy_from_slice(text.as_bytes()))],
        forced,
    }
}

fn wait_durable(events: &mpsc::Receiver<LogEvent>, up_to: LogSeq) {
    loop {
        match events
            .recv_timeout(Duration::from_secs(10))
            .expect("the log reports")
        {
            LogEvent::Progress(progress) if progress.durable >= up_to => return,
            LogEvent::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
}

#[test]
fn positions_are_known_at_once_and_durable_later() {
    let disk = MemoryDisk::new();
    let (mut writer, events) = start(&disk);
    assert_eq!(writer.submit(batch("a", true)).unwrap(), LogSeq(1));
    let two = Batch {
        records: vec![(KeyspaceId(1), "b".into()), (KeyspaceId(2), "c".into())],
        forced: true,
    };
    assert_eq!(writer.submit(two).unwrap(), LogSeq(2));
    assert_eq!(writer.last(), LogSeq(3));
    wait_durable(&events, LogSeq(3));
    writer.close().unwrap();
    assert_eq!(records(&disk), [b"a", b"b", b"c"]);
}

#[test]
fn a_lazy_record_becomes_durable_by_itself() {
    let disk = MemoryDisk::new();
    let (mut writer, events) = start(&disk);
    writer.submit(batch("lazy", false)).unwrap();
    wait_durable(&events, LogSeq(1));
}

#[test]
fn many_batches_share_syncs() {
    let disk = MemoryDisk::new();
    let (mut writer, events) = start(&disk);
    for index in 0..2000 {
        writer.submit(batch(&format!("{index}"), true)).unwrap();
    }
    wait_durable(&events, LogSeq(2000));
    let counters = writer.counters();
    assert_eq!(counters.records, 2000);
    writer.close().unwrap();
    assert_eq!(records(&disk).len(), 2000);
}

#[test]
fn a_failed_sync_is_reported_once_and_ends_everything() {
    let disk = MemoryDisk::new();
    let (mut writer, events) = start(&disk);
    writer.submit(batch("a", true)).unwrap();
    wait_durable(&events, LogSeq(1));
    disk.set_faults(MemoryFaults {
        fail_next_sync: true,
        ..MemoryFaults::default()
    });
    writer.submit(batch("b", true)).unwrap();
    let failed = loop {
        match events
            .recv_timeout(Duration::from_secs(10))
            .expect("the failure is reported")
        {
            LogEvent::Failed(error) => break error,
            LogEvent::Progress(progress) => assert!(progress.durable < LogSeq(2)),
            LogEvent::Space { .. } => {}
        }
    };
    assert!(failed.to_string().contains("sync failed"), "{failed}");
    assert!(
        events.recv_timeout(Duration::from_secs(10)).is_err(),
        "nothing follows a failure"
    );
}

#[test]
fn a_full_disk_is_told_and_told_again_when_there_is_room() {
    let disk = MemoryDisk::new();
    let (mut writer, events) = start(&disk);
    disk.set_faults(MemoryFaults {
        room: Some(0),
        ..MemoryFaults::default()
    });
    for _ in 0..9 {
        writer.submit(batch(&"x".repeat(4096), true)).unwrap();
    }
    wait_durable(&events, LogSeq(9));
    let told = |wanted: bool| loop {
        match events
            .recv_timeout(Duration::from_secs(10))
            .expect("space is reported")
        {
            LogEvent::Space { full } if full.is_some() == wanted => return full,
            LogEvent::Failed(error) => panic!("{error}"),
            _ => {}
        }
    };
    let why = told(true).expect("a reason");
    assert!(why.contains("no space"), "{why}");
    disk.set_faults(MemoryFaults::default());
    told(false);
    writer.close().unwrap();
    assert_eq!(records(&disk).len(), 9);
}

#[test]
fn an_abort_writes_nothing_more() {
    let disk = MemoryDisk::new();
    let (mut writer, events) = start(&disk);
    writer.submit(batch("kept", true)).unwrap();
    wait_durable(&events, LogSeq(1));
    writer.abort();
    assert!(writer.submit(batch("late", true)).is_err());
    assert_eq!(records(&disk), [b"kept"]);
}
