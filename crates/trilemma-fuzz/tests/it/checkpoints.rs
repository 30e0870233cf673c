//! Checkpoints and logs of each protocol that are not what was written: refused, or a state that works.

use bytes::Bytes;
use trilemma_core::{Incarnation, NodeId, WallTime};
use trilemma_fuzz::corpus::{self, Corpus};
use trilemma_fuzz::mutate::{change, mutated};
use trilemma_fuzz::rig::{BEGINNING, Kind, Rig};
use trilemma_fuzz::source::Source;
use trilemma_fuzz::wire::frugal;

const RUNS: usize = 500;
const BYTES: usize = 512;
/// No sample is of an incarnation that began later.
const LATER: WallTime = WallTime(BEGINNING.0 + 3_600_000);
const LATER_STILL: WallTime = WallTime(LATER.0 + 3_600_000);

targets! {
    raft(RUNS, BYTES) => restore(Kind::Raft);
    paxos(RUNS, BYTES) => restore(Kind::Paxos);
    gossip(RUNS, BYTES) => restore(Kind::Gossip);
    two_phase(RUNS, BYTES) => restore(Kind::TwoPhase);
    raft_chunk(RUNS, BYTES) => chunk(Kind::Raft);
    paxos_chunk(RUNS, BYTES) => chunk(Kind::Paxos);
    gossip_chunk(RUNS, BYTES) => chunk(Kind::Gossip);
    two_phase_chunk(RUNS, BYTES) => chunk(Kind::TwoPhase);
}

/// One changed chunk costs memory in proportion to its size, whether it is taken or refused.
fn chunk(kind: Kind) -> impl Fn(&[u8]) {
    let chunks: Vec<Vec<u8>> = corpus::of(kind).checkpoints.iter().flatten().cloned().collect();
    move |input| {
        let source = &mut Source::new(input);
        let mut engine = kind.engine(NodeId(1), Incarnation(LATER.0));
        for _ in 0..3 {
            let chunk = mutated(source, &chunks);
            if frugal(chunk.len(), || engine.restore(&chunk)).is_err() {
                return;
            }
        }
    }
}

/// A changed checkpoint, changed records after it: `Corrupt`, or a node that runs, without any panic.
fn restore(kind: Kind) -> impl Fn(&[u8]) {
    let corpus = corpus::of(kind);
    move |input| {
        let source = &mut Source::new(input);
        let (checkpoint, records) = disk(source, corpus);
        let is_genuine = records.is_empty() && corpus.checkpoints.contains(&checkpoint);
        let Ok(mut rig) = Rig::from_disk(kind, LATER, checkpoint, &records) else {
            return;
        };
        let (checkpoint, entries) = rig.state();
        let again = Rig::from_disk(kind, LATER_STILL, checkpoint, &[]).expect("its own checkpoint");
        // What a gossip change has observed removes it, in any order of arrival if all of it is true. A false claim
        // cannot be distinguished from a true one, and what it does depends on the order.
        if is_genuine || kind != Kind::Gossip {
            assert_eq!(again.state().1, entries, "the same entries");
        }
        while !source.is_empty() {
            rig.act(source, &corpus.messages);
        }
    }
}

fn disk(source: &mut Source<'_>, corpus: &Corpus) -> (Vec<Vec<u8>>, Vec<Bytes>) {
    let mut checkpoint = if source.once_in(3) {
        Vec::new()
    } else {
        source.pick(&corpus.checkpoints).clone()
    };
    // A snapshot file tells how many chunks it has, so the last one, which says that the state is whole, is there.
    let last = checkpoint.pop();
    for _ in 0..source.below(3) {
        let place = source.below(checkpoint.len().max(1));
        match source.below(6) {
            0..=2 => {
                if let Some(chunk) = checkpoint.get_mut(place) {
                    change(source, chunk, &corpus.records);
                }
            }
            3 if !checkpoint.is_empty() => drop(checkpoint.remove(place)),
            4 if !checkpoint.is_empty() => checkpoint.insert(place, checkpoint[place].clone()),
            _ => {
                let other = source.pick(&corpus.checkpoints);
                if last.is_some() && !other.is_empty() {
                    checkpoint.insert(place.min(checkpoint.len()), source.pick(other).clone());
                }
            }
        }
    }
    checkpoint.extend(last);
    let log = source.pick(&corpus.logs);
    let from = if source.once_in(2) {
        source.below(log.len())
    } else {
        0
    };
    let records = log[from..].iter().take(source.below(12));
    let mut records: Vec<Bytes> = records.cloned().collect();
    for _ in 0..source.below(3) {
        let place = source.below(records.len() + 1);
        records.insert(place, mutated(source, &corpus.records).into());
    }
    (checkpoint, records)
}
