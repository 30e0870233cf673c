//! What may become of one key under each way of merging.

use super::{Content, Fate, Merge, Write};
use crate::verdict::Verdict;

type Found = [(String, Option<u64>)];

/// Values in words, with their versions.
pub(super) fn show(found: &Found) -> String {
    let show = |(value, version): &(String, Option<u64>)| match version {
        Some(version) => format!("{value} (version {version})"),
        None => value.clone(),
    };
    match found {
        [] => "nothing".into(),
        [one] => show(one),
        many => format!("[{}]", many.iter().map(show).collect::<Vec<_>>().join(", ")),
    }
}

/// Whether `write` can be what made `value` with `version`.
pub(super) fn makes(write: &Write<'_>, value: &str, version: Option<u64>) -> bool {
    let made = matches!(write.content, Content::Put(made) | Content::Add(made) if made == value);
    made && (version.is_none() || write.version.is_none() || version == write.version)
}

/// Judges what a key holds at the end. `writes` are those of the key.
pub(super) fn judge(key: &str, writes: &[&Write<'_>], found: &Found, merge: Merge) -> Verdict {
    for (value, version) in found {
        let thin = thin_air(key, writes, value, *version);
        if thin != Verdict::Legal {
            return thin;
        }
    }
    let is_set = writes
        .iter()
        .any(|write| matches!(write.content, Content::Add(_)));
    if let Some(twice) = twice(found) {
        let what = format!("the replicas hold {key} = {twice} twice, as siblings of itself");
        return Verdict::illegal("convergence", what, all(writes));
    }
    if is_set {
        grow_only(key, writes, found)
    } else {
        match merge {
            Merge::LastWriterWins => last_writer_wins(key, writes, found),
            Merge::MultiValue => multi_value(key, writes, found),
            Merge::AddWins => add_wins(key, writes, found),
        }
    }
}

fn all(writes: &[&Write<'_>]) -> Vec<usize> {
    writes.iter().map(|write| write.operation).collect()
}

fn twice(found: &Found) -> Option<&str> {
    let mut values: Vec<&(String, Option<u64>)> = found.iter().collect();
    values.sort_unstable();
    values
        .windows(2)
        .find(|pair| pair[0] == pair[1])
        .map(|pair| pair[0].0.as_str())
}

fn thin_air(key: &str, writes: &[&Write<'_>], value: &str, version: Option<u64>) -> Verdict {
    let wrote: Vec<&Write<'_>> = writes
        .iter()
        .copied()
        .filter(|write| matches!(write.content, Content::Put(made) | Content::Add(made) if made == value))
        .collect();
    if wrote
        .iter()
        .any(|write| write.fate != Fate::Failed && makes(write, value, version))
    {
        return Verdict::Legal;
    }
    let why = match wrote.first() {
        None => "which nobody wrote".into(),
        Some(write) if write.fate == Fate::Failed => {
            format!("which only a failed write made: {}", write.describe())
        }
        Some(write) => format!(
            "under another version than that of its write: {}",
            write.describe()
        ),
    };
    let shown = show(&[(value.to_string(), version)]);
    let what = format!("the replicas hold {key} = {shown}, {why}");
    Verdict::illegal("thin-air", what, wrote.iter().map(|write| write.operation))
}

/// The writes that can have made one of the values found.
fn winners<'a, 'b>(writes: &[&'b Write<'a>], found: &Found) -> Vec<&'b Write<'a>> {
    let made = |write: &Write<'_>| found.iter().any(|(value, version)| makes(write, value, *version));
    writes
        .iter()
        .copied()
        .filter(|write| write.fate != Fate::Failed && made(write))
        .collect()
}

fn lost(key: &str, write: &Write<'_>, found: &Found, because: &str, winners: &[&Write<'_>]) -> Verdict {
    let rule = if write.content == Content::Delete {
        "resurrection"
    } else {
        "lost-write"
    };
    let what = format!(
        "acknowledged {} is lost: the replicas hold {key} = {}, {because}",
        write.describe(),
        show(found)
    );
    let operations = winners
        .iter()
        .map(|winner| winner.operation)
        .chain([write.operation]);
    Verdict::illegal(rule, what, operations)
}

/// Whether `by` may have won over `write` where the greatest version wins.
fn may_win(by: &Write<'_>, version: Option<u64>, write: &Write<'_>) -> bool {
    if by.has_observed(write) {
        return true;
    }
    if write.has_observed(by) {
        return false;
    }
    match (version, write.version) {
        (Some(by), Some(version)) => by >= version,
        _ => true,
    }
}

/// The writes of a key that may have been the last, under last-writer-wins: they made what was found, and may have won
/// over every acknowledged write. None if nothing was written, or nothing was acknowledged and nothing found.
pub(super) fn last_writers<'a, 'b>(writes: &[&'b Write<'a>], found: &Found) -> Vec<&'b Write<'a>> {
    let acknowledged: Vec<&Write<'_>> = writes
        .iter()
        .copied()
        .filter(|write| write.fate == Fate::Acknowledged)
        .collect();
    if found.is_empty() && acknowledged.is_empty() {
        return Vec::new();
    }
    let made = |write: &&&Write<'_>| match found {
        [] => write.content == Content::Delete,
        [(value, version), ..] => makes(write, value, *version),
    };
    let version = found.first().and_then(|(_, version)| *version);
    let wins = |write: &&&Write<'_>| {
        let over = |other: &&Write<'_>| {
            other.operation == write.operation || may_win(write, version.or(write.version), other)
        };
        acknowledged.iter().all(over)
    };
    let all = writes.iter().filter(|write| write.fate != Fate::Failed);
    all.filter(made).filter(wins).copied().collect()
}

fn last_writer_wins(key: &str, writes: &[&Write<'_>], found: &Found) -> Verdict {
    if found.len() > 1 {
        let what = format!("under last-writer-wins the replicas hold {key} = {}", show(found));
        return Verdict::illegal("convergence", what, all(writes));
    }
    let winners = winners(writes, found);
    let mut acknowledged: Vec<&Write<'_>> = writes
        .iter()
        .copied()
        .filter(|write| write.fate == Fate::Acknowledged)
        .collect();
    // The newest first: that it is lost says most.
    acknowledged.sort_by_key(|write| std::cmp::Reverse(write.version));
    for write in acknowledged {
        if winners.iter().any(|winner| winner.operation == write.operation) {
            continue;
        }
        if let [(_, version)] = found {
            let wins = |winner: &&Write<'_>| may_win(winner, version.or(winner.version), write);
            if !winners.iter().any(wins) {
                return lost(key, write, found, "which it supersedes", &winners);
            }
        } else if write.content != Content::Delete {
            let deletes = writes.iter().copied();
            let wins = |by: &Write<'_>| {
                by.fate != Fate::Failed && by.content == Content::Delete && may_win(by, by.version, write)
            };
            if !deletes.into_iter().any(wins) {
                return lost(key, write, found, "and no delete can have superseded it", &[]);
            }
        }
    }
    Verdict::Legal
}

fn multi_value(key: &str, writes: &[&Write<'_>], found: &Found) -> Verdict {
    let winners = winners(writes, found);
    let is_shown = |write: &Write<'_>| winners.iter().any(|winner| winner.operation == write.operation);
    let acknowledged = || {
        writes
            .iter()
            .copied()
            .filter(|write| write.fate == Fate::Acknowledged)
    };
    for write in acknowledged().filter(|write| write.content != Content::Delete && !is_shown(write)) {
        let replaces = |by: &Write<'_>| {
            // A delete hides also what it has not observed, if that is older.
            let hides = by.content == Content::Delete && may_win(by, by.version, write);
            by.fate != Fate::Failed && (hides || by.may_have_observed(write))
        };
        let mut others = writes.iter().filter(|by| by.operation != write.operation);
        if !others.any(|by| replaces(by)) {
            return lost(key, write, found, "and no write can have observed it", &winners);
        }
    }
    for (value, version) in found {
        let made: Vec<&Write<'_>> = winners
            .iter()
            .copied()
            .filter(|write| makes(write, value, *version))
            .collect();
        for by in acknowledged() {
            // A delete that some write has observed is gone, and hides nothing any more.
            let hides = by.content == Content::Delete
                && !writes
                    .iter()
                    .any(|write| write.fate != Fate::Failed && write.may_have_observed(by));
            let hidden = |write: &&Write<'_>| {
                let newer = match (by.version, version.or(write.version)) {
                    (Some(by), Some(version)) => by > version,
                    _ => false,
                };
                by.has_observed(write) || (hides && newer)
            };
            if made.iter().all(hidden) {
                let because = format!("though it replaces {value}");
                return lost(key, by, found, &because, &made);
            }
        }
    }
    Verdict::Legal
}

fn add_wins(key: &str, writes: &[&Write<'_>], found: &Found) -> Verdict {
    let deletes = |fate: fn(Fate) -> bool| {
        writes
            .iter()
            .copied()
            .filter(move |write| write.content == Content::Delete && fate(write.fate))
    };
    let puts = writes
        .iter()
        .copied()
        .filter(|write| write.content != Content::Delete);
    if found.is_empty() {
        for write in puts.filter(|write| write.fate == Fate::Acknowledged) {
            if !deletes(|fate| fate != Fate::Failed).any(|by| by.may_have_observed(write)) {
                return lost(key, write, found, "and no delete can have observed it", &[]);
            }
        }
        return Verdict::Legal;
    }
    let winners = winners(writes, found);
    for by in deletes(|fate| fate == Fate::Acknowledged) {
        if winners.iter().all(|write| by.has_observed(write)) {
            return lost(key, by, found, "which it observed", &winners);
        }
    }
    Verdict::Legal
}

fn grow_only(key: &str, writes: &[&Write<'_>], found: &Found) -> Verdict {
    let winners = winners(writes, found);
    let adds = writes.iter().filter(|write| write.content != Content::Delete);
    for write in adds.filter(|write| write.fate == Fate::Acknowledged) {
        let removes = |by: &&&Write<'_>| {
            by.fate != Fate::Failed && by.content == Content::Delete && by.may_have_observed(write)
        };
        let shown = winners.iter().any(|winner| winner.operation == write.operation);
        if !shown && writes.iter().find(removes).is_none() {
            return lost(key, write, found, "and nothing removes it", &[]);
        }
    }
    Verdict::Legal
}
