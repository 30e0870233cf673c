//! What the ledger's own check sees.

use super::*;
use crate::tests::harness::{batch, caught};

fn ledger() -> Ledger {
    let mut ledger = Ledger::new(8.into());
    ledger.advance(batch(1).id);
    ledger.advance(batch(2).id);
    ledger
}

#[test]
fn the_check_sees_a_decision_that_is_not_remembered() {
    let mut ledger = ledger();
    ledger.decided = batch(3).id;
    assert!(caught(|| ledger.check()).contains("the last decision is the last remembered one"));
}

#[test]
fn the_check_sees_a_floor_above_what_is_remembered() {
    let mut ledger = ledger();
    ledger.floor = batch(1).id;
    assert!(caught(|| ledger.check()).contains("after the floor 1.1.1"));
}

#[test]
fn the_check_sees_decisions_out_of_order() {
    let mut ledger = ledger();
    ledger.recent.insert(1, batch(3).id);
    assert!(caught(|| ledger.check()).contains("remembered in order"));
}
