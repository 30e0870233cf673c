//! The log's thread: what it reports is so, and many batches share one sync.

use std::sync::mpsc;

use bytes::Bytes;
use trilemma_core::KeyspaceId;

use super::*;
use crate::disk::DiskFile;
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
    (LogWriter::spawn(log, disk.clone(), true, report).unwrap(), events)
}

fn batch(text: &str, forced: bool) -> Batch {
    Batch {
        records: vec![(KeyspaceId(1), Bytes::copy_from_slice(text.as_bytes()))],
        forced,
    }
}

/// How long a test waits for the log's thread before it takes it for stuck.
const STUCK: Duration = Duration::from_secs(60);

fn next(events: &mpsc::Receiver<LogEvent>) -> LogEvent {
    events.recv_timeout(STUCK).expect("the log reports")
}

fn wait_durable(events: &mpsc::Receiver<LogEvent>, up_to: LogSeq) {
    loop {
        match next(events) {
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

/// While the first batch is being reported, all others wait; they must then share a sync.
#[test]
fn many_batches_share_syncs() {
    let disk = MemoryDisk::new();
    let replay = |_: Record<'_>| Ok::<(), LogError>(());
    let (log, _) = Log::open(disk.clone(), OPTIONS, LogSeq(0), replay).unwrap();
    let (sender, events) = mpsc::channel();
    let (gate, waits) = mpsc::channel::<()>();
    let report = move |event| {
        drop(sender.send(event));
        // The gate is dropped once everything is submitted.
        assert!(waits.recv().is_err(), "nothing is ever sent");
    };
    let mut writer = LogWriter::spawn(log, disk.clone(), true, report).unwrap();
    writer.submit(batch("0", true)).unwrap();
    let first = next(&events);
    assert!(matches!(first, LogEvent::Progress(progress) if progress.written == LogSeq(1)));
    for index in 1..500 {
        writer.submit(batch(&format!("{index}"), true)).unwrap();
    }
    drop(gate);
    wait_durable(&events, LogSeq(500));
    let counters = writer.counters();
    assert_eq!(counters.records, 500);
    assert!(counters.syncs <= 3, "{} syncs for 500 batches", counters.syncs);
    assert!(counters.sync_micros >= counters.sync_micros_max);
    assert!(counters.sync_micros_max >= counters.sync_micros_last);
    writer.close().unwrap();
    assert_eq!(records(&disk).len(), 500);
}

#[test]
fn a_record_too_large_has_no_number_and_harms_nothing() {
    let disk = MemoryDisk::new();
    let (mut writer, events) = start(&disk);
    let large = Batch {
        records: vec![
            (KeyspaceId(1), "small".into()),
            (KeyspaceId(1), vec![0; 64 * 1024].into()),
        ],
        forced: true,
    };
    assert!(matches!(writer.submit(large), Err(LogError::TooLarge { .. })));
    assert_eq!(writer.submit(batch("a", true)).unwrap(), LogSeq(1));
    wait_durable(&events, LogSeq(1));
    writer.close().unwrap();
    assert_eq!(records(&disk), [b"a"]);
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
        match next(&events) {
            LogEvent::Failed(error) => break error,
            LogEvent::Progress(progress) => assert!(progress.durable < LogSeq(2)),
            LogEvent::Space { .. } => {}
        }
    };
    assert!(failed.to_string().contains("sync failed"), "{failed}");
    assert!(events.recv_timeout(STUCK).is_err(), "nothing follows a failure");
}

#[test]
fn a_full_disk_is_reported_and_so_is_its_end() {
    let disk = MemoryDisk::new();
    let (mut writer, events) = start(&disk);
    disk.set_faults(MemoryFaults {
        room: Some(0),
        ..MemoryFaults::default()
    });
    for _ in 0..9 {
        writer.submit(batch(&"x".repeat(4096), true)).unwrap();
    }
    // The spare may be refused before the ninth record is durable, or after it.
    let (mut durable, mut why) = (LogSeq(0), None);
    while durable < LogSeq(9) || why.is_none() {
        match next(&events) {
            LogEvent::Progress(progress) => durable = progress.durable,
            LogEvent::Space { full } => why = full,
            LogEvent::Failed(error) => panic!("{error}"),
        }
    }
    let why = why.expect("a reason");
    assert!(why.contains("no space"), "{why}");
    disk.set_faults(MemoryFaults::default());
    loop {
        match next(&events) {
            LogEvent::Space { full: None } => break,
            LogEvent::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    writer.close().unwrap();
    assert_eq!(records(&disk).len(), 9);
}

/// Beyond the end of the last segment nothing is acknowledged, nothing fails, and nothing is lost.
#[test]
fn a_full_disk_makes_the_log_wait_and_it_goes_on_where_it_stood() {
    for recycle in [false, true] {
        let disk = MemoryDisk::new();
        let (mut writer, events) = start(&disk);
        // Two segments, so that a release can make room.
        for _ in 0..20 {
            writer.submit(batch(&"x".repeat(4000), true)).unwrap();
        }
        wait_durable(&events, LogSeq(20));
        disk.set_faults(MemoryFaults {
            room: Some(0),
            ..MemoryFaults::default()
        });
        for _ in 0..40 {
            writer.submit(batch(&"y".repeat(4000), true)).unwrap();
        }
        let mut durable = LogSeq(0);
        loop {
            match next(&events) {
                LogEvent::Space { full: Some(_) } if writer.shared.records.load(Ordering::Relaxed) < 60 => {
                    break;
                }
                LogEvent::Progress(progress) => durable = progress.durable,
                LogEvent::Failed(error) => panic!("{error}"),
                LogEvent::Space { .. } => {}
            }
        }
        assert!(durable < LogSeq(60));
        if recycle {
            writer.release(LogSeq(20)).unwrap();
        } else {
            disk.set_faults(MemoryFaults::default());
        }
        let wanted = if recycle { 32 } else { 60 };
        wait_durable(&events, LogSeq(wanted));
        disk.set_faults(MemoryFaults::default());
        writer.close().unwrap();
        let snapshot = if recycle { LogSeq(20) } else { LogSeq(0) };
        let mut shown = Vec::new();
        Log::open(disk, OPTIONS, snapshot, |record: Record<'_>| {
            shown.push((record.seq.0, record.payload[0]));
            Ok::<(), LogError>(())
        })
        .unwrap();
        let letter = |seq| if seq <= 20 { b'x' } else { b'y' };
        let expected: Vec<(u64, u8)> = (snapshot.0 + 1..=60).map(|seq| (seq, letter(seq))).collect();
        assert_eq!(shown, expected);
    }
}

#[test]
fn closing_without_space_for_what_waits_is_an_error() {
    let disk = MemoryDisk::new();
    let (mut writer, events) = start(&disk);
    disk.set_faults(MemoryFaults {
        room: Some(0),
        ..MemoryFaults::default()
    });
    for _ in 0..40 {
        writer.submit(batch(&"y".repeat(4000), true)).unwrap();
    }
    // Who closes it learns why, and nobody else needs to know.
    let why = writer.close().expect_err("there is no space for what waits");
    assert!(matches!(why, LogError::NoSpace { .. }), "{why}");
    assert!(
        events
            .into_iter()
            .all(|event| !matches!(event, LogEvent::Failed(_)))
    );
    // What fitted is kept, in order; none of it was reported as more.
    assert!((10..40).contains(&records(&disk).len()));
}

#[cfg(unix)]
#[test]
fn a_real_directory_can_be_opened_again_at_once() {
    let target = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    std::fs::create_dir_all(&target).unwrap();
    let directory = tempfile::tempdir_in(target).unwrap();
    let path = directory.path().join("a/node");
    for incarnation in 0..6_u64 {
        let disk =
            crate::OsDisk::open(&path).unwrap_or_else(|error| panic!("incarnation {incarnation}: {error}"));
        let mut found = 0;
        let (log, _) = Log::open(disk.clone(), OPTIONS, LogSeq(0), |record: Record<'_>| {
            assert_eq!(record.payload.len(), 3000);
            found += 1;
            Ok::<(), LogError>(())
        })
        .unwrap();
        assert_eq!(found, incarnation * 12);
        let (sender, events) = mpsc::channel();
        let report = move |event| drop(sender.send(event));
        let mut writer = LogWriter::spawn(log, disk, true, report).unwrap();
        // More than half a segment: a spare is in the making when the writer ends.
        for _ in 0..12 {
            writer.submit(batch(&"z".repeat(3000), true)).unwrap();
        }
        wait_durable(&events, writer.last());
        if incarnation % 2 == 0 {
            writer.close().unwrap();
        } else {
            assert!(writer.abort());
        }
    }
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for entry in std::fs::read_dir(&path).unwrap() {
        assert_eq!(
            mode(&entry.unwrap().path()) & 0o077,
            0,
            "files are for their owner alone"
        );
    }
}

#[test]
fn an_abort_writes_nothing_more() {
    let disk = MemoryDisk::new();
    let (mut writer, events) = start(&disk);
    writer.submit(batch("kept", true)).unwrap();
    wait_durable(&events, LogSeq(1));
    assert!(writer.abort());
    assert!(writer.submit(batch("late", true)).is_err());
    assert_eq!(records(&disk), [b"kept"]);
}

/// A disk whose syncs hang while the gate is closed.
#[derive(Clone)]
struct HungDisk {
    disk: MemoryDisk,
    gate: Arc<Mutex<()>>,
}

struct HungFile {
    file: <MemoryDisk as Disk>::File,
    gate: Arc<Mutex<()>>,
}

impl HungDisk {
    fn file(&self, file: <MemoryDisk as Disk>::File) -> HungFile {
        let gate = Arc::clone(&self.gate);
        HungFile { file, gate }
    }
}

impl Disk for HungDisk {
    type File = HungFile;

    fn list(&self) -> std::io::Result<Vec<String>> {
        self.disk.list()
    }

    fn open(&self, name: &str) -> std::io::Result<HungFile> {
        self.disk.open(name).map(|file| self.file(file))
    }

    fn create(&self, name: &str) -> std::io::Result<HungFile> {
        self.disk.create(name).map(|file| self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_directory(&self) -> std::io::Result<()> {
        self.disk.sync_directory()
    }
}

impl DiskFile for HungFile {
    fn length(&self) -> std::io::Result<u64> {
        self.file.length()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn sync(&mut self) -> std::io::Result<()> {
        let _open = self.gate.lock().unwrap();
        self.file.sync()
    }
}

#[test]
fn m14_an_abort_does_not_wait_for_a_disk_that_hangs() {
    let disk = HungDisk {
        disk: MemoryDisk::new(),
        gate: Arc::default(),
    };
    let gate = Arc::clone(&disk.gate);
    let replay = |_: Record<'_>| Ok::<(), LogError>(());
    let (log, _) = Log::open(disk.clone(), OPTIONS, LogSeq(0), replay).unwrap();
    let (sender, events) = mpsc::channel();
    let report = move |event| drop(sender.send(event));
    let mut writer = LogWriter::spawn(log, disk, true, report).unwrap();
    let hung = gate.lock().unwrap();
    writer.submit(batch("a", true)).unwrap();
    let written = next(&events);
    assert!(matches!(written, LogEvent::Progress(progress) if progress.written == LogSeq(1)));
    let begun = std::time::Instant::now();
    assert!(!writer.abort(), "the disk holds it up");
    assert!(begun.elapsed() < STUCK, "it waited for the disk");
    drop(hung);
    // The thread ends with the disk's answer: the report goes with it.
    while events.recv_timeout(STUCK).is_ok() {}
}
