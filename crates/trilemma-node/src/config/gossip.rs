//! How a `gossip` keyspace spreads its changes, and whose word counts there.

use std::fmt::Write as _;
use std::time::Duration;

use trilemma_core::{NodeId, NodeSet};

/// Shortest and longest time between two ticks.
const TICK: std::ops::RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_mins(1);
/// Most nodes that a tick tells at random.
const FANOUT_MAX: u32 = 64;

/// Settings of `gossip`; the same on every node. Others need none of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GossipSettings {
    /// Time between two ticks, from 5 ms to a minute. Default 100 ms. The time until everybody knows is proportional to it.
    pub tick: Duration,
    /// Nodes that a tick tells beside the members of the node's own groups, from 1 to 64. Default 3.
    pub fanout: u32,
    /// Groups of nodes (a rack, a zone). A node tells the others of its own groups at each tick. Default none.
    pub groups: Vec<NodeSet>,
    /// Of the nodes that were recently the first to tell this one of changes, the share in percent that a tick prefers; they
    /// take at most half of the fanout. Default 0.
    pub top_senders_percent: u8,
    /// Distinct nodes that must have sent a change before it counts. Default 1.
    pub vouchers: u32,
    /// Nodes whose word alone suffices. Default none.
    pub trusted: NodeSet,
    /// The nodes that may write. Default `None`: all.
    pub origins: Option<NodeSet>,
    /// Whether each change must carry a signature of its origin. Default not.
    pub signatures: bool,
}

impl Default for GossipSettings {
    fn default() -> Self {
        Self {
            tick: Duration::from_millis(100),
            fanout: 3,
            groups: Vec::new(),
            top_senders_percent: 0,
            vouchers: 1,
            trusted: NodeSet::default(),
            origins: None,
            signatures: false,
        }
    }
}

impl GossipSettings {
    /// Refuses what cannot work, who the members are.
    pub fn check(&self) -> Result<(), String> {
        if !TICK.contains(&self.tick) {
            let (from, to) = (TICK.start(), TICK.end());
            return Err(format!(
                "tick_ms is {:?}: from {from:?} to {to:?} are possible",
                self.tick
            ));
        }
        if !(1..=FANOUT_MAX).contains(&self.fanout) {
            return Err(format!(
                "fanout is {}: from 1 to {FANOUT_MAX} are possible",
                self.fanout
            ));
        }
        if self.top_senders_percent > 100 {
            return Err(format!(
                "top_senders_percent is {}: at most 100",
                self.top_senders_percent
            ));
        }
        if self.top_senders_percent > 0 && self.fanout < 2 {
            return Err(
                "top_senders_percent needs a fanout of 2 or more: preferred nodes take at most half of it, since \
                 changes sent to preferred nodes alone may never leave them"
                    .into(),
            );
        }
        if self.vouchers == 0 {
            return Err("vouchers is 0: a change comes from at least one node".into());
        }
        if self.origins.as_ref().is_some_and(NodeSet::is_empty) {
            return Err("origins is empty: nobody could write; leave it out to let all nodes write".into());
        }
        Ok(())
    }

    /// Refuses what does not fit the members.
    pub(super) fn check_members(&self, members: &NodeSet) -> Result<(), String> {
        let lists = self.groups.iter().map(|group| ("groups", group));
        let lists = lists.chain([("trusted", &self.trusted)]);
        for (key, nodes) in lists.chain(self.origins.iter().map(|origins| ("origins", origins))) {
            if let Some(stranger) = nodes.iter().find(|node| !members.contains(*node)) {
                return Err(format!(
                    "{key} names node {stranger}, which is not among the members {members}"
                ));
            }
        }
        let peers = members.len().saturating_sub(1).max(1);
        if self.vouchers as usize > peers {
            return Err(format!(
                "vouchers is {}: a node has only {peers} others to hear a change from; with {} nodes choose {peers} or \
                 less",
                self.vouchers,
                members.len()
            ));
        }
        Ok(())
    }

    /// The members of a node's own groups.
    pub(crate) fn mates(&self, node: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let own = self.groups.iter().filter(move |group| group.contains(node));
        own.flat_map(NodeSet::iter)
    }

    /// What differs from the defaults, for the text that nodes compare.
    pub(super) fn text(&self) -> String {
        let (mut text, usual) = (String::new(), Self::default());
        let mut add = |differs: bool, what: String| {
            if differs {
                // Writing to a text cannot fail.
                let _ = write!(text, ", {what}");
            }
        };
        add(self.tick != usual.tick, format!("tick {:?}", self.tick));
        add(self.fanout != usual.fanout, format!("fanout {}", self.fanout));
        for group in &self.groups {
            add(true, format!("group {{{group}}}"));
        }
        let percent = self.top_senders_percent;
        add(
            percent != usual.top_senders_percent,
            format!("top senders {percent} %"),
        );
        add(
            self.vouchers != usual.vouchers,
            format!("vouchers {}", self.vouchers),
        );
        add(!self.trusted.is_empty(), format!("trusted {{{}}}", self.trusted));
        if let Some(origins) = &self.origins {
            add(true, format!("origins {{{origins}}}"));
        }
        add(self.signatures, "signatures required".into());
        text
    }
}
