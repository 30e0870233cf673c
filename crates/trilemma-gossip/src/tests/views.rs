//! Views of a range, read part by part, with keys of which something is deferred.

use trilemma_core::view::View;
use trilemma_core::{Entry, Incarnation, Key, KeyRange, Value, WallTime};

use super::*;
use crate::clock::Stamp;
use crate::dot::{Dot, Observed};
use crate::replica::{Item, Part};
use crate::store::Store;

fn item(origin: NodeId, seq: u64, key: &str, observed: Observed) -> Item {
    Item {
        dot: Dot::new(origin, Incarnation(1), seq),
        stamp: Stamp::at(WallTime(1000 + seq)),
        key: key.into(),
        content: Some(Value::from(format!("{origin} {seq} {:0100}", 0))),
        observed,
        part: Part { index: 0, of: 1 },
    }
}

/// Of 60 keys every third has a shadow: half of those a shadow with a value, half one that shows nothing.
fn store() -> (Store, Vec<Entry>) {
    let mut store = Store::default();
    let mut shown = Vec::new();
    for number in 0..60 {
        let key = format!("k{number:02}");
        if number % 6 != 3 {
            let before = item(N1, number + 1, &key, Observed::default());
            store.join(&before);
            let state = store.get(key.as_bytes()).expect("it exists");
            let key = Key::from(key.as_str());
            shown.push(Entry { key, state });
        }
        if number % 3 == 0 {
            let observed = store.observed(key.as_bytes());
            store.defer(&item(N2, number + 1, &key, observed));
        }
    }
    assert_eq!((store.deferred.len(), shown.len()), (20, 50));
    (store, shown)
}

fn read(mut view: impl View, keys: usize, bytes: usize) -> Vec<Entry> {
    let mut entries = Vec::new();
    loop {
        let begin = entries.len();
        let looked = view.read(keys, bytes, &mut entries);
        let part = &entries[begin..];
        let but_the_last = part.split_last().map_or(&[][..], |(_, others)| others);
        assert!(looked.keys <= keys && part.len() <= looked.keys, "{looked:?}");
        let read: usize = but_the_last.iter().map(Entry::bytes).sum();
        assert!(read < bytes, "{read} of {bytes} bytes before the last entry");
        if looked.ended {
            return entries;
        }
    }
}

#[test]
fn a_part_counts_the_keys_and_bytes_of_shadows() {
    let (store, shown) = store();
    for keys in [1, 2, 3, 7, 59, 100] {
        for bytes in [1, 300, usize::MAX] {
            let view = store.view(&KeyRange::all());
            assert_eq!(read(view, keys, bytes), shown, "{keys} keys, {bytes} bytes");
        }
    }
}

#[test]
fn a_range_begins_and_ends_at_a_shadow() {
    let (store, shown) = store();
    let range = KeyRange {
        start: "k12".into(),
        end: Some("k42".into()),
    };
    let within = shown.iter().filter(|entry| range.contains(&entry.key)).cloned();
    let within: Vec<Entry> = within.collect();
    assert_eq!(read(store.view(&range), 4, usize::MAX), within);
    let reversed = KeyRange {
        start: "k42".into(),
        end: Some("k12".into()),
    };
    assert_eq!(read(store.view(&reversed), 4, usize::MAX), []);
}

/// A repair has removed the only change of the key that the store held, while another one is deferred.
#[test]
fn a_key_that_only_its_shadow_knows_is_seen() {
    let (mut store, shown) = store();
    let deferred = store.replica.siblings(b"k06")[0].item.clone();
    let observed = store.replica.observed(b"k06");
    let later = item(N3, 70, "k06", observed);
    store.defer(&later);
    assert_eq!(
        store.replica.siblings(b"k06").len(),
        1,
        "it has replaced {deferred:?}"
    );
    store.remove(later.dot);
    assert!(store.replica.siblings(b"k06").is_empty());
    assert_eq!(read(store.view(&KeyRange::all()), 3, usize::MAX), shown);
}

/// What is replaced after the view was made is still seen in it.
#[test]
fn a_view_shows_the_moment_in_which_it_was_made() {
    let (mut store, shown) = store();
    let view = store.view(&KeyRange::all());
    let observed = store.observed(b"k06");
    store.join(&item(N1, 100, "k06", observed));
    let dots: Vec<Dot> = store.deferred.dots().iter().copied().collect();
    dots.into_iter().for_each(|dot| store.remove(dot));
    assert_eq!(store.deferred.len(), 0);
    assert_eq!(read(view, 5, 500), shown);
}
