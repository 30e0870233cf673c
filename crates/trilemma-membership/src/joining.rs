//! Getting and giving the member list: page by page over streams, from a seed.

use std::time::Duration;

use trilemma_core::{Instant, NodeId};

use crate::effects::{Effects, Event};
use crate::message::{Message, PAGE_BYTES_MAX, UPDATES_MAX, Update};
use crate::refusal::Refusal;
use crate::view::{Carry, How, Merged, View};

/// How long to wait for a page before another seed is asked.
const PAGE_TIMEOUT: Duration = Duration::from_secs(1);
/// Pages that are served in one period: a seed has other work.
const SERVED_MAX: u32 = 32;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Joining {
    asked: Option<Asked>,
    next: Option<Instant>,
    served: u32,
}

#[derive(Debug)]
struct Asked {
    node: NodeId,
    after: Option<NodeId>,
    until: Instant,
}

impl Joining {
    pub(crate) fn start(&mut self, now: Instant) {
        self.next = Some(now);
    }

    pub(crate) fn stop(&mut self) {
        *self = Self::default();
    }

    /// When it wants to be woken.
    pub(crate) fn next(&self) -> Instant {
        let asked = self.asked.as_ref().map(|asked| asked.until);
        asked.or(self.next).unwrap_or(Instant::NEVER)
    }

    /// A period of the prober has begun.
    pub(crate) fn on_period(&mut self) {
        self.served = 0;
    }

    /// Asks a seed that does not take part: there is nobody else to ask, or it is on the other side of something.
    pub(crate) fn on_wake(&mut self, now: Instant, view: &mut View, effects: &mut Effects) {
        if now < self.next() {
            return;
        }
        self.asked = None;
        let is_alone = view.table.present() <= 1;
        // Members with a saved list ask in turn, not all at the same moment.
        let interval = view.config.seed_interval;
        let jitter = view.rng.between(Duration::ZERO, interval / 2);
        self.next = Some(now + if is_alone { PAGE_TIMEOUT } else { interval + jitter });
        let absent = |node: &NodeId| {
            let standing = view.table.standing(*node);
            *node != view.node && !standing.is_some_and(|standing| standing.state().is_present())
        };
        let seeds: Vec<NodeId> = view
            .config
            .seeds
            .iter()
            .map(|seed| seed.node)
            .filter(absent)
            .collect();
        if let Some(seed) = view.rng.pick(&seeds).copied() {
            self.ask(now, seed, None, view, effects);
        }
    }

    fn ask(
        &mut self,
        now: Instant,
        node: NodeId,
        after: Option<NodeId>,
        view: &mut View,
        effects: &mut Effects,
    ) {
        self.asked = Some(Asked {
            node,
            after,
            until: now + PAGE_TIMEOUT,
        });
        let carry = Carry {
            introduce: after.is_none(),
            ..Carry::default()
        };
        let news = view.compose(now, node, carry);
        view.send(node, |news| Message::ListRequest { after, news }, news, effects);
    }

    /// A page has come.
    pub(crate) fn on_page(
        &mut self,
        now: Instant,
        from: NodeId,
        members: &[Update],
        more_after: Option<NodeId>,
        view: &mut View,
        effects: &mut Effects,
    ) {
        let Some(asked) = self.asked.take_if(|asked| asked.node == from) else {
            return;
        };
        let mut merged = Merged::default();
        for update in members {
            view.merge(now, from, update, How::Listed, &mut merged, effects);
        }
        // A page that does not go on would go on without end.
        match more_after.filter(|after| Some(*after) > asked.after) {
            Some(after) => self.ask(now, from, Some(after), view, effects),
            None => effects.events.push(Event::Joined),
        }
    }

    /// Somebody asks for a page.
    pub(crate) fn on_request(
        &mut self,
        from: NodeId,
        after: Option<NodeId>,
        view: &mut View,
        effects: &mut Effects,
    ) {
        if self.served >= SERVED_MAX {
            view.refusals.count(Refusal::TooManyRequests, from, from);
            return;
        }
        self.served += 1;
        let mut members = Vec::new();
        let mut bytes = 0;
        let mut more_after = None;
        let entries = view.table.entries();
        let begin = entries.partition_point(|entry| Some(entry.record.node) <= after);
        for entry in &entries[begin..] {
            let update = view.describe(entry);
            bytes += update.size();
            if members.len() == UPDATES_MAX || bytes > PAGE_BYTES_MAX {
                more_after = members.last().map(|last: &Update| last.node);
                break;
            }
            members.push(update);
        }
        effects.send(from, Message::List { members, more_after });
    }
}
