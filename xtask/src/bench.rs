//! `cargo xtask bench`: measures clusters of real processes, and the core alone.

use crate::process::{self, cargo};
use crate::workspace::Workspace;
use crate::{Outcome, programs};

/// The text of `--help`.
pub(crate) const HELP: &str = "\
Usage: cargo xtask bench KIND [ARGUMENTS]

  cluster    puts per second and their latency, each backend; the same on etcd and ZooKeeper if they are installed
  reads      gets, linearizable and local; the same on etcd and ZooKeeper
  watch      one writer, many watchers: how long a change takes to reach them all
  restart    a cluster with much state, killed and started: how long until it serves
  failover   the leader killed under load: how long nothing is acknowledged
  catch-up   a follower that was away, or is new: how long until it has everything, and what that costs the others
  isolation  what a flood, a slow disk, a stopped node and deaf clients cost another keyspace
  keyspaces  what many keyspaces cost, and a flooded one the others
  memory     what a state costs in memory: written, sent to a node that has nothing, after a restart
  micro      the core of a backend alone: three nodes in one thread, without disks and sockets
  criterion  single operations of the core, with the arguments given to criterion

`cargo xtask bench KIND --help` lists the arguments. With `--against PATH` two programs are measured in turn, A B B A …,
and the ratio of their medians is printed; `--json FILE` writes everything with all histograms.

Numbers mean something only beside the machine's limits of the same run, the processor and the commit; all are printed.";

/// The program that loads clusters and measures them.
const LOAD_GENERATOR: &str = "bench";
/// The program that is measured.
const SERVER: &str = "trilemma";
/// What the load generator measures, and whether it needs the server for that.
const KINDS: [(&str, bool); 10] = [
    ("cluster", true),
    ("reads", true),
    ("watch", true),
    ("restart", true),
    ("failover", true),
    ("catch-up", true),
    ("isolation", true),
    ("keyspaces", true),
    ("memory", true),
    ("micro", false),
];

/// Runs the task.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Outcome {
    let Some((kind, rest)) = args.split_first() else {
        return Err(format!("which benchmark?\n\n{HELP}"));
    };
    if kind == "criterion" {
        let mut args = ["bench", "--locked", "--workspace", "--bench", "core", "--"]
            .map(str::to_owned)
            .to_vec();
        args.extend(rest.iter().cloned());
        describe();
        return process::run(workspace, cargo(), &args);
    }
    match KINDS.iter().find(|(name, _)| name == kind) {
        Some((_, needs_server)) => measure(workspace, args, *needs_server),
        None => Err(format!("unknown benchmark \"{kind}\"\n\n{HELP}")),
    }
}

/// Builds the load generator and the server, which it looks for beside itself, and runs it.
fn measure(workspace: &Workspace, args: &[String], needs_server: bool) -> Outcome {
    let asks_for_help = args.iter().any(|arg| arg == "--help" || arg == "-h");
    let needed: &[&str] = if needs_server && !asks_for_help {
        &[LOAD_GENERATOR, SERVER]
    } else {
        &[LOAD_GENERATOR]
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
