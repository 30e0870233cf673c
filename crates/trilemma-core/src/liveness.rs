//! Which nodes can be reached: pings between node pairs, shared by all keyspaces of a node.
//!
//! Every node sends every peer a ping each [`LivenessConfig::interval`], with a number, and echoes the newest number
//! it has received. A peer is *connected* when it echoed one of our pings that was sent within
//! [`LivenessConfig::timeout`]: proof that both directions work, which a one-way cut would not give. Model:
//! CockroachDB's store liveness (cockroachdb/cockroach#125261). Pure; the view is advice, never a base for safety.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{Incarnation, NodeId};
use crate::protocol::{Peer, PeerView};
use crate::time::Instant;

/// Pings remembered per peer, so that an echo finds its sending time. Older ones count as lost.
const PINGS_REMEMBERED: usize = 64;

/// How often to ping and how long silence lasts before a peer counts as unreachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LivenessConfig {
    /// Time between two pings to one peer. Default 50 ms. Less finds failures sooner and costs datagrams.
    pub interval: Duration,
    /// Age of the newest echoed ping beyond which a peer is unreachable. Default 300 ms, six pings.
    pub timeout: Duration,
}

impl Default for LivenessConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(50),
            timeout: Duration::from_millis(300),
        }
    }
}

/// One ping on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// The incarnation of the sender's process.
    pub incarnation: Incarnation,
    /// Its number, from 1 in each incarnation of the sender.
    pub number: u64,
    /// The newest ping received from the addressee: its incarnation and number.
    pub echo: Option<(Incarnation, u64)>,
}

/// The pings of one node.
#[derive(Debug)]
pub struct Liveness {
    config: LivenessConfig,
    incarnation: Incarnation,
    peers: BTreeMap<NodeId, Contact>,
    next_ping: Instant,
    /// The first tick.
    started: Option<Instant>,
    /// Whether a view was given. The first comes after a timeout even if nobody was heard: that all are silent is
    /// news to a node that has just started, and lets it refuse at once what it cannot do.
    reported: bool,
}

#[derive(Debug, Default)]
struct Contact {
    incarnation: Option<Incarnation>,
    heard: u64,
    sent: VecDeque<(u64, Instant)>,
    next_number: u64,
    /// When the newest echoed ping was sent.
    proven: Option<Instant>,
    connected: bool,
}

impl Liveness {
    /// The pings of a node in this incarnation towards these peers.
    #[must_use]
    pub fn new(
        config: LivenessConfig,
        incarnation: Incarnation,
        peers: impl IntoIterator<Item = NodeId>,
    ) -> Self {
        let peers = peers.into_iter().map(|node| (node, Contact::default())).collect();
        Self {
            config,
            incarnation,
            peers,
            next_ping: Instant::ZERO,
            started: None,
            reported: false,
        }
    }

    /// When [`Liveness::tick`] wants to be called next.
    #[must_use]
    pub fn wake_at(&self) -> Instant {
        self.next_ping
    }

    /// Sends pings if they are due. Returns the new view if some peer's state has changed.
    pub fn tick(&mut self, now: Instant, mut send: impl FnMut(NodeId, Ping)) -> Option<PeerView> {
        if now >= self.next_ping {
            self.next_ping = now + self.config.interval;
            for (node, contact) in &mut self.peers {
                contact.next_number += 1;
                if contact.sent.len() == PINGS_REMEMBERED {
                    contact.sent.pop_front();
                }
                contact.sent.push_back((contact.next_number, now));
                let echo = contact
                    .incarnation
                    .map(|incarnation| (incarnation, contact.heard));
                send(
                    *node,
                    Ping {
                        incarnation: self.incarnation,
                        number: contact.next_number,
                        echo,
                    },
                );
            }
        }
        let started = *self.started.get_or_insert(now);
        let view = self.refresh(now);
        let silence = !self.reported && now.since(started) > self.config.timeout;
        self.reported |= silence;
        view.or_else(|| silence.then(|| self.view()))
    }

    /// Takes a peer's ping. Returns the new view if some peer's state has changed.
    pub fn receive(&mut self, now: Instant, from: NodeId, ping: Ping) -> Option<PeerView> {
        let contact = self.peers.get_mut(&from)?;
        let mut renewed = false;
        match contact.incarnation {
            Some(known) if ping.incarnation < known => return None,
            Some(known) if ping.incarnation == known => contact.heard = contact.heard.max(ping.number),
            known => {
                renewed = known.is_some();
                contact.incarnation = Some(ping.incarnation);
                contact.heard = ping.number;
                contact.proven = None;
            }
        }
        if let Some((incarnation, number)) = ping.echo
            && incarnation == self.incarnation
        {
            let sent = contact
                .sent
                .iter()
                .find(|(sent, _)| *sent == number)
                .map(|(_, at)| *at);
            contact.proven = contact.proven.max(sent);
        }
        let view = self.refresh(now);
        // A restarted process is news even where it is connected before and after.
        self.reported |= renewed;
        if renewed { Some(self.view()) } else { view }
    }

    /// Whether a view was given: by [`Liveness::tick`] or [`Liveness::receive`].
    #[must_use]
    pub fn has_reported(&self) -> bool {
        self.reported
    }

    fn refresh(&mut self, now: Instant) -> Option<PeerView> {
        let timeout = self.config.timeout;
        let mut changed = false;
        for contact in self.peers.values_mut() {
            let connected = contact.proven.is_some_and(|at| now.since(at) <= timeout);
            changed |= connected != contact.connected;
            contact.connected = connected;
        }
        self.reported |= changed;
        self.check(now);
        changed.then(|| self.view())
    }

    /// The invariants: who counts as connected has proven it before now, and what is remembered is bounded. A proof from
    /// the future would keep a dead peer connected for as long as it lies ahead.
    fn check(&self, now: Instant) {
        for (node, contact) in &self.peers {
            assert!(
                !contact.connected || contact.proven.is_some(),
                "node {node} counts as connected and has echoed nothing"
            );
            assert!(
                contact.proven.is_none() || contact.incarnation.is_some(),
                "node {node} has echoed something and was never heard"
            );
            assert!(
                contact.proven.is_none_or(|at| at <= now),
                "node {node} has echoed what is sent at {:?}, and it is {now:?}",
                contact.proven
            );
            assert!(
                contact.sent.len() <= PINGS_REMEMBERED,
                "what was sent to node {node} is bounded"
            );
            let newest = contact.sent.back().map_or(0, |(number, _)| *number);
            assert!(
                newest <= contact.next_number,
                "node {node}: number {newest} was given out"
            );
        }
    }

    /// The view now.
    #[must_use]
    pub fn view(&self) -> PeerView {
        let known = self.peers.iter().filter_map(|(node, contact)| {
            let incarnation = contact.incarnation?;
            Some((
                *node,
                Peer {
                    incarnation,
                    connected: contact.connected,
                },
            ))
        });
        PeerView {
            peers: known.collect(),
        }
    }
}

#[cfg(test)]
mod tests;
