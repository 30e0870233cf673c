//! The check can fail, whichever comes first, and a later attempt may run.

use trilemma_core::{Attempt, Command, Incarnation, Reason, SessionId, Version};

use super::*;

const NODE: NodeId = NodeId(1);

fn op() -> OpId {
    OpId {
        session: SessionId {
            basis: Version(1),
            nonce: 1,
        },
        seq: 1,
    }
}

fn asked(refused: &mut Refused, ticket: Ticket) {
    let write = Request::Write {
        op: op(),
        command: Command::put("k", "v"),
        attempt: Attempt::First,
    };
    refused.ask(NODE, ticket, &write);
}

fn refuse(refused: &mut Refused, ticket: Ticket) -> Result<(), Broken> {
    let why = Reason::Deadline.into();
    refused.answer(NODE, ticket, &Reply::Write(Err(WriteError::NotApplied(why))))
}

fn chosen(refused: &mut Refused) -> Result<(), Broken> {
    let result = OpResult::Applied {
        succeeded: true,
        version: Version(2),
        found: Version(1),
    };
    let register = Register {
        recent: vec![Recent { op: op(), result }],
        ..Register::default()
    };
    let ballot = Ballot {
        counter: 1,
        node: NODE,
        incarnation: Incarnation(1),
    };
    refused.choose(&"k".into(), ballot, &register)
}

#[test]
fn what_was_refused_and_is_chosen_later_is_seen() {
    let mut refused = Refused::default();
    asked(&mut refused, Ticket(1));
    refuse(&mut refused, Ticket(1)).expect("nothing is chosen yet");
    assert_eq!(chosen(&mut refused).map_err(|(check, _)| check), Err("refused"));
}

#[test]
fn what_is_chosen_and_refused_later_is_seen() {
    let mut refused = Refused::default();
    asked(&mut refused, Ticket(1));
    chosen(&mut refused).expect("nothing is refused yet");
    assert_eq!(
        refuse(&mut refused, Ticket(1)).map_err(|(check, _)| check),
        Err("refused")
    );
}

#[test]
fn a_later_attempt_of_what_was_refused_may_run() {
    let mut refused = Refused::default();
    asked(&mut refused, Ticket(1));
    refuse(&mut refused, Ticket(1)).expect("nothing is chosen yet");
    asked(&mut refused, Ticket(2));
    chosen(&mut refused).expect("the second attempt ran");
}
