//! Sessions: for each process there is an order of the writes, as versions tell it, through which its reads and writes
//! only ever go forward. Every order is tried.
//!
//! Where versions are those of one key, or only name writes, each key has an order of its own.

use trilemma_check::history::{Answer, Call, Operation, Outcome};
use trilemma_check::sessions::{Guarantees, Order, check};
use trilemma_check::verdict::Verdict;
use trilemma_core::Rng;

use super::{Tally, dump, seeds};

const KEYS: usize = 2;
const PROCESSES: u64 = 2;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Answered,
    Failed,
    Unknown,
}

#[derive(Clone, Copy, Debug)]
enum Do {
    /// A value, or nothing for a delete.
    Write(Option<u8>),
    /// What was found.
    Read(Option<u8>),
}

#[derive(Clone, Copy, Debug)]
struct Op {
    process: u64,
    key: usize,
    fate: Fate,
    what: Do,
    /// Reported with the answer. What an unknown write made is reported by reads alone.
    version: Option<u64>,
    at: Option<u64>,
}

struct Case {
    ops: Vec<Op>,
    order: Order,
}

/// A write in an order that is tried: its number, and the version that it has been given.
type Placed = (usize, Option<u64>);

impl Case {
    fn writes(&self, key: Option<usize>) -> Vec<usize> {
        let is_one = |op: &Op| {
            matches!(op.what, Do::Write(_)) && op.fate != Fate::Failed && key.is_none_or(|key| op.key == key)
        };
        (0..self.ops.len()).filter(|at| is_one(&self.ops[*at])).collect()
    }

    /// Whether the process's operations on these keys go forward through `order`.
    fn goes_forward(&self, process: u64, keys: &[usize], order: &mut [Placed]) -> bool {
        let own: Vec<usize> = (0..self.ops.len())
            .filter(|at| {
                let op = &self.ops[*at];
                op.process == process && op.fate == Fate::Answered && keys.contains(&op.key)
            })
            .collect();
        self.walk(&own, 0, order)
    }

    /// `here`: how many writes of the order are behind.
    fn walk(&self, own: &[usize], here: usize, order: &mut [Placed]) -> bool {
        let Some((&at, rest)) = own.split_first() else {
            return true;
        };
        let op = self.ops[at];
        match op.what {
            Do::Write(_) => {
                let place = order.iter().position(|(write, _)| *write == at);
                place.is_some_and(|place| place >= here && self.walk(rest, place + 1, order))
            }
            Do::Read(found) => (here..=order.len()).any(|behind| {
                let last = (0..behind)
                    .rev()
                    .find(|place| self.ops[order[*place].0].key == op.key);
                let Some(place) = last else {
                    return found.is_none() && self.walk(rest, behind, order);
                };
                let (write, version) = order[place];
                let Do::Write(value) = self.ops[write].what else {
                    return false;
                };
                if value != found {
                    return false;
                }
                match (version, op.version) {
                    (Some(made), Some(seen)) => made == seen && self.walk(rest, behind, order),
                    (None, Some(seen)) => {
                        // The write has this version now, if the order allows it.
                        order[place].1 = Some(seen);
                        let is_right = self.is_ordered(order) && self.walk(rest, behind, order);
                        order[place].1 = None;
                        is_right
                    }
                    (_, None) => self.walk(rest, behind, order),
                }
            }),
        }
    }

    /// Whether versions rise along the order, and nobody has the version of another.
    fn is_ordered(&self, order: &[Placed]) -> bool {
        let versions: Vec<u64> = order.iter().filter_map(|(_, version)| *version).collect();
        let differ = (1..versions.len()).all(|at| !versions[..at].contains(&versions[at]));
        differ && (self.order == Order::Opaque || versions.is_sorted())
    }

    fn some_order(&self, process: u64, keys: &[usize], left: &[usize], order: &mut Vec<Placed>) -> bool {
        if left.is_empty() {
            return self.goes_forward(process, keys, order);
        }
        (0..left.len()).any(|place| {
            let mut rest = left.to_vec();
            let write = rest.remove(place);
            let op = &self.ops[write];
            order.push((write, op.version.filter(|_| op.fate == Fate::Answered)));
            let is_right = self.is_ordered(order) && self.some_order(process, keys, &rest, order);
            order.pop();
            is_right
        })
    }

    fn is_allowed(&self) -> bool {
        (0..PROCESSES).all(|process| match self.order {
            Order::Keyspace => self.some_order(process, &[0, 1], &self.writes(None), &mut Vec::new()),
            _ => (0..KEYS)
                .all(|key| self.some_order(process, &[key], &self.writes(Some(key)), &mut Vec::new())),
        })
    }

    fn operations(&self) -> Vec<Operation> {
        let text = |value: Option<u8>| value.map(|value| value.to_string());
        let operation = |(at, op): (usize, &Op)| {
            let key = format!("k{}", op.key);
            let (call, answer) = match op.what {
                Do::Write(None) => (Call::Delete { key }, Answer::Done { version: op.version }),
                Do::Write(Some(value)) => {
                    let value = value.to_string();
                    (Call::Put { key, value }, Answer::Done { version: op.version })
                }
                Do::Read(found) => {
                    let value = text(found);
                    let (version, at) = (op.version, op.at);
                    (Call::Get { key }, Answer::Value { value, version, at })
                }
            };
            Operation {
                process: op.process,
                invoke: at as u64 * 10,
                returned: Some(at as u64 * 10 + 5),
                call,
                outcome: match op.fate {
                    Fate::Answered => Outcome::Ok(answer),
                    Fate::Failed => Outcome::Fail,
                    Fate::Unknown => Outcome::Unknown,
                },
            }
        };
        self.ops.iter().enumerate().map(operation).collect()
    }
}

/// What each key holds, and since which version; nothing at the start.
type State = [Option<(Option<u8>, u64)>; KEYS];

/// Writes in one order; reads of some state of it, not always one that the session allows.
fn random(seed: u64, order: Order) -> Case {
    let mut rng = Rng::new(seed);
    let count = 3 + rng.below(6) as usize;
    let values = 1 + rng.below(4);
    let is_unique = rng.below(3) == 0;
    // In how many of a hundred answers versions are reported: all of them where one order is for all keys.
    let shown = match order {
        Order::Keyspace => 100,
        _ => [0, 60, 100][rng.below(3) as usize],
    };
    let mut states: Vec<State> = vec![[None; KEYS]];
    let mut ops: Vec<Op> = Vec::new();
    for at in 0..count {
        let (process, key) = (rng.below(PROCESSES), rng.below(KEYS as u64) as usize);
        let is_shown = rng.below(100) < shown;
        if rng.below(2) == 0 {
            let value = match rng.below(5) {
                0 => None,
                _ if is_unique => Some(at as u8),
                _ => Some(rng.below(values) as u8),
            };
            let fate = match rng.below(10) {
                0 => Fate::Failed,
                // Of a delete nobody would see when it happened.
                1 | 2 if order != Order::Keyspace || value.is_some() => Fate::Unknown,
                _ => Fate::Answered,
            };
            let version = states.len() as u64;
            if fate == Fate::Answered || fate == Fate::Unknown && rng.below(2) == 0 {
                let mut state = states[states.len() - 1];
                state[key] = Some((value, version));
                states.push(state);
            }
            let version = (is_shown && fate == Fate::Answered).then_some(version);
            let (what, at) = (Do::Write(value), None);
            ops.push(Op {
                process,
                key,
                fate,
                what,
                version,
                at,
            });
            continue;
        }
        let from = if rng.below(2) == 0 { 0 } else { states.len() - 1 };
        let seen = from + rng.below((states.len() - from) as u64) as usize;
        let found = states[seen][key];
        let value = found.and_then(|(value, _)| value);
        let version = found
            .filter(|(value, _)| is_shown && value.is_some())
            .map(|(_, version)| version);
        ops.push(Op {
            process,
            key,
            fate: Fate::Answered,
            what: Do::Read(value),
            version,
            at: None,
        });
    }
    Case { ops, order }
}

fn compare(order: Order) {
    let mut tally = Tally::default();
    for seed in seeds() {
        let case = random(seed, order);
        let is_allowed = case.is_allowed();
        let history = case.operations();
        let about = || format!("seed {seed} {order:?}:\n{}", dump(&history));
        match check(&history, order, Guarantees::ALL) {
            Verdict::Legal => {
                assert!(is_allowed, "legal, and no order allows it; {}", about());
                tally.legal += 1;
            }
            Verdict::Illegal(violation) => {
                assert!(
                    !is_allowed,
                    "{violation:?}, and some order allows it; {}",
                    about()
                );
                tally.illegal += 1;
            }
            Verdict::Undecided { .. } => {
                // Nobody has two operations that could contradict each other.
                let alone = |process: u64| {
                    let own = case.ops.iter().filter(|op| op.process == process);
                    own.filter(|op| op.fate == Fate::Answered).count() < 2
                };
                assert!((0..PROCESSES).all(alone), "{}", about());
                assert!(is_allowed, "{}", about());
                tally.undecided += 1;
            }
        }
    }
    tally.finish(&format!("sessions, {order:?}"));
}

#[test]
fn sessions_by_names_agree_with_trying_every_order() {
    compare(Order::Opaque);
}

#[test]
fn sessions_by_versions_of_a_key_agree_with_trying_every_order() {
    compare(Order::PerKey);
}

#[test]
fn sessions_by_versions_of_all_keys_agree_with_trying_every_order() {
    compare(Order::Keyspace);
}
