//! Valid encodings of every protocol, made once per process by running a small cluster of it.

use std::sync::OnceLock;

use bytes::Bytes;
use trilemma_core::Rng;

use crate::rig::{Kind, Rig, Seen};
use crate::source::Source;

/// Events of a run that makes samples.
const EVENTS: usize = 30_000;
/// Samples kept of each kind of message.
const OF_A_KIND_MAX: usize = 12;
/// Logs and checkpoints kept.
const LOGS_MAX: usize = 24;

/// Samples of one protocol.
#[derive(Debug)]
pub struct Corpus {
    /// Messages of every kind that the run has sent.
    pub messages: Vec<Bytes>,
    /// The names of those kinds.
    pub kinds: Vec<&'static str>,
    /// Records, in the order of one node's log each.
    pub logs: Vec<Vec<Bytes>>,
    /// The records of all logs.
    pub records: Vec<Bytes>,
    /// Checkpoints as chunks.
    pub checkpoints: Vec<Vec<Vec<u8>>>,
}

/// The samples of `kind`.
#[must_use]
pub fn of(kind: Kind) -> &'static Corpus {
    static MADE: [OnceLock<Corpus>; 4] = [const { OnceLock::new() }; 4];
    MADE[kind as usize].get_or_init(|| make(kind))
}

fn make(kind: Kind) -> Corpus {
    let mut rig = Rig::new(kind);
    rig.seen = Some(Seen::default());
    let mut rng = Rng::new(1);
    for _ in 0..EVENTS {
        let bytes: Vec<u8> = (0..4).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
        rig.act(&mut Source::new(&bytes), &[]);
    }
    assert!(rig.has_entries(), "a run of {kind:?} wrote nothing");
    let Seen {
        messages,
        logs,
        checkpoints,
    } = rig.seen.take().unwrap_or_default();
    let mut corpus = Corpus {
        messages: Vec::new(),
        kinds: messages.keys().copied().collect(),
        logs: spread(logs.into_iter().filter(|log| !log.is_empty()).collect(), LOGS_MAX),
        records: Vec::new(),
        checkpoints: spread(checkpoints, LOGS_MAX),
    };
    for (_, mut of_a_kind) in messages {
        of_a_kind.sort_by_key(Bytes::len);
        of_a_kind.dedup();
        corpus.messages.extend(spread(of_a_kind, OF_A_KIND_MAX));
    }
    corpus.records = corpus.logs.iter().flatten().cloned().collect();
    corpus
}

/// At most `most` of `items`, from all over.
fn spread<T>(items: Vec<T>, most: usize) -> Vec<T> {
    let step = items.len().div_ceil(most).max(1);
    items.into_iter().step_by(step).collect()
}
