//! Preparing, committing and discarding batches: the rules of inside/two-phase#the-rules-of-a-chain.

use std::sync::Arc;

use trilemma_core::pending::PendingKind;
use trilemma_core::{Instant, Reason};

use super::{Member, STASH_MAX};
use crate::batch::Batch;
use crate::core::{Core, Out};
use crate::ids::BatchId;
use crate::message::{CHAIN_MAX, Head, Message, Resolved};
use crate::pending::{Open, WaitFor};
use crate::record::Record;

/// What to do with a batch that the sequencer wants prepared.
enum Place {
    /// It is decided, or on the chain: vote again.
    Known,
    /// It follows a batch on the chain, or the decided point.
    Next,
    /// It follows a batch that has not come yet.
    Gap,
    /// This batch is never prepared here.
    Refused(BatchId, &'static str),
    /// There is no room.
    Full,
}

impl Member {
    pub(super) fn on_prepare(
        &mut self,
        core: &mut Core,
        now: Instant,
        batch: Arc<Batch>,
        head: Head,
        effects: &mut Out,
    ) {
        // Without its records this member does not know what it has voted for.
        if !core.ledger.is_joined {
            return;
        }
        self.on_head(core, head, effects);
        match self.place(core, &batch) {
            Place::Known => self.owe_vote(),
            Place::Next | Place::Gap if self.diverged.is_some() => self.refuse(core, batch.id, effects),
            Place::Next => {
                self.prepare(core, now, batch, effects);
                self.unstash(core, now, effects);
            }
            Place::Gap if self.stash.len() < STASH_MAX => {
                self.stash.insert(batch.id, batch);
            }
            Place::Gap | Place::Full => {}
            Place::Refused(id, why) => {
                let why = why.into();
                effects.send_after_append(core.config.sequencer, Message::Refusal { id, why });
            }
        }
    }

    pub(super) fn owe_vote(&mut self) {
        self.owes_vote = true;
    }

    fn place(&self, core: &Core, batch: &Batch) -> Place {
        let (id, prev, decided) = (batch.id, batch.prev, core.ledger.decided);
        if self.chain.contains(id) || core.ledger.is_committed(id) {
            return Place::Known;
        }
        if id.epoch != core.config.epoch {
            return Place::Refused(id, "it was ordered in another view");
        }
        // Without this rule a batch that was discarded, because the sequencer had aborted it, could be prepared
        // again by a late copy and a late vote for it be counted.
        let resolved = self.fence.max(decided).max(core.ledger.unknown_through);
        if id <= resolved || id < core.ledger.finished || id < self.resolved_below {
            return Place::Refused(id, "the member has prepared, refused or resolved a later batch");
        }
        let end = if prev == decided {
            core.ledger.version()
        } else if let Some(end) = self.chain.end_of(prev) {
            end
        } else if prev <= decided {
            return Place::Refused(id, "it is chained on a batch before the member's decided point");
        } else if prev <= resolved {
            return Place::Refused(prev, "the member never prepares the batch it is chained on");
        } else {
            return Place::Gap;
        };
        if !batch.fits(end) {
            return Place::Refused(
                id,
                "its positions do not follow those of the batch it is chained on",
            );
        }
        if self.chain.len() >= CHAIN_MAX {
            return Place::Full;
        }
        Place::Next
    }

    fn prepare(&mut self, core: &mut Core, now: Instant, batch: Arc<Batch>, effects: &mut Out) {
        assert!(
            batch.id > self.fence,
            "batch {} is prepared behind the fence {}",
            batch.id,
            self.fence
        );
        // The sequencer ordered this batch after those beyond `prev`, yet chained it on `prev`: it had aborted them.
        self.discard_beyond(core, batch.prev, effects);
        effects.append(Record::Prepare(Arc::clone(&batch)));
        self.fence = batch.id;
        self.chain.push(batch, now);
        assert!(
            core.ledger.is_joined,
            "only a member that knows its votes prepares"
        );
        self.owe_vote();
    }

    /// Prepares what had come too early and fits now.
    fn unstash(&mut self, core: &mut Core, now: Instant, effects: &mut Out) {
        while let Some(tip) = self.chain.tip().map(|tip| tip.id)
            && let Some((_, batch)) = self.stash.pop_first()
        {
            if batch.prev == tip && matches!(self.place(core, &batch), Place::Next) {
                self.prepare(core, now, batch, effects);
            } else if batch.id > tip && batch.prev > tip {
                self.stash.insert(batch.id, batch);
                break;
            }
        }
    }

    /// Takes what rides on the sequencer's messages.
    fn on_head(&mut self, core: &mut Core, head: Head, effects: &mut Out) {
        if head.decided > core.ledger.decided {
            if self.chain.contains(head.decided) {
                self.commit_through(core, head.decided, effects);
            } else {
                self.is_behind = true;
            }
        }
        self.on_watermark(core, head.finished, effects);
        self.compare(core, head, effects);
    }

    /// The sequencer has said what its state is after a batch (inside/two-phase#states-that-differ). Whose is right, neither
    /// can tell: a member with another one serves nobody and prepares nothing any more, until an operator has looked and it
    /// is started again.
    fn compare(&mut self, core: &mut Core, head: Head, effects: &mut Out) {
        let here = core.ledger.table.digest();
        if head.decided != core.ledger.decided || head.digest == here || self.diverged.is_some() {
            return;
        }
        let Head { decided, digest, .. } = head;
        let (node, sequencer) = (core.config.node, core.config.sequencer);
        let why = format!(
            "node {sequencer}, the sequencer, has a state of digest {digest:016x} after batch {decided}, where it is \
             {here:016x} on node {node}: the memory or the disk of one of them has a fault, or their programs differ; node \
             {node} serves nothing until it is restarted; compare their data before that, and keep each directory as it is"
        );
        tracing::error!("{why}");
        for ticket in core.pending.take_reads() {
            let why = why.clone();
            effects.reply(ticket, PendingKind::Read.refused(Reason::Recovering { why }));
        }
        self.diverged = Some(why);
    }

    /// Refuses a batch permanently, because this member's state is not to be believed.
    fn refuse(&mut self, core: &Core, id: BatchId, effects: &mut Out) {
        assert!(
            id > self.fence,
            "batch {id} is refused behind the fence {}",
            self.fence
        );
        effects.append(Record::Refuse { id });
        self.fence = id;
        let why = "its state differs from the sequencer's after the same batch; see its log".into();
        effects.send_after_append(core.config.sequencer, Message::Refusal { id, why });
    }

    /// Every batch below `finished` is aborted, or committed and acknowledged from here.
    pub(super) fn on_watermark(&mut self, core: &mut Core, finished: BatchId, effects: &mut Out) {
        core.ledger.finish(finished);
        // A committed batch would have been acknowledged from here before the watermark could pass it.
        if self
            .chain
            .ids()
            .next()
            .is_some_and(|first| first < core.ledger.finished)
        {
            self.discard_beyond(core, core.ledger.decided, effects);
        }
    }

    pub(super) fn on_announce(&mut self, core: &mut Core, head: Head, effects: &mut Out) {
        if !core.ledger.is_joined {
            return;
        }
        self.on_head(core, head, effects);
        if head.decided <= self.acked {
            self.owe_vote();
        }
    }

    pub(super) fn on_resolved(
        &mut self,
        core: &mut Core,
        now: Instant,
        resolved: &Resolved,
        effects: &mut Out,
    ) {
        if self.linked < Some(resolved.incarnation) {
            self.linked = Some(resolved.incarnation);
            self.forward_all_again();
        }
        if !core.ledger.is_joined {
            return;
        }
        self.on_head(core, resolved.head, effects);
        if core.ledger.decided < resolved.after {
            self.is_behind = true;
            return;
        }
        if let Some(last) = resolved.committed.last().copied()
            && last > core.ledger.decided
        {
            if !self.chain.contains(last) {
                self.lose_state(core, last, effects);
                return;
            }
            self.commit_through(core, last, effects);
        }
        let spoken_of = |id: &BatchId| *id > resolved.after && *id < resolved.below;
        let aborted = self
            .chain
            .ids()
            .find(|id| spoken_of(id) && resolved.open.binary_search(id).is_err());
        if let Some(aborted) = aborted {
            self.discard_from(core, aborted, effects);
        }
        let below = resolved
            .open
            .first()
            .map_or(resolved.below, |open| resolved.below.min(*open));
        self.resolved_below = self.resolved_below.max(below);
        self.stash.retain(|id, _| *id >= below);
        self.is_behind = false;
        self.ask_pause = core.config.retry_interval;
        self.ask_at = self.ask_at.max(now + self.ask_pause);
    }

    /// Batches up to `id`, which is on the chain, are committed.
    pub(super) fn commit_through(&mut self, core: &mut Core, id: BatchId, effects: &mut Out) {
        assert!(
            self.chain.contains(id),
            "batch {id} is committed and not prepared here"
        );
        while let Some(prepared) = self.chain.pop_through(id) {
            let batch = prepared.batch;
            assert!(
                batch.fits(core.ledger.version()),
                "batch {} does not fit the table",
                batch.id
            );
            let done = batch.apply(&mut core.ledger.table);
            core.ledger.advance(batch.id);
            self.resolve_forwards(core, &batch, &done, effects);
            Core::tell_watchers(batch.first, done, effects);
            for (ticket, _, open) in core.pending.reads_on(batch.id) {
                core.answer_open(ticket, open, effects);
            }
        }
        let decided = core.ledger.decided;
        assert_eq!(
            decided, id,
            "everything up to the batch is committed, and nothing else"
        );
        let seq = effects.append_lazy(Record::Outcome { decided });
        self.outcomes.push_back((seq, decided));
        core.wake_versions(effects);
    }

    /// `id`, which is on the chain, and all batches after it are aborted.
    pub(super) fn discard_from(&mut self, core: &mut Core, id: BatchId, effects: &mut Out) {
        let before = self.chain.ids().take_while(|other| *other < id).last();
        self.discard_beyond(core, before.unwrap_or(core.ledger.decided), effects);
    }

    /// All batches after `kept` are aborted. Reads that waited for one of them wait for the last batch before that
    /// touches their keys: it may be acknowledged already, though its outcome is not known here.
    pub(super) fn discard_beyond(&mut self, core: &mut Core, kept: BatchId, effects: &mut Out) {
        while let Some(discarded) = self.chain.pop_beyond(kept) {
            for (ticket, deadline, open) in core.pending.reads_on(discarded.batch.id) {
                let Open::Read { query, level, .. } = &open else {
                    continue;
                };
                match self.chain.last_touching(query, kept) {
                    None => core.answer_open(ticket, open, effects),
                    Some(earlier) => {
                        let wait = WaitFor::Batch(earlier.batch.id);
                        let (query, level) = (query.clone(), *level);
                        core.pending
                            .add(ticket, deadline, Open::Read { query, level, wait });
                    }
                }
            }
        }
    }
}
