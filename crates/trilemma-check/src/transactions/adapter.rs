//! Histories of a key-value store as histories of transactions on registers.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Answer, Call, Guard, Operation, Outcome, Step};

/// Turns each operation into a transaction at the same position, for [`super::check`].
///
/// Puts, compare-and-sets and the changes of commands become writes; gets, ranges and the guards that held become
/// reads; appends and reads of lists stay. What a lost compare-and-set or command shows is not used.
///
/// Fails with the reason where the method has nothing to go by: a delete has no value that would tell it from
/// others.
pub fn from_key_value(history: &[Operation]) -> Result<Vec<Operation>, String> {
    let mut adapter = Adapter {
        keys: BTreeSet::new(),
        values: BTreeMap::new(),
    };
    for operation in history {
        adapter.note(operation);
    }
    let turned = history.iter().enumerate().map(|(at, operation)| {
        let mut steps = Vec::new();
        let answer = match &operation.outcome {
            Outcome::Ok(answer) => Some(answer),
            _ => None,
        };
        if !matches!(answer, Some(Answer::Won { succeeded: false, .. })) {
            steps = adapter.steps(&operation.call, answer).map_err(|what| {
                format!("operation {at} {what}, which cannot be judged as a transaction on registers")
            })?;
        }
        let outcome = match &operation.outcome {
            Outcome::Ok(_) => Outcome::Ok(Answer::Committed { steps: steps.clone() }),
            other => other.clone(),
        };
        let call = Call::Transaction { steps };
        Ok(Operation {
            call,
            outcome,
            ..operation.clone()
        })
    });
    turned.collect()
}

struct Adapter<'a> {
    /// Every key that somebody writes.
    keys: BTreeSet<&'a str>,
    /// Which value a version of a key is.
    values: BTreeMap<(&'a str, u64), &'a str>,
}

fn read(key: &str, found: Option<&str>) -> Step {
    let found = Some(found.map(str::to_string).into_iter().collect());
    Step::Read {
        key: key.into(),
        found,
    }
}

fn write(key: &str, value: Option<&String>) -> Result<Step, &'static str> {
    let value = value.ok_or("removes a key")?.clone();
    Ok(Step::Write {
        key: key.into(),
        value,
    })
}

impl<'a> Adapter<'a> {
    fn note(&mut self, operation: &'a Operation) {
        let version = match &operation.outcome {
            Outcome::Ok(
                Answer::Done { version }
                | Answer::Won {
                    succeeded: true,
                    version,
                },
            ) => *version,
            _ => None,
        };
        let mut put = |key: &'a String, value: Option<&'a String>| {
            self.keys.insert(key);
            if let (Some(version), Some(value)) = (version, value) {
                self.values.insert((key, version), value);
            }
        };
        match &operation.call {
            Call::Put { key, value } => put(key, Some(value)),
            Call::Cas { key, value, .. } => put(key, value.as_ref()),
            Call::Command { changes, .. } => {
                changes
                    .iter()
                    .for_each(|change| put(&change.key, change.value.as_ref()));
            }
            _ => {}
        }
    }

    fn steps(&self, call: &Call, answer: Option<&Answer>) -> Result<Vec<Step>, &'static str> {
        match (call, answer) {
            (Call::Put { key, value }, _) => Ok(vec![write(key, Some(value))?]),
            (Call::Get { key }, Some(Answer::Value { value, .. })) => Ok(vec![read(key, value.as_deref())]),
            (Call::Cas { key, expected, value }, answer) => {
                let held = answer.map(|_| read(key, expected.as_deref()));
                Ok(held.into_iter().chain([write(key, value.as_ref())?]).collect())
            }
            (Call::Command { guards, changes }, answer) => {
                let held = guards
                    .iter()
                    .filter(|_| answer.is_some())
                    .filter_map(|guard| self.guard(guard));
                let mut steps: Vec<Step> = held.collect();
                for change in changes {
                    steps.push(write(&change.key, change.value.as_ref())?);
                }
                Ok(steps)
            }
            (Call::Range { start, end, .. }, Some(Answer::Entries { entries, more, .. })) => {
                let found: BTreeMap<&str, &str> = entries
                    .iter()
                    .map(|entry| (entry.key.as_str(), entry.value.as_str()))
                    .collect();
                let last = if *more {
                    Some(entries.last().map_or("", |entry| &entry.key))
                } else {
                    None
                };
                let within = |key: &&str| {
                    *key >= start.as_str()
                        && end.as_ref().is_none_or(|end| *key < end.as_str())
                        && last.is_none_or(|last| *key <= last)
                };
                let known = self.keys.iter().copied().filter(within);
                let all: BTreeSet<&str> = known.chain(found.keys().copied()).collect();
                Ok(all
                    .into_iter()
                    .map(|key| read(key, found.get(key).copied()))
                    .collect())
            }
            (Call::Append { key, element }, _) => Ok(vec![Step::Append {
                key: key.clone(),
                element: element.clone(),
            }]),
            (Call::List { key }, Some(Answer::Elements { elements })) => Ok(vec![Step::Read {
                key: key.clone(),
                found: Some(elements.clone()),
            }]),
            (Call::Transaction { steps }, None) => Ok(steps.clone()),
            (Call::Transaction { .. }, Some(Answer::Committed { steps })) => Ok(steps.clone()),
            (Call::Get { .. } | Call::Range { .. } | Call::List { .. }, None) => Ok(Vec::new()),
            (Call::Delete { .. }, _) => Err("removes a key"),
            (Call::Add { .. } | Call::Members { .. }, _) => Err("is of a set"),
            (Call::Acquire { .. } | Call::Renew { .. } | Call::Release { .. } | Call::Use { .. }, _) => {
                Err("is of a lock")
            }
            _ => Err("has an answer of another kind"),
        }
    }

    fn guard(&self, guard: &Guard) -> Option<Step> {
        match guard {
            Guard::Value { key, is } => Some(read(key, is.as_deref())),
            Guard::Version { key, is: 0 } => Some(read(key, None)),
            Guard::Version { key, is } => self
                .values
                .get(&(key.as_str(), *is))
                .map(|value| read(key, Some(value))),
        }
    }
}
