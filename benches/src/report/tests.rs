//! Medians, comparisons and tables.

use super::*;
use crate::machine::{Limit, Machine};

fn measurement(puts: f64) -> Measurement {
    Measurement::new("raft", "64 clients").figure("puts/s", puts)
}

fn subject(name: &'static str, puts: &[f64]) -> Subject {
    Subject {
        name,
        binary: format!("/{name}"),
        runs: puts.iter().map(|puts| vec![measurement(*puts)]).collect(),
    }
}

fn report(subjects: Vec<Subject>) -> Report {
    let limit = Limit {
        p50_us: 100.0,
        p99_us: 200.0,
        per_second: 9000.0,
    };
    Report {
        benchmark: "cluster".into(),
        arguments: Vec::new(),
        machine: Machine {
            cpus: 2,
            fdatasync: limit,
            fdatasync_three: limit,
            udp_round_trip: limit,
        },
        subjects,
        others: Vec::new(),
    }
}

#[test]
fn the_median_is_the_middle() {
    assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
    assert!(median(Vec::new()).is_nan());
}

#[test]
fn two_programs_are_compared_by_their_medians() {
    let text = report(vec![
        subject("A", &[100.0, 300.0, 200.0]),
        subject("B", &[100.0, 90.0, 5000.0]),
    ])
    .text();
    let line = text.lines().find(|line| line.contains("puts/s")).expect("a line");
    let numbers: Vec<&str> = line.split_whitespace().rev().take(4).collect();
    assert_eq!(
        numbers,
        ["55.6", "2.000", "100.0", "200.0"],
        "the ratio beside what one program differs from itself: {text}"
    );
}

#[test]
fn one_program_is_shown_as_a_table_and_failures_are_named() {
    let mut report = report(vec![subject("A", &[1234.0])]);
    assert!(report.text().contains("1234"), "{}", report.text());
    assert_eq!(report.failure(), None);
    report.subjects[0].runs[0][0].failures = 3;
    report.subjects[0].runs[0][0].first_failure = Some("no".into());
    assert_eq!(report.failure(), Some((3, "no".into())));
    assert!(report.text().contains("3 failed"));
}

#[test]
fn every_time_is_in_the_json() {
    let mut histogram = crate::load::new_histogram().expect("bounds");
    for nanos in [1000, 1000, 2_000_000] {
        histogram.saturating_record(nanos);
    }
    let times = Measurement::new("raft", "").times("put", &histogram);
    assert_eq!(times.figures.len(), 3);
    let counts: Vec<u64> = times.histograms[0]
        .nanos
        .iter()
        .map(|(_, count)| *count)
        .collect();
    assert_eq!(counts, [2, 1]);
}
