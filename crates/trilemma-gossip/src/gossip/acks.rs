//! What every member durably reflects, and what may therefore be forgotten (design note, section 8).
//!
//! A change is *stable* when every configured member, present or not, has acknowledged a context that holds it and
//! everything it observed, **and** this replica holds everything in those contexts. The second half matters: a write
//! that a member made before it heard of a tombstone is in that member's acknowledgement, so it is here, and is
//! judged against the tombstone before that goes. An acknowledgement that is ahead of us therefore waits.
//!
//! Acknowledgements are contexts sent after everything in them was durable, so a crash does not take one back. A
//! member that lost its disk has a new life; its first acknowledgement replaces the former one. Until it is heard
//! of, `tombstone_age_min` protects: what it writes meanwhile has a newer stamp than any tombstone collected, and what
//! it is told again of former changes comes with all that they have observed.

use std::collections::BTreeMap;

use trilemma_core::{Incarnation, NodeId, Now};

use super::{Gossip, Out};
use crate::config::Durability;
use crate::context::Context;
use crate::dot::Dot;
use crate::hlc::Stamp;
use crate::replica::Item;

/// Changes that one tick looks at for collection: bounds the work of a tick, not the pace (2560 a second).
const COLLECT_PER_TICK: usize = 256;
/// The incarnation of a node's first start ever.
const FIRST_LIFE: Incarnation = Incarnation(1);

#[derive(Debug, Default)]
pub(super) struct Acks {
    members: BTreeMap<NodeId, Ack>,
    /// Where the next tick goes on looking.
    cursor: Option<Dot>,
}

#[derive(Debug, Default)]
struct Ack {
    incarnation: Incarnation,
    /// Included in our own context.
    context: Context,
    /// The oldest acknowledgement that is not included in our context yet.
    ahead: Option<(Incarnation, Context)>,
}

impl Acks {
    /// Takes an acknowledgement. `own` is our context now.
    pub(super) fn record(&mut self, from: NodeId, incarnation: Incarnation, context: Context, own: &Context) {
        let ack = self.members.entry(from).or_default();
        if incarnation < ack.incarnation {
            return;
        }
        ack.promote(own);
        if own.includes(&context) {
            // Messages overtake each other; within one life contexts only grow.
            let is_older = incarnation == ack.incarnation && ack.context.includes(&context);
            if !is_older {
                (ack.incarnation, ack.context) = (incarnation, context);
            }
        } else if ack.ahead.as_ref().is_none_or(|(life, _)| *life < incarnation) {
            ack.ahead = Some((incarnation, context));
        }
    }

    fn promote(&mut self, own: &Context) {
        self.members.values_mut().for_each(|ack| ack.promote(own));
    }

    fn is_stable(&self, peers: impl Iterator<Item = NodeId>, own: &Context, item: &Item) -> bool {
        let reflects = |context: &Context| {
            context.contains(item.dot) && item.observed.iter().all(|dot| context.contains_up_to(dot))
        };
        let mut peers = peers;
        reflects(own) && peers.all(|peer| self.members.get(&peer).is_some_and(|ack| reflects(&ack.context)))
    }

    /// The member that has acknowledged least of `own`, if some member lacks any of it.
    pub(super) fn laggard(&self, peers: impl Iterator<Item = NodeId>, own: &Context) -> Option<NodeId> {
        let lacking = |peer: &NodeId| -> u64 {
            let none = Context::default();
            let acknowledged = self.members.get(peer).map_or(&none, |ack| &ack.context);
            let spans = own.minus(acknowledged);
            spans
                .iter()
                .map(|(first, last)| last.seq.saturating_sub(first.seq).saturating_add(1))
                .fold(0, u64::saturating_add)
        };
        peers
            .map(|peer| (lacking(&peer), peer))
            .filter(|(lacking, _)| *lacking > 0)
            .max()
            .map(|(_, peer)| peer)
    }
}

impl Ack {
    fn promote(&mut self, own: &Context) {
        if let Some((incarnation, context)) = self.ahead.take_if(|(_, context)| own.includes(context))
            && incarnation >= self.incarnation
            && !(incarnation == self.incarnation && self.context.includes(&context))
        {
            (self.incarnation, self.context) = (incarnation, context);
        }
    }
}

impl Gossip {
    /// Forgets observed sets and tombstones that no member needs any more.
    pub(super) fn collect(&mut self, now: Now) {
        if self.replica.unsettled() == 0 {
            return;
        }
        self.acks.promote(self.replica.context());
        let dots = self.replica.unsettled_after(self.acks.cursor, COLLECT_PER_TICK);
        self.acks.cursor = if dots.len() < COLLECT_PER_TICK {
            None
        } else {
            dots.last().copied()
        };
        let own = self.replica.context().clone();
        let age = Stamp((self.config.tombstone_age_min.as_millis() as u64) << 16);
        let now = Stamp::at(now.wall);
        for dot in dots {
            let stable = |item: &Item| self.acks.is_stable(self.config.peers(), &own, item);
            let old = |item: &Item| item.stamp.0.saturating_add(age.0) <= now.0;
            self.replica.settle(dot, stable, old);
            let hides = self.replica.key_of(dot).filter(|key| self.replica.hides(key));
            if let Some(key) = hides.cloned() {
                self.note_crowding(&key);
            }
        }
    }

    /// Replaces this node's own former lives in the context by a floor.
    ///
    /// Only the origin can know that nothing of a life is missing: others may agree on what they have seen, and a
    /// cut-off member may have seen more. The origin knows it for the lives that its disk has lived through from the
    /// first on, where every change was synced before it left. Then the floor holds no change that is not in the
    /// context already, and peers get it like any context: after the bodies. A node that has lost its disk, or does
    /// not sync, raises no floor; its context then grows by one interval with each life that writes.
    pub(super) fn compact_lives(&mut self, effects: Out<'_>) {
        let present = self.config.incarnation;
        let node = self.config.node;
        let has_former = self.replica.context().lives(node).any(|life| life < present);
        if !has_former || self.whole_since != Some(FIRST_LIFE) || self.config.durability != Durability::Fsync
        {
            return;
        }
        let mut raised = Context::default();
        raised.raise_floor(node, present);
        self.join_context(&raised, effects);
    }
}
