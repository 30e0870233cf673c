//! What one node of a convergent keyspace pays for a write of its own, and another for what that one sends.

use std::time::{Duration, Instant};

use trilemma_core::host::GroupInput;
use trilemma_core::{Backend, Reply};
use trilemma_gossip::Durability;

use super::{Core, Options, propose};
use crate::load::{nanos, new_histogram};
use crate::report::Measurement;
use crate::{BenchError, Result};

/// Writes in one turn of the writer, whose changes travel together.
const TOGETHER: u64 = 256;

/// Local writes one by one, acknowledged in memory; then the merge of many at a peer, each with its record for the log.
pub(super) fn measure(options: &Options) -> Result<Vec<Measurement>> {
    eprintln!("gossip core, local writes and merge …");
    let mut core = Core::with(Backend::Gossip, Durability::None);
    let writer = core.start()?;
    Ok(vec![
        local(&mut core, writer, options)?,
        merge(&mut core, writer, options)?,
    ])
}

impl Core {
    /// The turn of a node that takes writes, and the one in which it learns that their records are where its durability
    /// wants them: in memory, at once.
    fn write(&mut self, writer: usize) {
        self.turn_of(writer);
        self.turn_of(writer);
    }
}

fn local(core: &mut Core, writer: usize, options: &Options) -> Result<Measurement> {
    let value = bytes::Bytes::from(vec![b'v'; options.value_bytes]);
    let mut histogram = new_histogram()?;
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let mut writes = 0_u64;
    while Instant::now() < end {
        writes += 1;
        let proposal = propose(core, 1, writes, writes % options.keys.max(1), &value);
        let began = Instant::now();
        core.nodes[writer].inputs.push_back(GroupInput::Propose(proposal));
        core.write(writer);
        let took = began.elapsed();
        acknowledged(core, 1)?;
        histogram.saturating_record(nanos(took));
        // The others take it in meanwhile, as they would on machines of their own.
        core.turn();
    }
    Ok(Measurement::new(
        "gossip core, 3 nodes".to_owned(),
        "a local write, in memory".to_owned(),
    )
    .figure("writes", writes as f64)
    .times("propose to answer", &histogram))
}

fn merge(core: &mut Core, writer: usize, options: &Options) -> Result<Measurement> {
    let value = bytes::Bytes::from(vec![b'v'; options.value_bytes]);
    let reader = (writer + 1) % core.nodes.len();
    let (mut merged, mut spent) = (0_u64, Duration::ZERO);
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let mut sequence = 0;
    while Instant::now() < end {
        for _ in 0..TOGETHER {
            sequence += 1;
            let proposal = propose(core, 2, sequence, sequence % options.keys.max(1), &value);
            core.nodes[writer].inputs.push_back(GroupInput::Propose(proposal));
        }
        core.write(writer);
        acknowledged(core, TOGETHER)?;
        let logged = core.logged;
        let began = Instant::now();
        core.turn_of(reader);
        spent += began.elapsed();
        if core.logged - logged < TOGETHER * options.value_bytes as u64 {
            return Err(BenchError::system(
                "micro",
                "the peer has not merged all changes in one turn",
            ));
        }
        merged += TOGETHER;
        core.turn();
    }
    Ok(Measurement::new(
        "gossip core, 3 nodes".to_owned(),
        format!("merge, {TOGETHER} changes a message"),
    )
    .figure("changes/s", merged as f64 / spent.as_secs_f64())
    .figure("us/change", spent.as_secs_f64() * 1e6 / merged.max(1) as f64))
}

/// The answers of this turn are so many receipts.
fn acknowledged(core: &mut Core, count: u64) -> Result<()> {
    let replies = std::mem::take(&mut core.replies);
    let failed = replies
        .iter()
        .find(|(_, reply)| !matches!(reply, Reply::Write(Ok(_))));
    if let Some((_, reply)) = failed {
        return Err(BenchError::system("micro", format!("{reply:?}")));
    }
    if replies.len() as u64 != count {
        let what = format!("{} of {count} writes were answered in their turn", replies.len());
        return Err(BenchError::system("micro", what));
    }
    Ok(())
}
