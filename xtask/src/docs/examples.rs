//! Examples in pages: those in Rust are also in the facade's documentation, which the compiler reads; TOML parses; tasks
//! that are named exist.

use super::Pages;

/// Where the facade's example is compiled.
pub(super) const COMPILED: &str = "crates/trilemma/src/lib.rs";

/// Checks all pages; `compiled` is the text of [`COMPILED`], `tasks` the names of the tasks of this program.
pub(super) fn check(pages: &Pages, compiled: &str, tasks: &[&str]) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, text) in pages {
        for (line, block) in blocks(text, "toml") {
            if let Err(error) = block.parse::<toml::Table>() {
                problems.push(format!(
                    "{name}:{line}: the TOML does not parse: {}",
                    error.message()
                ));
            }
        }
        problems.extend(unknown_tasks(name, text, tasks));
    }
    for (name, readme) in pages.iter().filter(|(name, _)| name.ends_with("README.md")) {
        for (line, block) in blocks(readme, "rust") {
            let missing = uncompiled(&block, compiled);
            problems.extend(missing.map(|code| {
                format!(
                    "{name}:{line}: `{code}` is not in the example of {COMPILED}, so no compiler has seen it"
                )
            }));
        }
    }
    problems
}

/// The fenced blocks in a language, with the lines at which they begin.
fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let mut blocks: Vec<(usize, String)> = Vec::new();
    let mut inside = None;
    for (index, line) in text.lines().enumerate() {
        match (inside, line.trim_start().strip_prefix("```")) {
            (None, Some(info)) => {
                inside = Some(info == language);
                if info == language {
                    blocks.push((index + 1, String::new()));
                }
            }
            (Some(_), Some(_)) => inside = None,
            (Some(true), None) => {
                if let Some((_, block)) = blocks.last_mut() {
                    block.push_str(line);
                    block.push('\n');
                }
            }
            (Some(false) | None, None) => {}
        }
    }
    blocks
}

/// The first line of `block` that `compiled` does not have, the frame of `main` aside.
fn uncompiled(block: &str, compiled: &str) -> Option<String> {
    let known: Vec<String> = compiled
        .lines()
        .map(|line| line.trim_start().trim_start_matches("//!").trim().to_owned())
        .collect();
    block
        .lines()
        .map(str::trim)
        .filter(|line| {
            !line.is_empty() && *line != "}" && !line.starts_with("#[") && !line.contains("fn main")
        })
        .find(|line| !known.iter().any(|known| known == line))
        .map(str::to_owned)
}

fn unknown_tasks(name: &str, text: &str, tasks: &[&str]) -> Vec<String> {
    const CALL: &str = "cargo xtask ";
    let mut problems = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for (at, _) in line.match_indices(CALL) {
            let rest = &line[at + CALL.len()..];
            let end = rest.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.len());
            if !tasks.contains(&&rest[..end]) {
                problems.push(format!(
                    "{name}:{}: there is no task \"{}\"",
                    index + 1,
                    &rest[..end]
                ));
            }
        }
    }
    problems
}
