//! One leaf and its text. See the table in [`crate::tree`]; the two functions are inverse to each other.

use super::Tree;

const TAG_DATE: &str = "!date ";
const TAG_FLOAT: &str = "!float ";

/// The text that stands for `leaf`, which must be one ([`Tree::is_leaf`]).
pub(crate) fn encode(leaf: &Tree) -> String {
    assert!(leaf.is_leaf(), "only leaves have a text");
    match leaf {
        Tree::Null => "null".into(),
        Tree::Bool(value) => value.to_string(),
        Tree::Integer(value) => value.to_string(),
        Tree::Float(value) if value.is_finite() => format!("{value:?}"),
        Tree::Float(value) if value.is_nan() => format!("{TAG_FLOAT}nan"),
        Tree::Float(value) => format!("{TAG_FLOAT}{value}"),
        Tree::Date(text) => format!("{TAG_DATE}{text}"),
        Tree::Array(_) => "[]".into(),
        Tree::Map(_) => "{}".into(),
        Tree::Text(text) if means_itself(text) => text.clone(),
        Tree::Text(text) => quote(text),
    }
}

/// The leaf that `text` stands for. Every text stands for one.
pub(crate) fn decode(text: &str) -> Tree {
    typed(text).unwrap_or_else(|| Tree::Text(text.into()))
}

fn means_itself(text: &str) -> bool {
    typed(text).is_none()
}

/// The leaf of a text that does not stand for itself.
fn typed(text: &str) -> Option<Tree> {
    match text.as_bytes().first()? {
        b'n' if text == "null" => Some(Tree::Null),
        b't' if text == "true" => Some(Tree::Bool(true)),
        b'f' if text == "false" => Some(Tree::Bool(false)),
        b'{' if text == "{}" => Some(Tree::Map(Default::default())),
        b'[' if text == "[]" => Some(Tree::Array(Vec::new())),
        b'"' => {
            let inner: String = serde_json::from_str(text).ok()?;
            let only_form = !means_itself(&inner) && quote(&inner) == text;
            only_form.then_some(Tree::Text(inner))
        }
        b'!' => tagged(text),
        b'-' | b'0'..=b'9' => number(text),
        _ => None,
    }
}

fn tagged(text: &str) -> Option<Tree> {
    if let Some(date) = text.strip_prefix(TAG_DATE) {
        let parsed: ::toml::value::Datetime = date.parse().ok()?;
        return (parsed.to_string() == date).then(|| Tree::Date(date.into()));
    }
    match text.strip_prefix(TAG_FLOAT)? {
        "nan" => Some(Tree::Float(f64::NAN)),
        "inf" => Some(Tree::Float(f64::INFINITY)),
        "-inf" => Some(Tree::Float(f64::NEG_INFINITY)),
        _ => None,
    }
}

fn number(text: &str) -> Option<Tree> {
    if let Ok(value) = text.parse::<i128>() {
        return (value.to_string() == text).then_some(Tree::Integer(value));
    }
    let value: f64 = text.parse().ok()?;
    (value.is_finite() && format!("{value:?}") == text).then_some(Tree::Float(value))
}

fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
