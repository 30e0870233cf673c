//! What an accept carries: a register, or what makes it of one that the acceptor holds.
//!
//! A register remembers the last operations of its key, tens of them, and every write replaces it. Who holds the register that
//! was changed needs to hear the change alone: the value and the operations of this write, a fifth of the bytes for a small
//! value. A ballot carries one register, so the change of what a ballot carries says as much as the register that it makes.

use serde::{Deserialize, Serialize, Serializer};
use std::sync::Arc;

use trilemma_core::{Version, Versioned};

use super::{FLOORS_MAX, RECENT_MAX, Recent, Register};
use crate::ballot::Ballot;
use crate::register::format::{CHANGED, Stored};

/// What a ballot carries, as it is sent and logged.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Stored")]
pub enum Proposed {
    /// The register.
    Whole(Arc<Register>),
    /// What makes it of another.
    Change(Arc<Change>),
}

/// What makes a register of the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The ballot of the register before.
    pub base: Ballot,
    /// The version after it.
    pub version: Version,
    /// The value after it.
    pub state: Option<Versioned>,
    /// What the operations of the change did, in their order.
    pub results: Vec<Recent>,
    /// How much the register keeps of what it knew.
    pub keep: Keep,
}

/// How many results, and floors of sessions, a register keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// Results, from 1 to [`RECENT_MAX`].
    pub recent: u16,
    /// Floors, from 1 to [`FLOORS_MAX`].
    pub floors: u16,
}

impl Keep {
    /// Whether a register that keeps so much decodes.
    pub(super) fn is_valid(self) -> bool {
        (1..=RECENT_MAX).contains(&usize::from(self.recent))
            && (1..=FLOORS_MAX).contains(&usize::from(self.floors))
    }
}

impl Change {
    /// The register that `ballot` carries, made of the one that [`Change::base`] carries.
    #[must_use]
    pub fn apply(&self, base: &Register, ballot: Ballot) -> Register {
        let mut register = base.with_state(self.version, self.state.clone(), self.results.len());
        for result in &self.results {
            register.push(*result, self.keep);
        }
        register.changed_under(ballot);
        register
    }

    /// Whether it can have made `register`, as far as that can be seen without the one before.
    fn may_have_made(&self, register: &Register) -> bool {
        let kept = self.results.len().saturating_sub(usize::from(self.keep.recent));
        register.version == self.version
            && register.state == self.state
            && register.recent.ends_with(&self.results[kept..])
    }

    /// Greatest size in bytes.
    fn size(&self) -> usize {
        let value = self.state.as_ref().map_or(0, |state| state.value.len());
        Ballot::BYTES_MAX + Register::bytes(value, self.results.len(), 0, 0)
    }
}

impl Proposed {
    /// Whether it is made of another register, so that who has none cannot accept it.
    pub(crate) fn needs_base(&self) -> bool {
        matches!(self, Proposed::Change(change) if change.base > Ballot::ZERO)
    }

    /// Whether it can be what made `register`: an accept that comes again under the same ballot says the same.
    pub(crate) fn may_be(&self, register: &Arc<Register>) -> bool {
        match self {
            Proposed::Whole(whole) => whole == register,
            Proposed::Change(change) => change.may_have_made(register),
        }
    }

    /// The register that `ballot` carries, where `held` is what was accepted under `accepted`; `None` if it is made of
    /// another.
    #[must_use]
    pub fn made_of(&self, accepted: Ballot, held: &Register, ballot: Ballot) -> Option<Arc<Register>> {
        match self {
            Proposed::Whole(register) => Some(Arc::clone(register)),
            Proposed::Change(change) if change.base == accepted => Some(Arc::new(change.apply(held, ballot))),
            Proposed::Change(_) => None,
        }
    }

    /// Greatest size in bytes, in a message or a record.
    pub(crate) fn size(&self) -> usize {
        match self {
            Proposed::Whole(register) => register.size(),
            Proposed::Change(change) => change.size(),
        }
    }
}

impl From<Arc<Register>> for Proposed {
    fn from(register: Arc<Register>) -> Self {
        Proposed::Whole(register)
    }
}

impl Serialize for Proposed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Proposed::Whole(register) => register.serialize(serializer),
            Proposed::Change(change) => {
                let Change {
                    base,
                    version,
                    state,
                    results,
                    keep,
                } = &**change;
                (version, CHANGED, base, state, results, keep).serialize(serializer)
            }
        }
    }
}
