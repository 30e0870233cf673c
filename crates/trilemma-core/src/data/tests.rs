//! Keys of all lengths against the bytes that they stand for.

use std::collections::BTreeSet;

use xxhash_rust::xxh3::Xxh3;

use super::*;
use crate::codec;

fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = Xxh3::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// What is held in a key itself and what is not must be one kind of key to everybody.
#[test]
fn keys_equal_order_and_hash_as_their_bytes_whether_they_are_short_or_long() {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for length in 0..=INLINED_MAX + 2 {
        for end in [0, 1, b'a', u8::MAX] {
            let mut bytes = vec![b'k'; length];
            bytes.push(end);
            all.push(bytes);
        }
    }
    all.push(Vec::new());
    for a in &all {
        let key = Key::from(&a[..]);
        assert_eq!(&key[..], &a[..]);
        assert_eq!(hash(&key), hash(&a[..]), "{key:?}");
        let read: Key = codec::decode(&codec::encode(&key)).unwrap();
        assert_eq!(read, key);
        for b in &all {
            let other = Key::from(b.clone());
            assert_eq!(key.cmp(&other), a.cmp(b), "{key:?} and {other:?}");
            assert_eq!(key == other, a == b);
        }
    }
    let set: BTreeSet<Key> = all.iter().map(|bytes| Key::from(&bytes[..])).collect();
    assert!(all.iter().all(|bytes| set.contains(&bytes[..])));
}

#[test]
fn a_key_is_held_in_itself_up_to_a_length() {
    let is_short = |length: usize| {
        let key = Key::from(vec![b'k'; length]);
        matches!(key.0, Inlined::Short { .. })
    };
    assert!((0..=INLINED_MAX).all(is_short));
    assert!(!is_short(INLINED_MAX + 1));
    assert!(size_of::<Key>() <= 24 && size_of::<Option<Key>>() <= 24);
}
