//! `cargo xtask bench`: measures clusters of real processes.

use crate::process::{self, cargo};
use crate::workspace::Workspace;
use crate::{Outcome, programs};

/// The text of `--help`.
pub(crate) const HELP: &str = "\
Usage: cargo xtask bench cluster [ARGUMENTS]
       cargo xtask bench micro [ARGUMENTS]

  cluster  builds the server in release mode, then runs the load generator of `benches/` with the arguments
           (`cargo xtask bench cluster --help` lists them)
  micro    runs the criterion benchmarks of `benches/`, with the arguments given to criterion

Numbers mean something only beside the machine and the commit; both are printed.";

/// The program that loads a cluster and measures it.
const LOAD_GENERATOR: &str = "cluster";
/// The program that is measured.
const SERVER: &str = "trilemma";

/// Runs the task.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Outcome {
    let Some((kind, rest)) = args.split_first() else {
        return Err(format!("which benchmark?\n\n{HELP}"));
    };
    match kind.as_str() {
        "cluster" => cluster(workspace, rest),
        "micro" => {
            let mut args = ["bench", "--locked", "--workspace", "--bench", "core", "--"]
                .map(str::to_owned)
                .to_vec();
            args.extend(rest.iter().cloned());
            describe();
            process::run(workspace, cargo(), &args)
        }
        other => Err(format!("unknown benchmark \"{other}\"\n\n{HELP}")),
    }
}

/// Builds the server and the load generator, which looks for the server beside itself, and runs it.
fn cluster(workspace: &Workspace, args: &[String]) -> Outcome {
    let asks_for_help = args.iter().any(|arg| arg == "--help" || arg == "-h");
    let needed: &[&str] = if asks_for_help {
        &[LOAD_GENERATOR]
    } else {
        &[LOAD_GENERATOR, SERVER]
    };
    let folder = programs::build(workspace, "release", needed)?;
    describe();
    process::run(workspace, folder.join(programs::file_name(LOAD_GENERATOR)), args)
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
