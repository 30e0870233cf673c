//! JSON in and out, and the serde side of [`Tree`] that YAML shares.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::file::{Fault, check_values};
use super::{Tree, TreeError};

pub(super) fn parse(text: &str) -> Result<Tree, Fault> {
    let text = without_minus_zero(text);
    let tree = serde_json::from_str(&text).map_err(|error| {
        let full = error.to_string();
        let what = full.split(" at line ").next().unwrap_or_default();
        Fault {
            line: error.line(),
            column: error.column(),
            what: what.into(),
        }
    })?;
    let wide =
        integers(&text).find(|(_, digits)| digits.parse::<i64>().is_err() && digits.parse::<u64>().is_err());
    match wide {
        None => Ok(tree),
        Some((offset, digits)) => Err(Fault::at(
            &text,
            offset,
            format!(
                "the integer {digits} does not fit 64 bits and would lose digits; write it as text in quotes"
            ),
        )),
    }
}

/// The integers of JSON, which the parser takes for floats where they are too wide or `-0`, with their offsets.
fn integers(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    let part = |byte: &&u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
    std::iter::from_fn(move || {
        while at < bytes.len() {
            let begin = at;
            match bytes[at] {
                b'"' => {
                    at += 1;
                    while at < bytes.len() && bytes[at] != b'"' {
                        at += if bytes[at] == b'\\' { 2 } else { 1 };
                    }
                    at += 1;
                }
                b'-' | b'0'..=b'9' => {
                    at += bytes[at..].iter().take_while(part).count();
                    let number = &text[begin..at];
                    let digits = number.strip_prefix('-').unwrap_or(number);
                    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
                        return Some((begin, number));
                    }
                }
                _ => at += 1,
            }
        }
        None
    })
}

/// The same text with ` 0` for `-0`, which is an integer like any other and has no sign.
fn without_minus_zero(text: &str) -> Cow<'_, str> {
    let mut plain = Cow::Borrowed(text);
    for (offset, _) in integers(text).filter(|(_, number)| *number == "-0") {
        plain.to_mut().replace_range(offset..=offset, " ");
    }
    plain
}

pub(super) fn emit(tree: &Tree) -> Result<String, TreeError> {
    check_values(tree, &mut Vec::new(), &|tree, _| match tree {
        Tree::Float(value) if !value.is_finite() => {
            Err(format!("{value} does not exist in JSON; export as TOML or YAML"))
        }
        Tree::Integer(value) if i64::try_from(*value).is_err() && u64::try_from(*value).is_err() => Err(
            format!("the integer {value} does not fit 64 bits; export as YAML"),
        ),
        _ => Ok(()),
    })?;
    let mut text =
        serde_json::to_string_pretty(tree).expect("a checked tree has text keys and finite numbers");
    text.push('\n');
    Ok(text)
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Tree::Null => serializer.serialize_unit(),
            Tree::Bool(value) => serializer.serialize_bool(*value),
            Tree::Integer(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => serializer.serialize_i64(value),
                (_, Ok(value)) => serializer.serialize_u64(value),
                _ => serializer.serialize_i128(*value),
            },
            Tree::Float(value) => serializer.serialize_f64(*value),
            Tree::Text(text) | Tree::Date(text) => serializer.serialize_str(text),
            Tree::Array(elements) => {
                let mut seq = serializer.serialize_seq(Some(elements.len()))?;
                elements
                    .iter()
                    .try_for_each(|element| seq.serialize_element(element))?;
                seq.end()
            }
            Tree::Map(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                members
                    .iter()
                    .try_for_each(|(name, member)| map.serialize_entry(name, member))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

/// Scalars, and documents of them.
pub(super) struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a configuration value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Deserialize::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.into()))
    }

    fn visit_bytes<E: de::Error>(self, _: &[u8]) -> Result<Tree, E> {
        Err(E::custom(
            "binary values cannot be kept as text; write them as text, for example in base64 without the tag",
        ))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element()? {
            elements.push(element);
        }
        Ok(Tree::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut members = BTreeMap::new();
        while let Some(Name(name)) = map.next_key()? {
            if members.contains_key(&name) {
                return Err(twice(&name));
            }
            members.insert(name, map.next_value()?);
        }
        Ok(Tree::Map(members))
    }
}

/// A name that is given twice in one map.
pub(super) fn twice<E: de::Error>(name: &str) -> E {
    E::custom(format!("the name \"{name}\" is given twice in one map"))
}

/// A member's name: text and nothing else, so that `80: x` in YAML is not taken for `"80": x`.
pub(super) struct Name(pub(super) String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(TreeVisitor)? {
            Tree::Text(name) => Ok(Name(name)),
            other => Err(de::Error::custom(format!(
                "a name in a map is {other:?}, not text; put it in quotes"
            ))),
        }
    }
}
