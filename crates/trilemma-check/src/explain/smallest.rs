//! The smallest part of a history that is illegal by itself (delta debugging, Zeller and Hildebrandt 2002).
//!
//! Leaving out a write alone would turn honest reads of its value into phantoms. So an operation goes together with
//! everything that could notice that it is gone: those that saw what it wrote, and so on. What is left of a legal history
//! is then legal, so what is found illegal is the fault of the history and not of the cutting.

use crate::history::{Answer, Call, Entry, Guard, Operation, Outcome, Step};
use crate::linearizability::{Budget, check};
use crate::model::Model;
use crate::verdict::{Verdict, Violation};

/// Most operations in all checks together: a large history is left larger.
const WORK_MAX: usize = 3_000_000;
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
    smallest_by(operations, violation, &|part| check(part, model, budget).verdict)
}

/// As [`smallest`], for whatever `judge` found `violation`.
#[must_use]
pub fn smallest_by(
    operations: &[Operation],
    violation: &Violation,
    judge: &dyn Fn(&[Operation]) -> Verdict,
) -> Violation {
    let mut reduction = Reduction {
        operations,
        judge,
        kept: (0..operations.len()).collect(),
        best: violation.clone(),
        checks: 0,
        work: 0,
    };
    reduction.run();
    let mut best = reduction.best;
    best.operations = reduction.kept;
    best
}

struct Reduction<'a> {
    operations: &'a [Operation],
    judge: &'a dyn Fn(&[Operation]) -> Verdict,
    kept: Vec<usize>,
    best: Violation,
    checks: usize,
    /// Operations judged so far.
    work: usize,
}

impl Reduction<'_> {
    fn run(&mut self) {
        let mut size = self.kept.len().div_ceil(2);
        while size > 0 && self.is_going_on() {
            let before = self.kept.len();
            let mut from = 0;
            while from < self.kept.len() && self.is_going_on() {
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

    fn is_going_on(&self) -> bool {
        self.checks < CHECKS_MAX && self.work < WORK_MAX
    }

    /// Leaves these out, with all that depends on them, if the rest is still illegal for the same reason.
    fn try_without(&mut self, chunk: &[usize]) -> bool {
        let rest = self.closure(chunk);
        if rest.is_empty() {
            return false;
        }
        self.checks += 1;
        self.work += rest.len();
        let part: Vec<Operation> = rest.iter().map(|place| self.operations[*place].clone()).collect();
        match (self.judge)(&part) {
            Verdict::Illegal(mut found) if is_same_kind(self.best.rule, found.rule) => {
                found.operations = found.operations.iter().map(|place| rest[*place]).collect();
                found.what = renumbered(&found, &rest);
                self.best = found;
                self.kept = rest;
                true
            }
            _ => false,
        }
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

/// What was found, with operations named by their places in the whole history: `T3` and `operation 3`. The search names
/// them by their place in what it was given alone; such a sentence is made general.
fn renumbered(found: &Violation, places: &[usize]) -> String {
    if found.rule == "linearizability" {
        return "no order of these operations explains all answers".into();
    }
    let mut is_numbered = false;
    let words = found.what.split(' ').map(|word| {
        let start = word.strip_prefix('T').map_or(0, |_| 1);
        let digits: String = word[start..].chars().take_while(char::is_ascii_digit).collect();
        let is_named = start == 1 || std::mem::take(&mut is_numbered);
        is_numbered = word == "operation" || word == "operations" || word == "and" && is_named;
        match digits.parse::<usize>().ok().and_then(|place| places.get(place)) {
            Some(place) if is_named => format!("{}{place}{}", &word[..start], &word[start + digits.len()..]),
            _ => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
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
        "thin-air",
        "duplicate-elements",
        "unknown-token",
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
        Call::Transaction { steps } => steps
            .iter()
            .filter_map(|step| match step {
                Step::Append { key, element } => Some((key.as_str(), Some(element.as_str()))),
                Step::Write { key, value } => Some((key.as_str(), Some(value.as_str()))),
                Step::Read { .. } => None,
            })
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
    let is_lost = matches!(
        &operation.outcome,
        Outcome::Ok(Answer::Won { succeeded: false, .. })
    );
    let reads = |step: &Step| match step {
        Step::Read {
            key: at,
            found: Some(found),
        } => at == key && found.iter().any(|element| element == value),
        _ => false,
    };
    let in_transaction = match &operation.outcome {
        Outcome::Ok(Answer::Committed { steps }) => steps.iter().any(reads),
        _ => false,
    };
    guarded && !is_lost
        || in_transaction
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
    let is_lost = matches!(
        &operation.outcome,
        Outcome::Ok(Answer::Won { succeeded: false, .. })
    );
    if let (Call::Acquire { lock, .. }, Outcome::Ok(Answer::Token { token })) =
        (&removed.call, &removed.outcome)
    {
        return match &operation.call {
            Call::Renew {
                lock: of, token: by, ..
            }
            | Call::Release { lock: of, token: by }
            | Call::Use { lock: of, token: by } => of == lock && by == token,
            _ => false,
        };
    }
    if let Call::Release { lock, .. } | Call::Acquire { lock, .. } = &removed.call {
        // Without the release of one the acquire of another may be wrong; without an acquire that nobody knows the
        // outcome of, any token may be.
        let of = match &operation.call {
            Call::Acquire { lock, .. } | Call::Renew { lock, .. } | Call::Use { lock, .. } => Some(lock),
            _ => None,
        };
        return could_see && of == Some(lock);
    }
    writes(removed).into_iter().any(|(key, value)| {
        let saw = match value {
            Some(value) => sees(operation, key, value),
            None => could_see && sees_absence(operation, key),
        };
        // Where this value was, a guard that asked for it held: what lost did so for another reason.
        let lost_by_it = is_lost && guards(operation, key, false) && !asks_only(operation, key, value);
        saw || could_see && (lost_by_it || guards(operation, key, true))
    })
}

/// Whether all guards of an operation on `key` ask for this value.
fn asks_only(operation: &Operation, key: &str, value: Option<&str>) -> bool {
    match &operation.call {
        Call::Cas { expected, .. } => expected.as_deref() == value,
        Call::Command { guards, .. } => guards
            .iter()
            .filter(|guard| guard.key() == key)
            .all(|guard| matches!(guard, Guard::Value { is, .. } if is.as_deref() == value)),
        _ => false,
    }
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
