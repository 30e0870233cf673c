//! What the demo's clients did and saw, with times: the evidence that the verdict is computed from.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Microseconds since the history began.
pub(super) type Micros = u64;

/// What an operation did, and what came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A put of a value that no other operation writes, and was acknowledged at this version.
    Written {
        /// The value.
        value: String,
        /// Its version.
        version: u64,
    },
    /// A put that was certainly not applied.
    Refused {
        /// The value.
        value: String,
        /// Why.
        why: String,
    },
    /// A put that may have been applied.
    Unknown {
        /// The value.
        value: String,
        /// Why nobody knows.
        why: String,
    },
    /// A read at the strongest level, and what it found: value and version.
    Read {
        /// `None`: the key did not exist.
        found: Option<(String, u64)>,
    },
    /// A read that was not answered.
    Unread {
        /// Why.
        why: String,
    },
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The node it was asked of.
    pub(super) node: u32,
    /// The key.
    pub(super) key: String,
    /// When it was called.
    pub(super) called: Micros,
    /// When the answer came.
    pub(super) answered: Micros,
    /// What happened.
    pub(super) event: Event,
}

impl Record {
    /// Whether it was called and answered within `time`.
    pub(super) fn within(&self, time: &Range<Micros>) -> bool {
        time.start <= self.called && self.answered <= time.end
    }
}

/// The records of all keyspaces, growing while the demo runs. Clones share them.
#[derive(Clone)]
pub(super) struct History {
    began: Instant,
    records: Arc<Mutex<BTreeMap<String, Vec<Record>>>>,
}

impl History {
    /// An empty history that begins now.
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            records: Arc::default(),
        }
    }

    /// The time now.
    pub(super) fn now(&self) -> Micros {
        u64::try_from(self.began.elapsed().as_micros()).expect("the demo takes less than 500 000 years")
    }

    /// Adds an operation on a keyspace.
    pub(super) fn add(&self, keyspace: &str, record: Record) {
        let mut records = self.lock();
        match records.get_mut(keyspace) {
            Some(records) => records.push(record),
            None => {
                records.insert(keyspace.into(), vec![record]);
            }
        }
    }

    /// The records of a keyspace.
    pub(super) fn of(&self, keyspace: &str) -> Vec<Record> {
        self.lock().get(keyspace).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Record>>> {
        // Held for pushes and clones only, so a poisoned history is whole.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
