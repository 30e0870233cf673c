//! Rules for every source file.

use super::{File, Finding};
use crate::source::{closing, find_word};
use crate::workspace::Package;

/// Checks one source file.
pub(super) fn check(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(opening(file));
    findings.extend(words(file));
    findings.extend(exceptions(file));
    findings.extend(uncompiled_examples(file));
    findings
}

/// Every file says first what it is.
fn opening(file: &File) -> Option<Finding> {
    let first = file.source.text.lines().find(|line| !line.trim().is_empty());
    let opens = first.is_some_and(|line| {
        line.strip_prefix("//!")
            .is_some_and(|rest| !rest.trim().is_empty())
    });
    (!opens).then(|| Finding {
        file: file.name.clone(),
        line: 1,
        rule: "opening",
        what: "the file does not open with `//!`".into(),
        why: "a reader must know at once what a file is, which paper it follows and what it is not",
        fix: "begin it with `//! What it is.`".into(),
    })
}

const UNFINISHED: &str = "what goes in is finished; a panic left for later is met by a user";

/// Words that do not belong into the code of the project: word, rule, why, fix.
const WORDS: &[(&str, &str, &str, &str)] = &[
    (
        "unsafe",
        "unsafe",
        "nothing here needs it, and one block voids what the compiler promises for all",
        "write it in safe Rust",
    ),
    (
        "#[ignore",
        "tests",
        "a test that does not run checks nothing",
        "make it fast, or let an environment variable lengthen it",
    ),
    (
        "#[should_panic",
        "tests",
        "it passes for any panic, the wrong one too",
        "return the error and compare it",
    ),
    ("todo!", "unfinished", UNFINISHED, "finish it, or take it out"),
    (
        "unimplemented!",
        "unfinished",
        UNFINISHED,
        "finish it, or take it out",
    ),
    (
        "dbg!",
        "unfinished",
        "it prints what only its author understands",
        "use tracing, or take it out",
    ),
];

fn words(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (word, rule, why, fix) in WORDS {
        for at in file.source.find_word(word) {
            findings.push(Finding {
                file: file.name.clone(),
                line: file.source.line_of(at),
                rule,
                what: format!("`{word}{}`", if word.starts_with('#') { "]" } else { "" }),
                why,
                fix: (*fix).into(),
            });
        }
    }
    findings
}

/// A comment that talks to the reader of the code; documentation talks to somebody else.
fn is_comment(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("//") && !line.starts_with("///") && !line.starts_with("//!")
}

/// A lint is relaxed only with a reason: in the attribute, or in a comment on its line or the line before.
fn exceptions(file: &File) -> Vec<Finding> {
    let source = &file.source;
    let mut findings = Vec::new();
    for (at, _) in source.code.match_indices('#') {
        let open = at + source.code[at..].find('[').unwrap_or(0);
        if !matches!(&source.code[at..open], "#" | "#!") {
            continue;
        }
        let end = closing(&source.code, open).unwrap_or(open);
        let attribute = &source.code[open..end];
        let relaxes = ["allow", "expect"]
            .iter()
            .any(|word| find_word(attribute, word).any(|at| attribute[at + word.len()..].starts_with('(')));
        let (line, last) = (source.line_of(at), source.line_of(end));
        let commented =
            is_comment(source.line(line - 1)) || (line..=last).any(|line| source.line(line).contains("//"));
        if relaxes && !commented && find_word(attribute, "reason").next().is_none() {
            findings.push(Finding {
                file: file.name.clone(),
                line,
                rule: "exceptions",
                what: "a lint is relaxed without a reason".into(),
                why: "the next reader cannot tell a decision from a convenience",
                fix: "add `reason = \"…\"` to the attribute, or a comment on the line before".into(),
            });
        }
    }
    findings
}

/// An example that is never compiled is wrong one day.
fn uncompiled_examples(file: &File) -> Vec<Finding> {
    let fences = file.source.text.lines().enumerate().filter(|(_, line)| {
        let comment = line.trim_start();
        let body = comment
            .strip_prefix("///")
            .or_else(|| comment.strip_prefix("//!"));
        let info = body.and_then(|body| body.trim_start().strip_prefix("```"));
        info.is_some_and(|info| {
            info.split(',')
                .any(|word| ["ignore", "should_panic"].contains(&word.trim()))
        })
    });
    fences
        .map(|(index, _)| Finding {
            file: file.name.clone(),
            line: index + 1,
            rule: "tests",
            what: "an example in a comment is not compiled, or has to panic".into(),
            why: "examples that no compiler reads are wrong one day",
            fix: "let it compile (`no_run` if it needs a cluster), or mark it `text`".into(),
        })
        .collect()
}

/// Every package inherits the lints of the workspace, which forbid `unsafe` and undocumented items.
pub(super) fn lints_inherited(package: &Package, file: &str) -> Option<Finding> {
    let inherited = package
        .manifest
        .get("lints")
        .and_then(|lints| lints.get("workspace"))
        .and_then(toml::Value::as_bool);
    (inherited != Some(true)).then(|| Finding {
        file: file.into(),
        line: 1,
        rule: "unsafe",
        what: format!("{} does not inherit the workspace's lints", package.name),
        why: "they forbid `unsafe` and items without documentation",
        fix: "add `[lints]` with `workspace = true`".into(),
    })
}
