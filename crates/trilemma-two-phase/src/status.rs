//! What this node can do now, for people and monitoring.

use std::time::Duration;

use trilemma_core::{LiveStatus, NodeSet, Now, Version};

use crate::ids::BatchId;
use crate::two_phase::{Role, TwoPhase};

/// A batch that is prepared here and whose outcome is not known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InDoubt {
    /// The batch.
    pub batch: BatchId,
    /// For how long, in this incarnation of the node.
    pub since: Duration,
    /// Number of its transactions.
    pub transactions: usize,
    /// Number of keys that it holds.
    pub keys: usize,
}

impl TwoPhase {
    /// The last decided batch and its position, as far as this node knows.
    #[must_use]
    pub fn decided(&self) -> (BatchId, Version) {
        (self.core.ledger.decided, self.core.ledger.version())
    }

    /// The watermark: every batch below is finished.
    #[must_use]
    pub fn watermark(&self) -> BatchId {
        self.core.ledger.finished
    }

    /// A digest of the decided state: equal on all members at equal decided batch.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.core.ledger.table.digest()
    }

    /// The batches in doubt here, in chain order. Always empty at the sequencer.
    #[must_use]
    pub fn in_doubt(&self, now: Now) -> Vec<InDoubt> {
        let Role::Member(member) = &self.role else {
            return Vec::new();
        };
        let in_doubt = member.chain.iter().map(|prepared| InDoubt {
            batch: prepared.batch.id,
            since: now.instant.since(prepared.since),
            transactions: prepared.batch.transactions.len(),
            keys: prepared.keys(),
        });
        in_doubt.collect()
    }

    pub(crate) fn live_status(&self, now: Now) -> LiveStatus {
        let core = &self.core;
        let unready = match &self.role {
            Role::Sequencer(sequencer) => sequencer.unready(core),
            Role::Member(member) => member.unready(core),
        };
        let unreadable = match &self.role {
            Role::Sequencer(sequencer) => sequencer.unreadable(core),
            Role::Member(_) => unready.clone(),
        };
        let in_doubt = self.in_doubt(now);
        let why = unready.or_else(|| self.why_no_writes());
        let can_write = why.is_none();
        let can_read = unreadable.is_none();
        let mut details = vec![
            ("decided".to_owned(), core.ledger.decided.to_string()),
            ("watermark".to_owned(), core.ledger.finished.to_string()),
        ];
        let role = match &self.role {
            Role::Sequencer(sequencer) => {
                details.push(("in flight".into(), sequencer.in_flight().to_string()));
                details.push(("queued".into(), sequencer.queued().to_string()));
                "sequencer"
            }
            Role::Member(member) => {
                let prepared = member.chain.tip().map_or(core.ledger.decided, |tip| tip.id);
                details.push(("prepared".into(), prepared.to_string()));
                details.push(("fence".into(), member.fence.to_string()));
                details.push(("forwarded".into(), member.forwarded().to_string()));
                "member"
            }
        };
        if let Some(oldest) = in_doubt.first() {
            details.push(("in doubt for".into(), format!("{:?}", oldest.since)));
        }
        LiveStatus {
            can_write,
            can_read,
            why: why.or(unreadable).unwrap_or_default(),
            missing: core.missing.clone(),
            leader: Some(core.config.sequencer),
            role: role.into(),
            version: core.ledger.version(),
            keys: core.ledger.table.len() as u64,
            in_doubt: in_doubt.len() as u64,
            details,
        }
    }

    fn why_no_writes(&self) -> Option<String> {
        let core = &self.core;
        let sequencer = core.config.sequencer;
        if core.missing.contains(sequencer) {
            return Some(format!(
                "node {sequencer}, the sequencer, cannot be reached; writes need it and every other member"
            ));
        }
        if !core.missing.is_empty() {
            return Some(format!(
                "{} cannot be reached; writes need every member",
                nodes(&core.missing)
            ));
        }
        match &self.role {
            Role::Sequencer(role) if !role.unlinked().is_empty() => Some(format!(
                "{} has not caught up since the sequencer started",
                nodes(&role.unlinked())
            )),
            Role::Member(member) if !member.is_linked() => Some(format!(
                "node {sequencer}, the sequencer, has not answered since this node started"
            )),
            _ => None,
        }
    }
}

fn nodes(set: &NodeSet) -> String {
    let word = if set.len() == 1 { "node" } else { "nodes" };
    format!("{word} {set}")
}
