//! Members: where each stands, what must be sent to it again.

use std::sync::Arc;

use trilemma_core::{Instant, NodeId, Reason};

use super::{LinkState, Sequencer};
use crate::core::{Core, Out};
use crate::ids::BatchId;
use crate::message::{Hello, Message};
use crate::record::Record;

impl Sequencer {
    pub(super) fn on_hello(&mut self, core: &mut Core, from: NodeId, hello: Hello, effects: &mut Out) {
        if self.diverged.is_some() || self.is_contradicted(core, from, &hello) {
            return;
        }
        if !core.ledger.is_joined {
            self.hear(core, from, hello, effects);
            return;
        }
        if self.is_late(from, &hello) {
            return;
        }
        // A member that stands before the finished part of the chain has lost records: it is as good as blank.
        if hello.is_blank || hello.decided < core.ledger.floor {
            self.on_blank(core, from, hello.nonce, effects);
            return;
        }
        let Some(link) = self.links.get_mut(&from) else {
            return;
        };
        link.state = LinkState::Linked;
        link.nonce = hello.nonce;
        self.transfers.remove(&from);
        self.on_vote(core, from, hello.prepared, hello.acked);
        let resolved = self.resolved(core, hello.decided);
        effects.send(from, Message::Resolved(resolved));
        self.send_flights(core, from, hello.prepared, effects);
    }

    /// Whether the member has said more since, in the same incarnation: the network kept this one back.
    fn is_late(&self, from: NodeId, hello: &Hello) -> bool {
        self.links.get(&from).is_some_and(|link| {
            link.state == LinkState::Linked
                && link.nonce == hello.nonce
                && (hello.is_blank || hello.acked < link.acked)
        })
    }

    /// Whether the member knows more than this node's log: then this node lost decisions that others rely on.
    fn is_contradicted(&mut self, core: &Core, from: NodeId, hello: &Hello) -> bool {
        let knows_later = hello.decided > core.ledger.decided || hello.fence > self.last_issued(core);
        let knows_other = !core.ledger.is_joined && hello.fence > BatchId::ORIGIN;
        if !knows_later && !knows_other {
            return false;
        }
        let why = format!(
            "node {}, the sequencer, has lost data: node {from} knows batch {}, here the last is {}; an operator must \
             restore it",
            core.config.node,
            hello.decided.max(hello.fence),
            core.ledger.decided
        );
        tracing::error!(%why);
        self.diverged = Some(why);
        true
    }

    /// A new keyspace: when every member has said that it never voted, there is nothing that this node could lack.
    fn hear(&mut self, core: &Core, from: NodeId, hello: Hello, effects: &mut Out) {
        if let Some(link) = self.links.get_mut(&from) {
            link.state = LinkState::Heard(hello);
        }
        let all = self
            .links
            .values()
            .all(|link| matches!(link.state, LinkState::Heard(_)));
        if all && self.joining.is_none() {
            let epoch = core.config.epoch;
            self.joining = Some(effects.append(Record::Joined { epoch }));
        }
    }

    /// This node is ready: what members said before counts now.
    pub(super) fn hear_again(&mut self, core: &mut Core, effects: &mut Out) {
        let heard: Vec<(NodeId, Hello)> = self
            .links
            .iter()
            .filter_map(|(node, link)| match link.state {
                LinkState::Heard(hello) => Some((*node, hello)),
                _ => None,
            })
            .collect();
        for (node, hello) in heard {
            self.on_hello(core, node, hello, effects);
        }
    }

    /// A member has no data. Its votes may have been lost with it, so whatever is not decided is aborted, and nothing
    /// is ordered until it has this node's state.
    fn on_blank(&mut self, core: &mut Core, from: NodeId, nonce: u64, effects: &mut Out) {
        let Some(link) = self.links.get_mut(&from) else {
            return;
        };
        if link.state == LinkState::Blank(nonce) {
            self.offer_again(from, effects);
            return;
        }
        link.state = LinkState::Blank(nonce);
        link.voted = BatchId::ORIGIN;
        self.transfers.remove(&from);
        if let Some(index) = self.flights.iter().position(|flight| flight.decision.is_none()) {
            let why = "it has lost its data and is being restored".into();
            self.abort_from(core, index, &Reason::Refused { node: from, why }, effects);
        }
    }

    pub(super) fn resend(
        &mut self,
        core: &Core,
        now: Instant,
        from: NodeId,
        after: BatchId,
        effects: &mut Out,
    ) {
        self.send_flights(core, from, after, effects);
        for flight in &mut self.flights {
            flight.resent = now;
        }
    }

    fn send_flights(&self, core: &Core, to: NodeId, after: BatchId, effects: &mut Out) {
        let head = core.head();
        for flight in self.flights.iter().filter(|flight| flight.batch.id > after) {
            let batch = Arc::clone(&flight.batch);
            effects.send(to, Message::Prepare { batch, head });
        }
    }

    /// Repeats what has not been answered.
    pub(super) fn repeat(&mut self, core: &Core, now: Instant, effects: &mut Out) {
        let head = core.head();
        let interval = core.config.retry_interval;
        for (node, link) in &self.links {
            if !core.is_connected(*node) {
                continue;
            }
            match link.state {
                // Also to one that seems blank: an old word of it may have come late, and only it can put that right.
                LinkState::Unknown | LinkState::Heard(_) | LinkState::Blank(_) => {
                    effects.send(*node, Message::Probe);
                }
                LinkState::Linked => {
                    if link.acked < core.ledger.decided {
                        effects.send(*node, Message::Announce { head });
                    }
                    let late = self.flights.iter().filter(|flight| {
                        flight.batch.id > link.voted && now.since(flight.resent) >= interval
                    });
                    for flight in late {
                        let batch = Arc::clone(&flight.batch);
                        effects.send(*node, Message::Prepare { batch, head });
                    }
                }
            }
        }
        for flight in &mut self.flights {
            if now.since(flight.resent) >= interval {
                flight.resent = now;
            }
        }
    }
}
