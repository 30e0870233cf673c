//! A view shows one moment, whatever its parts and however much happens between them.

use super::*;
use crate::data::Value;
use crate::id::Version;

fn versioned(version: u64) -> Versioned {
    Versioned {
        value: Value::from("v"),
        created: Version(version),
        modified: Version(version),
        lease: None,
    }
}

fn map(keys: u64) -> Tree<Key, u64> {
    let key = |number: u64| (Key::from(format!("k{number:03}")), number);
    (0..keys).map(key).collect()
}

/// Odd ones do not exist for readers.
fn even(_: &Key, number: &u64) -> Option<Versioned> {
    number.is_multiple_of(2).then(|| versioned(*number))
}

fn versions(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.state.modified.0).collect()
}

#[test]
fn parts_make_up_the_range_as_it_was() {
    for keys in [1, 2, 3, 7, 100] {
        let mut map = map(40);
        let range = KeyRange {
            start: "k005".into(),
            end: Some("k031".into()),
        };
        let mut view = MapView::new(&map, &range, even);
        let mut entries = Vec::new();
        loop {
            let Looked { keys: looked, ended } = view.read(keys, usize::MAX, &mut entries);
            assert!(looked <= keys);
            // What changes meanwhile is of another moment.
            map.insert("k010".into(), 0);
            map.remove(&b"k020"[..]);
            map.insert("k0215".into(), 2);
            if ended {
                break;
            }
        }
        let expected: Vec<u64> = (5..31).filter(|number| number % 2 == 0).collect();
        assert_eq!(versions(&entries), expected, "in parts of {keys} keys");
    }
}

#[test]
fn a_part_ends_with_the_entry_that_fills_it() {
    let mut view = MapView::new(&map(10), &KeyRange::all(), even);
    let mut entries = Vec::new();
    let looked = view.read(100, 1, &mut entries);
    assert_eq!((looked.keys, looked.ended), (1, false));
    assert_eq!(versions(&entries), [0]);
}

#[test]
fn a_reversed_range_and_an_empty_map_are_empty() {
    let reversed = KeyRange {
        start: "k9".into(),
        end: Some("k1".into()),
    };
    let view = Box::new(MapView::new(&map(10), &reversed, even));
    assert_eq!(read_all(view, 9), []);
    let view = Box::new(MapView::new(&map(0), &KeyRange::all(), even));
    assert_eq!(read_all(view, 9), []);
    let view = Box::new(MapView::new(&map(10), &KeyRange::all(), even));
    assert_eq!(versions(&read_all(view, 3)), [0, 2, 4]);
}

#[test]
fn frozen_entries_are_those_of_the_moment_in_their_order() {
    for keys in [0, 1, 31, 32, 33, 64, 200] {
        let mut map = map(keys);
        let expected: Vec<(Key, u64)> = map.iter().map(|(key, value)| (key.clone(), *value)).collect();
        let mut frozen = Frozen::new(&map);
        let first = frozen.next();
        map = Tree::new();
        map.insert(Key::from("k0005"), 7);
        let entries: Vec<(Key, u64)> = first.into_iter().chain(&mut frozen).collect();
        assert_eq!(entries, expected);
        assert_eq!(frozen.next(), None, "once ended, it has ended");
    }
}

/// Counts how often any of them is copied.
#[derive(Debug)]
struct Counted(std::rc::Rc<std::cell::Cell<usize>>);

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.0.set(self.0.get() + 1);
        Self(std::rc::Rc::clone(&self.0))
    }
}

#[test]
fn to_freeze_a_map_and_take_an_entry_copies_no_more_than_a_page() {
    let copies = std::rc::Rc::default();
    let map: Tree<u64, Counted> = (0..10_000_u64)
        .map(|key| (key, Counted(std::rc::Rc::clone(&copies))))
        .collect();
    copies.set(0);
    let mut frozen = Frozen::new(&map);
    assert_eq!(copies.get(), 0, "to freeze it costs nothing");
    assert_eq!(frozen.next().map(|(key, _)| key), Some(0));
    assert!((1..=64).contains(&copies.get()), "{} copies", copies.get());
    assert_eq!(frozen.map(|(key, _)| key).sum::<u64>(), 9_999 * 10_000 / 2);
}
