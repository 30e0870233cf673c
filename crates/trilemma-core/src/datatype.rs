//! Data types whose concurrent changes all count: counters, sets, maps and the like.
//!
//! A plain key holds one value, and of two concurrent writes one wins. A value of a data type holds what every node has
//! added to it: convergent replicated data types (Shapiro et al. 2011), of which a backend that merges keeps each node's
//! share apart. An [`Update`] is executed where the write is executed, in one step, and an operation that is repeated counts
//! once. Which backends have data types is their descriptor's matter; the others refuse them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError, bounded_vec};
use crate::data::{Key, VALUE_BYTES_MAX, Value, too_large};
use crate::error::Reason;
use crate::id::{NODES_MAX, NodeId};

/// Longest key of a value of a data type, in bytes. Shorter than that of a plain key: what is stored is named by it and an
/// element.
pub const TYPED_KEY_BYTES_MAX: usize = 1024;
/// Longest element of a set and field of a map, in bytes.
pub const ELEMENT_BYTES_MAX: usize = 1024;

/// What a key holds, if it is no plain value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataType {
    /// A number that every node adds to.
    Counter,
    /// A number that is never below zero, in any partition.
    BoundedCounter,
    /// A set of elements. Of an addition and a concurrent removal of an element the addition wins.
    Set,
    /// Fields with a value each. Of an assignment and a concurrent removal of a field the assignment wins.
    Map,
    /// The greatest number that somebody has reported.
    Maximum,
    /// The least number that somebody has reported.
    Minimum,
    /// One value, or several that were written concurrently, none of which is ever dropped.
    MultiValue,
}

impl DataType {
    /// All data types.
    pub const ALL: [DataType; 7] = [
        DataType::Counter,
        DataType::BoundedCounter,
        DataType::Set,
        DataType::Map,
        DataType::Maximum,
        DataType::Minimum,
        DataType::MultiValue,
    ];

    /// Its name in texts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            DataType::Counter => "counter",
            DataType::BoundedCounter => "bounded counter",
            DataType::Set => "set",
            DataType::Map => "map",
            DataType::Maximum => "maximum",
            DataType::Minimum => "minimum",
            DataType::MultiValue => "multi-value register",
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One change of a value of a data type. The value comes into existence with its first change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Update {
    /// Adds to a counter; a negative number takes away.
    Add(i64),
    /// Takes from a counter all that the executing node has seen added to it. What others add meanwhile stays.
    Reset,
    /// Adds to a bounded counter, and gives the executing node the right to take as much away.
    Grant(u64),
    /// Takes from a bounded counter what the executing node has the right to.
    Spend(u64),
    /// Gives rights of the executing node to another one.
    Transfer {
        /// The node that gets them. It must have changed this counter before.
        to: NodeId,
        /// How many.
        amount: u64,
    },
    /// Adds an element to a set.
    Insert(Key),
    /// Removes an element from a set, as far as the executing node has seen it added.
    Remove(Key),
    /// Sets a field of a map.
    Assign {
        /// The field.
        field: Key,
        /// Its new value.
        value: Value,
    },
    /// Removes a field of a map, as far as the executing node has seen it assigned.
    Unassign(Key),
    /// Raises a maximum to at least this.
    Raise(i64),
    /// Lowers a minimum to at most this.
    Lower(i64),
    /// Sets a multi-value register, and replaces the values that the executing node has seen.
    Set(Value),
}

impl Update {
    /// The data type that it is a change of.
    #[must_use]
    pub const fn of(&self) -> DataType {
        match self {
            Update::Add(_) | Update::Reset => DataType::Counter,
            Update::Grant(_) | Update::Spend(_) | Update::Transfer { .. } => DataType::BoundedCounter,
            Update::Insert(_) | Update::Remove(_) => DataType::Set,
            Update::Assign { .. } | Update::Unassign(_) => DataType::Map,
            Update::Raise(_) => DataType::Maximum,
            Update::Lower(_) => DataType::Minimum,
            Update::Set(_) => DataType::MultiValue,
        }
    }

    /// The element or field that it names.
    #[must_use]
    pub fn element(&self) -> Option<&Key> {
        match self {
            Update::Insert(element) | Update::Remove(element) | Update::Unassign(element) => Some(element),
            Update::Assign { field, .. } => Some(field),
            _ => None,
        }
    }

    /// Bytes of elements, fields and values in it.
    pub(crate) fn size(&self) -> usize {
        let value = match self {
            Update::Assign { value, .. } | Update::Set(value) => value.len(),
            _ => 0,
        };
        self.element().map_or(0, |element| element.len()) + value
    }

    /// Checks lengths. A backend sees only valid updates.
    pub(crate) fn validate(&self, key: &Key) -> Result<(), Reason> {
        if key.len() > TYPED_KEY_BYTES_MAX {
            let what = format!("the key of a {}", self.of());
            return Err(too_large(&what, key.len(), TYPED_KEY_BYTES_MAX));
        }
        match self {
            Update::Assign { value, .. } | Update::Set(value) if value.len() > VALUE_BYTES_MAX => {
                return Err(too_large("value", value.len(), VALUE_BYTES_MAX));
            }
            _ => {}
        }
        self.element().map_or(Ok(()), validate_element)
    }
}

/// Checks the length of an element or field. It may be empty.
fn validate_element(element: &Key) -> Result<(), Reason> {
    if element.len() > ELEMENT_BYTES_MAX {
        return Err(too_large("element or field", element.len(), ELEMENT_BYTES_MAX));
    }
    Ok(())
}

impl fmt::Display for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Update::Add(delta) => write!(f, "add {delta}"),
            Update::Reset => f.write_str("reset"),
            Update::Grant(amount) => write!(f, "grant {amount}"),
            Update::Spend(amount) => write!(f, "spend {amount}"),
            Update::Transfer { to, amount } => write!(f, "transfer {amount} to node {to}"),
            Update::Insert(element) => write!(f, "insert {element}"),
            Update::Remove(element) => write!(f, "remove {element}"),
            Update::Assign { field, value } => write!(f, "assign {field}={value}"),
            Update::Unassign(field) => write!(f, "unassign {field}"),
            Update::Raise(to) => write!(f, "raise to {to}"),
            Update::Lower(to) => write!(f, "lower to {to}"),
            Update::Set(value) => write!(f, "set {value}"),
        }
    }
}

/// What a value of one number reads as: a counter, a maximum, a minimum. It travels as the value of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Number(pub i128);

/// What a bounded counter reads as: how much there is, and who may take it. It travels as the value of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escrow {
    /// What was granted less what was spent, as far as the node that is asked knows; never below zero.
    pub value: u128,
    /// The rights of each node that has any, as far as known.
    #[serde(deserialize_with = "bounded_vec::<_, _, NODES_MAX>")]
    rights: Vec<(NodeId, u128)>,
    /// Rights of disks that are lost: nobody can use them any more.
    pub lost: u128,
}

impl Escrow {
    /// A reading.
    #[must_use]
    pub fn new(value: u128, rights: &BTreeMap<NodeId, u128>, lost: u128) -> Self {
        let rights = rights.iter().filter(|(_, amount)| **amount > 0);
        let rights = rights.map(|(node, amount)| (*node, *amount)).collect();
        Self { value, rights, lost }
    }

    /// The rights of each node that has any, as far as the node that is asked knows.
    pub fn rights(&self) -> impl Iterator<Item = (NodeId, u128)> + '_ {
        self.rights.iter().copied()
    }
}

impl Number {
    /// As the value of an entry.
    #[must_use]
    pub fn to_value(self) -> Value {
        codec::encode_vec(&self).into()
    }

    /// From the value of an entry.
    pub fn from_value(value: &Value) -> Result<Self, DecodeError> {
        codec::decode(value)
    }
}

impl Escrow {
    /// As the value of an entry.
    #[must_use]
    pub fn to_value(&self) -> Value {
        codec::encode_vec(self).into()
    }

    /// From the value of an entry.
    pub fn from_value(value: &Value) -> Result<Self, DecodeError> {
        codec::decode(value)
    }
}

impl fmt::Display for Escrow {
    /// Who has which rights, in words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rights.is_empty() {
            f.write_str("no node has any rights")?;
        }
        for (position, (node, amount)) in self.rights.iter().enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            write!(f, "{separator}node {node} has {amount}")?;
        }
        if self.lost > 0 {
            write!(f, ", {} are lost with a disk", self.lost)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
