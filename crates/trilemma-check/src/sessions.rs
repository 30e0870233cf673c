//! Session guarantees (Terry et al. 1994): what each process may expect of its own earlier operations.
//!
//! Rules: `read-your-writes`, `monotonic-reads`, `monotonic-writes`, `writes-follow-reads`. A history is judged by
//! versions where they are ordered, else by tokens: a process that has seen a write replaced may not see it again.
//!
//! A read that finds nothing is right if a delete may have replaced what the process knew. Operations of unknown
//! outcome bind nobody: neither must they be seen, nor may they not.

use std::collections::{BTreeMap, BTreeSet};

use crate::convergence::{Content, Fate, Write, writes};
use crate::history::{Answer, Call, Operation, Outcome};
use crate::verdict::Verdict;

mod runs;
mod session;

use runs::{Element, Walk};
use session::Session;

/// What versions say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// One order for all keys: a write's version is above all that its session has read or written, and the version
    /// that a read reflects ([`Answer::Value`]'s `at`) counts.
    Keyspace,
    /// Versions of one key are ordered; those of different keys say nothing about each other.
    PerKey,
    /// Versions only name writes. Where an answer has none, a value that was written once names its write.
    Opaque,
}

/// What is promised. A service that promises less is judged by less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guarantees {
    /// A read reflects the acknowledged writes of its process.
    pub read_your_writes: bool,
    /// A read reflects what earlier reads of its process have shown.
    pub monotonic_reads: bool,
    /// A process's writes take effect in their order. With `writes_follow_reads` it also lets tokens tell what an
    /// own write has replaced.
    pub monotonic_writes: bool,
    /// A write comes after what its process had read. Not visible where versions are [`Order::Opaque`].
    pub writes_follow_reads: bool,
}

impl Guarantees {
    /// All four.
    pub const ALL: Self = Self {
        read_your_writes: true,
        monotonic_reads: true,
        monotonic_writes: true,
        writes_follow_reads: true,
    };

    fn holds(self, rule: &str) -> bool {
        match rule {
            "read-your-writes" => self.read_your_writes,
            "monotonic-reads" => self.monotonic_reads,
            "monotonic-writes" => self.monotonic_writes,
            _ => self.writes_follow_reads,
        }
    }
}

/// Checks each process of `history` by itself. Undecided if no process has two answered operations that can be held
/// against each other: then nothing was judged.
#[must_use]
pub fn check(history: &[Operation], order: Order, guarantees: Guarantees) -> Verdict {
    let all = writes(history);
    let known = Known::new(&all, history.len());
    let mut processes: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (at, operation) in history.iter().enumerate() {
        processes.entry(operation.process).or_default().push(at);
    }
    let mut is_judged = false;
    for (process, operations) in &mut processes {
        let counting = operations.iter().filter(|at| counts(&history[**at]));
        is_judged |= counting.count() > 1;
        operations.sort_by_key(|at| (history[*at].invoke, *at));
        let mut session = Session::new(*process, order, guarantees, &known);
        for at in operations.iter().copied() {
            if let Some(found) = step(&mut session, at, &history[at], &known, guarantees) {
                return found;
            }
        }
    }
    if guarantees == Guarantees::ALL {
        let walked =
            |(process, operations): (&u64, &Vec<usize>)| walked(*process, operations, history, &known, order);
        if let Some(found) = processes.iter().find_map(walked) {
            return found;
        }
    }
    if is_judged {
        return Verdict::Legal;
    }
    let why = "no process has two answered operations that a session can be judged by (get, put, delete, cas, range, \
               command); give all operations of one client one process number"
        .into();
    Verdict::Undecided { why }
}

/// Whether the process can have seen each key as it did: see [`runs`].
fn walked(
    process: u64,
    operations: &[usize],
    history: &[Operation],
    known: &Known<'_>,
    order: Order,
) -> Option<Verdict> {
    let mut keys: BTreeMap<&str, Vec<Element<'_>>> = BTreeMap::new();
    for at in operations {
        for (key, element) in elements(*at, &history[*at], known) {
            keys.entry(key).or_default().push(element);
        }
    }
    for (key, elements) in keys {
        match runs::walk(known, process, key, order, &elements) {
            Walk::Possible => {}
            Walk::OutOfSteps => {
                let why = format!(
                    "too many writes of key {key} may each have been what process {process} saw; write unique values"
                );
                return Some(Verdict::Undecided { why });
            }
            Walk::Impossible { at, before } => {
                let is_own = matches!(
                    history[before].outcome,
                    Outcome::Ok(Answer::Done { .. } | Answer::Won { .. })
                );
                let rule = if is_own {
                    "read-your-writes"
                } else {
                    "monotonic-reads"
                };
                let what = format!(
                    "operation {at} of process {process} sees {key} as it was before operation {before}, which had \
                     left that behind: too few writes made this value"
                );
                return Some(Verdict::illegal(rule, what, [at, before]));
            }
        }
    }
    None
}

/// What an operation saw of each key or wrote to it, as far as it was answered.
fn elements<'a>(at: usize, operation: &'a Operation, known: &Known<'a>) -> Vec<(&'a str, Element<'a>)> {
    let Outcome::Ok(answer) = &operation.outcome else {
        return Vec::new();
    };
    let read = |value: Option<&'a str>, version: Option<u64>| Element {
        operation: at,
        value,
        version,
        is_write: false,
    };
    match (&operation.call, answer) {
        (Call::Get { key }, Answer::Value { value, version, .. }) => {
            let version = version.filter(|_| value.is_some());
            let key = known.keys.get(key.as_str()).copied();
            key.map(|key| (key, read(value.as_deref(), version)))
                .into_iter()
                .collect()
        }
        (Call::Range { start, end, .. }, Answer::Entries { entries, more, .. }) => {
            let upto = if *more {
                entries.last().map_or("", |last| &last.key)
            } else {
                ""
            };
            let covers = |key: &str| {
                key >= start.as_str()
                    && end.as_ref().is_none_or(|end| key < end.as_str())
                    && (!more || key <= upto)
            };
            let found = |key: &str| entries.iter().find(|entry| entry.key == key);
            let keys = known.keys.iter().copied().filter(|key| covers(key));
            keys.map(|key| match found(key) {
                Some(entry) => (key, read(Some(&entry.value), entry.version)),
                None => (key, read(None, None)),
            })
            .collect()
        }
        _ => known.of_operation[at]
            .iter()
            .map(|write| &known.all[*write])
            .filter(|write| write.fate == Fate::Acknowledged)
            .filter_map(|write| {
                let value = match write.content {
                    Content::Put(value) => Some(value),
                    Content::Delete => None,
                    Content::Add(_) => return None,
                };
                let element = Element {
                    operation: at,
                    value,
                    version: write.version,
                    is_write: true,
                };
                Some((write.key, element))
            })
            .collect(),
    }
}

/// Whether an operation binds its session or is bound by it.
fn counts(operation: &Operation) -> bool {
    let is_of_table = matches!(
        operation.call,
        Call::Get { .. }
            | Call::Put { .. }
            | Call::Delete { .. }
            | Call::Cas { .. }
            | Call::Range { .. }
            | Call::Command { .. }
    );
    is_of_table && matches!(operation.outcome, Outcome::Ok(_))
}

/// What the history shows of writes.
struct Known<'a> {
    all: &'a [Write<'a>],
    /// Those of each operation.
    of_operation: Vec<Vec<usize>>,
    /// Those that put this value to this key and did not fail.
    makers: BTreeMap<(&'a str, &'a str), Vec<usize>>,
    /// Keys that somebody writes, whatever came of it.
    keys: BTreeSet<&'a str>,
    /// Deletes that did not fail.
    deletes: BTreeMap<&'a str, Vec<usize>>,
    /// The versions that acknowledged writes of each key made, ascending, and whether each is a delete.
    versions: BTreeMap<&'a str, Vec<(u64, bool)>>,
}

impl<'a> Known<'a> {
    fn new(all: &'a [Write<'a>], operations: usize) -> Self {
        let mut known = Self {
            all,
            of_operation: vec![Vec::new(); operations],
            makers: BTreeMap::new(),
            keys: all.iter().map(|write| write.key).collect(),
            deletes: BTreeMap::new(),
            versions: BTreeMap::new(),
        };
        for (at, write) in all.iter().enumerate() {
            known.of_operation[write.operation].push(at);
            if let (Fate::Acknowledged, Some(version)) = (write.fate, write.version) {
                let is_delete = write.content == Content::Delete;
                known
                    .versions
                    .entry(write.key)
                    .or_default()
                    .push((version, is_delete));
            }
            match write.content {
                _ if write.fate == Fate::Failed => {}
                Content::Put(value) => known.makers.entry((write.key, value)).or_default().push(at),
                Content::Delete => known.deletes.entry(write.key).or_default().push(at),
                Content::Add(_) => {}
            }
        }
        known
            .versions
            .values_mut()
            .for_each(|versions| versions.sort_unstable());
        known
    }

    /// The only write that can have made this value, if there is only one.
    fn maker(&self, key: &str, value: &str) -> Option<&'a Write<'a>> {
        match self.makers.get(&(key, value)).map_or(&[][..], |found| found) {
            [only] => Some(&self.all[*only]),
            _ => None,
        }
    }

    /// Whether some delete may have made a version of `key` that is at least `floor`.
    fn deletes_after(&self, key: &str, floor: u64) -> bool {
        let deletes = self.deletes.get(key).map_or(&[][..], |found| found);
        deletes
            .iter()
            .any(|at| self.all[*at].version.is_none_or(|version| version >= floor))
    }

    fn versions_of(&self, key: &str) -> &[(u64, bool)] {
        self.versions.get(key).map_or(&[][..], |versions| versions)
    }

    /// Whether some delete may have taken effect at a version that nobody shows.
    fn has_open_delete(&self, key: &str) -> bool {
        let deletes = self.deletes.get(key).map_or(&[][..], |found| found);
        deletes.iter().any(|at| self.all[*at].version.is_none())
    }

    fn is_deleted(&self, key: &str) -> bool {
        self.deletes.contains_key(key)
    }
}

fn step<'a>(
    session: &mut Session<'a, '_>,
    at: usize,
    operation: &'a Operation,
    known: &Known<'a>,
    guarantees: Guarantees,
) -> Option<Verdict> {
    let Outcome::Ok(answer) = &operation.outcome else {
        return None;
    };
    let holds = |found: &Verdict| matches!(found, Verdict::Illegal(found) if guarantees.holds(found.rule));
    match (&operation.call, answer) {
        (
            Call::Get { key },
            Answer::Value {
                value,
                version,
                at: reflects,
            },
        ) => {
            let key_read = session.read(at, key, value.as_deref(), *version).filter(holds);
            key_read
                .or_else(|| session.reflects(at, *reflects).filter(holds))
                .or_else(|| {
                    session
                        .stands(at, &elements(at, operation, known), *reflects)
                        .filter(holds)
                })
        }
        (
            Call::Range { start, end, .. },
            Answer::Entries {
                entries,
                more,
                at: reflects,
            },
        ) => {
            for entry in entries {
                let found = session
                    .read(at, &entry.key, Some(&entry.value), entry.version)
                    .filter(holds);
                if found.is_some() {
                    return found;
                }
            }
            let upto = if *more {
                entries.last().map(|last| last.key.as_str())
            } else {
                None
            };
            let within = |key: &str| {
                key >= start.as_str()
                    && end.as_ref().is_none_or(|end| key < end.as_str())
                    && (!more || upto.is_some_and(|upto| key <= upto))
                    && !entries.iter().any(|entry| entry.key == key)
            };
            for key in session.known_keys(within) {
                let found = session.read(at, key, None, None).filter(holds);
                if found.is_some() {
                    return found;
                }
            }
            session.reflects(at, *reflects).filter(holds).or_else(|| {
                session
                    .stands(at, &elements(at, operation, known), *reflects)
                    .filter(holds)
            })
        }
        (
            _,
            Answer::Won {
                succeeded: false,
                version,
            },
        ) => session.reflects(at, *version).filter(holds),
        _ => {
            for write in &known.of_operation[at] {
                let found = session.write(&known.all[*write]);
                if let Some(found) = found.into_iter().find(holds) {
                    return Some(found);
                }
            }
            None
        }
    }
}
