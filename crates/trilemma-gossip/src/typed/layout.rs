//! Where the parts of a value lie: the keys that begin with one byte, which no key of a user does.
//!
//! ```text
//! ff  key, each 00 as 00 ff  00  data type  what names the part
//! ```
//!
//! The key is escaped, so that the parts of one value follow each other and values are in the order of their keys.

use trilemma_core::{DataType, Incarnation, Key, KeyRange, NodeId, Reason};

use super::Actor;

/// The first byte of parts. It occurs in no text, and sorts after all of them.
const RESERVED: u8 = 0xff;
/// Ends a key within the name of a part.
const END: u8 = 0;
/// Follows [`END`] where it is a byte of the key. No data type has this code.
const ESCAPED: u8 = 0xff;

/// Whether a key is a part of a value of a data type.
#[must_use]
pub fn is_part(key: &[u8]) -> bool {
    key.first() == Some(&RESERVED)
}

/// Refuses a key that users cannot name.
pub(crate) fn check_key(key: &Key) -> Result<(), Reason> {
    if is_part(key) {
        return Err(Reason::Invalid {
            what: "a key of a gossip keyspace does not begin with the byte ff, which is taken for data types"
                .into(),
        });
    }
    Ok(())
}

/// A range without parts.
pub(crate) fn plain_end(range: &KeyRange) -> KeyRange {
    let first = Key::from(&[RESERVED][..]);
    let end = range.end.clone().filter(|end| *end < first);
    KeyRange {
        start: range.start.clone(),
        end: end.or(Some(first)),
    }
}

fn base(key: &[u8]) -> Vec<u8> {
    let mut base = Vec::with_capacity(key.len() + 16);
    base.push(RESERVED);
    for byte in key {
        base.push(*byte);
        if *byte == END {
            base.push(ESCAPED);
        }
    }
    base.push(END);
    base
}

const fn code(of: DataType) -> u8 {
    match of {
        DataType::Counter => 1,
        DataType::BoundedCounter => 2,
        DataType::Set => 3,
        DataType::Map => 4,
        DataType::Maximum => 5,
        DataType::Minimum => 6,
        DataType::MultiValue => 7,
    }
}

/// The parts of all values of data types that a key holds.
pub(crate) fn all_parts(key: &[u8]) -> KeyRange {
    let start = base(key);
    let end = [&start[..], &[ESCAPED]].concat();
    KeyRange {
        start: start.into(),
        end: Some(end.into()),
    }
}

/// What the names of a value's parts begin with.
pub(crate) fn family(key: &[u8], of: DataType) -> Vec<u8> {
    let mut family = base(key);
    family.push(code(of));
    family
}

/// The part of a family that `name` names.
pub(crate) fn part(family: &[u8], name: &[u8]) -> Key {
    [family, name].concat().into()
}

/// The parts of a family whose names are in a range.
pub(crate) fn parts(family: &[u8], range: &KeyRange) -> KeyRange {
    let end = match &range.end {
        Some(end) => Some(part(family, end)),
        None => KeyRange::prefix(family.to_vec()).end,
    };
    KeyRange {
        start: part(family, &range.start),
        end,
    }
}

/// The data type of a part of `key`.
pub(crate) fn data_type(key: &[u8], part: &[u8]) -> Option<DataType> {
    let code_at = base(key).len();
    let found = part.get(code_at)?;
    DataType::ALL.into_iter().find(|of| code(*of) == *found)
}

impl Actor {
    /// What names its part.
    pub(super) fn name(self) -> [u8; 12] {
        let mut name = [0; 12];
        name[..4].copy_from_slice(&self.node.0.to_be_bytes());
        name[4..].copy_from_slice(&self.since.0.to_be_bytes());
        name
    }

    /// Whose part has this name.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        let (node, since) = name.split_first_chunk::<4>()?;
        let since = since.try_into().ok()?;
        Some(Self {
            node: NodeId(u32::from_be_bytes(*node)),
            since: Incarnation(u64::from_be_bytes(since)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_one_value_follow_each_other_in_the_order_of_keys() {
        let keys: [&[u8]; 7] = [b"a", b"a\0", b"a\0\0", b"a\0\xff", b"a\x01", b"ab", b"\xfe\xff"];
        let names: [&[u8]; 4] = [b"", b"\0", b"\xff\xff", b"x"];
        let mut all = Vec::new();
        for (place, key) in keys.iter().enumerate() {
            for of in DataType::ALL {
                for name in names {
                    all.push((part(&family(key, of), name), place, of));
                }
            }
        }
        let mut sorted = all.clone();
        sorted.sort();
        assert!(
            sorted.is_sorted_by_key(|(_, place, _)| *place),
            "in the order of keys"
        );
        for (place, key) in keys.iter().enumerate() {
            let range = all_parts(key);
            for (part, of_key, of) in &all {
                assert!(is_part(part) && !plain_end(&KeyRange::all()).contains(part));
                assert_eq!(range.contains(part), *of_key == place, "{key:?} {part:?}");
                if *of_key == place {
                    assert_eq!(data_type(key, part), Some(*of));
                    let within = parts(&family(key, *of), &KeyRange::all());
                    assert!(within.contains(part), "{part:?}");
                }
            }
        }
    }

    #[test]
    fn a_range_of_names_is_a_range_of_parts() {
        let family = family(b"k", DataType::Set);
        let range = KeyRange {
            start: "b".into(),
            end: Some("d".into()),
        };
        let within = parts(&family, &range);
        for (name, is_in) in [("a", false), ("b", true), ("cc", true), ("d", false)] {
            assert_eq!(within.contains(&part(&family, name.as_bytes())), is_in, "{name}");
        }
        let clipped = plain_end(&range);
        assert_eq!(clipped, range);
    }

    #[test]
    fn actors_are_named_by_twelve_bytes() {
        let actor = Actor {
            node: NodeId(7),
            since: Incarnation(u64::MAX - 1),
        };
        assert_eq!(Actor::named(&actor.name()), Some(actor));
        assert_eq!(Actor::named(&actor.name()[..11]), None);
        assert_eq!(Actor::named(&[0; 13]), None);
    }
}
