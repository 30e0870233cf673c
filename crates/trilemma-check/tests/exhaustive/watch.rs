//! Watches: a stream is right if replaying the known changes from where it begins gives exactly what it was sent.

use std::collections::BTreeMap;

use trilemma_check::verdict::Verdict;
use trilemma_check::watch::{Commit, Item, Keys, Position, State, Stream, Truth, check};
use trilemma_core::Rng;

use super::{Tally, seeds};

const STREAM: u64 = 7;

type Table = BTreeMap<String, State>;

struct Case {
    truth: Truth,
    stream: Stream,
}

impl Case {
    fn table_at(&self, position: u64) -> Table {
        let mut table = self.truth.entries.clone();
        for commit in self
            .truth
            .commits
            .iter()
            .filter(|commit| commit.position <= position)
        {
            for change in &commit.changes {
                match change.value {
                    Some(_) => table.insert(change.key.clone(), change.clone()),
                    None => table.remove(&change.key),
                };
            }
        }
        table.retain(|key, _| self.stream.keys.contains(key));
        table
    }

    /// The watched changes of the commits after `from`, up to `to`.
    fn between(&self, from: u64, to: u64) -> Vec<(u64, Vec<&State>)> {
        let commits = self.truth.commits.iter();
        let within = commits.filter(|commit| commit.position > from && commit.position <= to);
        let watched = within.map(|commit| {
            let changes = commit.changes.iter();
            let changes: Vec<&State> = changes
                .filter(|change| self.stream.keys.contains(&change.key))
                .collect();
            (commit.position, changes)
        });
        watched.filter(|(_, changes)| !changes.is_empty()).collect()
    }

    /// Replays the items; whether each is what had to come.
    fn is_right(&self) -> bool {
        // Everything up to here was reported; nothing yet, before a reset.
        let mut shown = self.stream.resume.map(|position| position.at);
        let mut items = self.stream.items.iter().peekable();
        while let Some(item) = items.next() {
            match item {
                Item::Reset {
                    position,
                    entries,
                    last,
                } => {
                    let mut all: Vec<&State> = entries.iter().collect();
                    let (mut position, mut is_last) = (*position, *last);
                    while !is_last {
                        // A stream that ends in the middle of a reset ends before it.
                        let Some(next) = items.next() else {
                            return self.is_part(&all);
                        };
                        let Item::Reset {
                            position: at,
                            entries,
                            last,
                        } = next
                        else {
                            return false;
                        };
                        all.extend(entries);
                        (position, is_last) = (*at, *last);
                    }
                    let table = self.table_at(position.at);
                    let is_late = shown.is_some_and(|shown| position.at < shown);
                    if is_late || position.stream != STREAM || !all.iter().copied().eq(table.values()) {
                        return false;
                    }
                    shown = Some(position.at);
                }
                Item::Progress { position } => {
                    let Some(from) = shown else { return false };
                    if position.at < from || !self.between(from, position.at).is_empty() {
                        return false;
                    }
                    shown = Some(position.at);
                }
                Item::Changes {
                    position,
                    changes,
                    more,
                } => {
                    let Some(from) = shown else { return false };
                    let mut all: Vec<&State> = changes.iter().collect();
                    let mut has_more = *more;
                    while has_more {
                        let Some(next) = items.next() else { break };
                        let Item::Changes {
                            position: at,
                            changes,
                            more,
                        } = next
                        else {
                            return false;
                        };
                        if at != position {
                            return false;
                        }
                        all.extend(changes);
                        has_more = *more;
                    }
                    if position.at <= from || !self.is_shown(from, position.at, &all, has_more) {
                        return false;
                    }
                    shown = Some(position.at);
                }
            }
        }
        true
    }

    /// Whether `all` are in order and among the watched keys, as the parts of a reset must be.
    fn is_part(&self, all: &[&State]) -> bool {
        let is_watched = |state: &&State| self.stream.keys.contains(&state.key) && state.value.is_some();
        all.iter().all(is_watched) && all.windows(2).all(|pair| pair[0].key < pair[1].key)
    }

    /// Whether `all` are the watched changes of the one commit after `from` up to `to`; a part of them if `is_cut`.
    fn is_shown(&self, from: u64, to: u64, all: &[&State], is_cut: bool) -> bool {
        let mut missing = match &self.between(from, to)[..] {
            [] => Vec::new(),
            [(position, changes)] if *position == to => changes.clone(),
            _ => return false,
        };
        for change in all {
            let Some(place) = missing.iter().position(|other| other == change) else {
                return false;
            };
            missing.remove(place);
        }
        is_cut || missing.is_empty()
    }
}

fn state(key: u64, value: Option<String>, version: u64) -> State {
    State {
        key: format!("k{key}"),
        value,
        version: Some(version),
    }
}

const fn at(position: u64) -> Position {
    Position {
        stream: STREAM,
        at: position,
    }
}

fn random(seed: u64) -> Case {
    let mut rng = Rng::new(seed);
    let mut truth = Truth {
        stream: STREAM,
        ..Truth::default()
    };
    let mut position = 0;
    for number in 0..rng.below(5) {
        position += 1 + rng.below(2);
        let mut changes: Vec<State> = Vec::new();
        for key in 0..3 {
            if rng.below(2) == 0 {
                let value = (rng.below(4) > 0).then(|| number.to_string());
                changes.push(state(key, value, position));
            }
        }
        // A commit has a change, or it is none.
        if !changes.is_empty() {
            truth.commits.push(Commit { position, changes });
        }
    }
    let keys = match rng.below(3) {
        0 => Keys::all(),
        1 => Keys::prefix("k1"),
        _ => Keys {
            start: "k0".into(),
            end: Some("k2".into()),
        },
    };
    let from = rng.below(position + 1);
    let resume = (rng.below(2) == 0).then(|| at(from));
    let stream = Stream {
        process: 1,
        keys,
        resume,
        items: Vec::new(),
    };
    let mut case = Case { truth, stream };
    fill(&mut case, &mut rng, from, position + 1);
    spoil(&mut case, &mut rng);
    case
}

/// What a right service sends from `from` on.
fn fill(case: &mut Case, rng: &mut Rng, from: u64, last: u64) {
    let mut items = Vec::new();
    let mut here = from;
    if case.stream.resume.is_none() {
        reset(case, rng, here, &mut items);
    }
    while here < last && rng.below(6) > 0 {
        match rng.below(8) {
            0 => {
                here += rng.below(last - here + 1);
                reset(case, rng, here, &mut items);
            }
            1 => {
                let next = case
                    .between(here, last)
                    .first()
                    .map_or(last, |(position, _)| position - 1);
                here = here.max(next);
                items.push(Item::Progress { position: at(here) });
            }
            _ => {
                let commits = case.between(here, last);
                let Some((position, changes)) = commits.first() else {
                    break;
                };
                here = *position;
                let parts = 1 + rng.below(2) as usize;
                let size = changes.len().div_ceil(parts);
                for (number, part) in changes.chunks(size).enumerate() {
                    items.push(Item::Changes {
                        position: at(here),
                        changes: part.iter().map(|change| (*change).clone()).collect(),
                        more: (number + 1) * size < changes.len(),
                    });
                }
            }
        }
    }
    if items.is_empty() {
        items.push(Item::Progress { position: at(here) });
    }
    case.stream.items = items;
}

fn reset(case: &Case, rng: &mut Rng, here: u64, items: &mut Vec<Item>) {
    let entries: Vec<State> = case.table_at(here).into_values().collect();
    let cut = rng.below(entries.len() as u64 + 1) as usize;
    let mut part = |entries: &[State], last: bool| {
        items.push(Item::Reset {
            position: at(here),
            entries: entries.to_vec(),
            last,
        });
    };
    if rng.below(2) == 0 {
        part(&entries[..cut], false);
        part(&entries[cut..], true);
    } else {
        part(&entries, true);
    }
}

/// Changes the stream in some way, mostly into a wrong one.
fn spoil(case: &mut Case, rng: &mut Rng) {
    let items = &mut case.stream.items;
    let Some(place) = (!items.is_empty()).then(|| rng.below(items.len() as u64) as usize) else {
        return;
    };
    match rng.below(12) {
        0 => drop(items.remove(place)),
        1 => items.insert(place, items[place].clone()),
        2 if place > 0 => items.swap(place - 1, place),
        3 => items.truncate(place),
        4 => match &mut items[place] {
            Item::Changes { changes, .. } if !changes.is_empty() => drop(changes.pop()),
            Item::Reset { entries, .. } if !entries.is_empty() => drop(entries.pop()),
            _ => {}
        },
        5 => match &mut items[place] {
            Item::Changes { changes: states, .. } | Item::Reset { entries: states, .. }
                if !states.is_empty() =>
            {
                let chosen = rng.below(states.len() as u64) as usize;
                states[chosen].value = Some("9".into());
            }
            _ => {}
        },
        6 => {
            let (Item::Reset { position, .. } | Item::Changes { position, .. } | Item::Progress { position }) =
                &mut items[place];
            position.at = rng.below(10);
        }
        _ => {}
    }
}

#[test]
fn watches_agree_with_a_replay_of_the_changes() {
    let mut tally = Tally::default();
    for seed in seeds() {
        let case = random(seed);
        let is_right = case.is_right();
        let (streams, truths) = ([case.stream.clone()], [case.truth.clone()]);
        let about = || format!("seed {seed}:\n{truths:#?}\n{streams:#?}");
        match check(&streams, &truths) {
            Verdict::Legal => {
                assert!(is_right, "legal, and it is not what had to come; {}", about());
                tally.legal += 1;
            }
            Verdict::Illegal(violation) => {
                assert!(
                    !is_right,
                    "{violation:?}, and it is what had to come; {}",
                    about()
                );
                tally.illegal += 1;
            }
            Verdict::Undecided { .. } => {
                assert!(streams[0].items.is_empty(), "{}", about());
                tally.undecided += 1;
            }
        }
    }
    tally.finish("watch");
}
