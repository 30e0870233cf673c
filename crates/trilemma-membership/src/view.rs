//! What this node believes of all members, itself included, and what it says of them.
//!
//! Statements are merged by precedence. What is news is passed on; what is about this node is refuted; what accuses a member
//! without the evidence of a rumor makes a suspicion that stays here, and the suspect learns of it first (Lifeguard's buddy rule).

mod compose;
mod merge;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use trilemma_core::{Instant, NodeId, Rng};

use crate::authority::Authority;
use crate::budget::Budget;
use crate::config::Config;
use crate::effects::{Effects, Event, Persist};
use crate::health::Health;
use crate::message::{Detail, Update};
use crate::record::Record;
use crate::refusal::Refusals;
use crate::standing::{EPOCH_MAX, Incarnation, Standing, State};
use crate::suspicion::Suspicion;
use crate::table::{Entry, Table};
use crate::timing::sends_for;
use crate::updates::Updates;

pub(crate) use compose::Carry;
pub(crate) use merge::{How, Merged};

/// Probability with which a statement may miss a member, before comparisons of tables bring it.
const UPDATE_MISS: f64 = 0.01;

/// What this node may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not started, or its first epoch is not durable: silent.
    Silent,
    /// It takes part.
    Running,
    /// It has said that it leaves.
    Leaving,
    /// It was excluded, and is silent.
    Evicted,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) config: Config,
    pub(crate) authority: Box<dyn Authority>,
    pub(crate) rng: Rng,
    pub(crate) phase: Phase,
    pub(crate) node: NodeId,
    pub(crate) record: Arc<Record>,
    /// What this node announces; durable.
    pub(crate) incarnation: Incarnation,
    /// The epoch that is being made durable.
    pub(crate) renewing: Option<u64>,
    pub(crate) table: Table,
    pub(crate) updates: Updates,
    pub(crate) health: Health,
    pub(crate) refusals: Refusals,
    pub(crate) budget: Budget,
    /// Dead members, ascending: they are pinged now and then.
    pub(crate) down: Vec<NodeId>,
    /// Members that the prober does not know yet.
    pub(crate) joined: Vec<NodeId>,
    /// Whether the saved list is out of date.
    pub(crate) unsaved: bool,
    suspicions: BTreeMap<NodeId, Suspicion>,
    /// No suspicion ends before.
    next_end: Instant,
    signatures: BTreeMap<NodeId, Bytes>,
    /// Records that were asked for, and when.
    wanted: BTreeMap<NodeId, Instant>,
    /// Times for that many members.
    computed: Computed,
}

#[derive(Clone, Copy, Debug)]
struct Computed {
    members: usize,
    suspicion_min: Duration,
    sends_max: u16,
}

impl View {
    pub(crate) fn new(
        config: Config,
        authority: Box<dyn Authority>,
        last_epoch: u64,
        saved: &[Update],
    ) -> Self {
        let mut rng = Rng::new(config.random_seed);
        let record = Arc::new(config.record.clone());
        let mut view = Self {
            node: record.node,
            phase: Phase::Silent,
            incarnation: Incarnation::first(last_epoch),
            renewing: None,
            table: Table::new(),
            updates: Updates::default(),
            health: Health::default(),
            refusals: Refusals::default(),
            budget: Budget::new(config.bytes_per_second),
            down: Vec::new(),
            joined: Vec::new(),
            unsaved: false,
            suspicions: BTreeMap::new(),
            next_end: Instant::NEVER,
            signatures: BTreeMap::new(),
            wanted: BTreeMap::new(),
            computed: Computed {
                members: 0,
                suspicion_min: Duration::ZERO,
                sends_max: 1,
            },
            rng: rng.fork(),
            record,
            authority,
            config,
        };
        view.load(saved);
        view
    }

    /// Takes a saved list in. It was this node's own, so nothing is passed on; what is wrong in it is left out.
    fn load(&mut self, saved: &[Update]) {
        self.table.reserve(saved.len() + 1);
        for update in saved {
            let (record, signature) = match &update.detail {
                Detail::Record(record) => (record, None),
                Detail::SignedRecord(record, signature) => (record, Some(signature)),
                _ => continue,
            };
            let state = update.standing.state();
            let is_good = record.node == update.node
                && record.is_valid()
                && state.is_final() == signature.is_some()
                && update.node != self.node
                && self.table.len() + 1 < self.config.members_max
                && self.table.get(update.node).is_none();
            if !is_good {
                continue;
            }
            // A suspicion of before is nobody's now.
            let standing = match state {
                State::Suspect => update.standing.with(State::Alive),
                _ => update.standing,
            };
            self.table.set(record.clone(), standing);
            if let Some(signature) = signature {
                self.signatures.insert(update.node, signature.clone());
            }
            if state == State::Dead {
                self.down.push(update.node);
            }
            if standing.state().is_present() {
                self.joined.push(update.node);
            }
        }
        self.down.sort_unstable();
    }

    /// The member list, to be saved or to be sent.
    pub(crate) fn list(&self) -> Vec<Update> {
        let others = self.table.entries().iter();
        let others = others.filter(|entry| entry.record.node != self.node);
        others.map(|entry| self.describe(entry)).collect()
    }

    /// All that is known of a member.
    pub(crate) fn describe(&self, entry: &Entry) -> Update {
        let node = entry.record.node;
        let detail = match self.signatures.get(&node) {
            Some(signature) if entry.standing.state().is_final() => {
                Detail::SignedRecord(entry.record.clone(), signature.clone())
            }
            _ => Detail::Record(entry.record.clone()),
        };
        Update {
            node,
            standing: entry.standing,
            detail,
        }
    }

    /// Begins a new epoch, above `above`: makes it durable first. An epoch grows by as much as one message may raise it at most.
    pub(crate) fn renew(&mut self, above: u64, effects: &mut Effects) {
        let reach = self.incarnation.epoch + u64::from(crate::standing::RAISE_MAX);
        let epoch = above.max(self.incarnation.epoch).min(reach) + 1;
        if epoch > EPOCH_MAX || self.renewing.is_some_and(|renewing| renewing >= epoch) {
            return;
        }
        self.renewing = Some(epoch);
        effects.persists.push(Persist::Epoch(epoch));
    }

    /// Begins again after an eviction.
    pub(crate) fn rejoin(&mut self, effects: &mut Effects) {
        if self.phase == Phase::Evicted {
            let fenced = self.table.standing(self.node);
            self.renew(fenced.map_or(0, |standing| standing.incarnation().epoch), effects);
        }
    }

    /// An epoch is durable: the node announces itself with it.
    pub(crate) fn on_epoch_persisted(&mut self, epoch: u64, effects: &mut Effects) {
        if self.renewing != Some(epoch) || self.phase == Phase::Leaving {
            return;
        }
        self.renewing = None;
        self.phase = Phase::Running;
        self.announce(Incarnation::first(epoch), effects);
    }

    /// Says that this node is alive in this incarnation.
    fn announce(&mut self, incarnation: Incarnation, effects: &mut Effects) {
        assert!(
            incarnation > self.incarnation,
            "{incarnation} after {}",
            self.incarnation
        );
        let is_restart = incarnation.epoch > self.incarnation.epoch && self.incarnation.epoch > 0;
        self.incarnation = incarnation;
        let standing = Standing::new(incarnation, State::Alive);
        self.table.set(self.record.clone(), standing);
        let detail = match (incarnation.counter, is_restart) {
            (0, true) => Detail::SameRecord(self.record.digest()),
            (0, false) => Detail::Record(self.record.clone()),
            _ => Detail::None,
        };
        let node = self.node;
        self.updates.push(
            Update {
                node,
                standing,
                detail,
            },
            0,
        );
        effects.events.push(Event::Announced(incarnation));
    }

    /// The statement that this node is alive, with its record.
    pub(crate) fn introduction(&self) -> Update {
        Update {
            node: self.node,
            standing: Standing::new(self.incarnation, State::Alive),
            detail: Detail::Record(self.record.clone()),
        }
    }

    /// Suspects a member that did not answer, with those who did not reach it either.
    pub(crate) fn accuse(
        &mut self,
        now: Instant,
        suspect: NodeId,
        witnesses: &[NodeId],
        effects: &mut Effects,
    ) {
        let Some(known) = self.table.standing(suspect) else {
            return;
        };
        if !known.state().is_present() {
            return;
        }
        let mut accusers = vec![self.node];
        accusers.extend(witnesses);
        self.suspect(
            now,
            suspect,
            known.with(State::Suspect),
            &accusers,
            How::Rumor,
            effects,
        );
    }

    /// Suspects a member, or counts further accusers of a suspect.
    fn suspect(
        &mut self,
        now: Instant,
        node: NodeId,
        standing: Standing,
        accusers: &[NodeId],
        how: How,
        effects: &mut Effects,
    ) {
        let is_known = self.table.standing(node) == Some(standing) && self.suspicions.contains_key(&node);
        if is_known {
            let suspicion = self.suspicions.get_mut(&node).into_iter();
            let news = suspicion
                .flat_map(|suspicion| accusers.iter().map(|accuser| suspicion.confirm(*accuser)))
                .fold(false, |any, news| any | news);
            if !news || self.config.danger_plain_swim {
                return;
            }
        } else {
            let least = self.suspicion_min();
            let suspicion = if self.config.danger_plain_swim {
                Suspicion::fixed(now, least, accusers)
            } else {
                Suspicion::new(now, self.health.scale(least), accusers)
            };
            self.set(node, standing, None, effects);
            self.suspicions.insert(node, suspicion);
        }
        let others = self.table.present().saturating_sub(2);
        if let Some(suspicion) = self.suspicions.get(&node) {
            self.next_end = self.next_end.min(suspicion.ends(others));
            if how == How::Rumor {
                let detail = Detail::Accusers(suspicion.accusers().to_vec());
                self.updates.push(
                    Update {
                        node,
                        standing,
                        detail,
                    },
                    0,
                );
            }
        }
    }

    /// When the first suspicion may end.
    pub(crate) fn next_end(&self) -> Instant {
        self.next_end
    }

    /// Declares suspects dead whose time is over.
    pub(crate) fn end_suspicions(&mut self, now: Instant, effects: &mut Effects) {
        if now < self.next_end {
            return;
        }
        let others = self.table.present().saturating_sub(2);
        let over =
            |(node, suspicion): (&NodeId, &Suspicion)| (suspicion.ends(others) <= now).then_some(*node);
        let over: Vec<NodeId> = self.suspicions.iter().filter_map(over).collect();
        for node in over {
            if let Some(suspect) = self.table.standing(node) {
                let standing = suspect.with(State::Dead);
                self.set(node, standing, None, effects);
                let detail = Detail::None;
                self.updates.push(
                    Update {
                        node,
                        standing,
                        detail,
                    },
                    0,
                );
            }
        }
        let others = self.table.present().saturating_sub(2);
        let ends = self.suspicions.values().map(|suspicion| suspicion.ends(others));
        self.next_end = ends.min().unwrap_or(Instant::NEVER);
    }

    /// This node was not running for so long: suspicions wait for what it could not receive.
    pub(crate) fn pause(&mut self, paused: Duration) {
        self.suspicions
            .values_mut()
            .for_each(|suspicion| suspicion.pause(paused));
        if self.next_end != Instant::NEVER {
            self.next_end = self.next_end + paused;
        }
        self.health.worse();
    }

    /// Changes what is believed of another member.
    fn set(&mut self, node: NodeId, standing: Standing, record: Option<Arc<Record>>, effects: &mut Effects) {
        let known = self.table.get(node);
        let former = known.map(|entry| entry.standing.state());
        let Some(record) = record.or_else(|| known.map(|entry| entry.record.clone())) else {
            return;
        };
        debug_assert!(node != self.node, "this node's own entry is announced");
        self.table.set(record, standing);
        let state = standing.state();
        if state != State::Suspect {
            self.suspicions.remove(&node);
        }
        match (self.down.binary_search(&node), state == State::Dead) {
            (Err(at), true) => self.down.insert(at, node),
            (Ok(at), false) => drop(self.down.remove(at)),
            _ => {}
        }
        let was_present = former.is_some_and(State::is_present);
        if state.is_present() && !was_present {
            self.joined.push(node);
        }
        if !state.is_final() {
            self.signatures.remove(&node);
        }
        self.wanted.remove(&node);
        self.unsaved = true;
        effects.events.push(Event::Changed {
            node,
            former,
            standing,
        });
    }

    /// The shortest suspicion among the present members.
    fn suspicion_min(&mut self) -> Duration {
        self.compute();
        self.computed.suspicion_min
    }

    /// How often a statement is passed on.
    pub(crate) fn sends_max(&mut self) -> u16 {
        self.compute();
        self.computed.sends_max
    }

    fn compute(&mut self) {
        let members = self.table.present();
        if self.computed.members != members {
            self.computed = Computed {
                members,
                suspicion_min: self.config.suspicion_min(members),
                sends_max: sends_for(members as u32, self.config.loss, UPDATE_MISS),
            };
        }
    }

    /// Random present members other than this one and `except`, each once.
    pub(crate) fn sample(&mut self, count: usize, except: Option<NodeId>) -> Vec<NodeId> {
        /// Draws for each wanted member before the rest is searched in order: dead ones are drawn in vain.
        const DRAWS: usize = 8;
        let mut picked: Vec<NodeId> = Vec::with_capacity(count);
        let entries = self.table.entries();
        let node = self.node;
        let fits = |entry: &Entry, picked: &[NodeId]| {
            let candidate = entry.record.node;
            entry.standing.state().is_present()
                && candidate != node
                && Some(candidate) != except
                && !picked.contains(&candidate)
        };
        for _ in 0..count * DRAWS {
            if picked.len() == count {
                return picked;
            }
            let at = self.rng.below(entries.len() as u64) as usize;
            if entries.get(at).is_some_and(|entry| fits(entry, &picked)) {
                picked.push(entries[at].record.node);
            }
        }
        let from = self.rng.below(entries.len() as u64) as usize;
        let (before, after) = entries.split_at(from);
        for entry in after.iter().chain(before) {
            if picked.len() == count {
                break;
            }
            if fits(entry, &picked) {
                picked.push(entry.record.node);
            }
        }
        picked
    }

    /// What must hold after every step.
    pub(crate) fn check(&self) {
        assert!(
            self.suspicions.len() == self.table.count(State::Suspect),
            "{} suspicions of {} suspects",
            self.suspicions.len(),
            self.table.count(State::Suspect)
        );
        assert!(
            self.down.len() == self.table.count(State::Dead),
            "{} of {} dead members listed",
            self.down.len(),
            self.table.count(State::Dead)
        );
        assert!(self.table.len() <= self.config.members_max, "too many members");
        assert!(
            self.phase != Phase::Running
                || self.table.standing(self.node) == Some(Standing::new(self.incarnation, State::Alive)),
            "a running node is alive in its own table"
        );
        self.updates.check();
    }

    /// What takes time in proportion to the table.
    pub(crate) fn check_all(&self) {
        self.check();
        self.table.check();
        for entry in self.table.entries() {
            let node = entry.record.node;
            let is_signed = self.signatures.contains_key(&node);
            assert!(
                node == self.node || entry.standing.state().is_final() == is_signed,
                "member {node} is {} and its signature is kept: {is_signed}",
                entry.standing
            );
        }
    }
}
