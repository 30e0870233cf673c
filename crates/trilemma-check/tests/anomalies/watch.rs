//! Watchers of a keyspace, and ways in which their streams are wrong.

mod beginning;

use std::collections::BTreeMap;

use trilemma_check::history::{Answer, Call, Change, Operation, Outcome};
use trilemma_check::verdict::Verdict;
use trilemma_check::watch::{Commit, Item, Keys, Position, State, Stream, Truth, check, check_history};

use super::power;
use super::random::Random;

struct Case {
    streams: Vec<Stream>,
    truth: Truth,
    history: Vec<Operation>,
}

impl Case {
    fn with_truth(&self) -> Verdict {
        check(&self.streams, std::slice::from_ref(&self.truth))
    }

    fn among(&self) -> Verdict {
        check(&self.streams, &[])
    }

    fn with_history(&self) -> Verdict {
        check_history(&self.streams, &self.history)
    }
}

const STREAM: u64 = 9;

fn position(at: u64) -> Position {
    Position { stream: STREAM, at }
}

/// A run of a keyspace with one order, its history, and watchers that come, go and come back.
fn generate(random: &mut Random) -> Case {
    generate_with(random, true)
}

/// As [`generate`], with or without writes of unknown outcome.
fn generate_with(random: &mut Random, unknown: bool) -> Case {
    let mut commits = Vec::new();
    let mut history = Vec::new();
    let mut at = 0;
    for step in 0..30 {
        at += 1 + random.below(3) as u64;
        let mut changes: BTreeMap<String, Option<String>> = BTreeMap::new();
        for part in 0..1 + random.below(4) {
            let key = format!("{}{}", ["a", "b"][random.below(2)], random.below(3));
            changes.insert(key, (!random.percent(20)).then(|| format!("v{step}.{part}")));
        }
        let change = |(key, value): (&String, &Option<String>)| Change {
            key: key.clone(),
            value: value.clone(),
        };
        let call = Call::Command {
            guards: Vec::new(),
            changes: changes.iter().map(change).collect(),
        };
        let (invoke, returned) = (step * 10, Some(step * 10 + 5));
        let mut outcome = Outcome::Ok(Answer::Won {
            succeeded: true,
            version: Some(at),
        });
        let kind = random.below(10);
        if kind == 0 && unknown {
            outcome = Outcome::Unknown;
        }
        let failed = kind == 1;
        if failed {
            outcome = Outcome::Fail;
        }
        let outcome_is_unknown = outcome == Outcome::Unknown;
        history.push(Operation {
            process: 1,
            invoke,
            returned,
            call,
            outcome,
        });
        if failed || (outcome_is_unknown && random.percent(50)) {
            continue;
        }
        let state = |(key, value): (String, Option<String>)| {
            let version = value.as_ref().map(|_| at);
            State { key, value, version }
        };
        commits.push(Commit {
            position: at,
            changes: changes.into_iter().map(state).collect(),
        });
    }
    let truth = Truth {
        stream: STREAM,
        from: 0,
        entries: BTreeMap::new(),
        commits,
    };
    let mut streams = Vec::new();
    for process in 0..3 {
        let keys = match random.below(3) {
            0 => Keys::all(),
            1 => Keys::prefix("a"),
            _ => Keys::prefix("b"),
        };
        watcher(random, &truth, process, &keys, &mut streams);
    }
    Case {
        streams,
        truth,
        history,
    }
}

/// The entries among `keys` at a position.
fn entries(truth: &Truth, keys: &Keys, at: u64) -> Vec<State> {
    let mut entries: BTreeMap<&str, &State> = BTreeMap::new();
    for commit in truth.commits.iter().filter(|commit| commit.position <= at) {
        for change in commit.changes.iter().filter(|change| keys.contains(&change.key)) {
            entries.insert(&change.key, change);
        }
    }
    entries
        .into_values()
        .filter(|state| state.value.is_some())
        .cloned()
        .collect()
}

/// One process that watches over several connections.
fn watcher(random: &mut Random, truth: &Truth, process: u64, keys: &Keys, streams: &mut Vec<Stream>) {
    let mut at = None;
    for _ in 0..1 + random.below(3) {
        let mut stream = Stream {
            process,
            keys: keys.clone(),
            resume: at.map(position),
            items: Vec::new(),
        };
        let mut here = at.unwrap_or_else(|| {
            let begin = random.below(truth.commits.len());
            reset(random, truth, &mut stream, truth.commits[begin].position)
        });
        for _ in 0..4 + random.below(12) {
            let next = truth.commits.iter().find(|commit| {
                commit.position > here && commit.changes.iter().any(|change| keys.contains(&change.key))
            });
            let Some(next) = next else {
                break;
            };
            if random.percent(5) {
                here = reset(random, truth, &mut stream, next.position);
                continue;
            }
            let mut changes: Vec<State> = next
                .changes
                .iter()
                .filter(|change| keys.contains(&change.key))
                .cloned()
                .collect();
            here = next.position;
            if changes.len() > 1 && random.percent(20) {
                let rest = changes.split_off(1);
                stream.items.push(Item::Changes {
                    position: position(here),
                    changes,
                    more: true,
                });
                changes = rest;
            }
            stream.items.push(Item::Changes {
                position: position(here),
                changes,
                more: false,
            });
            if random.percent(10) {
                stream.items.push(Item::Progress {
                    position: position(here),
                });
            }
        }
        at = Some(here);
        streams.push(stream);
    }
}

fn reset(random: &mut Random, truth: &Truth, stream: &mut Stream, at: u64) -> u64 {
    let mut all = entries(truth, &stream.keys, at);
    if random.percent(30) && !all.is_empty() {
        let rest = all.split_off(1);
        stream.items.push(Item::Reset {
            position: Position::default(),
            entries: all,
            last: false,
        });
        all = rest;
    }
    stream.items.push(Item::Reset {
        position: position(at),
        entries: all,
        last: true,
    });
    at
}

/// A whole event: stream, item, and its place after the last reset or resumption.
#[derive(Clone, Copy)]
struct Place {
    stream: usize,
    item: usize,
    /// How many whole events came before in the same run.
    before: usize,
    /// How many items follow in the same run.
    after: usize,
    resumed: bool,
}

fn places(case: &Case) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for (stream, watch) in case.streams.iter().enumerate() {
        let mut before = 0;
        let mut resumed = watch.resume.is_some();
        for (item, now) in watch.items.iter().enumerate() {
            match now {
                Item::Reset { .. } => (before, resumed) = (0, false),
                Item::Progress { .. } => {}
                Item::Changes { more, .. } => {
                    let begun = item > 0 && matches!(watch.items[item - 1], Item::Changes { more: true, .. });
                    let rest = &watch.items[item + 1..];
                    let after = rest
                        .iter()
                        .take_while(|item| !matches!(item, Item::Reset { .. }))
                        .count();
                    if !more && !begun {
                        places.push(Place {
                            stream,
                            item,
                            before,
                            after,
                            resumed,
                        });
                    }
                    before += usize::from(!more);
                }
            }
        }
    }
    places
}

fn choose(case: &Case, random: &mut Random, fits: impl Fn(&Place) -> bool) -> Option<Place> {
    let fitting: Vec<Place> = places(case).into_iter().filter(|place| fits(place)).collect();
    random.pick(&fitting).copied()
}

fn changes(case: &mut Case, place: Place) -> &mut Vec<State> {
    match &mut case.streams[place.stream].items[place.item] {
        Item::Changes { changes, .. } => changes,
        _ => unreachable!("a place is one of changes"),
    }
}

fn length(case: &Case, place: &Place) -> usize {
    match &case.streams[place.stream].items[place.item] {
        Item::Changes { changes, .. } => changes.len(),
        _ => 0,
    }
}

type Check = fn(&Case) -> Verdict;

fn power_of(rule: &str, checks: &[Check], plant: impl Fn(&mut Case, &mut Random) -> bool) {
    for check in checks {
        power(&[rule], generate, &plant, check);
    }
}

const ALL: [Check; 3] = [Case::with_truth, Case::among, Case::with_history];
/// Those that know what should have been reported.
const KNOWING: [Check; 2] = [Case::with_truth, Case::with_history];

#[test]
fn disorder_is_found() {
    power_of("watch-order", &ALL, |case, random| {
        // Two events change places, where neither is the first after a resumption.
        let Some(place) = choose(case, random, |place| {
            place.before > 1 || (place.before > 0 && !place.resumed)
        }) else {
            return false;
        };
        let items = &mut case.streams[place.stream].items;
        if !matches!(items[place.item - 1], Item::Changes { more: false, .. })
            || (place.item > 1 && matches!(items[place.item - 2], Item::Changes { more: true, .. }))
        {
            return false;
        }
        items.swap(place.item - 1, place.item);
        // Else the versions tell first, under the same name.
        true
    });
}

#[test]
fn repetition_is_found() {
    power_of("watch-unique", &ALL, |case, random| {
        let Some(place) = choose(case, random, |_| true) else {
            return false;
        };
        let items = &mut case.streams[place.stream].items;
        let again = items[place.item].clone();
        items.insert(place.item + 1, again);
        true
    });
}

#[test]
fn torn_commits_are_found() {
    power_of("watch-atomic", &[Case::with_truth], |case, random| {
        let fitting: Vec<Place> = places(case)
            .into_iter()
            .filter(|place| length(case, place) > 1)
            .collect();
        let Some(place) = random.pick(&fitting).copied() else {
            return false;
        };
        changes(case, place).pop();
        true
    });
    power_of("watch-atomic", &[Case::with_history], |case, random| {
        // A delete of what the watcher does not have need not be reported, and an unknown write was perhaps not made.
        let known: Vec<u64> = case
            .history
            .iter()
            .filter_map(|operation| match operation.outcome {
                Outcome::Ok(Answer::Won { version, .. }) => version,
                _ => None,
            })
            .collect();
        let fitting: Vec<Place> = places(case)
            .into_iter()
            .filter(|place| {
                let Item::Changes {
                    position, changes, ..
                } = &case.streams[place.stream].items[place.item]
                else {
                    return false;
                };
                let last = changes.last().is_some_and(|change| change.value.is_some());
                changes.len() > 1 && last && known.contains(&position.at)
            })
            .collect();
        let Some(place) = random.pick(&fitting).copied() else {
            return false;
        };
        changes(case, place).pop();
        true
    });
    power_of("watch-atomic", &ALL, |case, random| {
        let Some(place) = choose(case, random, |place| place.after > 0) else {
            return false;
        };
        if let Item::Changes { more, .. } = &mut case.streams[place.stream].items[place.item] {
            *more = true;
        }
        true
    });
}

#[test]
fn gaps_are_found() {
    power_of("watch-gap", &[Case::with_truth], |case, random| {
        let Some(place) = choose(case, random, |place| {
            place.after > 0 && (place.before > 0 || !place.resumed)
        }) else {
            return false;
        };
        case.streams[place.stream].items.remove(place.item);
        true
    });
    // Against another watcher of everything.
    let plant = |case: &mut Case, random: &mut Random| {
        let fits = |place: &Place| place.after > 0 && (place.before > 0 || !place.resumed);
        let Some(place) = choose(case, random, |place| place.stream > 0 && fits(place)) else {
            return false;
        };
        case.streams[place.stream].items.remove(place.item);
        true
    };
    power(&["watch-gap"], with_whole, plant, Case::among);
    power_of("watch-gap", &[Case::with_history], |case, random| {
        lose_a_put(case, random, |place: &Place| {
            place.after > 0 && (place.before > 0 || !place.resumed)
        })
    });
}

/// Takes a batch out of a stream that shows an acknowledged put, if there is one that fits.
fn lose_a_put(case: &mut Case, random: &mut Random, fits: impl Fn(&Place) -> bool) -> bool {
    let puts = acknowledged_puts(case);
    let fitting: Vec<Place> = places(case)
        .into_iter()
        .filter(|place| fits(place) && shows(case, place, &puts))
        .collect();
    let Some(place) = random.pick(&fitting) else {
        return false;
    };
    case.streams[place.stream].items.remove(place.item);
    true
}

/// A run that ends with a watcher that sees everything from the beginning.
fn with_whole(random: &mut Random) -> Case {
    let mut case = generate(random);
    let mut items = vec![Item::Reset {
        position: position(0),
        entries: Vec::new(),
        last: true,
    }];
    for commit in &case.truth.commits {
        let (changes, more) = (commit.changes.clone(), false);
        items.push(Item::Changes {
            position: position(commit.position),
            changes,
            more,
        });
    }
    case.streams.push(Stream {
        process: 9,
        keys: Keys::all(),
        resume: None,
        items,
    });
    let whole = case.streams.len() - 1;
    case.streams.swap(0, whole);
    case
}

fn acknowledged_puts(case: &Case) -> Vec<(u64, String)> {
    let mut puts = Vec::new();
    for operation in &case.history {
        if let (
            Call::Command { changes, .. },
            Outcome::Ok(Answer::Won {
                version: Some(version),
                ..
            }),
        ) = (&operation.call, &operation.outcome)
        {
            let put = changes.iter().filter(|change| change.value.is_some());
            puts.extend(put.map(|change| (*version, change.key.clone())));
        }
    }
    puts
}

/// Whether the event shows an acknowledged put.
fn shows(case: &Case, place: &Place, puts: &[(u64, String)]) -> bool {
    let Item::Changes {
        position, changes, ..
    } = &case.streams[place.stream].items[place.item]
    else {
        return false;
    };
    changes
        .iter()
        .any(|change| puts.contains(&(position.at, change.key.clone())))
}

#[test]
fn keys_that_were_not_asked_for_are_found() {
    power_of("watch-filter", &ALL, |case, random| {
        let filtered: Vec<usize> = (0..case.streams.len())
            .filter(|at| case.streams[*at].keys != Keys::all())
            .collect();
        let Some(place) = choose(case, random, |place| filtered.contains(&place.stream)) else {
            return false;
        };
        let state = State {
            key: "c".into(),
            value: Some("v".into()),
            version: None,
        };
        changes(case, place).push(state);
        true
    });
}

#[test]
fn changes_from_nowhere_are_found() {
    power_of("watch-thin-air", &KNOWING, |case, random| {
        let Some(place) = choose(case, random, |_| true) else {
            return false;
        };
        let change = &mut changes(case, place)[0];
        change.value = Some("nobody's".into());
        true
    });
    power_of("watch-thin-air", &KNOWING, |case, random| {
        // A commit that was not, of a change that was made elsewhere.
        let puts = acknowledged_puts(case);
        let fitting: Vec<Place> = places(case)
            .into_iter()
            .filter(|place| place.after == 0 && shows(case, place, &puts))
            .collect();
        let Some(place) = random.pick(&fitting).copied() else {
            return false;
        };
        let Item::Changes {
            position: last,
            changes,
            ..
        } = &case.streams[place.stream].items[place.item]
        else {
            return false;
        };
        let at = last.at + 1;
        let shown = changes
            .iter()
            .find(|change| puts.contains(&(last.at, change.key.clone())))
            .cloned();
        let Some(shown) = shown.filter(|_| !case.truth.commits.iter().any(|commit| commit.position == at))
        else {
            return false;
        };
        let changes = vec![State {
            version: Some(at),
            ..shown
        }];
        let shown = Item::Changes {
            position: position(at),
            changes,
            more: false,
        };
        case.streams[place.stream].items.insert(place.item + 1, shown);
        true
    });
}

#[test]
fn streams_that_disagree_are_found() {
    let plant = |case: &mut Case, random: &mut Random| {
        let Some(place) = choose(case, random, |place| place.stream > 0) else {
            return false;
        };
        changes(case, place)[0].value = Some("another".into());
        true
    };
    power(&["watch-disagreement"], with_whole, plant, Case::among);
}
