//! Counters: positive and negative sums for each actor (PN-counter), with a reset that takes away exactly what it has seen.
//!
//! A part holds four sums that only grow: what was added and removed, and how much of both is reset. Siblings of a part are
//! joined by taking the greater of each, so that a reset and a concurrent addition both count.
//!
//! **Why generations.** A part may be deleted, or its last value be replaced by a reset, and its actor then begins again at
//! zero. A reset that still comes from elsewhere speaks of the sums before; measured against the new ones it would swallow
//! additions. So sums are of a *generation*, named by the first change in it, and siblings of different generations are
//! never joined. An actor goes on in a generation only while it sees its own last write: else that was replaced, and what is
//! left may have seen less of the sums than others have.

use serde::{Deserialize, Serialize};
use trilemma_core::codec;
use trilemma_core::{Incarnation, Value};

/// The first change of a generation. Later ones of an actor are greater.
pub(super) type Born = (Incarnation, u64);

/// What one sibling of a part says. Frozen by a golden test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sums {
    pub(super) born: Born,
    added: u128,
    removed: u128,
    added_reset: u128,
    removed_reset: u128,
}

/// Greatest sum: it is read as a signed number.
const SUM_MAX: u128 = i128::MAX as u128;

impl Sums {
    pub(super) fn new(born: Born) -> Self {
        Self {
            born,
            ..Self::default()
        }
    }

    /// From the content of a sibling. What does not decode counts nothing: another version wrote it, or nobody correct.
    pub(super) fn decode(content: &[u8]) -> Option<Self> {
        codec::decode(content).ok()
    }

    pub(super) fn to_value(self) -> Value {
        codec::encode_vec(&self).into()
    }

    /// What both say of one generation.
    fn join(self, other: Self) -> Self {
        assert_eq!(self.born, other.born, "sums of two generations");
        Self {
            born: self.born,
            added: self.added.max(other.added),
            removed: self.removed.max(other.removed),
            added_reset: self.added_reset.max(other.added_reset),
            removed_reset: self.removed_reset.max(other.removed_reset),
        }
    }

    /// What these sums add to the counter. `None`: it is no number that is read.
    pub(super) fn total(self) -> Option<i128> {
        let signed = |sum: u128| i128::try_from(sum).ok();
        let added = signed(self.added)?.checked_sub(signed(self.added_reset)?)?;
        let removed = signed(self.removed)?.checked_sub(signed(self.removed_reset)?)?;
        added.checked_sub(removed)
    }

    /// With `delta` added. `None`: a sum is at its end.
    pub(super) fn add(self, delta: i64) -> Option<Self> {
        let amount = u128::from(delta.unsigned_abs());
        let grown = |sum: u128| sum.checked_add(amount).filter(|sum| *sum <= SUM_MAX);
        Some(if delta < 0 {
            let removed = grown(self.removed)?;
            Self { removed, ..self }
        } else {
            let added = grown(self.added)?;
            Self { added, ..self }
        })
    }

    /// With everything reset.
    pub(super) fn reset(self) -> Self {
        Self {
            added_reset: self.added,
            removed_reset: self.removed,
            ..self
        }
    }
}

/// The siblings of a part, joined: one for each generation, the newest last.
pub(super) fn join(siblings: impl Iterator<Item = Sums>) -> Vec<Sums> {
    let mut joined: Vec<Sums> = Vec::new();
    for sums in siblings {
        match joined.iter_mut().find(|known| known.born == sums.born) {
            Some(known) => *known = known.join(sums),
            None => joined.push(sums),
        }
    }
    joined.sort_by_key(|sums| sums.born);
    joined
}

/// What a part adds to the counter.
pub(super) fn total(joined: &[Sums]) -> Option<i128> {
    let mut totals = joined.iter().map(|sums| sums.total());
    totals.try_fold(0_i128, |sum, total| sum.checked_add(total?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(born: u64, numbers: [u128; 4]) -> Sums {
        let [added, removed, added_reset, removed_reset] = numbers;
        Sums {
            born: (Incarnation(1), born),
            added,
            removed,
            added_reset,
            removed_reset,
        }
    }

    #[test]
    fn golden_bytes() {
        let value = sums(2, [300, 1, 128, 0]).to_value();
        assert_eq!(&value[..], [1, 2, 172, 2, 1, 128, 1, 0]);
        assert_eq!(Sums::decode(&value), Some(sums(2, [300, 1, 128, 0])));
        assert_eq!(Sums::decode(b""), None);
    }

    #[test]
    fn a_reset_and_a_concurrent_addition_both_count() {
        let seen = sums(1, [5, 2, 0, 0]);
        let reset = seen.reset();
        let added = seen.add(4).expect("small");
        assert_eq!(total(&join([reset, added].into_iter())), Some(4));
        assert_eq!(total(&join([added, reset, reset].into_iter())), Some(4));
        let both = join([reset, added].into_iter())[0].add(-1).expect("small");
        assert_eq!(total(&[both]), Some(3));
    }

    #[test]
    fn a_reset_of_a_former_generation_takes_nothing_from_the_present_one() {
        let former = sums(1, [100, 0, 0, 0]).reset();
        let present = sums(9, [3, 0, 0, 0]);
        let joined = join([present, former].into_iter());
        assert_eq!((joined.len(), joined[1]), (2, present));
        assert_eq!(total(&joined), Some(3));
    }

    #[test]
    fn the_end_of_a_sum_is_noticed_and_nonsense_is_no_number() {
        assert_eq!(sums(1, [SUM_MAX, 0, 0, 0]).add(1), None);
        assert_eq!(sums(1, [0, SUM_MAX, 0, 0]).add(i64::MIN), None);
        assert_eq!(
            sums(1, [0; 4]).add(i64::MIN).and_then(Sums::total),
            Some(i128::from(i64::MIN))
        );
        assert_eq!(sums(1, [u128::MAX, 0, 0, 0]).total(), None);
        let most = sums(1, [SUM_MAX, 0, 0, 0]);
        assert_eq!(total(&[most, sums(2, [1, 0, 0, 0])]), None);
    }
}
