//! One segment against the commits that it should tell.

use std::collections::BTreeMap;

use super::segment::{Event, Segment};
use super::{State, Truth};
use crate::verdict::Verdict;

/// A commit as far as it is known: its changes, and which stream told each (`None`: the truth).
pub(super) struct Known<'a> {
    pub(super) position: u64,
    pub(super) changes: Vec<(&'a State, Option<usize>)>,
}

/// Checks a segment against all changes of its stream of changes.
pub(super) fn truth(segment: &Segment<'_>, truth: &Truth) -> Option<Verdict> {
    if let Some(found) = reset(segment, truth) {
        return Some(found);
    }
    let from = segment.begin.max(truth.from);
    let first = truth.commits.partition_point(|commit| commit.position <= from);
    let commits: Vec<Known<'_>> = truth.commits[first..]
        .iter()
        .map(|commit| Known {
            position: commit.position,
            changes: commit.changes.iter().map(|change| (change, None)).collect(),
        })
        .collect();
    if let Some(found) = told(segment, &commits, truth.from) {
        return Some(found);
    }
    // Everything that was told must be true.
    for event in segment.events.iter().filter(|event| event.position > truth.from) {
        let at = commits
            .binary_search_by_key(&event.position, |commit| commit.position)
            .ok();
        for change in &event.changes {
            let made =
                at.is_some_and(|at| commits[at].changes.iter().any(|(made, _)| made.key == change.key));
            if !made {
                let (name, at) = (segment.name(), event.position);
                let what = format!(
                    "{name} tells {} at position {at}, which nobody made",
                    change.show()
                );
                return Some(Verdict::illegal("watch-thin-air", what, [segment.stream]));
            }
        }
    }
    None
}

/// Whether a reset gave the state of its position.
fn reset(segment: &Segment<'_>, truth: &Truth) -> Option<Verdict> {
    let given = segment.reset.as_ref().filter(|_| segment.begin >= truth.from)?;
    let watched = |key: &str| segment.keys.contains(key);
    let mut state: BTreeMap<&str, &State> = truth
        .entries
        .iter()
        .filter(|(key, _)| watched(key))
        .map(|(key, state)| (key.as_str(), state))
        .collect();
    for commit in truth
        .commits
        .iter()
        .take_while(|commit| commit.position <= segment.begin)
    {
        for change in commit.changes.iter().filter(|change| watched(&change.key)) {
            if change.value.is_some() {
                state.insert(&change.key, change);
            } else {
                state.remove(change.key.as_str());
            }
        }
    }
    let keys = state.keys().chain(given.keys());
    let wrong = keys.copied().find(|key| match (state.get(key), given.get(key)) {
        (Some(right), Some(given)) => !right.agrees(given),
        _ => true,
    })?;
    let show = |state: Option<&&State>| state.map_or("nothing".into(), |state| state.show());
    let what = format!(
        "{} began at position {} with {} for key {wrong}; there it was {}",
        segment.name(),
        segment.begin,
        show(given.get(wrong)),
        show(state.get(wrong))
    );
    Some(Verdict::illegal("watch-reset", what, [segment.stream]))
}

/// Whether the segment tells all of `commits` (ascending) within it and nothing else about them. Says nothing of
/// positions up to `from`.
pub(super) fn told(segment: &Segment<'_>, commits: &[Known<'_>], from: u64) -> Option<Verdict> {
    let mut events = segment
        .events
        .iter()
        .filter(|event| event.position > from)
        .peekable();
    let mut first = segment.events.first().is_none_or(|event| event.position > from);
    for commit in commits.iter().filter(|commit| commit.position > segment.begin) {
        if commit.position > segment.end {
            break;
        }
        let watched: Vec<(&State, Option<usize>)> = commit
            .changes
            .iter()
            .copied()
            .filter(|(change, _)| segment.keys.contains(&change.key))
            .collect();
        while events.next_if(|event| event.position < commit.position).is_some() {
            first = false;
        }
        let event = events.next_if(|event| event.position == commit.position);
        if let Some(found) = same(segment, event, commit.position, &watched, first) {
            return Some(found);
        }
        first &= event.is_none() && watched.is_empty();
    }
    None
}

fn same(
    segment: &Segment<'_>,
    event: Option<&Event<'_>>,
    position: u64,
    watched: &[(&State, Option<usize>)],
    first: bool,
) -> Option<Verdict> {
    let name = segment.name();
    for (made, by) in watched {
        let found = event.map(|event| event.changes.iter().find(|change| change.key == made.key));
        let (rule, what) = match found {
            Some(Some(change)) if change.agrees(made) => continue,
            Some(Some(change)) => {
                let rule = if by.is_some() {
                    "watch-disagreement"
                } else {
                    "watch-thin-air"
                };
                let told = change.show();
                (
                    rule,
                    format!(
                        "{name} tells {told} at position {position}, which was {}",
                        made.show()
                    ),
                )
            }
            Some(None) if event.is_some_and(|event| event.cut) => continue,
            Some(None) => {
                let made = made.show();
                (
                    "watch-atomic",
                    format!("{name} tells the commit at position {position} without {made}"),
                )
            }
            None if first && segment.reset.is_none() => {
                let (begin, made) = (segment.begin, made.show());
                let what = format!("{name}, continued from position {begin}, skips {made} at {position}");
                ("watch-resume", what)
            }
            None => {
                let (made, end) = (made.show(), segment.end);
                (
                    "watch-gap",
                    format!("{name} went on to position {end} without {made} at {position}"),
                )
            }
        };
        return Some(Verdict::illegal(
            rule,
            what,
            by.iter().copied().chain([segment.stream]),
        ));
    }
    None
}
