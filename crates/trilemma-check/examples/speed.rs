//! How long the linearizability check takes: `cargo run --release -p trilemma-check --example speed`.

use std::time::Instant;

use trilemma_check::linearizability::{Budget, check};
use trilemma_check::model::Model;

#[path = "../tests/power/generate.rs"]
mod generate;

use generate::{Shape, legal};

fn main() {
    let cases = [
        (
            "register, 10,000 operations, 100 keys",
            Model::Register,
            10_000,
            100,
            1,
        ),
        (
            "cas-register, 10,000 operations, 100 keys",
            Model::CasRegister,
            10_000,
            100,
            1,
        ),
        ("per-key, 300 operations, 5 keys", Model::PerKey, 300, 5, 300),
        ("key-value, 100 operations, 5 keys", Model::KeyValue, 100, 5, 300),
        ("key-value, 300 operations, 5 keys", Model::KeyValue, 300, 5, 300),
        (
            "key-value, 300 operations, 20 keys",
            Model::KeyValue,
            300,
            20,
            300,
        ),
        (
            "key-value, 10,000 operations, 100 keys",
            Model::KeyValue,
            10_000,
            100,
            1,
        ),
        ("list, 300 operations, 5 keys", Model::List, 300, 5, 300),
        ("set, 300 operations, 5 keys", Model::Set, 300, 5, 300),
    ];
    for (name, model, operations, keys, histories) in cases {
        for has_versions in [true, false] {
            let (mut slowest, mut total) = (0, 0);
            let mut verdicts = std::collections::BTreeMap::<String, usize>::new();
            for seed in 0..histories {
                let shape = Shape {
                    model,
                    processes: 10,
                    keys,
                    operations,
                    has_versions,
                };
                let history = legal(seed, shape);
                let started = Instant::now();
                let report = check(&history, model, Budget::default());
                let took = started.elapsed().as_micros();
                slowest = slowest.max(took);
                total += took;
                *verdicts.entry(word(&report)).or_default() += 1;
            }
            let mean = total / u128::from(histories);
            println!("{name}, versions {has_versions}: mean {mean} us, slowest {slowest} us: {verdicts:?}");
        }
    }
}

/// The verdict and each engine's finding, shortened.
fn word(report: &trilemma_check::linearizability::Report) -> String {
    use trilemma_check::linearizability::Finding;
    let engines = report.engines.iter().map(|(engine, finding)| match finding {
        Finding::Verdict(verdict) if verdict.is_legal() => format!("{engine} legal"),
        Finding::Verdict(_) => format!("{engine} undecided or illegal"),
        Finding::NotApplicable { .. } => format!("{engine} n/a"),
    });
    let engines: Vec<String> = engines.collect();
    let overall = if report.verdict.is_legal() {
        "legal"
    } else {
        "NOT LEGAL"
    };
    format!("{overall} ({})", engines.join(", "))
}
