//! Large changes travel once: they are advertised, and a node that lacks one fetches it from one peer.
//!
//! A rumor that is sent again and again costs its size each time, though most targets have it by then. So a command whose
//! changes take more than [`lazy_bytes`](crate::GossipConfig::lazy_bytes) is sent whole by its origin alone; all others, and the
//! origin in later ticks, send its name (push of names, pull of bodies: Karp et al. 2000, *Randomized rumor spreading*). Who
//! lacks it asks the first peer that has named it, and the next one only if nothing has come after
//! [`fetch_ticks`](crate::GossipConfig::fetch_ticks). Where a change needs vouchers, it is fetched from as many peers.
//!
//! **Bounds.** What one peer has named and is still wanted takes at most [`WANTED_EACH_MAX`] places, so one that invents names
//! costs others none of theirs. What is fetched leaves by [`fetch_bytes_max`](crate::GossipConfig::fetch_bytes_max) a tick; who is
//! not answered asks elsewhere. What nobody answers is forgotten, and left to anti-entropy.

use std::collections::{BTreeMap, VecDeque};

use tracing::warn;
use trilemma_core::NodeId;
use trilemma_core::data::BATCH_LENGTH_MAX;

use crate::context::Context;
use crate::gossip::Out;
use crate::message::{ITEMS_MAX, Message, size};
use crate::replica::Item;
use crate::shared::Shared;
use crate::store::Store;
use crate::vouching::{Command, Vouching};

/// Most commands that are wanted at a time of those that one peer was the first to name.
const WANTED_EACH_MAX: usize = 4096;
/// Peers kept beside those asked that have named a command, too.
const OTHERS_MAX: usize = 4;

/// A command that this node lacks.
#[derive(Debug)]
struct Wanted {
    /// Who named it first, and is charged for it.
    first: NodeId,
    /// Peers asked whose time is not over: as many as must vouch for it, at most.
    asked: Vec<NodeId>,
    /// Who has named it and was not asked.
    others: VecDeque<NodeId>,
    /// When the next one is asked.
    due: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Fetches {
    wanted: BTreeMap<Command, Wanted>,
    /// Places taken by what each peer was the first to name.
    named: BTreeMap<NodeId, usize>,
    /// Bytes that peers have fetched in this tick.
    served: usize,
}

impl Fetches {
    /// Number of commands that are wanted.
    pub(crate) fn len(&self) -> usize {
        self.wanted.len()
    }

    /// A peer names commands that it has. Asks it for those that nobody else was asked for.
    pub(crate) fn on_advertised(
        &mut self,
        shared: &mut Shared,
        known: &Context,
        from: NodeId,
        commands: Vec<Command>,
        effects: &mut Out,
    ) {
        if !is_sound(shared, from, &commands) || shared.is_backlogged() {
            return;
        }
        let sources = if shared.config.is_trusted(from) {
            1
        } else {
            shared.config.vouchers_needed() as usize
        };
        let mut asked = Vec::new();
        for command in commands {
            let (first, of) = command;
            if known.contains_span(first, last(command)) || of == 0 {
                continue;
            }
            if let Some(wanted) = self.wanted.get_mut(&command) {
                if wanted.asked.len() < sources && !wanted.asked.contains(&from) {
                    wanted.asked.push(from);
                    asked.push(command);
                } else if wanted.others.len() < OTHERS_MAX && !wanted.others.contains(&from) {
                    wanted.others.push_back(from);
                }
                continue;
            }
            let named = self.named.entry(from).or_default();
            if *named >= WANTED_EACH_MAX {
                continue;
            }
            *named += 1;
            let wanted = Wanted {
                first: from,
                asked: vec![from],
                others: VecDeque::new(),
                due: shared.ticks + u64::from(shared.config.fetch_ticks),
            };
            self.wanted.insert(command, wanted);
            asked.push(command);
        }
        if !asked.is_empty() {
            effects.send(from, Message::Fetch { commands: asked });
        }
    }

    /// Something of these commands has come: nobody else is asked for what is reflected now.
    pub(crate) fn on_heard(&mut self, known: &Context, commands: impl Iterator<Item = Command>) {
        if self.wanted.is_empty() {
            return;
        }
        for command in commands {
            if known.contains_span(command.0, last(command)) {
                self.forget(command);
            }
        }
    }

    fn forget(&mut self, command: Command) {
        let Some(wanted) = self.wanted.remove(&command) else {
            return;
        };
        if let Some(named) = self.named.get_mut(&wanted.first) {
            *named -= 1;
            if *named == 0 {
                self.named.remove(&wanted.first);
            }
        }
    }

    /// Asks others for what has not come, and forgets what nobody else has named.
    pub(crate) fn on_tick(&mut self, shared: &Shared, known: &Context, effects: &mut Out) {
        self.served = 0;
        let mut asked: BTreeMap<NodeId, Vec<Command>> = BTreeMap::new();
        let mut over = Vec::new();
        for (command, wanted) in &mut self.wanted {
            if wanted.due > shared.ticks {
                continue;
            }
            if known.contains_span(command.0, last(*command)) {
                over.push(*command);
                continue;
            }
            let connected = |peer: &NodeId| shared.view.peers.is_empty() || shared.view.is_connected(*peer);
            while wanted.others.front().is_some_and(|peer| !connected(peer)) {
                wanted.others.pop_front();
            }
            let Some(next) = wanted.others.pop_front() else {
                over.push(*command);
                continue;
            };
            wanted.due = shared.ticks + u64::from(shared.config.fetch_ticks);
            wanted.asked.clear();
            wanted.asked.push(next);
            asked.entry(next).or_default().push(*command);
        }
        over.into_iter().for_each(|command| self.forget(command));
        for (peer, commands) in asked {
            for commands in commands.chunks(ITEMS_MAX) {
                let commands = commands.to_vec();
                effects.send(peer, Message::Fetch { commands });
            }
        }
    }

    /// A peer asks for commands that this node has named.
    pub(crate) fn on_fetch(
        &mut self,
        shared: &mut Shared,
        store: &Store,
        vouching: &Vouching,
        from: NodeId,
        commands: &[Command],
        effects: &mut Out,
    ) {
        if !is_sound(shared, from, commands) {
            return;
        }
        let mut items: Vec<Item> = Vec::new();
        let (mut bytes, mut work) = (0, 0);
        for command in commands {
            if self.served >= shared.config.fetch_bytes_max || work >= shared.config.turn_items {
                break;
            }
            work += usize::from(command.1);
            let found = store.parts(command.0, command.1).chain(vouching.parts(*command));
            let found: Vec<Item> = found.cloned().collect();
            let more = size(&found);
            if !items.is_empty()
                && (items.len() + found.len() > ITEMS_MAX || bytes + more > shared.config.page_bytes)
            {
                answer(shared, from, std::mem::take(&mut items), effects);
                bytes = 0;
            }
            self.served += more;
            bytes += more;
            items.extend(found);
        }
        answer(shared, from, items, effects);
    }

    /// Forgets what a peer has named that has begun another incarnation: it may have lost it.
    pub(crate) fn forget_peer(&mut self, peer: NodeId) {
        for wanted in self.wanted.values_mut() {
            wanted.others.retain(|other| *other != peer);
        }
    }

    /// The module's own invariants.
    pub(crate) fn check(&self, shared: &Shared) {
        assert!(
            self.named
                .values()
                .all(|named| (1..=WANTED_EACH_MAX).contains(named)),
            "a peer has named more than is wanted of it"
        );
        debug_assert_eq!(
            self.named.values().sum::<usize>(),
            self.wanted.len(),
            "places of what is wanted"
        );
        debug_assert!(
            self.wanted
                .values()
                .all(|wanted| wanted.others.len() <= OTHERS_MAX && !wanted.asked.is_empty()),
            "a command that nobody was asked for"
        );
        debug_assert!(
            self.named.keys().all(|peer| shared.config.members.contains(peer)),
            "named by a node that is no member"
        );
    }
}

/// The last dot's number of a command.
fn last((first, of): Command) -> u64 {
    first.seq.saturating_add(u64::from(of.saturating_sub(1)))
}

/// Whether a correct node can have named these commands.
fn is_sound(shared: &mut Shared, from: NodeId, commands: &[Command]) -> bool {
    for command in commands {
        let (first, of) = *command;
        let is_command = first.seq > 0 && (1..=BATCH_LENGTH_MAX).contains(&usize::from(of));
        let newest = crate::dot::Dot {
            seq: last(*command),
            ..first
        };
        if !is_command || shared.claims_own(newest) {
            warn!(%from, dot = %first, of, "ignored a message that names a command which cannot be");
            return false;
        }
    }
    true
}

/// Sends what was fetched. Our own changes leave when they are durable, as always.
fn answer(shared: &Shared, to: NodeId, items: Vec<Item>, effects: &mut Out) {
    if items.is_empty() {
        return;
    }
    let message = Message::Rumors { context: None, items };
    if shared.config.is_durable() {
        effects.send_after_append(to, message);
    } else {
        effects.send(to, message);
    }
}
