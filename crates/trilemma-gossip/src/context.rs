//! The causal context: which changes a replica reflects.
//!
//! For each life of an origin a list of intervals: one interval from 1 is the version-vector entry, further ones are
//! the exceptions above a gap. A *floor* per origin stands for all of its lives below an incarnation, so that
//! restarts do not grow the context for ever.

use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use trilemma_core::codec::{self, bounded_vec};
use trilemma_core::{Incarnation, NodeId};

use crate::dot::Dot;

/// Most intervals that one context on the wire carries. A sender with more claims less, which only costs bytes.
pub const WIRE_INTERVALS_MAX: usize = 16_384;
/// Most origins of one context on the wire.
pub const WIRE_ORIGINS_MAX: usize = 16_384;

type Life = (NodeId, Incarnation);

/// A set of dots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Every dot of an incarnation below this is in the set.
    floors: OrdMap<NodeId, Incarnation>,
    lives: OrdMap<Life, Intervals>,
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
        self.0
            .get(self.position(seq))
            .is_some_and(|(from, _)| *from <= seq)
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
        self.floors.is_empty() && self.lives.is_empty()
    }

    /// Every incarnation of `origin` below this is wholly in the set.
    #[must_use]
    pub fn floor(&self, origin: NodeId) -> Incarnation {
        self.floors.get(&origin).copied().unwrap_or_default()
    }

    /// Whether `dot` is in the set.
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        dot.incarnation < self.floor(dot.origin)
            || self
                .lives
                .get(&dot.life())
                .is_some_and(|intervals| intervals.contains(dot.seq))
    }

    /// Whether every dot of the same life up to `dot` is in the set.
    #[must_use]
    pub fn contains_up_to(&self, dot: Dot) -> bool {
        dot.incarnation < self.floor(dot.origin)
            || self
                .lives
                .get(&dot.life())
                .is_some_and(|intervals| intervals.prefix() >= dot.seq)
    }

    /// Adds one dot.
    pub fn insert(&mut self, dot: Dot) {
        self.insert_span(dot, dot.seq);
    }

    fn insert_span(&mut self, from: Dot, to: u64) {
        if from.incarnation >= self.floor(from.origin) {
            self.lives.entry(from.life()).or_default().insert(from.seq, to);
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

    /// Number of intervals and floors: what the set costs in memory.
    #[must_use]
    pub fn intervals(&self) -> usize {
        self.floors.len()
            + self
                .lives
                .values()
                .map(|intervals| intervals.0.len())
                .sum::<usize>()
    }

    /// Adds every dot of `other`, except those in `withheld`.
    ///
    /// A withheld dot is one whose body this replica holds back (parked): covered and absent would mean deleted.
    pub fn join(&mut self, other: &Context, withheld: &std::collections::BTreeSet<Dot>) {
        for (&origin, &floor) in &other.floors {
            let lowest_withheld = withheld
                .range(Dot::new(origin, Incarnation(0), 0)..)
                .next()
                .filter(|dot| dot.origin == origin)
                .map_or(Incarnation(u64::MAX), |dot| dot.incarnation);
            self.raise_floor(origin, floor.min(lowest_withheld));
        }
        for (&(origin, incarnation), intervals) in &other.lives {
            for &(from, to) in &intervals.0 {
                let mut at = from;
                let first = Dot::new(origin, incarnation, from);
                for hole in withheld.range(first..=Dot { seq: to, ..first }) {
                    if hole.seq > at {
                        self.insert_span(Dot { seq: at, ..first }, hole.seq - 1);
                    }
                    at = hole.seq.saturating_add(1);
                }
                if at <= to && !withheld.contains(&Dot { seq: at, ..first }) {
                    self.insert_span(Dot { seq: at, ..first }, to);
                }
            }
        }
    }

    /// Adds every dot of the incarnations of `origin` below `floor`.
    pub fn raise_floor(&mut self, origin: NodeId, floor: Incarnation) {
        if floor <= self.floor(origin) {
            return;
        }
        self.floors.insert(origin, floor);
        let below: Vec<Life> = self
            .lives
            .range((origin, Incarnation(0))..(origin, floor))
            .map(|(life, _)| *life)
            .collect();
        for life in below {
            self.lives.remove(&life);
        }
    }

    /// Whether every dot of `other` is in this set.
    #[must_use]
    pub fn includes(&self, other: &Context) -> bool {
        other.minus(self).is_empty()
    }

    /// The parts of this set that may hold dots outside of `other`, as inclusive spans of dots, ascending. A span
    /// that comes from a floor can also hold dots of `other`.
    #[must_use]
    pub fn minus(&self, other: &Context) -> Vec<(Dot, Dot)> {
        let mut spans = Vec::new();
        for (&origin, &floor) in &self.floors {
            let theirs = other.floor(origin);
            if theirs < floor {
                let last = Incarnation(floor.0 - 1);
                spans.push((Dot::new(origin, theirs, 1), Dot::new(origin, last, u64::MAX)));
            }
        }
        let none = Intervals::default();
        for (&(origin, incarnation), intervals) in &self.lives {
            if incarnation < other.floor(origin) {
                continue;
            }
            let theirs = other.lives.get(&(origin, incarnation)).unwrap_or(&none);
            for (from, to) in intervals.minus(theirs) {
                spans.push((
                    Dot::new(origin, incarnation, from),
                    Dot::new(origin, incarnation, to),
                ));
            }
        }
        spans.sort_unstable();
        spans
    }

    /// The lives of `origin` that are not below its floor, ascending.
    pub fn lives(&self, origin: NodeId) -> impl Iterator<Item = Incarnation> + '_ {
        let last = (origin, Incarnation(u64::MAX));
        self.lives
            .range((origin, Incarnation(0))..=last)
            .map(|((_, incarnation), _)| *incarnation)
    }

    /// The highest dot of each life, for checks of what a peer claims.
    pub fn highest(&self) -> impl Iterator<Item = Dot> + '_ {
        self.lives
            .iter()
            .filter_map(|(&(origin, incarnation), intervals)| {
                intervals
                    .0
                    .last()
                    .map(|(_, to)| Dot::new(origin, incarnation, *to))
            })
    }

    /// The form on the wire and on disk, with at most `intervals_max` intervals: what does not fit is not claimed.
    #[must_use]
    pub fn to_wire(&self, intervals_max: usize) -> WireContext {
        let mut room = intervals_max;
        let mut lives = Vec::new();
        for (&(origin, incarnation), intervals) in &self.lives {
            let taken: Vec<(u64, u64)> = intervals.0.iter().take(room).copied().collect();
            room -= taken.len();
            if !taken.is_empty() {
                lives.push((origin, incarnation, WireIntervals(taken)));
            }
        }
        let floors = self
            .floors
            .iter()
            .map(|(origin, floor)| (*origin, *floor))
            .collect();
        WireContext { floors, lives }
    }

    /// The set that a peer or the disk describes; `None` if the description breaks its own rules.
    #[must_use]
    pub fn from_wire(wire: &WireContext) -> Option<Self> {
        let mut context = Self::default();
        for (origin, floor) in &wire.floors {
            context.raise_floor(*origin, *floor);
        }
        for (origin, incarnation, WireIntervals(intervals)) in &wire.lives {
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
}

/// A [`Context`] as it travels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireContext {
    #[serde(deserialize_with = "bounded_vec::<_, _, WIRE_ORIGINS_MAX>")]
    floors: Vec<(NodeId, Incarnation)>,
    #[serde(deserialize_with = "bounded_vec::<_, _, WIRE_INTERVALS_MAX>")]
    lives: Vec<(NodeId, Incarnation, WireIntervals)>,
}

impl WireContext {
    /// Number of intervals and floors.
    #[must_use]
    pub fn intervals(&self) -> usize {
        self.floors.len()
            + self
                .lives
                .iter()
                .map(|(_, _, intervals)| intervals.0.len())
                .sum::<usize>()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct WireIntervals(#[serde(deserialize_with = "bounded_vec::<_, _, WIRE_INTERVALS_MAX>")] Vec<(u64, u64)>);

#[cfg(test)]
mod tests;
