//! Ten thousand operations on one register by fifty clients, a tenth of unknown outcome: how long until a verdict?
//! `cargo run --release -p trilemma-check --example crowd`.

use std::time::Instant;

use trilemma_check::linearizability::{Budget, check};

#[path = "../tests/crowd/generate.rs"]
mod generate;

use generate::{CROWDS, crowd, plant};

fn main() {
    for shape in CROWDS {
        for seed in 0..2 {
            let mut history = crowd(seed, shape);
            for is_planted in [false, true] {
                if is_planted {
                    plant(&mut history, seed);
                }
                let started = Instant::now();
                let report = check(&history, shape.model, Budget::default());
                let took = started.elapsed().as_millis();
                let engines: Vec<String> = report
                    .engines
                    .iter()
                    .map(|(name, found)| format!("{name}: {found}"))
                    .collect();
                let verdict = format!("{:?}", report.verdict);
                println!(
                    "{}, seed {seed}, planted {is_planted}: {took} ms: {} [{}]",
                    shape.name,
                    verdict.split_whitespace().next().unwrap_or(""),
                    engines.join("; ").chars().take(200).collect::<String>()
                );
            }
        }
    }
}
