//! Clients that write all the time at a steady rate, each at its own times; what is late counts from when it was due.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinHandle;
use trilemma::{Effect, Keyspace};

use crate::load::{nanos, new_histogram};
use crate::{BenchError, Result};

const VALUE_BYTES: usize = 256;

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
}

impl Steady {
    /// Starts `clients` clients that write `rate` values per second together.
    pub(crate) fn begin(handle: &Keyspace, rate: u32, clients: u32) -> Result<Self> {
        let shared = Rc::new(Shared {
            stop: Cell::new(false),
            afresh: Cell::new(0),
            latency: RefCell::new(new_histogram()?),
            refused: Cell::new(0),
            unknown: Cell::new(0),
        });
        let pause = Duration::from_secs(1) * clients / rate.max(1);
        let writer = |number: u32| {
            let (handle, shared) = (handle.clone(), Rc::clone(&shared));
            let first = Instant::now() + pause * number / clients.max(1);
            tokio::task::spawn_local(write(handle, number, first, pause, shared))
        };
        let writers = (0..clients).map(writer).collect();
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

async fn write(handle: Keyspace, number: u32, first: Instant, pause: Duration, shared: Rc<Shared>) {
    let value = bytes::Bytes::from(vec![b'v'; VALUE_BYTES]);
    let (mut due, mut afresh) = (first, 0);
    for sequence in 0_u64.. {
        tokio::time::sleep_until(due.into()).await;
        if shared.stop.get() {
            return;
        }
        if afresh != shared.afresh.get() {
            (due, afresh) = (Instant::now(), shared.afresh.get());
        }
        let put = handle.put(format!("client/{number}/{}", sequence % 100), value.clone());
        match put.await {
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
            }
        }
        due += pause;
    }
}
