//! A disk that was empty: what its former content may have promised is made good before anybody relies on it.
//!
//! A node that starts on an empty disk cannot know whether it is new or has lost what it had. If it has lost it, members
//! that have not met its new incarnation may still rely on what the former one acknowledged, and may collect a tombstone
//! that the new one never learns of, while it takes what was deleted from a member that is behind:
//!
//! 1. Node 4 is cut off; the others delete `k` and acknowledge that. Only node 4 keeps the tombstone from being collected.
//! 2. Node 2 loses its disk and, connected to node 4 alone, takes the old value of `k` from it.
//! 3. Node 4 learns of the delete and acknowledges it. Node 1 knows of no other node 2 than the one that has acknowledged,
//!    and collects.
//! 4. Node 2 meets node 1: nothing is to be sent, since node 1 holds nothing of `k`, and its context covers both changes.
//!
//! So such a node marks itself **blank**, durably, and its first exchange with every member is *whole*: the member lists all
//! that it holds, and what the node holds beyond that and the member's context covers is dead. From then on the member
//! knows the new incarnation and collects nothing that this one has not acknowledged. When every member has been met the
//! node is as good as one that never lost anything. A member that begins another incarnation before that may have lost
//! its own disk and learned from others what they had collected: it is met again.
//!
//! What is dead is removed a slice in a turn, after the member's context was taken in, so that none of it comes back
//! meanwhile. The member counts as met when all is gone.
//!
//! Until then the two compare nothing: the dead changes make their states differ where their contexts are equal, and the
//! repair of such a difference keeps what either shows. A late message of a former incarnation is ignored, or it would
//! count as having met that one.
//!
//! This needs no clock and no waiting time.

use std::collections::{BTreeMap, BTreeSet};

use trilemma_core::{Incarnation, NodeId, Now};

use crate::config::{Durability, GossipConfig};
use crate::context::Context;
use crate::dot::Dot;
use crate::gossip::Out;
use crate::record::Record;
use crate::replica::Replica;
use crate::shared::Shared;
use crate::store::Store;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Rejoin {
    /// Whether this disk was empty and not every member has been met since.
    pub(crate) is_blank: bool,
    /// Whether the disk held anything when this incarnation began.
    found: bool,
    /// The members that were met, in which incarnation. Forgotten over a restart.
    met: BTreeMap<NodeId, Incarnation>,
    /// Members that have listed all that they hold, while what is dead is being removed.
    meetings: BTreeMap<NodeId, Meeting>,
}

/// What is left to do before a member is met.
#[derive(Debug)]
pub(crate) struct Meeting {
    pub(crate) incarnation: Incarnation,
    /// What the member reflects, and what of it is not dead.
    pub(crate) context: Context,
    pub(crate) listed: Listed,
    /// The last change looked at.
    pub(crate) after: Option<Dot>,
}

/// What a member held at one moment.
#[derive(Debug)]
pub(crate) enum Listed {
    /// All of it.
    Whole(Context),
    /// How it differed from what this node held at another moment. The two need not be the same: what this node has taken in
    /// since is not among what it held, and was held there only if it is in the difference.
    Difference {
        held: Box<Replica>,
        there: BTreeSet<Dot>,
        here: BTreeSet<Dot>,
    },
}

impl Default for Listed {
    fn default() -> Self {
        Listed::Whole(Context::default())
    }
}

impl Listed {
    /// Whether the member held this change.
    pub(crate) fn contains(&self, dot: Dot) -> bool {
        match self {
            Listed::Whole(listed) => listed.contains(dot),
            Listed::Difference { held, there, here } => {
                there.contains(&dot) || held.item(dot).is_some() && !here.contains(&dot)
            }
        }
    }
}

impl Rejoin {
    /// The disk holds something.
    pub(crate) fn note_found(&mut self) {
        self.found = true;
    }

    pub(crate) fn start(&mut self, shared: &mut Shared, effects: &mut Out) {
        assert!(
            self.met.is_empty(),
            "an incarnation begins without having met anybody"
        );
        // Without syncs a power cut takes back what was acknowledged, which is no better than an empty disk.
        if !self.found || shared.config.durability != Durability::Fsync {
            self.is_blank = true;
            shared.append_lazy(Record::Blank, effects);
        }
        self.finish(shared, effects);
    }

    /// Whether a member is still to be met.
    pub(crate) fn is_unmet(&self, peer: NodeId) -> bool {
        self.is_blank && !self.met.contains_key(&peer)
    }

    /// Whether the next exchange with this incarnation of a member must be whole. Until it has been, its context is not
    /// joined, and neither side can conclude anything from equal contexts.
    pub(crate) fn needs(&self, peer: NodeId, incarnation: Incarnation) -> bool {
        self.is_blank && self.met.get(&peer) != Some(&incarnation)
    }

    /// A whole exchange with a member has ended, and its context was taken in. A member that had been met in a former
    /// incarnation, of which only its pages tell as yet, has not been met any more.
    pub(crate) fn meet(&mut self, peer: NodeId, meeting: Meeting) {
        self.met.remove(&peer);
        self.meetings.insert(peer, meeting);
    }

    /// Whether what a member has shown to be dead is being removed. Meanwhile this node's state is not what its context
    /// says.
    pub(crate) fn is_meeting(&self) -> bool {
        !self.meetings.is_empty()
    }

    /// Whether that is so of this member.
    pub(crate) fn is_meeting_with(&self, peer: NodeId) -> bool {
        self.meetings.contains_key(&peer)
    }

    /// Removes the next slice of what is dead; returns whether there is more to look at.
    pub(crate) fn go_on(
        &mut self,
        shared: &mut Shared,
        store: &mut Store,
        now: Now,
        effects: &mut Out,
    ) -> bool {
        let Some((&peer, meeting)) = self.meetings.iter_mut().next() else {
            return false;
        };
        let limit = shared.config.turn_items;
        let replica = &store.replica;
        let is_listed = |dot| meeting.listed.contains(dot);
        let (dead, after) = replica.dead_elsewhere(&meeting.context, is_listed, meeting.after, limit);
        meeting.after = after;
        let incarnation = meeting.incarnation;
        store.repair(shared, now, &[], &dead, effects);
        if after.is_none() {
            self.meetings.remove(&peer);
            self.on_met(shared, peer, incarnation, effects);
            debug_assert!(!self.is_unmet(peer), "a member that was met is to be met again");
        }
        self.is_meeting()
    }

    /// A whole exchange with this incarnation of a member has ended, and nothing is left to do.
    pub(crate) fn on_met(
        &mut self,
        shared: &mut Shared,
        peer: NodeId,
        incarnation: Incarnation,
        effects: &mut Out,
    ) {
        debug_assert!(
            shared.config.peers().any(|member| member == peer),
            "{peer} is no peer"
        );
        if self.is_blank {
            self.met.insert(peer, incarnation);
            self.finish(shared, effects);
        }
    }

    /// A member has begun another incarnation.
    pub(crate) fn on_incarnation(&mut self, peer: NodeId) {
        self.met.remove(&peer);
        if self.meetings.remove(&peer).is_some() {
            // What it lists may be reflected here and not be applied yet: everybody is met again before anything is compared.
            self.met.clear();
        }
    }

    fn finish(&mut self, shared: &mut Shared, effects: &mut Out) {
        let is_met = |peer: NodeId| self.met.contains_key(&peer);
        if self.is_blank && shared.config.peers().all(is_met) {
            self.is_blank = false;
            self.met.clear();
            shared.append_lazy(Record::Rejoined, effects);
        }
    }

    /// The members that are still to be met.
    pub(crate) fn unmet(&self, config: &GossipConfig) -> Vec<NodeId> {
        config.peers().filter(|peer| self.is_unmet(*peer)).collect()
    }

    /// The module's own invariants.
    pub(crate) fn check(&self, config: &GossipConfig) {
        assert!(
            self.is_blank || self.met.is_empty(),
            "members are met although nothing was lost"
        );
        assert!(
            !self.is_blank || config.peers().any(|peer| self.is_unmet(peer)),
            "every member was met and this node still counts as blank"
        );
        assert!(
            self.is_blank || self.meetings.is_empty(),
            "members are being met although nothing was lost"
        );
        assert!(
            self.meetings.keys().all(|peer| !self.met.contains_key(peer)),
            "a member that is being met counts as met"
        );
    }
}
