//! Atomic commitment (Bernstein, Hadzilacos and Goodman 1987, section 7.3): no batch is both committed and aborted
//! anywhere, and nobody takes back a decision.

use std::collections::{BTreeMap, BTreeSet};

use trilemma_core::{NodeId, Version, codec};
use trilemma_two_phase::{BatchId, Message, TwoPhase};

use super::Broken;

/// See the module.
#[derive(Default)]
pub(super) struct TwoPhaseInvariants {
    /// Batches that were sent for a vote.
    issued: BTreeSet<BatchId>,
    /// Batches that some message or node called committed.
    committed: BTreeSet<BatchId>,
    /// Batches that some message called aborted.
    aborted: BTreeSet<BatchId>,
    /// The one history: batch and digest of the state at each position.
    history: BTreeMap<Version, (BatchId, u64)>,
    /// The position that each node shows in its present life.
    shown: BTreeMap<NodeId, Version>,
}

impl TwoPhaseInvariants {
    pub(super) fn start(&mut self, id: NodeId) {
        self.shown.remove(&id);
    }

    pub(super) fn observe(&mut self, id: NodeId, two_phase: &TwoPhase) -> Result<(), Broken> {
        let (decided, version) = two_phase.decided();
        let before = self.shown.insert(id, version);
        if before == Some(version) {
            return Ok(());
        }
        if before.is_some_and(|before| version < before) {
            return Err((
                "decision-monotone",
                format!("node {id} goes back from {before:?} to {version}"),
            ));
        }
        if version > Version::ABSENT {
            self.commit(decided)?;
            let digest = two_phase.digest();
            let known = *self.history.entry(version).or_insert((decided, digest));
            if known != (decided, digest) {
                let what = format!(
                    "node {id} has another history at {version}: {decided} with {digest:x}, not {known:?}"
                );
                return Err(("one-history", what));
            }
        }
        Ok(())
    }

    fn commit(&mut self, id: BatchId) -> Result<(), Broken> {
        self.committed.insert(id);
        if self.aborted.contains(&id) {
            return Err(("atomicity", format!("batch {id} was aborted and is committed")));
        }
        Ok(())
    }

    fn abort(&mut self, id: BatchId) -> Result<(), Broken> {
        self.aborted.insert(id);
        if self.committed.contains(&id) {
            return Err(("atomicity", format!("batch {id} was committed and is aborted")));
        }
        Ok(())
    }

    pub(super) fn send(&mut self, from: NodeId, bytes: &[u8]) -> Result<(), Broken> {
        let Ok(message) = codec::decode::<Message>(bytes) else {
            return Err(("codec", format!("node {from} sends bytes that do not decode")));
        };
        match message {
            Message::Prepare { batch, head } => {
                self.issued.insert(batch.id);
                self.commit(head.decided)
            }
            Message::Announce { head } => self.commit(head.decided),
            Message::Settled(settled) => {
                self.commit(settled.head.decided)?;
                settled.committed.iter().try_for_each(|id| self.commit(*id))?;
                let spoken_of = self.issued.range(settled.after..settled.below).copied();
                let aborted: Vec<BatchId> = spoken_of
                    .filter(|id| *id > settled.after)
                    .filter(|id| !settled.committed.contains(id) && !settled.open.contains(id))
                    .collect();
                aborted.into_iter().try_for_each(|id| self.abort(id))
            }
            Message::Evidence {
                committed, aborted, ..
            } => {
                committed.iter().try_for_each(|id| self.commit(*id))?;
                aborted.iter().try_for_each(|id| self.abort(*id))
            }
            _ => Ok(()),
        }
    }
}
