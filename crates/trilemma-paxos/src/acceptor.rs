//! The acceptor: for each key, the highest ballot promised and the last register accepted.
//!
//! CASPaxos (Rystsov 2018) section 2.2. What it changes is gathered in records that the owner appends at the end of
//! the turn; answers leave when those are durable. The acceptor does not know who asks.

use std::sync::Arc;

use imbl::OrdMap;
use trilemma_core::{Corrupt, Key};

use super::ballot::Ballot;
use super::record::{AcceptedRecord, ChosenRecord, Record};
use super::register::Register;

/// Keys up to which a build with debug assertions looks at every one of them after every step. Beyond it that would make
/// tests with many keys quadratic.
pub(crate) const CHECKED_KEYS_MAX: usize = 128;

/// What the acceptor holds for one key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    pub(crate) promised: Ballot,
    pub(crate) accepted: Ballot,
    pub(crate) register: Arc<Register>,
    /// The turn whose records make the slot durable as it is; 0: it came from the disk.
    pub(crate) touched: u64,
}

impl Slot {
    /// What holds of a slot after every change. Acceptance under a ballot is a promise of that ballot, and a register
    /// comes with the ballot under which it was accepted.
    fn check(&self, key: &Key) {
        assert!(
            self.promised >= self.accepted,
            "the slot of key {key:?} accepted {} but promised only {}",
            self.accepted,
            self.promised
        );
        assert!(
            self.accepted > Ballot::ZERO || *self.register == Register::default(),
            "key {key:?} holds a register that was never accepted"
        );
    }

    /// The highest ballot that refuses others: acceptance under a ballot promises at least that ballot.
    fn bar(&self) -> Ballot {
        self.promised.max(self.accepted)
    }
}

/// The acceptor of one node, for all keys. A clone is O(1).
#[derive(Debug, Default)]
pub(crate) struct Acceptor {
    slots: OrdMap<Key, Slot>,
    /// Accepts refused because the ballot had carried another value: a broken proposer.
    pub(crate) double_values: u64,
    turn: Record,
}

impl Acceptor {
    pub(crate) fn slot(&self, key: &[u8]) -> Option<&Slot> {
        self.slots.get(key)
    }

    pub(crate) fn slots(&self) -> &OrdMap<Key, Slot> {
        &self.slots
    }

    /// First phase. Promises `ballot` and returns what is held, or the higher ballot (an equal one refuses too: a
    /// proposer that recycled its ballot must not get a second set of promises for it).
    pub(crate) fn prepare(&mut self, key: &Key, ballot: Ballot, touched: u64) -> Result<Slot, Ballot> {
        let slot = self.slots.entry(key.clone()).or_default();
        if ballot <= slot.bar() {
            return Err(slot.bar());
        }
        assert!(ballot > slot.promised, "a promise only grows");
        slot.promised = ballot;
        slot.touched = touched;
        self.turn.promised.push((key.clone(), ballot));
        slot.check(key);
        Ok(slot.clone())
    }

    /// Second phase. Accepts, promises `next`, and returns what is promised now; or returns the higher ballot.
    ///
    /// An accept under the ballot already accepted is a repeat: it is answered like the first, even if a higher
    /// ballot was promised since, because it is true. Only its `next` may still have to be promised.
    pub(crate) fn accept(
        &mut self,
        key: &Key,
        ballot: Ballot,
        register: &Arc<Register>,
        next: Ballot,
        touched: u64,
    ) -> Result<Ballot, Ballot> {
        let slot = self.slots.entry(key.clone()).or_default();
        let is_repeat = ballot == slot.accepted;
        if ballot < slot.accepted || (ballot < slot.promised && !is_repeat) {
            return Err(slot.bar());
        }
        if is_repeat {
            if slot.register != *register {
                self.double_values += 1;
                return Err(slot.bar());
            }
            if next > slot.promised {
                slot.promised = next;
                slot.touched = touched;
                self.turn.promised.push((key.clone(), next));
            }
            slot.check(key);
            return Ok(slot.promised);
        }
        assert!(
            ballot > slot.accepted,
            "a slot never goes back to an older accept"
        );
        assert!(ballot >= slot.promised, "nothing below a promise is accepted");
        slot.accepted = ballot;
        slot.register = Arc::clone(register);
        slot.promised = slot.promised.max(next).max(ballot);
        slot.touched = touched;
        slot.check(key);
        let promised = slot.promised;
        self.turn.accepted.push(AcceptedRecord {
            key: key.clone(),
            ballot,
            promised,
            register: Arc::clone(register),
        });
        Ok(promised)
    }

    /// Takes over a register that was chosen under `ballot`, as if its accept had arrived late. Never raises what
    /// is promised above that, so no proposer is disturbed. Returns whether it was news.
    pub(crate) fn install(
        &mut self,
        key: &Key,
        ballot: Ballot,
        register: &Arc<Register>,
        touched: u64,
    ) -> bool {
        let slot = self.slots.get(key).cloned().unwrap_or_default();
        ballot > slot.accepted
            && ballot >= slot.promised
            && self.accept(key, ballot, register, ballot, touched).is_ok()
    }

    /// Notes that `register` was chosen, for the record of this turn.
    pub(crate) fn note_chosen(&mut self, key: &Key, ballot: Ballot, register: &Arc<Register>) {
        let is_held = self.slots.get(key).is_some_and(|slot| slot.accepted == ballot);
        self.turn.chosen.push(ChosenRecord {
            key: key.clone(),
            ballot,
            register: (!is_held).then(|| Arc::clone(register)),
        });
    }

    /// The acceptor's invariants. What this turn's records say is what the slots hold, or is overtaken by them: a
    /// promise that left without its record would be forgotten by a crash.
    pub(crate) fn check(&self) {
        if let Some((key, ballot)) = self.turn.promised.last() {
            let promised = self.slots.get(key).map(|slot| slot.promised);
            assert!(
                promised >= Some(*ballot),
                "the slot of key {key:?} lacks the promise of {ballot}"
            );
        }
        if let Some(record) = self.turn.accepted.last() {
            let accepted = self.slots.get(&record.key).map(|slot| slot.accepted);
            assert!(
                accepted >= Some(record.ballot),
                "the slot of key {:?} lacks the accept of {}",
                record.key,
                record.ballot
            );
            assert!(record.promised >= record.ballot, "acceptance promises its ballot");
        }
        if cfg!(debug_assertions) && self.slots.len() <= CHECKED_KEYS_MAX {
            self.slots.iter().for_each(|(key, slot)| slot.check(key));
        }
    }

    /// What changed since the last call.
    pub(crate) fn take_turn(&mut self) -> Record {
        std::mem::take(&mut self.turn)
    }

    pub(crate) fn has_turn(&self) -> bool {
        !self.turn.is_empty()
    }

    /// Takes a slot of a checkpoint.
    pub(crate) fn restore(&mut self, key: Key, slot: Slot) -> Result<(), Corrupt> {
        if key.is_empty() || slot.promised < slot.accepted {
            return Err(Corrupt(format!(
                "the slot of key {key:?} accepted {} but promised only {}",
                slot.accepted, slot.promised
            )));
        }
        if slot.accepted == Ballot::ZERO && *slot.register != Register::default() {
            return Err(Corrupt(format!(
                "key {key:?} holds a register that was never accepted"
            )));
        }
        self.slots.insert(key, slot);
        Ok(())
    }

    pub(crate) fn replay_promise(&mut self, key: Key, ballot: Ballot) -> Result<(), Corrupt> {
        if key.is_empty() {
            return Err(Corrupt(format!("ballot {ballot} was promised for an empty key")));
        }
        let slot = self.slots.entry(key).or_default();
        slot.promised = slot.promised.max(ballot);
        Ok(())
    }

    pub(crate) fn replay_accept(&mut self, record: AcceptedRecord) -> Result<(), Corrupt> {
        let AcceptedRecord {
            key,
            ballot,
            promised,
            register,
        } = record;
        if key.is_empty() || promised < ballot {
            return Err(Corrupt(format!(
                "the record of key {key:?} accepted {ballot} but promised only {promised}"
            )));
        }
        let slot = self.slots.entry(key).or_default();
        if ballot == slot.accepted && slot.register != register {
            return Err(Corrupt(format!("ballot {ballot} was accepted with two values")));
        }
        if ballot > slot.accepted {
            slot.accepted = ballot;
            slot.register = register;
        }
        slot.promised = slot.promised.max(promised);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
