//! Dependency graphs, their strongly connected components and shortest cycles.

use std::collections::VecDeque;

/// A kind of edge, and sets of kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kinds(u8);

impl Kinds {
    /// The target wrote the version after the source's.
    pub(super) const WW: Self = Self(1);
    /// The target read what the source wrote.
    pub(super) const WR: Self = Self(2);
    /// The target replaced what the source read.
    pub(super) const RW: Self = Self(4);
    /// The target came after the source in one process.
    pub(super) const PROCESS: Self = Self(8);
    /// The target began after the source had returned.
    pub(super) const TIME: Self = Self(16);
    /// Leads on from a helping vertex; of the kind of the edge that led there.
    pub(super) const PASS: Self = Self(32);

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn has(self, kind: Self) -> bool {
        self.0 & kind.0 != 0
    }
}

/// An edge, with what explains it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge<'a> {
    pub(super) to: usize,
    pub(super) kind: Kinds,
    pub(super) key: &'a str,
    /// What the source wrote or read.
    pub(super) from_value: Option<&'a str>,
    /// What the target wrote.
    pub(super) to_value: Option<&'a str>,
}

/// Vertices are the transactions, then helping ones.
#[derive(Clone, Debug)]
pub(super) struct Graph<'a> {
    pub(super) edges: Vec<Vec<Edge<'a>>>,
    pub(super) transactions: usize,
}

/// A cycle: each vertex with the edge that leaves it.
pub(super) type Cycle<'a> = Vec<(usize, Edge<'a>)>;

impl<'a> Graph<'a> {
    pub(super) fn new(transactions: usize) -> Self {
        Self {
            edges: vec![Vec::new(); transactions],
            transactions,
        }
    }

    /// A vertex that only leads on.
    pub(super) fn helper(&mut self) -> usize {
        self.edges.push(Vec::new());
        self.edges.len() - 1
    }

    /// Adds an edge; none from a vertex to itself.
    pub(super) fn add(&mut self, from: usize, edge: Edge<'a>) {
        if from != edge.to {
            self.edges[from].push(edge);
        }
    }

    fn of(&self, from: usize, kinds: Kinds) -> impl Iterator<Item = &Edge<'a>> {
        self.edges[from].iter().filter(move |edge| kinds.has(edge.kind))
    }

    /// The components of more than one vertex, by edges of `kinds`.
    pub(super) fn components(&self, kinds: Kinds) -> Vec<Vec<usize>> {
        components(self.edges.len(), |from, place| {
            let edge = self.edges[from].get(place)?;
            Some(kinds.has(edge.kind).then_some(edge.to))
        })
    }

    /// As [`Graph::components`], of walks in which no two rw follow each other: a vertex is twice there, the second
    /// time as reached by an rw.
    pub(super) fn components_nonadjacent(&self, kinds: Kinds) -> Vec<Vec<usize>> {
        let count = self.edges.len();
        let mut found = components(2 * count, |from, place| {
            let edge = self.edges[from % count].get(place)?;
            Some(self.step(from, edge, kinds))
        });
        for component in &mut found {
            for vertex in component.iter_mut() {
                *vertex %= count;
            }
            component.sort_unstable();
            component.dedup();
        }
        found
    }

    fn step(&self, from: usize, edge: &Edge<'a>, kinds: Kinds) -> Option<usize> {
        let count = self.edges.len();
        let after_rw = from >= count;
        let rw = edge.kind == Kinds::RW || (edge.kind == Kinds::PASS && after_rw);
        let allowed = kinds.has(edge.kind) && !(after_rw && edge.kind == Kinds::RW);
        allowed.then_some(edge.to + if rw { count } else { 0 })
    }

    /// A shortest path by edges of `kinds` from `from` to `to`, which are not the same, within the vertices marked.
    fn path(&self, from: usize, to: usize, kinds: Kinds, within: &[bool]) -> Option<Cycle<'a>> {
        let mut before: Vec<Option<(usize, Edge<'a>)>> = vec![None; self.edges.len()];
        let mut queue = VecDeque::from([from]);
        let mut seen = vec![false; self.edges.len()];
        while let Some(vertex) = queue.pop_front() {
            // Leading on from a helping vertex is free, so such a vertex may be taken out twice.
            if std::mem::replace(&mut seen[vertex], true) {
                continue;
            }
            if vertex == to {
                break;
            }
            for edge in self
                .of(vertex, kinds)
                .filter(|edge| within[edge.to] && !seen[edge.to])
            {
                if edge.kind == Kinds::PASS {
                    before[edge.to] = Some((vertex, *edge));
                    queue.push_front(edge.to);
                } else if before[edge.to].is_none() {
                    before[edge.to] = Some((vertex, *edge));
                    queue.push_back(edge.to);
                }
            }
        }
        let mut path = Vec::new();
        let mut at = to;
        while at != from {
            let (vertex, edge) = before[at]?;
            path.push((vertex, edge));
            at = vertex;
        }
        path.reverse();
        Some(path)
    }

    /// A shortest cycle by edges of `kinds` that has an edge of `once`, and after it only edges of `rest`.
    /// `component` holds a cycle of the wanted kind if there is one.
    pub(super) fn cycle(&self, component: &[usize], once: Kinds, rest: Kinds) -> Option<Cycle<'a>> {
        let mut within = vec![false; self.edges.len()];
        for vertex in component {
            within[*vertex] = true;
        }
        let mut shortest: Option<Cycle<'a>> = None;
        let mut tries = 0;
        for from in component {
            for edge in self.of(*from, once).filter(|edge| within[edge.to]) {
                if let Some(mut path) = self.path(edge.to, *from, rest, &within) {
                    path.insert(0, (*from, *edge));
                    if shortest
                        .as_ref()
                        .is_none_or(|known| length(&path) < length(known))
                    {
                        shortest = Some(path);
                    }
                }
                tries += 1;
                // Cost grows with tries times size; a cycle of two transactions cannot be beaten.
                let two = shortest.as_ref().is_some_and(|known| length(known) <= 2);
                if two || tries * self.edges.len() > SEARCH_MAX {
                    return shortest;
                }
            }
        }
        shortest
    }

    /// A cycle in which no two rw follow each other, by edges of `kinds`, through a vertex of `component`.
    pub(super) fn cycle_nonadjacent(&self, component: &[usize], kinds: Kinds) -> Option<Cycle<'a>> {
        let count = self.edges.len();
        let mut shortest: Option<Cycle<'a>> = None;
        let mut tries = 0;
        for start in component.iter().flat_map(|vertex| [*vertex, *vertex + count]) {
            let mut before: Vec<Option<(usize, Edge<'a>)>> = vec![None; 2 * count];
            let mut queue = VecDeque::from([start]);
            while let Some(vertex) = queue.pop_front() {
                for edge in &self.edges[vertex % count] {
                    if let Some(to) = self.step(vertex, edge, kinds)
                        && before[to].is_none()
                    {
                        before[to] = Some((vertex, *edge));
                        queue.push_back(to);
                    }
                }
            }
            tries += 1;
            let mut cycle = Vec::new();
            let mut at = start;
            while let Some((vertex, edge)) = before[at] {
                cycle.push((vertex % count, edge));
                at = vertex;
                if at == start {
                    break;
                }
            }
            cycle.reverse();
            let shorter = shortest
                .as_ref()
                .is_none_or(|known| length(&cycle) < length(known));
            if at == start && !cycle.is_empty() && shorter {
                shortest = Some(cycle);
            }
            if shortest.is_some() && tries * count > SEARCH_MAX {
                break;
            }
        }
        shortest
    }
}

/// Number of transactions on a cycle.
fn length(cycle: &Cycle<'_>) -> usize {
    cycle.iter().filter(|(_, edge)| edge.kind != Kinds::PASS).count()
}

/// Vertices looked at in the search for a cycle that is as short as can be.
const SEARCH_MAX: usize = 2_000_000;

/// Tarjan's algorithm (1972), without recursion. `next` gives a vertex's edge of a number: `None` after the last,
/// `Some(None)` if it does not count.
fn components(count: usize, next: impl Fn(usize, usize) -> Option<Option<usize>>) -> Vec<Vec<usize>> {
    const NEW: usize = usize::MAX;
    let mut index = vec![NEW; count];
    let mut low = vec![0; count];
    let mut on_stack = vec![false; count];
    let mut stack = Vec::new();
    let mut found = Vec::new();
    let mut numbered = 0;
    let mut calls: Vec<(usize, usize)> = Vec::new();
    for root in 0..count {
        if index[root] != NEW {
            continue;
        }
        calls.push((root, 0));
        while let Some((vertex, place)) = calls.pop() {
            if place == 0 {
                index[vertex] = numbered;
                low[vertex] = numbered;
                numbered += 1;
                stack.push(vertex);
                on_stack[vertex] = true;
            }
            match next(vertex, place) {
                Some(to) => {
                    calls.push((vertex, place + 1));
                    match to {
                        Some(to) if index[to] == NEW => calls.push((to, 0)),
                        Some(to) if on_stack[to] => low[vertex] = low[vertex].min(index[to]),
                        _ => {}
                    }
                }
                None => {
                    if let Some((parent, _)) = calls.last() {
                        low[*parent] = low[*parent].min(low[vertex]);
                    }
                    if low[vertex] == index[vertex] {
                        let from = stack
                            .iter()
                            .rposition(|on| *on == vertex)
                            .expect("a root is on the stack");
                        let component = stack.split_off(from);
                        component.iter().for_each(|on| on_stack[*on] = false);
                        if component.len() > 1 {
                            found.push(component);
                        }
                    }
                }
            }
        }
    }
    found
}
