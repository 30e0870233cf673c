//! What the search orders: the operations of one object, or of one key of it.

use super::super::prepare::{ABSENT, Condition, Edit, Op, Prepared};
use super::constraints::{Fate, Scope};

/// No slot: the value may be written again.
pub(super) const NO_SLOT: u32 = u32::MAX;

/// One operation to be placed.
#[derive(Clone, Copy)]
pub(super) struct Item {
    /// Its number among the prepared operations.
    pub(super) op: u32,
    pub(super) invoke: u64,
    pub(super) end: u64,
    pub(super) is_certain: bool,
    pub(super) succeeded: bool,
    /// Whether a guard on a version could not be read as one on a value.
    pub(super) has_open_guard: bool,
    pub(super) some_of: Option<(u32, u32)>,
    pub(super) sees: (u32, u32),
    pub(super) guards: (u32, u32),
    pub(super) edits: (u32, u32),
}

/// A key with a value, and the slot in which the remaining observers of that value are counted.
#[derive(Clone, Copy)]
pub(super) struct Cell {
    pub(super) key: u32,
    pub(super) value: u64,
    pub(super) slot: u32,
}

/// The input of one search.
#[derive(Default)]
pub(super) struct Task {
    pub(super) items: Vec<Item>,
    pub(super) sees: Vec<Cell>,
    pub(super) guards: Vec<Cell>,
    pub(super) edits: Vec<(Edit, u32)>,
    pub(super) keys: usize,
    /// Every beginning of every list that was read, in order.
    pub(super) beginnings: Vec<(u32, u64)>,
    /// Number of slots.
    pub(super) slots: usize,
    /// The slot of each key's absence at the start.
    pub(super) starts: Vec<u32>,
    /// Whether some guard could not be judged, so that an order found proves nothing.
    pub(super) is_relaxed: bool,
}

impl Task {
    /// The whole object.
    pub(super) fn whole(prepared: &Prepared<'_>, scope: &Scope) -> Self {
        let mut task = Task {
            keys: prepared.keys.len(),
            beginnings: prepared.beginnings.clone(),
            ..Task::default()
        };
        task.beginnings.sort_unstable();
        task.beginnings.dedup();
        let versions = Versions::of(prepared);
        for (number, op) in prepared.ops.iter().enumerate() {
            let Some(fate) = scope.fates[number] else { continue };
            task.open(number as u32, op, fate);
            for fact in op.facts.of(&prepared.facts) {
                task.add_seen(fact.key, fact.value);
            }
            for guard in op.guards.of(&prepared.guards) {
                task.add_guard(versions.read(prepared, *guard));
            }
            for edit in op.edits.of(&prepared.edits).iter().filter(|_| op.succeeded) {
                task.add_edit(*edit);
            }
        }
        task.number_slots();
        task
    }

    /// Each key's part, and whether an order of each is one of the whole (no operation touches two keys).
    pub(super) fn per_key(prepared: &Prepared<'_>, scope: &Scope) -> (Vec<Self>, bool) {
        let versions = Versions::of(prepared);
        let mut tasks: Vec<Task> = Vec::new();
        tasks.resize_with(prepared.keys.len(), || Task {
            keys: 1,
            ..Task::default()
        });
        let mut is_exact = true;
        for (number, op) in prepared.ops.iter().enumerate() {
            let Some(fate) = scope.fates[number] else { continue };
            let guards = op.guards.of(&prepared.guards);
            let only = guards.first().map(|guard| guard.key());
            let is_wide = guards.iter().any(|guard| Some(guard.key()) != only);
            is_exact &= op.some_of.is_none() && (op.succeeded || !is_wide);
            let mut touched: Option<u32> = None;
            let mut open = |tasks: &mut Vec<Task>, key: u32| {
                is_exact &= touched.is_none_or(|touched| touched == key);
                touched = Some(key);
                let task = &mut tasks[key as usize];
                if task.items.last().is_none_or(|item| item.op != number as u32) {
                    task.open(number as u32, &Op { some_of: None, ..*op }, fate);
                }
            };
            for fact in op.facts.of(&prepared.facts) {
                open(&mut tasks, fact.key);
                tasks[fact.key as usize].add_seen(0, fact.value);
            }
            // Which guard failed is not known if they are on several keys.
            for guard in guards.iter().filter(|_| op.succeeded || !is_wide) {
                open(&mut tasks, guard.key());
                let read = versions.read(prepared, *guard);
                tasks[guard.key() as usize].add_guard(read.map(|(_, value)| (0, value)));
            }
            for edit in op.edits.of(&prepared.edits).iter().filter(|_| op.succeeded) {
                open(&mut tasks, edit.key);
                tasks[edit.key as usize].add_edit(Edit { key: 0, ..*edit });
            }
        }
        for task in &mut tasks {
            task.number_slots();
        }
        (tasks, is_exact)
    }

    fn open(&mut self, number: u32, op: &Op, fate: Fate) {
        let (sees, guards, edits) = (
            self.sees.len() as u32,
            self.guards.len() as u32,
            self.edits.len() as u32,
        );
        self.items.push(Item {
            op: number,
            invoke: op.invoke,
            end: fate.end,
            is_certain: fate.is_certain,
            succeeded: op.succeeded,
            has_open_guard: false,
            some_of: op.some_of,
            sees: (sees, sees),
            guards: (guards, guards),
            edits: (edits, edits),
        });
    }

    fn last(&mut self) -> &mut Item {
        self.items
            .last_mut()
            .expect("an item was opened before its parts")
    }

    fn add_seen(&mut self, key: u32, value: u64) {
        let slot = NO_SLOT;
        self.sees.push(Cell { key, value, slot });
        self.last().sees.1 += 1;
    }

    fn add_guard(&mut self, read: Option<(u32, u64)>) {
        match read {
            Some((key, value)) => {
                let slot = NO_SLOT;
                self.guards.push(Cell { key, value, slot });
                self.last().guards.1 += 1;
            }
            None => {
                self.last().has_open_guard = true;
                self.is_relaxed = true;
            }
        }
    }

    fn add_edit(&mut self, edit: Edit) {
        self.edits.push((edit, NO_SLOT));
        self.last().edits.1 += 1;
    }

    /// Gives each value that can come only once to a key a slot to count its observers in.
    fn number_slots(&mut self) {
        let mut writes: Vec<(u32, u64)> = self
            .edits
            .iter()
            .map(|(edit, _)| (edit.key, if edit.appends { ABSENT } else { edit.value }))
            .collect();
        writes.sort_unstable();
        let slot_of = |key: u32, value: u64| {
            let from = writes.partition_point(|write| *write < (key, value));
            let is_here = writes.get(from) == Some(&(key, value));
            let is_unique = is_here && writes.get(from + 1) != Some(&(key, value));
            match (value, is_here) {
                // Absence at the start does not come again where nothing is removed.
                (ABSENT, false) => (writes.len() + key as usize) as u32,
                (ABSENT, true) => NO_SLOT,
                _ if is_unique => from as u32,
                _ => NO_SLOT,
            }
        };
        // All readers of a list are counted together.
        let is_list = self.edits.iter().any(|(edit, _)| edit.appends);
        let list_slot = |key: u32| (writes.len() + key as usize) as u32;
        for cell in self.sees.iter_mut().chain(&mut self.guards) {
            cell.slot = if is_list {
                list_slot(cell.key)
            } else {
                slot_of(cell.key, cell.value)
            };
        }
        for (edit, slot) in &mut self.edits {
            *slot = match *edit {
                Edit {
                    appends: true, key, ..
                } => list_slot(key),
                Edit { value: ABSENT, .. } => NO_SLOT,
                Edit { key, value, .. } => slot_of(key, value),
            };
        }
        self.starts = (0..self.keys as u32).map(|key| slot_of(key, ABSENT)).collect();
        self.slots = writes.len() + self.keys;
    }
}

/// A value that no key ever holds.
const NEVER: u64 = u64::MAX;

/// Which value each version of each key is known to have.
struct Versions {
    /// Key, version, value.
    known: Vec<(u32, u64, u64)>,
    /// The versions that are known to have been made, on whatever key.
    made: Vec<u64>,
    /// The keys to which an unknown operation may have given a version that nobody shows.
    doubtful: Vec<bool>,
}

impl Versions {
    fn of(prepared: &Prepared<'_>) -> Self {
        let (mut known, mut made) = (Vec::new(), Vec::new());
        let mut doubtful = vec![false; prepared.keys.len()];
        let has_version = |guard: &Condition| matches!(guard, Condition::Version { .. });
        if prepared.guards.iter().any(has_version) {
            for op in prepared.ops.iter().filter(|op| op.changes()) {
                let edits = op.edits.of(&prepared.edits).iter();
                if op.certain && op.version != 0 {
                    made.push(op.version);
                    known.extend(edits.map(|edit| (edit.key, op.version, edit.value)));
                } else {
                    edits.for_each(|edit| doubtful[edit.key as usize] = true);
                }
            }
            for op in &prepared.ops {
                let facts = op
                    .facts
                    .of(&prepared.facts)
                    .iter()
                    .filter(|fact| fact.version != 0);
                known.extend(facts.map(|fact| (fact.key, fact.version, fact.value)));
            }
        }
        known.sort_unstable();
        made.sort_unstable();
        Self {
            known,
            made,
            doubtful,
        }
    }

    /// The key and value that a guard asks for; `None` if that is not known.
    fn read(&self, prepared: &Prepared<'_>, guard: Condition) -> Option<(u32, u64)> {
        match guard {
            Condition::Value { key, is } => Some((key, is)),
            Condition::Version { key, is: 0 } => Some((key, ABSENT)),
            Condition::Version { key, is } => {
                let from = self.known.partition_point(|known| (known.0, known.1) < (key, is));
                match self.known.get(from) {
                    Some(known) if (known.0, known.1) == (key, is) => {
                        // The same value from another write has another version.
                        let mut writers = prepared
                            .edits
                            .iter()
                            .filter(|edit| (edit.key, edit.value) == (key, known.2));
                        let is_unique = writers.next().is_some() && writers.next().is_none();
                        // A key that is absent has no version, whichever removal it was.
                        let value = if known.2 == ABSENT { NEVER } else { known.2 };
                        (is_unique || value == NEVER).then_some((key, value))
                    }
                    // Another change made this version and left the key alone, or nothing can have made it.
                    _ if self.made.binary_search(&is).is_ok() || !self.doubtful[key as usize] => {
                        Some((key, NEVER))
                    }
                    _ => None,
                }
            }
        }
    }
}
