//! Streams against what clients were answered, where positions are versions: keyspaces with one order of changes.

use std::collections::BTreeMap;

use super::segment::{Segment, segments};
use super::{State, Stream};
use crate::convergence::{Content, Fate, Write, writes};
use crate::history::Operation;
use crate::verdict::Verdict;

/// The writes by key and by version.
struct Writes<'a> {
    by_key: BTreeMap<&'a str, Vec<&'a Write<'a>>>,
    /// Those whose version is known.
    by_version: BTreeMap<u64, Vec<&'a Write<'a>>>,
    /// Those of each key whose version is not known.
    open: BTreeMap<&'a str, Vec<&'a Write<'a>>>,
}

/// Checks `streams` against a history of the same keyspace, in which each change's position in the stream is its
/// version: no change that nobody made, every acknowledged change within a stream reported there, and at its position.
///
/// `operations` of a violation are those of the history; the sentence names the stream.
#[must_use]
pub fn check_history(streams: &[Stream], history: &[Operation]) -> Verdict {
    let segments = match segments(streams) {
        Ok(segments) => segments,
        Err(found) => return found,
    };
    let all = writes(history);
    let mut writes = Writes {
        by_key: BTreeMap::new(),
        by_version: BTreeMap::new(),
        open: BTreeMap::new(),
    };
    for write in &all {
        writes.by_key.entry(write.key).or_default().push(write);
        match write.version {
            Some(version) => writes.by_version.entry(version).or_default().push(write),
            None => writes.open.entry(write.key).or_default().push(write),
        }
    }
    for segment in &segments {
        if let Some(found) = made(segment, &writes).or_else(|| shown(segment, &writes)) {
            return found;
        }
    }
    Verdict::Legal
}

fn matches(write: &Write<'_>, state: &State, position: u64) -> bool {
    let content = match (write.content, &state.value) {
        (Content::Put(value), Some(seen)) => value == seen,
        (Content::Delete, None) => true,
        _ => false,
    };
    content && write.fate != Fate::Failed && write.version.is_none_or(|version| version == position)
}

/// Whether everything reported was made, at the version reported.
fn made(segment: &Segment<'_>, writes: &Writes<'_>) -> Option<Verdict> {
    let given = segment
        .reset
        .iter()
        .flatten()
        .map(|(_, state)| (state.version, *state));
    let shown = segment.events.iter().flat_map(|event| {
        event
            .changes
            .iter()
            .map(move |change| (Some(event.position), *change))
    });
    for (position, state) in given.chain(shown) {
        let of_key = writes
            .by_key
            .get(state.key.as_str())
            .map_or(&[][..], |found| found);
        let at = position.or(state.version);
        let open = writes.open.get(state.key.as_str()).map_or(&[][..], |found| found);
        let fits = match at {
            Some(at) => {
                let known = writes.by_version.get(&at).map_or(&[][..], |found| found);
                let mut of_key = known.iter().filter(|write| write.key == state.key).chain(open);
                of_key.any(|write| matches(write, state, at))
            }
            None => of_key
                .iter()
                .any(|write| matches(write, state, write.version.unwrap_or(0))),
        };
        let own = state.version.is_none() || position.is_none() || state.version == position;
        let ahead = state.version.is_some_and(|version| version > segment.end);
        if own && !ahead && fits {
            continue;
        }
        let at = at.map_or(String::new(), |at| format!(" at position {at}"));
        let what = format!("{} shows {}{at}, which nobody made", segment.name(), state.show());
        return Some(Verdict::illegal(
            "watch-thin-air",
            what,
            of_key.iter().map(|write| write.operation),
        ));
    }
    reset(segment, writes)
}

/// Whether a reset holds what was acknowledged with a version up to its position, or something newer.
fn reset(segment: &Segment<'_>, writes: &Writes<'_>) -> Option<Verdict> {
    let given = segment.reset.as_ref()?;
    for (key, of_key) in writes.by_key.iter().filter(|(key, _)| segment.keys.contains(key)) {
        let acknowledged = of_key
            .iter()
            .filter(|write| write.fate == Fate::Acknowledged)
            .filter_map(|write| Some((write.version.filter(|version| *version <= segment.begin)?, write)));
        let Some((newest, write)) = acknowledged.max_by_key(|(version, _)| *version) else {
            continue;
        };
        let open = |by: &&&Write<'_>| by.fate == Fate::Possible && by.version.is_none();
        let right = match given.get(key) {
            Some(state) => match state.version {
                Some(version) if version == newest => matches(write, state, newest),
                Some(version) => version > newest,
                None => of_key.iter().any(|by| {
                    matches(by, state, by.version.unwrap_or(newest))
                        && by.version.is_none_or(|version| version >= newest)
                }),
            },
            None => {
                let deletes = of_key.iter().filter(open).any(|by| by.content == Content::Delete);
                write.content == Content::Delete || deletes
            }
        };
        if !right {
            let found = given.get(key).map_or("nothing".into(), |state| state.show());
            let what = format!(
                "{} began at position {} with {found} for key {key}, without {}",
                segment.name(),
                segment.begin,
                write.describe()
            );
            return Some(Verdict::illegal("watch-reset", what, [write.operation]));
        }
    }
    None
}

/// Whether every acknowledged change within the segment was reported.
fn shown(segment: &Segment<'_>, writes: &Writes<'_>) -> Option<Verdict> {
    if segment.end <= segment.begin {
        return None;
    }
    for (version, at_version) in writes.by_version.range(segment.begin + 1..=segment.end) {
        let event = segment
            .events
            .binary_search_by_key(version, |event| event.position)
            .ok();
        let event = event.map(|at| &segment.events[at]);
        for write in at_version.iter().filter(|write| segment.keys.contains(write.key)) {
            if write.fate != Fate::Acknowledged {
                continue;
            }
            let shown = event.is_some_and(|event| event.changes.iter().any(|change| change.key == write.key));
            if shown || event.is_some_and(|event| event.cut) {
                continue;
            }
            // Removing what does not exist need not be reported.
            let existed = |state: &BTreeMap<&str, &State>| {
                state.get(write.key).is_some_and(|state| state.value.is_some())
            };
            if write.content == Content::Delete && !existed(&segment.state_at(version - 1)) {
                continue;
            }
            let first =
                segment.reset.is_none() && segment.events.first().is_none_or(|e| e.position > *version);
            let rule = match event {
                Some(_) => "watch-atomic",
                None if first => "watch-resume",
                None => "watch-gap",
            };
            let what = format!(
                "{}, from position {} to {}, does not tell {}",
                segment.name(),
                segment.begin,
                segment.end,
                write.describe()
            );
            return Some(Verdict::illegal(rule, what, [write.operation]));
        }
    }
    None
}
