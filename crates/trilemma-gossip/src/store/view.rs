//! What readers see of a range: the siblings in the store, but for keys that have a shadow.

use std::cmp::Ordering;

use trilemma_core::tree::Tree;
use trilemma_core::view::{Bounds, Looked, View, bounds_after, look};
use trilemma_core::{Entry, Key, KeyRange, Versioned};

use super::Store;
use crate::deferred::Shadow;
use crate::replica::{Sibling, Siblings, winner};
use crate::typed::plain_end;

/// A range as it was at one moment.
struct StoreView {
    keys: Tree<Key, Siblings>,
    shadows: Tree<Key, Shadow>,
    range: KeyRange,
    /// The last key that was looked at.
    after: Option<Key>,
}

impl Store {
    /// A view of a range, without parts of data types.
    pub(crate) fn view(&self, range: &KeyRange) -> impl View + use<> {
        self.all_view(&plain_end(range))
    }

    /// The siblings that reads may see of each key in a range, in order.
    pub(crate) fn siblings_in<'a>(
        &'a self,
        range: &KeyRange,
    ) -> impl Iterator<Item = (&'a Key, &'a [Sibling])> + use<'a> {
        let bounds = bounds_after(range, None);
        siblings_of(self.replica.keys(), self.deferred.shadows(), bounds)
    }

    /// A view of a range with all that is in it.
    pub(crate) fn all_view(&self, range: &KeyRange) -> impl View + use<> {
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
    let all = siblings_of(keys, shadows, bounds);
    all.map(|(key, siblings)| (key, winner(siblings).and_then(Sibling::versioned)))
}

/// The same with all siblings of each.
fn siblings_of<'a>(
    keys: &'a Tree<Key, Siblings>,
    shadows: &'a Tree<Key, Shadow>,
    bounds: Bounds<'_>,
) -> impl Iterator<Item = (&'a Key, &'a [Sibling])> + use<'a> {
    let mut keys = keys.range::<[u8]>(bounds).peekable();
    let mut shadows = shadows.range::<[u8]>(bounds).peekable();
    std::iter::from_fn(move || {
        let order = match (keys.peek(), shadows.peek()) {
            (Some((key, _)), Some((shadow, _))) => key.cmp(shadow),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        if order == Ordering::Less {
            return keys.next().map(|(key, siblings)| (key, &siblings[..]));
        }
        if order == Ordering::Equal {
            keys.next();
        }
        shadows.next().map(|(key, shadow)| (key, shadow.siblings()))
    })
}
