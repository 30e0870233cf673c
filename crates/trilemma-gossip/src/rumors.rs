//! Rumors: local writes at once, everything new for some ticks to random peers (inside/gossip#a-write-step-by-step).
//!
//! A rumor names a command by its first dot; what is sent is what of it is still live at that moment, so a newer
//! write of a key takes the place of an older one in every queue by itself. Peers tell in their own rumors what they
//! reflect, and are not sent that again.

use std::collections::{BTreeMap, VecDeque};

use trilemma_core::{AppendSeq, NodeId};

use crate::context::{Context, WireContext};
use crate::dot::Dot;
use crate::gossip::Out;
use crate::message::{ITEMS_MAX, Message, context_bytes};
use crate::replica::Item;
use crate::shared::Shared;
use crate::store::Store;
use crate::writes::NewCommand;

/// Largest context that rumors carry along, in bytes: half a datagram.
const CONTEXT_BYTES_MAX: usize = 512;
/// Up to this many peers, a rumor that all of them have is dropped early. The check costs one look-up per peer.
const KNOWN_PEERS_MAX: usize = 16;
/// Longest anti-entropy page whose changes are also spread as rumors. Longer ones are old news for most.
pub(crate) const PAGE_RUMORS_MAX: usize = 32;

#[derive(Clone, Debug)]
struct Rumor {
    first: Dot,
    of: u16,
    /// Ticks for which it is still spread.
    left: u32,
    /// Not before this record is durable: our own write must not outlive us where we have forgotten it, or a repeat
    /// of its operation would run a second time.
    ready: AppendSeq,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Rumors {
    queue: VecDeque<Rumor>,
    /// Local writes of this turn.
    new_commands: Vec<NewCommand>,
    /// What each peer reflects, as it last said. A hint: it may have crashed and forgotten since.
    reflected: BTreeMap<NodeId, Context>,
    /// The generation of our context that each peer was sent last.
    sent: BTreeMap<NodeId, u64>,
}

impl Rumors {
    /// Number of commands that are spread.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Spreads a local write, at the end of the turn for the first time.
    pub(crate) fn add_new(&mut self, command: NewCommand) {
        self.new_commands.push(command);
    }

    fn push(&mut self, rumor: Rumor, queue_max: usize) {
        assert!(
            rumor.left > 0 && rumor.of > 0,
            "a rumor of nothing, or of no ticks: {rumor:?}"
        );
        if self.queue.len() >= queue_max {
            self.queue.pop_front();
        }
        self.queue.push_back(rumor);
    }

    /// A peer says what it reflects. Replaced, not joined: a peer that lost state must be believed.
    pub(crate) fn on_context(&mut self, from: NodeId, context: Context) {
        self.reflected.insert(from, context);
    }

    /// Forgets hints about a peer that has begun another incarnation.
    pub(crate) fn forget(&mut self, peer: NodeId) {
        self.reflected.remove(&peer);
        self.sent.remove(&peer);
    }

    /// Queues what is new among `items`, from the next tick on. Before they are applied: what is left out then is not
    /// live and will be skipped when its turn comes.
    pub(crate) fn relay(&mut self, shared: &Shared, store: &Store, items: &[Item]) {
        if shared.config.members.len() <= 2 {
            return;
        }
        let left = shared.config.infective_ticks();
        let mut last = None;
        let context = store.replica.context();
        for item in items.iter().filter(|item| !context.contains(item.dot)) {
            let first = item.command();
            if last.replace(first) != Some(first) {
                let rumor = Rumor {
                    first,
                    of: item.part.of,
                    left,
                    ready: AppendSeq(0),
                };
                self.push(rumor, shared.config.rumors_max);
            }
        }
    }

    /// Sends the local writes of this turn: one message for many.
    pub(crate) fn end_turn(&mut self, shared: &mut Shared, store: &Store, effects: &mut Out) {
        let new_commands = std::mem::take(&mut self.new_commands);
        if new_commands.is_empty() {
            return;
        }
        let is_small = shared.config.members.len() <= shared.config.flush_peers_max + 1;
        let fanout = shared.config.fanout as usize;
        let targets = shared.targets(if is_small { usize::MAX } else { fanout });
        let mut items: Vec<Item> = Vec::new();
        let mut bytes = 0;
        for &(first, of) in &new_commands {
            if items.len() + usize::from(of) > ITEMS_MAX || bytes >= shared.config.page_bytes {
                send_new(shared, &targets, std::mem::take(&mut items), effects);
                bytes = 0;
            }
            let from = items.len();
            items.extend(store.parts(first, of).cloned());
            bytes += items[from..].iter().map(Item::size).sum::<usize>();
        }
        send_new(shared, &targets, items, effects);
        let is_durable = shared.config.is_durable();
        let ready = if is_durable {
            effects.last_append()
        } else {
            AppendSeq(0)
        };
        let left = shared.config.infective_ticks();
        for (first, of) in new_commands {
            let rumor = Rumor {
                first,
                of,
                left,
                ready,
            };
            self.push(rumor, shared.config.rumors_max);
        }
    }

    /// The next rumors of the queue, up to the byte budget, to random peers.
    pub(crate) fn on_tick(&mut self, shared: &mut Shared, store: &Store, effects: &mut Out) {
        let targets = shared.targets(shared.config.fanout as usize);
        if targets.is_empty() {
            return;
        }
        let batch = self.take_batch(shared, store);
        let wire = store.replica.context().to_wire(usize::MAX);
        let wire = (context_bytes(&wire) <= CONTEXT_BYTES_MAX).then_some(wire);
        for target in targets {
            self.send(store, target, &batch, wire.as_ref(), effects);
        }
        let peers: Vec<NodeId> = shared.config.peers().take(KNOWN_PEERS_MAX + 1).collect();
        for mut rumor in batch {
            rumor.left -= 1;
            let is_known = |peer: &NodeId| {
                let mut parts = store.parts(rumor.first, rumor.of);
                parts.all(|item| self.knows(*peer, item))
            };
            let is_known = peers.len() <= KNOWN_PEERS_MAX && peers.iter().all(is_known);
            if rumor.left > 0 && !is_known {
                self.queue.push_back(rumor);
            }
        }
    }

    /// Takes the front of the queue, as much as one tick may send; what is no longer live is dropped.
    fn take_batch(&mut self, shared: &Shared, store: &Store) -> Vec<Rumor> {
        let (mut batch, mut early) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        for _ in 0..self.queue.len().min(shared.config.turn_items) {
            if bytes >= shared.config.tick_bytes_max {
                break;
            }
            let Some(rumor) = self.queue.pop_front() else {
                break;
            };
            if rumor.ready > shared.persisted {
                early.push(rumor);
                continue;
            }
            let size: usize = store.parts(rumor.first, rumor.of).map(Item::size).sum();
            if size > 0 {
                bytes += size;
                batch.push(rumor);
            }
        }
        self.queue.extend(early);
        batch
    }

    fn knows(&self, peer: NodeId, item: &Item) -> bool {
        let reflected = self.reflected.get(&peer);
        reflected.is_some_and(|reflected| reflected.contains(item.dot))
    }

    fn send(
        &mut self,
        store: &Store,
        target: NodeId,
        batch: &[Rumor],
        context: Option<&WireContext>,
        effects: &mut Out,
    ) {
        let mut messages: Vec<Vec<Item>> = vec![Vec::new()];
        for rumor in batch {
            let parts: Vec<Item> = store
                .parts(rumor.first, rumor.of)
                .filter(|item| item.dot.origin != target && !self.knows(target, item))
                .cloned()
                .collect();
            match messages.last_mut() {
                Some(items) if items.len() + parts.len() <= ITEMS_MAX => items.extend(parts),
                _ => messages.push(parts),
            }
        }
        let is_news = context.is_some() && self.sent.get(&target) != Some(&store.generation);
        for (at, items) in messages.into_iter().enumerate() {
            let context = if at == 0 && is_news {
                context.cloned()
            } else {
                None
            };
            if context.is_none() && items.is_empty() {
                continue;
            }
            debug_assert!(items.len() <= ITEMS_MAX, "a message that no peer would read");
            if context.is_some() {
                self.sent.insert(target, store.generation);
            }
            effects.send(target, Message::Rumors { context, items });
        }
    }

    /// The module's own invariants.
    pub(crate) fn check(&self, shared: &Shared) {
        let most = shared.config.rumors_max.max(1);
        assert!(
            self.queue.len() <= most,
            "{} rumors, at most {most} may wait",
            self.queue.len()
        );
        debug_assert!(
            self.queue.iter().all(|rumor| rumor.left > 0),
            "a rumor that is over is spread"
        );
        debug_assert!(
            self.reflected
                .keys()
                .all(|peer| shared.config.members.contains(peer)),
            "a hint about a node that is no member"
        );
    }
}

fn send_new(shared: &Shared, targets: &[NodeId], items: Vec<Item>, effects: &mut Out) {
    if items.is_empty() {
        return;
    }
    debug_assert!(items.len() <= ITEMS_MAX, "a message that no peer would read");
    for target in targets {
        let message = Message::Rumors {
            context: None,
            items: items.clone(),
        };
        if shared.config.is_durable() {
            effects.send_after_append(*target, message);
        } else {
            effects.send(*target, message);
        }
    }
}
