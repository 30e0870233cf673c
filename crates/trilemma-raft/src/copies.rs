//! Telling a second copy of a forwarded request.

use std::collections::{BTreeSet, VecDeque};

use trilemma_core::NodeId;

/// Forwarded requests that are remembered, to tell a second copy of one.
const COPIES_KNOWN: usize = 65_536;

/// The writes and questions that came forwarded lately. The network may deliver one twice, and the answers to both
/// copies would be told for the request: a refusal of one copy says nothing about the other.
#[derive(Debug, Default)]
pub(super) struct Copies {
    known: BTreeSet<(NodeId, u64)>,
    order: VecDeque<(NodeId, u64)>,
}

impl Copies {
    /// Whether this one is new here.
    pub(super) fn is_first(&mut self, from: NodeId, id: u64) -> bool {
        if !self.known.insert((from, id)) {
            return false;
        }
        self.order.push_back((from, id));
        if self.order.len() > COPIES_KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}
