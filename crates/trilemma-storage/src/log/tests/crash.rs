//! Power fails anywhere, in recovery too: what was reported durable is there, in order, and nothing is invented.

use super::*;

/// Stands for the mark of a clean end, which takes a number and is not shown.
const MARK: u64 = u64::MAX;

fn body(seq: u64, salt: u64) -> Vec<u8> {
    let mut rng = Rng::new(seq ^ (salt << 20));
    let length = 8 + rng.below(600) as usize;
    (0..length).map(|_| rng.next_u64() as u8).collect()
}

/// One directory through several lives of a node.
struct World {
    seed: u64,
    rng: Rng,
    disk: MemoryDisk,
    /// The last record that was reported durable.
    durable: u64,
    snapshot: LogSeq,
    /// What each number may hold: a crash may lose the end, and other records take its numbers.
    salts: Vec<u64>,
    /// Lives that the power's failure ended while the log was being opened, and while it was in use.
    broken_opens: u64,
    broken_lives: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            rng: Rng::new(seed),
            disk: MemoryDisk::new(),
            durable: 0,
            snapshot: LogSeq(0),
            salts: vec![MARK],
            broken_opens: 0,
            broken_lives: 0,
        }
    }

    fn live(&mut self, incarnation: u64) {
        let seed = self.seed;
        let operations = self.rng.per_mille(700).then(|| self.rng.below(60));
        let names_only = self.rng.per_mille(200);
        self.disk.set_faults(MemoryFaults {
            operations,
            names_only,
            ..MemoryFaults::default()
        });
        let options = LogOptions {
            segment_bytes: *self.rng.pick(&[8192, 8192, 16384, 65536]).expect("not empty"),
            ..OPTIONS
        };
        let mut records = Records::new();
        let opened = Log::open(self.disk.clone(), options, self.snapshot, |record: Record<'_>| {
            records.push((record.seq.0, record.payload.to_vec()));
            Ok::<(), LogError>(())
        });
        match opened {
            Ok((log, _)) => {
                self.check(incarnation, log.last().0, &records);
                if let Err(error) = self.work(incarnation, log) {
                    assert!(
                        operations.is_some() && matches!(error, LogError::Io { .. }),
                        "seed {seed}, incarnation {incarnation}: {error}"
                    );
                    self.broken_lives += 1;
                }
            }
            Err(LogError::Io { .. }) if operations.is_some() => self.broken_opens += 1,
            Err(error) => panic!("seed {seed}, incarnation {incarnation}: {error}"),
        }
        // A process may also be killed, and the system go on.
        if self.rng.per_mille(850) {
            self.disk.crash(&mut self.rng);
        }
    }

    /// What recovery shows is exactly what was appended, and is durable from now on.
    fn check(&mut self, incarnation: u64, last: u64, records: &Records) {
        let (seed, durable) = (self.seed, self.durable);
        assert!(
            last >= durable,
            "seed {seed}, incarnation {incarnation}: {durable} was durable, {last} is left"
        );
        assert!(
            last < self.salts.len() as u64,
            "seed {seed}, incarnation {incarnation}: record {last} was never appended"
        );
        let expected: Records = (self.snapshot.0 + 1..=last)
            .filter(|seq| self.salts[*seq as usize] != MARK)
            .map(|seq| (seq, body(seq, self.salts[seq as usize])))
            .collect();
        assert!(
            *records == expected,
            "seed {seed}, incarnation {incarnation}: other records than were appended"
        );
        self.salts.truncate(last as usize + 1);
        self.durable = last;
    }

    fn work(&mut self, incarnation: u64, mut log: Log<MemoryDisk>) -> Result<(), LogError> {
        for _ in 0..self.rng.below(40) {
            let result = self.step(incarnation, &mut log);
            self.durable = self.durable.max(log.durable().0);
            result?;
        }
        if self.rng.per_mille(300) {
            self.salts.push(MARK);
            log.close()?;
            self.durable = log.durable().0;
        }
        Ok(())
    }

    fn step(&mut self, incarnation: u64, log: &mut Log<MemoryDisk>) -> Result<(), LogError> {
        match self.rng.below(12) {
            0..=6 => {
                let salt = incarnation * 1000 + self.rng.below(1000);
                let seq = log.append(KEYSPACE, &body(log.last().0 + 1, salt))?;
                self.salts.push(salt);
                assert_eq!(seq.0 as usize + 1, self.salts.len());
            }
            7 | 8 => drop(log.write()?),
            9 => drop(log.sync()?),
            10 => log.prepare_next()?,
            _ => {
                let durable = log.sync()?.0;
                self.snapshot = LogSeq(self.rng.below(durable + 1).max(self.snapshot.0));
                log.release(self.snapshot)?;
            }
        }
        Ok(())
    }
}

pub(super) fn many_lives() {
    let seeds = std::env::var("TRILEMMA_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(3000);
    let (mut broken_opens, mut broken_lives) = (0, 0);
    for seed in 0..seeds {
        let mut world = World::new(seed);
        for incarnation in 1..=8 {
            world.live(incarnation);
        }
        broken_opens += world.broken_opens;
        broken_lives += world.broken_lives;
    }
    assert!(broken_opens > seeds / 10, "{broken_opens} crashes in recovery");
    assert!(broken_lives > seeds / 10, "{broken_lives} crashes at work");
}

/// A fixed history that rolls, recycles and closes. Returns what was durable, even if it broke off.
fn history(disk: &MemoryDisk, durable: &mut u64, snapshot: &mut LogSeq) -> Result<(), LogError> {
    let (mut log, ..) = open(disk)?;
    for round in 0..14_u64 {
        for _ in 0..6 {
            let seq = log.last().0 + 1;
            let result = log.append(KEYSPACE, &payload(seq));
            *durable = (*durable).max(log.durable().0);
            result?;
        }
        log.write()?;
        if round % 3 == 1 {
            log.prepare_next()?;
        }
        *durable = log.sync()?.0;
        if round % 5 == 4 {
            *snapshot = LogSeq(*durable - 3);
            log.release(*snapshot)?;
        }
    }
    log.close()
}

#[test]
fn power_failing_at_every_single_operation_is_survived() {
    let mut points = 0;
    for operations in 0.. {
        let mut finished = false;
        for seed in 0..12 {
            let disk = MemoryDisk::new();
            disk.set_faults(MemoryFaults {
                operations: Some(operations),
                ..MemoryFaults::default()
            });
            let (mut durable, mut snapshot) = (0, LogSeq(0));
            finished = history(&disk, &mut durable, &mut snapshot).is_ok();
            disk.crash(&mut Rng::new(seed));
            let (log, _, records) = open_at(&disk, snapshot)
                .unwrap_or_else(|error| panic!("operation {operations}, seed {seed}: {error}"));
            let last = records.last().map_or(snapshot.0, |(seq, _)| *seq);
            assert!(
                last >= durable && log.last().0 >= last,
                "operation {operations}, seed {seed}: {durable} was durable, {last} is left"
            );
            assert_eq!(
                records,
                expected(snapshot.0 + 1, last),
                "operation {operations}, seed {seed}"
            );
        }
        if finished {
            break;
        }
        points += 1;
    }
    assert!(points > 60, "only {points} points to fail at");
}

/// Rebello et al. 2020: after a failed sync the cache shows what the disk has not got. A process that restarts without
/// a crash reads it, and must not call it durable before it has written it again.
#[test]
fn what_a_restart_shows_after_a_failed_sync_is_durable() {
    for seed in 0..50 {
        let disk = MemoryDisk::new();
        let (mut log, ..) = open(&disk).unwrap();
        append(&mut log, 3);
        log.sync().unwrap();
        append(&mut log, 5);
        log.write().unwrap();
        disk.set_faults(MemoryFaults {
            fail_next_sync: true,
            ..MemoryFaults::default()
        });
        assert!(log.sync().is_err());
        drop(log);
        let (log, _, shown) = open(&disk).unwrap();
        assert_eq!(shown, expected(1, 8));
        assert_eq!(log.durable(), LogSeq(8));
        drop(log);
        disk.crash(&mut Rng::new(seed));
        assert_eq!(open(&disk).unwrap().2, shown, "seed {seed}");
    }
}
