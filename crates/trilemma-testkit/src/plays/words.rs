//! The words of a play: times and nodes as they are written, requests and answers as they are shown.

use std::time::Duration;

use trilemma_core::{
    Command, Entry, Guard, Mutation, NodeId, OpId, Outcome, ReadError, ReadReply, Receipt, Reply, Version,
    WriteError,
};

/// A time: a number with `ms` or `s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s').unwrap_or("?"), 1000),
    };
    let count: u64 = number
        .parse()
        .map_err(|_| format!("\"{text}\" is no time; write 50ms or 2s"))?;
    Ok(Duration::from_millis(count * unit))
}

/// A node's number.
pub(super) fn node(text: &str) -> Result<NodeId, String> {
    let number = text
        .parse()
        .map_err(|_| format!("\"{text}\" is no node; write its number"))?;
    Ok(NodeId(number))
}

/// An operation: the client's number of it.
#[must_use]
pub fn show_op(op: OpId) -> String {
    format!("op{}", op.seq)
}

/// A command, guards first.
#[must_use]
pub fn show_command(command: &Command) -> String {
    let guards = command.guards.iter().map(|guard| match guard {
        Guard::Version { key, is } => format!("if {key} is at {is}"),
        Guard::Value { key, is: Some(is) } => format!("if {key}={is}"),
        Guard::Value { key, is: None } => format!("if no {key}"),
    });
    let mutations = command.mutations.iter().map(|mutation| match mutation {
        Mutation::Put { key, value, .. } => format!("{key}={value}"),
        Mutation::Delete { key } => format!("delete {key}"),
        Mutation::Update { key, update } => format!("{key}: {update}"),
    });
    guards.chain(mutations).collect::<Vec<_>>().join(", ")
}

/// An answer to a client.
#[must_use]
pub fn show_reply(reply: &Reply, version: fn(Version) -> String) -> String {
    match reply {
        Reply::Write(Ok(receipt)) => show_receipt(receipt, version),
        Reply::Write(Err(WriteError::Unknown { op, cause })) => {
            format!("UNKNOWN whether {} happened: {cause}", show_op(*op))
        }
        Reply::Write(Err(error)) => error.to_string(),
        Reply::Read(Ok(read)) => show_read(read, version),
        Reply::Read(Err(ReadError { reason, .. })) => format!("no answer: {reason}"),
        Reply::Outcome(Ok(Outcome::Applied(receipt))) => {
            format!("it happened: {}", show_receipt(receipt, version))
        }
        Reply::Outcome(Ok(Outcome::NotApplied)) => "it did not happen, and never will".into(),
        Reply::Outcome(Ok(Outcome::Pending)) => "not decided yet".into(),
        Reply::Outcome(Ok(Outcome::Expired)) => "nobody can tell any more".into(),
        Reply::Outcome(Err(error)) => format!("no answer: {}", error.reason),
    }
}

fn show_receipt(receipt: &Receipt, version: fn(Version) -> String) -> String {
    let made = if receipt.succeeded {
        format!("written as {}", version(receipt.version))
    } else {
        format!("guard failed, found {}", version(receipt.found))
    };
    format!(
        "{made}, durable on {{{}}}, {}, {}",
        receipt.durable_on,
        count(receipt.round_trips, "round trip"),
        count(receipt.syncs, "sync")
    )
}

fn show_read(read: &ReadReply, version: fn(Version) -> String) -> String {
    let found = if read.entries.is_empty() {
        "nothing".to_owned()
    } else {
        show_entries(&read.entries, version)
    };
    format!(
        "{found} ({}, {})",
        read.achieved,
        count(read.round_trips, "round trip")
    )
}

/// Keys with their values.
pub(super) fn show_entries(entries: &[Entry], version: fn(Version) -> String) -> String {
    let entries = entries.iter().map(|entry| {
        let (key, state) = (&entry.key, &entry.state);
        format!("{key}={} at {}", state.value, version(state.modified))
    });
    entries.collect::<Vec<_>>().join(", ")
}

fn count(number: u8, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
