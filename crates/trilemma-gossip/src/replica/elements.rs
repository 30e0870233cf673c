//! Live changes as elements of a set that is reconciled: 16 bytes that name a change, and a check of what it says.
//!
//! The name can be read off, so that nothing has to be kept to find the change of an element; and the same name with another
//! content is another element. What a change has observed is not part of it, for that is forgotten at different times.

use trilemma_core::{Incarnation, NodeId};

use super::index::share;
use super::siblings::Sibling;
use crate::dot::Dot;
use crate::reconcile::{Element, Secret, Sketch};

/// Bits of the parts of an element, from the highest: origin, incarnation (milliseconds since 1970 until the year 4199), number,
/// and a hash of the change.
const ORIGIN_BITS: u32 = 20;
const INCARNATION_BITS: u32 = 46;
const SEQ_BITS: u32 = 40;
const HASH_BITS: u32 = 22;
const _: () = assert!(ORIGIN_BITS + INCARNATION_BITS + SEQ_BITS + HASH_BITS == u128::BITS);
/// Stands for the origin of a name that does not fit. Who finds it cannot tell what it is, and exchanges everything.
const UNNAMED: u32 = (1 << ORIGIN_BITS) - 1;

/// The element of a live change.
pub(super) fn element(sibling: &Sibling) -> Element {
    let dot = sibling.item.dot;
    let hash = u128::from(share(sibling));
    let fits =
        dot.origin.0 < UNNAMED && dot.incarnation.0 >> INCARNATION_BITS == 0 && dot.seq >> SEQ_BITS == 0;
    if !fits {
        let name = u128::from(UNNAMED) << (u128::BITS - ORIGIN_BITS);
        return Element(name | hash);
    }
    let mut bits = u128::from(dot.origin.0);
    bits = bits << INCARNATION_BITS | u128::from(dot.incarnation.0);
    bits = bits << SEQ_BITS | u128::from(dot.seq);
    Element(bits << HASH_BITS | hash & ((1 << HASH_BITS) - 1))
}

/// The change that an element names. `None` if it names none.
pub(crate) fn dot_of(element: Element) -> Option<Dot> {
    let mut bits = element.0 >> HASH_BITS;
    let mut take = |count: u32| {
        let part = bits & ((1 << count) - 1);
        bits >>= count;
        part as u64
    };
    let (seq, incarnation, origin) = (take(SEQ_BITS), take(INCARNATION_BITS), take(ORIGIN_BITS) as u32);
    (origin != UNNAMED && seq > 0).then(|| Dot::new(NodeId(origin), Incarnation(incarnation), seq))
}

/// The elements of the siblings of a key: one nearly always.
#[derive(Debug, Default)]
pub(super) struct Elements {
    first: Option<Element>,
    more: Vec<Element>,
}

impl Elements {
    pub(super) fn of(siblings: &[Sibling]) -> Self {
        let mut all = siblings.iter().map(element);
        Self {
            first: all.next(),
            more: all.collect(),
        }
    }

    /// The only one.
    fn only(&self) -> Option<Element> {
        self.first.filter(|_| self.more.is_empty())
    }

    fn iter(&self) -> impl Iterator<Item = Element> {
        self.first.into_iter().chain(self.more.iter().copied())
    }

    fn without(&self, other: &Elements) -> impl Iterator<Item = Element> {
        self.iter()
            .filter(|element| other.iter().all(|kept| kept != *element))
    }
}

/// The symbols of all live changes, pending ones not among them: those are neither in the store nor in the context.
#[derive(Clone, Debug)]
pub(super) struct Symbols {
    pub(super) sketch: Sketch,
}

impl Default for Symbols {
    fn default() -> Self {
        Self::new(Secret::default())
    }
}

impl Symbols {
    pub(super) fn new(secret: Secret) -> Self {
        Self {
            sketch: Sketch::new(secret),
        }
    }

    /// A key's siblings have become others. What stays costs nothing.
    pub(super) fn replace(&mut self, before: &Elements, now: &Elements) {
        if let (Some(old), Some(new)) = (before.only(), now.only()) {
            if old != new {
                self.sketch.replace(old, new);
            }
            return;
        }
        before
            .without(now)
            .for_each(|element| self.sketch.remove(element));
        now.without(before)
            .for_each(|element| self.sketch.insert(element));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Stamp;
    use crate::dot::Observed;
    use crate::replica::{Item, Part};

    fn sibling(dot: Dot, value: &'static str) -> Sibling {
        Sibling::new(Item {
            dot,
            stamp: Stamp(1),
            key: "k".into(),
            content: Some(value.into()),
            observed: Observed::default(),
            part: Part { index: 0, of: 1 },
        })
    }

    #[test]
    fn an_element_names_its_change() {
        let names = [
            (1, 1, 1),
            (UNNAMED - 1, (1 << INCARNATION_BITS) - 1, (1 << SEQ_BITS) - 1),
            (7, 1_700_000_000_000, 123_456_789),
        ];
        for (origin, incarnation, seq) in names {
            let dot = Dot::new(NodeId(origin), Incarnation(incarnation), seq);
            let element = element(&sibling(dot, "v"));
            assert_eq!(dot_of(element), Some(dot));
            assert_ne!(element, super::element(&sibling(dot, "w")), "another content");
        }
    }

    #[test]
    fn a_name_that_does_not_fit_is_an_element_that_names_nothing() {
        let names = [
            (UNNAMED, 1, 1),
            (u32::MAX, 1, 1),
            (1, 1 << INCARNATION_BITS, 1),
            (1, 1, 1 << SEQ_BITS),
        ];
        for (origin, incarnation, seq) in names {
            let dot = Dot::new(NodeId(origin), Incarnation(incarnation), seq);
            let element = element(&sibling(dot, "v"));
            assert_eq!(dot_of(element), None);
            assert_ne!(element, super::element(&sibling(dot, "w")));
        }
        assert_eq!(dot_of(Element(0)), None);
    }
}
