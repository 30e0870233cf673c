//! A command happens wholly or not at all, and at one version: where only one of unknown outcome, or of untold version,
//! can be why a key holds what it holds, its other keys must bear that it happened then.

use std::collections::{BTreeMap, BTreeSet};

use super::{Fate, Merge, Replica, Write, merge};
use crate::verdict::Verdict;

/// Most choices between commands that are tried. What is open after that is allowed.
const TRIES_MAX: u32 = 2_000;

/// An operation, and the version at which it is taken to have happened.
type Taken = (usize, Option<u64>);

/// What is known when some commands are taken to have happened.
struct Choice<'a> {
    writes: Vec<Write<'a>>,
    /// The operation to take next.
    taken: Taken,
}

/// Checks keys of which each alone is right.
pub(super) fn check(writes: Vec<Write<'_>>, keys: &BTreeMap<&str, Vec<usize>>, replica: &Replica) -> Verdict {
    let mut touched: BTreeMap<usize, usize> = BTreeMap::new();
    for write in &writes {
        *touched.entry(write.operation).or_default() += 1;
    }
    let is_open = |write: &Write<'_>| {
        let is_known = write.fate == Fate::Acknowledged && write.version.is_some();
        write.fate != Fate::Failed && !is_known && touched[&write.operation] > 1
    };
    let scope = Scope {
        keys,
        replica,
        wide: writes
            .iter()
            .filter(|write| is_open(write))
            .map(|write| write.operation)
            .collect(),
    };
    if scope.wide.is_empty() {
        return Verdict::Legal;
    }
    let mut open: Vec<Choice<'_>> = Vec::new();
    let mut now = writes;
    let mut first_wrong = None;
    for _ in 0..TRIES_MAX {
        match scope.resolve(&mut now) {
            Ok(None) => return Verdict::Legal,
            Ok(Some(candidates)) => {
                for taken in candidates {
                    let writes = now.clone();
                    open.push(Choice { writes, taken });
                }
            }
            Err(wrong) => {
                first_wrong.get_or_insert(wrong);
            }
        }
        let Some(choice) = open.pop() else {
            return first_wrong.unwrap_or(Verdict::Legal);
        };
        now = choice.writes;
        take(&mut now, choice.taken);
    }
    Verdict::Legal
}

/// Takes an operation to have happened, with this version.
fn take(writes: &mut [Write<'_>], (operation, version): Taken) {
    for write in writes.iter_mut().filter(|write| write.operation == operation) {
        write.fate = Fate::Acknowledged;
        write.version = version.or(write.version);
    }
}

struct Scope<'k> {
    keys: &'k BTreeMap<&'k str, Vec<usize>>,
    replica: &'k Replica,
    /// Operations that write several keys, of unknown outcome or at a version that was not reported.
    wide: BTreeSet<usize>,
}

impl Scope<'_> {
    /// Takes every command that is the only explanation of some key; the candidates of a key that has several, if
    /// one is left; an error if a key is wrong then.
    fn resolve(&self, writes: &mut [Write<'_>]) -> Result<Option<Vec<Taken>>, Verdict> {
        let none = Vec::new();
        loop {
            let mut several = None;
            let mut has_more = false;
            for (key, at) in self.keys {
                let of_key: Vec<&Write<'_>> = at.iter().map(|at| &writes[*at]).collect();
                let found = self.replica.entries.get(*key).unwrap_or(&none);
                let verdict = merge::judge(key, &of_key, found, Merge::LastWriterWins);
                if verdict != Verdict::Legal {
                    return Err(verdict);
                }
                let last = merge::last_writers(&of_key, found);
                let version = found.first().and_then(|(_, version)| *version);
                let is_free = |write: &&Write<'_>| {
                    let is_known = write.version.is_some() || version.is_none();
                    write.fate == Fate::Acknowledged && is_known || !self.wide.contains(&write.operation)
                };
                if last.is_empty() || last.iter().any(is_free) {
                    continue;
                }
                let candidates: Vec<Taken> = last
                    .iter()
                    .map(|write| (write.operation, version.or(write.version)))
                    .collect();
                if let [only] = candidates[..] {
                    take(writes, only);
                    has_more = true;
                    break;
                }
                several = several.or(Some(candidates));
            }
            if !has_more {
                return Ok(several);
            }
        }
    }
}
