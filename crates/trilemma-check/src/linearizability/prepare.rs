//! Histories as the engines read them: keys and values as numbers, answers as facts about keys.
//!
//! Everything here is bookkeeping without judgement, except for answers that no state at all could give (a range out
//! of order, say), which are reported at once.

use crate::history::{Answer, Call, Entry, Guard, Operation, Outcome};
use crate::model::Model;
use crate::verdict::Violation;

/// The value of a key that does not exist; also of an empty list.
pub(super) const ABSENT: u64 = 0;

/// A span of one of the pools in [`Prepared`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    from: u32,
    to: u32,
}

impl Span {
    pub(super) fn of<T>(self, pool: &[T]) -> &[T] {
        &pool[self.from as usize..self.to as usize]
    }

    pub(super) fn is_empty(self) -> bool {
        self.from == self.to
    }
}

/// An operation that was not answered "failed".
#[derive(Clone, Copy, Debug)]
pub(super) struct Op {
    /// Position in the history.
    pub(super) index: u32,
    /// When it was asked.
    pub(super) invoke: u64,
    /// By when it must have taken effect.
    pub(super) end: u64,
    /// Whether it was answered, so that it certainly took effect within its interval.
    pub(super) certain: bool,
    /// Whether its guards held; unknown operations that took effect have won.
    pub(super) succeeded: bool,
    /// The version that it made, or at which its guards were checked; 0: not said.
    pub(super) version: u64,
    /// The version of the keyspace that the read reflects, if said.
    pub(super) at: Option<u64>,
    /// What must hold before it.
    pub(super) guards: Span,
    /// What it saw.
    pub(super) facts: Span,
    /// What it changes.
    pub(super) edits: Span,
    /// A span of keys of which one at least exists (a range that was cut).
    pub(super) some_of: Option<(u32, u32)>,
}

impl Op {
    /// Whether it changes something if it takes effect.
    pub(super) fn changes(&self) -> bool {
        self.succeeded && !self.edits.is_empty()
    }
}

/// A key was seen to hold a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fact {
    pub(super) key: u32,
    pub(super) value: u64,
    /// The version of the change that made the value; 0: not said.
    pub(super) version: u64,
}

/// A condition of a command.
#[derive(Clone, Copy, Debug)]
pub(super) enum Condition {
    Value { key: u32, is: u64 },
    Version { key: u32, is: u64 },
}

impl Condition {
    pub(super) fn key(self) -> u32 {
        match self {
            Condition::Value { key, .. } | Condition::Version { key, .. } => key,
        }
    }
}

/// A change of one key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edit {
    pub(super) key: u32,
    /// The value set ([`ABSENT`]: removed), or the element appended.
    pub(super) value: u64,
    pub(super) appends: bool,
}

impl Edit {
    /// The key's value after the change.
    pub(super) fn apply(self, before: u64) -> u64 {
        if self.appends {
            extend(before, self.value)
        } else {
            self.value
        }
    }
}

/// The value of a list one element longer. Lists are compared by this 64-bit mix alone.
fn extend(list: u64, element: u64) -> u64 {
    // The finaliser of splitmix64 (Steele, Lea and Flood 2014): every bit of the input changes half of the output.
    let mut mixed = list
        .rotate_left(23)
        .wrapping_add(element.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ (mixed >> 31)) | 1
}

/// A history in numbers.
#[derive(Debug, Default)]
pub(super) struct Prepared<'a> {
    pub(super) ops: Vec<Op>,
    pub(super) guards: Vec<Condition>,
    pub(super) facts: Vec<Fact>,
    pub(super) edits: Vec<Edit>,
    /// Keys in order; a key's number is its place. Of a set, each element is a key.
    pub(super) keys: Vec<&'a str>,
    /// Values in order; a value's number is its place plus one.
    pub(super) values: Vec<&'a str>,
    /// What operations would have written that certainly did not happen: key, value, position in the history.
    pub(super) failed: Vec<(u32, u64, u32)>,
    /// Every beginning of every list that was read: key and value.
    pub(super) beginnings: Vec<(u32, u64)>,
    /// Whether reads say which version of the whole object they reflect. One key alone has no such order.
    has_order: bool,
}

/// An operation with its position in the history.
pub(super) type Numbered<'a> = (usize, &'a Operation);

/// The numbers of one object's history.
pub(super) fn prepare<'a>(operations: &[Numbered<'a>], model: Model) -> Result<Prepared<'a>, Violation> {
    let mut prepared = Prepared {
        ops: Vec::with_capacity(operations.len()),
        has_order: model == Model::KeyValue,
        ..Prepared::default()
    };
    prepared.intern(operations, model);
    for (index, operation) in operations {
        prepared.add(*index, operation)?;
    }
    Ok(prepared)
}

impl<'a> Prepared<'a> {
    fn intern(&mut self, operations: &[Numbered<'a>], model: Model) {
        let (keys, values) = (&mut self.keys, &mut self.values);
        keys.reserve(operations.len());
        values.reserve(operations.len());
        for (_, operation) in operations {
            match &operation.call {
                Call::Get { key } | Call::Delete { key } | Call::List { key } => keys.push(key),
                Call::Put { key, value } => {
                    keys.push(key);
                    values.push(value);
                }
                Call::Append { key, element } => {
                    keys.push(key);
                    values.push(element);
                }
                // A set is a table of its elements: adding one sets its key to "".
                Call::Add { element, .. } => {
                    keys.push(element);
                    values.push("");
                }
                Call::Cas { key, expected, value } => {
                    keys.push(key);
                    values.extend(expected.iter().chain(value).map(String::as_str));
                }
                Call::Command { guards, changes } => {
                    for guard in guards {
                        keys.push(guard.key());
                        if let Guard::Value { is: Some(value), .. } = guard {
                            values.push(value);
                        }
                    }
                    for change in changes {
                        keys.push(&change.key);
                        values.extend(change.value.as_deref());
                    }
                }
                _ => {}
            }
            match &operation.outcome {
                Outcome::Ok(Answer::Value {
                    value: Some(value), ..
                }) => values.push(value),
                Outcome::Ok(Answer::Entries { entries, .. }) => {
                    keys.extend(entries.iter().map(|entry| entry.key.as_str()));
                    values.extend(entries.iter().map(|entry| entry.value.as_str()));
                }
                Outcome::Ok(Answer::Elements { elements }) => {
                    let names = if model == Model::Set {
                        &mut *keys
                    } else {
                        &mut *values
                    };
                    names.extend(elements.iter().map(String::as_str));
                    values.push("");
                }
                _ => {}
            }
        }
        for names in [keys, values] {
            names.sort_unstable();
            names.dedup();
        }
    }

    fn key(&self, key: &str) -> u32 {
        let place = self.keys.binary_search(&key);
        place.expect("every key was interned") as u32
    }

    fn value(&self, value: &str) -> u64 {
        let place = self.values.binary_search(&value);
        place.expect("every value was interned") as u64 + 1
    }

    fn optional(&self, value: Option<&String>) -> u64 {
        value.map_or(ABSENT, |value| self.value(value))
    }

    /// The text of a value.
    pub(super) fn text(&self, value: u64) -> &'a str {
        if value == ABSENT {
            return "nothing";
        }
        self.values
            .get(value as usize - 1)
            .copied()
            .unwrap_or("a list of several elements")
    }

    fn add(&mut self, index: usize, operation: &'a Operation) -> Result<(), Violation> {
        let starts = (self.guards.len(), self.facts.len(), self.edits.len());
        self.add_call(&operation.call);
        if operation.outcome == Outcome::Fail {
            let edits = self.edits.split_off(starts.2);
            let index = index as u32;
            self.failed
                .extend(edits.iter().map(|edit| (edit.key, edit.value, index)));
            self.guards.truncate(starts.0);
            return Ok(());
        }
        let mut op = Op {
            index: index as u32,
            invoke: operation.invoke,
            end: operation.effect_by(),
            certain: false,
            succeeded: true,
            version: 0,
            at: None,
            guards: Span::default(),
            facts: Span::default(),
            edits: Span::default(),
            some_of: None,
        };
        if let Outcome::Ok(answer) = &operation.outcome {
            op.certain = true;
            self.add_answer(&mut op, &operation.call, answer)?;
            if !op.succeeded && self.guards.len() == starts.0 {
                return Err(Violation {
                    rule: "guard",
                    what: "a command without guards lost; with nothing to fail it cannot".into(),
                    operations: vec![index],
                });
            }
        }
        let span = |from: usize, to: usize| Span {
            from: from as u32,
            to: to as u32,
        };
        op.guards = span(starts.0, self.guards.len());
        op.facts = span(starts.1, self.facts.len());
        op.edits = span(starts.2, self.edits.len());
        // An unanswered read shows nothing.
        if op.certain || !op.edits.is_empty() {
            self.ops.push(op);
        }
        Ok(())
    }

    fn add_call(&mut self, call: &'a Call) {
        match call {
            Call::Put { key, value } => self.add_edit(self.key(key), self.value(value), false),
            Call::Delete { key } => self.add_edit(self.key(key), ABSENT, false),
            Call::Append { key, element } => self.add_edit(self.key(key), self.value(element), true),
            Call::Add { element, .. } => self.add_edit(self.key(element), self.value(""), false),
            Call::Cas { key, expected, value } => {
                let key = self.key(key);
                let is = self.optional(expected.as_ref());
                self.guards.push(Condition::Value { key, is });
                self.add_edit(key, self.optional(value.as_ref()), false);
            }
            Call::Command { guards, changes } => {
                for guard in guards {
                    let key = self.key(guard.key());
                    self.guards.push(match guard {
                        Guard::Value { is, .. } => Condition::Value {
                            key,
                            is: self.optional(is.as_ref()),
                        },
                        Guard::Version { is, .. } => Condition::Version { key, is: *is },
                    });
                }
                let start = self.edits.len();
                for change in changes {
                    let (key, value) = (self.key(&change.key), self.optional(change.value.as_ref()));
                    // Of several changes of one key in one command the last counts.
                    match self.edits[start..].iter_mut().find(|edit| edit.key == key) {
                        Some(earlier) => earlier.value = value,
                        None => self.add_edit(key, value, false),
                    }
                }
            }
            _ => {}
        }
    }

    fn add_edit(&mut self, key: u32, value: u64, appends: bool) {
        self.edits.push(Edit { key, value, appends });
    }

    fn add_answer(&mut self, op: &mut Op, call: &'a Call, answer: &'a Answer) -> Result<(), Violation> {
        match (call, answer) {
            (_, Answer::Done { version }) => op.version = version.unwrap_or(0),
            (_, Answer::Won { succeeded, version }) => {
                op.succeeded = *succeeded;
                op.version = version.unwrap_or(0);
                if !succeeded {
                    op.at = *version;
                }
            }
            (Call::Get { key }, Answer::Value { value, version, at }) => {
                op.at = at.filter(|_| self.has_order);
                self.facts.push(Fact {
                    key: self.key(key),
                    value: self.optional(value.as_ref()),
                    version: version.filter(|_| value.is_some()).unwrap_or(0),
                });
            }
            (Call::Range { start, end, limit }, Answer::Entries { entries, more, at }) => {
                op.at = *at;
                self.add_range(op, (start, end.as_deref(), *limit), entries, *more)?;
            }
            (Call::Members { .. }, Answer::Elements { elements }) => {
                let mut found: Vec<u32> = elements.iter().map(|element| self.key(element)).collect();
                found.sort_unstable();
                let present = self.value("");
                let mut found = found.into_iter().peekable();
                for key in 0..self.keys.len() as u32 {
                    let mut value = ABSENT;
                    while found.next_if_eq(&key).is_some() {
                        value = present;
                    }
                    self.facts.push(Fact {
                        key,
                        value,
                        version: 0,
                    });
                }
            }
            (Call::List { key }, Answer::Elements { elements }) => {
                let (key, mut list) = (self.key(key), ABSENT);
                for element in elements {
                    list = extend(list, self.value(element));
                    self.beginnings.push((key, list));
                }
                self.facts.push(Fact {
                    key,
                    value: list,
                    version: 0,
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn add_range(
        &mut self,
        op: &mut Op,
        (start, end, limit): (&str, Option<&str>, Option<u32>),
        entries: &'a [Entry],
        more: bool,
    ) -> Result<(), Violation> {
        let wrong = |what: &str| {
            Err(Violation {
                rule: "range",
                what: format!("the range read at position {} {what}", op.index),
                operations: vec![op.index as usize],
            })
        };
        if !entries.is_sorted_by(|one, next| one.key < next.key) {
            return wrong("returned keys out of order or twice");
        }
        if limit.is_some_and(|limit| limit > 0 && entries.len() > limit as usize) {
            return wrong("returned more entries than its limit");
        }
        let outside =
            |entry: &Entry| entry.key.as_str() < start || end.is_some_and(|end| entry.key.as_str() >= end);
        if entries.iter().any(outside) {
            return wrong("returned a key outside of the range");
        }
        let low = self.keys.partition_point(|key| *key < start) as u32;
        let high = end.map_or(self.keys.len(), |end| self.keys.partition_point(|key| *key < end)) as u32;
        let mut covered = high.max(low);
        if more {
            covered = entries.last().map_or(low, |last| self.key(&last.key) + 1);
            op.some_of = Some((covered, high));
        }
        let mut entries = entries.iter().peekable();
        for key in low..covered {
            let entry = entries.next_if(|entry| entry.key == self.keys[key as usize]);
            self.facts.push(Fact {
                key,
                value: entry.map_or(ABSENT, |entry| self.value(&entry.value)),
                version: entry.and_then(|entry| entry.version).unwrap_or(0),
            });
        }
        Ok(())
    }
}
