//! Streams of one stream of changes against each other.

use std::collections::BTreeMap;

use super::State;
use super::segment::Segment;
use super::versus_history::{Known, shown};
use crate::verdict::Verdict;

/// Checks that what any of `segments` shows, all tell that should.
pub(super) fn check(segments: &[&Segment<'_>]) -> Option<Verdict> {
    let mut ids: BTreeMap<u64, Vec<&Segment<'_>>> = BTreeMap::new();
    for segment in segments {
        ids.entry(segment.id).or_default().push(segment);
    }
    for group in ids.values().filter(|group| group.len() > 1) {
        let known = merge(group);
        for segment in group {
            if let Some(found) = shown(segment, &known, 0) {
                return Some(found);
            }
        }
        if let Some(found) = resets(group) {
            return Some(found);
        }
    }
    None
}

/// Everything that any of them shows, the first teller of each change counting.
fn merge<'a>(group: &[&Segment<'a>]) -> Vec<Known<'a>> {
    let mut commits: BTreeMap<u64, BTreeMap<&str, (&State, Option<usize>)>> = BTreeMap::new();
    for segment in group {
        for event in &segment.events {
            let commit = commits.entry(event.position).or_default();
            for change in &event.changes {
                commit
                    .entry(&change.key)
                    .or_insert((change, Some(segment.stream)));
            }
        }
    }
    let known = |(position, changes): (u64, BTreeMap<&str, (&'a State, Option<usize>)>)| Known {
        position,
        changes: changes.into_values().collect(),
    };
    commits.into_iter().map(known).collect()
}

/// Every state given by a reset must be what the other streams had come to at its position.
fn resets(group: &[&Segment<'_>]) -> Option<Verdict> {
    for segment in group {
        let Some(given) = &segment.reset else {
            continue;
        };
        let at = segment.begin;
        for other in group.iter().filter(|other| other.begin <= at && at <= other.end) {
            if std::ptr::eq(*segment, *other) {
                continue;
            }
            let state = other.state_at(at);
            let missing = given
                .keys()
                .filter(|key| other.reset.is_some() && other.keys.contains(key));
            let mut keys = state
                .keys()
                .filter(|key| segment.keys.contains(key))
                .chain(missing);
            let wrong = keys.find(|key| match (state.get(*key), given.get(*key)) {
                (Some(right), Some(given)) => !right.agrees(given),
                (Some(right), None) => right.value.is_some(),
                (None, _) => true,
            });
            if let Some(wrong) = wrong {
                let show = |state: Option<&&State>| state.map_or("nothing".into(), |state| state.show());
                let what = format!(
                    "{} began at position {at} with {} for key {wrong}; {} had come to {} there",
                    segment.name(),
                    show(given.get(wrong)),
                    other.name(),
                    show(state.get(wrong))
                );
                return Some(Verdict::illegal(
                    "watch-reset",
                    what,
                    [segment.stream, other.stream],
                ));
            }
        }
    }
    None
}
