//! Recurrence and delay equation where all targets are uniformly random.
//!
//! Both follow the expected number of nodes that have heard. What chance does at the start moves the whole curve in time;
//! it is taken in as a distribution of that shift. What chance does at the end is `P(T ≤ t) = (1 − u)^(N−1)`, with `u` the
//! chance that a given node still lacks sources.

use super::Spread;
use super::times::Times;
use super::units::{Units, too_few};

/// Rounds computed at most.
const ROUNDS_MAX: usize = 4_000;
/// Below so many arriving messages per tick, ticking in step makes no difference, and rounds are many.
pub(super) const PUSHES_MIN: f64 = 0.05;
/// Largest number of nodes that have heard while chance at the start is followed exactly.
const EXACT_MAX: usize = 48;
/// Expected number of missing nodes at which the end is reached.
const LEFT_MIN: f64 = 1e-7;
/// Steps for the time in which an exponential process grows by e.
const STEPS_PER_GROWTH: f64 = 24.0;
/// Steps of the numeric integration at most.
const STEPS_MAX: usize = 20_000;
/// Points of the distribution of the start.
const STARTS: i32 = 12;
/// Pieces of the distribution of the end.
const PIECES: usize = 160;

/// What a node hears: relays that have notified it, the origin apart.
#[derive(Clone, Copy)]
struct Heard {
    /// Chance that the origin has not notified it.
    origin_missed: f64,
    /// Sum of the hazards of being notified by a relay.
    hazard: f64,
    /// Expected number of distinct relays that have notified it.
    notified: f64,
    /// Relays that have not notified it yet, expected.
    unspent: f64,
}

impl Heard {
    fn nothing(origin_missed: f64) -> Self {
        Self {
            origin_missed,
            hazard: 0.0,
            notified: 0.0,
            unspent: 0.0,
        }
    }

    /// Chance that nobody has notified it.
    fn nobody(&self) -> f64 {
        self.origin_missed * (-self.hazard).exp()
    }

    /// Chance that it lacks sources.
    fn lacks(&self, units: &Units) -> f64 {
        if units.vouchers <= 1 {
            return self.nobody();
        }
        let relays = (units.peers - 1.0).max(0.0);
        let rest = |needed| too_few(needed, self.notified.min(relays), relays);
        let missed = self.origin_missed;
        missed * rest(units.vouchers) + (1.0 - missed) * rest(units.vouchers - 1)
    }

    /// `relays` have notified for as long as makes this share of their targets.
    fn hear(&mut self, units: &Units, relays: f64, joined: f64, ticks: f64, origin_ticks: f64) {
        let hazard = -(-units.pushes() / units.peers).max(-1.0 + 1e-12).ln_1p();
        self.unspent += joined;
        let part = 1.0 - (-hazard * ticks).exp();
        self.notified += self.unspent * part;
        self.unspent *= 1.0 - part;
        self.hazard += hazard * relays * ticks;
        self.origin_missed *= (-hazard * origin_ticks).exp();
    }
}

/// Rounds in step. The write comes at a random moment between two rounds, and the first telling is round 1.
pub(super) fn rounds(units: &Units) -> Spread {
    let part = units.delay.fract();
    let late = units.delay.ceil() as usize;
    let mut spread = Spread::default();
    // What was sent at once may be heard before the next round or not.
    let variants = if units.first > 0.0 {
        vec![(late, 0.0, part), (units.delay.floor() as usize, part, 1.0)]
    } else {
        vec![(0, 0.0, 1.0)]
    };
    for (first_late, from, to) in variants {
        if to <= from {
            continue;
        }
        for (first, notified, weight) in starts_of_rounds(units, first_late) {
            one_recurrence(
                units,
                first,
                notified,
                first_late,
                (from, to),
                weight * (to - from),
                &mut spread,
            );
        }
    }
    spread.finish()
}

/// How many have heard from the first telling and from the next round, with the chance of that.
fn starts_of_rounds(units: &Units, first_late: usize) -> Vec<(f64, Option<f64>, f64)> {
    let counts = |senders: f64, missing: f64, each: f64| -> Vec<f64> {
        let messages = (senders * each).round() as usize;
        let hit = 1.0 - (1.0 - units.arriving * each / units.peers).max(0.0).powf(senders);
        let chance = (missing * hit / (senders * each)).clamp(0.0, 1.0);
        binomial(messages, chance)
    };
    let first = if units.first > 0.0 {
        units.first
    } else {
        units.random
    };
    let limit = (EXACT_MAX as f64).min(units.nodes / 3.0);
    if first + 1.0 > limit && !(first >= units.peers && units.peers <= EXACT_MAX as f64) {
        let mean = units.arriving * first;
        return vec![(mean, None, 1.0)];
    }
    let mut starts = Vec::new();
    for (heard, chance) in counts(1.0, units.peers, first).into_iter().enumerate() {
        let heard = heard as f64;
        let senders = if first_late == 0 { 1.0 + heard } else { 1.0 };
        let is_exact = units.wait == 0.0 && senders * units.random + heard + 1.0 <= limit;
        if !is_exact || chance < 1e-9 {
            starts.push((heard, None, chance));
            continue;
        }
        let missing = units.peers - heard;
        for (more, part) in counts(senders, missing, units.random).into_iter().enumerate() {
            starts.push((heard, Some(more as f64), chance * part));
        }
    }
    starts
}

fn binomial(trials: usize, chance: f64) -> Vec<f64> {
    let mut terms = vec![0.0; trials + 1];
    if chance >= 1.0 {
        terms[trials] = 1.0;
        return terms;
    }
    let odds = chance / (1.0 - chance);
    let mut term = (trials as f64 * (-chance).ln_1p()).exp();
    for (count, slot) in terms.iter_mut().enumerate() {
        *slot = term;
        term *= odds * (trials - count) as f64 / (count + 1) as f64;
    }
    terms
}

/// One recurrence, from what chance did at the start.
fn one_recurrence(
    units: &Units,
    first: f64,
    second: Option<f64>,
    first_late: usize,
    (from, to): (f64, f64),
    weight: f64,
    spread: &mut Spread,
) {
    let lag = (units.delay.ceil() as usize).max(1) + units.wait as usize;
    let first_lag = if units.first > 0.0 {
        1 + first_late + units.wait as usize
    } else {
        lag
    };
    let quiet = units.wait as usize;
    let mut heard = Heard::nothing(1.0 - first / units.peers);
    let mut informed = vec![0.0, first];
    let mut before = 0.0;
    for round in 1..ROUNDS_MAX {
        let done = (1.0 - heard.lacks(units)).max(0.0).powf(units.peers);
        let (start, end) = if round == 1 && units.first > 0.0 {
            (units.delay, units.delay)
        } else {
            let shift = round as f64 - 1.0 + units.delay - if units.first > 0.0 { 1.0 } else { 0.0 };
            (from + shift, to + shift)
        };
        spread.times.add(start, end, weight * (done - before));
        spread
            .rounds
            .add(round as f64, round as f64, weight * (done - before));
        spread.share(
            end,
            (1.0 + units.peers * (1.0 - heard.lacks(units))) / units.nodes,
            weight,
        );
        before = before.max(done);
        if units.peers * heard.lacks(units) < LEFT_MIN {
            break;
        }
        // What those of the first telling relay comes at another delay than the rest.
        let next = round + 1;
        let of_first = if next > first_lag { first } else { 0.0 };
        let later = |at: usize| {
            at.checked_sub(lag)
                .and_then(|at| informed.get(at))
                .map_or(0.0, |heard| (heard - first).max(0.0))
        };
        let relays = of_first + later(next);
        let last = if round > first_lag { first } else { 0.0 } + later(round);
        let origin = if next > 1 + quiet { 1.0 } else { 0.0 };
        let mut then = heard;
        then.hear(units, relays, (relays - last).max(0.0), 1.0, origin);
        if next == 2
            && let Some(second) = second
        {
            // Exactly so many are new: move the expectation there.
            let wanted = ((units.peers - first - second) / units.peers).max(0.0);
            let missed = then.nobody();
            then.hazard -= if missed > 0.0 {
                (wanted / missed).max(1e-300).ln()
            } else {
                0.0
            };
        }
        heard = then;
        informed.push(units.peers * (1.0 - heard.nobody()));
    }
}

/// Ticks at random phases.
pub(super) fn delay(units: &Units) -> Spread {
    let mut spread = Spread::default();
    let peers = units.peers;
    if units.nodes <= 32.0 && units.first > 0.0 {
        let first = units.first.round() as usize;
        for (heard, chance) in binomial(first, units.arriving).into_iter().enumerate() {
            if chance > 1e-12 {
                let fluid = Fluid::run(units, heard as f64);
                fluid.add(units, &[(0.0, 1.0)], peers - heard as f64, chance, &mut spread);
            }
        }
        return spread.finish();
    }
    let first = units.first * units.arriving;
    let fluid = Fluid::run(units, first);
    let shifts = if first >= peers {
        vec![(0.0, 1.0)]
    } else {
        shifts(units, first)
    };
    fluid.add(units, &shifts, peers, 1.0, &mut spread);
    spread.finish()
}

/// What chance does at the start: the curve is moved by this much, with this weight.
///
/// The number of nodes grows as `W·e^{αt}`. `W` is taken as a gamma variable with the mean and the variance that the
/// branching process has (Harris 1963, §VI), for each number of nodes that the first telling reaches.
fn shifts(units: &Units, first: f64) -> Vec<(f64, f64)> {
    let (pushes, arriving) = (units.pushes(), units.arriving);
    let mut growth = pushes.min(1.0);
    for _ in 0..60 {
        // Newton's method for α = fq·e^{−αℓ}.
        let value = growth - pushes * (-growth * units.delay).exp();
        growth -= value / (1.0 + units.delay * (growth - value));
        growth = growth.max(1e-12);
    }
    let late = (-growth * units.delay).exp();
    let half = growth / 2.0;
    let square = (half / half.tanh() - arriving * late / 2.0) / (1.0 - late / 2.0);
    let variance = (square - 1.0).max(1e-9);
    let mean = 1.0 + first * late;
    let notified = units.first.round() as usize;
    let counts = if notified <= 24 {
        binomial(notified, arriving)
    } else {
        vec![1.0]
    };
    let mut shifts = Vec::new();
    for (heard, chance) in counts.iter().enumerate() {
        let heard = if notified <= 24 { heard as f64 } else { first };
        let size = 1.0 + heard * late;
        let spread = variance + heard * late * late * variance;
        let shape = (size * size / spread).min(1e6);
        // Density of ln W for a gamma variable of mean 1.
        let width = 7.0 / shape.sqrt() / f64::from(STARTS) * if shape < 4.0 { 1.4 } else { 1.0 };
        let density = |at: f64| (shape * (at - at.exp() + 1.0)).exp();
        let points: Vec<(f64, f64)> = (-STARTS..=STARTS)
            .map(|step| f64::from(step) * width)
            .map(|at| (at, density(at)))
            .collect();
        let sum: f64 = points.iter().map(|(_, weight)| weight).sum();
        for (at, weight) in points {
            if weight * chance > sum * 1e-6 {
                shifts.push((-(at + (size / mean).ln()) / growth, chance * weight / sum));
            }
        }
    }
    shifts
}

/// The solution of the delay equation, on a grid of times.
struct Fluid {
    step: f64,
    /// Chance that a node lacks sources.
    lacks: Vec<f64>,
}

impl Fluid {
    fn run(units: &Units, first: f64) -> Self {
        let pushes = units.pushes();
        let lag = units.delay + units.wait;
        let mut step = (1.0 / (STEPS_PER_GROWTH * pushes)).min(0.25 / pushes);
        step = step.max(units.delay / 96.0);
        if lag > 0.0 && lag >= step {
            step = lag / (lag / step).ceil();
        }
        let mut heard = Heard::nothing(1.0 - first / units.peers);
        let mut relays_at: Vec<f64> = Vec::new();
        let mut lacks = Vec::new();
        let mut last = 0.0;
        for at in 0..STEPS_MAX {
            let time = at as f64 * step;
            // Times count from the arrival of the first telling.
            lacks.push(heard.lacks(units));
            if units.peers * heard.lacks(units) < LEFT_MIN {
                break;
            }
            relays_at.push(units.peers * (1.0 - heard.nobody()));
            // Relays that notified a delay ago.
            let past = (time + step / 2.0 - lag) / step;
            let relays = if past < 0.0 {
                0.0
            } else {
                let low = (past.floor() as usize).min(at);
                let here = relays_at[low];
                let slope = if low < at {
                    relays_at[low + 1] - here
                } else if low > 0 {
                    growing(here, relays_at[low - 1], units.peers)
                } else {
                    pushes * (here + 1.0) * step
                };
                (here + slope * (past - low as f64)).min(units.peers)
            };
            // The origin's next tick follows at once, no delay after its first telling.
            let origin = (time + step + if units.first > 0.0 { 0.0 } else { -units.delay } - units.wait)
                .clamp(0.0, step);
            heard.hear(units, relays, (relays - last).max(0.0), step, origin);
            last = relays.max(last);
        }
        Self { step, lacks }
    }

    /// Adds the distribution of the end, moved by each of the shifts.
    fn add(&self, units: &Units, shifts: &[(f64, f64)], missing: f64, weight: f64, spread: &mut Spread) {
        let longest = shifts.iter().map(|(shift, _)| *shift).fold(0.0, f64::max);
        let end = self.lacks.len() as f64 * self.step + longest;
        let lacks = |time: f64| {
            let at = (time / self.step).max(0.0);
            let low = (at.floor() as usize).min(self.lacks.len() - 1);
            let high = (low + 1).min(self.lacks.len() - 1);
            self.lacks[low] + (self.lacks[high] - self.lacks[low]) * (at - low as f64).min(1.0)
        };
        let missing = if units.vouchers > 1 { units.peers } else { missing };
        // With fewer nodes missing than others, the chance is that of one of them.
        let scale = if missing > 0.0 { units.peers / missing } else { 0.0 };
        let base = units.delay * if units.first > 0.0 { 1.0 } else { 0.0 };
        let mut before = 0.0;
        for piece in 0..=PIECES {
            let time = end * piece as f64 / PIECES as f64;
            let (mut done, mut share) = (0.0, 0.0);
            for (shift, chance) in shifts {
                let left = lacks(time - shift);
                done += chance * (1.0 - (left * scale).min(1.0)).powf(missing);
                share += chance * (1.0 + units.peers * (1.0 - left)) / units.nodes;
            }
            let from = end * (piece as f64 - 1.0).max(0.0) / PIECES as f64;
            spread
                .times
                .add(base + from, base + time, weight * (done - before));
            spread.share(base + time, share, weight);
            before = before.max(done);
        }
    }
}

fn growing(here: f64, before: f64, most: f64) -> f64 {
    (here - before).max(0.0) * (1.0 - here / most).max(0.0)
}

/// The time of a cluster of one node.
pub(super) fn alone() -> Spread {
    let mut spread = Spread {
        times: Times::at(0.0),
        rounds: Times::at(0.0),
        ..Spread::default()
    };
    spread.share(0.0, 1.0, 1.0);
    spread.finish()
}
