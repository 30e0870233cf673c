//! The parameters in the units of the equations: nodes, peers notified per tick, delay in ticks.

use super::params::{FirstSend, Params, Phases};

/// Most ticks for which a rumor is spread.
pub(crate) const TICKS_MAX: u32 = 100_000;
/// Ticks before a change is spread that went to everybody at once; see `rumors`.
const SENT_TICKS: f64 = 2.0;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Units {
    /// Nodes.
    pub(crate) nodes: f64,
    /// The other nodes.
    pub(crate) peers: f64,
    /// Share of messages that arrive.
    pub(crate) arriving: f64,
    /// Uniformly random targets of a tick.
    pub(crate) random: f64,
    /// Targets of a tick that stay the same because most news came from them.
    pub(crate) fixed: f64,
    /// Members of a group beside the teller.
    pub(crate) mates: f64,
    /// One-way delay in ticks.
    pub(crate) delay: f64,
    /// Peers that are sent an own write at once.
    pub(crate) first: f64,
    /// Ticks between hearing and the first telling, beyond the next one.
    pub(crate) wait: f64,
    /// Distinct sources that are needed.
    pub(crate) vouchers: u32,
    /// Ticks for which a rumor is spread.
    pub(crate) infective: u32,
}

/// Peers that are notified preferentially: those that most news came from, at most half of the fanout.
pub(crate) fn fixed_targets(params: &Params) -> u32 {
    let peers = params.nodes.saturating_sub(1);
    let share = (params.top * f64::from(peers)).ceil() as u32;
    share.min(params.fanout / 2).min(peers)
}

/// Members of the largest group, 1 without groups.
pub(crate) fn group_size(params: &Params) -> u32 {
    if params.groups == 0 {
        1
    } else {
        params.nodes.div_ceil(params.groups)
    }
}

/// Whether a write goes to everybody at once.
pub(crate) fn is_small(params: &Params) -> bool {
    matches!(params.first_send, FirstSend::AtOnce { all_up_to } if params.nodes.saturating_sub(1) <= all_up_to)
}

impl Units {
    /// Of parameters that have been checked.
    pub(crate) fn new(params: &Params) -> Self {
        let nodes = f64::from(params.nodes);
        let peers = nodes - 1.0;
        // In groups news comes from mates first, which are targets anyway: nobody takes the place of a random target.
        let fixed = if group_size(params) > 1 {
            0.0
        } else {
            f64::from(fixed_targets(params))
        };
        let size = if params.groups == 0 {
            1.0
        } else {
            nodes / f64::from(params.groups)
        };
        let others = (peers - (size - 1.0)).max(0.0);
        let random = (f64::from(params.fanout) - fixed).max(1.0).min(others);
        let first = match params.first_send {
            FirstSend::NextTick => 0.0,
            FirstSend::AtOnce { .. } if is_small(params) => peers,
            FirstSend::AtOnce { .. } => f64::from(params.fanout).min(peers),
        };
        Self {
            nodes,
            peers,
            arriving: 1.0 - params.loss,
            random,
            fixed,
            mates: size - 1.0,
            delay: params.latency.as_secs_f64() / params.tick.as_secs_f64(),
            first,
            wait: if is_small(params) { SENT_TICKS - 1.0 } else { 0.0 },
            vouchers: params.vouchers,
            infective: infective_ticks(params),
        }
    }

    /// Random messages that arrive per teller and tick.
    pub(crate) fn pushes(&self) -> f64 {
        self.random * self.arriving
    }

    /// Whether all nodes tell in step, of the parameters that this comes from.
    pub(crate) fn is_synchronised(params: &Params) -> bool {
        params.phases == Phases::Synchronised
    }
}

/// Ticks for which every node must spread a rumor so that all have it but with `miss_probability`: `⌈ln(N/δ)/(fq)⌉ + 1`
/// (Demers et al. 1987, §1.4); with several vouchers, until so many distinct sources have notified each with that
/// probability. Values out of their range count as the nearest in it.
#[must_use]
pub fn infective_ticks(params: &Params) -> u32 {
    let peers = f64::from(params.nodes.max(2) - 1);
    let nodes = f64::from(params.nodes.max(1));
    let fixed = fixed_targets(params);
    let random = f64::from(params.fanout.saturating_sub(fixed).max(1)).min(peers);
    let arriving = 1.0 - params.loss.clamp(0.0, 0.999);
    let miss = params.miss_probability.clamp(1e-12, 0.5);
    let pushes = random * arriving;
    let ticks = ((nodes / miss).ln() / pushes).ceil();
    let once = (ticks as u32).saturating_add(1).min(TICKS_MAX);
    let vouchers = params.vouchers.min(params.nodes.saturating_sub(1));
    if vouchers <= 1 {
        return once;
    }
    // The chance of too few sources falls with each tick: halve the interval.
    let (mut low, mut high) = (once, TICKS_MAX);
    while low < high {
        let middle = u32::midpoint(low, high);
        let notified = peers * (1.0 - (1.0 - pushes / peers).max(0.0).powf(f64::from(middle - 1)));
        if nodes * too_few(vouchers, notified, peers) <= miss {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// Chance that fewer than `needed` of `sources` have notified, if each has with the same chance and `notified` have on average:
/// the binomial distribution, and for many sources Poisson's.
pub(crate) fn too_few(needed: u32, notified: f64, sources: f64) -> f64 {
    if needed == 0 {
        return 0.0;
    }
    if sources < 1.0 {
        return 1.0;
    }
    let chance = (notified / sources).clamp(0.0, 1.0);
    if chance >= 1.0 {
        return if f64::from(needed) > sources { 1.0 } else { 0.0 };
    }
    let odds = chance / (1.0 - chance);
    let mut term = (sources * (-chance).ln_1p()).exp();
    let mut sum = 0.0;
    for count in 0..needed {
        sum += term;
        let count = f64::from(count);
        term *= odds * (sources - count).max(0.0) / (count + 1.0);
    }
    sum.min(1.0)
}
