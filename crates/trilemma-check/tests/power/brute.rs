//! Random little histories, legal or not, judged by trying every order: the plainest checker there is.

use std::collections::BTreeMap;

use trilemma_check::history::{Answer, Call, Change, Entry, Guard, Operation, Outcome};
use trilemma_check::model::Model;
use trilemma_core::Rng;

type State = BTreeMap<String, String>;
type Lists = BTreeMap<String, Vec<String>>;

/// Whether some order explains every answer. Exponential.
pub(crate) fn has_order(operations: &[Operation], model: Model) -> bool {
    let todo: Vec<&Operation> = operations
        .iter()
        .filter(|op| op.outcome != Outcome::Fail)
        .collect();
    place(&todo, &State::new(), &Lists::new(), model)
}

fn place(todo: &[&Operation], state: &State, lists: &Lists, model: Model) -> bool {
    if todo.iter().all(|op| op.outcome == Outcome::Unknown) {
        return true;
    }
    let first_end = todo.iter().map(|op| op.effect_by()).min().unwrap_or(u64::MAX);
    (0..todo.len()).any(|chosen| {
        let operation = todo[chosen];
        if operation.invoke > first_end {
            return false;
        }
        let (mut state, mut lists) = (state.clone(), lists.clone());
        if !run(operation, &mut state, &mut lists, model) {
            return false;
        }
        let mut rest = todo.to_vec();
        rest.remove(chosen);
        place(&rest, &state, &lists, model)
    })
}

/// Runs an operation; whether its answer is right.
fn run(operation: &Operation, state: &mut State, lists: &mut Lists, model: Model) -> bool {
    let answer = match &operation.outcome {
        Outcome::Ok(answer) => Some(answer),
        _ => None,
    };
    let command = |state: &mut State, guards: &[Guard], changes: &[Change]| {
        let holds = guards.iter().all(|guard| match guard {
            Guard::Value { key, is } => state.get(key) == is.as_ref(),
            Guard::Version { .. } => unreachable!("not drawn here"),
        });
        for change in changes.iter().filter(|_| holds) {
            match &change.value {
                Some(value) => state.insert(change.key.clone(), value.clone()),
                None => state.remove(&change.key),
            };
        }
        match answer {
            Some(Answer::Won { succeeded, .. }) => *succeeded == holds,
            _ => true,
        }
    };
    let change = |key: &String, value: Option<&String>| Change {
        key: key.clone(),
        value: value.cloned(),
    };
    match (&operation.call, answer) {
        (Call::Put { key, value }, _) => command(state, &[], &[change(key, Some(value))]),
        (Call::Delete { key }, _) => command(state, &[], &[change(key, None)]),
        (Call::Cas { key, expected, value }, _) => {
            let guard = Guard::Value {
                key: key.clone(),
                is: expected.clone(),
            };
            command(state, &[guard], &[change(key, value.as_ref())])
        }
        (Call::Command { guards, changes }, _) => command(state, guards, changes),
        (Call::Get { key }, Some(Answer::Value { value, .. })) => state.get(key) == value.as_ref(),
        (Call::Range { limit, .. }, Some(Answer::Entries { entries, more, .. })) => {
            let limit = limit.map_or(usize::MAX, |limit| limit as usize);
            let all = state.iter().take(limit);
            *more == (state.len() > limit) && all.eq(entries.iter().map(|entry| (&entry.key, &entry.value)))
        }
        (Call::Add { key, element }, _) => {
            let set = lists.entry(key.clone()).or_default();
            set.push(element.clone());
            set.sort();
            set.dedup();
            true
        }
        (Call::Append { key, element }, _) => {
            lists.entry(key.clone()).or_default().push(element.clone());
            true
        }
        (Call::Members { key } | Call::List { key }, Some(Answer::Elements { elements })) => {
            let mut found = elements.clone();
            if model == Model::Set {
                found.sort();
            }
            lists.get(key).cloned().unwrap_or_default() == found
        }
        // An unanswered read.
        _ => true,
    }
}

/// A random history over few keys and values, with random answers: about as often legal as not.
pub(crate) fn random(seed: u64, model: Model, is_unique: bool) -> Vec<Operation> {
    let mut rng = Rng::new(seed);
    let count = 3 + rng.below(5);
    let spread = 4 + rng.below(40);
    let keys = if model == Model::KeyValue { 2 } else { 1 };
    (0..count)
        .map(|number| {
            let invoke = rng.below(spread);
            let returned = invoke + rng.below(12);
            let mut draw = Draw {
                rng: &mut rng,
                keys,
                unique: is_unique.then(|| format!("{number}")),
                values: if is_unique { count } else { 2 },
            };
            let (call, answer) = draw.call(model);
            let outcome = match rng.below(12) {
                0 => Outcome::Unknown,
                1 => Outcome::Fail,
                _ => Outcome::Ok(answer),
            };
            Operation {
                process: number,
                invoke,
                returned: Some(returned),
                call,
                outcome,
            }
        })
        .collect()
}

struct Draw<'a> {
    rng: &'a mut Rng,
    keys: u64,
    /// The value that only this operation writes, if values are to be unique.
    unique: Option<String>,
    values: u64,
}

impl Draw<'_> {
    fn key(&mut self) -> String {
        format!("k{}", self.rng.below(self.keys))
    }

    fn seen(&mut self) -> Option<String> {
        let value = self.rng.below(self.values + 1);
        (value < self.values).then(|| value.to_string())
    }

    fn written(&mut self) -> String {
        let value = self.rng.below(self.values).to_string();
        self.unique.clone().unwrap_or(value)
    }

    fn elements(&mut self) -> Answer {
        let mut elements = Vec::new();
        while let Some(element) = self.seen().filter(|_| elements.len() < 3) {
            if !elements.contains(&element) || self.unique.is_none() && self.rng.below(2) == 0 {
                elements.push(element);
            }
        }
        Answer::Elements { elements }
    }

    fn call(&mut self, model: Model) -> (Call, Answer) {
        let key = self.key();
        let done = Answer::Done { version: None };
        let succeeded = Answer::Won {
            succeeded: self.rng.below(2) == 0,
            version: None,
        };
        let element = self.written();
        match (model, self.rng.below(10)) {
            (Model::Set, 0..5) => (Call::Add { key, element }, done),
            (Model::Set, _) => {
                let mut answer = self.elements();
                if let Answer::Elements { elements } = &mut answer {
                    elements.sort();
                    elements.dedup();
                }
                (Call::Members { key }, answer)
            }
            (Model::List, 0..5) => (Call::Append { key, element }, done),
            (Model::List, _) => (Call::List { key }, self.elements()),
            (_, 0..3) => (Call::Put { key, value: element }, done),
            (Model::CasRegister | Model::PerKey | Model::KeyValue, 3..5) => {
                let expected = self.seen();
                let value = Some(element).filter(|_| model == Model::CasRegister || self.rng.below(4) > 0);
                (Call::Cas { key, expected, value }, succeeded)
            }
            (Model::PerKey | Model::KeyValue, 5) => (Call::Delete { key }, done),
            (Model::KeyValue, 6) => {
                let is = self.seen();
                let guards = vec![Guard::Value { key: self.key(), is }];
                let both = ["k0", "k1"].map(|key| Change {
                    key: key.into(),
                    value: Some(element.clone()),
                });
                (
                    Call::Command {
                        guards,
                        changes: both.into(),
                    },
                    succeeded,
                )
            }
            (Model::KeyValue, 7..9) => self.range(),
            _ => {
                let value = self.seen();
                let (version, at) = (None, None);
                (Call::Get { key }, Answer::Value { value, version, at })
            }
        }
    }

    fn range(&mut self) -> (Call, Answer) {
        let mut entries = Vec::new();
        for key in ["k0", "k1"] {
            entries.extend(self.seen().map(|value| Entry {
                key: key.into(),
                value,
                version: None,
            }));
        }
        let limit = (self.rng.below(2) == 0).then_some(1);
        let more = limit.is_some() && entries.len() == 1 && self.rng.below(2) == 0;
        entries.truncate(limit.map_or(2, |limit| limit as usize));
        let (start, end, at) = (String::new(), None, None);
        (
            Call::Range { start, end, limit },
            Answer::Entries { entries, more, at },
        )
    }
}
