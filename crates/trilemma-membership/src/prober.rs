//! Failure detection: one probe per period, helpers for one that is not answered, help for others (SWIM, section 3 and 4.3).
//!
//! A probe goes through stages: asked directly; asked again over a stream and through helpers; over. It ends with an answer,
//! or with a suspicion. Helpers that reached nobody say so: a missing *nack* is a sign that this node is the slow one, and a
//! nack is a witness, so it counts as a confirmation.

use std::time::Duration;

use trilemma_core::{Instant, Lane, Message as _, NodeId};

use crate::effects::{Effects, Outgoing};
use crate::message::{Message, News};
use crate::refusal::Refusal;
use crate::standing::State;
use crate::view::{Carry, View};

/// Most probes that are under way for others.
const HELPING_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Prober {
    /// Whom to probe in this round, in random order: each once, so that the time between two probes of one by another has a
    /// bound.
    order: Vec<NodeId>,
    cursor: usize,
    next_period: Option<Instant>,
    probe: Option<Probe>,
    helping: Vec<Help>,
    number: u32,
}

/// A probe under way.
#[derive(Debug)]
struct Probe {
    number: u32,
    target: NodeId,
    verdict_at: Instant,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Others are asked at this time.
    Direct { ask_at: Instant },
    /// Others were asked.
    Indirect {
        helpers: Vec<NodeId>,
        nacks: Vec<NodeId>,
    },
}

/// A probe under way for another member.
#[derive(Debug)]
struct Help {
    number: u32,
    target: NodeId,
    asker: NodeId,
    asker_number: u32,
    nack_at: Instant,
}

impl Prober {
    /// Begins: the first period starts at a random moment, so that members do not probe in step.
    pub(crate) fn start(&mut self, now: Instant, view: &mut View) {
        let period = view.config.period;
        self.next_period = Some(now + view.rng.between(Duration::ZERO, period));
    }

    /// Stops.
    pub(crate) fn stop(&mut self) {
        *self = Self {
            number: self.number,
            ..Self::default()
        };
    }

    /// When it wants to be woken.
    pub(crate) fn next(&self) -> Instant {
        let probe = self.probe.as_ref().map(|probe| match probe.stage {
            Stage::Direct { ask_at } => ask_at.min(probe.verdict_at),
            Stage::Indirect { .. } => probe.verdict_at,
        });
        let helping = self.helping.iter().map(|help| help.nack_at);
        let all = helping.chain(probe).chain(self.next_period);
        all.min().unwrap_or(Instant::NEVER)
    }

    /// This node was not running for so long: it has not waited.
    pub(crate) fn pause(&mut self, paused: Duration) {
        if let Some(probe) = &mut self.probe {
            probe.verdict_at = probe.verdict_at + paused;
            if let Stage::Direct { ask_at } = &mut probe.stage {
                *ask_at = *ask_at + paused;
            }
        }
        for help in &mut self.helping {
            help.nack_at = help.nack_at + paused;
        }
    }

    /// Takes members into this round, at random places.
    pub(crate) fn on_joined(&mut self, view: &mut View) {
        /// Above this, one shuffle of the rest costs less than as many insertions.
        const INSERTED_MAX: usize = 16;
        let joined = std::mem::take(&mut view.joined);
        if joined.len() > INSERTED_MAX {
            let most = (2 * view.config.members_max).saturating_sub(self.order.len());
            self.order.reserve_exact(joined.len().min(most));
            self.order.extend(joined.into_iter().take(most));
            shuffle(&mut self.order[self.cursor..], view);
            return;
        }
        for node in joined {
            if self.order.len() < 2 * view.config.members_max {
                let left = self.order.len() - self.cursor;
                let at = self.cursor + view.rng.below(left as u64 + 1) as usize;
                self.order.insert(at, node);
            }
        }
    }

    /// Does what is due; says whether a period began.
    pub(crate) fn on_wake(&mut self, now: Instant, view: &mut View, effects: &mut Effects) -> bool {
        self.nack(now, view, effects);
        self.ask_helpers(now, view, effects);
        self.judge(now, view, effects);
        if self.next_period.is_none_or(|next| now < next) {
            return false;
        }
        self.next_period = Some(now + view.health.scale(view.config.period));
        if self.probe.is_none()
            && let Some(target) = self.next_target(view)
        {
            self.begin(now, target, view, effects);
        }
        announce_to_down(now, view, effects);
        true
    }

    /// The next present member of the round.
    fn next_target(&mut self, view: &mut View) -> Option<NodeId> {
        for _ in 0..2 {
            while let Some(node) = self.order.get(self.cursor).copied() {
                self.cursor += 1;
                let is_present = view.table.standing(node).is_some_and(|s| s.state().is_present());
                if is_present && node != view.node {
                    return Some(node);
                }
            }
            self.begin_round(view);
        }
        None
    }

    fn begin_round(&mut self, view: &mut View) {
        let entries = view.table.entries().iter();
        let present = entries.filter(|entry| entry.standing.state().is_present());
        let others = present
            .map(|entry| entry.record.node)
            .filter(|node| *node != view.node);
        self.order.clear();
        self.order.extend(others);
        self.order.shrink_to_fit();
        shuffle(&mut self.order, view);
        self.cursor = 0;
    }

    fn next_number(&mut self) -> u32 {
        self.number = self.number.wrapping_add(1).max(1);
        self.number
    }

    fn begin(&mut self, now: Instant, target: NodeId, view: &mut View, effects: &mut Effects) {
        let number = self.next_number();
        self.probe = Some(Probe {
            number,
            target,
            verdict_at: now + view.health.scale(view.config.verdict),
            stage: Stage::Direct {
                ask_at: now + view.health.scale(view.config.ack_timeout),
            },
        });
        let news = view.compose(now, target, ping());
        view.send(
            target,
            |news| Message::Ping { probe: number, news },
            news,
            effects,
        );
    }

    /// Asks others, and the target over a stream, when there was no answer.
    fn ask_helpers(&mut self, now: Instant, view: &mut View, effects: &mut Effects) {
        let Some(probe) = &mut self.probe else { return };
        let Stage::Direct { ask_at } = probe.stage else {
            return;
        };
        if now < ask_at {
            return;
        }
        let (number, target) = (probe.number, probe.target);
        let helpers = view.sample(view.config.helpers, Some(target));
        for helper in &helpers {
            let news = view.compose(now, *helper, Carry::updates());
            let request = |news| Message::PingRequest {
                probe: number,
                target,
                news,
            };
            view.send(*helper, request, news, effects);
        }
        let news = view.compose(now, target, Carry::default());
        let again = Message::Ping { probe: number, news };
        view.send_over(Lane::Control, target, again, effects);
        probe.stage = Stage::Indirect {
            helpers,
            nacks: Vec::new(),
        };
    }

    /// Ends a probe that nobody answered.
    fn judge(&mut self, now: Instant, view: &mut View, effects: &mut Effects) {
        let Some(probe) = self.probe.take_if(|probe| probe.verdict_at <= now) else {
            return;
        };
        let (helpers, nacks) = match probe.stage {
            Stage::Direct { .. } => (Vec::new(), Vec::new()),
            Stage::Indirect { helpers, nacks } => (helpers, nacks),
        };
        if !view.config.danger_plain_swim && (helpers.is_empty() || nacks.len() < helpers.len()) {
            view.health.worse();
        }
        view.accuse(now, probe.target, &nacks, effects);
    }

    /// Says to those who asked that the target did not answer.
    fn nack(&mut self, now: Instant, view: &mut View, effects: &mut Effects) {
        for help in self.helping.extract_if(.., |help| help.nack_at <= now) {
            if view.config.danger_plain_swim {
                continue;
            }
            let news = view.compose(now, help.asker, Carry::updates());
            let nack = |news| Message::Nack {
                probe: help.asker_number,
                news,
            };
            view.send(help.asker, nack, news, effects);
        }
    }

    /// An answer to a ping, of this node's own probe or of one for another.
    pub(crate) fn on_ack(
        &mut self,
        now: Instant,
        from: NodeId,
        number: u32,
        view: &mut View,
        effects: &mut Effects,
    ) {
        let is_own = |probe: &mut Probe| probe.number == number && probe.target == from;
        if self.probe.take_if(is_own).is_some() {
            view.health.better();
            return;
        }
        let answered = |help: &mut Help| help.number == number && help.target == from;
        for help in self.helping.extract_if(.., answered) {
            let news = view.compose(now, help.asker, Carry::updates());
            let reached = |news| Message::Reached {
                probe: help.asker_number,
                news,
            };
            view.send(help.asker, reached, news, effects);
        }
    }

    /// A helper reached the target.
    pub(crate) fn on_reached(&mut self, from: NodeId, number: u32, view: &mut View) {
        let is_own = |probe: &mut Probe| probe.number == number && probe.has_helper(from);
        if self.probe.take_if(is_own).is_some() {
            view.health.better();
        }
    }

    /// A helper did not.
    pub(crate) fn on_nack(&mut self, from: NodeId, number: u32) {
        if let Some(probe) = &mut self.probe
            && probe.number == number
            && probe.has_helper(from)
            && let Stage::Indirect { nacks, .. } = &mut probe.stage
            && !nacks.contains(&from)
        {
            nacks.push(from);
        }
    }

    /// Another member asks for help.
    pub(crate) fn on_request(
        &mut self,
        now: Instant,
        from: NodeId,
        asker_number: u32,
        target: NodeId,
        view: &mut View,
        effects: &mut Effects,
    ) {
        let is_pending = |help: &Help| help.asker == from && help.target == target;
        if self.helping.len() >= HELPING_MAX || self.helping.iter().any(is_pending) {
            view.refusals.count(Refusal::TooManyRequests, from, target);
            return;
        }
        if target == view.node || view.table.get(target).is_none() {
            return;
        }
        let number = self.next_number();
        self.helping.push(Help {
            number,
            target,
            asker: from,
            asker_number,
            nack_at: now + view.config.nack_timeout,
        });
        let news = view.compose(now, target, Carry::updates());
        view.send(
            target,
            |news| Message::Ping { probe: number, news },
            news,
            effects,
        );
    }

    /// The module's own invariants.
    pub(crate) fn check(&self) {
        assert!(self.cursor <= self.order.len(), "a round beyond its end");
        assert!(self.helping.len() <= HELPING_MAX, "too much help");
    }
}

impl Probe {
    fn has_helper(&self, node: NodeId) -> bool {
        match &self.stage {
            Stage::Direct { .. } => false,
            Stage::Indirect { helpers, .. } => helpers.contains(&node),
        }
    }
}

fn shuffle(nodes: &mut [NodeId], view: &mut View) {
    for last in (1..nodes.len()).rev() {
        nodes.swap(last, view.rng.below(last as u64 + 1) as usize);
    }
}

/// What a probe carries: updates, and sums to compare tables.
fn ping() -> Carry {
    Carry {
        sums: true,
        ..Carry::updates()
    }
}

/// Pings one dead member, to find out whether it is back: after a network partition both sides hold each other for dead,
/// and nobody else would begin.
fn announce_to_down(now: Instant, view: &mut View, effects: &mut Effects) {
    let Some(target) = view.rng.pick(&view.down).copied() else {
        return;
    };
    debug_assert!(
        view.table
            .standing(target)
            .is_some_and(|s| s.state() == State::Dead)
    );
    let news = view.compose(now, target, ping());
    view.send(target, |news| Message::Ping { probe: 0, news }, news, effects);
}

impl View {
    /// Sends a message that carries this news, and counts its bytes.
    pub(crate) fn send(
        &mut self,
        to: NodeId,
        message: impl FnOnce(News) -> Message,
        news: News,
        effects: &mut Effects,
    ) {
        let message = message(news);
        self.send_over(message.lane(), to, message, effects);
    }

    /// Sends a message over a lane of choice.
    pub(crate) fn send_over(&mut self, lane: Lane, to: NodeId, message: Message, effects: &mut Effects) {
        self.budget.take(message.size());
        effects.sends.push(Outgoing { to, lane, message });
    }
}
