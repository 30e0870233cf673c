//! Gossip instances in virtual time, with nothing but delay and loss between them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use bytes::Bytes;
use trilemma_core::host::{DynProtocol, GroupInput, Host, Output};
use trilemma_core::protocol::{Proposal, Request};
use trilemma_core::{
    Attempt, Command, Instant, Lane, NodeId, Now, OpId, Rng, SessionId, Ticket, WallTime, codec,
};
use trilemma_gossip::Gossip;
use trilemma_gossip::dot::Dot;
use trilemma_gossip::message::Message;
use trilemma_gossip::predictor::{Phases, Prediction, predict};

use crate::cells::{Cell, LATENCY, TICK};
use crate::measured::Write;

/// Writes before any is measured, where news from a peer makes it a target.
const WARM_UP: u32 = 20;
/// Wall clock at the start, in milliseconds.
const EPOCH: u64 = 1_700_000_000_000;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Wake { node: u32 },
    Deliver { from: u32, to: u32, bytes: Bytes },
}

/// See the module.
pub(crate) struct Cluster {
    cell: Cell,
    hosts: Vec<Host<Gossip>>,
    /// When each is woken; earlier and later events are stale.
    wakes: Vec<Instant>,
    queue: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    events: u64,
    now: Instant,
    rng: Rng,
    /// Number of the last write.
    number: u64,
    /// Bodies of changes that arrived.
    copies: u32,
    output: Output,
}

impl Cluster {
    pub(crate) fn new(cell: &Cell, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let hosts = (0..cell.nodes).map(|node| Host::new(Gossip::new(cell.config(node, rng.next_u64()))));
        let mut cluster = Self {
            cell: *cell,
            hosts: hosts.collect(),
            wakes: vec![Instant::NEVER; cell.nodes as usize],
            queue: BinaryHeap::new(),
            events: 0,
            now: Instant::from_nanos(1),
            rng,
            number: 0,
            copies: 0,
            output: Output::default(),
        };
        for node in 0..cell.nodes {
            cluster.step(node, GroupInput::Start);
        }
        cluster.run_for(3 * TICK);
        cluster
    }

    /// What the settings of the nodes predict.
    pub(crate) fn prediction(&self) -> Result<Prediction, String> {
        let params = self.cell.params(self.hosts[0].protocol().config());
        predict(&params).map_err(|error| error.to_string())
    }

    /// Writes that are not measured: nodes learn who brings them news.
    pub(crate) fn warm_up(&mut self) {
        if self.hosts[0].protocol().config().top_senders_percent > 0 {
            for _ in 0..WARM_UP {
                self.write();
            }
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(Reverse((at, ..))) = self.queue.peek()
            && *at <= end
        {
            self.next();
        }
        self.now = end;
    }

    fn next(&mut self) -> Option<u32> {
        let Reverse((at, _, event)) = self.queue.pop()?;
        self.now = at;
        match event {
            Event::Wake { node } if self.wakes[node as usize] == at => {
                self.step(node, GroupInput::Wake);
                Some(node)
            }
            Event::Wake { .. } => None,
            Event::Deliver { from, to, bytes } => {
                if let Ok(Message::Rumors { items, .. }) = codec::decode(&bytes) {
                    self.copies += items.len() as u32;
                }
                let from = NodeId(from + 1);
                self.step(to, GroupInput::Receive { from, bytes });
                Some(to)
            }
        }
    }

    /// Writes at a random node, and waits until all reflect it. Then until nobody speaks of it any more.
    pub(crate) fn write(&mut self) -> Write {
        self.number += 1;
        let number = self.number;
        let origin = self.rng.below(self.hosts.len() as u64) as u32;
        let phase = self.rng.between(Duration::ZERO, TICK);
        self.run_for(phase);
        self.copies = 0;
        let start = self.now;
        let op = OpId {
            session: SessionId::default(),
            seq: number,
        };
        let command = Command::put(format!("k{number}"), "v".repeat(self.cell.value()));
        let attempt = Attempt::First;
        let request = Request::Write { op, attempt, command };
        let deadline = self.now + Duration::from_secs(60);
        let ticket = Ticket(number);
        let proposal = Proposal {
            ticket,
            deadline,
            request,
        };
        let before = self.hosts[origin as usize].protocol().replica().context().clone();
        self.step(origin, GroupInput::Propose(proposal));
        let after = self.hosts[origin as usize].protocol().replica().context();
        let dot = after
            .highest()
            .find(|dot| !before.contains(*dot))
            .expect("a write makes a change");
        let mut lacking: Vec<bool> = (0..self.hosts.len())
            .map(|node| !self.reflects(node as u32, dot))
            .collect();
        let mut missed = lacking.iter().filter(|lacks| **lacks).count() as u32;
        let spread = TICK * (self.hosts[0].protocol().config().infective_ticks() + 2);
        // Nobody speaks of it any more when the last one that learned of it has spread it.
        let mut end = start + 4 * spread;
        let mut time = None;
        while self.now < end {
            let Some(Reverse((at, ..))) = self.queue.peek() else {
                break;
            };
            if *at > end {
                break;
            }
            if let Some(node) = self.next()
                && lacking[node as usize]
                && self.reflects(node, dot)
            {
                lacking[node as usize] = false;
                missed -= 1;
                if missed == 0 {
                    time = Some(self.now.since(start));
                    end = self.now + spread;
                }
            }
        }
        Write {
            time,
            copies: self.copies,
            missed,
        }
    }

    fn reflects(&self, node: u32, dot: Dot) -> bool {
        self.hosts[node as usize]
            .protocol()
            .replica()
            .context()
            .contains(dot)
    }

    fn step(&mut self, node: u32, input: GroupInput) {
        let now = Now {
            instant: self.now,
            wall: WallTime(EPOCH + self.now.as_nanos() / 1_000_000),
        };
        let host = &mut self.hosts[node as usize];
        let mut output = std::mem::take(&mut self.output);
        host.step(now, input, &mut output);
        loop {
            host.step(now, GroupInput::EndTurn, &mut output);
            let last = output.records.drain(..).next_back();
            if let Some(up_to) = last.map(|record| record.seq) {
                host.step(now, GroupInput::Persisted { up_to }, &mut output);
                continue;
            }
            if !host.goes_on() {
                break;
            }
        }
        let wanted = host.wake_at();
        let wake = self.wake_of(wanted);
        for message in output.sends.drain(..) {
            // Streams repeat what is lost, datagrams do not.
            let is_lost = self.rng.per_mille(self.cell.loss * 10);
            if is_lost && message.lane == Lane::Datagram {
                continue;
            }
            let delay = if is_lost { 3 * LATENCY } else { LATENCY };
            let to = message.to.0 - 1;
            let bytes = message.bytes;
            self.schedule(
                self.now + delay,
                Event::Deliver {
                    from: node,
                    to,
                    bytes,
                },
            );
        }
        output.clear();
        self.output = output;
        if wake != self.wakes[node as usize] {
            self.wakes[node as usize] = wake;
            self.schedule(wake, Event::Wake { node });
        }
    }

    /// When a node is woken that wants it at this moment: in step all are when a tick begins.
    fn wake_of(&self, wanted: Instant) -> Instant {
        let wanted = wanted.max(self.now);
        if self.cell.phases == Phases::Random || wanted == Instant::NEVER {
            return wanted;
        }
        let tick = TICK.as_nanos() as u64;
        let ticks = wanted.as_nanos().div_ceil(tick);
        Instant::from_nanos(ticks.saturating_mul(tick))
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.events += 1;
        self.queue.push(Reverse((at, self.events, event)));
    }
}
