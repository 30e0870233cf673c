//! Sets that only grow and lists that are only appended to: the answers themselves tell the order.
//!
//! The reads of a list must be beginnings of the longest one, those of a set must be contained in each other. So each
//! element has a place before the first read that shows it, and one sweep over time shows whether any order is
//! broken. Needs each element to be added by one operation.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use super::prepare::Numbered;
use crate::history::{Answer, Call, Outcome};
use crate::verdict::Violation;

/// Judges the operations on one set or list.
pub(super) fn run(operations: &[Numbered<'_>]) -> Finding {
    match judge(operations) {
        Ok(true) => Finding::legal(),
        Ok(false) => Finding::NotApplicable {
            why: "an element was added by several operations",
        },
        Err(violation) => Finding::illegal(violation),
    }
}

/// An operation at its place.
struct Placed {
    index: usize,
    invoke: u64,
    end: u64,
    place: u64,
}

fn judge(operations: &[Numbered<'_>]) -> Result<bool, Violation> {
    let mut reads: Vec<(usize, &[String])> = Vec::new();
    let mut adds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut failed: BTreeMap<&str, usize> = BTreeMap::new();
    let mut is_list = false;
    for (index, operation) in operations {
        is_list |= matches!(operation.call, Call::Append { .. } | Call::List { .. });
        match (&operation.call, &operation.outcome) {
            (Call::Add { element, .. } | Call::Append { element, .. }, Outcome::Fail) => {
                failed.insert(element, *index);
            }
            (Call::Add { element, .. } | Call::Append { element, .. }, _)
                if adds.contains_key(element.as_str()) =>
            {
                return Ok(false);
            }
            (Call::Add { element, .. } | Call::Append { element, .. }, _) => {
                adds.insert(element, *index);
            }
            (_, Outcome::Ok(Answer::Elements { elements })) => reads.push((*index, elements)),
            _ => {}
        }
    }
    // A stable sort: of equal reads the first in the history speaks.
    reads.sort_by_key(|(_, elements)| elements.len());
    nested(&reads, is_list)?;
    let shown = first_shown(&reads, is_list, &adds, &failed)?;
    let never = 2 * reads.last().map_or(0, |(_, elements)| elements.len() as u64) + 2;
    let placed = operations.iter().filter_map(|(index, operation)| {
        let place = match (&operation.call, &operation.outcome) {
            (_, Outcome::Fail) => return None,
            (_, Outcome::Ok(Answer::Elements { elements })) => 2 * elements.len() as u64 + 1,
            (Call::Add { element, .. } | Call::Append { element, .. }, outcome) => {
                match (shown.get(element.as_str()), outcome) {
                    (Some(place), _) => *place,
                    (None, Outcome::Ok(_)) => never,
                    (None, _) => return None,
                }
            }
            _ => return None,
        };
        Some(Placed {
            index: *index,
            invoke: operation.invoke,
            end: operation.effect_by(),
            place,
        })
    });
    sweep(placed.collect())?;
    Ok(true)
}

/// Checks that each read contains the one before it.
fn nested(reads: &[(usize, &[String])], is_list: bool) -> Result<(), Violation> {
    for pair in reads.windows(2) {
        let ((first, shorter), (second, longer)) = (pair[0], pair[1]);
        let is_contained = if is_list {
            longer.starts_with(shorter)
        } else {
            let longer: BTreeSet<&String> = longer.iter().collect();
            shorter.iter().all(|element| longer.contains(element))
        };
        if !is_contained {
            let mut operations = vec![first, second];
            operations.sort_unstable();
            return Err(Violation {
                rule: "reads-diverge",
                what: "of two reads neither contains the other".into(),
                operations,
            });
        }
    }
    Ok(())
}

/// The place of each element: before the shortest read that shows it.
fn first_shown<'a>(
    reads: &[(usize, &'a [String])],
    is_list: bool,
    adds: &BTreeMap<&str, usize>,
    failed: &BTreeMap<&str, usize>,
) -> Result<BTreeMap<&'a str, u64>, Violation> {
    let mut shown: BTreeMap<&str, u64> = BTreeMap::new();
    let mut known = 0;
    for (index, elements) in reads {
        let mut here: BTreeSet<&str> = BTreeSet::new();
        // The first elements of a list are those of the read before.
        let skipped = if is_list { known } else { 0 };
        for (position, element) in elements.iter().enumerate().skip(skipped) {
            let is_twice = !here.insert(element) || is_list && shown.contains_key(element.as_str());
            let rule = match (is_twice, adds.get(element.as_str()), failed.get(element.as_str())) {
                (false, Some(_), _) => {
                    let place = if is_list { position + 1 } else { elements.len() };
                    shown.entry(element).or_insert(2 * place as u64);
                    continue;
                }
                (true, ..) => "effect-twice",
                (_, None, Some(_)) => "failed-write-seen",
                (_, None, None) => "value-from-nowhere",
            };
            let source = adds.get(element.as_str()).or(failed.get(element.as_str()));
            let mut operations: Vec<usize> = source.copied().into_iter().chain([*index]).collect();
            operations.sort_unstable();
            return Err(Violation {
                rule,
                what: format!("element {element} was read, which is there twice or was never added"),
                operations,
            });
        }
        known = elements.len();
    }
    Ok(shown)
}

/// An operation that begins after another has returned stands behind it.
fn sweep(mut placed: Vec<Placed>) -> Result<(), Violation> {
    let mut returns: Vec<(u64, u64, usize)> = placed.iter().map(|op| (op.end, op.place, op.index)).collect();
    returns.sort_unstable();
    placed.sort_by_key(|op| op.invoke);
    let mut returns = returns.into_iter().peekable();
    let mut frontier = (0, 0);
    for op in placed {
        while let Some((_, place, index)) = returns.next_if(|(end, ..)| *end < op.invoke) {
            frontier = frontier.max((place, index));
        }
        if op.place < frontier.0 {
            let mut operations = vec![frontier.1, op.index];
            operations.sort_unstable();
            return Err(Violation {
                rule: "real-time",
                what: "an operation is ordered before one that was complete before it began".into(),
                operations,
            });
        }
    }
    Ok(())
}
