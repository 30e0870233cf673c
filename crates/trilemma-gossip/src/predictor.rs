//! How long until everybody knows? Computed, not guessed.
//!
//! Two engines. *Synchronous rounds*: the recurrence `I(t+1) = N − (N−I)(1 − fq/(N−1))^I`, with
//! `P(T ≤ t) ≈ exp(−(N−I(t)))`. *Real ticks with random phases*: the delay equation
//! `dI/dt = (fq/τ)·I(t−ℓ)·(1−I/N)`, with `E[T] ≈ ∫ (1 − e^{−(N−I)}) dt`. The spread of T around its mean is that of
//! two independent Gumbel variables, one for the start and one for the stragglers (Frieze and Grimmett 1985; Pittel
//! 1987; Doerr and Kostrygin 2017 for loss). Exact within a few per cent from 100 nodes on; for a handful of nodes
//! it is an upper estimate, since there a write is also sent to everyone at once.

use std::time::Duration;

/// What the time to convergence depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    /// Nodes.
    pub nodes: u32,
    /// Distinct random peers reached in each tick.
    pub fanout: u32,
    /// Period of a tick.
    pub tick: Duration,
    /// Share of messages lost, from 0 to below 1.
    pub loss: f64,
    /// One-way delay, processing included.
    pub latency: Duration,
    /// Accepted probability that a rumour misses some node.
    pub miss_probability: f64,
}

/// What is to be expected of one write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Mean time until every node has it.
    pub mean: Duration,
    /// Median of that time.
    pub p50: Duration,
    /// Time that 99 of 100 writes do not pass.
    pub p99: Duration,
    /// Time that 999 of 1000 writes do not pass.
    pub p999: Duration,
    /// Mean number of rounds if all nodes ticked in step.
    pub rounds: f64,
    /// Rounds that 99 of 100 writes do not pass, likewise.
    pub rounds_p99: u32,
    /// Ticks for which a node must spread it.
    pub infective_ticks: u32,
}

/// Quantiles of the sum of two independent Gumbel variables, less their mean 2γ.
const GUMBEL_PAIR: [f64; 3] = [0.93 - 1.154, 6.45 - 1.154, 9.09 - 1.154];
/// Rounds and ticks computed at most: a loss near 1 never ends.
const STEPS_MAX: u32 = 100_000;
/// Steps of the numeric integration for each tick (or delay, if that is shorter).
const STEPS_PER_TICK: f64 = 64.0;

/// Predicts the convergence of one write.
#[must_use]
pub fn predict(params: &Params) -> Prediction {
    let spread = Spread::new(params);
    let (rounds, rounds_p99) = spread.synchronous();
    let mean = spread.asynchronous();
    let scale = 1.0 / spread.pushes;
    let quantile = |offset: f64| {
        let ticks = if spread.nodes > 1.0 {
            mean + offset * scale
        } else {
            0.0
        };
        params.tick.mul_f64(ticks.clamp(0.0, f64::from(STEPS_MAX)))
    };
    let [p50, p99, p999] = GUMBEL_PAIR;
    Prediction {
        mean: quantile(0.0),
        p50: quantile(p50),
        p99: quantile(p99),
        p999: quantile(p999),
        rounds,
        rounds_p99,
        infective_ticks: infective_ticks(params),
    }
}

/// Ticks for which every node must spread a rumour so that all have it but with `miss_probability`:
/// `⌈ln(N/δ)/(fq)⌉ + 1`.
#[must_use]
pub fn infective_ticks(params: &Params) -> u32 {
    let spread = Spread::new(params);
    let miss = params.miss_probability.clamp(1e-12, 0.5);
    let ticks = ((spread.nodes / miss).ln() / spread.pushes).ceil();
    (ticks as u32).saturating_add(1).min(STEPS_MAX)
}

/// The parameters in the units of the equations: nodes, pushes that arrive per node and tick, delay in ticks.
struct Spread {
    nodes: f64,
    pushes: f64,
    delay: f64,
}

impl Spread {
    fn new(params: &Params) -> Self {
        let nodes = f64::from(params.nodes.max(1));
        let fanout = f64::from(params.fanout.max(1)).min((nodes - 1.0).max(1.0));
        let arriving = 1.0 - params.loss.clamp(0.0, 0.999);
        let tick = params.tick.max(Duration::from_micros(1));
        Self {
            nodes,
            pushes: fanout * arriving,
            delay: params.latency.as_secs_f64() / tick.as_secs_f64(),
        }
    }

    /// Mean and 99th percentile of the rounds when all tick in step.
    fn synchronous(&self) -> (f64, u32) {
        let n = self.nodes;
        if n <= 1.0 {
            return (0.0, 0);
        }
        let missed = 1.0 - self.pushes / (n - 1.0);
        let (mut informed, mut mean, mut p99) = (1.0_f64, 0.0, None);
        for round in 0..STEPS_MAX {
            let left = n - informed;
            mean += 1.0 - (-left).exp();
            if p99.is_none() && left <= -(0.99_f64.ln()) {
                p99 = Some(round);
            }
            if left < 1e-9 {
                break;
            }
            informed = n - left * missed.max(0.0).powf(informed);
        }
        (mean, p99.unwrap_or(STEPS_MAX))
    }

    /// Mean time in ticks when nodes tick at random phases.
    fn asynchronous(&self) -> f64 {
        let n = self.nodes;
        if n <= 1.0 {
            return 0.0;
        }
        let delay = self.delay.min(f64::from(STEPS_MAX));
        // The delay is a whole number of steps, so that the past needs no interpolation.
        let step = if delay > 0.0 {
            delay / (delay * STEPS_PER_TICK).ceil()
        } else {
            1.0 / STEPS_PER_TICK
        };
        let lag = (delay / step).round() as usize;
        let mut past = std::collections::VecDeque::from(vec![0.0; lag]);
        let (mut informed, mut mean) = (1.0_f64, 0.0);
        for _ in 0..STEPS_MAX {
            let left = n - informed;
            if left < 1e-4 {
                break;
            }
            past.push_back(informed);
            let then = past.pop_front().unwrap_or(informed);
            let next = past.front().copied().unwrap_or(informed);
            let rate = |source: f64, at: f64| self.pushes * source * (1.0 - at / n).max(0.0);
            // Heun's method.
            let first = rate(then, informed);
            let guess = informed + step * first;
            let source = if lag == 0 { guess } else { next };
            let slope = f64::midpoint(first, rate(source, guess));
            let reached = (informed + step * slope).min(n);
            mean += step * f64::midpoint(1.0 - (-left).exp(), 1.0 - (-(n - reached)).exp());
            informed = reached;
        }
        mean
    }
}

#[cfg(test)]
mod tests;
