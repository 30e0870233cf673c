//! What commands print: one place that knows the three forms.
//!
//! `table` is for people, `json` for scripts (one object per line), `raw` for pipes (the bytes of values).

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};
use trilemma::{Backend, Entry, Key, ReadReply, Receipt, Value, Versioned};

use crate::exit::{Exit, Failure};

/// The form of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// For people.
    #[default]
    Table,
    /// One JSON object per line.
    Json,
    /// Values as they are, keys and values separated by a tab.
    Raw,
}

/// Why standard output did not take something. Nothing is written to it from then on: output with a hole in it would be
/// worse than output that ends.
static OUTPUT_LOST: OnceLock<io::Error> = OnceLock::new();
/// The same of standard error.
static NOTES_LOST: OnceLock<io::Error> = OnceLock::new();

/// Writes to standard output. What cannot be delivered is reported at the end, by [`conclude`]: what became of a command does
/// not depend on who reads about it.
pub(crate) fn print(bytes: &[u8]) {
    deliver(&OUTPUT_LOST, &mut io::stdout().lock(), bytes);
}

/// Writes one line to standard output.
pub(crate) fn line(text: impl AsRef<str>) {
    print(format!("{}\n", text.as_ref()).as_bytes());
}

/// Writes one line to standard output for those who may be waiting for it, and tells if it does not take it: nothing else
/// depends on it.
pub(crate) fn announce(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush())
}

/// Writes one line to standard error.
pub(crate) fn note(text: impl AsRef<str>) {
    let text = format!("{}\n", text.as_ref());
    deliver(&NOTES_LOST, &mut io::stderr().lock(), text.as_bytes());
}

fn deliver(lost: &OnceLock<io::Error>, out: &mut impl Write, bytes: &[u8]) {
    if lost.get().is_none()
        && let Err(error) = out.write_all(bytes).and_then(|()| out.flush())
    {
        lost.get_or_init(|| error);
    }
}

/// Whether standard output has stopped to take what is written: a command that has more to say may end.
pub(crate) fn is_lost() -> bool {
    OUTPUT_LOST.get().is_some()
}

/// The exit code of a command that ended with `exit`: the same, unless all went well but for the output.
pub(crate) fn conclude(form: Form, exit: Exit) -> Exit {
    if let Some(error) = OUTPUT_LOST.get()
        // A reader that has gone has seen what it wanted.
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        undelivered(form, exit, error);
    }
    let is_lost = OUTPUT_LOST.get().is_some() || NOTES_LOST.get().is_some();
    if exit == Exit::Ok && is_lost {
        Exit::Output
    } else {
        exit
    }
}

fn undelivered(form: Form, exit: Exit, error: &io::Error) {
    let advice = if exit == Exit::Ok {
        "the command itself was carried out; only what it had to say is missing"
    } else {
        "the exit code still says what became of the command"
    };
    if form == Form::Json {
        let message = format!("standard output: {error}");
        note(json!({"error": message, "reason": "Undelivered", "advice": advice}).to_string());
    } else {
        note(format!("error: standard output: {error}"));
        note(format!("  what to do: {advice}"));
    }
}

/// Whether standard error is a terminal.
pub(crate) fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Reports a failure: a sentence and what to do, or a JSON object.
pub(crate) fn failure(form: Form, failure: &Failure) {
    if form == Form::Json {
        note(failure_json(failure).to_string());
        return;
    }
    note(format!("error: {}", failure.message));
    if !failure.advice.is_empty() {
        note(format!("  what to do: {}", failure.advice));
    }
}

/// A failure as scripts see it.
pub(crate) fn failure_json(failure: &Failure) -> Json {
    json!({
        "error": failure.message,
        "effect": failure.effect.name(),
        "reason": failure.reason,
        "retry": failure.retry,
        "op": failure.op.map(|op| op.to_string()),
        "advice": failure.advice,
        "exit": failure.exit as u8,
    })
}

/// Adds bytes to an object: as text where they are, else as `<name>_hex`.
pub(crate) fn put_bytes(object: &mut Map<String, Json>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.into(), text.into()),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            object.insert(format!("{name}_hex"), hex.into())
        }
    };
}

/// An entry as JSON.
pub(crate) fn entry_json(key: &Key, state: &Versioned) -> Map<String, Json> {
    let mut object = Map::new();
    put_bytes(&mut object, "key", key);
    put_bytes(&mut object, "value", &state.value);
    object.insert("version".into(), state.modified.0.into());
    object.insert("created".into(), state.created.0.into());
    object
}

/// A receipt as JSON.
pub(crate) fn receipt_json(receipt: &Receipt, backend: Backend, took: Duration) -> Map<String, Json> {
    let object = json!({
        "op": receipt.op.to_string(),
        "succeeded": receipt.succeeded,
        "version": receipt.version.0,
        "found": receipt.found.0,
        "backend": backend.name(),
        "achieved": receipt.achieved.to_string(),
        "durable_on": receipt.durable_on.iter().map(|node| node.0).collect::<Vec<_>>(),
        "served_by": receipt.served_by.0,
        "round_trips": receipt.round_trips,
        "syncs": receipt.syncs,
        "micros": took.as_micros() as u64,
    });
    match object {
        Json::Object(object) => object,
        _ => unreachable!("the macro above makes an object"),
    }
}

/// A receipt as sentences for `--explain`.
pub(crate) fn explain_receipt(receipt: &Receipt, backend: Backend, took: Duration) -> String {
    let durable = if receipt.durable_on.is_empty() {
        "durable on no node yet".to_owned()
    } else {
        format!("durable on node {} (at least)", receipt.durable_on)
    };
    format!(
        "backend {backend}: {} at {}\n{durable}\nordered by node {}; {} round trip(s), {} disk sync(s) one after the other\noperation {}\ntook {}",
        receipt.achieved,
        receipt.version,
        receipt.served_by,
        receipt.round_trips,
        receipt.syncs,
        receipt.op,
        duration(took),
    )
}

/// How a read was served, for `--explain`.
pub(crate) fn explain_read(reply: &ReadReply, backend: Backend, took: Duration) -> String {
    format!(
        "backend {backend}: {} read at {}\nserved by node {}; {} round trip(s)\ntook {}",
        reply.achieved,
        reply.version,
        reply.served_by,
        reply.round_trips,
        duration(took),
    )
}

/// How a read was served, as JSON.
pub(crate) fn read_json(reply: &ReadReply, backend: Backend, took: Duration) -> Json {
    json!({
        "backend": backend.name(),
        "achieved": reply.achieved.to_string(),
        "version": reply.version.0,
        "served_by": reply.served_by.0,
        "round_trips": reply.round_trips,
        "micros": took.as_micros() as u64,
    })
}

/// Entries for people or pipes.
pub(crate) fn entries(form: Form, entries: &[Entry]) {
    for Entry { key, state } in entries {
        if is_lost() {
            return;
        }
        match form {
            Form::Json => line(Json::Object(entry_json(key, state)).to_string()),
            Form::Table => line(format!("{key} = {}", state.value)),
            Form::Raw => raw_pair(key, &state.value),
        }
    }
}

fn raw_pair(key: &Key, value: &Value) {
    let bytes: Vec<u8> = [&key[..], b"\t", &value[..], b"\n"].concat();
    print(&bytes);
}

/// A table with aligned columns; the first row is the heading.
pub(crate) fn table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        line(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

/// A duration as people read it.
pub(crate) fn duration(time: Duration) -> String {
    match time.as_micros() {
        micros @ 0..1000 => format!("{micros} µs"),
        micros @ 1000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        micros => format!("{:.2} s", micros as f64 / 1e6),
    }
}
