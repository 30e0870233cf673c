//! `cargo xtask bench cluster`: starts three real nodes, loads each backend, compares with the machine's limits.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use trilemma::Backend;
use trilemma_benches::cluster::Cluster;
use trilemma_benches::etcd::{self, Etcd};
use trilemma_benches::limits::{Limits, fdatasync};
use trilemma_benches::report::{Report, System};
use trilemma_benches::{BenchError, Result};

/// Loads a cluster of three processes on this machine and measures it.
#[derive(Debug, Parser)]
struct Args {
    /// The `trilemma` binary; by default the one beside this program.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Backends to load.
    #[arg(long, value_delimiter = ',', default_value = "gossip,raft,paxos,two-phase")]
    backends: Vec<Backend>,
    /// Numbers of clients, each with one write in flight.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
    clients: Vec<usize>,
    /// Seconds for each level.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Bytes of each value.
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Directory for the nodes' data, on a real disk; a new one below `target` by default.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Write the report as JSON into this file too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Leave etcd out even if it is installed.
    #[arg(long)]
    no_etcd: bool,
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
    match tokio::task::LocalSet::new().block_on(&runtime, run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    let binary = match args.binary {
        Some(binary) => binary,
        None => beside_this_program("trilemma")?,
    };
    let directory = match args.directory {
        Some(directory) => directory,
        None => beside_this_program(&format!("bench-{}", std::process::id()))?,
    };
    std::fs::create_dir_all(&directory)
        .map_err(|error| BenchError::system(directory.display().to_string(), error))?;
    let time = Duration::from_secs(args.seconds);
    let limits = Limits {
        fdatasync: fdatasync(&directory, 1, Duration::from_secs(2))?,
        fdatasync_three: fdatasync(&directory, 3, Duration::from_secs(2))?,
        quic_round_trip: None,
    };
    let mut report = Report {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        value_bytes: args.value_bytes,
        seconds: args.seconds,
        limits,
        systems: Vec::new(),
    };
    let cluster = Cluster::start(&binary, &directory.join("trilemma"), &args.backends).await?;
    report.limits.quic_round_trip = Some(cluster.round_trip(Duration::from_secs(2)).await?);
    for backend in args.backends {
        let mut levels = Vec::new();
        for clients in &args.clients {
            eprintln!("{backend}, {clients} clients …");
            levels.push(cluster.measure(backend, *clients, args.value_bytes, time).await?);
        }
        report.systems.push(System {
            name: backend.to_string(),
            levels,
        });
    }
    drop(cluster);
    match etcd::version().await {
        Some(version) if !args.no_etcd => {
            let directory = directory.join("etcd");
            std::fs::create_dir_all(&directory)
                .map_err(|error| BenchError::system("etcd directory", error))?;
            let etcd = Etcd::start(&directory).await?;
            let mut levels = Vec::new();
            for clients in &args.clients {
                eprintln!("{version}, {clients} clients …");
                levels.push(etcd.measure(*clients, args.value_bytes, time).await?);
            }
            report.systems.push(System {
                name: version,
                levels,
            });
        }
        Some(_) => {}
        None => eprintln!("etcd is not installed; it is left out of the comparison"),
    }
    finish(&report, args.json.as_deref(), &directory)
}

fn finish(report: &Report, json: Option<&std::path::Path>, directory: &std::path::Path) -> Result<()> {
    println!("{}", report.table());
    let text = serde_json::to_string(report).map_err(|error| BenchError::system("JSON", error))?;
    println!("{text}");
    if let Some(path) = json {
        std::fs::write(path, &text).map_err(|error| BenchError::system(path.display().to_string(), error))?;
    }
    std::fs::remove_dir_all(directory)
        .map_err(|error| BenchError::system(directory.display().to_string(), error))?;
    let failures: u64 = report
        .systems
        .iter()
        .flat_map(|system| &system.levels)
        .map(|level| level.failures)
        .sum();
    if failures > 0 {
        let first = report
            .systems
            .iter()
            .flat_map(|s| &s.levels)
            .find_map(|level| level.first_failure.clone());
        return Err(BenchError::system(
            format!("{failures} writes failed"),
            first.unwrap_or_default(),
        ));
    }
    Ok(())
}

fn beside_this_program(name: &str) -> Result<PathBuf> {
    let program =
        std::env::current_exe().map_err(|error| BenchError::system("this program's path", error))?;
    Ok(program.with_file_name(name))
}
