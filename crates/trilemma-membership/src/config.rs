//! Settings of a member. Every field says its default, its cost and how to choose.

use std::time::Duration;

use trilemma_core::NodeId;

use crate::record::Record;
use crate::table::MEMBERS_MAX;
use crate::timing::Spread;

/// A node to ask for the member list, known before any member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The node.
    pub node: NodeId,
    /// Where it listens.
    pub address: String,
}

/// Settings of a member. All members need the same ones but for `record`, `seeds` and `random_seed`.
#[derive(Clone, Debug)]
pub struct Config {
    /// What this node says of itself.
    pub record: Record,
    /// Whom to ask when nobody is known, and who is tried again after a long network partition. Any members will do; three in
    /// different zones are enough.
    pub seeds: Vec<Seed>,
    /// Seed of this node's random choices. Another one at every start.
    pub random_seed: u64,
    /// Most members that are kept, this one and former ones included. Default 10,000, at most [`MEMBERS_MAX`]. A table costs
    /// about 20 bytes for each, and the records.
    pub members_max: usize,
    /// Time between two probes of a node (`T'`). Default 900 ms. A failure is first noticed after about this time; traffic without
    /// failures is in inverse proportion.
    pub period: Duration,
    /// How long to wait for an answer before others are asked to probe. Default 200 ms: above almost all round trips.
    pub ack_timeout: Duration,
    /// How long one who was asked waits for an answer before it says that there is none. Default 200 ms.
    pub nack_timeout: Duration,
    /// When a probe without an answer becomes a suspicion. Default 500 ms; both timeouts and a round trip must fit.
    pub verdict: Duration,
    /// How many members are asked to probe one that does not answer. Default 3: at 5 % loss one probe in a hundred
    /// thousand fails by chance.
    pub helpers: usize,
    /// Time between two rounds of dissemination, when there is something to say. Default 200 ms.
    pub tick: Duration,
    /// Random members that each round tells. Default 3.
    pub fanout: u32,
    /// Share of messages that are lost, for the computed times. Default 0.05. Too little makes suspicions end before
    /// refutations arrive.
    pub loss: f64,
    /// One-way delay of a message, for the computed times. Default 10 ms.
    pub latency: Duration,
    /// Probability with which a suspicion, or its refutation, may miss a member in time. Default 0.0001. Smaller is slower.
    pub miss_probability: f64,
    /// Bytes that a node sends in a second, on average over a second, beyond which news waits; probes never do. Default
    /// 3,750. What many changes at once cost is time, not bandwidth.
    pub bytes_per_second: u32,
    /// How late a wake-up must come to show that this node was not running. Default 100 ms: above what a busy machine does.
    pub late_tolerance: Duration,
    /// Longest time between a change and a saved member list. Default 10 s.
    pub save_interval: Duration,
    /// How often a seed that does not take part is tried. Default 5 s.
    pub seed_interval: Duration,
    /// Up to how many members connections to all of them are kept. Default 64.
    pub full_mesh_max: usize,
    /// Connections that are kept beyond that. Default 32.
    pub warm_connections: usize,
    /// How often one of them is exchanged for a random other. Default 5 s.
    pub swap_interval: Duration,
    /// Plain SWIM without Lifeguard: suspicions of one length, no nacks, no doubt about oneself. Default false. For comparisons:
    /// starved nodes then accuse healthy ones.
    pub danger_plain_swim: bool,
}

impl Config {
    /// The defaults.
    #[must_use]
    pub fn new(record: Record, random_seed: u64) -> Self {
        Self {
            record,
            seeds: Vec::new(),
            random_seed,
            members_max: 10_000,
            period: Duration::from_millis(900),
            ack_timeout: Duration::from_millis(200),
            nack_timeout: Duration::from_millis(200),
            verdict: Duration::from_millis(500),
            helpers: 3,
            tick: Duration::from_millis(200),
            fanout: 3,
            loss: 0.05,
            latency: Duration::from_millis(10),
            miss_probability: 1e-4,
            bytes_per_second: 3_750,
            late_tolerance: Duration::from_millis(100),
            save_interval: Duration::from_secs(10),
            seed_interval: Duration::from_secs(5),
            full_mesh_max: 64,
            warm_connections: 32,
            swap_interval: Duration::from_secs(5),
            danger_plain_swim: false,
        }
    }

    /// The settings with every value in its range.
    #[must_use]
    pub(crate) fn clamp(mut self) -> Self {
        let millisecond = Duration::from_millis(1);
        self.members_max = self.members_max.clamp(1, MEMBERS_MAX);
        self.ack_timeout = self.ack_timeout.max(millisecond);
        self.nack_timeout = self.nack_timeout.max(millisecond);
        self.verdict = self.verdict.max(self.ack_timeout + millisecond);
        self.period = self.period.max(self.verdict);
        self.helpers = self.helpers.min(16);
        self.tick = self.tick.max(millisecond);
        self.fanout = self.fanout.clamp(1, 64);
        self.late_tolerance = self.late_tolerance.max(millisecond);
        self.save_interval = self.save_interval.max(millisecond);
        self.seed_interval = self.seed_interval.max(millisecond);
        self.swap_interval = self.swap_interval.max(millisecond);
        self.bytes_per_second = self.bytes_per_second.max(500);
        self
    }

    /// How statements spread among that many members.
    #[must_use]
    pub fn spread(&self, members: usize) -> Spread {
        Spread {
            members: u32::try_from(members).unwrap_or(u32::MAX),
            fanout: self.fanout,
            tick: self.tick,
            loss: self.loss,
            latency: self.latency,
        }
    }

    /// The shortest suspicion among that many members: twice the time that a statement takes to a given one.
    #[must_use]
    pub fn suspicion_min(&self, members: usize) -> Duration {
        2 * self.spread(members).time_to(self.miss_probability)
    }
}
