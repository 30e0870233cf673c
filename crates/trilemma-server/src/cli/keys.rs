//! Commands on keys: get, put, delete, cas, range, outcome.

use std::io::Read;
use std::time::Instant;

use clap::Args;
use serde_json::{Map, Value as Json};
use trilemma::{
    Attempt, Command, Error, Key, KeyRange, Keyspace, OpId, Query, RANGE_ENTRIES_MAX, ReadRequest, Receipt,
    VALUE_BYTES_MAX, Value,
};

use super::client::open;
use super::{Global, ReadOptions, WriteOptions};
use crate::exit::{Exit, Failure};
use crate::output::{self, Form};

/// Reads one key.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trilemma get settings shop/currency
  trilemma get settings shop/currency --level local --explain
  trilemma get settings shop/logo --output raw > logo.png

Exits with 1 if the key does not exist.")]
pub(crate) struct Get {
    /// The keyspace
    keyspace: String,
    /// The key
    key: String,
    /// Show every concurrent value (gossip)
    #[arg(long)]
    siblings: bool,
    #[command(flatten)]
    read: ReadOptions,
}

impl Get {
    pub(crate) async fn run(self, global: &Global) -> crate::exit::Outcome {
        let keyspace = open(global, &self.keyspace).await?;
        let key = Key::from(self.key);
        if self.siblings {
            let entries = keyspace.siblings(key.clone()).await?;
            output::entries(global.output, &entries);
            return Ok(if entries.is_empty() {
                Exit::NotFound
            } else {
                Exit::Ok
            });
        }
        let request = ReadRequest {
            query: Query::Get(key.clone()),
            level: self.read.level,
        };
        let began = Instant::now();
        let reply = keyspace.read(request).await?;
        let took = began.elapsed();
        let backend = keyspace.descriptor().backend;
        let found = reply.entries.first();
        match (global.output, found) {
            (Form::Json, found) => {
                let mut object =
                    found.map_or_else(Map::new, |entry| output::entry_json(&entry.key, &entry.state));
                if found.is_none() {
                    output::put_bytes(&mut object, "key", &key);
                    object.insert("value".into(), Json::Null);
                }
                if global.explain {
                    object.insert("read".into(), output::read_json(&reply, backend, took));
                }
                output::line(Json::Object(object).to_string());
            }
            (Form::Table, Some(entry)) => output::line(entry.state.value.to_string()),
            (Form::Raw, Some(entry)) => output::print(&entry.state.value),
            (_, None) => output::note(format!(
                "not found: keyspace \"{}\" has no key \"{key}\"",
                keyspace.name()
            )),
        }
        if global.explain && global.output != Form::Json {
            output::note(output::explain_read(&reply, backend, took));
        }
        Ok(if found.is_some() { Exit::Ok } else { Exit::NotFound })
    }
}

/// Sets one key.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trilemma put carts alice '3 apples'
  trilemma put settings shop/logo @logo.png
  echo -n EUR | trilemma put settings shop/currency -
  trilemma put orders 7 paid --explain")]
pub(crate) struct Put {
    /// The keyspace
    keyspace: String,
    /// The key
    key: String,
    /// The value; `-`: standard input, `@FILE`: the bytes of a file
    #[arg(allow_hyphen_values = true)]
    value: String,
    /// Take VALUE as it is, also `-` and `@FILE`
    #[arg(long)]
    text: bool,
    #[command(flatten)]
    write: WriteOptions,
}

impl Put {
    pub(crate) async fn run(self, global: &Global) -> crate::exit::Outcome {
        let value = if self.text {
            self.value.into()
        } else {
            value(&self.value)?
        };
        let keyspace = open(global, &self.keyspace).await?;
        write(global, &keyspace, &self.write, Command::put(self.key, value)).await
    }
}

/// Removes one key.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  trilemma delete carts alice

That the key did not exist is not an error.")]
pub(crate) struct Delete {
    /// The keyspace
    keyspace: String,
    /// The key
    key: String,
    #[command(flatten)]
    write: WriteOptions,
}

impl Delete {
    pub(crate) async fn run(self, global: &Global) -> crate::exit::Outcome {
        let keyspace = open(global, &self.keyspace).await?;
        write(global, &keyspace, &self.write, Command::delete(self.key)).await
    }
}

/// Sets one key if it holds what is expected.
#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("expectation").required(true).args(["expect", "expect_absent"]),
    after_help = "\
Examples:
  trilemma cas locks checkout/alice --expect-absent node-1
  trilemma cas locks checkout/alice --expect node-1 node-2

Exits with 6 if the key held something else; nothing was changed then."
)]
pub(crate) struct Cas {
    /// The keyspace
    keyspace: String,
    /// The key
    key: String,
    /// The new value; `-`: standard input, `@FILE`: the bytes of a file
    #[arg(allow_hyphen_values = true)]
    new: String,
    /// The value that the key must hold
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    expect: Option<String>,
    /// The key must not exist
    #[arg(long)]
    expect_absent: bool,
    #[command(flatten)]
    write: WriteOptions,
}

impl Cas {
    pub(crate) async fn run(self, global: &Global) -> crate::exit::Outcome {
        let new = value(&self.new)?;
        let keyspace = open(global, &self.keyspace).await?;
        let command = Command::compare_and_set(self.key, self.expect.map(Value::from), Some(new));
        write(global, &keyspace, &self.write, command).await
    }
}

/// Reads a range of keys, in order.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trilemma range settings --prefix shop/
  trilemma range settings --start shop/a --end shop/m --limit 10 --output json

What is shown is one state in raft and two-phase keyspaces. In paxos each key is exact for itself, in gossip it is what
one node has: two keys may be of different moments.")]
pub(crate) struct Range {
    /// The keyspace
    keyspace: String,
    /// First key
    #[arg(long, value_name = "KEY", conflicts_with = "prefix")]
    start: Option<String>,
    /// First key after the range
    #[arg(long, value_name = "KEY", conflicts_with = "prefix")]
    end: Option<String>,
    /// Keys that begin with this
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Most entries to show; 0: all
    #[arg(long, default_value_t = 0, value_name = "N")]
    limit: u64,
    #[command(flatten)]
    read: ReadOptions,
}

/// The range that the options name; all keys without any.
pub(super) fn key_range(prefix: Option<String>, start: Option<String>, end: Option<String>) -> KeyRange {
    match prefix {
        Some(prefix) => KeyRange::prefix(prefix),
        None => KeyRange {
            start: start.map(Key::from).unwrap_or_default(),
            end: end.map(Key::from),
        },
    }
}

impl Range {
    pub(crate) async fn run(self, global: &Global) -> crate::exit::Outcome {
        let keyspace = open(global, &self.keyspace).await?;
        let keyspace = match self.read.level {
            Some(level) => keyspace.with_read_level(level),
            None => keyspace,
        };
        let range = key_range(self.prefix, self.start, self.end);
        let limit = match self.limit {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        let began = Instant::now();
        let first = keyspace
            .read(ReadRequest {
                query: Query::Range {
                    range: range.clone(),
                    limit: u32::try_from(limit)
                        .map_or(RANGE_ENTRIES_MAX, |limit| limit.min(RANGE_ENTRIES_MAX)),
                },
                level: self.read.level,
            })
            .await?;
        let took = began.elapsed();
        if first.more && first.entries.len() < limit {
            output::entries(global.output, &keyspace.range_limited(range, limit).await?);
        } else {
            output::entries(global.output, &first.entries);
        }
        if global.explain {
            output::note(output::explain_read(&first, keyspace.descriptor().backend, took));
        }
        Ok(Exit::Ok)
    }
}

/// Asks what became of an operation. The answer is final.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trilemma outcome orders s12-00c0ffee00c0ffee/1
  trilemma outcome locks s12-00c0ffee00c0ffee/1 --key a --value 1     # paxos needs what the write was

Exits with 0 if it was applied, 3 if it was not and never will be, 5 if nobody can tell (yet).")]
pub(crate) struct Outcome {
    /// The keyspace
    keyspace: String,
    /// The operation, as the receipt or the error printed it
    op: OpId,
    /// The key that the operation put or deleted
    #[arg(long)]
    key: Option<String>,
    /// The value that the operation put; without it, a delete
    #[arg(long, requires = "key", allow_hyphen_values = true)]
    value: Option<String>,
}

impl Outcome {
    pub(crate) async fn run(self, global: &Global) -> crate::exit::Outcome {
        let keyspace = open(global, &self.keyspace).await?;
        let command = match (self.key, self.value) {
            (Some(key), Some(text)) => Some(Command::put(key, value(&text)?)),
            (Some(key), None) => Some(Command::delete(key)),
            (None, _) => None,
        };
        let began = Instant::now();
        let outcome = keyspace.outcome(self.op, command).await?;
        let (word, exit) = match &outcome {
            trilemma::Outcome::Applied(_) => ("applied", Exit::Ok),
            trilemma::Outcome::NotApplied => ("not-applied", Exit::Refused),
            trilemma::Outcome::Pending => ("pending", Exit::Unknown),
            trilemma::Outcome::Expired => ("expired", Exit::Unknown),
        };
        let receipt = match &outcome {
            trilemma::Outcome::Applied(receipt) => Some(receipt),
            _ => None,
        };
        let backend = keyspace.descriptor().backend;
        if global.output == Form::Json {
            let receipt = receipt.map(|receipt| output::receipt_json(receipt, backend, began.elapsed()));
            output::line(serde_json::json!({"outcome": word, "receipt": receipt}).to_string());
            return Ok(exit);
        }
        output::line(match word {
            "applied" => "applied, once",
            "not-applied" => "not applied, and it never will be",
            "pending" => "pending: not decided yet, ask again",
            _ => "expired: the record of the session is gone, nobody can tell any more",
        });
        if let (true, Some(receipt)) = (global.explain, receipt) {
            output::note(output::explain_receipt(receipt, backend, began.elapsed()));
        }
        Ok(exit)
    }
}

/// Writes, prints the receipt, and turns a lost guard into its exit code.
pub(super) async fn write(
    global: &Global,
    keyspace: &Keyspace,
    options: &WriteOptions,
    command: Command,
) -> crate::exit::Outcome {
    let op = options.op_id.unwrap_or_else(|| keyspace.new_op());
    let attempt = if options.retry {
        Attempt::Retry
    } else {
        Attempt::First
    };
    let began = Instant::now();
    let result = keyspace.write_as(op, attempt, command).await;
    let took = began.elapsed();
    let receipt = result.map_err(|error: Error| Failure::from(error).with_op(op))?;
    report(global, keyspace, &receipt, took);
    Ok(if receipt.succeeded {
        Exit::Ok
    } else {
        Exit::GuardFailed
    })
}

fn report(global: &Global, keyspace: &Keyspace, receipt: &Receipt, took: std::time::Duration) {
    let backend = keyspace.descriptor().backend;
    match global.output {
        Form::Json => {
            let object = if global.explain {
                output::receipt_json(receipt, backend, took)
            } else {
                let all = output::receipt_json(receipt, backend, took);
                let short = ["op", "succeeded", "version", "found"];
                all.into_iter()
                    .filter(|(name, _)| short.contains(&name.as_str()))
                    .collect()
            };
            output::line(Json::Object(object).to_string());
        }
        Form::Table if receipt.succeeded => output::line(format!("ok {}", receipt.version)),
        Form::Table if receipt.found == trilemma::Version::ABSENT => {
            output::line("lost: a condition did not hold, the key does not exist; nothing was changed");
        }
        Form::Table => output::line(format!(
            "lost: a condition did not hold, the key is at {}; nothing was changed",
            receipt.found
        )),
        Form::Raw => {}
    }
    if global.explain && global.output != Form::Json {
        output::note(output::explain_receipt(receipt, backend, took));
    }
}

/// A value as the command line names it: `-` is standard input, `@FILE` a file's bytes, all else itself.
pub(super) fn value(text: &str) -> Result<Value, Failure> {
    let (source, name): (Box<dyn Read>, &str) = match text.strip_prefix('@') {
        _ if text == "-" => (Box::new(std::io::stdin().lock()), "standard input"),
        Some(path) => {
            let file = std::fs::File::open(path).map_err(|error| unreadable(path, &error))?;
            (Box::new(file), path)
        }
        None => return Ok(text.into()),
    };
    let mut bytes = Vec::new();
    let limit = VALUE_BYTES_MAX as u64;
    source
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(name, &error))?;
    if bytes.len() as u64 > limit {
        return Err(Failure::usage(
            format!("{name}: more than {limit} bytes, the longest value"),
            "keep large objects in an object store, and their address here",
        ));
    }
    Ok(bytes.into())
}

fn unreadable(name: &str, error: &std::io::Error) -> Failure {
    Failure::usage(
        format!("{name}: {error}"),
        "name a file that can be read, or give the value itself",
    )
}
