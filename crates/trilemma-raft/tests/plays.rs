//! Raft by plays: the files of `tests/plays/` are run, and their traces must be what is recorded.
//!
//! `cargo xtask plays --rewrite` renews them. The form is that of [`trilemma_testkit::plays`].

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use trilemma_core::{Attempt, Command, Incarnation, NodeId, Request, codec};
use trilemma_raft::{AppendResult, Entry, Index, LogEnd, Message, Payload, Raft, RaftConfig, Record, Term};
use trilemma_testkit::op;
use trilemma_testkit::plays::{Play, Plays, Setup, Stage, show_command, show_op, show_reply};

/// Raft on the stage.
struct OfRaft;

impl Stage for OfRaft {
    type Protocol = Raft;

    fn build(node: NodeId, incarnation: Incarnation, seed: u64, setup: &Setup) -> Raft {
        let mut config = RaftConfig::new(node, incarnation, setup.members(), seed);
        if let Some(entries) = setup.number("kept") {
            config.kept_entries = entries;
        }
        if let Some(entries) = setup.number("batch") {
            config.append_entries_max = entries;
        }
        Raft::new(config)
    }

    fn show(message: &Message) -> Vec<String> {
        vec![show(message)]
    }

    fn command(play: &mut Play<Self>, words: &[&str]) -> Option<Result<(), String>> {
        match words {
            ["elect", node] => Some(elect(play, node)),
            ["log", node, entries @ ..] => Some(log(play, node, entries)),
            ["logs"] => Some(logs(play)),
            _ => None,
        }
    }
}

#[test]
fn raft_plays() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plays");
    let mut plays = Plays::<OfRaft>::new(std::env::var("TRILEMMA_PLAYS").ok().as_deref());
    for file in fs::read_dir(folder).expect("there are plays") {
        let path = file.expect("the folder can be read").path();
        let recorded = fs::read_to_string(&path).expect("a play is text");
        if let Some(renewed) = plays.perform(&path.display().to_string(), &recorded) {
            fs::write(&path, renewed).expect("a play can be written");
        }
    }
    plays.end();
}

fn end(end: LogEnd) -> String {
    format!("{}@t{}", end.index, end.term.0)
}

fn show(message: &Message) -> String {
    match message {
        Message::PreVote { term, end: log } => format!("pre-vote for t{}, log ends {}", term.0, end(*log)),
        Message::PreVoteReply { asked, granted, .. } => {
            format!("pre-vote-reply for t{}: {}", asked.0, yes(*granted))
        }
        Message::Vote {
            term,
            end: log,
            is_handover,
        } => {
            let handover = if *is_handover { ", in a handover" } else { "" };
            format!("vote t{}, log ends {}{handover}", term.0, end(*log))
        }
        Message::VoteReply { term, granted } => format!("vote-reply t{}: {}", term.0, yes(*granted)),
        Message::Append {
            term,
            prev,
            entries,
            commit,
            ..
        } if entries.is_empty() => format!("heartbeat t{}, after {}, commit {commit}", term.0, end(*prev)),
        Message::Append {
            term,
            prev,
            entries,
            commit,
            ..
        } => {
            let entries: Vec<String> = entries.iter().map(entry).collect();
            let entries = entries.join("; ");
            format!(
                "append t{}, after {}: [{entries}], commit {commit}",
                term.0,
                end(*prev)
            )
        }
        Message::AppendReply { term, result, .. } => match result {
            AppendResult::Matched(index) => format!("append-reply t{}: matches up to {index}", term.0),
            AppendResult::Mismatch(index) => format!("append-reply t{}: no match, try {index}", term.0),
        },
        Message::Snapshot {
            term, at, part, last, ..
        } => {
            let last = if *last { ", the last" } else { "" };
            format!(
                "snapshot t{} of the state at {}, part {part}{last}",
                term.0,
                end(*at)
            )
        }
        Message::SnapshotReply { term, at, next, .. } => {
            format!(
                "snapshot-reply t{}: state at {}, next part {next}",
                term.0,
                end(*at)
            )
        }
        Message::Forward { request, .. } => format!("forward {}", request_of(request)),
        Message::ForwardReply { reply, .. } => {
            format!("forward-reply {}", show_reply(reply, OfRaft::version))
        }
        Message::NotLeader { .. } => "not-leader".into(),
        Message::StateDigest { term, at, digest } => {
            format!("state-digest t{}: {digest:016x} after {at}", term.0)
        }
        Message::TimeoutNow { term } => format!("timeout-now t{}", term.0),
    }
}

fn yes(granted: bool) -> &'static str {
    if granted { "yes" } else { "no" }
}

fn entry(entry: &Entry) -> String {
    let what = match &entry.payload {
        Payload::Noop => "no-op".into(),
        Payload::Write { op, command } => format!("{} {}", show_op(*op), show_command(&command.to_command())),
        Payload::Fence { op } => format!("fence {}", show_op(*op)),
    };
    format!("t{} {what}", entry.term.0)
}

fn request_of(request: &Request) -> String {
    match request {
        Request::Write { op, attempt, command } => {
            let sent = match attempt {
                Attempt::First => "never sent before",
                Attempt::Retry => "perhaps sent before",
            };
            format!("{} {}, {sent}", show_op(*op), show_command(command))
        }
        Request::Read(_) => "read".into(),
        Request::Outcome { op, .. } => format!("outcome of {}", show_op(*op)),
    }
}

/// `elect N`: the timers of all others stand still until N is leader and nothing is under way.
fn elect(play: &mut Play<OfRaft>, node: &str) -> Result<(), String> {
    let node = NodeId(node.parse().map_err(|_| "which node?")?);
    let cluster = play.cluster()?;
    for other in cluster.ids() {
        cluster.hold_timers(other, other != node);
    }
    if !cluster.run_until(Duration::from_secs(2), |cluster| {
        cluster.protocol(node).is_leader()
    }) {
        return Err(format!("node {node} was not elected"));
    }
    cluster.run_until_quiet(Duration::from_secs(1));
    for other in cluster.ids() {
        cluster.hold_timers(other, false);
    }
    Ok(())
}

/// `log N TERM... [in TERM]`: node N is stopped, and its disk holds a log whose entries have these terms; it has voted
/// for nobody in the last of them, or in the term given.
fn log(play: &mut Play<OfRaft>, node: &str, terms: &[&str]) -> Result<(), String> {
    let node = NodeId(node.parse().map_err(|_| "which node?")?);
    let (terms, latest) = match terms {
        [terms @ .., "in", latest] => (terms, Some(latest.parse().map_err(|_| "a term is a number")?)),
        terms => (terms, None),
    };
    let mut entries = Vec::new();
    for (at, term) in terms.iter().enumerate() {
        let term = Term(term.parse().map_err(|_| "a term is a number")?);
        let payload = Payload::Write {
            op: op(at as u64 + 1),
            command: Command::put("x", format!("t{}", term.0)).into(),
        };
        entries.push(Entry { term, payload });
    }
    let last = entries.last().map_or(Term(0), |entry| entry.term);
    let term = latest.map_or(last, Term);
    let records = [
        Record::HardState { term, vote: None },
        Record::Entries {
            first: Index(1),
            entries,
        },
    ];
    let cluster = play.cluster()?;
    cluster.crash_losing_all(node);
    cluster.replace_disk(node, records.iter().map(codec::encode).collect());
    Ok(())
}

/// `logs`: the terms of the entries on each disk.
fn logs(play: &mut Play<OfRaft>) -> Result<(), String> {
    for node in play.cluster()?.ids() {
        let mut terms: BTreeMap<u64, u64> = BTreeMap::new();
        let mut base = String::new();
        for record in play.cluster()?.disk(node) {
            match codec::decode(record).map_err(|error| error.to_string())? {
                Record::Entries { first, entries } => {
                    terms.retain(|index, _| *index < first.0);
                    let new = entries.iter().enumerate();
                    terms.extend(new.map(|(at, entry)| (first.0 + at as u64, entry.term.0)));
                }
                Record::SnapshotEnd { at } => {
                    terms.retain(|index, _| *index > at.index.0);
                    base = format!("state at {}, then ", end(at));
                }
                Record::HardState { .. } | Record::SnapshotPart(_) => {}
            }
        }
        let shown: Vec<String> = terms.values().map(ToString::to_string).collect();
        play.say(format!("{node}: {base}{}", shown.join(" ")));
    }
    Ok(())
}
