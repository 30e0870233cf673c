//! In doubt: asking, answering, and what counts as evidence (inside/two-phase#in-doubt).
//!
//! A member that voted yes never decides by a clock. Evidence is a decision, a durable refusal, or the watermark;
//! "prepared" and "unknown" are none.

use std::time::Duration;

use trilemma_core::{Instant, NodeId, NodeSet, Query, Reason};

use super::Member;
use crate::core::{Core, Out};
use crate::ids::BatchId;
use crate::message::{CHAIN_MAX, Message};
use crate::record::Record;

/// Longest pause between two questions about a batch in doubt.
const ASK_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Time in doubt after which peers are asked to refuse what they have not prepared, reachable sequencer or not.
const URGENT_AFTER: Duration = Duration::from_secs(1);

impl Member {
    /// Asks the sequencer, or the peers when it is silent.
    pub(super) fn ask_about_doubts(&mut self, core: &Core, now: Instant, effects: &mut Out) {
        let Some(since) = self.chain.iter().next().map(|prepared| now.since(prepared.since)) else {
            self.ask_pause = core.config.retry_interval;
            return;
        };
        if since < core.config.retry_interval || now < self.ask_at {
            return;
        }
        self.ask_at = now + self.ask_pause;
        self.ask_pause = (self.ask_pause * 2).min(ASK_PAUSE_MAX);
        let sequencer = core.config.sequencer;
        let is_connected = core.is_connected(sequencer);
        if is_connected {
            self.greet(core, effects);
        }
        if is_connected && since < URGENT_AFTER {
            return;
        }
        let in_doubt: Vec<BatchId> = self.chain.ids().take(CHAIN_MAX).collect();
        for peer in core.config.others().filter(|peer| *peer != sequencer) {
            let question = Message::Inquire {
                in_doubt: in_doubt.clone(),
                is_urgent: since >= URGENT_AFTER,
            };
            effects.send(peer, question);
        }
    }

    /// A peer is in doubt. What is not prepared here is durably refused first; then its abort is certain, because
    /// the sequencer can never get this member's vote.
    pub(super) fn on_inquire(
        &mut self,
        core: &Core,
        from: NodeId,
        in_doubt: &[BatchId],
        is_urgent: bool,
        effects: &mut Out,
    ) {
        if !core.ledger.is_joined {
            return;
        }
        let (mut aborted, mut is_finished) = (None, false);
        // What the asker has chained a committed batch on is committed, too.
        let last = in_doubt.iter().rposition(|id| core.ledger.is_committed(*id));
        let committed = last.map(|last| in_doubt[last]);
        for id in in_doubt.iter().copied().skip(last.map_or(0, |last| last + 1)) {
            if self.chain.contains(id) {
                continue;
            }
            // The watermark tells the asker that it was aborted, unless it has learned of its commit meanwhile.
            if id < core.ledger.finished {
                is_finished = true;
                break;
            }
            // An earlier incarnation, whose records are lost, may have voted for it.
            if id <= core.ledger.unknown_through || id.epoch != core.config.epoch {
                break;
            }
            let never = self.fence.max(core.ledger.decided);
            if id > never && id >= self.resolved_below {
                if core.is_connected(core.config.sequencer) && !is_urgent {
                    break;
                }
                assert!(
                    !self.chain.contains(id),
                    "batch {id} is refused after a vote for it"
                );
                effects.append(Record::Refuse { id });
                self.fence = id;
            }
            aborted = Some(id);
            break;
        }
        if committed.is_some() || aborted.is_some() || is_finished {
            let finished = core.ledger.finished;
            let evidence = Message::Evidence {
                committed,
                aborted,
                finished,
            };
            effects.send_after_append(from, evidence);
        }
    }

    pub(super) fn on_evidence(
        &mut self,
        core: &mut Core,
        committed: Option<BatchId>,
        aborted: Option<BatchId>,
        finished: BatchId,
        effects: &mut Out,
    ) {
        if let Some(id) = committed.filter(|id| self.chain.contains(*id)) {
            self.commit_through(core, id, effects);
        }
        if let Some(id) = aborted.filter(|id| self.chain.contains(*id)) {
            self.discard_from(core, id, effects);
        }
        self.on_watermark(core, finished, effects);
    }

    /// Why a read that waited for batch `id` was not answered in time.
    pub(crate) fn doubt(&self, core: &Core, query: &Query, id: BatchId, now: Instant) -> Reason {
        let holder = self.chain.last_touching(query, id).or_else(|| self.chain.get(id));
        let mut can_resolve = NodeSet::of(core.config.sequencer);
        can_resolve.0.extend(core.missing.iter());
        Reason::InDoubt {
            batch: holder.map_or(id, |prepared| prepared.batch.id).to_string(),
            since: holder.map_or(Duration::ZERO, |prepared| now.since(prepared.since)),
            can_resolve,
        }
    }
}
