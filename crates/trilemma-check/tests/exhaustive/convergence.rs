//! Convergence: some of the operations of unknown outcome happened, and then the last writer of each key, by some order
//! that versions allow, wrote what every replica holds. Every choice is tried.

use std::collections::BTreeMap;

use trilemma_check::convergence::{Merge, Replica, check};
use trilemma_check::history::{Answer, Call, Change, Operation, Outcome};
use trilemma_check::verdict::Verdict;
use trilemma_core::Rng;

use super::{Tally, dump, seeds};

const KEYS: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Answered,
    Failed,
    Unknown,
}

#[derive(Clone, Debug)]
enum Do {
    /// Value or removal of each key that is changed.
    Change(Vec<(usize, Option<u8>)>),
    Add(usize, u8),
    Read(usize, Option<u8>),
}

#[derive(Clone, Debug)]
struct Op {
    invoke: u64,
    returned: u64,
    fate: Fate,
    what: Do,
    version: Option<u64>,
}

/// What one replica holds of each key: values with their versions.
type Held = [Vec<(u8, Option<u64>)>; KEYS];

struct Case {
    is_set: bool,
    ops: Vec<Op>,
    replicas: Vec<Held>,
}

impl Case {
    fn value_of(op: &Op, key: usize) -> Option<Option<u8>> {
        match &op.what {
            Do::Change(changes) => changes.iter().find(|(at, _)| *at == key).map(|(_, value)| *value),
            Do::Add(at, element) if *at == key => Some(Some(*element)),
            _ => None,
        }
    }

    fn is_read_right(&self, op: &Op) -> bool {
        let Do::Read(key, Some(value)) = op.what else {
            return true;
        };
        let makes = |by: &Op| {
            let is_version = by.version.is_none() || op.version.is_none() || by.version == op.version;
            Self::value_of(by, key) == Some(Some(value))
                && by.fate != Fate::Failed
                && by.invoke <= op.returned
                && is_version
        };
        self.ops.iter().any(makes)
    }

    /// The version of `winner` if it is the last of `key`, as the replica holds it; `None` if it is not that.
    fn shown(&self, winner: usize, key: usize, held: &Held) -> Option<Option<u64>> {
        let op = &self.ops[winner];
        match (Self::value_of(op, key)?, &held[key][..]) {
            (None, []) => Some(op.version),
            (Some(value), [(found, version)]) if value == *found => {
                let differ = version.is_some() && op.version.is_some() && *version != op.version;
                (!differ).then_some(version.or(op.version))
            }
            _ => None,
        }
    }

    /// The operations that write `key`, of those that happened.
    fn writers(&self, key: usize, happened: &[bool]) -> Vec<usize> {
        let writes = |at: &usize| happened[*at] && Self::value_of(&self.ops[*at], key).is_some();
        (0..self.ops.len()).filter(writes).collect()
    }

    fn is_set_right(&self, happened: &[bool], held: &Held) -> bool {
        (0..KEYS).all(|key| {
            let all = self.writers(key, happened);
            let values = all
                .iter()
                .filter_map(|at| Self::value_of(&self.ops[*at], key).flatten());
            let mut elements: Vec<u8> = values.collect();
            elements.sort_unstable();
            elements.dedup();
            let mut found: Vec<u8> = held[key].iter().map(|(value, _)| *value).collect();
            found.sort_unstable();
            elements == found
        })
    }

    /// Tries every last writer of each key; an operation has one version, whichever keys show it.
    fn is_explained(
        &self,
        happened: &[bool],
        held: &Held,
        key: usize,
        last: &mut Vec<Option<usize>>,
    ) -> bool {
        if key == KEYS {
            return self.is_last(happened, held, last);
        }
        let all = self.writers(key, happened);
        let mut choices: Vec<Option<usize>> = all.into_iter().map(Some).collect();
        if choices.is_empty() {
            if !held[key].is_empty() {
                return false;
            }
            choices.push(None);
        }
        choices.into_iter().any(|choice| {
            last.push(choice);
            let is_right = self.is_explained(happened, held, key + 1, last);
            last.pop();
            is_right
        })
    }

    fn is_last(&self, happened: &[bool], held: &Held, last: &[Option<usize>]) -> bool {
        let mut versions: Vec<Option<u64>> = self.ops.iter().map(|op| op.version).collect();
        for (key, winner) in last.iter().enumerate() {
            let Some(winner) = *winner else { continue };
            match self.shown(winner, key, held) {
                None => return false,
                Some(None) => {}
                Some(version) if versions[winner].is_some() && versions[winner] != version => return false,
                Some(version) => versions[winner] = version,
            }
        }
        last.iter().enumerate().all(|(key, winner)| {
            winner.is_none_or(|winner| {
                self.writers(key, happened).into_iter().all(|rival| {
                    match (versions[rival], versions[winner]) {
                        (Some(rival), Some(version)) => rival <= version,
                        _ => true,
                    }
                })
            })
        })
    }

    fn is_allowed(&self) -> bool {
        let reads = self.ops.iter().filter(|op| op.fate == Fate::Answered);
        if !reads.clone().all(|op| self.is_read_right(op)) {
            return false;
        }
        let same = |one: &Held, other: &Held| {
            (0..KEYS).all(|key| {
                let sorted = |held: &Held| {
                    let mut values = held[key].clone();
                    values.sort_unstable();
                    values
                };
                let (one, other) = (sorted(one), sorted(other));
                one.len() == other.len()
                    && one.iter().zip(&other).all(|((value, version), (same, known))| {
                        value == same && (version == known || version.is_none() || known.is_none())
                    })
            })
        };
        if !self.replicas.iter().all(|held| same(&self.replicas[0], held)) {
            return false;
        }
        let unknown: Vec<usize> = (0..self.ops.len())
            .filter(|at| self.ops[*at].fate == Fate::Unknown)
            .collect();
        (0..1_u32 << unknown.len()).any(|chosen| {
            let mut happened: Vec<bool> = self.ops.iter().map(|op| op.fate == Fate::Answered).collect();
            for (place, at) in unknown.iter().enumerate() {
                happened[*at] = chosen & 1 << place != 0;
            }
            if self.is_set {
                self.is_set_right(&happened, &self.replicas[0])
            } else {
                self.is_explained(&happened, &self.replicas[0], 0, &mut Vec::new())
            }
        })
    }

    fn operations(&self) -> Vec<Operation> {
        let operation = |(at, op): (usize, &Op)| {
            let name = |key: usize| format!("k{key}");
            let text = |value: Option<u8>| value.map(|value| value.to_string());
            let version = op.version;
            let (call, answer) = match &op.what {
                Do::Change(changes) => {
                    let change = |(key, value): &(usize, Option<u8>)| Change {
                        key: name(*key),
                        value: text(*value),
                    };
                    match &changes[..] {
                        [(key, None)] => (Call::Delete { key: name(*key) }, Answer::Done { version }),
                        [(key, Some(value))] => {
                            let (key, value) = (name(*key), value.to_string());
                            (Call::Put { key, value }, Answer::Done { version })
                        }
                        _ => {
                            let (guards, changes) = (Vec::new(), changes.iter().map(change).collect());
                            (
                                Call::Command { guards, changes },
                                Answer::Won {
                                    succeeded: true,
                                    version,
                                },
                            )
                        }
                    }
                }
                Do::Add(key, element) => {
                    let (key, element) = (name(*key), element.to_string());
                    (Call::Add { key, element }, Answer::Done { version: None })
                }
                Do::Read(key, found) => {
                    let value = text(*found);
                    (
                        Call::Get { key: name(*key) },
                        Answer::Value {
                            value,
                            version,
                            at: None,
                        },
                    )
                }
            };
            Operation {
                process: at as u64,
                invoke: op.invoke,
                returned: Some(op.returned),
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

    fn replicas(&self) -> Vec<Replica> {
        let replica = |(at, held): (usize, &Held)| {
            let entries = held.iter().enumerate().filter(|(_, values)| !values.is_empty());
            let shown = |values: &Vec<(u8, Option<u64>)>| {
                values
                    .iter()
                    .map(|(value, version)| (value.to_string(), *version))
                    .collect()
            };
            Replica {
                name: format!("n{at}"),
                entries: entries
                    .map(|(key, values)| (format!("k{key}"), shown(values)))
                    .collect::<BTreeMap<_, _>>(),
            }
        };
        self.replicas.iter().enumerate().map(replica).collect()
    }
}

fn random(seed: u64) -> Case {
    let mut rng = Rng::new(seed);
    let is_set = rng.below(4) == 0;
    let count = 1 + rng.below(5) as usize;
    let values = 1 + rng.below(4);
    let shown = [0, 60, 100][rng.below(3) as usize];
    let mut ops: Vec<Op> = Vec::new();
    // The greatest version wins; each is another one.
    let mut made: BTreeMap<usize, (u64, Option<u8>)> = BTreeMap::new();
    let mut sets: [Vec<u8>; KEYS] = Default::default();
    let shift = rng.below(8);
    for at in 0..count {
        let invoke = rng.below(20);
        let returned = invoke + rng.below(10);
        let key = rng.below(KEYS as u64) as usize;
        let version = (at as u64 * 5 + shift) % 8 + 1;
        let drawn = |rng: &mut Rng| rng.below(values) as u8;
        let fate = match rng.below(8) {
            0 => Fate::Failed,
            1 | 2 => Fate::Unknown,
            _ => Fate::Answered,
        };
        let value = (rng.below(4) > 0).then(|| drawn(&mut rng));
        let what = match rng.below(5) {
            0 => Do::Read(key, value),
            _ if is_set => Do::Add(key, drawn(&mut rng)),
            1 => Do::Change(vec![(0, value), (1, (rng.below(3) > 0).then(|| drawn(&mut rng)))]),
            _ => Do::Change(vec![(key, value)]),
        };
        let has_effect = fate == Fate::Answered || fate == Fate::Unknown && rng.below(2) == 0;
        match &what {
            Do::Change(changes) if has_effect => {
                for (key, value) in changes {
                    let last = made.entry(*key).or_insert((version, *value));
                    if last.0 <= version {
                        *last = (version, *value);
                    }
                }
            }
            Do::Add(key, element) if has_effect && !sets[*key].contains(element) => sets[*key].push(*element),
            _ => {}
        }
        let is_write = !matches!(what, Do::Read(..));
        let version = (is_write && fate == Fate::Answered && rng.below(100) < shown).then_some(version);
        ops.push(Op {
            invoke,
            returned,
            fate,
            what,
            version,
        });
    }
    let shown = |rng: &mut Rng| -> Held {
        let is_shown = rng.below(100) < shown;
        let held = |key: usize| -> Vec<(u8, Option<u64>)> {
            if is_set {
                return sets[key].iter().map(|element| (*element, None)).collect();
            }
            let last = made
                .get(&key)
                .and_then(|(version, value)| Some(((*value)?, is_shown.then_some(*version))));
            last.into_iter().collect()
        };
        [held(0), held(1)]
    };
    let mut replicas = vec![shown(&mut rng)];
    if rng.below(3) == 0 {
        // Something else than what there should be.
        let key = rng.below(KEYS as u64) as usize;
        replicas[0][key] = match rng.below(3) {
            0 => Vec::new(),
            1 => vec![(rng.below(values) as u8, None)],
            _ => vec![(rng.below(values) as u8, Some(1 + rng.below(8)))],
        };
    }
    let second = if rng.below(6) == 0 {
        shown(&mut rng)
    } else {
        replicas[0].clone()
    };
    replicas.push(second);
    Case {
        is_set,
        ops,
        replicas,
    }
}

#[test]
fn convergence_agrees_with_trying_every_last_writer() {
    let mut tally = Tally::default();
    for seed in seeds() {
        let case = random(seed);
        let is_allowed = case.is_allowed();
        let history = case.operations();
        let replicas = case.replicas();
        let about = || format!("seed {seed}:\n{}{replicas:#?}", dump(&history));
        match check(&history, &replicas, Merge::LastWriterWins) {
            Verdict::Legal => {
                assert!(is_allowed, "legal, and no last writers explain it; {}", about());
                tally.legal += 1;
            }
            Verdict::Illegal(violation) => {
                assert!(
                    !is_allowed,
                    "{violation:?}, and some last writers explain it; {}",
                    about()
                );
                tally.illegal += 1;
            }
            Verdict::Undecided { why } => panic!("{why}; {}", about()),
        }
    }
    tally.finish("convergence");
}
