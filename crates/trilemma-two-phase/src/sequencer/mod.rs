//! The sequencer: orders batches, decides them alone (`classic`), and tells the members.
//!
//! A batch is committed when the `Decision` record is durable, and that record is appended only when every other
//! member has voted. Until it is appended the sequencer may abort the batch; afterwards it may not.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use trilemma_core::pending::PendingKind;
use trilemma_core::table::Table;
use trilemma_core::{
    AppendSeq, Incarnation, Instant, NodeId, NodeSet, Patience, Proposal, ReadRequest, Reason, Reply,
    Request, Ticket,
};

use crate::batch::{Batch, Done, Transaction};
use crate::config::TwoPhaseConfig;
use crate::core::{Core, Out};
use crate::ids::BatchId;
use crate::inbox::Inbox;
use crate::message::{Answer, CHAIN_MAX, Hello, Message, Resolved, UNFINISHED_MAX, Verdict};
use crate::pending::{CHECKED_MAX, Open, Stage, resolve, unknown};
use transfer::Transfer;

mod forwards;
mod links;
mod order;
mod transfer;

/// How often the time that votes get is doubled at most. A member that is connected and never votes holds writes back for
/// that long.
const PATIENCE_DOUBLINGS_MAX: u32 = 3;

/// The state that only a sequencer has.
#[derive(Debug)]
pub(crate) struct Sequencer {
    /// The state after the last batch in flight. Nothing is answered from it.
    speculative: Table,
    flights: VecDeque<Flight>,
    queue: VecDeque<Queued>,
    queue_bytes: usize,
    /// Operations that are to be refused, and why.
    refused: VecDeque<(VecDeque<Queued>, Reason)>,
    next_seq: u64,
    /// How long votes may take, and how many batches in a row have waited for them in vain.
    votes: Patience,
    in_vain: u32,
    links: BTreeMap<NodeId, Link>,
    inboxes: BTreeMap<NodeId, Inbox>,
    answers: BTreeMap<NodeId, Vec<Answer>>,
    transfers: BTreeMap<NodeId, Transfer>,
    /// The decided batch that members were last notified of.
    announced: BatchId,
    /// The record that will make a new keyspace's sequencer ready.
    joining: Option<AppendSeq>,
    /// Why this node must not serve: members know of decisions that its log does not have.
    diverged: Option<String>,
}

/// A batch under way.
#[derive(Debug)]
struct Flight {
    batch: Arc<Batch>,
    waiters: Vec<ReplyTo>,
    done: Vec<Done>,
    /// The state after it.
    after: Table,
    sent: Instant,
    resent: Instant,
    /// Its `Decision` record, once appended: from then on it cannot be aborted.
    decision: Option<AppendSeq>,
}

/// Who waits for a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReplyTo {
    /// A client of this node.
    Local(Ticket),
    /// A member's client: the member, its incarnation, its number.
    Remote(NodeId, Incarnation, u64),
}

/// A transaction that waits for its batch.
#[derive(Debug)]
struct Queued {
    transaction: Transaction,
    waiter: ReplyTo,
    deadline: Instant,
    since: Instant,
}

/// What is known of one member in this incarnation.
#[derive(Debug)]
struct Link {
    state: LinkState,
    /// The member's nonce when it was linked last.
    nonce: u64,
    /// It has voted for the chain up to here.
    voted: BatchId,
    /// It durably knows that the chain is committed up to here.
    acked: BatchId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkState {
    /// It has not said hello.
    Unknown,
    /// It has said hello while this node was not ready to answer.
    Heard(Hello),
    /// It has no state; a transfer of this nonce is due or under way. It has no vote.
    Blank(u64),
    /// It stands on the chain.
    Linked,
}

impl Sequencer {
    pub(crate) fn new(config: &TwoPhaseConfig) -> Self {
        let link = |node| {
            let link = Link {
                state: LinkState::Unknown,
                nonce: 0,
                voted: BatchId::ORIGIN,
                acked: BatchId::ORIGIN,
            };
            (node, link)
        };
        Self {
            speculative: Table::new(config.session_limits()),
            flights: VecDeque::new(),
            queue: VecDeque::new(),
            queue_bytes: 0,
            refused: VecDeque::new(),
            next_seq: 1,
            votes: Patience::new(config.prepare_timeout, PATIENCE_DOUBLINGS_MAX),
            in_vain: 0,
            links: config.others().map(link).collect(),
            inboxes: BTreeMap::new(),
            answers: BTreeMap::new(),
            transfers: BTreeMap::new(),
            announced: BatchId::ORIGIN,
            joining: None,
            diverged: None,
        }
    }

    /// The state is loaded. What the log has not decided is aborted: no id of an earlier incarnation is ever resumed.
    pub(crate) fn start(&mut self, core: &mut Core, effects: &mut Out) {
        self.speculative = core.ledger.table.clone();
        self.announced = core.ledger.decided;
        if self.links.is_empty() {
            // Nobody else can know of anything that this node does not.
            core.ledger.is_joined = true;
        }
        self.update_watermark(core);
        for node in self.links.keys() {
            effects.send(*node, Message::Probe);
        }
    }

    /// The sequencer's invariants. Batches in flight continue the decided chain, decided ones first, and no vote is
    /// counted for what is not there: else a batch could be committed that some member never prepared.
    pub(crate) fn check(&self, core: &Core) {
        self.check_flights(core);
        self.check_transfers();
        assert!(
            self.announced <= core.ledger.decided,
            "only what is decided is announced"
        );
        assert_eq!(
            self.queue.is_empty(),
            self.queue_bytes == 0,
            "queued bytes are counted"
        );
        assert!(
            self.joining.is_none() || !core.ledger.is_joined,
            "a sequencer joins once"
        );
        assert!(
            self.answers.len() <= self.inboxes.len(),
            "only who asked is answered"
        );
        let tip = self.tip(core);
        for (node, link) in &self.links {
            assert!(
                link.voted <= tip,
                "node {node} voted for {}, the last is {tip}",
                link.voted
            );
            assert!(
                link.acked <= core.ledger.decided,
                "node {node} acknowledged {}, which is not decided",
                link.acked
            );
        }
        if cfg!(debug_assertions) && self.queue.len() <= CHECKED_MAX {
            let bytes: usize = self.queue.iter().map(|queued| queued.transaction.size()).sum();
            assert_eq!(bytes, self.queue_bytes, "queued bytes are counted");
            self.inboxes.values().for_each(Inbox::check);
        }
    }

    fn check_flights(&self, core: &Core) {
        let (mut prev, mut end) = (core.ledger.decided, core.ledger.version());
        let mut may_be_decided = true;
        for flight in &self.flights {
            let batch = &flight.batch;
            assert_eq!(
                batch.prev, prev,
                "batch {} is chained on the one before it",
                batch.id
            );
            assert!(batch.id > prev, "batch {} comes after {prev}", batch.id);
            assert!(batch.fits(end), "batch {} continues the positions", batch.id);
            assert_eq!(
                flight.waiters.len(),
                batch.transactions.len(),
                "each transaction has a waiter"
            );
            assert_eq!(
                flight.done.len(),
                batch.transactions.len(),
                "each transaction was tried"
            );
            assert!(
                may_be_decided || flight.decision.is_none(),
                "batch {} is decided before the one it is chained on",
                batch.id
            );
            may_be_decided = flight.decision.is_some();
            (prev, end) = (batch.id, batch.last());
        }
        assert_eq!(
            self.speculative.version(),
            end,
            "what is tried next follows the last flight"
        );
        assert!(self.flights.len() <= CHAIN_MAX, "batches in flight are bounded");
        assert!(
            self.flights.is_empty() || core.ledger.is_joined,
            "a sequencer without its data orders nothing"
        );
        assert!(
            self.flights.is_empty() || prev <= self.last_issued(core),
            "batch {prev} was given out"
        );
    }

    /// The last batch in flight, or the last decided one.
    fn tip(&self, core: &Core) -> BatchId {
        self.flights
            .back()
            .map_or(core.ledger.decided, |flight| flight.batch.id)
    }

    pub(crate) fn last_issued(&self, core: &Core) -> BatchId {
        BatchId {
            seq: self.next_seq - 1,
            ..self.next_id(core)
        }
    }

    fn next_id(&self, core: &Core) -> BatchId {
        BatchId {
            epoch: core.config.epoch,
            incarnation: core.config.incarnation,
            seq: self.next_seq,
        }
    }

    /// Why reads and writes cannot be served, if they cannot.
    pub(crate) fn unready(&self, core: &Core) -> Option<String> {
        if let Some(why) = &self.diverged {
            return Some(why.clone());
        }
        if core.ledger.is_joined {
            return None;
        }
        let unheard: NodeSet = self.not_linked(|state| state == LinkState::Unknown);
        Some(format!(
            "this sequencer has no data and must hear from every member that none has voted; not heard: {unheard}"
        ))
    }

    /// Why reads cannot be served, if they cannot. After a start, a sequencer hears the members that it can reach before it
    /// answers: if its log has lost decisions, they know of them. One that can reach nobody answers from what it has.
    pub(crate) fn unreadable(&self, core: &Core) -> Option<String> {
        self.unready(core).or_else(|| {
            let unheard = self.not_linked(|state| state == LinkState::Unknown);
            let unheard: NodeSet = unheard.iter().filter(|node| core.is_connected(*node)).collect();
            let why = || {
                format!(
                    "this sequencer has just started and asks the members what they know; not heard yet: {unheard}"
                )
            };
            (!unheard.is_empty()).then(why)
        })
    }

    fn not_linked(&self, which: impl Fn(LinkState) -> bool) -> NodeSet {
        let links = self.links.iter().filter(|(_, link)| which(link.state));
        links.map(|(node, _)| *node).collect()
    }

    /// Members that have not reported in this incarnation, or are being restored.
    pub(crate) fn unlinked(&self) -> NodeSet {
        self.not_linked(|state| state != LinkState::Linked)
    }

    /// Whether the record that makes this node ready has been appended.
    pub(crate) fn is_joining(&self) -> bool {
        self.joining.is_some()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// What a replay of every record appended so far would give: the last batch whose decision is appended, the
    /// decided batches up to it, and the state.
    pub(crate) fn appended(&self, core: &Core) -> (BatchId, Vec<BatchId>, Table) {
        let deciding: Vec<&Flight> = self
            .flights
            .iter()
            .take_while(|flight| flight.decision.is_some())
            .collect();
        let mut recent: Vec<BatchId> = core.ledger.recent.iter().copied().collect();
        recent.extend(deciding.iter().map(|flight| flight.batch.id));
        match deciding.last() {
            Some(last) => (last.batch.id, recent, last.after.clone()),
            None => (core.ledger.decided, recent, core.ledger.table.clone()),
        }
    }

    pub(crate) fn propose(&mut self, core: &mut Core, now: Instant, proposal: Proposal, effects: &mut Out) {
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
        match self.admit(core, &transaction) {
            Some(Verdict::Refused(refusal)) => effects.reply(ticket, kind.refused(refusal.reason)),
            Some(Verdict::Unknown(cause)) => effects.reply(ticket, unknown(kind, cause)),
            Some(Verdict::Resolved(result)) => effects.reply(ticket, resolve(kind, result, &core.config)),
            None => {
                let stage = Stage::Waiting;
                core.pending.add(ticket, deadline, Open::Order { kind, stage });
                self.enqueue(now, transaction, ReplyTo::Local(ticket), deadline);
            }
        }
    }

    /// Reads never wait here: what this log has not decided has been acknowledged to nobody.
    fn read(
        &mut self,
        core: &mut Core,
        ticket: Ticket,
        deadline: Instant,
        read: ReadRequest,
        effects: &mut Out,
    ) {
        let unready = self.unreadable(core);
        if let Some(read) = core.read(ticket, deadline, read, unready, effects) {
            let level = trilemma_core::ReadLevel::Linearizable;
            effects.reply(ticket, Reply::Read(Ok(core.answer(&read.query, level))));
        }
    }

    /// Reachability has changed: what needs a member that is gone is refused at once.
    pub(crate) fn on_view(&mut self, core: &mut Core, effects: &mut Out) {
        for (node, link) in &self.links {
            if link.state != LinkState::Linked && core.is_connected(*node) {
                effects.send(*node, Message::Probe);
            }
        }
        if core.missing.is_empty() {
            return;
        }
        let reason = Reason::NotAllParticipants {
            missing: core.missing.clone(),
        };
        let lacks = |flight: &Flight| {
            let mut gone = core.missing.iter().filter_map(|node| self.links.get(&node));
            gone.any(|link| link.voted < flight.batch.id)
        };
        let index = self
            .flights
            .iter()
            .position(|flight| flight.decision.is_none() && lacks(flight));
        if let Some(index) = index {
            self.abort_from(core, index, &reason, effects);
        }
        self.refuse_queue(reason);
    }

    pub(crate) fn on_tick(&mut self, core: &mut Core, now: Instant, effects: &mut Out) {
        self.update_watermark(core);
        core.record_watermark(effects);
        let limit = self.votes.limit(self.in_vain);
        // What all have voted for is decided when the turn ends, however late.
        let lacks = |flight: &Flight| self.links.values().any(|link| link.voted < flight.batch.id);
        let late =
            |flight: &Flight| flight.decision.is_none() && now.since(flight.sent) >= limit && lacks(flight);
        if let Some(index) = self.flights.iter().position(late) {
            self.in_vain = self.votes.waited_in_vain(self.in_vain);
            let id = self.flights[index].batch.id;
            let silent = self.links.iter().filter(|(_, link)| link.voted < id);
            let missing = silent.map(|(node, _)| *node).collect();
            self.abort_from(core, index, &Reason::NotAllParticipants { missing }, effects);
        }
        let waits_long = self
            .queue
            .front()
            .is_some_and(|first| now.since(first.since) >= core.config.prepare_timeout);
        if waits_long && !self.can_order(core) && self.flights.is_empty() {
            let reason = match self.unready(core) {
                Some(why) => Reason::Recovering { why },
                None => Reason::NotAllParticipants {
                    missing: self.unlinked(),
                },
            };
            self.refuse_queue(reason);
        }
        self.repeat(core, now, effects);
    }

    /// Whether something must be repeated until it is answered.
    pub(crate) fn is_waiting(&self, core: &Core) -> bool {
        !self.flights.is_empty()
            || !self.queue.is_empty()
            || core.recorded < core.ledger.finished
            || self
                .links
                .values()
                .any(|link| link.state != LinkState::Linked || link.acked < core.ledger.decided)
    }

    /// Sends what has gathered in this turn; returns whether something is left for the next one.
    pub(crate) fn end_turn(&mut self, core: &mut Core, now: Instant, effects: &mut Out) -> bool {
        let goes_on = self.refuse_some(core, effects);
        self.offer_transfers(core, effects);
        self.update_watermark(core);
        let has_sent = self.order(core, now, effects);
        if !has_sent && self.announced < core.ledger.decided {
            let head = core.head();
            for node in self.links.keys() {
                effects.send(*node, Message::Announce { head });
            }
        }
        self.announced = core.ledger.decided;
        self.send_answers(core, effects);
        goes_on
    }

    pub(crate) fn receive(
        &mut self,
        core: &mut Core,
        now: Instant,
        from: NodeId,
        message: Message,
        effects: &mut Out,
    ) {
        if !self.links.contains_key(&from) {
            tracing::debug!(%from, "a message of a node that is no member is ignored");
            return;
        }
        match message {
            Message::Hello(hello) => self.on_hello(core, from, hello, effects),
            Message::Vote { prepared, acked } => self.on_vote(core, from, prepared, acked),
            Message::Refusal { id, why } => self.on_refusal(core, from, id, why, effects),
            Message::Resend { after } => self.resend(core, now, from, after, effects),
            Message::Forwards {
                sequencer,
                incarnation,
                done_below,
                items,
            } => {
                if sequencer != core.config.incarnation {
                    effects.send(from, Message::Probe);
                    return;
                }
                self.on_forwards(core, now, from, incarnation, done_below, items);
            }
            Message::Fetch { nonce, index } => self.on_fetch(from, nonce, index, effects),
            Message::Inquire { .. } => {
                let resolved = self.resolved(core, core.ledger.floor);
                effects.send(from, Message::Resolved(resolved));
            }
            other => {
                tracing::debug!(%from, kind = trilemma_core::Message::kind(&other), "not for a sequencer")
            }
        }
    }

    pub(crate) fn on_persisted(&mut self, core: &mut Core, up_to: AppendSeq, effects: &mut Out) {
        if self.joining.is_some_and(|seq| seq <= up_to) {
            self.joining = None;
            core.ledger.is_joined = true;
            self.hear_again(core, effects);
        }
        self.land(core, up_to, effects);
    }

    /// What became of the batches after `after`.
    fn resolved(&self, core: &Core, after: BatchId) -> Resolved {
        let committed = core.ledger.recent.iter().copied().filter(|id| *id > after);
        Resolved {
            incarnation: core.config.incarnation,
            after,
            committed: committed.take(UNFINISHED_MAX).collect(),
            open: self.flights.iter().map(|flight| flight.batch.id).collect(),
            below: self.next_id(core),
            head: core.head(),
        }
    }

    fn update_watermark(&mut self, core: &mut Core) {
        let decided = core.ledger.decided;
        let acked = self
            .links
            .values()
            .map(|link| link.acked)
            .min()
            .unwrap_or(decided);
        let unacked = core.ledger.recent.iter().copied().find(|id| *id > acked);
        let open = self.flights.front().map(|flight| flight.batch.id);
        let below = unacked.or(open).unwrap_or_else(|| self.next_id(core));
        core.ledger.finish(below);
    }
}

#[cfg(test)]
mod tests;
