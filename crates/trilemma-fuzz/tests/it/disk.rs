//! Log and snapshot files that are not what was written: refused, or exactly a beginning of it, never anything else.

use trilemma_core::{Checkpoint, KeyspaceId, Rng};
use trilemma_fuzz::source::Source;
use trilemma_storage::snapshot::{self, Section};
use trilemma_storage::{
    Disk, DiskFile, Log, LogError, LogOptions, LogSeq, MemoryDisk, SnapshotError, fill_spare,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

targets! {
    damaged_log(1500, 512) => damaged_log_of;
    foreign_log(1000, 512) => foreign_log_of;
    damaged_snapshot(1500, 512) => damaged_snapshot_of;
    foreign_snapshot(1000, 512) => foreign_snapshot_of;
}

const LOG_ID: u64 = 0x0123_4567_89ab_cdef;
/// Memory that opening may take beside the files, and for each byte of them.
const MEMORY: (u64, u64) = (1 << 20, 8);

type Written = Vec<(LogSeq, KeyspaceId, Vec<u8>)>;

fn options(segment_bytes: u64) -> LogOptions {
    LogOptions {
        segment_bytes,
        new_log_id: LOG_ID,
    }
}

/// A log that was used as the input says, everything it appended, and how much of that is durable for certain.
fn used(source: &mut Source<'_>) -> (MemoryDisk, Written, usize) {
    let disk = MemoryDisk::new();
    let segment_bytes = 8192 + 4096 * source.below(3) as u64;
    let (mut log, _) = open(&disk, segment_bytes).expect("a new log");
    let mut written = Written::new();
    let mut durable = 0;
    for count in 0..source.below(40) {
        let keyspace = KeyspaceId(count as u32 % 3);
        let payload = vec![count as u8 + 1; *source.pick(&[0, 1, 8, 100, 700, 3000])];
        if log.wants_spare() && source.once_in(2) {
            let name = log.spare_name();
            log.add_spare(fill_spare(&disk, &name, segment_bytes).expect("a spare"));
        }
        let seq = log.append(keyspace, &payload).expect("an append");
        written.push((seq, keyspace, payload));
        match source.below(4) {
            0 | 1 => {
                log.sync().expect("a sync");
                durable = written.len();
            }
            2 => drop(log.write().expect("a write")),
            _ => {}
        }
    }
    match source.below(4) {
        0 => {
            log.close().expect("a clean end");
            durable = written.len();
        }
        1 => {
            drop(log);
            disk.crash(&mut Rng::new(source.u64()));
        }
        _ => {}
    }
    (disk, written, durable)
}

type Opened = (Log<MemoryDisk>, Written);

fn open(disk: &MemoryDisk, segment_bytes: u64) -> Result<Opened, LogError> {
    let mut shown = Written::new();
    let (log, recovery) = Log::open(disk.clone(), options(segment_bytes), LogSeq(0), |record| {
        shown.push((record.seq, record.keyspace, record.payload.to_vec()));
        Ok::<(), LogError>(())
    })?;
    assert_eq!(recovery.records, shown.len() as u64);
    assert_eq!(log.last(), recovery.last);
    Ok((log, shown))
}

/// Every file with its bytes.
fn files(disk: &MemoryDisk) -> Vec<(String, Vec<u8>)> {
    let names = disk.list().expect("the names");
    names
        .into_iter()
        .map(|name| (name.clone(), disk.bytes(&name)))
        .collect()
}

fn put(disk: &MemoryDisk, name: &str, bytes: &[u8]) {
    if disk.list().expect("the names").iter().any(|known| known == name) {
        disk.remove(name).expect("a removal");
    }
    let mut file = disk.create(name).expect("a new file");
    file.write_at(bytes, 0).expect("a write");
    file.sync().expect("a sync");
    disk.sync_directory().expect("a sync");
}

/// Runs `work`, which may use memory in proportion to the disk's files.
fn frugal<T>(disk: &MemoryDisk, work: impl FnOnce() -> T) -> T {
    let bytes: u64 = files(disk).iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let mut result = None;
    let used = allocation_counter::measure(|| result = Some(work()));
    let allowed = MEMORY.0 + MEMORY.1 * bytes;
    assert!(
        used.bytes_max <= allowed,
        "{} bytes held for {bytes}",
        used.bytes_max
    );
    result.expect("the work was done")
}

fn name(source: &mut Source<'_>, names: &[String]) -> String {
    match source.below(8) {
        0 => format!("wal-{:016x}", source.below(6)),
        1 => format!("wal-{:016x}", u64::MAX - source.below(2) as u64),
        2 => format!("spare-{}", source.below(4)),
        3 => format!("spare-{}", u64::MAX - source.below(2) as u64),
        4 => format!("snapshot-{:016x}", source.below(6)),
        5 => String::from_utf8_lossy(source.bytes(20)).into_owned() + "~",
        _ if names.is_empty() => "wal-0000000000000001".into(),
        _ => source.pick(names).clone(),
    }
}

/// Changes the files once.
fn damage(source: &mut Source<'_>, disk: &MemoryDisk) {
    let names = disk.list().expect("the names");
    if names.is_empty() {
        return;
    }
    let victim = source.pick(&names).clone();
    let bytes = disk.bytes(&victim);
    match source.below(8) {
        0..=2 => {
            // Near the beginning of the records, mostly: there they are.
            let limit = if source.once_in(4) {
                bytes.len()
            } else {
                bytes.len().min(6000)
            };
            let offset = source.below(limit) as u64;
            let flips = source.bytes(8).to_vec();
            disk.damage(&victim, offset, |bytes| {
                bytes
                    .iter_mut()
                    .zip(&flips)
                    .for_each(|(byte, flip)| *byte ^= flip);
            });
        }
        3 => put(disk, &victim, &bytes[..source.below(bytes.len() + 1)]),
        4 => disk.remove(&victim).expect("a removal"),
        5 => {
            let other = name(source, &names);
            if other != victim {
                disk.rename(&victim, &other).expect("a rename");
            }
        }
        6 => {
            let copy = name(source, &names);
            put(disk, &copy, &bytes);
        }
        _ => {
            // A sector of one place lands in another one.
            let from = source.below(bytes.len() / 512 + 1) * 512;
            let to = source.below(bytes.len() / 512 + 1) * 512;
            let sector = bytes[from..bytes.len().min(from + 512)].to_vec();
            disk.damage(&victim, to as u64, |bytes| {
                bytes.iter_mut().zip(&sector).for_each(|(byte, new)| *byte = *new);
            });
        }
    }
}

fn damaged_log_of(input: &[u8]) {
    let source = &mut Source::new(input);
    let (disk, written, durable) = used(source);
    let changes = source.below(4);
    for _ in 0..changes {
        damage(source, &disk);
    }
    let before = files(&disk);
    let verification = frugal(&disk, || Log::verify(&disk, LogSeq(0))).expect("a list of names");
    assert_eq!(files(&disk), before, "a check changes nothing: {verification:?}");
    match frugal(&disk, || open(&disk, 8192)) {
        Err(error) => {
            assert!(changes > 0, "an undamaged log is refused: {error}");
            assert_eq!(files(&disk), before, "a refusal changes nothing: {error}");
        }
        Ok((mut log, shown)) => {
            assert!(written.starts_with(&shown), "{shown:?} is shown of {written:?}");
            assert!(changes > 0 || shown.len() >= durable, "durable records are lost");
            goes_on(&disk, &mut log, shown);
        }
    }
}

/// A log that was opened takes more, and the next start shows it.
fn goes_on(disk: &MemoryDisk, log: &mut Log<MemoryDisk>, mut shown: Written) {
    let seq = log.append(KeyspaceId(9), b"one more").expect("an append");
    log.sync().expect("a sync");
    shown.push((seq, KeyspaceId(9), b"one more".to_vec()));
    let (_, again) = open(disk, 8192).expect("a log that was just opened");
    assert_eq!(again, shown);
}

/// Files that no log has written, with headers whose checksums are right: no panic, no record that was not written.
fn foreign_log_of(input: &[u8]) {
    let source = &mut Source::new(input);
    let (disk, written, _) = used(source);
    for _ in 0..1 + source.below(2) {
        let names: Vec<String> = disk.list().expect("the names");
        let Some(victim) = names.get(source.below(names.len())).cloned() else {
            return;
        };
        let mut bytes = disk.bytes(&victim);
        if source.once_in(4) {
            bytes = source.bytes(200).to_vec();
        }
        bytes.resize(bytes.len().max(48), 0);
        // A field of the header: id, index, first record, length.
        let field = 8 + 8 * source.below(4);
        let number = match source.below(4) {
            0 => u64::from(source.byte()),
            1 => u64::MAX - u64::from(source.byte()),
            2 => 1 << source.below(64),
            _ => source.u64(),
        };
        bytes[field..field + 8].copy_from_slice(&number.to_le_bytes());
        bytes[..8].copy_from_slice(b"TRILWAL2");
        let checksum = xxh3_64_with_seed(&bytes[..40], 0);
        bytes[40..48].copy_from_slice(&checksum.to_le_bytes());
        let named = name(source, &names);
        put(&disk, &named, &bytes);
    }
    let snapshot = LogSeq(if source.once_in(4) { source.u64() } else { 0 });
    frugal(&disk, || Log::verify(&disk, snapshot)).expect("a list of names");
    let _id = Log::id_of(&disk);
    let mut shown = Written::new();
    let opened = Log::open(disk.clone(), options(8192), snapshot, |record| {
        shown.push((record.seq, record.keyspace, record.payload.to_vec()));
        Ok::<(), LogError>(())
    });
    assert!(
        shown.iter().all(|record| written.contains(record)),
        "{shown:?} is shown of {written:?}"
    );
    if let Ok((mut log, _)) = opened {
        // At the end of the numbers an append may be refused, not panic.
        let _more = log.append(KeyspaceId(9), b"one more").and_then(|_| log.sync());
    }
}

type Chunks = Vec<(KeyspaceId, Vec<u8>)>;

fn snapshot_of(source: &mut Source<'_>) -> (MemoryDisk, Chunks, LogSeq, [u8; 32]) {
    let disk = MemoryDisk::new();
    let at = LogSeq(1 + source.below(5) as u64);
    let table = [source.byte(); 32];
    let mut chunks = Chunks::new();
    for count in 0..source.below(12) {
        let length = *source.pick(&[0, 1, 30, 900]);
        chunks.push((KeyspaceId(source.below(3) as u32), vec![count as u8; length]));
    }
    let sections = chunks.clone().into_iter().map(|(keyspace, chunk)| -> Section {
        (keyspace, Checkpoint::new(std::iter::once(chunk), |_| Ok(())))
    });
    snapshot::write_with_table(&disk, LOG_ID, at, table, sections).expect("a snapshot");
    (disk, chunks, at, table)
}

fn read(disk: &MemoryDisk, at: LogSeq) -> Result<Chunks, SnapshotError> {
    let mut shown = Chunks::new();
    snapshot::read(disk, LOG_ID, at, |keyspace, chunk| {
        shown.push((keyspace, chunk.to_vec()));
        Ok::<(), SnapshotError>(())
    })?;
    Ok(shown)
}

fn damaged_snapshot_of(input: &[u8]) {
    let source = &mut Source::new(input);
    let (disk, chunks, at, table) = snapshot_of(source);
    let changes = source.below(4);
    for _ in 0..changes {
        damage(source, &disk);
    }
    let newest = snapshot::newest(&disk).expect("a list of names");
    for position in [at, newest] {
        match frugal(&disk, || read(&disk, position)) {
            // Anything but all of it is refused: the log behind the rest is gone.
            Ok(shown) => {
                assert_eq!((position, shown), (at, chunks.clone()));
                let summary = snapshot::verify(&disk, LOG_ID, at).expect("it was just read");
                assert_eq!(summary.table, table);
            }
            Err(error) => assert!(changes > 0, "an undamaged snapshot is refused: {error}"),
        }
    }
}

/// A snapshot file whose checksums are right and whose lengths, kinds and counts are not.
fn foreign_snapshot_of(input: &[u8]) {
    const FRAMES_AT: usize = 64;
    let source = &mut Source::new(input);
    let (disk, _, at, _) = snapshot_of(source);
    let name = format!("snapshot-{:016x}", at.0);
    let mut bytes = disk.bytes(&name);
    bytes.truncate(FRAMES_AT);
    while !source.is_empty() {
        let offset = bytes.len() as u64;
        let length = source.below(40);
        let payload = source.bytes(length).to_vec();
        let mut frame = Vec::new();
        let claimed = match source.below(8) {
            0 => source.u64() as u32,
            1 => 16 * 1024 * 1024 - source.below(2) as u32,
            _ => payload.len() as u32,
        };
        frame.extend_from_slice(&claimed.to_le_bytes());
        frame.extend_from_slice(&(source.below(6) as u32).to_le_bytes());
        let kind = *source.pick(&[1, 1, 1, 2, 3, 0, u64::MAX]);
        frame.extend_from_slice(&kind.to_le_bytes());
        frame.extend_from_slice(&payload);
        let seed =
            LOG_ID ^ at.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ offset.wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        bytes.extend_from_slice(&xxh3_64_with_seed(&frame, seed).to_le_bytes());
        bytes.extend_from_slice(&frame);
    }
    put(&disk, &name, &bytes);
    if let Ok(shown) = frugal(&disk, || read(&disk, at)) {
        let total: usize = shown.iter().map(|(_, chunk)| chunk.len()).sum();
        assert!(total <= bytes.len());
    }
}
