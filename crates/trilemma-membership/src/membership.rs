//! The state machine of one member: which part takes which input.

use std::collections::BTreeSet;
use std::sync::Arc;

use trilemma_core::{Instant, Lane, NodeId, Now};

use crate::authority::Authority;
use crate::config::Config;
use crate::effects::{Effects, Event, Input, Persist};
use crate::health::Health;
use crate::joining::Joining;
use crate::message::{Message, News, Update};
use crate::prober::Prober;
use crate::record::Record;
use crate::refusal::Refusals;
use crate::standing::{Incarnation, Standing, State};
use crate::view::{Carry, Merged, Phase, View};
use crate::warm::Warm;

/// Share of what may leave that a round of dissemination takes, as a fraction: the rest is for listings, which bring what
/// rounds have missed.
const GOSSIP_SHARE: (usize, usize) = (3, 5);
/// Fewest bytes for which a round of dissemination sends a message.
const GOSSIP_BYTES_MIN: usize = 16;

/// One member: what it knows of the others, and how it finds out whether they work. See the crate's documentation.
#[derive(Debug)]
pub struct Membership {
    view: View,
    prober: Prober,
    joining: Joining,
    warm: Warm,
    /// The next round of dissemination; rounds without anything to say are skipped.
    next_tick: Option<Instant>,
    next_save: Option<Instant>,
    /// Others know that this node leaves.
    has_left: bool,
}

/// A member as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it says of itself.
    pub record: Arc<Record>,
    /// What is believed of it.
    pub standing: Standing,
}

/// What operators see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// What this node announces itself with.
    pub incarnation: Incarnation,
    /// Members in each state, in the order of [`State::ALL`]; this node among them.
    pub counts: [usize; State::ALL.len()],
    /// How far this node trusts itself.
    pub health: Health,
    /// Statements that are being passed on.
    pub pending_updates: usize,
}

impl Membership {
    /// A member that starts from the last epoch that was durable, 0 on an empty disk, and from the list that was saved last.
    #[must_use]
    pub fn new(config: Config, authority: Box<dyn Authority>, last_epoch: u64, saved: &[Update]) -> Self {
        Self {
            view: View::new(config.clamp(), authority, last_epoch, saved),
            prober: Prober::default(),
            joining: Joining::default(),
            warm: Warm::default(),
            next_tick: None,
            next_save: None,
            has_left: false,
        }
    }

    /// Takes one input and says what to do. `now` never goes back.
    pub fn step(&mut self, now: Now, input: Input, effects: &mut Effects) {
        let now = now.instant;
        self.notice_pause(now);
        match input {
            Input::Start => self.view.renew(0, effects),
            Input::EpochPersisted(epoch) => self.on_epoch_persisted(now, epoch, effects),
            Input::Receive { from, lane, message } => self.on_message(now, from, lane, message, effects),
            Input::Wake => self.on_wake(now, effects),
            Input::Leave => self.on_leave(now, effects),
            Input::Evict {
                node,
                epoch,
                signature,
            } => self.view.evict(now, node, epoch, signature, effects),
            Input::Rejoin => self.view.rejoin(effects),
        }
        if self.view.phase == Phase::Evicted {
            self.stop(effects);
        }
        self.prober.on_joined(&mut self.view);
        if self.next_tick.is_none() && !self.view.updates.is_empty() && self.speaks() {
            let tick = self.view.config.tick;
            self.next_tick = Some(now + self.view.rng.between(tick / 4, tick));
        }
        if self.next_save.is_none() && self.view.unsaved {
            self.next_save = Some(now + self.view.config.save_interval);
        }
        effects.wake = Some(self.next_wake());
        self.check();
    }

    /// When [`Input::Wake`] is due.
    #[must_use]
    pub fn next_wake(&self) -> Instant {
        let times = [
            self.prober.next(),
            self.joining.next(),
            self.warm.next(),
            self.view.next_end(),
        ];
        let times = times.into_iter().chain(self.next_tick).chain(self.next_save);
        times.min().unwrap_or(Instant::NEVER)
    }

    /// Whether this node may send anything.
    fn speaks(&self) -> bool {
        matches!(self.view.phase, Phase::Running | Phase::Leaving)
    }

    /// A wake-up that is overdue shows that this node was not running. It has not waited for anybody in that time, and what
    /// others answered is in its queue: all its deadlines move by that time, and by what an answer takes.
    fn notice_pause(&mut self, now: Instant) {
        let late = now.since(self.next_wake());
        if self.view.config.danger_plain_swim || late < self.view.config.late_tolerance {
            return;
        }
        let paused = late + self.view.config.verdict;
        self.prober.pause(paused);
        self.view.pause(paused);
    }

    fn on_epoch_persisted(&mut self, now: Instant, epoch: u64, effects: &mut Effects) {
        let before = self.view.phase;
        self.view.on_epoch_persisted(epoch, effects);
        if before != Phase::Running && self.view.phase == Phase::Running {
            self.prober.start(now, &mut self.view);
            self.joining.start(now);
            self.warm.start(now);
        }
    }

    fn on_wake(&mut self, now: Instant, effects: &mut Effects) {
        if self.view.phase == Phase::Running {
            if self.prober.on_wake(now, &mut self.view, effects) {
                self.joining.on_period();
            }
            self.joining.on_wake(now, &mut self.view, effects);
            self.warm.on_wake(now, &mut self.view, effects);
        }
        self.view.end_suspicions(now, effects);
        if self.next_tick.is_some_and(|next| next <= now) {
            self.gossip(now, effects);
        }
        if self.next_save.is_some_and(|next| next <= now) {
            self.next_save = None;
            self.view.unsaved = false;
            effects.persists.push(Persist::Members(self.view.list()));
        }
    }

    /// One round of dissemination.
    fn gossip(&mut self, now: Instant, effects: &mut Effects) {
        self.next_tick = None;
        if !self.view.updates.is_empty() && self.speaks() {
            let targets = self.view.sample(self.view.config.fanout as usize, None);
            let bytes = self.view.budget.available(now) * GOSSIP_SHARE.0 / GOSSIP_SHARE.1;
            let bytes = bytes / targets.len().max(1);
            for target in targets.iter().filter(|_| bytes >= GOSSIP_BYTES_MIN) {
                let carry = Carry {
                    updates_max: bytes,
                    ..Carry::default()
                };
                let news = self.view.compose(now, *target, carry);
                if !news.updates.is_empty() {
                    self.view.send(*target, Message::Gossip, news, effects);
                }
            }
            self.next_tick = Some(now + self.view.config.tick);
        }
        // What else it had to say may concern its only hearers, and stay.
        let is_said = !self.view.updates.holds(self.view.node);
        if self.view.phase == Phase::Leaving && (is_said || self.view.table.present() == 0) {
            self.finish_leave(effects);
        }
    }

    fn on_leave(&mut self, now: Instant, effects: &mut Effects) {
        if self.view.phase != Phase::Running || !self.view.leave() {
            return;
        }
        self.stop(effects);
        self.next_tick = Some(now);
    }

    fn finish_leave(&mut self, effects: &mut Effects) {
        self.next_tick = None;
        if !self.has_left {
            self.has_left = true;
            effects.events.push(Event::Left);
        }
    }

    /// Stops looking for others.
    fn stop(&mut self, effects: &mut Effects) {
        self.prober.stop();
        self.joining.stop();
        self.warm.stop(effects);
    }

    fn on_message(
        &mut self,
        now: Instant,
        from: NodeId,
        lane: Lane,
        message: Message,
        effects: &mut Effects,
    ) {
        if from == self.view.node || matches!(self.view.phase, Phase::Leaving | Phase::Evicted) {
            return;
        }
        let merged = match message.news() {
            Some(news) => self.view.on_news(now, from, news, effects),
            None => Merged::default(),
        };
        if self.view.phase != Phase::Running {
            return;
        }
        let accused = merged.accused;
        let carry = Carry {
            wants: merged.wants,
            answers: message.news().map(|news| news.wants.clone()).unwrap_or_default(),
            ..Carry::default()
        };
        match message {
            Message::Ping { probe, news } => self.on_ping(now, (from, lane), probe, news, carry, effects),
            other => self.on_other(now, from, other, carry, effects),
        }
        for node in accused {
            let news = self.view.compose(now, node, Carry::default());
            self.view.send(node, Message::Gossip, news, effects);
        }
    }

    /// Everything but a ping.
    fn on_other(
        &mut self,
        now: Instant,
        from: NodeId,
        message: Message,
        carry: Carry,
        effects: &mut Effects,
    ) {
        match message {
            Message::Ack { probe, .. } => self.prober.on_ack(now, from, probe, &mut self.view, effects),
            Message::Reached { probe, .. } => self.prober.on_reached(from, probe, &mut self.view),
            Message::Nack { probe, .. } => self.prober.on_nack(from, probe),
            Message::PingRequest { probe, target, .. } => {
                let view = &mut self.view;
                self.prober.on_request(now, from, probe, target, view, effects);
            }
            Message::Ping { .. } | Message::Gossip(_) => {}
            Message::ListRequest { after, .. } => {
                self.joining.on_request(from, after, &mut self.view, effects);
            }
            Message::List { members, more_after } => {
                let view = &mut self.view;
                self.joining
                    .on_page(now, from, &members, more_after, view, effects);
            }
        }
        if !carry.wants.is_empty() || !carry.answers.is_empty() {
            let news = self.view.compose(now, from, carry);
            self.view.send(from, Message::Gossip, news, effects);
        }
    }

    fn on_ping(
        &mut self,
        now: Instant,
        (from, lane): (NodeId, Lane),
        probe: u32,
        news: News,
        carry: Carry,
        effects: &mut Effects,
    ) {
        let carry = Carry {
            updates_max: usize::MAX,
            compare: news.sums,
            ..carry
        };
        let news = self.view.compose(now, from, carry);
        let lane = if lane == Lane::Datagram {
            lane
        } else {
            Lane::Control
        };
        self.view
            .send_over(lane, from, Message::Ack { probe, news }, effects);
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.view.node
    }

    /// A member.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<Member> {
        self.view.table.get(node).map(|entry| Member {
            record: entry.record.clone(),
            standing: entry.standing,
        })
    }

    /// What is believed of a member.
    #[must_use]
    pub fn standing(&self, node: NodeId) -> Option<Standing> {
        self.view.table.standing(node)
    }

    /// All members, ascending, this node among them.
    pub fn members(&self) -> impl Iterator<Item = (&Arc<Record>, Standing)> {
        let entries = self.view.table.entries().iter();
        entries.map(|entry| (&entry.record, entry.standing))
    }

    /// Where to dial a node, whether it is a member or a seed.
    #[must_use]
    pub fn address(&self, node: NodeId) -> Option<&str> {
        let member = self.view.table.get(node);
        let member = member.map(|entry| entry.record.address.as_str());
        let seeds = self.view.config.seeds.iter();
        let seed = seeds
            .filter(|seed| seed.node == node)
            .map(|seed| seed.address.as_str());
        member
            .filter(|address| !address.is_empty())
            .or(seed.into_iter().next())
    }

    /// Members to which connections should be kept.
    #[must_use]
    pub fn warm(&self) -> &BTreeSet<NodeId> {
        self.warm.kept()
    }

    /// What was refused.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.view.refusals
    }

    /// What operators see.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            incarnation: self.view.incarnation,
            counts: State::ALL.map(|state| self.view.table.count(state)),
            health: self.view.health,
            pending_updates: self.view.updates.len(),
        }
    }

    /// What must hold after every step; cheap.
    fn check(&self) {
        self.view.check();
        self.prober.check();
    }

    /// The invariants that take time in proportion to the table, for tests.
    pub fn check_all(&self) {
        self.view.check_all();
        self.prober.check();
    }
}
