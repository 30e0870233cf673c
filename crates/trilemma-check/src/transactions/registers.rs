//! Dependencies through registers: what is known of the order of their versions.
//!
//! Own writes follow each other; a transaction that read a version before it wrote has replaced it or a later one
//! (from snapshot isolation on); under strict serializability a version whose transaction had returned before another
//! one's began is earlier. All this is only used to find out who replaced what somebody read: the edges between the
//! writers themselves are there already, as reads or in time.

use std::collections::{BTreeMap, BTreeSet};

use super::Level;
use super::graph::{Graph, Kinds};
use super::index::{Index, Key};
use super::lists::edge;
use crate::verdict::Verdict;

/// What shows the order of versions in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inference {
    /// The transactions that wrote them.
    Writes,
    /// Also those that read them.
    Touches,
}

/// As in lists, for a version read by many that wrote themselves.
const PAIRS_MAX: usize = 256;

/// A version: `None` is that before all writes.
type Version<'a> = Option<&'a str>;

/// Which versions come directly after each, and the transactions that tell.
type Order<'a> = BTreeMap<Version<'a>, BTreeMap<Version<'a>, (usize, usize)>>;

/// Adds the edges of every register; a verdict if its versions have no order.
pub(super) fn add<'a>(
    index: &Index<'a>,
    level: Level,
    inference: Inference,
    graph: &mut Graph<'a>,
) -> Option<Verdict> {
    for (name, key) in index.keys.iter().filter(|(_, key)| !key.is_list) {
        let order = order(index, name, key, level, inference);
        if inference == Inference::Touches
            && let Some(found) = cyclic(name, &order)
        {
            return Some(found);
        }
        add_key(index, name, key, &order, graph);
    }
    None
}

fn order<'a>(index: &Index<'a>, name: &str, key: &Key<'a>, level: Level, inference: Inference) -> Order<'a> {
    let mut order = Order::new();
    let mut put = |from: Version<'a>, to: Version<'a>, shown: (usize, usize)| {
        if from != to {
            order.entry(from).or_default().entry(to).or_insert(shown);
        }
    };
    for (at, own) in &key.by_transaction {
        if index.is_committed(*at) {
            own.windows(2)
                .for_each(|pair| put(Some(pair[0]), Some(pair[1]), (*at, *at)));
        }
    }
    if level >= Level::SnapshotIsolation {
        for read in key.reads.iter().filter(|read| read.is_external) {
            if let Some(first) = key.writes_of(read.transaction).first() {
                put(
                    version(read.found),
                    Some(first),
                    (read.transaction, read.transaction),
                );
            }
        }
    }
    if level == Level::StrictSerializable {
        in_time(index, name, key, inference, &mut put);
    }
    let followed: BTreeSet<Version<'a>> = order.values().flat_map(BTreeMap::keys).copied().collect();
    let written = key
        .writes
        .iter()
        .filter(|(_, wrote)| index.is_committed(wrote.transaction));
    for (value, wrote) in written {
        if !followed.contains(&Some(*value)) {
            let shown = (wrote.transaction, wrote.transaction);
            order
                .entry(None)
                .or_default()
                .entry(Some(*value))
                .or_insert(shown);
        }
    }
    order
}

fn version(found: &[String]) -> Version<'_> {
    found.last().map(String::as_str)
}

/// The first and the last version that each transaction has to do with.
fn touched<'a>(
    index: &Index<'a>,
    key: &Key<'a>,
    inference: Inference,
) -> BTreeMap<usize, (Version<'a>, Version<'a>)> {
    let mut touched = BTreeMap::new();
    if inference == Inference::Touches {
        for read in key.reads.iter().filter(|read| read.is_external) {
            touched.insert(read.transaction, (version(read.found), version(read.found)));
        }
    }
    for (at, own) in &key.by_transaction {
        if let (Some(first), Some(last), true) = (own.first(), own.last(), index.is_committed(*at)) {
            touched.entry(*at).or_insert((Some(*first), None)).1 = Some(*last);
        }
    }
    touched
}

/// Versions whose transactions follow each other in time. A sweep that keeps those which have returned and which
/// nobody that returned had followed: they all overlap, so there are no more than processes.
fn in_time<'a>(
    index: &Index<'a>,
    name: &str,
    key: &Key<'a>,
    inference: Inference,
    put: &mut impl FnMut(Version<'a>, Version<'a>, (usize, usize)),
) {
    let touched = touched(index, key, inference);
    let mut events: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * touched.len());
    for at in touched.keys() {
        let transaction = &index.transactions[*at];
        assert!(
            transaction.invoke <= transaction.returned,
            "{name}: an operation returns after it was asked for"
        );
        // At equal times what begins comes first: it was not after.
        events.push((transaction.invoke, false, *at));
        if transaction.returned != u64::MAX {
            events.push((transaction.returned, true, *at));
        }
    }
    events.sort_unstable();
    let mut frontier: BTreeSet<usize> = BTreeSet::new();
    let mut before: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (_, returns, at) in events {
        if returns {
            for followed in before.remove(&at).unwrap_or_default() {
                frontier.remove(&followed);
            }
            frontier.insert(at);
        } else {
            for earlier in &frontier {
                put(touched[earlier].1, touched[&at].0, (*earlier, at));
            }
            before.insert(at, frontier.iter().copied().collect());
        }
    }
}

/// A cycle of versions, found by taking away those that nothing precedes.
fn cyclic(name: &str, order: &Order<'_>) -> Option<Verdict> {
    let mut preceding: BTreeMap<Version<'_>, usize> = BTreeMap::new();
    for (from, to) in order {
        preceding.entry(*from).or_default();
        for to in to.keys() {
            *preceding.entry(*to).or_default() += 1;
        }
    }
    let mut free: Vec<Version<'_>> = preceding
        .iter()
        .filter(|(_, count)| **count == 0)
        .map(|(version, _)| *version)
        .collect();
    while let Some(version) = free.pop() {
        preceding.remove(&version);
        for to in order.get(&version).into_iter().flat_map(BTreeMap::keys) {
            if let Some(count) = preceding.get_mut(to) {
                *count -= 1;
                if *count == 0 {
                    free.push(*to);
                }
            }
        }
    }
    // What is left has a predecessor that is left: going back must come to where one was.
    let mut path: Vec<Version<'_>> = vec![*preceding.keys().next()?];
    let cycle = loop {
        let at = *path.last().expect("never empty");
        let back = order
            .iter()
            .find(|(from, to)| preceding.contains_key(*from) && to.contains_key(&at));
        let from = *back.expect("each that is left has one").0;
        if let Some(place) = path.iter().position(|version| *version == from) {
            break path.split_off(place);
        }
        path.push(from);
    };
    let show = |version: &Version<'_>| version.unwrap_or("nothing").to_string();
    let mut shown = Vec::new();
    let mut words = Vec::new();
    for (place, to) in cycle.iter().enumerate() {
        let from = &cycle[(place + 1) % cycle.len()];
        if let Some((first, second)) = order.get(from).and_then(|order| order.get(to)) {
            shown.extend([*first, *second]);
            words.push(format!(
                "{} before {} by T{first} and T{second}",
                show(from),
                show(to)
            ));
        }
    }
    words.reverse();
    let what = format!("the versions of {name} have no order: {}", words.join(", "));
    Some(Verdict::illegal("cyclic-versions", what, shown))
}

fn add_key<'a>(index: &Index<'a>, name: &'a str, key: &Key<'a>, order: &Order<'a>, graph: &mut Graph<'a>) {
    let mut helpers: BTreeMap<Version<'a>, usize> = BTreeMap::new();
    let mut pairs = 0;
    for read in &key.reads {
        let at = read.transaction;
        let value = version(read.found);
        let wrote = value.and_then(|value| key.wrote(value));
        if wrote.is_some_and(|wrote| wrote.transaction == at || index.is_aborted(wrote.transaction)) {
            continue;
        }
        if let Some(wrote) = wrote {
            graph.add(wrote.transaction, edge(at, Kinds::WR, name, value, None));
        }
        let next: Vec<(&'a str, usize)> = order
            .get(&value)
            .into_iter()
            .flat_map(BTreeMap::keys)
            .filter_map(|next| Some(((*next)?, key.wrote((*next)?)?.transaction)))
            .collect();
        if key.writes_of(at).is_empty() && next.len() > 1 {
            let helper = *helpers.entry(value).or_insert_with(|| {
                let helper = graph.helper();
                for (element, to) in &next {
                    graph.add(helper, edge(*to, Kinds::PASS, name, None, Some(element)));
                }
                helper
            });
            graph.add(at, edge(helper, Kinds::RW, name, value, None));
        } else {
            for (place, (element, to)) in next.iter().enumerate() {
                // The first of each is always drawn.
                pairs += usize::from(place > 0);
                if place == 0 || pairs <= PAIRS_MAX {
                    graph.add(at, edge(*to, Kinds::RW, name, value, Some(element)));
                }
            }
        }
    }
}
