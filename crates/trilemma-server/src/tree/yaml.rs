//! YAML in and out.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{Error, Location, Spanned};

use super::file::{FILE_BYTES_MAX, Fault};
use super::json::{Name, TreeVisitor, twice};
use super::{DEPTH_MAX, Tree, TreeError};

/// Most values that aliases of one file may stand for. Without a bound a few lines could stand for more than memory holds.
const ALIASED_VALUES_MAX: usize = 2 * 1024 * 1024;
/// Longest name of a member, in characters: longer ones are no keys.
const NAME_MAX: usize = 64 * 1024;

/// Stack for the deepest document: the parser takes several frames for each level.
const STACK_BYTES: usize = 64 * 1024 * 1024;

pub(super) fn parse(text: &str) -> Result<Tree, Fault> {
    std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().stack_size(STACK_BYTES);
        let thread = parser
            .spawn_scoped(scope, || parse_here(text))
            .map_err(|error| Fault {
                line: 0,
                column: 0,
                what: format!("the system refused a thread: {error}"),
            })?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn parse_here(text: &str) -> Result<Tree, Fault> {
    // The file's size and depth bound honest documents, whatever they are made of.
    let size = FILE_BYTES_MAX as usize;
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: size,
            max_nodes: size,
            max_total_scalar_bytes: size,
            max_total_comment_bytes: size,
            max_depth: DEPTH_MAX + 1,
            max_documents: size,
            max_aliases: size,
            max_anchors: size,
            max_merge_keys: size,
            max_recorded_anchor_events: ALIASED_VALUES_MAX,
            max_recorded_anchor_bytes: size,
            enforce_alias_anchor_ratio: false,
            simple_key_max_lookahead: NAME_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: ALIASED_VALUES_MAX,
            max_replay_stack_depth: DEPTH_MAX + 1,
        },
        emit_comments: false,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::PassThrough,
        reject_unsupported_tags: true,
    };
    let documents: Result<Vec<Spanned<Raw>>, Error> = serde_saphyr::from_multiple_with_options(text, options);
    // Empty documents are not among them.
    let mut documents = documents.map_err(|error| fault(&error))?.into_iter();
    let Some(document) = documents.next() else {
        return Ok(Tree::Null);
    };
    match documents.next() {
        Some(second) => Err(fault_at(
            second.defined,
            "a second document; load each from a file of its own",
        )),
        None => tree(text, document),
    }
}

fn fault(error: &Error) -> Fault {
    // Where an alias is used, before what is wrong with what it stands for.
    let mut inner = error;
    while let Error::WithSnippet { error, .. } | Error::AliasError { error, .. } = inner {
        inner = error;
    }
    let what = match inner {
        Error::Budget {
            breach: BudgetBreach::Depth { .. },
            ..
        } => format!("maps and arrays are nested deeper than {DEPTH_MAX}; flatten the file"),
        Error::AliasReplayLimitExceeded { .. }
        | Error::Budget {
            breach: BudgetBreach::RecordedAnchorEvents { .. },
            ..
        } => format!("aliases stand for more than {ALIASED_VALUES_MAX} values; load parts of the file"),
        _ => error.without_snippet().to_string(),
    };
    match error.location() {
        Some(location) => fault_at(location, what),
        None => Fault {
            line: 0,
            column: 0,
            what,
        },
    }
}

fn fault_at(location: Location, what: impl Into<String>) -> Fault {
    Fault {
        line: usize::try_from(location.line()).unwrap_or(0),
        column: usize::try_from(location.column()).unwrap_or(0),
        what: what.into(),
    }
}

/// A value as the parser takes it, which knows integers up to 64 bits and makes floats of longer ones.
enum Raw {
    Leaf(Tree),
    Array(Vec<Spanned<Raw>>),
    Map(BTreeMap<String, Spanned<Raw>>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        TreeVisitor.expecting(f)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Raw, E> {
        TreeVisitor.visit_unit().map(Raw::Leaf)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Raw, E> {
        TreeVisitor.visit_bool(value).map(Raw::Leaf)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Raw, E> {
        TreeVisitor.visit_i64(value).map(Raw::Leaf)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Raw, E> {
        TreeVisitor.visit_u64(value).map(Raw::Leaf)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Raw, E> {
        TreeVisitor.visit_f64(value).map(Raw::Leaf)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Raw, E> {
        TreeVisitor.visit_str(text).map(Raw::Leaf)
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Raw, E> {
        TreeVisitor.visit_bytes(bytes).map(Raw::Leaf)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element()? {
            elements.push(element);
        }
        Ok(Raw::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut members = BTreeMap::new();
        while let Some(Name(name)) = map.next_key()? {
            if members.contains_key(&name) {
                return Err(twice(&name));
            }
            members.insert(name, map.next_value()?);
        }
        Ok(Raw::Map(members))
    }
}

/// The value with all digits that stand in `text`, or what is lost.
fn tree(text: &str, raw: Spanned<Raw>) -> Result<Tree, Fault> {
    match raw.value {
        Raw::Leaf(leaf) => {
            exact(leaf, written(text, raw.defined)).map_err(|what| fault_at(raw.defined, what))
        }
        Raw::Array(elements) => {
            let elements = elements.into_iter().map(|element| tree(text, element));
            elements.collect::<Result<_, _>>().map(Tree::Array)
        }
        Raw::Map(members) => {
            let members = members
                .into_iter()
                .map(|(name, member)| Ok((name, tree(text, member)?)));
            members.collect::<Result<_, _>>().map(Tree::Map)
        }
    }
}

/// How a plain scalar is written, without anchor and tag; empty if the parser does not tell.
fn written(text: &str, location: Location) -> &str {
    let span = location.span();
    let found = || {
        let begin = usize::try_from(span.byte_offset()?).ok()?;
        let length = usize::try_from(span.byte_len()?).ok()?;
        text.get(begin..begin.checked_add(length)?)?
            .split_whitespace()
            .next_back()
    };
    found().unwrap_or_default()
}

/// The parser makes floats of integers beyond 64 bits, and infinity of floats beyond binary64.
fn exact(leaf: Tree, written: &str) -> Result<Tree, String> {
    let Tree::Float(value) = leaf else {
        return Ok(leaf);
    };
    let digits = written.strip_prefix(['-', '+']).unwrap_or(written);
    let is_integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // One that fits 64 bits is a float because its tag says so.
    if is_integer && written.parse::<i64>().is_err() && written.parse::<u64>().is_err() {
        return written.parse().map(Tree::Integer).map_err(|_| {
            format!("the integer {written} does not fit 128 bits and would lose digits; write it as text in quotes")
        });
    }
    if value.is_infinite() && !written.to_ascii_lowercase().ends_with(".inf") {
        return Err(format!(
            "the number {written} is out of range; write it as text in quotes"
        ));
    }
    Ok(leaf)
}

pub(super) fn emit(tree: &Tree) -> Result<String, TreeError> {
    serde_saphyr::to_string(tree).map_err(|error| TreeError::Value {
        path: "the root".into(),
        what: error.to_string(),
    })
}
