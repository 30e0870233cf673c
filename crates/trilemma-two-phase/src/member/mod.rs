//! A member: prepares and votes, learns what is decided, answers reads from its own state.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use trilemma_core::pending::PendingKind;
use trilemma_core::{
    AppendSeq, Incarnation, Instant, NodeId, Proposal, ReadLevel, ReadRequest, Reason, Reply, Request, Rng,
    Ticket,
};

use crate::batch::{Batch, Transaction};
use crate::chain::Chain;
use crate::config::TwoPhaseConfig;
use crate::core::{Core, Out};
use crate::ids::BatchId;
use crate::message::{CHAIN_MAX, Hello, Message};
use crate::pending::{Open, WaitFor};
use forwards::Forwards;
pub(crate) use install::{Installing, Pieces};

mod forwards;
mod install;
mod prepare;
mod termination;

/// Most batches that wait for the one before them.
const STASH_MAX: usize = 64;

/// The state that only a member has.
#[derive(Debug)]
pub(crate) struct Member {
    /// Prepared batches whose outcome is not known here.
    pub(crate) chain: Chain,
    /// The greatest id that was prepared or refused here, discarded ones included: none up to it is prepared (again).
    pub(crate) fence: BatchId,
    /// Ids below that are not known to be committed are aborted, as the sequencer has said.
    resolved_below: BatchId,
    /// Batches that came before the one they follow.
    stash: BTreeMap<BatchId, Arc<Batch>>,
    /// The incarnation of the sequencer that knows where this member stands.
    linked: Option<Incarnation>,
    /// The decided point as far as it is durable, and the records that will move it.
    pub(crate) acked: BatchId,
    outcomes: VecDeque<(AppendSeq, BatchId)>,
    /// Why this member's state is not to be believed, if it is not that of the sequencer after the same batch.
    diverged: Option<String>,
    /// Whether a vote is due at the end of the turn.
    owes_vote: bool,
    /// Whether the sequencer must be asked: something is missing here.
    is_behind: bool,
    /// When a batch in doubt is asked about next, and the pause after that.
    ask_at: Instant,
    ask_pause: std::time::Duration,
    forwards: Forwards,
    pub(crate) install: Option<Installing>,
    nonce: u64,
    rng: Rng,
}

impl Member {
    pub(crate) fn new(config: &TwoPhaseConfig) -> Self {
        let mut rng = Rng::new(config.seed);
        Self {
            chain: Chain::default(),
            fence: BatchId::ORIGIN,
            resolved_below: BatchId::ORIGIN,
            stash: BTreeMap::new(),
            linked: None,
            acked: BatchId::ORIGIN,
            outcomes: VecDeque::new(),
            diverged: None,
            owes_vote: false,
            is_behind: false,
            ask_at: Instant::ZERO,
            ask_pause: config.retry_interval,
            forwards: Forwards::default(),
            install: None,
            nonce: rng.next_u64().max(1),
            rng,
        }
    }

    /// The state is loaded. Batches in doubt are on the chain again, and their keys held, before anything is served.
    pub(crate) fn start(&mut self, core: &mut Core, now: Instant, effects: &mut Out) {
        self.chain.restart(now);
        self.acked = core.ledger.decided;
        // What was received of a transfer that did not end belongs to a nonce of the past.
        self.give_up_transfer(effects);
        self.greet(core, effects);
    }

    /// The member's invariants. The chain starts at the decided point, and nothing on it is beyond the fence: else a
    /// batch that was given up could be prepared again (inside/two-phase#the-rules-of-a-chain).
    pub(crate) fn check(&self, core: &Core) {
        self.chain.check();
        self.forwards.check(core);
        if let Some(first) = self.chain.iter().next() {
            let batch = &first.batch;
            assert_eq!(
                batch.prev, core.ledger.decided,
                "the chain starts at the decided point"
            );
            assert!(
                batch.fits(core.ledger.version()),
                "batch {} fits the table",
                batch.id
            );
        }
        if let Some(tip) = self.chain.tip() {
            assert!(
                tip.id <= self.fence,
                "batch {} is beyond the fence {}",
                tip.id,
                self.fence
            );
        }
        assert!(self.chain.len() <= CHAIN_MAX, "the chain is bounded");
        assert!(self.stash.len() <= STASH_MAX, "the stash is bounded");
        assert!(
            self.install.is_none() || !core.ledger.is_joined,
            "only a member without state takes one"
        );
        assert_ne!(self.nonce, 0, "a member's nonce names its transfer");
        assert!(
            self.outcomes.iter().rev().take(2).is_sorted_by(|a, b| a.0 > b.0),
            "acknowledgements wait in the order of their records"
        );
    }

    pub(crate) fn is_linked(&self) -> bool {
        self.linked.is_some()
    }

    pub(crate) fn forwarded(&self) -> usize {
        self.forwards.len()
    }

    /// Why reads above `Local` cannot be served, and no writes be passed on, if so.
    pub(crate) fn unready(&self, core: &Core) -> Option<String> {
        if core.ledger.is_joined {
            return self.diverged.clone();
        }
        Some(format!(
            "this node has no data yet and waits for the state of node {}, the sequencer",
            core.config.sequencer
        ))
    }

    /// Tells the sequencer where this member stands, when all of that is durable.
    fn greet(&mut self, core: &Core, effects: &mut Out) {
        let prepared = self.chain.tip().map_or(core.ledger.decided, |tip| tip.id);
        let hello = Hello {
            nonce: self.nonce,
            is_blank: !core.ledger.is_joined,
            decided: core.ledger.decided,
            acked: self.acked,
            prepared,
            fence: self.fence,
        };
        effects.send_after_append(core.config.sequencer, Message::Hello(hello));
    }

    pub(crate) fn propose(&mut self, core: &mut Core, proposal: Proposal, effects: &mut Out) {
        let Proposal {
            ticket,
            deadline,
            request,
        } = proposal;
        let kind = PendingKind::of(&request);
        let transaction = match request {
            Request::Read(read) => return self.read(core, ticket, deadline, read, effects),
            Request::Write { op, command, .. } => Transaction::Write { op, command },
            Request::Outcome { op, .. } => Transaction::Fence { op },
        };
        self.forward(core, ticket, deadline, kind, transaction, effects);
    }

    /// A linearizable read without a message (inside/two-phase#reads). Every write that was acknowledged before it
    /// began was prepared here before its acknowledgement, so it is decided here, or on the chain at or before the last
    /// batch that touches the key. When that one is resolved, the decided state is new enough. What arrives later need
    /// not be waited for, so a key that is always in flight starves nobody.
    fn read(
        &mut self,
        core: &mut Core,
        ticket: Ticket,
        deadline: Instant,
        read: ReadRequest,
        effects: &mut Out,
    ) {
        if let Some(why) = self.diverged.clone() {
            return effects.reply(ticket, PendingKind::Read.refused(Reason::Recovering { why }));
        }
        let unready = self.unready(core);
        let Some(read) = core.read(ticket, deadline, read, unready, effects) else {
            return;
        };
        let level = ReadLevel::Linearizable;
        let last = self.chain.tip().map_or(BatchId::ORIGIN, |tip| tip.id);
        match self.chain.last_touching(&read.query, last) {
            None => effects.reply(ticket, Reply::Read(Ok(core.answer(&read.query, level)))),
            Some(prepared) => {
                let open = Open::Read {
                    wait: WaitFor::Batch(prepared.batch.id),
                    query: read.query,
                    level,
                };
                core.pending.add(ticket, deadline, open);
            }
        }
    }

    pub(crate) fn on_view(&mut self, core: &mut Core, now: Instant, effects: &mut Out) {
        if core.is_connected(core.config.sequencer) {
            if self.linked.is_none() || !self.chain.is_empty() {
                self.greet(core, effects);
            }
        } else {
            self.refuse_unsent(core, effects);
            self.ask_at = now;
        }
    }

    pub(crate) fn on_tick(&mut self, core: &mut Core, now: Instant, effects: &mut Out) {
        core.record_watermark(effects);
        let is_connected = core.is_connected(core.config.sequencer);
        if is_connected && (self.linked.is_none() || self.is_behind || !core.ledger.is_joined) {
            self.is_behind = false;
            self.greet(core, effects);
        }
        if is_connected && !self.stash.is_empty() {
            let after = self.chain.tip().map_or(core.ledger.decided, |tip| tip.id);
            effects.send(core.config.sequencer, Message::Resend { after });
        }
        self.fetch_again(core, effects);
        self.ask_about_doubts(core, now, effects);
        self.forward_again(now);
    }

    pub(crate) fn is_waiting(&self, core: &Core) -> bool {
        self.linked.is_none()
            || self.is_behind
            || !core.ledger.is_joined
            || !self.chain.is_empty()
            || !self.stash.is_empty()
            || !self.forwards.is_empty()
            || core.recorded < core.ledger.finished
    }

    /// Sends what has gathered in this turn; returns whether something is left for the next one.
    pub(crate) fn end_turn(&mut self, core: &mut Core, now: Instant, effects: &mut Out) -> bool {
        if std::mem::take(&mut self.owes_vote) {
            self.vote(core, effects);
        }
        self.send_forwards(core, now, effects)
    }

    /// Votes for the whole chain: it is durable when this leaves.
    fn vote(&self, core: &Core, effects: &mut Out) {
        let prepared = self.chain.tip().map_or(core.ledger.decided, |tip| tip.id);
        let acked = self.acked;
        effects.send_after_append(core.config.sequencer, Message::Vote { prepared, acked });
    }

    pub(crate) fn on_persisted(&mut self, up_to: AppendSeq) {
        let before = self.acked;
        while let Some((seq, decided)) = self.outcomes.front().copied()
            && seq <= up_to
        {
            self.acked = self.acked.max(decided);
            self.outcomes.pop_front();
        }
        // While more is prepared, its vote will carry the acknowledgement.
        if self.acked > before && self.chain.is_empty() {
            self.owe_vote();
        }
    }

    pub(crate) fn receive(
        &mut self,
        core: &mut Core,
        now: Instant,
        from: NodeId,
        message: Message,
        effects: &mut Out,
    ) {
        let is_sequencer = from == core.config.sequencer;
        match message {
            Message::Inquire { in_doubt, is_urgent } if core.config.members.contains(&from) => {
                self.on_inquire(core, from, &in_doubt, is_urgent, effects);
            }
            Message::Evidence {
                committed,
                aborted,
                finished,
            } if core.config.members.contains(&from) && core.ledger.is_joined => {
                self.on_evidence(core, committed, aborted, finished, effects);
            }
            Message::Prepare { batch, head } if is_sequencer => {
                self.on_prepare(core, now, batch, head, effects);
            }
            Message::Announce { head } if is_sequencer => self.on_announce(core, head, effects),
            Message::Resolved(resolved) if is_sequencer => self.on_resolved(core, now, &resolved, effects),
            Message::Probe if is_sequencer => self.greet(core, effects),
            Message::Answers {
                sequencer,
                incarnation,
                items,
            } if is_sequencer => {
                if incarnation == core.config.incarnation {
                    self.on_answers(core, sequencer, items, effects);
                }
            }
            Message::Install {
                nonce,
                decided,
                position,
                unknown_through,
            } if is_sequencer => {
                let offer = Installing::new(&core.config, decided, position, unknown_through);
                self.on_install(core, nonce, offer, effects);
            }
            Message::Piece {
                nonce,
                index,
                bytes,
                ends_chunk,
                is_last,
            } if is_sequencer => {
                if nonce == self.nonce {
                    self.on_piece(core, index, bytes, ends_chunk, is_last, effects);
                }
            }
            other => {
                let kind = trilemma_core::Message::kind(&other);
                tracing::debug!(%from, kind, "a message that this sender may not send is ignored");
            }
        }
    }
}

#[cfg(test)]
mod tests;
