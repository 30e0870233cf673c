//! Configuration errors name the place and the cure.

use std::path::Path;

use super::*;
use crate::error::{ConfigError, Error};

const GOOD: &str = r#"
cluster = "test"
node = 1
listen = "127.0.0.1:7400"
data = "data/n1"
peers = { 2 = "127.0.0.1:7401", 3 = "127.0.0.1:7402" }

[tls]
ca = "ca.pem"
certificate = "node-1.pem"
key = "node-1.key"

[keyspaces]
carts = { backend = "gossip", merge = "last-writer-wins", durability = "os" }
locks = { backend = "raft" }
"#;

fn error(text: &str) -> ConfigError {
    match Config::parse(text, "test.toml", Path::new("/nowhere")) {
        Err(Error::Config(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unknown_key_is_refused_with_line_and_column() {
    let text = GOOD.replace("data = ", "dta = \"x\"\ndata = ");
    let ConfigError::Parse {
        line, column, why, ..
    } = error(&text)
    else {
        panic!("{:?}", error(&text))
    };
    assert_eq!((line, column), (5, 1));
    assert!(why.contains("dta"), "{why}");
    let text = GOOD.replace("backend = \"raft\"", "backend = \"raft\", quorum = 1");
    let ConfigError::Parse { line, why, .. } = error(&text) else {
        panic!("{:?}", error(&text))
    };
    assert_eq!(line, 15);
    assert!(why.contains("quorum"), "{why}");
}

#[test]
fn an_unknown_backend_names_those_there_are() {
    let text = GOOD.replace("\"raft\"", "\"rafd\"");
    let why = error(&text).to_string();
    assert!(why.contains("rafd") && why.contains("two-phase"), "{why}");
}

#[test]
fn values_that_do_not_fit_together_are_named() {
    let cases = [
        (
            GOOD.replace("{ 2 =", "{ 1 ="),
            "names node 1, which is this node itself",
        ),
        (GOOD.replace("{ 2 =", "{ two ="), "names node \"two\""),
        (GOOD.replace("node = 1", "node = 0"), "node ids start at 1"),
        (GOOD.replace("locks =", "\"Locks!\" ="), "keyspace \"Locks!\""),
        (GOOD.replace("ca.pem", "missing.pem"), "missing.pem"),
    ];
    for (text, expected) in cases {
        let why = error(&text).to_string();
        assert!(why.contains(expected), "expected {expected:?} in {why:?}");
    }
}

/// Only `gossip` may acknowledge before the disk has it; the others would break promises that they have made.
#[test]
fn weak_durability_is_refused_for_all_backends_but_gossip() {
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 7400));
    for backend in Backend::ALL {
        for durability in [Durability::None, Durability::Os, Durability::Fsync] {
            let built = Config::builder(1)
                .listen(listen)
                .data("data")
                .keyspace_with("locks", KeyspaceConfig { backend, durability })
                .build();
            let why = built.expect_err("there is no certificate").to_string();
            let refused = why.contains("keyspace \"locks\": durability");
            let strong = backend == Backend::Gossip || durability == Durability::Fsync;
            assert_eq!(refused, !strong, "{backend}, {durability:?}: {why}");
            assert_eq!(why.contains("`tls` is missing"), strong, "{why}");
            if refused {
                let asked = format!("\"{}\" with backend \"{backend}\"", durability.name());
                assert!(why.contains(&asked) && why.contains("choose \"fsync\""), "{why}");
            }
        }
    }
}

#[test]
fn a_keyspace_is_explained_with_what_it_needs() {
    let text = explain("orders", Backend::TwoPhase, 3);
    assert!(
        text.contains("all 3 nodes") && text.contains("99.8001 %"),
        "{text}"
    );
}
