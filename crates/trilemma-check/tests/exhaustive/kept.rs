//! Histories that were judged wrongly once, the smallest of each kind: a comment says what is right and why.

use trilemma_check::convergence::{self, Merge, Replica};
use trilemma_check::history::History;
use trilemma_check::linearizability::{Budget, check, check_from};
use trilemma_check::locks::{self, ClockError, Fencing};
use trilemma_check::model::Model;
use trilemma_check::sessions::{self, Guarantees, Order};
use trilemma_check::transactions::{self, Level};
use trilemma_check::verdict::Verdict;

const LEVELS: [Level; 6] = [
    Level::ReadUncommitted,
    Level::ReadCommitted,
    Level::SnapshotIsolation,
    Level::Serializable,
    Level::SessionSerializable,
    Level::StrictSerializable,
];

fn read(text: &str) -> History {
    History::read(text.as_bytes()).expect("the history is well formed")
}

fn linearizable(text: &str, model: Model) -> Verdict {
    check(&read(text).operations, model, Budget::default()).verdict
}

/// The weakest level that forbids the history.
fn forbidden_from(text: &str) -> Option<Level> {
    let history = read(text).operations;
    let first = LEVELS
        .into_iter()
        .find(|level| match transactions::check(&history, *level) {
            Verdict::Legal => false,
            Verdict::Illegal(_) => true,
            Verdict::Undecided { why } => panic!("{level:?}: {why}"),
        });
    let stronger = LEVELS
        .into_iter()
        .filter(|level| first.is_some_and(|first| *level > first));
    for level in stronger {
        let verdict = transactions::check(&history, level);
        assert!(matches!(verdict, Verdict::Illegal(_)), "{level:?}: {verdict:?}");
    }
    first
}

/// Three unknown operations and a read of 2: the put made 3, the first compare-and-set made 2 of it, and the second
/// one (2 to 2) changes nothing. That 2 is written twice does not make the put unneeded.
#[test]
fn a_guard_of_an_unknown_operation_may_have_found_the_value_of_another() {
    let history = r#"
{"process":1,"invoke":10,"return":20,"call":{"put":{"key":"r","value":"3"}},"outcome":"unknown"}
{"process":2,"invoke":30,"return":40,"call":{"cas":{"key":"r","expected":"3","value":"2"}},"outcome":"unknown"}
{"process":3,"invoke":30,"return":40,"call":{"cas":{"key":"r","expected":"2","value":"2"}},"outcome":"unknown"}
{"process":4,"invoke":50,"return":60,"call":{"get":{"key":"r"}},"outcome":{"ok":{"value":{"value":"2"}}}}
"#;
    for model in [Model::CasRegister, Model::PerKey, Model::KeyValue] {
        assert_eq!(linearizable(history, model), Verdict::Legal, "{model}");
    }
}

/// Nothing can make a command without guards lose, whatever it would change.
#[test]
fn a_command_without_guards_cannot_lose() {
    let empty = r#"
{"process":1,"invoke":10,"return":20,"call":{"command":{"guards":[],"changes":[]}},"outcome":{"ok":{"won":{"won":false}}}}
{"process":2,"invoke":30,"return":40,"call":{"put":{"key":"a","value":"1"}},"outcome":{"ok":{"done":{}}}}
{"process":3,"invoke":50,"return":60,"call":{"put":{"key":"b","value":"1"}},"outcome":{"ok":{"done":{}}}}
"#;
    let one = r#"
{"process":1,"invoke":10,"return":20,"call":{"command":{"changes":[{"key":"a","value":"1"}]}},"outcome":{"ok":{"won":{"won":false}}}}
"#;
    for (history, model) in [
        (empty, Model::KeyValue),
        (one, Model::KeyValue),
        (one, Model::PerKey),
    ] {
        let verdict = linearizable(history, model);
        assert!(
            matches!(&verdict, Verdict::Illegal(found) if found.rule == "guard"),
            "{verdict:?}"
        );
    }
}

/// A transaction cannot read what it appends only in a later step.
#[test]
fn a_transaction_does_not_read_what_it_appends_later() {
    let list = r#"
{"process":0,"invoke":10,"return":100,"call":{"transaction":{"steps":[{"read":{"key":"x"}},{"append":{"key":"x","element":"1"}}]}},"outcome":{"ok":{"committed":{"steps":[{"read":{"key":"x","found":["1"]}},{"append":{"key":"x","element":"1"}}]}}}}
"#;
    assert_eq!(forbidden_from(list), Some(Level::ReadCommitted));
    let register = list.replace("append", "write").replace("element", "value");
    assert_eq!(forbidden_from(&register), Some(Level::ReadCommitted));
}

/// Two transactions write both keys at the same time; one that begins after both sees one win in each key.
#[test]
fn order_that_later_reads_tell_counts_where_time_does() {
    let history = r#"
{"process":1,"invoke":10,"return":50,"call":{"transaction":{"steps":[{"write":{"key":"a","value":"1"}},{"write":{"key":"b","value":"1"}}]}},"outcome":{"ok":{"committed":{"steps":[{"write":{"key":"a","value":"1"}},{"write":{"key":"b","value":"1"}}]}}}}
{"process":2,"invoke":20,"return":60,"call":{"transaction":{"steps":[{"write":{"key":"a","value":"2"}},{"write":{"key":"b","value":"2"}}]}},"outcome":{"ok":{"committed":{"steps":[{"write":{"key":"a","value":"2"}},{"write":{"key":"b","value":"2"}}]}}}}
{"process":3,"invoke":70,"return":80,"call":{"transaction":{"steps":[{"read":{"key":"a"}},{"read":{"key":"b"}}]}},"outcome":{"ok":{"committed":{"steps":[{"read":{"key":"a","found":["2"]}},{"read":{"key":"b","found":["1"]}}]}}}}
"#;
    // Without time the reader may stand between the two: it sees 2 in a and 1 in b only if each wrote last in one.
    assert_eq!(forbidden_from(history), Some(Level::SnapshotIsolation));
}

/// A process that reads its older write after its newer one breaks the order of its session, no matter the clock.
#[test]
fn a_process_does_not_go_back_behind_its_own_write() {
    let history = r#"
{"process":1,"invoke":10,"return":20,"call":{"transaction":{"steps":[{"write":{"key":"x","value":"1"}}]}},"outcome":{"ok":{"committed":{"steps":[{"write":{"key":"x","value":"1"}}]}}}}
{"process":1,"invoke":30,"return":40,"call":{"transaction":{"steps":[{"write":{"key":"x","value":"2"}}]}},"outcome":{"ok":{"committed":{"steps":[{"write":{"key":"x","value":"2"}}]}}}}
{"process":1,"invoke":50,"return":60,"call":{"transaction":{"steps":[{"read":{"key":"x"}}]}},"outcome":{"ok":{"committed":{"steps":[{"read":{"key":"x","found":["1"]}}]}}}}
"#;
    assert_eq!(forbidden_from(history), Some(Level::SessionSerializable));
    let others = history.replacen("\"process\":1", "\"process\":2", 1);
    assert_eq!(forbidden_from(&others), Some(Level::StrictSerializable));
}

/// A transaction that was given up at once comes before the next one of its process that begins at the same instant.
#[test]
fn a_process_goes_on_when_it_gives_up() {
    let history = r#"
{"process":1,"invoke":2,"return":2,"call":{"transaction":{"steps":[{"write":{"key":"x","value":"9"}}]}},"outcome":"unknown"}
{"process":1,"invoke":2,"return":8,"call":{"transaction":{"steps":[{"read":{"key":"x"}}]}},"outcome":{"ok":{"committed":{"steps":[{"read":{"key":"x","found":["9"]}}]}}}}
"#;
    assert_eq!(forbidden_from(history), None);
}

/// What a transaction appends shows in its order: its second element never without, or before, its first.
#[test]
fn a_list_shows_what_a_transaction_appended_in_its_order() {
    let history = r#"
{"process":1,"invoke":1,"return":2,"call":{"transaction":{"steps":[{"append":{"key":"y","element":"8"}},{"append":{"key":"y","element":"9"}}]}},"outcome":{"ok":{"committed":{"steps":[{"append":{"key":"y","element":"8"}},{"append":{"key":"y","element":"9"}}]}}}}
{"process":2,"invoke":3,"return":4,"call":{"transaction":{"steps":[{"read":{"key":"y"}}]}},"outcome":{"ok":{"committed":{"steps":[{"read":{"key":"y","found":["9"]}}]}}}}
"#;
    assert_eq!(forbidden_from(history), Some(Level::ReadUncommitted));
    assert_eq!(
        forbidden_from(&history.replace(r#"["9"]"#, r#"["9","8"]"#)),
        Some(Level::ReadUncommitted)
    );
}

/// A transaction whose outcome is unknown may not have committed: where reads of what is not committed are allowed,
/// having been read does not put it into the order of the list.
#[test]
fn an_unknown_transaction_may_be_read_uncommitted() {
    let history = r#"
{"process":1,"invoke":1,"return":2,"call":{"transaction":{"steps":[{"append":{"key":"x","element":"1"}}]}},"outcome":"unknown"}
{"process":2,"invoke":1,"return":2,"call":{"transaction":{"steps":[{"append":{"key":"x","element":"2"}}]}},"outcome":{"ok":{"committed":{"steps":[{"append":{"key":"x","element":"2"}}]}}}}
{"process":3,"invoke":3,"return":4,"call":{"transaction":{"steps":[{"read":{"key":"x"}}]}},"outcome":{"ok":{"committed":{"steps":[{"read":{"key":"x","found":["1"]}}]}}}}
{"process":4,"invoke":5,"return":6,"call":{"transaction":{"steps":[{"read":{"key":"x"}}]}},"outcome":{"ok":{"committed":{"steps":[{"read":{"key":"x","found":["2"]}}]}}}}
"#;
    assert_eq!(forbidden_from(history), Some(Level::ReadCommitted));
}

/// Of two that write the same key under snapshot isolation one sees the other, even if nobody reads what they wrote.
#[test]
fn writes_that_nobody_reads_conflict_under_snapshot_isolation() {
    let history = r#"
{"process":1,"invoke":1,"return":9,"call":{"transaction":{"steps":[{"read":{"key":"a"}},{"append":{"key":"b","element":"1"}},{"append":{"key":"x","element":"1"}}]}},"outcome":{"ok":{"committed":{"steps":[{"read":{"key":"a","found":[]}},{"append":{"key":"b","element":"1"}},{"append":{"key":"x","element":"1"}}]}}}}
{"process":2,"invoke":1,"return":9,"call":{"transaction":{"steps":[{"read":{"key":"b"}},{"append":{"key":"a","element":"2"}},{"append":{"key":"x","element":"2"}}]}},"outcome":{"ok":{"committed":{"steps":[{"read":{"key":"b","found":[]}},{"append":{"key":"a","element":"2"}},{"append":{"key":"x","element":"2"}}]}}}}
"#;
    assert_eq!(forbidden_from(history), Some(Level::SnapshotIsolation));
    let alone = history.replace(
        r#","element":"2"}},{"append":{"key":"x""#,
        r#","element":"2"}},{"append":{"key":"y""#,
    );
    assert_eq!(forbidden_from(&alone), Some(Level::Serializable));
}

/// An answer that lists other steps than were asked is no answer to this call: the file is wrong, and says where.
#[test]
fn an_answer_to_another_call_is_unreadable() {
    let line = |asked: &str, answered: &str| {
        format!(
            "\n{{\"process\":1,\"invoke\":10,\"return\":20,\"call\":{{\"transaction\":{{\"steps\":[{asked}]}}}},\
             \"outcome\":{{\"ok\":{{\"committed\":{{\"steps\":[{answered}]}}}}}}}}"
        )
    };
    let write = r#"{"write":{"key":"a","value":"1"}}"#;
    let read = r#"{"read":{"key":"a"}}"#;
    let found = r#"{"read":{"key":"a","found":["1"]}}"#;
    for (asked, answered, words) in [
        (write, r#"{"write":{"key":"b","value":"9"}}"#, "step 1"),
        (write, r#"{"append":{"key":"a","element":"1"}}"#, "step 1"),
        (write, "", "1 steps was answered with 0"),
        (read, read, "without what it found"),
        (read, r#"{"read":{"key":"b","found":[]}}"#, "step 1"),
        (found, r#"{"read":{"key":"a","found":["2"]}}"#, "step 1"),
    ] {
        let error = History::read(line(asked, answered).as_bytes()).expect_err("must be refused");
        let error = error.to_string();
        assert!(error.contains("line 2") && error.contains(words), "{error}");
    }
    assert!(History::read(line(read, found).as_bytes()).is_ok());
}

/// Where a model finds nothing that it can judge, nothing was shown.
#[test]
fn a_history_in_which_nothing_can_be_judged_is_undecided() {
    let transaction = r#"
{"process":1,"invoke":10,"return":20,"call":{"transaction":{"steps":[{"write":{"key":"a","value":"1"}}]}},"outcome":{"ok":{"committed":{"steps":[{"write":{"key":"a","value":"1"}}]}}}}
"#;
    let unknown = r#"
{"process":1,"invoke":10,"return":20,"call":{"acquire":{"lock":"l"}},"outcome":"unknown"}
"#;
    let strangers = r#"
{"process":1,"invoke":10,"return":20,"call":{"put":{"key":"a","value":"1"}},"outcome":{"ok":{"done":{}}}}
{"process":2,"invoke":30,"return":40,"call":{"get":{"key":"a"}},"outcome":{"ok":{"value":{"value":null}}}}
"#;
    let is_open = |verdict: Verdict| matches!(verdict, Verdict::Undecided { .. });
    for history in [transaction, unknown, strangers, ""] {
        let history = read(history).operations;
        for order in [Order::Keyspace, Order::PerKey, Order::Opaque] {
            assert!(is_open(sessions::check(&history, order, Guarantees::ALL)));
        }
        for fencing in [Fencing::Used, Fencing::Issued] {
            assert!(is_open(locks::check(&history, ClockError::default(), fencing)));
        }
    }
}

/// A key that held something at the start is read so, and not as absent.
#[test]
fn a_value_from_the_start_is_there() {
    let initial = std::collections::BTreeMap::from([(String::from("a"), String::from("0"))]);
    let get = |value: &str| {
        format!(
            "{{\"process\":1,\"invoke\":0,\"return\":1,\"call\":{{\"get\":{{\"key\":\"a\"}}}},\
             \"outcome\":{{\"ok\":{{\"value\":{{\"value\":{value}}}}}}}}}"
        )
    };
    for (found, is_legal) in [("\"0\"", true), ("null", false), ("\"1\"", false)] {
        let history = read(&get(found)).operations;
        for model in [Model::Register, Model::KeyValue] {
            let verdict = check_from(&initial, &history, model, Budget::default()).verdict;
            assert_eq!(verdict.is_legal(), is_legal, "{model} {found}: {verdict:?}");
        }
        let as_transactions = transactions::from_key_value(&history).unwrap();
        let verdict = transactions::check_from(&initial, &as_transactions, Level::Serializable);
        assert_eq!(verdict.is_legal(), is_legal, "{found}: {verdict:?}");
    }
}

/// What a session did with single keys: process, `put` or `get`, key, value, version (0: not reported).
fn session(operations: &[(u64, &str, &str, &str, u64)]) -> String {
    let mut text = String::new();
    for (at, (process, call, key, value, version)) in operations.iter().enumerate() {
        let version = if *version == 0 {
            "null".into()
        } else {
            version.to_string()
        };
        let value = if value.is_empty() {
            "null".into()
        } else {
            format!("\"{value}\"")
        };
        let (call, answer) = match *call {
            "get" => (
                format!("{{\"get\":{{\"key\":\"{key}\"}}}}"),
                format!("{{\"value\":{{\"value\":{value},\"version\":{version}}}}}"),
            ),
            "delete" => (
                format!("{{\"delete\":{{\"key\":\"{key}\"}}}}"),
                format!("{{\"done\":{{\"version\":{version}}}}}"),
            ),
            _ => (
                format!("{{\"put\":{{\"key\":\"{key}\",\"value\":{value}}}}}"),
                format!("{{\"done\":{{\"version\":{version}}}}}"),
            ),
        };
        let (invoke, returned) = (at * 10, at * 10 + 5);
        text += &format!(
            "{{\"process\":{process},\"invoke\":{invoke},\"return\":{returned},\"call\":{call},\"outcome\":{{\"ok\":{answer}}}}}\n"
        );
    }
    text
}

fn sessions_say(order: Order, operations: &[(u64, &str, &str, &str, u64)]) -> Verdict {
    sessions::check(&read(&session(operations)).operations, order, Guarantees::ALL)
}

/// Two writes of one value explain two times that it was seen, with another value between; not three.
#[test]
fn a_value_that_was_written_twice_is_not_seen_three_times() {
    let all = [
        (1, "put", "a", "x", 0),
        (1, "put", "a", "y", 0),
        (1, "put", "a", "x", 0),
        (1, "put", "a", "y", 0),
        (2, "get", "a", "x", 0),
        (2, "get", "a", "y", 0),
        (2, "get", "a", "x", 0),
        (2, "get", "a", "y", 0),
        (2, "get", "a", "x", 0),
    ];
    assert_eq!(sessions_say(Order::Opaque, &all[..8]), Verdict::Legal);
    let verdict = sessions_say(Order::Opaque, &all);
    assert!(matches!(verdict, Verdict::Illegal(_)), "{verdict:?}");
}

/// Where one order is for all keys, a process that has written at version 3 sees of every key what was there then.
#[test]
fn what_a_session_knows_of_one_key_binds_the_others() {
    let all = [
        (1, "put", "b", "x", 2),
        (2, "put", "a", "y", 3),
        (2, "get", "b", "", 0),
    ];
    assert_eq!(sessions_say(Order::PerKey, &all), Verdict::Legal);
    let verdict = sessions_say(Order::Keyspace, &all);
    assert!(
        matches!(&verdict, Verdict::Illegal(found) if found.rule == "read-your-writes"),
        "{verdict:?}"
    );
}

fn locks_say(text: &str) -> Verdict {
    locks::check(&read(text).operations, ClockError::default(), Fencing::Used)
}

/// A release that was answered before the token was given released nothing: the lock is still held.
#[test]
fn a_release_before_its_acquire_ends_nothing() {
    let verdict = locks_say(
        r#"
{"process":1,"invoke":2,"return":4,"call":{"release":{"lock":"l","token":1}},"outcome":{"ok":{"done":{}}}}
{"process":1,"invoke":6,"return":8,"call":{"acquire":{"lock":"l"}},"outcome":{"ok":{"token":{"token":1}}}}
{"process":2,"invoke":9,"return":10,"call":{"acquire":{"lock":"l"}},"outcome":{"ok":{"token":{"token":2}}}}
"#,
    );
    assert!(
        matches!(&verdict, Verdict::Illegal(found) if found.rule == "mutual-exclusion"),
        "{verdict:?}"
    );
}

/// Two renewals that meet at one instant may come in either order, the shorter one last. A false alarm.
#[test]
fn renewals_that_meet_come_in_either_order() {
    let verdict = locks_say(
        r#"
{"process":2,"invoke":0,"return":2,"call":{"renew":{"lock":"l","token":1,"ttl":2}},"outcome":{"ok":{"done":{}}}}
{"process":1,"invoke":0,"return":0,"call":{"acquire":{"lock":"l","ttl":5}},"outcome":{"ok":{"token":{"token":1}}}}
{"process":1,"invoke":2,"return":7,"call":{"renew":{"lock":"l","token":1,"ttl":5}},"outcome":{"ok":{"done":{}}}}
{"process":3,"invoke":2,"return":6,"call":{"acquire":{"lock":"l","ttl":2}},"outcome":{"ok":{"token":{"token":2}}}}
"#,
    );
    assert_eq!(verdict, Verdict::Legal);
}

/// A token that was accepted early was given early: the lock was not free then.
#[test]
fn a_token_is_given_before_it_is_accepted() {
    let verdict = locks_say(
        r#"
{"process":1,"invoke":0,"return":2,"call":{"acquire":{"lock":"l"}},"outcome":{"ok":{"token":{"token":1}}}}
{"process":2,"invoke":0,"return":2,"call":{"use":{"lock":"l","token":2}},"outcome":{"ok":{"won":{"won":true}}}}
{"process":3,"invoke":2,"return":9,"call":{"acquire":{"lock":"l"}},"outcome":{"ok":{"token":{"token":2}}}}
{"process":1,"invoke":4,"return":5,"call":{"release":{"lock":"l","token":1}},"outcome":{"ok":{"done":{}}}}
"#,
    );
    assert!(matches!(verdict, Verdict::Illegal(_)), "{verdict:?}");
}

/// Only the unknown command can have removed `a`; then it has also written `b`, which nobody replaced.
#[test]
fn a_command_of_unknown_outcome_happened_wholly_or_not_at_all() {
    let history = read(
        r#"
{"process":1,"invoke":1,"return":2,"call":{"put":{"key":"a","value":"0"}},"outcome":{"ok":{"done":{"version":7}}}}
{"process":2,"invoke":3,"return":4,"call":{"command":{"changes":[{"key":"a","value":null},{"key":"b","value":"0"}]}},"outcome":"unknown"}
"#,
    );
    let replica = |entries: &[(&str, &str)]| Replica {
        name: "n".into(),
        entries: entries
            .iter()
            .map(|(key, value)| ((*key).into(), vec![((*value).into(), None)]))
            .collect(),
    };
    let says = |entries| convergence::check(&history.operations, &[replica(entries)], Merge::LastWriterWins);
    assert_eq!(says(&[("a", "0")]), Verdict::Legal);
    assert_eq!(says(&[("b", "0")]), Verdict::Legal);
    assert!(matches!(says(&[]), Verdict::Illegal(_)));
}
