//! CASPaxos: a keyspace of replicated registers, without leader and without log.
//!
//! After Rystsov, *CASPaxos: Replicated State Machines without logs* (arXiv 1802.07000, 2018). Each key is a register
//! of its own, each node an acceptor and a proposer for every key. There is no leader to elect or to lose: any node
//! that reaches a majority serves, at once.
//!
//! | part | what it does |
//! |---|---|
//! | `ballot` | names proposals; a logical clock |
//! | `register` | the state of one key and how operations change it, exactly once |
//! | `acceptor` | promises and accepts; what safety rests on |
//! | `proposer` | rounds: read, prepare, accept, back off, combine |
//! | `learner` | what is known to be chosen: local reads, scans, watches |
//! | `key_states` | what the three hold of each key, in one map |
//! | `sync` | anti-entropy between learners |
//! | `withdrawn` | what takes a node out of service: a peer holds another register under the same ballot |
//! | `turn` | one sync and few messages for all that a turn gathered |
//! | `requests` | what clients ask, and what is refused |
//! | `outbox`, `message`, `record`, `checkpoint` | wire and disk |
//!
//! **Promised:** linearizability of each key; writes of one key, guards on that key included, take effect at most
//! once. **Not promised:** any order across keys. A command over several keys, or a linearizable range, is refused.
//!
//! **Invariants.** (1) A ballot carries at most one accept value, ever. (2) What an acceptor answers is durable.
//! (3) The registers chosen for a key form a chain: each was computed from the one before. (4) The learned view of a
//! key never goes back.
//!
//! **Deletes** leave a tombstone, which keeps the version and the recent operations of the key, so that a delete and
//! a late retry cannot be confused. Tombstones are counted in the status and are not collected yet: collection
//! needs all members and a fence against absent proposers (the paper's section 3.1 and its known traps).
//!
//! **A failed guard** of a first attempt is answered without a write and leaves no record. The client must therefore
//! not have two copies of one operation under way at once unless all but one are marked as retries; the result of a
//! retry is always recorded.

mod acceptor;
pub mod ballot;
mod checkpoint;
mod config;
mod key_states;
mod learner;
pub mod message;
mod outbox;
mod proposer;
pub mod record;
pub mod register;
mod requests;
mod sync;
mod turn;
mod withdrawn;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use trilemma_core::{
    AppendSeq, ChangeBatch, Checkpoint, Corrupt, Effects, Input, Instant, Key, KeyRange, LiveStatus, NodeId,
    Now, PeerView, Protocol, Rng, Version, View, codec,
};

pub use ballot::Ballot;
pub use config::PaxosConfig;
pub use message::Message;
pub use record::Record;
pub use register::Register;
pub use withdrawn::Contradiction;

use acceptor::{Acceptor, CHECKED_KEYS_MAX, Refusal};
use checkpoint::{Chunk, KeyStateEntry};
use key_states::{KeyState, KeyStates};
use learner::Learner;
use message::{Answer, Ask};
use outbox::Outbox;
use proposer::{Proposer, Shared};

type Out = Effects<Message, Record>;

/// One node of a paxos keyspace. See the module.
#[derive(Debug)]
pub struct Paxos {
    proposer: Proposer,
    acceptor: Acceptor,
    learner: Learner,
    rng: Rng,
    /// One for each other member.
    outboxes: Vec<Outbox>,
    /// What all of them are asked.
    asks: Vec<Ask>,
    /// What was chosen, for all of them.
    chosen: Vec<Ask>,
    /// When that is sent and logged, if nothing that it can ride on comes before; [`Instant::NEVER`] if there is nothing.
    chosen_at: Instant,
    /// Answers of this node's acceptor to its own proposer: ready, of this turn, and waiting for the disk. They
    /// count when they are durable, as everybody else's.
    ready: Vec<Answer>,
    promises: Vec<Answer>,
    waiting: VecDeque<Waiting>,
    persisted: AppendSeq,
    /// Number of this turn, from 1, and of the last one that is durable.
    turn: u64,
    durable_turn: u64,
    /// Keys whose accepted register is not known to be chosen, and since when.
    unsettled: BTreeMap<Key, Instant>,
    confirm_cursor: Key,
    next_sync: Instant,
    view: Option<PeerView>,
    /// Why this node takes no part any more.
    withdrawn: Option<Contradiction>,
}

#[derive(Debug)]
struct Waiting {
    seq: AppendSeq,
    turn: u64,
    answers: Vec<Answer>,
}

/// What this node's acceptor holds for one key, for invariants and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The key.
    pub key: Key,
    /// The highest ballot promised.
    pub promised: Ballot,
    /// The ballot of the register; [`Ballot::ZERO`] if none is accepted.
    pub accepted: Ballot,
    /// The register.
    pub register: Arc<Register>,
}

impl Paxos {
    /// A node without state; give it its checkpoint and records before it starts.
    ///
    /// # Panics
    /// If `config.node` is not one of `config.members`, or those are more than [`register::PROPOSERS_MAX`]: the host has
    /// mixed up its configuration.
    #[must_use]
    pub fn new(config: PaxosConfig) -> Self {
        let config = config.clamp();
        let mut rng = Rng::new(config.seed);
        let others = config.members.iter().filter(|node| *node != config.node);
        Self {
            outboxes: others.map(Outbox::new).collect(),
            asks: Vec::new(),
            chosen: Vec::new(),
            chosen_at: Instant::NEVER,
            proposer: Proposer::new(config, rng.fork()),
            acceptor: Acceptor::default(),
            learner: Learner::default(),
            rng,
            ready: Vec::new(),
            promises: Vec::new(),
            waiting: VecDeque::new(),
            persisted: AppendSeq(0),
            turn: 1,
            durable_turn: 0,
            unsettled: BTreeMap::new(),
            confirm_cursor: Key::default(),
            next_sync: Instant::NEVER,
            view: None,
            withdrawn: None,
        }
    }

    /// What the acceptor holds, in key order.
    pub fn held(&self) -> impl Iterator<Item = Held> + '_ {
        let promised = self
            .slots()
            .iter()
            .filter(|(_, slot)| slot.promised > Ballot::ZERO);
        promised.map(|(key, slot)| Held {
            key: key.clone(),
            promised: slot.promised,
            accepted: slot.accepted,
            register: Arc::clone(&slot.register),
        })
    }

    /// What is known to be chosen, in key order: key, ballot and register.
    pub fn learned(&self) -> impl Iterator<Item = (&Key, Ballot, &Arc<Register>)> + '_ {
        let slots = self.slots().iter();
        slots.filter_map(|(key, slot)| Some((key, slot.learned(), slot.shown()?)))
    }

    /// What took this node out of service: a peer holds another register under the same ballot.
    #[must_use]
    pub fn contradiction(&self) -> Option<&Contradiction> {
        self.withdrawn.as_ref()
    }

    fn slots(&self) -> &KeyStates {
        &self.proposer.shared.slots
    }

    fn config(&self) -> &PaxosConfig {
        &self.proposer.shared.config
    }

    fn start(&mut self, now: Instant) {
        self.learner.take_changes();
        let Shared { slots, clock, .. } = &mut self.proposer.shared;
        for (key, slot) in slots.iter() {
            clock.observe(slot.promised);
            clock.observe(slot.learned());
            if slot.is_unsettled() {
                self.unsettled.insert(key.clone(), now);
            }
        }
        self.schedule_sync(now);
    }

    fn schedule_sync(&mut self, now: Instant) {
        let mean = self.config().sync_interval;
        self.next_sync = now + self.rng.between(mean / 2, mean * 3 / 2);
    }

    fn receive(&mut self, from: NodeId, message: Message, now: Instant, effects: &mut Out) {
        let Some(outbox) = self.outboxes.iter().position(|outbox| outbox.to == from) else {
            tracing::debug!(%from, "a message of a node that is no member is ignored");
            return;
        };
        match message {
            Message::Asks(asks) => asks.into_iter().for_each(|ask| self.on_ask(outbox, ask, now)),
            Message::Answers(answers) => {
                for answer in answers {
                    self.proposer.on_answer(from, answer, now);
                }
                self.carry_out(now, effects);
            }
            message => {
                let page_max = self.config().sync_page_max;
                let slots = &self.proposer.shared.slots;
                let found = sync::answer(&self.learner, slots, &mut self.rng, page_max, (from, message));
                if let Some(contradiction) = found.contradiction {
                    self.withdraw(contradiction);
                    return;
                }
                for reply in found.replies {
                    effects.send(from, reply);
                }
                for value in found.values {
                    self.learn(&value.key, value.ballot, &value.register, None);
                }
            }
        }
    }

    /// Takes no part any more. What nobody has been answered is refused; what waits to be sent stays here.
    fn withdraw(&mut self, contradiction: Contradiction) {
        tracing::error!(node = %self.config().node, "{contradiction}");
        self.proposer.give_up(&contradiction.reason());
        self.withdrawn = Some(contradiction);
    }

    /// Takes an ask of a peer.
    fn on_ask(&mut self, outbox: usize, ask: Ask, now: Instant) {
        let from = self.outboxes[outbox].to;
        if let Ask::Chosen { key, ballot } = ask {
            return self.on_chosen(outbox, key, ballot);
        }
        let judged = self.judge(from, ask, None, now);
        match judged {
            Some((answer, true)) => self.outboxes[outbox].answers.push(answer),
            Some((answer, false)) => self.outboxes[outbox].promises.push(answer),
            None => {}
        }
    }

    /// Takes a peer's word that what a ballot carries was chosen.
    fn on_chosen(&mut self, outbox: usize, key: Key, ballot: Ballot) {
        let (acceptor, learner, turn) = (&mut self.acceptor, &mut self.learner, self.turn);
        let known = self.proposer.shared.slots.change(&key, |slot| {
            let accepted = slot.accepted;
            if accepted == ballot {
                let register = Arc::clone(&slot.register);
                let is_confirmed = take_chosen(acceptor, learner, slot, &key, ballot, &register, turn);
                return (is_confirmed, false);
            }
            (false, accepted > ballot || slot.learned() >= ballot)
        });
        match known {
            Some((true, _)) => drop(self.unsettled.remove(&key)),
            Some((false, true)) => {}
            Some((false, false)) | None => self.outboxes[outbox].fetch.push(key),
        }
    }

    /// The acceptor's answer to an ask, and whether it may leave before this turn's records are durable. `None` for
    /// an ask that no proposer of ours sends. `made` is the register of an accept, where this node has made it itself.
    fn judge(
        &mut self,
        from: NodeId,
        ask: Ask,
        made: Option<Arc<Register>>,
        now: Instant,
    ) -> Option<(Answer, bool)> {
        let turn = self.turn;
        let acceptor = &mut self.acceptor;
        let Shared { slots, clock, .. } = &mut self.proposer.shared;
        match ask {
            Ask::Prepare { key, ballot } if ballot.is_of(from) && !key.is_empty() => {
                clock.observe(ballot);
                let prepare = |slot: &mut KeyState| acceptor.prepare(slot, &key, ballot, turn);
                Some(match slots.change_or_make(&key, prepare) {
                    Ok((accepted, register)) => (
                        Answer::Promise {
                            key,
                            ballot,
                            accepted,
                            register,
                        },
                        false,
                    ),
                    Err(seen) => (Answer::Refused { key, ballot, seen }, true),
                })
            }
            Ask::Accept {
                key,
                ballot,
                register,
                next,
            } if ballot.is_of(from) && next.is_of(from) && next > ballot && !key.is_empty() => {
                clock.observe(next);
                let needs_base = register.needs_base() && made.is_none();
                let accept = |slot: &mut KeyState| {
                    let judged = acceptor.accept(slot, &key, ballot, &register, made, next, turn);
                    (judged, slot.is_unsettled())
                };
                // What is changed and not held leaves no key state.
                let (judged, is_unsettled) = if needs_base {
                    let lacks = (Err(Refusal::Lacks), false);
                    slots.change(&key, accept).unwrap_or(lacks)
                } else {
                    slots.change_or_make(&key, accept)
                };
                Some(match judged {
                    Ok(promised) => {
                        if is_unsettled {
                            self.unsettled.insert(key.clone(), now);
                        }
                        (
                            Answer::Accepted {
                                key,
                                ballot,
                                promised,
                            },
                            false,
                        )
                    }
                    Err(Refusal::Higher(seen)) => (Answer::Refused { key, ballot, seen }, true),
                    Err(Refusal::Lacks) => (Answer::Lacks { key, ballot }, true),
                })
            }
            Ask::Read { key, round } => {
                let held = slots
                    .get(&key)
                    .map(|slot| (slot.accepted, Arc::clone(&slot.register), slot.touched));
                let (accepted, register, touched) = held.unwrap_or_default();
                let is_durable = touched <= self.durable_turn;
                let answer = Answer::Held {
                    key,
                    round,
                    accepted,
                    register,
                };
                Some((answer, is_durable))
            }
            Ask::Prepare { .. } | Ask::Accept { .. } | Ask::Chosen { .. } => None,
        }
    }

    /// Takes a register that is known to be chosen, and the ballot that a majority has promised to this node's proposer on
    /// top of it.
    fn learn(&mut self, key: &Key, ballot: Ballot, register: &Arc<Register>, next: Option<Ballot>) {
        let (acceptor, learner, turn) = (&mut self.acceptor, &mut self.learner, self.turn);
        let Shared { slots, config, .. } = &mut self.proposer.shared;
        let has_room = slots.counts().cached < config.cache_max as u64;
        let is_confirmed = slots.change_or_make(key, |slot| {
            if let Some(next) = next {
                slot.keep(next, ballot, has_room);
            }
            take_chosen(acceptor, learner, slot, key, ballot, register, turn)
        });
        if is_confirmed {
            self.unsettled.remove(key);
        }
    }
}

/// Takes a register that is known to be chosen into the key state of its key. Returns whether that confirms what was accepted.
fn take_chosen(
    acceptor: &mut Acceptor,
    learner: &mut Learner,
    slot: &mut KeyState,
    key: &Key,
    ballot: Ballot,
    register: &Arc<Register>,
    turn: u64,
) -> bool {
    let was_unsettled = slot.is_unsettled();
    if learner.learn(slot, key, ballot, register) {
        if slot.accepted < ballot {
            acceptor.install(slot, key, ballot, register, turn);
        }
        let register = (slot.accepted != ballot).then(|| Arc::clone(register));
        acceptor.note_chosen(key, ballot, register);
    }
    was_unsettled && !slot.is_unsettled()
}

impl Protocol for Paxos {
    type Message = Message;
    type Record = Record;

    fn restore(&mut self, chunk: &[u8]) -> Result<(), Corrupt> {
        match codec::decode::<Chunk>(chunk)? {
            Chunk::KeyStates(entries) => {
                let slots = &mut self.proposer.shared.slots;
                for entry in entries {
                    let KeyStateEntry {
                        key,
                        promised,
                        accepted,
                        register,
                    } = entry;
                    acceptor::restore(slots, &key, promised, accepted, register)?;
                }
            }
            Chunk::Learned(entries) => {
                for entry in entries {
                    self.relearn(entry.key, entry.ballot, entry.register, Missing::IsCorrupt)?;
                }
            }
        }
        Ok(())
    }

    fn replay(&mut self, record: Record) -> Result<(), Corrupt> {
        for (key, ballot) in record.promised {
            acceptor::replay_promise(&mut self.proposer.shared.slots, &key, ballot)?;
        }
        // What was chosen waits for a record, and the next register of its key may stand in the same one.
        for chosen in &record.chosen {
            let held = self.slots().get(&chosen.key);
            if chosen.register.is_none() && held.is_some_and(|held| held.accepted == chosen.ballot) {
                self.relearn(chosen.key.clone(), chosen.ballot, None, Missing::IsOlder)?;
            }
        }
        for accepted in record.accepted {
            acceptor::replay_accept(&mut self.proposer.shared.slots, accepted)?;
        }
        for chosen in record.chosen {
            self.relearn(chosen.key, chosen.ballot, chosen.register, Missing::IsOlder)?;
        }
        Ok(())
    }

    fn step(&mut self, now: Now, input: Input<Message>, effects: &mut Out) {
        let now = now.instant;
        if let Some(contradiction) = &self.withdrawn {
            if let Input::Propose(proposal) = input {
                let (ticket, reply) = requests::refused(proposal, contradiction.reason());
                effects.reply(ticket, reply);
            }
            effects.wake_at(Instant::NEVER);
            return;
        }
        match input {
            Input::Start => self.start(now),
            Input::Propose(proposal) => self.propose(proposal, now, effects),
            Input::Receive { from, message } => self.receive(from, message, now, effects),
            Input::Persisted { up_to } => {
                self.persisted = self.persisted.max(up_to);
                self.hear_own_acceptor(now, effects);
            }
            Input::Peers(view) => {
                self.proposer.on_peers(&view, now);
                self.view = Some(view);
            }
            Input::Wake => self.on_wake(now, effects),
            Input::Stopping => {}
            Input::EndTurn => self.end_turn(now, effects),
        }
        self.carry_out(now, effects);
        for changes in self.learner.take_changes() {
            let position = self.proposer.shared.clock.tick();
            effects.publish(ChangeBatch { position, changes });
        }
        let due = self.next_sync.min(self.chosen_at);
        // What is overdue is done in the turns that come at once.
        let due = due.min(self.proposer.wake_at(now));
        effects.wake_at(if self.withdrawn.is_some() {
            Instant::NEVER
        } else {
            due
        });
        self.check();
    }

    fn checkpoint(&self) -> Checkpoint {
        checkpoint::chunks(self.slots())
    }

    fn status(&self, now: Now) -> LiveStatus {
        self.live_status(now)
    }

    fn view(&self, range: &KeyRange) -> Box<dyn View> {
        Box::new(self.slots().view(range))
    }
}

/// What it means that a learned entry refers to a register that the acceptor does not hold.
#[derive(Clone, Copy)]
enum Missing {
    /// In a checkpoint, which is of one moment.
    IsCorrupt,
    /// In a record: the acceptor has moved on since, if it holds a higher ballot.
    IsOlder,
}

impl Paxos {
    fn relearn(
        &mut self,
        key: Key,
        ballot: Ballot,
        register: Option<Arc<Register>>,
        missing: Missing,
    ) -> Result<(), Corrupt> {
        let slots = &mut self.proposer.shared.slots;
        let register = match (register, slots.get(&key)) {
            (Some(register), _) => register,
            (None, Some(slot)) if slot.accepted == ballot => Arc::clone(&slot.register),
            (None, Some(slot)) if slot.accepted > ballot && matches!(missing, Missing::IsOlder) => {
                return Ok(());
            }
            (None, _) => {
                return Err(Corrupt(format!(
                    "key {key:?} was learned under {ballot}, which was never accepted here"
                )));
            }
        };
        slots.change_or_make(&key, |slot| self.learner.learn(slot, &key, ballot, &register));
        if self.learner.regressions > 0 {
            return Err(Corrupt(format!(
                "key {key:?} goes back to {} at {ballot}",
                register.version
            )));
        }
        Ok(())
    }

    /// What holds after every step, of the machines and of what stands between them.
    fn check(&mut self) {
        let slots = &self.proposer.shared.slots;
        slots.check();
        self.acceptor.check(slots, false);
        self.learner.check(slots);
        self.proposer.check();
        if let Some(contradiction) = &self.withdrawn {
            contradiction.check(self.proposer.shared.config.node);
        }
        assert!(
            !self.learner.has_changes(),
            "all that was learned is published to watchers"
        );
        assert!(
            self.durable_turn < self.turn,
            "this turn's records are not durable yet"
        );
        if let Some(first) = self.waiting.front() {
            assert!(
                first.turn > self.durable_turn,
                "what is durable has been answered"
            );
            assert!(first.seq > self.persisted, "what is durable does not wait");
        }
        assert!(
            self.waiting
                .iter()
                .rev()
                .take(2)
                .is_sorted_by(|a, b| a.seq > b.seq && a.turn > b.turn),
            "answers wait in the order of their records"
        );
        if cfg!(debug_assertions) && self.unsettled.len() <= CHECKED_KEYS_MAX {
            for key in self.unsettled.keys() {
                assert!(
                    slots.get(key).is_some_and(KeyState::is_unsettled),
                    "key {key:?}: what is unsettled was accepted and is not known to be chosen"
                );
            }
        }
    }

    /// The position of this node's own history: grows with everything it sees and does.
    fn version(&self) -> Version {
        Version(self.proposer.shared.clock.last())
    }
}

#[cfg(test)]
mod tests;
