//! Legal histories: concurrent clients of a correct object, each operation at a random instant of its interval.

use std::collections::BTreeMap;

use trilemma_check::history::{Answer, Call, Change, Entry, Guard, Operation, Outcome};
use trilemma_check::model::Model;
use trilemma_core::Rng;

/// What a history is made of.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) model: Model,
    pub(crate) processes: u64,
    pub(crate) keys: u64,
    pub(crate) operations: usize,
    /// Whether answers tell versions, and guards ask for them.
    pub(crate) has_versions: bool,
}

/// A correct object.
#[derive(Default)]
struct Object {
    map: BTreeMap<String, (String, u64)>,
    /// Per key of a per-key object, else of all under "".
    versions: BTreeMap<String, u64>,
    /// What each key held earlier.
    past: BTreeMap<String, Vec<String>>,
    lists: BTreeMap<String, Vec<String>>,
    has_order: bool,
}

impl Object {
    fn clock(&mut self, key: &str) -> &mut u64 {
        let clock = if self.has_order { "" } else { key };
        self.versions.entry(clock.to_owned()).or_default()
    }

    fn change(&mut self, key: &str, value: Option<&String>, version: u64) {
        match value {
            Some(value) => {
                self.map.insert(key.to_owned(), (value.clone(), version));
                self.past.entry(key.to_owned()).or_default().push(value.clone());
            }
            None => {
                self.map.remove(key);
            }
        }
    }

    fn holds(&self, guard: &Guard) -> bool {
        let found = self.map.get(guard.key());
        match guard {
            Guard::Value { is, .. } => found.map(|found| &found.0) == is.as_ref(),
            Guard::Version { is, .. } => found.map_or(0, |found| found.1) == *is,
        }
    }

    fn command(&mut self, guards: &[Guard], changes: &[Change], key: &str) -> Answer {
        let succeeded = guards.iter().all(|guard| self.holds(guard));
        let has_order = self.has_order;
        let clock = self.clock(key);
        // A log gives a losing command a version too; a register counts changes.
        *clock += u64::from(has_order || succeeded);
        let version = *clock;
        for change in changes.iter().filter(|_| succeeded) {
            self.change(&change.key, change.value.as_ref(), version);
        }
        Answer::Won {
            succeeded,
            version: Some(version),
        }
    }

    fn run(&mut self, call: &Call) -> Answer {
        match call {
            Call::Get { key } => {
                let found = self.map.get(key).cloned();
                let at = self.has_order.then(|| *self.clock(key));
                Answer::Value {
                    value: found.as_ref().map(|found| found.0.clone()),
                    version: found.map(|found| found.1),
                    at,
                }
            }
            Call::Put { key, value } => self.done(key, Some(value)),
            Call::Delete { key } => self.done(key, None),
            Call::Cas { key, expected, value } => {
                let guard = Guard::Value {
                    key: key.clone(),
                    is: expected.clone(),
                };
                let change = Change {
                    key: key.clone(),
                    value: value.clone(),
                };
                self.command(&[guard], &[change], key)
            }
            Call::Command { guards, changes } => {
                let key = changes
                    .first()
                    .map_or("", |change| change.key.as_str())
                    .to_owned();
                self.command(guards, changes, &key)
            }
            Call::Range { start, end, limit } => {
                let is_in = |key: &String| key >= start && end.as_ref().is_none_or(|end| key < end);
                let mut entries: Vec<Entry> = self
                    .map
                    .iter()
                    .filter(|(key, _)| is_in(key))
                    .map(|(key, (value, version))| Entry {
                        key: key.clone(),
                        value: value.clone(),
                        version: Some(*version),
                    })
                    .collect();
                let limit = limit.map_or(usize::MAX, |limit| limit as usize);
                let more = entries.len() > limit;
                entries.truncate(limit);
                let at = Some(*self.clock(""));
                Answer::Entries { entries, more, at }
            }
            Call::Add { key, element } | Call::Append { key, element } => {
                self.lists.entry(key.clone()).or_default().push(element.clone());
                Answer::Done { version: None }
            }
            Call::Members { key } | Call::List { key } => Answer::Elements {
                elements: self.lists.get(key).cloned().unwrap_or_default(),
            },
            _ => unreachable!("no model here has it"),
        }
    }

    fn done(&mut self, key: &str, value: Option<&String>) -> Answer {
        let clock = self.clock(key);
        *clock += 1;
        let version = *clock;
        self.change(key, value, version);
        Answer::Done {
            version: Some(version),
        }
    }
}

pub(crate) fn key(number: u64) -> String {
    format!("k{number:02}")
}

/// Draws the next call. What a compare-and-set expects is drawn from what the key held.
struct Calls {
    shape: Shape,
    next_value: u64,
}

impl Calls {
    fn value(&mut self) -> String {
        self.next_value += 1;
        format!("v{}", self.next_value)
    }

    fn draw(&mut self, rng: &mut Rng, object: &Object) -> Call {
        let key = key(rng.below(self.shape.keys));
        let dice = rng.below(100);
        match self.shape.model {
            Model::Set if dice < 50 => Call::Members { key },
            Model::Set => Call::Add {
                key,
                element: self.value(),
            },
            Model::List if dice < 50 => Call::List { key },
            Model::List => Call::Append {
                key,
                element: self.value(),
            },
            _ if dice < 40 => Call::Get { key },
            Model::Register => Call::Put {
                key,
                value: self.value(),
            },
            _ if dice < 55 => self.cas(rng, object, key),
            Model::CasRegister => Call::Put {
                key,
                value: self.value(),
            },
            _ if dice < 62 => Call::Delete { key },
            Model::KeyValue if dice < 72 => self.range(rng),
            Model::KeyValue if dice < 82 => self.command(rng, object, key),
            Model::PerKey if dice < 66 => Call::Command {
                guards: Vec::new(),
                changes: vec![Change {
                    key,
                    value: Some(self.value()),
                }],
            },
            _ => Call::Put {
                key,
                value: self.value(),
            },
        }
    }

    fn cas(&mut self, rng: &mut Rng, object: &Object, key: String) -> Call {
        let now = object.map.get(&key).map(|found| found.0.clone());
        let past = object.past.get(&key);
        let old = past.and_then(|past| rng.pick(past)).cloned();
        let removes = self.shape.model != Model::CasRegister && rng.below(10) == 0;
        Call::Cas {
            key,
            expected: if rng.below(3) == 0 { old } else { now },
            value: (!removes).then(|| self.value()),
        }
    }

    fn range(&self, rng: &mut Rng) -> Call {
        let from = rng.below(self.shape.keys);
        Call::Range {
            start: if rng.below(2) == 0 {
                String::new()
            } else {
                key(from)
            },
            end: (rng.below(3) == 0).then(|| key(from + 1 + rng.below(self.shape.keys))),
            limit: (rng.below(4) == 0).then(|| 1 + rng.below(3) as u32),
        }
    }

    fn command(&mut self, rng: &mut Rng, object: &Object, first: String) -> Call {
        let second = key(rng.below(self.shape.keys));
        let mut changes = vec![Change {
            key: first.clone(),
            value: Some(self.value()),
        }];
        if second != first {
            let removes = rng.below(10) == 0;
            changes.push(Change {
                key: second.clone(),
                value: (!removes).then(|| self.value()),
            });
        }
        let found = object.map.get(&second);
        let guards = match rng.below(4) {
            0 => vec![Guard::Value {
                key: second,
                is: found.map(|found| found.0.clone()),
            }],
            1 if self.shape.has_versions => vec![Guard::Version {
                key: second,
                is: found.map_or(0, |found| found.1) + rng.below(4) / 3,
            }],
            _ => Vec::new(),
        };
        Call::Command { guards, changes }
    }
}

fn is_read(call: &Call) -> bool {
    matches!(
        call,
        Call::Get { .. } | Call::Range { .. } | Call::Members { .. } | Call::List { .. }
    )
}

/// A legal history, in the order in which its operations took effect.
pub(crate) fn legal(seed: u64, shape: Shape) -> Vec<Operation> {
    let mut rng = Rng::new(seed);
    // Each process works through operations one after the other, at its own pace.
    let mut slots: Vec<(u64, u64, u64, u64)> = Vec::new();
    let mut free: Vec<u64> = (0..shape.processes).map(|_| rng.below(1000)).collect();
    while slots.len() < shape.operations {
        let process = rng.below(shape.processes);
        let invoke = free[process as usize] + 1 + rng.below(500);
        let effect = invoke + 1 + rng.below(1000);
        let returned = effect + 1 + rng.below(1000);
        free[process as usize] = returned;
        slots.push((effect, process, invoke, returned));
    }
    slots.sort_unstable();
    let mut object = Object {
        has_order: shape.model == Model::KeyValue,
        ..Object::default()
    };
    let mut calls = Calls { shape, next_value: 0 };
    let mut operations = Vec::with_capacity(slots.len());
    for (_, process, invoke, returned) in slots {
        let call = calls.draw(&mut rng, &object);
        let outcome = match rng.below(100) {
            0..4 if !is_read(&call) => {
                if rng.below(2) == 0 {
                    object.run(&call);
                }
                Outcome::Unknown
            }
            4 => Outcome::Fail,
            _ => Outcome::Ok(object.run(&call)),
        };
        operations.push(Operation {
            process,
            invoke,
            returned: Some(returned),
            call,
            outcome,
        });
    }
    if !shape.has_versions {
        strip_versions(&mut operations);
    }
    operations
}

/// Makes the history one of a service that shows no versions.
fn strip_versions(operations: &mut [Operation]) {
    for operation in operations {
        let Outcome::Ok(answer) = &mut operation.outcome else {
            continue;
        };
        match answer {
            Answer::Done { version } | Answer::Won { version, .. } => *version = None,
            Answer::Value { version, at, .. } => (*version, *at) = (None, None),
            Answer::Entries { entries, at, .. } => {
                *at = None;
                entries.iter_mut().for_each(|entry| entry.version = None);
            }
            _ => {}
        }
    }
}
