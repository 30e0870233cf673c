//! Exports under load: one state where the backend has one, and a word where it has none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use trilemma::{Command, Guard, Key, KeyRange, Mutation, Value};

use crate::harness::{Cluster, path, text};
use crate::workload;

/// More than one answer holds.
const KEYS: usize = 25_000;

fn pair(number: u64) -> Command {
    let put = |key: &str| Mutation::Put {
        key: Key::from(key),
        value: Value::from(number.to_string()),
        lease: None,
    };
    Command {
        guards: Vec::<Guard>::new(),
        mutations: vec![put("p/a"), put("p/z")],
    }
}

/// Changes two keys at both ends of a range, always together, until it is stopped.
async fn change(dir: &std::path::Path, name: &str, backend: &str, stop: &AtomicBool) -> u64 {
    let Some(keyspace) = workload::open(dir, 1, name, backend, stop).await else {
        return 0;
    };
    let mut number = 0;
    while !stop.load(Ordering::Acquire) {
        number += 1;
        if let Err(error) = keyspace.write(pair(number)).await {
            panic!("a write under load: {error}");
        }
    }
    number
}

#[test]
fn an_export_is_one_state_where_the_backend_has_one() {
    let mut cluster = Cluster::init("snapshots", 1);
    cluster.spawn(1);
    cluster.wait_writable(1);
    let members: serde_json::Map<String, serde_json::Value> = (0..KEYS)
        .map(|number| (format!("m{number:05}"), "x".repeat(60).into()))
        .chain([("a".to_owned(), 0.into()), ("z".to_owned(), 0.into())])
        .collect();
    let file = cluster.dir.join("many.json");
    std::fs::write(&file, serde_json::Value::Object(members).to_string()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    for (name, backend) in [("locks", "raft"), ("orders", "two-phase")] {
        cluster.ok(
            1,
            &["load", name, path(&file), "--prefix", "p", "--timeout", "60s"],
        );
        let stop = Arc::new(AtomicBool::new(false));
        let (dir, until) = (cluster.dir.clone(), Arc::clone(&stop));
        let writer = runtime.spawn(async move { change(&dir, name, backend, &until).await });
        for round in 0..5 {
            let output = cluster.at(1, &["export", name, "--prefix", "p", "--format", "json"]);
            assert!(
                output.status.success() && output.stderr.is_empty(),
                "{}",
                text(&output)
            );
            let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(found["a"], found["z"], "{name}, round {round}");
            assert_eq!(found.as_object().map(serde_json::Map::len), Some(KEYS + 2));
        }
        let range = ["range", name, "--prefix", "p/", "--output", "raw"];
        let range = cluster.ok(1, &range);
        let value = |key: &str| {
            range
                .lines()
                .find_map(|line| line.strip_prefix(key))
                .map(str::to_owned)
        };
        assert_eq!(value("p/a\t"), value("p/z\t"), "{name}: a range");
        assert_eq!(range.lines().count(), KEYS + 2);
        stop.store(true, Ordering::Release);
        assert!(
            runtime.block_on(writer).unwrap() > 0,
            "nothing was written meanwhile"
        );
        a_read_sees_what_was_acknowledged(&cluster, &runtime, name, backend);
    }
    for (name, why) in [
        ("settings", "each key is exact for itself"),
        ("carts", "what one node has"),
    ] {
        cluster.ok(1, &["put", name, "p/a", "1"]);
        let export = ["export", name, "--prefix", "p", "--format", "json"];
        let alone = cluster.at(1, &export);
        assert!(alone.stderr.is_empty(), "one key is one state: {}", text(&alone));
        cluster.ok(1, &["put", name, "p/z", "1"]);
        let both = cluster.at(1, &export);
        assert!(
            both.status.success() && text(&both).contains(why),
            "{}",
            text(&both)
        );
    }
    cluster.terminate(1);
}

/// One state that is older than the last acknowledged write would be one state, too.
fn a_read_sees_what_was_acknowledged(
    cluster: &Cluster,
    runtime: &tokio::runtime::Runtime,
    name: &str,
    backend: &str,
) {
    runtime.block_on(async {
        let stop = AtomicBool::new(false);
        let keyspace = workload::open(&cluster.dir, 1, name, backend, &stop)
            .await
            .unwrap();
        for number in 0..5 {
            let value = format!("late-{number}");
            keyspace.put("p/m24000", value.as_str()).await.unwrap();
            // A guard that fails leaves no change behind, only a version.
            let lost = keyspace.compare_and_set("p/a", None, "x").await.unwrap();
            assert!(!lost.succeeded);
            let entries = keyspace.range(KeyRange::prefix("p/")).await.unwrap();
            let found = entries.iter().find(|entry| *entry.key == *b"p/m24000");
            assert_eq!(found.map(|entry| entry.state.value.to_string()), Some(value));
            let some = keyspace
                .range_limited(KeyRange::prefix("p/"), 12_345)
                .await
                .unwrap();
            assert_eq!(some.len(), 12_345);
            assert!(some.is_sorted_by(|a, b| a.key < b.key));
        }
    });
}
