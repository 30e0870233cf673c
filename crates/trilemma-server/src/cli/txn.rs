//! `txn`: several keys at once, all or nothing, from options or a script.

use std::io::Read;

use clap::Args;
use trilemma::{Command, Guard, Key, Mutation, Value, Version};

use super::client::open;
use super::keys::write;
use super::{Global, WriteOptions};
use crate::exit::{Failure, Outcome};

/// Largest script, in bytes: a command is at most 2 MiB of keys and values, quoting may double it.
const SCRIPT_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Changes several keys if all conditions hold; else nothing happens.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trilemma txn orders --if-absent order/7 --if stock/apple=98 --put order/7=alice --put stock/apple=97
  trilemma txn orders --script move.txn

A script has one step per line; `#` begins a comment line. KEY and VALUE are words, or JSON strings in double
quotes; the last VALUE of a line may also be the rest of the line:
  if KEY VALUE          the key holds exactly VALUE
  if-absent KEY         the key does not exist
  if-version KEY 42     the key was last changed by version 42
  put KEY VALUE
  delete KEY

Conditions are checked first, against one state; then the changes happen together, in the order of the script
(of options: puts, then deletes). Exits with 6 if a condition did not hold.")]
pub(crate) struct Txn {
    /// The keyspace
    keyspace: String,
    /// The key must hold this value
    #[arg(long = "if", value_name = "KEY=VALUE")]
    if_value: Vec<String>,
    /// The key must not exist
    #[arg(long, value_name = "KEY")]
    if_absent: Vec<String>,
    /// The key must have been changed last by this version
    #[arg(long, value_name = "KEY=VERSION")]
    if_version: Vec<String>,
    /// Set the key
    #[arg(long, value_name = "KEY=VALUE")]
    put: Vec<String>,
    /// Remove the key
    #[arg(long, value_name = "KEY")]
    delete: Vec<String>,
    /// Read conditions and changes from a file; `-`: standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["if_value", "if_absent", "if_version", "put", "delete"])]
    script: Option<String>,
    #[command(flatten)]
    write: WriteOptions,
}

impl Txn {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let command = match &self.script {
            Some(file) => parse_script(&read_script(file)?, file)?,
            None => self.command()?,
        };
        if command.guards.is_empty() && command.mutations.is_empty() {
            return Err(Failure::usage(
                "the transaction is empty",
                "give --put, --delete or --script",
            ));
        }
        let keyspace = open(global, &self.keyspace).await?;
        write(global, &keyspace, &self.write, command).await
    }

    fn command(&self) -> Result<Command, Failure> {
        let mut command = Command::default();
        for text in &self.if_value {
            let (key, value) = pair("--if", text)?;
            command.guards.push(guard_value(key, value));
        }
        for key in &self.if_absent {
            command.guards.push(guard_absent(key));
        }
        for text in &self.if_version {
            let (key, version) = pair("--if-version", text)?;
            let wrong = || {
                Failure::usage(
                    format!("--if-version {text}: no version after \"=\""),
                    "give KEY=42",
                )
            };
            command
                .guards
                .push(guard_version(key, version).ok_or_else(wrong)?);
        }
        for text in &self.put {
            let (key, value) = pair("--put", text)?;
            command.mutations.push(put(key, value));
        }
        for key in &self.delete {
            command.mutations.push(Mutation::Delete {
                key: key.as_str().into(),
            });
        }
        Ok(command)
    }
}

fn guard_value(key: &str, value: &str) -> Guard {
    Guard::Value {
        key: key.into(),
        is: Some(Value::from(value)),
    }
}

fn guard_absent(key: &str) -> Guard {
    Guard::Value {
        key: key.into(),
        is: None,
    }
}

fn guard_version(key: &str, version: &str) -> Option<Guard> {
    let version = version.trim_start_matches('v').parse().ok()?;
    Some(Guard::Version {
        key: key.into(),
        is: Version(version),
    })
}

fn put(key: &str, value: &str) -> Mutation {
    Mutation::Put {
        key: Key::from(key),
        value: value.into(),
        lease: None,
    }
}

fn pair<'a>(option: &str, text: &'a str) -> Result<(&'a str, &'a str), Failure> {
    text.split_once('=').ok_or_else(|| {
        Failure::usage(
            format!("{option} {text}: no \"=\""),
            "give KEY=VALUE; use --script for keys with \"=\"",
        )
    })
}

fn read_script(file: &str) -> Result<String, Failure> {
    let failed =
        |error: std::io::Error| Failure::usage(format!("{file}: {error}"), "name a script that can be read");
    let source: Box<dyn Read> = match file {
        "-" => Box::new(std::io::stdin().lock()),
        file => Box::new(std::fs::File::open(file).map_err(failed)?),
    };
    let mut text = String::new();
    source
        .take(SCRIPT_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > SCRIPT_BYTES_MAX {
        return Err(Failure::usage(
            format!("{file}: more than {SCRIPT_BYTES_MAX} bytes"),
            "split the transaction; one has at most 2 MiB of keys and values",
        ));
    }
    Ok(text)
}

/// Parses a script. Errors name file and line.
pub(super) fn parse_script(text: &str, file: &str) -> Result<Command, Failure> {
    let mut command = Command::default();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        step(line, &mut command).map_err(|what| {
            Failure::usage(
                format!("{file}:{}: {what}", number + 1),
                "see `trilemma txn --help` for the form of a script",
            )
        })?;
    }
    Ok(command)
}

fn step(line: &str, command: &mut Command) -> Result<(), String> {
    let (verb, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let (key, rest) = word(rest)?.ok_or_else(|| format!("\"{verb}\" needs a key"))?;
    let value = || last(rest)?.ok_or_else(|| format!("\"{verb} {key}\" needs a value"));
    let nothing_more = || match rest.trim() {
        "" => Ok(()),
        more => Err(format!("\"{more}\" after the key; quote a key with spaces")),
    };
    match verb {
        "if" => command.guards.push(guard_value(&key, &value()?)),
        "if-version" => {
            let version = value()?;
            let guard =
                guard_version(&key, &version).ok_or_else(|| format!("\"{version}\" is not a version"))?;
            command.guards.push(guard);
        }
        "if-absent" => {
            nothing_more()?;
            command.guards.push(guard_absent(&key));
        }
        "put" => command.mutations.push(put(&key, &value()?)),
        "delete" => {
            nothing_more()?;
            command.mutations.push(Mutation::Delete { key: key.into() });
        }
        other => {
            return Err(format!(
                "unknown step \"{other}\"; expected if, if-absent, if-version, put or delete"
            ));
        }
    }
    Ok(())
}

/// The first word of `text` (or JSON string) and what follows it.
fn word(text: &str) -> Result<Option<(String, &str)>, String> {
    let text = text.trim_start();
    if text.starts_with('"') {
        let mut strings = serde_json::Deserializer::from_str(text).into_iter::<String>();
        return match strings.next() {
            Some(Ok(string)) => Ok(Some((string, &text[strings.byte_offset()..]))),
            _ => Err("the quoted text is not a JSON string".into()),
        };
    }
    let (word, rest) = text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()));
    Ok((!word.is_empty()).then(|| (word.to_owned(), rest)))
}

/// The value that ends a line: a JSON string, or the rest as it is.
fn last(text: &str) -> Result<Option<String>, String> {
    let text = text.trim();
    if !text.starts_with('"') {
        return Ok((!text.is_empty()).then(|| text.to_owned()));
    }
    match word(text)? {
        Some((string, rest)) if rest.trim().is_empty() => Ok(Some(string)),
        _ => Err("text follows the closing quote".into()),
    }
}
