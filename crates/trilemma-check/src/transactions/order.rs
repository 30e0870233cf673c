//! Whether some order of the transactions explains all their reads: complete where cycles of known dependencies are
//! not, for registers whose versions have no known order, and for writes that nobody read.
//!
//! What is ordered are instants: the begin and the commit of each transaction under snapshot isolation, one instant
//! for both from serializable on. Known dependencies are edges. What is open is a choice between two edges: another
//! write of what T read from W came before W, or after T's read; of two writers of a key under snapshot isolation one
//! commits before the other begins (Papadimitriou 1979 calls this a polygraph). An order that keeps all edges is held
//! up to date while edges come and go (Pearce and Kelly 2007); a choice that it does not keep is made by adding one of
//! its edges, and taken back when no other works. Deciding this is NP-complete: the work has a budget.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::Level;
use super::index::{Fate, Index, Key};

/// Most vertices and edges looked at: about ten seconds.
const WORK_MAX: u64 = 400_000_000;
/// Most edges held at once: about 200 MB.
const EDGES_MAX: usize = 12_000_000;

/// What came of the search for an order.
pub(super) enum Found {
    /// There is an order.
    Order,
    /// There is none; the transactions between which no choice worked.
    None(BTreeSet<usize>),
    /// The budget ran out: why.
    OutOfBudget(String),
}

type Vertex = u32;
type Edge = (Vertex, Vertex);

/// One of two edges must be kept.
#[derive(Clone, Copy)]
struct Choice {
    /// The likelier first.
    edges: [Edge; 2],
    transactions: [usize; 3],
}

/// An edge that was chosen.
struct Decision {
    edge: Edge,
    /// The other edge, if it was not tried yet.
    other: Option<Edge>,
}

/// One key's writers, and the reads of what they wrote.
struct Versions {
    writers: Vec<usize>,
    /// Reader and writer; the initial version has edges of its own.
    reads: Vec<(usize, usize)>,
}

struct Search<'i, 'a> {
    index: &'i Index<'a>,
    level: Level,
    /// The instants of each transaction; none if it does not take part.
    begin: Vec<Vertex>,
    commit: Vec<Vertex>,
    /// By when each vertex is likely to have been, to begin with a likely order.
    likely: Vec<u64>,
    out: Vec<Vec<Vertex>>,
    into: Vec<Vec<Vertex>>,
    place: Vec<u32>,
    edges: usize,
    work: u64,
    decisions: Vec<Decision>,
    involved: BTreeSet<usize>,
}

const NOWHERE: Vertex = Vertex::MAX;

/// Looks for an order that `level` (at least snapshot isolation) allows.
pub(super) fn find(index: &Index<'_>, level: Level) -> Found {
    let mut search = Search {
        index,
        level,
        begin: Vec::new(),
        commit: Vec::new(),
        likely: Vec::new(),
        out: Vec::new(),
        into: Vec::new(),
        place: Vec::new(),
        edges: 0,
        work: 0,
        decisions: Vec::new(),
        involved: BTreeSet::new(),
    };
    search.instants();
    search.time();
    let versions: Vec<Versions> = index
        .keys
        .values()
        .map(|key| {
            if key.is_list {
                search.list(key)
            } else {
                search.register(key)
            }
        })
        .collect();
    if !search.sort() {
        return Found::None(search.involved);
    }
    search.run(&versions)
}

impl Search<'_, '_> {
    fn vertex(&mut self, likely: u64) -> Vertex {
        self.likely.push(likely);
        self.out.push(Vec::new());
        self.into.push(Vec::new());
        (self.likely.len() - 1) as Vertex
    }

    /// Adds an edge that always holds.
    fn always(&mut self, from: Vertex, to: Vertex) {
        self.out[from as usize].push(to);
        self.into[to as usize].push(from);
        self.edges += 1;
    }

    fn takes_part(&self, transaction: usize) -> bool {
        self.begin[transaction] != NOWHERE
    }

    fn instants(&mut self) {
        let index = self.index;
        let writers: BTreeSet<usize> = index
            .keys
            .values()
            .flat_map(|key| key.by_transaction.keys().copied())
            .collect();
        for (at, transaction) in index.transactions.iter().enumerate() {
            if transaction.fate != Fate::Committed {
                self.begin.push(NOWHERE);
                self.commit.push(NOWHERE);
                continue;
            }
            let end = match transaction.returned {
                u64::MAX => transaction.invoke,
                returned => returned,
            };
            let is_split = self.level == Level::SnapshotIsolation && writers.contains(&at);
            let begin = self.vertex(if is_split { transaction.invoke } else { end });
            let commit = if is_split { self.vertex(end) } else { begin };
            if is_split {
                self.always(begin, commit);
            }
            self.begin.push(begin);
            self.commit.push(commit);
        }
    }

    /// The order of each process, and that of real time; as in the graph of dependencies.
    fn time(&mut self) {
        if self.level < Level::SessionSerializable {
            return;
        }
        for (before, after) in super::time::in_processes(self.index) {
            self.always(self.commit[before], self.begin[after]);
        }
        if self.level < Level::StrictSerializable {
            return;
        }
        let returns = super::time::returns(self.index);
        let mut chain: Vec<Vertex> = Vec::with_capacity(returns.len());
        for (returned, at) in &returns {
            let helper = self.vertex(*returned);
            if let Some(last) = chain.last() {
                self.always(*last, helper);
            }
            self.always(self.commit[*at], helper);
            chain.push(helper);
        }
        for (at, transaction) in self.index.transactions.iter().enumerate() {
            let before = returns.partition_point(|(returned, _)| *returned < transaction.invoke);
            if before > 0 && self.takes_part(at) {
                self.always(chain[before - 1], self.begin[at]);
            }
        }
    }

    /// The writers of a key that take part.
    fn writers(&self, key: &Key<'_>) -> Vec<usize> {
        let all = key.by_transaction.keys().copied();
        all.filter(|at| self.takes_part(*at)).collect()
    }

    /// `readers` saw a version that `writers` came after.
    fn before_all(&mut self, readers: &[usize], writers: &[usize]) {
        if readers.is_empty() || writers.is_empty() {
            return;
        }
        // One helper instead of an edge for each pair; who is both has edges of its own.
        let is_writer = |reader: &usize| writers.binary_search(reader).is_ok();
        let helper = self.vertex(self.likely[self.begin[readers[0]] as usize]);
        for writer in writers {
            self.always(helper, self.commit[*writer]);
        }
        for reader in readers {
            if !is_writer(reader) {
                self.always(self.begin[*reader], helper);
                continue;
            }
            for writer in writers.iter().filter(|writer| *writer != reader) {
                self.always(self.begin[*reader], self.commit[*writer]);
            }
        }
    }

    fn register(&mut self, key: &Key<'_>) -> Versions {
        let writers = self.writers(key);
        let (mut reads, mut initial) = (Vec::new(), Vec::new());
        for read in key.reads.iter().filter(|read| read.is_external) {
            let writer = read.found.last().and_then(|value| key.wrote(value));
            match writer.map(|wrote| wrote.transaction) {
                None => initial.push(read.transaction),
                Some(writer) => {
                    self.always(self.commit[writer], self.begin[read.transaction]);
                    reads.push((read.transaction, writer));
                }
            }
        }
        self.before_all(&initial, &writers);
        Versions { writers, reads }
    }

    /// The longest read shows the order of the writers that were read; the others come after them.
    fn list(&mut self, key: &Key<'_>) -> Versions {
        let longest = key.longest.map_or(&[][..], |at| key.reads[at].found);
        let mut order: Vec<usize> = Vec::new();
        // How many writers each number of elements comes from.
        let mut known: Vec<usize> = vec![0];
        for element in longest {
            let writer = key.wrote(element).map(|wrote| wrote.transaction);
            if let Some(writer) = writer.filter(|writer| order.last() != Some(writer)) {
                order.push(writer);
            }
            known.push(order.len());
        }
        for pair in order.windows(2) {
            self.always(self.commit[pair[0]], self.begin[pair[1]]);
        }
        let read: BTreeSet<usize> = order.iter().copied().collect();
        let mut unread = self.writers(key);
        unread.retain(|at| !read.contains(at));
        if let Some(last) = order.last() {
            for at in &unread {
                self.always(self.commit[*last], self.begin[*at]);
            }
        }
        let mut ends: Vec<usize> = Vec::new();
        for read in key.reads.iter().filter(|read| read.is_external) {
            let seen = known[read.found.len()];
            if let Some(last) = seen.checked_sub(1).map(|last| order[last]) {
                self.always(self.commit[last], self.begin[read.transaction]);
            }
            match order.get(seen) {
                Some(next) if *next != read.transaction => {
                    self.always(self.begin[read.transaction], self.commit[*next]);
                }
                Some(_) => {}
                None => ends.push(read.transaction),
            }
        }
        self.before_all(&ends, &unread);
        // Those that were read are in order already.
        Versions {
            writers: unread,
            reads: Vec::new(),
        }
    }

    /// A first order that keeps all edges, as likely as can be; false if there is none.
    fn sort(&mut self) -> bool {
        let count = self.likely.len();
        let mut open: Vec<usize> = self.into.iter().map(Vec::len).collect();
        let mut free: BinaryHeap<Reverse<(u64, usize)>> = (0..count)
            .filter(|vertex| open[*vertex] == 0)
            .map(|vertex| Reverse((self.likely[vertex], vertex)))
            .collect();
        self.place = vec![0; count];
        let mut placed = 0;
        while let Some(Reverse((_, vertex))) = free.pop() {
            self.place[vertex] = placed;
            placed += 1;
            for to in &self.out[vertex] {
                open[*to as usize] -= 1;
                if open[*to as usize] == 0 {
                    free.push(Reverse((self.likely[*to as usize], *to as usize)));
                }
            }
        }
        let left = (0..self.begin.len()).filter(|at| self.takes_part(*at));
        let left: BTreeSet<usize> = left
            .filter(|at| open[self.begin[*at] as usize] > 0 || open[self.commit[*at] as usize] > 0)
            .collect();
        self.involved = left;
        placed as usize == count
    }

    fn run(&mut self, versions: &[Versions]) -> Found {
        loop {
            let mut is_kept = true;
            for key in versions {
                loop {
                    let choices = self.unmade(key);
                    if choices.is_empty() {
                        break;
                    }
                    is_kept = false;
                    for choice in choices {
                        if !self.decide(choice) {
                            return Found::None(std::mem::take(&mut self.involved));
                        }
                        if self.work > WORK_MAX || self.edges > EDGES_MAX {
                            let why = format!(
                                "the search for an order of the transactions ended after {} steps with {} edges",
                                self.work, self.edges
                            );
                            return Found::OutOfBudget(why);
                        }
                    }
                }
            }
            if is_kept {
                return Found::Order;
            }
        }
    }

    /// The choices of a key that the present order does not keep.
    fn unmade(&mut self, key: &Versions) -> Vec<Choice> {
        let mut choices = Vec::new();
        if self.level == Level::SnapshotIsolation {
            self.overlaps(key, &mut choices);
        }
        // Commits of writers and begins of readers; at one instant the read comes first.
        let mut events: Vec<(u32, bool, usize, usize)> =
            Vec::with_capacity(key.writers.len() + key.reads.len());
        for writer in &key.writers {
            events.push((self.place[self.commit[*writer] as usize], true, *writer, *writer));
        }
        for (reader, writer) in &key.reads {
            events.push((self.place[self.begin[*reader] as usize], false, *reader, *writer));
        }
        events.sort_unstable();
        self.work += events.len() as u64;
        let mut last = None;
        for (_, is_write, at, writer) in events {
            if is_write {
                last = Some(at);
                continue;
            }
            if let Some(other) = last.filter(|last| *last != writer && *last != at) {
                choices.push(self.between(at, writer, other));
            }
        }
        choices
    }

    /// `other` must not write between `writer` and `reader`, which saw the writer's value.
    fn between(&self, reader: usize, writer: usize, other: usize) -> Choice {
        let earlier = (self.commit[other], self.begin[writer]);
        let later = (self.begin[reader], self.commit[other]);
        let ended = |at: usize| self.index.transactions[at].returned;
        let edges = if ended(other) <= ended(writer) {
            [earlier, later]
        } else {
            [later, earlier]
        };
        Choice {
            edges,
            transactions: [reader, writer, other],
        }
    }

    /// Two writers of one key of which neither commits before the other begins.
    fn overlaps(&mut self, key: &Versions, choices: &mut Vec<Choice>) {
        let place = |vertex: Vertex| self.place[vertex as usize];
        let mut writers: Vec<(u32, usize)> = key
            .writers
            .iter()
            .map(|writer| (place(self.begin[*writer]), *writer))
            .collect();
        writers.sort_unstable();
        self.work += writers.len() as u64;
        let mut longest: Option<usize> = None;
        for (begin, writer) in writers {
            if let Some(other) = longest.filter(|other| place(self.commit[*other]) > begin) {
                let one = (self.commit[other], self.begin[writer]);
                let two = (self.commit[writer], self.begin[other]);
                let ended = |at: usize| self.index.transactions[at].returned;
                choices.push(Choice {
                    edges: if ended(other) <= ended(writer) {
                        [one, two]
                    } else {
                        [two, one]
                    },
                    transactions: [writer, other, other],
                });
            }
            let is_longer =
                longest.is_none_or(|other| place(self.commit[other]) < place(self.commit[writer]));
            if is_longer {
                longest = Some(writer);
            }
        }
    }

    /// Keeps one edge of the choice; false if that cannot be, whatever was chosen before.
    fn decide(&mut self, choice: Choice) -> bool {
        let is_before = |edge: Edge| self.place[edge.0 as usize] < self.place[edge.1 as usize];
        // An earlier choice of the same round may have resolved it.
        if choice.edges.into_iter().any(is_before) {
            return true;
        }
        self.involved.extend(choice.transactions);
        let [first, second] = choice.edges;
        if self.add(first) {
            let other = Some(second);
            self.decisions.push(Decision { edge: first, other });
            return true;
        }
        if self.add(second) {
            self.decisions.push(Decision {
                edge: second,
                other: None,
            });
            return true;
        }
        while let Some(decision) = self.decisions.pop() {
            self.take_back(decision.edge);
            if let Some(edge) = decision.other
                && self.add(edge)
            {
                self.decisions.push(Decision { edge, other: None });
                return true;
            }
            if self.work > WORK_MAX {
                return true;
            }
        }
        false
    }

    fn take_back(&mut self, edge: Edge) {
        for (list, vertex) in [
            (&mut self.out[edge.0 as usize], edge.1),
            (&mut self.into[edge.1 as usize], edge.0),
        ] {
            let at = list.iter().rposition(|other| *other == vertex);
            list.swap_remove(at.expect("an edge that was added is there"));
        }
        self.edges -= 1;
    }

    /// Adds an edge and puts the vertices in an order that keeps it; false if there is none.
    fn add(&mut self, edge: Edge) -> bool {
        let (from, to) = edge;
        let (low, high) = (self.place[to as usize], self.place[from as usize]);
        if from == to {
            return false;
        }
        if high > low {
            // What comes after `to` and what comes before `from`, as far as they are between the two.
            let Some(after) = self.reach(to, &|search, vertex| &search.out[vertex], from, low..=high) else {
                return false;
            };
            let Some(before) = self.reach(from, &|search, vertex| &search.into[vertex], to, low..=high)
            else {
                return false;
            };
            let by_place = |search: &Self, mut found: Vec<Vertex>| {
                found.sort_unstable_by_key(|vertex| search.place[*vertex as usize]);
                found
            };
            let moved: Vec<Vertex> = by_place(self, before)
                .into_iter()
                .chain(by_place(self, after))
                .collect();
            let mut places: Vec<u32> = moved.iter().map(|vertex| self.place[*vertex as usize]).collect();
            places.sort_unstable();
            for (vertex, place) in moved.into_iter().zip(places) {
                self.place[vertex as usize] = place;
            }
        }
        self.always(from, to);
        true
    }

    /// What can be reached from `start` within the places; `None` if that is `goal`.
    fn reach(
        &mut self,
        start: Vertex,
        next: &dyn Fn(&Self, usize) -> &Vec<Vertex>,
        goal: Vertex,
        within: std::ops::RangeInclusive<u32>,
    ) -> Option<Vec<Vertex>> {
        let mut seen: BTreeSet<Vertex> = BTreeSet::from([start]);
        let mut found = vec![start];
        let mut place = 0;
        let mut work = 0;
        while let Some(vertex) = found.get(place).copied() {
            place += 1;
            for to in next(self, vertex as usize) {
                work += 1;
                if *to == goal {
                    self.work += work;
                    return None;
                }
                if within.contains(&self.place[*to as usize]) && seen.insert(*to) {
                    found.push(*to);
                }
            }
        }
        self.work += work;
        Some(found)
    }
}
