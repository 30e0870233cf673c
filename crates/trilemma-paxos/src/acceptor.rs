//! The acceptor: for each key, the highest ballot promised and the last register accepted.
//!
//! CASPaxos (Rystsov 2018) section 2.2. What it changes is gathered in records that the owner appends at the end of
//! the turn; answers leave when those are durable. The acceptor does not know who asks.

use std::sync::Arc;

use trilemma_core::{Corrupt, Key};

use super::ballot::Ballot;
use super::key_states::{KeyState, KeyStates};
use super::record::{AcceptedRecord, ChosenRecord, Record};
use super::register::{Proposed, Register};

/// Keys up to which a build with debug assertions looks at every one of them after every step. Beyond it that would make
/// tests with many keys quadratic.
pub(crate) const CHECKED_KEYS_MAX: usize = 128;

/// Why an accept is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Because of this higher ballot.
    Higher(Ballot),
    /// It changes a register that is not held.
    Lacks,
}

/// The acceptor of one node, for all keys. What it holds of a key is in the key's state.
#[derive(Debug, Default)]
pub(crate) struct Acceptor {
    /// Accepts refused because the ballot had carried another value: a broken proposer.
    pub(crate) double_values: u64,
    turn: Record,
    /// Records of the turn, promised and accepted, that were there when they were last checked.
    checked: (usize, usize),
    /// What was chosen, for the next record. Nothing waits for it.
    chosen: Vec<ChosenRecord>,
}

impl Acceptor {
    /// First phase. Promises `ballot` and returns what is held, or the higher ballot (an equal one refuses too: a
    /// proposer that recycled its ballot must not get a second set of promises for it).
    pub(crate) fn prepare(
        &mut self,
        slot: &mut KeyState,
        key: &Key,
        ballot: Ballot,
        touched: u64,
    ) -> Result<(Ballot, Arc<Register>), Ballot> {
        if ballot <= slot.bar() {
            return Err(slot.bar());
        }
        assert!(ballot > slot.promised, "a promise only grows");
        slot.promise(ballot);
        slot.touched = touched;
        self.turn.promised.push((key.clone(), ballot));
        Ok((slot.accepted, Arc::clone(&slot.register)))
    }

    /// Second phase. Accepts, promises `next`, and returns what is promised now. `made` is the register that `proposed`
    /// stands for, where the caller has it.
    ///
    /// An accept under the ballot already accepted is a repeat: it is answered like the first, even if a higher
    /// ballot was promised since, because it is true. Only its `next` may still have to be promised.
    #[expect(clippy::too_many_arguments, reason = "an accept, where it goes, and when")]
    pub(crate) fn accept(
        &mut self,
        slot: &mut KeyState,
        key: &Key,
        ballot: Ballot,
        proposed: &Proposed,
        made: Option<Arc<Register>>,
        next: Ballot,
        touched: u64,
    ) -> Result<Ballot, Refusal> {
        let is_repeat = ballot == slot.accepted;
        if ballot < slot.accepted || (ballot < slot.promised && !is_repeat) {
            return Err(Refusal::Higher(slot.bar()));
        }
        if is_repeat {
            if !proposed.may_be(&slot.register) {
                self.double_values += 1;
                return Err(Refusal::Higher(slot.bar()));
            }
            if next > slot.promised {
                slot.promise(next);
                slot.touched = touched;
                self.turn.promised.push((key.clone(), next));
            }
            return Ok(slot.promised);
        }
        assert!(
            ballot > slot.accepted,
            "a state never goes back to an older accept"
        );
        assert!(ballot >= slot.promised, "nothing below a promise is accepted");
        let is_of_held = matches!(proposed, Proposed::Change(change) if change.base == slot.accepted);
        let made = made.or_else(|| proposed.made_of(slot.accepted, &slot.register, ballot));
        let Some(register) = made else {
            return Err(Refusal::Lacks);
        };
        debug_assert!(
            proposed.may_be(&register),
            "what was made for key {key:?} is what is proposed"
        );
        let logged = if is_of_held {
            proposed.clone()
        } else {
            Proposed::Whole(Arc::clone(&register))
        };
        slot.accept(ballot, register);
        slot.promise(next.max(ballot));
        slot.touched = touched;
        let promised = slot.promised;
        self.turn.accepted.push(AcceptedRecord {
            key: key.clone(),
            ballot,
            promised,
            register: logged,
        });
        Ok(promised)
    }

    /// Takes over a register that was chosen under `ballot`, as if its accept had arrived late. Never raises what
    /// is promised above that, so no proposer is disturbed. Returns whether it was news.
    pub(crate) fn install(
        &mut self,
        slot: &mut KeyState,
        key: &Key,
        ballot: Ballot,
        register: &Arc<Register>,
        touched: u64,
    ) -> bool {
        let whole = Proposed::Whole(Arc::clone(register));
        ballot > slot.accepted
            && ballot >= slot.promised
            && self
                .accept(slot, key, ballot, &whole, None, ballot, touched)
                .is_ok()
    }

    /// Notes what was chosen, for the next record: the register, unless it is held under the same ballot.
    pub(crate) fn note_chosen(&mut self, key: &Key, ballot: Ballot, register: Option<Arc<Register>>) {
        self.chosen.push(ChosenRecord {
            key: key.clone(),
            ballot,
            register,
        });
    }

    /// The acceptor's invariants. What this turn's records say is what the key states hold, or is overtaken by them: a
    /// promise that left without its record would be forgotten by a crash. `is_due`: to look at records again that were
    /// looked at before.
    pub(crate) fn check(&mut self, slots: &KeyStates, is_due: bool) {
        let (promised, accepted) = (self.turn.promised.len(), self.turn.accepted.len());
        let checked = std::mem::replace(&mut self.checked, (promised, accepted));
        if let Some((key, ballot)) = self.turn.promised.last()
            && (is_due || checked.0 < promised)
        {
            let promised = slots.get(key).map(|slot| slot.promised);
            assert!(
                promised >= Some(*ballot),
                "the state of key {key:?} lacks the promise of {ballot}"
            );
        }
        if let Some(record) = self.turn.accepted.last()
            && (is_due || checked.1 < accepted)
        {
            let accepted = slots.get(&record.key).map(|slot| slot.accepted);
            assert!(
                accepted >= Some(record.ballot),
                "the state of key {:?} lacks the accept of {}",
                record.key,
                record.ballot
            );
            assert!(record.promised >= record.ballot, "acceptance promises its ballot");
        }
    }

    /// What changed since the last call, and what was chosen.
    pub(crate) fn take_turn(&mut self) -> Record {
        let mut turn = std::mem::take(&mut self.turn);
        self.checked = (0, 0);
        turn.chosen = std::mem::take(&mut self.chosen);
        turn
    }

    /// Whether something has changed that an answer may wait for.
    pub(crate) fn has_turn(&self) -> bool {
        !self.turn.is_empty()
    }

    /// Whether something was chosen that no record says yet.
    pub(crate) fn has_chosen(&self) -> bool {
        !self.chosen.is_empty()
    }
}

/// Takes the acceptor's part of a key state from a checkpoint.
pub(crate) fn restore(
    slots: &mut KeyStates,
    key: &Key,
    promised: Ballot,
    accepted: Ballot,
    register: Arc<Register>,
) -> Result<(), Corrupt> {
    if key.is_empty() || promised < accepted {
        return Err(Corrupt(format!(
            "the state of key {key:?} accepted {accepted} but promised only {promised}"
        )));
    }
    if accepted == Ballot::ZERO && *register != Register::default() {
        return Err(Corrupt(format!(
            "key {key:?} holds a register that was never accepted"
        )));
    }
    slots.change_or_make(key, |slot| {
        slot.accept(accepted, register);
        slot.promise(promised);
    });
    Ok(())
}

/// Takes a promise from a record.
pub(crate) fn replay_promise(slots: &mut KeyStates, key: &Key, ballot: Ballot) -> Result<(), Corrupt> {
    if key.is_empty() {
        return Err(Corrupt(format!("ballot {ballot} was promised for an empty key")));
    }
    slots.change_or_make(key, |slot| slot.promise(ballot));
    Ok(())
}

/// Takes an accept from a record.
pub(crate) fn replay_accept(slots: &mut KeyStates, record: AcceptedRecord) -> Result<(), Corrupt> {
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
    slots.change_or_make(&key, |slot| {
        if ballot == slot.accepted && !register.may_be(&slot.register) {
            return Err(Corrupt(format!("ballot {ballot} was accepted with two values")));
        }
        if ballot > slot.accepted {
            let made = register.made_of(slot.accepted, &slot.register, ballot);
            let made = made.ok_or_else(|| {
                Corrupt(format!(
                    "the register of ballot {ballot} is made of one that was never accepted here"
                ))
            })?;
            slot.promise(ballot);
            slot.accept(ballot, made);
        }
        slot.promise(promised);
        Ok(())
    })
}

#[cfg(test)]
mod tests;
