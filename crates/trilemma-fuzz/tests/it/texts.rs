//! What users write: configuration files, tokens, ids, histories.

use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;

use trilemma::Config;
use trilemma_check::history::History;
use trilemma_core::{Backend, KeyRange, OpId, WatchToken};
use trilemma_fuzz::mutate::mutated;
use trilemma_fuzz::source::Source;

targets! {
    config(2000, 512) => config_of;
    tokens(4000, 64) => tokens_of;
    history(2000, 512) => history_of;
}

const CONFIG: [&str; 3] = [
    r#"
cluster = "shop"
node = 1
listen = "127.0.0.1:7001"
data = "data/1"
peers = { 2 = "127.0.0.1:7002", 3 = "[::1]:7003" }

[tls]
ca = "ca.pem"
certificate = "node.pem"
key = "node.key"

[keyspaces]
locks = { backend = "raft" }
carts = { backend = "gossip", merge = "last-writer-wins", durability = "os" }

[tuning]
ping_interval_ms = 50
peer_timeout_ms = 300
segment_bytes = 1048576
snapshot_log_bytes = 1048576
raft_heartbeat_ms = 50
raft_election_timeout_ms = 150
paxos_round_timeout_ms = 100
two_phase_prepare_timeout_ms = 500
"#,
    r#"
node = 4294967295
listen = "0.0.0.0:0"
data = "/var/lib/x"
tls = { ca = "a", certificate = "b", key = "c" }
[keyspaces.a]
backend = "paxos"
[keyspaces.b]
backend = "two-phase"
"#,
    "a = [[[[{b.c.d = [1979-05-27T07:32:00Z, 0x1f, inf, '''\n''']}]]]]",
];

/// Configuration text: an error that names where, or a configuration that can be explained.
fn config_of(input: &[u8]) {
    let text = mutated(&mut Source::new(input), &CONFIG);
    let text = String::from_utf8_lossy(&text);
    match Config::parse(&text, "node.toml", Path::new("/nowhere")) {
        Ok(config) => {
            assert!(config.keyspaces().count() <= trilemma::config::KEYSPACES_MAX);
            assert!(config.explain().all(|sentence| !sentence.is_empty()));
        }
        Err(error) => assert!(error.to_string().contains("node.toml"), "{error}"),
    }
}

/// Whatever a text is read as, it is printed so that it is read as the same.
fn stable<T: FromStr<Err: Display> + Display + PartialEq + std::fmt::Debug>(text: &str) {
    match text.parse::<T>() {
        Ok(value) => assert_eq!(value.to_string().parse::<T>().ok(), Some(value)),
        Err(error) => assert!(error.to_string().len() < 500 + text.len(), "{error}"),
    }
}

fn tokens_of(input: &[u8]) {
    let samples = [
        "5f:700",
        "s12-00000000000000ff/18446744073709551615",
        "two-phase",
        "a/ÿ",
    ];
    let text = mutated(&mut Source::new(input), &samples);
    // A prefix is bytes: the range holds exactly what begins with it, next to its borders at least.
    let range = KeyRange::prefix(&text[..]);
    for end in [&b""[..], b"\0", b"\xff\xff"] {
        assert!(range.contains(&[&text, end].concat()));
    }
    if let Some((_, shorter)) = text.split_last() {
        assert!(!range.contains(shorter));
    }
    let text = String::from_utf8_lossy(&text);
    stable::<WatchToken>(&text);
    stable::<OpId>(&text);
    stable::<Backend>(&text);
}

const HISTORY: [&str; 4] = [
    r#"{"process":1,"invoke":1000,"return":2000,"call":{"put":{"key":"a","value":"1"}},"outcome":{"ok":{"done":{"version":7}}}}
{"process":2,"invoke":1500,"return":1900,"call":{"get":{"key":"a"}},"outcome":{"ok":{"value":{"value":"1","version":7}}}}
{"process":1,"invoke":2100,"call":{"cas":{"key":"a","expected":"1","value":"2"}},"outcome":"unknown"}
"#,
    r#"# a comment

{"process":3,"invoke":1,"return":2,"call":{"range":{"start":"a","limit":3}},"outcome":{"ok":{"entries":{"entries":[{"key":"a","value":"1"}],"more":true,"at":9}}}}
{"process":3,"invoke":3,"return":4,"call":{"members":{"key":"s"}},"outcome":{"ok":{"elements":{"elements":["x","y"]}}}}
{"process":3,"invoke":5,"return":6,"call":{"put":{"key":"s","value":"é"}},"outcome":"fail"}
"#,
    r#"{"process":1,"invoke":1,"return":2,"call":{"transaction":{"steps":[{"read":{"key":"a"}},{"append":{"key":"a","element":"1"}}]}},"outcome":{"ok":{"committed":{"steps":[{"read":{"key":"a","found":["0"]}},{"append":{"key":"a","element":"1"}}]}}}}
{"process":2,"invoke":1,"return":2,"call":{"command":{"guards":[{"version":{"key":"a","is":0}}],"changes":[{"key":"a","value":null}]}},"outcome":{"ok":{"won":{"won":false}}}}
"#,
    r#"{"process":1,"invoke":1,"return":2,"call":{"acquire":{"lock":"l","ttl":5}},"outcome":{"ok":{"token":{"token":3}}}}
{"process":1,"invoke":3,"return":4,"call":{"use":{"lock":"l","token":3}},"outcome":{"ok":{"won":{"won":true}}}}
{"process":1,"invoke":5,"return":6,"call":{"release":{"lock":"l","token":3}},"outcome":{"ok":{"done":{}}}}
"#,
];

/// A history that is read is written and read again as the same.
fn history_of(input: &[u8]) {
    for sample in HISTORY {
        assert!(
            History::read(sample.as_bytes()).is_ok(),
            "a sample is refused: {sample}"
        );
    }
    let text = mutated(&mut Source::new(input), &HISTORY);
    match History::read(&text[..]) {
        Ok(history) => {
            let mut written = Vec::new();
            history.write(&mut written).expect("memory takes it");
            assert_eq!(History::read(&written[..]).ok(), Some(history));
        }
        Err(error) => assert!(error.to_string().starts_with("line "), "{error}"),
    }
}
