//! Retired words: those that readers from the field stumble over, and what is said instead.
//!
//! The glossary of the book is the law on what words mean; this is the list of those that are not used any more. Looked
//! for in source (comments, texts and names), manifests and pages; not in patches, which repeat what they change.

use std::ops::Range;

use super::{File, Finding};

const WHY: &str = "one thing has one name, and it is the one that the field uses";

/// Where a word is retired.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// Wherever it stands as a word, or as a word of a longer name.
    Anywhere,
    /// As a whole name in code. As English it is a good word.
    Name,
    /// As the name of a type. As English, as a variant, and as another crate's type it is a good word.
    Type,
}

/// A retired word.
struct Word {
    /// The word, or several in a row, in lower case.
    old: &'static str,
    /// What is said instead.
    new: &'static str,
    place: Place,
}

const fn anywhere(old: &'static str, new: &'static str) -> Word {
    Word {
        old,
        new,
        place: Place::Anywhere,
    }
}

const fn name(old: &'static str, new: &'static str) -> Word {
    Word {
        old,
        new,
        place: Place::Name,
    }
}

const fn type_name(old: &'static str, new: &'static str) -> Word {
    Word {
        old,
        new,
        place: Place::Type,
    }
}

const WORDS: &[Word] = &[
    anywhere(
        "office",
        "step down, \"stepped down as leader\", \"became leader\"",
    ),
    anywhere("life", "incarnation; of a process or a cluster: run"),
    anywhere("beat", "ping between nodes, heartbeat of a Raft leader"),
    anywhere("beats", "pings between nodes, heartbeats of a Raft leader"),
    anywhere(
        "settle",
        "resolve an outcome, confirm a ballot, collect a tombstone",
    ),
    anywhere("settles", "resolves, confirms, collects"),
    anywhere("settled", "resolved, confirmed, collected"),
    anywhere("settling", "resolving, confirming, collecting"),
    anywhere("told", "notified, reported, received; or the active voice"),
    anywhere("hear of", "learn of"),
    anywhere("hears of", "learns of"),
    anywhere("heard of", "learned of"),
    anywhere("a split", "a network partition"),
    anywhere("the split", "the partition"),
    anywhere("any split", "any partition"),
    anywhere("regime", "epoch"),
    anywhere("regimes", "epochs"),
    anywhere("park", "defer"),
    anywhere("parked", "deferred"),
    anywhere("held back", "deferred"),
    anywhere("whole since", "durable_since"),
    anywhere("crowded", "over_sibling_limit"),
    anywhere("spoiled", "incomplete"),
    anywhere("tainted", "diverged"),
    anywhere("anew", "again; of a program: restarts"),
    anywhere("for ever", "permanently, without end"),
    anywhere("lately", "recently"),
    anywhere("whoever", "the caller, the one who"),
    anywhere("at the latest", "no later than"),
    anywhere("let go of", "release"),
    anywhere("lets go of", "releases"),
    type_name("Owed", "PendingKind"),
    type_name("Asker", "ReplyTo"),
    type_name("Waiter", "PendingRequest"),
    type_name("Waiters", "PendingRequests"),
    type_name("Desk", "PendingRequests"),
    type_name("Slot", "KeyspaceReplica"),
    type_name("Group", "DynProtocol"),
    type_name("Ballots", "Votes"),
    type_name("Applied", "ChangeBatch"),
    name("at_least", "level"),
    name("AtLeast", "MinVersion"),
    name("won", "succeeded"),
    name("blind", "unknown_through"),
    name("hot", "batch"),
    name("fresh", "new_items, or what is new about it"),
    type_name("Surroundings", "LinkContext"),
    type_name("Outlet", "EventSender"),
    type_name("Room", "ByteBudget"),
    type_name("Meters", "Metrics"),
    name("FAREWELL", "CLOSE_TIMEOUT"),
];

/// Files that are named after a retired word, and their new names.
const FILES: &[(&str, &str)] = &[
    ("copies.rs", "forward_dedup.rs"),
    ("park.rs", "deferred.rs"),
    ("stored.rs", "checkpoint.rs"),
    ("desk.rs", "pending.rs"),
    ("doubt.rs", "termination.rs"),
    ("against.rs", "versus_history.rs"),
    ("among.rs", "cross_stream.rs"),
    ("book.rs", "index.rs"),
    ("narrow.rs", "constraints.rs"),
    ("ending.rs", "quiesce.rs"),
    ("choices.rs", "randomness.rs"),
];

/// Files that speak about the words themselves.
const ABOUT: &[&str] = &[
    "xtask/src/tidy/words.rs",
    "xtask/src/tidy/words/tests.rs",
    "docs/src/glossary.md",
];

/// Checks a source file.
pub(super) fn source(file: &File) -> Vec<Finding> {
    if exempt(&file.name) {
        return Vec::new();
    }
    let mut findings = text(&file.name, &file.source.text);
    let base = file.name.rsplit('/').next().unwrap_or_default();
    if let Some((old, new)) = FILES.iter().find(|(old, _)| *old == base) {
        findings.push(finding(&file.name, 1, old, new));
    }
    for word in WORDS.iter().filter(|word| word.place != Place::Anywhere) {
        for at in file.source.find_word(word.old) {
            if word.place == Place::Type && !declares(&file.source.code[..at]) {
                continue;
            }
            findings.push(finding(&file.name, file.source.line_of(at), word.old, word.new));
        }
    }
    findings
}

/// Checks a page or a manifest.
pub(super) fn page(name: &str, page: &str) -> Vec<Finding> {
    if exempt(name) {
        return Vec::new();
    }
    text(name, &without_names(page))
}

/// Whether the code ends just before the name of a type that it declares.
fn declares(code: &str) -> bool {
    let keyword = code.split_whitespace().next_back().unwrap_or_default();
    code.ends_with(' ') && ["struct", "enum", "trait", "type"].contains(&keyword)
}

/// A page without what stands between backticks: names of the code, which change with the code.
fn without_names(page: &str) -> String {
    // By paragraph, so that a stray backtick hides nothing after it.
    let paragraphs = page.split("\n\n").map(|paragraph| {
        let mut is_name = false;
        let shown = paragraph.chars().map(|c| {
            is_name ^= c == '`';
            if is_name && c != '\n' { ' ' } else { c }
        });
        shown.collect::<String>()
    });
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

fn exempt(file: &str) -> bool {
    ABOUT.contains(&file)
}

fn shown(word: &str) -> String {
    format!("the retired word \"{word}\"")
}

fn finding(file: &str, line: usize, old: &str, new: &str) -> Finding {
    Finding {
        file: file.into(),
        line,
        rule: "words",
        what: shown(old),
        why: WHY,
        fix: format!("say: {new}"),
    }
}

/// Looks for words that are retired anywhere.
fn text(file: &str, text: &str) -> Vec<Finding> {
    let tokens = tokens(text);
    let mut findings = Vec::new();
    for word in WORDS.iter().filter(|word| word.place == Place::Anywhere) {
        let parts: Vec<&str> = word.old.split(' ').collect();
        for run in tokens.windows(parts.len()) {
            let same = run
                .iter()
                .zip(&parts)
                .all(|(token, part)| text[token.clone()].eq_ignore_ascii_case(part));
            let together = run
                .windows(2)
                .all(|pair| text[pair[0].end..pair[1].start].chars().all(between));
            if same && together {
                let line = text[..run[0].start].matches('\n').count() + 1;
                findings.push(finding(file, line, word.old, word.new));
            }
        }
    }
    findings
}

/// What may stand between two words of a row: blanks, a new line of a comment, the joint of a name.
fn between(c: char) -> bool {
    c.is_whitespace() || matches!(c, '/' | '!' | '_')
}

/// The words of a text; a joint (`_`) separates.
fn tokens(text: &str) -> Vec<Range<usize>> {
    let mut tokens = Vec::new();
    let mut start = None;
    for (at, c) in text.char_indices() {
        // A letter after a digit belongs to a number or a hash.
        match (c.is_alphanumeric(), start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                tokens.push(from..at);
                start = None;
            }
            _ => {}
        }
    }
    tokens.extend(start.map(|from| from..text.len()));
    tokens
}

#[cfg(test)]
mod tests;
