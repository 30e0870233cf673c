//! What values of data types read as.

use trilemma_core::datatype::Number;
use trilemma_core::view::{Looked, View};
use trilemma_core::{DataType, Entry, Key, KeyRange, Reason, Value, Versioned, codec};

use super::Actor;
use super::counter::{self, Sums};
use super::escrow::{Row, Rows};
use super::layout::{all_parts, data_type, family, parts};
use crate::message::ITEMS_MAX;
use crate::replica::{Sibling, values};
use crate::store::Store;

/// Parts that one step looks at, deleted ones among them: a few milliseconds of work.
pub(super) const LOOKED_MAX: usize = 4 * ITEMS_MAX;
/// Deleted parts that a step passes over to find out what a key holds.
const PASSED_MAX: usize = 1024;

/// What a key of this data type says to one who takes it for a plain value.
pub(super) fn holds(of: DataType) -> String {
    format!("it holds a {of}, not a plain value; use it as a {of}, or delete it first")
}

/// The number that a sibling of a maximum or minimum holds.
pub(super) fn number_of(content: &Value) -> Option<i64> {
    codec::decode(content).ok()
}

/// The contents of siblings.
fn contents(siblings: &[Sibling]) -> impl Iterator<Item = &Value> {
    siblings
        .iter()
        .filter_map(|sibling| sibling.item.content.as_ref())
}

impl Store {
    /// Whether any part of a value of a data type is in the store.
    pub(crate) fn has_parts(&self) -> bool {
        self.replica.parts() > 0 || self.deferred.len() > 0
    }

    /// The parts in a range that are there for readers. Whether these are all: it looks at `most` and finds no more than one
    /// command may change.
    pub(super) fn parts_in(&self, range: &KeyRange, most: usize) -> (Vec<Key>, bool) {
        let mut found = Vec::new();
        for (looked, (key, siblings)) in self.siblings_in(range).enumerate() {
            if looked == most || found.len() > ITEMS_MAX {
                return (found, false);
            }
            if contents(siblings).next().is_some() {
                found.push(key.clone());
            }
        }
        (found, true)
    }

    /// The first part in a range that is there for readers and that `is_left_out` does not leave out. After many that are
    /// deleted it gives up: what depends on it is a courtesy.
    pub(super) fn first_part(&self, range: &KeyRange, is_left_out: impl Fn(&Key) -> bool) -> Option<&Key> {
        let mut looked = self.siblings_in(range).take(PASSED_MAX);
        let found = looked.find(|(key, siblings)| contents(siblings).next().is_some() && !is_left_out(key));
        found.map(|(key, _)| key)
    }

    /// The data type that a key holds, if any.
    pub(super) fn held(&self, key: &Key, is_left_out: impl Fn(&Key) -> bool) -> Option<DataType> {
        let first = self.first_part(&all_parts(key), is_left_out)?;
        data_type(key, first)
    }

    /// Refuses to read a key as a plain value that holds one of a data type instead.
    pub(crate) fn check_plain(&self, key: &Key) -> Result<(), Reason> {
        if !self.has_parts() || self.get(key).is_some() {
            return Ok(());
        }
        self.held(key, |_| false).map_or(Ok(()), |of| {
            let (key, why) = (key.clone(), holds(of));
            Err(Reason::WrongType { key, why })
        })
    }

    /// Refuses to read a key as a value of a data type that holds something else instead.
    pub(crate) fn check_typed(&self, key: &Key, of: DataType) -> Result<(), Reason> {
        let all = parts(&family(key, of), &KeyRange::all());
        if self.has_parts() && self.first_part(&all, |_| false).is_some() {
            return Ok(());
        }
        let holds = if self.get(key).is_some() {
            "a plain value".to_owned()
        } else {
            match self.held(key, |_| false) {
                Some(other) => format!("a {other}"),
                None => return Ok(()),
            }
        };
        let (key, why) = (key.clone(), format!("it holds {holds}, not a {of}"));
        Err(Reason::WrongType { key, why })
    }

    /// The reading of a value that is no collection. Empty: it does not exist. Nodes that show the same parts read the same.
    pub(crate) fn reading(&self, key: &Key, of: DataType) -> Result<Vec<Entry>, Reason> {
        let family = family(key, of);
        let found = self
            .siblings_in(&parts(&family, &KeyRange::all()))
            .take(LOOKED_MAX);
        let live: Vec<(&Key, &[Sibling])> = found
            .filter(|(_, siblings)| contents(siblings).next().is_some())
            .collect();
        let siblings = live.iter().flat_map(|(_, siblings)| siblings.iter());
        let Some(version) = siblings.map(|sibling| sibling.item.stamp.version()).max() else {
            return Ok(Vec::new());
        };
        let value = match of {
            DataType::Counter => {
                let why = "it is beyond any number that is read; delete it".to_owned();
                let total = total(&live).ok_or(Reason::WrongType {
                    key: key.clone(),
                    why,
                })?;
                Number(total).to_value()
            }
            DataType::BoundedCounter => rows(&live, family.len()).reading(None).to_value(),
            DataType::Maximum | DataType::Minimum => {
                let numbers = live.iter().flat_map(|(_, siblings)| contents(siblings));
                let numbers = numbers.filter_map(number_of);
                let best = if of == DataType::Maximum {
                    numbers.max()
                } else {
                    numbers.min()
                };
                Number(best.unwrap_or_default().into()).to_value()
            }
            DataType::MultiValue => {
                let values = live.first().map(|(_, siblings)| values(key, siblings));
                return Ok(values.unwrap_or_default());
            }
            DataType::Set | DataType::Map => unreachable!("a collection is read as a range"),
        };
        let state = Versioned {
            value,
            created: version,
            modified: version,
            lease: None,
        };
        let key = key.clone();
        Ok(vec![Entry { key, state }])
    }

    /// The elements of a set or the fields of a map, with their values, in a range.
    pub(crate) fn elements(&self, key: &Key, of: DataType, range: &KeyRange) -> impl View + use<> {
        let family = family(key, of);
        let view = self.all_view(&parts(&family, range));
        Elements {
            view,
            prefix: family.len(),
        }
    }
}

/// What the parts of a counter come to.
fn total(live: &[(&Key, &[Sibling])]) -> Option<i128> {
    live.iter().try_fold(0_i128, |total, (_, siblings)| {
        let joined = counter::join(contents(siblings).filter_map(|content| Sums::decode(content)));
        total.checked_add(counter::total(&joined)?)
    })
}

/// The rows of a bounded counter, whose parts have names after so many bytes.
fn rows(live: &[(&Key, &[Sibling])], prefix: usize) -> Rows {
    let mut rows = Rows::default();
    for (part, siblings) in live {
        let all = contents(siblings).filter_map(|content| Row::decode(content));
        let row = all.reduce(|row, other| row.join(&other));
        if let (Some(row), Some(actor)) = (row, Actor::named(&part[prefix..])) {
            rows.0.insert(actor, row);
        }
    }
    rows
}

/// The parts of a collection under the names of their elements.
struct Elements<V> {
    view: V,
    prefix: usize,
}

impl<V: View> View for Elements<V> {
    fn read(&mut self, keys: usize, bytes: usize, entries: &mut Vec<Entry>) -> Looked {
        let before = entries.len();
        let looked = self.view.read(keys, bytes, entries);
        for entry in &mut entries[before..] {
            entry.key = Key::from(&entry.key[self.prefix..]);
        }
        looked
    }
}
