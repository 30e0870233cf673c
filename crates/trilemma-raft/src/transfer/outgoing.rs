//! A transfer as the leader sees it.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use trilemma_core::Instant;
use trilemma_core::table::Table;

use crate::message::LogEnd;

/// One part: its number, whether it is the last, its bytes.
pub(crate) type Part = (u32, bool, Bytes);

/// See the module.
pub(crate) struct Outgoing {
    at: LogEnd,
    parts: Box<dyn Iterator<Item = Vec<u8>> + Send>,
    /// The part after the last one taken, to know which is the last.
    peeked: Option<Bytes>,
    /// Parts sent and not acknowledged.
    inflight: VecDeque<Part>,
    next: u32,
    sent: Instant,
    /// When a part was last acknowledged for the first time.
    progressed: Instant,
}

/// What an answer to a part means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acknowledged {
    /// The transfer goes on.
    GoesOn,
    /// The follower has lost parts that it had.
    Lost,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("at", &self.at)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Outgoing {
    pub(crate) fn new(at: LogEnd, table: &Table, chunk_bytes: usize, now: Instant) -> Self {
        let mut parts = Box::new(table.chunks(chunk_bytes));
        let peeked = parts.next().map(Bytes::from);
        Self {
            at,
            parts,
            peeked,
            inflight: VecDeque::new(),
            next: 0,
            sent: now,
            progressed: now,
        }
    }

    /// The last entry that the snapshot reflects.
    pub(crate) fn at(&self) -> LogEnd {
        self.at
    }

    /// The parts to send now: further ones up to the window, or those that have had no answer for `timeout`.
    pub(crate) fn take_due(&mut self, now: Instant, window: usize, timeout: Duration) -> Vec<Part> {
        let mut parts = self.fill(window);
        if parts.is_empty() && now.since(self.sent) > timeout {
            parts = self.inflight.iter().cloned().collect();
        }
        if !parts.is_empty() {
            self.sent = now;
        }
        parts
    }

    fn fill(&mut self, window: usize) -> Vec<Part> {
        let mut taken = Vec::new();
        while self.inflight.len() < window
            && let Some(part) = self.peeked.take()
        {
            self.peeked = self.parts.next().map(Bytes::from);
            let item = (self.next, self.peeked.is_none(), part);
            self.next += 1;
            self.inflight.push_back(item.clone());
            taken.push(item);
        }
        assert!(
            self.inflight.len() <= window || taken.is_empty(),
            "a window bounds what is in flight"
        );
        taken
    }

    /// The follower asks for part `next`. It has lost parts if it asks for one that it had, and that is no answer which
    /// was overtaken: nothing has gone on for `patience`.
    pub(crate) fn on_reply(&mut self, now: Instant, next: u32, patience: Duration) -> Acknowledged {
        if next < self.acknowledged() {
            let is_late = now.since(self.progressed) > patience;
            return if is_late {
                Acknowledged::Lost
            } else {
                Acknowledged::GoesOn
            };
        }
        while self
            .inflight
            .pop_front_if(|(number, ..)| *number < next)
            .is_some()
        {
            self.progressed = now;
        }
        Acknowledged::GoesOn
    }

    /// The first part that is not acknowledged.
    fn acknowledged(&self) -> u32 {
        self.next - self.inflight.len() as u32
    }

    pub(crate) fn check(&self) {
        let numbers = self.inflight.iter().map(|(number, ..)| *number);
        assert!(
            numbers.eq(self.acknowledged()..self.next),
            "parts in flight follow one another"
        );
    }
}
