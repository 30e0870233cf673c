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
    /// When the next part may be sent: those before it have had their time.
    due: Instant,
    /// When a part was last acknowledged for the first time.
    progressed: Instant,
}

/// How late a part may be so that the one after it comes the sooner: timers are of a millisecond, turns take some.
const LATE_MAX: Duration = Duration::from_millis(10);

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
            due: now,
            progressed: now,
        }
    }

    /// The last entry that the snapshot reflects.
    pub(crate) fn at(&self) -> LogEnd {
        self.at
    }

    /// When a further part may be sent; `NEVER` if one must be acknowledged before, or there is none.
    pub(crate) fn due(&self, window: usize) -> Instant {
        if self.peeked.is_some() && self.inflight.len() < window {
            self.due
        } else {
            Instant::NEVER
        }
    }

    /// The parts to send now: further ones up to the window and at this pace, or those that have had no answer for `timeout`.
    pub(crate) fn take_due(
        &mut self,
        now: Instant,
        window: usize,
        pace: Option<u64>,
        timeout: Duration,
    ) -> Vec<Part> {
        let mut parts = self.fill(now, window, pace);
        if parts.is_empty() && now.since(self.sent) > timeout {
            parts = self.inflight.iter().cloned().collect();
        }
        if !parts.is_empty() {
            self.sent = now;
        }
        parts
    }

    /// Without a pace, what the window has room for.
    fn fill(&mut self, now: Instant, window: usize, pace: Option<u64>) -> Vec<Part> {
        let mut taken = Vec::new();
        while self.inflight.len() < window
            && (pace.is_none() || self.due <= now)
            && let Some(part) = self.peeked.take()
        {
            let time = pace.map_or(Duration::ZERO, |pace| time_of(part.len(), pace));
            // A wake-up that comes a little late is made good; a follower that has let us wait is not.
            let is_late = now.since(self.due) > LATE_MAX;
            self.due = if is_late { now } else { self.due } + time;
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

/// How long this many bytes take at this many a second.
fn time_of(bytes: usize, pace: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / pace.max(1) as f64)
}
