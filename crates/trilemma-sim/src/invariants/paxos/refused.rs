//! What was reported as certainly not applied has no effect, ever: no register that was chosen, before or after, has
//! recorded that it ran.

use std::collections::{BTreeMap, BTreeSet};

use trilemma_core::session::OpResult;
use trilemma_core::{Key, NodeId, OpId, Outcome, Reply, Request, Ticket, WriteError};
use trilemma_paxos::register::Recent;
use trilemma_paxos::{Ballot, Register};

use super::super::Broken;

/// See the module.
#[derive(Default)]
pub(super) struct Refused {
    /// What nodes were asked and have not answered.
    asked: BTreeMap<(NodeId, Ticket), OpId>,
    /// How often each operation was put to a node to be run.
    attempts: BTreeMap<OpId, u32>,
    /// Operations of which the only attempt was refused. A later attempt may run.
    refused: BTreeSet<OpId>,
    /// Operations that will never run under any attempt: they were fenced.
    fenced: BTreeSet<OpId>,
    /// Operations that registers which were chosen have recorded as applied.
    applied: BTreeSet<OpId>,
}

impl Refused {
    /// A request comes to a node.
    pub(super) fn ask(&mut self, id: NodeId, ticket: Ticket, request: &Request) {
        let op = match request {
            Request::Write { op, .. } => {
                *self.attempts.entry(*op).or_default() += 1;
                self.refused.remove(op);
                *op
            }
            Request::Outcome { op, .. } => *op,
            Request::Read(_) => return,
        };
        self.asked.insert((id, ticket), op);
    }

    /// A node answers.
    pub(super) fn answer(&mut self, id: NodeId, ticket: Ticket, reply: &Reply) -> Result<(), Broken> {
        let Some(op) = self.asked.remove(&(id, ticket)) else {
            return Ok(());
        };
        match reply {
            Reply::Outcome(Ok(Outcome::NotApplied)) => {
                self.fenced.insert(op);
            }
            Reply::Write(Err(WriteError::NotApplied(refusal))) if refusal.reason.decides_operation() => {
                self.fenced.insert(op);
            }
            Reply::Write(Err(WriteError::NotApplied(_))) if self.attempts.get(&op) == Some(&1) => {
                self.refused.insert(op);
            }
            _ => return Ok(()),
        }
        if self.applied.contains(&op) {
            let what =
                format!("node {id} reports {op} as certainly not applied, and it is in a chosen register");
            return Err(("refused", what));
        }
        Ok(())
    }

    /// This register is chosen.
    pub(super) fn choose(&mut self, key: &Key, ballot: Ballot, register: &Register) -> Result<(), Broken> {
        for Recent { op, result } in &register.recent {
            let OpResult::Applied { succeeded: true, .. } = result else {
                continue;
            };
            self.applied.insert(*op);
            if self.refused.contains(op) || self.fenced.contains(op) {
                let what = format!(
                    "{op} was reported as certainly not applied, and is in the register of {key} chosen under {ballot}"
                );
                return Err(("refused", what));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
