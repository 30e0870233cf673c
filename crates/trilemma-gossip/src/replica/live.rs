//! Each live change by its name, in the siblings of its key.

use std::ops::Bound;

use trilemma_core::tree::Tree;
use trilemma_core::{Incarnation, NodeId};

use super::siblings::Siblings;
use crate::dot::Dot;

/// An incarnation of an origin.
type Source = (NodeId, Incarnation);

/// A map of dots to the siblings among which they are, in the order of dots. There are few incarnations and many changes of
/// each, so that of a dot only the number is held for each change; the siblings are those that the map of seqs holds, so that
/// they cost a pointer. A clone is O(1).
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Live {
    /// No map in it is empty.
    sources: Tree<Source, Tree<u64, Siblings>>,
    length: usize,
}

impl Live {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn get(&self, dot: Dot) -> Option<&Siblings> {
        self.sources.get(&dot.source())?.get(&dot.seq)
    }

    pub(super) fn insert(&mut self, dot: Dot, siblings: Siblings) {
        let seqs = self.sources.get_or_insert_with(dot.source(), Tree::new);
        self.length += usize::from(seqs.insert(dot.seq, siblings).is_none());
    }

    pub(super) fn remove(&mut self, dot: Dot) {
        let Some(seqs) = self.sources.get_mut(&dot.source()) else {
            return;
        };
        self.length -= usize::from(seqs.remove(&dot.seq).is_some());
        if seqs.is_empty() {
            self.sources.remove(&dot.source());
        }
    }

    /// Those from `first` to `last`.
    pub(super) fn range(
        &self,
        first: Bound<Dot>,
        last: Bound<Dot>,
    ) -> impl Iterator<Item = (Dot, &Siblings)> + use<'_> {
        let sources = (widened(first), widened(last));
        let sources = self.sources.range(sources);
        sources.flat_map(move |(source, held)| {
            let (origin, incarnation) = *source;
            let seqs = (within(*source, first), within(*source, last));
            let named = move |(seq, siblings): (&u64, _)| (Dot::new(origin, incarnation, *seq), siblings);
            held.range(seqs).map(named)
        })
    }
}

/// The bound of the sources that have dots within a bound of dots.
fn widened(bound: Bound<Dot>) -> Bound<Source> {
    match bound {
        Bound::Included(dot) | Bound::Excluded(dot) => Bound::Included(dot.source()),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// The bound of numbers of a source that is within a bound of dots.
fn within(source: Source, bound: Bound<Dot>) -> Bound<u64> {
    match bound {
        Bound::Included(dot) if dot.source() == source => Bound::Included(dot.seq),
        Bound::Excluded(dot) if dot.source() == source => Bound::Excluded(dot.seq),
        _ => Bound::Unbounded,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{Item, Part, Sibling};
    use super::*;
    use crate::clock::Stamp;
    use crate::dot::Observed;

    fn siblings(dot: Dot, step: usize) -> Siblings {
        let item = Item {
            dot,
            stamp: Stamp(1),
            key: format!("key/{step}").into(),
            content: None,
            observed: Observed::default(),
            part: Part { index: 0, of: 1 },
        };
        vec![Sibling::new(item)].into()
    }

    fn bounds(dot: Dot) -> [Bound<Dot>; 3] {
        [Bound::Included(dot), Bound::Excluded(dot), Bound::Unbounded]
    }

    #[test]
    fn it_is_a_map_of_dots() {
        let all = (1..=3_u32)
            .flat_map(|node| (1..=2_u64).flat_map(move |run| (1..=3).map(move |seq| (node, run, seq))));
        let dots: Vec<Dot> = all
            .map(|(node, run, seq)| Dot::new(NodeId(node), Incarnation(run), seq))
            .collect();
        let (mut live, mut model) = (Live::default(), BTreeMap::new());
        for (step, dot) in dots.iter().chain(&dots).enumerate() {
            if step % 5 == 4 {
                live.remove(*dot);
                model.remove(dot);
            } else {
                let siblings = siblings(*dot, step);
                live.insert(*dot, siblings.clone());
                model.insert(*dot, siblings);
            }
            assert_eq!((live.len(), live.get(*dot)), (model.len(), model.get(dot)));
        }
        for (one, other) in dots
            .iter()
            .flat_map(|one| dots.iter().map(move |other| (*one, *other)))
        {
            for first in bounds(one) {
                for last in bounds(other) {
                    let found: Vec<_> = live.range(first, last).collect();
                    let is_within = |dot: &Dot| {
                        let after = match first {
                            Bound::Included(first) => *dot >= first,
                            Bound::Excluded(first) => *dot > first,
                            Bound::Unbounded => true,
                        };
                        let before = match last {
                            Bound::Included(last) => *dot <= last,
                            Bound::Excluded(last) => *dot < last,
                            Bound::Unbounded => true,
                        };
                        after && before
                    };
                    let within = model.iter().filter(|(dot, _)| is_within(dot));
                    let expected: Vec<_> = within.map(|(dot, siblings)| (*dot, siblings)).collect();
                    assert_eq!(found, expected, "{first:?} to {last:?}");
                }
            }
        }
        dots.iter().for_each(|dot| live.remove(*dot));
        assert_eq!(live, Live::default(), "nothing is left");
    }
}
