//! What the member's own check sees.

use super::*;
use crate::tests::harness::{batch, caught, core_of};

/// A member that has prepared two batches.
fn member(core: &Core) -> Member {
    let mut member = Member::new(&core.config);
    for seq in 1..=2 {
        member.chain.push(batch(seq), Instant::ZERO);
        member.fence = batch(seq).id;
    }
    member.check(core);
    member
}

#[test]
fn the_check_sees_a_vote_that_the_fence_does_not_cover() {
    let core = core_of(2);
    let mut member = member(&core);
    member.fence = batch(1).id;
    assert!(caught(|| member.check(&core)).contains("batch 1.1.2 is beyond the fence 1.1.1"));
}

#[test]
fn the_check_sees_a_chain_that_does_not_start_where_the_decisions_end() {
    let mut core = core_of(2);
    let member = member(&core);
    core.ledger.advance(batch(1).id);
    assert!(caught(|| member.check(&core)).contains("the chain starts at the decided point"));
}

#[test]
fn the_check_sees_a_transfer_to_a_member_that_has_a_state() {
    let core = core_of(2);
    let mut member = member(&core);
    member.install = Some(Installing::replayed(8.into()));
    assert!(caught(|| member.check(&core)).contains("only a member without state takes one"));
}

#[test]
fn the_check_sees_acknowledgements_out_of_order() {
    let core = core_of(2);
    let mut member = member(&core);
    member.outcomes = VecDeque::from([(AppendSeq(2), batch(1).id), (AppendSeq(1), batch(2).id)]);
    assert!(caught(|| member.check(&core)).contains("in the order of their records"));
}

#[test]
fn the_check_sees_what_both_roles_share() {
    let mut core = core_of(2);
    core.recorded = batch(1).id;
    assert!(caught(|| core.check()).contains("was not reached"));
    let mut core = core_of(2);
    core.missing = trilemma_core::NodeSet::of(NodeId(2));
    assert!(caught(|| core.check()).contains("a node reaches itself"));
}
