//! How long until everybody knows? Computed, not guessed.
//!
//! Three engines. *Recurrence*, where all tick in step: `I(t+1) = N − (N−I)(1 − fq/(N−1))^I`. *Delay equation*, where each
//! ticks for itself: `dI/dt = (fq/τ)·I(t−ℓ)·(1−I/N)`. Both with what chance does at the start and, for the last node,
//! `P(T ≤ t) ≈ exp(−(N−I(t)))` (Frieze and Grimmett 1985; Pittel 1987; Doerr and Kostrygin 2017 for loss). *Monte Carlo*:
//! nodes that tick, tell and hear as the real ones do, for any parameters, only on request.
//!
//! Times are those of writes that rumors bring to every node. What rumors miss ([`Prediction::residue_nodes`]) anti-entropy
//! brings later.

mod grouped;
mod monte_carlo;
mod params;
mod times;
mod uniform;
mod units;

use std::fmt;
use std::time::Duration;

pub use params::{FirstSend, LOSS_MAX, Params, ParamsError, Phases, VOUCHERS_MAX};
pub use units::infective_ticks;

use times::Times;
use units::{Units, group_size, is_small, too_few};

/// What a simulation may take: nodes times runs.
const WORK_MAX: u64 = 200_000_000;
/// Points of the curve of informed nodes at most.
const CURVE_POINTS: usize = 400;

/// Up to this many nodes the same few tell each other again, which the formulas for several vouchers take in only roughly.
const FEW_NODES: u32 = 100;

/// What made a prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The recurrence of synchronous rounds.
    Recurrence,
    /// The delay equation of nodes that tick for themselves.
    DelayEquation,
    /// Seeded simulation of so many writes.
    MonteCarlo {
        /// Writes.
        runs: u32,
        /// Seed.
        seed: u64,
    },
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Engine::Recurrence => f.write_str("recurrence"),
            Engine::DelayEquation => f.write_str("delay equation"),
            Engine::MonteCarlo { runs, seed } => write!(f, "Monte Carlo, {runs} runs, seed {seed}"),
        }
    }
}

/// What is to be expected of one write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// What made it.
    pub engine: Engine,
    /// Whether formulas are known to be a rough estimate here: with groups or preferred senders, and for several vouchers
    /// among at most 100 nodes. A simulation is none.
    pub is_estimate: bool,
    /// Mean time until every node has applied it.
    pub mean: Duration,
    /// Median of that time.
    pub p50: Duration,
    /// Time that 99 of 100 writes do not pass.
    pub p99: Duration,
    /// Time that 999 of 1,000 writes do not pass.
    pub p999: Duration,
    /// Time that 9,999 of 10,000 writes do not pass.
    pub p9999: Duration,
    /// Mean number of rounds, if nodes tick in step: the first telling is round 1. Else the mean in ticks.
    pub rounds: f64,
    /// Rounds that 99 of 100 writes do not pass, likewise.
    pub rounds_p99: f64,
    /// Messages with the change, of all nodes together.
    pub messages: f64,
    /// The same for one node.
    pub messages_per_node: f64,
    /// Copies of the change that arrive at a node; 1 would be the least.
    pub copies: f64,
    /// Bytes that a node sends for one write.
    pub bytes_per_node: f64,
    /// Share of the nodes that rumors miss.
    pub residue: f64,
    /// Nodes that rumors miss, on average.
    pub residue_nodes: f64,
    /// Ticks for which a node spreads it.
    pub infective_ticks: u32,
}

/// A point of the curve of informed nodes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurvePoint {
    /// Time since the write.
    pub time: Duration,
    /// Share of the nodes that have applied it by then, on average.
    pub share: f64,
}

/// A prediction with the curve that it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The figures.
    pub prediction: Prediction,
    /// Share of informed nodes, by time.
    pub curve: Vec<CurvePoint>,
}

/// Which engine to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Recurrence or delay equation, as the phases say. Takes about a millisecond, a few where messages are lost and late.
    Formula,
    /// Simulation. Takes about a microsecond for each message.
    MonteCarlo {
        /// Writes, at least 1.
        runs: u32,
        /// Seed.
        seed: u64,
    },
}

/// What an engine found, in ticks.
#[derive(Clone, Debug, Default)]
struct Spread {
    times: Times,
    rounds: Times,
    /// Time, share, weight.
    points: Vec<(f64, f64, f64)>,
    curve: Vec<(f64, f64)>,
}

impl Spread {
    fn share(&mut self, time: f64, share: f64, weight: f64) {
        self.points.push((time, share, weight));
    }

    /// Averages the curves of all starts.
    fn finish(mut self) -> Self {
        let end = self.points.iter().map(|(time, ..)| *time).fold(0.0, f64::max);
        self.points.sort_by(|one, other| one.0.total_cmp(&other.0));
        let width = (end / CURVE_POINTS as f64).max(1e-9);
        let mut best = 0.0_f64;
        let (mut at, mut sum, mut weights) = (0.0, 0.0, 0.0);
        for (time, share, weight) in std::mem::take(&mut self.points) {
            if time > at + width && weights > 0.0 {
                best = best.max(sum / weights);
                self.curve.push((at, best));
                (at, sum, weights) = (time, 0.0, 0.0);
            }
            at = at.max(time);
            sum += share * weight;
            weights += weight;
        }
        if weights > 0.0 {
            self.curve.push((at, best.max(sum / weights)));
        }
        self
    }
}

/// Predicts the convergence of one write, by formula.
///
/// # Errors
///
/// A parameter is out of its range.
pub fn predict(params: &Params) -> Result<Prediction, ParamsError> {
    predict_with(params, Method::Formula).map(|report| report.prediction)
}

/// Predicts the convergence of one write.
///
/// # Errors
///
/// A parameter is out of its range, or the simulation is too large.
pub fn predict_with(params: &Params, method: Method) -> Result<Report, ParamsError> {
    params.check()?;
    match method {
        Method::Formula => Ok(formula(params)),
        Method::MonteCarlo { runs, seed } => {
            let most = u32::try_from(WORK_MAX / u64::from(params.nodes)).unwrap_or(u32::MAX);
            if runs == 0 {
                return Err(ParamsError::NoRuns);
            }
            if runs > most {
                let nodes = params.nodes;
                return Err(ParamsError::TooManyRuns { runs, nodes, most });
            }
            let found = monte_carlo::run(params, runs, seed);
            let engine = Engine::MonteCarlo { runs, seed };
            Ok(report(
                params,
                engine,
                &found.spread,
                found.messages,
                found.missed,
            ))
        }
    }
}

fn formula(params: &Params) -> Report {
    let units = Units::new(params);
    let is_synchronised = Units::is_synchronised(params);
    let is_slow = units.pushes() < uniform::PUSHES_MIN;
    let has_groups = group_size(params) > 1 && !is_small(params);
    let (engine, spread) = match (is_synchronised && !is_slow, has_groups) {
        _ if params.nodes == 1 => (Engine::Recurrence, uniform::alone()),
        (true, false) => (Engine::Recurrence, uniform::rounds(&units)),
        (false, false) => (Engine::DelayEquation, uniform::delay(&units)),
        (true, true) => (Engine::Recurrence, grouped::spread(&units, true)),
        (false, true) => (Engine::DelayEquation, grouped::spread(&units, false)),
    };
    let each = units.random + units.fixed + units.mates;
    let ticks = f64::from(units.infective);
    // Half of the tellings come after the target itself has notified the teller, and are left out.
    let known = (each * ticks / (2.0 * units.peers.max(1.0))).min(1.0) * units.arriving;
    let sent = units.first + units.nodes * ticks * each * (1.0 - known);
    let messages = if params.nodes == 1 { 0.0 } else { sent };
    let notified = units.pushes() * (ticks - 1.0) * (1.0 - 1.0 / units.nodes);
    let missed = if params.nodes == 1 {
        0.0
    } else {
        units.nodes * too_few(units.vouchers, notified, units.peers)
    };
    report(params, engine, &spread, messages, missed)
}

fn engine_is_rough(params: &Params, engine: Engine) -> bool {
    let is_formula = !matches!(engine, Engine::MonteCarlo { .. });
    let is_close = params.vouchers > 1 && params.nodes <= FEW_NODES;
    is_formula && (group_size(params) > 1 || params.top > 0.0 || is_close)
}

fn report(params: &Params, engine: Engine, spread: &Spread, messages: f64, missed: f64) -> Report {
    let tick = params.tick.as_secs_f64();
    let time = |ticks: f64| Duration::try_from_secs_f64((ticks * tick).max(0.0)).unwrap_or(Duration::MAX);
    let quantile = |share| time(spread.times.quantile(share));
    let rounds = if spread.rounds.mean() > 0.0 {
        &spread.rounds
    } else {
        &spread.times
    };
    let nodes = f64::from(params.nodes);
    let prediction = Prediction {
        engine,
        is_estimate: engine_is_rough(params, engine),
        mean: time(spread.times.mean()),
        p50: quantile(0.5),
        p99: quantile(0.99),
        p999: quantile(0.999),
        p9999: quantile(0.9999),
        rounds: rounds.mean(),
        rounds_p99: rounds.quantile(0.99),
        messages,
        messages_per_node: messages / nodes,
        copies: messages * (1.0 - params.loss) / nodes,
        bytes_per_node: messages / nodes * f64::from(params.payload),
        residue: missed / nodes,
        residue_nodes: missed,
        infective_ticks: infective_ticks(params),
    };
    let point = |(at, share): &(f64, f64)| CurvePoint {
        time: time(*at),
        share: share.clamp(0.0, 1.0),
    };
    Report {
        prediction,
        curve: spread.curve.iter().map(point).collect(),
    }
}

#[cfg(test)]
mod tests;
