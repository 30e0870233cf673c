//! Advice that destroys good data, in the texts that a program shows.

use super::{File, Finding};

const WHY: &str = "who reads an error does what it says: a directory that is gone cannot be repaired, a node that has \
                   forgotten its promises breaks those of its cluster, and members cannot be changed";

/// Beginnings of such advice, in small letters. Put together here, so that this file has none.
const ADVICE: &[&str] = &[
    concat!("wi", "pe "),
    concat!("wi", "ping "),
    concat!("delete i", "ts data"),
    concat!("delete t", "he data"),
    concat!("delete t", "heir data"),
    concat!("remove t", "he data dir"),
    concat!("rejoin un", "der a new"),
    concat!("join un", "der a new"),
    concat!("under a ne", "w node id"),
];

/// Checks one source file. Names of things, as the simulator's faults have them, are no advice: they are no sentences.
pub(super) fn check(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for range in &file.source.strings {
        if file.is_test_at(range.start) {
            continue;
        }
        let shown = as_shown(&file.source.text[range.clone()]);
        if let Some(advice) = ADVICE.iter().find(|advice| shown.contains(**advice)) {
            findings.push(Finding {
                file: file.name.clone(),
                line: file.source.line_of(range.start),
                rule: "advice",
                what: format!("a text that tells to destroy data, \"…{advice}…\""),
                why: WHY,
                fix: "say what is safe: keep the directory, ask the other nodes, put back a backup of all"
                    .into(),
            });
        }
    }
    findings
}

/// A literal as one line of small letters: a backslash at the end of a line joins it with the next.
fn as_shown(literal: &str) -> String {
    let words = literal.split_whitespace().filter(|word| *word != "\\");
    words.collect::<Vec<_>>().join(" ").to_lowercase()
}
