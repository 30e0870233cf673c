//! Taking statements in.
//!
//! Nothing here trusts a message: incarnations have a reach, final states a signature, tables a greatest size. What is
//! refused is counted, with who said it and about whom.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use trilemma_core::{Instant, NodeId};

use crate::authority::Statement;
use crate::effects::{Effects, Event};
use crate::message::{Detail, Listed, News, Update};
use crate::record::Record;
use crate::refusal::Refusal;
use crate::standing::{COUNTER_MAX, Incarnation, RAISE_MAX, Standing, State};
use crate::suspicion::CONFIRMATIONS;
use crate::view::{Phase, View};

/// How long a record that was asked for is not asked for again.
const WANT_AGAIN: Duration = Duration::from_secs(1);
/// Most records that are asked for at a time.
const WANTED_MAX: usize = 256;
/// Most members that are notified, for one listing, that others take them for dead.
const NOTICES_MAX: usize = 4;

/// How a statement came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// As an update: it is passed on if it is news.
    Rumor,
    /// From a comparison or a list: it is old news to most, so at most one round passes it on, and accusations stay here.
    Listed,
}

/// What a message leaves to do.
#[derive(Debug, Default)]
pub(crate) struct Merged {
    /// Members whose record is missing.
    pub(crate) wants: Vec<NodeId>,
    /// Members that some take for dead and this node does not.
    pub(crate) accused: Vec<NodeId>,
}

/// What a statement says of a record.
enum Described {
    As(Arc<Record>),
    Missing,
    Wrong,
}

impl View {
    /// Takes in what rode on a message.
    pub(crate) fn on_news(
        &mut self,
        now: Instant,
        from: NodeId,
        news: &News,
        effects: &mut Effects,
    ) -> Merged {
        let mut merged = Merged::default();
        // Introductions and records come among the updates: the sender may be new.
        for update in &news.updates {
            self.merge(now, from, update, How::Rumor, &mut merged, effects);
        }
        self.on_sender(now, from, news, &mut merged, effects);
        for listed in &news.listing {
            self.on_listed(now, from, *listed, &mut merged, effects);
        }
        self.notices(&mut merged);
        merged
    }

    /// Chooses whom to tell that others take it for dead: a few, because each of many members gets such listings.
    fn notices(&mut self, merged: &mut Merged) {
        let accused = &mut merged.accused;
        while accused.len() > NOTICES_MAX {
            let at = self.rng.below(accused.len() as u64) as usize;
            accused.swap_remove(at);
        }
    }

    /// The sender itself is alive in this incarnation.
    fn on_sender(
        &mut self,
        now: Instant,
        from: NodeId,
        news: &News,
        merged: &mut Merged,
        effects: &mut Effects,
    ) {
        let incarnation = news.sender.0;
        let standing = Standing::new(incarnation, State::Alive);
        let is_news = self.table.standing(from).is_none_or(|known| known < standing);
        if incarnation.epoch > 0 && is_news {
            let update = Update {
                node: from,
                standing,
                detail: Detail::SameRecord(news.record),
            };
            self.merge(now, from, &update, How::Rumor, merged, effects);
        }
    }

    /// An entry of a listing: without record, signature or accusers.
    fn on_listed(
        &mut self,
        now: Instant,
        from: NodeId,
        listed: Listed,
        merged: &mut Merged,
        effects: &mut Effects,
    ) {
        let state = listed.standing.state();
        let update = Update {
            node: listed.node,
            standing: listed.standing,
            detail: listed.record.map_or(Detail::None, Detail::SameRecord),
        };
        if listed.node == self.node {
            self.merge(now, from, &update, How::Listed, merged, effects);
            return;
        }
        let known = self.table.standing(listed.node);
        let is_news = known.is_none_or(|known| known < listed.standing);
        if is_news && state.is_final() {
            self.want(now, listed.node, merged);
        } else if is_news {
            self.merge(now, from, &update, How::Listed, merged, effects);
        }
    }

    /// Asks for a record, but not again and again.
    fn want(&mut self, now: Instant, node: NodeId, merged: &mut Merged) {
        if let Some(asked) = self.wanted.get(&node)
            && now.since(*asked) < WANT_AGAIN
        {
            return;
        }
        if self.wanted.len() >= WANTED_MAX {
            self.wanted.retain(|_, asked| now.since(*asked) < WANT_AGAIN);
        }
        if self.wanted.len() < WANTED_MAX && merged.wants.len() < crate::message::WANTS_MAX {
            self.wanted.insert(node, now);
            merged.wants.push(node);
        }
    }

    /// Takes one statement in.
    pub(crate) fn merge(
        &mut self,
        now: Instant,
        from: NodeId,
        update: &Update,
        how: How,
        merged: &mut Merged,
        effects: &mut Effects,
    ) {
        let node = update.node;
        if node == self.node {
            self.on_self(from, update, effects);
            return;
        }
        let known = self.table.standing(node);
        if let Some(known) = known
            && update.standing <= known
        {
            self.on_old(now, from, update, known, effects);
            return;
        }
        if update.standing.state().is_final() {
            self.on_final(now, from, update, how, merged, effects);
            return;
        }
        if known.is_none() && self.table.len() >= self.config.members_max {
            self.refusals.count(Refusal::TooManyMembers, from, node);
            return;
        }
        // A member says of itself what it likes: the host knows that it was it.
        let base = known.map_or(Incarnation::default(), Standing::incarnation);
        if from != node && !update.standing.incarnation().is_within_reach_of(base) {
            self.refusals.count(Refusal::OutOfReach, from, node);
            return;
        }
        match self.described(update) {
            Described::Missing => self.want(now, node, merged),
            Described::Wrong => self.refusals.count(Refusal::BadRecord, from, node),
            Described::As(record) => self.take_in(now, from, update, record, how, merged, effects),
        }
    }

    /// A statement that is no news. It may name further accusers of a suspect.
    fn on_old(
        &mut self,
        now: Instant,
        from: NodeId,
        update: &Update,
        known: Standing,
        effects: &mut Effects,
    ) {
        if update.standing < known {
            // What was suspected or dead and is called alive: the interesting one of the outdated statements.
            if update.standing.state() == State::Alive && !known.state().is_present() {
                self.refusals.count(Refusal::Outdated, from, update.node);
            }
            return;
        }
        if let Detail::Accusers(accusers) = &update.detail
            && known.state() == State::Suspect
        {
            self.suspect(now, update.node, known, accusers, How::Rumor, effects);
        }
    }

    /// News about a member in a state that is not final.
    #[expect(
        clippy::too_many_arguments,
        reason = "what a statement is, where it came from, and what it leads to"
    )]
    fn take_in(
        &mut self,
        now: Instant,
        from: NodeId,
        update: &Update,
        record: Arc<Record>,
        how: How,
        merged: &mut Merged,
        effects: &mut Effects,
    ) {
        let (node, standing) = (update.node, update.standing);
        let known = self.table.standing(node);
        let was_alive = known.is_some_and(|known| known.state() == State::Alive);
        let is_accused = how == How::Listed && standing.state() != State::Alive;
        if is_accused && was_alive {
            // Others may speak from behind a network partition that has healed. Who is accused should refute; until
            // then this is a suspicion without a rumor.
            merged.accused.push(node);
            let suspect = standing.with(State::Suspect);
            self.suspect(now, node, suspect, &[from], How::Listed, effects);
            return;
        }
        if is_accused && known.is_some_and(|known| known.state() == State::Suspect) {
            let suspect = standing.with(State::Suspect);
            if self.table.standing(node) != Some(suspect) {
                self.suspect(now, node, suspect, &[from], How::Listed, effects);
            }
            return;
        }
        if standing.state() == State::Suspect && known.is_some() {
            let named = match &update.detail {
                Detail::Accusers(accusers) if !accusers.is_empty() => accusers.as_slice(),
                _ => std::slice::from_ref(&from),
            };
            let count = named.len().min(CONFIRMATIONS + 1);
            self.suspect(now, node, standing, &named[..count], how, effects);
            return;
        }
        // A suspect that nobody here knew begins as one that works: its suspicion is of others.
        let standing = match standing.state() {
            State::Suspect => standing.with(State::Alive),
            _ => standing,
        };
        let epoch = standing.incarnation().epoch;
        let detail = match update.detail {
            Detail::Record(_) if known.is_some() && standing.state() == State::Alive => {
                self.detail_for(node, &record)
            }
            Detail::Record(_) => Detail::Record(record.clone()),
            Detail::SameRecord(digest) if known.is_none_or(|known| known.incarnation().epoch < epoch) => {
                Detail::SameRecord(digest)
            }
            _ => Detail::None,
        };
        self.set(node, standing, Some(record), effects);
        self.pass_on(node, standing, detail, how);
    }

    /// How to describe a member that has changed to those who knew it before.
    fn detail_for(&self, node: NodeId, record: &Arc<Record>) -> Detail {
        match self.table.get(node) {
            Some(entry) if entry.record == *record => Detail::SameRecord(record.digest()),
            _ => Detail::Record(record.clone()),
        }
    }

    fn pass_on(&mut self, node: NodeId, standing: Standing, detail: Detail, how: How) {
        let sent = match how {
            How::Rumor => 0,
            How::Listed => self.sends_max().saturating_sub(self.config.fanout as u16),
        };
        self.updates.push(
            Update {
                node,
                standing,
                detail,
            },
            sent,
        );
    }

    /// The record that a statement speaks of.
    fn described(&self, update: &Update) -> Described {
        let known = self.table.get(update.node);
        match &update.detail {
            Detail::Record(record) | Detail::SignedRecord(record, _) => {
                if record.node != update.node || !record.is_valid() {
                    return Described::Wrong;
                }
                // One copy is enough.
                match known {
                    Some(entry) if entry.record == *record => Described::As(entry.record.clone()),
                    // A record does not change within an epoch: the first one stands.
                    Some(entry)
                        if entry.standing.incarnation().epoch == update.standing.incarnation().epoch =>
                    {
                        Described::As(entry.record.clone())
                    }
                    _ => Described::As(record.clone()),
                }
            }
            Detail::SameRecord(digest) => match known {
                Some(entry) if entry.standing.incarnation().epoch == update.standing.incarnation().epoch => {
                    Described::As(entry.record.clone())
                }
                Some(entry) if entry.record.digest() == *digest => Described::As(entry.record.clone()),
                _ => Described::Missing,
            },
            Detail::None | Detail::Accusers(_) => match known {
                Some(entry) if entry.standing.incarnation().epoch == update.standing.incarnation().epoch => {
                    Described::As(entry.record.clone())
                }
                _ => Described::Missing,
            },
            // The record of a member that is gone for good does not matter.
            Detail::Signature(_) => match known {
                Some(entry) => Described::As(entry.record.clone()),
                None => Described::As(Arc::new(Record::new(update.node, ""))),
            },
        }
    }

    /// A member has left or was excluded: if it is signed.
    fn on_final(
        &mut self,
        now: Instant,
        from: NodeId,
        update: &Update,
        how: How,
        merged: &mut Merged,
        effects: &mut Effects,
    ) {
        let node = update.node;
        let Some(signature) = self.verified(from, update) else {
            return;
        };
        if self.table.get(node).is_none() && self.table.len() >= self.config.members_max {
            self.refusals.count(Refusal::TooManyMembers, from, node);
            return;
        }
        match self.described(update) {
            Described::Missing => self.want(now, node, merged),
            Described::Wrong => self.refusals.count(Refusal::BadRecord, from, node),
            Described::As(record) => {
                self.set(node, update.standing, Some(record), effects);
                self.signatures.insert(node, signature.clone());
                self.pass_on(node, update.standing, Detail::Signature(signature), how);
            }
        }
    }

    /// The signature of a final state, if it is right; counts if not.
    fn verified(&mut self, from: NodeId, update: &Update) -> Option<Bytes> {
        let (Detail::Signature(signature) | Detail::SignedRecord(_, signature)) = &update.detail else {
            self.refusals.count(Refusal::Unsigned, from, update.node);
            return None;
        };
        let (node, epoch) = (update.node, update.standing.incarnation().epoch);
        let statement = match update.standing.state() {
            State::Left => Statement::Leave { node, epoch },
            _ => Statement::Evict { node, epoch },
        };
        if !self.authority.verify(&statement, signature) {
            self.refusals.count(Refusal::BadSignature, from, node);
            return None;
        }
        Some(signature.clone())
    }

    /// A statement about this node: refuted if it outranks what the node says.
    fn on_self(&mut self, from: NodeId, update: &Update, effects: &mut Effects) {
        if self.phase != Phase::Running {
            return;
        }
        let said = update.standing;
        if said <= Standing::new(self.incarnation, State::Alive) {
            return;
        }
        let Incarnation { epoch, counter } = said.incarnation();
        if said.state().is_final() {
            if self.verified(from, update).is_none() {
                return;
            }
            if said.state() == State::Evicted {
                let signature = update.clone();
                self.on_evicted(signature, effects);
            } else {
                self.renew(epoch, effects);
            }
            return;
        }
        if epoch > self.incarnation.epoch {
            self.renew(epoch, effects);
            return;
        }
        // Accused above its reach, a node does not count up: others refuse such numbers, too.
        if counter > COUNTER_MAX - 1 || counter > self.incarnation.counter + RAISE_MAX {
            self.refusals.count(Refusal::OutOfReach, from, self.node);
            self.renew(epoch, effects);
            return;
        }
        if said.state() != State::Alive && !self.config.danger_plain_swim {
            self.health.worse();
        }
        self.announce(
            Incarnation {
                epoch,
                counter: counter + 1,
            },
            effects,
        );
    }

    /// This node was excluded: it is silent, so that nobody takes it for a member.
    fn on_evicted(&mut self, update: Update, effects: &mut Effects) {
        self.phase = Phase::Evicted;
        self.table.set(self.record.clone(), update.standing);
        self.updates = Default::default();
        effects
            .events
            .push(Event::Evicted(update.standing.incarnation().epoch));
    }

    /// Excludes an epoch of a member, on this host's word.
    pub(crate) fn evict(
        &mut self,
        now: Instant,
        node: NodeId,
        epoch: u64,
        signature: Bytes,
        effects: &mut Effects,
    ) {
        let update = Update {
            node,
            standing: Standing::new(Incarnation::first(epoch), State::Evicted),
            detail: Detail::Signature(signature),
        };
        let own = self.node;
        self.merge(now, own, &update, How::Rumor, &mut Merged::default(), effects);
    }

    /// Says that this node leaves; whether it could.
    pub(crate) fn leave(&mut self) -> bool {
        let (node, epoch) = (self.node, self.incarnation.epoch);
        let Some(signature) = self.authority.sign(&Statement::Leave { node, epoch }) else {
            return false;
        };
        self.phase = Phase::Leaving;
        let standing = Standing::new(self.incarnation, State::Left);
        self.table.set(self.record.clone(), standing);
        let detail = Detail::Signature(signature);
        self.updates.push(
            Update {
                node,
                standing,
                detail,
            },
            0,
        );
        true
    }
}
