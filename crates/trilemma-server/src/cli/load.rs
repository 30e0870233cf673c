//! `load` and `export`: configuration files into a keyspace and back. See [`crate::tree`] for the mapping.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value as Json, json};
use tokio::task::JoinSet;
use trilemma::{
    Achieved, Attempt, BATCH_LENGTH_MAX, Backend, Command, Error, Guard, KEY_BYTES_MAX, KeyRange, Keyspace,
    Needs, NotApplied, Receipt, VALUE_BYTES_MAX, Value, Version, WriteError,
};

use super::Global;
use super::client::open;
use crate::exit::{Effect, Exit, Failure, Outcome};
use crate::files;
use crate::output::{self, Form};
use crate::tree::{self, Diff, Format, Prefix, TreeError};

/// Bytes of one batch: well below a command's limit, so that progress is seen and a refusal costs little.
const BATCH_BYTES: usize = 512 * 1024;
/// Keys of one batch. Each takes a guard and a mutation.
const BATCH_KEYS: usize = 1000;
const _: () = assert!(BATCH_KEYS <= BATCH_LENGTH_MAX);
/// Writes in flight where the keyspace has no batches: enough to share syncs and round trips.
const IN_FLIGHT: usize = 32;
/// Times that the difference is computed again because somebody else changed keys meanwhile.
const ROUNDS_MAX: u32 = 5;
/// Loading that takes longer than this shows a bar.
const PATIENCE: Duration = Duration::from_millis(500);

/// Loads a configuration file: each setting becomes one key.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trilemma load settings shop.toml --prefix shop --dry-run
  trilemma load settings shop.toml --prefix shop
  trilemma load settings values.yaml --prune
  cat .env | trilemma load settings - --format env

Adds and changes keys; keys that are not in the file stay unless --prune is given (arrays are replaced as a whole,
and what contradicts the file's shape goes). Loading again changes nothing, so an interrupted load is resumed by
running it again. Where the backend has transactions, keys are written in guarded batches: a key that somebody else
changes meanwhile is looked at again, never overwritten unseen.")]
pub(crate) struct Load {
    /// The keyspace
    keyspace: String,
    /// The file; `-`: standard input (with --format)
    file: PathBuf,
    /// Put before every key, with a slash
    #[arg(long, default_value = "", value_name = "PATH")]
    prefix: String,
    /// Format of the file; without it, by its name
    #[arg(long)]
    format: Option<Format>,
    /// Delete keys under the prefix that are not in the file
    #[arg(long)]
    prune: bool,
    /// Show what would change, change nothing
    #[arg(long)]
    dry_run: bool,
}

/// A key's state before loading.
type Stored = BTreeMap<String, (Value, Version)>;

impl Load {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let format = self.format.map_or_else(|| Format::of(&self.file), Ok)?;
        let text = tree::read_file(&self.file)?;
        let document = tree::parse(format, &text, &self.file.display().to_string())?;
        let prefix = Prefix::for_load(&self.prefix)?;
        let wanted = tree::entries(&document, &prefix)?;
        check_sizes(&wanted)?;
        let keyspace = open(global, &self.keyspace).await?;
        let mut total = Summary::default();
        let bar = Bar::new();
        for _ in 0..ROUNDS_MAX {
            let stored = stored(&keyspace, &prefix).await?;
            let values = stored
                .iter()
                .map(|(key, (value, _))| (key.clone(), value.clone()))
                .collect();
            let diff = tree::diff(&values, &wanted, &prefix, self.prune);
            if self.dry_run {
                show(global.output, &diff);
                return Ok(Exit::Ok);
            }
            total.begin(&diff);
            if diff.is_empty() {
                return total.report(global.output, keyspace.name());
            }
            let lost = apply(global, &keyspace, &diff, &stored, &bar, &mut total).await;
            bar.clear();
            if lost == 0 || total.failure.is_some() {
                return total.report(global.output, keyspace.name());
            }
        }
        let message = format!(
            "keyspace \"{}\": others kept changing the same keys while loading, {} keys were written",
            keyspace.name(),
            total.written
        );
        let advice = "run the same command again when the others are done: it goes on where it stopped";
        Err(Failure {
            effect: Effect::NotApplied,
            ..Failure::new(Exit::Unavailable, message, advice)
        })
    }
}

/// Refuses before the first write what the store would refuse in the middle.
fn check_sizes(wanted: &BTreeMap<String, String>) -> Result<(), TreeError> {
    for (key, text) in wanted {
        for (what, size, limit) in [
            ("path", key.len(), KEY_BYTES_MAX),
            ("value", text.len(), VALUE_BYTES_MAX),
        ] {
            if size > limit {
                return Err(TreeError::Value {
                    path: key.chars().take(120).collect(),
                    what: format!("the {what} has {size} bytes, the limit is {limit}"),
                });
            }
        }
    }
    Ok(())
}

fn range_of(prefix: &Prefix) -> KeyRange {
    match prefix.as_str() {
        "" => KeyRange::all(),
        prefix => KeyRange::prefix(prefix),
    }
}

async fn stored(keyspace: &Keyspace, prefix: &Prefix) -> Result<Stored, Failure> {
    let mut stored = Stored::new();
    for entry in keyspace.range(range_of(prefix)).await? {
        // A key that is not text cannot have come from a file, nor stand in the way of one.
        if let Ok(key) = std::str::from_utf8(&entry.key) {
            stored.insert(key.to_owned(), (entry.state.value, entry.state.modified));
        }
    }
    Ok(stored)
}

/// Writes the difference; returns how many keys somebody else had changed meanwhile.
async fn apply(
    global: &Global,
    keyspace: &Keyspace,
    diff: &Diff,
    stored: &Stored,
    bar: &Bar,
    total: &mut Summary,
) -> usize {
    let batch_keys = if keyspace.needs() == Needs::Atomic {
        BATCH_KEYS
    } else {
        1
    };
    let guarded = keyspace.needs() != Needs::Available;
    let batches = batches(diff, stored, batch_keys, guarded);
    // Batches of one keyspace would only queue behind each other, single keys share syncs.
    let in_flight = if batch_keys > 1 { 1 } else { IN_FLIGHT };
    bar.start(diff.len() as u64);
    let mut lost = 0;
    let mut writes: JoinSet<(usize, Result<Receipt, Error>)> = JoinSet::new();
    let mut batches = batches.into_iter();
    loop {
        while writes.len() < in_flight && total.failure.is_none() {
            let Some(command) = batches.next() else { break };
            let (keyspace, patience) = (keyspace.clone(), global.timeout);
            writes.spawn(async move { (command.mutations.len(), write(&keyspace, command, patience).await) });
        }
        let Some(done) = writes.join_next().await else {
            return lost;
        };
        match done {
            Ok((keys, Ok(receipt))) if receipt.succeeded => {
                total.written += keys;
                bar.advance(keys as u64);
            }
            Ok((keys, Ok(_))) => lost += keys,
            Ok((keys, Err(error))) => total.failed(keys, error.into()),
            Err(panic) => {
                total.failed(
                    1,
                    Failure::new(
                        Exit::Unknown,
                        format!("a write broke off: {panic}"),
                        "run the command again",
                    ),
                );
            }
        }
    }
}

/// The difference as commands: deletions first, so that what is stored forms a tree after each.
fn batches(diff: &Diff, stored: &Stored, keys_max: usize, guarded: bool) -> Vec<Command> {
    let deletes = diff.removed.iter().map(|(key, _)| (key, None));
    let added = diff.added.iter().map(|(key, text)| (key, Some(text)));
    let changed = diff.changed.iter().map(|(key, _, text)| (key, Some(text)));
    let mut batches = Vec::new();
    let mut batch = Command::default();
    for (key, text) in deletes.chain(added).chain(changed) {
        let mut step = match text {
            Some(text) => Command::put(key.as_str(), text.as_str()),
            None => Command::delete(key.as_str()),
        };
        if guarded {
            let is = stored.get(key).map_or(Version::ABSENT, |(_, version)| *version);
            step.guards.push(Guard::Version {
                key: key.as_str().into(),
                is,
            });
        }
        let full = batch.mutations.len() >= keys_max || batch.size() + step.size() > BATCH_BYTES;
        if full && !batch.mutations.is_empty() {
            batches.push(std::mem::take(&mut batch));
        }
        batch.guards.append(&mut step.guards);
        batch.mutations.append(&mut step.mutations);
    }
    if !batch.mutations.is_empty() {
        batches.push(batch);
    }
    assert!(
        batches.iter().all(|batch| batch.validate().is_ok()),
        "sizes were checked before"
    );
    batches
}

/// Writes until it is done or `patience` is over. Every attempt carries the same operation id, so that one which
/// was lost on the way and one which followed it take effect once.
pub(crate) async fn write(
    keyspace: &Keyspace,
    command: Command,
    patience: Duration,
) -> Result<Receipt, Error> {
    let until = Instant::now() + patience;
    let op = keyspace.new_op();
    let mut attempt = Attempt::First;
    loop {
        let result = keyspace.write_as(op, attempt, command.clone()).await;
        attempt = attempt_after(attempt, &result);
        let wait = match &result {
            Err(Error::Write(WriteError::NotApplied(NotApplied {
                reason,
                retry: trilemma::Retry::After(wait),
            }))) if reason.is_unavailable() => *wait,
            Err(Error::Write(WriteError::Unknown { .. })) => Duration::from_millis(50),
            _ => return result,
        };
        if Instant::now() + wait >= until {
            return result;
        }
        tokio::time::sleep(wait).await;
    }
}

/// What the next attempt is. After a certain refusal nothing has been sent, as it were; once an attempt may have had an
/// effect, so may all that follow.
fn attempt_after(attempt: Attempt, result: &Result<Receipt, Error>) -> Attempt {
    match result {
        Err(Error::Write(WriteError::NotApplied(_))) => attempt,
        _ => Attempt::Retry,
    }
}

/// What a load did.
#[derive(Default)]
struct Summary {
    added: usize,
    changed: usize,
    removed: usize,
    kept: usize,
    unchanged: usize,
    written: usize,
    not_written: usize,
    failure: Option<Failure>,
    begun: bool,
}

impl Summary {
    /// The first difference is what the user asked for; later rounds only repair it.
    fn begin(&mut self, diff: &Diff) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        self.added = diff.added.len();
        self.changed = diff.changed.len();
        self.removed = diff.removed.len();
        self.kept = diff.kept.len();
        self.unchanged = diff.unchanged;
    }

    /// Keeps the failure that leaves most in doubt.
    fn failed(&mut self, keys: usize, failure: Failure) {
        self.not_written += keys;
        let worse = |known: &Failure| known.exit.worse(failure.exit) != known.exit;
        if self.failure.as_ref().is_none_or(worse) {
            self.failure = Some(failure);
        }
    }

    fn report(self, form: Form, keyspace: &str) -> Outcome {
        if let Some(mut failure) = self.failure {
            failure.message = format!(
                "{} of {} keys were written to keyspace \"{keyspace}\", {} were not or may not have been, the rest was not tried: {}",
                self.written,
                self.added + self.changed + self.removed,
                self.not_written,
                failure.message
            );
            failure.advice = format!(
                "run the same command again, it goes on where it stopped ({})",
                failure.advice
            );
            return Err(failure);
        }
        match form {
            Form::Json => output::line(
                json!({
                    "keyspace": keyspace,
                    "added": self.added,
                    "changed": self.changed,
                    "removed": self.removed,
                    "unchanged": self.unchanged,
                    "kept": self.kept,
                })
                .to_string(),
            ),
            Form::Table | Form::Raw => output::line(format!(
                "loaded into \"{keyspace}\": {} added, {} changed, {} removed, {} unchanged; {} not in the file kept",
                self.added, self.changed, self.removed, self.unchanged, self.kept
            )),
        }
        Ok(Exit::Ok)
    }
}

fn show(form: Form, diff: &Diff) {
    let say = |sign: &str, kind: &str, key: &str, old: Option<&Value>, new: Option<&str>| match form {
        Form::Json => {
            let mut object = Map::new();
            object.insert("change".into(), kind.into());
            object.insert("key".into(), key.into());
            match old {
                Some(old) => output::put_bytes(&mut object, "old", old),
                None => {
                    object.insert("old".into(), Json::Null);
                }
            }
            object.insert("new".into(), new.into());
            output::line(Json::Object(object).to_string());
        }
        Form::Table | Form::Raw => output::line(match (old, new) {
            (Some(old), Some(new)) => format!("{sign} {key} = {old} -> {new}"),
            (Some(old), None) => format!("{sign} {key} = {old}"),
            (None, new) => format!("{sign} {key} = {}", new.unwrap_or_default()),
        }),
    };
    for (key, old) in &diff.removed {
        say("-", "removed", key, Some(old), None);
    }
    for (key, new) in &diff.added {
        say("+", "added", key, None, Some(new));
    }
    for (key, old, new) in &diff.changed {
        say("~", "changed", key, Some(old), Some(new));
    }
    if form != Form::Json {
        output::line(format!(
            "would change {} keys: {} added, {} changed, {} removed; {} unchanged, {} not in the file kept",
            diff.len(),
            diff.added.len(),
            diff.changed.len(),
            diff.removed.len(),
            diff.unchanged,
            diff.kept.len()
        ));
    }
}

/// A progress bar that appears only where it helps.
struct Bar {
    bar: ProgressBar,
    began: Instant,
}

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} keys, {per_sec}, {eta} left");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        Self {
            bar,
            began: Instant::now(),
        }
    }

    fn start(&self, keys: u64) {
        self.bar.set_length(keys);
        self.bar.set_position(0);
    }

    fn advance(&self, keys: u64) {
        self.bar.inc(keys);
        if self.bar.is_hidden() && self.began.elapsed() > PATIENCE && output::stderr_is_terminal() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// Writes stored settings as a configuration file.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trilemma export settings --prefix shop --format toml
  trilemma export settings --prefix shop --to shop.json

What `load` stored comes back equal, types included. Exits with 1 if nothing is stored under the prefix.

The file is one state of a raft or two-phase keyspace, which all transactions have changed as a whole or not at all. A
paxos keyspace has no state of several keys, and a gossip keyspace only what one node has: there two keys may be of
different moments, and a line on standard error says so.

A device, pipe or link given with --to stays what it is; a file keeps its mode and owner, is replaced at once or not at
all, and is on disk when the command ends.")]
pub(crate) struct Export {
    /// The keyspace
    keyspace: String,
    /// Only keys below this path, which is taken off
    #[arg(long, default_value = "", value_name = "PATH")]
    prefix: String,
    /// Format to write; without it, by the name given with --to
    #[arg(long)]
    format: Option<Format>,
    /// Write to this file; without it, to standard output
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    #[command(flatten)]
    read: super::ReadOptions,
}

impl Export {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let format = match (self.format, &self.to) {
            (Some(format), _) => format,
            (None, Some(path)) => Format::of(path)?,
            (None, None) => {
                return Err(Failure::usage(
                    "no format is given",
                    "give --format toml, json, yaml or env",
                ));
            }
        };
        let mut keyspace = open(global, &self.keyspace).await?;
        if let Some(level) = self.read.level {
            keyspace = keyspace.with_read_level(level);
        }
        let prefix = Prefix::new(&self.prefix);
        let entries = keyspace.range(range_of(&prefix)).await?;
        if entries.len() > 1
            && let Some(sentence) = not_one_state(&keyspace)
        {
            output::note(sentence);
        }
        let texts = entries
            .iter()
            .map(|entry| text_of(&entry.key, &entry.state.value));
        let texts = texts.collect::<Result<Vec<_>, _>>()?;
        let Some(document) = tree::tree_of(texts, &prefix)? else {
            output::note(format!(
                "not found: keyspace \"{}\" has no keys under \"{}\"",
                keyspace.name(),
                self.prefix
            ));
            return Ok(Exit::NotFound);
        };
        let text = tree::emit(format, &document)?;
        match self.to {
            None => output::print(text.as_bytes()),
            Some(path) => files::write(&path, text.as_bytes()).map_err(|error| {
                Failure::output(
                    format!("--to {}: {error}", path.display()),
                    "nothing was written; name a file in a directory that can be written",
                )
            })?,
        }
        Ok(Exit::Ok)
    }
}

fn text_of<'a>(key: &'a [u8], value: &'a [u8]) -> Result<(&'a str, &'a str), TreeError> {
    match (std::str::from_utf8(key), std::str::from_utf8(value)) {
        (Ok(key), Ok(value)) => Ok((key, value)),
        _ => Err(TreeError::Stored {
            key: key.escape_ascii().to_string(),
            what: "the key or its value is not text; export with a --prefix that leaves it out".into(),
        }),
    }
}

/// Why an export is not one state, where it is none.
fn not_one_state(keyspace: &Keyspace) -> Option<String> {
    let descriptor = keyspace.descriptor();
    let why = match descriptor.backend {
        _ if descriptor.isolation == Achieved::StrictSerializable => return None,
        Backend::Gossip => "it is what one node has",
        _ => "each key is exact for itself",
    };
    Some(format!(
        "note: keyspace \"{}\" ({}) has no state of all keys together; {why}, and two keys may be of different moments",
        keyspace.name(),
        descriptor.backend,
    ))
}

#[cfg(test)]
mod tests;
