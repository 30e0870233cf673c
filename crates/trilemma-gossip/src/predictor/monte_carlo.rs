//! The third engine: one change after the other spreads among nodes that tick, tell and hear as the real ones do.

use trilemma_core::Rng;

use super::Spread;
use super::params::{FirstSend, Params, Phases};
use super::units::{Units, fixed_targets, group_size, infective_ticks, is_small};

/// Changes that spread before any is counted, where news from a peer makes it a target.
const WARM_UP: u32 = 24;
/// What is left of a peer's score after one more change.
const DECAY: f64 = 0.9;
/// Buckets of a tick for the share of informed nodes over time.
const BUCKETS: f64 = 16.0;
/// Buckets at most; what is later counts as the last.
const BUCKETS_MAX: usize = 16 * 4096;

/// What the runs add up to.
pub(super) struct Found {
    pub(super) spread: Spread,
    /// Messages of a change, on average.
    pub(super) messages: f64,
    /// Nodes that rumors missed, on average.
    pub(super) missed: f64,
}

struct Node {
    phase: f64,
    /// Ticks that it still spreads the change.
    left: u32,
    /// Number of its next telling tick.
    due: u32,
    applied: bool,
    /// Distinct direct senders, in order.
    sources: Vec<u32>,
    /// Peers by how much news came from them first.
    scores: Vec<(u32, f64)>,
}

struct Cluster<'a> {
    params: &'a Params,
    rng: Rng,
    nodes: Vec<Node>,
    /// Nodes by phase.
    order: Vec<u32>,
    /// Messages under way, in the order of their arrival.
    flying: std::collections::VecDeque<(f64, u32, u32)>,
    delay: f64,
    infective: u32,
    fixed: usize,
    messages: u64,
    applied: u32,
    last: f64,
    buckets: Vec<u64>,
}

/// Runs so many changes.
pub(super) fn run(params: &Params, runs: u32, seed: u64) -> Found {
    let units = Units::new(params);
    let mut cluster = Cluster::new(params, units.delay, seed);
    if cluster.fixed > 0 {
        for _ in 0..WARM_UP {
            cluster.spread();
        }
    }
    cluster.messages = 0;
    cluster.buckets.fill(0);
    let mut spread = Spread::default();
    let mut missed = 0_u64;
    let weight = 1.0 / f64::from(runs);
    for _ in 0..runs {
        let phase = cluster.spread();
        let lost = params.nodes - cluster.applied;
        missed += u64::from(lost);
        if lost == 0 {
            let time = cluster.last;
            spread.times.add(time, time, weight);
            let rounds = match (params.phases, params.first_send) {
                (Phases::Random, _) => time,
                _ if params.nodes == 1 => 0.0,
                (_, FirstSend::NextTick) => (time - phase - units.delay).round() + 1.0,
                _ if time <= units.delay => 1.0,
                _ => (time - phase - units.delay).round() + 2.0,
            };
            spread.rounds.add(rounds, rounds, weight);
        }
    }
    let total = f64::from(runs) * f64::from(params.nodes);
    let mut informed = 0;
    for (bucket, count) in cluster.buckets.iter().enumerate() {
        informed += count;
        if *count > 0 || bucket == 0 {
            spread.share((bucket as f64 + 1.0) / BUCKETS, informed as f64 / total, 1.0);
        }
    }
    Found {
        spread: spread.finish(),
        messages: cluster.messages as f64 / f64::from(runs),
        missed: missed as f64 / f64::from(runs),
    }
}

fn unit(rng: &mut Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

impl<'a> Cluster<'a> {
    fn new(params: &'a Params, delay: f64, seed: u64) -> Self {
        let node = |_| Node {
            phase: 0.0,
            left: 0,
            due: 0,
            applied: false,
            sources: Vec::new(),
            scores: Vec::new(),
        };
        Self {
            params,
            rng: Rng::new(seed),
            nodes: (0..params.nodes).map(node).collect(),
            order: (0..params.nodes).collect(),
            flying: std::collections::VecDeque::new(),
            delay,
            infective: infective_ticks(params),
            fixed: fixed_targets(params) as usize,
            messages: 0,
            applied: 0,
            last: 0.0,
            buckets: Vec::new(),
        }
    }

    /// Spreads one change. Returns the origin's phase.
    fn spread(&mut self) -> f64 {
        let common = unit(&mut self.rng);
        let is_synchronised = self.params.phases == Phases::Synchronised;
        for node in &mut self.nodes {
            node.phase = if is_synchronised {
                common
            } else {
                unit(&mut self.rng)
            };
            node.left = 0;
            node.applied = false;
            node.sources.clear();
            for score in &mut node.scores {
                score.1 *= DECAY;
            }
            node.scores.retain(|score| score.1 > 0.01);
        }
        let nodes = &self.nodes;
        let phase = |node: &u32| nodes[*node as usize].phase;
        self.order
            .sort_unstable_by(|one, other| phase(one).total_cmp(&phase(other)));
        (self.applied, self.last) = (0, 0.0);
        let origin = self.rng.below(u64::from(self.params.nodes)) as u32;
        self.hear(0.0, 0, origin, origin);
        if let FirstSend::AtOnce { .. } = self.params.first_send {
            let targets = if is_small(self.params) {
                (0..self.params.nodes).filter(|node| *node != origin).collect()
            } else {
                self.targets(origin)
            };
            self.tell(0.0, origin, &targets);
        }
        let mut tick = 0;
        loop {
            for at in 0..self.order.len() {
                let node = self.order[at];
                let time = f64::from(tick) + self.nodes[node as usize].phase;
                self.deliver(time, tick);
                let teller = &mut self.nodes[node as usize];
                if teller.left == 0 || teller.due > tick {
                    continue;
                }
                teller.left -= 1;
                let targets = self.targets(node);
                self.tell(time, node, &targets);
            }
            tick += 1;
            if self.flying.is_empty() && self.nodes.iter().all(|node| node.left == 0) {
                return self.nodes[origin as usize].phase;
            }
        }
    }

    /// Delivers what has arrived before a tick.
    fn deliver(&mut self, until: f64, tick: u32) {
        while let Some((time, from, to)) = self.flying.pop_front_if(|(time, ..)| *time <= until) {
            self.hear(time, tick, from, to);
        }
    }

    fn hear(&mut self, time: f64, tick: u32, from: u32, to: u32) {
        let wait = u32::from(is_small(self.params));
        let node = &mut self.nodes[to as usize];
        if node.sources.contains(&from) {
            return;
        }
        if node.sources.is_empty() && from != to {
            match node.scores.iter_mut().find(|(peer, _)| *peer == from) {
                Some(score) => score.1 += 1.0,
                None => node.scores.push((from, 1.0)),
            }
        }
        if node.sources.is_empty() {
            // Its next tick is of this number, or of the one after if it has passed.
            let has_ticked = f64::from(tick) + node.phase < time;
            node.due = tick + u32::from(has_ticked) + wait;
            node.left = self.infective;
        }
        node.sources.push(from);
        let is_own = node.sources[0] == to;
        if !node.applied && (is_own || node.sources.len() >= self.params.vouchers as usize) {
            node.applied = true;
            self.applied += 1;
            self.last = self.last.max(time);
            let bucket = ((time * BUCKETS) as usize).min(BUCKETS_MAX);
            if self.buckets.len() <= bucket {
                self.buckets.resize(bucket + 1, 0);
            }
            self.buckets[bucket] += 1;
        }
    }

    /// Sends to those that are not known to have it.
    fn tell(&mut self, time: f64, from: u32, targets: &[u32]) {
        for target in targets {
            if self.nodes[from as usize].sources.contains(target) {
                continue;
            }
            self.messages += 1;
            if unit(&mut self.rng) >= self.params.loss {
                self.flying.push_back((time + self.delay, from, *target));
            }
        }
    }

    /// The targets of one tick: the own group, those that most news came from, and random others.
    fn targets(&mut self, node: u32) -> Vec<u32> {
        let mut targets: Vec<u32> = Vec::new();
        if self.params.groups > 0 {
            let group = node % self.params.groups;
            let members = (group..self.params.nodes).step_by(self.params.groups as usize);
            targets.extend(members.filter(|member| *member != node));
            debug_assert!(
                targets.len() < group_size(self.params) as usize,
                "a group that is too large"
            );
        }
        let mates = targets.len();
        if self.fixed > 0 {
            let scores = &mut self.nodes[node as usize].scores;
            scores.sort_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(&other.0)));
            let top = self.nodes[node as usize].scores.iter().take(self.fixed);
            let top: Vec<u32> = top
                .map(|(peer, _)| *peer)
                .filter(|peer| !targets.contains(peer))
                .collect();
            targets.extend(top);
        }
        let top = targets.len() - mates;
        let random = (self.params.fanout as usize).saturating_sub(top).max(1);
        let others = (self.params.nodes as usize - 1).saturating_sub(targets.len());
        self.add_random(node, random.min(others), &mut targets);
        targets
    }

    fn add_random(&mut self, node: u32, count: usize, targets: &mut Vec<u32>) {
        let (nodes, begin) = (self.params.nodes, targets.len());
        if count * 3 >= nodes as usize {
            let mut others: Vec<u32> = (0..nodes)
                .filter(|other| *other != node && !targets.contains(other))
                .collect();
            for at in 0..count {
                let other = at + self.rng.below((others.len() - at) as u64) as usize;
                others.swap(at, other);
            }
            targets.extend(&others[..count]);
            return;
        }
        let groups = self.params.groups;
        let is_mate = |other: u32| groups > 0 && other % groups == node % groups;
        let mates = targets.iter().take_while(|target| is_mate(**target)).count();
        while targets.len() < begin + count {
            let other = self.rng.below(u64::from(nodes)) as u32;
            if other != node && !is_mate(other) && !targets[mates..].contains(&other) {
                targets.push(other);
            }
        }
    }
}
