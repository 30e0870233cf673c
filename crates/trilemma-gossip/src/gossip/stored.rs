//! Restart: what the log and the checkpoint bring back, and the checkpoint itself.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use trilemma_core::checkpoint::CHUNK_BYTES;
use trilemma_core::codec::{self, bounded_vec};
use trilemma_core::session::{OpResult, Sessions, StoredSession, WholeRecord};
use trilemma_core::{Checkpoint, Corrupt, Incarnation, Version};

use super::{Gossip, Out};
use crate::config::Durability;
use crate::context::{Context, WIRE_INTERVALS_MAX, WireContext};
use crate::dot::Dot;
use crate::hlc::Stamp;
use crate::message::{ITEMS_MAX, Record};
use crate::replica::Item;

/// A checkpoint: one head, then sessions, then items, then the context that covers them all.
#[derive(Serialize, Deserialize)]
enum Chunk {
    /// The head as earlier versions wrote it: with the whole session record. It is read, not written.
    WholeHead {
        clock: Stamp,
        whole_since: Option<Incarnation>,
        sessions: WholeRecord,
    },
    Items(#[serde(deserialize_with = "bounded_vec::<_, _, ITEMS_MAX>")] Vec<Item>),
    Context(WireContext),
    Head {
        /// No stamp up to this one is issued again.
        clock: Stamp,
        /// See `Record::Life`.
        whole_since: Option<Incarnation>,
        /// See [`Sessions::horizon`].
        horizon: Version,
    },
    Sessions(Vec<StoredSession>),
}

/// Whether `restore` could read this chunk of a checkpoint.
fn check_chunk(chunk: &[u8]) -> Result<(), Corrupt> {
    match codec::decode(chunk)? {
        Chunk::Sessions(part) => Sessions::new(1).add(&part),
        Chunk::WholeHead { .. } | Chunk::Items(_) | Chunk::Context(_) | Chunk::Head { .. } => Ok(()),
    }
}

impl Gossip {
    pub(super) fn restore_chunk(&mut self, chunk: &[u8]) -> Result<(), Corrupt> {
        match codec::decode(chunk)? {
            Chunk::Head {
                clock,
                whole_since,
                horizon,
            } => {
                let sessions = Sessions::restoring(horizon, self.config.sessions_max);
                self.restore_head(clock, whole_since, sessions);
                Ok(())
            }
            Chunk::WholeHead {
                clock,
                whole_since,
                sessions,
            } => {
                let sessions = Sessions::from_whole(sessions, self.config.sessions_max)?;
                self.restore_head(clock, whole_since, sessions);
                Ok(())
            }
            Chunk::Sessions(part) => self.sessions.add(&part),
            Chunk::Items(items) => self.restore_items(&items),
            Chunk::Context(wire) => self.restore_context(&wire),
        }
    }

    fn restore_head(&mut self, clock: Stamp, whole_since: Option<Incarnation>, sessions: Sessions) {
        self.whole_since = whole_since;
        self.clock.restore(clock);
        self.lease_durable = self.lease_durable.max(clock);
        self.sessions = sessions;
    }

    pub(super) fn replay_record(&mut self, record: Record) -> Result<(), Corrupt> {
        match record {
            Record::Lease(lease) => {
                self.clock.restore(lease);
                self.lease_durable = self.lease_durable.max(lease);
            }
            Record::Write { op, stamp, items } => {
                self.clock.restore(stamp);
                self.restore_items(&items)?;
                let result = OpResult::Applied {
                    won: true,
                    version: stamp.version(),
                    found: Version::ABSENT,
                };
                self.sessions.record(op, result, stamp.version());
            }
            Record::Join { items } => self.restore_items(&items)?,
            Record::Context(wire) => self.restore_context(&wire)?,
            Record::Life { whole_since } => self.whole_since = whole_since,
            Record::Fence { op, stamp } => {
                self.clock.restore(stamp);
                self.sessions.record(op, OpResult::Fenced, stamp.version());
            }
        }
        Ok(())
    }

    /// Notes in the log that this disk was there from the beginning of this life. Own changes leave after their own
    /// records are durable, hence after this one.
    pub(super) fn begin_life(&mut self, effects: Out<'_>) {
        self.whole_since = if self.config.durability == Durability::Fsync {
            self.whole_since.or(Some(self.config.incarnation))
        } else {
            None
        };
        let whole_since = self.whole_since;
        effects.append_lazy(Record::Life { whole_since });
    }

    fn restore_items(&mut self, items: &[Item]) -> Result<(), Corrupt> {
        for item in items {
            if let Some(defect) = item.defect() {
                return Err(Corrupt(format!("change {} has {defect}", item.dot)));
            }
            let (node, life) = (self.config.node, self.config.incarnation);
            let is_of_now = |dot: Dot| dot.origin == node && dot.incarnation >= life;
            if is_of_now(item.dot) || item.observed.iter().any(is_of_now) {
                return Err(Corrupt(format!(
                    "change {} was made, or saw one made, by this node in a life not before the present {life}; the \
                     incarnation must grow with every start, or dots would be given out twice",
                    item.dot
                )));
            }
            self.clock.observe(item.stamp);
            self.replica.join(item);
            self.note_crowding(&item.key);
        }
        Ok(())
    }

    fn restore_context(&mut self, wire: &WireContext) -> Result<(), Corrupt> {
        let Some(context) = Context::from_wire(wire) else {
            return Err(Corrupt("a stored context has intervals out of order".into()));
        };
        let (node, life) = (self.config.node, self.config.incarnation);
        if context.floor(node) > life || context.lives(node).any(|stored| stored >= life) {
            return Err(Corrupt(format!(
                "a stored context holds changes of this node in a life not before the present {life}; the incarnation \
                 must grow with every start, or dots would be given out twice"
            )));
        }
        self.replica.join_context(&context, &BTreeSet::new());
        Ok(())
    }

    pub(super) fn make_checkpoint(&self) -> Checkpoint {
        let head = Chunk::Head {
            clock: self.clock.lease().max(self.clock.last()),
            whole_since: self.whole_since,
            horizon: self.sessions.horizon(),
        };
        let sessions = self.sessions.parts(CHUNK_BYTES).map(Chunk::Sessions);
        let replica = self.replica.clone();
        let context = Chunk::Context(replica.context().to_wire(WIRE_INTERVALS_MAX));
        let mut at = None;
        let items = std::iter::from_fn(move || {
            let mut items: Vec<Item> = Vec::new();
            let mut bytes = 0;
            for item in replica.all_items_after(at) {
                if bytes >= CHUNK_BYTES || items.len() == ITEMS_MAX {
                    break;
                }
                bytes += item.size();
                items.push(item.clone());
            }
            at = Some(items.last()?.dot);
            Some(Chunk::Items(items))
        });
        let chunks = std::iter::once(head)
            .chain(sessions)
            .chain(items)
            .chain([context]);
        Checkpoint::new(chunks.map(|chunk| codec::encode_vec(&chunk)), check_chunk)
    }
}
