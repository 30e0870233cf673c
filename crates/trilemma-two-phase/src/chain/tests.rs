//! What the chain's own check sees.

use super::*;
use crate::tests::harness::{batch, caught};

fn chain() -> Chain {
    let mut chain = Chain::default();
    (1..=3).for_each(|seq| chain.push(batch(seq), Instant::ZERO));
    chain
}

#[test]
fn the_check_sees_a_batch_that_is_missing() {
    let mut chain = chain();
    chain.links.remove(1);
    assert!(caught(|| chain.check()).contains("batch 1.1.3 is chained on the one before it"));
}

#[test]
fn the_check_sees_a_gap_in_the_positions() {
    let mut chain = chain();
    Arc::make_mut(&mut chain.links[2].batch).first = Version(9);
    assert!(caught(|| chain.check()).contains("batch 1.1.3 continues the positions"));
}

#[test]
fn the_check_sees_names_that_go_back() {
    let mut chain = chain();
    Arc::make_mut(&mut chain.links[2].batch).id = batch(1).id;
    assert!(caught(|| chain.check()).contains("batch 1.1.1 comes after 1.1.2"));
}
