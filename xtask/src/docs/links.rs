//! Links, anchors and references to code: each must lead somewhere in this repository.

use std::collections::BTreeSet;

use super::Pages;

/// Checks all pages; `read` gives the text of a file of the project.
pub(super) fn check(
    pages: &Pages,
    files: &[String],
    read: impl Fn(&str) -> Result<String, String>,
) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, text) in pages {
        for (line, target) in links(text) {
            if let Err(why) = resolve(name, &target, pages, files) {
                problems.push(format!("{name}:{line}: link \"{target}\" {why}"));
            }
        }
        for (line, reference) in code_references(text) {
            if let Err(why) = find_code(&reference, files, &read) {
                problems.push(format!("{name}:{line}: `{reference}` {why}"));
            }
        }
    }
    problems.extend(summary(pages));
    problems
}

/// Every page of the book is in its table of contents.
fn summary(pages: &Pages) -> Vec<String> {
    const SUMMARY: &str = "docs/src/SUMMARY.md";
    let Some(text) = pages.get(SUMMARY) else {
        return vec![format!(
            "{SUMMARY}: is missing; the book has no table of contents"
        )];
    };
    let listed: BTreeSet<String> = links(text)
        .into_iter()
        .map(|(_, target)| join("docs/src", &target))
        .collect();
    pages
        .keys()
        .filter(|name| name.starts_with("docs/src/") && *name != SUMMARY && !listed.contains(*name))
        .map(|name| format!("{name}: is not in {SUMMARY}, so no reader finds it"))
        .collect()
}

fn resolve(page: &str, target: &str, pages: &Pages, files: &[String]) -> Result<(), String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (path, anchor) = target
        .split_once('#')
        .map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let file = if path.is_empty() {
        page.to_owned()
    } else {
        join(page.rsplit_once('/').map_or("", |(dir, _)| dir), path)
    };
    let folder = format!("{}/", file.trim_end_matches('/'));
    if !files.contains(&file) && !files.iter().any(|name| name.starts_with(&folder)) {
        return Err(format!("leads to {file}, which does not exist"));
    }
    match (anchor, pages.get(&file)) {
        (Some(anchor), Some(text)) if !anchors(text).contains(anchor) => {
            Err(format!("leads to no heading of {file}"))
        }
        (Some(_), None) => Err(format!("has an anchor, but {file} is no page")),
        _ => Ok(()),
    }
}

/// Joins a directory and a relative path, both with forward slashes.
fn join(dir: &str, path: &str) -> String {
    let mut parts: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Lines outside fenced code, with their numbers from 1.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push((index + 1, line));
        }
    }
    lines
}

/// The targets of the links in the prose, with their lines.
pub(super) fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (number, line) in prose(text) {
        let plain = without_inline_code(line);
        for (at, _) in plain.match_indices("](") {
            let rest = &plain[at + 2..];
            let target = rest.split([')', ' ']).next().unwrap_or_default();
            links.push((number, target.to_owned()));
        }
    }
    links
}

fn without_inline_code(line: &str) -> String {
    let mut inside = false;
    line.chars()
        .map(|c| {
            if c == '`' {
                inside = !inside;
            }
            if inside { ' ' } else { c }
        })
        .collect()
}

/// References to code in the prose: `path/to/file.rs::name` between backticks.
pub(super) fn code_references(text: &str) -> Vec<(usize, String)> {
    let mut references = Vec::new();
    for (number, line) in prose(text) {
        for code in line.split('`').skip(1).step_by(2) {
            if code.contains(".rs::") {
                references.push((number, code.to_owned()));
            }
        }
    }
    references
}

fn find_code(
    reference: &str,
    files: &[String],
    read: impl Fn(&str) -> Result<String, String>,
) -> Result<(), String> {
    let (path, name) = reference.split_once(".rs::").unwrap_or((reference, ""));
    let file = format!("{path}.rs");
    if !files.contains(&file) {
        return Err("names a file that does not exist".into());
    }
    let text = read(&file)?;
    if crate::source::find_word(&text, name).next().is_none() {
        return Err(format!("names something that {file} does not have"));
    }
    Ok(())
}

/// The anchors of a page's headings, as mdBook and GitHub make them.
pub(super) fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(text) {
        let level = line.chars().take_while(|c| *c == '#').count();
        if !(1..=6).contains(&level) || !line[level..].starts_with(' ') {
            continue;
        }
        let slug: String = line[level..]
            .trim()
            .to_lowercase()
            .chars()
            .filter_map(|c| match c {
                ' ' => Some('-'),
                c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
                _ => None,
            })
            .collect();
        let mut unique = slug.clone();
        let mut number = 1;
        while !anchors.insert(unique.clone()) {
            unique = format!("{slug}-{number}");
            number += 1;
        }
    }
    anchors
}
