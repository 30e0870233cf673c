//! A state as it was at one moment, read part by part while the state goes on.

use std::ops::Bound;

use crate::data::{Key, Versioned, map_bounds};
use crate::read::{Entry, KeyRange};
use crate::tree::Tree;

/// How far a [`View::read`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    /// Keys that it looked at, those that do not exist for readers among them.
    pub keys: usize,
    /// Whether the range has no further keys.
    pub ended: bool,
}

/// The entries of a range as they were when the view was made, which costs no more than a look-up. What has been
/// replaced since stays in memory as long as the view does.
pub trait View: Send {
    /// Looks at the next keys, no more than `keys`, and adds the entries of those that exist, in key order. Stops after
    /// the entry with which they reach `bytes`, as [`Entry::bytes`] counts.
    fn read(&mut self, keys: usize, bytes: usize, entries: &mut Vec<Entry>) -> Looked;
}

impl std::fmt::Debug for dyn View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

/// Reads a whole view, or the first `limit` entries of it.
#[must_use]
pub fn read_all(mut view: Box<dyn View>, limit: usize) -> Vec<Entry> {
    let mut entries = Vec::new();
    while entries.len() < limit {
        let rest = limit - entries.len();
        if view.read(rest, usize::MAX, &mut entries).ended {
            break;
        }
    }
    entries
}

/// The bounds of some keys, as ordered maps take them.
pub type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The bounds of what of a range follows the key `after`.
#[must_use]
pub fn bounds_after<'a>(range: &'a KeyRange, after: Option<&'a Key>) -> Bounds<'a> {
    let (start, end) = map_bounds(range);
    let start = after.map_or(start, |after| Bound::Excluded(&after[..]));
    (start, end)
}

/// Looks at keys in order, with the state of those that exist for readers, as [`View::read`] says. Returns the last key
/// that it looked at, too.
pub fn look<'a>(
    found: impl Iterator<Item = (&'a Key, Option<Versioned>)>,
    keys: usize,
    bytes: usize,
    entries: &mut Vec<Entry>,
) -> (Looked, Option<&'a Key>) {
    let (mut looked, mut read, mut last) = (0, 0, None);
    for (key, state) in found {
        if looked >= keys || read >= bytes {
            let ended = false;
            return (Looked { keys: looked, ended }, last);
        }
        looked += 1;
        last = Some(key);
        if let Some(state) = state {
            let key = key.clone();
            let entry = Entry { key, state };
            read += entry.bytes();
            entries.push(entry);
        }
    }
    let ended = true;
    (Looked { keys: looked, ended }, last)
}

/// A view of a persistent map. `state` says what readers see of a key, if it exists for them.
pub struct MapView<V, F> {
    map: Tree<Key, V>,
    range: KeyRange,
    /// The last key that was looked at.
    after: Option<Key>,
    state: F,
}

impl<V, F> MapView<V, F>
where
    V: Clone + Send + Sync,
    F: Fn(&Key, &V) -> Option<Versioned> + Send,
{
    /// A view of what the map holds now.
    pub fn new(map: &Tree<Key, V>, range: &KeyRange, state: F) -> Self {
        Self {
            map: map.clone(),
            range: range.clone(),
            after: None,
            state,
        }
    }
}

impl<V, F> View for MapView<V, F>
where
    V: Clone + Send + Sync,
    F: Fn(&Key, &V) -> Option<Versioned> + Send,
{
    fn read(&mut self, keys: usize, bytes: usize, entries: &mut Vec<Entry>) -> Looked {
        let bounds = bounds_after(&self.range, self.after.as_ref());
        let found = self.map.range::<[u8]>(bounds);
        let found = found.map(|(key, value)| (key, (self.state)(key, value)));
        let (looked, last) = look(found, keys, bytes, entries);
        let last = last.cloned();
        self.after = last.or(self.after.take());
        looked
    }
}

/// The entries of a persistent map as they were when this was made, in key order. To make it costs no more than a clone,
/// however large the map is: the map's own `into_iter` gathers all leaves of the tree before the first entry. What has
/// been replaced since stays in memory as long as this does.
pub struct Frozen<K, V> {
    map: Tree<K, V>,
    /// The last key of the page.
    after: Option<K>,
    page: std::vec::IntoIter<(K, V)>,
}

impl<K, V> std::fmt::Debug for Frozen<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frozen").finish_non_exhaustive()
    }
}

impl<K: Ord + Clone, V: Clone> Frozen<K, V> {
    /// What the map holds now.
    #[must_use]
    pub fn new(map: &Tree<K, V>) -> Self {
        Self {
            map: map.clone(),
            after: None,
            page: Vec::new().into_iter(),
        }
    }
}

impl<K: Ord + Clone, V: Clone> Iterator for Frozen<K, V> {
    type Item = (K, V);

    fn next(&mut self) -> Option<(K, V)> {
        /// Entries that are looked up at once: about a leaf of the tree.
        const PAGE: usize = 32;
        if let Some(entry) = self.page.next() {
            return Some(entry);
        }
        let start = self.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let found = self.map.range::<K>((start, Bound::Unbounded)).take(PAGE);
        let page: Vec<(K, V)> = found.map(|(key, value)| (key.clone(), value.clone())).collect();
        self.after = page.last().map(|(key, _)| key.clone()).or(self.after.take());
        self.page = page.into_iter();
        self.page.next()
    }
}

#[cfg(test)]
mod tests;
