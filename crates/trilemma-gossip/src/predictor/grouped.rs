//! Groups whose members all tell each other in every tick, and random targets outside of them.
//!
//! A group is *triggered* when one of its members that has heard ticks: after one delay all others of it have been notified
//! once, each of them misses that with the share of lost messages, and within a tick they tell the rest. Random messages
//! reach a group as a Poisson process, and each starts a clock of its own, so the time of the trigger is known. This is the
//! distribution over groups by members informed, for groups that are full soon after the first of them has ticked.

use super::Spread;
use super::units::{Units, too_few};

/// Steps of a tick, where phases are random.
const STEPS_PER_TICK: usize = 16;
/// Points of the origin's phase.
const PHASES: usize = 6;
/// Steps at most.
const STEPS_MAX: usize = 12_000;
/// Expected number of groups that are not full at the end.
const LEFT_MIN: f64 = 1e-7;

/// Which part of the hits of an age have ticked.
#[derive(Clone, Copy)]
enum Ticking {
    /// All, at the next round.
    InStep,
    /// Evenly over one tick.
    Evenly,
}

/// In-group telling after the trigger has arrived: for each age, in steps, the expected number of tellings by others.
struct Inside {
    tellings: Vec<f64>,
}

impl Inside {
    /// `lag` steps from telling to the next telling by those that heard it.
    fn new(units: &Units, steps: usize, lag: usize, ticking: Ticking) -> Self {
        let (mates, arriving) = (units.mates, units.arriving);
        let mut tellings = vec![0.0];
        let mut heard: Vec<f64> = Vec::new();
        let mut total = 0.0;
        for at in 0..STEPS_MAX {
            let first = match ticking {
                Ticking::InStep => at,
                Ticking::Evenly => at / steps,
            };
            let missed = (1.0 - arriving).powi(1 + first as i32) * (-arriving * total).exp();
            heard.push((mates - 1.0).max(0.0) * (1.0 - missed));
            let tellers = at.checked_sub(lag).map_or(0.0, |then| heard[then]);
            total += tellers / steps as f64;
            tellings.push(total);
            if missed * mates < 1e-12 || total > 60.0 + 2.0 * f64::from(units.vouchers) {
                break;
            }
        }
        Self { tellings }
    }

    /// Chance that a mate lacks sources at this age, if `hazard` random messages have reached it on average.
    fn lacks(&self, units: &Units, age: usize, steps: usize, hazard: f64) -> f64 {
        let last = self.tellings.len() - 1;
        let tellings = self.tellings[age.min(last)] + age.saturating_sub(last) as f64;
        let arrived = hazard + units.arriving * tellings;
        let needed = units.vouchers;
        let lost = (1.0 - units.arriving).powi(1 + (age / steps) as i32);
        lost * too_few(needed, arrived, 1e12) + (1.0 - lost) * too_few(needed - 1, arrived, 1e12)
    }
}

/// Groups; ticks in step or at random phases.
pub(super) fn spread(units: &Units, is_synchronised: bool) -> Spread {
    let mut spread = Spread::default();
    let phases = if is_synchronised { 2 } else { PHASES };
    for phase in 0..phases {
        let phase = (phase as f64 + 0.5) / phases as f64;
        one(units, is_synchronised, phase, 1.0 / phases as f64, &mut spread);
    }
    spread.finish()
}

fn one(units: &Units, is_synchronised: bool, phase: f64, weight: f64, spread: &mut Spread) {
    let (steps, ticking) = if is_synchronised {
        (1, Ticking::InStep)
    } else {
        (STEPS_PER_TICK, Ticking::Evenly)
    };
    let step = 1.0 / steps as f64;
    // In step, what was notified in a round is heard before the next one, or as many rounds later as the delay has.
    let lag = if is_synchronised {
        (units.delay.ceil() as usize).max(1)
    } else {
        (units.delay / step).round() as usize
    };
    let inside = Inside::new(units, steps, lag.max(1), ticking);
    let groups = units.nodes / (units.mates + 1.0);
    let outside = units.nodes - units.mates - 1.0;
    let own_tick = if is_synchronised {
        1
    } else {
        (phase / step).round() as usize
    };
    let own_trigger = if units.first > 0.0 { 0 } else { own_tick };
    // Expected random messages to a node, by step of their arrival; those of the first telling arrive at 0.
    let each = 1.0 / outside.max(1.0);
    let (mut hazard, mut hits) = (0.0, Vec::new());
    let mut untriggered: Vec<f64> = Vec::new();
    let mut informed: Vec<f64> = Vec::new();
    let mut before = 0.0;
    for at in 0..STEPS_MAX {
        let relays = at.checked_sub(lag).map_or(0.0, |then| {
            let then = informed.get(then).copied().unwrap_or(0.0);
            (then - 1.0).max(0.0)
        });
        let is_origins_tick = at >= own_tick + lag && (at - own_tick - lag).is_multiple_of(steps);
        let origin = if is_origins_tick { 1.0 } else { 0.0 };
        let flush = if at == 0 && units.first > 0.0 {
            units.first.min(units.random)
        } else {
            0.0
        };
        let hit = each * (units.pushes() * (relays * step + origin) + units.arriving * flush);
        hazard += hit;
        hits.push(hit * (units.mates + 1.0));
        let ticked: f64 = hits
            .iter()
            .rev()
            .enumerate()
            .map(|(age, hit)| {
                hit * match ticking {
                    Ticking::InStep => f64::from(u8::from(age >= lag)),
                    Ticking::Evenly => ((age.saturating_sub(lag)) as f64 * step).min(1.0),
                }
            })
            .sum();
        untriggered.push((-ticked).exp());
        let left = untriggered[at];
        let lacks_unhit = too_few(units.vouchers, hazard, 1e12);
        let members = units.mates + 1.0;
        let (mut unheard, mut lacking, mut open) = (
            (-hazard).exp() * left,
            lacks_unhit * left,
            left * (1.0 - (1.0 - lacks_unhit).powf(members)),
        );
        for (then, pair) in untriggered.windows(2).enumerate() {
            let chance = pair[0] - pair[1];
            if chance < 1e-12 {
                continue;
            }
            let age = at - (then + 1);
            let lacks = inside.lacks(units, age, steps, hazard);
            let none = lacks.min((-hazard).exp());
            unheard += chance * none;
            lacking += chance * lacks;
            open += chance * (1.0 - (1.0 - lacks).powf(members));
        }
        let own = at.checked_sub(if units.first > 0.0 { 0 } else { own_trigger + lag });
        let own_lacks = own.map_or(lacks_unhit, |age| inside.lacks(units, age, steps, hazard));
        informed.push(1.0 + units.mates * (1.0 - own_lacks.min((-hazard).exp())) + outside * (1.0 - unheard));
        let open = (groups - 1.0) * open + 1.0 - (1.0 - own_lacks).powf(units.mates);
        let done = (-open).exp().max(before);
        let first = if units.first > 0.0 { 0.0 } else { 1.0 };
        let (from, to) = if is_synchronised {
            let shift = at as f64 - 1.0 + first + units.delay;
            if at == 0 {
                (units.delay, units.delay)
            } else {
                (shift, shift + 1.0)
            }
        } else {
            let time = at as f64 * step + units.delay * (1.0 - first);
            (time - step, time)
        };
        spread.times.add(from.max(0.0), to, weight * (done - before));
        spread
            .rounds
            .add(at as f64 + 1.0, at as f64 + 1.0, weight * (done - before));
        let share = 1.0 + units.mates * (1.0 - own_lacks) + outside * (1.0 - lacking);
        spread.share(to, share / units.nodes, weight);
        before = done;
        if open < LEFT_MIN {
            break;
        }
    }
}
