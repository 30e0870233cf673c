//! What readers see of a range: the siblings in the store, but for keys that have a shadow.

use std::cmp::Ordering;

use trilemma_core::tree::Tree;
use trilemma_core::view::{Bounds, Looked, View, bounds_after, look};
use trilemma_core::{Entry, Key, KeyRange, Versioned};

use super::Store;
use crate::deferred::Shadow;
use crate::replica::{Sibling, Siblings, winner};

/// A range as it was at one moment.
struct StoreView {
    keys: Tree<Key, Siblings>,
    shadows: Tree<Key, Shadow>,
    range: KeyRange,
    /// The last key that was looked at.
    after: Option<Key>,
}

impl Store {
    /// A view of a range.
    pub(crate) fn view(&self, range: &KeyRange) -> impl View + use<> {
        StoreView {
            keys: self.replica.keys().clone(),
            shadows: self.deferred.shadows().clone(),
            range: range.clone(),
            after: None,
        }
    }
}

impl View for StoreView {
    fn read(&mut self, keys: usize, bytes: usize, entries: &mut Vec<Entry>) -> Looked {
        let bounds = bounds_after(&self.range, self.after.as_ref());
        let found = shown(&self.keys, &self.shadows, bounds);
        let (looked, last) = look(found, keys, bytes, entries);
        let last = last.cloned();
        self.after = last.or(self.after.take());
        looked
    }
}

/// The keys within some bounds, in order, with what readers see of each. A shadow stands for the key in the store, where a
/// key that has one may be missing.
fn shown<'a>(
    keys: &'a Tree<Key, Siblings>,
    shadows: &'a Tree<Key, Shadow>,
    bounds: Bounds<'_>,
) -> impl Iterator<Item = (&'a Key, Option<Versioned>)> + use<'a> {
    let mut keys = keys.range::<[u8]>(bounds).peekable();
    let mut shadows = shadows.range::<[u8]>(bounds).peekable();
    std::iter::from_fn(move || {
        let order = match (keys.peek(), shadows.peek()) {
            (Some((key, _)), Some((shadow, _))) => key.cmp(shadow),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let (key, siblings): (&Key, &[Sibling]) = if order == Ordering::Less {
            keys.next().map(|(key, siblings)| (key, &siblings[..]))?
        } else {
            if order == Ordering::Equal {
                keys.next();
            }
            shadows.next().map(|(key, shadow)| (key, shadow.siblings()))?
        };
        Some((key, winner(siblings).and_then(Sibling::versioned)))
    })
}
