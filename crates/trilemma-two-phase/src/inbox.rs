//! What one forwarder has asked the sequencer: each request is ordered at most once, however often it comes.
//!
//! Without this, a copy of a request that the network kept could be ordered after its caller was answered that it was
//! refused for certain.

use std::collections::BTreeMap;

use trilemma_core::Incarnation;

use crate::message::Verdict;

/// Requests of one incarnation of one forwarder.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) incarnation: Incarnation,
    /// Most requests that are remembered. A forwarder sends none that is further from its oldest.
    window: usize,
    /// Requests below are over.
    floor: u64,
    /// Requests that were seen, with the answer when it is not that of the chain.
    seen: BTreeMap<u64, Option<Verdict>>,
}

/// What to do with a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// It was never seen.
    New,
    /// It was answered; say so again.
    Answered(Verdict),
    /// It is under way, over, or one too many.
    Ignore,
}

impl Inbox {
    pub(crate) fn new(incarnation: Incarnation, window: usize) -> Self {
        Self {
            incarnation,
            window,
            floor: 0,
            seen: BTreeMap::new(),
        }
    }

    /// Forgets requests that are over at the forwarder.
    pub(crate) fn done_below(&mut self, floor: u64) {
        if floor > self.floor {
            self.floor = floor;
            self.seen = self.seen.split_off(&floor);
        }
    }

    pub(crate) fn admit(&mut self, number: u64) -> Admitted {
        if number < self.floor {
            return Admitted::Ignore;
        }
        match self.seen.get(&number) {
            Some(Some(verdict)) => Admitted::Answered(verdict.clone()),
            Some(None) => Admitted::Ignore,
            None if self.seen.len() >= self.window => Admitted::Ignore,
            None => {
                self.seen.insert(number, None);
                self.check();
                Admitted::New
            }
        }
    }

    /// The inbox's invariants: what is over is forgotten, what is remembered is bounded.
    pub(crate) fn check(&self) {
        assert!(self.seen.len() <= self.window, "remembered requests are bounded");
        let first = self.seen.first_key_value().map(|(number, _)| *number);
        assert!(
            first.is_none_or(|first| first >= self.floor),
            "requests below {} are over",
            self.floor
        );
    }

    pub(crate) fn answer(&mut self, number: u64, verdict: Verdict) {
        if let Some(seen) = self.seen.get_mut(&number) {
            *seen = Some(verdict);
        }
    }
}

#[cfg(test)]
mod tests;
