//! TOML in and out.

use super::file::{Fault, check_values};
use super::{Tree, TreeError};

pub(super) fn parse(text: &str) -> Result<Tree, Fault> {
    let table: ::toml::Table = text.parse().map_err(|error: ::toml::de::Error| {
        let what = error.message().to_owned();
        match error.span() {
            Some(span) => Fault::at(text, span.start, what),
            None => Fault {
                line: 0,
                column: 0,
                what,
            },
        }
    })?;
    Ok(from_toml(::toml::Value::Table(table)))
}

fn from_toml(value: ::toml::Value) -> Tree {
    match value {
        ::toml::Value::String(text) => Tree::Text(text),
        ::toml::Value::Integer(value) => Tree::Integer(value.into()),
        ::toml::Value::Float(value) => Tree::Float(value),
        ::toml::Value::Boolean(value) => Tree::Bool(value),
        ::toml::Value::Datetime(value) => Tree::Date(value.to_string()),
        ::toml::Value::Array(elements) => Tree::Array(elements.into_iter().map(from_toml).collect()),
        ::toml::Value::Table(members) => Tree::Map(
            members
                .into_iter()
                .map(|(name, value)| (name, from_toml(value)))
                .collect(),
        ),
    }
}

pub(super) fn emit(tree: &Tree) -> Result<String, TreeError> {
    check_values(tree, &mut Vec::new(), &|tree, path| match tree {
        Tree::Map(_) => Ok(()),
        _ if path.is_empty() => Err("a TOML document is a table; export as JSON or YAML".into()),
        Tree::Null => Err("null does not exist in TOML; export as JSON or YAML".into()),
        Tree::Integer(value) if i64::try_from(*value).is_err() => Err(format!(
            "the integer {value} does not fit TOML's 64 bits; export as YAML"
        )),
        Tree::Date(text) if text.parse::<::toml::value::Datetime>().is_err() => {
            Err(format!("\"{text}\" is not a TOML date"))
        }
        _ => Ok(()),
    })?;
    ::toml::to_string(&to_toml(tree)).map_err(|error| TreeError::Value {
        path: "the root".into(),
        what: error.to_string(),
    })
}

fn to_toml(tree: &Tree) -> ::toml::Value {
    match tree {
        Tree::Bool(value) => ::toml::Value::Boolean(*value),
        Tree::Integer(value) => ::toml::Value::Integer(i64::try_from(*value).expect("checked before")),
        Tree::Float(value) => ::toml::Value::Float(*value),
        Tree::Text(text) => ::toml::Value::String(text.clone()),
        Tree::Date(text) => ::toml::Value::Datetime(text.parse().expect("checked before")),
        Tree::Array(elements) => ::toml::Value::Array(elements.iter().map(to_toml).collect()),
        Tree::Map(members) => {
            let members = members.iter().map(|(name, tree)| (name.clone(), to_toml(tree)));
            ::toml::Value::Table(members.collect())
        }
        Tree::Null => unreachable!("checked before"),
    }
}
