//! Clients of running processes that write unique values and record the answers.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use trilemma::{Backend, Client, ClientConfig, Effect, Error, Keyspace, Needs, Value};

use crate::check::Finals;
use crate::harness::KEYSPACES;
use crate::history::{Event, History, Record};

/// Keys that all clients share.
const KEYS: [&str; 4] = ["w/a", "w/b", "w/c", "w/d"];
/// Longest time of one operation.
const OPERATION: Duration = Duration::from_millis(1000);

/// The strongest need of a backend.
fn needs(backend: &str) -> (Backend, Needs) {
    let backend: Backend = backend.parse().expect("a backend");
    let needs = match backend {
        Backend::Gossip => Needs::Available,
        Backend::Paxos => Needs::Linearizable,
        Backend::Raft | Backend::TwoPhase => Needs::Atomic,
    };
    (backend, needs)
}

/// Opens a keyspace at one node, for as long as it takes.
pub(crate) async fn open(
    dir: &Path,
    node: u32,
    name: &str,
    backend: &str,
    stop: &AtomicBool,
) -> Option<Keyspace> {
    let mut config = ClientConfig::load(dir.join("client.toml")).expect("a client configuration");
    config.servers.retain(|server| server.node.0 == node);
    config.timeout = OPERATION;
    loop {
        let opened = async {
            Client::connect(config.clone())
                .await?
                .keyspace(name, needs(backend).1)
                .await
        };
        match opened.await {
            Ok(keyspace) => return Some(keyspace.with_timeout(OPERATION)),
            Err(_) if stop.load(Ordering::Acquire) => return None,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Writers at every node for every keyspace.
pub(crate) struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Starts them.
    pub(crate) fn start(dir: &Path, history: &History) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for node in 1..=3 {
            for (name, backend) in KEYSPACES {
                let (dir, history, stop) = (dir.to_path_buf(), history.clone(), Arc::clone(&stop));
                tasks.push(tokio::spawn(async move {
                    write_until(&dir, &history, node, name, backend, &stop).await;
                }));
            }
        }
        Self { stop, tasks }
    }

    /// Stops them after their last operation.
    pub(crate) async fn stop(self) {
        self.stop.store(true, Ordering::Release);
        for task in self.tasks {
            task.await.expect("a writer");
        }
    }
}

async fn write_until(dir: &Path, history: &History, node: u32, name: &str, backend: &str, stop: &AtomicBool) {
    let Some(keyspace) = open(dir, node, name, backend, stop).await else {
        return;
    };
    let mut number = 0_usize;
    while !stop.load(Ordering::Acquire) {
        number += 1;
        let key = KEYS[(number * 7 + node as usize) % KEYS.len()];
        let called = history.now();
        let event = if number.is_multiple_of(3) {
            read(&keyspace, key).await
        } else {
            put(&keyspace, key, format!("{node}-{number}")).await
        };
        let record = Record {
            node,
            key: key.into(),
            called,
            answered: history.now(),
            event,
        };
        history.add(name, record);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn put(keyspace: &Keyspace, key: &str, value: String) -> Event {
    match keyspace.put(key, Value::from(value.as_str())).await {
        Ok(receipt) => Event::Written {
            value,
            version: receipt.version.0,
        },
        Err(error) if error.effect() == Effect::NotApplied => Event::Refused {
            value,
            why: error.to_string(),
        },
        Err(error) => Event::Unknown {
            value,
            why: error.to_string(),
        },
    }
}

async fn read(keyspace: &Keyspace, key: &str) -> Event {
    match keyspace.entry(key).await {
        Ok(found) => Event::Read {
            found: found.map(|state| (state.value.to_string(), state.modified.0)),
        },
        Err(error) => Event::Unread {
            why: error.to_string(),
        },
    }
}

/// What a node holds under the writers' keys, read at the strongest level.
pub(crate) async fn held(dir: &Path, node: u32, name: &str, backend: &str) -> Result<Finals, Error> {
    let keyspace = open(dir, node, name, backend, &AtomicBool::new(false))
        .await
        .expect("opened without end");
    let entries = keyspace.prefix("w/").await?;
    Ok(entries
        .iter()
        .map(|entry| {
            (
                entry.key.to_string(),
                (entry.state.value.to_string(), entry.state.modified.0),
            )
        })
        .collect())
}
