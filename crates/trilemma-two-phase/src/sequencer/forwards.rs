//! Operations that members pass on.

use std::time::Duration;

use trilemma_core::{Incarnation, Instant, NodeId};

use super::{ReplyTo, Sequencer};
use crate::batch::Transaction;
use crate::core::{Core, Out};
use crate::inbox::{Admitted, Inbox};
use crate::message::{Answer, FORWARDS_MAX, Forward, Message, Verdict};

impl Sequencer {
    pub(super) fn on_forwards(
        &mut self,
        core: &Core,
        now: Instant,
        from: NodeId,
        incarnation: Incarnation,
        done_below: u64,
        items: Vec<Forward>,
    ) {
        let window = core.config.forwards_window();
        let inbox = self
            .inboxes
            .entry(from)
            .or_insert_with(|| Inbox::new(incarnation, window));
        if inbox.incarnation < incarnation {
            *inbox = Inbox::new(incarnation, window);
            self.answers.remove(&from);
        }
        if inbox.incarnation > incarnation {
            return;
        }
        inbox.done_below(done_below);
        for forward in items {
            self.on_forward(core, now, from, forward);
        }
    }

    fn on_forward(&mut self, core: &Core, now: Instant, from: NodeId, forward: Forward) {
        let Some(inbox) = self.inboxes.get_mut(&from) else {
            return;
        };
        let (number, incarnation) = (forward.number, inbox.incarnation);
        match inbox.admit(number) {
            Admitted::Ignore => {}
            Admitted::Answered(verdict) => self.answer(from, incarnation, number, verdict),
            // What no client may ask for, no member may pass on: a larger batch than the log takes would end this node.
            Admitted::New => match refused(&forward.transaction).or(self.admit(core, &forward.transaction)) {
                Some(verdict) => self.answer(from, incarnation, number, verdict),
                None => {
                    let deadline = now + Duration::from_millis(forward.timeout_ms.into());
                    let waiter = ReplyTo::Remote(from, incarnation, number);
                    self.enqueue(now, forward.transaction, waiter, deadline);
                }
            },
        }
    }

    /// Notes an answer for the end of the turn. Numbers of a former incarnation of the forwarder mean something else now.
    pub(super) fn answer(&mut self, node: NodeId, incarnation: Incarnation, number: u64, verdict: Verdict) {
        let Some(inbox) = self
            .inboxes
            .get_mut(&node)
            .filter(|inbox| inbox.incarnation == incarnation)
        else {
            return;
        };
        inbox.answer(number, verdict.clone());
        self.answers
            .entry(node)
            .or_default()
            .push(Answer { number, verdict });
    }

    pub(super) fn send_answers(&mut self, core: &Core, effects: &mut Out) {
        for (node, mut answers) in std::mem::take(&mut self.answers) {
            let Some(incarnation) = self.inboxes.get(&node).map(|inbox| inbox.incarnation) else {
                continue;
            };
            let sequencer = core.config.incarnation;
            while !answers.is_empty() {
                let rest = answers.split_off(answers.len().min(FORWARDS_MAX));
                let items = std::mem::replace(&mut answers, rest);
                let answers = Message::Answers {
                    sequencer,
                    incarnation,
                    items,
                };
                effects.send(node, answers);
            }
        }
    }
}

/// Why no node takes this transaction, if so.
fn refused(transaction: &Transaction) -> Option<Verdict> {
    match transaction {
        Transaction::Write { command, .. } => command.validate().err().map(Verdict::Refused),
        Transaction::Fence { .. } => None,
    }
}
