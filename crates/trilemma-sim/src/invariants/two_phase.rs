//! Atomic commitment (Bernstein, Hadzilacos and Goodman 1987, section 7.3): no batch is both committed and aborted
//! anywhere, and nobody takes back a decision. Votes, refusals and decisions are on the disk before anybody learns of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use trilemma_core::{NodeId, Now, Version, codec};
use trilemma_storage::LogSeq;
use trilemma_two_phase::{BatchId, Hello, Message, Record, TwoPhase};

use super::Broken;

/// What a restart of a node would find, by its records alone and not by what the node believes.
#[derive(Default)]
struct Stored {
    prepared: BatchId,
    /// No batch up to here is prepared any more.
    fence: BatchId,
    /// The same when the present incarnation began. Messages may be older than what is on the disk by now.
    fence_at_start: BatchId,
    /// Committed up to here.
    decided: BatchId,
    /// Which records the disk holds is not known: nothing is demanded of this node any more.
    is_unclear: bool,
    pending: VecDeque<(LogSeq, Record)>,
}

impl Stored {
    /// Records up to this one have become durable.
    fn sync(&mut self, durable: LogSeq) {
        while let Some((_, record)) = self.pending.pop_front_if(|(seq, _)| *seq <= durable) {
            match record {
                Record::Prepare(batch) => {
                    self.prepared = self.prepared.max(batch.id);
                    self.fence = self.fence.max(batch.id);
                }
                Record::Decision(batch) => self.decided = self.decided.max(batch.id),
                Record::Outcome { decided } => self.decided = self.decided.max(decided),
                Record::Refuse { id } => self.fence = self.fence.max(id),
                Record::Installed {
                    decided,
                    unknown_through,
                    ..
                } => {
                    self.decided = self.decided.max(decided);
                    self.fence = self.fence.max(unknown_through).max(decided);
                }
                Record::Joined { .. } | Record::Watermark { .. } | Record::Piece { .. } => {}
            }
        }
    }
}

/// At rest nothing is in doubt anywhere.
pub(super) fn rest(id: NodeId, two_phase: &TwoPhase) -> Result<(), Broken> {
    match two_phase.in_doubt(Now::default()).len() {
        0 => Ok(()),
        count => Err(("rest", format!("node {id} has {count} batches in doubt"))),
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct TwoPhaseInvariants {
    stored: BTreeMap<NodeId, Stored>,
    /// Batches that were sent for a vote.
    issued: BTreeSet<BatchId>,
    /// Batches that some message or node called committed.
    committed: BTreeSet<BatchId>,
    /// Batches that some message called aborted.
    aborted: BTreeSet<BatchId>,
    /// The one history: batch and digest of the state at each position.
    history: BTreeMap<Version, (BatchId, u64)>,
    /// The position that each node shows in its present incarnation.
    shown: BTreeMap<NodeId, Version>,
}

impl TwoPhaseInvariants {
    /// A node has started with what its log held up to `last`: of what was not synced, all or some may have survived.
    pub(super) fn start(&mut self, id: NodeId, last: LogSeq) {
        self.shown.remove(&id);
        let stored = self.stored.entry(id).or_default();
        stored.sync(last);
        stored.pending.clear();
        stored.fence_at_start = stored.fence;
    }

    pub(super) fn disk_lost(&mut self, id: NodeId) {
        self.stored.remove(&id);
    }

    pub(super) fn start_failed(&mut self, id: NodeId) {
        self.stored.entry(id).or_default().is_unclear = true;
    }

    pub(super) fn placed(&mut self, id: NodeId, seq: LogSeq, bytes: &[u8]) {
        if let Ok(record) = codec::decode::<Record>(bytes) {
            let stored = self.stored.entry(id).or_default();
            stored.pending.push_back((seq, record));
        }
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

    /// What a message promises must be on the disk of its sender.
    fn is_kept(&self, stored: &Stored, known: BatchId, message: &Message) -> Option<&'static str> {
        let committed = |id: BatchId| (id > stored.decided).then_some("a commit that is not durable");
        let voted = |prepared: BatchId, acked: BatchId| {
            let lacks = prepared > stored.prepared.max(stored.decided);
            lacks.then_some("a vote that is not durable").or(committed(acked))
        };
        match message {
            _ if stored.is_unclear => None,
            Message::Prepare { head, .. } | Message::Announce { head } => committed(head.decided),
            Message::Resolved(resolved) => committed(resolved.head.decided),
            Message::Vote { prepared, acked } => voted(*prepared, *acked),
            Message::Hello(Hello { is_blank: true, .. }) => None,
            Message::Hello(hello) => voted(hello.prepared, hello.acked)
                .or((hello.fence < stored.fence_at_start).then_some("less than it had durably refused")),
            Message::Refusal { id, .. }
            | Message::Evidence {
                aborted: Some(id), ..
            } => {
                let is_certain = *id <= stored.fence.max(known) || self.aborted.contains(id);
                (!is_certain).then_some("an abort that it has not durably refused")
            }
            _ => None,
        }
    }

    /// `known` is how far the sender knows of commits.
    pub(super) fn send(
        &mut self,
        from: NodeId,
        known: BatchId,
        durable: LogSeq,
        bytes: &[u8],
    ) -> Result<(), Broken> {
        let Ok(message) = codec::decode::<Message>(bytes) else {
            return Err(("codec", format!("node {from} sends bytes that do not decode")));
        };
        self.stored.entry(from).or_default().sync(durable);
        if let Some(what) = self.is_kept(&self.stored[&from], known, &message) {
            let stored = &self.stored[&from];
            let what = format!(
                "node {from} tells {what}: {message:?}, with prepared {}, fence {}, decided {} on its disk",
                stored.prepared, stored.fence, stored.decided
            );
            return Err(("promise-durable", what));
        }
        match message {
            Message::Prepare { batch, head } => {
                self.issued.insert(batch.id);
                self.commit(head.decided)
            }
            Message::Announce { head } => self.commit(head.decided),
            Message::Resolved(resolved) => {
                self.commit(resolved.head.decided)?;
                resolved.committed.iter().try_for_each(|id| self.commit(*id))?;
                let spoken_of = self.issued.range(resolved.after..resolved.below).copied();
                let aborted: Vec<BatchId> = spoken_of
                    .filter(|id| *id > resolved.after)
                    .filter(|id| !resolved.committed.contains(id) && !resolved.open.contains(id))
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
