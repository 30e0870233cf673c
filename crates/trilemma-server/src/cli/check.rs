//! `check`: judges a history of one's own, from whatever service.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;
use trilemma_check::explain;
use trilemma_check::history::{self, Operation, Recording};
use trilemma_check::linearizability::{self, Budget};
use trilemma_check::locks::{self, ClockError, Fencing};
use trilemma_check::model;
use trilemma_check::sessions::{self, Guarantees, Order};
use trilemma_check::transactions::{self, Level};
use trilemma_check::verdict::{Verdict, Violation};
use trilemma_check::watch;

use super::Global;
use crate::exit::{Exit, Failure, Outcome};
use crate::files;
use crate::output::{self, Form};

/// Judges a history: what clients asked, when, and what they were answered.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trilemma check --model register history.jsonl
  trilemma check --model key-value history.jsonl --svg why.svg
  zcat history.jsonl.gz | trilemma check --model strict-serializable -

The history is JSON Lines, one operation per line:
  {\"process\":1,\"invoke\":10,\"return\":20,\"call\":{\"put\":{\"key\":\"a\",\"value\":\"1\"}},\"outcome\":{\"ok\":{\"done\":{}}}}
  {\"process\":2,\"invoke\":30,\"return\":40,\"call\":{\"get\":{\"key\":\"a\"}},\"outcome\":{\"ok\":{\"value\":{\"value\":\"1\"}}}}
  {\"process\":1,\"invoke\":50,\"call\":{\"put\":{\"key\":\"a\",\"value\":\"2\"}},\"outcome\":\"unknown\"}
What keys held at the start and what watchers were sent are lines of their own: see the book, \"How we test\".

Exit codes of this command:
  0  legal
  1  illegal; the smallest part that shows it is printed
  2  undecided, or the file cannot be read; undecided is never a pass")]
pub(crate) struct Check {
    /// The history; `-`: standard input
    file: PathBuf,
    /// What the history is checked against
    #[arg(long, value_enum, value_name = "MODEL")]
    model: Model,
    /// Draws the part that shows an illegal history
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Most steps of the search for an order, for each object
    #[arg(long, value_name = "STEPS", default_value_t = Budget::default().steps)]
    budget: u64,
    /// Of sessions: what versions say
    #[arg(long, value_enum, default_value = "opaque")]
    versions: Versions,
    /// Of locks: which newer token ends an older one
    #[arg(long, value_enum, default_value = "used")]
    fencing: Tokens,
    /// Of registers and tables: what a key held before the first operation; as lines of the file say it, too
    #[arg(long, value_name = "KEY=VALUE", value_parser = initial)]
    initial: Vec<(String, String)>,
    /// Of watches: a change's position in the stream is its version, so the operations tell what had to come
    #[arg(long)]
    positions_are_versions: bool,
    /// Of locks: how far the clock that times leases may be wrong, in millionths
    #[arg(long, value_name = "PPM", default_value_t = 0)]
    drift: u64,
}

fn initial(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=');
    let (key, value) = parts.ok_or("write KEY=VALUE: what the key held at the start")?;
    Ok((key.into(), value.into()))
}

/// What a history can be checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Model {
    /// Linearizable: one register per key, get and put
    Register,
    /// Linearizable: one register per key, also compare-and-set
    CasRegister,
    /// Linearizable: all keys are one object, with ranges and guarded batches
    KeyValue,
    /// Linearizable: each key by itself
    PerKey,
    /// Linearizable: one set per key
    Set,
    /// Linearizable: one list per key
    List,
    /// Transactions: nobody overwrites what is not committed
    ReadUncommitted,
    /// Transactions: nobody reads what is not committed
    ReadCommitted,
    /// Transactions: each reads one snapshot, no update is lost
    SnapshotIsolation,
    /// Transactions: as if one after the other
    Serializable,
    /// Transactions: serializable, in an order that each process agrees with
    SessionSerializable,
    /// Transactions: serializable, in an order that real time agrees with
    StrictSerializable,
    /// Each process sees its own writes, and never less than before
    Sessions,
    /// Locks and leases with fencing tokens
    Locks,
    /// Watches: ordered, complete, resumable; held against the operations with --positions-are-versions
    Watch,
}

/// What versions say, where sessions are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Versions {
    /// One order for all keys
    Keyspace,
    /// Those of one key are ordered
    PerKey,
    /// They only name writes
    Opaque,
}

/// Which newer token ends an older one, where locks are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Tokens {
    /// One that the resource accepted
    Used,
    /// One that was given out
    Issued,
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// How a model is judged.
enum Judge {
    Linearizable(model::Model),
    Transactions(Level),
    Sessions,
    Locks,
    Watch,
}

impl Model {
    fn judge(self) -> Judge {
        match self {
            Model::Register => Judge::Linearizable(model::Model::Register),
            Model::CasRegister => Judge::Linearizable(model::Model::CasRegister),
            Model::KeyValue => Judge::Linearizable(model::Model::KeyValue),
            Model::PerKey => Judge::Linearizable(model::Model::PerKey),
            Model::Set => Judge::Linearizable(model::Model::Set),
            Model::List => Judge::Linearizable(model::Model::List),
            Model::ReadUncommitted => Judge::Transactions(Level::ReadUncommitted),
            Model::ReadCommitted => Judge::Transactions(Level::ReadCommitted),
            Model::SnapshotIsolation => Judge::Transactions(Level::SnapshotIsolation),
            Model::Serializable => Judge::Transactions(Level::Serializable),
            Model::SessionSerializable => Judge::Transactions(Level::SessionSerializable),
            Model::StrictSerializable => Judge::Transactions(Level::StrictSerializable),
            Model::Sessions => Judge::Sessions,
            Model::Locks => Judge::Locks,
            Model::Watch => Judge::Watch,
        }
    }
}

/// What is found, and how it was found.
struct Judged {
    verdict: Verdict,
    /// One line per engine, where there are several.
    engines: Vec<String>,
}

/// Histories of single operations are judged as transactions of one step each.
fn transactions(operations: &[Operation], initial: &BTreeMap<String, String>, level: Level) -> Verdict {
    let is_transaction = |operation: &Operation| matches!(operation.call, history::Call::Transaction { .. });
    if operations.iter().all(is_transaction) {
        return transactions::check_from(initial, operations, level);
    }
    match transactions::from_key_value(operations) {
        Ok(operations) => transactions::check_from(initial, &operations, level),
        Err(why) => Verdict::Undecided { why },
    }
}

fn undecided(why: &str) -> Judged {
    Judged {
        verdict: Verdict::Undecided { why: why.into() },
        engines: Vec::new(),
    }
}

impl Check {
    pub(crate) fn run(self, global: &Global) -> Outcome {
        let mut recording = read(&self.file)?;
        recording.initial.extend(self.initial.iter().cloned());
        let judged = self.judge(&recording);
        match &judged.verdict {
            Verdict::Legal => {
                self.legal(global.output, &recording, &judged);
                Ok(Exit::Ok)
            }
            Verdict::Illegal(violation) => {
                self.illegal(global.output, &recording, violation);
                // 1, as this command's help says; there is no key that was not found.
                Ok(Exit::NotFound)
            }
            Verdict::Undecided { why } => Err(Failure::usage(
                format!("{}: undecided: {why}", self.file.display()),
                "see `trilemma check --help` for models, raise --budget, or give the checker shorter histories",
            )),
        }
    }

    fn judge(&self, recording: &Recording) -> Judged {
        let operations = &recording.history.operations;
        let judge = self.model.judge();
        let is_answered = |operation: &Operation| matches!(operation.outcome, history::Outcome::Ok(_));
        let takes_initial = matches!(judge, Judge::Linearizable(_) | Judge::Transactions(_));
        if !matches!(judge, Judge::Watch) && !operations.iter().any(is_answered) {
            return undecided("no operation of the history was answered, so there is nothing to judge");
        }
        if !takes_initial && !recording.initial.is_empty() {
            return undecided("this model knows no values at the start; leave them out");
        }
        let initial = &recording.initial;
        let verdict = match judge {
            Judge::Linearizable(model) => return self.linearizable(recording, model),
            Judge::Transactions(level) => {
                self.smallest(operations, &|part| transactions(part, initial, level))
            }
            Judge::Sessions => self.smallest(operations, &|part| {
                sessions::check(part, self.versions.order(), Guarantees::ALL)
            }),
            Judge::Locks => {
                let clock = ClockError {
                    drift_ppm: self.drift,
                    offset: 0,
                };
                self.smallest(operations, &|part| {
                    locks::check(part, clock, self.fencing.fencing())
                })
            }
            Judge::Watch => self.watches(recording),
        };
        Judged {
            verdict,
            engines: Vec::new(),
        }
    }

    fn linearizable(&self, recording: &Recording, model: model::Model) -> Judged {
        let (operations, initial) = (&recording.history.operations, &recording.initial);
        let budget = Budget {
            steps: self.budget,
            ..Budget::default()
        };
        let report = linearizability::check_from(initial, operations, model, budget);
        let engines = report.engines.iter();
        let engines = engines
            .map(|(name, finding)| format!("{name}: {finding}"))
            .collect();
        let verdict = match report.verdict {
            Verdict::Illegal(found) if initial.is_empty() => {
                Verdict::Illegal(explain::smallest(operations, model, budget, &found))
            }
            Verdict::Illegal(found) => {
                let judge = |part: &[Operation]| {
                    linearizability::check_from(initial, part, model, Budget::default()).verdict
                };
                Verdict::Illegal(explain::smallest_by(operations, &found, &judge))
            }
            other => other,
        };
        Judged { verdict, engines }
    }

    /// What `judge` finds, of an illegal history the smallest part.
    fn smallest(&self, operations: &[Operation], judge: &dyn Fn(&[Operation]) -> Verdict) -> Verdict {
        match judge(operations) {
            Verdict::Illegal(found) => Verdict::Illegal(explain::smallest_by(operations, &found, judge)),
            other => other,
        }
    }

    /// Watches by themselves, then against what was asked. What is wrong with a stream names it in words.
    fn watches(&self, recording: &Recording) -> Verdict {
        let streams = &recording.streams;
        match watch::check(streams, &[]) {
            Verdict::Legal if self.positions_are_versions => {
                watch::check_history(streams, &recording.history.operations)
            }
            Verdict::Illegal(mut found) => {
                found.operations.clear();
                Verdict::Illegal(found)
            }
            other => other,
        }
    }

    fn legal(&self, form: Form, recording: &Recording, judged: &Judged) {
        let count = recording.history.operations.len();
        if form == Form::Json {
            let model = self.model.to_string();
            output::line(json!({"verdict": "legal", "model": model, "operations": count}).to_string());
            return;
        }
        output::line(format!("legal: {count} operations, model {}", self.model));
        for engine in &judged.engines {
            output::line(format!("  {engine}"));
        }
    }

    fn illegal(&self, form: Form, recording: &Recording, violation: &Violation) {
        if form == Form::Json {
            let object = json!({
                "verdict": "illegal",
                "model": self.model.to_string(),
                "rule": violation.rule,
                "what": violation.what,
                "operations": violation.operations,
            });
            output::line(object.to_string());
        } else {
            output::line(format!("illegal, model {}", self.model));
            output::print(explain::text(&recording.history.operations, violation).as_bytes());
        }
        if let Some(file) = &self.svg {
            let picture = explain::svg(&recording.history, violation);
            if let Err(error) = files::write(file, picture.as_bytes()) {
                // The verdict stands without it.
                let lost = Failure::output(
                    format!("{}: the picture cannot be written: {error}", file.display()),
                    "the history is illegal; name another file for the picture",
                );
                output::failure(form, &lost);
            }
        }
    }
}

impl Versions {
    fn order(self) -> Order {
        match self {
            Versions::Keyspace => Order::Keyspace,
            Versions::PerKey => Order::PerKey,
            Versions::Opaque => Order::Opaque,
        }
    }
}

impl Tokens {
    fn fencing(self) -> Fencing {
        match self {
            Tokens::Used => Fencing::Used,
            Tokens::Issued => Fencing::Issued,
        }
    }
}

fn read(file: &Path) -> Result<Recording, Failure> {
    let name = file.display();
    let source: Box<dyn BufRead> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let opened = std::fs::File::open(file);
        let opened = opened
            .map_err(|error| Failure::usage(format!("{name}: {error}"), "name a file that can be read"))?;
        Box::new(BufReader::new(opened))
    };
    Recording::read(source).map_err(|error| {
        let advice = "the format is in `trilemma check --help` and in the book, \"How we test\"";
        Failure::usage(format!("{name}: {error}"), advice)
    })
}
