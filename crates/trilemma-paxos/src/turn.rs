//! Turns: what the inputs of one turn have gathered leaves at its end, in records of one sync and few messages.

use trilemma_core::{AppendSeq, Instant, Key, NodeId};

use super::message::{Ask, ITEMS_MAX, Message};
use super::outbox::{Outbox, packed};
use super::proposer::{Audience, Wanted};
use super::{Out, Paxos, Waiting, sync};

/// Keys looked at, at most, in one search for registers to confirm.
const CONFIRM_LOOK_MAX: usize = 1024;
/// Rounds begun, at most, by one search for registers to confirm.
const CONFIRM_ROUNDS_MAX: usize = 64;

impl Paxos {
    /// Carries out what the proposer wants.
    pub(super) fn carry_out(&mut self, now: Instant, effects: &mut Out) {
        let mut actions = std::mem::take(&mut self.proposer.shared.actions);
        for learned in actions.learned.drain(..) {
            self.learn(&learned.key, learned.ballot, &learned.register, learned.next);
        }
        for wanted in actions.asks.drain(..) {
            self.distribute(wanted, now);
        }
        for (ticket, reply) in actions.replies.drain(..) {
            effects.reply(ticket, reply);
        }
        debug_assert!(
            self.proposer.shared.actions.is_empty(),
            "what is carried out wants nothing of the proposer"
        );
        self.proposer.shared.actions = actions;
    }

    fn distribute(&mut self, wanted: Wanted, now: Instant) {
        let Wanted { audience, ask, made } = wanted;
        let me = self.config().node;
        if matches!(audience, Audience::Others) {
            self.chosen.push(ask);
            return;
        }
        let asks_me = match &audience {
            Audience::All => {
                if !self.outboxes.is_empty() {
                    self.asks.push(ask.clone());
                }
                true
            }
            Audience::Others => false,
            Audience::Only(nodes) => {
                let asked = |outbox: &&mut Outbox| nodes.contains(&outbox.to);
                for outbox in self.outboxes.iter_mut().filter(asked) {
                    outbox.asks.push(ask.clone());
                }
                nodes.contains(&me)
            }
        };
        if asks_me {
            match self.judge(me, ask, made, now) {
                Some((answer, true)) => self.ready.push(answer),
                Some((answer, false)) => self.promises.push(answer),
                None => {}
            }
        }
    }

    /// Ends the turn: everything that changed goes to the log, and what there is for each peer leaves.
    pub(super) fn end_turn(&mut self, now: Instant, effects: &mut Out) {
        let rounds = self.config().turn_rounds;
        let goes_on = self.proposer.on_time(now, rounds);
        self.carry_out(now, effects);
        while self.has_work() || self.is_chosen_due(now) {
            self.append(now, effects);
            self.tell_chosen(now);
            self.flush_asks(effects);
            for outbox in &mut self.outboxes {
                outbox.flush(effects);
            }
            self.wait_for_disk(effects.last_append());
            self.hear_own_acceptor(now, effects);
        }
        if goes_on {
            effects.go_on();
        }
    }

    /// Whether what was chosen has waited long enough. Where it is much it waits for nothing.
    fn is_chosen_due(&mut self, now: Instant) -> bool {
        if self.chosen.is_empty() && !self.acceptor.has_chosen() {
            self.chosen_at = Instant::NEVER;
            return false;
        }
        self.chosen_at = self.chosen_at.min(now + self.config().chosen_delay);
        self.chosen_at <= now || self.chosen.len() >= ITEMS_MAX
    }

    /// Tells the others what was chosen: along with what they are asked anyway, or when it is due. It comes first: a node that
    /// has accepted the next register of a key before cannot learn this one any more.
    fn tell_chosen(&mut self, now: Instant) {
        if self.chosen.is_empty() || (self.asks.is_empty() && !self.is_chosen_due(now)) {
            return;
        }
        if self.outboxes.is_empty() {
            self.chosen.clear();
        }
        let asks = std::mem::take(&mut self.asks);
        self.asks = std::mem::take(&mut self.chosen);
        self.asks.extend(asks);
    }

    /// Sends what all others are asked, and what was chosen.
    fn flush_asks(&mut self, effects: &mut Out) {
        let outboxes = &self.outboxes;
        packed(&mut self.asks, Ask::size, |asks| {
            let others: Vec<NodeId> = outboxes.iter().map(|outbox| outbox.to).collect();
            effects.send_to_all(&others, Message::Asks(asks));
        });
    }

    /// Notes what waits for this append. Turns that appended nothing wait together with the one before, so the list
    /// is no longer than the appends under way.
    fn wait_for_disk(&mut self, seq: AppendSeq) {
        assert!(
            !self.acceptor.has_turn(),
            "what a turn promises is appended before its end"
        );
        let (turn, answers) = (self.turn, std::mem::take(&mut self.promises));
        self.turn += 1;
        match self.waiting.back_mut() {
            Some(last) if last.seq == seq => {
                last.turn = turn;
                last.answers.extend(answers);
            }
            _ => self.waiting.push_back(Waiting { seq, turn, answers }),
        }
    }

    /// Appends what the turn has changed, and what was chosen with it, or when that is due. Answers wait for the last
    /// record, so all of them are forced if one is.
    fn append(&mut self, now: Instant, effects: &mut Out) {
        if !self.acceptor.has_turn() && !self.is_chosen_due(now) {
            return;
        }
        self.acceptor.check(&self.proposer.shared.slots, true);
        let turn = self.acceptor.take_turn();
        let is_forced = turn.is_forced();
        for record in turn.cut() {
            assert!(!record.is_empty(), "an append says something");
            if is_forced {
                effects.append(record);
            } else {
                effects.append_lazy(record);
            }
        }
    }

    /// Hands the proposer the answers of this node's own acceptor that are durable.
    pub(super) fn hear_own_acceptor(&mut self, now: Instant, effects: &mut Out) {
        let me = self.config().node;
        let mut answers = std::mem::take(&mut self.ready);
        while let Some(first) = self.waiting.front()
            && first.seq <= self.persisted
        {
            assert!(first.turn > self.durable_turn, "turns become durable in order");
            self.durable_turn = first.turn;
            if let Some(first) = self.waiting.pop_front() {
                answers.extend(first.answers);
            }
        }
        for answer in answers {
            self.proposer.on_answer(me, answer, now);
        }
        self.carry_out(now, effects);
    }

    /// Whether something waits for the end of the turn.
    fn has_work(&self) -> bool {
        self.acceptor.has_turn()
            || !self.ready.is_empty()
            || !self.promises.is_empty()
            || !self.asks.is_empty()
            || self.outboxes.iter().any(|outbox| !outbox.is_empty())
    }

    pub(super) fn on_wake(&mut self, now: Instant, effects: &mut Out) {
        if now >= self.next_sync {
            self.schedule_sync(now);
            let missing = self.proposer.shared.missing();
            let reachable = self.outboxes.iter().map(|outbox| outbox.to);
            let reachable: Vec<NodeId> = reachable.filter(|node| !missing.contains(*node)).collect();
            if let Some((to, message)) = sync::begin(&self.learner, &mut self.rng, &reachable) {
                effects.send(to, message);
            }
            self.confirm(now);
            self.carry_out(now, effects);
        }
    }

    /// Begins read rounds for keys whose accepted register has not been called chosen for long.
    fn confirm(&mut self, now: Instant) {
        let age_min = self.config().confirm_after;
        let from = std::mem::take(&mut self.confirm_cursor);
        let mut old: Vec<Key> = Vec::new();
        for (looked, (key, since)) in self.unsettled.range_mut::<Key, _>(from..).enumerate() {
            if looked == CONFIRM_LOOK_MAX || old.len() == CONFIRM_ROUNDS_MAX {
                self.confirm_cursor = key.clone();
                break;
            }
            if now - *since >= age_min {
                *since = now;
                old.push(key.clone());
            }
        }
        for key in old {
            self.proposer.confirm(&key, now);
        }
    }
}
