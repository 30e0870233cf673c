//! `cargo xtask bench`: measures clusters of real processes.

use crate::Outcome;
use crate::process::{self, cargo};
use crate::workspace::Workspace;

/// The text of `--help`.
pub(crate) const HELP: &str = "\
Usage: cargo xtask bench cluster [ARGUMENTS]
       cargo xtask bench micro [ARGUMENTS]

  cluster  builds the server in release mode, then runs the load generator of `benches/` with the arguments
           (`cargo xtask bench cluster --help` lists them)
  micro    runs the criterion benchmarks of `benches/`, with the arguments given to criterion

Numbers mean something only beside the machine and the commit; both are printed.";

/// Runs the task.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Outcome {
    let Some((kind, rest)) = args.split_first() else {
        return Err(format!("which benchmark?\n\n{HELP}"));
    };
    let (build, run): (&[&str], &[&str]) = match kind.as_str() {
        "cluster" => (
            &["build", "--release", "--locked", "--package", "trilemma-server"],
            &[
                "run",
                "--release",
                "--locked",
                "--package",
                "trilemma-benches",
                "--bin",
                "cluster",
                "--",
            ],
        ),
        "micro" => (&[], &["bench", "--locked", "--package", "trilemma-benches", "--"]),
        other => return Err(format!("unknown benchmark \"{other}\"\n\n{HELP}")),
    };
    let asks_for_help = rest.iter().any(|arg| arg == "--help" || arg == "-h");
    if !build.is_empty() && !asks_for_help {
        process::run(workspace, cargo(), build)?;
    }
    let mut line: Vec<String> = run.iter().map(|arg| (*arg).to_owned()).collect();
    line.extend(rest.iter().cloned());
    describe();
    process::run(workspace, cargo(), &line)
}

/// The machine and the commit that the numbers belong to.
fn describe() {
    let commit = process::output("git", &["describe", "--always", "--dirty", "--abbrev=12"]);
    println!("commit:  {}", commit.as_deref().unwrap_or("unknown").trim());
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    println!("machine: {cpus} logical CPUs, {}", processor());
}

fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or_else(
            || std::env::consts::ARCH.to_owned(),
            |(_, name)| name.trim().to_owned(),
        )
}
