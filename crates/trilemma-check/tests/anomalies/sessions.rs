//! Sessions of a service whose replicas lag, and ways in which they break their guarantees.

use std::collections::BTreeMap;

use trilemma_check::history::{Answer, Call, Entry, Operation, Outcome};
use trilemma_check::sessions::{Guarantees, Order, check};
use trilemma_check::verdict::Verdict;

use super::power;
use super::random::Random;

type Table = BTreeMap<String, (String, u64)>;

/// One order of changes; each process reads some state that is not behind what it knows.
fn generate(random: &mut Random) -> Vec<Operation> {
    let mut states: Vec<Table> = vec![Table::new()];
    let mut floors = [0; 3];
    let mut history = Vec::new();
    for at in 0..60 {
        let process = random.below(3);
        let key = format!("k{}", random.below(3));
        let (invoke, returned) = (at * 10, Some(at * 10 + 5));
        let version = states.len() as u64;
        let mut now = states.last().cloned().unwrap_or_default();
        let (call, outcome) = match random.below(10) {
            0..4 => {
                let value = format!("v{at}");
                now.insert(key.clone(), (value.clone(), version));
                states.push(now);
                (Call::Put { key, value }, done(random, version))
            }
            4 => {
                now.remove(&key);
                states.push(now);
                (Call::Delete { key }, done(random, version))
            }
            5 => (
                Call::Put {
                    key,
                    value: format!("v{at}"),
                },
                Outcome::Fail,
            ),
            choice => {
                let seen = floors[process] + random.below(states.len() - floors[process]);
                floors[process] = seen;
                let state = &states[seen];
                let seen = Some(seen as u64);
                if choice < 9 {
                    let found = state.get(&key);
                    let (value, version) = (found.map(|found| found.0.clone()), found.map(|found| found.1));
                    (
                        Call::Get { key },
                        Outcome::Ok(Answer::Value {
                            value,
                            version,
                            at: seen,
                        }),
                    )
                } else {
                    let entry = |(key, (value, version)): (&String, &(String, u64))| Entry {
                        key: key.clone(),
                        value: value.clone(),
                        version: Some(*version),
                    };
                    let entries = state.iter().map(entry).collect();
                    let call = Call::Range {
                        start: "k".into(),
                        end: None,
                        limit: None,
                    };
                    (
                        call,
                        Outcome::Ok(Answer::Entries {
                            entries,
                            more: false,
                            at: seen,
                        }),
                    )
                }
            }
        };
        if let Outcome::Ok(Answer::Done { .. }) = outcome {
            floors[process] = states.len() - 1;
        }
        history.push(Operation {
            process: process as u64,
            invoke,
            returned,
            call,
            outcome,
        });
    }
    history
}

fn done(random: &mut Random, version: u64) -> Outcome {
    if random.percent(10) {
        Outcome::Unknown
    } else {
        Outcome::Ok(Answer::Done {
            version: Some(version),
        })
    }
}

fn strip(history: &mut [Operation], order: Order) {
    for operation in history {
        match &mut operation.outcome {
            Outcome::Ok(Answer::Done { version }) if order == Order::Opaque => *version = None,
            Outcome::Ok(Answer::Value { version, at, .. }) => {
                *at = at.filter(|_| order == Order::Keyspace);
                *version = version.filter(|_| order != Order::Opaque);
            }
            Outcome::Ok(Answer::Entries { entries, at, .. }) => {
                *at = at.filter(|_| order == Order::Keyspace);
                for entry in entries.iter_mut().filter(|_| order == Order::Opaque) {
                    entry.version = None;
                }
            }
            _ => {}
        }
    }
}

/// The version of `key` that an operation acknowledged as written.
fn written(operation: &Operation, key: &str) -> Option<u64> {
    match (&operation.call, &operation.outcome) {
        (Call::Put { key: own, .. } | Call::Delete { key: own }, Outcome::Ok(Answer::Done { version })) => {
            version.filter(|_| own == key)
        }
        _ => None,
    }
}

fn read(operation: &Operation) -> Option<(&str, Option<u64>)> {
    match (&operation.call, &operation.outcome) {
        (Call::Get { key }, Outcome::Ok(Answer::Value { version, .. })) => Some((key, *version)),
        _ => None,
    }
}

/// Acknowledged values of a key by version.
fn values(history: &[Operation], key: &str) -> Vec<(u64, String)> {
    let value = |operation: &Operation| match &operation.call {
        Call::Put { value, .. } => Some((written(operation, key)?, value.clone())),
        _ => None,
    };
    history.iter().filter_map(value).collect()
}

fn set_read(operation: &mut Operation, (version, value): (u64, String)) {
    let (value, version) = (Some(value), Some(version));
    operation.outcome = Outcome::Ok(Answer::Value {
        value,
        version,
        at: None,
    });
}

/// What the process knew of the key before operation `at`: written and read versions.
fn known(history: &[Operation], at: usize, key: &str) -> (u64, u64) {
    let own = || {
        history[..at]
            .iter()
            .filter(|other| other.process == history[at].process)
    };
    let wrote = own().filter_map(|other| written(other, key)).max().unwrap_or(0);
    let saw = own().filter_map(|other| match read(other) {
        Some((of, version)) if of == key => version,
        _ => match &other.outcome {
            Outcome::Ok(Answer::Entries { entries, .. }) => entries
                .iter()
                .find(|entry| entry.key == key)
                .and_then(|entry| entry.version),
            _ => None,
        },
    });
    (wrote, saw.max().unwrap_or(0))
}

/// Plants a read of a version that the choice accepts: given what is written and read before, and the version.
fn plant_read(
    history: &mut [Operation],
    random: &mut Random,
    choose: impl Fn(u64, u64, u64) -> bool,
) -> bool {
    let mut places = Vec::new();
    for (at, operation) in history.iter().enumerate() {
        let Some((key, _)) = read(operation) else {
            continue;
        };
        let (wrote, saw) = known(history, at, key);
        let fits = values(history, key)
            .into_iter()
            .filter(|(version, _)| choose(wrote, saw, *version));
        places.extend(fits.map(|found| (at, found)));
    }
    let Some((at, found)) = random.pick(&places).cloned() else {
        return false;
    };
    set_read(&mut history[at], found);
    true
}

fn power_in(order: Order, rules: &[&str], plant: impl Fn(&mut Vec<Operation>, &mut Random) -> bool) {
    let plant = |history: &mut Vec<Operation>, random: &mut Random| {
        let planted = plant(history, random);
        strip(history, order);
        planted
    };
    let check = |history: &Vec<Operation>| -> Verdict {
        let mut history = history.clone();
        strip(&mut history, order);
        check(&history, order, Guarantees::ALL)
    };
    power(rules, generate, plant, check);
}

#[test]
fn own_writes_that_are_not_read_are_found() {
    for order in [Order::Keyspace, Order::PerKey] {
        power_in(order, &["read-your-writes"], |history, random| {
            plant_read(history, random, |wrote, _, version| version < wrote)
        });
    }
}

#[test]
fn own_writes_that_are_gone_are_found() {
    power_in(Order::PerKey, &["read-your-writes"], |history, random| {
        let mut places = Vec::new();
        for (at, operation) in history.iter().enumerate() {
            let Some((key, _)) = read(operation) else {
                continue;
            };
            let (wrote, saw) = known(history, at, key);
            let deleted = history.iter().any(|other| {
                let deletes = matches!(&other.call, Call::Delete { key: of } if of == key);
                deletes && (other.outcome == Outcome::Unknown || written(other, key) >= Some(wrote))
            });
            if wrote > saw && !deleted {
                places.push(at);
            }
        }
        let Some(at) = random.pick(&places) else {
            return false;
        };
        history[*at].outcome = Outcome::Ok(Answer::Value {
            value: None,
            version: None,
            at: None,
        });
        true
    });
}

#[test]
fn reads_that_go_back_are_found() {
    for order in [Order::Keyspace, Order::PerKey] {
        power_in(order, &["monotonic-reads"], |history, random| {
            plant_read(history, random, |wrote, saw, version| {
                version < saw && version > wrote
            })
        });
    }
    power_in(
        Order::Keyspace,
        &["monotonic-reads", "read-your-writes"],
        |history, random| {
            let places: Vec<usize> = (1..history.len())
                .filter(|at| {
                    let process = history[*at].process;
                    let earlier = history[..*at].iter().filter(|other| other.process == process);
                    let floor = earlier.filter_map(|other| match &other.outcome {
                        Outcome::Ok(Answer::Value { at, .. }) => *at,
                        _ => None,
                    });
                    read(&history[*at]).is_some() && floor.max().is_some_and(|floor| floor > 0)
                })
                .collect();
            let Some(place) = random.pick(&places) else {
                return false;
            };
            let Outcome::Ok(Answer::Value { value, version, at }) = &mut history[*place].outcome else {
                return false;
            };
            (*value, *version, *at) = (None, None, Some(0));
            true
        },
    );
}

#[test]
fn going_back_is_found_by_tokens_alone() {
    // Reads something that the same process had known and seen replaced.
    power_in(
        Order::Opaque,
        &["monotonic-reads", "read-your-writes"],
        |history, random| {
            let mut places = Vec::new();
            for (at, operation) in history.iter().enumerate() {
                let Some((key, _)) = read(operation) else {
                    continue;
                };
                let (wrote, saw) = known(history, at, key);
                for (version, value) in values(history, key) {
                    let knew = history[..at]
                        .iter()
                        .filter(|other| other.process == operation.process)
                        .any(|other| {
                            let saw = read(other) == Some((key, Some(version)));
                            saw || written(other, key) == Some(version)
                        });
                    if knew && version < wrote.max(saw) {
                        places.push((at, (version, value)));
                    }
                }
            }
            let Some((at, found)) = random.pick(&places).cloned() else {
                return false;
            };
            set_read(&mut history[at], found);
            true
        },
    );
}

#[test]
fn writes_out_of_order_are_found() {
    for order in [Order::Keyspace, Order::PerKey] {
        power_in(order, &["monotonic-writes"], |history, random| {
            let mut places = Vec::new();
            for second in 0..history.len() {
                let process = history[second].process;
                let own = |at: &usize| history[*at].process == process;
                // Directly after each other, and of one key.
                let Some(first) = (0..second).rev().find(own) else {
                    continue;
                };
                let (Call::Put { key, .. }, Call::Put { key: other, .. }) =
                    (&history[first].call, &history[second].call)
                else {
                    continue;
                };
                if key == other
                    && written(&history[first], key).is_some()
                    && written(&history[second], key).is_some()
                {
                    places.push((first, second));
                }
            }
            let Some((first, second)) = random.pick(&places).copied() else {
                return false;
            };
            let outcome = history[first].outcome.clone();
            history[first].outcome = std::mem::replace(&mut history[second].outcome, outcome);
            true
        });
    }
}

#[test]
fn writes_before_what_was_read_are_found() {
    for order in [Order::Keyspace, Order::PerKey] {
        power_in(order, &["writes-follow-reads"], |history, random| {
            let mut places = Vec::new();
            for (at, operation) in history.iter().enumerate() {
                let Call::Put { key, .. } = &operation.call else {
                    continue;
                };
                let own = || {
                    history[..at]
                        .iter()
                        .filter(|other| other.process == operation.process)
                };
                let every =
                    own().filter_map(|other| ["k0", "k1", "k2"].iter().find_map(|key| written(other, key)));
                let (_, saw) = known(history, at, key);
                if written(operation, key).is_some() && saw > every.max().unwrap_or(0) {
                    places.push((at, saw));
                }
            }
            let Some((at, saw)) = random.pick(&places).copied() else {
                return false;
            };
            history[at].outcome = Outcome::Ok(Answer::Done { version: Some(saw) });
            true
        });
    }
}

#[test]
fn what_is_not_promised_is_not_judged() {
    let none = Guarantees {
        read_your_writes: false,
        monotonic_reads: false,
        monotonic_writes: false,
        writes_follow_reads: false,
    };
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut history = generate(&mut random);
        if plant_read(&mut history, &mut random, |wrote, _, version| version < wrote) {
            assert_eq!(check(&history, Order::PerKey, none), Verdict::Legal);
            let only = Guarantees {
                read_your_writes: true,
                ..none
            };
            assert!(!check(&history, Order::PerKey, only).is_legal());
        }
    }
}
