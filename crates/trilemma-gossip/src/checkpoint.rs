//! Restart: what the log and the checkpoint bring back, and the checkpoint itself.

use serde::{Deserialize, Serialize};
use trilemma_core::checkpoint::CHUNK_BYTES;
use trilemma_core::codec::{self, bounded_vec};
use trilemma_core::session::{OpResult, Sessions, StoredSession, WholeRecord};
use trilemma_core::{Checkpoint, Corrupt, Incarnation, Version};

use crate::clock::Stamp;
use crate::context::{Context, WIRE_INTERVALS_MAX, WireContext};
use crate::gossip::Gossip;
use crate::message::ITEMS_MAX;
use crate::record::Record;
use crate::replica::Item;
use crate::writes::applied;

/// A checkpoint: one head, then sessions, what is deferred, all live items, and the context that covers them. Old ones
/// stay readable: a new kind of chunk is added at the end.
#[derive(Serialize, Deserialize)]
enum Chunk {
    /// The head as earlier versions wrote it: with the whole session record. It is read, not written.
    WholeHead {
        clock: Stamp,
        durable_since: Option<Incarnation>,
        sessions: WholeRecord,
    },
    Items(#[serde(deserialize_with = "bounded_vec::<_, _, ITEMS_MAX>")] Vec<Item>),
    Context(WireContext),
    Head {
        /// No stamp up to this one is issued again.
        clock: Stamp,
        /// See `Record::Begin`.
        durable_since: Option<Incarnation>,
        /// See [`Sessions::horizon`].
        horizon: Version,
    },
    Sessions(Vec<StoredSession>),
    /// Changes that are reflected and not shown yet.
    Deferred(#[serde(deserialize_with = "bounded_vec::<_, _, ITEMS_MAX>")] Vec<Item>),
    /// What is shown of their keys instead.
    Shadow(#[serde(deserialize_with = "bounded_vec::<_, _, ITEMS_MAX>")] Vec<Item>),
    /// The position of the session record, where it is above the clock.
    Position(Stamp),
    /// See `Record::Blank`.
    Blank,
}

/// Whether `restore` could read this chunk of a checkpoint.
fn check_chunk(chunk: &[u8]) -> Result<(), Corrupt> {
    match codec::decode(chunk)? {
        Chunk::Sessions(part) => Sessions::new(1).add(&part),
        Chunk::WholeHead { .. }
        | Chunk::Items(_)
        | Chunk::Context(_)
        | Chunk::Head { .. }
        | Chunk::Deferred(_)
        | Chunk::Shadow(_)
        | Chunk::Position(_)
        | Chunk::Blank => Ok(()),
    }
}

impl Gossip {
    pub(crate) fn restore_chunk(&mut self, chunk: &[u8]) -> Result<(), Corrupt> {
        self.rejoin.note_found();
        match codec::decode(chunk)? {
            Chunk::Head {
                clock,
                durable_since,
                horizon,
            } => {
                let sessions = Sessions::restoring(horizon, self.shared.config.session_limits());
                self.restore_head(clock, durable_since, sessions)?;
            }
            Chunk::WholeHead {
                clock,
                durable_since,
                sessions,
            } => {
                let sessions = Sessions::from_whole(sessions, self.shared.config.session_limits())?;
                self.restore_head(clock, durable_since, sessions)?;
            }
            Chunk::Sessions(part) => self.writes.sessions.add(&part)?,
            Chunk::Items(items) => self.restore_live(&items)?,
            Chunk::Context(wire) => self.restore_context(&wire)?,
            Chunk::Deferred(items) => {
                self.check_stored(&items)?;
                for item in &items {
                    if !self.store.deferred.restore(item) {
                        return Err(Corrupt(format!("change {} is deferred twice", item.dot)));
                    }
                    self.store.replica.join(item);
                }
            }
            Chunk::Shadow(items) => {
                self.check_stored(&items)?;
                let is_known = |item: &Item| self.store.deferred.restore_shadow(item);
                if !items.iter().all(is_known) {
                    return Err(Corrupt("a shadow of a key of which nothing is deferred".into()));
                }
            }
            Chunk::Position(position) => self.shared.clock.restore_position(position),
            Chunk::Blank => self.rejoin.is_blank = true,
        }
        Ok(())
    }

    fn restore_head(
        &mut self,
        clock: Stamp,
        durable_since: Option<Incarnation>,
        sessions: Sessions,
    ) -> Result<(), Corrupt> {
        self.restore_durable_since(durable_since)?;
        self.shared.clock.restore(clock);
        self.shared.clock.restore_position(clock);
        self.writes.sessions = sessions;
        Ok(())
    }

    fn restore_durable_since(&mut self, durable_since: Option<Incarnation>) -> Result<(), Corrupt> {
        let present = self.shared.config.incarnation;
        if let Some(first) = durable_since.filter(|first| *first > present) {
            return Err(Corrupt(format!(
                "this disk has lived through incarnations from {first} on, and the present one is {present}"
            )));
        }
        self.shared.durable_since = durable_since;
        Ok(())
    }

    pub(crate) fn replay_record(&mut self, record: Record) -> Result<(), Corrupt> {
        self.rejoin.note_found();
        match record {
            Record::Lease(lease) => self.shared.clock.restore_lease(lease),
            Record::Write { op, stamp, items } => {
                self.restore_items(&items)?;
                self.writes.replay(&mut self.shared, op, applied(stamp), stamp);
            }
            Record::Join { items } => self.restore_items(&items)?,
            Record::Context(wire) => self.restore_context(&wire)?,
            Record::Begin { durable_since } => self.restore_durable_since(durable_since)?,
            Record::Fence { op, stamp } => {
                self.writes.replay(&mut self.shared, op, OpResult::Fenced, stamp);
            }
            Record::Deferred { items } => {
                self.check_stored(&items)?;
                items.iter().for_each(|item| self.store.defer(item));
            }
            Record::Repair { restored, removed } => {
                self.check_stored(&restored)?;
                for item in &restored {
                    self.shared.note_shown(item);
                    self.store.replica.restore(item);
                    self.store.deferred.join_restored(item);
                }
                for dot in removed {
                    self.store.remove(dot);
                }
            }
            Record::Blank => self.rejoin.is_blank = true,
            Record::Rejoined => self.rejoin.is_blank = false,
        }
        Ok(())
    }

    /// Whether the disk can hold these changes.
    fn check_stored(&self, items: &[Item]) -> Result<(), Corrupt> {
        let of_earlier = |item: &Item| {
            let mut observed = item.observed.iter();
            self.shared.is_of_earlier(item.dot) && observed.all(|dot| self.shared.is_of_earlier(dot))
        };
        for item in items {
            if let Some(defect) = item.defect() {
                return Err(Corrupt(format!("change {} has {defect}", item.dot)));
            }
            if !of_earlier(item) {
                return Err(Corrupt(format!(
                    "change {} was made, or saw one made, by this node in an incarnation not before the present {}; the \
                     incarnation must grow with every start, or dots would be given out twice",
                    item.dot, self.shared.config.incarnation
                )));
            }
        }
        Ok(())
    }

    /// Takes live changes of a checkpoint, deferred ones among them: those do not move the clock.
    fn restore_live(&mut self, items: &[Item]) -> Result<(), Corrupt> {
        self.check_stored(items)?;
        for item in items {
            if !self.store.deferred.dots().contains(&item.dot) {
                self.shared.note_shown(item);
            }
            self.store.replica.join(item);
            self.store.note_siblings(&mut self.shared, &item.key);
        }
        Ok(())
    }

    fn restore_items(&mut self, items: &[Item]) -> Result<(), Corrupt> {
        self.check_stored(items)?;
        for item in items {
            self.shared.note_shown(item);
            if !self.store.deferred.show(item) {
                self.store.join(item);
            }
            self.store.note_siblings(&mut self.shared, &item.key);
        }
        Ok(())
    }

    fn restore_context(&mut self, wire: &WireContext) -> Result<(), Corrupt> {
        let Some(context) = Context::from_wire(wire) else {
            return Err(Corrupt("a stored context has intervals out of order".into()));
        };
        let (node, present) = (self.shared.config.node, self.shared.config.incarnation);
        let closed = context.last_closed(node);
        if closed.is_some_and(|closed| closed >= present) || context.open(node).any(|open| open >= present) {
            return Err(Corrupt(format!(
                "a stored context holds changes of this node in an incarnation not before the present {present}; the \
                 incarnation must grow with every start, or dots would be given out twice"
            )));
        }
        self.store.replica.join_context(&context);
        Ok(())
    }

    pub(crate) fn make_checkpoint(&self) -> Checkpoint {
        let clock = &self.shared.clock;
        let head = Chunk::Head {
            clock: clock.lease().max(clock.last()),
            durable_since: self.shared.durable_since,
            horizon: self.writes.sessions.horizon(),
        };
        let position = Chunk::Position(clock.position());
        let blank = self.rejoin.is_blank.then_some(Chunk::Blank);
        let sessions = self.writes.sessions.parts(CHUNK_BYTES).map(Chunk::Sessions);
        let first = [head, position].into_iter().chain(blank).chain(sessions);
        // Bodies before what covers them; deferred changes before the live ones, which hold them, too.
        let deferred: Vec<Item> = self.store.deferred.items().cloned().collect();
        let shadows: Vec<Item> = self.store.deferred.shadowed().cloned().collect();
        let deferred = pages(deferred).map(Chunk::Deferred);
        let shadows = pages(shadows).map(Chunk::Shadow);
        let replica = self.store.replica.clone();
        let context = Chunk::Context(replica.context().to_wire(WIRE_INTERVALS_MAX));
        let mut at = None;
        let items = std::iter::from_fn(move || {
            let items = page(replica.all_items_after(at).cloned());
            at = Some(items.last()?.dot);
            Some(Chunk::Items(items))
        });
        let chunks = first.chain(deferred).chain(shadows).chain(items).chain([context]);
        Checkpoint::new(chunks.map(|chunk| codec::encode_vec(&chunk)), check_chunk)
    }
}

/// The first of some items, as many as make a chunk.
fn page(items: impl Iterator<Item = Item>) -> Vec<Item> {
    let mut page: Vec<Item> = Vec::new();
    let mut bytes = 0;
    for item in items {
        if bytes >= CHUNK_BYTES || page.len() == ITEMS_MAX {
            break;
        }
        bytes += item.size();
        page.push(item);
    }
    page
}

fn pages(items: Vec<Item>) -> impl Iterator<Item = Vec<Item>> {
    let mut rest = 0;
    std::iter::from_fn(move || {
        let page = page(items[rest..].iter().cloned());
        rest += page.len();
        (!page.is_empty()).then_some(page)
    })
}
