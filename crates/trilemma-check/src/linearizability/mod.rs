//! Linearizability (Herlihy and Wing 1990): is there one order of all operations, each at one instant of its
//! interval, in which every answer is right?
//!
//! Three engines look at the same history. They share the reading of it, and nothing else:
//!
//! - `witness` takes the order from the versions that the service gave, and checks it.
//! - `zones` compares the times at which each value was certainly there (Gibbons and Korach 1997); registers whose
//!   values are unique only.
//! - `search` looks for an order (Wing and Gong 1993; Lowe 2017) and knows nothing but values and times.

use std::fmt;

use crate::history::{Call, Operation};
use crate::model::Model;
use crate::verdict::{Verdict, Violation};

mod prepare;
#[cfg(test)]
mod tests;
mod witness;

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
            steps: 20_000_000,
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
    let _ = budget;
    if let Err(unfit) = model.accepts(operations) {
        return Report {
            verdict: Verdict::Undecided { why: unfit.to_string() },
            engines: Vec::new(),
        };
    }
    let mut summary = Summary::default();
    for object in objects(operations, model) {
        match prepare::prepare(&object, model) {
            Err(violation) => summary.add("answers", Finding::illegal(violation)),
            Ok(prepared) => summary.add("witness", witness::run(&prepared)),
        }
    }
    summary.report()
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

/// The findings of each engine over all objects.
#[derive(Default)]
struct Summary {
    engines: Vec<(&'static str, Finding)>,
}

impl Summary {
    /// Of several objects the worst finding stands: illegal, undecided, not applicable, legal.
    fn add(&mut self, engine: &'static str, finding: Finding) {
        let rank = |finding: &Finding| match finding {
            Finding::Verdict(Verdict::Illegal(_)) => 3,
            Finding::Verdict(Verdict::Undecided { .. }) => 2,
            Finding::NotApplicable { .. } => 1,
            Finding::Verdict(Verdict::Legal) => 0,
        };
        match self.engines.iter_mut().find(|(name, _)| *name == engine) {
            None => self.engines.push((engine, finding)),
            Some((_, worst)) if rank(&finding) > rank(worst) => *worst = finding,
            Some(_) => {}
        }
    }

    fn report(self) -> Report {
        let mut verdict = Verdict::Undecided {
            why: "no engine could judge the history".into(),
        };
        if self.engines.is_empty() {
            verdict = Verdict::Legal;
        }
        for (_, finding) in &self.engines {
            match finding {
                Finding::Verdict(Verdict::Illegal(violation)) => {
                    verdict = Verdict::Illegal(violation.clone());
                    break;
                }
                Finding::Verdict(found) => verdict = found.clone(),
                Finding::NotApplicable { .. } => {}
            }
        }
        Report {
            verdict,
            engines: self.engines,
        }
    }
}
