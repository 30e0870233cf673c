//! Tests of the pages that a snapshot is served in.

use super::*;
use crate::clock::Stamp;
use crate::dot::Observed;
use crate::replica::Part;

fn item(seq: u64, part: Part) -> Item {
    Item {
        dot: Dot::new(NodeId(2), Incarnation(1), seq),
        stamp: Stamp(seq),
        key: format!("k{seq}").into(),
        content: Some("v".into()),
        observed: Observed::default(),
        part,
    }
}

fn serving(items: impl Iterator<Item = Item>, theirs: Context) -> Serving {
    let mut replica = Replica::default();
    for item in items {
        replica.join(&item);
    }
    let mut closed = Context::default();
    closed.close(NodeId(2), Incarnation(1), Incarnation(2));
    replica.join_context(&closed);
    Serving {
        session: 1,
        snapshot: 1,
        spans: replica.context().minus(&theirs),
        replica,
        answer: None,
        theirs,
        used: Instant::from_nanos(0),
        is_finished: false,
    }
}

/// All pages, each as the dots that it brings.
fn pages(serving: &Serving, page_bytes: usize) -> Vec<Vec<u64>> {
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let (items, more) = serving.page(after, page_bytes);
        pages.push(items.iter().map(|item| item.dot.seq).collect());
        if more.is_none() {
            return pages;
        }
        assert!(more > after, "a page that leads nowhere");
        after = more;
    }
}

const ALONE: Part = Part { index: 0, of: 1 };

/// The incarnation is closed here and open there: its span holds all that the peer has, too.
#[test]
fn a_page_looks_at_a_limited_number_of_changes() {
    const CHANGES: u64 = 40_000;
    let mut theirs = Context::default();
    (1..CHANGES).for_each(|seq| theirs.insert(item(seq, ALONE).dot));
    let serving = serving((1..=CHANGES).map(|seq| item(seq, ALONE)), theirs);
    let pages = pages(&serving, 1 << 18);
    assert_eq!(pages, [vec![], vec![], vec![CHANGES]]);
}

#[test]
fn a_page_holds_a_limited_number_of_changes() {
    let serving = serving((1..=2500).map(|seq| item(seq, ALONE)), Context::default());
    let sizes: Vec<usize> = pages(&serving, 1 << 20).iter().map(Vec::len).collect();
    assert_eq!(sizes, [1024, 1024, 452]);
}

/// The peer has some parts of a command, and so many changes beside it that a page ends there or thereabouts.
#[test]
fn a_command_of_which_the_peer_has_parts_is_not_split() {
    let first = LOOKED_MAX as u64 - 1;
    let part = |index| item(first + u64::from(index), Part { index, of: 5 });
    let items = (1..first).map(|seq| item(seq, ALONE)).chain((0..5).map(part));
    let mut theirs = Context::default();
    (1..first).for_each(|seq| theirs.insert(item(seq, ALONE).dot));
    for index in [1, 2] {
        theirs.insert(part(index).dot);
    }
    let serving = serving(items, theirs);
    assert_eq!(pages(&serving, 1), [vec![first, first + 3, first + 4]]);
}
