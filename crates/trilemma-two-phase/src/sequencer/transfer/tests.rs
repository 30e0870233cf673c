//! Which pieces a transfer gives out.

use trilemma_core::{Command, OpId};

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

#[test]
fn a_late_question_for_the_first_piece_does_not_end_a_transfer() {
    let mut table = Table::default();
    for number in 1..=5 {
        let key = format!("key/{number}");
        let op = OpId {
            seq: number,
            ..OpId::default()
        };
        table.apply(op, &Command::put(key.as_str(), "value"), Version(number));
    }
    let mut transfer = Transfer::new(1, table.clone(), 1, BatchId::default(), BatchId::default());
    let whole: Vec<Message> = (0..).map_while(|index| transfer.piece(index)).collect();
    assert!(whole.len() > 4, "{} pieces", whole.len());
    let mut transfer = Transfer::new(1, table, 1, BatchId::default(), BatchId::default());
    for (index, piece) in (0..).zip(&whole) {
        assert_eq!(transfer.piece(index).as_ref(), Some(piece));
        // The network has kept one since the beginning.
        assert_eq!(transfer.piece(0).as_ref(), Some(&whole[0]));
    }
}
