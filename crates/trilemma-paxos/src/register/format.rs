//! The bytes of a register: on the wire, in records and in checkpoints.
//!
//! What follows the version begins with a number: 2, without a value, or 3, with one. Registers that were stored before
//! they had floors have 0 or 1 there, and are still read. 4 begins what makes a register of another, where that may stand.

use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use trilemma_core::codec::bounded_vec;
use trilemma_core::session::OpResult;
use trilemma_core::{Corrupt, OpId, Version, Versioned};

use super::{Change, FLOORS_MAX, Floor, Keep, PROPOSERS_MAX, Proposed, RECENT_MAX, Recent, Register};
use crate::ballot::Ballot;

const ABSENT: u8 = 2;
const PRESENT: u8 = 3;
pub(super) const CHANGED: u8 = 4;

/// A register, or what makes it of another, as it is read.
#[derive(Deserialize)]
pub(super) struct Stored {
    version: Version,
    body: Body,
}

#[derive(Deserialize)]
enum Body {
    FormerAbsent(Former),
    FormerPresent(Versioned, Former),
    Absent(Rest),
    Present(Versioned, Rest),
    Changed(Changed),
}

#[derive(Deserialize)]
struct Rest {
    #[serde(deserialize_with = "bounded_vec::<_, _, RECENT_MAX>")]
    recent: Vec<Recent>,
    #[serde(deserialize_with = "bounded_vec::<_, _, FLOORS_MAX>")]
    floors: Vec<Floor>,
    horizon: Option<Version>,
    #[serde(deserialize_with = "bounded_vec::<_, _, PROPOSERS_MAX>")]
    proposers: Vec<Ballot>,
}

#[derive(Deserialize)]
struct Changed {
    base: Ballot,
    state: Option<Versioned>,
    #[serde(deserialize_with = "bounded_vec::<_, _, RECENT_MAX>")]
    results: Vec<Recent>,
    keep: Keep,
}

/// Before floors: one mark for all results that were dropped, one for all fences.
#[derive(Deserialize)]
struct Former {
    #[serde(deserialize_with = "bounded_vec::<_, _, RECENT_MAX>")]
    recent: Vec<(Recent, Ballot)>,
    /// The highest ballot of a result that was dropped.
    evicted: Ballot,
    #[serde(deserialize_with = "bounded_vec::<_, _, PROPOSERS_MAX>")]
    proposers: Vec<Ballot>,
    #[serde(deserialize_with = "bounded_vec::<_, _, RECENT_MAX>")]
    fences: Vec<OpId>,
    /// The highest session basis of a fence that was dropped.
    fences_evicted: Option<Version>,
}

impl Serialize for Register {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rest = (&self.recent, &self.floors, self.horizon, &self.proposers);
        match &self.state {
            None => (self.version, ABSENT, rest).serialize(serializer),
            Some(state) => (self.version, PRESENT, state, rest).serialize(serializer),
        }
    }
}

impl TryFrom<Stored> for Register {
    type Error = Corrupt;

    fn try_from(Stored { version, body }: Stored) -> Result<Self, Corrupt> {
        let (state, rest) = match body {
            Body::FormerAbsent(former) => (None, former.into()),
            Body::FormerPresent(state, former) => (Some(state), former.into()),
            Body::Absent(rest) => (None, rest),
            Body::Present(state, rest) => (Some(state), rest),
            Body::Changed(_) => return Err(Corrupt("a change stands where a register belongs".into())),
        };
        let Rest {
            mut recent,
            mut floors,
            horizon,
            mut proposers,
        } = rest;
        recent.shrink_to_fit();
        floors.shrink_to_fit();
        proposers.shrink_to_fit();
        if !floors.is_sorted_by(|a, b| a.session < b.session) {
            return Err(Corrupt("the floors of a register are out of order".into()));
        }
        Ok(Self {
            version,
            state,
            recent,
            floors,
            horizon,
            proposers,
        })
    }
}

impl TryFrom<Stored> for Proposed {
    type Error = Corrupt;

    fn try_from(stored: Stored) -> Result<Self, Corrupt> {
        let Stored { version, body } = stored;
        let changed = match body {
            Body::Changed(changed) => changed,
            body => {
                return Register::try_from(Stored { version, body })
                    .map(|register| Self::Whole(Arc::new(register)));
            }
        };
        let Changed {
            base,
            state,
            results,
            keep,
        } = changed;
        if !keep.is_valid() {
            return Err(Corrupt(format!("a change keeps {keep:?}")));
        }
        Ok(Self::Change(Arc::new(Change {
            base,
            version,
            state,
            results,
            keep,
        })))
    }
}

impl From<Former> for Rest {
    /// Results were dropped without a word of their sessions. Every session counts as forgotten that may have begun before
    /// the register was written.
    fn from(former: Former) -> Self {
        let ballots = former.proposers.iter().map(|ballot| ballot.counter);
        let last = ballots.max().filter(|_| former.evicted > Ballot::ZERO);
        let horizon = former.fences_evicted.max(last.map(Version));
        let fence = |op| Recent {
            op,
            result: OpResult::Fenced,
        };
        let fences = former.fences.into_iter().map(fence);
        let recent: Vec<Recent> = fences
            .chain(former.recent.into_iter().map(|(recent, _)| recent))
            .collect();
        let mut register = Register {
            horizon,
            proposers: former.proposers,
            recent,
            ..Register::default()
        };
        register.shorten(Keep {
            recent: RECENT_MAX as u16,
            floors: FLOORS_MAX as u16,
        });
        Self {
            recent: register.recent,
            floors: register.floors,
            horizon: register.horizon,
            proposers: register.proposers,
        }
    }
}
