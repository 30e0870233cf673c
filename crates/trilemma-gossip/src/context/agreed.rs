//! What several contexts have in common, for keyspaces in which the word of one node is not enough.

use std::collections::BTreeSet;

use trilemma_core::{Incarnation, NodeId};

use super::{Context, Intervals, Source};
use crate::dot::Dot;

impl Intervals {
    /// The numbers that at least `needed` of these lists hold.
    fn held_by<'a>(lists: impl Iterator<Item = &'a Intervals>, needed: usize) -> Vec<(u64, u64)> {
        debug_assert!(needed > 0, "what nobody holds");
        // Where one interval ends and another begins, the beginning comes first: the number is in both.
        let mut edges: Vec<(u64, bool)> = lists
            .flat_map(|list| list.0.iter())
            .flat_map(|&(from, to)| [(from, false), (to, true)])
            .collect();
        edges.sort_unstable();
        let (mut holders, mut since, mut held) = (0, 0, Vec::new());
        for (number, is_end) in edges {
            if is_end {
                if holders == needed {
                    held.push((since, number));
                }
                holders -= 1;
            } else {
                holders += 1;
                if holders == needed {
                    since = number;
                }
            }
        }
        held
    }

    fn remove(&mut self, seq: u64) {
        let at = self.position(seq);
        let Some(&(from, to)) = self.0.get(at).filter(|(from, _)| *from <= seq) else {
            return;
        };
        let before = (from < seq).then(|| (from, seq - 1));
        let after = (seq < to).then(|| (seq + 1, to));
        self.0.splice(at..=at, before.into_iter().chain(after));
    }
}

impl Context {
    /// The dots that at least `needed` of these sets hold.
    #[must_use]
    pub fn agreed(contexts: &[&Context], needed: usize) -> Context {
        let mut agreed = Context::default();
        let needed = needed.max(1);
        let origins: BTreeSet<NodeId> = contexts
            .iter()
            .flat_map(|context| context.closed.keys())
            .copied()
            .collect();
        for origin in origins {
            let lists = contexts.iter().filter_map(|context| context.closed.get(&origin));
            for (from, to) in Intervals::held_by(lists, needed) {
                agreed.close(origin, Incarnation(from), Incarnation(to.saturating_add(1)));
            }
        }
        let sources: BTreeSet<Source> = contexts
            .iter()
            .flat_map(|context| context.open.keys())
            .copied()
            .collect();
        for source in sources {
            let (origin, incarnation) = source;
            let whole = contexts
                .iter()
                .filter(|context| context.is_closed(origin, incarnation))
                .count();
            let lists = contexts.iter().filter_map(|context| context.open.get(&source));
            // Where enough hold the whole incarnation, it is closed already.
            let more = needed.saturating_sub(whole);
            let spans = if more > 0 {
                Intervals::held_by(lists, more)
            } else {
                Vec::new()
            };
            for (from, to) in spans {
                agreed.insert_span(Dot::new(origin, incarnation, from), to);
            }
        }
        agreed
    }

    /// The dots of one origin.
    #[must_use]
    pub fn of(&self, origin: NodeId) -> Context {
        let closed = self.closed.get(&origin).map(|closed| (origin, closed.clone()));
        let open = self
            .open
            .range((origin, Incarnation(0))..=(origin, Incarnation(u64::MAX)));
        Context {
            closed: closed.into_iter().collect(),
            open: open
                .map(|(source, intervals)| (*source, intervals.clone()))
                .collect(),
        }
    }

    /// This set without some dots. Of an incarnation that was wholly in it and holds such a dot, nothing is left: to claim
    /// less costs bytes only.
    #[must_use]
    pub fn without(&self, dots: impl IntoIterator<Item = Dot>) -> Context {
        let mut rest = self.clone();
        for dot in dots {
            if let Some(intervals) = rest.open.get_mut(&dot.source()) {
                intervals.remove(dot.seq);
                if intervals.0.is_empty() {
                    rest.open.remove(&dot.source());
                }
            }
            if let Some(closed) = rest.closed.get_mut(&dot.origin) {
                closed.remove(dot.incarnation.0);
                if closed.0.is_empty() {
                    rest.closed.remove(&dot.origin);
                }
            }
            debug_assert!(!rest.contains(dot), "{dot} is still in the set");
        }
        rest
    }
}
