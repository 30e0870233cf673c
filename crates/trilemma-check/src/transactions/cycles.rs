//! Cycles by name, the gravest first, and in words.

use super::Level;
use super::graph::{Cycle, Edge, Graph, Kinds};
use super::index::Index;
use crate::verdict::Verdict;

/// One anomaly: its names without and with the order of processes and of time, an edge that its cycle has, and the
/// edges of the rest.
struct Anomaly {
    names: [&'static str; 3],
    from: Level,
    once: Kinds,
    rest: Kinds,
}

const ANOMALIES: [Anomaly; 4] = [
    Anomaly {
        names: ["G0", "G0-process", "G0-realtime"],
        from: Level::ReadUncommitted,
        once: Kinds::WW,
        rest: Kinds::WW,
    },
    Anomaly {
        names: ["G1c", "G1c-process", "G1c-realtime"],
        from: Level::ReadCommitted,
        once: Kinds::WR,
        rest: Kinds::WW.and(Kinds::WR),
    },
    Anomaly {
        names: ["G-single", "G-single-process", "G-single-realtime"],
        from: Level::SnapshotIsolation,
        once: Kinds::RW,
        rest: Kinds::WW.and(Kinds::WR),
    },
    Anomaly {
        names: ["G2-item", "G2-item-process", "G2-item-realtime"],
        from: Level::Serializable,
        once: Kinds::RW,
        rest: Kinds::WW.and(Kinds::WR).and(Kinds::RW),
    },
];

const NONADJACENT: [&str; 3] = ["G-nonadjacent", "G-nonadjacent-process", "G-nonadjacent-realtime"];
const DEPENDENCIES: Kinds = Kinds::WW.and(Kinds::WR).and(Kinds::RW).and(Kinds::PASS);

/// The gravest cycle that `level` forbids, as small as can be.
pub(super) fn find(index: &Index<'_>, level: Level, graph: &Graph<'_>) -> Option<Verdict> {
    let orders: &[Kinds] = match level {
        Level::StrictSerializable => &[
            Kinds::PASS,
            Kinds::PASS.and(Kinds::PROCESS),
            Kinds::PASS.and(Kinds::PROCESS).and(Kinds::TIME),
        ],
        Level::SessionSerializable => &[Kinds::PASS, Kinds::PASS.and(Kinds::PROCESS)],
        _ => &[Kinds::PASS],
    };
    let order = orders[orders.len() - 1];
    // Most histories are legal: one look for all.
    let none = match level {
        Level::ReadUncommitted => graph.components(Kinds::WW.and(order)).is_empty(),
        Level::ReadCommitted => graph.components(Kinds::WW.and(Kinds::WR).and(order)).is_empty(),
        Level::SnapshotIsolation => graph.components_nonadjacent(DEPENDENCIES).is_empty(),
        _ => graph.components(DEPENDENCIES.and(order)).is_empty(),
    };
    if none {
        return None;
    }
    for (place, order) in orders.iter().enumerate() {
        for anomaly in ANOMALIES.iter().filter(|anomaly| anomaly.from <= level) {
            let rest = anomaly.rest.and(*order);
            if anomaly.from == Level::Serializable
                && let Some(cycle) = nonadjacent(graph, DEPENDENCIES.and(*order))
            {
                return Some(verdict(index, graph, NONADJACENT[place], &cycle));
            }
            for component in graph.components(rest.and(anomaly.once)) {
                if let Some(cycle) = graph.cycle(&component, anomaly.once, rest) {
                    return Some(verdict(index, graph, anomaly.names[place], &cycle));
                }
            }
        }
        if level == Level::SnapshotIsolation
            && let Some(cycle) = nonadjacent(graph, DEPENDENCIES.and(*order))
        {
            return Some(verdict(index, graph, NONADJACENT[place], &cycle));
        }
    }
    let why =
        "the transactions depend on each other in a circle that was found but could not be shown".into();
    Some(Verdict::Undecided { why })
}

fn nonadjacent<'a>(graph: &Graph<'a>, kinds: Kinds) -> Option<Cycle<'a>> {
    let component = graph
        .components_nonadjacent(kinds)
        .into_iter()
        .min_by_key(Vec::len)?;
    graph.cycle_nonadjacent(&component, kinds)
}

fn verdict(index: &Index<'_>, graph: &Graph<'_>, name: &'static str, cycle: &Cycle<'_>) -> Verdict {
    // Helping vertices are left out: what leads to one is joined with what leads on from it.
    let first = cycle
        .iter()
        .position(|(from, _)| *from < graph.transactions)
        .unwrap_or(0);
    let mut steps: Vec<(usize, Edge<'_>)> = Vec::new();
    for place in 0..cycle.len() {
        let (from, edge) = cycle[(first + place) % cycle.len()];
        match steps.last_mut() {
            Some((_, last)) if edge.kind == Kinds::PASS => {
                last.to = edge.to;
                last.to_value = edge.to_value.or(last.to_value);
            }
            _ => steps.push((from, edge)),
        }
    }
    let words: Vec<String> = steps
        .iter()
        .map(|(from, edge)| explain(index, *from, edge))
        .collect();
    let operations = steps.iter().map(|(from, _)| index.transactions[*from].operation);
    Verdict::illegal(name, format!("{}: a circle", words.join("; ")), operations)
}

fn explain(index: &Index<'_>, from: usize, edge: &Edge<'_>) -> String {
    let (source, target) = (&index.transactions[from], &index.transactions[edge.to]);
    let (a, b) = (source.operation, target.operation);
    let key = edge.key;
    let before = edge.from_value.unwrap_or("nothing");
    let after = edge.to_value.unwrap_or("another value");
    match edge.kind {
        Kinds::WW => format!("T{b} wrote {after} to {key} after T{a}'s {before}"),
        Kinds::WR => format!("T{b} saw {before} of {key}, which T{a} wrote"),
        Kinds::RW => format!("T{a} saw {key} end with {before}, without {after}, which T{b} wrote"),
        Kinds::PROCESS => format!("T{b} came after T{a} in process {}", source.process),
        _ => format!(
            "T{b} began at {} after T{a} had returned at {}",
            target.invoke, source.returned
        ),
    }
}
