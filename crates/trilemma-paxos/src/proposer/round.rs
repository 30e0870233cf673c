//! One key's rounds at one proposer: read, prepare, accept, back off.
//!
//! CASPaxos (Rystsov 2018) section 2.2, with what the paper leaves to the implementer:
//!
//! - **Combining.** One phase is under way at a time; what comes meanwhile waits and runs together.
//! - **One round trip.** Every accept asks for a promise of the next ballot (section 2.2.1 of the paper).
//! - **No write without need.** Operations that change nothing are answered from a majority that agrees.
//! - **Doubt.** An accept that was sent and not confirmed may or may not be chosen. Its operations run again only
//!   against a register that a *later* ballot has prepared, and only if that register does not know them.

mod check;

use std::collections::VecDeque;
use std::sync::Arc;

use trilemma_core::{Instant, Key, NodeId, NodeSet, Patience};

use super::operation::{Achievement, Kind, Operation, Plan, Verdict};
use super::{Audience, Shared, Wanted};
use crate::ballot::Ballot;
use crate::key_states::Cached;
use crate::message::{Answer, Ask};
use crate::register::{Proposed, Register, Ruling};

/// The rounds of one key.
#[derive(Debug)]
pub(crate) struct Round {
    /// Operations that no phase has taken up.
    pub(super) queue: VecDeque<Operation>,
    /// Operations of the phase under way.
    pub(super) batch: Vec<Operation>,
    phase: Phase,
    /// When the phase began, and when it is repeated.
    since: Instant,
    due: Instant,
    /// Phases that have waited in vain since the last one that did not.
    in_vain: u32,
    failures: u32,
    /// Phases and syncs so far.
    trips: u32,
    syncs: u32,
}

#[derive(Debug)]
enum Phase {
    /// Nothing to do.
    Idle,
    /// A quorum read.
    Reading { round: u64, votes: Vec<Vote> },
    /// First phase.
    Preparing {
        ballot: Ballot,
        votes: Vec<Vote>,
        refused: Vec<NodeId>,
    },
    /// Second phase.
    Accepting(Accepting),
    /// After a conflict.
    BackingOff,
}

/// What a phase does when an answer has decided it.
type Continue = fn(&mut Round, &Key, Instant, &mut Shared);

/// What one acceptor holds.
#[derive(Debug)]
struct Vote {
    node: NodeId,
    accepted: Ballot,
    register: Arc<Register>,
}

#[derive(Debug)]
struct Accepting {
    ballot: Ballot,
    next: Ballot,
    register: Arc<Register>,
    verdicts: Vec<Verdict>,
    accepted: Vec<NodeId>,
    /// Whether every acceptor so far has promised `next`.
    is_next_promised: bool,
    refused: Vec<NodeId>,
    is_repeated: bool,
}

impl Accepting {
    /// The accept, for an acceptor of which it is not known what it holds.
    fn ask(&self, key: &Key) -> Ask {
        Ask::Accept {
            key: key.clone(),
            ballot: self.ballot,
            register: Proposed::Whole(Arc::clone(&self.register)),
            next: self.next,
        }
    }
}

impl Round {
    pub(super) fn new() -> Self {
        Self {
            // Most rounds are of one operation, and end with it.
            queue: VecDeque::with_capacity(1),
            batch: Vec::with_capacity(1),
            phase: Phase::Idle,
            since: Instant::ZERO,
            due: Instant::NEVER,
            in_vain: 0,
            failures: 0,
            trips: 0,
            syncs: 0,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len() + self.batch.len()
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Adds an operation; begins a phase if none is under way.
    pub(super) fn push(&mut self, key: &Key, mut operation: Operation, now: Instant, shared: &mut Shared) {
        operation.trips_before = self.trips;
        operation.syncs_before = self.syncs;
        self.queue.push_back(operation);
        // A phase that has learned to wait long does not keep others waiting for what nobody waits for any more.
        let is_awaited = self.batch.is_empty() || self.batch.iter().any(Operation::is_awaited);
        let is_forsaken = self.in_vain > 0 && !is_awaited;
        if self.is_idle() || is_forsaken {
            self.put_back();
            self.advance(key, now, shared);
        }
    }

    /// Every operation that is not finished.
    pub(super) fn operations_mut(&mut self) -> impl Iterator<Item = &mut Operation> {
        self.batch.iter_mut().chain(self.queue.iter_mut())
    }

    /// Begins the phase that the waiting operations need, or becomes idle.
    fn advance(&mut self, key: &Key, now: Instant, shared: &mut Shared) {
        if let Some(unused) = self.advance_with(key, None, now, shared) {
            shared.keep_cached(key, &unused);
        }
    }

    /// The same, where this is cached, or what the key's state holds; returns what stays unused.
    fn advance_with(
        &mut self,
        key: &Key,
        cached: Option<Cached>,
        now: Instant,
        shared: &mut Shared,
    ) -> Option<Cached> {
        self.phase = Phase::Idle;
        assert!(
            self.batch.is_empty(),
            "a batch is answered or put back before the next phase"
        );
        self.fill(shared);
        if self.batch.is_empty() {
            self.set_due(key, Instant::NEVER, shared);
            return cached;
        }
        let only_reads = |kind: &Kind| matches!(kind, Kind::Get | Kind::Confirm);
        if self.batch.iter().all(|operation| only_reads(&operation.kind)) {
            self.start_read(key, now, shared);
            return cached;
        }
        let Some(cached) = cached.or_else(|| shared.slots.take_cached(key)) else {
            self.start_prepare(key, now, shared);
            return None;
        };
        let plan = Plan::of(&self.batch, &cached.register, cached.ballot, shared.keep());
        if plan.is_changed {
            let proposed = plan.since(cached.base);
            self.start_accept(key, cached.ballot, plan, proposed, now, shared);
            return None;
        }
        // The cached register alone never answers: another proposer may have replaced it.
        self.start_read(key, now, shared);
        Some(cached)
    }

    fn fill(&mut self, shared: &Shared) {
        while self.batch.len() < shared.config.combine_max
            && let Some(operation) = self.queue.pop_front()
        {
            if !operation.is_done() {
                self.batch.push(operation);
            }
        }
    }

    fn start_read(&mut self, key: &Key, now: Instant, shared: &mut Shared) {
        let round = shared.clock.tick();
        self.trips += 1;
        self.phase = Phase::Reading {
            round,
            votes: Vec::new(),
        };
        self.begin(key, now, shared);
        let key = key.clone();
        shared.ask(Audience::All, Ask::Read { key, round });
    }

    fn start_prepare(&mut self, key: &Key, now: Instant, shared: &mut Shared) {
        // The new ballot overtakes a cached one.
        let ballot = shared.clock.ballot();
        self.trips += 1;
        self.syncs += 1;
        self.phase = Phase::Preparing {
            ballot,
            votes: Vec::new(),
            refused: Vec::new(),
        };
        self.begin(key, now, shared);
        let key = key.clone();
        shared.ask(Audience::All, Ask::Prepare { key, ballot });
    }

    /// Sends the one value that `ballot` will ever carry, in the words of `proposed`.
    fn start_accept(
        &mut self,
        key: &Key,
        ballot: Ballot,
        plan: Plan,
        proposed: Proposed,
        now: Instant,
        shared: &mut Shared,
    ) {
        let next = shared.clock.ballot();
        assert!(next > ballot, "the next ballot follows the one that is used");
        assert_eq!(
            plan.verdicts.len(),
            self.batch.len(),
            "one verdict for each operation"
        );
        self.trips += 1;
        self.syncs += 1;
        for (operation, verdict) in self.batch.iter_mut().zip(&plan.verdicts) {
            if let Verdict::Write(
                _,
                Ruling::Result {
                    result,
                    is_recorded: true,
                },
            ) = verdict
            {
                let before = operation.accepts.last();
                assert!(
                    before.is_none_or(|(before, _)| *before < ballot),
                    "an operation runs again only under a later ballot"
                );
                operation.accepts.push((ballot, *result));
            }
        }
        let ask = Ask::Accept {
            key: key.clone(),
            ballot,
            register: proposed,
            next,
        };
        let made = Some(Arc::clone(&plan.register));
        self.phase = Phase::Accepting(Accepting {
            ballot,
            next,
            register: plan.register,
            verdicts: plan.verdicts,
            accepted: Vec::new(),
            is_next_promised: true,
            refused: Vec::new(),
            is_repeated: false,
        });
        self.begin(key, now, shared);
        let audience = Audience::All;
        shared.actions.asks.push(Wanted { audience, ask, made });
    }

    /// Gives the phase that has just begun its time.
    fn begin(&mut self, key: &Key, now: Instant, shared: &mut Shared) {
        self.since = now;
        self.await_answers(key, now, shared);
    }

    fn await_answers(&mut self, key: &Key, now: Instant, shared: &mut Shared) {
        let limit = self.patience(shared).limit(self.in_vain);
        self.set_due(key, now + limit, shared);
    }

    /// How long the answers of this phase may take.
    fn patience<'a>(&self, shared: &'a mut Shared) -> &'a mut Patience {
        match self.phase {
            Phase::Reading { .. } => &mut shared.reads,
            Phase::Idle | Phase::Preparing { .. } | Phase::Accepting(_) | Phase::BackingOff => {
                &mut shared.writes
            }
        }
    }

    /// A majority has answered the phase.
    fn note_answered(&mut self, now: Instant, shared: &mut Shared) {
        self.patience(shared).answered(now - self.since);
        self.in_vain = 0;
    }

    /// The phase has waited in vain. Where nobody is there to answer, that says nothing of how long an answer takes.
    fn note_silence(&mut self, shared: &mut Shared) {
        if shared.no_quorum().is_none() {
            self.in_vain = self.patience(shared).waited_in_vain(self.in_vain);
        }
    }

    /// A member is back: a phase that has learned to wait long is repeated soon.
    pub(super) fn hope(&mut self, key: &Key, now: Instant, shared: &mut Shared) {
        if self.in_vain > 0 {
            self.in_vain = 0;
            let soon = now + self.patience(shared).limit(0);
            self.set_due(key, self.due.min(soon), shared);
        }
    }

    /// Takes an acceptor's answer. Answers to earlier phases change nothing.
    pub(super) fn on_answer(
        &mut self,
        key: &Key,
        from: NodeId,
        answer: Answer,
        now: Instant,
        shared: &mut Shared,
    ) {
        let quorum = shared.quorum;
        let (is_enough, then): (bool, Continue) = match answer {
            Answer::Held {
                round,
                accepted,
                register,
                ..
            } => (self.count_held(from, round, accepted, register), Self::on_held),
            Answer::Promise {
                ballot,
                accepted,
                register,
                ..
            } => {
                let promises = self.count_promise(from, ballot, accepted, register);
                (promises == quorum, Self::on_prepared)
            }
            Answer::Accepted { ballot, promised, .. } => (
                self.count_accepted(from, ballot, promised) == quorum,
                Self::on_chosen,
            ),
            Answer::Refused { ballot, seen, .. } => {
                (self.count_refused(from, ballot, seen), Self::on_conflict)
            }
            Answer::Lacks { ballot, .. } => return self.on_lack(key, from, ballot, shared),
        };
        if is_enough {
            then(self, key, now, shared);
        }
    }

    /// Counts an answer to the quorum read under way; `false` if it is none, or a repeat.
    fn count_held(&mut self, from: NodeId, of: u64, accepted: Ballot, register: Arc<Register>) -> bool {
        match &mut self.phase {
            Phase::Reading { round, votes } if *round == of => add_vote(votes, from, accepted, register),
            _ => false,
        }
    }

    /// Counts a promise of the ballot under way; returns how many there are now, 0 if this one was not counted.
    fn count_promise(
        &mut self,
        from: NodeId,
        of: Ballot,
        accepted: Ballot,
        register: Arc<Register>,
    ) -> usize {
        match &mut self.phase {
            Phase::Preparing {
                ballot,
                votes,
                refused,
                // No correct acceptor promises a ballot at or below one that it has accepted.
            } if *ballot == of && accepted < of && !refused.contains(&from) => {
                if add_vote(votes, from, accepted, register) {
                    return votes.len();
                }
                0
            }
            _ => 0,
        }
    }

    /// Counts an acceptance of the ballot under way; returns how many there are now, 0 if this one was not counted.
    fn count_accepted(&mut self, from: NodeId, of: Ballot, promised: Ballot) -> usize {
        match &mut self.phase {
            Phase::Accepting(accepting) if accepting.ballot == of && !accepting.accepted.contains(&from) => {
                accepting.accepted.push(from);
                accepting.is_next_promised &= promised == accepting.next;
                accepting.accepted.len()
            }
            _ => 0,
        }
    }

    /// Counts a refusal of the ballot under way; `false` if it is none, or a repeat.
    fn count_refused(&mut self, from: NodeId, of: Ballot, seen: Ballot) -> bool {
        let refused = match &mut self.phase {
            // A refusal because of our own ballot is the answer to a duplicate of the prepare.
            Phase::Preparing {
                ballot,
                votes,
                refused,
            } if *ballot == of && seen > of && !votes.iter().any(|vote| vote.node == from) => refused,
            Phase::Accepting(accepting) if accepting.ballot == of && !accepting.accepted.contains(&from) => {
                &mut accepting.refused
            }
            _ => return false,
        };
        let is_news = !refused.contains(&from);
        if is_news {
            refused.push(from);
        }
        is_news
    }

    /// An acceptor does not hold the register that the accept under way changes: it gets the whole.
    fn on_lack(&self, key: &Key, from: NodeId, of: Ballot, shared: &mut Shared) {
        if let Phase::Accepting(accepting) = &self.phase
            && accepting.ballot == of
        {
            shared.ask(Audience::Only(vec![from]), accepting.ask(key));
        }
    }

    /// A quorum read is answered when a majority reports one ballot: its register is chosen, and nothing newer was
    /// chosen before the read began, for that would show in this majority.
    fn on_held(&mut self, key: &Key, now: Instant, shared: &mut Shared) {
        let Phase::Reading { votes, .. } = &self.phase else {
            return;
        };
        if let Some(agreed) = agreement(votes, shared.quorum) {
            self.note_answered(now, shared);
            self.on_read(key, agreed, now, shared);
            return;
        }
        let answered: Vec<NodeId> = votes.iter().map(|vote| vote.node).collect();
        let may_agree = (votes.iter()).any(|vote| {
            let same = votes
                .iter()
                .filter(|other| other.accepted == vote.accepted)
                .count();
            same + shared.outstanding(&answered) >= shared.quorum
        });
        if !may_agree && votes.len() >= shared.quorum {
            self.start_prepare(key, now, shared);
        }
    }

    fn on_read(&mut self, key: &Key, agreed: Agreed, now: Instant, shared: &mut Shared) {
        let plan = Plan::of(&self.batch, &agreed.register, Ballot::ZERO, shared.keep());
        if plan.is_changed {
            match shared.slots.take_cached(key) {
                Some(cached) if cached.base == agreed.accepted => {
                    let plan = Plan::of(&self.batch, &cached.register, cached.ballot, shared.keep());
                    let proposed = plan.since(cached.base);
                    self.start_accept(key, cached.ballot, plan, proposed, now, shared);
                }
                _ => self.start_prepare(key, now, shared),
            }
            return;
        }
        shared.learned(key, agreed.accepted, &agreed.register, None);
        self.answer(key, plan.verdicts, agreed.on, shared);
        self.advance(key, now, shared);
    }

    /// A majority has promised: its highest register is the one to change (the paper's first phase ends here).
    fn on_prepared(&mut self, key: &Key, now: Instant, shared: &mut Shared) {
        let Phase::Preparing { ballot, votes, .. } = &self.phase else {
            return;
        };
        let ballot = *ballot;
        let agreed = agreement(votes, shared.quorum);
        let Some(highest) = votes.iter().max_by_key(|vote| vote.accepted) else {
            return;
        };
        let (base, register) = (highest.accepted, Arc::clone(&highest.register));
        self.note_answered(now, shared);
        let asked_before = self.batch.len();
        self.fill(shared);
        let plan = Plan::of(&self.batch, &register, ballot, shared.keep());
        match agreed {
            Some(agreed) if !plan.is_changed => {
                shared.keep_cached(
                    key,
                    &Cached {
                        ballot,
                        base,
                        register,
                    },
                );
                shared.learned(key, base, &agreed.register, None);
                // Operations that came after the prepare may have begun after another proposer's later write was
                // acknowledged. Only an accept would prove that there is none; so they take a phase of their own.
                let late = self.batch.split_off(asked_before);
                late.into_iter()
                    .rev()
                    .for_each(|operation| self.queue.push_front(operation));
                let mut verdicts = plan.verdicts;
                verdicts.truncate(asked_before);
                self.answer(key, verdicts, agreed.on, shared);
                self.advance(key, now, shared);
            }
            _ => {
                let proposed = Proposed::Whole(Arc::clone(&plan.register));
                self.start_accept(key, ballot, plan, proposed, now, shared);
            }
        }
    }

    /// A majority has accepted: the register is chosen.
    fn on_chosen(&mut self, key: &Key, now: Instant, shared: &mut Shared) {
        self.note_answered(now, shared);
        let Phase::Accepting(accepting) = std::mem::replace(&mut self.phase, Phase::Idle) else {
            return;
        };
        assert!(
            accepting.accepted.len() >= shared.quorum,
            "chosen is what a majority has accepted"
        );
        self.failures = 0;
        let is_promised = accepting.is_next_promised && accepting.refused.is_empty();
        let cached = is_promised.then(|| Cached {
            ballot: accepting.next,
            base: accepting.ballot,
            register: Arc::clone(&accepting.register),
        });
        let durable_on = accepting.accepted.into_iter().collect();
        self.answer(key, accepting.verdicts, durable_on, shared);
        let unused = self.advance_with(key, cached, now, shared);
        let next = unused.map(|unused| unused.ballot);
        shared.chosen(key, accepting.ballot, &accepting.register, next);
    }

    /// Somebody refused. Gives the ballot up when those who have not can no longer be a majority.
    fn on_conflict(&mut self, key: &Key, now: Instant, shared: &mut Shared) {
        let (ayes, refused): (Vec<NodeId>, &[NodeId]) = match &self.phase {
            Phase::Preparing { votes, refused, .. } => {
                (votes.iter().map(|vote| vote.node).collect(), refused)
            }
            Phase::Accepting(accepting) => (accepting.accepted.clone(), &accepting.refused),
            Phase::Idle | Phase::Reading { .. } | Phase::BackingOff => return,
        };
        let answered: Vec<NodeId> = ayes.iter().chain(refused).copied().collect();
        if ayes.len() + shared.outstanding(&answered) < shared.quorum {
            self.put_back();
            self.failures += 1;
            self.phase = Phase::BackingOff;
            let pause = shared.backoff(self.failures);
            self.set_due(key, now + pause, shared);
        }
    }

    /// Returns the batch to the queue, but for what nobody waits for.
    fn put_back(&mut self) {
        for operation in self.batch.drain(..).rev() {
            if operation.is_awaited() {
                self.queue.push_front(operation);
            }
        }
    }

    /// The phase has lasted too long, or the back-off is over.
    pub(super) fn on_due(&mut self, key: &Key, now: Instant, shared: &mut Shared) {
        match &mut self.phase {
            Phase::Accepting(accepting) if !accepting.is_repeated => {
                accepting.is_repeated = true;
                let silent =
                    |node: &&NodeId| !accepting.accepted.contains(node) && !accepting.refused.contains(node);
                let silent = shared.members.iter().filter(silent).copied().collect();
                shared.ask(Audience::Only(silent), accepting.ask(key));
                self.note_silence(shared);
                self.await_answers(key, now, shared);
            }
            Phase::Reading { votes, .. } if votes.len() >= shared.quorum => {
                self.batch.retain(|operation| !operation.is_done());
                if self.batch.is_empty() {
                    self.advance(key, now, shared);
                } else {
                    self.start_prepare(key, now, shared);
                }
            }
            Phase::Idle | Phase::BackingOff => {
                self.put_back();
                self.advance(key, now, shared);
            }
            // A prepare cannot be repeated: its ballot may have been promised, and promises are given once.
            Phase::Reading { .. } | Phase::Preparing { .. } | Phase::Accepting(_) => {
                self.note_silence(shared);
                self.put_back();
                self.advance(key, now, shared);
            }
        }
    }

    fn answer(&mut self, key: &Key, verdicts: Vec<Verdict>, durable_on: NodeSet, shared: &mut Shared) {
        assert_eq!(self.batch.len(), verdicts.len(), "one verdict for each operation");
        assert!(
            durable_on.len() >= shared.quorum,
            "what is answered is durable on a majority"
        );
        for (operation, verdict) in self.batch.drain(..).zip(verdicts) {
            let Some(ticket) = operation.ticket else { continue };
            let achievement = Achievement {
                node: shared.config.node,
                epoch: shared.config.epoch,
                durable_on: durable_on.clone(),
                round_trips: u8::try_from(self.trips - operation.trips_before).unwrap_or(u8::MAX),
                syncs: u8::try_from(self.syncs - operation.syncs_before).unwrap_or(u8::MAX),
            };
            if let Some(reply) = achievement.reply(key, verdict, operation.is_certain()) {
                shared.reply(ticket, operation.deadline, reply);
            }
        }
    }

    fn set_due(&mut self, key: &Key, due: Instant, shared: &mut Shared) {
        if self.due != Instant::NEVER {
            shared.timers.remove(&(self.due, key.clone()));
        }
        if due != Instant::NEVER {
            shared.timers.insert((due, key.clone()));
        }
        self.due = due;
    }
}

/// A register that a majority holds under one ballot.
struct Agreed {
    accepted: Ballot,
    register: Arc<Register>,
    on: NodeSet,
}

fn agreement(votes: &[Vote], quorum: usize) -> Option<Agreed> {
    let same = |vote: &Vote| {
        votes
            .iter()
            .filter(|other| other.accepted == vote.accepted)
            .count()
    };
    let vote = votes.iter().find(|vote| same(vote) >= quorum)?;
    Some(Agreed {
        accepted: vote.accepted,
        register: Arc::clone(&vote.register),
        on: votes
            .iter()
            .filter(|other| other.accepted == vote.accepted)
            .map(|other| other.node)
            .collect(),
    })
}

/// Adds a vote; `false` if this acceptor has one already.
fn add_vote(votes: &mut Vec<Vote>, node: NodeId, accepted: Ballot, register: Arc<Register>) -> bool {
    if votes.iter().any(|vote| vote.node == node) {
        return false;
    }
    votes.push(Vote {
        node,
        accepted,
        register,
    });
    true
}

#[cfg(test)]
mod tests;
