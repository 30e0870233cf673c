//! Limits of queries and bounds of ranges.

use super::*;
use crate::codec;

fn key(bytes: usize) -> Key {
    Key::from(vec![b'k'; bytes])
}

#[test]
fn queries_have_the_limits_of_keys() {
    for size in [1, KEY_BYTES_MAX] {
        assert_eq!(Query::Get(key(size)).validate(), Ok(()));
        assert_eq!(Query::Siblings(key(size)).validate(), Ok(()));
    }
    for size in [0, KEY_BYTES_MAX + 1] {
        assert!(Query::Get(key(size)).validate().is_err());
        assert!(Query::Siblings(key(size)).validate().is_err());
    }
    let range = |range: KeyRange| Query::Range { range, limit: 0 }.validate();
    assert_eq!(range(KeyRange::all()), Ok(()));
    assert_eq!(range(KeyRange::key(&key(KEY_BYTES_MAX))), Ok(()));
    let limit = KEY_BYTES_MAX as u64;
    match range(KeyRange::prefix(key(5000))) {
        Err(Reason::TooLarge {
            size, limit: named, ..
        }) => assert_eq!((size, named), (5000, limit)),
        other => panic!("{other:?}"),
    }
}

/// The second page of a range begins directly after the last key of the first, however long that is.
#[test]
fn what_follows_the_longest_key_can_be_sent() {
    let longest = key(KEY_BYTES_MAX);
    let range = KeyRange::key(&longest);
    assert_eq!(
        codec::decode::<KeyRange>(&codec::encode(&range)),
        Ok(range.clone())
    );
    let rest = KeyRange {
        start: range.end.clone().expect("a key has a next one"),
        end: None,
    };
    assert_eq!(codec::decode::<KeyRange>(&codec::encode(&rest)), Ok(rest.clone()));
    let longer = KeyRange::key(&key(KEY_BYTES_MAX + 1));
    assert!(codec::decode::<KeyRange>(&codec::encode(&longer)).is_err());
}
