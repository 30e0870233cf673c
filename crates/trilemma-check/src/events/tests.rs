//! One list of events: a session, local reads and a watch, right and wrong.

use super::*;
use crate::history::{Answer, Call, Outcome};
use crate::watch::State;

const PROMISE: Promise = Promise {
    order: Order::Keyspace,
    guarantees: Some(Guarantees::ALL),
    locals_in_session: true,
    positions_are_versions: true,
};

fn put(at: u64, version: u64, value: &str) -> Event {
    let call = Call::Put {
        key: "a".into(),
        value: value.into(),
    };
    let version = Some(version);
    Event::Operation(operation(at, call, Answer::Done { version }))
}

fn local(at: u64, value: Option<&str>, version: Option<u64>) -> Event {
    let value = value.map(String::from);
    let call = Call::Get { key: "a".into() };
    Event::Local(operation(
        at,
        call,
        Answer::Value {
            value,
            version,
            at: None,
        },
    ))
}

fn operation(at: u64, call: Call, answer: Answer) -> Operation {
    Operation {
        process: 1,
        invoke: at * 10,
        returned: Some(at * 10 + 5),
        call,
        outcome: Outcome::Ok(answer),
    }
}

fn watch(number: u64, resume: Option<u64>) -> Event {
    Event::Watch {
        watch: number,
        process: 2,
        keys: Keys::all(),
        resume: resume.map(position),
    }
}

fn position(at: u64) -> Position {
    Position { stream: 1, at }
}

fn change(number: u64, at: u64, value: &str) -> Event {
    let state = State {
        key: "a".into(),
        value: Some(value.into()),
        version: Some(at),
    };
    Event::Item {
        watch: number,
        item: Item::Changes {
            position: position(at),
            changes: vec![state],
            more: false,
        },
    }
}

fn rule(events: &[Event], promise: Promise) -> &'static str {
    match check(events, promise) {
        Verdict::Legal => "legal",
        Verdict::Undecided { .. } => "undecided",
        Verdict::Illegal(found) => found.rule,
    }
}

#[test]
fn a_run_that_keeps_its_promise_is_legal() {
    let events = [
        watch(1, Some(0)),
        put(1, 1, "x"),
        change(1, 1, "x"),
        put(2, 2, "y"),
        local(3, Some("y"), Some(2)),
        watch(2, Some(1)),
        change(2, 2, "y"),
    ];
    assert_eq!(check(&events, PROMISE), Verdict::Legal);
}

#[test]
fn each_part_of_the_promise_is_judged() {
    let begin = [put(1, 1, "x"), put(2, 2, "y")];
    let with = |more: &[Event]| [&begin[..], more].concat();
    let stale = with(&[local(3, Some("x"), Some(1))]);
    assert_eq!(rule(&stale, PROMISE), "read-your-writes");
    let free = Promise {
        locals_in_session: false,
        ..PROMISE
    };
    assert_eq!(rule(&stale, free), "legal");
    assert_eq!(rule(&with(&[local(3, Some("z"), None)]), free), "thin-air");
    let skips = with(&[watch(1, Some(0)), change(1, 2, "y")]);
    assert_eq!(rule(&skips, PROMISE), "watch-resume");
    let repeats = with(&[watch(1, Some(1)), change(1, 1, "x")]);
    assert_eq!(rule(&repeats, PROMISE), "watch-resume");
    let invents = with(&[watch(1, Some(1)), change(1, 2, "z")]);
    assert_eq!(rule(&invents, PROMISE), "watch-thin-air");
}

#[test]
fn what_cannot_be_judged_is_undecided() {
    assert_eq!(rule(&[], PROMISE), "undecided");
    assert_eq!(rule(&[change(1, 1, "x")], PROMISE), "undecided");
    assert_eq!(rule(&[watch(1, None), watch(1, None)], PROMISE), "undecided");
}
