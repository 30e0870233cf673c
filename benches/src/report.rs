//! What was measured: as tables for people, as a comparison of two programs, as JSON with every histogram.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::machine::Machine;

/// One number.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What it is, with its unit.
    pub name: &'static str,
    /// The number.
    pub value: f64,
}

/// All times of one kind, from which figures were taken.
#[derive(Clone, Debug, Serialize)]
pub struct Distribution {
    /// What took so long.
    pub name: &'static str,
    /// Nanoseconds (to three digits) and how often they were seen, ascending.
    pub nanos: Vec<(u64, u64)>,
}

impl Distribution {
    /// What a histogram of nanoseconds holds.
    #[must_use]
    pub fn new(name: &'static str, histogram: &Histogram<u64>) -> Self {
        let nanos = histogram
            .iter_recorded()
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
            .collect();
        Self { name, nanos }
    }
}

/// What one system did under one load.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// A backend of Trilemma, or another system with its version.
    pub system: String,
    /// The load.
    pub load: String,
    /// The numbers.
    pub figures: Vec<Figure>,
    /// What they were taken from.
    pub histograms: Vec<Distribution>,
    /// Operations that failed. A run with failures is no measurement, unless the benchmark causes them.
    pub failures: u64,
    /// The first of them.
    pub first_failure: Option<String>,
}

impl Measurement {
    /// A measurement without numbers yet.
    #[must_use]
    pub fn new(system: impl Into<String>, load: impl Into<String>) -> Self {
        Self {
            system: system.into(),
            load: load.into(),
            figures: Vec::new(),
            histograms: Vec::new(),
            failures: 0,
            first_failure: None,
        }
    }

    /// With another number.
    #[must_use]
    pub fn figure(mut self, name: &'static str, value: f64) -> Self {
        self.figures.push(Figure { name, value });
        self
    }

    /// With median, 99th and 99.9th percentile in milliseconds, and all the times.
    #[must_use]
    pub fn times(mut self, name: &'static str, histogram: &Histogram<u64>) -> Self {
        for (figure, quantile) in [("p50 ms", 0.5), ("p99 ms", 0.99), ("p99.9 ms", 0.999)] {
            let value = histogram.value_at_quantile(quantile) as f64 / 1e6;
            self.figures.push(Figure { name: figure, value });
        }
        self.histograms.push(Distribution::new(name, histogram));
        self
    }
}

/// A program that was measured, once or several times.
#[derive(Clone, Debug, Serialize)]
pub struct Subject {
    /// `A`, or `B` for the one it is compared with.
    pub name: &'static str,
    /// Its path.
    pub binary: String,
    /// What each run has given.
    pub runs: Vec<Vec<Measurement>>,
}

/// Everything one benchmark has measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The benchmark.
    pub benchmark: String,
    /// The command line.
    pub arguments: Vec<String>,
    /// Physical limits, same run.
    pub machine: Machine,
    /// The programs.
    pub subjects: Vec<Subject>,
    /// Other systems under the same load.
    pub others: Vec<Measurement>,
}

/// The middle of some numbers; of an even count, the mean of the two in the middle.
#[must_use]
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => numbers[middle],
        _ => f64::midpoint(numbers[middle - 1], numbers[middle]),
    }
}

/// A number with about four digits.
fn shown(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "-".into(),
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

impl Subject {
    /// How far the runs of this program differ by themselves: the largest of a number by the smallest.
    fn spread(&self, measurement: usize, place: usize) -> f64 {
        let value = |run: &Vec<Measurement>| Some(run.get(measurement)?.figures.get(place)?.value);
        let values = self.runs.iter().filter_map(value);
        let (least, most) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
            (least.min(value), most.max(value))
        });
        most / least
    }

    /// The runs as one: of each number the median.
    fn medians(&self) -> Vec<Measurement> {
        let Some((first, rest)) = self.runs.split_first() else {
            return Vec::new();
        };
        let mut medians = first.clone();
        for (index, measurement) in medians.iter_mut().enumerate() {
            let same = |run: &Vec<Measurement>| run.get(index).cloned();
            let others: Vec<Measurement> = rest.iter().filter_map(same).collect();
            for (place, figure) in measurement.figures.iter_mut().enumerate() {
                let values = others.iter().filter_map(|other| other.figures.get(place));
                let values = values.map(|figure| figure.value).chain([figure.value]);
                figure.value = median(values.collect());
            }
            measurement.failures += others.iter().map(|other| other.failures).sum::<u64>();
        }
        medians
    }
}

fn table(measurements: &[Measurement]) -> String {
    let mut text = String::new();
    let names = |measurement: &Measurement| -> Vec<&str> {
        measurement.figures.iter().map(|figure| figure.name).collect()
    };
    let mut heading = Vec::new();
    for measurement in measurements {
        if names(measurement) != heading {
            heading = names(measurement);
            text += &format!("\n{:<28} {:<22}", "", "");
            text.extend(heading.iter().map(|name| format!(" {name:>14}")));
            text.push('\n');
        }
        text += &format!("{:<28} {:<22}", measurement.system, measurement.load);
        text.extend(
            measurement
                .figures
                .iter()
                .map(|figure| format!(" {:>14}", shown(figure.value))),
        );
        if measurement.failures > 0 {
            text += &format!("   {} failed", measurement.failures);
        }
        text.push('\n');
    }
    text
}

fn comparison(a: &Subject, b: &Subject) -> String {
    let mut text = format!(
        "\n{:<28} {:<22} {:<16} {:>12} {:>12} {:>8} {:>8}\n",
        "", "", "", "A", "B", "A / B", "spread"
    );
    for (index, (left, right)) in a.medians().iter().zip(&b.medians()).enumerate() {
        for (place, (one, other)) in left.figures.iter().zip(&right.figures).enumerate() {
            text += &format!(
                "{:<28} {:<22} {:<16} {:>12} {:>12} {:>8} {:>8}\n",
                left.system,
                left.load,
                one.name,
                shown(one.value),
                shown(other.value),
                shown(one.value / other.value),
                shown(a.spread(index, place).max(b.spread(index, place))),
            );
        }
    }
    text
}

impl Report {
    /// The report for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.machine.text();
        match &self.subjects[..] {
            [a, b] => {
                let count = a.runs.len();
                text += &format!(
                    "\nmedians of {count} interleaved runs each\nA: {}\nB: {}\n",
                    a.binary, b.binary
                );
                text += &comparison(a, b);
            }
            subjects => {
                for subject in subjects {
                    text += &table(&subject.medians());
                }
            }
        }
        text + &table(&self.others)
    }

    /// What must not have happened, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<(u64, String)> {
        let own = self
            .subjects
            .iter()
            .flat_map(|subject| subject.runs.iter().flatten());
        let all: Vec<&Measurement> = own.chain(&self.others).collect();
        let failures = all.iter().map(|measurement| measurement.failures).sum();
        let first = all
            .iter()
            .find_map(|measurement| measurement.first_failure.clone());
        (failures > 0).then(|| (failures, first.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests;
