//! Simulated clusters: the real protocol cores, the real codec and the real log, in virtual time on one thread.
//!
//! ```text
//! seed ──swarm──▶ Scenario ──run──▶ Report
//!                  ▲   │             │ failure
//!    text by hand ─┘   └──shrink ◀───┘
//! ```
//!
//! - [`scenario`]: everything that happens to a cluster from outside, as text. [`swarm`] makes one from a seed, and
//!   [`profile`] one of another kind.
//! - [`node`]: disk, log, snapshots and turns of one node, as the driver of `trilemma-runtime` has them; [`clock`] its
//!   two clocks; [`engine`] the protocol instances and the settings that a scenario may change.
//! - The world runs nodes, links and [`client`]s from one queue of events. All chance comes from [`randomness`].
//! - [`invariants`] are looked at after every event; at the end every node must accept a write, all must show the same,
//!   and the histories go through the checkers of `trilemma-check`.
//! - [`coverage`] counts which faults met which phases; [`shrink`] makes a failing scenario short.
//!
//! The same seed gives the same [`trace_hash`] on every machine, natively and in WebAssembly.

pub mod client;
pub mod clock;
pub mod coverage;
pub mod engine;
pub mod invariants;
mod judge;
pub mod node;
pub mod profile;
pub mod randomness;
pub mod report;
pub mod scenario;
pub mod seen;
pub mod shrink;
pub mod swarm;
#[cfg(test)]
mod tests;
pub mod trace;
mod watching;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use profile::Profile;
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
