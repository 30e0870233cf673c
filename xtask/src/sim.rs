//! `cargo xtask sim`: builds the simulator, optimised, and runs it; or compares runs across processes, profiles and
//! processors.

mod determinism;
mod guest;

use std::path::PathBuf;

use crate::workspace::Workspace;
use crate::{Outcome, process, programs};

/// The text of `--help`.
pub(crate) const HELP: &str = "\
Usage: cargo xtask sim --protocol raft|paxos|gossip|two-phase|mixed|all [--seeds N] [--from S] [ARGUMENTS]
       cargo xtask sim --protocol PROTOCOL --profile large|load|restart|long|watch|client [--seeds N]
       cargo xtask sim --profile PROFILE --print
       cargo xtask sim --protocol PROTOCOL --seed S [--trace | --print | --shrink]
       cargo xtask sim --scenario FILE [--trace | --shrink]
       cargo xtask sim swim [--smoke] [--only MEASURE] [--seed S] [--nodes N]
       cargo xtask sim converge [--smoke] [--only TEXT] [--seed S] [--nodes N,N,…] [--writes N] [--json FILE] [--svg FILE]
       cargo xtask sim --determinism [--protocol PROTOCOL] [--seeds N] [--from S]

Builds the simulator with the profile `sim` and runs it with these arguments; without any it lists them all. The last
line is one JSON object. Exit codes are the simulator's: 0 nothing found, 1 failures, 2 usage, or too much undecided.

  swim           the membership core alone: clusters of up to 10,000 members, measured against its goals; takes many minutes,
                 with --smoke some seconds
  converge       the gossip core alone: how many ticks a write takes to all nodes, beside what was predicted, for fanouts,
                 losses, vouchers, groups and preferred senders; takes hours, with --smoke a minute
  --determinism  runs each seed in two processes, in the dev profile, and compiled to WebAssembly in an interpreter,
                 and compares the hashes of their traces; fails at the first difference. 100 seeds per protocol";

/// What the simulator is built with.
pub(crate) const PROFILE: &str = "sim";
/// The simulator's package and program.
pub(crate) const PROGRAM: &str = "trilemma-sim";
/// The campaign of the membership core.
pub(crate) const SWIM: &str = "swim-campaign";
/// The predictor beside clusters of the gossip core.
const CONVERGE: &str = "converge";
/// What can be simulated.
pub(crate) const PROTOCOLS: &[&str] = &["raft", "paxos", "gossip", "two-phase", "mixed"];
/// What the campaign of the membership core runs seeds of.
pub(crate) const MEMBERSHIP: &str = "membership";

/// Runs the task.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Outcome {
    if args.iter().any(|arg| arg == "--determinism") {
        let rest: Vec<String> = args
            .iter()
            .filter(|arg| *arg != "--determinism")
            .cloned()
            .collect();
        return determinism::run(workspace, &rest);
    }
    match args.first().map(String::as_str) {
        Some("swim") => return swim(workspace, &args[1..]),
        Some("converge") => return converge(workspace, &args[1..]),
        _ => {}
    }
    let program = build(workspace, PROFILE)?;
    // From where the user stands: the files among the arguments are named from there.
    let status = process::command(&program)
        .args(args)
        .status()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    match status.code() {
        Some(0) => Ok(()),
        // The simulator said why; its exit code tells failures from undecided runs.
        Some(code) => std::process::exit(code),
        None => Err(format!(
            "the simulator ended with {status}; its last lines say where it was"
        )),
    }
}

/// Measures the membership core, optimised.
pub(crate) fn swim(workspace: &Workspace, args: &[String]) -> Outcome {
    measure(workspace, SWIM, args)
}

/// Compares the gossip core with the predictor, optimised.
pub(crate) fn converge(workspace: &Workspace, args: &[String]) -> Outcome {
    measure(workspace, CONVERGE, args)
}

fn measure(workspace: &Workspace, program: &str, args: &[String]) -> Outcome {
    let folder = programs::build(workspace, PROFILE, &[program])?;
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    process::run(workspace, folder.join(programs::file_name(program)), &args)
}

/// Builds the simulator; returns the program.
pub(crate) fn build(workspace: &Workspace, profile: &str) -> Result<PathBuf, String> {
    let folder = programs::build(workspace, profile, &[PROGRAM])?;
    Ok(folder.join(programs::file_name(PROGRAM)))
}

/// Runs seeds of a profile, of one protocol or of all, and fails unless the simulator finds nothing.
pub(crate) fn campaign(
    workspace: &Workspace,
    profile: &str,
    protocol: &str,
    from: u64,
    seeds: u64,
) -> Outcome {
    let program = build(workspace, PROFILE)?;
    let (from, seeds) = (from.to_string(), seeds.to_string());
    let args = [
        "--profile",
        profile,
        "--protocol",
        protocol,
        "--from",
        &from,
        "--seeds",
        &seeds,
    ];
    process::run(workspace, program, &args)
}

/// Compares the traces of seeds of all protocols between processes, builds and processors.
pub(crate) fn compare(workspace: &Workspace, from: u64, seeds: u64) -> Outcome {
    let args = ["--from", &from.to_string(), "--seeds", &seeds.to_string()];
    determinism::run(workspace, &args.map(str::to_owned))
}

/// Replays every scenario of a folder, relative to the root; each must be legal. Returns how many there are.
pub(crate) fn scenarios(workspace: &Workspace, folder: &str) -> Result<usize, String> {
    let program = build(workspace, PROFILE)?;
    let files = workspace.files()?;
    let scenarios = files
        .iter()
        .filter(|file| file.starts_with(folder) && file.ends_with(".txt"));
    let mut count = 0;
    for file in scenarios {
        process::run(workspace, &program, &["--scenario", file])?;
        count += 1;
    }
    Ok(count)
}
