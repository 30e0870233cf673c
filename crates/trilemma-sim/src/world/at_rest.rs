//! What only a cluster at rest can be asked.

use trilemma_node::Engine;

use super::{MS, Node, World};
use crate::invariants::Broken;
use crate::node::Process;

/// Bytes by which the log may be longer than its snapshots are apart: the records of a start count for nothing.
const LOG_SLACK: u64 = 1024;
/// Time after which a `gossip` node that runs has closed its former incarnations: two comparisons with others, at the
/// longest tick and by the slowest clock. It does not make up for the ticks of a pause.
const CLOSED_AFTER: u64 = 3000 * MS;

impl World<'_> {
    /// Everything is healed, and nobody asks for anything.
    pub(super) fn at_rest(&mut self) {
        // What an open turn has taken in is in no record yet.
        if self.nodes.iter().any(|node| node.in_turn) {
            return;
        }
        if let Err((checker, what)) = self.ask_nodes() {
            self.fail(checker, what);
        }
    }

    fn ask_nodes(&self) -> Result<(), Broken> {
        for node in &self.nodes {
            let Some(process) = &node.process else { continue };
            self.log_is_short(node, process)?;
            self.adders_at_rest(node.id, process)?;
            for slot in 0..self.parts.len() {
                let engine = process.engine(slot);
                self.context_is_closed(node, engine)?;
                // What a node alone holds has never left it.
                if self.nodes.len() > 1 && !self.scenario.may_forget() {
                    self.invariants.end(node.id, slot, engine)?;
                }
            }
        }
        Ok(())
    }

    /// A restart would replay no more than the settings say, whatever earlier incarnations have left behind: the length that
    /// makes a snapshot due, or the share of the last snapshot, as it is on the disk.
    fn log_is_short(&self, node: &Node, process: &Process) -> Result<(), Broken> {
        if process.is_writing() || process.is_snapshotting() {
            return Ok(());
        }
        let disk = &self.scenario.disk;
        // After one that failed the next snapshot is tried after as much log again.
        let failures = process.node.snapshots().failures();
        let read = process.replayed_bytes(self.scenario);
        let (bytes, snapshot) = read.map_err(|why| ("recovery", format!("node {}: {why}", node.id)))?;
        let mut every = disk.snapshot.max(snapshot * process.snapshot_state_percent / 100);
        if failures > 0 {
            // The newest snapshot may be one of which the node knows that it failed.
            every = every.max(process.node.snapshots().due_bytes());
        }
        let most = (every + LOG_SLACK) * (1 + failures) + disk.segment * failures;
        if bytes > most {
            let id = node.id;
            let what = format!("node {id} would replay {bytes} B of log, a snapshot is due after {every} B");
            return Err(("log-length", what));
        }
        Ok(())
    }

    /// A context does not grow with each start of a node that has kept its disk.
    fn context_is_closed(&self, node: &Node, engine: &Engine) -> Result<(), Broken> {
        let Engine::Gossip(host) = engine else {
            return Ok(());
        };
        if self.scenario.may_forget() || self.now < node.started.max(node.paused_until) + CLOSED_AFTER {
            return Ok(());
        }
        let context = host.protocol().replica().context();
        let open: Vec<_> = context.open(node.id).collect();
        if open.len() > 1 {
            let what = format!("node {} holds {open:?} of its own incarnations open", node.id);
            return Err(("context-length", what));
        }
        Ok(())
    }
}
