//! Citations of the design notes: `inside/raft#pre-vote` in a zoo patch, a test or a comment must name a heading of
//! that page, and a rule is cited by its anchor, never by a number of notes that are not in this repository.

use super::Pages;
use super::links::anchors;

/// Where citations are looked for, and in which kinds of files.
const ROOTS: [&str; 3] = ["crates/", "zoo/", "benches/"];
const ENDINGS: [&str; 3] = [".rs", ".patch", ".txt"];

/// A citation begins with this; page, `#` and anchor follow.
const MARK: &str = "inside/";

/// Checks all files of the project that may cite; `read` gives the text of one.
pub(super) fn check(
    pages: &Pages,
    files: &[String],
    read: impl Fn(&str) -> Result<String, String>,
) -> Vec<String> {
    let mut problems = Vec::new();
    for name in files.iter().filter(|name| may_cite(name)) {
        let text = match read(name) {
            Ok(text) => text,
            Err(why) => {
                problems.push(format!("{name}: {why}"));
                continue;
            }
        };
        if name.ends_with(".patch") && !states_its_rule(&text) {
            problems.push(format!(
                "{name}: its header has no rule that cites a heading of docs/src/inside/, as in \
                 `Rule: a vote leaves when it is durable (inside/raft#durable-vote)`"
            ));
        }
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            for citation in citations(line) {
                if let Err(why) = citation.resolve(pages) {
                    problems.push(format!("{name}:{number}: `{citation}` {why}"));
                }
            }
            if let Some(found) = numbered(line) {
                problems.push(format!(
                    "{name}:{number}: \"{found}\" cites a number of notes that nobody can look up; cite a heading \
                     of docs/src/inside/, as in `inside/raft#pre-vote`"
                ));
            }
        }
    }
    problems
}

fn may_cite(name: &str) -> bool {
    ROOTS.iter().any(|root| name.starts_with(root)) && ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Whether a planted bug says which rule of the pages it breaks.
fn states_its_rule(patch: &str) -> bool {
    let header = patch.lines().take_while(|line| !line.is_empty());
    header
        .filter(|line| line.starts_with("Rule: "))
        .any(|line| !citations(line).is_empty())
}

/// A page below `docs/src/inside/` and one of its headings.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Citation {
    page: String,
    anchor: String,
}

impl std::fmt::Display for Citation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{MARK}{}#{}", self.page, self.anchor)
    }
}

impl Citation {
    fn resolve(&self, pages: &Pages) -> Result<(), String> {
        let page = format!("docs/src/{MARK}{}.md", self.page);
        let Some(text) = pages.get(&page) else {
            return Err(format!("cites {page}, which does not exist"));
        };
        if anchors(text).contains(&self.anchor) {
            Ok(())
        } else {
            Err(format!("cites no heading of {page}"))
        }
    }
}

/// The citations of one line.
pub(super) fn citations(line: &str) -> Vec<Citation> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices(MARK) {
        let rest = &line[at + MARK.len()..];
        let page = word(rest);
        let rest = &rest[page.len()..];
        let rest = rest.strip_prefix(".md").unwrap_or(rest);
        let anchor = rest.strip_prefix('#').map_or("", word);
        if !page.is_empty() && !anchor.is_empty() {
            found.push(Citation {
                page: page.to_owned(),
                anchor: anchor.to_owned(),
            });
        }
    }
    found
}

/// The letters, digits and hyphens that a text begins with.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '-' || c == '_'));
    &text[..end.unwrap_or(text.len())]
}

/// A reference to a numbered rule: "pitfall 12", "pitfalls 20 and 21", "design §8", "design note, section 4".
pub(super) fn numbered(line: &str) -> Option<&str> {
    if let Some(at) = line.find("design note") {
        return Some(&line[at..at + "design note".len()]);
    }
    for word in ["pitfall ", "pitfalls ", "Pitfall ", "Pitfalls ", "design §"] {
        for (at, _) in line.match_indices(word) {
            let rest = &line[at + word.len()..];
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            if digits > 0 {
                return Some(&line[at..at + word.len() + digits]);
            }
        }
    }
    None
}
