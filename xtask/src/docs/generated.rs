//! The parts of the documentation that are written from the descriptors, so that they cannot say anything else.

use std::fmt::Write;

use trilemma_core::descriptor::{Backend, Descriptor, Requires, TransactionScope, WatchScope};
use trilemma_core::{Needs, data, read};

const BEGIN: &str = "<!-- generated: ";
const BEGIN_END: &str = " -->";
const END: &str = "<!-- end generated -->";

/// Replaces what stands between the markers; also returns what is wrong with them.
pub(super) fn rewrite(page: &str) -> (String, Vec<String>) {
    let mut out = String::new();
    let mut problems = Vec::new();
    let mut rest = page;
    while let Some(at) = rest.find(BEGIN) {
        let after = &rest[at + BEGIN.len()..];
        let (Some(name_end), Some(end)) = (after.find(BEGIN_END), after.find(END)) else {
            problems.push(format!("a generated part has no end; add `{END}`"));
            break;
        };
        let name = &after[..name_end];
        match part(name) {
            Some(text) => {
                out.push_str(&rest[..at]);
                write!(out, "{BEGIN}{name}{BEGIN_END}\n\n{}\n\n{END}", text.trim()).expect("a string grows");
            }
            None => {
                problems.push(format!(
                    "no generated part is called \"{name}\"; there are {}",
                    NAMES.join(", ")
                ));
                out.push_str(&rest[..at + BEGIN.len() + end + END.len()]);
            }
        }
        rest = &after[end + END.len()..];
    }
    out.push_str(rest);
    (out, problems)
}

/// The names of all parts; `BACKEND` stands for a backend's name.
const NAMES: &[&str] = &[
    "guarantees",
    "descriptors",
    "needs",
    "partition",
    "availability",
    "limits",
    "descriptor BACKEND",
    "lost BACKEND",
];

fn part(name: &str) -> Option<String> {
    match name {
        "guarantees" => Some(guarantees()),
        "descriptors" => Some(descriptors()),
        "needs" => Some(needs()),
        "partition" => Some(partition()),
        "availability" => Some(availability()),
        "limits" => Some(limits()),
        _ => {
            let (kind, backend) = name.split_once(' ')?;
            let backend = backend.parse().ok()?;
            match kind {
                "descriptor" => Some(one_descriptor(backend)),
                "lost" => Some(lost(backend)),
                _ => None,
            }
        }
    }
}

fn table(header: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut table = line(header);
    table.push_str(&line(&vec!["---".to_owned(); header.len()]));
    rows.iter().for_each(|row| table.push_str(&line(row)));
    table
}

/// A row of a table with a column per backend: its name, and what it says of one.
type Row = (&'static str, fn(&Descriptor) -> String);

/// A table with a column per backend.
fn per_backend(corner: &str, rows: &[Row]) -> String {
    let names = Backend::ALL.iter().map(|backend| format!("`{backend}`"));
    let header: Vec<String> = std::iter::once(corner.to_owned()).chain(names).collect();
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|(name, cell)| {
            let cells = Backend::ALL.iter().map(|backend| cell(backend.descriptor()));
            std::iter::once((*name).to_owned()).chain(cells).collect()
        })
        .collect();
    table(&header, &rows)
}

fn guarantees() -> String {
    let rows: Vec<Vec<String>> = Backend::ALL
        .iter()
        .map(|backend| {
            let d = backend.descriptor();
            vec![
                format!("`{backend}`"),
                d.keeps.into(),
                d.gives_up.into(),
                d.writes_need.to_string(),
                reads_need(d),
                d.isolation.to_string(),
            ]
        })
        .collect();
    let header = [
        "backend",
        "keeps in a partition",
        "gives up in a partition",
        "a write needs",
        "a read needs",
        "consistency",
    ];
    table(&header.map(str::to_owned), &rows)
}

/// What a descriptor says, row by row.
const ROWS: &[Row] = &[
    ("a write needs", |d| d.writes_need.to_string()),
    ("a read needs", reads_need),
    ("consistency", |d| d.isolation.to_string()),
    ("strongest read", |d| {
        if d.linearizable_reads {
            "linearizable".into()
        } else {
            "local".into()
        }
    }),
    ("one command spans", scope),
    ("data types", |d| {
        if d.data_types {
            "counters, sets, maps and others, whose concurrent changes all count".into()
        } else {
            "none: they are refused".into()
        }
    }),
    ("durable before the answer", durable),
    ("PACELC", |d| d.pacelc.into()),
    ("may block", |d| {
        if d.may_block.is_empty() {
            "never; it refuses".into()
        } else {
            d.may_block.into()
        }
    }),
    ("clocks", |d| d.clock.into()),
    ("cost of a write", |d| d.write_cost.into()),
    ("cost of a read", |d| d.read_cost.into()),
    ("watch", watch),
];

fn descriptors() -> String {
    per_backend("", ROWS)
}

fn one_descriptor(backend: Backend) -> String {
    let d = backend.descriptor();
    let mut rows = vec![
        vec!["keeps in a partition".into(), d.keeps.into()],
        vec!["gives up in a partition".into(), d.gives_up.into()],
    ];
    rows.extend(ROWS.iter().map(|(name, cell)| vec![(*name).to_owned(), cell(d)]));
    table(&["".into(), format!("`{backend}`")], &rows)
}

fn reads_need(d: &Descriptor) -> String {
    if d.reads_but.is_empty() {
        d.reads_need.to_string()
    } else {
        format!("{}, {}", d.reads_need, d.reads_but)
    }
}

fn scope(d: &Descriptor) -> String {
    match d.transaction_scope {
        TransactionScope::Key => "one key, with a guard",
        TransactionScope::Keyspace => "any keys of the keyspace, with guards",
        TransactionScope::UnguardedBatch => "any keys, without guards",
    }
    .into()
}

fn durable(d: &Descriptor) -> String {
    match d.durable_on {
        Requires::AnyNode => "on one node, if `durability = \"fsync\"`",
        Requires::Majority => "on a majority",
        Requires::AllMembers => "on every member",
    }
    .into()
}

fn watch(d: &Descriptor) -> String {
    match d.watch {
        WatchScope::Shared => "same order on every node; resumes at any node",
        WatchScope::Node => "each node's own view; resumes at that node, elsewhere with a reset",
    }
    .into()
}

fn needs() -> String {
    per_backend_of_needs(|need, backend| match need.lost_with(backend) {
        None => "yes".into(),
        Some(_) => "refused".into(),
    })
}

fn per_backend_of_needs(cell: impl Fn(Needs, Backend) -> String) -> String {
    let names = Backend::ALL.iter().map(|backend| format!("`{backend}`"));
    let header: Vec<String> = std::iter::once("the code needs".to_owned())
        .chain(names)
        .collect();
    let rows: Vec<Vec<String>> = Needs::ALL
        .iter()
        .map(|need| {
            let cells = Backend::ALL.iter().map(|backend| cell(*need, *backend));
            std::iter::once(need.to_string()).chain(cells).collect()
        })
        .collect();
    table(&header, &rows)
}

fn lost(backend: Backend) -> String {
    let rows: Vec<Vec<String>> = Needs::ALL
        .iter()
        .map(|need| match need.lost_with(backend) {
            None => vec![need.to_string(), "opens".into()],
            Some(lost) => vec![need.to_string(), format!("is refused: {lost}")],
        })
        .collect();
    table(
        &["the code needs".into(), format!("a `{backend}` keyspace")],
        &rows,
    )
}

/// Where the node that is asked finds itself.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Healthy,
    Majority,
    Minority,
    NodeLost,
}

impl Place {
    const ALL: [Place; 4] = [Place::Healthy, Place::Majority, Place::Minority, Place::NodeLost];

    fn name(self) -> &'static str {
        match self {
            Place::Healthy => "healthy",
            Place::Majority => "majority side",
            Place::Minority => "minority side",
            Place::NodeLost => "a node lost",
        }
    }

    /// How many of five nodes the node that is asked can reach, itself included, in a partition 3 against 2.
    fn reachable(self) -> u32 {
        match self {
            Place::Healthy => 5,
            Place::Majority => 3,
            Place::Minority => 2,
            Place::NodeLost => 4,
        }
    }

    fn suffices(self, requires: Requires) -> bool {
        self.reachable() >= requires.count(5)
    }
}

type Answer = fn(&Descriptor, Place) -> String;

/// Operations, and what becomes of them.
const OPERATIONS: &[(&str, Answer)] = &[
    ("put, delete", |d, place| write(d, place)),
    ("compare-and-set", |d, place| {
        if d.linearizable_reads {
            write(d, place)
        } else {
            UNSUPPORTED.into()
        }
    }),
    ("guarded batch", |d, place| match d.transaction_scope {
        TransactionScope::Keyspace => write(d, place),
        TransactionScope::Key | TransactionScope::UnguardedBatch => UNSUPPORTED.into(),
    }),
    ("get: strongest level", strongest_read),
    ("range: linearizable", |d, place| {
        let one_key = matches!(d.transaction_scope, TransactionScope::Key);
        if one_key || !d.linearizable_reads {
            UNSUPPORTED.into()
        } else {
            strongest_read(d, place)
        }
    }),
    ("get, range: `local`", |_, _| STALE.into()),
    ("watch", |d, place| {
        if place.suffices(d.writes_need) && d.writes_need != Requires::AnyNode {
            "answers".into()
        } else if d.writes_need == Requires::AnyNode {
            "answers, with the writes of this side".into()
        } else {
            "answers; nothing new arrives".into()
        }
    }),
];

const UNSUPPORTED: &str = "unsupported";
const STALE: &str = "answers, may be stale";
const REFUSED: &str = "**refused**";

fn write(d: &Descriptor, place: Place) -> String {
    if place.suffices(d.writes_need) {
        format!("answers{}", after_election(d, place))
    } else {
        REFUSED.into()
    }
}

/// What a leader's loss adds to an answer.
fn after_election(d: &Descriptor, place: Place) -> &'static str {
    match (d.backend, place) {
        (Backend::Raft, Place::NodeLost) => "; if it led, after an election",
        (Backend::Raft, Place::Majority) => "; if the leader is on the other side, after an election",
        _ => "",
    }
}

fn strongest_read(d: &Descriptor, place: Place) -> String {
    if !place.suffices(d.reads_need) {
        return REFUSED.into();
    }
    if !d.linearizable_reads {
        return STALE.into();
    }
    let mut answer = format!("answers, linearizable{}", after_election(d, place));
    if place != Place::Healthy && !d.reads_but.is_empty() {
        write!(answer, ", {}", d.reads_but).expect("a string grows");
    }
    answer
}

fn partition() -> String {
    let places = Place::ALL.iter().map(|place| place.name().to_owned());
    let header: Vec<String> = ["operation".to_owned(), "backend".to_owned()]
        .into_iter()
        .chain(places)
        .collect();
    let mut rows = Vec::new();
    for (operation, answer) in OPERATIONS {
        for (index, backend) in Backend::ALL.iter().enumerate() {
            let name = if index == 0 { *operation } else { "" };
            let answers = Place::ALL
                .iter()
                .map(|place| answer(backend.descriptor(), *place));
            let row = [name.to_owned(), format!("`{backend}`")]
                .into_iter()
                .chain(answers);
            rows.push(row.collect());
        }
    }
    table(&header, &rows)
}

fn availability() -> String {
    /// Availability of one node in the table.
    const NODE: f64 = 0.999;
    let header = [
        "of nodes that are each up 99.9 % of the time",
        "3 nodes",
        "5 nodes",
        "7 nodes",
    ];
    let rows: Vec<Vec<String>> = [Requires::AnyNode, Requires::Majority, Requires::AllMembers]
        .into_iter()
        .map(|requires| {
            let cell = |nodes| percent(Descriptor::availability(requires, nodes, NODE));
            let article = if requires == Requires::Majority { "a " } else { "" };
            vec![
                format!("what needs {article}{requires}"),
                cell(3),
                cell(5),
                cell(7),
            ]
        })
        .collect();
    table(&header.map(str::to_owned), &rows)
}

/// A probability with as many digits as tell it from 1.
fn percent(probability: f64) -> String {
    let lost = 1.0 - probability;
    if lost < 1e-12 {
        return "100 %".into();
    }
    let digits = (-(lost * 100.0).log10()).ceil().max(0.0) as usize + 1;
    format!("{:.digits$} %", probability * 100.0)
}

fn limits() -> String {
    let kib = |bytes: usize| {
        if bytes.is_multiple_of(1024 * 1024) {
            format!("{} MiB", bytes / (1024 * 1024))
        } else {
            format!("{} KiB", bytes / 1024)
        }
    };
    let rows = [
        ("a key", kib(data::KEY_BYTES_MAX)),
        ("a value", kib(data::VALUE_BYTES_MAX)),
        (
            "one command, keys and values together",
            kib(data::COMMAND_BYTES_MAX),
        ),
        (
            "guards, or changes, of one command",
            data::BATCH_LENGTH_MAX.to_string(),
        ),
        (
            "entries of one page of a range",
            read::RANGE_ENTRIES_MAX.to_string(),
        ),
        (
            "bytes of one page of a range, before its last entry",
            kib(read::RANGE_BYTES_MAX),
        ),
    ];
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(what, limit)| vec![what.to_owned(), limit])
        .collect();
    table(&["what".into(), "limit".into()], &rows)
}
