//! The state machine of one gossip keyspace on one node: which part takes which input.

mod inspect;

use std::time::Duration;

use tracing::{debug, error, warn};
use trilemma_core::pending::PendingKind;
use trilemma_core::read::page;
use trilemma_core::{
    AppendSeq, Checkpoint, Corrupt, DataType, Effects, Entry, Incarnation, Input, Instant, KeyRange,
    LiveStatus, NodeId, Now, PeerView, Proposal, Protocol, Query, ReadLevel, ReadRequest, Reason, Request,
    Ticket, View,
};

use crate::acknowledgements::Acknowledgements;
use crate::admission::Admission;
use crate::arrivals::Arrivals;
use crate::config::GossipConfig;
use crate::context::WireContext;
use crate::exchange::{self, Exchange, Finished, Goal, Page};
use crate::fetches::Fetches;
use crate::message::{Compare, Message, PageEnd};
use crate::predictor::{Method, ParamsError, Prediction, predict_with};
use crate::reads::{self, Reads};
use crate::record::Record;
use crate::rejoin::{Meeting, Rejoin};
use crate::replica::Item;
use crate::rumors::{PAGE_RUMORS_MAX, Rumors};
use crate::shared::Shared;
use crate::store::{Source, Store};
use crate::targets::Targets;
use crate::typed::check_key;
use crate::vouching::{Command, Heard, Vouching};
use crate::writes::{Write, Writes};

pub(crate) type Out = Effects<Message, Record>;

/// A gossip keyspace on one node. See the crate.
#[derive(Debug)]
pub struct Gossip {
    pub(crate) shared: Shared,
    pub(crate) store: Store,
    pub(crate) writes: Writes,
    pub(crate) reads: Reads,
    pub(crate) targets: Targets,
    pub(crate) admission: Admission,
    pub(crate) vouching: Vouching,
    pub(crate) rumors: Rumors,
    pub(crate) fetches: Fetches,
    pub(crate) exchange: Exchange,
    pub(crate) acknowledgements: Acknowledgements,
    pub(crate) rejoin: Rejoin,
    pub(crate) prediction: Result<Prediction, ParamsError>,
    pub(crate) arrivals: Arrivals,
    next_tick: Instant,
}

impl Gossip {
    /// An instance with nothing in it. Values of the configuration outside of their range are brought into it.
    #[must_use]
    pub fn new(config: GossipConfig) -> Self {
        let config = config.clamp();
        let params = config.params();
        let report = predict_with(&params, Method::Formula);
        Self {
            arrivals: Arrivals::new(&params, report.as_ref().ok()),
            prediction: report.map(|report| report.prediction),
            writes: Writes::new(&config),
            store: Store::new(&config),
            shared: Shared::new(config),
            reads: Reads::default(),
            targets: Targets::default(),
            admission: Admission::default(),
            vouching: Vouching::default(),
            rumors: Rumors::default(),
            fetches: Fetches::default(),
            exchange: Exchange::default(),
            acknowledgements: Acknowledgements::default(),
            rejoin: Rejoin::default(),
            next_tick: Instant::NEVER,
        }
    }

    fn start(&mut self, now: Now, effects: &mut Out) {
        self.shared.start(now, effects);
        self.writes.start(&self.shared);
        self.rejoin.start(&mut self.shared, effects);
        // Jittered phase: nodes that start together do not tick together.
        let tick = self.shared.config.tick;
        let first = if self.shared.config.members.len() > 1 {
            self.shared.rng.between(Duration::ZERO, tick)
        } else {
            tick
        };
        self.next_tick = now.instant + first;
    }

    /// Answers a read of one key, and begins one of a range.
    fn on_read(&mut self, ticket: Ticket, deadline: Instant, request: &ReadRequest, effects: &mut Out) {
        if let Some(level) = request.level
            && level != ReadLevel::Local
        {
            let reason = Reason::Unsupported {
                asked: format!("a read at level {level}"),
                strongest: ReadLevel::Local.to_string(),
            };
            return effects.reply(ticket, PendingKind::Read.refused(reason));
        }
        let view: Box<dyn View> = match &request.query {
            Query::Get(_) | Query::Siblings(_) => {
                let reply = match self.look_up(&request.query) {
                    Ok((entries, more)) => reads::answer(&self.shared, entries, more),
                    Err(reason) => PendingKind::Read.refused(reason),
                };
                return effects.reply(ticket, reply);
            }
            Query::Range { range, .. } => Box::new(self.store.view(range)),
            Query::Typed { key, of, range, .. } => {
                let is_collection = matches!(of, DataType::Set | DataType::Map);
                let checked = check_key(key).and_then(|()| self.store.check_typed(key, *of));
                let reading = checked.and_then(|()| match is_collection {
                    true => Ok(Vec::new()),
                    false => self.store.reading(key, *of),
                });
                match reading {
                    Ok(_) if is_collection => Box::new(self.store.elements(key, *of, range)),
                    Ok(entries) => {
                        let (entries, more) = page(&request.query, entries);
                        return effects.reply(ticket, reads::answer(&self.shared, entries, more));
                    }
                    Err(reason) => return effects.reply(ticket, PendingKind::Read.refused(reason)),
                }
            }
        };
        let asked = (ticket, deadline);
        self.reads.begin(asked, view, &request.query, effects);
    }

    /// What one key holds, and whether there is more of it than an answer takes.
    fn look_up(&self, query: &Query) -> Result<(Vec<Entry>, bool), Reason> {
        let (Query::Get(key) | Query::Siblings(key)) = query else {
            unreachable!("a range takes several turns");
        };
        check_key(key)?;
        self.store.check_plain(key)?;
        if matches!(query, Query::Siblings(_)) {
            return Ok(page(query, self.store.values(key)));
        }
        let key = key.clone();
        let entry = self.store.get(&key).map(|state| Entry { key, state });
        Ok((entry.into_iter().collect(), false))
    }

    fn on_proposal(&mut self, now: Now, proposal: Proposal, effects: &mut Out) {
        let Proposal {
            ticket,
            deadline,
            request,
        } = proposal;
        let write = |op, attempt| Write {
            ticket,
            deadline,
            op,
            attempt,
        };
        let (shared, store) = (&mut self.shared, &mut self.store);
        match request {
            Request::Read(request) => self.on_read(ticket, deadline, &request, effects),
            Request::Write { op, attempt, command } => {
                let write = write(op, attempt);
                let made = self.writes.on_write(shared, store, now, write, &command, effects);
                self.rumors.add_new(made);
            }
            Request::Outcome { op, .. } => {
                let asked = write(op, trilemma_core::Attempt::Retry);
                self.writes.on_outcome(shared, now, asked, effects);
            }
        }
    }

    fn on_message(&mut self, now: Now, from: NodeId, message: Message, effects: &mut Out) {
        if from == self.shared.config.node || !self.shared.config.members.contains(&from) {
            warn!(%from, "ignored a message of a node that is not a member");
            return;
        }
        let known = self.shared.view.peers.get(&from).map(|peer| peer.incarnation);
        if message.incarnation().is_some_and(|of| Some(of) < known) {
            debug!(%from, "ignored a late message of an incarnation that has ended");
            return;
        }
        match message {
            Message::Rumors { context, items } => self.on_rumors(now, from, context, items, effects),
            Message::Compare(compare) => self.on_compare(now, from, compare, effects),
            Message::Pull {
                session,
                incarnation,
                context,
                deferred,
                mutual,
                whole,
                outline,
            } => {
                let Some(context) = self.shared.check_context(from, &context) else {
                    return;
                };
                let own = self.store.replica.context();
                self.acknowledgements
                    .on_acknowledged(now, from, incarnation, context.clone(), deferred, own);
                let has_more = !own.includes(&context);
                let request = exchange::Request {
                    session,
                    context,
                    whole,
                    outline,
                };
                let (shared, store) = (&mut self.shared, &self.store);
                self.exchange.on_pull(shared, store, now, from, request, effects);
                if mutual && has_more {
                    self.pull(now, from, incarnation, false, effects);
                }
            }
            Message::Page {
                session,
                incarnation,
                snapshot,
                after,
                items,
                end,
            } => {
                let page = Page {
                    session,
                    incarnation,
                    snapshot,
                    after,
                };
                self.on_page(now, from, page, items, end, effects);
            }
            Message::More {
                session,
                snapshot,
                after,
            } => {
                let more = (session, snapshot, after);
                self.exchange.on_more(&self.shared, now, from, more, effects);
            }
            Message::Symbols { .. } | Message::MoreSymbols { .. } | Message::Want { .. } => {
                let (shared, store) = (&mut self.shared, &self.store);
                self.exchange
                    .on_search(shared, store, now, from, message, effects);
            }
            Message::Busy {
                session,
                retry_after_ms,
            } => {
                let retry_after = Duration::from_millis(retry_after_ms.into());
                self.exchange
                    .on_busy(&mut self.shared, now, from, (session, retry_after));
            }
            Message::Advertise { commands } => {
                let known = self.store.replica.context();
                self.fetches
                    .on_advertised(&mut self.shared, known, from, commands, effects);
            }
            Message::Fetch { commands } => {
                let (shared, store) = (&mut self.shared, &self.store);
                self.fetches
                    .on_fetch(shared, store, &self.vouching, from, &commands, effects);
            }
        }
    }

    fn on_rumors(
        &mut self,
        now: Now,
        from: NodeId,
        context: Option<WireContext>,
        mut items: Vec<Item>,
        effects: &mut Out,
    ) {
        if let Some(wire) = context {
            let Some(context) = self.shared.check_context(from, &wire) else {
                return;
            };
            self.rumors.on_context(from, context);
        }
        self.admit((from, Source::Rumors), &mut items);
        if !self.shared.check_items(from, &items) {
            return;
        }
        let mut commands: Vec<Command> = items.iter().map(|item| (item.command(), item.part.of)).collect();
        commands.dedup();
        let heard = self.hear(from, items);
        self.targets.on_news(from, heard.news);
        self.rumors.relay(&self.shared, &heard.commands);
        let known = self.store.replica.context();
        let new = heard.trusted.iter().filter(|item| !known.contains(item.dot));
        self.arrivals.note(now.wall, new);
        self.take(now, heard.trusted, Source::Rumors, effects);
        let known = self.store.replica.context();
        self.fetches.on_heard(known, commands.into_iter());
    }

    /// Drops changes that are not looked at. `false` if the sender cannot be correct.
    fn admit(&mut self, from: (NodeId, Source), items: &mut Vec<Item>) -> bool {
        let (config, store) = (&self.shared.config, &self.store);
        self.admission
            .admit(config, store, from, items, self.rejoin.is_blank)
    }

    /// Finds out which changes of a peer may be taken in. While too much waits for the disk that is none, and none is noted.
    fn hear(&mut self, from: NodeId, items: Vec<Item>) -> Heard {
        let replica = &self.store.replica;
        if self.shared.is_backlogged() {
            return Heard {
                is_incomplete: items.iter().any(|item| !replica.context().contains(item.dot)),
                ..Heard::default()
            };
        }
        let is_rejoining = self.rejoin.is_blank;
        self.vouching
            .hear(&self.shared.config, replica, from, items, is_rejoining)
    }

    /// Takes in changes that may be. Returns whether none was left out.
    fn take(&mut self, now: Now, items: Vec<Item>, source: Source, effects: &mut Out) -> bool {
        self.vouching.on_taken(&items);
        self.store.receive(&mut self.shared, now, items, source, effects)
    }

    /// Asks a peer for what it has and we have not; for everything, if what our disk has lost may make a difference.
    fn pull(&mut self, now: Now, from: NodeId, incarnation: Incarnation, mutual: bool, effects: &mut Out) {
        if self.rejoin.is_meeting_with(from) {
            return;
        }
        let needs = self.rejoin.needs(from, incarnation);
        let goal = if needs { Goal::Rejoin } else { Goal::Missing };
        let (shared, store) = (&mut self.shared, &self.store);
        self.exchange
            .pull(shared, store, now, from, goal, mutual, effects);
    }

    /// Finds out whether this node and a peer hold the same. A node that may have lost what it had promised asks for
    /// everything instead: if it held something dead, its state would differ where its context does not.
    fn greet(&mut self, now: Now, peer: NodeId, effects: &mut Out) {
        let (shared, store) = (&mut self.shared, &self.store);
        if self.rejoin.is_meeting_with(peer) {
            return;
        }
        if self.rejoin.is_unmet(peer) {
            self.exchange
                .pull(shared, store, now, peer, Goal::Rejoin, true, effects);
        } else if !self.rejoin.is_meeting() {
            self.exchange.compare(shared, store, now, peer, effects);
        }
    }

    fn on_compare(&mut self, now: Now, from: NodeId, compare: Compare, effects: &mut Out) {
        let replica = &self.store.replica;
        let needs = self.rejoin.needs(from, compare.incarnation);
        if needs || replica.context().hash() != compare.context {
            return self.pull(now, from, compare.incarnation, true, effects);
        }
        if replica.digest() != compare.digest {
            if self.rejoin.is_meeting() {
                return;
            }
            error!(
                %from,
                "a peer that reflects the same changes has another state: an error in this program, or damage that no \
                 checksum saw; what either shows is kept"
            );
            self.exchange.note_divergence(from);
            if !self.shared.config.may_repair(from) {
                return;
            }
            let (shared, store) = (&mut self.shared, &self.store);
            return self
                .exchange
                .pull(shared, store, now, from, Goal::Repair, true, effects);
        }
        let own = self.store.replica.context();
        self.acknowledgements.on_acknowledged(
            now,
            from,
            compare.incarnation,
            own.clone(),
            compare.deferred,
            own,
        );
    }

    fn on_page(
        &mut self,
        now: Now,
        from: NodeId,
        page: Page,
        mut items: Vec<Item>,
        end: PageEnd,
        effects: &mut Out,
    ) {
        if !self.exchange.is_expected(from, page, &end) {
            return;
        }
        // The page's context would claim what was refused here.
        if !self.admit((from, Source::Exchange), &mut items) || !self.shared.check_items(from, &items) {
            return self.exchange.give_up(from);
        }
        let (shared, store) = (&mut self.shared, &mut self.store);
        self.exchange.on_items(shared, store, now, from, &items, effects);
        let is_short = items.len() <= PAGE_RUMORS_MAX;
        let heard = self.hear(from, items);
        if is_short {
            self.rumors.relay(&self.shared, &heard.commands);
        }
        let is_complete = self.take(now, heard.trusted, Source::Exchange, effects) && !heard.is_incomplete;
        if heard.is_incomplete && !self.shared.config.is_trusted(from) {
            // The rest would not be kept either, and comes again after others have vouched for what is held.
            return self.exchange.give_up(from);
        }
        let (shared, store) = (&self.shared, &self.store);
        let finished = self
            .exchange
            .on_page(shared, store, now, from, page, is_complete, end, effects);
        if let Some(finished) = finished {
            self.conclude(from, page, finished, effects);
        }
    }

    /// The last page of an exchange has come: takes in what the peer reflects.
    /// It is no acknowledgement: the page does not say what its sender defers.
    fn conclude(&mut self, from: NodeId, page: Page, finished: Finished, effects: &mut Out) {
        let Some(context) = self.shared.check_context(from, &finished.context) else {
            return;
        };
        let is_whole = finished.goal == Goal::Rejoin;
        if finished.is_complete && (is_whole || !self.rejoin.needs(from, page.incarnation)) {
            let (shared, store) = (&mut self.shared, &mut self.store);
            // Who has lost its disk believes each member: who has met all of them is as good as before.
            let reflected = self.vouching.on_claimed(&shared.config, from, &context, is_whole);
            store.join_context(shared, &reflected, effects);
            self.vouching.on_context(store.replica.context());
            if is_whole && self.rejoin.is_blank {
                let meeting = Meeting {
                    incarnation: page.incarnation,
                    context,
                    listed: finished.listed,
                    after: None,
                };
                self.rejoin.meet(from, meeting);
            }
        }
    }

    /// The end of a turn: a slice of what may take long, and the turn's own writes leave.
    fn end_turn(&mut self, now: Now, effects: &mut Out) {
        let (shared, store) = (&mut self.shared, &mut self.store);
        let has_due = store.release(shared, now, effects);
        let is_meeting = self.rejoin.go_on(shared, store, now, effects);
        let is_collecting = self.acknowledgements.collect(shared, store);
        self.rumors.end_turn(shared, &self.targets, effects);
        let is_reading = self.reads.go_on(shared, now, effects);
        if has_due || is_meeting || is_collecting || is_reading {
            effects.go_on();
        }
    }

    fn on_persisted(&mut self, up_to: AppendSeq, effects: &mut Out) {
        self.shared.on_persisted(up_to);
        self.writes.on_persisted(&self.shared, effects);
    }

    /// Forgets hints about peers that have begun another incarnation, and opens a comparison with all that have come
    /// back.
    fn on_peers(&mut self, now: Now, view: PeerView, effects: &mut Out) {
        let before = std::mem::replace(&mut self.shared.view, view.clone());
        for (&node, peer) in &view.peers {
            if node == self.shared.config.node || !self.shared.config.members.contains(&node) {
                continue;
            }
            let before = before.peers.get(&node);
            let is_restarted = before.is_some_and(|before| before.incarnation != peer.incarnation);
            if is_restarted {
                self.rumors.forget(node);
                self.fetches.forget_peer(node);
                self.vouching.forget_peer(node);
                self.exchange.forget(node, effects);
                self.rejoin.on_incarnation(node);
                self.acknowledgements.on_incarnation(node, peer.incarnation);
            }
            let is_back = is_restarted || before.is_none_or(|before| !before.connected);
            if peer.connected && is_back {
                self.greet(now, node, effects);
            }
        }
    }

    fn on_wake(&mut self, now: Now, effects: &mut Out) {
        self.writes.on_wake(now, effects);
        if now.instant < self.next_tick {
            return;
        }
        // After a pause the missed ticks are not made up for: under load a tick sheds, it never bursts.
        self.next_tick = self.next_tick + self.shared.config.tick;
        if self.next_tick <= now.instant {
            self.next_tick = now.instant + self.shared.config.tick;
        }
        debug_assert!(self.next_tick > now.instant, "ticks that are made up for");
        self.on_tick(now, effects);
    }

    fn on_tick(&mut self, now: Now, effects: &mut Out) {
        let (shared, store) = (&mut self.shared, &mut self.store);
        shared.ticks += 1;
        self.rumors.add_new(store.write_back(shared, effects));
        self.targets.on_tick();
        if shared.ticks.is_multiple_of(u64::from(shared.config.sync_ticks)) {
            let held = self.vouching.again(&shared.config, shared.config.turn_items);
            self.rumors.tell_again(shared, held);
        }
        let targets = self.targets.pick(shared);
        self.rumors
            .on_tick(shared, targets, store, &self.vouching, effects);
        self.fetches.on_tick(shared, store.replica.context(), effects);
        self.exchange.on_tick(shared, store, now, effects);
        if shared.ticks.is_multiple_of(u64::from(shared.config.sync_ticks)) {
            let peers = shared.reachable();
            if let Some(peer) = shared.rng.pick(&peers).copied() {
                self.greet(now, peer, effects);
            }
            self.store.close_former(&mut self.shared, effects);
        }
        self.acknowledgements.on_tick(&self.shared, &self.store, now);
    }

    fn schedule(&self, effects: &mut Out) {
        effects.wake_at(self.next_tick.min(self.writes.first_deadline()));
    }

    /// The invariants of all parts, at the end of every step.
    pub(crate) fn check(&self) {
        let own = self.store.replica.context();
        self.shared.check();
        self.store.check();
        self.arrivals.check();
        self.writes.check(&self.shared);
        self.reads.check();
        self.targets.check(&self.shared);
        self.vouching.check(&self.shared.config, own);
        self.rumors.check(&self.shared);
        self.fetches.check(&self.shared);
        self.exchange.check(&self.shared);
        self.acknowledgements.check(own);
        self.rejoin.check(&self.shared.config);
    }
}

impl Protocol for Gossip {
    type Message = Message;
    type Record = Record;

    fn restore(&mut self, chunk: &[u8]) -> Result<(), Corrupt> {
        self.restore_chunk(chunk)
    }

    fn replay(&mut self, record: Record) -> Result<(), Corrupt> {
        self.replay_record(record)
    }

    fn step(&mut self, now: Now, input: Input<Message>, effects: &mut Out) {
        self.shared.wall = now.wall;
        match input {
            Input::Start => self.start(now, effects),
            Input::Propose(proposal) => self.on_proposal(now, proposal, effects),
            Input::Receive { from, message } => self.on_message(now, from, message, effects),
            Input::Persisted { up_to } => self.on_persisted(up_to, effects),
            Input::Peers(view) => self.on_peers(now, view, effects),
            Input::Wake => self.on_wake(now, effects),
            Input::Stopping => {}
            Input::EndTurn => self.end_turn(now, effects),
        }
        self.schedule(effects);
        self.check();
    }

    fn checkpoint(&self) -> Checkpoint {
        self.make_checkpoint()
    }

    fn status(&self, now: Now) -> LiveStatus {
        self.make_status(now)
    }

    fn view(&self, range: &KeyRange) -> Box<dyn View> {
        Box::new(self.store.view(range))
    }
}
