//! Which of the changes that others tell may count: *relay on hearing, apply on trust* (inside/gossip#trust).
//!
//! A change is taken in when enough distinct peers have brought the same version of it (`vouchers`), or one that is trusted.
//! Until then it is *unvouched*: held here, passed on like any other, and part of nothing else. Neither store nor context
//! know it, so peers do not take it for known and go on telling this node, and no acknowledgement speaks of it. Every
//! `sync_ticks` it is sent again, until it counts: rumors end, and comparisons do not see it.
//!
//! **What this stops and what not.** A node that garbles or invents changes convinces nobody alone. Nodes pass on what they
//! have heard, though, so a lie sent to one honest node comes to a third from two sides: against liars, not only against
//! faults, stands the signature of the origin ([`crate::signatures`]), or the list of trusted nodes. Where changes are signed one
//! voucher suffices for them, whatever is set; contexts still need as many as are set.
//!
//! The word of a trusted node is worth as much as its care, so it passes on only what it has taken in itself.
//!
//! **Contexts need vouchers, too**: a peer that claims what it never had would make this node refuse it for good. What
//! a finished exchange says its sender reflects is kept, less what is unvouched here, and taken in as far as enough peers say
//! the same. Of its own changes each node is believed: one that was replaced before anybody learned of it is known to its
//! origin alone, and who lies about its own hides nobody else's. So a context may for a while hold a change that an unvouched one has replaced, while the store shows what both
//! have replaced: that ends when the newer one is vouched for.
//!
//! **Bounds.** All that is held takes at most `unvouched_bytes_max`, and each peer occupies at most its share of that (one
//! command of the greatest size, if that is more) with what it was the first to tell. Beyond it, what it tells is left to later
//! exchanges; so who floods this node with inventions takes little of the others' room. It is held in memory: after a
//! restart others tell it again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use tracing::warn;
use trilemma_core::NodeId;

use crate::config::GossipConfig;
use crate::context::Context;
use crate::dot::Dot;
use crate::replica::{Item, Replica};

/// Versions held of one change. A correct origin makes one.
const VERSIONS_MAX: usize = 4;
/// Most changes held that are counted again at the end of every step of a debug build.
const CHECKED_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Vouching {
    held: BTreeMap<Dot, Vec<Version>>,
    /// Bytes of all that is held, and those that each peer occupies with what it was the first to tell.
    bytes: usize,
    occupied: BTreeMap<NodeId, usize>,
    /// Up to where it was sent again.
    sent_again: Option<Dot>,
    /// What peers reflect, as the last exchange with each of them said, less what was unvouched then.
    claimed: BTreeMap<NodeId, Context>,
    /// How often a change of an origin came in two versions.
    contradictions: BTreeMap<NodeId, u64>,
}

/// One version of a change, and who sent it.
#[derive(Debug)]
struct Version {
    item: Item,
    sources: BTreeSet<NodeId>,
    /// Who sent it first, and the room that it takes there.
    first: NodeId,
    bytes: usize,
}

impl Version {
    fn command(&self) -> Command {
        (self.item.command(), self.item.part.of)
    }

    fn is_of(&self, command: Command) -> bool {
        self.command() == command
    }
}

/// The first dot of a command, and the number of its changes.
pub(crate) type Command = (Dot, u16);

/// What has become of some changes that were heard.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// What may be taken in now.
    pub(crate) trusted: Vec<Item>,
    /// The commands that are to be passed on: of what was heard for the first time or, at a trusted node, of what counts now.
    pub(crate) commands: Vec<Command>,
    /// Number of changes that were heard for the first time.
    pub(crate) news: usize,
    /// Whether there was no room for some change.
    pub(crate) is_incomplete: bool,
}

impl Heard {
    fn pass_on(&mut self, command: Command) {
        if self.commands.last() != Some(&command) {
            self.commands.push(command);
        }
    }
}

impl Vouching {
    /// Number of changes that are held.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// The origins whose changes came in two versions, and how often.
    pub(crate) fn contradictions(&self) -> &BTreeMap<NodeId, u64> {
        &self.contradictions
    }

    /// Hears changes of a peer. `replica` is what this node reflects. `is_rejoining`: the disk of this node was empty, so
    /// what members have collected meanwhile may come with less observed than from others.
    pub(crate) fn hear(
        &mut self,
        config: &GossipConfig,
        replica: &Replica,
        from: NodeId,
        items: Vec<Item>,
        is_rejoining: bool,
    ) -> Heard {
        let mut heard = Heard::default();
        let is_trusted = config.suffices(from);
        let passes_on = passes_hearsay_on(config);
        let mut touched = BTreeSet::new();
        for item in items {
            if replica.context().contains(item.dot) {
                continue;
            }
            // Late news of what a change that counts has replaced. That is no voucher for the name: it may be another's.
            if !is_trusted && replica.has_observed(&item) {
                continue;
            }
            let command = (item.command(), item.part.of);
            let is_first = !self.held.contains_key(&item.dot);
            if is_trusted {
                self.forget(item.dot);
                heard.trusted.push(item);
            } else if self.hold(config, from, item, is_rejoining) {
                touched.insert(command);
            } else {
                // Neither news nor hearsay: it would be both again each time that it is sent.
                heard.is_incomplete = true;
                continue;
            }
            heard.news += usize::from(is_first);
            if passes_on && is_first || !passes_on && is_trusted {
                heard.pass_on(command);
            }
        }
        for command in touched {
            let is_ready = self.release(config, command, &mut heard.trusted);
            if is_ready && !passes_on {
                heard.pass_on(command);
            }
        }
        heard
    }

    /// Notes that a peer has sent a change. `false` if there is no room for it.
    fn hold(&mut self, config: &GossipConfig, from: NodeId, item: Item, is_rejoining: bool) -> bool {
        let dot = item.dot;
        let versions = self.held.get_mut(&dot).map_or(&mut [][..], Vec::as_mut_slice);
        let is_same = |version: &&mut Version| {
            version.item == item || is_rejoining && version.item.is_same_but_for_observed(&item)
        };
        if let Some(version) = versions.iter_mut().find(is_same) {
            version.sources.insert(from);
            version.item.observed = version.item.observed.common(&item.observed);
            return true;
        }
        let count = versions.len();
        let bytes = item.size();
        let occupied = self.occupied.get(&from).copied().unwrap_or_default();
        let is_full = self.bytes + bytes > config.unvouched_bytes_max
            || occupied + bytes > config.unvouched_bytes_each();
        if is_full || count >= VERSIONS_MAX {
            return false;
        }
        if count > 0 {
            self.note_contradiction(from, dot);
        }
        self.bytes += bytes;
        self.occupied.insert(from, occupied + bytes);
        self.held.entry(dot).or_default().push(Version {
            item,
            sources: BTreeSet::from([from]),
            first: from,
            bytes,
        });
        true
    }

    fn note_contradiction(&mut self, from: NodeId, dot: Dot) {
        let count = self.contradictions.entry(dot.origin).or_default();
        if *count == 0 {
            warn!(%from, %dot, "a change came in two versions: its origin, or a node that passed it on, is broken or lies");
        }
        *count = count.saturating_add(1);
    }

    /// Takes the changes of a command out, if each that is held has enough vouchers: they become visible together. Whether
    /// that was so.
    fn release(&mut self, config: &GossipConfig, command: Command, trusted: &mut Vec<Item>) -> bool {
        let needed = config.vouchers_needed() as usize;
        let mut ready = Vec::new();
        for (dot, versions) in self.held.range(span(command)) {
            let mut versions = versions
                .iter()
                .filter(|version| version.is_of(command))
                .peekable();
            if versions.peek().is_none() {
                continue;
            }
            let Some(version) = versions.find(|version| version.sources.len() >= needed) else {
                return false;
            };
            ready.push((*dot, version.item.clone()));
        }
        let is_ready = !ready.is_empty();
        for (dot, item) in ready {
            self.forget(dot);
            trusted.push(item);
        }
        is_ready
    }

    /// The changes that are held of a command, to be passed on: of several versions the one with most vouchers.
    pub(crate) fn parts(&self, command: Command) -> impl Iterator<Item = &Item> {
        let most = move |versions: &Vec<Version>| -> Option<usize> {
            let of_it = versions
                .iter()
                .enumerate()
                .filter(|(_, version)| version.is_of(command));
            let best = of_it.max_by_key(|(at, version)| (version.sources.len(), std::cmp::Reverse(*at)));
            best.map(|(at, _)| at)
        };
        let held = self.held.range(span(command));
        held.filter_map(move |(_, versions)| most(versions).map(|at| &versions[at].item))
    }

    /// The next commands of which something is held, to be sent once more: who has it unvouched, too, may lack this voucher,
    /// and compares nothing with us as long as both reflect the same. The page after the last is the first.
    pub(crate) fn again(&mut self, config: &GossipConfig, count: usize) -> Vec<Command> {
        if !passes_hearsay_on(config) {
            return Vec::new();
        }
        let after = self.sent_again.map_or(Bound::Unbounded, Bound::Excluded);
        let page = self.held.range((after, Bound::Unbounded)).take(count);
        let dots: Vec<(Dot, Command)> = page
            .filter_map(|(dot, versions)| Some((*dot, versions.first()?.command())))
            .collect();
        self.sent_again = dots.last().filter(|_| dots.len() == count).map(|(dot, _)| *dot);
        let mut commands: Vec<Command> = dots.into_iter().map(|(_, command)| command).collect();
        commands.dedup();
        commands
    }

    /// Forgets what changes that were taken in have observed: its time will not come.
    pub(crate) fn on_taken(&mut self, items: &[Item]) {
        if self.held.is_empty() {
            return;
        }
        for item in items {
            for mark in item.observed.iter() {
                let from = Dot { seq: 0, ..mark };
                let is_over =
                    |versions: &Vec<Version>| versions.iter().any(|version| version.item.key == item.key);
                let held = self.held.range(from..=mark);
                let over: Vec<Dot> = held
                    .filter(|(_, versions)| is_over(versions))
                    .map(|(dot, _)| *dot)
                    .collect();
                over.into_iter().for_each(|dot| self.forget(dot));
            }
        }
    }

    /// A peer has sent everything that is live at it outside of this node's context, and reflects `claimed`. Returns what this
    /// node may take for reflected: all but what is held, if the peer's word suffices, else its own changes, and as much as
    /// enough peers claim.
    pub(crate) fn on_claimed(
        &mut self,
        config: &GossipConfig,
        from: NodeId,
        claimed: &Context,
        suffices: bool,
    ) -> Context {
        let claimed = claimed.without(self.held.keys().copied());
        if suffices || config.is_trusted(from) {
            return claimed;
        }
        let own = claimed.of(from);
        self.claimed.insert(from, claimed);
        let contexts: Vec<&Context> = self.claimed.values().collect();
        let mut agreed = Context::agreed(&contexts, config.vouchers as usize);
        agreed.join(&own);
        agreed
    }

    /// Forgets what is held and in the context by now.
    pub(crate) fn on_context(&mut self, context: &Context) {
        let known: Vec<Dot> = self
            .held
            .keys()
            .filter(|dot| context.contains(**dot))
            .copied()
            .collect();
        known.into_iter().for_each(|dot| self.forget(dot));
    }

    /// Forgets what a peer claimed that has begun another incarnation: it may have lost it.
    pub(crate) fn forget_peer(&mut self, peer: NodeId) {
        self.claimed.remove(&peer);
    }

    fn forget(&mut self, dot: Dot) {
        for version in self.held.remove(&dot).unwrap_or_default() {
            self.bytes -= version.bytes;
            if let Some(occupied) = self.occupied.get_mut(&version.first) {
                *occupied -= version.bytes;
            }
        }
    }

    /// The module's own invariants.
    pub(crate) fn check(&self, config: &GossipConfig, context: &Context) {
        let each = config.unvouched_bytes_each();
        assert!(
            self.bytes <= config.unvouched_bytes_max && self.bytes == self.occupied.values().sum::<usize>(),
            "{} bytes are held, more than may be or than peers occupy",
            self.bytes
        );
        assert!(
            self.occupied.values().all(|bytes| *bytes <= each),
            "a peer occupies more than its share"
        );
        assert!(
            config.vouchers_needed() > 1 || self.held.is_empty(),
            "changes are held in a keyspace that takes anybody's word, or only signed ones"
        );
        if self.held.len() <= CHECKED_MAX {
            let versions = || self.held.values().flatten();
            debug_assert_eq!(
                self.bytes,
                versions().map(|version| version.bytes).sum::<usize>(),
                "bytes of what is held"
            );
            debug_assert!(
                self.held.keys().all(|dot| !context.contains(*dot)),
                "a change is both reflected and held"
            );
            let needed = config.vouchers as usize;
            let is_single = |version: &Version| version.item.part.of == 1;
            debug_assert!(
                versions()
                    .filter(|version| is_single(version))
                    .all(|version| version.sources.len() < needed),
                "a change is held that has its vouchers"
            );
        }
    }
}

/// Whether this node passes on what it has only heard. The word of a trusted node is that it has taken a change in.
fn passes_hearsay_on(config: &GossipConfig) -> bool {
    config.vouchers_needed() <= 1 || !config.trusted.contains(&config.node)
}

/// Where the changes of a command are.
fn span((first, of): Command) -> std::ops::RangeInclusive<Dot> {
    let seq = first.seq.saturating_add(u64::from(of.saturating_sub(1)));
    first..=Dot { seq, ..first }
}

#[cfg(test)]
mod tests;
