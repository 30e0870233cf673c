//! What clients and watchers of one keyspace saw, as one list of events, and one verdict on it: sessions, local reads
//! and watches. For callers that record a run as it happens, such as a simulator.
//!
//! Linearizability and convergence are judged by [`crate::linearizability::check`] and [`crate::convergence`].

use std::collections::BTreeMap;

use crate::convergence::{check_reads, writes};
use crate::history::Operation;
use crate::sessions::{self, Guarantees, Order};
use crate::verdict::Verdict;
use crate::watch::{self, Item, Keys, Position, Stream};

#[cfg(test)]
mod tests;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An operation, when it was answered or given up.
    Operation(Operation),
    /// A read at the weakest level: a [`Call::Get`] or [`Call::Range`] answered by one node from what it had.
    ///
    /// [`Call::Get`]: crate::history::Call::Get
    /// [`Call::Range`]: crate::history::Call::Range
    Local(Operation),
    /// A watch was opened, or continued on a new connection under a new number.
    Watch {
        /// Its number, unique in the list.
        watch: u64,
        /// Who watches.
        process: u64,
        /// What is watched.
        keys: Keys,
        /// The token from which it is continued; `None`: it begins with a reset.
        resume: Option<Position>,
    },
    /// A watch was sent something.
    Item {
        /// The watch; its opening must have come before.
        watch: u64,
        /// What was sent.
        item: Item,
    },
}

/// What the service promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// What versions say, for sessions.
    pub order: Order,
    /// What a session may expect; `None`: nothing.
    pub guarantees: Option<Guarantees>,
    /// Whether local reads are part of their process's session. Else they show only what somebody wrote.
    pub locals_in_session: bool,
    /// Whether a change's position in a watch is its version, so that watches are held against operations.
    pub positions_are_versions: bool,
}

/// Judges the events, in the order in which they happened: the first rule that is broken, in the order thin air of
/// local reads, sessions, watches by themselves, watches against operations.
///
/// `operations` of a violation count [`Event::Operation`] and [`Event::Local`] alike, from 0; those of a watch's own
/// rules (see [`crate::watch`]) count [`Event::Watch`]. Undecided if nothing could be judged, or if an item belongs to
/// no watch.
#[must_use]
pub fn check(events: &[Event], promise: Promise) -> Verdict {
    let (operations, locals) = operations(events);
    let streams = match streams(events) {
        Ok(streams) => streams,
        Err(why) => return Verdict::Undecided { why },
    };
    let only = |local: bool| -> Vec<Operation> {
        let both = operations.iter().zip(&locals);
        both.filter(|(_, is_local)| **is_local == local)
            .map(|(operation, _)| operation.clone())
            .collect()
    };
    let places =
        |local: bool| -> Vec<usize> { (0..locals.len()).filter(|at| locals[*at] == local).collect() };
    let plain = only(false);
    let mut verdicts = Vec::new();
    if locals.contains(&true) {
        verdicts.push(check_reads(&operations, &writes(&operations)));
    }
    if let Some(guarantees) = promise.guarantees {
        verdicts.push(if promise.locals_in_session {
            sessions::check(&operations, promise.order, guarantees)
        } else {
            placed(sessions::check(&plain, promise.order, guarantees), &places(false))
        });
    }
    if !streams.is_empty() {
        verdicts.push(watch::check(&streams, &[]));
        if promise.positions_are_versions {
            verdicts.push(placed(watch::check_history(&streams, &plain), &places(false)));
        }
    }
    if let Some(at) = verdicts
        .iter()
        .position(|verdict| matches!(verdict, Verdict::Illegal(_)))
    {
        return verdicts.swap_remove(at);
    }
    if verdicts.contains(&Verdict::Legal) {
        return Verdict::Legal;
    }
    verdicts.into_iter().next().unwrap_or_else(|| Verdict::Undecided {
        why: "there is nothing among the events that the promise says anything of".into(),
    })
}

/// The operations with whether each is a local read.
fn operations(events: &[Event]) -> (Vec<Operation>, Vec<bool>) {
    let shown = events.iter().filter_map(|event| match event {
        Event::Operation(operation) => Some((operation.clone(), false)),
        Event::Local(operation) => Some((operation.clone(), true)),
        Event::Watch { .. } | Event::Item { .. } => None,
    });
    shown.unzip()
}

/// The streams in the order in which they were opened.
fn streams(events: &[Event]) -> Result<Vec<Stream>, String> {
    let mut streams: Vec<Stream> = Vec::new();
    let mut numbers: BTreeMap<u64, usize> = BTreeMap::new();
    for event in events {
        match event {
            Event::Watch {
                watch,
                process,
                keys,
                resume,
            } => {
                if numbers.insert(*watch, streams.len()).is_some() {
                    return Err(format!(
                        "watch {watch} was opened twice; give each opening a number of its own"
                    ));
                }
                streams.push(Stream {
                    process: *process,
                    keys: keys.clone(),
                    resume: *resume,
                    items: Vec::new(),
                });
            }
            Event::Item { watch, item } => {
                let Some(at) = numbers.get(watch) else {
                    return Err(format!("watch {watch} was sent something before it was opened"));
                };
                streams[*at].items.push(item.clone());
            }
            Event::Operation(_) | Event::Local(_) => {}
        }
    }
    Ok(streams)
}

/// A verdict on a part of the operations, as one on all.
fn placed(verdict: Verdict, places: &[usize]) -> Verdict {
    match verdict {
        Verdict::Illegal(mut found) => {
            found.operations = found.operations.iter().map(|at| places[*at]).collect();
            Verdict::Illegal(found)
        }
        other => other,
    }
}
