//! Transactions of a serial store, with each anomaly planted among them as a few transactions of its own.

mod verdicts;

use std::collections::BTreeMap;

use trilemma_check::history::{Answer, Call, Operation, Outcome, Step};
use trilemma_check::transactions::{Level, check};
use trilemma_check::verdict::Verdict;

use super::power;
use super::random::Random;

const LEVELS: [Level; 6] = [
    Level::ReadUncommitted,
    Level::ReadCommitted,
    Level::SnapshotIsolation,
    Level::Serializable,
    Level::SessionSerializable,
    Level::StrictSerializable,
];

/// Lists and registers of a store that runs one transaction at a time, some while after each was asked for.
fn generate(random: &mut Random) -> Vec<Operation> {
    let mut state: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut history = Vec::new();
    let mut free = [0_u64; 5];
    let mut now = 0;
    for at in 0..30 {
        let process = random.below(free.len());
        let invoke = free[process] + random.below(20) as u64;
        now = now.max(invoke) + 1 + random.below(10) as u64;
        let returned = now + random.below(60) as u64;
        free[process] = returned + 1;
        let fate = random.below(12);
        let mut after = state.clone();
        let mut asked = Vec::new();
        let mut found = Vec::new();
        for step in 0..1 + random.below(4) {
            let is_list = random.percent(60);
            let key = format!("{}{}", if is_list { "l" } else { "r" }, random.below(3));
            let held = after.entry(key.clone()).or_default();
            let element = format!("e{at}.{step}");
            if random.percent(50) {
                asked.push(Step::Read {
                    key: key.clone(),
                    found: None,
                });
                found.push(Step::Read {
                    key,
                    found: Some(held.clone()),
                });
                continue;
            }
            let step = if is_list {
                held.push(element.clone());
                Step::Append { key, element }
            } else {
                *held = vec![element.clone()];
                Step::Write { key, value: element }
            };
            asked.push(step.clone());
            found.push(step);
        }
        if fate > 1 {
            state = after;
        }
        let outcome = match fate {
            0 => Outcome::Fail,
            1 | 2 => Outcome::Unknown,
            _ => Outcome::Ok(Answer::Committed { steps: found }),
        };
        let call = Call::Transaction { steps: asked };
        history.push(Operation {
            process: process as u64,
            invoke,
            returned: Some(returned),
            call,
            outcome,
        });
    }
    history
}

/// One transaction of an anomaly: steps as `append p 1`, `write p 1`, `read p`, `read p 1 2`.
struct Part {
    /// Added to the process numbers of the anomaly.
    process: u64,
    from: u64,
    to: u64,
    aborts: bool,
    steps: &'static [&'static str],
}

/// At the same time as the others, and by a process of its own.
const fn part(process: u64, steps: &'static [&'static str]) -> Part {
    Part {
        process,
        from: 0,
        to: 100,
        aborts: false,
        steps,
    }
}

const fn timed(process: u64, from: u64, to: u64, steps: &'static [&'static str]) -> Part {
    Part {
        process,
        from,
        to,
        aborts: false,
        steps,
    }
}

const fn aborted(process: u64, steps: &'static [&'static str]) -> Part {
    Part {
        process,
        from: 0,
        to: 100,
        aborts: true,
        steps,
    }
}

fn step(text: &str) -> Step {
    let mut words = text.split(' ');
    let mut next = || words.next().unwrap_or("").to_string();
    let (verb, key) = (next(), next());
    match verb.as_str() {
        "append" => Step::Append { key, element: next() },
        "write" => Step::Write { key, value: next() },
        _ => Step::Read {
            key,
            found: Some(words.map(str::to_string).collect()),
        },
    }
}

/// Puts the parts into the history, anywhere in it and at any time of it.
fn plant(history: &mut Vec<Operation>, random: &mut Random, parts: &[Part]) {
    let at = random.below(300) as u64;
    for part in parts {
        let steps: Vec<Step> = part.steps.iter().map(|text| step(text)).collect();
        let outcome = if part.aborts {
            Outcome::Fail
        } else {
            Outcome::Ok(Answer::Committed { steps: steps.clone() })
        };
        let line = Operation {
            process: 100 + part.process,
            invoke: at + part.from,
            returned: Some(at + part.to),
            call: Call::Transaction { steps },
            outcome,
        };
        history.insert(random.below(history.len() + 1), line);
    }
}

/// The anomaly must be found as `rule` from `level` on, and be allowed below.
fn anomaly(rule: &str, level: Level, parts: &[Part]) {
    power(
        &[rule],
        generate,
        |history, random| {
            plant(history, random, parts);
            // Of some, so that the test stays quick.
            if random.percent(20) {
                for weaker in LEVELS.into_iter().filter(|weaker| *weaker < level) {
                    assert_eq!(
                        check(history, weaker),
                        Verdict::Legal,
                        "{rule} is allowed at {weaker:?}"
                    );
                }
                for stronger in LEVELS.into_iter().filter(|stronger| *stronger > level) {
                    assert!(
                        !check(history, stronger).is_legal(),
                        "{rule} is forbidden at {stronger:?}"
                    );
                }
            }
            true
        },
        |history| check(history, level),
    );
}

#[test]
fn what_no_level_allows() {
    let level = Level::ReadUncommitted;
    anomaly(
        "duplicate-elements",
        level,
        &[part(1, &["append p 1"]), part(2, &["read p 1 1"])],
    );
    anomaly(
        "thin-air",
        level,
        &[part(1, &["append p 1"]), part(2, &["read p 2"])],
    );
    anomaly(
        "thin-air",
        level,
        &[timed(1, 0, 9, &["read p 1"]), timed(2, 20, 30, &["append p 1"])],
    );
    anomaly("internal", level, &[part(1, &["append p 1", "read p"])]);
    anomaly(
        "incompatible-order",
        level,
        &[
            part(1, &["append p 1"]),
            part(2, &["append p 2"]),
            part(3, &["read p 1 2"]),
            part(4, &["read p 2 1"]),
        ],
    );
    anomaly(
        "G0",
        level,
        &[
            part(1, &["append p 1", "append q 2"]),
            part(2, &["append p 3", "append q 4"]),
            part(3, &["read p 1 3", "read q 4 2"]),
        ],
    );
}

#[test]
fn what_read_committed_forbids() {
    let level = Level::ReadCommitted;
    anomaly(
        "G1a",
        level,
        &[aborted(1, &["append p 1"]), part(2, &["read p 1"])],
    );
    anomaly(
        "G1a",
        level,
        &[aborted(1, &["write p 1"]), part(2, &["read p 1"])],
    );
    anomaly(
        "dirty-update",
        level,
        &[
            aborted(1, &["append p 1"]),
            part(2, &["append p 2"]),
            part(3, &["read p 1 2"]),
        ],
    );
    anomaly(
        "G1b",
        level,
        &[part(1, &["append p 1", "append p 2"]), part(2, &["read p 1"])],
    );
    anomaly(
        "G1b",
        level,
        &[part(1, &["write p 1", "write p 2"]), part(2, &["read p 1"])],
    );
    anomaly(
        "G1c",
        level,
        &[
            part(1, &["append p 1", "read q 2"]),
            part(2, &["append q 2", "read p 1"]),
        ],
    );
    anomaly(
        "G1c",
        level,
        &[
            part(1, &["write p 1", "read q 2"]),
            part(2, &["write q 2", "read p 1"]),
        ],
    );
    // Somebody reads between the two appends of another, whom it precedes by a third.
    anomaly(
        "G1c",
        level,
        &[
            part(1, &["append p 1", "read q 2"]),
            part(2, &["append p 3", "append q 2"]),
            part(3, &["read p 1 3"]),
        ],
    );
}

#[test]
fn what_snapshots_forbid() {
    let level = Level::SnapshotIsolation;
    anomaly(
        "G-single",
        level,
        &[
            part(1, &["append p 1", "append q 2"]),
            part(2, &["read p", "read q 2"]),
        ],
    );
    anomaly(
        "G-single",
        level,
        &[
            part(1, &["write p 1", "write q 2"]),
            part(2, &["read p", "read q 2"]),
        ],
    );
    anomaly(
        "G-nonadjacent",
        level,
        &[
            part(1, &["read p", "read q 4"]),
            part(2, &["append p 1"]),
            part(3, &["read p 1", "read q"]),
            part(4, &["append q 4"]),
        ],
    );
    anomaly(
        "lost-update",
        level,
        &[
            part(1, &["read p", "append p 1"]),
            part(2, &["read p", "append p 2"]),
        ],
    );
    anomaly(
        "lost-update",
        level,
        &[
            part(1, &["read p", "write p 1"]),
            part(2, &["read p", "write p 2"]),
        ],
    );
    anomaly(
        "internal",
        level,
        &[part(1, &["append p 1"]), part(2, &["read p", "read p 1"])],
    );
}

#[test]
fn what_serializability_forbids() {
    let level = Level::Serializable;
    anomaly(
        "G2-item",
        level,
        &[
            part(1, &["read q", "append p 1"]),
            part(2, &["read p", "append q 2"]),
        ],
    );
    anomaly(
        "G2-item",
        level,
        &[
            part(1, &["read q", "write p 1"]),
            part(2, &["read p", "write q 2"]),
        ],
    );
    anomaly(
        "G2-item",
        level,
        &[
            part(1, &["read q", "append p 1"]),
            part(2, &["read r", "append q 2"]),
            part(3, &["read p", "append r 3"]),
        ],
    );
}

#[test]
fn what_the_order_of_processes_forbids() {
    let level = Level::SessionSerializable;
    anomaly(
        "G-single-process",
        level,
        &[timed(1, 0, 9, &["append p 1"]), timed(1, 20, 30, &["read p"])],
    );
    anomaly(
        "G1c-process",
        level,
        &[
            timed(1, 0, 9, &["read p 1"]),
            timed(1, 20, 30, &["append q 2"]),
            part(2, &["append p 1", "read q 2"]),
        ],
    );
    anomaly(
        "G0-process",
        level,
        &[
            timed(1, 0, 9, &["append p 1"]),
            timed(1, 20, 30, &["append q 2"]),
            part(2, &["append p 4", "append q 3"]),
            part(3, &["read p 4 1", "read q 2 3"]),
        ],
    );
    anomaly(
        "G2-item-process",
        level,
        &[
            timed(1, 0, 9, &["append q 2"]),
            part(2, &["append p 1", "read q"]),
            timed(1, 20, 30, &["read p"]),
        ],
    );
}

#[test]
fn what_real_time_forbids() {
    let level = Level::StrictSerializable;
    anomaly(
        "G-single-realtime",
        level,
        &[timed(1, 0, 9, &["append p 1"]), timed(2, 20, 30, &["read p"])],
    );
    anomaly(
        "G-single-realtime",
        level,
        &[
            timed(1, 0, 9, &["write p 1"]),
            timed(2, 20, 30, &["write p 2"]),
            timed(3, 40, 50, &["read p 1"]),
        ],
    );
    anomaly(
        "G1c-realtime",
        level,
        &[
            timed(1, 0, 9, &["read p 1"]),
            timed(3, 20, 30, &["append q 2"]),
            part(2, &["append p 1", "read q 2"]),
        ],
    );
    anomaly(
        "G0-realtime",
        level,
        &[
            timed(1, 0, 9, &["append p 1"]),
            timed(4, 20, 30, &["append q 2"]),
            part(2, &["append p 4", "append q 3"]),
            part(3, &["read p 4 1", "read q 2 3"]),
        ],
    );
    anomaly(
        "G2-item-realtime",
        level,
        &[
            timed(1, 0, 9, &["append q 2"]),
            part(2, &["append p 1", "read q"]),
            timed(3, 20, 30, &["read p"]),
        ],
    );
    anomaly(
        "cyclic-versions",
        level,
        &[
            timed(1, 0, 9, &["write p 1"]),
            timed(2, 0, 9, &["write p 2"]),
            timed(3, 20, 30, &["read p 1"]),
            timed(4, 40, 50, &["read p 2"]),
            timed(5, 60, 70, &["read p 1"]),
        ],
    );
}

#[test]
fn stale_reads_among_others_are_found() {
    // A read of a generated transaction loses its last element, whose writer had returned long before.
    let plant = |history: &mut Vec<Operation>, random: &mut Random| {
        let mut writers: BTreeMap<String, u64> = BTreeMap::new();
        for line in history.iter() {
            if let (Call::Transaction { steps }, Outcome::Ok(_)) = (&line.call, &line.outcome) {
                for step in steps {
                    if let Step::Append { element, .. } = step {
                        writers.insert(element.clone(), line.returned.unwrap_or(u64::MAX));
                    }
                }
            }
        }
        let mut places = Vec::new();
        for (at, line) in history.iter().enumerate() {
            let Outcome::Ok(Answer::Committed { steps }) = &line.outcome else {
                continue;
            };
            for (place, step) in steps.iter().enumerate() {
                let Step::Read {
                    key,
                    found: Some(found),
                } = step
                else {
                    continue;
                };
                let stale = found
                    .last()
                    .and_then(|last| writers.get(last))
                    .is_some_and(|by| *by < line.invoke);
                if key.starts_with('l') && stale {
                    places.push((at, place));
                }
            }
        }
        let Some((at, place)) = random.pick(&places).copied() else {
            return false;
        };
        if let Outcome::Ok(Answer::Committed { steps }) = &mut history[at].outcome
            && let Step::Read {
                found: Some(found), ..
            } = &mut steps[place]
        {
            found.pop();
        }
        true
    };
    let rules = [
        "internal",
        "lost-update",
        "G1b",
        "G-single",
        "G-nonadjacent",
        "G2-item",
        "G-single-process",
        "G2-item-process",
        "G-nonadjacent-process",
        "G-single-realtime",
        "G-nonadjacent-realtime",
        "G2-item-realtime",
    ];
    power(&rules, generate, plant, |history| {
        check(history, Level::StrictSerializable)
    });
}

#[test]
fn a_strict_history_is_legal_at_every_level() {
    for seed in 0..200 {
        let history = generate(&mut Random::new(seed));
        for level in LEVELS {
            assert_eq!(check(&history, level), Verdict::Legal, "seed {seed} at {level:?}");
        }
    }
}
