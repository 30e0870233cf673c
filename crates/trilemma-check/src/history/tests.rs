//! The format, and what is refused.

use super::*;

const EXAMPLE: &str = r#"
# three operations
{"process":1,"invoke":1000,"return":2000,"call":{"put":{"key":"a","value":"1"}},"outcome":{"ok":{"done":{"version":7}}}}

{"process":2,"invoke":1500,"return":1900,"call":{"get":{"key":"a"}},"outcome":{"ok":{"value":{"value":"1","version":7}}}}
{"process":1,"invoke":2100,"call":{"cas":{"key":"a","expected":"1","value":"2"}},"outcome":"unknown"}
"#;

fn read(text: &str) -> Result<History, ReadError> {
    History::read(text.as_bytes())
}

#[track_caller]
fn refused(text: &str, words: &[&str]) {
    let error = read(text).expect_err("must be refused").to_string();
    for word in words {
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn the_example_is_read_and_written() {
    let history = read(EXAMPLE).unwrap();
    assert_eq!(history.operations.len(), 3);
    assert_eq!(history.operations[2].outcome, Outcome::Unknown);
    let mut written = Vec::new();
    history.write(&mut written).unwrap();
    assert_eq!(History::read(&written[..]).unwrap(), history);
    let lines: Vec<&str> = EXAMPLE.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(String::from_utf8(written).unwrap().lines().next(), Some(lines[0]));
}

#[test]
fn every_call_and_answer_is_written_and_read_back() {
    let lines = [
        r#"{"process":1,"invoke":1,"return":2,"call":{"delete":{"key":"a"}},"outcome":{"ok":{"done":{}}}}"#,
        r#"{"process":2,"invoke":1,"return":2,"call":{"range":{"start":"","end":"z","limit":2}},"outcome":{"ok":{"entries":{"entries":[{"key":"a","value":"é\n","version":3}],"more":true,"at":9}}}}"#,
        r#"{"process":3,"invoke":1,"return":2,"call":{"command":{"guards":[{"value":{"key":"a","is":null}},{"version":{"key":"b","is":4}}],"changes":[{"key":"a","value":null}]}},"outcome":{"ok":{"won":{"won":false,"version":9}}}}"#,
        r#"{"process":4,"invoke":1,"return":2,"call":{"members":{"key":"a"}},"outcome":{"ok":{"elements":{"elements":["x"]}}}}"#,
        r#"{"process":5,"invoke":1,"return":2,"call":{"acquire":{"lock":"l","ttl":null}},"outcome":{"ok":{"token":{"token":1}}}}"#,
        r#"{"process":6,"invoke":1,"return":2,"call":{"transaction":{"steps":[{"append":{"key":"a","element":"1"}}]}},"outcome":"fail"}"#,
    ];
    for line in lines {
        let history = read(line).unwrap();
        let mut written = Vec::new();
        history.write(&mut written).unwrap();
        assert_eq!(String::from_utf8(written).unwrap().trim_end(), line);
    }
}

#[test]
fn what_is_no_operation_is_refused_with_its_line() {
    refused("{}", &["line 1", "missing field", "format"]);
    refused("\n\n{\"process\":", &["line 3", "EOF"]);
    refused("\u{feff}nonsense", &["line 1"]);
    let unknown = EXAMPLE.replace("\"invoke\":1500", "\"invoked\":1500");
    refused(&unknown, &["line 5", "unknown field `invoked`"]);
    assert!(matches!(
        History::read(&b"\xff\xfe"[..]),
        Err(ReadError::NotAnOperation { line: 1, .. })
    ));
}

#[test]
fn contradictions_are_refused_with_their_line() {
    let swapped = EXAMPLE.replace("\"return\":2000", "\"return\":900");
    refused(&swapped, &["line 3", "before the invoke", "one clock"]);
    let wrong_answer = EXAMPLE.replace("\"done\":{\"version\":7}", "\"token\":{\"token\":7}");
    refused(&wrong_answer, &["line 3", "put", "\"done\"", "\"token\""]);
    let busy = EXAMPLE.replace("\"process\":2", "\"process\":1");
    refused(&busy, &["line 5", "process 1", "under way until 2000"]);
    let unanswered = EXAMPLE.replace("\"return\":1900,", "");
    refused(&unanswered, &["line 5", "no return"]);
    let after_unknown = format!(
        "{EXAMPLE}{}",
        EXAMPLE
            .lines()
            .nth(2)
            .unwrap()
            .replace("1000", "9000")
            .replace("2000", "9001")
    );
    refused(&after_unknown, &["line 7", "never returned", "gave up"]);
    let given_up = after_unknown.replace("\"invoke\":2100,", "\"invoke\":2100,\"return\":3000,");
    assert_eq!(read(&given_up).unwrap().operations.len(), 4);
}

#[test]
fn a_line_too_long_is_refused_before_it_is_parsed() {
    let long = format!("#{}\n", "x".repeat(LINE_BYTES_MAX - 1));
    assert!(read(&long).is_ok());
    refused(
        &format!("\n{long}#{}", "x".repeat(LINE_BYTES_MAX)),
        &["line 3", "longer"],
    );
    refused(&format!("{}\n", "[".repeat(LINE_BYTES_MAX)), &["line 1"]);
}

#[test]
fn a_file_may_hold_what_was_there_at_the_start_and_what_watchers_were_sent() {
    let text = r#"{"initial":{"key":"a","value":"0"}}
{"process":1,"invoke":1,"return":2,"call":{"get":{"key":"a"}},"outcome":{"ok":{"value":{"value":"0"}}}}
{"watch":{"watch":7,"process":2,"resume":{"stream":1,"at":4}}}
{"item":{"watch":7,"item":{"changes":{"position":{"stream":1,"at":5},"changes":[{"key":"a","value":"1","version":5}]}}}}
{"item":{"watch":7,"item":{"progress":{"position":{"stream":1,"at":9}}}}}
"#;
    let recording = Recording::read(text.as_bytes()).unwrap();
    assert_eq!(recording.history.operations.len(), 1);
    assert_eq!(recording.initial.get("a").map(String::as_str), Some("0"));
    assert_eq!(recording.streams.len(), 1);
    assert_eq!(recording.streams[0].items.len(), 2);
    for (from, to, words) in [
        (
            "\"initial\":{\"key\":\"a\"",
            "\"initial\":{\"keys\":\"a\"",
            "line 1",
        ),
        (
            "\"item\":{\"watch\":7",
            "\"item\":{\"watch\":8",
            "line 4: watch 8",
        ),
        ("\"process\":2", "\"process\":2,\"of\":1", "line 3"),
    ] {
        let error = Recording::read(text.replace(from, to).as_bytes()).expect_err("must be refused");
        assert!(error.to_string().contains(words), "{error}");
    }
    // A reader of operations alone does not skip what it does not judge.
    refused(text, &["line 1"]);
}
