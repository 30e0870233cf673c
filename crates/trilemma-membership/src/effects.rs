//! Inputs and effects: everything between a member and its host.

use bytes::Bytes;
use trilemma_core::{Instant, Lane, Message as _, NodeId};

use crate::message::{Message, Update};
use crate::standing::{Incarnation, Standing, State};

/// What a member reacts to.
#[derive(Clone, Debug)]
pub enum Input {
    /// The first input.
    Start,
    /// A datagram, or a message of a stream, of another node. The host has checked that `from` sent it, and decoded it.
    Receive {
        /// The sender.
        from: NodeId,
        /// How it came: a ping of a stream is answered over the stream.
        lane: Lane,
        /// What it sent.
        message: Message,
    },
    /// This epoch, asked for by [`Persist::Epoch`], is durable.
    EpochPersisted(u64),
    /// The instant last given by [`Effects::wake`] has come.
    Wake,
    /// The node leaves the cluster. [`Event::Left`] follows when others know.
    Leave,
    /// An epoch of a member is excluded, by one with the right to do so.
    Evict {
        /// The member.
        node: NodeId,
        /// The last epoch that is excluded.
        epoch: u64,
        /// The signature of [`crate::Statement::Evict`].
        signature: Bytes,
    },
    /// A node that was evicted has dropped what it had, and joins again in a new epoch.
    Rejoin,
}

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The receiver. [`crate::Membership::address`] says where to dial if there is no connection.
    pub to: NodeId,
    /// How: as a datagram, or over a stream. A `Ping` over [`Lane::Control`] asks whether a path loses datagrams alone.
    pub lane: Lane,
    /// The message.
    pub message: Message,
}

/// What must be kept over a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Persist {
    /// The epoch. Nothing of it is announced before [`Input::EpochPersisted`].
    Epoch(u64),
    /// The member list, for [`crate::Membership::new`]. Nothing waits for it.
    Members(Vec<Update>),
}

/// What the host should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A member is new, or its state or incarnation has changed.
    Changed {
        /// The member.
        node: NodeId,
        /// What it was; `None` if it was unknown.
        former: Option<State>,
        /// What it is.
        standing: Standing,
    },
    /// The member list was received whole.
    Joined,
    /// This node announces itself with another incarnation.
    Announced(Incarnation),
    /// This node was excluded in this epoch. It is silent until [`Input::Rejoin`], or a restart.
    Evicted(u64),
    /// Others know that this node leaves. The host may stop.
    Left,
    /// A connection to this member should be kept.
    Connect(NodeId),
    /// It need not be kept any more.
    Disconnect(NodeId),
}

/// What a step wants done.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// Messages, in order.
    pub sends: Vec<Outgoing>,
    /// What to keep.
    pub persists: Vec<Persist>,
    /// What has happened.
    pub events: Vec<Event>,
    /// When to call with [`Input::Wake`]. Replaces what was asked for before.
    pub wake: Option<Instant>,
}

impl Effects {
    pub(crate) fn send(&mut self, to: NodeId, message: Message) {
        let lane = message.lane();
        self.sends.push(Outgoing { to, lane, message });
    }
}
