//! What every member durably reflects, and what may therefore be forgotten (inside/gossip#collection-step-by-step).
//!
//! A change is *stable* when every configured member, present or not, has acknowledged a context that holds it and
//! everything it observed, **and** this replica holds everything in those contexts. The second half matters: a write
//! that a member made before it learned of a tombstone is in that member's acknowledgement, so it is here, and is
//! judged against the tombstone before that goes. An acknowledgement that is ahead of us therefore waits.
//!
//! Acknowledgements are contexts sent after everything in them was durable, so a crash does not take one back. A lost
//! disk does: those of a former incarnation are dropped as soon as a later one is known, whether or not it has lost
//! anything. Until then the member itself sees to it that no harm comes of it, see [`crate::rejoin`].
//!
//! A change that a member defers is not acknowledged: the member's next write of the key does not observe it.
//!
//! An acknowledgement counts for collection when it has its age. By then the wall clock of the member has passed every
//! stamp that it acknowledged, whatever becomes of its disk (inside/gossip#write-after-a-lost-disk).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trilemma_core::{Incarnation, Instant, NodeId, Now};

use crate::config::GossipConfig;
use crate::context::Context;
use crate::dot::Dot;
use crate::replica::Item;
use crate::shared::Shared;
use crate::store::Store;

/// Fewest and most changes that are looked at for collection from one tick to the next. In between it is a quarter of those
/// that wait, so that collection keeps pace with any rate that the log can take (ten ticks a second: 40,000).
const COLLECT_PER_TICK: std::ops::RangeInclusive<usize> = 256..=4096;
/// Changes that could be passed over in the time that it takes to collect one.
const COLLECT_COST: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Acknowledgements {
    members: BTreeMap<NodeId, Member>,
    /// Where the next turn goes on looking.
    cursor: Option<Dot>,
    /// Changes that are still to be looked at before the next tick.
    left: usize,
}

/// What one incarnation of a member has acknowledged.
#[derive(Debug, Default)]
struct Member {
    incarnation: Incarnation,
    /// The newest acknowledgement that is included in our own context.
    newest: Option<Acknowledgement>,
    /// One that waits for its age, and the newest that has it.
    aging: Option<Acknowledgement>,
    aged: Option<Acknowledgement>,
    /// The oldest one that is not included in our context yet.
    ahead: Option<Acknowledgement>,
}

/// A context that a member durably reflects.
#[derive(Clone, Debug)]
struct Acknowledgement {
    context: Context,
    /// What of it the member does not show yet.
    deferred: BTreeSet<Dot>,
    /// When it counted first.
    at: Instant,
}

impl Acknowledgements {
    /// Takes an acknowledgement. `own` is our context now.
    pub(crate) fn on_acknowledged(
        &mut self,
        now: Now,
        from: NodeId,
        incarnation: Incarnation,
        context: Context,
        deferred: impl IntoIterator<Item = Dot>,
        own: &Context,
    ) {
        self.on_incarnation(from, incarnation);
        let member = self.members.entry(from).or_default();
        if incarnation < member.incarnation {
            return;
        }
        member.incarnation = incarnation;
        member.promote(now, own);
        let acknowledgement = Acknowledgement {
            context,
            deferred: deferred.into_iter().collect(),
            at: now.instant,
        };
        if own.includes(&acknowledgement.context) {
            member.take(acknowledgement);
        } else if member.ahead.is_none() {
            member.ahead = Some(acknowledgement);
        }
    }

    /// A member is known to have begun this incarnation: what former ones acknowledged may be lost.
    pub(crate) fn on_incarnation(&mut self, peer: NodeId, incarnation: Incarnation) {
        self.members
            .retain(|member, known| *member != peer || known.incarnation >= incarnation);
    }

    /// What a member is known to reflect for its age.
    fn aged(&self, peer: NodeId) -> Option<&Acknowledgement> {
        self.members.get(&peer).and_then(|member| member.aged.as_ref())
    }

    /// Whether all peers reflect a change, and have for a while.
    fn is_reflected(&self, mut peers: impl Iterator<Item = NodeId>, dot: Dot) -> bool {
        let reflects = |aged: &Acknowledgement| aged.context.contains(dot) && !aged.deferred.contains(&dot);
        peers.all(|peer| self.aged(peer).is_some_and(reflects))
    }

    /// Whether all members reflect a change and what it observed, and have for a while.
    fn is_stable(&self, config: &GossipConfig, own: &Context, item: &Item) -> bool {
        let holds = |context: &Context| item.observed.iter().all(|dot| context.contains_up_to(dot));
        let has_observed = |peer| self.aged(peer).is_some_and(|aged| holds(&aged.context));
        own.contains(item.dot)
            && holds(own)
            && self.is_reflected(config.peers(), item.dot)
            && config.peers().all(has_observed)
    }

    /// The member that has acknowledged least of `own`, if some member lacks any of it.
    pub(crate) fn laggard(&self, peers: impl Iterator<Item = NodeId>, own: &Context) -> Option<NodeId> {
        let lacking = |peer: &NodeId| -> u64 {
            let none = Context::default();
            let newest = self.members.get(peer).and_then(|member| member.newest.as_ref());
            let acknowledged = newest.map_or(&none, |newest| &newest.context);
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

    /// Lets acknowledgements age, and says how much is to be looked at for collection until the next tick.
    pub(crate) fn on_tick(&mut self, shared: &Shared, store: &Store, now: Now) {
        let own = store.replica.context();
        let age = shared.config.tombstone_age_min;
        for member in self.members.values_mut() {
            member.promote(now, own);
            member.age(now, age);
        }
        let waiting = store.replica.uncollected();
        self.left = (waiting / 4).clamp(*COLLECT_PER_TICK.start(), *COLLECT_PER_TICK.end());
    }

    /// Forgets a slice of the observed sets and tombstones that no member needs any more; returns whether there is more to
    /// look at.
    pub(crate) fn collect(&mut self, shared: &mut Shared, store: &mut Store) -> bool {
        let own = store.replica.context().clone();
        let count = self.left.min(shared.config.turn_items);
        let dots = store.replica.uncollected_after(self.cursor, count);
        let is_end = dots.len() < count;
        let mut work = 0;
        for dot in dots {
            if work >= shared.config.turn_items {
                return true;
            }
            self.cursor = Some(dot);
            self.left -= 1;
            work += self.collect_one(shared, store, &own, dot);
        }
        if is_end {
            // The next tick begins again.
            (self.cursor, self.left) = (None, 0);
        }
        self.left > 0
    }

    /// Looks at one change; returns what that has cost.
    fn collect_one(&self, shared: &mut Shared, store: &mut Store, own: &Context, dot: Dot) -> usize {
        // Most wait for their age, tens of seconds long: they are passed over before their keys are looked up.
        if !self.is_reflected(shared.config.peers(), dot) {
            return 1;
        }
        // What is deferred here is not stable, whatever others say: our next write of the key does not observe it.
        let key = store.replica.key_of(dot).cloned();
        let Some(key) = key.filter(|key| !store.deferred.holds(key)) else {
            return 1;
        };
        let siblings = store.replica.siblings(&key);
        let cost = siblings
            .iter()
            .map(|sibling| COLLECT_COST + sibling.item.observed.len());
        let cost: usize = cost.sum();
        store
            .replica
            .collect(dot, |item| self.is_stable(&shared.config, own, item));
        if store.replica.hides(&key) {
            store.note_siblings(shared, &key);
        }
        cost
    }

    /// The module's own invariants.
    pub(crate) fn check(&self, own: &Context) {
        for member in self.members.values() {
            assert!(
                member.aging.is_none() || member.newest.is_some(),
                "an acknowledgement ages and there is no newest"
            );
            assert!(
                member.aged.is_none() || member.newest.is_some(),
                "an acknowledgement has its age and there is no newest"
            );
            let counted = [&member.newest, &member.aging, &member.aged];
            debug_assert!(
                counted
                    .into_iter()
                    .flatten()
                    .all(|counted| own.includes(&counted.context)),
                "an acknowledgement counts that is ahead of our context"
            );
        }
    }
}

impl Member {
    /// Counts an acknowledgement that our context includes.
    fn take(&mut self, mut acknowledgement: Acknowledgement) {
        if let Some(newest) = &mut self.newest
            && newest.context.includes(&acknowledgement.context)
        {
            // Messages overtake each other; within one incarnation contexts only grow, and with the same context what
            // is deferred only shrinks.
            if !acknowledgement.context.includes(&newest.context) {
                return;
            }
            let deferred = acknowledgement.deferred.iter().copied();
            let still = deferred.filter(|dot| newest.deferred.contains(dot)).collect();
            if still == newest.deferred {
                return;
            }
            acknowledgement.deferred = still;
        }
        self.aging.get_or_insert_with(|| acknowledgement.clone());
        self.newest = Some(acknowledgement);
    }

    /// Counts the one that was ahead, once it is not.
    fn promote(&mut self, now: Now, own: &Context) {
        if let Some(mut ahead) = self.ahead.take_if(|ahead| own.includes(&ahead.context)) {
            ahead.at = now.instant;
            self.take(ahead);
        }
    }

    /// Moves on what has its age.
    fn age(&mut self, now: Now, age: Duration) {
        while let Some(aging) = self.aging.take_if(|aging| now.instant.since(aging.at) >= age) {
            let is_newer = |newest: &Acknowledgement| {
                newest.context != aging.context || newest.deferred != aging.deferred
            };
            self.aging = self.newest.clone().filter(is_newer);
            self.aged = Some(aging);
        }
    }
}

#[cfg(test)]
mod tests;
