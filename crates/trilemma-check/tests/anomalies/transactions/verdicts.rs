//! What the checker says: in which words, of what it cannot judge, and of histories of another kind.

use trilemma_check::transactions::from_key_value;

use super::*;

#[test]
fn the_smallest_circle_is_reported_in_words() {
    let mut history = Vec::new();
    let parts = [timed(1, 0, 9, &["append p 1"]), timed(2, 20, 30, &["read p"])];
    plant(&mut history, &mut Random::new(1), &parts);
    let Verdict::Illegal(found) = check(&history, Level::StrictSerializable) else {
        panic!("a stale read is legal");
    };
    assert_eq!(found.operations, [0, 1]);
    assert!(
        found.what.contains("without 1") && found.what.contains("had returned"),
        "{}",
        found.what
    );
}

#[test]
fn what_cannot_be_judged_is_undecided() {
    let mut twice = Vec::new();
    plant(
        &mut twice,
        &mut Random::new(1),
        &[part(1, &["append p 1"]), part(2, &["append p 1"])],
    );
    assert!(matches!(
        check(&twice, Level::Serializable),
        Verdict::Undecided { .. }
    ));
    let mut mixed = Vec::new();
    plant(
        &mut mixed,
        &mut Random::new(1),
        &[part(1, &["append p 1"]), part(2, &["write p 2"])],
    );
    assert!(matches!(
        check(&mixed, Level::Serializable),
        Verdict::Undecided { .. }
    ));
    let get = Call::Get { key: "k".into() };
    let other = Operation {
        process: 1,
        invoke: 0,
        returned: None,
        call: get,
        outcome: Outcome::Unknown,
    };
    assert!(matches!(
        check(&[other], Level::Serializable),
        Verdict::Undecided { .. }
    ));
}

#[test]
fn key_value_histories_are_judged_as_transactions() {
    let line = |process, from: u64, call, answer| Operation {
        process,
        invoke: from,
        returned: Some(from + 5),
        call,
        outcome: Outcome::Ok(answer),
    };
    let put = |value: &str| Call::Put {
        key: "k".into(),
        value: value.into(),
    };
    let done = |version| Answer::Done {
        version: Some(version),
    };
    let get = |value: &str| {
        let answer = Answer::Value {
            value: Some(value.into()),
            version: None,
            at: None,
        };
        (Call::Get { key: "k".into() }, answer)
    };
    let (call, answer) = get("b");
    let mut history = vec![
        line(1, 0, put("a"), done(1)),
        line(2, 10, put("b"), done(2)),
        line(1, 20, call, answer),
    ];
    let judge = |history: &[Operation]| {
        from_key_value(history).map(|history| check(&history, Level::StrictSerializable))
    };
    assert_eq!(judge(&history), Ok(Verdict::Legal));
    let (call, answer) = get("a");
    history.push(line(3, 30, call, answer));
    assert!(matches!(judge(&history), Ok(Verdict::Illegal(found)) if found.rule == "G-single-realtime"));
    let cas = |value: &str| Call::Cas {
        key: "k".into(),
        expected: Some("b".into()),
        value: Some(value.into()),
    };
    let succeeded = || Answer::Won {
        succeeded: true,
        version: None,
    };
    history[3] = line(2, 30, cas("c"), succeeded());
    assert_eq!(judge(&history), Ok(Verdict::Legal));
    history.push(line(1, 40, cas("d"), succeeded()));
    assert!(matches!(judge(&history), Ok(Verdict::Illegal(found)) if found.rule == "lost-update"));
    history.push(line(1, 50, Call::Delete { key: "k".into() }, done(9)));
    assert!(judge(&history).is_err());
}
