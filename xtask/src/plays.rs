//! `cargo xtask plays`: the protocols' scenarios as text, each with its recorded trace.
//!
//! The work is done by one test of each protocol crate, `tests/plays.rs`, so `cargo test` runs them, too.

use crate::process::{self, cargo};
use crate::workspace::Workspace;
use crate::{Outcome, flags};

/// The text of `--help`.
pub(crate) const HELP: &str = "\
Usage: cargo xtask plays [--rewrite] [PROTOCOL]...

Runs the plays of the protocols (raft, paxos, two-phase, gossip; default: all), crates/*/tests/plays/*.txt, and shows
where what happens is not what is recorded.

  --rewrite  record what happens instead. Read the difference before you commit it, and say in the commit why it is right";

/// The variable that makes the tests write the files. Cargo compiles nothing again when it changes.
const VARIABLE: &str = "TRILEMMA_PLAYS";

/// The protocols that have plays.
const PROTOCOLS: &[&str] = &["raft", "paxos", "two-phase", "gossip"];

/// Runs the task.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Outcome {
    let known: Vec<&'static str> = PROTOCOLS.iter().copied().chain(["--rewrite"]).collect();
    let given = flags(args, &known)?;
    let mut protocols: Vec<&str> = given.iter().copied().filter(|arg| *arg != "--rewrite").collect();
    let is_rewrite = protocols.len() < given.len();
    if protocols.is_empty() {
        protocols = PROTOCOLS.to_vec();
    }
    let packages: Vec<String> = protocols
        .iter()
        .map(|protocol| format!("--package=trilemma-{protocol}"))
        .collect();
    let mut line = vec!["test", "--quiet", "--test=plays"];
    line.extend(packages.iter().map(String::as_str));
    let variables: &[(&str, &str)] = if is_rewrite { &[(VARIABLE, "rewrite")] } else { &[] };
    process::run_with(workspace, cargo(), &line, variables)
}
