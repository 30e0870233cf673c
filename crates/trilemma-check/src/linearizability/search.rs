//! The search for an order (Wing and Gong 1993), with the memory of Lowe (2017): a state reached twice with the same
//! operations done is searched once.
//!
//! Black box: it looks at values and times, not at versions. (A guard on a version is read as one on the value that
//! this version is known to have; where that is not known the guard is not judged.) Legal means that an order was
//! found; illegal that all were tried.
//!
//! Five rules keep it short without losing an order:
//! - What only reads, and may be done now, is done now: it changes nothing for the others.
//! - A blind write that is due and was under way when the last one was placed may stand right before that, unseen.
//! - Unknown operations that do the same are taken in the order of their calls, and of one key none is placed that the
//!   next blind write would hide.
//! - A value that only one operation writes is not overwritten while some answer has still to see it; a list that is
//!   still to be read holds a beginning of what was read.
//! - An unknown operation whose unique value was seen took effect, before the first who saw it returned; one whose
//!   value nobody saw, and whose effect nobody could otherwise notice, is left out.
//!
//! An object of many keys is first looked at key by key. That each key's part has an order is necessary for the
//! whole to have one, not sufficient when operations touch several keys; so then the whole object is searched too.

use super::Finding;
use super::prepare::Prepared;
use crate::verdict::{Verdict, Violation};

mod constraints;
mod memo;
mod task;
mod walk;

use task::Task;
use walk::Outcome;

/// Looks for an order in at most `steps` steps for each part.
pub(super) fn run(prepared: &Prepared<'_>, steps: u64) -> Finding {
    let scope = constraints::constraints(prepared);
    if prepared.keys.len() <= 1 {
        return finding(prepared, Task::whole(prepared, &scope), steps, "");
    }
    let (tasks, is_exact) = Task::per_key(prepared, &scope);
    let mut worst = Finding::legal();
    for (key, task) in tasks.into_iter().enumerate() {
        let part = finding(prepared, task, steps, prepared.keys[key]);
        match part {
            Finding::Verdict(Verdict::Legal) => {}
            Finding::Verdict(Verdict::Illegal(_)) => return part,
            _ => worst = part,
        }
    }
    if is_exact {
        return worst;
    }
    finding(prepared, Task::whole(prepared, &scope), steps, "")
}

fn finding(prepared: &Prepared<'_>, task: Task, steps: u64, key: &str) -> Finding {
    let is_relaxed = task.is_relaxed;
    match walk::walk(task, steps) {
        Outcome::Found if is_relaxed => Finding::NotApplicable {
            why: "a guard is on a version that no answer shows",
        },
        Outcome::Found => Finding::legal(),
        Outcome::OutOfBudget(what) => {
            let of = if key.is_empty() {
                "the whole object".into()
            } else {
                format!("key {key}")
            };
            let why = match what {
                "steps" => format!("the search for an order of {of} ended after {steps} steps; allow more"),
                _ => format!("the search for an order of {of} ran out of {what}; check a shorter history"),
            };
            Finding::Verdict(Verdict::Undecided { why })
        }
        Outcome::None { stuck, pending } => {
            let mut operations: Vec<usize> = pending
                .iter()
                .chain([&stuck])
                .map(|op| prepared.ops[*op as usize].index as usize)
                .collect();
            operations.sort_unstable();
            operations.dedup();
            let of = if key.is_empty() {
                String::new()
            } else {
                format!(" of key {key}")
            };
            let stuck = prepared.ops[stuck as usize].index;
            Finding::illegal(Violation {
                rule: "linearizability",
                what: format!("no order{of} explains all answers up to the return of operation {stuck}"),
                operations,
            })
        }
    }
}
