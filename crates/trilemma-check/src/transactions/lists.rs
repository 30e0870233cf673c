//! Dependencies through lists: the longest read of a key is the order of its versions.

use std::collections::BTreeSet;

use super::direct::{clean, clean_length};
use super::graph::{Edge, Graph, Kinds};
use super::index::{Index, Key};

/// Edges drawn one by one between those who read the last known version of a key and wrote it themselves, and those
/// whose writes nobody read: more would be quadratic in histories below snapshot isolation.
const PAIRS_MAX: usize = 256;

/// Adds the edges of every list.
pub(super) fn add<'a>(index: &Index<'a>, graph: &mut Graph<'a>) {
    for (name, key) in index.keys.iter().filter(|(_, key)| key.is_list) {
        add_key(index, name, key, graph);
    }
}

fn add_key<'a>(index: &Index<'a>, name: &'a str, key: &Key<'a>, graph: &mut Graph<'a>) {
    let longest = key.reads.iter().max_by_key(|read| clean_length(index, key, read));
    let order: Vec<&'a str> = longest.map(|read| clean(index, key, read)).unwrap_or_default();
    let writer = |element: &&str| key.wrote(element).map(|wrote| wrote.transaction);
    let writers: Vec<usize> = order.iter().filter_map(writer).collect();
    assert_eq!(writers.len(), order.len(), "every element read was written");
    for (pair, by) in order.windows(2).zip(writers.windows(2)) {
        graph.add(by[0], edge(by[1], Kinds::WW, name, Some(pair[0]), Some(pair[1])));
    }
    let read: BTreeSet<&str> = order.iter().copied().collect();
    // Committed and never read: they come after all that was read, in an order of their own.
    let unread: Vec<(&'a str, usize)> = key
        .writes
        .iter()
        .filter(|(element, wrote)| index.is_committed(wrote.transaction) && !read.contains(*element))
        .map(|(element, wrote)| (*element, wrote.transaction))
        .collect();
    if let (Some(last), Some(by)) = (order.last(), writers.last()) {
        for (element, to) in &unread {
            graph.add(*by, edge(*to, Kinds::WW, name, Some(last), Some(element)));
        }
    }
    let mut pairs = 0;
    let mut beyond = None;
    for read in &key.reads {
        let at = read.transaction;
        let mut seen = clean_length(index, key, read);
        while seen > 0 && writers[seen - 1] == at {
            seen -= 1;
        }
        let last = seen.checked_sub(1).map(|last| order[last]);
        if seen > 0 {
            graph.add(writers[seen - 1], edge(at, Kinds::WR, name, last, None));
        }
        if let Some(next) = order.get(seen) {
            graph.add(at, edge(writers[seen], Kinds::RW, name, last, Some(next)));
        } else if key.writes_of(at).is_empty() && !unread.is_empty() {
            let helper = *beyond.get_or_insert_with(|| {
                let helper = graph.helper();
                for (element, to) in &unread {
                    graph.add(helper, edge(*to, Kinds::PASS, name, None, Some(element)));
                }
                helper
            });
            graph.add(at, edge(helper, Kinds::RW, name, last, None));
        } else {
            for (element, to) in unread.iter().take(PAIRS_MAX.saturating_sub(pairs)) {
                pairs += 1;
                graph.add(at, edge(*to, Kinds::RW, name, last, Some(element)));
            }
        }
    }
}

pub(super) fn edge<'a>(
    to: usize,
    kind: Kinds,
    key: &'a str,
    from_value: Option<&'a str>,
    to_value: Option<&'a str>,
) -> Edge<'a> {
    Edge {
        to,
        kind,
        key,
        from_value,
        to_value,
    }
}
