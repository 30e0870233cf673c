//! Which pieces a transfer gives out.

use super::*;

#[test]
fn only_the_next_piece_the_one_before_and_the_first_are_given_out() {
    let mut transfer = Transfer::new(1, Table::default(), 1, BatchId::default(), BatchId::default());
    assert!(transfer.piece(u32::MAX).is_none(), "no number overflows");
    assert!(transfer.piece(1).is_none());
    assert!(transfer.piece(0).is_some());
    assert!(transfer.piece(0).is_some(), "the answer may have been lost");
    assert!(transfer.piece(u32::MAX).is_none());
}
