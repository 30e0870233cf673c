//! The transactions of a history, sorted by what they do to each key.

use std::collections::BTreeMap;

use super::Level;
use crate::history::{Answer, Call, Operation, Outcome, Step};

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Committed,
    Aborted,
    /// Unknown, and nobody has seen it.
    Open,
}

/// One transaction.
#[derive(Debug)]
pub(super) struct Transaction<'a> {
    /// Position in the history.
    pub(super) operation: usize,
    pub(super) process: u64,
    pub(super) invoke: u64,
    /// When it was answered; `u64::MAX`: never.
    pub(super) returned: u64,
    /// When its process went on: at the answer, or when it gave up; `u64::MAX`: never.
    pub(super) left: u64,
    pub(super) fate: Fate,
    pub(super) steps: &'a [Step],
}

/// Who wrote an element.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wrote {
    pub(super) transaction: usize,
    /// Whether it is the transaction's last write of the key.
    pub(super) is_last: bool,
}

/// A read with a known answer, of a committed transaction.
#[derive(Debug)]
pub(super) struct Read<'a> {
    pub(super) transaction: usize,
    pub(super) found: &'a [String],
    /// No write and no read of the key by the same transaction came before.
    pub(super) is_external: bool,
}

/// What happens to one key.
#[derive(Debug, Default)]
pub(super) struct Key<'a> {
    pub(super) is_list: bool,
    pub(super) is_register: bool,
    pub(super) writes: BTreeMap<&'a str, Wrote>,
    pub(super) reads: Vec<Read<'a>>,
    /// The longest read of the key, and which reads are its beginnings.
    pub(super) longest: Option<usize>,
    pub(super) is_beginning: Vec<bool>,
    /// Somebody read an element that was written by a transaction that aborted.
    pub(super) has_aborted: bool,
    /// What each transaction writes, in its order.
    pub(super) by_transaction: BTreeMap<usize, Vec<&'a str>>,
}

impl<'a> Key<'a> {
    pub(super) fn wrote(&self, element: &str) -> Option<Wrote> {
        self.writes.get(element).copied()
    }

    /// The reads that must be looked at element by element: the longest, and those that are not its beginnings.
    pub(super) fn telling_reads(&self) -> impl Iterator<Item = &Read<'a>> {
        let others = self
            .reads
            .iter()
            .zip(&self.is_beginning)
            .filter(|(_, is_beginning)| !**is_beginning);
        self.longest
            .map(|at| &self.reads[at])
            .into_iter()
            .chain(others.map(|(read, _)| read))
    }

    pub(super) fn writes_of(&self, transaction: usize) -> &[&'a str] {
        self.by_transaction.get(&transaction).map_or(&[], |writes| writes)
    }
}

/// The whole history.
#[derive(Debug)]
pub(super) struct Index<'a> {
    pub(super) transactions: Vec<Transaction<'a>>,
    pub(super) keys: BTreeMap<&'a str, Key<'a>>,
}

impl<'a> Index<'a> {
    /// Fails with what the method cannot judge.
    pub(super) fn new(history: &'a [Operation], level: Level) -> Result<Self, String> {
        let mut index = Self {
            transactions: Vec::with_capacity(history.len()),
            keys: BTreeMap::new(),
        };
        for (operation, line) in history.iter().enumerate() {
            let Call::Transaction { steps } = &line.call else {
                return Err(format!(
                    "operation {operation} is not a transaction; histories of a key-value store are turned into \
                     transactions first"
                ));
            };
            if let Outcome::Ok(answer) = &line.outcome {
                let fits = line.call.fits(answer);
                fits.map_err(|why| format!("operation {operation}: {why}"))?;
            }
            let (fate, steps, returned) = match &line.outcome {
                Outcome::Ok(Answer::Committed { steps }) => (Fate::Committed, steps, line.effect_by()),
                Outcome::Ok(_) => return Err(format!("operation {operation} has an answer of another kind")),
                Outcome::Fail => (Fate::Aborted, steps, line.effect_by()),
                // Where reads of what was not committed are allowed, being read says nothing.
                Outcome::Unknown if level == Level::ReadUncommitted => {
                    (Fate::Aborted, steps, line.effect_by())
                }
                Outcome::Unknown => (Fate::Open, steps, line.effect_by()),
            };
            let (process, invoke) = (line.process, line.invoke);
            if returned < invoke {
                return Err(format!("operation {operation} returns before it was asked for"));
            }
            index.transactions.push(Transaction {
                operation,
                process,
                invoke,
                returned,
                left: line.returned.unwrap_or(u64::MAX),
                fate,
                steps,
            });
            index.enter(operation)?;
        }
        for key in index.keys.values_mut() {
            key.longest = (0..key.reads.len()).max_by_key(|at| key.reads[*at].found.len());
            let longest = key.longest.map_or(&[][..], |at| key.reads[at].found);
            key.is_beginning = key
                .reads
                .iter()
                .map(|read| longest.starts_with(read.found))
                .collect();
            let aborted = |element: &String| {
                let writer = key
                    .writes
                    .get(element.as_str())
                    .map(|wrote| &index.transactions[wrote.transaction]);
                writer.is_some_and(|writer| writer.fate == Fate::Aborted)
            };
            let has_aborted = key.telling_reads().any(|read| read.found.iter().any(aborted));
            key.has_aborted = has_aborted;
        }
        index.witness();
        Ok(index)
    }

    pub(super) fn has_registers(&self) -> bool {
        self.keys.values().any(|key| key.is_register)
    }

    pub(super) fn is_aborted(&self, transaction: usize) -> bool {
        self.transactions[transaction].fate == Fate::Aborted
    }

    pub(super) fn is_committed(&self, transaction: usize) -> bool {
        self.transactions[transaction].fate == Fate::Committed
    }

    fn enter(&mut self, at: usize) -> Result<(), String> {
        let fate = self.transactions[at].fate;
        let mut touched: Vec<&str> = Vec::new();
        for step in self.transactions[at].steps {
            let (name, element) = match step {
                Step::Read { key, .. } => (key.as_str(), None),
                Step::Append { key, element } => (key.as_str(), Some(element.as_str())),
                Step::Write { key, value } => (key.as_str(), Some(value.as_str())),
            };
            let key = self.keys.entry(name).or_default();
            match step {
                Step::Read {
                    found: Some(found), ..
                } if fate == Fate::Committed => {
                    let is_external = !touched.contains(&name);
                    key.reads.push(Read {
                        transaction: at,
                        found,
                        is_external,
                    });
                }
                Step::Read { .. } => {}
                Step::Append { .. } => key.is_list = true,
                Step::Write { .. } => key.is_register = true,
            }
            touched.push(name);
            if key.is_list && key.is_register {
                return Err(format!("key {name} is used both as a list and as a register"));
            }
            if let Some(element) = element {
                let before = key.by_transaction.entry(at).or_default();
                if let Some(last) = before.last()
                    && let Some(wrote) = key.writes.get_mut(last)
                {
                    wrote.is_last = false;
                }
                before.push(element);
                let wrote = Wrote {
                    transaction: at,
                    is_last: true,
                };
                if let Some(other) = key.writes.insert(element, wrote) {
                    let other = other.transaction;
                    return Err(format!(
                        "{element} is written to {name} by operations {other} and {at}: elements must be unique"
                    ));
                }
            }
        }
        Ok(())
    }

    /// A transaction of unknown outcome of which somebody read a write has committed.
    fn witness(&mut self) {
        for key in self.keys.values() {
            for read in key.telling_reads() {
                for element in read.found {
                    if let Some(wrote) = key.writes.get(element.as_str()) {
                        let transaction = &mut self.transactions[wrote.transaction];
                        if transaction.fate == Fate::Open {
                            transaction.fate = Fate::Committed;
                        }
                    }
                }
            }
        }
    }
}
