//! The command line itself, and the parsers of its arguments.

use std::time::Duration;

use clap::{CommandFactory, Parser};
use trilemma::{Command, Guard, Mutation, Value, Version};

use super::serve::log_filter;
use super::txn::parse_script;
use super::{Cli, duration};
use crate::exit::Exit;

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn the_log_is_filtered_by_level_and_module() {
    use tracing_subscriber::filter::LevelFilter;
    let shown = |text: &str, target: &str, level: tracing::Level| {
        log_filter(text).expect("a filter").would_enable(target, &level)
    };
    let (debug, info, error) = (tracing::Level::DEBUG, tracing::Level::INFO, tracing::Level::ERROR);
    assert!(shown("info", "quinn", info) && !shown("info", "trilemma_runtime", debug));
    let both = "info, trilemma=debug,";
    assert!(shown(both, "trilemma_runtime::node", debug) && !shown(both, "quinn", debug));
    assert!(shown(both, "quinn", info), "a comma at the end changes nothing");
    assert!(shown("", "trilemma", error) && !shown("", "trilemma", info));
    assert_eq!(
        log_filter("off").expect("a filter").default_level(),
        Some(LevelFilter::OFF)
    );
    for wrong in ["trilemma=loud", "a=b=info", "trilemma=debug=trace"] {
        assert!(log_filter(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn every_command_that_talks_to_people_shows_examples() {
    for command in Cli::command().get_subcommands() {
        let help = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(help.contains("Example"), "{} has no example", command.get_name());
    }
}

#[test]
fn the_help_lists_every_exit_code() {
    let exits = [
        Exit::Ok,
        Exit::NotFound,
        Exit::Usage,
        Exit::Refused,
        Exit::Unavailable,
        Exit::Unknown,
        Exit::GuardFailed,
        Exit::Start,
        Exit::Connection,
        Exit::Verdict,
        Exit::Output,
    ];
    let lines: Vec<&str> = crate::exit::HELP.lines().skip(1).collect();
    assert_eq!(lines.len(), exits.len());
    for (exit, line) in exits.into_iter().zip(lines) {
        assert!(
            line.trim_start().starts_with(&format!("{:<2} ", exit as u8)),
            "{line}"
        );
    }
}

#[test]
fn cas_needs_exactly_one_expectation() {
    let parse = |args: &[&str]| Cli::try_parse_from([&["trilemma", "cas", "k", "key", "new"], args].concat());
    assert!(parse(&["--expect", "old"]).is_ok());
    assert!(parse(&["--expect-absent"]).is_ok());
    assert!(parse(&[]).is_err());
    assert!(parse(&["--expect", "old", "--expect-absent"]).is_err());
}

#[test]
fn durations_have_units_and_bounds() {
    assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
    assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
    for wrong in ["", "0s", "-1s", "5h", "x", "61m", "inf"] {
        assert!(duration(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_script_becomes_one_command() {
    let text = "# move stock\nif-absent order/7\nif \"a key\" old value \nif-version x v42\n\nput order/7 \"ali\\nce\"\n  delete stock";
    let command = parse_script(text, "move.txn").expect("a valid script");
    let expected = Command {
        guards: vec![
            Guard::Value {
                key: "order/7".into(),
                is: None,
            },
            Guard::Value {
                key: "a key".into(),
                is: Some(Value::from("old value")),
            },
            Guard::Version {
                key: "x".into(),
                is: Version(42),
            },
        ],
        mutations: vec![
            Mutation::Put {
                key: "order/7".into(),
                value: "ali\nce".into(),
                lease: None,
            },
            Mutation::Delete { key: "stock".into() },
        ],
    };
    assert_eq!(command, expected);
}

#[test]
fn a_wrong_script_names_the_line() {
    for (text, what) in [
        ("put a 1\nput b", "move.txn:2: \"put b\" needs a value"),
        ("frob a", "move.txn:1: unknown step \"frob\""),
        ("delete a b", "move.txn:1: \"b\" after the key"),
        ("put \"a", "move.txn:1: the quoted text"),
        ("if-version a x", "move.txn:1: \"x\" is not a version"),
        ("put a \"x\" y", "move.txn:1: text follows"),
        ("put", "move.txn:1: \"put\" needs a key"),
    ] {
        let failure = parse_script(text, "move.txn").expect_err(text);
        assert!(failure.message.starts_with(what), "{}", failure.message);
        assert_eq!(failure.exit, Exit::Usage);
    }
}
