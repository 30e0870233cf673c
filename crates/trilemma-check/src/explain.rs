//! Why a history is illegal, for people: the smallest part that shows it, as text and as a picture.

use std::fmt::Write;

use crate::history::{Operation, Outcome};
use crate::verdict::Violation;

mod smallest;
mod svg;
#[cfg(test)]
mod tests;

pub use smallest::{smallest, smallest_by};
pub use svg::svg;

/// What was found, the operations that show it by number, and what ties them together.
///
/// Give it the violation that [`smallest`] found, so that the text is short. Numbers are positions in the history.
#[must_use]
pub fn text(operations: &[Operation], violation: &Violation) -> String {
    let mut text = format!("{}: {}\n", violation.rule, violation.what);
    let mut shown: Vec<usize> = violation.operations.clone();
    shown.retain(|position| *position < operations.len());
    shown.sort_by_key(|position| (operations[*position].invoke, *position));
    for position in &shown {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {}", line(*position, &operations[*position]));
    }
    let ties = ties(operations, &shown);
    if !ties.is_empty() {
        text.push_str("What ties them together:\n");
        for tie in ties {
            let _ = writeln!(text, "  {tie}");
        }
    }
    text
}

fn line(position: usize, operation: &Operation) -> String {
    let returned = operation
        .returned
        .map_or("...".to_owned(), |time| time.to_string());
    format!(
        "#{position} process {} [{}, {returned}] {} -> {}",
        operation.process,
        operation.invoke,
        operation.call,
        answer(&operation.outcome)
    )
}

fn answer(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ok(answer) => answer.to_string(),
        Outcome::Fail => "failed, certainly without effect".into(),
        Outcome::Unknown => "unknown, may take effect at any later time or never".into(),
    }
}

/// Who saw whose value, and who was complete before whom.
fn ties(operations: &[Operation], shown: &[usize]) -> Vec<String> {
    let mut ties = Vec::new();
    for reader in shown {
        for writer in shown.iter().filter(|writer| *writer != reader) {
            for (key, value) in smallest::writes(&operations[*writer]) {
                if let Some(value) = value.filter(|value| smallest::sees(&operations[*reader], key, value)) {
                    ties.push(format!("#{reader} sees {value}, which #{writer} wrote"));
                }
            }
        }
    }
    let precedes = |one: usize, other: usize| operations[one].effect_by() < operations[other].invoke;
    for (place, after) in shown.iter().enumerate() {
        for before in &shown[..place] {
            // What follows from two others need not be said.
            let follows = shown
                .iter()
                .any(|middle| precedes(*before, *middle) && precedes(*middle, *after));
            if precedes(*before, *after) && !follows {
                ties.push(format!("#{before} was complete before #{after} began"));
            }
        }
    }
    ties
}
