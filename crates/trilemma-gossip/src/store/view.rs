//! What readers see of a range, as it was at one moment: the winners of the store, but for keys that have a shadow.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::vec;

use trilemma_core::view::{Looked, MapView, View};
use trilemma_core::{Entry, Key, KeyRange, Versioned};

use super::Store;
use crate::replica::{Siblings, winner};

/// See the module. The shadows are few: what is deferred is limited.
struct StoreView<F> {
    plain: MapView<Siblings, F>,
    shadows: Peekable<vec::IntoIter<Entry>>,
}

impl Store {
    /// A view of a range.
    pub(crate) fn view(&self, range: &KeyRange) -> impl View + use<> {
        let shadowed = self.deferred.keys().filter(|key| range.contains(key));
        let shadowed: BTreeSet<Key> = shadowed.cloned().collect();
        let entry = |key: &Key| {
            let (key, state) = (key.clone(), self.get(key)?);
            Some(Entry { key, state })
        };
        let shadows: Vec<Entry> = shadowed.iter().filter_map(entry).collect();
        let plain = self.replica.view(range, move |key, siblings| {
            let is_plain = !shadowed.contains(key);
            is_plain.then(|| winner(siblings)?.versioned()).flatten()
        });
        StoreView {
            plain,
            shadows: shadows.into_iter().peekable(),
        }
    }
}

impl<F> View for StoreView<F>
where
    F: Fn(&Key, &Siblings) -> Option<Versioned> + Send,
{
    fn read(&mut self, keys: usize, bytes: usize, entries: &mut Vec<Entry>) -> Looked {
        let begin = entries.len();
        let looked = self.plain.read(keys, bytes, entries);
        let after = self.plain.after();
        let is_due = |shadow: &Entry| looked.ended || after.is_some_and(|after| shadow.key <= *after);
        while let Some(shadow) = self.shadows.next_if(is_due) {
            entries.push(shadow);
        }
        entries[begin..].sort_by(|a, b| a.key.cmp(&b.key));
        looked
    }
}
