//! How long changes took to this node, beside what was predicted: the prediction is confirmed, or refuted, by every node.
//!
//! A change carries the moment of its write. When rumors bring it here for the first time, its age is one measurement. A node
//! cannot see when *all* have a change; so the median age here is compared with the predicted median of the time to *one*
//! node, which the same curve gives. Medians of [`BLOCK`] changes: a few that came late through an exchange and were then
//! passed on move them little, and what is older than [`OLD`] times the predicted 99.99th percentile is left out.
//!
//! Ages are differences between two wall clocks: where clocks differ, they are wrong by as much. What the disk of the origin
//! takes is in them, too.

use std::time::Duration;

use tracing::{info, warn};
use trilemma_core::WallTime;

use crate::predictor::{Params, Report};
use crate::replica::Item;

/// Changes whose median is one judgement.
const BLOCK: usize = 64;
/// Judgements in a row after which slowness is no accident.
const SUSTAINED: u32 = 3;
/// Measured over predicted above which a median is too late.
const RATIO_MAX: f64 = 1.25;
/// Beyond this multiple of the predicted 99.99th percentile a change did not come by rumors alone.
const OLD: u32 = 10;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// Predicted median of the time to one node; `None` if nothing is predicted.
    predicted: Option<Duration>,
    /// Ages beyond which a change does not count, in milliseconds.
    old: u64,
    /// Half a tick: less is within what clocks and disks do.
    slack: Duration,
    /// Ages in milliseconds since the last judgement.
    ages: Vec<u64>,
    /// The last median.
    measured: Option<Duration>,
    /// Judgements in a row that were too late.
    late: u32,
}

impl Arrivals {
    /// For a cluster with these settings and this prediction.
    pub(crate) fn new(params: &Params, report: Option<&Report>) -> Self {
        let Some(report) = report else {
            return Self::default();
        };
        let nodes = f64::from(params.nodes);
        let half = f64::midpoint(1.0, nodes) / nodes;
        let point = report.curve.iter().find(|point| point.share >= half);
        let old = report.prediction.p9999.max(params.tick).saturating_mul(OLD);
        Self {
            predicted: point.map(|point| point.time),
            old: u64::try_from(old.as_millis()).unwrap_or(u64::MAX),
            slack: params.tick / 2,
            ..Self::default()
        }
    }

    /// Rumors have brought these for the first time.
    pub(crate) fn note<'a>(&mut self, wall: WallTime, items: impl Iterator<Item = &'a Item>) {
        for item in items {
            let age = wall.0.saturating_sub(item.stamp.millis());
            if age > self.old {
                continue;
            }
            self.ages.push(age);
            if self.ages.len() == BLOCK {
                self.judge();
            }
        }
    }

    fn judge(&mut self) {
        self.ages.sort_unstable();
        let measured = Duration::from_millis(self.ages[BLOCK / 2]);
        self.ages.clear();
        self.measured = Some(measured);
        let Some(predicted) = self.predicted else {
            return;
        };
        let is_late = measured > predicted.mul_f64(RATIO_MAX) && measured > predicted + self.slack;
        let was_slow = self.is_slow();
        self.late = if is_late { self.late.saturating_add(1) } else { 0 };
        if self.is_slow() && !was_slow {
            warn!(
                ?predicted,
                ?measured,
                "changes take longer to this node than predicted: loss and latency are above what is configured, nodes or \
                 disks are overloaded, or clocks differ"
            );
        } else if was_slow && !self.is_slow() {
            info!(?predicted, ?measured, "changes take as long as predicted again");
        }
    }

    /// Whether changes have taken longer than predicted for a while.
    pub(crate) fn is_slow(&self) -> bool {
        self.late >= SUSTAINED
    }

    /// Predicted median of the time to one node.
    pub(crate) fn predicted(&self) -> Option<Duration> {
        self.predicted
    }

    /// The median of the last changes; `None` before there were enough.
    pub(crate) fn measured(&self) -> Option<Duration> {
        self.measured
    }

    /// Measured over predicted, in percent.
    pub(crate) fn ratio_percent(&self) -> Option<u64> {
        let predicted = self.predicted.filter(|predicted| !predicted.is_zero())?;
        let ratio = self.measured?.as_secs_f64() / predicted.as_secs_f64();
        Some((ratio * 100.0).round() as u64)
    }

    /// The module's own invariants.
    pub(crate) fn check(&self) {
        assert!(self.ages.len() < BLOCK, "ages that nobody judges");
        debug_assert!(
            self.late == 0 || self.measured.is_some(),
            "too late without a measurement"
        );
    }
}
