//! Dots: the permanent name of one change, and the compact set of the changes that another one has observed.
//!
//! Dotted version vectors (Preguiça et al. 2012): a change is named by its origin, the incarnation of that origin and a
//! number within that incarnation. The incarnation makes names safe against lost disks: a node that forgot its numbers
//! has a new one and can never give a name out twice (riak_kv lost data that way).

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use trilemma_core::codec::bounded_vec;
use trilemma_core::{Incarnation, NodeId};

use crate::few::Few;
use crate::signatures::Signed;

/// Most incarnations of origins in one [`Observed`]. A key written by more of them since its last stable state refuses
/// further local writes until collection has caught up.
pub const OBSERVED_MAX: usize = 4096;

/// Names one change of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// The node that made the change.
    pub origin: NodeId,
    /// The incarnation of that node in which it did.
    pub incarnation: Incarnation,
    /// Number within that incarnation, from 1.
    pub seq: u64,
}

impl Dot {
    /// The dot of these three.
    #[must_use]
    pub const fn new(origin: NodeId, incarnation: Incarnation, seq: u64) -> Self {
        Self {
            origin,
            incarnation,
            seq,
        }
    }

    /// The incarnation of its origin that gave it out.
    #[must_use]
    pub const fn source(self) -> (NodeId, Incarnation) {
        (self.origin, self.incarnation)
    }
}

impl std::fmt::Display for Dot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.origin, self.incarnation, self.seq)
    }
}

/// The earlier changes of one key that a change has observed, transitively: for each incarnation of an origin, the highest.
///
/// One number per incarnation is exact: a node's writes to one key follow each other, so what has observed a later one
/// has observed the earlier ones through it.
///
/// Most sets are empty and stay so, most of the others name one change, and each goes with its change to the store, to the
/// log and to peers: so an empty one is a word, and clones share memory. The signature of the change, which most have not
/// either, shares that word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed(Option<Arc<Held>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Held {
    Marks(Few<Dot>),
    Signed(Box<(Few<Dot>, Signed)>),
}

// With signatures off a set costs what it did without them.
const _: () = assert!(size_of::<Held>() == size_of::<Few<Dot>>());

// Each live change has one.
const _: () = assert!(size_of::<Observed>() <= 8);

impl Serialize for Observed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.marks().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Observed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bounded_vec::<_, _, OBSERVED_MAX>(deserializer).map(Self::from)
    }
}

impl From<Vec<Dot>> for Observed {
    fn from(marks: Vec<Dot>) -> Self {
        Self::of(marks, None)
    }
}

impl Observed {
    fn of(mut marks: Vec<Dot>, signed: Option<&Signed>) -> Self {
        marks.shrink_to_fit();
        Self(
            match signed {
                Some(signed) => Some(Held::Signed(Box::new((marks.into(), signed.clone())))),
                None => (!marks.is_empty()).then(|| Held::Marks(marks.into())),
            }
            .map(Arc::new),
        )
    }

    fn marks(&self) -> &[Dot] {
        match self.0.as_deref() {
            None => &[],
            Some(Held::Marks(marks)) => marks,
            Some(Held::Signed(held)) => &held.0,
        }
    }

    /// The signature of the change that has observed this.
    pub(crate) fn signed(&self) -> Option<&Signed> {
        match self.0.as_deref() {
            Some(Held::Signed(held)) => Some(&held.1),
            Some(Held::Marks(_)) | None => None,
        }
    }

    /// Keeps another signature, or none.
    pub(crate) fn set_signed(&mut self, signed: Option<&Signed>) {
        *self = Self::of(self.marks().to_vec(), signed);
    }

    /// Other marks with the same signature.
    fn with(&self, marks: Vec<Dot>) -> Self {
        Self::of(marks, self.signed())
    }

    /// Whether both name the same changes.
    pub(crate) fn is_same_set(&self, other: &Observed) -> bool {
        self.marks() == other.marks()
    }

    /// Whether nothing was observed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.marks().is_empty()
    }

    /// Number of incarnations of origins.
    #[must_use]
    pub fn len(&self) -> usize {
        self.marks().len()
    }

    /// The highest dot of each incarnation, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Dot> + '_ {
        self.marks().iter().copied()
    }

    /// Whether the change `dot` *of the same key* was observed.
    #[must_use]
    pub fn covers(&self, dot: Dot) -> bool {
        let marks = self.marks();
        let place = marks.binary_search_by_key(&dot.source(), |mark| mark.source());
        place.is_ok_and(|at| marks[at].seq >= dot.seq)
    }

    /// Adds one change.
    pub fn add(&mut self, dot: Dot) {
        let marks = self.marks();
        match marks.binary_search_by_key(&dot.source(), |mark| mark.source()) {
            Ok(at) if marks[at].seq >= dot.seq => {}
            Ok(at) => *self = self.with([&marks[..at], &[dot], &marks[at + 1..]].concat()),
            Err(at) => *self = self.with([&marks[..at], &[dot], &marks[at..]].concat()),
        }
        debug_assert!(self.covers(dot), "added and not there: {dot}");
    }

    /// Adds everything that `other` holds.
    pub fn merge(&mut self, other: &Observed) {
        if self.0.is_none() && other.signed().is_none() {
            *self = other.clone();
            return;
        }
        other.iter().for_each(|dot| self.add(dot));
    }

    /// What both this and `other` hold.
    #[must_use]
    pub fn common(&self, other: &Observed) -> Observed {
        let theirs = other.marks();
        let mark = |dot: Dot| {
            let at = theirs
                .binary_search_by_key(&dot.source(), |mark| mark.source())
                .ok()?;
            let seq = dot.seq.min(theirs[at].seq);
            Some(Dot { seq, ..dot })
        };
        self.with(self.iter().filter_map(mark).collect())
    }

    /// Forgets all changes.
    pub(crate) fn clear(&mut self) {
        *self = self.with(Vec::new());
    }

    /// Whether the list is in the order that every sender keeps. What a peer sends may not be.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let marks = self.marks();
        marks.iter().all(|dot| dot.seq > 0) && marks.is_sorted_by(|a, b| a.source() < b.source())
    }
}

#[cfg(test)]
mod tests;
