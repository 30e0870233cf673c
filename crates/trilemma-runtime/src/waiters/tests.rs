//! Every waiter is answered once, and in the right class.

use std::time::Duration;

use trilemma_core::{Outcome, SessionId};

use super::*;

fn add(waiters: &mut Waiters, owed: Owed, deadline: Instant) -> (Ticket, oneshot::Receiver<Reply>) {
    let (sender, receiver) = oneshot::channel();
    let ticket = waiters
        .add(Waiter::Local(sender), owed, deadline)
        .expect("there is room");
    (ticket, receiver)
}

#[test]
fn an_overdue_write_is_unknown_and_an_overdue_read_is_not() {
    let mut waiters = Waiters::default();
    let op = OpId {
        session: SessionId::default(),
        seq: 1,
    };
    let deadline = Instant::from_nanos(1_000_000_000);
    let (ticket, mut write) = add(&mut waiters, Owed::Write(op), deadline);
    let (_, mut read) = add(&mut waiters, Owed::Read, deadline);
    waiters.expire(deadline);
    assert!(write.try_recv().is_err(), "the protocol has a moment of grace");
    waiters.expire(waiters.wake_at());
    let unknown = WriteError::Unknown {
        op,
        cause: UnknownCause::Deadline,
    };
    assert_eq!(write.try_recv().unwrap(), Reply::Write(Err(unknown)));
    assert_eq!(
        read.try_recv().unwrap(),
        Reply::Read(Err(Reason::Deadline.into()))
    );
    waiters.answer(ticket, Reply::Outcome(Ok(Outcome::Pending)));
    assert_eq!(
        waiters.wake_at(),
        Instant::NEVER,
        "a late answer finds nobody and harms nobody"
    );
}

#[test]
fn a_stop_answers_everybody() {
    let mut waiters = Waiters::default();
    let op = OpId {
        session: SessionId::default(),
        seq: 1,
    };
    let (_, mut write) = add(
        &mut waiters,
        Owed::Write(op),
        Instant::ZERO + Duration::from_secs(5),
    );
    waiters.close(&Reason::Stopping);
    let unknown = WriteError::Unknown {
        op,
        cause: UnknownCause::Stopped,
    };
    assert_eq!(write.try_recv().unwrap(), Reply::Write(Err(unknown)));
}
