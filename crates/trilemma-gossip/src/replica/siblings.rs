//! The siblings of one key: which of them is read, and what becomes of them when a change comes.

use std::ops::Deref;
use std::sync::Arc;

use trilemma_core::{Entry, Key, Versioned};
use xxhash_rust::xxh3::xxh3_64;

use super::Item;
use crate::clock::Stamp;
use crate::dot::{Dot, Observed};
use crate::few::Few;
use crate::typed::is_part;

/// One sibling of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sibling {
    /// The change as it travels.
    pub item: Item,
    pub(super) hash: u64,
}

/// All siblings of a key. A clone is O(1) and shares memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Siblings(Arc<Few<Sibling>>);

// What a key costs beside its place in two maps and its value, with two counters: a keyspace holds millions of them.
const _: () = assert!(size_of::<Few<Sibling>>() <= 96);
const _: () = assert!(size_of::<Siblings>() <= 8);

impl Deref for Siblings {
    type Target = [Sibling];

    fn deref(&self) -> &[Sibling] {
        &self.0
    }
}

impl From<Vec<Sibling>> for Siblings {
    fn from(siblings: Vec<Sibling>) -> Self {
        Self(Arc::new(siblings.into()))
    }
}

impl Siblings {
    /// The key, of which each sibling says it.
    pub(super) fn key(&self) -> Option<&Key> {
        self.first().map(|sibling| &sibling.item.key)
    }

    /// The sibling of this name.
    pub(super) fn item(&self, dot: Dot) -> Option<&Item> {
        let mut items = self.iter().map(|sibling| &sibling.item);
        items.find(|item| item.dot == dot)
    }

    /// Changes them. Clones do not.
    pub(crate) fn change<T>(&mut self, change: impl FnOnce(&mut Vec<Sibling>) -> T) -> T {
        let (held, mut siblings) = match Arc::get_mut(&mut self.0) {
            Some(few) => {
                let siblings = Vec::from(std::mem::take(few));
                (Some(few), siblings)
            }
            None => (None, self.to_vec()),
        };
        let result = change(&mut siblings);
        match held {
            Some(few) => *few = siblings.into(),
            None => *self = siblings.into(),
        }
        result
    }
}

impl Sibling {
    pub(super) fn new(item: Item) -> Self {
        let hash = item.content.as_ref().map_or(0, |value| xxh3_64(value));
        Self { item, hash }
    }

    /// What decides between concurrent siblings: greater wins.
    #[must_use]
    pub fn rank(&self) -> Rank {
        (self.item.stamp, self.item.dot.origin.0, self.hash, self.item.dot)
    }

    /// The state of the key if this sibling is read; `None` for a tombstone.
    #[must_use]
    pub fn versioned(&self) -> Option<Versioned> {
        let version = self.item.stamp.version();
        self.item.content.as_ref().map(|value| Versioned {
            value: value.clone(),
            created: version,
            modified: version,
            lease: None,
        })
    }
}

/// Stamp, origin, hash of the content, name.
pub type Rank = (Stamp, u32, u64, Dot);

/// The sibling that reads see: the one with the greatest rank. It may be a tombstone; of a part of a data type only if there
/// is nothing else.
pub(crate) fn winner(siblings: &[Sibling]) -> Option<&Sibling> {
    match siblings {
        // Which most keys have.
        [only] => Some(only),
        _ => siblings.iter().max_by_key(|sibling| {
            let item = &sibling.item;
            (item.content.is_some() && is_part(&item.key), sibling.rank())
        }),
    }
}

/// The values among siblings, the winner first; none that is older than a concurrent delete.
pub(crate) fn values(key: &Key, siblings: &[Sibling]) -> Vec<Entry> {
    let mut siblings: Vec<&Sibling> = shown(siblings).collect();
    siblings.sort_by_key(|sibling| std::cmp::Reverse(sibling.rank()));
    let entry = |state| Entry {
        key: key.clone(),
        state,
    };
    siblings
        .into_iter()
        .filter_map(Sibling::versioned)
        .map(entry)
        .collect()
}

/// What a new change of a key with these siblings has observed.
pub(crate) fn observed(siblings: &[Sibling]) -> Observed {
    let mut observed = Observed::default();
    for sibling in siblings {
        observed.merge(&sibling.item.observed);
        observed.add(sibling.item.dot);
    }
    observed
}

/// Adds one change to the siblings of its key and removes those that it has observed. `false` if one of them had
/// observed it: then it is not added.
pub(crate) fn merge(siblings: &mut Vec<Sibling>, item: &Item) -> bool {
    let superseded = siblings
        .iter()
        .any(|sibling| sibling.item.observed.covers(item.dot));
    let mut item = item.clone();
    // Equal keys share their memory; most keys have one sibling.
    if let Some(other) = siblings.first() {
        item.key = other.item.key.clone();
    }
    siblings.retain(|sibling| !item.observed.covers(sibling.item.dot));
    if !superseded {
        siblings.reserve_exact(1);
        siblings.push(Sibling::new(item));
    }
    !superseded
}

/// The greatest rank of a tombstone: it hides every sibling below it, for good. A tombstone of a part of a data type hides
/// nothing: it takes away what it has observed, and that alone.
fn cut(siblings: &[Sibling]) -> Option<Rank> {
    siblings
        .iter()
        .filter(|sibling| sibling.item.content.is_none() && !is_part(&sibling.item.key))
        .map(Sibling::rank)
        .max()
}

/// Whether there is a tombstone among siblings.
pub(super) fn has_tombstone(siblings: &[Sibling]) -> bool {
    siblings.iter().any(|sibling| sibling.item.content.is_none())
}

/// Whether a tombstone hides some other sibling.
pub(super) fn hides(siblings: &[Sibling]) -> bool {
    cut(siblings).is_some_and(|cut| siblings.iter().any(|sibling| sibling.rank() < cut))
}

/// The siblings that reads can see.
pub(super) fn shown(siblings: &[Sibling]) -> impl Iterator<Item = &Sibling> {
    let cut = cut(siblings);
    siblings
        .iter()
        .filter(move |sibling| sibling.item.content.is_some() && cut.is_none_or(|cut| sibling.rank() > cut))
}
