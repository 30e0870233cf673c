//! Configuration trees and the keys that hold them: what `load` stores is what `export` gives back.
//!
//! A file (TOML, JSON, YAML or `.env`) is one [`Tree`]. Every leaf of the tree becomes one entry of a keyspace, so
//! that each setting can be read, watched and changed by itself.
//!
//! # Keys
//!
//! A key is the path from the root to the leaf, segments joined by `/`, after the `--prefix` if one is given
//! (`shop` and `shop/` mean the same).
//!
//! | segment | stands for |
//! |---|---|
//! | `name` | the member `name` of a map |
//! | `#0` … `#9`, `#_10` … `#_99`, `#__100` … | an element of an array; one underscore per further digit makes the byte order of keys the order of elements |
//! | `~0`, `~1` | `~` and `/` within a name, as in JSON Pointer (RFC 6901) |
//! | `~2` | a `#` that begins a name |
//! | `~3` | the empty name |
//! | `~4` | the root itself, where the whole document is a single value or empty |
//!
//! Dots have no meaning: `a.b` is one name.
//!
//! # Values
//!
//! Values are the texts that people expect, with the type recoverable:
//!
//! | type | text |
//! |---|---|
//! | text | itself, unless it reads as one of the following: then as a JSON string, `"5"` |
//! | null, booleans | `null`, `true`, `false` |
//! | integer | decimal digits: `-12` (up to 128 bits) |
//! | float | the shortest decimal with a point or an exponent that gives the same 64 bits: `0.5`, `-0.0`, `1e300` |
//! | infinite, not a number | `!float inf`, `!float -inf`, `!float nan` |
//! | TOML date or time | `!date 1979-05-27T07:32:00Z` |
//! | empty map, empty array | `{}`, `[]` |
//!
//! A text has a type other than text only in exactly this form; `007`, `1.50` and `True` are text. So every text
//! means one leaf and every leaf has one text: applications may write entries themselves.
//!
//! # What the formats can hold
//!
//! Types survive within a format. Between formats: dates become text outside TOML; null does not exist in TOML, not
//! a number and infinity not in JSON, arrays and nested maps not in `.env` (an error that names the path). `.env`
//! has no types: a value there is the stored text itself. The order of a map's members and comments are not kept.
//! Refused rather than changed silently: integers that a format cannot hold, keys that are not text (YAML), tags
//! (YAML), several documents (YAML), a name given twice.

mod diff;
mod env;
mod file;
mod json;
mod path;
mod scalar;
mod toml;
mod yaml;

use std::collections::BTreeMap;

pub(crate) use diff::{Diff, diff};
pub(crate) use file::{Format, emit, parse, read_file};
pub(crate) use path::{Prefix, entries, tree_of};
#[cfg(test)]
pub(crate) use scalar::decode;

/// Deepest nesting of maps and arrays. The parsers have limits of the same size.
pub(crate) const DEPTH_MAX: usize = 64;

/// A configuration document, or a part of one.
#[derive(Clone, Debug)]
pub(crate) enum Tree {
    /// No value.
    Null,
    /// True or false.
    Bool(bool),
    /// An integer.
    Integer(i128),
    /// A binary64 number.
    Float(f64),
    /// Text.
    Text(String),
    /// A TOML date, time or both, as TOML writes it.
    Date(String),
    /// Elements in order.
    Array(Vec<Tree>),
    /// Members by name.
    Map(BTreeMap<String, Tree>),
}

impl PartialEq for Tree {
    /// Floats are equal if their bits are (so `-0.0` differs from `0.0`); not-a-number equals itself.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Tree::Null, Tree::Null) => true,
            (Tree::Bool(a), Tree::Bool(b)) => a == b,
            (Tree::Integer(a), Tree::Integer(b)) => a == b,
            (Tree::Float(a), Tree::Float(b)) => a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()),
            (Tree::Text(a), Tree::Text(b)) | (Tree::Date(a), Tree::Date(b)) => a == b,
            (Tree::Array(a), Tree::Array(b)) => a == b,
            (Tree::Map(a), Tree::Map(b)) => a == b,
            _ => false,
        }
    }
}

impl Tree {
    /// Whether this is stored as one entry: a scalar, or a container with nothing in it.
    fn is_leaf(&self) -> bool {
        match self {
            Tree::Array(elements) => elements.is_empty(),
            Tree::Map(members) => members.is_empty(),
            _ => true,
        }
    }
}

/// Why a document could not be read, stored or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TreeError {
    /// The file could not be read.
    #[error("{file}: {why}")]
    File {
        /// The file's name.
        file: String,
        /// What the system said.
        why: String,
    },
    /// The name does not show the format.
    #[error("{file}: the format is not clear from the name; give --format toml, json, yaml or env")]
    FormatUnknown {
        /// The file's name.
        file: String,
    },
    /// The file is larger than the limit.
    #[error("{file}: {size} bytes are more than the limit of {limit}; split it and load the parts")]
    FileTooLarge {
        /// The file's name.
        file: String,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The text breaks the rules of its format, or of what can be kept exactly.
    #[error("{file}:{line}:{column}: {what}")]
    Syntax {
        /// The file's name.
        file: String,
        /// Line, from 1; 0 if the parser does not tell.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong.
        what: String,
    },
    /// A value does not fit the format asked for, or the store.
    #[error("{path}: {what}")]
    Value {
        /// The path of the value.
        path: String,
        /// What is wrong and what helps.
        what: String,
    },
    /// Stored entries do not form a tree.
    #[error("key \"{key}\": {what}")]
    Stored {
        /// The key.
        key: String,
        /// What is wrong and what helps.
        what: String,
    },
}

#[cfg(test)]
mod tests;
