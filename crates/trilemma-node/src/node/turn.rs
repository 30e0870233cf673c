//! The end of a turn: what the inputs since the last one have led to, in one order.

use std::time::Duration;

use trilemma_core::host::{GroupInput, Outgoing};
use trilemma_core::protocol::Force;
use trilemma_core::{Instant, KeyRange, Lane, NodeId, Now, codec};

use super::{DEADLINE_GRACE, Node, Opening};
use crate::config::NODE_RECORDS;
use crate::effects::{Effects, Envelope, Observer};
use crate::members::Members;
use crate::message::NodeMessage;
use crate::record::{NodeRecord, kept_records};
use crate::recovery::RECORD_HEADER_BYTES;
use crate::replica::Replica;
use crate::snapshots::Taken;
use crate::watchers::Budget;

/// How often live status is computed.
const STATUS_INTERVAL: Duration = Duration::from_millis(50);
/// The part of [`Tuning::log_window_bytes`](crate::Tuning::log_window_bytes) that a keyspace may give the log whatever others
/// have given.
const LITTLE_SHARE: usize = 32;

impl<W> Node<W> {
    /// When the node wants its next turn, if nothing happens before.
    #[must_use]
    pub fn wake_at(&self) -> Instant {
        if self.replicas.iter().any(|replica| replica.engine.goes_on()) {
            return Instant::ZERO;
        }
        let engines = self.replicas.iter().map(|replica| replica.engine.wake_at());
        let watches = self.replicas.iter().map(|replica| replica.watchers.wake_at());
        engines
            .chain(watches)
            .min()
            .unwrap_or(Instant::NEVER)
            .min(self.liveness.wake_at())
            .min(self.members.as_ref().map_or(Instant::NEVER, Members::wake_at))
            .min(self.pending.wake_at(DEADLINE_GRACE))
            .min(self.next_status)
    }

    /// Whether no keyspace has anything left to apply that it knows to be committed. A node without peers knows that of its
    /// whole log, so until then it does not serve reads. Asked after the start: a node that serves answers at once.
    #[must_use]
    pub fn is_caught_up(&self, now: Now) -> bool {
        let is_alone = self.peers.is_alone();
        self.replicas
            .iter()
            .all(|replica| !replica.engine.goes_on() && (!is_alone || replica.engine.status(now).can_read))
    }

    /// Ends a turn: what the inputs since the last turn have led to.
    pub fn turn(&mut self, now: Now, effects: &mut Effects<W>, observer: &mut impl Observer) {
        self.ping(now, effects);
        self.wake(now);
        self.look_after_members(now, effects);
        self.meet(effects);
        self.keep(effects);
        observer.passed("wake");
        let mut touched = self.end_turns(now);
        observer.passed("end of the keyspaces' turns");
        self.append(&touched, observer);
        self.give(effects, observer);
        self.transmit(&touched, effects);
        self.publish(&touched, observer);
        observer.passed("gather");
        self.answer(&touched, effects);
        self.expire(now, effects);
        observer.passed("answers");
        touched.clear();
        self.touched = touched;
        self.open_watches(now);
        self.pump_watches(now, effects);
        observer.passed("watches");
        self.refresh_status(now);
        observer.passed("status");
        self.snapshot(effects);
        observer.passed("snapshot");
        self.check();
    }

    /// Wakes the keyspaces that are due.
    fn wake(&mut self, now: Now) {
        for index in 0..self.replicas.len() {
            if self.replicas[index].engine.wake_at() <= now.instant {
                self.step(index, now, GroupInput::Wake);
            }
        }
    }

    /// Tells every keyspace that took an input, or goes on, that its turn is over. Returns these keyspaces.
    fn end_turns(&mut self, now: Now) -> Vec<usize> {
        let mut touched = std::mem::take(&mut self.touched);
        let replicas = self.replicas.iter().enumerate();
        touched.extend(replicas.filter_map(|(index, replica)| replica.engine.goes_on().then_some(index)));
        touched.sort_unstable();
        touched.dedup();
        for index in &touched {
            let replica = &mut self.replicas[*index];
            replica.step(now, GroupInput::EndTurn);
            debug_assert!(
                replica.engine.wake_at() > now.instant,
                "{} wants to be woken at once: that work belongs to the end of the turn",
                replica.name()
            );
        }
        touched
    }

    /// Pings peers if that is due; a node that is new asks with each ping to be met.
    fn ping(&mut self, now: Now, effects: &mut Effects<W>) {
        let mut pinged = false;
        let view = self.liveness.tick(now.instant, |to, ping| {
            pinged = true;
            effects.messages.push(envelope(to, &NodeMessage::Ping(ping)));
        });
        if pinged {
            let asked = self.peers.unasked().map(|peer| (peer, NodeMessage::Meet));
            self.messages.extend(asked);
        }
        if let Some(view) = view {
            self.on_view(now, view);
        }
    }

    /// Sends what the node itself has to say to its peers.
    fn meet(&mut self, effects: &mut Effects<W>) {
        let messages = &mut self.messages;
        self.peers.persisted(self.progress.durable, |to, disk| {
            messages.push((to, NodeMessage::Keeps(disk)));
        });
        let messages = messages.drain(..);
        effects
            .messages
            .extend(messages.map(|(to, message)| envelope(to, &message)));
    }

    /// Tells membership what time it is and what is durable, and takes what it wants done.
    fn look_after_members(&mut self, now: Now, effects: &mut Effects<W>) {
        if let Some(members) = &mut self.members {
            members.turn(now, self.progress.durable);
            self.records.extend(members.epochs().map(NodeRecord::MemberEpoch));
            effects.messages.extend(members.messages());
        }
    }

    /// Gives the node's own records to the log.
    fn keep(&mut self, effects: &mut Effects<W>) {
        for record in self.records.drain(..) {
            let bytes = codec::encode(&record);
            self.last = self.last.plus(1);
            match record {
                NodeRecord::Met(kept) => self.peers.appended(kept.node, self.last),
                NodeRecord::MemberEpoch(epoch) => {
                    self.member_epoch = epoch;
                    if let Some(members) = &mut self.members {
                        members.appended(epoch, self.last);
                    }
                }
                _ => {}
            }
            self.snapshots.appended(bytes.len() as u64 + RECORD_HEADER_BYTES);
            // Others wait for it.
            effects.batch.forced = true;
            effects.batch.records.push((NODE_RECORDS, bytes));
        }
    }

    /// Takes all records of this turn, to be given to the log.
    fn append(&mut self, touched: &[usize], observer: &mut impl Observer) {
        for index in touched {
            let replica = &mut self.replicas[*index];
            for append in std::mem::take(&mut replica.output.records) {
                observer.appended(*index, &append.bytes);
                self.admission.appended(replica.appended(append));
                self.rounds.waits(*index);
            }
        }
    }

    /// Gives the log what it has room for, from each keyspace in its turn. A keyspace that has given little waits for no
    /// turn, so its records go with the next sync whatever others have appended.
    fn give(&mut self, effects: &mut Effects<W>, observer: &mut impl Observer) {
        let little = self.log_window_bytes / LITTLE_SHARE;
        let waiting: Vec<usize> = self.rounds.waiting().collect();
        for index in waiting {
            let mut room = little.saturating_sub(self.replicas[index].given_bytes());
            while let Some(cost) = self.replicas[index].first_waiting()
                && cost <= room
            {
                room -= cost;
                self.give_first(index, effects, observer);
            }
        }
        while self.given_bytes < self.log_window_bytes.max(1) {
            let replicas = &self.replicas;
            let next = self.rounds.take(|index| replicas[index].first_waiting());
            let Some(index) = next else { return };
            self.give_first(index, effects, observer);
        }
        // What waits is not to wait for company.
        effects.batch.forced = true;
    }

    fn give_first(&mut self, index: usize, effects: &mut Effects<W>, observer: &mut impl Observer) {
        let at = self.last.plus(1);
        let replica = &mut self.replicas[index];
        let Some(given) = replica.give(at) else { return };
        self.last = at;
        observer.placed(index, at);
        self.snapshots.placed(replica.id(), given.seq, at);
        self.snapshots
            .appended(given.bytes.len() as u64 + RECORD_HEADER_BYTES);
        self.given.push_back((at, given.cost));
        self.given_bytes += given.cost;
        effects.batch.forced |= given.force == Force::Now;
        effects.batch.records.push((replica.id(), given.bytes));
    }

    /// Gathers all messages of this turn.
    fn transmit(&mut self, touched: &[usize], effects: &mut Effects<W>) {
        for index in touched {
            let replica = &mut self.replicas[*index];
            if replica.counts_majorities() && !self.peers.is_founded() {
                replica.output.sends.clear();
                continue;
            }
            let keyspace = replica.id();
            let envelope = |Outgoing {
                                to,
                                lane,
                                kind,
                                bytes,
                            }| Envelope {
                keyspace,
                to,
                lane,
                kind,
                bytes,
            };
            effects
                .messages
                .extend(replica.output.sends.drain(..).map(envelope));
        }
    }

    /// Shows watchers the changes.
    fn publish(&mut self, touched: &[usize], observer: &mut impl Observer) {
        for index in touched {
            let replica = &mut self.replicas[*index];
            let reset = replica.output.reset.take();
            let applied = std::mem::take(&mut replica.output.applied);
            observer.stepped(*index, &replica.engine, reset, &applied);
            if let Some(position) = reset {
                replica.watchers.reset(position);
            }
            for applied in applied {
                replica.watchers.publish(applied);
            }
        }
    }

    /// Gives callers their answers.
    fn answer(&mut self, touched: &[usize], effects: &mut Effects<W>) {
        effects.replies.append(&mut self.replies);
        for index in touched {
            let discarded = &mut self.replicas[*index].output.discarded;
            effects.discarded.append(discarded);
            for (ticket, reply) in self.replicas[*index].output.replies.drain(..) {
                // An answer after the backstop's is dropped.
                if let Some(reply_to) = self.pending.answered(ticket, &reply) {
                    effects.replies.push((reply_to, reply));
                }
            }
        }
    }

    /// Answers what is overdue: the backstop behind protocols, which answer every proposal by its deadline.
    fn expire(&mut self, now: Now, effects: &mut Effects<W>) {
        while let Some(expired) = self.pending.take_expired(now.instant, DEADLINE_GRACE) {
            effects.replies.push(expired);
        }
    }

    fn open_watches(&mut self, now: Now) {
        for opening in std::mem::take(&mut self.opening) {
            let Opening {
                id,
                index,
                spec,
                destination,
            } = opening;
            self.watches.insert(id, index);
            self.replicas[index]
                .watchers
                .open(now.instant, id, spec, destination);
        }
    }

    /// Gives watches what is for them, as far as readers have room and the turn has time. Where it has not enough for
    /// all, each keyspace comes first once.
    fn pump_watches(&mut self, now: Now, effects: &mut Effects<W>) {
        effects.items.append(&mut self.items);
        let (before, after) = self.replicas.split_at_mut(self.first_pumped);
        let mut budget = Budget::TURN;
        for replica in after.iter_mut().chain(before) {
            if replica.watchers.wake_at() <= now.instant {
                let engine = &replica.engine;
                let view = |range: &KeyRange| engine.view(range);
                let watchers = &mut replica.watchers;
                watchers.pump(now.instant, &mut budget, view, &mut effects.items);
            }
        }
        self.first_pumped = (self.first_pumped + 1) % self.replicas.len().max(1);
    }

    fn refresh_status(&mut self, now: Now) {
        if now.instant < self.next_status {
            return;
        }
        self.next_status = now.instant + STATUS_INTERVAL;
        for replica in &mut self.replicas {
            replica.refresh_status(now);
            replica.watchers.shed(now.instant);
        }
    }

    /// Takes, hands out or finishes a snapshot, whichever is due.
    fn snapshot(&mut self, effects: &mut Effects<W>) {
        let (record, peers, replicas) = (&self.record, &self.peers, &self.replicas);
        let member_epoch = self.member_epoch;
        self.snapshots.take(self.last, || {
            let keyspaces = replicas.iter();
            let waiting = keyspaces.clone().filter_map(|replica| {
                let last = replica.last_waiting()?;
                Some((replica.id(), (last, None)))
            });
            Taken {
                own: kept_records(record, peers, member_epoch),
                waiting: waiting.collect(),
                keyspaces: keyspaces
                    .map(|replica| (replica.id(), replica.engine.checkpoint()))
                    .collect(),
            }
        });
        effects.snapshot = self.snapshots.job(self.progress.durable);
        effects.release = self.release.take();
    }

    /// What must hold between two turns.
    pub(super) fn check(&self) {
        assert!(self.touched.is_empty() && self.replies.is_empty() && self.opening.is_empty());
        assert!(self.records.is_empty() && self.messages.is_empty());
        assert!(
            self.progress.durable <= self.progress.written && self.progress.written <= self.last,
            "the log has {:?} of {} records",
            self.progress,
            self.last
        );
        self.peers.check();
        if let Some(members) = &self.members {
            members.check();
        }
        self.admission.check();
        self.snapshots.check(self.last);
        debug_assert_eq!(
            self.replicas.iter().map(Replica::undurable_bytes).sum::<usize>(),
            self.admission.log_bytes(),
            "bytes that wait for the disk are counted as they are"
        );
        for replica in &self.replicas {
            replica.check();
        }
        self.rounds.check();
        debug_assert_eq!(
            self.given.iter().map(|(_, cost)| cost).sum::<usize>(),
            self.given_bytes,
            "what the log was given is counted as it is"
        );
        assert!(
            self.given_bytes > 0
                || self
                    .rounds
                    .waiting()
                    .all(|index| self.replicas[index].first_waiting().is_none()),
            "records wait for a log that has nothing to do"
        );
        debug_assert!(
            self.watches.values().all(|index| *index < self.replicas.len()),
            "a watch is of a keyspace"
        );
        assert_eq!(
            self.replicas
                .iter()
                .map(|replica| replica.watchers.len())
                .sum::<usize>(),
            self.watches.len(),
            "each watch that is open is found by its id"
        );
    }
}

/// A message of the node itself.
fn envelope(to: NodeId, message: &NodeMessage) -> Envelope {
    Envelope {
        keyspace: NODE_RECORDS,
        to,
        lane: Lane::Control,
        kind: message.kind(),
        bytes: codec::encode(message),
    }
}
