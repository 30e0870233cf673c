//! Rumors: local writes at once, everything new for some ticks to the targets of each (inside/gossip#a-write-step-by-step).
//!
//! A rumor names a command by its first dot; what is sent is what of it is still live at that moment, so a newer
//! write of a key takes the place of an older one in every queue by itself. Peers tell in their own rumors what they
//! reflect, and are not sent that again. Large commands are sent whole once, by their origin, and then by name
//! (see [`fetches`](crate::fetches)).

use std::collections::{BTreeMap, VecDeque};

use trilemma_core::{AppendSeq, NodeId};

use crate::context::{Context, WireContext};
use crate::dot::Dot;
use crate::gossip::Out;
use crate::message::{COMMAND_NAME_BYTES, ITEMS_MAX, Message, context_bytes};
use crate::replica::Item;
use crate::shared::Shared;
use crate::store::Store;
use crate::targets::Targets;
use crate::vouching::{Command, Vouching};

/// Largest context that rumors carry along, in bytes: half a datagram.
const CONTEXT_BYTES_MAX: usize = 512;
/// Up to this many peers, a rumor that all of them have is dropped. The check costs one look-up per peer.
const KNOWN_PEERS_MAX: usize = 16;
/// Checks of what a peer has that take as long as finding a change and sending it.
const CHECKS_PER_CHANGE: usize = 16;
/// Ticks before a command is spread that went to every member at once: by then most have said that they have it.
const SENT_TICKS: u64 = 2;
/// Longest anti-entropy page whose changes are also spread as rumors. Longer ones are old news for most.
pub(crate) const PAGE_RUMORS_MAX: usize = 32;

#[derive(Clone, Debug)]
struct Rumor {
    command: Command,
    /// Ticks for which it is still spread.
    left: u32,
    /// Not before this tick.
    due: u64,
    /// Not before this record is durable: our own write must not outlive us where we have forgotten it, or a repeat
    /// of its operation would run a second time.
    ready: AppendSeq,
}

/// A rumor and what is still live of it.
struct Found<'a> {
    rumor: Rumor,
    items: Vec<&'a Item>,
    /// Whether its name is sent and not what it says.
    is_lazy: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Rumors {
    /// By the tick at which they are due.
    queue: VecDeque<Rumor>,
    /// The changes of this turn's local writes, whole commands.
    new_items: Vec<Item>,
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

    /// Spreads the changes of local writes, whole commands, at the end of the turn for the first time.
    pub(crate) fn add_new(&mut self, changes: Vec<Item>) {
        self.new_items.extend(changes);
    }

    /// Queues a command for as many ticks as all take to learn of it.
    fn push(&mut self, shared: &Shared, command: Command, ready: AppendSeq) {
        let wait = if is_small(shared) { SENT_TICKS } else { 1 };
        self.queue(
            shared,
            Rumor {
                command,
                left: shared.config.infective_ticks(),
                due: shared.ticks + wait,
                ready,
            },
        );
    }

    /// Queues commands for this tick alone.
    pub(crate) fn tell_again(&mut self, shared: &Shared, commands: Vec<Command>) {
        for command in commands {
            self.queue(
                shared,
                Rumor {
                    command,
                    left: 1,
                    due: shared.ticks,
                    ready: AppendSeq(0),
                },
            );
        }
    }

    fn queue(&mut self, shared: &Shared, rumor: Rumor) {
        assert!(
            rumor.left > 0 && rumor.command.1 > 0,
            "a rumor of nothing, or of no ticks: {rumor:?}"
        );
        if self.queue.len() >= shared.config.rumors_max {
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

    /// Queues commands that were heard for the first time, for later ticks. What of them is neither live nor held when their
    /// turn comes is left out then.
    pub(crate) fn relay(&mut self, shared: &Shared, commands: &[Command]) {
        if shared.config.members.len() <= 2 {
            return;
        }
        for command in commands {
            self.push(shared, *command, AppendSeq(0));
        }
    }

    /// Sends the local writes of this turn: one message for many.
    pub(crate) fn end_turn(&mut self, shared: &mut Shared, targets: &Targets, effects: &mut Out) {
        if self.new_items.is_empty() {
            return;
        }
        let targets = if is_small(shared) {
            let reachable = shared.reachable();
            shared.sample(reachable, usize::MAX)
        } else {
            targets.pick(shared)
        };
        let is_durable = shared.config.is_durable();
        let ready = if is_durable {
            effects.last_append()
        } else {
            AppendSeq(0)
        };
        let mut items: Vec<Item> = Vec::new();
        let mut bytes = 0;
        for item in std::mem::take(&mut self.new_items) {
            if item.part.index == 0 {
                self.push(shared, (item.dot, item.part.of), ready);
                let most = ITEMS_MAX - usize::from(item.part.of);
                if items.len() > most || bytes >= shared.config.page_bytes {
                    send_new(is_durable, &targets, std::mem::take(&mut items), effects);
                    bytes = 0;
                }
            }
            bytes += item.size();
            items.push(item);
        }
        send_new(is_durable, &targets, items, effects);
    }

    /// The next rumors of the queue, up to the byte budget, to the targets of this tick.
    pub(crate) fn on_tick(
        &mut self,
        shared: &Shared,
        targets: Vec<NodeId>,
        store: &Store,
        vouching: &Vouching,
        effects: &mut Out,
    ) {
        if targets.is_empty() {
            return;
        }
        let batch = self.take_batch(shared, store, vouching);
        let wire = store.replica.context().to_wire(usize::MAX);
        let wire = (context_bytes(&wire) <= CONTEXT_BYTES_MAX).then_some(wire);
        for target in targets {
            self.send(store.generation, target, &batch, wire.as_ref(), effects);
        }
        for Found { rumor, .. } in batch {
            if rumor.left > 1 {
                let (left, due) = (rumor.left - 1, shared.ticks + 1);
                self.queue.push_back(Rumor { left, due, ..rumor });
            }
        }
    }

    /// Takes the front of the queue, as much as one tick may look at and send. What all peers have said they have, and what
    /// is no longer live, is dropped.
    fn take_batch<'a>(
        &mut self,
        shared: &Shared,
        store: &'a Store,
        vouching: &'a Vouching,
    ) -> Vec<Found<'a>> {
        let peers: Vec<NodeId> = shared.config.peers().take(KNOWN_PEERS_MAX + 1).collect();
        let checks = (1..=KNOWN_PEERS_MAX).contains(&peers.len());
        let is_known = |knows: &dyn Fn(NodeId) -> bool| checks && peers.iter().all(|peer| knows(*peer));
        let (mut batch, mut early) = (Vec::new(), Vec::new());
        let (mut bytes, mut work) = (0, 0);
        let work_max = shared.config.turn_items * CHECKS_PER_CHANGE;
        while bytes < shared.config.tick_bytes_max && work < work_max {
            let Some(rumor) = self.queue.pop_front_if(|rumor| rumor.due <= shared.ticks) else {
                break;
            };
            work += peers.len();
            if rumor.ready > shared.persisted {
                let due = shared.ticks + 1;
                early.push(Rumor { due, ..rumor });
                continue;
            }
            let (first, of) = rumor.command;
            let last = first.seq.saturating_add(u64::from(of) - 1);
            if is_known(&|peer| self.has_all(peer, first, last)) {
                continue;
            }
            work += CHECKS_PER_CHANGE * usize::from(of);
            let live = store.parts(first, of);
            let items: Vec<&Item> = live.chain(vouching.parts(rumor.command)).collect();
            let lacks = |peer| items.iter().any(|item| !self.knows(peer, item));
            if !items.is_empty() && !is_known(&|peer| !lacks(peer)) {
                let size = items.iter().map(|item| item.size()).sum::<usize>();
                let is_lazy = size > shared.config.lazy_bytes;
                bytes += if is_lazy { COMMAND_NAME_BYTES } else { size };
                batch.push(Found {
                    rumor,
                    items,
                    is_lazy,
                });
            }
        }
        self.queue.extend(early);
        batch
    }

    fn has_all(&self, peer: NodeId, first: Dot, last: u64) -> bool {
        let reflected = self.reflected.get(&peer);
        reflected.is_some_and(|reflected| reflected.contains_span(first, last))
    }

    fn knows(&self, peer: NodeId, item: &Item) -> bool {
        let reflected = self.reflected.get(&peer);
        reflected.is_some_and(|reflected| reflected.contains(item.dot))
    }

    fn send(
        &mut self,
        generation: u64,
        target: NodeId,
        batch: &[Found<'_>],
        context: Option<&WireContext>,
        effects: &mut Out,
    ) {
        let mut messages: Vec<Vec<Item>> = vec![Vec::new()];
        let mut names: Vec<Command> = Vec::new();
        for found in batch {
            let lacks = |item: &&&Item| item.dot.origin != target && !self.knows(target, item);
            if found.is_lazy {
                if found.items.iter().any(|item| lacks(&item)) {
                    names.push(found.rumor.command);
                }
                continue;
            }
            let parts = found.items.iter().filter(lacks).map(|item| (*item).clone());
            let parts: Vec<Item> = parts.collect();
            match messages.last_mut() {
                Some(items) if items.len() + parts.len() <= ITEMS_MAX => items.extend(parts),
                _ => messages.push(parts),
            }
        }
        let is_news = context.is_some() && self.sent.get(&target) != Some(&generation);
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
                self.sent.insert(target, generation);
            }
            effects.send(target, Message::Rumors { context, items });
        }
        for commands in names.chunks(ITEMS_MAX) {
            let commands = commands.to_vec();
            effects.send(target, Message::Advertise { commands });
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

/// Whether the changes of local writes go to every member at once.
fn is_small(shared: &Shared) -> bool {
    shared.config.members.len() <= shared.config.flush_peers_max + 1
}

fn send_new(is_durable: bool, targets: &[NodeId], items: Vec<Item>, effects: &mut Out) {
    if items.is_empty() {
        return;
    }
    debug_assert!(items.len() <= ITEMS_MAX, "a message that no peer would read");
    let context = None;
    let message = Message::Rumors { context, items };
    if is_durable {
        effects.send_to_all_after_append(targets, message);
    } else {
        effects.send_to_all(targets, message);
    }
}
