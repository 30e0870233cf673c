//! `.env` files: `NAME=value` lines, as docker, systemd and shells read them.
//!
//! A line is blank, a comment (`#`), or `NAME=value`, optionally after `export`. A value is bare (trimmed, up to a `#`
//! after a space or tab), in single quotes (literal, may span lines), or in double quotes (`\n`, `\r`, `\t`, `\"`, `\\`, `\$`; may span
//! lines). Nothing is substituted: a bare or double-quoted `$` is refused, because other readers would expand it.

use std::collections::BTreeMap;

use super::file::{Fault, check_values};
use super::scalar::{decode, encode};
use super::{Tree, TreeError};

pub(super) fn parse(text: &str) -> Result<Tree, Fault> {
    let mut members = BTreeMap::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let line_length = rest.find('\n').map_or(rest.len(), |end| end + 1);
        let line = rest[..line_length].trim();
        if line.is_empty() || line.starts_with('#') {
            at += line_length;
            continue;
        }
        let (name, after_name) = name(text, at)?;
        let (value, end) = value(text, after_name)?;
        if members.contains_key(name) {
            return Err(Fault::at(text, at, format!("the name \"{name}\" is given twice")));
        }
        members.insert(name.to_owned(), decode(&value));
        at = end;
    }
    Ok(Tree::Map(members))
}

/// The name of the assignment at `at`, and the offset after its `=`.
fn name(text: &str, at: usize) -> Result<(&str, usize), Fault> {
    let line = text[at..].lines().next().unwrap_or_default();
    let equals = line
        .find('=')
        .ok_or_else(|| Fault::at(text, at, "expected NAME=value, found no \"=\""))?;
    let before = line[..equals].trim();
    let name = before.strip_prefix("export ").map_or(before, str::trim);
    if !is_name(name) {
        return Err(Fault::at(
            text,
            at,
            format!(
                "\"{name}\" is not a name: letters, digits, \"_\", \".\" and \"-\", not beginning with a digit"
            ),
        ));
    }
    Ok((name, at + equals + 1))
}

fn is_name(name: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(part)
}

/// The value that begins at `at`, and the offset of the next line.
fn value(text: &str, at: usize) -> Result<(String, usize), Fault> {
    let rest = &text[at..];
    let start = at + (rest.len() - rest.trim_start_matches([' ', '\t']).len());
    let line_end = |from: usize| text[from..].find('\n').map_or(text.len(), |end| from + end + 1);
    let (value, after) = match text[start..].chars().next() {
        Some('\'') => {
            let inner = &text[start + 1..];
            let end = inner
                .find('\'')
                .ok_or_else(|| Fault::at(text, start, "the single quote is not closed"))?;
            (inner[..end].to_owned(), start + 1 + end + 1)
        }
        Some('"') => double_quoted(text, start)?,
        _ => {
            // From the sign on, so that a comment may come instead of a value.
            let line = &text[at..line_end(at)];
            let comment = line
                .match_indices('#')
                .find(|(hash, _)| line[..*hash].ends_with([' ', '\t']));
            let bare = line[..comment.map_or(line.len(), |(hash, _)| hash)].trim();
            if let Some(dollar) = bare.find('$') {
                return Err(Fault::at(
                    text,
                    start + dollar,
                    "\"$\" is not substituted here; put the value in single quotes",
                ));
            }
            return Ok((bare.to_owned(), line_end(start)));
        }
    };
    let rest = &text[after..line_end(after)];
    let tail = rest.trim();
    let is_comment = tail.starts_with('#') && rest.starts_with([' ', '\t']);
    if !tail.is_empty() && !is_comment {
        return Err(Fault::at(
            text,
            after,
            format!("\"{tail}\" follows the closing quote"),
        ));
    }
    Ok((value, line_end(after)))
}

fn double_quoted(text: &str, start: usize) -> Result<(String, usize), Fault> {
    let mut value = String::new();
    let mut chars = text[start + 1..].char_indices();
    while let Some((offset, c)) = chars.next() {
        let here = start + 1 + offset;
        match c {
            '"' => return Ok((value, here + 1)),
            '$' => {
                return Err(Fault::at(
                    text,
                    here,
                    "\"$\" is not substituted here; write \"\\$\"",
                ));
            }
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, 't')) => value.push('\t'),
                Some((_, c @ ('"' | '\\' | '$'))) => value.push(c),
                _ => {
                    return Err(Fault::at(
                        text,
                        here,
                        "unknown escape; \\n \\r \\t \\\" \\\\ \\$ exist",
                    ));
                }
            },
            c => value.push(c),
        }
    }
    Err(Fault::at(text, start, "the double quote is not closed"))
}

pub(super) fn emit(tree: &Tree) -> Result<String, TreeError> {
    check_values(tree, &mut Vec::new(), &|tree, path| match (tree, path) {
        (Tree::Map(_), []) => Ok(()),
        (_, []) => Err(".env holds names and values; export as JSON or YAML".into()),
        (_, [name]) if !is_name(name) => {
            Err("is not a name that .env allows; export as TOML, JSON or YAML".into())
        }
        (leaf, [_]) if leaf.is_leaf() => Ok(()),
        _ => Err(".env has no nested maps or arrays; export as TOML, JSON or YAML".into()),
    })?;
    let Tree::Map(members) = tree else {
        unreachable!("checked before")
    };
    let line = |(name, leaf): (&String, &Tree)| format!("{name}={}\n", written(&encode(leaf)));
    Ok(members.iter().map(line).collect())
}

/// `value` as it must be written to be read back.
fn written(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.,:/@%+=".contains(c);
    if value.chars().all(plain) {
        return value.into();
    }
    if !value.contains(['\'', '\r']) {
        return format!("'{value}'");
    }
    let escape = |c: char| match c {
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        '"' | '\\' | '$' => format!("\\{c}"),
        c => c.to_string(),
    };
    format!("\"{}\"", value.chars().map(escape).collect::<String>())
}
