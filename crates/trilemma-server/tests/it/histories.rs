//! `trilemma check`: each model with a history that it allows and one that it does not, and what cannot be judged.

use std::path::PathBuf;

use crate::harness::{fresh_dir, lines, path, text, trilemma, trilemma_with_input};

/// Histories in a folder of their own, which goes with the test.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let dir = fresh_dir(name);
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn write(&self, name: &str, operations: &[String]) -> PathBuf {
        let file = self.0.join(name);
        std::fs::write(&file, operations.join("\n")).unwrap();
        file
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One operation that was answered; the `at`-th of them all, none at the same time.
fn operation(process: u64, at: u64, call: &str, answer: &str) -> String {
    let (invoke, returned) = (at * 10, at * 10 + 5);
    format!(
        "{{\"process\":{process},\"invoke\":{invoke},\"return\":{returned},\"call\":{call},\"outcome\":{{\"ok\":{answer}}}}}"
    )
}

const DONE: &str = r#"{"done":{}}"#;

fn put(value: &str) -> String {
    format!(r#"{{"put":{{"key":"a","value":"{value}"}}}}"#)
}

fn value(value: &str) -> String {
    format!(r#"{{"value":{{"value":{value}}}}}"#)
}

/// A history that ends with an answer: `right` makes it legal, `wrong` does not.
struct Sample {
    models: &'static [&'static str],
    before: Vec<String>,
    last: &'static str,
    right: String,
    wrong: String,
}

fn samples() -> Vec<Sample> {
    let get = r#"{"get":{"key":"a"}}"#;
    let step =
        |found: &str| format!(r#"{{"committed":{{"steps":[{{"read":{{"key":"x","found":{found}}}}}]}}}}"#);
    let append = r#"[{"append":{"key":"x","element":"1"}}]"#;
    vec![
        Sample {
            models: &[
                "register",
                "cas-register",
                "key-value",
                "per-key",
                "sessions",
                "strict-serializable",
            ],
            before: vec![operation(1, 1, &put("1"), DONE), operation(1, 2, &put("2"), DONE)],
            last: get,
            right: value("\"2\""),
            wrong: value("\"1\""),
        },
        Sample {
            models: &["set"],
            before: vec![operation(1, 1, r#"{"add":{"key":"s","element":"e"}}"#, DONE)],
            last: r#"{"members":{"key":"s"}}"#,
            right: r#"{"elements":{"elements":["e"]}}"#.into(),
            wrong: r#"{"elements":{"elements":[]}}"#.into(),
        },
        Sample {
            models: &["list"],
            before: vec![operation(1, 1, r#"{"append":{"key":"l","element":"e"}}"#, DONE)],
            last: r#"{"list":{"key":"l"}}"#,
            right: r#"{"elements":{"elements":["e"]}}"#.into(),
            wrong: r#"{"elements":{"elements":["e","e"]}}"#.into(),
        },
        Sample {
            models: &[
                "read-committed",
                "snapshot-isolation",
                "serializable",
                "session-serializable",
            ],
            before: vec![operation(
                1,
                1,
                &format!(r#"{{"transaction":{{"steps":{append}}}}}"#),
                &format!(r#"{{"committed":{{"steps":{append}}}}}"#),
            )],
            last: r#"{"transaction":{"steps":[{"read":{"key":"x"}}]}}"#,
            right: step("[\"1\"]"),
            wrong: step("[\"1\",\"never\"]"),
        },
        Sample {
            models: &["locks"],
            before: vec![operation(
                1,
                1,
                r#"{"acquire":{"lock":"l"}}"#,
                r#"{"token":{"token":3}}"#,
            )],
            last: r#"{"acquire":{"lock":"l"}}"#,
            right: r#"{"token":{"token":4}}"#.into(),
            wrong: r#"{"token":{"token":2}}"#.into(),
        },
    ]
}

#[test]
fn every_model_tells_a_legal_history_from_an_illegal_one() {
    let files = Files::new("check-models");
    for sample in samples() {
        let history = |answer: &str| {
            let mut operations = sample.before.clone();
            operations.push(operation(1, 3, sample.last, answer));
            operations
        };
        let legal = files.write("legal.jsonl", &history(&sample.right));
        let illegal = files.write("illegal.jsonl", &history(&sample.wrong));
        for model in sample.models {
            let output = trilemma(&["check", "--model", model, path(&legal)]);
            assert_eq!(output.status.code(), Some(0), "{model}: {}", text(&output));
            let output = trilemma(&["check", "--model", model, path(&illegal)]);
            assert_eq!(output.status.code(), Some(1), "{model}: {}", text(&output));
        }
    }
}

#[test]
fn two_holders_of_one_lock_are_found() {
    let files = Files::new("check-locks");
    let acquire = r#"{"acquire":{"lock":"l"}}"#;
    let token = |token: u64| format!(r#"{{"token":{{"token":{token}}}}}"#);
    let history = [
        operation(1, 1, acquire, &token(3)),
        operation(2, 2, acquire, &token(4)),
    ];
    let output = trilemma(&[
        "check",
        "--model",
        "locks",
        path(&files.write("h.jsonl", &history)),
    ]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("mutual-exclusion"), "{}", text(&output));
}

#[test]
fn an_illegal_history_is_explained_by_its_smallest_part_in_text_and_picture() {
    let files = Files::new("check-explain");
    let get = r#"{"get":{"key":"a"}}"#;
    let mut history: Vec<String> = (1..40)
        .map(|at| operation(1, at, &put(&format!("v{at}")), DONE))
        .collect();
    history.push(operation(2, 50, get, &value("\"v7\"")));
    let file = files.write("h.jsonl", &history);
    let picture = files.0.join("why.svg");
    let output = trilemma(&[
        "check",
        "--model",
        "register",
        path(&file),
        "--svg",
        path(&picture),
    ]);
    let printed = text(&output);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    let shown = printed
        .lines()
        .filter(|line| line.trim_start().starts_with("#") && line.contains("process"))
        .count();
    assert!(
        (2..=3).contains(&shown),
        "the write, one after it and the read: {printed}"
    );
    assert!(printed.contains("v7"), "{printed}");
    let drawn = std::fs::read_to_string(&picture).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains("v7"), "{drawn}");

    let output = trilemma(&["check", "--model", "register", path(&file), "--output", "json"]);
    let objects = lines(&output);
    assert_eq!(objects.len(), 1, "{}", text(&output));
    assert_eq!(objects[0]["verdict"], "illegal");
    assert!(
        objects[0]["operations"]
            .as_array()
            .is_some_and(|numbers| numbers.contains(&39.into()))
    );
}

#[test]
fn a_history_comes_from_standard_input_too() {
    let history = [
        operation(1, 1, &put("1"), DONE),
        operation(2, 2, r#"{"get":{"key":"a"}}"#, &value("null")),
    ];
    let input = history.join("\n");
    let output = trilemma_with_input(&["check", "--model", "register", "-"], input.as_bytes());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let first = input.lines().next().unwrap();
    let output = trilemma_with_input(&["check", "--model", "register", "-"], first.as_bytes());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[test]
fn watches_are_judged_with_what_was_written() {
    let files = Files::new("check-watch");
    let put = operation(1, 1, &put("1"), r#"{"done":{"version":5}}"#);
    let watch = |at: u64, value: &str| {
        [
            put.clone(),
            r#"{"watch":{"watch":7,"process":2,"resume":{"stream":1,"at":4}}}"#.into(),
            format!(
                r#"{{"item":{{"watch":7,"item":{{"changes":{{"position":{{"stream":1,"at":{at}}},"changes":[{{"key":"a","value":"{value}"}}]}}}}}}}}"#
            ),
        ]
    };
    let right = files.write("right.jsonl", &watch(5, "1"));
    let wrong = files.write("wrong.jsonl", &watch(5, "2"));
    let repeats = files.write("repeats.jsonl", &watch(4, "1"));
    let none = files.write("none.jsonl", std::slice::from_ref(&put));
    let versions = "--positions-are-versions";
    for (file, more, code) in [
        (&right, Some(versions), 0),
        (&wrong, Some(versions), 1),
        (&wrong, None, 0),
        (&repeats, None, 1),
        (&none, None, 2),
    ] {
        let mut arguments = vec!["check", "--model", "watch", path(file)];
        arguments.extend(more);
        let output = trilemma(&arguments);
        assert_eq!(output.status.code(), Some(code), "{file:?}: {}", text(&output));
    }
}

#[test]
fn what_a_key_held_at_the_start_is_said_in_the_file_or_on_the_command_line() {
    let files = Files::new("check-initial");
    let get = operation(1, 1, r#"{"get":{"key":"a"}}"#, &value("\"0\""));
    let plain = files.write("plain.jsonl", std::slice::from_ref(&get));
    let said = files.write(
        "said.jsonl",
        &[r#"{"initial":{"key":"a","value":"0"}}"#.into(), get],
    );
    for model in ["register", "key-value", "strict-serializable"] {
        for (file, more, code) in [
            (&plain, None, 1),
            (&plain, Some("--initial=a=0"), 0),
            (&plain, Some("--initial=a=1"), 1),
            (&said, None, 0),
        ] {
            let mut arguments = vec!["check", "--model", model, path(file)];
            arguments.extend(more);
            let output = trilemma(&arguments);
            assert_eq!(
                output.status.code(),
                Some(code),
                "{model} {more:?}: {}",
                text(&output)
            );
        }
    }
}

#[test]
fn an_illegal_history_of_transactions_is_explained_by_its_smallest_part() {
    let files = Files::new("check-explain-transactions");
    let append = |at: u64, key: &str| {
        let step = format!(r#"{{"append":{{"key":"{key}","element":"{at}"}}}}"#);
        operation(
            1,
            at,
            &format!(r#"{{"transaction":{{"steps":[{step}]}}}}"#),
            &format!(r#"{{"committed":{{"steps":[{step}]}}}}"#),
        )
    };
    let mut history: Vec<String> = (1..40)
        .map(|at| append(at, if at == 30 { "x" } else { "y" }))
        .collect();
    history.push(operation(
        2,
        50,
        r#"{"transaction":{"steps":[{"read":{"key":"x"}}]}}"#,
        r#"{"committed":{"steps":[{"read":{"key":"x","found":[]}}]}}"#,
    ));
    let file = files.write("h.jsonl", &history);
    let output = trilemma(&["check", "--model", "strict-serializable", path(&file)]);
    let report = text(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    let shown = report
        .lines()
        .filter(|line| line.trim_start().starts_with('#') && line.contains("process"));
    assert_eq!(shown.count(), 2, "{report}");
    assert!(
        report.contains("transaction: append 30 to x") && report.contains("read x = []"),
        "{report}"
    );
    assert!(
        report.contains("T29"),
        "numbers are those of the whole history: {report}"
    );
}

#[test]
fn what_cannot_be_judged_is_not_a_pass() {
    let files = Files::new("check-undecided");
    let unfit = files.write(
        "unfit.jsonl",
        &[operation(1, 1, r#"{"delete":{"key":"a"}}"#, DONE)],
    );
    let broken = files.write(
        "broken.jsonl",
        &[operation(1, 1, &put("1"), DONE), "{\"process\":1".into()],
    );
    let missing = files.0.join("missing.jsonl");
    for (file, says) in [
        (unfit, "undecided"),
        (broken, "line 2"),
        (missing, "missing.jsonl"),
    ] {
        let output = trilemma(&["check", "--model", "register", path(&file)]);
        let printed = text(&output);
        assert_eq!(output.status.code(), Some(2), "{printed}");
        assert!(
            printed.contains(says) && printed.contains("what to do"),
            "{printed}"
        );
    }
    let output = trilemma(&["check", "--model", "wishes", "h.jsonl"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
}

#[test]
fn a_search_that_runs_out_of_steps_is_undecided() {
    let files = Files::new("check-budget");
    // All at once, and one value written twice, so that only the search can tell.
    let mut history: Vec<String> = (1..30)
        .map(|process| {
            let call = put(&(process % 5).to_string());
            format!(
                "{{\"process\":{process},\"invoke\":1,\"return\":99,\"call\":{call},\"outcome\":{{\"ok\":{DONE}}}}}"
            )
        })
        .collect();
    history.push(operation(99, 20, r#"{"get":{"key":"a"}}"#, &value("\"3\"")));
    let file = files.write("h.jsonl", &history);
    let output = trilemma(&["check", "--model", "register", path(&file)]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let output = trilemma(&["check", "--model", "register", "--budget", "3", path(&file)]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("undecided"), "{}", text(&output));
}
