//! Histories: what clients asked, when, and what they were answered.
//!
//! The open format is JSON Lines, one [`Operation`] per line:
//!
//! ```json
//! {"process":1,"invoke":1000,"return":2000,"call":{"put":{"key":"a","value":"1"}},"outcome":{"ok":{"done":{"version":7}}}}
//! {"process":2,"invoke":1500,"return":1900,"call":{"get":{"key":"a"}},"outcome":{"ok":{"value":{"value":"1","version":7}}}}
//! {"process":1,"invoke":2100,"call":{"cas":{"key":"a","expected":"1","value":"2"}},"outcome":"unknown"}
//! ```
//!
//! Times are nanoseconds of one clock for all processes, taken *before* a request leaves and *after* its answer came.
//! A process has one operation at a time. Lines may be in any order.

use serde::{Deserialize, Serialize};

mod call;
mod read;
mod recording;
#[cfg(test)]
mod tests;

pub use read::{History, LINE_BYTES_MAX, OPERATIONS_MAX, ReadError};
pub use recording::{Recording, WATCHES_MAX};

/// What one process did: a call, its interval and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Who asked. One operation at a time.
    pub process: u64,
    /// When it was asked, in nanoseconds.
    pub invoke: u64,
    /// When the answer came, in nanoseconds; `None` if none came. Of an unknown outcome it says when the client gave
    /// up, which does not bound when the operation takes effect.
    #[serde(rename = "return", default, skip_serializing_if = "Option::is_none")]
    pub returned: Option<u64>,
    /// What was asked.
    pub call: Call,
    /// What came of it.
    pub outcome: Outcome,
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It happened, within its interval, and this was the answer.
    Ok(Answer),
    /// It certainly did not happen and never will.
    Fail,
    /// It may have happened, may happen later, or never.
    Unknown,
}

/// What a client asks for. Keys, values and elements are text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Call {
    /// Reads a key.
    Get {
        /// The key.
        key: String,
    },
    /// Sets a key.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: String,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: String,
    },
    /// Sets or removes a key if it holds what is expected.
    Cas {
        /// The key.
        key: String,
        /// What it must hold; `None`: it must not exist.
        expected: Option<String>,
        /// What it then holds; `None`: it is removed.
        value: Option<String>,
    },
    /// Reads the keys from `start` to before `end` in order.
    Range {
        /// First key.
        start: String,
        /// First key after the range; `None`: to the last.
        #[serde(default)]
        end: Option<String>,
        /// Most entries to return; `None`: all.
        #[serde(default)]
        limit: Option<u32>,
    },
    /// Makes all changes if all guards hold, else none.
    Command {
        /// What must hold.
        #[serde(default)]
        guards: Vec<Guard>,
        /// What then happens, in order.
        #[serde(default)]
        changes: Vec<Change>,
    },
    /// Adds an element to a set.
    Add {
        /// The set's key.
        key: String,
        /// The element.
        element: String,
    },
    /// Reads a set.
    Members {
        /// The set's key.
        key: String,
    },
    /// Appends to a list.
    Append {
        /// The list's key.
        key: String,
        /// The element.
        element: String,
    },
    /// Reads a list.
    List {
        /// The list's key.
        key: String,
    },
    /// A transaction of several reads and writes (Kingsbury and Alvaro 2020).
    Transaction {
        /// Its steps, in order. Reads say what was read in the answer's transaction.
        steps: Vec<Step>,
    },
    /// Takes a lock; the answer is a token.
    Acquire {
        /// The lock.
        lock: String,
        /// How long it is held without renewal, in nanoseconds; `None`: until released.
        #[serde(default)]
        ttl: Option<u64>,
    },
    /// Extends a lock that is held.
    Renew {
        /// The lock.
        lock: String,
        /// The token that [`Call::Acquire`] gave.
        token: u64,
        /// The new time to live from now, in nanoseconds.
        ttl: u64,
    },
    /// Gives a lock back.
    Release {
        /// The lock.
        lock: String,
        /// The token that [`Call::Acquire`] gave.
        token: u64,
    },
    /// Uses what the lock protects; accepted only with the newest token (fencing).
    Use {
        /// The lock.
        lock: String,
        /// The token that [`Call::Acquire`] gave.
        token: u64,
    },
}

/// One condition of a [`Call::Command`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Guard {
    /// The key holds exactly this; `None`: it does not exist.
    Value {
        /// The key.
        key: String,
        /// What it must hold.
        is: Option<String>,
    },
    /// The key was last changed by the write that made this version; 0: it does not exist.
    Version {
        /// The key.
        key: String,
        /// The version.
        is: u64,
    },
}

/// One change of a [`Call::Command`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The key.
    pub key: String,
    /// Its new value; `None`: it is removed.
    pub value: Option<String>,
}

/// One step of a [`Call::Transaction`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// Reads a list or register.
    Read {
        /// The key.
        key: String,
        /// What was read; `None` in a call whose answer is not known. A register reads as a list of its one value.
        #[serde(default)]
        found: Option<Vec<String>>,
    },
    /// Appends to a list.
    Append {
        /// The key.
        key: String,
        /// The element, unique per key.
        element: String,
    },
    /// Sets a register.
    Write {
        /// The key.
        key: String,
        /// The value, unique per key.
        value: String,
    },
}

/// What a call was answered. Versions, where the service has them, are those of its one order of changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// To [`Call::Put`], [`Call::Delete`], [`Call::Add`], [`Call::Append`], [`Call::Renew`], [`Call::Release`].
    Done {
        /// The version that the change made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u64>,
    },
    /// To [`Call::Cas`], [`Call::Command`] and [`Call::Use`].
    Won {
        /// Whether all guards held.
        #[serde(rename = "won")]
        succeeded: bool,
        /// The version that the change made; if not won, the one at which the guards were checked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u64>,
    },
    /// To [`Call::Get`].
    Value {
        /// What the key held; `None`: it did not exist.
        value: Option<String>,
        /// The version of the change that made this value; `None` if there is no value or no version is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u64>,
        /// The version of the whole keyspace that the read reflects.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<u64>,
    },
    /// To [`Call::Range`].
    Entries {
        /// Keys, values and (where known) versions, in key order.
        entries: Vec<Entry>,
        /// Whether a limit cut the answer.
        #[serde(default)]
        more: bool,
        /// The version of the whole keyspace that the read reflects.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<u64>,
    },
    /// To [`Call::Members`] (in any order) and [`Call::List`] (in its order).
    Elements {
        /// The elements.
        elements: Vec<String>,
    },
    /// To [`Call::Acquire`].
    Token {
        /// The fencing token.
        token: u64,
    },
    /// To [`Call::Transaction`]: it committed, and its reads found this.
    Committed {
        /// The call's steps, with what was read.
        steps: Vec<Step>,
    },
}

/// One entry of [`Answer::Entries`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// The version of the change that made this value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

impl Operation {
    /// By when the operation must have taken effect, if it did: its return if it was answered.
    #[must_use]
    pub fn effect_by(&self) -> u64 {
        match (&self.outcome, self.returned) {
            (Outcome::Ok(_), Some(returned)) => returned,
            _ => u64::MAX,
        }
    }
}
