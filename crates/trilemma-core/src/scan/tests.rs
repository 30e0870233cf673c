//! A scan finds what a page in one go finds.

use super::*;
use crate::data::{Key, Versioned};
use crate::id::Version;
use crate::read::{KeyRange, page};
use crate::rng::Rng;
use crate::tree::Tree;
use crate::view::MapView;

fn state(bytes: usize) -> Versioned {
    Versioned {
        value: "v".repeat(bytes).into(),
        created: Version(1),
        modified: Version(1),
        lease: None,
    }
}

#[test]
fn a_scan_in_parts_is_the_page_in_one_go() {
    let mut rng = Rng::new(3);
    let (mut full, mut whole) = (0, 0);
    for _ in 0..300 {
        let value_max = *rng.pick(&[10, 1000, 400_000]).expect("not empty");
        let gone = rng.below(1000);
        let entries = (0..rng.below(60)).map(|key| {
            let exists = !rng.per_mille(gone as u32);
            let state = exists.then(|| state(rng.below(value_max) as usize));
            (Key::from(format!("k{key:03}")), state)
        });
        let map: Tree<Key, Option<Versioned>> = entries.collect();
        let start = format!("k{:03}", rng.below(20)).into();
        let range = KeyRange { start, end: None };
        let limit = 1 + rng.below(50) as u32;
        let query = Query::Range {
            range: range.clone(),
            limit,
        };
        let found = map.iter().filter(|(key, _)| **key >= range.start);
        let found = found.filter_map(|(key, state)| {
            let (key, state) = (key.clone(), state.clone()?);
            Some(Entry { key, state })
        });
        let expected = page(&query, found);
        let view = MapView::new(&map, &range, |_, state: &Option<Versioned>| state.clone());
        let mut scan = Scan::new(Box::new(view), &query);
        let slice = 1 + rng.below(10) as usize;
        let mut slices = 0;
        loop {
            let mut keys = slice;
            if scan.read(&mut keys) {
                break;
            }
            assert_eq!(keys, 0, "a slice is used up");
            slices += 1;
            assert!(slices <= map.len() + 1, "a scan makes progress");
        }
        full += usize::from(expected.1);
        whole += usize::from(!expected.1);
        assert_eq!(scan.finish(), expected);
    }
    assert!(full > 50 && whole > 50, "{full} {whole}");
}
