//! Anomalies planted into legal histories. Each comes with the reason why no order can explain it.
//!
//! Values are unique: once a value has been replaced it never comes back. That is what the reasons rest on.

use trilemma_check::history::{Answer, Call, Entry, Operation, Outcome};
use trilemma_core::Rng;

/// The classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anomaly {
    StaleRead,
    LostWrite,
    LostUpdate,
    OutOfThinAir,
    FailedWriteRead,
    ReadsGoBack,
    EffectTwice,
    FracturedCommand,
    RangeMissesKey,
    RangeResurrectsKey,
    WritesInverted,
}

impl Anomaly {
    pub(crate) const ALL: [Anomaly; 11] = [
        Anomaly::StaleRead,
        Anomaly::LostWrite,
        Anomaly::LostUpdate,
        Anomaly::OutOfThinAir,
        Anomaly::FailedWriteRead,
        Anomaly::ReadsGoBack,
        Anomaly::EffectTwice,
        Anomaly::FracturedCommand,
        Anomaly::RangeMissesKey,
        Anomaly::RangeResurrectsKey,
        Anomaly::WritesInverted,
    ];
}

/// A value of a key, where it was written.
#[derive(Clone)]
struct Write {
    index: usize,
    key: String,
    value: Option<String>,
    version: u64,
}

/// What an operation is known to have seen a key hold.
struct Sight {
    index: usize,
    key: String,
    value: Option<String>,
}

/// A legal history, looked at.
pub(crate) struct Planter<'a> {
    pub(crate) operations: Vec<Operation>,
    rng: &'a mut Rng,
    writes: Vec<Write>,
    reads: Vec<Sight>,
    has_versions: bool,
}

fn writes_of(operation: &Operation) -> Vec<(String, Option<String>)> {
    match &operation.call {
        Call::Put { key, value } => vec![(key.clone(), Some(value.clone()))],
        Call::Delete { key } => vec![(key.clone(), None)],
        Call::Cas { key, value, .. } => vec![(key.clone(), value.clone())],
        Call::Command { changes, .. } => changes
            .iter()
            .map(|change| (change.key.clone(), change.value.clone()))
            .collect(),
        _ => Vec::new(),
    }
}

impl<'a> Planter<'a> {
    pub(crate) fn new(operations: Vec<Operation>, rng: &'a mut Rng) -> Self {
        let (mut writes, mut reads) = (Vec::new(), Vec::new());
        for (index, operation) in operations.iter().enumerate() {
            let Outcome::Ok(answer) = &operation.outcome else {
                continue;
            };
            match answer {
                Answer::Done { version }
                | Answer::Won {
                    succeeded: true,
                    version,
                } => {
                    let version = version.unwrap_or(0);
                    writes.extend(writes_of(operation).into_iter().map(|(key, value)| Write {
                        index,
                        key,
                        value,
                        version,
                    }));
                }
                Answer::Value { value, .. } => {
                    let Call::Get { key } = &operation.call else {
                        continue;
                    };
                    reads.push(Sight {
                        index,
                        key: key.clone(),
                        value: value.clone(),
                    });
                }
                Answer::Entries { entries, .. } => reads.extend(entries.iter().map(|entry| Sight {
                    index,
                    key: entry.key.clone(),
                    value: Some(entry.value.clone()),
                })),
                _ => {}
            }
        }
        Self {
            operations,
            rng,
            has_versions: writes.iter().any(|write| write.version > 0),
            writes,
            reads,
        }
    }

    /// Plants one anomaly of the class; false if the history has no place for one.
    pub(crate) fn plant(&mut self, anomaly: Anomaly) -> bool {
        let planted = match anomaly {
            Anomaly::StaleRead => self.stale_read(),
            Anomaly::LostWrite => self.lost_write(),
            Anomaly::LostUpdate => self.lost_update(),
            Anomaly::OutOfThinAir => self.out_of_thin_air(),
            Anomaly::FailedWriteRead => self.failed_write_read(),
            Anomaly::ReadsGoBack => self.reads_go_back(),
            Anomaly::EffectTwice => self.effect_twice(),
            Anomaly::FracturedCommand => self.fractured_command(),
            Anomaly::RangeMissesKey => self.range_misses_key(),
            Anomaly::RangeResurrectsKey => self.range_resurrects_key(),
            Anomaly::WritesInverted => self.writes_inverted(),
        };
        planted.is_some()
    }

    /// Whether the first had returned before the second was asked.
    fn precedes(&self, first: usize, second: usize) -> bool {
        self.operations[first].effect_by() < self.operations[second].invoke
    }

    fn pick<T>(&mut self, mut candidates: Vec<T>) -> Option<T> {
        if candidates.is_empty() {
            return None;
        }
        let chosen = self.rng.below(candidates.len() as u64) as usize;
        Some(candidates.swap_remove(chosen))
    }

    /// Makes a read answer `value` for `key`, and says the version of its write. A read that says which version it
    /// reflects sometimes claims an old one, sometimes keeps its claim.
    fn answer(&mut self, read: usize, key: &str, value: Option<(&str, u64)>) {
        let claims_old = self.rng.below(2) == 0;
        // A history without versions stays one.
        let shown = |version: u64| (version > 0 && self.has_versions).then_some(version);
        let Outcome::Ok(answer) = &mut self.operations[read].outcome else {
            panic!("only answered reads are changed");
        };
        match answer {
            Answer::Value {
                value: found,
                version,
                at,
            } => {
                *found = value.map(|(value, _)| value.to_owned());
                *version = value.and_then(|(_, version)| shown(version));
                if let (true, Some(at), Some(version)) = (claims_old, at, *version) {
                    *at = version;
                }
            }
            Answer::Entries { entries, .. } => {
                entries.retain(|entry| entry.key != key);
                if let Some((value, version)) = value {
                    entries.push(Entry {
                        key: key.to_owned(),
                        value: value.to_owned(),
                        version: shown(version),
                    });
                    entries.sort_by(|one, other| one.key.cmp(&other.key));
                }
            }
            _ => panic!("only reads are changed"),
        }
    }

    /// Pairs of acknowledged writes of one key, the second after the first, the first of a value.
    fn write_pairs(&self) -> Vec<(Write, Write)> {
        let mut pairs = Vec::new();
        for first in self.writes.iter().filter(|write| write.value.is_some()) {
            for second in self.writes.iter().filter(|second| second.key == first.key) {
                if self.precedes(first.index, second.index) {
                    pairs.push((first.clone(), second.clone()));
                }
            }
        }
        pairs
    }

    /// w1 < w2 < r in real time, and r returns the value of w1, which w2 has replaced for good.
    fn stale_read(&mut self) -> Option<()> {
        let mut found = Vec::new();
        for (first, second) in self.write_pairs() {
            for read in self.reads.iter().filter(|read| read.key == first.key) {
                if self.precedes(second.index, read.index) && read.value != first.value {
                    found.push((first.clone(), read.index));
                }
            }
        }
        let (write, read) = self.pick(found)?;
        self.answer(read, &write.key, Some((&write.value?, write.version)));
        Some(())
    }

    /// A process that saw an acknowledged write sees what was there before: w1 < w2, and some reader began after w2. Only
    /// writes that nothing else hangs on (no command won from them).
    fn lost_write(&mut self) -> Option<()> {
        let mut found = Vec::new();
        for (first, second) in self.write_pairs() {
            let Some(lost) = second.value.clone() else {
                continue;
            };
            let is_used = self.operations.iter().any(|operation| {
                let call = operation.call.to_string();
                matches!(operation.call, Call::Cas { .. } | Call::Command { .. })
                    && (call.contains(&format!("{lost} ->")) || call.contains(&format!("is {lost}")))
            });
            let seen = |read: &&Sight| read.key == second.key && read.value.as_ref() == Some(&lost);
            let is_seen_later = self
                .reads
                .iter()
                .filter(seen)
                .any(|read| self.precedes(second.index, read.index));
            if is_seen_later && !is_used {
                let readers: Vec<usize> = self.reads.iter().filter(seen).map(|read| read.index).collect();
                found.push((first, readers));
            }
        }
        let (write, readers) = self.pick(found)?;
        for read in readers {
            self.answer(read, &write.key, Some((&write.value.clone()?, write.version)));
        }
        Some(())
    }

    /// A second command wins from the one value that another has replaced already.
    fn lost_update(&mut self) -> Option<()> {
        let mut found = Vec::new();
        for write in &self.writes {
            if let Call::Cas {
                expected: Some(_), ..
            } = self.operations[write.index].call
            {
                found.push(write.index);
            }
        }
        let original = self.pick(found)?;
        let mut second = self.operations[original].clone();
        second.process = 1000;
        let versions = self.writes.iter().map(|write| write.version);
        let newest = versions.max().filter(|_| self.has_versions);
        if let Call::Cas { value, .. } = &mut second.call {
            *value = Some("second".into());
        }
        let version = newest.map(|newest| newest + 1);
        second.outcome = Outcome::Ok(Answer::Won {
            succeeded: true,
            version,
        });
        self.operations.push(second);
        Some(())
    }

    /// A read returns what nobody wrote.
    fn out_of_thin_air(&mut self) -> Option<()> {
        let reads = self.reads.iter().map(|read| (read.index, read.key.clone()));
        let (read, key) = self.pick(reads.collect())?;
        let version = self.rng.below(20);
        self.answer(read, &key, Some(("from nowhere", version)));
        Some(())
    }

    /// A read returns what a write would have written that certainly never happened.
    fn failed_write_read(&mut self) -> Option<()> {
        let mut found = Vec::new();
        for operation in self
            .operations
            .iter()
            .filter(|operation| operation.outcome == Outcome::Fail)
        {
            for (key, value) in writes_of(operation) {
                let Some(value) = value else { continue };
                let of_key = self.reads.iter().filter(|read| read.key == key);
                found.extend(of_key.map(|read| (read.index, key.clone(), value.clone())));
            }
        }
        let (read, key, value) = self.pick(found)?;
        let version = self.rng.below(20);
        self.answer(read, &key, Some((&value, version)));
        Some(())
    }

    fn version_of(&self, key: &str, value: &str) -> u64 {
        let found = self
            .writes
            .iter()
            .find(|write| write.key == key && write.value.as_deref() == Some(value));
        found.map_or(0, |write| write.version)
    }

    /// Reads of one key, one after the other, of different values; the third is free to be changed.
    fn read_triples(&self) -> Vec<(&Sight, &Sight, &Sight)> {
        let mut triples = Vec::new();
        for second in &self.reads {
            let of_key = |read: &&Sight| read.key == second.key;
            let differs = |read: &&Sight| read.value.is_some() && read.value != second.value;
            let earlier = self
                .reads
                .iter()
                .filter(of_key)
                .filter(differs)
                .find(|read| self.precedes(read.index, second.index));
            let later = self
                .reads
                .iter()
                .filter(of_key)
                .find(|read| self.precedes(second.index, read.index));
            if let (Some(earlier), Some(later)) = (earlier, later) {
                triples.push((earlier, second, later));
            }
        }
        triples
    }

    /// r0 sees x, then r1 something else, then r2 sees x again: x was replaced and cannot be back.
    fn reads_go_back(&mut self) -> Option<()> {
        let triples = self.read_triples();
        let found = triples.iter().map(|(first, _, last)| {
            let value = first.value.clone().unwrap_or_default();
            (last.index, first.key.clone(), value)
        });
        let (read, key, value) = self.pick(found.collect())?;
        let version = self.version_of(&key, &value);
        self.answer(read, &key, Some((&value, version)));
        Some(())
    }

    /// w wrote x and returned, then r1 saw something else, then r2 sees x as if written again, under a new version.
    fn effect_twice(&mut self) -> Option<()> {
        let mut found = Vec::new();
        for write in self.writes.iter().filter(|write| write.value.is_some()) {
            let of_key = |read: &&Sight| read.key == write.key;
            for other in self
                .reads
                .iter()
                .filter(of_key)
                .filter(|read| read.value != write.value)
            {
                let last = self.reads.iter().filter(of_key);
                let mut last = last.filter(|read| self.precedes(other.index, read.index));
                if let (true, Some(last)) = (self.precedes(write.index, other.index), last.next()) {
                    found.push((write.clone(), last.index));
                }
            }
        }
        let (write, read) = self.pick(found)?;
        let versions = self.writes.iter().map(|write| write.version);
        let newest = versions.max().unwrap_or(0);
        let value = write.value?;
        self.answer(read, &write.key, Some((&value, newest + 1)));
        if let Outcome::Ok(Answer::Value { at: Some(at), .. }) = &mut self.operations[read].outcome {
            *at = newest + 1;
        }
        Some(())
    }

    /// A range shows one change of a command and, of another, what was there before the command: w0 < command.
    fn fractured_command(&mut self) -> Option<()> {
        let mut found = Vec::new();
        for (old, new) in self.write_pairs() {
            let siblings = self.writes.iter().filter(|write| write.index == new.index);
            for sibling in siblings.filter(|write| write.key != new.key && write.value.is_some()) {
                let sees = |read: &&Sight| read.key == sibling.key && read.value == sibling.value;
                for sight in self.reads.iter().filter(sees) {
                    let Call::Range { start, end, .. } = &self.operations[sight.index].call else {
                        continue;
                    };
                    let covers = &new.key >= start && end.as_ref().is_none_or(|end| &new.key < end);
                    // If the range was cut before the key, the answer would show one entry more than it may.
                    let shown = self.reads.iter().any(|read| {
                        read.index == sight.index && read.key == new.key && read.value == new.value
                    });
                    if covers && shown {
                        found.push((old.clone(), sight.index));
                    }
                }
            }
        }
        let (old, read) = self.pick(found)?;
        self.answer(read, &old.key, Some((&old.value?, old.version)));
        Some(())
    }

    /// Whether `key` may have been removed by an operation asked for before this one returned.
    fn may_be_removed_before(&self, key: &str, index: usize) -> bool {
        let end = self.operations[index].effect_by();
        self.operations.iter().any(|operation| {
            operation.invoke <= end
                && writes_of(operation)
                    .iter()
                    .any(|(written, value)| written == key && value.is_none())
        })
    }

    /// A range leaves out a key that was written before and that nobody can have removed.
    fn range_misses_key(&mut self) -> Option<()> {
        let mut found = Vec::new();
        for read in &self.reads {
            let operation = &self.operations[read.index];
            let Outcome::Ok(Answer::Entries { more: false, .. }) = operation.outcome else {
                continue;
            };
            let is_there = self
                .writes
                .iter()
                .any(|write| write.key == read.key && self.precedes(write.index, read.index));
            if is_there && !self.may_be_removed_before(&read.key, read.index) {
                found.push((read.index, read.key.clone()));
            }
        }
        let (read, key) = self.pick(found)?;
        self.answer(read, &key, None);
        Some(())
    }

    /// w < delete < range in real time, and the range shows the value of w.
    fn range_resurrects_key(&mut self) -> Option<()> {
        let mut found = Vec::new();
        for (first, removal) in self.write_pairs() {
            if removal.value.is_some() {
                continue;
            }
            for (index, operation) in self.operations.iter().enumerate() {
                let Call::Range {
                    start,
                    end,
                    limit: None,
                } = &operation.call
                else {
                    continue;
                };
                let covers = &first.key >= start && end.as_ref().is_none_or(|end| &first.key < end);
                let is_answered = matches!(operation.outcome, Outcome::Ok(_));
                if covers && is_answered && self.precedes(removal.index, index) {
                    found.push((first.clone(), index));
                }
            }
        }
        let (write, read) = self.pick(found)?;
        self.answer(read, &write.key, Some((&write.value?, write.version)));
        Some(())
    }

    /// w1 < w2 in real time; r1 sees w2, and r2, after r1, sees w1.
    fn writes_inverted(&mut self) -> Option<()> {
        let mut found = Vec::new();
        for (first, second) in self.write_pairs() {
            let of_key = |read: &&Sight| read.key == first.key;
            let sees = |read: &&Sight| read.value.is_some() && read.value == second.value;
            for one in self.reads.iter().filter(of_key).filter(sees) {
                let mut later = self.reads.iter().filter(of_key);
                if let Some(later) = later.find(|read| self.precedes(one.index, read.index)) {
                    found.push((first.clone(), later.index));
                }
            }
        }
        let (write, read) = self.pick(found)?;
        self.answer(read, &write.key, Some((&write.value?, write.version)));
        Some(())
    }
}
