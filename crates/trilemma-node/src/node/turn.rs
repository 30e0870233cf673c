//! The end of a turn: what the inputs since the last one have led to, in one order.

use std::time::Duration;

use trilemma_core::host::{Appended, GroupInput, Outgoing};
use trilemma_core::protocol::Force;
use trilemma_core::{Instant, Lane, Now, codec};

use super::{DEADLINE_GRACE, Node, PING};
use crate::config::NODE_RECORDS;
use crate::effects::{Effects, Envelope, Observer};
use crate::record::section;
use crate::recovery::RECORD_HEADER_BYTES;

/// How often live status is computed.
const STATUS_INTERVAL: Duration = Duration::from_millis(50);

impl<W> Node<W> {
    /// When the node wants its next turn, if nothing happens before.
    #[must_use]
    pub fn wake_at(&self) -> Instant {
        if self.replicas.iter().any(|replica| replica.watchers.is_pumpable()) {
            return Instant::ZERO;
        }
        let engines = self.replicas.iter().map(|replica| replica.engine.wake_at());
        engines
            .min()
            .unwrap_or(Instant::NEVER)
            .min(self.liveness.wake_at())
            .min(self.pending.wake_at(DEADLINE_GRACE))
            .min(self.next_status)
    }

    /// Ends a turn: what the inputs since the last turn have led to.
    pub fn turn(&mut self, now: Now, effects: &mut Effects<W>, observer: &mut impl Observer) {
        self.ping(now, effects);
        self.wake(now);
        let mut touched = self.end_turns(now);
        self.append(&touched, effects, observer);
        self.transmit(&touched, effects);
        self.publish(&touched, observer);
        self.answer(&touched, effects);
        self.expire(now, effects);
        touched.clear();
        self.touched = touched;
        self.open_watches(now);
        self.pump_watches(now, effects);
        self.refresh_status(now);
        self.snapshot(effects);
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

    /// Tells every keyspace that took an input that its turn is over. Returns these keyspaces.
    fn end_turns(&mut self, now: Now) -> Vec<usize> {
        let mut touched = std::mem::take(&mut self.touched);
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

    /// Pings peers if that is due.
    fn ping(&mut self, now: Now, effects: &mut Effects<W>) {
        let messages = &mut effects.messages;
        let view = self.liveness.tick(now.instant, |to, ping| {
            messages.push(Envelope {
                keyspace: NODE_RECORDS,
                to,
                lane: Lane::Control,
                kind: PING,
                bytes: codec::encode(&ping),
            });
        });
        if let Some(view) = view {
            self.on_view(now, view);
        }
    }

    /// Gathers all records of this turn into one batch for the log.
    fn append(&mut self, touched: &[usize], effects: &mut Effects<W>, observer: &mut impl Observer) {
        for index in touched {
            let replica = &mut self.replicas[*index];
            for Appended { seq, force, bytes } in std::mem::take(&mut replica.output.records) {
                self.last = self.last.plus(1);
                observer.appended(*index, self.last, &bytes);
                let cost = replica.appended(seq, self.last, bytes.len());
                self.admission.appended(cost);
                self.snapshots.appended(bytes.len() as u64 + RECORD_HEADER_BYTES);
                effects.batch.forced |= force == Force::Now;
                effects.batch.records.push((replica.id(), bytes));
            }
        }
    }

    /// Gathers all messages of this turn.
    fn transmit(&mut self, touched: &[usize], effects: &mut Effects<W>) {
        for index in touched {
            let replica = &mut self.replicas[*index];
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
        for (id, index, spec) in std::mem::take(&mut self.opening) {
            self.watches.insert(id, index);
            self.replicas[index].watchers.open(now.instant, id, spec);
        }
    }

    /// Moves items on to readers that have room.
    fn pump_watches(&mut self, now: Now, effects: &mut Effects<W>) {
        effects.items.append(&mut self.items);
        for replica in &mut self.replicas {
            if !replica.watchers.is_empty() {
                let engine = &replica.engine;
                replica.watchers.pump(
                    now.instant,
                    |range| engine.scan(range, usize::MAX),
                    &mut effects.items,
                );
            }
        }
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
        let (record, replicas) = (&self.record, &self.replicas);
        self.snapshots.take(self.last, || {
            let keyspaces = replicas
                .iter()
                .map(|replica| (replica.id(), replica.engine.checkpoint()));
            std::iter::once(section(record)).chain(keyspaces).collect()
        });
        effects.snapshot = self.snapshots.job(self.progress.durable);
        effects.release = self.release.take();
    }

    /// What must hold between two turns.
    fn check(&self) {
        assert!(self.touched.is_empty() && self.replies.is_empty() && self.opening.is_empty());
        assert!(self.progress.durable <= self.last);
        for replica in &self.replicas {
            replica.watchers.check();
            debug_assert!(replica.output.records.is_empty() && replica.output.sends.is_empty());
        }
    }
}
