//! The command line: what can be asked, and the way from arguments to a running command.

mod check;
mod client;
mod init;
mod keys;
mod load;
mod members;
mod overview;
mod predict;
mod serve;
mod tls;
mod txn;
mod types;
mod watch;

#[cfg(test)]
mod tests;

pub(crate) use client::strongest;
pub(crate) use load::write;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use trilemma::{Needs, OpId, ReadLevel, Version};

use crate::exit::{Failure, HELP, Outcome};
use crate::output::Form;

/// Trilemma: choose per keyspace what to keep when the network splits.
///
/// Run a node with `serve`, talk to it with `get`, `put` and the other commands, see what a network partition does with `demo`.
#[derive(Debug, Parser)]
#[command(name = "trilemma", version, after_help = HELP, after_long_help = HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of all commands.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Configuration file: for `serve` the node's; else the client's, by default the one that the environment
    /// variable TRILEMMA_CONFIG names, ./client.toml, or ./trilemma/client.toml as written by `init`
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Ask this server: a node id or address of the client configuration, or ID=ADDRESS. May be repeated
    #[arg(long, global = true, value_name = "SERVER")]
    pub(crate) server: Vec<String>,
    /// Longest time for the operation, such as 500ms, 5s, 1m
    #[arg(long, global = true, default_value = "5s", value_parser = duration, value_name = "TIME")]
    pub(crate) timeout: Duration,
    /// Form of the output
    #[arg(long, global = true, default_value = "table", value_name = "FORM")]
    pub(crate) output: Form,
    /// Say what was achieved and what it cost
    #[arg(long, global = true)]
    pub(crate) explain: bool,
    /// Open the keyspace for this need; without it, for the most that its backend offers
    #[arg(long, global = true, value_name = "NEED")]
    pub(crate) needs: Option<Need>,
}

/// What the command needs of the keyspace.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Need {
    /// Answers on any node, in any partition; converges.
    Available,
    /// Each key behaves as one copy.
    Linearizable,
    /// Batches over many keys are all or nothing.
    Atomic,
}

impl From<Need> for Needs {
    fn from(need: Need) -> Self {
        match need {
            Need::Available => Needs::Available,
            Need::Linearizable => Needs::Linearizable,
            Need::Atomic => Needs::Atomic,
        }
    }
}

/// Options of reads.
#[derive(Debug, Args)]
pub(crate) struct ReadOptions {
    /// How fresh: linearizable, local, or at-least:VERSION. Default: the strongest that the backend has
    #[arg(long, value_parser = level, value_name = "LEVEL")]
    pub(crate) level: Option<ReadLevel>,
}

/// Options of writes.
#[derive(Debug, Args)]
pub(crate) struct WriteOptions {
    /// Name the operation, so that a repeat takes effect at most once
    #[arg(long, value_name = "OPID")]
    pub(crate) op_id: Option<OpId>,
    /// The operation may have been sent before
    #[arg(long, requires = "op_id")]
    pub(crate) retry: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node
    Serve(serve::Serve),
    /// Write the configuration and certificates of a new cluster
    Init(init::Init),
    /// Make certificates
    Cert(tls::Cert),
    /// Split three nodes on this machine and see what each backend keeps
    Demo(crate::demo::Demo),
    /// Read one key
    Get(keys::Get),
    /// Set one key
    Put(keys::Put),
    /// Remove one key
    Delete(keys::Delete),
    /// Set one key if it holds what is expected
    Cas(keys::Cas),
    /// Read a range of keys
    Range(keys::Range),
    /// Follow the changes of a range
    Watch(watch::Watch),
    /// Change several keys if conditions hold, all or nothing
    Txn(txn::Txn),
    /// Ask what became of an operation
    Outcome(keys::Outcome),
    /// Count: additions on all sides of a partition all count (gossip)
    Counter(types::Counter),
    /// Count what must never be below zero (gossip)
    BoundedCounter(types::BoundedCounter),
    /// Change or show a set, in which additions win (gossip)
    Set(types::Set),
    /// Change or show a map, in which assignments win (gossip)
    Map(types::Fields),
    /// Load a configuration file, each setting as one key
    Load(load::Load),
    /// Write stored settings as a configuration file
    Export(load::Export),
    /// Show a node: peers, keyspaces, log
    Status(overview::Status),
    /// Show who belongs to the cluster and who of them works
    Members(members::Members),
    /// Show what each keyspace can do now, and why not more
    Keyspaces(overview::Keyspaces),
    /// Judge a history: are the answers that clients got legal?
    Check(check::Check),
    /// Compute how long a write in a gossip keyspace takes to every node
    Predict(predict::Predict),
    /// Print shell completions
    Completions(Completions),
}

/// Prints shell completions.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  trilemma completions bash > /etc/bash_completion.d/trilemma")]
struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

/// Runs the command.
pub(crate) fn run(cli: Cli) -> Outcome {
    let Cli { global, command } = cli;
    if let Command::Completions(Completions { shell }) = command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "trilemma", &mut script);
        crate::output::print(&script);
        return Ok(crate::exit::Exit::Ok);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(
                crate::exit::Exit::Start,
                format!("the system refused threads: {error}"),
                "free resources",
            )
        })?;
    runtime.block_on(async {
        match command {
            Command::Serve(command) => command.run(&global).await,
            Command::Init(command) => command.run(),
            Command::Cert(command) => command.run(),
            Command::Demo(command) => command.run(&global).await,
            Command::Get(command) => command.run(&global).await,
            Command::Put(command) => command.run(&global).await,
            Command::Delete(command) => command.run(&global).await,
            Command::Cas(command) => command.run(&global).await,
            Command::Range(command) => command.run(&global).await,
            Command::Watch(command) => command.run(&global).await,
            Command::Txn(command) => command.run(&global).await,
            Command::Outcome(command) => command.run(&global).await,
            Command::Counter(command) => command.run(&global).await,
            Command::BoundedCounter(command) => command.run(&global).await,
            Command::Set(command) => command.run(&global).await,
            Command::Map(command) => command.run(&global).await,
            Command::Load(command) => command.run(&global).await,
            Command::Export(command) => command.run(&global).await,
            Command::Status(command) => command.run(&global).await,
            Command::Members(command) => command.run(&global).await,
            Command::Keyspaces(command) => command.run(&global).await,
            Command::Check(command) => command.run(&global),
            Command::Predict(command) => command.run(&global),
            Command::Completions(_) => unreachable!("answered above"),
        }
    })
}

/// A duration such as `500ms`, `5s`, `2m`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    /// Longest that a command may be asked to wait.
    const LONGEST: Duration = Duration::from_secs(3600);
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        unit => return Err(format!("unknown unit \"{unit}\"; expected ms, s or m")),
    };
    let number: f64 = digits
        .parse()
        .map_err(|_| format!("\"{digits}\" is not a number"))?;
    match Duration::try_from_secs_f64(number * scale) {
        Ok(time) if !time.is_zero() && time <= LONGEST => Ok(time),
        _ => Err("expected more than 0 and at most 60m".into()),
    }
}

/// A read level.
fn level(text: &str) -> Result<ReadLevel, String> {
    match text {
        "linearizable" => Ok(ReadLevel::Linearizable),
        "local" => Ok(ReadLevel::Local),
        _ => {
            let version = text
                .strip_prefix("at-least:")
                .map(|version| version.trim_start_matches('v').parse());
            match version {
                Some(Ok(version)) => Ok(ReadLevel::MinVersion(Version(version))),
                _ => Err("expected linearizable, local or at-least:VERSION".into()),
            }
        }
    }
}
