//! Linearizability (Herlihy and Wing 1990): is there one order of all operations, each at one instant of its
//! interval, in which every answer is right?
//!
//! Three engines look at the same history. They share the reading of it, and nothing else:
//!
//! - `witness` takes the order from the versions that the service gave, and checks it.
//! - `zones` compares the times at which each value was certainly there (Gibbons and Korach 1997); registers whose
//!   values are unique only.
//! - `search` looks for an order (Wing and Gong 1993; Lowe 2017) and knows nothing but values and times.

use std::collections::BTreeMap;
use std::fmt;

use crate::history::{Answer, Call, Operation, Outcome};
use crate::model::Model;
use crate::verdict::{Verdict, Violation};

mod collections;
mod prepare;
mod search;
#[cfg(test)]
mod tests;
mod witness;
mod zones;

/// How much work a check may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Most steps of the search for each object when no other engine has decided.
    pub steps: u64,
    /// Most steps of the search for each object when another engine has decided and the search is to confirm it.
    pub steps_to_confirm: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            steps: 6_000_000,
            steps_to_confirm: 50_000,
        }
    }
}

/// What one engine says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It judged the history, or tried to.
    Verdict(Verdict),
    /// The history is not of the kind that it can judge.
    NotApplicable {
        /// What it would need.
        why: &'static str,
    },
}

impl Finding {
    fn legal() -> Self {
        Finding::Verdict(Verdict::Legal)
    }

    fn illegal(violation: Violation) -> Self {
        Finding::Verdict(Verdict::Illegal(violation))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Verdict(Verdict::Legal) => f.write_str("legal"),
            Finding::Verdict(Verdict::Illegal(violation)) => {
                write!(f, "illegal ({}): {}", violation.rule, violation.what)
            }
            Finding::Verdict(Verdict::Undecided { why }) => write!(f, "undecided: {why}"),
            Finding::NotApplicable { why } => write!(f, "not applicable: {why}"),
        }
    }
}

/// What a check found, and which engine said what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The result. Legal if an engine found an order and none refuted it.
    pub verdict: Verdict,
    /// The engines with their own results, in the order in which they ran.
    pub engines: Vec<(&'static str, Finding)>,
}

/// Checks that `operations` are linearizable as `model` says.
///
/// Whatever the model does not have makes the result undecided: nothing is skipped in silence.
#[must_use]
pub fn check(operations: &[Operation], model: Model, budget: Budget) -> Report {
    if let Err(unfit) = model.accepts(operations) {
        return Report {
            verdict: Verdict::Undecided {
                why: unfit.to_string(),
            },
            engines: Vec::new(),
        };
    }
    let mut report = Report {
        verdict: Verdict::Legal,
        engines: Vec::new(),
    };
    for object in objects(operations, model) {
        report.add(judge(&object, model, budget));
    }
    report
}

/// As [`check`], where keys held something before the first operation. Of the models that have [`Call::Put`].
///
/// The values count as put, without versions, before everything else: so the engine that follows versions stands aside.
#[must_use]
pub fn check_from(
    initial: &BTreeMap<String, String>,
    operations: &[Operation],
    model: Model,
    budget: Budget,
) -> Report {
    if initial.is_empty() {
        return check(operations, model, budget);
    }
    let later = |operation: &Operation| Operation {
        invoke: operation.invoke.saturating_add(1),
        returned: operation.returned.map(|returned| returned.saturating_add(1)),
        ..operation.clone()
    };
    let mut all: Vec<Operation> = operations.iter().map(later).collect();
    all.extend(initial.iter().map(|(key, value)| Operation {
        process: u64::MAX,
        invoke: 0,
        returned: Some(0),
        call: Call::Put {
            key: key.clone(),
            value: value.clone(),
        },
        outcome: Outcome::Ok(Answer::Done { version: None }),
    }));
    let mut report = check(&all, model, budget);
    let findings = report
        .engines
        .iter_mut()
        .filter_map(|(_, finding)| match finding {
            Finding::Verdict(verdict) => Some(verdict),
            Finding::NotApplicable { .. } => None,
        });
    for verdict in findings.chain([&mut report.verdict]) {
        if let Verdict::Illegal(violation) = verdict {
            violation.operations.retain(|place| *place < operations.len());
        }
    }
    report
}

/// One engine's name and result.
type Named = (&'static str, Finding);

/// Lets every engine judge one object.
fn judge(object: &[prepare::Numbered<'_>], model: Model, budget: Budget) -> Vec<Named> {
    let prepared = match prepare::prepare(object, model) {
        Ok(prepared) => prepared,
        Err(violation) => return vec![("answers", Finding::illegal(violation))],
    };
    let mut findings = if matches!(model, Model::Set | Model::List) {
        vec![("collections", collections::run(object))]
    } else {
        vec![
            ("witness", witness::run(&prepared)),
            ("zones", zones::run(&prepared)),
        ]
    };
    let is_decided = findings
        .iter()
        .any(|(_, finding)| matches!(finding, Finding::Verdict(_)));
    let steps = if is_decided {
        budget.steps_to_confirm
    } else {
        budget.steps
    };
    findings.push(("search", search::run(&prepared, steps)));
    findings
}

/// The operations of each object.
fn objects(operations: &[Operation], model: Model) -> Vec<Vec<prepare::Numbered<'_>>> {
    let mut numbered: Vec<prepare::Numbered<'_>> = operations.iter().enumerate().collect();
    if !model.is_per_key() {
        return vec![numbered];
    }
    numbered.sort_by_key(|(_, operation)| key_of(&operation.call));
    numbered
        .chunk_by(|one, next| key_of(&one.1.call) == key_of(&next.1.call))
        .map(<[_]>::to_vec)
        .collect()
}

/// The one key of a call, under a model of which each key is an object.
fn key_of(call: &Call) -> &str {
    match call {
        Call::Get { key }
        | Call::Put { key, .. }
        | Call::Delete { key }
        | Call::Cas { key, .. }
        | Call::Add { key, .. }
        | Call::Members { key }
        | Call::Append { key, .. }
        | Call::List { key } => key,
        Call::Command { guards, changes } => {
            let guarded = guards.first().map(|guard| guard.key());
            guarded
                .or_else(|| changes.first().map(|change| change.key.as_str()))
                .unwrap_or("")
        }
        _ => "",
    }
}

impl Report {
    /// Adds what was found about one object: the worst stands.
    fn add(&mut self, findings: Vec<Named>) {
        let verdict = combined(&findings);
        if rank(&Finding::Verdict(verdict.clone())) > rank(&Finding::Verdict(self.verdict.clone())) {
            self.verdict = verdict;
        }
        for (engine, finding) in findings {
            match self.engines.iter_mut().find(|(name, _)| *name == engine) {
                None => self.engines.push((engine, finding)),
                Some((_, worst)) if rank(&finding) > rank(worst) => *worst = finding,
                Some(_) => {}
            }
        }
    }
}

fn rank(finding: &Finding) -> u8 {
    match finding {
        Finding::Verdict(Verdict::Illegal(_)) => 3,
        Finding::Verdict(Verdict::Undecided { .. }) => 2,
        Finding::NotApplicable { .. } => 1,
        Finding::Verdict(Verdict::Legal) => 0,
    }
}

/// What all engines together say of one object.
///
/// The witness alone looks at versions, so it may refute what values and times alone allow. Any other contradiction
/// between two engines is a mistake in one of them.
fn combined(findings: &[Named]) -> Verdict {
    let refuted = findings.iter().find_map(|(engine, finding)| match finding {
        Finding::Verdict(Verdict::Illegal(violation)) => Some((*engine, violation)),
        _ => None,
    });
    let is_legal = |finding: &Finding| *finding == Finding::Verdict(Verdict::Legal);
    let approved = findings.iter().find(|(_, finding)| is_legal(finding));
    match (refuted, approved) {
        (Some((engine, violation)), Some((other, _))) if engine != "witness" => Verdict::Illegal(Violation {
            rule: "engines-disagree",
            what: format!(
                "{other} finds the history legal, {engine} does not: {}; one of them is wrong, report it with the history",
                violation.what
            ),
            operations: violation.operations.clone(),
        }),
        (Some((_, violation)), _) => Verdict::Illegal(violation.clone()),
        (None, Some(_)) => Verdict::Legal,
        (None, None) => undecided(findings),
    }
}

fn undecided(findings: &[Named]) -> Verdict {
    let reasons: Vec<String> = findings
        .iter()
        .map(|(engine, finding)| format!("{engine}: {finding}"))
        .collect();
    Verdict::Undecided {
        why: reasons.join("; "),
    }
}
