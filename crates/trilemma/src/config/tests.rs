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
fn membership_is_on_with_its_section_and_says_what_cannot_work() {
    assert!(!error(GOOD).to_string().contains("membership"));
    for (section, why) in [
        ("period_ms = 10", "membership: period_ms is 10ms"),
        ("answer_ms = 800", "two and a half times"),
        (
            "zone = \"0123456789012345678901234567890123\"",
            "zone has 34 bytes",
        ),
        ("periods = 1", "unknown field `periods`"),
    ] {
        let refused = error(&format!("{GOOD}\n[membership]\n{section}\n")).to_string();
        assert!(refused.contains(why), "{refused}");
    }
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
        (
            GOOD.replace("3 =", "02 ="),
            "`peers` names node 2 twice, the second time as \"2\"",
        ),
        (
            GOOD.replace("\"test\"", "\"test-\""),
            "begins and ends with a letter or digit",
        ),
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
                .keyspace_with(
                    "locks",
                    KeyspaceConfig {
                        durability,
                        ..KeyspaceConfig::new(backend)
                    },
                )
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
fn tuning_that_would_spin_or_overflow_is_refused_with_its_limit() {
    let cases = [
        (
            "ping_interval_ms = 0",
            "ping_interval_ms is 0ns: from 5ms to 3600s",
        ),
        ("ping_interval_ms = 4", "ping_interval_ms is 4ms"),
        ("raft_heartbeat_ms = 0", "raft_heartbeat_ms is 0ns"),
        (
            "raft_election_timeout_ms = 18446744073709551615",
            "raft_election_timeout_ms is",
        ),
        ("paxos_round_timeout_ms = 0", "paxos_round_timeout_ms is 0ns"),
        (
            "two_phase_prepare_timeout_ms = 4",
            "two_phase_prepare_timeout_ms is 4ms",
        ),
        ("peer_timeout_ms = 18446744073709551615", "peer_timeout_ms is"),
        (
            "snapshot_log_bytes = 0",
            "snapshot_log_bytes is 0: the minimum is 1048576",
        ),
        (
            "segment_bytes = 1048576",
            "segment_bytes is 1048576: from 16777216 to 4294967296",
        ),
        ("segment_bytes = 4294967297", "segment_bytes is 4294967297"),
    ];
    for (line, expected) in cases {
        let why = error(&format!("{GOOD}\n[tuning]\n{line}\n")).to_string();
        assert!(why.contains(expected), "{line}: {why}");
    }
    let fast = "[tuning]\nping_interval_ms = 5\nraft_heartbeat_ms = 5\nsnapshot_log_bytes = 1048576\n";
    let why = error(&format!("{GOOD}\n{fast}")).to_string();
    assert!(why.contains("ca.pem"), "only the files are missing: {why}");
}

/// The table of the book holds the defaults of the code.
#[test]
fn the_book_has_the_defaults_of_tuning() {
    let book = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/configuration.md");
    let book = std::fs::read_to_string(book).expect("the book is there");
    let Tuning {
        liveness,
        raft_heartbeat,
        raft_election_timeout,
        paxos_round_timeout,
        two_phase_prepare_timeout,
        segment_bytes,
        snapshot_log_bytes,
        snapshot_state_percent,
        log_window_bytes: _,
        limits: _,
    } = Tuning::default();
    assert_eq!(
        snapshot_state_percent, 100,
        "as the book says of `snapshot_log_bytes`"
    );
    let mib = |bytes: u64| format!("{} MiB", bytes / 1024 / 1024);
    let rows = [
        ("ping_interval_ms", liveness.interval.as_millis().to_string()),
        ("peer_timeout_ms", liveness.timeout.as_millis().to_string()),
        ("raft_heartbeat_ms", raft_heartbeat.as_millis().to_string()),
        (
            "raft_election_timeout_ms",
            raft_election_timeout.as_millis().to_string(),
        ),
        (
            "paxos_round_timeout_ms",
            paxos_round_timeout.as_millis().to_string(),
        ),
        (
            "two_phase_prepare_timeout_ms",
            two_phase_prepare_timeout.as_millis().to_string(),
        ),
        ("segment_bytes", mib(segment_bytes)),
        ("snapshot_log_bytes", mib(snapshot_log_bytes)),
    ];
    for (key, default) in rows {
        let row = format!("| `{key}` | {default} |");
        assert!(book.contains(&row), "the book has no {row:?}");
    }
}

#[test]
fn servers_are_tried_in_the_order_of_their_ids_as_numbers() {
    let directory = std::env::temp_dir().join(format!("trilemma-servers-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory can be made");
    let load = |servers: &str| {
        let tls = "[tls]\nca = \"ca.pem\"\ncertificate = \"c.pem\"\nkey = \"c.key\"\n";
        let path = directory.join("client.toml");
        std::fs::write(&path, format!("servers = {{ {servers} }}\n{tls}")).expect("can be written");
        crate::ClientConfig::load(&path)
    };
    let ids = [10, 2, 1, 12, 3, 11];
    let servers = ids.map(|id| format!("{id} = \"127.0.0.1:74{id:02}\""));
    let found = load(&servers.join(", ")).expect("it is right");
    let found: Vec<u32> = found.servers.iter().map(|server| server.node.0).collect();
    assert_eq!(found, [1, 2, 3, 10, 11, 12]);
    let twice = load("1 = \"127.0.0.1:7400\", 01 = \"127.0.0.1:7401\"").expect_err("node 1 twice");
    assert!(twice.to_string().contains("names node 1 twice"), "{twice}");
    std::fs::remove_dir_all(&directory).expect("can be removed");
}

#[test]
fn a_keyspace_is_explained_with_what_it_needs() {
    let text = explain("orders", Backend::TwoPhase, 3);
    assert!(
        text.contains("all 3 nodes") && text.contains("99.8001 %"),
        "{text}"
    );
}

/// Keys of signatures are looked at when the certificates have been read.
#[test]
fn a_signing_key_must_be_a_key_that_others_know() {
    let pem = || trilemma_runtime::SigningKey::generate().expect("a key");
    let (own, other) = (pem(), pem());
    let public = |pem: &str| {
        let key = trilemma_runtime::SigningKey::from_pem(pem.as_bytes());
        key.expect("our own PEM").public().to_string()
    };
    let authority = trilemma_runtime::pki::Authority::generate("test").expect("an authority");
    let issued = authority.issue_node("test", NodeId(1)).expect("a certificate");
    let build = |signing: Option<&str>, keys: &[(u32, String)]| {
        let mut builder = Config::builder(1)
            .cluster("test")
            .listen("127.0.0.1:7400".parse().expect("an address"))
            .data("data")
            .identity_pem(
                authority.certificate_pem(),
                &issued.certificate_pem,
                &issued.key_pem,
            )
            .keyspace("k", Backend::Gossip);
        if let Some(signing) = signing {
            builder = builder.signing_pem(signing);
        }
        for (node, key) in keys {
            builder = builder.public_key(*node, key);
        }
        builder.build().map(|_| ()).map_err(|error| error.to_string())
    };
    let (key, stranger) = (public(&own), public(&other));
    assert_eq!(build(None, &[]), Ok(()));
    assert_eq!(
        build(Some(&own), &[(1, stranger.clone()), (1, key.clone())]),
        Ok(())
    );
    let why = build(Some(&own), &[(1, stranger), (2, key)]).expect_err("not its own");
    assert!(why.contains("not in the list for node 1"), "{why}");
    let why = build(Some(&own), &[(1, "abc".into())]).expect_err("no key");
    assert!(why.contains("64 hexadecimal digits, and not \"abc\""), "{why}");
    let why = build(Some("no key"), &[]).expect_err("no PEM");
    assert!(why.contains("signing key"), "{why}");
}

#[test]
fn keys_and_required_signatures_are_read_from_the_file() {
    let text = format!(
        "{GOOD}\n[signing]\nkey = \"sign.key\"\n[signing.public_keys]\n1 = \"a\"\n2 = [\"b\", \"c\"]\n"
    );
    let why = error(&text).to_string();
    assert!(why.contains("ca.pem"), "only the files are missing: {why}");
    let text = GOOD.replace("durability = \"os\"", "signatures = \"sometimes\"");
    assert!(error(&text).to_string().contains("required"));
}

/// What a `gossip` keyspace may say of groups, preferred senders and trust, and what of it cannot work.
#[test]
fn settings_of_gossip_are_read_and_refused_with_the_cure() {
    let with = |more: &str| GOOD.replace("durability = \"os\"", &format!("durability = \"os\", {more}"));
    let cases = [
        ("tick_ms = 0", "tick_ms is 0ns: from 5ms to 60s"),
        ("fanout = 0", "fanout is 0: from 1 to 64"),
        ("top_senders_percent = 101", "at most 100"),
        (
            "fanout = 1, top_senders_percent = 20",
            "needs a fanout of 2 or more",
        ),
        ("vouchers = 0", "at least one node"),
        ("vouchers = 3", "only 2 others to hear a change from"),
        ("trusted = [4]", "trusted names node 4"),
        ("groups = [[1, 2], [3, 9]]", "groups names node 9"),
        ("origins = []", "origins is empty"),
        ("origins = [7]", "origins names node 7"),
    ];
    for (more, expected) in cases {
        let why = error(&with(more)).to_string();
        assert!(
            why.contains("keyspace \"carts\"") && why.contains(expected),
            "{more}: {why}"
        );
    }
    let good = "tick_ms = 50, fanout = 4, groups = [[1, 2], [3]], top_senders_percent = 20, vouchers = 2, trusted = [3], \
                origins = [1, 2], signatures = \"required\"";
    let why = error(&with(good)).to_string();
    assert!(why.contains("ca.pem"), "only the certificates are missing: {why}");
    let elsewhere = GOOD.replace("backend = \"raft\"", "backend = \"raft\", vouchers = 2");
    assert!(error(&elsewhere).to_string().contains("vouchers"));
    let settings = GossipSettings {
        vouchers: 2,
        ..GossipSettings::default()
    };
    let raft = KeyspaceConfig {
        gossip: settings,
        ..KeyspaceConfig::new(Backend::Raft)
    };
    assert!(raft.check().expect_err("not of raft").contains("vouchers 2"));
}
