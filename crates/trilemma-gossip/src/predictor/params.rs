//! What the time to convergence depends on, and the values for which there is no answer.

use std::time::Duration;

use thiserror::Error;

/// Largest share of lost messages for which times are computed. Beyond it nothing spreads in any useful time.
pub const LOSS_MAX: f64 = 0.999;
/// Most distinct sources that may be asked for.
pub const VOUCHERS_MAX: u32 = 64;

/// When nodes tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phases {
    /// Each for itself, at a random phase. What real nodes do.
    Random,
    /// All in step.
    Synchronised,
}

/// What happens at once to a node's own write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstSend {
    /// Nothing: it leaves with the next tick. The model of the textbook.
    NextTick,
    /// It is sent to `fanout` peers, or to all of them if there are at most this many. What this crate does.
    AtOnce {
        /// Most peers that are all sent it.
        all_up_to: u32,
    },
}

/// What the time to convergence depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    /// Nodes, at least 1.
    pub nodes: u32,
    /// Distinct peers that a node tells in each tick, its group aside; at least 1.
    pub fanout: u32,
    /// Period of a tick, above 0.
    pub tick: Duration,
    /// Share of messages lost, from 0 to [`LOSS_MAX`]. Default 0.
    pub loss: f64,
    /// One-way delay, processing included. Default 0.
    pub latency: Duration,
    /// Accepted probability that a rumor misses some node, above 0 and below 1. Default 0.001.
    pub miss_probability: f64,
    /// Distinct direct senders that a node hears a change from before it applies it; it passes it on when it hears it
    /// first. From 1 to `nodes − 1` and to [`VOUCHERS_MAX`]. Default 1.
    pub vouchers: u32,
    /// Number of equal groups; in every tick a node tells all members of its own group, too. From 0 (none) to `nodes`.
    /// Default 0.
    pub groups: u32,
    /// Share of the peers that are notified first because most news came from them, from 0 to 1. They take the place of random
    /// targets, at most half of the fanout. Default 0.
    pub top: f64,
    /// When nodes tick. Default random.
    pub phases: Phases,
    /// What happens at once to a node's own write. Default [`FirstSend::AtOnce`] with 8.
    pub first_send: FirstSend,
    /// Bytes of one change in a message. Default 0.
    pub payload: u32,
}

impl Params {
    /// The defaults, for so many nodes.
    #[must_use]
    pub fn new(nodes: u32, fanout: u32, tick: Duration) -> Self {
        Self {
            nodes,
            fanout,
            tick,
            loss: 0.0,
            latency: Duration::ZERO,
            miss_probability: 0.001,
            vouchers: 1,
            groups: 0,
            top: 0.0,
            phases: Phases::Random,
            first_send: FirstSend::AtOnce { all_up_to: 8 },
            payload: 0,
        }
    }

    /// The same for changes that are named and fetched: who passes one on takes three one-way delays, for name, request and
    /// change. The first telling takes one; what it is counted too much is less than what lost requests take.
    #[must_use]
    pub fn fetched(self) -> Self {
        Self {
            latency: self.latency.saturating_mul(3),
            ..self
        }
    }

    /// Whether a prediction can be made.
    ///
    /// # Errors
    ///
    /// The first value that is out of its range, and what would be in it.
    pub fn check(&self) -> Result<(), ParamsError> {
        let within = |value: f64, most: f64| (0.0..=most).contains(&value);
        if self.nodes == 0 {
            return Err(ParamsError::NoNodes);
        }
        if self.fanout == 0 {
            return Err(ParamsError::NoFanout);
        }
        if self.tick.is_zero() {
            return Err(ParamsError::NoTick);
        }
        if !within(self.loss, LOSS_MAX) {
            return Err(ParamsError::Loss(self.loss));
        }
        if !within(self.miss_probability, 1.0) || [0.0, 1.0].contains(&self.miss_probability) {
            return Err(ParamsError::MissProbability(self.miss_probability));
        }
        if self.vouchers == 0 {
            return Err(ParamsError::NoVouchers);
        }
        let most = VOUCHERS_MAX.min(self.nodes - 1);
        if self.vouchers > 1 && self.vouchers > most {
            return Err(ParamsError::TooManyVouchers {
                vouchers: self.vouchers,
                nodes: self.nodes,
                most: most.max(1),
            });
        }
        if self.groups > self.nodes {
            return Err(ParamsError::TooManyGroups {
                groups: self.groups,
                nodes: self.nodes,
            });
        }
        if !within(self.top, 1.0) {
            return Err(ParamsError::Top(self.top));
        }
        Ok(())
    }
}

/// A value for which there is no prediction.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum ParamsError {
    /// Nobody to converge.
    #[error("there are 0 nodes; at least 1 is needed")]
    NoNodes,
    /// Nobody is notified.
    #[error("the fanout is 0, so nobody is ever notified; at least 1 is needed")]
    NoFanout,
    /// Time does not pass.
    #[error("the tick is 0; it must be longer")]
    NoTick,
    /// A share that is none, or so large that nothing arrives.
    #[error("a loss of {0} is outside of 0 to {LOSS_MAX}")]
    Loss(f64),
    /// A probability that is none.
    #[error("a miss probability of {0} is not above 0 and below 1")]
    MissProbability(f64),
    /// No source at all.
    #[error("0 vouchers are asked for; 1 means that the first to tell is believed")]
    NoVouchers,
    /// More sources than there can be.
    #[error(
        "{vouchers} vouchers are asked for, and of {nodes} nodes at most {most} can vouch for a change: ask for at most \
         {most}, or for more nodes"
    )]
    TooManyVouchers {
        /// Asked for.
        vouchers: u32,
        /// Nodes.
        nodes: u32,
        /// Most that would work.
        most: u32,
    },
    /// Empty groups.
    #[error(
        "{groups} groups are asked for, and there are {nodes} nodes; at most that many groups have a member each"
    )]
    TooManyGroups {
        /// Asked for.
        groups: u32,
        /// Nodes.
        nodes: u32,
    },
    /// A share that is none.
    #[error("a share of {0} for the top senders is outside of 0 to 1")]
    Top(f64),
    /// No run to average.
    #[error("0 runs are asked for; at least 1 is needed")]
    NoRuns,
    /// More work than a run may take.
    #[error("{runs} runs of {nodes} nodes are more than one simulation does; ask for at most {most} runs")]
    TooManyRuns {
        /// Asked for.
        runs: u32,
        /// Nodes.
        nodes: u32,
        /// Most that would work; 0 if so many nodes are not simulated at all.
        most: u32,
    },
}
