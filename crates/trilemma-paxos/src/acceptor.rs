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
        slot.promised = ballot;
        slot.touched = touched;
        self.turn.promised.push((key.clone(), ballot));
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
            return Ok(slot.promised);
        }
        slot.accepted = ballot;
        slot.register = Arc::clone(register);
        slot.promised = slot.promised.max(next).max(ballot);
        slot.touched = touched;
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
