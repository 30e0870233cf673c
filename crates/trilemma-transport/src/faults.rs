//! Cut links, for tests of whole nodes. Without the feature `faults` nothing is ever cut, and the compiler knows it.

use trilemma_core::NodeId;

/// Peers that this node neither hears nor reaches.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    #[cfg(any(test, feature = "faults"))]
    blocked: std::sync::RwLock<trilemma_core::NodeSet>,
}

impl Faults {
    /// Whether the link to `node` is cut.
    #[cfg(any(test, feature = "faults"))]
    pub(crate) fn is_blocked(&self, node: NodeId) -> bool {
        self.blocked
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .contains(node)
    }

    /// Whether the link to `node` is cut: never.
    #[cfg(not(any(test, feature = "faults")))]
    pub(crate) fn is_blocked(&self, _node: NodeId) -> bool {
        false
    }

    /// Cuts the links to exactly these peers.
    #[cfg(any(test, feature = "faults"))]
    pub(crate) fn block(&self, peers: &trilemma_core::NodeSet) {
        let mut blocked = self
            .blocked
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *blocked = peers.clone();
    }
}
