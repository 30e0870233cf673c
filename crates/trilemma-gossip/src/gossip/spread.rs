//! Rumours: local writes at once, everything new for some ticks to random peers (design note, section 4).
//!
//! A rumour names a command by its first dot; what is sent is what of it is still live at that moment, so a newer
//! write of a key takes the place of an older one in every queue by itself. Peers tell in their own rumours what they
//! reflect (`heard`), and are not told that again.

use std::collections::{BTreeMap, VecDeque};

use trilemma_core::{AppendSeq, NodeId, Now, PeerView};

use super::{Gossip, Out};
use crate::context::{Context, WireContext};
use crate::dot::Dot;
use crate::message::{ITEMS_MAX, Message, context_bytes};
use crate::replica::Item;

/// Largest context that rumours carry along, in bytes: half a datagram.
const HEARD_BYTES_MAX: usize = 512;
/// Up to this many peers, a rumour that all of them have is dropped early. The check costs one look-up per peer.
const KNOWN_PEERS_MAX: usize = 16;
/// Longest anti-entropy page whose changes are also spread as rumours. Longer ones are old news for most.
pub(super) const PAGE_RUMOURS_MAX: usize = 32;

#[derive(Clone, Debug)]
struct Rumour {
    first: Dot,
    of: u16,
    /// Ticks for which it is still spread.
    left: u32,
    /// Not before this record is durable: our own write must not outlive us where we have forgotten it, or a repeat
    /// of its operation would run a second time.
    ready: AppendSeq,
}

#[derive(Debug, Default)]
pub(super) struct Rumours {
    queue: VecDeque<Rumour>,
    /// Local writes of this turn: first dot, number of parts.
    fresh: Vec<(Dot, u16)>,
    /// What each peer reflects, as it last said. A hint: it may have crashed and forgotten since.
    heard: BTreeMap<NodeId, Context>,
    /// The generation of our context that each peer was told last.
    told: BTreeMap<NodeId, u64>,
}

impl Rumours {
    pub(super) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn add_fresh(&mut self, first: Dot, of: u16) {
        self.fresh.push((first, of));
    }

    fn push(&mut self, rumour: Rumour, queue_max: usize) {
        if self.queue.len() >= queue_max {
            self.queue.pop_front();
        }
        self.queue.push_back(rumour);
    }

    /// Spreads what a peer brought, from the next tick on.
    pub(super) fn add_relays(&mut self, items: &[Item], queue_max: usize, ticks: u32) {
        let mut last = None;
        for item in items {
            let first = item.command();
            if last.replace(first) != Some(first) {
                let rumour = Rumour {
                    first,
                    of: item.part.of,
                    left: ticks,
                    ready: AppendSeq(0),
                };
                self.push(rumour, queue_max);
            }
        }
    }
}

impl Gossip {
    /// What is still live of a command.
    fn parts(&self, first: Dot, of: u16) -> impl Iterator<Item = &Item> {
        (0..u64::from(of)).filter_map(move |index| {
            let seq = first.seq.saturating_add(index);
            self.replica.item(Dot { seq, ..first })
        })
    }

    /// The members that can be reached, as far as known; all others as long as nothing is known.
    pub(super) fn reachable(&self) -> Vec<NodeId> {
        let connected: Vec<NodeId> = self
            .config
            .peers()
            .filter(|peer| self.view.is_connected(*peer))
            .collect();
        if connected.is_empty() && self.view.peers.is_empty() {
            return self.config.peers().collect();
        }
        connected
    }

    /// Distinct, uniformly random peers.
    fn targets(&mut self, count: usize) -> Vec<NodeId> {
        let mut peers = self.reachable();
        let count = count.min(peers.len());
        for at in 0..count {
            let other = at + self.rng.below((peers.len() - at) as u64) as usize;
            peers.swap(at, other);
        }
        peers.truncate(count);
        peers
    }

    /// Sends the local writes of this turn: one message for many.
    pub(super) fn flush(&mut self, effects: Out<'_>) {
        let fresh = std::mem::take(&mut self.rumours.fresh);
        if fresh.is_empty() {
            return;
        }
        let small = self.config.members.len() <= self.config.flush_peers_max + 1;
        let count = if small {
            usize::MAX
        } else {
            self.config.fanout as usize
        };
        let targets = self.targets(count);
        let mut items: Vec<Item> = Vec::new();
        let mut bytes = 0;
        for &(first, of) in &fresh {
            if items.len() + usize::from(of) > ITEMS_MAX || bytes >= self.config.page_bytes {
                self.send_fresh(&targets, std::mem::take(&mut items), effects);
                bytes = 0;
            }
            let from = items.len();
            items.extend(self.parts(first, of).cloned());
            bytes += items[from..].iter().map(Item::size).sum::<usize>();
        }
        self.send_fresh(&targets, items, effects);
        let ready = if self.is_durable() {
            effects.last_append()
        } else {
            AppendSeq(0)
        };
        let left = self.config.infective_ticks();
        for (first, of) in fresh {
            let rumour = Rumour {
                first,
                of,
                left,
                ready,
            };
            self.rumours.push(rumour, self.config.rumours_max);
        }
    }

    fn send_fresh(&self, targets: &[NodeId], items: Vec<Item>, effects: Out<'_>) {
        if items.is_empty() {
            return;
        }
        for target in targets {
            let message = Message::Rumours {
                heard: None,
                items: items.clone(),
            };
            if self.is_durable() {
                effects.send_after_append(*target, message);
            } else {
                effects.send(*target, message);
            }
        }
    }

    /// One tick: the next rumours of the queue, up to the byte budget, to random peers.
    pub(super) fn spread(&mut self, effects: Out<'_>) {
        let targets = self.targets(self.config.fanout as usize);
        if targets.is_empty() {
            return;
        }
        let hot = self.take_hot();
        let wire = self.replica.context().to_wire(usize::MAX);
        let wire = (context_bytes(&wire) <= HEARD_BYTES_MAX).then_some(wire);
        for target in targets {
            self.tell(target, &hot, wire.as_ref(), effects);
        }
        let peers: Vec<NodeId> = self.config.peers().take(KNOWN_PEERS_MAX + 1).collect();
        for mut rumour in hot {
            rumour.left -= 1;
            let known = peers.len() <= KNOWN_PEERS_MAX
                && peers.iter().all(|peer| {
                    self.parts(rumour.first, rumour.of)
                        .all(|item| self.knows(*peer, item))
                });
            if rumour.left > 0 && !known {
                self.rumours.queue.push_back(rumour);
            }
        }
    }

    /// Takes the front of the queue, as much as one tick may send; what is no longer live is dropped.
    fn take_hot(&mut self) -> Vec<Rumour> {
        let (mut hot, mut early) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        for _ in 0..self.rumours.queue.len() {
            if bytes >= self.config.tick_bytes_max {
                break;
            }
            let Some(rumour) = self.rumours.queue.pop_front() else {
                break;
            };
            if rumour.ready > self.persisted {
                early.push(rumour);
                continue;
            }
            let size: usize = self.parts(rumour.first, rumour.of).map(Item::size).sum();
            if size > 0 {
                bytes += size;
                hot.push(rumour);
            }
        }
        self.rumours.queue.extend(early);
        hot
    }

    fn knows(&self, peer: NodeId, item: &Item) -> bool {
        self.rumours
            .heard
            .get(&peer)
            .is_some_and(|heard| heard.contains(item.dot))
    }

    fn tell(&mut self, target: NodeId, hot: &[Rumour], heard: Option<&WireContext>, effects: Out<'_>) {
        let mut messages: Vec<Vec<Item>> = vec![Vec::new()];
        for rumour in hot {
            let parts: Vec<Item> = self
                .parts(rumour.first, rumour.of)
                .filter(|item| item.dot.origin != target && !self.knows(target, item))
                .cloned()
                .collect();
            match messages.last_mut() {
                Some(items) if items.len() + parts.len() <= ITEMS_MAX => items.extend(parts),
                _ => messages.push(parts),
            }
        }
        let news = heard.is_some() && self.rumours.told.get(&target) != Some(&self.generation);
        for (at, items) in messages.into_iter().enumerate() {
            let heard = if at == 0 && news { heard.cloned() } else { None };
            if heard.is_none() && items.is_empty() {
                continue;
            }
            if heard.is_some() {
                self.rumours.told.insert(target, self.generation);
            }
            effects.send(target, Message::Rumours { heard, items });
        }
    }

    pub(super) fn receive_rumours(
        &mut self,
        now: Now,
        from: NodeId,
        heard: Option<WireContext>,
        items: Vec<Item>,
        effects: Out<'_>,
    ) {
        if let Some(wire) = heard {
            let Some(context) = self.check_context(from, &wire) else {
                return;
            };
            // Replaced, not joined: a peer that lost state must be believed.
            self.rumours.heard.insert(from, context);
        }
        if !self.check_items(from, &items) {
            return;
        }
        self.relay(&items);
        self.receive_items(now, items, true, effects);
    }

    /// Queues what is new among `items`. Before they are applied: what is parked or left out is not live and will be
    /// skipped when its turn comes.
    pub(super) fn relay(&mut self, items: &[Item]) {
        if self.config.members.len() <= 2 {
            return;
        }
        let fresh: Vec<Item> = items
            .iter()
            .filter(|item| !self.replica.context().contains(item.dot))
            .cloned()
            .collect();
        let ticks = self.config.infective_ticks();
        self.rumours.add_relays(&fresh, self.config.rumours_max, ticks);
    }

    /// Forgets hints about peers that have begun a new life, and opens a comparison with all that have come back.
    pub(super) fn peers_changed(&mut self, view: PeerView, effects: Out<'_>) {
        for (&node, peer) in &view.peers {
            if node == self.config.node || !self.config.members.contains(&node) {
                continue;
            }
            let before = self.view.peers.get(&node);
            let reborn = before.is_some_and(|before| before.incarnation != peer.incarnation);
            if reborn {
                self.rumours.heard.remove(&node);
                self.rumours.told.remove(&node);
                self.exchanges.forget(node);
            }
            let is_back = peer.connected && (reborn || before.is_none_or(|before| !before.connected));
            if is_back {
                self.compare(node, effects);
            }
        }
        self.view = view;
    }
}
