//! The register of one key: its value, version, and what its recent operations did.
//!
//! This is the *state* of CASPaxos (Rystsov 2018, section 2.2); a batch of operations is the *change function*. The
//! paper's retry of an unknown outcome may run an operation twice; here the state remembers operations, so that a
//! repeat finds its result. What has been forgotten is remembered as one mark, so that *not found* is never taken
//! for *never ran* without cause:
//!
//! - `evicted` is the highest ballot of a result that was dropped. While it is zero, what is not found never ran.
//! - `proposers` holds, for each proposer, the last of its ballots that changed the register. A proposer has one
//!   accept of a key under way at a time and puts an operation in doubt into its next one, so this tells it exactly
//!   which of its accepts took effect, however many results were dropped since.
//! - `fences_evicted` is the highest session basis of a fence that was dropped. A session made after that has a
//!   greater basis, or is refused: an operation that was reported as "not applied" can never run.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trilemma_core::codec::bounded_vec;
use trilemma_core::session::OpResult;
use trilemma_core::{Command, Mutation, NodeId, OpId, Version, Versioned};

use super::ballot::Ballot;

/// Most results, and most fences, that a register may hold; a larger one does not decode.
pub const RECENT_MAX: usize = 256;

/// Most proposers that a register remembers; a keyspace has fewer members.
pub const PROPOSERS_MAX: usize = 256;

/// What one operation did to the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recent {
    /// The operation.
    pub op: OpId,
    /// Its result; never [`OpResult::Fenced`].
    pub result: OpResult,
    /// The ballot of the accept in which it ran.
    pub ballot: Ballot,
}

/// The state of one key that acceptors hold: a value or a tombstone, with what exactly-once needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Number of writes that took effect on the key, over deletes and new creations. 0: never written.
    pub version: Version,
    /// The value; `None` after a delete (a tombstone) or before the first write.
    pub state: Option<Versioned>,
    /// What recent operations did, oldest first.
    #[serde(deserialize_with = "bounded_vec::<_, _, RECENT_MAX>")]
    pub recent: Vec<Recent>,
    /// The highest ballot of a result that was dropped; [`Ballot::ZERO`] if none was.
    pub evicted: Ballot,
    /// For each proposer, the last of its ballots that changed the register, ordered by node.
    #[serde(deserialize_with = "bounded_vec::<_, _, PROPOSERS_MAX>")]
    pub proposers: Vec<Ballot>,
    /// Operations that were asked for and will never run, oldest first.
    #[serde(deserialize_with = "bounded_vec::<_, _, RECENT_MAX>")]
    pub fences: Vec<OpId>,
    /// The highest session basis of a fence that was dropped; `None` if none was.
    pub fences_evicted: Option<Version>,
}

/// How many results and fences to keep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    pub(crate) recent: usize,
    pub(crate) fences: usize,
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
    /// It may have run, and its result may have been dropped.
    Forgotten,
    /// It may have been fenced, and the fence may have been dropped: it does not run.
    MayBeFenced,
}

impl Register {
    /// Whether the key was deleted and its register remains.
    pub(crate) fn is_tombstone(&self) -> bool {
        self.state.is_none() && self.version > Version::ABSENT
    }

    /// What `op` did here, if that is remembered.
    pub(crate) fn find(&self, op: OpId) -> Option<OpResult> {
        let recent = self.recent.iter().rev().find(|recent| recent.op == op);
        recent
            .map(|recent| recent.result)
            .or_else(|| self.fences.contains(&op).then_some(OpResult::Fenced))
    }

    /// Bytes it takes in a message, roughly.
    pub(crate) fn size(&self) -> usize {
        const ENTRY: usize = 32;
        const BALLOT: usize = 12;
        let value = self.state.as_ref().map_or(0, |state| state.value.len());
        ENTRY * (2 + self.recent.len() + self.fences.len()) + BALLOT * self.proposers.len() + value
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
            Err(position) if self.proposers.len() < PROPOSERS_MAX => self.proposers.insert(position, ballot),
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
    ballot: Ballot,
    keep: Keep,
}

impl Draft {
    pub(crate) fn new(base: Arc<Register>, ballot: Ballot, keep: Keep) -> Self {
        Self {
            base,
            changed: None,
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

    /// The register to accept.
    pub(crate) fn finish(self) -> Arc<Register> {
        let Some(mut changed) = self.changed else {
            return self.base;
        };
        assert!(
            changed.version >= self.base.version,
            "versions of a key never go back"
        );
        changed.changed_under(self.ballot);
        Arc::new(changed)
    }

    fn change(&mut self) -> &mut Register {
        self.changed.get_or_insert_with(|| (*self.base).clone())
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
        let ran_unseen = earlier.by_us.iter().any(|(ballot, _)| *ballot < last);
        if ran_unseen || (earlier.by_others && register.evicted > Ballot::ZERO) {
            return Ruling::Forgotten;
        }
        if register
            .fences_evicted
            .is_some_and(|basis| op.session.basis <= basis)
        {
            return Ruling::MayBeFenced;
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
        let (ballot, keep) = (self.ballot, self.keep.recent);
        let register = self.change();
        register.recent.push(Recent { op, result, ballot });
        let surplus = register.recent.len().saturating_sub(keep);
        for dropped in register.recent.drain(..surplus) {
            register.evicted = register.evicted.max(dropped.ballot);
        }
        assert!(register.recent.len() <= keep, "remembered results are bounded");
        assert!(register.find(op).is_some(), "a result that was recorded is found");
    }

    /// Resolves `op`: what it did, or a fence so that it never will. `None`: its result may have been dropped.
    pub(crate) fn fence(&mut self, op: OpId) -> Option<OpResult> {
        let register = self.register();
        if let Some(result) = register.find(op) {
            return Some(result);
        }
        if register.evicted > Ballot::ZERO {
            return None;
        }
        let keep = self.keep.fences;
        let register = self.change();
        register.fences.push(op);
        let surplus = register.fences.len().saturating_sub(keep);
        for dropped in register.fences.drain(..surplus) {
            register.fences_evicted = register.fences_evicted.max(Some(dropped.session.basis));
        }
        assert!(register.fences.len() <= keep, "fences are bounded");
        Some(OpResult::Fenced)
    }
}

fn mutate(register: &mut Register, mutation: &Mutation) {
    let modified = register.version;
    register.state = match mutation {
        Mutation::Put { value, lease, .. } => Some(Versioned {
            value: value.clone(),
            created: register.state.as_ref().map_or(modified, |state| state.created),
            modified,
            lease: *lease,
        }),
        Mutation::Delete { .. } => None,
    };
}
