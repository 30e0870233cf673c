//! What follows from the siblings of all keys: which changes are live, and figures.

use trilemma_core::tree::Tree;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::live::Live;
use super::siblings::{Sibling, Siblings, shown, winner};
use crate::dot::Dot;
use crate::typed::is_part;

/// See the module. A clone is O(1).
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Index {
    /// The live changes, by name.
    pub(super) live: Live,
    /// Live changes that collection can still do something for.
    pub(super) uncollected: Tree<Dot, ()>,
    /// Keys that exist for readers, parts of data types not among them.
    pub(super) visible: u64,
    /// Parts of data types.
    pub(super) parts: u64,
    /// Keys with more than one sibling.
    pub(super) contested: u64,
    /// A sum over all that reads can see.
    pub(super) digest: u64,
}

impl Index {
    /// Adds a key with these siblings.
    pub(super) fn add(&mut self, siblings: &Siblings) {
        self.visible += is_visible(siblings);
        self.parts += holds_part(siblings);
        self.contested += u64::from(siblings.len() > 1);
        for share in shares(siblings) {
            self.digest = self.digest.wrapping_add(share);
        }
        for Sibling { item, .. } in siblings.iter() {
            self.live.insert(item.dot, siblings.clone());
            if item.is_uncollected() {
                self.uncollected.insert(item.dot, ());
            }
        }
    }

    /// Takes out a key with these siblings.
    pub(super) fn remove(&mut self, siblings: &[Sibling]) {
        self.visible -= is_visible(siblings);
        self.parts -= holds_part(siblings);
        self.contested -= u64::from(siblings.len() > 1);
        for share in shares(siblings) {
            self.digest = self.digest.wrapping_sub(share);
        }
        for Sibling { item, .. } in siblings {
            self.live.remove(item.dot);
            if item.is_uncollected() {
                self.uncollected.remove(&item.dot);
            }
        }
    }
}

fn is_visible(siblings: &[Sibling]) -> u64 {
    let exists = winner(siblings).is_some_and(|winner| winner.item.content.is_some());
    u64::from(exists) - u64::from(exists) * holds_part(siblings)
}

fn holds_part(siblings: &[Sibling]) -> u64 {
    u64::from(siblings.first().is_some_and(|sibling| is_part(&sibling.item.key)))
}

/// What each visible sibling adds to the digest. Sums of hashes, so that order does not matter.
fn shares(siblings: &[Sibling]) -> impl Iterator<Item = u64> {
    shown(siblings).map(share)
}

/// A hash of the change, with its name.
pub(super) fn share(sibling: &Sibling) -> u64 {
    const WORDS: usize = 5;
    const SHORT: usize = 256;
    let (dot, key) = (sibling.item.dot, &sibling.item.key);
    let words: [u64; WORDS] = [
        u64::from(dot.origin.0),
        dot.incarnation.0,
        dot.seq,
        sibling.item.stamp.0,
        sibling.hash,
    ];
    let words = words.map(u64::to_le_bytes);
    let words = words.as_flattened();
    let length = words.len() + key.len();
    if length > SHORT {
        let mut hasher = Xxh3::new();
        hasher.update(words);
        hasher.update(key);
        return hasher.digest();
    }
    // In one piece it costs a fraction.
    let mut bytes = [0; SHORT];
    bytes[..words.len()].copy_from_slice(words);
    bytes[words.len()..length].copy_from_slice(key);
    xxh3_64(&bytes[..length])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Stamp;
    use crate::dot::Observed;
    use crate::replica::{Item, Part};

    #[test]
    fn a_share_is_the_hash_of_all_that_it_stands_for() {
        for length in [1, 40, 215, 216, 217, 4096] {
            let item = Item {
                dot: Dot::new(trilemma_core::NodeId(1), trilemma_core::Incarnation(2), 3),
                stamp: Stamp(4),
                key: "k".repeat(length).into(),
                content: Some("v".into()),
                observed: Observed::default(),
                part: Part { index: 0, of: 1 },
            };
            let sibling = Sibling::new(item);
            let mut hasher = Xxh3::new();
            for word in [1, 2, 3, 4, sibling.hash] {
                hasher.update(&u64::to_le_bytes(word));
            }
            hasher.update(&sibling.item.key);
            assert_eq!(share(&sibling), hasher.digest(), "a key of {length} bytes");
        }
    }
}
