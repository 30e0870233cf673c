//! `cargo xtask explore`: every state that a few nodes of a protocol can reach within bounds.
//!
//! The work is done by tests of the protocol's crate, which `cargo test` runs with smaller bounds.

use crate::process::{self, cargo};
use crate::workspace::Workspace;
use crate::{Outcome, flags, sim};

/// The text of `--help`.
pub(crate) const HELP: &str = "\
Usage: cargo xtask explore [raft]

Searches all states that three nodes of a protocol can reach within bounds, and prints how many there are, or a shortest
run to one that breaks a property. The bounds are in crates/trilemma-raft/src/tests/explore.rs; `cargo test` searches
within smaller ones.";

/// The variable that makes the tests use the larger bounds. Cargo compiles nothing again when it changes.
const VARIABLE: &str = "TRILEMMA_EXPLORE";

/// Runs the task.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Outcome {
    flags(args, &["raft"])?;
    let line = [
        "test",
        "--profile",
        sim::PROFILE,
        "--package=trilemma-raft",
        "--lib",
        "tests::explore",
        "--",
        "--nocapture",
        "--test-threads=1",
    ];
    process::run_with(workspace, cargo(), &line, &[(VARIABLE, "far")])
}
