//! One segment against the commits that it should tell.

use std::collections::BTreeMap;

use super::segment::{Event, Segment};
use super::{State, Truth};
use crate::verdict::Verdict;

/// A commit as far as it is known: its changes, and which stream showed each (`None`: the truth).
pub(super) struct Known<'a> {
    pub(super) position: u64,
    pub(super) changes: Vec<(&'a State, Option<usize>)>,
}

/// Checks `segments` of one stream of changes against all its changes.
pub(super) fn truth(segments: &[&Segment<'_>], truth: &Truth) -> Option<Verdict> {
    let known: Vec<Known<'_>> = truth
        .commits
        .iter()
        .map(|commit| Known {
            position: commit.position,
            changes: commit.changes.iter().map(|change| (change, None)).collect(),
        })
        .collect();
    resets(segments, truth).or_else(|| {
        let shown = |segment: &&Segment<'_>| shown(segment, &known, truth.from);
        segments
            .iter()
            .find_map(|segment| shown(segment).or_else(|| made(segment, &known, truth.from)))
    })
}

/// Whether everything that was reported after `from` was made.
fn made(segment: &Segment<'_>, known: &[Known<'_>], from: u64) -> Option<Verdict> {
    for event in segment.events.iter().filter(|event| event.position > from) {
        let commit = known
            .binary_search_by_key(&event.position, |commit| commit.position)
            .ok();
        let changes = commit.map_or(&[][..], |at| &known[at].changes);
        let invented = event
            .changes
            .iter()
            .find(|shown| !changes.iter().any(|(made, _)| made.key == shown.key));
        if let Some(change) = invented {
            let (name, at) = (segment.name(), event.position);
            let what = format!(
                "{name} shows {} at position {at}, which nobody made",
                change.show()
            );
            return Some(Verdict::illegal("watch-thin-air", what, [segment.stream]));
        }
    }
    None
}

/// Whether each reset gave the state of its position: one walk through the truth for all.
fn resets(segments: &[&Segment<'_>], truth: &Truth) -> Option<Verdict> {
    let mut begun: Vec<(u64, &Segment<'_>, &BTreeMap<&str, &State>)> = segments
        .iter()
        .filter(|segment| segment.begin >= truth.from)
        .filter_map(|segment| Some((segment.begin, *segment, segment.reset.as_ref()?)))
        .collect();
    begun.sort_by_key(|(begin, ..)| *begin);
    let mut state: BTreeMap<&str, &State> = truth
        .entries
        .iter()
        .map(|(key, state)| (key.as_str(), state))
        .collect();
    let mut commits = truth.commits.iter().peekable();
    for (begin, segment, given) in begun {
        while let Some(commit) = commits.next_if(|commit| commit.position <= begin) {
            for change in &commit.changes {
                if change.value.is_some() {
                    state.insert(&change.key, change);
                } else {
                    state.remove(change.key.as_str());
                }
            }
        }
        let watched = state.keys().filter(|key| segment.keys.contains(key));
        let wrong = watched
            .chain(given.keys())
            .find(|key| match (state.get(*key), given.get(*key)) {
                (Some(right), Some(given)) => !right.agrees(given),
                _ => true,
            });
        if let Some(wrong) = wrong {
            let show = |state: Option<&&State>| state.map_or("nothing".into(), |state| state.show());
            let what = format!(
                "{} began at position {begin} with {} for key {wrong}; there it was {}",
                segment.name(),
                show(given.get(wrong)),
                show(state.get(wrong))
            );
            return Some(Verdict::illegal("watch-reset", what, [segment.stream]));
        }
    }
    None
}

/// Whether the segment shows all of `commits` (ascending) within it and nothing else about them. Says nothing of
/// positions up to `from`.
pub(super) fn shown(segment: &Segment<'_>, commits: &[Known<'_>], from: u64) -> Option<Verdict> {
    let mut events = segment
        .events
        .iter()
        .filter(|event| event.position > from)
        .peekable();
    let mut first = segment.events.first().is_none_or(|event| event.position > from);
    let begin = commits.partition_point(|commit| commit.position <= segment.begin.max(from));
    for commit in commits[begin..]
        .iter()
        .take_while(|commit| commit.position <= segment.end)
    {
        while events.next_if(|event| event.position < commit.position).is_some() {
            first = false;
        }
        let event = events.next_if(|event| event.position == commit.position);
        let mut watched = commit
            .changes
            .iter()
            .filter(|(change, _)| segment.keys.contains(&change.key));
        if let Some(found) = watched.find_map(|made| same(segment, event, commit.position, *made, first)) {
            return Some(found);
        }
        first &= event.is_none();
    }
    None
}

/// Whether the event of a commit shows one of its changes. `first`: nothing was reported before.
fn same(
    segment: &Segment<'_>,
    event: Option<&Event<'_>>,
    position: u64,
    (made, by): (&State, Option<usize>),
    first: bool,
) -> Option<Verdict> {
    let found = event.map(|event| event.changes.iter().find(|change| change.key == made.key));
    if found.flatten().is_some_and(|change| change.agrees(made)) {
        return None;
    }
    let name = segment.name();
    let (rule, what) = match found {
        Some(Some(change)) => {
            let rule = if by.is_some() {
                "watch-disagreement"
            } else {
                "watch-thin-air"
            };
            let shown = change.show();
            (
                rule,
                format!(
                    "{name} shows {shown} at position {position}, which was {}",
                    made.show()
                ),
            )
        }
        Some(None) if event.is_some_and(|event| event.cut) => return None,
        Some(None) => {
            let made = made.show();
            (
                "watch-atomic",
                format!("{name} shows the commit at position {position} without {made}"),
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
    Some(Verdict::illegal(
        rule,
        what,
        by.into_iter().chain([segment.stream]),
    ))
}
