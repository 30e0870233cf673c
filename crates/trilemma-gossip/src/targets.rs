//! Whom a tick tells: the members of this node's own groups, the nodes that bring it most news, and random others.
//!
//! **Own groups** come first and always: what is close (a rack, a zone) is to be alike within a tick. **The most useful
//! senders** are those that were the first to tell this node of a change, as GossipSub scores its peers: news counts,
//! volume does not. Who hears early sits well in the network, and passes on early what it is sent. **At least one target
//! is uniformly random**, whatever else is configured: preference alone keeps a rumor where it began (Demers et al. 1987, §3.2).
//!
//! A score is a count of first deliveries that loses a thirty-second of itself each tick, so that it speaks of about the
//! last 32 ticks (half of it is gone after 22). Who brought nothing for long has none.

use std::collections::BTreeMap;

use trilemma_core::NodeId;

use crate::shared::Shared;

/// What one first delivery is worth: fixed point, so that small scores decay smoothly.
const FIRST: u64 = 1 << 16;
/// The share of a score that goes each tick.
const DECAY: u64 = 32;
/// A score below this is none: one delivery is forgotten after about 130 ticks.
const SCORE_MIN: u64 = FIRST / 64;
/// First deliveries that count most, so that no sum overflows.
const SCORE_MAX: u64 = FIRST << 24;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    scores: BTreeMap<NodeId, u64>,
}

impl Targets {
    /// Notes that a peer was the first to tell of this number of changes.
    pub(crate) fn on_news(&mut self, from: NodeId, changes: usize) {
        if changes > 0 {
            let score = self.scores.entry(from).or_default();
            let more = FIRST.saturating_mul(changes as u64);
            *score = score.saturating_add(more).min(SCORE_MAX);
        }
    }

    /// Lets scores decay.
    pub(crate) fn on_tick(&mut self) {
        self.scores.retain(|_, score| {
            *score -= *score / DECAY;
            *score >= SCORE_MIN
        });
    }

    /// Whom to tell in this tick, each once: mates, useful senders, random others.
    pub(crate) fn pick(&self, shared: &mut Shared) -> Vec<NodeId> {
        let mut reachable = shared.reachable();
        let mut targets = Vec::new();
        let mates = &shared.config.mates;
        if !mates.is_empty() {
            targets.extend(reachable.extract_if(.., |peer| mates.contains(peer)));
        }
        let senders = self.useful_senders(shared, &reachable);
        let random = (shared.config.fanout as usize)
            .saturating_sub(senders.len())
            .max(1);
        if !senders.is_empty() {
            targets.extend(reachable.extract_if(.., |peer| senders.contains(peer)));
        }
        targets.extend(shared.sample(reachable, random));
        targets
    }

    /// The nodes that bring most news, of those in `peers`: the configured share of all that bring any, at most half of the
    /// fanout.
    fn useful_senders(&self, shared: &Shared, peers: &[NodeId]) -> Vec<NodeId> {
        let percent = usize::from(shared.config.top_senders_percent);
        let share = (self.scores.len() * percent).div_ceil(100);
        let count = share.min(shared.config.fanout as usize / 2);
        if count == 0 {
            return Vec::new();
        }
        debug_assert!(peers.is_sorted(), "peers out of order");
        let is_there = |node: &NodeId| peers.binary_search(node).is_ok();
        let scores = self.scores.iter().filter(|(node, _)| is_there(node));
        let mut senders: Vec<(u64, NodeId)> = scores.map(|(node, score)| (*score, *node)).collect();
        senders.sort_unstable_by_key(|(score, node)| (std::cmp::Reverse(*score), *node));
        senders.truncate(count);
        senders.into_iter().map(|(_, node)| node).collect()
    }

    /// The module's own invariants.
    pub(crate) fn check(&self, shared: &Shared) {
        debug_assert!(
            self.scores
                .keys()
                .all(|node| shared.config.members.contains(node)),
            "a score of a node that is no member"
        );
        debug_assert!(
            self.scores.values().all(|score| (1..=SCORE_MAX).contains(score)),
            "a score out of its range"
        );
    }
}
