//! Who belongs to the cluster and who of them works: hosts the machine of `trilemma-membership`.
//!
//! Its messages travel under a keyspace id of their own, [`MEMBERSHIP`], as datagrams, so that no data are in front of them.
//! Its epoch stands in the node's log, and nothing of it is announced before it is durable there. Otherwise: a node
//! announces epoch 5, the power fails, it starts again with epoch 5, and what was said of the first run is taken for the
//! second.
//!
//! The member list is not kept: the configuration names whom to ask for it.
//!
//! What it finds is advice for operators; no protocol goes by it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use trilemma_core::{Instant, Lane, Message as _, NodeId, Now, WallTime, codec};
use trilemma_membership::{
    Authority, Effects, Event, Input, Membership, Message, Outgoing, Persist, Refusals, Standing, Statement,
    Status,
};
pub use trilemma_membership::{Member, Refusal, Role, State};
use trilemma_storage::LogSeq;

use crate::config::{MEMBERSHIP, MembershipSettings};
use crate::effects::Envelope;
use crate::message::MemberMessage;

/// The part of a new round-trip time in the smoothed one, as in TCP (RFC 6298).
const ROUND_TRIP_GAIN: u32 = 8;

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Members that became suspect here.
    pub suspected: u64,
    /// Suspects that refuted it in time: they were taken for silent by mistake.
    pub refuted: u64,
    /// Members that were declared dead.
    pub died: u64,
    /// Accusations of this node that it has refuted.
    pub accused: u64,
    /// Messages sent.
    pub sent: u64,
    /// Their bytes, without frames.
    pub sent_bytes: u64,
    /// Messages received.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
}

/// What this node has seen of a member beside its standing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// When its state changed here last.
    pub since: WallTime,
    /// Round-trip time of its answers, smoothed; `None` if it has answered none.
    pub round_trip: Option<Duration>,
    /// The newest ping that waits for its answer.
    asked: Option<(u32, Instant)>,
}

/// Nobody has a key for statements yet: a node that stops is found dead, and nobody is evicted.
#[derive(Clone, Copy, Debug)]
struct NoAuthority;

impl Authority for NoAuthority {
    fn sign(&self, _leave: &Statement) -> Option<Bytes> {
        None
    }

    fn verify(&self, _statement: &Statement, _signature: &[u8]) -> bool {
        false
    }
}

/// See the module.
#[derive(Debug)]
pub struct Members {
    machine: Membership,
    effects: Effects,
    /// The epoch that is to become durable, and its place in the log once it has one.
    epoch: Option<(u64, Option<LogSeq>)>,
    seen: BTreeMap<NodeId, Seen>,
    counters: Counters,
}

impl Members {
    /// The member of a node that starts from the last epoch in its log, 0 if there is none.
    pub(crate) fn new(
        settings: &MembershipSettings,
        node: NodeId,
        last_epoch: u64,
        random_seed: u64,
    ) -> Self {
        let config = settings.config(node, random_seed);
        Self {
            machine: Membership::new(config, Box::new(NoAuthority), last_epoch, &[]),
            effects: Effects::default(),
            epoch: None,
            seen: BTreeMap::new(),
            counters: Counters::default(),
        }
    }

    /// The node has started.
    pub(crate) fn start(&mut self, now: Now) {
        self.step(now, Input::Start);
    }

    /// A message of another node.
    pub(crate) fn receive(&mut self, now: Now, from: NodeId, bytes: &[u8]) {
        self.counters.received += 1;
        self.counters.received_bytes += bytes.len() as u64;
        match codec::decode(bytes) {
            Ok(MemberMessage { stream, message }) => {
                if let Message::Ack { probe, .. } = &message {
                    self.answered(now, from, *probe);
                }
                let lane = if stream { Lane::Control } else { Lane::Datagram };
                self.step(now, Input::Receive { from, lane, message });
            }
            Err(error) => tracing::warn!(%from, %error, "a malformed message of membership is dropped"),
        }
    }

    /// Ends a turn: the log is durable up to here, and time has passed.
    pub(crate) fn turn(&mut self, now: Now, durable: LogSeq) {
        if let Some((epoch, _)) = self.epoch.take_if(|(_, at)| at.is_some_and(|at| at <= durable)) {
            self.step(now, Input::EpochPersisted(epoch));
        }
        if self.machine.next_wake() <= now.instant {
            self.step(now, Input::Wake);
        }
    }

    /// When the next turn is due.
    pub(crate) fn wake_at(&self) -> Instant {
        self.machine.next_wake()
    }

    /// Epochs for the log.
    pub(crate) fn epochs(&mut self) -> impl Iterator<Item = u64> + use<> {
        let mut epochs = Vec::new();
        for persist in self.effects.persists.drain(..) {
            if let Persist::Epoch(epoch) = persist {
                self.epoch = Some((epoch, None));
                epochs.push(epoch);
            }
        }
        epochs.into_iter()
    }

    /// An epoch stands in the log here.
    pub(crate) fn appended(&mut self, epoch: u64, at: LogSeq) {
        if let Some((newest, place)) = &mut self.epoch
            && *newest == epoch
        {
            *place = Some(at);
        }
    }

    /// Messages for others.
    pub(crate) fn messages(&mut self) -> impl Iterator<Item = Envelope> + '_ {
        let counters = &mut self.counters;
        self.effects
            .sends
            .drain(..)
            .map(|Outgoing { to, lane, message }| {
                let kind = message.kind();
                let stream = lane != Lane::Datagram;
                let bytes = codec::encode(&MemberMessage { stream, message });
                counters.sent += 1;
                counters.sent_bytes += bytes.len() as u64;
                Envelope {
                    keyspace: MEMBERSHIP,
                    to,
                    lane,
                    kind,
                    bytes,
                }
            })
    }

    fn step(&mut self, now: Now, input: Input) {
        let before = self.effects.sends.len();
        self.machine.step(now, input, &mut self.effects);
        for at in before..self.effects.sends.len() {
            self.asked(now, at);
        }
        for event in std::mem::take(&mut self.effects.events) {
            self.note(now, &event);
        }
    }

    /// Remembers when a ping left. One that is sent again over a stream is not measured: nobody could say which of them was
    /// answered (Karn and Partridge 1987).
    fn asked(&mut self, now: Now, at: usize) {
        if let Outgoing {
            to,
            lane,
            message: Message::Ping { probe, .. },
        } = &self.effects.sends[at]
            && *probe != 0
            && let Some(seen) = self.seen.get_mut(to)
        {
            seen.asked = (*lane == Lane::Datagram).then_some((*probe, now.instant));
        }
    }

    fn answered(&mut self, now: Now, from: NodeId, probe: u32) {
        if let Some(seen) = self.seen.get_mut(&from)
            && let Some((_, asked)) = seen.asked.take_if(|(asked, _)| *asked == probe)
        {
            let took = now.instant.since(asked);
            let smoothed = seen.round_trip.map_or(took, |before| {
                before - before / ROUND_TRIP_GAIN + took / ROUND_TRIP_GAIN
            });
            seen.round_trip = Some(smoothed);
        }
    }

    fn note(&mut self, now: Now, event: &Event) {
        match event {
            Event::Changed {
                node,
                former,
                standing,
            } => {
                self.note_change(now, *node, *former, *standing);
            }
            Event::Announced(incarnation) => {
                self.counters.accused += u64::from(incarnation.counter > 0);
                tracing::debug!(%incarnation, "this node announces itself to the members");
            }
            Event::Evicted(epoch) => tracing::error!(epoch, "this node was evicted from the cluster"),
            Event::Joined | Event::Left | Event::Connect(_) | Event::Disconnect(_) => {}
        }
    }

    fn note_change(&mut self, now: Now, member: NodeId, former: Option<State>, standing: Standing) {
        let state = standing.state();
        let seen = self.seen.entry(member).or_default();
        if former == Some(state) {
            return;
        }
        seen.since = now.wall;
        let counters = &mut self.counters;
        match (former, state) {
            (_, State::Dead) => {
                counters.died += 1;
                tracing::warn!(%member, %standing, "a member is dead: it answers nobody");
            }
            (_, State::Suspect) => {
                counters.suspected += 1;
                tracing::info!(%member, %standing, "a member did not answer and is suspect");
            }
            (Some(State::Suspect), State::Alive) => {
                counters.refuted += 1;
                tracing::info!(%member, %standing, "a suspect is alive");
            }
            _ => tracing::info!(%member, %standing, "a member has a new state"),
        }
    }

    /// All members, ascending, this node among them, and what was seen of each other one.
    pub fn all(&self) -> impl Iterator<Item = (Member, Option<Seen>)> + '_ {
        self.machine.members().map(|(record, standing)| {
            let record = record.clone();
            let seen = self.seen.get(&record.node).copied();
            (Member { record, standing }, seen)
        })
    }

    /// What is believed of a member; `None` if it is not known.
    #[must_use]
    pub fn standing(&self, node: NodeId) -> Option<Standing> {
        self.machine.standing(node)
    }

    /// How this node stands among them.
    #[must_use]
    pub fn status(&self) -> Status {
        self.machine.status()
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What was refused.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        self.machine.refusals()
    }

    /// The invariants: what a turn wants is carried out.
    pub(crate) fn check(&self) {
        assert!(
            self.effects.sends.is_empty()
                && self.effects.persists.is_empty()
                && self.effects.events.is_empty(),
            "what membership wants is carried out"
        );
    }
}
