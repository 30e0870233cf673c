//! Convergence: after quiescence all replicas are equal, and hold what folding the writes gives.
//!
//! Strong eventual consistency (Shapiro et al. 2011) as clients can see it, for last-writer-wins by version, for
//! multi-value siblings, for add-wins sets of keys and for grow-only sets ([`Call::Add`]). Rules:
//!
//! - `convergence`: the replicas differ, or one holds what no merge can give (two values under last-writer-wins).
//! - `thin-air`: a value that nobody wrote, or that only a failed write wrote, or that was read before it was
//!   written.
//! - `lost-write`: an acknowledged write is not there, and no write that may replace it won.
//! - `resurrection`: what an acknowledged delete removed is there.
//!
//! Everything is judged from the outside: by versions, times and (where known) observed versions. What these leave
//! open is allowed. With versions, last-writer-wins is judged exactly up to ties.
//!
//! [`Call::Add`]: crate::history::Call::Add

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Answer, Call, Operation, Outcome};
use crate::verdict::Verdict;

mod merge;
mod whole;
mod writes;

pub(crate) use writes::by_key;
pub use writes::{Content, Fate, Write, writes};

/// How concurrent writes of a key are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// The write with the greatest version wins, deletes included; among equal versions any. A write that observed
    /// another wins over it whatever the versions.
    LastWriterWins,
    /// All values that no other write has observed stay. A delete removes what it observed and hides what is older.
    MultiValue,
    /// A set of keys: a delete removes only those puts of the key that it observed.
    AddWins,
}

/// What one replica holds at the end: the values of each key, with their versions where known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replica {
    /// Its name, for messages.
    pub name: String,
    /// The values of each key that exists. Under last-writer-wins one; else the siblings in any order; for a set of
    /// [`Call::Add`] its elements.
    pub entries: BTreeMap<String, Vec<(String, Option<u64>)>>,
}

/// Checks the final `replicas` and every answer of `history`: [`check_reads`] and [`check_writes`].
#[must_use]
pub fn check(history: &[Operation], replicas: &[Replica], merge: Merge) -> Verdict {
    let writes = writes(history);
    match check_reads(history, &writes) {
        Verdict::Legal => check_writes(&writes, replicas, merge),
        found => found,
    }
}

/// Checks the final `replicas`, read after every write had ended and spread.
///
/// `writes` come from [`writes`] and may have been refined: a fate lowered to [`Fate::Possible`] where a crash was
/// allowed to lose the write, `observed` filled in. Without a replica, or with acknowledged writes and no way to
/// tell, the verdict is undecided.
#[must_use]
pub fn check_writes(writes: &[Write<'_>], replicas: &[Replica], merge: Merge) -> Verdict {
    let Some(first) = replicas.first() else {
        return Verdict::Undecided {
            why: "no replica was read after the end of the run".into(),
        };
    };
    let keys = by_key(writes);
    for other in &replicas[1..] {
        if let Some(found) = difference(first, other, writes, &keys) {
            return found;
        }
    }
    let writes = witnessed(writes, first, &keys);
    let none = Vec::new();
    let touched = keys.keys().copied();
    let all: BTreeSet<&str> = first.entries.keys().map(String::as_str).chain(touched).collect();
    for key in all {
        let of_key: Vec<&Write<'_>> = keys
            .get(key)
            .map_or(&[][..], |at| at)
            .iter()
            .map(|at| &writes[*at])
            .collect();
        let found = first.entries.get(key).unwrap_or(&none);
        let verdict = merge::judge(key, &of_key, found, merge);
        if verdict != Verdict::Legal {
            return verdict;
        }
    }
    if merge == Merge::LastWriterWins {
        whole::check(writes, &keys, first)
    } else {
        Verdict::Legal
    }
}

/// The first key at which two replicas differ.
fn difference(
    first: &Replica,
    other: &Replica,
    writes: &[Write<'_>],
    keys: &BTreeMap<&str, Vec<usize>>,
) -> Option<Verdict> {
    if first.entries == other.entries {
        return None;
    }
    let none = Vec::new();
    let all: BTreeSet<&String> = first.entries.keys().chain(other.entries.keys()).collect();
    for key in all {
        let of = |replica: &Replica| {
            let mut values = replica.entries.get(key).unwrap_or(&none).clone();
            values.sort_unstable();
            values
        };
        let (left, right) = (of(first), of(other));
        let same = left
            .iter()
            .zip(&right)
            .all(|((value, version), (other, of_other))| {
                value == other && (version == of_other || version.is_none() || of_other.is_none())
            });
        if left.len() == right.len() && same {
            continue;
        }
        let what = format!(
            "after quiescence replica {} holds {key} = {} and replica {} holds {}",
            first.name,
            merge::show(&left),
            other.name,
            merge::show(&right)
        );
        let of_key = keys.get(key.as_str()).map_or(&[][..], |at| at);
        let operations = of_key.iter().map(|at| writes[*at].operation);
        return Some(Verdict::illegal("convergence", what, operations));
    }
    None
}

/// The writes, where those of unknown outcome that the replicas show count as acknowledged with the version shown,
/// and so do the other parts of their commands: a command happens wholly.
fn witnessed<'a>(
    writes: &[Write<'a>],
    replica: &Replica,
    keys: &BTreeMap<&str, Vec<usize>>,
) -> Vec<Write<'a>> {
    let mut seen: BTreeMap<usize, Option<u64>> = BTreeMap::new();
    for (key, values) in &replica.entries {
        let of_key = keys.get(key.as_str()).map_or(&[][..], |at| at);
        for (value, version) in values {
            let mut makers = of_key
                .iter()
                .map(|at| &writes[*at])
                .filter(|write| write.fate != Fate::Failed && merge::makes(write, value, *version));
            if let (Some(write), None) = (makers.next(), makers.next())
                && write.fate == Fate::Possible
            {
                seen.insert(write.operation, version.or(write.version));
            }
        }
    }
    let mut writes = writes.to_vec();
    for write in &mut writes {
        if let Some(version) = seen.get(&write.operation) {
            write.fate = Fate::Acknowledged;
            write.version = *version;
        }
    }
    writes
}

/// Checks every answer of `history` against thin air: each value read was written by a write that did not fail and
/// that was asked for before the read returned.
#[must_use]
pub fn check_reads(history: &[Operation], writes: &[Write<'_>]) -> Verdict {
    let mut makers: BTreeMap<(&str, &str), Vec<&Write<'_>>> = BTreeMap::new();
    for write in writes {
        if let Content::Put(value) | Content::Add(value) = write.content {
            makers.entry((write.key, value)).or_default().push(write);
        }
    }
    for (at, operation) in history.iter().enumerate() {
        for (key, value, version) in values_read(operation) {
            let of_value = makers.get(&(key, value)).map_or(&[][..], |found| found);
            let until = operation.effect_by();
            let fits = |write: &&&Write<'_>| {
                write.fate != Fate::Failed && write.invoked <= until && merge::makes(write, value, version)
            };
            if of_value.iter().find(fits).is_some() {
                continue;
            }
            let why = match of_value.first() {
                None => "which nobody wrote".to_string(),
                Some(write) if write.fate == Fate::Failed => {
                    format!("which only a failed write made: {}", write.describe())
                }
                Some(write) if write.invoked > until => {
                    format!("before it was written: {}", write.describe())
                }
                Some(write) => format!(
                    "under another version than that of its write: {}",
                    write.describe()
                ),
            };
            let version = version.map_or(String::new(), |version| format!(" (version {version})"));
            let process = operation.process;
            let what = format!("operation {at} of process {process} read {key} = {value}{version}, {why}");
            let operations = of_value.iter().map(|write| write.operation).chain([at]);
            return Verdict::illegal("thin-air", what, operations);
        }
    }
    Verdict::Legal
}

/// The (key, value, version) that an operation's answer shows.
pub(crate) fn values_read(operation: &Operation) -> Vec<(&str, &str, Option<u64>)> {
    let Outcome::Ok(answer) = &operation.outcome else {
        return Vec::new();
    };
    match (&operation.call, answer) {
        (
            Call::Get { key },
            Answer::Value {
                value: Some(value),
                version,
                ..
            },
        ) => {
            vec![(key.as_str(), value.as_str(), *version)]
        }
        (Call::Range { .. }, Answer::Entries { entries, .. }) => {
            let entry = |entry: &'_ crate::history::Entry| entry.version;
            entries
                .iter()
                .map(|e| (e.key.as_str(), e.value.as_str(), entry(e)))
                .collect()
        }
        (Call::Members { key }, Answer::Elements { elements }) => elements
            .iter()
            .map(|element| (key.as_str(), element.as_str(), None))
            .collect(),
        _ => Vec::new(),
    }
}
