//! The order of each process, and that of real time.

use std::collections::BTreeMap;

use super::Level;
use super::graph::{Graph, Kinds};
use super::index::{Fate, Index, Transaction};
use super::lists::edge;

/// Adds the edges that `level` demands. What was never answered precedes nothing.
pub(super) fn add(index: &Index<'_>, level: Level, graph: &mut Graph<'_>) {
    if level >= Level::SessionSerializable {
        for (before, after) in in_processes(index) {
            graph.add(before, edge(after, Kinds::PROCESS, "", None, None));
        }
    }
    if level == Level::StrictSerializable {
        let returns = returns(index);
        // One helper per return, in a chain: all orders in time with edges linear in number.
        let mut helpers = Vec::with_capacity(returns.len());
        for (_, at) in &returns {
            let helper = graph.helper();
            if let Some(last) = helpers.last() {
                graph.add(*last, edge(helper, Kinds::PASS, "", None, None));
            }
            graph.add(*at, edge(helper, Kinds::TIME, "", None, None));
            helpers.push(helper);
        }
        for (at, transaction) in committed(index) {
            let before = returns.partition_point(|(returned, _)| *returned < transaction.invoke);
            if before > 0 {
                graph.add(helpers[before - 1], edge(at, Kinds::PASS, "", None, None));
            }
        }
    }
}

fn committed<'i, 'a>(index: &'i Index<'a>) -> impl Iterator<Item = (usize, &'i Transaction<'a>)> {
    let all = index.transactions.iter().enumerate();
    all.filter(|(_, transaction)| transaction.fate == Fate::Committed)
}

/// Pairs of committed transactions that follow each other in one process, of which the first was answered.
pub(super) fn in_processes(index: &Index<'_>) -> Vec<(usize, usize)> {
    // By the times of its process, of which an unknown transaction has two as well.
    let mut processes: BTreeMap<u64, Vec<(u64, u64, usize)>> = BTreeMap::new();
    for (at, transaction) in committed(index) {
        let own = processes.entry(transaction.process).or_default();
        own.push((transaction.invoke, transaction.left, at));
    }
    let mut pairs = Vec::new();
    for mut own in processes.into_values() {
        own.sort_unstable();
        let mut last: Option<usize> = None;
        for (_, _, at) in own {
            pairs.extend(last.map(|last| (last, at)));
            if index.transactions[at].returned != u64::MAX {
                last = Some(at);
            }
        }
    }
    pairs
}

/// When committed transactions were answered, in order.
pub(super) fn returns(index: &Index<'_>) -> Vec<(u64, usize)> {
    let mut returns: Vec<(u64, usize)> = committed(index)
        .map(|(at, transaction)| (transaction.returned, at))
        .filter(|(returned, _)| *returned != u64::MAX)
        .collect();
    returns.sort_unstable();
    returns
}
