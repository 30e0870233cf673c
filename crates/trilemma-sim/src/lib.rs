//! Simulated clusters: the real protocol cores, codec and log, in virtual time on one thread.

pub mod choices;
pub mod client;
pub mod clock;
pub mod coverage;
pub mod engine;
pub mod invariants;
mod judge;
pub mod node;
pub mod report;
pub mod scenario;
pub mod shrink;
pub mod swarm;
pub mod trace;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use report::{Failure, Report};
pub use scenario::{Protocol, Scenario};

/// Runs a scenario. `verbose` asks for the lines of the trace. A panic of the code under test is a failure like any
/// other, of the checker `panic`.
#[must_use]
pub fn run(scenario: &Scenario, verbose: bool) -> Report {
    catch_unwind(AssertUnwindSafe(|| world::run(scenario, verbose))).unwrap_or_else(|cause| {
        let text = cause.downcast_ref::<String>().cloned();
        let text = text.or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Report {
            failure: Some(Failure {
                checker: "panic",
                what: text.unwrap_or_else(|| "a panic without a text".to_owned()),
                time: 0,
            }),
            ..Report::default()
        }
    })
}

/// The digest over everything that happens in the run of a seed: the same on every machine.
#[must_use]
pub fn trace_hash(protocol: Protocol, seed: u64) -> u128 {
    run(&swarm::scenario(protocol, seed), false).hash
}
