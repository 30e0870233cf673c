//! The smallest part of a history that is illegal by itself (delta debugging, Zeller and Hildebrandt 2002).
//!
//! Leaving out a write alone would turn honest reads of its value into phantoms. So an operation goes together with
//! everything that could notice that it is gone: those that saw what it wrote, and so on. What is left of a legal history
//! is then legal, so what is found illegal is the fault of the history and not of the cutting.

use crate::history::{Answer, Call, Entry, Guard, Operation, Outcome};
use crate::linearizability::{Budget, check};
use crate::model::Model;
use crate::verdict::{Verdict, Violation};

/// Most checks of one reduction.
const CHECKS_MAX: usize = 3_000;
/// Most steps of the search in each.
const STEPS_MAX: u64 = 200_000;

/// Reduces an illegal history to a part that is illegal for the same reason and from which nothing more can be left
/// out; the positions are those of the given history.
///
/// `violation` is what [`check`] found with the same model. Takes up to 3,000 checks of ever smaller parts.
#[must_use]
pub fn smallest(operations: &[Operation], model: Model, budget: Budget, violation: &Violation) -> Violation {
    let budget = Budget {
        steps: budget.steps.min(STEPS_MAX),
        steps_to_confirm: budget.steps_to_confirm.min(STEPS_MAX),
    };
    let mut reduction = Reduction {
        operations,
        model,
        budget,
        kept: (0..operations.len()).collect(),
        best: violation.clone(),
        checks: 0,
    };
    reduction.run();
    let mut best = reduction.best;
    best.operations = reduction.kept;
    best
}

struct Reduction<'a> {
    operations: &'a [Operation],
    model: Model,
    budget: Budget,
    kept: Vec<usize>,
    best: Violation,
    checks: usize,
}

impl Reduction<'_> {
    fn run(&mut self) {
        let mut size = self.kept.len().div_ceil(2);
        while size > 0 && self.checks < CHECKS_MAX {
            let before = self.kept.len();
            let mut from = 0;
            while from < self.kept.len() && self.checks < CHECKS_MAX {
                let chunk: Vec<usize> = self.kept[from..].iter().copied().take(size).collect();
                if !self.try_without(&chunk) {
                    from += size;
                }
            }
            let is_stable = self.kept.len() == before;
            size = match size {
                1 if is_stable => 0,
                1 => 1,
                _ => size.div_ceil(2).min(self.kept.len()).max(1),
            };
        }
    }

    /// Leaves these out, with all that depends on them, if the rest is still illegal for the same reason.
    fn try_without(&mut self, chunk: &[usize]) -> bool {
        let rest = self.closure(chunk);
        if rest.is_empty() {
            return false;
        }
        self.checks += 1;
        let part: Vec<Operation> = rest.iter().map(|place| self.operations[*place].clone()).collect();
        match check(&part, self.model, self.budget).verdict {
            Verdict::Illegal(mut found) if is_same_kind(self.best.rule, found.rule) => {
                found.operations = found.operations.iter().map(|place| rest[*place]).collect();
                found.what = self.renumbered(&found);
                self.best = found;
                self.kept = rest;
                true
            }
            _ => false,
        }
    }

    /// The search names operations by their place in what it was given; such a sentence is made general.
    fn renumbered(&self, found: &Violation) -> String {
        if found.rule == "linearizability" {
            return "no order of these operations explains all answers".into();
        }
        found.what.clone()
    }

    /// What is kept without `chunk` and everything that depends on it.
    fn closure(&self, chunk: &[usize]) -> Vec<usize> {
        let mut rest: Vec<usize> = self
            .kept
            .iter()
            .copied()
            .filter(|place| !chunk.contains(place))
            .collect();
        let mut gone: Vec<usize> = chunk.to_vec();
        while let Some(removed) = gone.pop() {
            let removed = &self.operations[removed];
            if removed.outcome == Outcome::Fail {
                continue;
            }
            let mut dependents = Vec::new();
            rest.retain(|place| {
                let stays = !notices(&self.operations[*place], removed);
                if !stays {
                    dependents.push(*place);
                }
                stays
            });
            gone.extend(dependents);
        }
        rest
    }
}

/// Whether two rules name the same kind of contradiction. What nobody wrote, and what engines see differently, stand
/// for themselves; the other rules are names for "no order", depending on which engine speaks first.
fn is_same_kind(one: &str, other: &str) -> bool {
    let apart = [
        "value-from-nowhere",
        "failed-write-seen",
        "engines-disagree",
        "version-twice",
        "wrong-version",
        "effect-twice",
    ];
    one == other || !apart.contains(&one) && !apart.contains(&other)
}

/// What an operation writes if it takes effect: keys and values, elements as values.
pub(super) fn writes(operation: &Operation) -> Vec<(&str, Option<&str>)> {
    match &operation.call {
        Call::Put { key, value } => vec![(key, Some(value))],
        Call::Add { key, element } | Call::Append { key, element } => vec![(key, Some(element))],
        Call::Delete { key } => vec![(key, None)],
        Call::Cas { key, value, .. } => vec![(key, value.as_deref())],
        Call::Command { changes, .. } => changes
            .iter()
            .map(|change| (change.key.as_str(), change.value.as_deref()))
            .collect(),
        _ => Vec::new(),
    }
}

/// Whether an operation saw the key hold this value.
pub(super) fn sees(operation: &Operation, key: &str, value: &str) -> bool {
    let guarded = match &operation.call {
        Call::Cas { key: at, expected, .. } => at == key && expected.as_deref() == Some(value),
        Call::Command { guards, .. } => guards
            .iter()
            .any(|guard| matches!(guard, Guard::Value { key: at, is } if at == key && is.as_deref() == Some(value))),
        _ => false,
    };
    let is_lost = matches!(&operation.outcome, Outcome::Ok(Answer::Won { won: false, .. }));
    guarded && !is_lost
        || read(operation, key, |found, elements| {
            found == Some(value) || elements.contains(&value)
        })
}

/// Looks at what a read of `key` answered: a value, or the elements of a set or list. False if it is no such read.
fn read(operation: &Operation, key: &str, is_so: impl Fn(Option<&str>, &[&str]) -> bool) -> bool {
    match (&operation.call, &operation.outcome) {
        (Call::Get { key: at }, Outcome::Ok(Answer::Value { value, .. })) if at == key => {
            is_so(value.as_deref(), &[])
        }
        (Call::Members { key: at } | Call::List { key: at }, Outcome::Ok(Answer::Elements { elements }))
            if at == key =>
        {
            let elements: Vec<&str> = elements.iter().map(String::as_str).collect();
            is_so(None, &elements)
        }
        (Call::Range { start, end, .. }, Outcome::Ok(Answer::Entries { entries, .. }))
            if key >= start.as_str() && end.as_deref().is_none_or(|end| key < end) =>
        {
            let entry = entries.iter().find(|entry: &&Entry| entry.key == key);
            is_so(entry.map(|entry| entry.value.as_str()), &[])
        }
        _ => false,
    }
}

/// Whether an operation's answer might be another if `removed` had never been.
fn notices(operation: &Operation, removed: &Operation) -> bool {
    let could_see = operation.effect_by() >= removed.invoke;
    let is_lost = matches!(&operation.outcome, Outcome::Ok(Answer::Won { won: false, .. }));
    writes(removed).into_iter().any(|(key, value)| {
        let saw = match value {
            Some(value) => sees(operation, key, value),
            None => could_see && sees_absence(operation, key),
        };
        saw || could_see && (is_lost && guards(operation, key, false) || guards(operation, key, true))
    })
}

fn sees_absence(operation: &Operation, key: &str) -> bool {
    let guarded = match &operation.call {
        Call::Cas {
            key: at, expected, ..
        } => at == key && expected.is_none(),
        Call::Command { guards, .. } => guards
            .iter()
            .any(|guard| matches!(guard, Guard::Value { key: at, is: None } if at == key)),
        _ => false,
    };
    guarded
        || read(operation, key, |found, elements| {
            found.is_none() && elements.is_empty()
        })
}

/// Whether an operation has a guard on `key`; on its version, if so asked. A range that was cut guards all keys.
fn guards(operation: &Operation, key: &str, on_version: bool) -> bool {
    match (&operation.call, &operation.outcome) {
        (Call::Cas { key: at, .. }, _) => at == key && !on_version,
        (Call::Command { guards, .. }, _) => guards
            .iter()
            .any(|guard| guard.key() == key && (!on_version || matches!(guard, Guard::Version { .. }))),
        (
            Call::Range { .. },
            Outcome::Ok(Answer::Entries {
                entries, more: true, ..
            }),
        ) => entries.last().is_none_or(|last| last.key.as_str() < key),
        _ => false,
    }
}
