//! Looking for a failure: the simulator as a process, with a limit of time.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::patch::Patch;
use crate::process;
use crate::sim::MEMBERSHIP;

/// Longest that one run of the simulator may take.
const LIMIT: Duration = Duration::from_secs(600);
/// Seeds of the first round of a protocol.
const FIRST: u64 = 256;
/// How much longer each further round is. Rounds of several protocols take turns, so that one which does not see a bug
/// does not keep the others from it for long.
const GROWTH: u64 = 4;

/// A failure that the simulator reported.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    pub(super) protocol: String,
    pub(super) seed: u64,
    pub(super) checker: String,
    pub(super) what: String,
    /// The scenario that showed it, if it was one and no seed.
    pub(super) script: Option<Script>,
}

/// A scenario that once showed a bug.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Script {
    pub(super) path: PathBuf,
    pub(super) protocol: String,
}

impl std::fmt::Display for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.path.file_name().unwrap_or_default().to_string_lossy().fmt(f)
    }
}

impl Script {
    /// All scenarios of a folder, by name; none if there is no such folder.
    pub(super) fn all(folder: &Path) -> Result<Vec<Self>, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        let mut scripts = Vec::new();
        if !folder.exists() {
            return Ok(scripts);
        }
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|ending| ending == "txt") {
                let text = std::fs::read_to_string(&path).map_err(failed)?;
                let protocol = text.lines().find_map(|line| line.strip_prefix("protocol "));
                let protocol = protocol.unwrap_or("raft").trim().to_owned();
                scripts.push(Self { path, protocol });
            }
        }
        scripts.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(scripts)
    }
}

/// How a run of the simulator ended.
#[derive(Debug, PartialEq)]
pub(super) enum End {
    /// It reported a failure. The first one counts; it was ended there.
    Found(Failure),
    /// It ran all seeds and found nothing. Undecided ones are none that passed.
    Nothing { undecided: u64 },
    /// It ended in another way, or not at all: no failure was reported.
    Broken(String),
}

/// What became of looking for a bug.
#[derive(Debug)]
pub(super) struct Hunt {
    pub(super) found: Option<Failure>,
    /// Seeds that were run to the end, those of the failure's round up to it.
    pub(super) seeds: u64,
    /// What went wrong without a reported failure.
    pub(super) broken: Vec<String>,
}

/// Runs the scenarios of the patch's protocols, then the protocols in turns, until one reports a failure or all have
/// used up the patch's seeds.
pub(super) fn hunt(program: &Path, patch: &Patch, scripts: &[Script], jobs: usize) -> Hunt {
    let mut hunt = Hunt {
        found: None,
        seeds: 0,
        broken: Vec::new(),
    };
    let concerned = |script: &&Script| patch.protocols.iter().any(|name| *name == script.protocol);
    for script in scripts.iter().filter(concerned) {
        match play(program, script, LIMIT) {
            End::Found(failure) => {
                hunt.found = Some(failure);
                return hunt;
            }
            End::Nothing { .. } => {}
            End::Broken(why) => hunt.broken.push(format!("{script}: {why}")),
        }
    }
    let mut protocols = patch.protocols.clone();
    let (mut from, mut length) = (0, FIRST);
    while from < patch.seeds && !protocols.is_empty() {
        let count = length.min(patch.seeds - from);
        let mut still = Vec::new();
        for protocol in protocols {
            let seeds = (patch.profile.as_str(), protocol);
            match run(program, seeds, from, count, jobs, LIMIT) {
                End::Found(failure) => {
                    hunt.seeds += failure.seed.saturating_sub(from) + 1;
                    hunt.found = Some(failure);
                    return hunt;
                }
                End::Nothing { .. } => {
                    hunt.seeds += count;
                    still.push(protocol);
                }
                End::Broken(why) => hunt.broken.push(format!("{protocol}: {why}")),
            }
        }
        protocols = still;
        from += count;
        length *= GROWTH;
    }
    hunt
}

/// Runs seeds of one protocol, of a profile.
pub(super) fn run(
    program: &Path,
    (profile, protocol): (&str, &str),
    from: u64,
    seeds: u64,
    jobs: usize,
    limit: Duration,
) -> End {
    let mut command = process::command(program);
    let (from, seeds) = (from.to_string(), seeds.to_string());
    let range = ["--from", &from, "--seeds", &seeds];
    if protocol == MEMBERSHIP {
        command.args(range);
    } else {
        command
            .args(["--fail-fast", "--protocol", protocol])
            .args(range)
            .args(["--threads", &jobs.to_string()])
            .args(["--profile", profile]);
    }
    watch(command, limit)
}

/// Runs one scenario.
pub(super) fn play(program: &Path, script: &Script, limit: Duration) -> End {
    let mut command = process::command(program);
    command.arg("--scenario").arg(&script.path);
    match watch(command, limit) {
        End::Found(failure) => End::Found(Failure {
            script: Some(script.clone()),
            ..failure
        }),
        other => other,
    }
}

/// Runs the simulator until it ends or reports a failure.
fn watch(mut command: Command, limit: Duration) -> End {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return End::Broken(format!("{}: {error}", command.get_program().display())),
    };
    let (sender, lines) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        // Ends with the output, which ends with the process.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
    }
    let begin = Instant::now();
    let mut last = String::new();
    let cut = loop {
        match lines.recv_timeout(limit.saturating_sub(begin.elapsed())) {
            Ok(line) => {
                if let Some(failure) = failure(&line) {
                    break Some(End::Found(failure));
                }
                last = line;
            }
            Err(RecvTimeoutError::Disconnected) => break None,
            Err(RecvTimeoutError::Timeout) => {
                break Some(End::Broken(format!("no end within {} s", limit.as_secs())));
            }
        }
    };
    if cut.is_some() {
        // It may have ended by itself meanwhile.
        let _ = child.kill();
    }
    let status = child.wait();
    cut.unwrap_or_else(|| match (status, summary(&last)) {
        // 2 is too much undecided, which the summary tells as well.
        (Ok(status), Some((0, undecided))) if matches!(status.code(), Some(0 | 2)) => {
            End::Nothing { undecided }
        }
        (Ok(status), _) => End::Broken(format!(
            "the simulator ended with {status} and reported no failure"
        )),
        (Err(error), _) => End::Broken(error.to_string()),
    })
}

/// The failure that a line of the simulator reports.
fn failure(line: &str) -> Option<Failure> {
    let report: Value = serde_json::from_str(line.strip_prefix("failure ")?).ok()?;
    let text = |field: &str| report[field].as_str().unwrap_or_default().to_owned();
    Some(Failure {
        protocol: text("protocol"),
        seed: report["seed"].as_u64()?,
        checker: text("checker"),
        what: text("what"),
        script: None,
    })
}

/// Failures and undecided runs of the last line.
fn summary(line: &str) -> Option<(u64, u64)> {
    let summary: Value = serde_json::from_str(line).ok()?;
    Some((summary["failures"].as_u64()?, summary["undecided"].as_u64()?))
}

#[cfg(test)]
mod tests;
