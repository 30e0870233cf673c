//! The judgement at the end of a run: histories and final states through the checkers of `trilemma-check`.

use trilemma_check::convergence::{self, Fate, Merge, Replica};
use trilemma_check::events::Event;
use trilemma_check::history::Operation;
use trilemma_check::linearizability::{self, Budget};
use trilemma_check::model::Model;
use trilemma_check::verdict::{Verdict, Violation};
use trilemma_core::{Entry, NodeId};

use crate::client::Book;
use crate::scenario::Protocol;

/// What the checkers say of one keyspace.
pub(crate) enum Judgement {
    Legal,
    /// A budget ran out.
    Undecided(String),
    /// The checker and what it saw.
    Illegal(&'static str, String),
}

/// Steps of a search: a history of this size needs far less.
const BUDGET: Budget = Budget {
    steps: 20_000_000,
    steps_to_confirm: 20_000,
};

/// Judges one keyspace by its history and by what every node shows in the end.
pub(crate) fn judge(part: Protocol, slot: usize, book: &Book, shown: &[(NodeId, Vec<Entry>)]) -> Judgement {
    let none = Vec::new();
    let history = book.histories.get(&slot).unwrap_or(&none);
    let model = match part {
        Protocol::Gossip => return convergent(slot, history, book, shown),
        Protocol::Paxos => Model::PerKey,
        Protocol::Raft | Protocol::TwoPhase | Protocol::Mixed => Model::KeyValue,
    };
    let report = linearizability::check(history, model, BUDGET);
    match report.verdict {
        Verdict::Legal => {}
        Verdict::Undecided { why } => return Judgement::Undecided(why),
        Verdict::Illegal(violation) => return illegal("linearizability", &violation, history),
    }
    let locals = local_reads(slot, book, true);
    match convergence::check_reads(&locals, &convergence::writes(history)) {
        Verdict::Legal => Judgement::Legal,
        Verdict::Undecided { why } => Judgement::Undecided(why),
        Verdict::Illegal(violation) => illegal("local-reads", &violation, &locals),
    }
}

fn illegal(checker: &'static str, violation: &Violation, history: &[Operation]) -> Judgement {
    let mut what = format!("{}: {}", violation.rule, violation.what);
    for index in violation.operations.iter().take(8) {
        if let Some(operation) = history.get(*index) {
            what += &format!("; {operation:?}");
        }
    }
    Judgement::Illegal(checker, what)
}

/// Reads at the weakest level as operations: whatever they show must have been written.
fn local_reads(slot: usize, book: &Book, versions: bool) -> Vec<Operation> {
    let reads = book.local_reads.get(&slot).into_iter().flatten();
    reads.map(|read| read.operation(versions)).collect()
}

/// Judges what clients and watchers of a keyspace saw, as one list: sessions, and watches against operations.
pub(crate) fn judge_seen(slot: usize, book: &Book) -> Judgement {
    let Some((events, promise)) = book.seen.as_ref().and_then(|seen| seen.events(slot)) else {
        return Judgement::Legal;
    };
    match trilemma_check::events::check(events, promise) {
        // Undecided: nobody did two things that could be held against each other.
        Verdict::Legal | Verdict::Undecided { .. } => Judgement::Legal,
        Verdict::Illegal(violation) => {
            let operations: Vec<Operation> = events
                .iter()
                .filter_map(|event| match event {
                    Event::Operation(operation) | Event::Local(operation) => Some(operation.clone()),
                    Event::Watch { .. } | Event::Item { .. } => None,
                })
                .collect();
            illegal("seen", &violation, &operations)
        }
    }
}

fn convergent(slot: usize, history: &[Operation], book: &Book, shown: &[(NodeId, Vec<Entry>)]) -> Judgement {
    let mut writes = convergence::writes(history);
    for write in &mut writes {
        // What a node had acknowledged alone may be gone with its disk.
        if book.forgiven.contains(&(slot, write.operation)) && write.fate == Fate::Acknowledged {
            write.fate = Fate::Possible;
        }
    }
    let replicas: Vec<Replica> = shown
        .iter()
        .map(|(node, entries)| Replica {
            name: node.to_string(),
            entries: entries
                .iter()
                .map(|entry| {
                    let value = (entry.state.value.to_string(), Some(entry.state.modified.0));
                    (entry.key.to_string(), vec![value])
                })
                .collect(),
        })
        .collect();
    let end = convergence::check_writes(&writes, &replicas, Merge::LastWriterWins);
    // A node shows a write before it is durable. If it dies then, the write is gone, or is made again by a repeat.
    let locals = local_reads(slot, book, false);
    for write in &mut writes {
        if book.doubted.contains(&(slot, write.operation)) {
            write.fate = Fate::Possible;
        }
    }
    for (verdict, of) in [
        (end, history),
        (convergence::check_reads(&locals, &writes), &locals),
    ] {
        match verdict {
            Verdict::Legal => {}
            Verdict::Undecided { why } => return Judgement::Undecided(why),
            Verdict::Illegal(violation) => return illegal("convergence", &violation, of),
        }
    }
    Judgement::Legal
}
