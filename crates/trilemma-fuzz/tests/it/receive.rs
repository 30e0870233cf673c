//! Running clusters of each protocol whose peers send changed messages, in states that the input chooses.

use trilemma_fuzz::corpus;
use trilemma_fuzz::rig::{Kind, Rig};
use trilemma_fuzz::source::Source;

const RUNS: usize = 300;
const BYTES: usize = 4096;

targets! {
    raft(RUNS, BYTES) => run(Kind::Raft);
    paxos(RUNS, BYTES) => run(Kind::Paxos);
    gossip(RUNS, BYTES) => run(Kind::Gossip);
    two_phase(RUNS, BYTES) => run(Kind::TwoPhase);
}

fn run(kind: Kind) -> impl Fn(&[u8]) {
    let samples = &corpus::of(kind).messages;
    move |input| {
        let mut rig = Rig::new(kind);
        let source = &mut Source::new(input);
        while !source.is_empty() {
            rig.act(source, samples);
        }
    }
}

/// A target without samples would test little, and nobody would see it.
#[test]
fn samples_hold_every_kind_of_message_and_state() {
    for (kind, messages) in [
        (Kind::Raft, 12),
        (Kind::Paxos, 7),
        (Kind::Gossip, 5),
        (Kind::TwoPhase, 14),
    ] {
        let corpus = corpus::of(kind);
        assert!(corpus.kinds.len() >= messages, "{kind:?}: {:?}", corpus.kinds);
        assert!(corpus.records.len() >= 20, "{kind:?}");
        assert!(corpus.checkpoints.len() >= 5, "{kind:?}");
    }
}
