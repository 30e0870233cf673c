//! What this node reflects and what it shows: the replica, the changes that it defers, and the keys whose winner is to be
//! written back. Whatever changes a key goes through here, so that watchers see it once and the log has it.

mod view;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use trilemma_core::watch::ITEM_CHANGES_MAX;
use trilemma_core::{Change, ChangeBatch, Key, NodeId, Now, Versioned};

use crate::clock::is_acceptable;
use crate::config::{Durability, GossipConfig};
use crate::context::{Context, WIRE_INTERVALS_MAX};
use crate::deferred::Deferred;
use crate::dot::{Dot, OBSERVED_MAX, Observed};
use crate::gossip::Out;
use crate::record::Record;
use crate::replica::{Item, Part, Replica, Sibling, observed, values, winner};
use crate::shared::Shared;
use crate::typed::is_part;

/// How changes came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Unasked: some of those before them may still be under way.
    Rumors,
    /// In answer to a pull.
    Exchange,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) replica: Replica,
    pub(crate) deferred: Deferred,
    /// The last position published to watchers in this incarnation.
    position: u64,
    /// Counts changes of the context, so that peers are sent it once.
    pub(crate) generation: u64,
    /// Keys with too many siblings, and how often the write-back was left to the node that made the winner.
    over_sibling_limit: BTreeMap<Key, u32>,
    /// The same keys by the tick at which this node writes the winner back.
    write_backs: BTreeSet<(u64, Key)>,
}

/// How often a write-back is left to another node that can be reached, before this one does it all the same.
const LEFT_MAX: u32 = 8;

/// Most bytes of changes published as one item: more than all that one message can bring.
const PUBLISHED_BYTES_MAX: usize = 5 << 20;

/// What a change has made of its key.
#[derive(Debug)]
pub(crate) struct Seen {
    /// What readers saw before.
    was: Option<Versioned>,
    /// What they see now.
    now: Option<Versioned>,
    /// Whether the key has several siblings, of which some may have to be written back.
    has_siblings: bool,
}

/// What readers saw of some keys before a change.
type Before = BTreeMap<Key, Option<Versioned>>;

impl Store {
    /// An empty store.
    pub(crate) fn new(config: &GossipConfig) -> Self {
        Self {
            replica: Replica::new(config.secret),
            ..Self::default()
        }
    }

    /// The siblings of a key that reads may see.
    pub(crate) fn shown(&self, key: &[u8]) -> &[Sibling] {
        let shadow = self.deferred.shadow(key);
        shadow.unwrap_or_else(|| self.replica.siblings(key))
    }

    /// The state of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Versioned> {
        winner(self.shown(key)).and_then(Sibling::versioned)
    }

    /// Every concurrent value of a key, the winner first.
    pub(crate) fn values(&self, key: &Key) -> Vec<trilemma_core::Entry> {
        values(key, self.shown(key))
    }

    /// What a new change of `key` made here has observed.
    pub(crate) fn observed(&self, key: &[u8]) -> Observed {
        observed(self.shown(key))
    }

    /// Number of keys that exist for readers.
    pub(crate) fn visible(&self) -> u64 {
        let more = self.deferred.visible_more(&self.replica);
        self.replica.visible().saturating_add_signed(more)
    }

    /// Takes changes of peers in: applies what can be applied, defers what is ahead of time. Returns whether nothing had
    /// to be left out. All changes of the message become visible, and durable, together; those of one command are taken,
    /// deferred or left out together.
    pub(crate) fn receive(
        &mut self,
        shared: &mut Shared,
        now: Now,
        items: Vec<Item>,
        source: Source,
        effects: &mut Out,
    ) -> bool {
        let mut seen = BTreeSet::new();
        let context = self.replica.context();
        let is_new = |item: &Item| !context.contains(item.dot) && seen.insert(item.dot);
        let new_items: Vec<Item> = items.into_iter().filter(is_new).collect();
        if shared.is_backlogged() {
            return new_items.is_empty();
        }
        let mut is_complete = true;
        let is_fragmented = context.intervals() >= shared.config.intervals_max;
        let (mut deferred, mut not_ready) = (Vec::new(), BTreeSet::new());
        for command in new_items.chunk_by(|a, b| a.command() == b.command()) {
            let context = self.replica.context();
            let ahead = |item: &Item| !is_acceptable(item.stamp, now.wall, shared.config.accept_drift);
            // The rest of a command that is deferred waits for it, even if its time has just come.
            if command.iter().any(ahead)
                || command
                    .first()
                    .is_some_and(|item| self.deferred.holds_part_of(item))
            {
                let has_room = self.deferred.has_room(command, &shared.config);
                is_complete &= has_room;
                if has_room {
                    command.iter().for_each(|item| self.defer(item));
                    deferred.extend_from_slice(command);
                }
                not_ready.extend(command.iter().map(|item| item.dot));
            } else if source == Source::Rumors
                && is_fragmented
                && command.iter().all(|item| context.would_fragment(item.dot))
            {
                is_complete = false;
                not_ready.extend(command.iter().map(|item| item.dot));
            }
        }
        let mut ready = new_items;
        ready.retain(|item| !not_ready.contains(&item.dot));
        if !deferred.is_empty() {
            self.generation += 1;
            shared.append_lazy(Record::Deferred { items: deferred }, effects);
        }
        self.apply(shared, ready, effects);
        is_complete
    }

    /// Takes a change in without showing it.
    pub(crate) fn defer(&mut self, item: &Item) {
        if !self.replica.context().contains(item.dot) {
            self.deferred.add(&self.replica, item);
            self.replica.join(item);
            debug_assert!(self.deferred.holds(&item.key), "a deferred change is shown");
        }
    }

    /// Applies changes that were not made by a client of this node, and logs them.
    fn apply(&mut self, shared: &mut Shared, items: Vec<Item>, effects: &mut Out) {
        let items = self.take_in(shared, items, effects);
        if !items.is_empty() {
            shared.append_lazy(Record::Join { items }, effects);
        }
    }

    /// Joins changes into the store and publishes them; returns those that were new.
    pub(crate) fn take_in(
        &mut self,
        shared: &mut Shared,
        mut items: Vec<Item>,
        effects: &mut Out,
    ) -> Vec<Item> {
        let mut seen: BTreeMap<Key, Seen> = BTreeMap::new();
        items.retain(|item| {
            assert!(
                !self.deferred.holds_part_of(item),
                "{:?} would be shown while another change of its command is deferred",
                item.dot
            );
            shared.clock.observe(item.stamp);
            let Some(change) = self.join(item) else {
                return false;
            };
            debug_assert!(
                self.replica.context().contains(item.dot),
                "taken in and not reflected"
            );
            // Of several changes of a key the first says what was before, and the last what is now.
            match seen.entry(item.key.clone()) {
                Entry::Vacant(place) => drop(place.insert(change)),
                Entry::Occupied(mut place) => {
                    let was = place.get_mut().was.take();
                    place.insert(Seen { was, ..change });
                }
            }
            true
        });
        if items.is_empty() {
            return items;
        }
        self.generation += 1;
        let mut changes = Vec::with_capacity(seen.len());
        for (
            key,
            Seen {
                was,
                now,
                has_siblings,
            },
        ) in seen
        {
            if has_siblings {
                self.note_siblings(shared, &key);
            }
            if was != now && !is_part(&key) {
                changes.push(Change { key, now });
            }
        }
        self.publish_changes(changes, effects);
        items
    }

    /// Joins one change into the replica and into what is shown. `None` if it was known.
    pub(crate) fn join(&mut self, item: &Item) -> Option<Seen> {
        let is_shadowed = self.deferred.holds(&item.key);
        let shown = is_shadowed.then(|| self.get(&item.key));
        let taken = self.replica.take_in(item)?;
        let Some(was) = shown else {
            return Some(Seen {
                was: taken.was,
                now: taken.now,
                has_siblings: taken.siblings > 1,
            });
        };
        self.deferred.join(item);
        let (now, has_siblings) = (self.get(&item.key), true);
        Some(Seen {
            was,
            now,
            has_siblings,
        })
    }

    /// Shows a page of the deferred changes whose time has come; returns whether there are more. They are logged once more,
    /// so that a restart shows them, too.
    pub(crate) fn release(&mut self, shared: &mut Shared, now: Now, effects: &mut Out) -> bool {
        let items = self.deferred.due(now.wall, &shared.config);
        if items.is_empty() {
            return false;
        }
        let before = self.before(items.iter().map(|item| &item.key));
        for item in &items {
            shared.clock.observe(item.stamp);
            // One that another of this page has observed is over already, and need not be shown.
            self.deferred.show(item);
        }
        self.generation += 1;
        self.publish(shared, before, effects);
        shared.append_lazy(Record::Join { items }, effects);
        self.deferred.is_due(now.wall, &shared.config)
    }

    /// Forgets a live change.
    pub(crate) fn remove(&mut self, dot: Dot) {
        if let Some(key) = self.replica.key_of(dot).cloned() {
            self.replica.remove(dot);
            self.deferred.remove(&key, dot);
        }
    }

    /// Corrects what a whole exchange found wrong; see [`Replica::restore`] and [`Replica::remove`]. It becomes visible, and
    /// durable, a slice at a time: these are no changes of one command. Returns how many changes it was.
    pub(crate) fn repair(
        &mut self,
        shared: &mut Shared,
        now: Now,
        restored: &[Item],
        removed: &[Dot],
        effects: &mut Out,
    ) -> usize {
        let slice = shared.config.turn_items;
        let restored = restored.chunks(slice).map(|items| (items, &[][..]));
        let removed = removed.chunks(slice).map(|dots| (&[][..], dots));
        let slices = restored.chain(removed);
        slices
            .map(|(restored, removed)| self.repair_slice(shared, now, restored, removed, effects))
            .sum()
    }

    fn repair_slice(
        &mut self,
        shared: &mut Shared,
        now: Now,
        restored: &[Item],
        removed: &[Dot],
        effects: &mut Out,
    ) -> usize {
        let keys = removed.iter().filter_map(|dot| self.replica.key_of(*dot));
        let before = self.before(restored.iter().map(|item| &item.key).chain(keys));
        let mut changed = Vec::new();
        for item in restored {
            let is_ahead = !is_acceptable(item.stamp, now.wall, shared.config.accept_drift)
                && self.replica.item(item.dot).is_none();
            if is_ahead && self.deferred.has_room(std::slice::from_ref(item), &shared.config) {
                self.deferred.add(&self.replica, item);
            } else if is_ahead {
                continue;
            }
            if self.replica.restore(item) {
                self.deferred.join_restored(item);
                changed.push(item.clone());
            }
        }
        for dot in removed {
            self.remove(*dot);
        }
        debug_assert!(
            removed.iter().all(|dot| self.replica.item(*dot).is_none()),
            "what was removed is still live"
        );
        let count = changed.len() + removed.len();
        if count > 0 {
            self.generation += 1;
            self.publish(shared, before, effects);
            let (restored, removed) = (changed, removed.to_vec());
            shared.append_lazy(Record::Repair { restored, removed }, effects);
        }
        count
    }

    fn before<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Before {
        let mut before = Before::new();
        for key in keys {
            before.entry(key.clone()).or_insert_with(|| self.get(key));
        }
        before
    }

    /// Publishes which keys have another state than before.
    fn publish(&mut self, shared: &mut Shared, before: Before, effects: &mut Out) {
        let mut changes = Vec::with_capacity(before.len());
        for (key, was) in before {
            let now = self.get(&key);
            self.note_siblings(shared, &key);
            if was != now && !is_part(&key) {
                changes.push(Change { key, now });
            }
        }
        self.publish_changes(changes, effects);
    }

    /// Publishes changes that became visible together: as one item, unless no watcher could read that. One change may show
    /// a large value of each key that it does not hold itself.
    fn publish_changes(&mut self, changes: Vec<Change>, effects: &mut Out) {
        let (mut item, mut bytes) = (Vec::new(), 0);
        for change in changes {
            let size = change.bytes();
            if item.len() == ITEM_CHANGES_MAX || !item.is_empty() && bytes + size > PUBLISHED_BYTES_MAX {
                self.publish_item(std::mem::take(&mut item), effects);
                bytes = 0;
            }
            bytes += size;
            item.push(change);
        }
        if !item.is_empty() {
            self.publish_item(item, effects);
        }
    }

    fn publish_item(&mut self, changes: Vec<Change>, effects: &mut Out) {
        assert!(
            changes.len() <= ITEM_CHANGES_MAX,
            "{} changes in one item, which no watcher reads",
            changes.len()
        );
        self.position += 1;
        let position = self.position;
        effects.publish(ChangeBatch { position, changes });
    }

    /// Takes in a context all of whose bodies have been taken in.
    pub(crate) fn join_context(&mut self, shared: &mut Shared, context: &Context, effects: &mut Out) {
        let before = self.replica.context().clone();
        self.replica.join_context(context);
        if *self.replica.context() == before {
            return;
        }
        self.generation += 1;
        let wire = self.replica.context().to_wire(WIRE_INTERVALS_MAX);
        shared.append_lazy(Record::Context(wire), effects);
    }

    /// Closes this node's own former incarnations in the context, as far as its present disk has lived through them with
    /// every change synced before it left: then the row holds no change that is not in the context already, and peers get
    /// it like any context, after the bodies. See [`crate::context`].
    pub(crate) fn close_former(&mut self, shared: &mut Shared, effects: &mut Out) {
        let (node, present) = (shared.config.node, shared.config.incarnation);
        let Some(first) = shared.durable_since else {
            return;
        };
        assert!(first <= present, "this disk has lived through what is to come");
        let is_former = |incarnation| (first..present).contains(&incarnation);
        let has_former = self.replica.context().open(node).any(is_former);
        if has_former && shared.config.durability == Durability::Fsync {
            let mut closed = Context::default();
            closed.close(node, first, present);
            self.join_context(shared, &closed, effects);
        }
    }

    /// Sees to it that the winner of a key with too many siblings is written back: by the node that made it, at its next
    /// tick. Any other waits, and does it if that node cannot be reached. Each node that writes a winner back makes
    /// another sibling of it for those that have not seen the others' yet; if all did, that would have no end where
    /// changes spread slowly.
    pub(crate) fn note_siblings(&mut self, shared: &mut Shared, key: &Key) {
        if !self.needs_write_back(shared, key) || self.over_sibling_limit.contains_key(key) {
            return;
        }
        let is_ours = |winner: &Sibling| winner.item.dot.origin == shared.config.node;
        let is_ours = self.replica.winner(key).is_some_and(is_ours);
        let wait = if is_ours { 1 } else { write_back_wait(shared) };
        self.plan_write_back(key.clone(), shared.ticks + wait, 0);
    }

    /// Whether a write-back would help a key: it has too many siblings, or some that a tombstone hides. While changes of
    /// it are deferred nothing is written back, for that would observe what is not shown. Nor is a part of a data type: all of
    /// its siblings count, there are few of them, and a removal that is under way would not have observed the write-back.
    fn needs_write_back(&self, shared: &Shared, key: &Key) -> bool {
        let is_over = self.replica.siblings(key).len() > shared.config.siblings_max;
        (is_over || self.replica.hides(key)) && !self.deferred.holds(key) && !is_part(key)
    }

    /// Writes the winner of keys with too many siblings back under a new dot that has observed them all: a slice of those
    /// that are due, the others at the next ticks. The stamp stays the winner's: the write-back is no newer than what it
    /// repeats, and reads see no change. Returns the changes.
    pub(crate) fn write_back(&mut self, shared: &mut Shared, effects: &mut Out) -> Vec<Item> {
        let now = shared.ticks;
        let (mut written, mut bytes) = (Vec::new(), 0);
        for _ in 0..shared.config.turn_items {
            let is_due = self.write_backs.first().is_some_and(|(at, _)| *at <= now);
            if !is_due || bytes >= shared.config.page_bytes {
                break;
            }
            let Some((_, key)) = self.write_backs.pop_first() else {
                break;
            };
            let left = self.over_sibling_limit.remove(&key).unwrap_or_default();
            let observed = self.replica.observed(&key);
            let Some(winner) = self.replica.winner(&key).map(|winner| winner.item.clone()) else {
                continue;
            };
            if !self.needs_write_back(shared, &key) || observed.len() >= OBSERVED_MAX {
                continue;
            }
            let owner = winner.dot.origin;
            if !shared.config.may_write() {
                continue;
            }
            if owner != shared.config.node && shared.view.is_connected(owner) && left < LEFT_MAX {
                let at = now + write_back_wait(shared);
                self.plan_write_back(key, at, left + 1);
                continue;
            }
            debug_assert!(
                observed.covers(winner.dot),
                "a write-back that does not replace what it repeats"
            );
            let item = Item {
                dot: shared.next_dot(),
                observed,
                part: Part { index: 0, of: 1 },
                ..winner
            };
            let mut item = item;
            shared.sign(&mut item);
            bytes += item.size();
            written.push(item);
        }
        self.apply(shared, written.clone(), effects);
        written
    }

    fn plan_write_back(&mut self, key: Key, at: u64, left: u32) {
        self.write_backs.insert((at, key.clone()));
        self.over_sibling_limit.insert(key, left);
    }

    /// What is still live of a command.
    pub(crate) fn parts(&self, first: Dot, of: u16) -> impl Iterator<Item = &Item> {
        (0..u64::from(of)).filter_map(move |index| {
            let seq = first.seq.saturating_add(index);
            self.replica.item(Dot { seq, ..first })
        })
    }

    /// The members whose changes are deferred.
    pub(crate) fn deferred_origins(&self) -> BTreeSet<NodeId> {
        let dots = self.deferred.dots().iter();
        dots.map(|dot| dot.origin).collect()
    }

    /// The invariants of the store and its parts.
    pub(crate) fn check(&self) {
        self.replica.check();
        self.deferred.check(&self.replica);
        assert_eq!(
            self.write_backs.len(),
            self.over_sibling_limit.len(),
            "keys to be written back, and when"
        );
    }
}

/// Ticks that a node waits before it writes back what another has made, so that not all do it at the same time.
fn write_back_wait(shared: &mut Shared) -> u64 {
    16 + shared.rng.below(16 * shared.config.members.len() as u64)
}
