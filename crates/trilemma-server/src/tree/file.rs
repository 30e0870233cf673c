//! The formats by name, and reading a file within bounds.

use std::io::Read;
use std::path::Path;

use super::{Tree, TreeError, env, json, toml, yaml};

/// Largest configuration file, in bytes. Larger ones are data sets; they are loaded in parts.
pub(crate) const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A format of configuration files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// TOML 1.0.
    Toml,
    /// JSON.
    Json,
    /// YAML 1.2.
    Yaml,
    /// `NAME=value` lines.
    Env,
}

impl Format {
    /// All formats.
    #[cfg(test)]
    pub(crate) const ALL: [Format; 4] = [Format::Toml, Format::Json, Format::Yaml, Format::Env];

    /// By the file's name: `.toml`, `.json`, `.yaml`, `.yml`, `.env` (also `.env` itself and `.env.local`).
    pub(crate) fn of(path: &Path) -> Result<Self, TreeError> {
        let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase());
        let name = name.unwrap_or_default();
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        match extension {
            "toml" => Ok(Format::Toml),
            "json" => Ok(Format::Json),
            "yaml" | "yml" => Ok(Format::Yaml),
            "env" => Ok(Format::Env),
            _ if name.starts_with(".env") => Ok(Format::Env),
            _ => Err(TreeError::FormatUnknown {
                file: path.display().to_string(),
            }),
        }
    }
}

/// Reads `path` (`-`: standard input) as text of at most [`FILE_BYTES_MAX`] bytes, without a byte order mark.
pub(crate) fn read_file(path: &Path) -> Result<String, TreeError> {
    let file = path.display().to_string();
    let failed = |error: std::io::Error| TreeError::File {
        file: file.clone(),
        why: error.to_string(),
    };
    let mut bytes = Vec::new();
    let source: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(path).map_err(failed)?)
    };
    // One byte more than allowed tells a file that is too large from one that is just as large as allowed.
    source
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let size = std::fs::metadata(path).map_or(bytes.len() as u64, |metadata| metadata.len());
        return Err(TreeError::FileTooLarge {
            file,
            size,
            limit: FILE_BYTES_MAX,
        });
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let (line, column) = position(&String::from_utf8_lossy(valid), valid.len());
        TreeError::Syntax {
            file: file.clone(),
            line,
            column,
            what: "not UTF-8; convert the file".into(),
        }
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// Parses `text`. `file` names it in errors.
pub(crate) fn parse(format: Format, text: &str, file: &str) -> Result<Tree, TreeError> {
    let parsed = match format {
        Format::Toml => toml::parse(text),
        Format::Json => json::parse(text),
        Format::Yaml => yaml::parse(text),
        Format::Env => env::parse(text),
    };
    parsed.map_err(|fault| TreeError::Syntax {
        file: file.into(),
        line: fault.line,
        column: fault.column,
        what: fault.what,
    })
}

/// Writes `tree` in a format. What it cannot hold is an error that names the path.
pub(crate) fn emit(format: Format, tree: &Tree) -> Result<String, TreeError> {
    match format {
        Format::Toml => toml::emit(tree),
        Format::Json => json::emit(tree),
        Format::Yaml => yaml::emit(tree),
        Format::Env => env::emit(tree),
    }
}

/// A parser's complaint.
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) what: String,
}

impl Fault {
    /// At a byte offset of `text`.
    pub(super) fn at(text: &str, offset: usize, what: impl Into<String>) -> Self {
        let (line, column) = position(text, offset);
        Self {
            line,
            column,
            what: what.into(),
        }
    }
}

/// Line and column (in characters), both from 1, of a byte offset.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before: Vec<u8> = text.as_bytes()[..offset.min(text.len())].to_vec();
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let start = before
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    (
        line,
        String::from_utf8_lossy(&before[start..]).chars().count() + 1,
    )
}

/// Calls `check` for every value below `tree` with its path; the first complaint becomes an error.
pub(super) fn check_values(
    tree: &Tree,
    path: &mut Vec<String>,
    check: &impl Fn(&Tree, &[String]) -> Result<(), String>,
) -> Result<(), TreeError> {
    check(tree, path).map_err(|what| TreeError::Value {
        path: if path.is_empty() {
            "the root".into()
        } else {
            path.join("/")
        },
        what,
    })?;
    let mut below = |name: String, tree: &Tree| {
        path.push(name);
        let result = check_values(tree, path, check);
        path.pop();
        result
    };
    match tree {
        Tree::Map(members) => members
            .iter()
            .try_for_each(|(name, tree)| below(name.clone(), tree)),
        Tree::Array(elements) => elements
            .iter()
            .enumerate()
            .try_for_each(|(index, tree)| below(format!("#{index}"), tree)),
        _ => Ok(()),
    }
}
