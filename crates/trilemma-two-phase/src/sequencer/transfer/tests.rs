//! Which pieces a transfer gives out.

use trilemma_core::{Command, OpId};

use super::*;

#[test]
fn no_piece_that_is_not_there_is_given_out() {
    let mut transfer = transfer(Table::default());
    assert!(transfer.piece(u32::MAX).is_none(), "no number overflows");
    assert!(transfer.piece(1).is_none());
    assert!(transfer.piece(0).is_some());
    assert!(transfer.piece(0).is_some(), "the answer may have been lost");
    assert!(transfer.piece(u32::MAX).is_none());
}

fn table(keys: u64) -> Table {
    let mut table = Table::default();
    for number in 1..=keys {
        let key = format!("key/{number}");
        let op = OpId {
            seq: number,
            ..OpId::default()
        };
        table.apply(op, &Command::put(key.as_str(), "value"), Version(number));
    }
    table
}

fn transfer(table: Table) -> Transfer {
    Transfer::new(1, table, 1, BatchId::default(), BatchId::default())
}

fn whole() -> Vec<Message> {
    let mut transfer = transfer(table(5));
    let whole: Vec<Message> = (0..).map_while(|index| transfer.piece(index)).collect();
    assert!(whole.len() > 4, "{} pieces", whole.len());
    whole
}

#[test]
fn a_late_question_for_the_first_piece_does_not_end_a_transfer() {
    let whole = whole();
    let mut transfer = transfer(table(5));
    for (index, piece) in (0..).zip(&whole) {
        assert_eq!(transfer.piece(index).as_ref(), Some(piece));
        // The network has kept one since the beginning.
        assert_eq!(transfer.piece(0).as_ref(), Some(&whole[0]));
    }
}

/// It was for the transfer of a former process of the sequencer.
#[test]
fn a_late_question_for_any_piece_does_not_end_a_transfer() {
    let whole = whole();
    for (late, again) in (0..).zip(&whole) {
        let mut transfer = transfer(table(5));
        for (index, piece) in (0..).zip(&whole) {
            assert_eq!(transfer.piece(late).as_ref(), Some(again));
            assert_eq!(transfer.piece(index).as_ref(), Some(piece), "{late} was late");
        }
        assert!(transfer.piece(u32::MAX).is_none(), "there is none of this number");
    }
}

/// A turn makes a few pieces, however far away the one is that is asked for.
#[test]
fn a_piece_that_is_far_away_is_reached_by_asking_again() {
    let far = 3 * MADE_MAX;
    let mut transfer = transfer(table(200));
    let asked = (1..10).find(|_| transfer.piece(far).is_some());
    assert_eq!(asked, Some(4));
    assert!(transfer.piece(0).is_some());
}
