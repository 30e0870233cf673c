//! `cargo xtask bench`: starts three real nodes, loads them, and compares with the machine's limits, with another program
//! and with other systems.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use trilemma_benches::machine::Machine;
use trilemma_benches::puts::Others;
use trilemma_benches::report::{Measurement, Report, Subject};
use trilemma_benches::{
    BenchError, Result, catch_up, failover, isolation, keyspaces, memory, micro, puts, reads, restart, watch,
    writers,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures clusters of three processes on this machine.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Args {
    #[command(subcommand)]
    kind: Kind,
    /// The `trilemma` program; by default the one beside this program.
    #[arg(long, global = true)]
    binary: Option<PathBuf>,
    /// Another `trilemma` program to compare with: both are measured in turn, A B B A ….
    #[arg(long, global = true, value_name = "PATH")]
    against: Option<PathBuf>,
    /// Runs of each program; with --against at least two.
    #[arg(long, global = true, default_value_t = 1)]
    rounds: usize,
    /// Directory for the nodes' data, on a real disk; a new one beside this program by default.
    #[arg(long, global = true)]
    directory: Option<PathBuf>,
    /// Write the report with all histograms as JSON into this file.
    #[arg(long, global = true)]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Puts per second and their latency; the same on etcd and ZooKeeper where they are installed
    Cluster {
        #[command(flatten)]
        options: puts::Options,
        #[command(flatten)]
        others: Others,
    },
    /// Gets per second and their latency; the same on etcd and ZooKeeper where they are installed
    Reads {
        #[command(flatten)]
        options: puts::Options,
        #[command(flatten)]
        others: Others,
    },
    /// How long a change takes to reach all watchers
    Watch(watch::Options),
    /// Kill of all nodes with much state: how long until the cluster serves
    Restart(restart::Options),
    /// Kill of the leader under load: how long nothing is acknowledged
    Failover(failover::Options),
    /// A follower that was away: how long until it has everything, and what that costs the others
    CatchUp(catch_up::Options),
    /// What a flood, a slow disk, a stopped node and deaf clients cost another keyspace
    Isolation(isolation::Options),
    /// What many keyspaces cost, and a flooded one the others
    Keyspaces(keyspaces::Options),
    /// What a state costs in memory: written, sent to a node that has nothing, after a restart
    Memory(memory::Options),
    /// The core of a backend alone: three nodes in one thread, without disks and sockets
    Micro(micro::Options),
    /// Clients of another run of this program
    #[command(hide = true)]
    Writers(writers::Options),
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Kind::Cluster { .. } => "cluster",
            Kind::Reads { .. } => "reads",
            Kind::Watch(_) => "watch",
            Kind::Restart(_) => "restart",
            Kind::Failover(_) => "failover",
            Kind::CatchUp(_) => "catch-up",
            Kind::Isolation(_) => "isolation",
            Kind::Keyspaces(_) => "keyspaces",
            Kind::Memory(_) => "memory",
            Kind::Micro(_) => "micro",
            Kind::Writers(_) => "writers",
        }
    }

    async fn measure(&self, binary: &Path, directory: &Path) -> Result<Vec<Measurement>> {
        match self {
            Kind::Cluster { options, .. } => puts::measure(binary, directory, options).await,
            Kind::Reads { options, .. } => reads::measure(binary, directory, options).await,
            Kind::Watch(options) => watch::measure(binary, directory, options).await,
            Kind::Restart(options) => restart::measure(binary, directory, options).await,
            Kind::Failover(options) => failover::measure(binary, directory, options).await,
            Kind::CatchUp(options) => catch_up::measure(binary, directory, options).await,
            Kind::Isolation(options) => isolation::measure(binary, directory, options).await,
            Kind::Keyspaces(options) => keyspaces::measure(binary, directory, options).await,
            Kind::Memory(options) => memory::measure(binary, directory, options).await,
            Kind::Micro(options) => micro::measure(options),
            Kind::Writers(_) => Ok(Vec::new()),
        }
    }

    async fn others(&self, directory: &Path) -> Result<Vec<Measurement>> {
        match self {
            Kind::Cluster { options, others } => puts::others(directory, options, others).await,
            Kind::Reads { options, others } => reads::others(directory, options, others).await,
            _ => Ok(Vec::new()),
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no event loop: {error}");
            return ExitCode::FAILURE;
        }
    };
    match tokio::task::LocalSet::new().block_on(&runtime, run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<()> {
    if let Kind::Writers(options) = &args.kind {
        return writers::run(options).await;
    }
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => beside_this_program("trilemma")?,
    };
    let directory = match &args.directory {
        Some(directory) => directory.join(format!("bench-{}", std::process::id())),
        None => beside_this_program(&format!("bench-{}", std::process::id()))?,
    };
    if matches!(args.kind, Kind::Micro(_)) && args.against.is_some() {
        let why = "it measures the core that this program was built with; run it from both trees";
        return Err(BenchError::system("micro --against", why));
    }
    make(&directory)?;
    let mut report = Report {
        benchmark: args.kind.name().into(),
        arguments: std::env::args().skip(1).collect(),
        machine: Machine::measure(&directory)?,
        subjects: vec![subject("A", &binary)],
        others: Vec::new(),
    };
    report
        .subjects
        .extend(args.against.as_deref().map(|path| subject("B", path)));
    for (run, index) in order(report.subjects.len(), args.rounds).into_iter().enumerate() {
        let subject = &mut report.subjects[index];
        eprintln!("run {}: {} {}", run + 1, subject.name, subject.binary);
        let place = directory.join(format!("run-{run}"));
        make(&place)?;
        // In a folder of its own: `init` writes into one that is not there.
        let found = args
            .kind
            .measure(Path::new(&subject.binary), &place.join("trilemma"))
            .await?;
        subject.runs.push(found);
        remove(&place)?;
    }
    report.others = args.kind.others(&directory).await?;
    remove(&directory)?;
    finish(&report, args.json.as_deref())
}

fn subject(name: &'static str, binary: &Path) -> Subject {
    Subject {
        name,
        binary: binary.display().to_string(),
        runs: Vec::new(),
    }
}

/// Which program runs when. Two take turns, and turns of turns, so that a machine that gets slower with time, or faster,
/// treats both alike.
fn order(subjects: usize, rounds: usize) -> Vec<usize> {
    match subjects {
        1 => vec![0; rounds.max(1)],
        _ => (0..rounds.max(2))
            .flat_map(|round| if round % 2 == 0 { [0, 1] } else { [1, 0] })
            .collect(),
    }
}

fn make(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)
        .map_err(|error| BenchError::system(directory.display().to_string(), error))
}

fn remove(directory: &Path) -> Result<()> {
    std::fs::remove_dir_all(directory)
        .map_err(|error| BenchError::system(directory.display().to_string(), error))
}

fn finish(report: &Report, json: Option<&Path>) -> Result<()> {
    println!("{}", report.text());
    if let Some(path) = json {
        let text = serde_json::to_string(report).map_err(|error| BenchError::system("JSON", error))?;
        std::fs::write(path, text).map_err(|error| BenchError::system(path.display().to_string(), error))?;
    }
    match report.failure() {
        None => Ok(()),
        Some((count, first)) => Err(BenchError::system(format!("{count} operations failed"), first)),
    }
}

fn beside_this_program(name: &str) -> Result<PathBuf> {
    let program =
        std::env::current_exe().map_err(|error| BenchError::system("this program's path", error))?;
    Ok(program.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_programs_take_turns() {
        assert_eq!(order(1, 3), [0, 0, 0]);
        assert_eq!(order(2, 1), [0, 1, 1, 0]);
        assert_eq!(order(2, 3), [0, 1, 1, 0, 0, 1]);
    }
}
