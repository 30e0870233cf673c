//! Files that commands and nodes write: what stands at a name stays what it is, and says only what is so.

use std::io::Read;
use std::net::UdpSocket;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Cluster, START, lines, path, text, trilemma_with_input};

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + START;
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn fifo(at: &Path) {
    assert!(Command::new("mkfifo").arg(at).status().unwrap().success());
}

#[test]
fn what_is_loaded_and_exported_is_what_is_meant() {
    let mut cluster = Cluster::init("files", 1);
    cluster.spawn(1);
    cluster.wait_writable(1);
    exports_keep_what_stands_at_the_name(&cluster);
    bytes_are_compared_as_bytes(&cluster);
    what_load_accepts_export_reads_back(&cluster);
    keys_that_are_too_long_are_refused_alike(&cluster);
    cluster.terminate(1);
}

fn exports_keep_what_stands_at_the_name(cluster: &Cluster) {
    cluster.ok(1, &["put", "locks", "app/password", "hunter2"]);
    let at = |name: &str| cluster.dir.join(name);
    let export = |to: &Path| cluster.ok(1, &["export", "locks", "--format", "json", "--to", path(to)]);
    std::fs::write(at("secret.json"), "{}").unwrap();
    std::fs::set_permissions(at("secret.json"), std::fs::Permissions::from_mode(0o600)).unwrap();
    symlink("secret.json", at("link.json")).unwrap();
    export(&at("link.json"));
    assert!(std::fs::symlink_metadata(at("link.json")).unwrap().is_symlink());
    let mode = std::fs::metadata(at("secret.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "a secret is no wider than before");
    let written = std::fs::read_to_string(at("secret.json")).unwrap();
    assert!(written.contains("hunter2"), "{written}");
    fifo(&at("pipe"));
    let pipe = at("pipe");
    let reader = std::thread::spawn(move || {
        let mut got = String::new();
        std::fs::File::open(pipe)
            .unwrap()
            .read_to_string(&mut got)
            .unwrap();
        got
    });
    export(&at("pipe"));
    assert_eq!(reader.join().unwrap(), written);
    assert!(
        std::fs::symlink_metadata(at("pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    let lost = ["export", "locks", "--format", "json", "--to", "/dev/full"];
    let error = cluster.fails(1, &lost, 10);
    assert!(error.contains("--to /dev/full"), "{error}");
}

fn bytes_are_compared_as_bytes(cluster: &Cluster) {
    let config = cluster.dir.join("client.toml");
    let put = ["put", "locks", "bin/sep", "-", "--config", path(&config)];
    let output = trilemma_with_input(&put, b"\xff");
    assert!(output.status.success(), "{}", text(&output));
    let file = cluster.dir.join("bin.json");
    std::fs::write(&file, "{\"sep\": \"\\\\xff\"}").unwrap();
    let load = ["load", "locks", path(&file), "--prefix", "bin"];
    let dry = cluster.at(1, &[&load[..], &["--dry-run", "--output", "json"]].concat());
    let shown = &lines(&dry)[0];
    assert_eq!(
        (&shown["old_hex"], &shown["new"]),
        (&"ff".into(), &"\\xff".into()),
        "{shown}"
    );
    assert!(cluster.ok(1, &load).contains("0 added, 1 changed"));
    assert_eq!(
        cluster.ok(1, &["get", "locks", "bin/sep", "--output", "raw"]),
        "\\xff"
    );
    assert!(cluster.ok(1, &load).contains("1 unchanged"));
}

fn what_load_accepts_export_reads_back(cluster: &Cluster) {
    let file = cluster.dir.join("db.json");
    std::fs::write(&file, "{\"db\": {\"host\": \"h\"}}").unwrap();
    for (prefix, says) in [
        ("/app", "give --prefix app"),
        ("a//b", "empty name"),
        ("a/~9", "is no name"),
    ] {
        let error = cluster.fails(1, &["load", "orders", path(&file), "--prefix", prefix], 2);
        assert!(error.contains(says), "{prefix}: {error}");
    }
    cluster.fails(1, &["export", "orders", "--format", "json"], 1);
    cluster.ok(1, &["load", "orders", path(&file), "--prefix", "a/b"]);
    std::fs::write(&file, "5").unwrap();
    cluster.ok(1, &["load", "orders", path(&file), "--prefix", "five"]);
    let whole = cluster.ok(1, &["export", "orders", "--format", "json"]);
    let whole: serde_json::Value = serde_json::from_str(&whole).unwrap();
    assert_eq!(
        whole,
        serde_json::json!({"a": {"b": {"db": {"host": "h"}}}, "five": 5})
    );
}

fn keys_that_are_too_long_are_refused_alike(cluster: &Cluster) {
    let long = "k".repeat(5000);
    for keyspace in ["carts", "locks", "settings", "orders"] {
        let commands = [
            &["put", keyspace, &long, "v"][..],
            &["get", keyspace, &long],
            &["delete", keyspace, &long],
            &["range", keyspace, "--prefix", &long],
            &["watch", keyspace, "--prefix", &long],
        ];
        for command in commands {
            let error = cluster.fails(1, command, 3);
            assert!(
                error.contains("key is 5000, the limit is 4096"),
                "{} {keyspace}: {error}",
                command[0]
            );
        }
        for command in [&["put", keyspace, "", "v"][..], &["get", keyspace, ""]] {
            let error = cluster.fails(1, command, 3);
            assert!(error.contains("a key is empty"), "{error}");
        }
        let longest = "k".repeat(4096);
        cluster.ok(1, &["put", keyspace, &longest, "v"]);
        assert_eq!(cluster.ok(1, &["get", keyspace, &longest]), "v\n");
        cluster.ok(1, &["range", keyspace, "--prefix", &longest]);
        cluster.ok(1, &["delete", keyspace, &longest]);
    }
}

#[test]
fn a_ready_file_is_there_only_while_its_node_serves() {
    let mut cluster = Cluster::init("ready-file", 1);
    let file = cluster.dir.join("ready");
    let options = ["--ready-file", path(&file)];
    let start = |cluster: &mut Cluster| cluster.spawn_with(1, &options, Stdio::null(), Stdio::null());
    start(&mut cluster);
    wait_for("no ready file", || file.exists());
    let ready = std::fs::read_to_string(&file).unwrap();
    assert!(
        ready.starts_with("ready node=1 ") && ready.ends_with('\n'),
        "{ready:?}"
    );
    let listen = ready
        .split("listen=")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let listen = listen.expect("an address").to_owned();
    cluster.kill(1);
    assert!(file.exists(), "a killed node cannot remove it");
    {
        let _taken = UdpSocket::bind(&listen).unwrap();
        start(&mut cluster);
        assert_eq!(cluster.wait_for_end(1), Some(7));
    }
    assert!(!file.exists(), "the next start does");
    start(&mut cluster);
    wait_for("no ready file", || file.exists());
    cluster.terminate(1);
    assert!(!file.exists(), "a clean stop does");
    std::fs::write(&file, "ready").unwrap();
    std::fs::rename(cluster.dir.join("node-1.toml"), cluster.dir.join("away.toml")).unwrap();
    start(&mut cluster);
    assert_eq!(cluster.wait_for_end(1), Some(7));
    assert!(
        !file.exists(),
        "and one that fails before it reads its configuration"
    );
}

/// A start that takes long, here without end, does not make a node deaf to those who want it to stop.
#[test]
fn a_node_that_is_starting_stops_when_it_is_asked_to() {
    let mut cluster = Cluster::init("starting", 1);
    // Nobody reads it, so to open it for writing is to wait.
    fifo(&cluster.dir.join("data/node-1/lock"));
    let ready = cluster.dir.join("ready");
    cluster.spawn_with(1, &["--ready-file", path(&ready)], Stdio::null(), Stdio::null());
    std::thread::sleep(Duration::from_millis(500));
    cluster.terminate(1);
    assert!(!ready.exists());
}
