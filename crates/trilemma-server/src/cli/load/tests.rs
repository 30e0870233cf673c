//! What repeated writes of a load are.

use trilemma::{NotApplied, OpId, Reason, UnknownCause, WriteError};

use super::*;

/// A certain refusal stays certain, however often it is repeated; what may have happened stays so, too.
#[test]
fn h6_an_attempt_is_a_repeat_only_after_one_whose_outcome_is_not_known() {
    let refused: Result<Receipt, Error> = Err(Error::Write(WriteError::NotApplied(NotApplied::never(
        Reason::NoLeader,
    ))));
    let unknown: Result<Receipt, Error> = Err(Error::Write(WriteError::Unknown {
        op: OpId::default(),
        cause: UnknownCause::ReplyLost,
    }));
    assert_eq!(attempt_after(Attempt::First, &refused), Attempt::First);
    assert_eq!(attempt_after(Attempt::First, &unknown), Attempt::Retry);
    assert_eq!(attempt_after(Attempt::Retry, &refused), Attempt::Retry);
    assert_eq!(attempt_after(Attempt::Retry, &unknown), Attempt::Retry);
}
