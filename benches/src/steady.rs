//! Clients that write all the time: at a steady rate, each at its own times, and what is late counts from when it was due;
//! or each the next value when it has the answer to the last.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinHandle;
use trilemma::{Effect, Keyspace};

use crate::load::{nanos, new_histogram};
use crate::{BenchError, Result};

/// What they write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pattern {
    /// Clients.
    pub(crate) clients: u32,
    /// Values per second of all clients together; 0: as fast as they are answered.
    pub(crate) rate: u32,
    /// Bytes of each value.
    pub(crate) value_bytes: usize,
    /// Keys of each client, which it writes in turn.
    pub(crate) keys: u64,
}

impl Pattern {
    /// Small values at a rate.
    pub(crate) fn at_rate(rate: u32, clients: u32) -> Self {
        Self {
            clients,
            rate,
            value_bytes: 256,
            keys: 100,
        }
    }
}

/// Pause of a client after a write that failed.
const AFTER_REFUSAL: Duration = Duration::from_millis(10);

/// Running clients.
pub(crate) struct Steady {
    shared: Rc<Shared>,
    writers: Vec<JoinHandle<()>>,
}

struct Shared {
    stop: Cell<bool>,
    /// How often the clients have had to begin their times afresh.
    afresh: Cell<u32>,
    latency: RefCell<Histogram<u64>>,
    refused: Cell<u64>,
    unknown: Cell<u64>,
    first_failure: RefCell<Option<String>>,
}

impl Steady {
    /// Starts the clients, spread over these handles, of which there is one at least.
    pub(crate) fn begin(handles: &[Keyspace], pattern: Pattern) -> Result<Self> {
        let shared = Rc::new(Shared {
            stop: Cell::new(false),
            afresh: Cell::new(0),
            latency: RefCell::new(new_histogram()?),
            refused: Cell::new(0),
            unknown: Cell::new(0),
            first_failure: RefCell::new(None),
        });
        let writer = |number: u32| {
            let handle = handles[number as usize % handles.len()].clone();
            tokio::task::spawn_local(write(handle, number, pattern, Rc::clone(&shared)))
        };
        let writers = (0..pattern.clients).map(writer).collect();
        Ok(Self { shared, writers })
    }

    /// The time that each write took that ended since the last call.
    pub(crate) fn take(&self) -> Result<Histogram<u64>> {
        Ok(self.shared.latency.replace(new_histogram()?))
    }

    /// Lets the clients begin their times afresh: what they were late for until now counts no more.
    pub(crate) fn begin_afresh(&self) {
        self.shared.afresh.set(self.shared.afresh.get() + 1);
    }

    /// Writes that certainly did nothing, so far.
    pub(crate) fn refused(&self) -> u64 {
        self.shared.refused.get()
    }

    /// Writes of which nobody knows, so far.
    pub(crate) fn unknown(&self) -> u64 {
        self.shared.unknown.get()
    }

    /// Why the first write failed that did.
    pub(crate) fn first_failure(&self) -> Option<String> {
        self.shared.first_failure.borrow().clone()
    }

    /// Stops the clients.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        self.shared.stop.set(true);
        for writer in self.writers.drain(..) {
            writer
                .await
                .map_err(|error| BenchError::system("a writer", error))?;
        }
        Ok(())
    }
}

async fn write(handle: Keyspace, number: u32, pattern: Pattern, shared: Rc<Shared>) {
    let value = bytes::Bytes::from(vec![b'v'; pattern.value_bytes]);
    let pause = (pattern.rate > 0).then(|| Duration::from_secs(1) * pattern.clients / pattern.rate);
    let mut due = Instant::now() + pause.unwrap_or_default() * number / pattern.clients;
    let mut afresh = 0;
    for sequence in 0_u64.. {
        tokio::time::sleep_until(due.into()).await;
        if shared.stop.get() {
            return;
        }
        if afresh != shared.afresh.get() {
            (due, afresh) = (Instant::now(), shared.afresh.get());
        }
        let key = format!("client/{number}/{}", sequence % pattern.keys.max(1));
        match handle.put(key, value.clone()).await {
            Ok(_) => {
                shared
                    .latency
                    .borrow_mut()
                    .saturating_record(nanos(due.elapsed()));
            }
            Err(error) => {
                let count = match error.effect() {
                    Effect::Unknown => &shared.unknown,
                    _ => &shared.refused,
                };
                count.set(count.get() + 1);
                shared
                    .first_failure
                    .borrow_mut()
                    .get_or_insert_with(|| error.to_string());
                // A node that refuses at once must not keep this thread.
                tokio::time::sleep(AFTER_REFUSAL).await;
            }
        }
        due = pause.map_or_else(Instant::now, |pause| due + pause);
    }
}
