//! The order of each process, and that of real time.

use std::collections::BTreeMap;

use super::Level;
use super::index::{Index, Fate};
use super::graph::{Graph, Kinds};
use super::lists::edge;

/// Adds the edges that `level` demands. Whoever was never answered precedes nobody.
pub(super) fn add(index: &Index<'_>, level: Level, graph: &mut Graph<'_>) {
    let committed = || {
        let all = index.transactions.iter().enumerate();
        all.filter(|(_, transaction)| transaction.fate == Fate::Committed)
    };
    if level >= Level::SessionSerializable {
        let mut processes: BTreeMap<u64, Vec<(u64, usize)>> = BTreeMap::new();
        for (at, transaction) in committed() {
            processes
                .entry(transaction.process)
                .or_default()
                .push((transaction.invoke, at));
        }
        for mut own in processes.into_values() {
            own.sort_unstable();
            let mut last: Option<usize> = None;
            for (_, at) in own {
                if let Some(last) = last {
                    graph.add(last, edge(at, Kinds::PROCESS, "", None, None));
                }
                if index.transactions[at].returned != u64::MAX {
                    last = Some(at);
                }
            }
        }
    }
    if level == Level::StrictSerializable {
        let mut returns: Vec<(u64, usize)> = committed()
            .map(|(at, transaction)| (transaction.returned, at))
            .filter(|(returned, _)| *returned != u64::MAX)
            .collect();
        returns.sort_unstable();
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
        for (at, transaction) in committed() {
            let before = returns.partition_point(|(returned, _)| *returned < transaction.invoke);
            if before > 0 {
                graph.add(helpers[before - 1], edge(at, Kinds::PASS, "", None, None));
            }
        }
    }
}
