//! Which connections to keep: all in a small cluster, a bounded changing set in a large one.
//!
//! Seeds and one member of each other zone stay, so that no zone is ever out of reach of a warm connection; one of the rest
//! is exchanged now and then, so that the set stays random. Others are dialled on demand.

use std::collections::{BTreeMap, BTreeSet};

use trilemma_core::{Instant, NodeId};

use crate::effects::{Effects, Event};
use crate::view::View;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Warm {
    kept: BTreeSet<NodeId>,
    next: Option<Instant>,
}

impl Warm {
    pub(crate) fn start(&mut self, now: Instant) {
        self.next = Some(now);
    }

    pub(crate) fn stop(&mut self, effects: &mut Effects) {
        let kept = std::mem::take(&mut self.kept);
        effects.events.extend(kept.into_iter().map(Event::Disconnect));
        self.next = None;
    }

    pub(crate) fn kept(&self) -> &BTreeSet<NodeId> {
        &self.kept
    }

    /// When it wants to be woken.
    pub(crate) fn next(&self) -> Instant {
        self.next.unwrap_or(Instant::NEVER)
    }

    /// Exchanges one connection, and drops those to members that are gone.
    pub(crate) fn on_wake(&mut self, now: Instant, view: &mut View, effects: &mut Effects) {
        if now < self.next() {
            return;
        }
        self.next = Some(now + view.config.swap_interval);
        let wanted = self.wanted(view);
        let dropped = self.kept.difference(&wanted).copied();
        effects.events.extend(dropped.map(Event::Disconnect));
        let added = wanted.difference(&self.kept).copied();
        effects.events.extend(added.map(Event::Connect));
        self.kept = wanted;
    }

    fn wanted(&self, view: &mut View) -> BTreeSet<NodeId> {
        let entries = view.table.entries().iter();
        let present = entries.filter(|entry| entry.standing.state().is_present());
        let others = present.filter(|entry| entry.record.node != view.node);
        if view.table.present() <= view.config.full_mesh_max {
            return others.map(|entry| entry.record.node).collect();
        }
        let most = view.config.warm_connections;
        // One of each other zone: one that is kept already, if there is one.
        let mut zones: BTreeMap<&str, NodeId> = BTreeMap::new();
        for entry in others {
            let (node, zone) = (entry.record.node, entry.record.zone.as_str());
            if zone == view.record.zone || (zones.len() >= most / 2 && !zones.contains_key(zone)) {
                continue;
            }
            let chosen = zones.entry(zone).or_insert(node);
            if self.kept.contains(&node) && !self.kept.contains(chosen) {
                *chosen = node;
            }
        }
        let mut wanted: BTreeSet<NodeId> = zones.into_values().collect();
        let is_present = |node: &NodeId| view.table.standing(*node).is_some_and(|s| s.state().is_present());
        let seeds = view.config.seeds.iter().map(|seed| seed.node);
        wanted.extend(
            seeds
                .filter(|node| *node != view.node && is_present(node))
                .take(most / 4),
        );
        let rest: Vec<NodeId> = self.kept.iter().copied().filter(is_present).collect();
        let rest = rest.into_iter().filter(|node| !wanted.contains(node));
        let mut rest: Vec<NodeId> = rest.collect();
        if !rest.is_empty() && wanted.len() + rest.len() >= most {
            rest.swap_remove(view.rng.below(rest.len() as u64) as usize);
        }
        rest.truncate(most.saturating_sub(wanted.len()));
        wanted.extend(rest);
        for node in view.sample(most, None) {
            if wanted.len() >= most {
                break;
            }
            wanted.insert(node);
        }
        wanted
    }
}
