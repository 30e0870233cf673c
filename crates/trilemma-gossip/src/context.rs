//! The causal context: which changes a replica reflects.
//!
//! For each incarnation of an origin a list of intervals: one interval from 1 is the version-vector entry, further ones
//! are the exceptions above a gap. Incarnations that are wholly in the set are *closed*: one interval of incarnation
//! numbers stands for all that follow each other, so that restarts do not grow the context.
//!
//! **Who may close.** Only the origin can know that nothing of an incarnation is missing: others may agree on what they
//! have seen, and a member that is cut off may have seen more. The origin knows it for the incarnations that its present
//! disk has lived through, where every change was synced before it left. A disk that was lost ends such a row for good:
//! what it held may be known elsewhere and not here. So a context costs a few numbers for each *disk*, not for each start.

mod agreed;

use serde::{Deserialize, Serialize};
use trilemma_core::codec::{self, bounded_vec};
use trilemma_core::tree::Tree;
use trilemma_core::{Incarnation, NodeId};

use crate::dot::Dot;

/// Most intervals that one context on the wire carries. A sender with more claims less, which only costs bytes.
pub const WIRE_INTERVALS_MAX: usize = 16_384;
/// Most turns between open and closed of one context on the wire.
pub const WIRE_TURNS_MAX: usize = 16_384;

/// An incarnation of an origin.
type Source = (NodeId, Incarnation);

/// A set of dots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The numbers of the incarnations that are wholly in the set.
    closed: Tree<NodeId, Intervals>,
    /// The others.
    open: Tree<Source, Intervals>,
}

/// Sorted, disjoint, not adjacent, inclusive intervals of numbers from 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Intervals(Vec<(u64, u64)>);

impl Intervals {
    /// Position of the first interval that ends at `seq` or later.
    fn position(&self, seq: u64) -> usize {
        self.0.partition_point(|(_, to)| *to < seq)
    }

    fn contains(&self, seq: u64) -> bool {
        self.contains_span(seq, seq)
    }

    fn contains_span(&self, from: u64, to: u64) -> bool {
        let interval = self.0.get(self.position(from));
        interval.is_some_and(|(first, last)| *first <= from && to <= *last)
    }

    fn insert(&mut self, from: u64, to: u64) {
        debug_assert!(0 < from && from <= to, "interval {from}..={to}");
        // Everything that overlaps or touches [from, to] becomes one interval with it.
        let first = self.position(from.saturating_sub(1));
        let after = self
            .0
            .partition_point(|(start, _)| *start <= to.saturating_add(1));
        if first >= after {
            self.0.insert(first, (from, to));
            return;
        }
        let merged = (from.min(self.0[first].0), to.max(self.0[after - 1].1));
        self.0[first] = merged;
        self.0.drain(first + 1..after);
    }

    /// What is in `self` and not in `other`.
    fn minus(&self, other: &Intervals) -> Vec<(u64, u64)> {
        let mut rest = Vec::new();
        for &(from, to) in &self.0 {
            let mut at = from;
            for &(start, end) in &other.0[other.position(from)..] {
                if start > to {
                    break;
                }
                if start > at {
                    rest.push((at, start - 1));
                }
                at = end.saturating_add(1);
                if at > to {
                    break;
                }
            }
            // An interval that ends at the greatest number leaves nothing behind it.
            if at <= to && !other.contains(at) {
                rest.push((at, to));
            }
        }
        rest
    }

    fn prefix(&self) -> u64 {
        self.0
            .first()
            .filter(|(from, _)| *from == 1)
            .map_or(0, |(_, to)| *to)
    }
}

impl Context {
    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.open.is_empty()
    }

    /// Whether every dot of this incarnation of `origin` is in the set.
    #[must_use]
    pub fn is_closed(&self, origin: NodeId, incarnation: Incarnation) -> bool {
        self.closed
            .get(&origin)
            .is_some_and(|closed| closed.contains(incarnation.0))
    }

    /// The highest incarnation of `origin` that is wholly in the set.
    #[must_use]
    pub fn last_closed(&self, origin: NodeId) -> Option<Incarnation> {
        let (_, last) = self.closed.get(&origin)?.0.last()?;
        Some(Incarnation(*last))
    }

    /// Whether `dot` is in the set.
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        self.open
            .get(&dot.source())
            .is_some_and(|intervals| intervals.contains(dot.seq))
            || self.is_closed(dot.origin, dot.incarnation)
    }

    /// Whether `dot` and those that follow it up to number `to` are in the set.
    #[must_use]
    pub fn contains_span(&self, dot: Dot, to: u64) -> bool {
        self.open
            .get(&dot.source())
            .is_some_and(|intervals| intervals.contains_span(dot.seq, to))
            || self.is_closed(dot.origin, dot.incarnation)
    }

    /// Whether every dot of the same incarnation up to `dot` is in the set.
    #[must_use]
    pub fn contains_up_to(&self, dot: Dot) -> bool {
        self.open
            .get(&dot.source())
            .is_some_and(|intervals| intervals.prefix() >= dot.seq)
            || self.is_closed(dot.origin, dot.incarnation)
    }

    /// Adds one dot.
    pub fn insert(&mut self, dot: Dot) {
        debug_assert!(dot.seq > 0, "numbers of changes begin at 1: {dot}");
        self.insert_span(dot, dot.seq);
    }

    fn insert_span(&mut self, from: Dot, to: u64) {
        if !self.is_closed(from.origin, from.incarnation) {
            let intervals = self.open.get_or_insert_with(from.source(), Intervals::default);
            intervals.insert(from.seq, to);
        }
    }

    /// Whether adding `dot` would open a new interval instead of growing one.
    #[must_use]
    pub fn would_fragment(&self, dot: Dot) -> bool {
        if self.contains(dot) || dot.seq == 1 {
            return false;
        }
        let near = |seq: u64| self.contains(Dot { seq, ..dot });
        !near(dot.seq - 1) && !near(dot.seq.saturating_add(1))
    }

    /// Number of intervals: what the set costs in memory.
    #[must_use]
    pub fn intervals(&self) -> usize {
        let all = self.closed.values().chain(self.open.values());
        all.map(|intervals| intervals.0.len()).sum()
    }

    /// Adds every dot of `other`.
    pub fn join(&mut self, other: &Context) {
        for (&origin, closed) in &other.closed {
            for &(from, to) in &closed.0 {
                self.close(origin, Incarnation(from), Incarnation(to.saturating_add(1)));
            }
        }
        for (&(origin, incarnation), intervals) in &other.open {
            for &(from, to) in &intervals.0 {
                self.insert_span(Dot::new(origin, incarnation, from), to);
            }
        }
        debug_assert!(self.includes(other), "a join that leaves out what it joins");
    }

    /// Adds every dot of the incarnations of `origin` from `from` on and below `end`.
    pub fn close(&mut self, origin: NodeId, from: Incarnation, end: Incarnation) {
        // No node starts with incarnation 0.
        let from = Incarnation(from.0.max(1));
        if from >= end {
            return;
        }
        let intervals = self.closed.get_or_insert_with(origin, Intervals::default);
        intervals.insert(from.0, end.0 - 1);
        let within: Vec<Source> = self
            .open
            .range((origin, from)..(origin, end))
            .map(|(source, _)| *source)
            .collect();
        for source in within {
            self.open.remove(&source);
        }
        debug_assert!(
            self.is_closed(origin, from),
            "closed and not closed: {origin} {from}"
        );
    }

    /// Whether every dot of `other` is in this set.
    #[must_use]
    pub fn includes(&self, other: &Context) -> bool {
        other.minus(self).is_empty()
    }

    /// The parts of this set that may hold dots outside of `other`, as inclusive spans of dots, ascending. A span
    /// of closed incarnations can also hold dots of `other`.
    #[must_use]
    pub fn minus(&self, other: &Context) -> Vec<(Dot, Dot)> {
        let none = Intervals::default();
        let mut spans = Vec::new();
        for (&origin, closed) in &self.closed {
            for (from, to) in closed.minus(other.closed.get(&origin).unwrap_or(&none)) {
                let first = Dot::new(origin, Incarnation(from), 1);
                spans.push((first, Dot::new(origin, Incarnation(to), u64::MAX)));
            }
        }
        for (&(origin, incarnation), intervals) in &self.open {
            if other.is_closed(origin, incarnation) {
                continue;
            }
            let theirs = other.open.get(&(origin, incarnation)).unwrap_or(&none);
            for (from, to) in intervals.minus(theirs) {
                let first = Dot::new(origin, incarnation, from);
                spans.push((first, Dot { seq: to, ..first }));
            }
        }
        spans.sort_unstable();
        // The scan of live changes goes forward only.
        debug_assert!(
            spans.windows(2).all(|pair| pair[0].1 < pair[1].0),
            "spans overlap: {spans:?}"
        );
        spans
    }

    /// The incarnations of `origin` that are not closed, ascending.
    pub fn open(&self, origin: NodeId) -> impl Iterator<Item = Incarnation> + '_ {
        let last = (origin, Incarnation(u64::MAX));
        self.open
            .range((origin, Incarnation(0))..=last)
            .map(|((_, incarnation), _)| *incarnation)
    }

    /// The highest dot of each incarnation that is not closed, for checks of what a peer claims.
    pub fn highest(&self) -> impl Iterator<Item = Dot> + '_ {
        self.open
            .iter()
            .filter_map(|(&(origin, incarnation), intervals)| {
                let (_, to) = intervals.0.last()?;
                Some(Dot::new(origin, incarnation, *to))
            })
    }

    /// The form on the wire and on disk, with at most `intervals_max` intervals of open incarnations: what does not fit
    /// is not claimed.
    #[must_use]
    pub fn to_wire(&self, intervals_max: usize) -> WireContext {
        let mut room = intervals_max;
        let mut open = Vec::new();
        for (&(origin, incarnation), intervals) in &self.open {
            let taken: Vec<(u64, u64)> = intervals.0.iter().take(room).copied().collect();
            room -= taken.len();
            if !taken.is_empty() {
                open.push((origin, incarnation, WireIntervals(taken)));
            }
        }
        let turns_max = intervals_max.max(WIRE_TURNS_MAX);
        let mut turns = Vec::new();
        for (&origin, closed) in &self.closed {
            if turns.len() + 2 * closed.0.len() > turns_max {
                continue;
            }
            for &(from, to) in &closed.0 {
                // What is closed from the first incarnation on begins without a turn.
                if from > 1 {
                    turns.push((origin, Incarnation(from)));
                }
                turns.push((origin, Incarnation(to.saturating_add(1))));
            }
        }
        debug_assert!(
            turns.is_sorted_by(|a, b| a < b),
            "no peer would read this: {turns:?}"
        );
        WireContext { turns, open }
    }

    /// The set that a peer or the disk describes; `None` if the description breaks its own rules.
    #[must_use]
    pub fn from_wire(wire: &WireContext) -> Option<Self> {
        if !wire.turns.is_sorted_by(|a, b| a < b) {
            return None;
        }
        let mut context = Self::default();
        for turns in wire.turns.chunk_by(|(a, _), (b, _)| a == b) {
            let origin = turns[0].0;
            let (first, pairs) = turns.split_at(turns.len() % 2);
            if let [(_, end)] = first {
                context.close(origin, Incarnation(1), *end);
            }
            for pair in pairs.chunks_exact(2) {
                context.close(origin, pair[0].1, pair[1].1);
            }
        }
        for (origin, incarnation, WireIntervals(intervals)) in &wire.open {
            let sorted = intervals.is_sorted_by(|a, b| a.1 < b.0);
            let proper = intervals.iter().all(|(from, to)| 0 < *from && from <= to);
            if !sorted || !proper {
                return None;
            }
            for (from, to) in intervals {
                context.insert_span(Dot::new(*origin, *incarnation, *from), *to);
            }
        }
        Some(context)
    }

    /// A hash of the set: equal for equal sets.
    #[must_use]
    pub fn hash(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&codec::encode_vec(&self.to_wire(usize::MAX)))
    }

    /// The set's own invariants.
    pub(crate) fn check(&self) {
        let is_proper = |intervals: &Intervals| {
            let rows = &intervals.0;
            let apart = rows
                .windows(2)
                .all(|pair| pair[0].1.saturating_add(1) < pair[1].0);
            !rows.is_empty() && apart && rows.iter().all(|(from, to)| 0 < *from && from <= to)
        };
        debug_assert!(
            self.closed.values().all(is_proper),
            "closed incarnations out of order: {self:?}"
        );
        debug_assert!(
            self.open.values().all(is_proper),
            "intervals out of order: {self:?}"
        );
        let mut open = self.open.keys();
        debug_assert!(
            open.all(|(origin, incarnation)| !self.is_closed(*origin, *incarnation)),
            "an incarnation is both open and closed: {self:?}"
        );
    }
}

/// A [`Context`] as it travels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireContext {
    /// For each origin the incarnations at which *closed* begins or ends, ascending; the last one always ends it. So one
    /// alone closes all incarnations below it.
    #[serde(deserialize_with = "bounded_vec::<_, _, WIRE_TURNS_MAX>")]
    turns: Vec<(NodeId, Incarnation)>,
    #[serde(deserialize_with = "bounded_vec::<_, _, WIRE_INTERVALS_MAX>")]
    open: Vec<(NodeId, Incarnation, WireIntervals)>,
}

impl WireContext {
    /// Number of intervals, and of turns between open and closed.
    #[must_use]
    pub fn intervals(&self) -> usize {
        let open = self.open.iter().map(|(_, _, intervals)| intervals.0.len());
        self.turns.len() + open.sum::<usize>()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct WireIntervals(#[serde(deserialize_with = "bounded_vec::<_, _, WIRE_INTERVALS_MAX>")] Vec<(u64, u64)>);

#[cfg(test)]
mod tests;
