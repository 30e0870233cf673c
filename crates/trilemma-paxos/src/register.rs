//! The register of one key: its value, version, and what its recent operations did.
//!
//! This is the *state* of CASPaxos (Rystsov 2018, section 2.2); a batch of operations is the *change function*. The
//! paper's retry of an unknown outcome may run an operation twice; here the state remembers operations, so that a
//! repeat finds its result. What it has dropped it remembers by session, so that *not found* is never taken for *never
//! ran* without cause:
//!
//! - `recent` holds what the last operations did: they ran, or were fenced before they ran and never will.
//! - `floors` holds, for each session of which it has dropped something, the highest number dropped.
//! - `horizon` stands for the floors that were dropped themselves, those of the sessions with the lowest basis: every
//!   session with a basis up to it counts as forgotten as a whole.
//!
//! **Nothing runs twice.** Let an operation be recorded in a register that was chosen. Each later register of the key is
//! computed from the one before, and *remembers* it: it finds the operation, or its session's floor is not below it, or
//! the horizon is not below the basis of its session. For a result leaves `recent` only when the floor of its session has
//! reached it or the horizon covers the session, a floor leaves only when the horizon covers its session, and neither a
//! floor nor the horizon goes back. So an operation of which none of the three is true has not been recorded, hence has
//! had no effect and no fence, be it called a first attempt or a repeat, and however late it comes. If only
//! the first is false, it may have been recorded, and does not run.
//!
//! **Little is refused for nothing.** An operation that never ran is refused only if a later one of its session was
//! recorded here and has been dropped since, or if floors of sessions with as high a basis were dropped. Both are cured by
//! a new session: it has no floor, and the node that refused has met the horizon, so that the basis that it names now is
//! above.
//!
//! `proposers` holds, for each proposer, the last of its ballots that changed the register. A proposer has one accept of a
//! key under way at a time and puts an operation in doubt into its next one, so this tells it which of its accepts took
//! effect, however many results were dropped since.

mod change;
mod format;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trilemma_core::data::VALUE_BYTES_MAX;
use trilemma_core::session::OpResult;
use trilemma_core::{Command, Mutation, NodeId, OpId, SessionId, Version, Versioned};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::ballot::Ballot;
pub use change::{Change, Keep, Proposed};
use format::Stored;

/// Most results that a register may hold; a larger one does not decode.
pub const RECENT_MAX: usize = 256;

/// Most floors of sessions that a register may hold; a larger one does not decode.
pub const FLOORS_MAX: usize = 1024;

/// Most proposers that a register remembers, and most members of a keyspace.
pub const PROPOSERS_MAX: usize = 256;

/// What one operation did to the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recent {
    /// The operation.
    pub op: OpId,
    /// Its result.
    pub result: OpResult,
}

/// Up to where the operations of a session may have been forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    /// The session.
    pub session: SessionId,
    /// The highest number of it whose result was dropped.
    pub seq: u64,
}

/// The state of one key that acceptors hold: a value or a tombstone, with what exactly-once needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Register {
    /// Number of writes that took effect on the key, over deletes and new creations. 0: never written.
    pub version: Version,
    /// The value; `None` after a delete (a tombstone) or before the first write.
    pub state: Option<Versioned>,
    /// What recent operations did, oldest first.
    pub recent: Vec<Recent>,
    /// Of which sessions results were dropped, ordered by session, hence by basis.
    pub floors: Vec<Floor>,
    /// Sessions with a basis up to this one may have been forgotten as a whole; `None`: none was. Never goes back.
    pub horizon: Option<Version>,
    /// For each proposer, the last of its ballots that changed the register, ordered by node.
    pub proposers: Vec<Ballot>,
}

/// What is known about earlier runs of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Earlier<'a> {
    /// Whether other proposers, or earlier incarnations of this one, may have run it.
    pub(crate) by_others: bool,
    /// The ballots under which this proposer has sent it in an accept, with the result it then had.
    pub(crate) by_us: &'a [(Ballot, OpResult)],
}

impl Earlier<'_> {
    fn is_none(&self) -> bool {
        !self.by_others && self.by_us.is_empty()
    }
}

/// What becomes of a write in a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// It has this result.
    Result {
        /// What it did.
        result: OpResult,
        /// Whether it ran in this draft and left its mark there; else it ran before, or did nothing.
        is_recorded: bool,
    },
    /// It may have run or been fenced, and that may have been dropped: it does not run.
    Forgotten,
}

impl Register {
    /// Whether the key was deleted and its register remains.
    pub(crate) fn is_tombstone(&self) -> bool {
        self.state.is_none() && self.version > Version::ABSENT
    }

    /// What `op` did here, if that is remembered.
    pub(crate) fn find(&self, op: OpId) -> Option<OpResult> {
        let recent = self.recent.iter().rev().find(|recent| recent.op == op);
        recent.map(|recent| recent.result)
    }

    /// Whether `op`, which is not found, may have been recorded and dropped. If not, it never was; see the module.
    pub(crate) fn may_have_dropped(&self, op: OpId) -> bool {
        let is_below_floor = |place: usize| op.seq <= self.floors[place].seq;
        Some(op.session.basis) <= self.horizon || self.floor(op.session).is_ok_and(is_below_floor)
    }

    fn floor(&self, session: SessionId) -> Result<usize, usize> {
        self.floors.binary_search_by_key(&session, |floor| floor.session)
    }

    /// A copy with another value, and with room for so many further results: most registers are copied for the next
    /// write, and none grows afterwards.
    fn with_state(&self, version: Version, state: Option<Versioned>, results: usize) -> Self {
        let mut recent = Vec::with_capacity(self.recent.len() + results);
        recent.extend_from_slice(&self.recent);
        Self {
            version,
            state,
            recent,
            floors: self.floors.clone(),
            horizon: self.horizon,
            proposers: self.proposers.clone(),
        }
    }

    /// Records what an operation did.
    fn push(&mut self, result: Recent, keep: Keep) {
        // Each key has such lists, most of one element: no room for more of them.
        self.recent.reserve_exact(1);
        self.recent.push(result);
        self.shorten(keep);
        assert!(
            self.recent.len() <= usize::from(keep.recent),
            "remembered results are bounded"
        );
        assert!(
            self.floors.len() <= usize::from(keep.floors),
            "remembered sessions are bounded"
        );
    }

    /// Drops the oldest results beyond those that are kept, but for what must be remembered of them.
    fn shorten(&mut self, keep: Keep) {
        let surplus = self.recent.len().saturating_sub(keep.recent.into());
        for place in 0..surplus {
            let op = self.recent[place].op;
            self.note_dropped(op, keep.floors.into());
            assert!(self.may_have_dropped(op), "what is dropped does not run again");
        }
        self.recent.drain(..surplus);
        // A register may come from a node that keeps more.
        self.bound_floors(keep.floors.into());
    }

    /// Remembers that the record of `op` is dropped.
    fn note_dropped(&mut self, op: OpId, floors_max: usize) {
        let OpId { session, seq } = op;
        if Some(session.basis) <= self.horizon {
            return;
        }
        match self.floor(session) {
            Ok(place) => self.floors[place].seq = self.floors[place].seq.max(seq),
            Err(place) => self.floors.insert(place, Floor { session, seq }),
        }
        self.bound_floors(floors_max);
    }

    /// Drops the lowest floors beyond so many, and remembers that their sessions may have been dropped.
    fn bound_floors(&mut self, floors_max: usize) {
        if let Some(surplus) = self.floors.len().checked_sub(floors_max)
            && surplus > 0
        {
            let lowest = self.floors[surplus - 1].session.basis;
            self.horizon = self.horizon.max(Some(lowest));
            self.floors
                .retain(|floor| Some(floor.session.basis) > self.horizon);
        }
    }

    /// A digest of version and value. What else a register remembers is not part of it.
    pub(crate) fn digest(&self) -> u64 {
        let mut seed = [0; 33];
        seed[..8].copy_from_slice(&self.version.0.to_le_bytes());
        let Some(state) = &self.state else {
            return xxh3_64(&seed);
        };
        seed[8..16].copy_from_slice(&state.created.0.to_le_bytes());
        seed[16..24].copy_from_slice(&state.modified.0.to_le_bytes());
        seed[24..32].copy_from_slice(&state.lease.map_or(0, |lease| lease.0.get()).to_le_bytes());
        seed[32] = 1;
        xxh3_64_with_seed(&state.value, xxh3_64(&seed))
    }

    /// Greatest size in bytes of a register that decodes.
    pub(crate) const BYTES_MAX: usize = Self::bytes(VALUE_BYTES_MAX, RECENT_MAX, FLOORS_MAX, PROPOSERS_MAX);

    /// Greatest size in bytes that it takes with a value of so many bytes, so many results, floors and proposers.
    const fn bytes(value: usize, recent: usize, floors: usize, proposers: usize) -> usize {
        /// A number of 64 bits, 7 bits to the byte.
        const NUMBER: usize = 10;
        /// Version, kind, length of the value, two versions and lease, lengths of three lists, horizon.
        const FIXED: usize = NUMBER + 1 + 4 + 2 * NUMBER + (1 + NUMBER) + 3 * 2 + (1 + NUMBER);
        /// Basis, nonce and number; kind, success and two versions.
        const RECENT: usize = 3 * NUMBER + 2 + 2 * NUMBER;
        const FLOOR: usize = 3 * NUMBER;
        FIXED + value + RECENT * recent + FLOOR * floors + Ballot::BYTES_MAX * proposers
    }

    /// Greatest size in bytes, in a message, a record or a checkpoint.
    pub(crate) fn size(&self) -> usize {
        let value = self.state.as_ref().map_or(0, |state| state.value.len());
        Self::bytes(value, self.recent.len(), self.floors.len(), self.proposers.len())
    }

    /// The last ballot of this proposer that changed the register; [`Ballot::ZERO`] if none did.
    fn last_of(&self, node: NodeId) -> Ballot {
        let found = self.proposers.iter().find(|ballot| ballot.node == node);
        found.copied().unwrap_or(Ballot::ZERO)
    }

    fn changed_under(&mut self, ballot: Ballot) {
        match self
            .proposers
            .binary_search_by_key(&ballot.node, |other| other.node)
        {
            Ok(position) => self.proposers[position] = ballot,
            Err(position) if self.proposers.len() < PROPOSERS_MAX => {
                self.proposers.reserve_exact(1);
                self.proposers.insert(position, ballot);
            }
            // Only nodes that are no members can have taken its place: a peer has made that up.
            Err(_) => {}
        }
    }

    fn modified(&self) -> Version {
        self.state
            .as_ref()
            .map_or(Version::ABSENT, |state| state.modified)
    }
}

/// A register under change by a batch of operations that one accept will carry.
#[derive(Debug)]
pub(crate) struct Draft {
    base: Arc<Register>,
    changed: Option<Register>,
    results: Vec<Recent>,
    ballot: Ballot,
    keep: Keep,
}

impl Draft {
    pub(crate) fn new(base: Arc<Register>, ballot: Ballot, keep: Keep) -> Self {
        Self {
            base,
            changed: None,
            results: Vec::new(),
            ballot,
            keep,
        }
    }

    /// The register as it is after the operations so far.
    pub(crate) fn register(&self) -> &Register {
        self.changed.as_ref().unwrap_or(&self.base)
    }

    /// Whether an operation changed it.
    pub(crate) fn is_changed(&self) -> bool {
        self.changed.is_some()
    }

    /// The register to accept, and the results that it records beyond those of the one before.
    pub(crate) fn finish(self) -> (Arc<Register>, Vec<Recent>) {
        let Some(mut changed) = self.changed else {
            return (self.base, self.results);
        };
        assert!(
            changed.version >= self.base.version,
            "versions of a key never go back"
        );
        changed.changed_under(self.ballot);
        (Arc::new(changed), self.results)
    }

    fn change(&mut self) -> &mut Register {
        let base = &self.base;
        self.changed
            .get_or_insert_with(|| base.with_state(base.version, base.state.clone(), 1))
    }

    /// Runs a write, unless it has run or must not.
    ///
    /// A failed guard changes nothing and is not recorded, so that it costs no accept, unless another copy of the
    /// operation may be under way: without a record that copy could still win after this one was reported to have lost.
    pub(crate) fn write(&mut self, op: OpId, command: &Command, earlier: Earlier<'_>) -> Ruling {
        let register = self.register();
        if let Some(result) = register.find(op) {
            return Ruling::Result {
                result,
                is_recorded: false,
            };
        }
        let last = register.last_of(self.ballot.node);
        if let Some((_, result)) = earlier.by_us.iter().find(|(ballot, _)| *ballot == last) {
            return Ruling::Result {
                result: *result,
                is_recorded: false,
            };
        }
        if register.may_have_dropped(op) {
            return Ruling::Forgotten;
        }
        let result = self.run(command);
        let had_effect =
            matches!(result, OpResult::Applied { succeeded: true, .. }) && !command.mutations.is_empty();
        let is_recorded = had_effect || !earlier.is_none();
        if is_recorded {
            self.record(op, result);
        }
        Ruling::Result { result, is_recorded }
    }

    fn run(&mut self, command: &Command) -> OpResult {
        let register = self.register();
        let holds = |register: &Register| {
            command
                .guards
                .iter()
                .all(|guard| guard.holds(register.state.as_ref()))
        };
        if !holds(register) {
            return OpResult::Applied {
                succeeded: false,
                version: register.version,
                found: register.modified(),
            };
        }
        if !command.mutations.is_empty() {
            let register = self.change();
            register.version = register.version.next();
            for mutation in &command.mutations {
                mutate(register, mutation);
            }
        }
        OpResult::Applied {
            succeeded: true,
            version: self.register().version,
            found: Version::ABSENT,
        }
    }

    fn record(&mut self, op: OpId, result: OpResult) {
        let keep = self.keep;
        let result = Recent { op, result };
        self.results.push(result);
        let register = self.change();
        register.push(result, keep);
        assert!(register.find(op).is_some(), "a result that was recorded is found");
    }

    /// Resolves `op`: what it did, or a fence so that it never will. `None`: either may have been dropped.
    pub(crate) fn fence(&mut self, op: OpId) -> Option<OpResult> {
        let register = self.register();
        if let Some(result) = register.find(op) {
            return Some(result);
        }
        if register.may_have_dropped(op) {
            return None;
        }
        self.record(op, OpResult::Fenced);
        Some(OpResult::Fenced)
    }
}

fn mutate(register: &mut Register, mutation: &Mutation) {
    let modified = register.version;
    // A node admits no update of a data type here. If one is in a register all the same, it does nothing on any replica.
    if matches!(mutation, Mutation::Update { .. }) {
        return;
    }
    register.state = match mutation {
        Mutation::Put { value, lease, .. } => Some(Versioned {
            value: value.clone(),
            created: register.state.as_ref().map_or(modified, |state| state.created),
            modified,
            lease: *lease,
        }),
        Mutation::Delete { .. } | Mutation::Update { .. } => None,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A million keys have a million registers.
    #[test]
    fn a_register_has_no_room_for_what_it_does_not_hold() {
        let mut register = Register::default();
        let op = OpId {
            session: SessionId {
                basis: Version(1),
                nonce: 1,
            },
            seq: 1,
        };
        let result = OpResult::Fenced;
        register.push(
            Recent { op, result },
            Keep {
                recent: 16,
                floors: 16,
            },
        );
        register.changed_under(Ballot {
            counter: 1,
            ..Ballot::ZERO
        });
        let bytes = trilemma_core::codec::encode(&register);
        let read: Register = trilemma_core::codec::decode(&bytes).expect("what was encoded is read");
        assert_eq!(read, register);
        for register in [register, read] {
            assert_eq!((register.recent.len(), register.recent.capacity()), (1, 1));
            assert_eq!((register.proposers.len(), register.proposers.capacity()), (1, 1));
        }
    }

    /// What a change keeps comes from its proposer: one that keeps less, or says so, must not end an acceptor.
    #[test]
    fn a_register_of_a_node_that_keeps_more_is_shortened() {
        let result = |nonce: u64| Recent {
            op: OpId {
                session: SessionId {
                    basis: Version(nonce),
                    nonce,
                },
                seq: 1,
            },
            result: OpResult::Fenced,
        };
        let mut register = Register::default();
        for nonce in 1..10 {
            register.push(result(nonce), Keep { recent: 1, floors: 8 });
        }
        assert_eq!(register.floors.len(), 8);
        register.push(result(10), Keep { recent: 4, floors: 1 });
        assert_eq!(register.floors.len(), 1);
        for nonce in 1..8 {
            assert!(
                register.may_have_dropped(result(nonce).op),
                "it does not run again"
            );
        }
    }
}
