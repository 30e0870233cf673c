//! `serve`: one node as a process.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::Args;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use trilemma::{Config, DiskId, Node, NodeId};

use super::Global;
use crate::exit::{Exit, Failure, Outcome};
use crate::log::Lines;
use crate::{files, output};

/// Runs a node until SIGINT or SIGTERM.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trilemma serve --config trilemma/node-1.toml
  trilemma serve --config trilemma/node-1.toml --log trilemma=debug
  trilemma serve --config node-4.toml --new       # the first start, if `init` has not made the directory here

Prints one line that begins with `ready` to standard output once it serves; logs go to standard error. SIGINT and
SIGTERM stop the node cleanly: everything it has accepted becomes durable first. A storage failure stops it too,
with a sentence and exit code 7: it never acknowledges what it cannot keep. Whether anybody reads what it prints makes no
difference to the node: log lines that standard error does not take are dropped and counted.")]
pub(crate) struct Serve {
    /// What to log: error, warn, info, debug, trace, or MODULE=LEVEL,…
    #[arg(long, default_value = "info", env = "TRILEMMA_LOG", value_name = "FILTER")]
    log: String,
    /// The node is new: make its data directory. Refused where the directory holds data. Without it an empty directory is
    /// refused, unless `init` has made it: a volume may not be mounted, and a node that has lost its directory must not
    /// come back under its id
    #[arg(long)]
    new: bool,
    /// Go on with this disk of a node that has lost its own for good, in gossip and two-phase keyspaces; raft and paxos do
    /// without that node. Needed once, on each other node
    #[arg(long, value_name = "NODE=DISK", value_parser = accepted_disk)]
    accept_disk: Vec<(NodeId, DiskId)>,
    /// Write the `ready` line to this file too. A file that is there from before is removed first; at the end, however the
    /// node ends, it is removed again
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

impl Serve {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let Some(path) = &global.config else {
            return Err(Failure::usage(
                "no node configuration is given",
                "give --config FILE; `trilemma init` writes one",
            ));
        };
        let log = self.start_log()?;
        let outcome = self.serve(path).await;
        log.flush();
        outcome
    }

    async fn serve(&self, path: &Path) -> Outcome {
        // Before anything can fail: the file of a node that was killed must not speak for this one.
        let ready_file = self.ready_file.as_deref().map(ReadyFile::new).transpose()?;
        let mut config = Config::load(path)?;
        if self.new {
            refuse_data(config.data())?;
            config = config.new_node();
        }
        for (node, disk) in &self.accept_disk {
            if !config.peers().contains_key(node) {
                return Err(Failure::usage(
                    format!("--accept-disk {node}={disk}: node {node} is not among `peers`"),
                    "name one of the other nodes, and its disk as `trilemma status` shows it",
                ));
            }
            config = config.accept_disk(*node, *disk);
        }
        for sentence in config.explain() {
            tracing::info!("{sentence}");
        }
        let keyspaces: Vec<String> = config
            .keyspaces()
            .map(|(name, backend)| format!("{name}={backend}"))
            .collect();
        // Before the node starts, so that a signal meanwhile is not lost.
        let mut signals = signals()?;
        let node = tokio::select! {
            node = Node::start(config) => node?,
            signal = signals.received() => {
                // What it had begun to read is as it was.
                tracing::info!("{signal}: stopped before the node had started");
                return Ok(Exit::Ok);
            }
        };
        let ready = format!(
            "ready node={} listen={} keyspaces={}",
            node.id(),
            node.listen(),
            keyspaces.join(",")
        );
        if let Err(error) = output::announce(&ready) {
            tracing::warn!("standard output does not take the line \"{ready}\": {error}");
        }
        if let Some(file) = &ready_file
            && let Err(failure) = file.write(&ready)
        {
            // Those who wait for the file would wait without end.
            node.shutdown().await?;
            return Err(failure);
        }
        tokio::select! {
            signal = signals.received() => {
                tracing::info!("{signal}: stopping");
                drop(ready_file);
                stop(node, &mut signals).await
            }
            error = node.failed() => Err(Failure::from(error)),
        }
    }

    fn start_log(&self) -> Result<Lines, Failure> {
        let filter = log_filter(&self.log).map_err(|error| {
            Failure::usage(
                format!("--log {}: {error}", self.log),
                "give a level such as info, or MODULE=LEVEL,…",
            )
        })?;
        let lines = Lines::start(std::io::stderr()).map_err(|error| {
            Failure::new(
                Exit::Start,
                format!("the system refused a thread: {error}"),
                "free resources",
            )
        })?;
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(lines.clone())
            .with_ansi(output::stderr_is_terminal());
        tracing_subscriber::registry().with(filter).with(layer).init();
        Ok(lines)
    }
}

/// The file that says that the node serves. It is there only while that is so.
struct ReadyFile(PathBuf);

impl ReadyFile {
    /// Removes the one from before.
    fn new(path: &Path) -> Result<Self, Failure> {
        files::remove(path).map_err(|error| {
            Failure::new(
                Exit::Start,
                format!("--ready-file {}: {error}", path.display()),
                "name a file that can be removed and written",
            )
        })?;
        Ok(Self(path.to_path_buf()))
    }

    fn write(&self, ready: &str) -> Result<(), Failure> {
        files::write(&self.0, format!("{ready}\n").as_bytes()).map_err(|error| {
            Failure::new(
                Exit::Start,
                format!("--ready-file {}: {error}", self.0.display()),
                "the node was stopped again; name a file that can be written",
            )
        })
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        if let Err(error) = files::remove(&self.0) {
            tracing::warn!("--ready-file {}: {error}", self.0.display());
        }
    }
}

/// A node and its disk, `NODE=DISK`.
fn accepted_disk(text: &str) -> Result<(NodeId, DiskId), String> {
    let parse = || {
        let (node, disk) = text.split_once('=')?;
        let disk = u64::from_str_radix(disk, 16).ok()?;
        Some((NodeId(node.parse().ok()?), DiskId(disk)))
    };
    parse()
        .ok_or_else(|| "expected NODE=DISK, with the disk as `trilemma status` of that node shows it".into())
}

/// Refuses `--new` for a directory that holds data, so that nobody leaves it in a service's command line.
fn refuse_data(directory: &Path) -> Result<(), Failure> {
    let Ok(mut entries) = std::fs::read_dir(directory) else {
        // It is not there yet, or the start says why it cannot be read.
        return Ok(());
    };
    let is_data = |name: &OsStr| {
        let name = name.to_string_lossy();
        name.starts_with("wal-") || name.starts_with("snapshot-")
    };
    if entries.any(|entry| entry.is_ok_and(|entry| is_data(&entry.file_name()))) {
        return Err(Failure::new(
            Exit::Start,
            format!(
                "--new: {} holds data, so the node is not new",
                directory.display()
            ),
            "nothing was changed; start it without --new",
        ));
    }
    Ok(())
}

/// What `--log` selects: levels, and levels of modules. Without any, errors are still shown.
pub(super) fn log_filter(text: &str) -> Result<Targets, String> {
    let parts: Vec<&str> = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect();
    if parts.is_empty() {
        return Ok(Targets::new().with_default(LevelFilter::ERROR));
    }
    let filter: Result<Targets, _> = parts.join(",").parse();
    filter.map_err(|error: tracing_subscriber::filter::ParseError| error.to_string())
}

/// Stops a node cleanly, unless a second signal says that nobody wants to wait.
async fn stop(node: Node, signals: &mut Signals) -> Outcome {
    tokio::select! {
        stopped = node.shutdown() => stopped.map(|()| Exit::Ok).map_err(Failure::from),
        signal = signals.received() => Err(Failure::new(
            Exit::Start,
            format!("a second {signal}: the node was cut off while it was stopping"),
            "nothing that was acknowledged is lost; the next start takes a little longer",
        )),
    }
}

/// The signals that ask the process to stop.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
fn signals() -> Result<Signals, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed =
        |error: std::io::Error| Failure::new(Exit::Start, format!("the system refused signals: {error}"), "");
    Ok(Signals {
        interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        terminate: signal(SignalKind::terminate()).map_err(failed)?,
    })
}

#[cfg(not(unix))]
fn signals() -> Result<Signals, Failure> {
    Ok(Signals {})
}

impl Signals {
    #[cfg(unix)]
    async fn received(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }

    #[cfg(not(unix))]
    async fn received(&mut self) -> &'static str {
        match tokio::signal::ctrl_c().await {
            Ok(()) => "interrupt",
            Err(_) => "no signals on this system",
        }
    }
}
