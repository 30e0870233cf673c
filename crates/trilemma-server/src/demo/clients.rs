//! The demo's clients: at every node one for each keyspace, writing unique values and reading.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use trilemma::{Effect, Error, Keyspace, Value, Versioned};

use super::cluster::{Cluster, KEYSPACES, OPERATION};
use super::history::{Event, History, Record};
use super::verdict::QUIET_KEY;
use crate::exit::Failure;

/// Keys that all clients of a keyspace write, so that they meet.
pub(super) const KEYS: [&str; 4] = ["probe/a", "probe/b", "probe/c", "probe/d"];
/// Longest pause between two operations of a client, in milliseconds.
const PAUSE_MS: u64 = 16;
/// An answer that comes later than the operation's own limit by this much is taken for lost.
const GRACE: Duration = Duration::from_secs(1);

/// The clients of one incarnation of one node.
pub(super) struct Clients {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Starts a client for each keyspace. `incarnation` keeps values unique when a node's clients start again.
    pub(super) fn start(
        cluster: &Cluster,
        history: &History,
        node: u32,
        incarnation: u32,
        seed: u64,
    ) -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for (number, (name, backend)) in KEYSPACES.into_iter().enumerate() {
            let client = Client {
                node,
                incarnation,
                keyspace: cluster.keyspace(node, name, backend)?,
                history: history.clone(),
                random: Random(
                    seed ^ (u64::from(node) << 40) ^ (u64::from(incarnation) << 20) ^ number as u64,
                ),
            };
            tasks.push(tokio::spawn(client.run(Arc::clone(&stop))));
        }
        Ok(Self { stop, tasks })
    }

    /// Lets every client end its operation, then ends it.
    pub(super) async fn stop(self) {
        self.stop.store(true, Ordering::Release);
        for task in self.tasks {
            // A client that broke off has recorded what it did; the verdict counts records.
            let _ = task.await;
        }
    }
}

struct Client {
    node: u32,
    incarnation: u32,
    keyspace: Keyspace,
    history: History,
    random: Random,
}

impl Client {
    async fn run(mut self, stop: Arc<AtomicBool>) {
        let mut number = 0;
        while !stop.load(Ordering::Acquire) {
            let key = KEYS[self.random.below(KEYS.len() as u64) as usize];
            match self.random.below(10) {
                0..6 => {
                    number += 1;
                    let value = format!("{}-{}-{number}", self.node, self.incarnation);
                    put(&self.keyspace, &self.history, self.node, key, value).await;
                }
                6..8 => read(&self.keyspace, &self.history, self.node, key).await,
                _ => read(&self.keyspace, &self.history, self.node, QUIET_KEY).await,
            }
            tokio::time::sleep(Duration::from_millis(1 + self.random.below(PAUSE_MS))).await;
        }
    }
}

/// Writes a value that nobody else writes, and records what came of it.
pub(super) async fn put(keyspace: &Keyspace, history: &History, node: u32, key: &str, value: String) {
    let called = history.now();
    let write = keyspace.put(key, Value::from(value.as_str()));
    let event = match tokio::time::timeout(OPERATION + GRACE, write).await {
        Ok(Ok(receipt)) => Event::Written {
            value,
            version: receipt.version.0,
        },
        Ok(Err(error)) if error.effect() == Effect::NotApplied => Event::Refused {
            value,
            why: why(&error),
        },
        Ok(Err(error)) => Event::Unknown {
            value,
            why: why(&error),
        },
        Err(_) => Event::Unknown {
            value,
            why: "no answer".into(),
        },
    };
    record(keyspace, history, node, key, called, event);
}

/// Reads a key at the strongest level, and records what came of it.
pub(super) async fn read(keyspace: &Keyspace, history: &History, node: u32, key: &str) {
    let called = history.now();
    let event = match tokio::time::timeout(OPERATION + GRACE, keyspace.entry(key)).await {
        Ok(Ok(found)) => Event::Read {
            found: found.as_ref().map(state),
        },
        Ok(Err(error)) => Event::Unread { why: why(&error) },
        Err(_) => Event::Unread {
            why: "no answer".into(),
        },
    };
    record(keyspace, history, node, key, called, event);
}

fn record(keyspace: &Keyspace, history: &History, node: u32, key: &str, called: u64, event: Event) {
    let record = Record {
        node,
        key: key.into(),
        called,
        answered: history.now(),
        event,
    };
    history.add(keyspace.name(), record);
}

/// A value and its version.
pub(super) fn state(state: &Versioned) -> (String, u64) {
    (state.value.to_string(), state.modified.0)
}

fn why(error: &Error) -> String {
    error
        .reason()
        .map_or_else(|| error.to_string(), ToString::to_string)
}

/// Seeded numbers (splitmix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}
