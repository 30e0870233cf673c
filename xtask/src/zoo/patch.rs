//! One patch of the zoo: its header, and the files that it touches.

use std::collections::BTreeSet;

use crate::sim::{MEMBERSHIP, PROTOCOLS};

/// Seeds within which a patch must be found when it does not say.
const SEEDS: u64 = 20_000;

/// A known bug, as a unified diff with a header.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Patch {
    /// Its name, the file's if the header gives none.
    pub(super) id: String,
    /// What it breaks, in a few words; may be empty.
    pub(super) title: String,
    /// What to run, in this order.
    pub(super) protocols: Vec<&'static str>,
    /// Checkers of which one is expected to see it; empty if any will do.
    pub(super) checkers: Vec<String>,
    /// Seeds of each protocol within which it must be found.
    pub(super) seeds: u64,
    /// The simulator's profile that the seeds are of.
    pub(super) profile: String,
    /// Files that it changes, adds or removes, relative to the root.
    pub(super) files: BTreeSet<String>,
    /// Header keys that it states, lower case.
    pub(super) keys: BTreeSet<String>,
    /// The whole text.
    pub(super) text: String,
}

impl Patch {
    /// Reads a patch. `stem` is the file's name without its ending.
    pub(super) fn parse(stem: &str, text: &str) -> Result<Self, String> {
        let mut patch = Self {
            id: stem.into(),
            title: String::new(),
            protocols: Vec::new(),
            checkers: Vec::new(),
            seeds: SEEDS,
            profile: "standard".into(),
            files: touched(text)?,
            keys: BTreeSet::new(),
            text: text.into(),
        };
        let header = text.lines().take_while(|line| !begins_diff(line));
        for (key, value) in header.filter_map(|line| line.split_once(':')) {
            patch.header(&key.trim().to_ascii_lowercase(), value.trim())?;
        }
        if patch.protocols.is_empty() {
            patch.protocols = inferred(&patch.files);
        }
        Ok(patch)
    }

    /// Takes one line of the header. Others than ours are left alone: mail programs write some, too.
    fn header(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "id" => self.id = value.into(),
            "title" => self.title = value.into(),
            "protocol" => self.protocols = protocols(value)?,
            "checker" => {
                let names = value.split([',', '|', ';']).flat_map(|part| part.split(" or "));
                self.checkers = names
                    .map(|name| name.trim().to_ascii_lowercase())
                    .filter(|name| !name.is_empty())
                    .collect();
            }
            "seeds" => {
                let digits = value.replace([',', '_', ' '], "");
                self.seeds = match digits.parse() {
                    Ok(seeds) if seeds > 0 => seeds,
                    _ => return Err(format!("Seeds: expected a number above 0, found \"{value}\"")),
                };
            }
            "profile" => self.profile = value.into(),
            "rule" | "why" => {}
            _ => return Ok(()),
        }
        if value.is_empty() {
            return Err(format!("header \"{key}\" is empty; fill it in or leave it out"));
        }
        self.keys.insert(key.into());
        Ok(())
    }

    /// What else a patch of the project's own zoo must say, as sentences.
    pub(super) fn incomplete(&self) -> Vec<String> {
        ["id", "title", "rule", "why", "protocol", "checker", "seeds"]
            .iter()
            .filter(|key| !self.keys.contains(**key))
            .map(|key| format!("{}: the header has no \"{key}\"", self.id))
            .collect()
    }
}

fn begins_diff(line: &str) -> bool {
    line.starts_with("diff ") || line.starts_with("--- ")
}

/// Names of protocols, separated by commas or spaces; `all` is every one.
fn protocols(value: &str) -> Result<Vec<&'static str>, String> {
    let mut chosen = Vec::new();
    for word in value.split([',', ' ']).filter(|word| !word.is_empty()) {
        let word = word.to_ascii_lowercase();
        match PROTOCOLS.iter().find(|name| **name == word) {
            Some(name) => chosen.push(*name),
            None if word == MEMBERSHIP => chosen.push(MEMBERSHIP),
            None if word == "all" => chosen.extend(PROTOCOLS),
            None => {
                let names = PROTOCOLS.join(", ");
                return Err(format!(
                    "Protocol: expected {names}, {MEMBERSHIP} or all, found \"{word}\""
                ));
            }
        }
    }
    Ok(chosen)
}

/// What to run for a patch that does not say: the protocols whose own code it touches; if it touches code that is
/// shared, every one.
fn inferred(files: &BTreeSet<String>) -> Vec<&'static str> {
    const HOMES: &[(&str, &str)] = &[
        ("crates/trilemma-raft/src", "raft"),
        ("crates/trilemma-paxos/src", "paxos"),
        ("crates/trilemma-gossip/", "gossip"),
        ("crates/trilemma-two-phase/", "two-phase"),
    ];
    let home = |file: &String| {
        HOMES
            .iter()
            .find(|(path, _)| file.starts_with(path))
            .map(|(_, name)| *name)
    };
    let homes: Option<BTreeSet<&str>> = files.iter().map(home).collect();
    match homes {
        Some(homes) => PROTOCOLS
            .iter()
            .copied()
            .filter(|name| homes.contains(name))
            .collect(),
        None => PROTOCOLS.to_vec(),
    }
}

/// The files of a diff: from its `---` and `+++` lines, and from renames, which may have neither.
fn touched(text: &str) -> Result<BTreeSet<String>, String> {
    let mut files = BTreeSet::new();
    let mut lines = text.lines().peekable();
    // Lines of a hunk that are still to come; inside one, `---` is a removed line that begins with `--`.
    let (mut old, mut new) = (0, 0);
    while let Some(line) = lines.next() {
        if old > 0 || new > 0 {
            match line.as_bytes().first() {
                Some(b'-') => old -= 1,
                Some(b'+') => new -= 1,
                Some(b'\\') => {}
                _ => (old, new) = (old - 1, new - 1),
            }
            continue;
        }
        if let Some((removed, added)) = hunk(line) {
            (old, new) = (removed, added);
        } else if line.starts_with("--- ") && lines.peek().is_some_and(|next| next.starts_with("+++ ")) {
            for side in [Some(line), lines.next()].into_iter().flatten() {
                files.extend(side_path(&side[4..]));
            }
        } else if let Some(path) = line
            .strip_prefix("rename from ")
            .or(line.strip_prefix("rename to "))
        {
            files.insert(path.into());
        }
    }
    if files.is_empty() {
        return Err("no diff: expected lines \"--- a/FILE\" and \"+++ b/FILE\"".into());
    }
    // They are written and removed by these names.
    let safe = |file: &String| !file.starts_with('/') && file.split('/').all(|part| part != "..");
    match files.iter().find(|file| !safe(file)) {
        Some(file) => Err(format!("touches \"{file}\", outside of the tree")),
        None => Ok(files),
    }
}

/// A path of a `---` or `+++` line, without the `a/` or `b/` before it and the time after it.
fn side_path(text: &str) -> Option<String> {
    let path = text.split('\t').next().unwrap_or(text).trim();
    let (_, rest) = path.split_once('/')?;
    (path != "/dev/null").then(|| rest.to_owned())
}

/// How many old and new lines follow `@@ -A,B +C,D @@`.
fn hunk(line: &str) -> Option<(i64, i64)> {
    let ranges = line.strip_prefix("@@ ")?.split(" @@").next()?;
    let (old, new) = ranges.split_once(' ')?;
    let length = |range: &str| {
        range
            .split_once(',')
            .map_or(Some(1), |(_, length)| length.parse().ok())
    };
    Some((length(old)?, length(new)?))
}
