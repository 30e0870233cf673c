//! Small histories whose verdict is known by hand.

use super::*;
use crate::history::{Answer, Call, Change, Entry, Guard, Outcome};

fn done(version: u64) -> Outcome {
    Outcome::Ok(Answer::Done {
        version: (version > 0).then_some(version),
    })
}

fn op(process: u64, invoke: u64, returned: u64, call: Call, outcome: Outcome) -> Operation {
    Operation {
        process,
        invoke,
        returned: Some(returned),
        call,
        outcome,
    }
}

fn put(invoke: u64, returned: u64, key: &str, value: &str, outcome: Outcome) -> Operation {
    let call = Call::Put {
        key: key.into(),
        value: value.into(),
    };
    op(1, invoke, returned, call, outcome)
}

fn delete(invoke: u64, returned: u64, key: &str, outcome: Outcome) -> Operation {
    op(1, invoke, returned, Call::Delete { key: key.into() }, outcome)
}

fn get(invoke: u64, returned: u64, key: &str, value: Option<&str>, version: u64, at: u64) -> Operation {
    let answer = Answer::Value {
        value: value.map(Into::into),
        version: (version > 0).then_some(version),
        at: (at > 0).then_some(at),
    };
    op(
        2,
        invoke,
        returned,
        Call::Get { key: key.into() },
        Outcome::Ok(answer),
    )
}

fn cas(
    invoke: u64,
    returned: u64,
    (from, to): (Option<&str>, Option<&str>),
    succeeded: Option<bool>,
    version: u64,
) -> Operation {
    let call = Call::Cas {
        key: "a".into(),
        expected: from.map(Into::into),
        value: to.map(Into::into),
    };
    let outcome = succeeded.map_or(Outcome::Unknown, |succeeded| {
        Outcome::Ok(Answer::Won {
            succeeded,
            version: (version > 0).then_some(version),
        })
    });
    op(3, invoke, returned, call, outcome)
}

fn range(
    invoke: u64,
    returned: u64,
    limit: Option<u32>,
    found: &[(&str, &str)],
    more: bool,
    at: u64,
) -> Operation {
    let entries = found.iter().map(|(key, value)| Entry {
        key: (*key).into(),
        value: (*value).into(),
        version: None,
    });
    let call = Call::Range {
        start: String::new(),
        end: None,
        limit,
    };
    let answer = Answer::Entries {
        entries: entries.collect(),
        more,
        at: (at > 0).then_some(at),
    };
    op(4, invoke, returned, call, Outcome::Ok(answer))
}

#[track_caller]
fn legal(operations: &[Operation], model: Model) {
    let report = check(operations, model, Budget::default());
    assert_eq!(report.verdict, Verdict::Legal, "{:#?}", report.engines);
}

#[track_caller]
fn illegal(operations: &[Operation], model: Model, rule: &str) -> Violation {
    let report = check(operations, model, Budget::default());
    match report.verdict {
        Verdict::Illegal(violation) if violation.rule == rule => violation,
        _ => panic!("expected {rule}: {:#?}", report.engines),
    }
}

#[test]
fn a_read_sees_the_last_write() {
    let history = [
        put(0, 1, "a", "x", done(1)),
        put(2, 3, "a", "y", done(2)),
        get(4, 5, "a", Some("y"), 2, 2),
    ];
    for model in [Model::KeyValue, Model::PerKey, Model::Register] {
        legal(&history, model);
    }
}

#[test]
fn a_read_that_misses_a_complete_write_is_stale() {
    let history = [
        put(0, 1, "a", "x", done(1)),
        put(2, 3, "a", "y", done(2)),
        get(4, 5, "a", Some("x"), 1, 1),
    ];
    for model in [Model::KeyValue, Model::PerKey, Model::Register] {
        let violation = illegal(&history, model, "stale-read");
        assert_eq!(violation.operations, [1, 2]);
    }
    let overlapping = [
        history[0].clone(),
        put(2, 4, "a", "y", done(2)),
        history[2].clone(),
    ];
    legal(&overlapping, Model::KeyValue);
}

#[test]
fn an_unknown_write_may_be_seen_late_or_never() {
    let unknown = put(0, 1, "a", "x", Outcome::Unknown);
    let other = put(2, 3, "a", "y", done(4));
    legal(
        &[unknown.clone(), other.clone(), get(5, 6, "a", Some("y"), 4, 9)],
        Model::KeyValue,
    );
    legal(
        &[unknown.clone(), other.clone(), get(5, 6, "a", Some("x"), 7, 9)],
        Model::KeyValue,
    );
    illegal(
        &[
            unknown,
            other,
            get(5, 6, "a", Some("x"), 7, 9),
            get(7, 8, "a", Some("y"), 4, 9),
        ],
        Model::KeyValue,
        "wrong-state",
    );
}

#[test]
fn an_unknown_delete_explains_a_missing_key() {
    let history = [
        put(0, 1, "a", "x", done(1)),
        delete(2, 3, "a", Outcome::Unknown),
        get(4, 5, "a", Some("x"), 1, 1),
        get(6, 7, "a", None, 0, 3),
    ];
    legal(&history, Model::KeyValue);
    illegal(
        &[history[0].clone(), history[3].clone()],
        Model::KeyValue,
        "wrong-state",
    );
}

#[test]
fn a_failed_write_must_not_be_seen() {
    let history = [
        put(0, 1, "a", "x", Outcome::Fail),
        get(2, 3, "a", Some("x"), 1, 1),
    ];
    illegal(&history, Model::KeyValue, "failed-write-seen");
    illegal(&history[1..], Model::KeyValue, "value-from-nowhere");
}

#[test]
fn two_commands_cannot_win_from_one_value() {
    let history = [
        put(0, 1, "a", "x", done(1)),
        cas(2, 5, (Some("x"), Some("y")), Some(true), 2),
        cas(2, 5, (Some("x"), Some("z")), Some(true), 3),
    ];
    illegal(&history, Model::KeyValue, "guard");
    illegal(&history, Model::PerKey, "guard");
    let lost = cas(2, 5, (Some("x"), Some("z")), Some(false), 3);
    legal(&[history[0].clone(), history[1].clone(), lost], Model::PerKey);
}

#[test]
fn a_command_changes_all_keys_at_once() {
    let command = Call::Command {
        guards: vec![Guard::Version {
            key: "a".into(),
            is: 0,
        }],
        changes: ["a", "b"]
            .map(|key| Change {
                key: key.into(),
                value: Some("x".into()),
            })
            .into(),
    };
    let succeeded = Outcome::Ok(Answer::Won {
        succeeded: true,
        version: Some(1),
    });
    let command = op(1, 0, 9, command, succeeded);
    legal(
        &[
            command.clone(),
            range(1, 2, None, &[("a", "x"), ("b", "x")], false, 1),
        ],
        Model::KeyValue,
    );
    legal(
        &[command.clone(), range(1, 2, Some(1), &[("a", "x")], true, 1)],
        Model::KeyValue,
    );
    illegal(
        &[command.clone(), range(1, 2, None, &[("a", "x")], false, 1)],
        Model::KeyValue,
        "wrong-state",
    );
    illegal(
        &[command, range(1, 2, Some(1), &[("a", "x")], false, 1)],
        Model::KeyValue,
        "wrong-state",
    );
}

#[test]
fn a_call_that_the_model_does_not_have_is_never_skipped() {
    let report = check(
        &[range(1, 2, None, &[], false, 1)],
        Model::PerKey,
        Budget::default(),
    );
    assert!(
        matches!(report.verdict, Verdict::Undecided { ref why } if why.contains("range")),
        "{report:?}"
    );
}
