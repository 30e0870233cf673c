//! What must not work, and what is said then.

use std::time::{Duration, Instant};

use crate::harness::{Cluster, fresh_dir, path, text, trilemma};

fn edit(cluster: &Cluster, file: &str, from: &str, to: &str) {
    let path = cluster.dir.join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} has no {from:?}:\n{text}");
    std::fs::write(&path, text.replace(from, to)).unwrap();
}

#[test]
fn an_unknown_configuration_key_is_shown_with_line_and_column() {
    let mut cluster = Cluster::init("unknown-key", 1);
    edit(&cluster, "node-1.toml", "data    =", "colour  =");
    assert_eq!(cluster.try_spawn(1, "node-1.toml"), None);
    assert_eq!(cluster.wait_for_end(1), Some(7));
    let log = cluster.log(1);
    assert!(
        log.contains("node-1.toml, line 7, column 1") && log.contains("colour"),
        "{log}"
    );
}

#[test]
fn names_of_hosts_are_for_clients_and_nodes_say_so() {
    let mut cluster = Cluster::init("host-names", 2);
    edit(&cluster, "node-1.toml", "2 = \"127.0.0.1:", "2 = \"localhost:");
    assert_eq!(cluster.try_spawn(1, "node-1.toml"), None);
    assert_eq!(cluster.wait_for_end(1), Some(7));
    let log = cluster.log(1);
    assert!(
        log.contains("node-1.toml, line") && log.contains("nodes do not resolve names"),
        "{log}"
    );
}

#[test]
fn a_certificate_of_another_node_is_refused_at_start() {
    let mut cluster = Cluster::init("wrong-node", 2);
    edit(&cluster, "node-1.toml", "certs/node-1.", "certs/node-2.");
    assert_eq!(cluster.try_spawn(1, "node-1.toml"), None);
    assert_eq!(cluster.wait_for_end(1), Some(7));
    let log = cluster.log(1);
    assert!(log.contains("error: ") && log.contains("certificate"), "{log}");
}

#[test]
fn a_client_of_another_authority_is_refused() {
    let mut cluster = Cluster::init("wrong-authority", 1);
    cluster.spawn(1);
    cluster.wait_writable(1);
    let other = cluster.dir.join("other");
    for args in [&["cert", "new-ca"][..], &["cert", "client", "client"]] {
        let output = trilemma(&[args, &["--cluster", "demo", "--dir", path(&other)]].concat());
        assert!(output.status.success(), "{}", text(&output));
    }
    edit(&cluster, "client.toml", "certs/client.", "other/client.");
    let error = cluster.fails(1, &["get", "carts", "x", "--timeout", "3s"], 8);
    assert!(error.contains("error: "), "{error}");
    edit(&cluster, "client.toml", "certs/ca.pem", "other/ca.pem");
    let error = cluster.fails(1, &["get", "carts", "x", "--timeout", "3s"], 8);
    assert!(
        error.contains("error: "),
        "the server's certificate is not trusted: {error}"
    );
}

#[test]
fn nodes_with_different_keyspace_tables_refuse_each_other() {
    let mut cluster = Cluster::init("table", 2);
    edit(
        &cluster,
        "node-2.toml",
        "carts    = { backend = \"gossip\", durability = \"fsync\" }",
        "carts    = { backend = \"paxos\" }",
    );
    cluster.spawn(1);
    cluster.spawn(2);
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let status = cluster.ok(1, &["status"]);
        let peer = status
            .lines()
            .find(|line| line.starts_with("2 "))
            .unwrap_or_default();
        if ["carts", "gossip", "paxos"]
            .iter()
            .all(|word| peer.contains(word))
        {
            assert!(peer.contains(" no "), "not connected: {peer}");
            break;
        }
        assert!(
            Instant::now() < until,
            "both tables are not shown:\n{status}\n{}",
            cluster.log(1)
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let error = cluster.fails(1, &["put", "locks", "a", "b"], 4);
    assert!(error.contains("no quorum (1 of 2"), "{error}");
}

#[test]
fn init_never_overwrites_and_keeps_keys_private() {
    let dir = fresh_dir("init");
    let init = ["init", path(&dir), "--nodes", "2"];
    let output = trilemma(&init);
    assert!(output.status.success(), "{}", text(&output));
    let key = dir.join("certs/ca.key");
    #[cfg(unix)]
    for name in ["ca.key", "node-1.key", "node-2.key", "client.key"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(dir.join("certs").join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    #[cfg(unix)]
    for name in [".", "certs", "data", "data/node-1"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(dir.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{name}");
    }
    let before = std::fs::read(&key).unwrap();
    let again = trilemma(&init);
    assert_eq!(again.status.code(), Some(2), "{}", text(&again));
    assert!(text(&again).contains("exists already"), "{}", text(&again));
    assert_eq!(std::fs::read(&key).unwrap(), before);
    let forced = trilemma(&[&init[..], &["--force"]].concat());
    assert!(forced.status.success(), "{}", text(&forced));
    assert_ne!(std::fs::read(&key).unwrap(), before);
    std::fs::remove_dir_all(&dir).unwrap();
}

/// What `init` accepts, `serve` starts, and a client can connect to: a cluster's name is part of the names in its
/// certificates, where none may begin or end with a hyphen.
#[test]
fn init_and_serve_have_one_rule_for_names() {
    let dir = fresh_dir("names");
    let init = |cluster: &str, keyspaces: &str| {
        let (cluster, keyspaces) = (format!("--cluster={cluster}"), format!("--keyspaces={keyspaces}"));
        trilemma(&["init", path(&dir), "--nodes", "1", &cluster, &keyspaces])
    };
    let long = "a".repeat(64);
    for name in ["Prod", "prod-", "_x", "-", "", "a.b", &long] {
        for (cluster, keyspaces) in [(name, "carts=gossip"), ("prod", &format!("{name}=gossip"))] {
            let output = init(cluster, keyspaces);
            assert_eq!(output.status.code(), Some(2), "{name:?}: {}", text(&output));
            assert!(
                text(&output).contains(&format!("\"{name}\"")),
                "{}",
                text(&output)
            );
            assert!(!dir.exists(), "{name:?}: something was written");
        }
        let cert = [
            "cert",
            "new-ca",
            "--dir",
            path(&dir),
            &format!("--cluster={name}"),
        ];
        let output = trilemma(&cert);
        assert_eq!(output.status.code(), Some(2), "{name:?}: {}", text(&output));
    }
    for name in ["p", "prod-2_b", &long[1..]] {
        let output = init(name, &format!("{name}=raft"));
        assert!(output.status.success(), "{name:?}: {}", text(&output));
        let config = trilemma::Config::load(dir.join("node-1.toml"));
        config.unwrap_or_else(|error| panic!("{name:?}: {error}"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

#[test]
fn completions_are_written_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = trilemma(&["completions", shell]);
        assert!(
            output.status.success() && output.stdout.len() > 1000,
            "{shell}: {}",
            text(&output)
        );
    }
}
