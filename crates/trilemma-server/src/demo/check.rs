//! Checks of a recorded history. Pure: a planted wrong history makes each of them fail (see the tests).

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Event, Record};

/// What one node holds at the end: key to value and version.
pub(super) type Finals = BTreeMap<String, (String, u64)>;

/// Finds reads and writes that no linearizable register could have shown (Herlihy and Wing 1990).
///
/// Values are unique and the store tells versions, so the order of writes is known: an operation belongs at the
/// version that it made or saw. The history is linearizable if and only if (1) each version has one value and each
/// value one version, (2) reads return what was written, not what was refused, and (3) that order agrees with real
/// time: of two operations of which one ended before the other began, the later never belongs at an older version,
/// a later write always at a newer one, and no read ends before the write it saw began. Writes of unknown outcome
/// that nobody saw are left out: they may not have happened.
pub(super) fn linearizability(records: &[Record]) -> Vec<String> {
    let mut violations = Vec::new();
    let mut by_key: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
    for record in records {
        by_key.entry(&record.key).or_default().push(record);
    }
    for (key, records) in by_key {
        values_and_versions(key, &records, &mut violations);
        real_time(key, &records, &mut violations);
    }
    violations
}

/// What the history knows about one value.
struct Write<'a> {
    called: u64,
    version: Option<u64>,
    event: &'a Event,
}

fn writes<'a>(records: &[&'a Record]) -> BTreeMap<&'a str, Write<'a>> {
    let write = |record: &&'a Record| {
        let (value, version) = match &record.event {
            Event::Written { value, version } => (value, Some(*version)),
            Event::Refused { value, .. } | Event::Unknown { value, .. } => (value, None),
            Event::Read { .. } | Event::Unread { .. } => return None,
        };
        let write = Write {
            called: record.called,
            version,
            event: &record.event,
        };
        Some((value.as_str(), write))
    };
    records.iter().filter_map(write).collect()
}

/// Conditions 1 and 2.
fn values_and_versions(key: &str, records: &[&Record], violations: &mut Vec<String>) {
    let writes = writes(records);
    let mut value_of: BTreeMap<u64, &str> = BTreeMap::new();
    let mut version_of: BTreeMap<&str, u64> = BTreeMap::new();
    for record in records {
        let (value, version) = match &record.event {
            Event::Written { value, version } => (value.as_str(), *version),
            Event::Read {
                found: Some((value, version)),
            } => {
                match writes.get(value.as_str()).map(|write| write.event) {
                    None => {
                        violations.push(format!("{key}: a read returned \"{value}\", which nobody wrote"))
                    }
                    Some(Event::Refused { .. }) => violations.push(format!(
                        "{key}: a read returned \"{value}\", whose write was reported as not applied"
                    )),
                    Some(_) => {}
                }
                (value.as_str(), *version)
            }
            _ => continue,
        };
        let other_value = *value_of.entry(version).or_insert(value);
        let other_version = *version_of.entry(value).or_insert(version);
        if other_value != value {
            violations.push(format!(
                "{key}: version {version} is \"{other_value}\" and \"{value}\""
            ));
        }
        if other_version != version {
            violations.push(format!(
                "{key}: \"{value}\" has versions {other_version} and {version}"
            ));
        }
    }
}

/// An operation at its place in the order of versions. A write comes before the reads that saw it.
struct Placed {
    called: u64,
    answered: u64,
    place: (u64, bool),
    what: String,
}

/// Condition 3, for one key or, with writes alone, for many.
fn real_time(key: &str, records: &[&Record], violations: &mut Vec<String>) {
    let writes = writes(records);
    let placed = records.iter().filter_map(|record| {
        let (place, what) = match &record.event {
            Event::Written { value, version } => ((*version, false), format!("the write of \"{value}\"")),
            Event::Read {
                found: Some((value, version)),
            } => ((*version, true), format!("a read of \"{value}\"")),
            Event::Read { found: None } => ((0, true), "a read of nothing".into()),
            _ => return None,
        };
        Some(Placed {
            called: record.called,
            answered: record.answered,
            place,
            what: format!("{what} at node {}", record.node),
        })
    });
    let mut by_call: Vec<Placed> = placed.collect();
    by_call.sort_by_key(|operation| operation.called);
    let mut by_answer: Vec<usize> = (0..by_call.len()).collect();
    by_answer.sort_by_key(|index| by_call[*index].answered);
    let mut ended = by_answer.into_iter().peekable();
    let mut newest: Option<usize> = None;
    for operation in &by_call {
        while let Some(index) = ended.next_if(|index| by_call[*index].answered < operation.called) {
            if newest.is_none_or(|newest| by_call[index].place > by_call[newest].place) {
                newest = Some(index);
            }
        }
        let Some(newest) = newest.map(|newest| &by_call[newest]) else {
            continue;
        };
        let (version, is_read) = operation.place;
        let in_order = if is_read {
            version >= newest.place.0
        } else {
            version > newest.place.0
        };
        if !in_order {
            violations.push(format!(
                "{key}: {} (version {version}) began after {} (version {}) had ended",
                operation.what, newest.what, newest.place.0
            ));
        }
    }
    for record in records {
        if let Event::Read {
            found: Some((value, _)),
        } = &record.event
            && writes
                .get(value.as_str())
                .is_some_and(|write| write.called > record.answered)
        {
            violations.push(format!("{key}: \"{value}\" was read before its write began"));
        }
    }
}

/// Where versions order the whole keyspace: whether its writes, of all keys, agree with real time.
pub(super) fn write_order(records: &[Record]) -> Vec<String> {
    let writes: Vec<&Record> = records
        .iter()
        .filter(|record| matches!(record.event, Event::Written { .. }))
        .collect();
    let mut violations = Vec::new();
    real_time("across keys", &writes, &mut violations);
    violations
}

/// Acknowledged writes that are gone: their version is newer than what some node holds at the end, or another value
/// stands at it, or the end shows a value that was refused or never written.
pub(super) fn lost(records: &[Record], finals: &[Finals]) -> Vec<String> {
    let mut by_key: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
    for record in records {
        by_key.entry(&record.key).or_default().push(record);
    }
    let mut lost = Vec::new();
    for (key, records) in by_key {
        let writes = writes(&records);
        for held in finals
            .iter()
            .map(|finals| finals.get(key))
            .collect::<BTreeSet<_>>()
        {
            let version_held = held.map_or(0, |(_, version)| *version);
            for (value, version) in writes
                .iter()
                .filter_map(|(value, write)| Some((value, write.version?)))
            {
                if version > version_held {
                    lost.push(format!(
                        "{key}: \"{value}\" was acknowledged at version {version}, the end is version {version_held}"
                    ));
                }
            }
            let Some((value, version)) = held else { continue };
            match writes.get(value.as_str()) {
                None => lost.push(format!("{key}: the end is \"{value}\", which nobody wrote")),
                Some(Write {
                    event: Event::Refused { .. },
                    ..
                }) => {
                    lost.push(format!(
                        "{key}: the end is \"{value}\", whose write was reported as not applied"
                    ));
                }
                Some(write) if write.version.is_some_and(|acked| acked != *version) => {
                    lost.push(format!(
                        "{key}: the end has \"{value}\" at version {version}, acknowledged was another"
                    ));
                }
                Some(_) => {}
            }
        }
    }
    lost
}

/// Keys on which the nodes differ at the end.
pub(super) fn differences(finals: &[Finals]) -> Vec<String> {
    let keys: BTreeSet<&String> = finals.iter().flat_map(BTreeMap::keys).collect();
    let differs = |key: &&String| {
        finals
            .windows(2)
            .any(|pair| pair[0].get(*key) != pair[1].get(*key))
    };
    keys.into_iter().filter(differs).cloned().collect()
}
