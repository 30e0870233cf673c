//! A cell's measurement beside its prediction.

use std::fmt;
use std::time::Duration;

use trilemma_gossip::predictor::Prediction;

use crate::cells::{Cell, TICK};

/// What one write took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    /// Until all reflected it; `None` if rumors never reached some node.
    pub(crate) time: Option<Duration>,
    /// Copies of the change that arrived at all nodes together.
    pub(crate) copies: u32,
    /// Nodes that rumors missed.
    pub(crate) missed: u32,
}

/// Mean, median and 99th percentile, in ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Figures {
    fn predicted(prediction: &Prediction) -> Self {
        Self {
            mean: ticks(prediction.mean),
            p50: ticks(prediction.p50),
            p99: ticks(prediction.p99),
        }
    }

    /// Of times in order, of which there is one at least.
    fn measured(times: &[f64]) -> Self {
        let quantile = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1];
        Self {
            mean: times.iter().sum::<f64>() / times.len() as f64,
            p50: quantile(50),
            p99: quantile(99),
        }
    }
}

fn ticks(time: Duration) -> f64 {
    time.as_secs_f64() / TICK.as_secs_f64()
}

/// See the module.
pub(crate) struct Measured {
    pub(crate) cell: Cell,
    pub(crate) predicted: Figures,
    pub(crate) measured: Figures,
    writes: usize,
    /// Writes that rumors did not bring to all nodes: their time is in no figure.
    incomplete: usize,
    /// Copies that arrive at a node.
    copies: f64,
    missed: u32,
}

impl Measured {
    pub(crate) const HEAD: &'static str = "\
in ticks                                        predicted             measured
cell                                         mean   p50   p99      mean   p50   p99   copies  missed  writes";

    /// Fails if no write has reached all nodes.
    pub(crate) fn new(cell: &Cell, prediction: &Prediction, writes: &[Write]) -> Result<Self, String> {
        let mut times: Vec<f64> = writes.iter().filter_map(|write| write.time).map(ticks).collect();
        if times.is_empty() {
            return Err("no write has reached all nodes".into());
        }
        times.sort_by(f64::total_cmp);
        let copies: u32 = writes.iter().map(|write| write.copies).sum();
        let others = f64::from(cell.nodes - 1) * writes.len() as f64;
        Ok(Self {
            cell: *cell,
            predicted: Figures::predicted(prediction),
            measured: Figures::measured(&times),
            writes: writes.len(),
            incomplete: writes.len() - times.len(),
            copies: f64::from(copies) / others,
            missed: writes.iter().map(|write| write.missed).sum(),
        })
    }

    /// The tolerance: the mean within 0.3 ticks or 5 %, p99 at most one tick above. Of a thousand writes rumors are planned to
    /// miss a node with one; with more than one and ten of a thousand the figures would be those of the lucky ones.
    pub(crate) fn is_within(&self) -> bool {
        let tolerance = (self.predicted.mean * 0.05).max(0.3);
        (self.measured.mean - self.predicted.mean).abs() <= tolerance
            && self.measured.p99 <= self.predicted.p99 + 1.0
            && self.incomplete <= 1 + self.writes / 100
    }

    /// One line of JSON.
    pub(crate) fn json(&self) -> String {
        let Cell {
            nodes,
            fanout,
            loss,
            vouchers,
            phases,
            extra,
        } = self.cell;
        let figures = |it: &Figures| {
            format!(
                "{{\"mean\":{:.3},\"p50\":{:.3},\"p99\":{:.3}}}",
                it.mean, it.p50, it.p99
            )
        };
        format!(
            "{{\"nodes\":{nodes},\"fanout\":{fanout},\"loss_percent\":{loss},\"vouchers\":{vouchers},\
             \"phases\":\"{phases:?}\",\"extra\":\"{extra:?}\",\"predicted_ticks\":{},\"measured_ticks\":{},\
             \"copies\":{:.3},\"missed\":{},\"writes\":{},\"within\":{}}}",
            figures(&self.predicted),
            figures(&self.measured),
            self.copies,
            self.missed,
            self.writes,
            self.is_within()
        )
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (predicted, measured) = (&self.predicted, &self.measured);
        write!(
            f,
            "{:42} {:6.2} {:5.2} {:5.2}    {:6.2} {:5.2} {:5.2}   {:6.2}  {:6}  {:6}  {}",
            self.cell.name(),
            predicted.mean,
            predicted.p50,
            predicted.p99,
            measured.mean,
            measured.p50,
            measured.p99,
            self.copies,
            self.missed,
            self.writes,
            if self.is_within() { "" } else { "OUT" }
        )
    }
}
