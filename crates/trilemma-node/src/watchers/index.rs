//! Finds the watches that a change of a key concerns, without a look at the others: single keys and prefixes are looked
//! up, and only other ranges are compared one by one, each once however many watch it.

use std::collections::{BTreeMap, BTreeSet};

use trilemma_core::{Key, KeyRange};

use super::WatchId;

type Ids = BTreeSet<WatchId>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Index {
    keys: BTreeMap<Key, Ids>,
    prefixes: BTreeMap<Key, Ids>,
    /// How many prefixes of each length there are.
    lengths: BTreeMap<usize, usize>,
    others: BTreeMap<(Key, Option<Key>), Ids>,
    len: usize,
}

/// How a range is found.
enum Kind {
    Key,
    Prefix,
    Other,
}

fn kind(range: &KeyRange) -> Kind {
    if *range == KeyRange::key(&range.start) {
        Kind::Key
    } else if *range == KeyRange::prefix(range.start.clone()) {
        Kind::Prefix
    } else {
        Kind::Other
    }
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn add(&mut self, range: &KeyRange, id: WatchId) {
        let ids = match kind(range) {
            Kind::Key => self.keys.entry(range.start.clone()).or_default(),
            Kind::Prefix => {
                if !self.prefixes.contains_key(&range.start) {
                    *self.lengths.entry(range.start.len()).or_default() += 1;
                }
                self.prefixes.entry(range.start.clone()).or_default()
            }
            Kind::Other => {
                let range = (range.start.clone(), range.end.clone());
                self.others.entry(range).or_default()
            }
        };
        self.len += usize::from(ids.insert(id));
    }

    pub(super) fn remove(&mut self, range: &KeyRange, id: WatchId) {
        let found = match kind(range) {
            Kind::Key => remove_from(&mut self.keys, &range.start, id),
            Kind::Prefix => {
                let found = remove_from(&mut self.prefixes, &range.start, id);
                if found && !self.prefixes.contains_key(&range.start) {
                    forget_length(&mut self.lengths, range.start.len());
                }
                found
            }
            Kind::Other => {
                let range = (range.start.clone(), range.end.clone());
                remove_from(&mut self.others, &range, id)
            }
        };
        self.len -= usize::from(found);
    }

    /// Takes out the watches of the ranges that this key is in.
    pub(super) fn take(&mut self, key: &Key) -> Vec<WatchId> {
        let mut taken: Vec<WatchId> = Vec::new();
        if self.len == 0 {
            return taken;
        }
        taken.extend(self.keys.remove(&key[..]).into_iter().flatten());
        let lengths: Vec<usize> = self
            .lengths
            .range(..=key.len())
            .map(|(length, _)| *length)
            .collect();
        for length in lengths {
            if let Some(ids) = self.prefixes.remove(&key[..length]) {
                forget_length(&mut self.lengths, length);
                taken.extend(ids);
            }
        }
        self.others.retain(|(start, end), ids| {
            let is_within = start <= key && end.as_ref().is_none_or(|end| key < end);
            if is_within {
                taken.extend(std::mem::take(ids));
            }
            !is_within
        });
        self.len -= taken.len();
        taken
    }

    pub(super) fn contains(&self, range: &KeyRange, id: WatchId) -> bool {
        let ids = match kind(range) {
            Kind::Key => self.keys.get(&range.start),
            Kind::Prefix => self.prefixes.get(&range.start),
            Kind::Other => self.others.get(&(range.start.clone(), range.end.clone())),
        };
        ids.is_some_and(|ids| ids.contains(&id))
    }
}

/// Whether it was there.
fn remove_from<R: Ord>(sets: &mut BTreeMap<R, Ids>, range: &R, id: WatchId) -> bool {
    let Some(ids) = sets.get_mut(range) else {
        return false;
    };
    let found = ids.remove(&id);
    if ids.is_empty() {
        sets.remove(range);
    }
    found
}

fn forget_length(lengths: &mut BTreeMap<usize, usize>, length: usize) {
    if let Some(count) = lengths.get_mut(&length) {
        *count -= 1;
        if *count == 0 {
            lengths.remove(&length);
        }
    }
}

#[cfg(test)]
mod tests;
