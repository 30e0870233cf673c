//! The one driver of a node: it takes turns, and in each turn carries out what all protocols want, together.
//!
//! A turn drains what has come (requests, frames, completions of the log), steps the keyspaces it concerns, then
//! hands *all* appended records to the log as one batch, *all* messages to one peer as one frame a lane, and the
//! answers to their callers. It runs on the node's own thread, in the same single-threaded runtime as the QUIC
//! endpoint, so that a message crosses no thread between the socket and the protocol.

mod clients;
mod peers;
mod snapshots;

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use trilemma_core::host::{Appended, GroupInput};
use trilemma_core::liveness::Liveness;
use trilemma_core::protocol::Force;
use trilemma_core::{Instant, KeyspaceId, Now, Proposal, Reason, Request, WallTime};
use trilemma_storage::{Batch, LogEvent, LogWriter, Progress};
use trilemma_transport::{Event, Events, Transport};

use crate::error::NodeError;
use crate::inbox::{Envelope, Stop};
use crate::slot::Slot;
use crate::waiters::{Owed, Waiter, Waiters};
use crate::watchers::Sink;
use crate::wire::LogOverview;

pub(crate) use clients::Identity;
pub(crate) use peers::Outbox;
pub(crate) use snapshots::Snapshots;

/// Inputs of one kind handled in one turn, so that none starves the others and beats leave in time.
const TURN_INPUTS_MAX: usize = 2048;
/// Rounds of wakes that protocols ask for *now*, within one turn.
const WAKE_ROUNDS_MAX: usize = 4;
/// How often live status is computed anew.
const STATUS_INTERVAL: Duration = Duration::from_millis(50);

/// Reads both clocks of the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(std::time::Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(crate) fn now(self) -> Now {
        let wall = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        // Starts at one second, so that instants shortly before the start can be expressed.
        let nanos = 1_000_000_000 + u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Now {
            instant: Instant::from_nanos(nanos),
            wall: WallTime(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

/// See the module.
pub(crate) struct Driver {
    pub(crate) clock: Clock,
    pub(crate) slots: Vec<Slot>,
    pub(crate) by_id: HashMap<KeyspaceId, usize>,
    pub(crate) waiters: Waiters,
    pub(crate) liveness: Liveness,
    pub(crate) transport: Transport,
    pub(crate) outbox: Outbox,
    pub(crate) log: LogWriter,
    pub(crate) progress: Progress,
    pub(crate) snapshots: Snapshots,
    pub(crate) identity: clients::Identity,
    pub(crate) next_status: Instant,
    /// Why the disk has no room for another log segment, while it has none.
    pub(crate) no_space: Option<String>,
    /// Slots that were stepped in this turn.
    pub(crate) touched: Vec<usize>,
}

/// Where a driver's inputs come from.
pub(crate) struct Sources {
    pub(crate) inbox: mpsc::Receiver<Envelope>,
    pub(crate) events: Events,
    pub(crate) log: mpsc::UnboundedReceiver<LogEvent>,
}

/// Why a turn was the last.
enum End {
    Stopped(Stop, oneshot::Sender<()>),
    Failed(NodeError),
}

impl Driver {
    /// Runs until the node is stopped or its storage fails.
    pub(crate) async fn run(mut self, mut sources: Sources) -> Result<(), NodeError> {
        let now = self.clock.now();
        for slot in 0..self.slots.len() {
            self.step(slot, now, GroupInput::Start);
        }
        self.finish_turn()?;
        loop {
            match self.turn(&mut sources).await {
                Ok(()) => {}
                Err(End::Failed(error)) => {
                    self.close(&Reason::Storage {
                        why: error.to_string(),
                    });
                    return Err(error);
                }
                Err(End::Stopped(how, done)) => {
                    let result = self.stop(how);
                    // Whoever asked may have gone away.
                    let _gone = done.send(());
                    return result;
                }
            }
        }
    }

    async fn turn(&mut self, sources: &mut Sources) -> Result<(), End> {
        let timeout = self.wake_at().since(self.clock.now().instant);
        tokio::select! {
            biased;
            Some(event) = sources.log.recv() => self.on_log(event)?,
            Some(event) = sources.events.recv() => self.on_event(event),
            Some(envelope) = sources.inbox.recv() => self.on_envelope(envelope)?,
            () = tokio::time::sleep(timeout) => {}
        }
        for _ in 0..TURN_INPUTS_MAX {
            let Ok(event) = sources.log.try_recv() else { break };
            self.on_log(event)?;
        }
        for _ in 0..TURN_INPUTS_MAX {
            let Some(event) = sources.events.try_recv() else {
                break;
            };
            self.on_event(event);
        }
        for _ in 0..TURN_INPUTS_MAX {
            let Ok(envelope) = sources.inbox.try_recv() else {
                break;
            };
            self.on_envelope(envelope)?;
        }
        self.finish_turn().map_err(End::Failed)?;
        // The endpoint's tasks share this thread: let them send what was just queued and read what has come.
        tokio::task::yield_now().await;
        Ok(())
    }

    fn wake_at(&self) -> Instant {
        let groups = self
            .slots
            .iter()
            .map(|slot| slot.group.wake_at())
            .min()
            .unwrap_or(Instant::NEVER);
        let pump = if self.slots.iter().any(|slot| slot.watchers.is_pending()) {
            self.clock.now().instant + Duration::from_millis(2)
        } else {
            Instant::NEVER
        };
        groups
            .min(self.liveness.wake_at())
            .min(self.waiters.wake_at())
            .min(self.next_status)
            .min(pump)
    }

    fn on_log(&mut self, event: LogEvent) -> Result<(), End> {
        match event {
            LogEvent::Progress(progress) => {
                self.progress = progress;
                let now = self.clock.now();
                for slot in 0..self.slots.len() {
                    self.slots[slot].persisted(now, progress);
                    self.touch(slot);
                }
                Ok(())
            }
            LogEvent::Space { full } => {
                if let Some(why) = &full {
                    tracing::error!(why, "the disk is full; writes are refused until there is room");
                }
                self.no_space = full;
                Ok(())
            }
            LogEvent::Failed(error) => Err(End::Failed(NodeError::log(error))),
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Frame { from, payload, .. } => self.on_frame(from, payload),
            Event::ClientRequest {
                client,
                request,
                payload,
            } => self.on_client(client, request, &payload),
            Event::PeerUp {
                node,
                incarnation,
                address,
            } => {
                tracing::info!(peer = %node, %incarnation, %address, "peer connected");
                self.identity.refused.remove(&node);
            }
            Event::PeerDown { node, reason } => tracing::info!(peer = %node, %reason, "peer disconnected"),
            Event::Refused {
                node,
                address,
                reason,
            } => {
                tracing::warn!(peer = ?node, %address, %reason, "connection refused");
                if let Some(node) = node {
                    self.identity.refused.insert(node, reason.to_string());
                }
            }
            _ => {}
        }
    }

    fn on_envelope(&mut self, envelope: Envelope) -> Result<(), End> {
        match envelope {
            Envelope::Propose {
                slot,
                request,
                timeout,
                reply,
            } => {
                self.propose(slot, request, timeout, Waiter::Local(reply));
            }
            Envelope::Watch { slot, spec, items } => self.watch(slot, spec, Sink::Local(items)),
            Envelope::Overview { reply } => {
                // Whoever asked may have gone away.
                let _gone = reply.send(self.overview());
            }
            Envelope::Stop { how, done } => return Err(End::Stopped(how, done)),
        }
        Ok(())
    }

    /// Puts a request to a keyspace; the waiter is answered exactly once.
    pub(crate) fn propose(&mut self, slot: usize, request: Request, timeout: Duration, waiter: Waiter) {
        let now = self.clock.now();
        let deadline = now.instant + timeout;
        let owed = Owed::to(&request);
        // What is left of the log's current segment is kept for work that has begun.
        if let (Some(why), Owed::Write(_)) = (&self.no_space, owed) {
            return waiter.answer(owed.refusal(Reason::NoSpace { why: why.clone() }));
        }
        match self.waiters.add(waiter, owed, deadline) {
            Ok(ticket) => self.step(
                slot,
                now,
                GroupInput::Propose(Proposal {
                    ticket,
                    deadline,
                    request,
                }),
            ),
            Err(waiter) => {
                let what = format!(
                    "{} operations wait at this node already",
                    crate::waiters::WAITERS_MAX
                );
                waiter.answer(owed.refusal(Reason::Overloaded { what }));
            }
        }
    }

    /// Opens a watch.
    pub(crate) fn watch(&mut self, slot: usize, spec: trilemma_core::WatchSpec, sink: Sink) {
        let Slot { watchers, group, .. } = &mut self.slots[slot];
        watchers.add(spec, sink, |range| group.scan(range, usize::MAX));
    }

    /// Steps one keyspace.
    pub(crate) fn step(&mut self, slot: usize, now: Now, input: GroupInput) {
        self.slots[slot].step(now, input);
        self.touch(slot);
    }

    fn touch(&mut self, slot: usize) {
        if self.touched.last() != Some(&slot) {
            self.touched.push(slot);
        }
    }

    /// Ends a turn: due wakes and beats, then records, messages, changes, answers.
    fn finish_turn(&mut self) -> Result<(), NodeError> {
        for _ in 0..WAKE_ROUNDS_MAX {
            let now = self.clock.now();
            let due: Vec<usize> = (0..self.slots.len())
                .filter(|slot| self.slots[*slot].group.wake_at() <= now.instant)
                .collect();
            if due.is_empty() {
                break;
            }
            for slot in due {
                self.step(slot, now, GroupInput::Wake);
            }
        }
        self.beat();
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        self.append(&touched)?;
        self.transmit(&touched);
        self.answer(&touched);
        touched.clear();
        self.touched = touched;
        let now = self.clock.now();
        self.waiters.expire(now.instant);
        if now.instant >= self.next_status {
            self.next_status = now.instant + STATUS_INTERVAL;
            for slot in &mut self.slots {
                slot.refresh_status(now);
                slot.watchers.pump();
            }
        }
        self.snapshot_if_due()
    }

    /// Hands all records of this turn to the log as one batch.
    fn append(&mut self, touched: &[usize]) -> Result<(), NodeError> {
        let mut records = Vec::new();
        let mut forced = false;
        let mut places = Vec::new();
        for slot in touched {
            let Slot { id, output, .. } = &mut self.slots[*slot];
            for Appended { seq, force, bytes } in output.records.drain(..) {
                forced |= force == Force::Now;
                records.push((*id, bytes));
                places.push((*slot, seq));
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        let first = self
            .log
            .submit(Batch { records, forced })
            .map_err(NodeError::log)?;
        for (offset, (slot, seq)) in places.into_iter().enumerate() {
            self.slots[slot].appended(seq, first.plus(offset as u64));
        }
        Ok(())
    }

    /// Sends all messages of this turn, one frame for each peer and lane.
    fn transmit(&mut self, touched: &[usize]) {
        for slot in touched {
            let Slot { id, output, .. } = &mut self.slots[*slot];
            for message in output.sends.drain(..) {
                self.outbox
                    .put(&self.transport, message.to, message.lane, *id, &message.bytes);
            }
        }
        self.outbox.flush(&self.transport);
    }

    /// Shows watchers the changes and gives callers their answers.
    fn answer(&mut self, touched: &[usize]) {
        for slot in touched {
            let slot = &mut self.slots[*slot];
            if let Some(position) = slot.output.reset.take() {
                slot.reset_watchers(position);
            }
            let applied = std::mem::take(&mut slot.output.applied);
            if !applied.is_empty() {
                slot.publish(applied.into_iter());
            }
            for (ticket, reply) in slot.output.replies.drain(..) {
                self.waiters.answer(ticket, reply);
            }
        }
    }

    fn stop(&mut self, how: Stop) -> Result<(), NodeError> {
        self.close(&Reason::Stopping);
        match how {
            Stop::Clean => self.log.close().map_err(NodeError::log),
            Stop::Abort => {
                self.log.abort();
                Ok(())
            }
        }
    }

    fn close(&mut self, reason: &Reason) {
        self.waiters.close(reason);
        for slot in &mut self.slots {
            slot.watchers.close(reason);
        }
    }

    /// The log's figures.
    pub(crate) fn log_overview(&self) -> LogOverview {
        let counters = self.log.counters();
        LogOverview {
            last: self.log.last().0,
            durable: self.progress.durable.0,
            snapshot: self.snapshots.covered().0,
            syncs: counters.syncs,
            records: counters.records,
            bytes: counters.bytes,
            sync_micros: counters.sync_micros,
            cpu_ms: cpu_ms(),
        }
    }
}

/// CPU time of this process so far in milliseconds (Linux; 0 elsewhere).
fn cpu_ms() -> u64 {
    /// Linux fixes the unit of /proc figures at 100 a second for user space.
    const TICK_MS: u64 = 10;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = |field: usize| {
        after_name
            .split_whitespace()
            .nth(field)
            .and_then(|text| text.parse::<u64>().ok())
    };
    (ticks(11).unwrap_or(0) + ticks(12).unwrap_or(0)) * TICK_MS
}
