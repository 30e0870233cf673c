//! Telling a second copy of a forwarded request.

use std::collections::{BTreeSet, VecDeque};

use trilemma_core::NodeId;

/// Forwarded requests that are remembered, to tell a second copy of one.
const FORWARDS_REMEMBERED: usize = 65_536;

/// The writes and questions that were forwarded here recently. The network may deliver one twice, and the answers to both
/// copies would be reported for the request: a refusal of one copy says nothing about the other.
#[derive(Debug, Default)]
pub(crate) struct ForwardDedup {
    known: BTreeSet<(NodeId, u64)>,
    order: VecDeque<(NodeId, u64)>,
}

impl ForwardDedup {
    /// Whether this one is new here.
    pub(crate) fn is_first(&mut self, from: NodeId, id: u64) -> bool {
        if !self.known.insert((from, id)) {
            return false;
        }
        self.order.push_back((from, id));
        if self.order.len() > FORWARDS_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }

    pub(crate) fn check(&self) {
        let (known, ordered) = (self.known.len(), self.order.len());
        assert_eq!(
            known, ordered,
            "forwarded requests are known twice, or forgotten in one place"
        );
        assert!(
            known <= FORWARDS_REMEMBERED,
            "{known} forwarded requests are remembered"
        );
    }
}
