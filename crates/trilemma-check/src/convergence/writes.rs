//! The writes that a history holds, one per key that an operation changes.

use std::collections::BTreeMap;

use crate::history::{Answer, Call, Operation, Outcome};

/// What is known of a write's happening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It was acknowledged, so it happened and must last.
    Acknowledged,
    /// It may have happened, or it happened and was allowed to be lost (a write without durability on a node that
    /// crashed).
    Possible,
    /// It was refused, or its guards did not hold: nobody may ever see it.
    Failed,
}

/// What a write does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content<'a> {
    /// The key holds this value.
    Put(&'a str),
    /// The key is removed.
    Delete,
    /// The key's set has this element, whatever others it has.
    Add(&'a str),
}

impl<'a> Content<'a> {
    fn of(value: &'a Option<String>) -> Self {
        value
            .as_ref()
            .map_or(Content::Delete, |value| Content::Put(value))
    }
}

/// One write of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write<'a> {
    /// Position of the operation in its history.
    pub operation: usize,
    /// Who asked for it.
    pub process: u64,
    /// The key.
    pub key: &'a str,
    /// What it does.
    pub content: Content<'a>,
    /// The version that it made, where known: under gossip its stamp of the hybrid logical clock.
    pub version: Option<u64>,
    /// Whether it happened.
    pub fate: Fate,
    /// When it was asked for, in nanoseconds: it had no effect before.
    pub invoked: u64,
    /// By when it had taken effect (if it did) *where it was made*.
    pub effect_by: u64,
    /// The versions of the same key that it replaced because the node that made it had them, where known. `None`:
    /// not known.
    pub observed: Option<Vec<u64>>,
}

impl Write<'_> {
    /// Whether this write is known to have observed `other` of the same key.
    pub(crate) fn has_observed(&self, other: &Write<'_>) -> bool {
        match (&self.observed, other.version) {
            (Some(observed), Some(version)) => observed.contains(&version),
            _ => false,
        }
    }

    /// Whether this write can have observed `other` of the same key, as far as contexts, versions (a write's version
    /// is above all that it observed) and time tell.
    pub(crate) fn may_have_observed(&self, other: &Write<'_>) -> bool {
        if let (Some(observed), Some(version)) = (&self.observed, other.version) {
            return observed.contains(&version);
        }
        let later = match (self.version, other.version) {
            (Some(own), Some(version)) => own > version,
            _ => true,
        };
        later && self.effect_by >= other.invoked
    }

    /// The write in words, as `operation 7 (process 2: put a=x, version 9)`.
    pub(crate) fn describe(&self) -> String {
        let what = match self.content {
            Content::Put(value) => format!("put {}={value}", self.key),
            Content::Delete => format!("delete {}", self.key),
            Content::Add(element) => format!("add {element} to {}", self.key),
        };
        let version = self
            .version
            .map_or(String::new(), |version| format!(", version {version}"));
        format!(
            "operation {} (process {}: {what}{version})",
            self.operation, self.process
        )
    }
}

/// Every write of `history`, in its order. A command that changes a key several times writes it once, the last way.
#[must_use]
pub fn writes(history: &[Operation]) -> Vec<Write<'_>> {
    let mut writes = Vec::with_capacity(history.len());
    for (at, operation) in history.iter().enumerate() {
        let (fate, version) = fate(operation);
        let mut push = |key, content| {
            writes.push(Write {
                operation: at,
                process: operation.process,
                key,
                content,
                version,
                fate,
                invoked: operation.invoke,
                effect_by: operation.effect_by(),
                observed: None,
            });
        };
        match &operation.call {
            Call::Put { key, value } => push(key, Content::Put(value)),
            Call::Delete { key } => push(key, Content::Delete),
            Call::Add { key, element } => push(key, Content::Add(element)),
            Call::Cas { key, value, .. } => push(key, Content::of(value)),
            Call::Command { changes, .. } => {
                let last: BTreeMap<&str, &Option<String>> = changes
                    .iter()
                    .map(|change| (change.key.as_str(), &change.value))
                    .collect();
                for (key, value) in last {
                    push(key, Content::of(value));
                }
            }
            _ => {}
        }
    }
    writes
}

fn fate(operation: &Operation) -> (Fate, Option<u64>) {
    match &operation.outcome {
        Outcome::Ok(Answer::Won { succeeded: false, .. }) | Outcome::Fail => (Fate::Failed, None),
        Outcome::Ok(Answer::Done { version } | Answer::Won { version, .. }) => (Fate::Acknowledged, *version),
        Outcome::Ok(_) => (Fate::Acknowledged, None),
        Outcome::Unknown => (Fate::Possible, None),
    }
}

/// The positions of the writes of each key.
pub(crate) fn by_key<'a>(writes: &[Write<'a>]) -> BTreeMap<&'a str, Vec<usize>> {
    let mut keys: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, write) in writes.iter().enumerate() {
        keys.entry(write.key).or_default().push(at);
    }
    keys
}
