//! The acceptor: for each key, the highest ballot promised and the last register accepted.
//!
//! CASPaxos (Rystsov 2018) section 2.2. What it changes is gathered in records that the owner appends at the end of
//! the turn; answers leave when those are durable. The acceptor does not know who asks.

use std::sync::Arc;

use imbl::OrdMap;
use trilemma_core::{Corrupt, Key};

use super::ballot::Ballot;
use super::record::{AcceptedRecord, ChosenRecord, Record};
use super::register::{Proposed, Register};

/// Keys up to which a build with debug assertions looks at every one of them after every step. Beyond it that would make
/// tests with many keys quadratic.
pub(crate) const CHECKED_KEYS_MAX: usize = 128;

/// What the acceptor holds for one key.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyState {
    pub(crate) promised: Ballot,
    pub(crate) accepted: Ballot,
    pub(crate) register: Arc<Register>,
    /// The turn whose records make the state durable as it is; 0: it came from the disk.
    pub(crate) touched: u64,
}

impl KeyState {
    /// What holds of a state after every change. Acceptance under a ballot is a promise of that ballot, and a register
    /// comes with the ballot under which it was accepted.
    fn check(&self, key: &Key) {
        assert!(
            self.promised >= self.accepted,
            "the state of key {key:?} accepted {} but promised only {}",
            self.accepted,
            self.promised
        );
        assert!(
            self.accepted > Ballot::ZERO || *self.register == Register::default(),
            "key {key:?} holds a register that was never accepted"
        );
    }

    /// Whether something was promised and nothing accepted.
    fn is_unwritten(&self) -> bool {
        self.accepted == Ballot::ZERO && self.promised > Ballot::ZERO
    }

    /// The highest ballot that refuses others: acceptance under a ballot promises at least that ballot.
    fn bar(&self) -> Ballot {
        self.promised.max(self.accepted)
    }
}

/// Why an accept is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Because of this higher ballot.
    Higher(Ballot),
    /// It changes a register that is not held.
    Lacks,
}

/// The acceptor of one node, for all keys. A clone is O(1).
#[derive(Debug, Default)]
pub(crate) struct Acceptor {
    key_states: OrdMap<Key, KeyState>,
    /// Accepts refused because the ballot had carried another value: a broken proposer.
    pub(crate) double_values: u64,
    /// Keys of which a ballot was promised and nothing accepted: their writes did nothing, or never came.
    unwritten: u64,
    turn: Record,
    /// What was chosen, for the next record. Nothing waits for it.
    chosen: Vec<ChosenRecord>,
}

impl Acceptor {
    pub(crate) fn key_state(&self, key: &[u8]) -> Option<&KeyState> {
        self.key_states.get(key)
    }

    pub(crate) fn key_states(&self) -> &OrdMap<Key, KeyState> {
        &self.key_states
    }

    /// Number of keys of which something was promised and nothing accepted.
    pub(crate) fn unwritten(&self) -> u64 {
        self.unwritten
    }

    /// First phase. Promises `ballot` and returns what is held, or the higher ballot (an equal one refuses too: a
    /// proposer that recycled its ballot must not get a second set of promises for it).
    pub(crate) fn prepare(&mut self, key: &Key, ballot: Ballot, touched: u64) -> Result<KeyState, Ballot> {
        let key_state = self.key_states.entry(key.clone()).or_default();
        if ballot <= key_state.bar() {
            return Err(key_state.bar());
        }
        assert!(ballot > key_state.promised, "a promise only grows");
        self.unwritten += u64::from(key_state.bar() == Ballot::ZERO);
        key_state.promised = ballot;
        key_state.touched = touched;
        self.turn.promised.push((key.clone(), ballot));
        key_state.check(key);
        Ok(key_state.clone())
    }

    /// Second phase. Accepts, promises `next`, and returns what is promised now. `made` is the register that `proposed`
    /// stands for, where the caller has it.
    ///
    /// An accept under the ballot already accepted is a repeat: it is answered like the first, even if a higher
    /// ballot was promised since, because it is true. Only its `next` may still have to be promised.
    pub(crate) fn accept(
        &mut self,
        key: &Key,
        ballot: Ballot,
        proposed: &Proposed,
        made: Option<Arc<Register>>,
        next: Ballot,
        touched: u64,
    ) -> Result<Ballot, Refusal> {
        let is_of_another = matches!(proposed, Proposed::Change(change) if change.base > Ballot::ZERO);
        let key_state = match self.key_states.get_mut(key) {
            Some(key_state) => key_state,
            None if is_of_another && made.is_none() => return Err(Refusal::Lacks),
            None => self.key_states.entry(key.clone()).or_default(),
        };
        let is_repeat = ballot == key_state.accepted;
        if ballot < key_state.accepted || (ballot < key_state.promised && !is_repeat) {
            return Err(Refusal::Higher(key_state.bar()));
        }
        if is_repeat {
            if !proposed.may_be(&key_state.register) {
                self.double_values += 1;
                return Err(Refusal::Higher(key_state.bar()));
            }
            if next > key_state.promised {
                key_state.promised = next;
                key_state.touched = touched;
                self.turn.promised.push((key.clone(), next));
            }
            key_state.check(key);
            return Ok(key_state.promised);
        }
        assert!(
            ballot > key_state.accepted,
            "a state never goes back to an older accept"
        );
        assert!(
            ballot >= key_state.promised,
            "nothing below a promise is accepted"
        );
        let is_of_held = matches!(proposed, Proposed::Change(change) if change.base == key_state.accepted);
        let made = made.or_else(|| proposed.made_of(key_state.accepted, &key_state.register, ballot));
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
        self.unwritten -= u64::from(key_state.is_unwritten());
        key_state.accepted = ballot;
        key_state.register = register;
        key_state.promised = key_state.promised.max(next).max(ballot);
        key_state.touched = touched;
        key_state.check(key);
        let promised = key_state.promised;
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
        key: &Key,
        ballot: Ballot,
        register: &Arc<Register>,
        touched: u64,
    ) -> bool {
        let key_state = self.key_states.get(key).cloned().unwrap_or_default();
        let whole = Proposed::Whole(Arc::clone(register));
        ballot > key_state.accepted
            && ballot >= key_state.promised
            && self.accept(key, ballot, &whole, None, ballot, touched).is_ok()
    }

    /// Notes what was chosen, for the next record: the register, unless it is held under the same ballot.
    pub(crate) fn note_chosen(&mut self, key: &Key, ballot: Ballot, register: Option<Arc<Register>>) {
        self.chosen.push(ChosenRecord {
            key: key.clone(),
            ballot,
            register,
        });
    }

    /// The acceptor's invariants. What this turn's records say is what the states hold, or is overtaken by them: a
    /// promise that left without its record would be forgotten by a crash.
    pub(crate) fn check(&self) {
        if let Some((key, ballot)) = self.turn.promised.last() {
            let promised = self.key_states.get(key).map(|key_state| key_state.promised);
            assert!(
                promised >= Some(*ballot),
                "the state of key {key:?} lacks the promise of {ballot}"
            );
        }
        if let Some(record) = self.turn.accepted.last() {
            let accepted = self
                .key_states
                .get(&record.key)
                .map(|key_state| key_state.accepted);
            assert!(
                accepted >= Some(record.ballot),
                "the state of key {:?} lacks the accept of {}",
                record.key,
                record.ballot
            );
            assert!(record.promised >= record.ballot, "acceptance promises its ballot");
        }
        if cfg!(debug_assertions) && self.key_states.len() <= CHECKED_KEYS_MAX {
            self.key_states
                .iter()
                .for_each(|(key, key_state)| key_state.check(key));
            let unwritten = self
                .key_states
                .values()
                .filter(|key_state| key_state.is_unwritten());
            assert_eq!(
                unwritten.count() as u64,
                self.unwritten,
                "keys never written are counted"
            );
        }
    }

    /// What changed since the last call, and what was chosen.
    pub(crate) fn take_turn(&mut self) -> Record {
        let mut turn = std::mem::take(&mut self.turn);
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

    /// Takes a state of a checkpoint.
    pub(crate) fn restore(&mut self, key: Key, key_state: KeyState) -> Result<(), Corrupt> {
        if key.is_empty() || key_state.promised < key_state.accepted {
            return Err(Corrupt(format!(
                "the state of key {key:?} accepted {} but promised only {}",
                key_state.accepted, key_state.promised
            )));
        }
        if key_state.accepted == Ballot::ZERO && *key_state.register != Register::default() {
            return Err(Corrupt(format!(
                "key {key:?} holds a register that was never accepted"
            )));
        }
        self.unwritten += u64::from(key_state.is_unwritten());
        let before = self.key_states.insert(key, key_state);
        self.unwritten -= u64::from(before.is_some_and(|before| before.is_unwritten()));
        Ok(())
    }

    pub(crate) fn replay_promise(&mut self, key: Key, ballot: Ballot) -> Result<(), Corrupt> {
        if key.is_empty() {
            return Err(Corrupt(format!("ballot {ballot} was promised for an empty key")));
        }
        let key_state = self.key_states.entry(key).or_default();
        let was_unwritten = key_state.is_unwritten();
        key_state.promised = key_state.promised.max(ballot);
        self.unwritten += u64::from(key_state.is_unwritten() && !was_unwritten);
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
        let key_state = self.key_states.entry(key).or_default();
        if ballot == key_state.accepted && !register.may_be(&key_state.register) {
            return Err(Corrupt(format!("ballot {ballot} was accepted with two values")));
        }
        if ballot > key_state.accepted {
            let made = register.made_of(key_state.accepted, &key_state.register, ballot);
            key_state.register = made.ok_or_else(|| {
                Corrupt(format!(
                    "the register of ballot {ballot} is made of one that was never accepted here"
                ))
            })?;
            self.unwritten -= u64::from(key_state.is_unwritten());
            key_state.accepted = ballot;
        }
        key_state.promised = key_state.promised.max(promised);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
