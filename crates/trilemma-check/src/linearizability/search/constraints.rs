//! What answers tell about unknown operations: which took effect, by when, and which nobody can have noticed.

use super::super::prepare::{ABSENT, Condition, Edit, Op, Prepared};

/// What is known of each operation beyond its own answer.
pub(super) struct Scope {
    /// For each operation when it must have taken effect; `None`: never mind it.
    pub(super) fates: Vec<Option<Fate>>,
}

#[derive(Clone, Copy)]
pub(super) struct Fate {
    /// Whether it took effect.
    pub(super) is_certain: bool,
    /// By when, if it did.
    pub(super) end: u64,
}

/// When a value was seen first, by the return of those who saw it: key, value, time.
struct Sightings(Vec<(u32, u64, u64)>);

impl Sightings {
    fn sort(&mut self) {
        self.0.sort_unstable();
        self.0.dedup_by_key(|(key, value, _)| (*key, *value));
    }

    fn first(&self, key: u32, value: u64) -> Option<u64> {
        let place = self
            .0
            .partition_point(|(other_key, other_value, _)| (*other_key, *other_value) < (key, value));
        let (found_key, found_value, end) = *self.0.get(place)?;
        ((found_key, found_value) == (key, value)).then_some(end)
    }

    fn add(&mut self, prepared: &Prepared<'_>, op: &Op, end: u64) {
        let facts = op.facts.of(&prepared.facts).iter();
        self.0.extend(facts.map(|fact| (fact.key, fact.value, end)));
        if op.succeeded {
            for guard in op.guards.of(&prepared.guards) {
                if let Condition::Value { key, is } = guard {
                    self.0.push((*key, *is, end));
                }
            }
        }
    }
}

pub(super) fn constraints(prepared: &Prepared<'_>) -> Scope {
    let mut fates: Vec<Option<Fate>> = prepared
        .ops
        .iter()
        .map(|op| {
            Some(Fate {
                is_certain: op.certain,
                end: op.end,
            })
        })
        .collect();
    if prepared.ops.iter().all(|op| op.certain) {
        return Scope { fates };
    }
    let mut sightings = Sightings(Vec::with_capacity(prepared.facts.len()));
    for op in prepared.ops.iter().filter(|op| op.certain) {
        sightings.add(prepared, op, op.end);
    }
    sightings.sort();
    let mut writes: Vec<(u32, u64)> = Vec::with_capacity(prepared.edits.len());
    for op in prepared.ops.iter().filter(|op| op.changes()) {
        writes.extend(
            op.edits
                .of(&prepared.edits)
                .iter()
                .map(|edit| (edit.key, edit.value)),
        );
    }
    writes.sort_unstable();
    // Each turn makes at least one more certain, whose guards are sightings in turn.
    while require_seen(prepared, &mut fates, &mut sightings, &writes) {}
    leave_out_hidden(prepared, &mut fates, &sightings);
    Scope { fates }
}

/// Leaves out the unknown operations whose effect nobody can have noticed: neither a certain operation nor a guard of
/// an unknown one that is kept. What is left out notices nothing itself, so this goes on until nothing changes.
fn leave_out_hidden(prepared: &Prepared<'_>, fates: &mut [Option<Fate>], sightings: &Sightings) {
    let noticeable = noticeable_keys(prepared);
    loop {
        let open: Vec<usize> = (0..fates.len())
            .filter(|number| fates[*number].is_some_and(|fate| !fate.is_certain))
            .collect();
        let guards = open
            .iter()
            .flat_map(|number| prepared.ops[*number].guards.of(&prepared.guards));
        let mut guarded: Vec<(u32, u64)> = guards
            .filter_map(|guard| match guard {
                Condition::Value { key, is } => Some((*key, *is)),
                Condition::Version { .. } => None,
            })
            .collect();
        guarded.sort_unstable();
        let is_hidden = |edit: &Edit| {
            !edit.appends
                && edit.value != ABSENT
                && !noticeable[edit.key as usize]
                && sightings.first(edit.key, edit.value).is_none()
                && guarded.binary_search(&(edit.key, edit.value)).is_err()
        };
        let hidden: Vec<usize> = open
            .into_iter()
            .filter(|number| {
                prepared.ops[*number]
                    .edits
                    .of(&prepared.edits)
                    .iter()
                    .all(is_hidden)
            })
            .collect();
        if hidden.is_empty() {
            return;
        }
        for number in hidden {
            fates[number] = None;
        }
    }
}

/// Marks the unknown operations that must have taken effect; shows whether there were more.
fn require_seen(
    prepared: &Prepared<'_>,
    fates: &mut [Option<Fate>],
    sightings: &mut Sightings,
    writes: &[(u32, u64)],
) -> bool {
    let mut has_more = false;
    for (number, op) in prepared.ops.iter().enumerate() {
        if fates[number].is_none_or(|fate| fate.is_certain) {
            continue;
        }
        let seen_by = op.edits.of(&prepared.edits).iter().filter_map(|edit| {
            let from = writes.partition_point(|write| *write < (edit.key, edit.value));
            let is_unique = writes.get(from + 1) != Some(&(edit.key, edit.value));
            let can_tell = is_unique && !edit.appends && edit.value != ABSENT;
            sightings.first(edit.key, edit.value).filter(|_| can_tell)
        });
        if let Some(end) = seen_by.min() {
            fates[number] = Some(Fate {
                is_certain: true,
                end,
            });
            sightings.add(prepared, op, end);
            has_more = true;
        }
    }
    if has_more {
        sightings.sort();
    }
    has_more
}

/// The keys of which a hidden value may be noticed: by a command that lost, a guard on a version, a range cut short.
fn noticeable_keys(prepared: &Prepared<'_>) -> Vec<bool> {
    let mut noticeable = vec![false; prepared.keys.len()];
    for op in &prepared.ops {
        for guard in op.guards.of(&prepared.guards) {
            if !op.succeeded || matches!(guard, Condition::Version { .. }) {
                noticeable[guard.key() as usize] = true;
            }
        }
        if let Some((from, to)) = op.some_of {
            noticeable[from as usize..to as usize].fill(true);
        }
    }
    noticeable
}
