//! Transactions: read, decide, and commit if nothing that was read has changed.

use std::collections::BTreeMap;

use trilemma_core::{
    Command, Guard, Key, Mutation, NotApplied, Reason, Receipt, Retry, Value, Version, WriteError,
};

use crate::error::Result;
use crate::keyspace::Keyspace;

/// Collects reads, conditions and changes; [`Transaction::commit`] applies all changes or none.
///
/// Nothing is locked and nothing leaves before `commit`. A key that was read through the transaction is guarded
/// with the version found: if it has changed by then, `commit` fails with [`Reason::Conflict`] and the caller reads
/// again. Explicit conditions answer with a receipt whose `succeeded` is false.
#[derive(Clone, Debug)]
pub struct Transaction {
    keyspace: Keyspace,
    read: BTreeMap<Key, Version>,
    command: Command,
}

impl Transaction {
    pub(crate) fn new(keyspace: Keyspace) -> Self {
        Self {
            keyspace,
            read: BTreeMap::new(),
            command: Command::default(),
        }
    }

    /// Reads a key and remembers its version for the commit. Does not see the transaction's own changes.
    pub async fn get(&mut self, key: impl Into<Key>) -> Result<Option<Value>> {
        let key = key.into();
        let state = self.keyspace.entry(key.clone()).await?;
        let version = state.as_ref().map_or(Version::ABSENT, |state| state.modified);
        self.read.entry(key).or_insert(version);
        Ok(state.map(|state| state.value))
    }

    /// Requires that a key holds exactly this value (`None`: does not exist).
    #[must_use]
    pub fn require_value(mut self, key: impl Into<Key>, is: Option<Value>) -> Self {
        self.command.guards.push(Guard::Value { key: key.into(), is });
        self
    }

    /// Requires that a key has this version ([`Version::ABSENT`]: does not exist).
    #[must_use]
    pub fn require_version(mut self, key: impl Into<Key>, is: Version) -> Self {
        self.command.guards.push(Guard::Version { key: key.into(), is });
        self
    }

    /// Sets a key.
    #[must_use]
    pub fn put(mut self, key: impl Into<Key>, value: impl Into<Value>) -> Self {
        self.command.mutations.push(Mutation::Put {
            key: key.into(),
            value: value.into(),
            lease: None,
        });
        self
    }

    /// Removes a key.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Key>) -> Self {
        self.command.mutations.push(Mutation::Delete { key: key.into() });
        self
    }

    /// The command as it would be sent, reads as guards first.
    #[must_use]
    pub fn command(&self) -> Command {
        let reads = self.read.iter().map(|(key, is)| Guard::Version {
            key: key.clone(),
            is: *is,
        });
        let mut command = self.command.clone();
        command.guards = reads.chain(command.guards).collect();
        command
    }

    /// Applies all changes, or none.
    pub async fn commit(self) -> Result<Receipt> {
        let receipt = self.keyspace.write(self.command()).await?;
        if receipt.succeeded || self.read.is_empty() {
            return Ok(receipt);
        }
        match self.changed_read().await? {
            Some((key, found)) => {
                let refusal = NotApplied {
                    reason: Reason::Conflict { key, found },
                    retry: Retry::ReadAgain,
                };
                Err(WriteError::NotApplied(refusal).into())
            }
            None => Ok(receipt),
        }
    }

    /// The first key that was read and is at another version now. The commit did not happen, so this read only
    /// chooses between two ways to say so.
    async fn changed_read(&self) -> Result<Option<(Key, Version)>> {
        for (key, read) in &self.read {
            let state = self.keyspace.entry(key.clone()).await?;
            let found = state.map_or(Version::ABSENT, |state| state.modified);
            if found != *read {
                return Ok(Some((key.clone(), found)));
            }
        }
        Ok(None)
    }
}
