//! A state as it was at one moment, read part by part while the state goes on.

use std::ops::Bound;

use imbl::OrdMap;

use crate::data::{Key, Versioned};
use crate::read::{Entry, KeyRange};

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

/// A view of a persistent map. `state` says what readers see of a key, if it exists for them.
pub struct MapView<V, F> {
    map: OrdMap<Key, V>,
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
    pub fn new(map: &OrdMap<Key, V>, range: &KeyRange, state: F) -> Self {
        Self {
            map: map.clone(),
            range: range.clone(),
            after: None,
            state,
        }
    }

    /// The last key that was looked at.
    pub fn after(&self) -> Option<&Key> {
        self.after.as_ref()
    }
}

impl<V, F> View for MapView<V, F>
where
    V: Clone + Send + Sync,
    F: Fn(&Key, &V) -> Option<Versioned> + Send,
{
    fn read(&mut self, keys: usize, bytes: usize, entries: &mut Vec<Entry>) -> Looked {
        let (mut looked, mut read) = (0, 0);
        let mut last = None;
        let mut ended = true;
        // An ordered map panics on a reversed range, and a peer or user may send one.
        if !self.range.is_empty() {
            let start = match &self.after {
                Some(key) => Bound::Excluded(&key[..]),
                None => Bound::Included(&self.range.start[..]),
            };
            let end = match &self.range.end {
                Some(key) => Bound::Excluded(&key[..]),
                None => Bound::Unbounded,
            };
            for (key, value) in self.map.range::<_, [u8]>((start, end)) {
                if looked >= keys || read >= bytes {
                    ended = false;
                    break;
                }
                looked += 1;
                last = Some(key);
                if let Some(state) = (self.state)(key, value) {
                    let key = key.clone();
                    let entry = Entry { key, state };
                    read += entry.bytes();
                    entries.push(entry);
                }
            }
        }
        let last = last.cloned();
        self.after = last.or(self.after.take());
        Looked { keys: looked, ended }
    }
}

#[cfg(test)]
mod tests;
