//! Replicas that converge, and ways in which they do not.

use std::collections::{BTreeMap, BTreeSet};

use trilemma_check::convergence::{
    Content, Fate, Merge, Replica, Write, check, check_reads, check_writes, writes,
};
use trilemma_check::history::{Answer, Call, Change, Operation, Outcome};
use trilemma_check::verdict::Verdict;

use super::power;
use super::random::Random;

/// A write as the model knows it.
#[derive(Clone)]
struct Made {
    version: u64,
    key: String,
    value: Option<String>,
    observed: BTreeSet<u64>,
}

struct Case {
    history: Vec<Operation>,
    replicas: Vec<Replica>,
    /// What each operation observed per key, for those that happened.
    observed: BTreeMap<(usize, String), Vec<u64>>,
    merge: Merge,
}

impl Case {
    fn writes(&self) -> Vec<Write<'_>> {
        let mut writes = writes(&self.history);
        for write in &mut writes {
            if write.fate == Fate::Acknowledged {
                write.observed = self
                    .observed
                    .get(&(write.operation, write.key.to_string()))
                    .cloned();
            }
        }
        writes
    }

    fn check(&self) -> Verdict {
        let writes = self.writes();
        match check_reads(&self.history, &writes) {
            Verdict::Legal => check_writes(&writes, &self.replicas, self.merge),
            found => found,
        }
    }

    fn set(&mut self, key: &str, values: Vec<(String, Option<u64>)>) {
        for replica in &mut self.replicas {
            if values.is_empty() {
                replica.entries.remove(key);
            } else {
                replica.entries.insert(key.into(), values.clone());
            }
        }
    }

    /// Keys all of whose writes are acknowledged or failed.
    fn resolved(&self) -> Vec<String> {
        let writes = writes(&self.history);
        let open: BTreeSet<&str> = writes
            .iter()
            .filter(|write| write.fate == Fate::Possible)
            .map(|write| write.key)
            .collect();
        let keys: BTreeSet<&str> = writes.iter().map(|write| write.key).collect();
        keys.difference(&open).map(|key| key.to_string()).collect()
    }
}

const NODES: usize = 3;

/// Three nodes that take writes and learn of each other's now and then; at the end of everything.
fn generate(random: &mut Random, merge: Merge) -> Case {
    let mut nodes: Vec<(u64, BTreeMap<u64, Made>)> = vec![(0, BTreeMap::new()); NODES];
    let mut history = Vec::new();
    let mut observed = BTreeMap::new();
    let mut happened: BTreeMap<u64, Made> = BTreeMap::new();
    for at in 0..10 + random.below(40) {
        let node = random.below(NODES);
        if random.percent(40) {
            let from = random.below(NODES);
            let other = nodes[from].clone();
            nodes[node].0 = nodes[node].0.max(other.0);
            nodes[node].1.extend(other.1);
        }
        let invoke = at as u64 * 100;
        let returned = Some(invoke + 50 + random.below(120) as u64);
        let process = node as u64;
        if random.percent(25) {
            history.push(read(random, &nodes[node].1, merge, (process, invoke, returned)));
            continue;
        }
        let parts = 1 + usize::from(random.percent(20));
        let mut changes: BTreeMap<String, Option<String>> = BTreeMap::new();
        for part in 0..parts {
            let value = (!random.percent(25)).then(|| format!("v{at}.{part}"));
            changes.insert(format!("k{}", random.below(5)), value);
        }
        let call = call(&changes);
        let fate = random.below(10);
        if fate == 0 {
            history.push(Operation {
                process,
                invoke,
                returned,
                call,
                outcome: Outcome::Fail,
            });
            continue;
        }
        let version = (nodes[node].0 / 8 + 1 + random.below(3) as u64) * 8 + node as u64;
        let outcome = match fate {
            1 | 2 => Outcome::Unknown,
            _ if parts == 1 && !matches!(call, Call::Command { .. }) => Outcome::Ok(Answer::Done {
                version: Some(version),
            }),
            _ => Outcome::Ok(Answer::Won {
                succeeded: true,
                version: Some(version),
            }),
        };
        if fate != 1 {
            nodes[node].0 = version;
            for (key, value) in &changes {
                let seen = nodes[node]
                    .1
                    .values()
                    .filter(|made| made.key == *key)
                    .map(|made| made.version);
                let seen: BTreeSet<u64> = seen.collect();
                observed.insert((history.len(), key.clone()), seen.iter().copied().collect());
                let made = Made {
                    version,
                    key: key.clone(),
                    value: value.clone(),
                    observed: seen,
                };
                let name = version * 8 + changes.keys().position(|other| other == key).unwrap_or(0) as u64;
                nodes[node].1.insert(name, made.clone());
                happened.insert(name, made);
            }
        }
        history.push(Operation {
            process,
            invoke,
            returned,
            call,
            outcome,
        });
    }
    let entries = fold(&happened, merge);
    let replicas = (0..NODES).map(|node| Replica {
        name: format!("n{node}"),
        entries: entries.clone(),
    });
    Case {
        history,
        replicas: replicas.collect(),
        observed,
        merge,
    }
}

fn call(changes: &BTreeMap<String, Option<String>>) -> Call {
    let mut all = changes.iter();
    match (all.next(), all.next()) {
        (Some((key, Some(value))), None) => Call::Put {
            key: key.clone(),
            value: value.clone(),
        },
        (Some((key, None)), None) => Call::Delete { key: key.clone() },
        _ => {
            let change = |(key, value): (&String, &Option<String>)| Change {
                key: key.clone(),
                value: value.clone(),
            };
            Call::Command {
                guards: Vec::new(),
                changes: changes.iter().map(change).collect(),
            }
        }
    }
}

fn read(
    random: &mut Random,
    seen: &BTreeMap<u64, Made>,
    merge: Merge,
    (process, invoke, returned): (u64, u64, Option<u64>),
) -> Operation {
    let key = format!("k{}", random.below(5));
    let entries = fold(seen, merge);
    let found = entries.get(&key).and_then(|values| values.first()).cloned();
    let version = found.as_ref().and_then(|(_, version)| *version);
    let value = found.map(|(value, _)| value);
    let outcome = Outcome::Ok(Answer::Value {
        value,
        version,
        at: None,
    });
    Operation {
        process,
        invoke,
        returned,
        call: Call::Get { key },
        outcome,
    }
}

/// What these writes come to.
fn fold(writes: &BTreeMap<u64, Made>, merge: Merge) -> BTreeMap<String, Vec<(String, Option<u64>)>> {
    let mut keys: BTreeMap<&str, Vec<&Made>> = BTreeMap::new();
    for made in writes.values() {
        keys.entry(&made.key).or_default().push(made);
    }
    let mut entries = BTreeMap::new();
    for (key, made) in keys {
        let is_live = |one: &&&Made| !made.iter().any(|other| other.observed.contains(&one.version));
        let live: Vec<&Made> = made.iter().filter(is_live).copied().collect();
        let newest = made.iter().max_by_key(|made| made.version).copied();
        let hidden = live
            .iter()
            .filter(|made| made.value.is_none())
            .map(|made| made.version)
            .max();
        let shown: Vec<&Made> = match merge {
            Merge::LastWriterWins => newest.into_iter().collect(),
            Merge::MultiValue => live
                .into_iter()
                .filter(|made| Some(made.version) > hidden)
                .collect(),
            Merge::AddWins => live
                .into_iter()
                .filter(|made| made.value.is_some())
                .max_by_key(|made| made.version)
                .into_iter()
                .collect(),
        };
        let value = |made: &Made| Some((made.value.clone()?, Some(made.version)));
        let values: Vec<_> = shown.into_iter().filter_map(value).collect();
        if !values.is_empty() {
            entries.insert(key.to_string(), values);
        }
    }
    entries
}

/// A key, its greatest acknowledged write, and another write of it that the choice accepts.
fn pair(
    case: &Case,
    random: &mut Random,
    choose: impl Fn(&Write<'_>, &Write<'_>) -> bool,
) -> Option<(String, String, Option<u64>)> {
    let resolved = case.resolved();
    let all = case.writes();
    let of_key = |key: &str| {
        all.iter()
            .filter(move |write| write.key == key && write.fate == Fate::Acknowledged)
            .collect::<Vec<_>>()
    };
    let mut found = Vec::new();
    for key in &resolved {
        let Some(newest) = of_key(key).into_iter().max_by_key(|write| write.version) else {
            continue;
        };
        for write in of_key(key).into_iter().filter(|write| choose(newest, write)) {
            if let Content::Put(value) = write.content {
                found.push((key.clone(), value.to_string(), write.version));
            }
        }
    }
    random.pick(&found).cloned()
}

#[test]
fn replicas_that_differ_are_found() {
    for merge in [Merge::LastWriterWins, Merge::MultiValue, Merge::AddWins] {
        let plant = |case: &mut Case, random: &mut Random| {
            let keys: Vec<String> = case.replicas[0].entries.keys().cloned().collect();
            let Some(key) = random.pick(&keys) else {
                return false;
            };
            let replica = random.below(NODES);
            let entries = &mut case.replicas[replica].entries;
            if random.percent(50) {
                entries.remove(key);
            } else if let Some(values) = entries.get_mut(key) {
                values[0].1 = values[0].1.map(|version| version - 1);
            }
            true
        };
        power(
            &["convergence"],
            |random| generate(random, merge),
            plant,
            Case::check,
        );
    }
}

#[test]
fn values_from_nowhere_are_found() {
    for merge in [Merge::LastWriterWins, Merge::MultiValue, Merge::AddWins] {
        let plant = |case: &mut Case, random: &mut Random| {
            let keys: Vec<String> = case.replicas[0].entries.keys().cloned().collect();
            let Some(key) = random.pick(&keys).cloned() else {
                return false;
            };
            let mut values = case.replicas[0].entries[&key].clone();
            let failed = writes(&case.history)
                .iter()
                .find(|write| write.key == key && write.fate == Fate::Failed)
                .and_then(|write| match write.content {
                    Content::Put(value) => Some(value.to_string()),
                    _ => None,
                });
            values[0].0 = failed.unwrap_or_else(|| "nobody's".into());
            case.set(&key, values);
            true
        };
        power(
            &["thin-air"],
            |random| generate(random, merge),
            plant,
            Case::check,
        );
    }
}

#[test]
fn reads_from_nowhere_or_from_the_future_are_found() {
    let plant = |case: &mut Case, random: &mut Random| {
        let reads: Vec<usize> = (0..case.history.len())
            .filter(|at| {
                matches!(
                    case.history[*at].outcome,
                    Outcome::Ok(Answer::Value { value: Some(_), .. })
                )
            })
            .collect();
        let Some(&at) = random.pick(&reads) else {
            return false;
        };
        let Call::Get { key } = case.history[at].call.clone() else {
            return false;
        };
        let until = case.history[at].returned;
        let all = writes(&case.history);
        let later = all.iter().find_map(|write| match write.content {
            Content::Put(value) if write.key == key && Some(write.invoked) > until => Some(value.to_string()),
            _ => None,
        });
        let value = Some(later.unwrap_or_else(|| "nobody's".into()));
        case.history[at].outcome = Outcome::Ok(Answer::Value {
            value,
            version: None,
            at: None,
        });
        true
    };
    power(
        &["thin-air"],
        |random| generate(random, Merge::LastWriterWins),
        plant,
        Case::check,
    );
}

#[test]
fn lost_writes_are_found_under_last_writer_wins() {
    let plant = |case: &mut Case, random: &mut Random| {
        let is_put = |write: &Write<'_>| write.content != Content::Delete;
        if random.percent(50) {
            let older =
                |newest: &Write<'_>, write: &Write<'_>| is_put(newest) && write.version < newest.version;
            let Some((key, value, version)) = pair(case, random, older) else {
                return false;
            };
            case.set(&key, vec![(value, version)]);
        } else {
            let same = |newest: &Write<'_>, write: &Write<'_>| write.version == newest.version;
            let Some((key, _, _)) = pair(case, random, same) else {
                return false;
            };
            case.set(&key, Vec::new());
        }
        true
    };
    power(
        &["lost-write"],
        |random| generate(random, Merge::LastWriterWins),
        plant,
        Case::check,
    );
}

#[test]
fn resurrections_are_found_under_last_writer_wins() {
    let plant = |case: &mut Case, random: &mut Random| {
        let older = |newest: &Write<'_>, _: &Write<'_>| newest.content == Content::Delete;
        let Some((key, value, version)) = pair(case, random, older) else {
            return false;
        };
        case.set(&key, vec![(value, version)]);
        true
    };
    // Without any context, too: the versions tell.
    let check = |case: &Case| check(&case.history, &case.replicas, case.merge);
    power(
        &["resurrection"],
        |random| generate(random, Merge::LastWriterWins),
        plant,
        check,
    );
}

#[test]
fn lost_siblings_and_elements_are_found() {
    for merge in [Merge::MultiValue, Merge::AddWins] {
        let plant = |case: &mut Case, random: &mut Random| {
            let shown: Vec<(String, usize)> = case
                .resolved()
                .into_iter()
                .filter_map(|key| Some((key.clone(), case.replicas[0].entries.get(&key)?.len())))
                .collect();
            let Some((key, count)) = random.pick(&shown).cloned() else {
                return false;
            };
            let mut values = case.replicas[0].entries[&key].clone();
            values.remove(random.below(count));
            case.set(&key, values);
            true
        };
        power(
            &["lost-write"],
            |random| generate(random, merge),
            plant,
            Case::check,
        );
    }
}

#[test]
fn what_a_delete_observed_stays_away() {
    for merge in [Merge::MultiValue, Merge::AddWins] {
        let plant = |case: &mut Case, random: &mut Random| {
            let all = case.writes();
            let resolved = case.resolved();
            let mut removed = Vec::new();
            for by in all
                .iter()
                .filter(|by| by.content == Content::Delete && resolved.iter().any(|k| k == by.key))
            {
                let observed = by.observed.clone().unwrap_or_default();
                let of_key = || {
                    all.iter()
                        .filter(|write| write.key == by.key && write.fate != Fate::Failed)
                };
                // Only the delete replaced it, so that no other rule is broken.
                for write in of_key().filter(|write| write.version.is_some_and(|v| observed.contains(&v))) {
                    let sole = of_key().all(|other| {
                        let replaced = other.observed.iter().flatten().any(|v| Some(*v) == write.version);
                        !replaced || other.content == Content::Delete
                    });
                    if let (Content::Put(value), true) = (write.content, sole) {
                        removed.push((by.key.to_string(), value.to_string(), write.version));
                    }
                }
            }
            let Some((key, value, version)) = random.pick(&removed).cloned() else {
                return false;
            };
            let mut values = case.replicas[0].entries.get(&key).cloned().unwrap_or_default();
            if merge == Merge::AddWins && !values.is_empty() {
                return false;
            }
            values.push((value, version));
            case.set(&key, values);
            true
        };
        power(
            &["resurrection"],
            |random| generate(random, merge),
            plant,
            Case::check,
        );
    }
}

#[test]
fn lost_elements_of_growing_sets_are_found() {
    let generate = |random: &mut Random| {
        let mut history = Vec::new();
        let mut elements: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for at in 0..30 {
            let (key, element) = (format!("s{}", random.below(3)), format!("e{at}"));
            let outcome = match random.below(8) {
                0 => Outcome::Fail,
                1 => Outcome::Unknown,
                _ => Outcome::Ok(Answer::Done { version: None }),
            };
            if outcome != Outcome::Fail {
                elements.entry(key.clone()).or_default().insert(element.clone());
            }
            let (invoke, returned) = (at * 10, Some(at * 10 + 5));
            history.push(Operation {
                process: 1,
                invoke,
                returned,
                call: Call::Add { key, element },
                outcome,
            });
        }
        let set =
            |(key, set): (String, BTreeSet<String>)| (key, set.into_iter().map(|e| (e, None)).collect());
        let entries: BTreeMap<_, _> = elements.into_iter().map(set).collect();
        let replicas = ["n1", "n2"].map(|name| Replica {
            name: name.into(),
            entries: entries.clone(),
        });
        let merge = Merge::AddWins;
        Case {
            history,
            replicas: replicas.into(),
            observed: BTreeMap::new(),
            merge,
        }
    };
    let plant = |case: &mut Case, random: &mut Random| {
        let all = writes(&case.history);
        let sure: Vec<&Write<'_>> = all
            .iter()
            .filter(|write| write.fate == Fate::Acknowledged)
            .collect();
        let Some(lost) = random.pick(&sure) else {
            return false;
        };
        let key = lost.key.to_string();
        let mut values = case.replicas[0].entries[&key].clone();
        values.retain(|(element, _)| lost.content != Content::Add(element));
        case.set(&key, values);
        true
    };
    power(&["lost-write"], generate, plant, Case::check);
}
