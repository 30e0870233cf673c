//! Sequential specifications: what an object would answer if clients took turns.
//!
//! They are written from the meaning of the calls and share nothing with the tables that they judge.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::history::{Call, Operation};

/// The object that a history is checked against. At the start every key is absent, every set and list empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// One register per key: get and put.
    Register,
    /// One register per key: get, put and compare-and-set.
    CasRegister,
    /// All keys are one object: get, put, delete, compare-and-set, ranges, and commands over several keys.
    KeyValue,
    /// Each key is an object of its own: get, put, delete, compare-and-set, and commands over one key.
    PerKey,
    /// One set per key: add and members.
    Set,
    /// One list per key: append and list.
    List,
}

/// A call that the model does not have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("operation {operation} is {call}, which model {model} does not have; {advice}")]
pub struct Unfit {
    /// Position of the operation in the history.
    pub operation: usize,
    /// What it asks for.
    pub call: &'static str,
    /// The model.
    pub model: Model,
    /// What to do.
    pub advice: &'static str,
}

/// A word that names no model.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("\"{found}\" is not a model; choose one of register, cas-register, key-value, per-key, set, list")]
pub struct UnknownModel {
    /// What was found.
    pub found: String,
}

impl Model {
    /// Every model.
    pub const ALL: [Model; 6] = [
        Model::Register,
        Model::CasRegister,
        Model::KeyValue,
        Model::PerKey,
        Model::Set,
        Model::List,
    ];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Model::Register => "register",
            Model::CasRegister => "cas-register",
            Model::KeyValue => "key-value",
            Model::PerKey => "per-key",
            Model::Set => "set",
            Model::List => "list",
        }
    }

    /// Whether each key is an object of its own, so that a history is legal if each key's part is (Herlihy and Wing
    /// 1990, locality).
    #[must_use]
    pub const fn is_per_key(self) -> bool {
        !matches!(self, Model::KeyValue)
    }

    /// Says the first operation that asks for something that the model does not have.
    pub fn accepts(self, operations: &[Operation]) -> Result<(), Unfit> {
        match operations.iter().position(|operation| !self.has(&operation.call)) {
            None => Ok(()),
            Some(position) => Err(Unfit {
                operation: position,
                call: operations[position].call.kind(),
                model: self,
                advice: self.advice(&operations[position].call),
            }),
        }
    }

    fn has(self, call: &Call) -> bool {
        let is_register = matches!(self, Model::Register | Model::CasRegister);
        let is_table = matches!(self, Model::KeyValue | Model::PerKey);
        match call {
            Call::Get { .. } | Call::Put { .. } => is_register || is_table,
            Call::Cas { value: None, .. } | Call::Delete { .. } => is_table,
            Call::Cas { .. } => is_table || self == Model::CasRegister,
            Call::Range { .. } => self == Model::KeyValue,
            Call::Command { guards, changes } => match self {
                Model::KeyValue => true,
                Model::PerKey => {
                    let mut keys = guards
                        .iter()
                        .map(|guard| guard.key())
                        .chain(changes.iter().map(|change| change.key.as_str()));
                    let first = keys.next();
                    first.is_some() && keys.all(|key| Some(key) == first)
                }
                _ => false,
            },
            Call::Add { .. } | Call::Members { .. } => self == Model::Set,
            Call::Append { .. } | Call::List { .. } => self == Model::List,
            Call::Transaction { .. }
            | Call::Acquire { .. }
            | Call::Renew { .. }
            | Call::Release { .. }
            | Call::Use { .. } => false,
        }
    }

    fn advice(self, call: &Call) -> &'static str {
        match call {
            Call::Range { .. } | Call::Command { .. } => {
                "check with key-value, where all keys are one object, or leave it out"
            }
            Call::Delete { .. } | Call::Cas { .. } => "check with per-key or key-value",
            Call::Transaction { .. } => "check it with the transactions checker",
            Call::Acquire { .. } | Call::Renew { .. } | Call::Release { .. } | Call::Use { .. } => {
                "check it with the locks checker"
            }
            Call::Get { .. } | Call::Put { .. } => "check with register, per-key or key-value",
            Call::Add { .. } | Call::Members { .. } => "check with set",
            Call::Append { .. } | Call::List { .. } => "check with list",
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Model {
    type Err = UnknownModel;

    fn from_str(text: &str) -> Result<Self, UnknownModel> {
        Model::ALL
            .into_iter()
            .find(|model| model.name() == text)
            .ok_or_else(|| UnknownModel { found: text.into() })
    }
}
