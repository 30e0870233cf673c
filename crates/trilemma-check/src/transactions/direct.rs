//! Anomalies that need no cycle.

use std::collections::BTreeMap;

use super::Level;
use super::index::{Fate, Index, Key, Read, Transaction};
use crate::history::Step;
use crate::verdict::Verdict;

/// The gravest anomaly that `level` forbids and that a look at single reads shows.
pub(super) fn check(index: &Index<'_>, level: Level) -> Option<Verdict> {
    let keys = || index.keys.iter().map(|(name, key)| (*name, key));
    keys()
        .find_map(|(name, key)| impossible(index, name, key))
        .or_else(|| internal(index, level))
        .or_else(|| keys().find_map(|(name, key)| aborted(index, name, key, level)))
        .or_else(|| {
            keys()
                .filter(|(_, key)| !key.is_register)
                .find_map(|(name, key)| {
                    incompatible(index, name, key).or_else(|| out_of_own_order(index, name, key))
                })
        })
        .or_else(|| keys().find_map(|(name, key)| intermediate(name, key, level)))
        .or_else(|| keys().find_map(|(name, key)| lost_update(name, key, level)))
}

pub(super) fn show(found: &[String]) -> String {
    format!("[{}]", found.join(" "))
}

/// Elements twice, or that nobody wrote.
fn impossible(index: &Index<'_>, name: &str, key: &Key<'_>) -> Option<Verdict> {
    for read in key.telling_reads() {
        let at = read.transaction;
        let mut sorted: Vec<&String> = read.found.iter().collect();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            let what = format!(
                "T{at} read {name} = {}, which holds {} twice",
                show(read.found),
                pair[0]
            );
            let writers = key.wrote(pair[0]).map(|wrote| wrote.transaction);
            return Some(Verdict::illegal(
                "duplicate-elements",
                what,
                writers.into_iter().chain([at]),
            ));
        }
        if let Some(element) = read.found.iter().find(|element| key.wrote(element).is_none()) {
            let what = format!(
                "T{at} read {name} = {}, but nobody wrote {element}",
                show(read.found)
            );
            return Some(Verdict::illegal("thin-air", what, [at]));
        }
        if key.is_register && read.found.len() > 1 {
            let what = format!(
                "T{at} read register {name} = {}, more than one value",
                show(read.found)
            );
            return Some(Verdict::illegal("thin-air", what, [at]));
        }
    }
    future(index, name, key)
}

/// Reads of what was written only after they had returned.
fn future(index: &Index<'_>, name: &str, key: &Key<'_>) -> Option<Verdict> {
    // For each number of elements of the longest read, the one that was begun last.
    let mut latest: Vec<(u64, usize)> = vec![(0, 0)];
    let begun = |element: &String| {
        key.wrote(element)
            .map_or(0, |wrote| index.transactions[wrote.transaction].invoke)
    };
    let longest = key.longest.map_or(&[][..], |at| key.reads[at].found);
    for (place, element) in longest.iter().enumerate() {
        latest.push(latest[place].max((begun(element), place)));
    }
    for (read, is_beginning) in key.reads.iter().zip(&key.is_beginning) {
        let (invoke, place) = if *is_beginning {
            latest[read.found.len()]
        } else {
            let each = read.found.iter().enumerate();
            each.map(|(place, element)| (begun(element), place))
                .max()
                .unwrap_or((0, 0))
        };
        let at = read.transaction;
        if invoke > index.transactions[at].returned {
            let element = &read.found[place];
            let writer = key.wrote(element)?.transaction;
            let what =
                format!("T{at} read {element} of {name}, and returned before T{writer} began to write it");
            return Some(Verdict::illegal("thin-air", what, [at, writer]));
        }
    }
    None
}

/// What a transaction may expect of its next read of a key.
#[derive(Default)]
struct Expected<'a> {
    /// What it read last.
    read: Option<Vec<&'a str>>,
    /// What it has written since it began; of a register the last value.
    own: Vec<&'a str>,
    /// All that it has written since it began.
    written: Vec<&'a str>,
}

/// Reads that contradict what the same transaction did before.
fn internal(index: &Index<'_>, level: Level) -> Option<Verdict> {
    for transaction in index
        .transactions
        .iter()
        .filter(|transaction| transaction.fate == Fate::Committed)
    {
        if transaction.steps.len() < 2 {
            continue;
        }
        let mut keys: BTreeMap<&str, Expected<'_>> = BTreeMap::new();
        for step in transaction.steps {
            match step {
                Step::Append { key, element } => {
                    let expected = keys.entry(key).or_default();
                    expected.own.push(element);
                    expected.written.push(element);
                    if let Some(read) = &mut expected.read {
                        read.push(element);
                    }
                }
                Step::Write { key, value } => {
                    let expected = keys.entry(key).or_default();
                    expected.own = vec![value];
                    expected.written.push(value);
                    expected.read = Some(vec![value]);
                }
                Step::Read {
                    key,
                    found: Some(found),
                } => {
                    let expected = keys.entry(key).or_default();
                    let is_register = index.keys.get(key.as_str()).is_some_and(|key| key.is_register);
                    if let Some(element) = ahead(index, transaction, key, found, expected, level) {
                        let at = transaction.operation;
                        let what = format!(
                            "T{at} read {key} = {}, with {element} that it wrote only after that",
                            show(found)
                        );
                        return Some(Verdict::illegal("internal", what, [at]));
                    }
                    if let Some(should) = contradiction(expected, found, is_register, level) {
                        let at = transaction.operation;
                        let what = format!(
                            "T{at} read {key} = {}, but by its own doing it had to {should}",
                            show(found)
                        );
                        return Some(Verdict::illegal("internal", what, [at]));
                    }
                    // Only a later step on the same key needs it.
                    expected.read = Some(found.iter().map(String::as_str).collect());
                }
                Step::Read { found: None, .. } => {}
            }
        }
    }
    None
}

/// What was read of what the transaction itself wrote only later.
fn ahead<'a>(
    index: &Index<'_>,
    transaction: &Transaction<'_>,
    key: &str,
    found: &'a [String],
    expected: &Expected<'_>,
    level: Level,
) -> Option<&'a String> {
    if level < Level::ReadCommitted {
        return None;
    }
    let key = index.keys.get(key)?;
    let is_own = |element: &str| {
        let wrote = key.wrote(element);
        wrote.is_some_and(|wrote| wrote.transaction == transaction.operation)
    };
    found
        .iter()
        .find(|element| is_own(element) && !expected.written.contains(&element.as_str()))
}

fn contradiction(
    expected: &Expected<'_>,
    found: &[String],
    is_register: bool,
    level: Level,
) -> Option<String> {
    if level >= Level::SnapshotIsolation
        && let Some(read) = &expected.read
        && !read.iter().eq(found.iter())
    {
        return Some(format!("be [{}]", read.join(" ")));
    }
    if is_register {
        let own = expected.own.last().filter(|_| level >= Level::ReadCommitted)?;
        return (found.len() != 1 || found[0] != *own).then(|| format!("be [{own}]"));
    }
    // Others may append in between below snapshot isolation, but the own elements are there, in their order.
    let mut rest = found.iter();
    let missing = expected
        .own
        .iter()
        .find(|own| !rest.any(|element| element == *own))?;
    Some(format!("hold {missing} after what it had appended before"))
}

/// Reads of what an aborted transaction wrote.
fn aborted(index: &Index<'_>, name: &str, key: &Key<'_>, level: Level) -> Option<Verdict> {
    if level < Level::ReadCommitted || !key.has_aborted {
        return None;
    }
    for read in &key.reads {
        for (place, element) in read.found.iter().enumerate() {
            let Some(wrote) = key
                .wrote(element)
                .filter(|wrote| index.is_aborted(wrote.transaction))
            else {
                continue;
            };
            let (at, writer) = (read.transaction, wrote.transaction);
            let after = read.found[place + 1..].iter().find_map(|element| {
                let on = key.wrote(element)?.transaction;
                (!index.is_aborted(on)).then_some((element, on))
            });
            if let Some((next, on)) = after {
                let what = format!(
                    "T{writer} aborted, but T{on} committed {next} on top of its {element}: T{at} read {name} = {}",
                    show(read.found)
                );
                return Some(Verdict::illegal("dirty-update", what, [at, writer, on]));
            }
            let what = format!(
                "T{at} read {name} = {}; T{writer}, which wrote {element}, aborted",
                show(read.found)
            );
            return Some(Verdict::illegal("G1a", what, [at, writer]));
        }
    }
    None
}

/// Number of elements of a read, without what aborted transactions wrote.
pub(super) fn clean_length(index: &Index<'_>, key: &Key<'_>, read: &Read<'_>) -> usize {
    if key.has_aborted {
        clean(index, key, read).len()
    } else {
        read.found.len()
    }
}

/// A read without what aborted transactions wrote.
pub(super) fn clean<'a>(index: &Index<'_>, key: &Key<'_>, read: &Read<'a>) -> Vec<&'a str> {
    let kept = |element: &&String| {
        key.wrote(element)
            .is_some_and(|wrote| !index.is_aborted(wrote.transaction))
    };
    read.found.iter().filter(kept).map(String::as_str).collect()
}

/// Reads of a list of which none is the beginning of the other.
fn incompatible(index: &Index<'_>, name: &str, key: &Key<'_>) -> Option<Verdict> {
    if !key.has_aborted && key.is_beginning.iter().all(|is_beginning| *is_beginning) {
        return None;
    }
    let longest = key
        .reads
        .iter()
        .max_by_key(|read| clean_length(index, key, read))?;
    let order = clean(index, key, longest);
    for read in &key.reads {
        let own = clean(index, key, read);
        if !order.starts_with(&own) {
            let what = format!(
                "T{} read {name} = {} and T{} read {}; neither can have become the other",
                read.transaction,
                show(read.found),
                longest.transaction,
                show(longest.found)
            );
            let both = [read.transaction, longest.transaction];
            return Some(Verdict::illegal("incompatible-order", what, both));
        }
    }
    None
}

/// Reads of a list that show what a transaction appended without, or before, what it had appended earlier.
fn out_of_own_order(index: &Index<'_>, name: &str, key: &Key<'_>) -> Option<Verdict> {
    for read in key.telling_reads() {
        let mut shown: BTreeMap<usize, usize> = BTreeMap::new();
        for element in read.found {
            let Some(writer) = key.wrote(element).map(|wrote| wrote.transaction) else {
                continue;
            };
            if index.is_aborted(writer) {
                continue;
            }
            let place = shown.entry(writer).or_default();
            let expected = key.writes_of(writer).get(*place);
            *place += 1;
            if let Some(expected) = expected.filter(|expected| *expected != element) {
                let at = read.transaction;
                let what = format!(
                    "T{at} read {name} = {}, with {element} and not before it {expected}, which T{writer} had \
                     appended earlier",
                    show(read.found)
                );
                return Some(Verdict::illegal("incompatible-order", what, [at, writer]));
            }
        }
    }
    None
}

/// Reads of a version that its writer went on to replace itself.
fn intermediate(name: &str, key: &Key<'_>, level: Level) -> Option<Verdict> {
    if level < Level::ReadCommitted {
        return None;
    }
    for read in &key.reads {
        let other = |element: &&String| {
            key.wrote(element)
                .is_some_and(|wrote| wrote.transaction != read.transaction)
        };
        let Some(element) = read.found.iter().rev().find(other) else {
            continue;
        };
        let Some(wrote) = key.wrote(element).filter(|wrote| !wrote.is_last) else {
            continue;
        };
        let (at, writer) = (read.transaction, wrote.transaction);
        let what = format!(
            "T{at} read {name} = {}, an intermediate version: T{writer} wrote {element} and then more",
            show(read.found)
        );
        return Some(Verdict::illegal("G1b", what, [at, writer]));
    }
    None
}

/// Two transactions that read the same version of a key and both replaced it.
fn lost_update(name: &str, key: &Key<'_>, level: Level) -> Option<Verdict> {
    if level < Level::SnapshotIsolation {
        return None;
    }
    let mut updated: BTreeMap<Option<&str>, usize> = BTreeMap::new();
    for read in key.reads.iter().filter(|read| read.is_external) {
        let at = read.transaction;
        if key.writes_of(at).is_empty() {
            continue;
        }
        let version = read.found.last().map(String::as_str);
        if let Some(other) = updated.insert(version, at) {
            let what = format!(
                "T{other} and T{at} both read {name} = {} and both wrote {name}: one update is lost",
                show(read.found)
            );
            return Some(Verdict::illegal("lost-update", what, [at, other]));
        }
    }
    None
}
