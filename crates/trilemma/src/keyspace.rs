//! A handle on one keyspace: the same whether the node is in this process or on another machine.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use trilemma_client::Session;
use trilemma_core::descriptor::WatchScope;
use trilemma_core::read::{DEADLINE_DEFAULT, RANGE_ENTRIES_MAX};
use trilemma_core::replicator::{OpContext, SharedReplicator};
use trilemma_core::{
    Attempt, Command, Descriptor, Entry, Key, KeyRange, LiveStatus, Needs, NotApplied, OpId, Outcome, Query,
    ReadError, ReadLevel, ReadReply, ReadRequest, Reason, Receipt, Value, Version, Versioned, WatchItem,
    WatchSpec, WatchStart, WatchStream, WatchToken, WriteError,
};
use trilemma_runtime::{EPOCH, random_u64};

use crate::error::Result;
use crate::transaction::Transaction;
use crate::watch::Watch;

/// How often the token of a watch keeps up with changes beside its range.
const PROGRESS: Duration = Duration::from_secs(10);

/// A keyspace, opened with what the code [`Needs`] of it. Cloning is cheap; clones share one session.
///
/// A handle offers its need and no more: `compare_and_set` on a handle opened as [`Needs::Available`] is refused,
/// whatever the backend could do, so that an operator may move the keyspace to any backend that meets the need.
#[derive(Clone)]
pub struct Keyspace {
    name: Arc<str>,
    needs: Needs,
    replicator: SharedReplicator,
    session: Arc<Mutex<Session>>,
    timeout: Duration,
    level: Option<ReadLevel>,
}

impl std::fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyspace")
            .field("name", &self.name)
            .field("needs", &self.needs)
            .finish_non_exhaustive()
    }
}

impl Keyspace {
    pub(crate) fn new(name: &str, needs: Needs, replicator: SharedReplicator) -> Self {
        let basis = replicator.status().current().version;
        Self {
            name: name.into(),
            needs,
            replicator,
            session: Arc::new(Mutex::new(Session::new(basis, random_u64()))),
            timeout: DEADLINE_DEFAULT,
            level: None,
        }
    }

    /// The keyspace's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the handle was opened for.
    #[must_use]
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// What the backend promises.
    #[must_use]
    pub fn descriptor(&self) -> &'static Descriptor {
        self.replicator.descriptor()
    }

    /// This handle with another limit of time for each operation, everything included: connecting, other servers,
    /// repeats. Default 5 s, most 60 s.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// This handle with reads at this level; without it, at the strongest that the backend offers.
    #[must_use]
    pub fn with_read_level(mut self, level: ReadLevel) -> Self {
        self.level = Some(level);
        self
    }

    /// Sets a key.
    pub async fn put(&self, key: impl Into<Key>, value: impl Into<Value>) -> Result<Receipt> {
        self.write(Command::put(key, value)).await
    }

    /// Removes a key. That it did not exist is not an error.
    pub async fn delete(&self, key: impl Into<Key>) -> Result<Receipt> {
        self.write(Command::delete(key)).await
    }

    /// Sets a key if it holds exactly `expected` (`None`: if it does not exist). The receipt says whether it won.
    ///
    /// Refused on a handle that was opened as [`Needs::Available`].
    pub async fn compare_and_set(
        &self,
        key: impl Into<Key>,
        expected: Option<Value>,
        value: impl Into<Value>,
    ) -> Result<Receipt> {
        self.write(Command::compare_and_set(key, expected, Some(value.into())))
            .await
    }

    /// Writes a command of guards and mutations, under a fresh operation id.
    ///
    /// If the servers have forgotten this handle's session, nothing has run, and the command goes again in a new one,
    /// within the same limit of time.
    pub async fn write(&self, command: Command) -> Result<Receipt> {
        self.allowed(&command)?;
        let started = Instant::now();
        let op = self.new_op();
        let first = self.context(op, Attempt::First);
        let error = match self.attempt(&first, command.clone()).await {
            Ok(receipt) => return Ok(receipt),
            Err(error) => error,
        };
        let Some(op) = self.session().again(op, &error, || self.begin()) else {
            return Err(error.into());
        };
        let again = OpContext {
            timeout: self.timeout.saturating_sub(started.elapsed()),
            ..self.context(op, Attempt::First)
        };
        Ok(self.attempt(&again, command).await?)
    }

    /// Writes under an id that the caller chose or got from [`WriteError::Unknown`]. With [`Attempt::Retry`] the
    /// command takes effect at most once, however often it is sent.
    pub async fn write_as(&self, op: OpId, attempt: Attempt, command: Command) -> Result<Receipt> {
        self.allowed(&command)?;
        Ok(self.attempt(&self.context(op, attempt), command).await?)
    }

    /// A fresh operation id for [`Keyspace::write_as`].
    #[must_use]
    pub fn new_op(&self) -> OpId {
        self.session().next(|| self.begin())
    }

    async fn attempt(&self, context: &OpContext, command: Command) -> Result<Receipt, WriteError> {
        let _done = Done(self, context.op);
        self.replicator.write(context, command).await
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        // Held for plain assignments only.
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a new session begins, and its nonce.
    fn begin(&self) -> (Version, u64) {
        (self.replicator.status().current().version, random_u64())
    }

    fn context(&self, op: OpId, attempt: Attempt) -> OpContext {
        OpContext {
            op,
            attempt,
            timeout: self.timeout,
            epoch: EPOCH,
        }
    }

    /// A handle offers its need and no more.
    fn allowed(&self, command: &Command) -> Result<(), WriteError> {
        command.validate()?;
        if let Some((_, update)) = command.first_update()
            && self.needs != Needs::Available
        {
            return Err(NotApplied::never(Reason::Unsupported {
                asked: format!("a {}", update.of()),
                strongest: format!(
                    "what its handle was opened for: {}; data types are of handles opened as available",
                    self.needs
                ),
            })
            .into());
        }
        let asked = match self.needs {
            Needs::Available if !command.guards.is_empty() => "a guard (compare-and-set)",
            Needs::Linearizable if command.keys().nth(1).is_some() && command.single_key().is_none() => {
                "a command over several keys"
            }
            _ => return Ok(()),
        };
        let strongest = format!("what its handle was opened for: {}", self.needs);
        Err(NotApplied::never(Reason::Unsupported {
            asked: asked.into(),
            strongest,
        })
        .into())
    }

    /// The value of a key.
    pub async fn get(&self, key: impl Into<Key>) -> Result<Option<Value>> {
        Ok(self.entry(key).await?.map(|state| state.value))
    }

    /// The value of a key with its versions.
    pub async fn entry(&self, key: impl Into<Key>) -> Result<Option<Versioned>> {
        let reply = self.query(Query::Get(key.into())).await?;
        Ok(reply.entries.into_iter().next().map(|entry| entry.state))
    }

    /// Any read; its own `level` counts, not the handle's.
    pub async fn read(&self, request: ReadRequest) -> Result<ReadReply> {
        Ok(self
            .replicator
            .read(&self.context(OpId::default(), Attempt::First), request)
            .await?)
    }

    /// The level at which this handle reads.
    pub(crate) fn read_level(&self) -> Option<ReadLevel> {
        self.level
    }

    async fn query(&self, query: Query) -> Result<ReadReply> {
        self.read(ReadRequest {
            query,
            level: self.level,
        })
        .await
    }

    /// All entries of a range in key order.
    ///
    /// In keyspaces of backends whose writes have one order (`raft`, `two-phase`) they are one state, and no older than
    /// the read level asks, however many they are. Elsewhere ranges that do not fit one answer
    /// ([`RANGE_ENTRIES_MAX`] entries, or 1 MiB) are read in pages, and later pages may show later writes; in `paxos` and
    /// `gossip` two keys may be of different moments even within one page.
    pub async fn range(&self, range: KeyRange) -> Result<Vec<Entry>> {
        self.range_limited(range, usize::MAX).await
    }

    /// The first entries of a range, at most `limit`. See [`Keyspace::range`].
    pub async fn range_limited(&self, range: KeyRange, limit: usize) -> Result<Vec<Entry>> {
        let first = self.page(&range, limit).await?;
        if !first.more || first.entries.len() >= limit {
            return Ok(first.entries);
        }
        if self.descriptor().watch == WatchScope::Shared {
            return self.state(&range, limit, first.version).await;
        }
        let mut rest = range;
        let mut entries = first.entries;
        loop {
            let Some(last) = entries.last().filter(|_| entries.len() < limit) else {
                return Ok(entries);
            };
            rest.start = [&last.key[..], &[0]].concat().into();
            let page = self.page(&rest, limit - entries.len()).await?;
            entries.extend(page.entries);
            if !page.more {
                return Ok(entries);
            }
        }
    }

    async fn page(&self, range: &KeyRange, limit: usize) -> Result<ReadReply> {
        let limit = u32::try_from(limit).map_or(RANGE_ENTRIES_MAX, |limit| limit.min(RANGE_ENTRIES_MAX));
        let range = range.clone();
        self.query(Query::Range { range, limit }).await
    }

    /// The entries of a range as one state that reflects at least `version`: the reset with which a watch begins, at whichever
    /// node, as soon as that node has reached the version.
    async fn state(&self, range: &KeyRange, limit: usize, version: Version) -> Result<Vec<Entry>> {
        let start = WatchStart::StateFrom(WatchToken::at(version));
        let mut watch = self.watch_with(WatchSpec::new(range.clone(), start)).await?;
        let mut found = Vec::new();
        loop {
            let next = tokio::time::timeout(self.timeout, watch.next()).await;
            match next.map_err(|_elapsed| ReadError::from(Reason::Deadline))? {
                Some(Ok(WatchItem::Reset {
                    entries, first, last, ..
                })) => {
                    if first {
                        found.clear();
                    }
                    found.extend(entries);
                    if last || found.len() >= limit {
                        found.truncate(limit);
                        return Ok(found);
                    }
                }
                // A watch begins with a reset.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => {
                    let why = "the watch ended before it had shown the state".into();
                    return Err(ReadError::from(Reason::Unreachable { why }).into());
                }
            }
        }
    }

    /// All entries whose key begins with `prefix`. See [`Keyspace::range`].
    pub async fn prefix(&self, prefix: impl Into<Key>) -> Result<Vec<Entry>> {
        self.range(KeyRange::prefix(prefix)).await
    }

    /// Every concurrent value of a key, the one that reads choose first. Only convergent backends have several.
    pub async fn siblings(&self, key: impl Into<Key>) -> Result<Vec<Entry>> {
        let context = self.context(OpId::default(), Attempt::First);
        match self.replicator.convergent() {
            Some(convergent) => Ok(convergent.siblings(&context, key.into()).await?),
            None => Err(ReadError::from(Reason::Unsupported {
                asked: "concurrent values of a key".into(),
                strongest: format!("the one value that backend {} has", self.descriptor().backend),
            })
            .into()),
        }
    }

    /// Watches a range: with its current entries, from now on, or from where an earlier watch had come. Its token keeps
    /// up with the keyspace although nothing happens in the range.
    pub async fn watch(&self, range: KeyRange, start: WatchStart) -> Result<Watch> {
        let spec = WatchSpec {
            range,
            start,
            progress: Some(PROGRESS),
        };
        Ok(Watch::new(self.open_watch(spec).await?, false))
    }

    /// The same, with progress marks among the items if `spec` asks for them.
    pub async fn watch_with(&self, spec: WatchSpec) -> Result<Watch> {
        let shows_progress = spec.progress.is_some();
        Ok(Watch::new(self.open_watch(spec).await?, shows_progress))
    }

    async fn open_watch(&self, spec: WatchSpec) -> Result<WatchStream> {
        let context = self.context(OpId::default(), Attempt::First);
        Ok(self.replicator.watch(&context, spec).await?)
    }

    /// Resolves an operation whose outcome is unknown, finally. `command` is what it carried, where still known;
    /// backend `paxos` needs it.
    pub async fn outcome(&self, op: OpId, command: Option<Command>) -> Result<Outcome> {
        let context = self.context(op, Attempt::Retry);
        Ok(self.replicator.outcome(&context, op, command).await?)
    }

    /// A transaction over keys of this keyspace.
    #[must_use]
    pub fn transaction(&self) -> Transaction {
        Transaction::new(self.clone())
    }

    /// What holds on the node now, as it was last reported.
    #[must_use]
    pub fn status(&self) -> LiveStatus {
        self.replicator.status().current()
    }
}

/// Takes an operation off the session's list, also when its future is dropped half-way.
struct Done<'a>(&'a Keyspace, OpId);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.session().done(self.1);
    }
}
