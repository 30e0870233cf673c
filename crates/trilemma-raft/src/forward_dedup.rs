//! Telling a second copy of a forwarded request.

use std::collections::{BTreeSet, VecDeque};

use trilemma_core::NodeId;

/// Forwarded requests that are remembered, to tell a second copy of one: under 4 MiB.
///
/// A copy is taken for a new request only if so many others have come here between the two. A node has at most
/// `waiting_max` (16,384) with the leader at once, so this is all that four nodes may have under way. The transport delivers
/// a frame once, because QUIC does; the memory is for the network of the contract, which may deliver it again, late. What a
/// copy that is later than this can still do: an operation that ran does not run again, by its session; one that was
/// refused, and whose client has the refusal, runs after all.
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
