//! A change finds those whose range it is in, and no others.

use super::*;

fn range(start: &str, end: Option<&str>) -> KeyRange {
    KeyRange {
        start: start.into(),
        end: end.map(Key::from),
    }
}

#[test]
fn a_change_finds_exactly_the_ranges_that_hold_its_key() {
    let ranges = [
        KeyRange::all(),
        KeyRange::key(&"b".into()),
        KeyRange::key(&"bb".into()),
        KeyRange::prefix("b"),
        KeyRange::prefix("bb"),
        KeyRange::prefix(&[0xff_u8][..]),
        range("a", Some("bb")),
        range("b", None),
        range("z", Some("a")),
        range("a", Some("a")),
    ];
    for key in ["a", "b", "ba", "bb", "bb\0", "bbb", "c", "z"] {
        let key = Key::from(key);
        let mut index = Index::default();
        for (id, range) in (0..).zip(&ranges) {
            index.add(range, WatchId(id));
            index.add(range, WatchId(100 + id));
        }
        let mut taken = index.take(&key);
        taken.sort();
        let within = |(id, range): (u64, &KeyRange)| range.contains(&key).then_some(WatchId(id));
        let mut expected: Vec<WatchId> = (0..).zip(&ranges).filter_map(within).collect();
        expected.extend((100..).zip(&ranges).filter_map(within));
        assert_eq!(taken, expected, "{key}");
        assert_eq!(index.len(), 2 * ranges.len() - expected.len());
        assert_eq!(index.take(&key), [], "taken is taken");
        for (id, range) in (0..).zip(&ranges) {
            assert_eq!(index.contains(range, WatchId(id)), !range.contains(&key));
            index.remove(range, WatchId(id));
            index.remove(range, WatchId(100 + id));
        }
        assert_eq!(index.len(), 0);
        assert!(index.lengths.is_empty() && index.prefixes.is_empty() && index.others.is_empty());
    }
}
