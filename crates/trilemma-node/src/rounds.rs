//! Whose record goes to the disk next: deficit round robin over the keyspaces (Shreedhar and Varghese, *Efficient fair
//! queuing using deficit round robin*, 1996).
//!
//! In each round a keyspace may hand over [`QUANTUM_BYTES`], and what it could not use for a record that is larger stays
//! its own for the next round. So keyspaces whose records wait get the same bytes of the disk, however many records one
//! of them has appended, and to choose costs the same however many wait.

use std::collections::VecDeque;

/// Bytes that a keyspace may hand over in each round.
const QUANTUM_BYTES: usize = 256 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Rounds {
    /// Of each keyspace: bytes that it may hand over when its turn comes; `None` if it has no turn.
    credits: Vec<Option<usize>>,
    /// Those that have a turn, in their order.
    order: VecDeque<usize>,
}

impl Rounds {
    pub(crate) fn new(keyspaces: usize) -> Self {
        Self {
            credits: vec![None; keyspaces],
            order: VecDeque::new(),
        }
    }

    /// Some record of a keyspace waits.
    pub(crate) fn waits(&mut self, keyspace: usize) {
        if self.credits[keyspace].is_none() {
            self.credits[keyspace] = Some(QUANTUM_BYTES);
            self.order.push_back(keyspace);
        }
    }

    /// Those that have a turn: all whose records wait, perhaps others.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = usize> + '_ {
        self.order.iter().copied()
    }

    /// Takes the keyspace whose first record is to be handed over now; `None` if no record waits. `first` says what the
    /// first that waits of a keyspace costs.
    pub(crate) fn take(&mut self, first: impl Fn(usize) -> Option<usize>) -> Option<usize> {
        loop {
            let keyspace = *self.order.front()?;
            let credit = &mut self.credits[keyspace];
            match (first(keyspace), *credit) {
                (Some(cost), Some(left)) if cost <= left => {
                    *credit = Some(left - cost);
                    return Some(keyspace);
                }
                (Some(_), Some(left)) => {
                    *credit = Some(left + QUANTUM_BYTES);
                    self.order.rotate_left(1);
                }
                (None, _) | (_, None) => {
                    *credit = None;
                    self.order.pop_front();
                }
            }
        }
    }

    /// The invariants: who has credit has one turn.
    pub(crate) fn check(&self) {
        if cfg!(debug_assertions) {
            let mut turns = vec![0; self.credits.len()];
            self.order.iter().for_each(|keyspace| turns[*keyspace] += 1);
            for (keyspace, credit) in self.credits.iter().enumerate() {
                assert_eq!(turns[keyspace], usize::from(credit.is_some()), "{self:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests;
