//! What this node can do, and figures for operators.

use trilemma_core::{LiveStatus, NodeSet, Now};

use super::Gossip;

impl Gossip {
    pub(super) fn make_status(&self, _now: Now) -> LiveStatus {
        let missing: NodeSet = self.view.missing(self.config.node, &self.config.members);
        let why = if self.identity_clash {
            format!(
                "peers know changes of life {} of this node that it never made, so they will not take its writes: its \
                 identity is used twice, or its disk was lost and the incarnation did not grow; restart it with a \
                 higher one",
                self.config.incarnation
            )
        } else if missing.is_empty() {
            String::new()
        } else {
            format!(
                "reads and writes are local; node {missing} cannot be reached and will converge once it can"
            )
        };
        let laggard = self.acks.laggard(self.config.peers(), self.replica.context());
        let laggard = laggard.map_or_else(|| "none".to_owned(), |node| format!("node {node}"));
        let detail = |name: &str, value: String| (name.to_owned(), value);
        let details = vec![
            detail("contested keys", self.replica.contested().to_string()),
            detail("unsettled changes", self.replica.unsettled().to_string()),
            detail("parked entries", self.parked.len().to_string()),
            detail("rumours", self.rumours.len().to_string()),
            detail("open exchanges", self.exchanges.open().to_string()),
            detail(
                "context intervals",
                self.replica.context().intervals().to_string(),
            ),
            detail("stable frontier held back by", laggard),
            detail(
                "predicted convergence ms",
                self.prediction.mean.as_millis().to_string(),
            ),
            detail(
                "predicted convergence p99 ms",
                self.prediction.p99.as_millis().to_string(),
            ),
            detail("digest", format!("{:016x}", self.digest())),
        ];
        LiveStatus {
            can_write: true,
            can_read: true,
            why: why.chars().take(1000).collect(),
            missing,
            leader: None,
            role: "replica".into(),
            version: self.clock.last().version(),
            keys: self.replica.visible(),
            in_doubt: 0,
            details,
        }
    }
}
