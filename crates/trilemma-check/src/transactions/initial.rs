//! Registers that held something before the first transaction.

use std::collections::BTreeMap;

use super::{Level, check};
use crate::history::{Answer, Call, Operation, Outcome, Step};
use crate::verdict::Verdict;

/// As [`check`], where registers held these values at the start. A transaction that writes such a value again leaves
/// the history undecided, as every value written twice does.
#[must_use]
pub fn check_from(initial: &BTreeMap<String, String>, history: &[Operation], level: Level) -> Verdict {
    if initial.is_empty() {
        return check(history, level);
    }
    let mut history = history.to_vec();
    for (at, operation) in history.iter_mut().enumerate() {
        if let Call::Transaction { steps } = &mut operation.call
            && let Err(found) = from_initial(initial, at, steps)
        {
            return found;
        }
        if let Outcome::Ok(Answer::Committed { steps }) = &mut operation.outcome
            && let Err(found) = from_initial(initial, at, steps)
        {
            return found;
        }
    }
    check(&history, level)
}

/// Turns reads of an initial value into reads of what nobody wrote.
fn from_initial(initial: &BTreeMap<String, String>, at: usize, steps: &mut [Step]) -> Result<(), Verdict> {
    for step in steps {
        match step {
            Step::Write { key, value } if initial.get(key) == Some(value) => {
                let why = format!(
                    "operation {at} writes {value} to {key}, which held it at the start: values must be unique"
                );
                return Err(Verdict::Undecided { why });
            }
            Step::Append { key, .. } if initial.contains_key(key) => {
                let why =
                    format!("operation {at} appends to {key}, which is said to be a register at the start");
                return Err(Verdict::Undecided { why });
            }
            Step::Read {
                key,
                found: Some(found),
            } => {
                let Some(value) = initial.get(key) else { continue };
                if found.is_empty() {
                    let what = format!("T{at} read {key} = [], which held {value} from the start");
                    return Err(Verdict::illegal("thin-air", what, [at]));
                }
                if found.len() == 1 && found[0] == *value {
                    found.clear();
                }
            }
            _ => {}
        }
    }
    Ok(())
}
