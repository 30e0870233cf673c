//! Writes much state, as fast as it is taken.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use trilemma::{Backend, Command, Effect, Keyspace, Mutation};

use crate::{BenchError, Result};

/// Mutations, and bytes of values, after which a command is closed.
const BATCH: u64 = 500;
const BATCH_BYTES: usize = 512 * 1024;
/// Commands under way.
const UNDER_WAY: usize = 16;
/// The same of single puts.
const SINGLE_UNDER_WAY: usize = 256;
/// Longest time in which what was refused is written again, and the pause before.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// A key of the state.
pub(crate) fn key(number: u64) -> String {
    format!("key/{number:010}")
}

/// Puts `puts` values of so many bytes, to `keys` keys in turn.
pub(crate) async fn fill(
    handle: &Keyspace,
    backend: Backend,
    keys: u64,
    puts: u64,
    value_bytes: usize,
) -> Result<()> {
    let (batch, under_way) = match backend {
        Backend::Paxos => (1, SINGLE_UNDER_WAY),
        _ => (
            BATCH.min((BATCH_BYTES / value_bytes.max(1)).max(1) as u64),
            UNDER_WAY,
        ),
    };
    let value = bytes::Bytes::from(vec![b'v'; value_bytes]);
    let mut writes: JoinSet<Result<()>> = JoinSet::new();
    let mut next = 0;
    while next < puts || !writes.is_empty() {
        while next < puts && writes.len() < under_way {
            let numbers = next..(next + batch).min(puts);
            next = numbers.end;
            let put = |number| Mutation::Put {
                key: key(number % keys.max(1)).into(),
                value: value.clone().into(),
                lease: None,
            };
            let command = Command {
                guards: Vec::new(),
                mutations: numbers.map(put).collect(),
            };
            let handle = handle.clone();
            writes.spawn_local(async move { write(&handle, command).await });
        }
        if let Some(done) = writes.join_next().await {
            done.map_err(|error| BenchError::system("a writer", error))??;
        }
    }
    Ok(())
}

/// Writes this; again, when it was certainly not applied: a busy node refuses, and a busy machine lets nodes lose sight
/// of each other.
async fn write(handle: &Keyspace, command: Command) -> Result<()> {
    let began = Instant::now();
    loop {
        match handle.write(command.clone()).await {
            Ok(_) => return Ok(()),
            Err(error) if error.effect() != Effect::NotApplied || began.elapsed() > PATIENCE => {
                return Err(error.into());
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
