//! The client commands against three running nodes, then against one that is left alone.

use std::time::{Duration, Instant};

use crate::harness::{Cluster, KEYSPACES, lines, path, text, trilemma_with_input};

/// A tree of more than 200 settings with every type that TOML has.
fn big_tree() -> String {
    let mut text =
        String::from("title = \"shop\"\nopened = 2019-03-01\nlist = [1, 2.5, \"three\", [], {}]\n");
    for section in 0..40 {
        text.push_str(&format!(
            "[section-{section:02}]\nname = \"grün {section}\"\nport = {}\nratio = {:?}\non = {}\ntext-5 = \"5\"\n\"dotted.name/x\" = [\"a\", \"b\"]\n",
            8000 + section,
            f64::from(section) / 8.0,
            section % 2 == 0,
        ));
    }
    text
}

fn value(text: &str) -> toml::Value {
    toml::Value::Table(text.parse().expect("TOML"))
}

#[test]
fn commands_against_three_nodes_and_against_one_alone() {
    let mut cluster = Cluster::three("commands");
    a_tree_loaded_at_one_node_is_exported_equal_at_every_node(&cluster);
    single_keys(&cluster);
    compare_and_set_and_transactions(&cluster);
    an_operation_is_named_repeated_and_asked_for(&cluster);
    ranges_and_watches(&cluster);
    data_types(&cluster);
    overviews(&cluster);
    wrong_arguments(&cluster);
    hosts_have_names(&cluster);
    cluster.terminate(2);
    cluster.terminate(3);
    one_node_left_alone(&cluster);
    cluster.terminate(1);
    cluster.fails(1, &["get", "carts", "x"], 8);
}

/// Whether a range read shows what the node that is asked has, which may be less than what was acknowledged.
fn ranges_are_local(keyspace: &str) -> bool {
    matches!(keyspace, "carts" | "settings")
}

fn a_tree_loaded_at_one_node_is_exported_equal_at_every_node(cluster: &Cluster) {
    let file = cluster.dir.join("big.toml");
    std::fs::write(&file, big_tree()).unwrap();
    for (keyspace, _) in KEYSPACES {
        let load = ["load", keyspace, path(&file), "--prefix", "cfg"];
        let dry = cluster.ok(1, &[&load[..], &["--dry-run"]].concat());
        assert!(
            dry.contains("would change 287 keys: 287 added"),
            "{keyspace}: {dry}"
        );
        let loaded = cluster.ok(1, &load);
        assert!(
            loaded.contains("287 added, 0 changed, 0 removed"),
            "{keyspace}: {loaded}"
        );
        let again = cluster.ok(2, &load);
        // Node 2 may not have been sent everything yet; then it loads what it misses.
        assert!(
            ranges_are_local(keyspace) || again.contains("0 added, 0 changed, 0 removed, 287 unchanged"),
            "{again}"
        );
    }
    for (keyspace, _) in KEYSPACES {
        for node in 1..=3 {
            let until = Instant::now() + Duration::from_secs(60);
            loop {
                let exported = cluster.ok(
                    node,
                    &["export", keyspace, "--prefix", "cfg/", "--format", "toml"],
                );
                if value(&exported) == value(&big_tree()) {
                    break;
                }
                let converging = ranges_are_local(keyspace) && Instant::now() < until;
                assert!(converging, "{keyspace} at node {node} differs:\n{exported}");
            }
        }
    }
    let smaller = big_tree()
        .replace("title = \"shop\"\n", "title = \"store\"\n")
        .replace("on = true\n", "");
    std::fs::write(&file, &smaller).unwrap();
    let kept = cluster.ok(3, &["load", "locks", path(&file), "--prefix", "cfg"]);
    assert!(
        kept.contains("0 added, 1 changed, 0 removed, 266 unchanged; 20 not in the file kept"),
        "{kept}"
    );
    let pruned = cluster.ok(3, &["load", "locks", path(&file), "--prefix", "cfg", "--prune"]);
    assert!(pruned.contains("0 added, 0 changed, 20 removed"), "{pruned}");
    let exported = cluster.ok(1, &["export", "locks", "--prefix", "cfg", "--format", "toml"]);
    assert_eq!(value(&exported), value(&smaller));
    let json = cluster.fails(
        1,
        &["export", "locks", "--prefix", "nothing", "--format", "json"],
        1,
    );
    assert!(json.contains("has no keys under"), "{json}");
    std::fs::write(&file, "a = 1\nb = = 2\n").unwrap();
    let wrong = cluster.fails(1, &["load", "locks", path(&file)], 2);
    assert!(wrong.contains("big.toml:2:5:"), "{wrong}");
}

fn data_types(cluster: &Cluster) {
    let typed = |node, words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        cluster.ok(node, &words)
    };
    assert_eq!(typed(1, "counter get carts visits"), "0\n");
    typed(1, "counter add carts visits");
    typed(1, "counter add carts visits -5");
    assert_eq!(typed(1, "counter get carts visits"), "-4\n");
    let json = typed(1, "counter get carts visits --output json");
    assert_eq!(json, "{\"key\":\"visits\",\"value\":-4}\n");
    typed(1, "counter reset carts visits");
    assert_eq!(typed(1, "counter get carts visits"), "0\n");
    let wrong = cluster.fails(1, &["get", "carts", "visits"], 3);
    assert!(wrong.contains("it holds a counter, not a plain value"), "{wrong}");
    let other = cluster.fails(1, &["counter", "add", "locks", "visits"], 3);
    assert!(other.contains("a counter"), "{other}");

    typed(1, "set add carts wishes apple");
    typed(1, "set add carts wishes pear");
    typed(1, "set remove carts wishes apple");
    assert_eq!(typed(1, "set members carts wishes"), "pear\n");
    assert_eq!(
        typed(1, "set members carts wishes --output json"),
        "{\"element\":\"pear\"}\n"
    );
    typed(1, "map put carts ada mail a@b");
    assert_eq!(typed(1, "map fields carts ada"), "mail = a@b\n");
    typed(1, "map remove carts ada mail");
    assert_eq!(typed(1, "map fields carts ada"), "");

    typed(1, "bounded-counter grant carts seats 2");
    typed(1, "bounded-counter spend carts seats");
    assert_eq!(
        typed(1, "bounded-counter get carts seats"),
        "1\nnode 1 may take 1\n"
    );
    let refused = cluster.fails(1, &["bounded-counter", "spend", "carts", "seats", "2"], 3);
    assert!(refused.contains("node 1 has 1"), "{refused}");
    typed(1, "delete carts wishes");
}

fn single_keys(cluster: &Cluster) {
    for (keyspace, backend) in KEYSPACES {
        let explained = cluster.at(1, &["put", keyspace, "key", "value one", "--explain"]);
        let receipt = String::from_utf8_lossy(&explained.stderr).into_owned();
        assert!(
            receipt.contains(&format!("backend {backend}: ")),
            "{}",
            text(&explained)
        );
        assert!(
            receipt.contains("durable on node ") && receipt.contains("round trip"),
            "{receipt}"
        );
        assert_eq!(cluster.ok(1, &["get", keyspace, "key"]), "value one\n");
        assert_eq!(
            cluster.ok(1, &["get", keyspace, "key", "--output", "raw"]),
            "value one"
        );
        assert_eq!(
            cluster.ok(1, &["get", keyspace, "key", "--level", "local"]),
            "value one\n"
        );
        let json = cluster.at(1, &["get", keyspace, "key", "--output", "json", "--explain"]);
        let json = &lines(&json)[0];
        assert_eq!(
            (&json["value"], &json["read"]["backend"]),
            (&"value one".into(), &backend.into())
        );
        if backend != "gossip" {
            assert_eq!(
                cluster.ok(3, &["get", keyspace, "key"]),
                "value one\n",
                "linearizable at once everywhere"
            );
        }
        cluster.ok(1, &["delete", keyspace, "key"]);
        let missing = cluster.fails(1, &["get", keyspace, "key"], 1);
        assert!(missing.contains("not found: keyspace"), "{missing}");
    }
    let config = cluster.dir.join("client.toml");
    let put = ["put", "orders", "bytes", "-", "--config", path(&config)];
    let output = trilemma_with_input(&put, b"\xff\x00binary");
    assert!(output.status.success(), "{}", text(&output));
    let raw = cluster.at(1, &["get", "orders", "bytes", "--output", "raw"]);
    assert_eq!(raw.stdout, b"\xff\x00binary");
    let json = cluster.at(1, &["get", "orders", "bytes", "--output", "json"]);
    assert_eq!(lines(&json)[0]["value_hex"], "ff0062696e617279");
}

fn compare_and_set_and_transactions(cluster: &Cluster) {
    for (keyspace, backend) in KEYSPACES {
        if backend == "gossip" {
            let refused = cluster.fails(1, &["cas", keyspace, "lock", "--expect-absent", "me"], 3);
            assert!(refused.contains("unsupported"), "{refused}");
            continue;
        }
        cluster.ok(1, &["cas", keyspace, "lock", "--expect-absent", "me"]);
        let lost = cluster.at(2, &["cas", keyspace, "lock", "--expect-absent", "you"]);
        assert_eq!(lost.status.code(), Some(6), "{}", text(&lost));
        cluster.ok(3, &["cas", keyspace, "lock", "--expect", "me", "you"]);
        assert_eq!(cluster.ok(1, &["get", keyspace, "lock"]), "you\n");
    }
    for keyspace in ["locks", "orders"] {
        let txn = [
            "txn",
            keyspace,
            "--if-absent",
            "order/7",
            "--put",
            "order/7=alice",
            "--put",
            "stock=97",
        ];
        cluster.ok(2, &txn);
        let lost = cluster.at(2, &txn);
        assert_eq!(lost.status.code(), Some(6), "{}", text(&lost));
        let version =
            lines(&cluster.at(1, &["get", keyspace, "stock", "--output", "json"]))[0]["version"].clone();
        let script = cluster.dir.join("move.txn");
        std::fs::write(
            &script,
            format!("if stock 97\nif-version stock {version}\nput stock 96\ndelete order/7\n"),
        )
        .unwrap();
        cluster.ok(1, &["txn", keyspace, "--script", path(&script)]);
        assert_eq!(cluster.ok(3, &["get", keyspace, "stock"]), "96\n");
        cluster.fails(3, &["get", keyspace, "order/7"], 1);
    }
    let refused = cluster.fails(1, &["txn", "settings", "--put", "a=1", "--put", "b=2"], 3);
    assert!(refused.contains("unsupported"), "paxos has no batches: {refused}");
}

fn an_operation_is_named_repeated_and_asked_for(cluster: &Cluster) {
    for keyspace in ["locks", "orders"] {
        let first = cluster.at(
            1,
            &[
                "cas",
                keyspace,
                "named",
                "--expect-absent",
                "x",
                "--output",
                "json",
            ],
        );
        let op = lines(&first)[0]["op"]
            .as_str()
            .expect("a receipt has an op")
            .to_owned();
        let repeat = [
            "cas",
            keyspace,
            "named",
            "--expect-absent",
            "x",
            "--op-id",
            &op,
            "--retry",
        ];
        assert!(
            cluster.ok(1, &repeat).starts_with("ok"),
            "a repeat tells what the first attempt did"
        );
        assert_eq!(cluster.ok(1, &["outcome", keyspace, &op]), "applied, once\n");
        let never = op.replace("/1", "/999");
        let output = cluster.at(1, &["outcome", keyspace, &never, "--output", "json"]);
        assert_eq!(lines(&output)[0]["outcome"], "not-applied", "{}", text(&output));
        let late = ["put", keyspace, "late", "x", "--op-id", &never, "--retry"];
        let fenced = cluster.at(1, &late);
        assert_eq!(
            fenced.status.code(),
            Some(3),
            "the answer was final: {}",
            text(&fenced)
        );
    }
}

fn ranges_and_watches(cluster: &Cluster) {
    for (keyspace, _) in KEYSPACES {
        for number in 0..5 {
            cluster.ok(1, &["put", keyspace, &format!("r/{number}"), &number.to_string()]);
        }
        let range = cluster.ok(
            1,
            &[
                "range", keyspace, "--prefix", "r/", "--limit", "3", "--output", "raw",
            ],
        );
        assert_eq!(range, "r/0\t0\nr/1\t1\nr/2\t2\n");
        let range = cluster.ok(1, &["range", keyspace, "--start", "r/1", "--end", "r/3"]);
        assert_eq!(range, "r/1 = 1\nr/2 = 2\n");
        let watch = [
            "watch", keyspace, "--prefix", "r/", "--count", "5", "--output", "json",
        ];
        let first = cluster.at(1, &watch);
        let shown = lines(&first);
        let kinds: Vec<&str> = shown.iter().filter_map(|line| line["type"].as_str()).collect();
        assert_eq!(
            kinds,
            ["reset", "entry", "entry", "entry", "entry", "entry"],
            "{}",
            text(&first)
        );
        let resume = String::from_utf8_lossy(&first.stderr).into_owned();
        let resume: serde_json::Value = serde_json::from_str(resume.trim()).expect("a token to resume with");
        let token = resume["resume"].as_str().expect("a token");
        cluster.ok(1, &["put", keyspace, "r/2", "two"]);
        cluster.ok(1, &["delete", keyspace, "r/4"]);
        let resumed = [
            "watch", keyspace, "--prefix", "r/", "--resume", token, "--count", "2", "--output", "json",
        ];
        let shown = lines(&cluster.at(1, &resumed));
        assert_eq!(
            (&shown[0]["type"], &shown[0]["value"]),
            (&"put".into(), &"two".into()),
            "{keyspace}: {shown:?}"
        );
        assert_eq!(
            (&shown[1]["type"], &shown[1]["key"]),
            (&"delete".into(), &"r/4".into()),
            "{keyspace}: {shown:?}"
        );
    }
}

fn overviews(cluster: &Cluster) {
    let status = cluster.ok(2, &["status"]);
    assert!(status.starts_with("node 2 of cluster \"demo\""), "{status}");
    let json = &lines(&cluster.at(2, &["status", "--output", "json"]))[0];
    let peers = json["peers"].as_array().expect("peers");
    assert!(
        peers.len() == 2 && peers.iter().all(|peer| peer["connected"] == true),
        "{json}"
    );
    let keyspaces = cluster.ok(1, &["keyspaces", "--explain"]);
    for (name, backend) in KEYSPACES {
        assert!(
            keyspaces.contains(&format!("{name}: {backend} keeps")),
            "{keyspaces}"
        );
    }
}

fn wrong_arguments(cluster: &Cluster) {
    let unknown = cluster.fails(1, &["get", "nope", "x"], 7);
    assert!(
        unknown.contains("keyspace \"nope\" is not configured; configured: carts, locks, orders, settings"),
        "{unknown}"
    );
    let needs = cluster.fails(1, &["get", "carts", "x", "--needs", "linearizable"], 7);
    assert!(
        needs.contains("two nodes could both win the same compare_and_set"),
        "{needs}"
    );
    let json = cluster.fails(
        1,
        &["cas", "carts", "x", "--expect-absent", "y", "--output", "json"],
        3,
    );
    let json: serde_json::Value = serde_json::from_str(&json).expect("a JSON object on standard error");
    assert_eq!(
        (&json["effect"], &json["reason"]),
        (&"not-applied".into(), &"Unsupported".into()),
        "{json}"
    );
    cluster.fails(1, &["put", "carts"], 2);
    cluster.fails(1, &["get", "carts", "x", "--server", "9"], 2);
}

/// `localhost` stands for an IPv6 address, too, where nobody listens.
fn hosts_have_names(cluster: &Cluster) {
    let file = cluster.dir.join("client.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, before.replace("127.0.0.1:", "localhost:")).unwrap();
    cluster.ok(1, &["put", "locks", "named", "yes"]);
    let port = before
        .split("127.0.0.1:")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap();
    let get =
        |server: String| cluster.client(&["get", "locks", "named", "--server", &server, "--timeout", "2s"]);
    let output = get(format!("1=localhost:{port}"));
    assert!(output.status.success(), "{}", text(&output));
    let output = get(format!("1=no-such-host.invalid:{port}"));
    assert_eq!(output.status.code(), Some(8), "{}", text(&output));
    assert!(
        text(&output).contains("no-such-host.invalid"),
        "{}",
        text(&output)
    );
    std::fs::write(&file, before.replace("127.0.0.1:", "not a host:")).unwrap();
    let output = cluster.client(&["keyspaces"]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output));
    assert!(text(&output).contains("expected HOST:PORT"), "{}", text(&output));
    std::fs::write(&file, &before).unwrap();
}

/// Nodes 2 and 3 are stopped: what one node can do depends on the backend alone.
fn one_node_left_alone(cluster: &Cluster) {
    let until = Instant::now() + Duration::from_secs(60);
    let alone = |output: &std::process::Output| {
        lines(output).iter().all(|keyspace| {
            keyspace["missing"] == serde_json::json!([2, 3]) || keyspace["backend"] == "gossip"
        })
    };
    while !alone(&cluster.at(1, &["keyspaces", "--output", "json"])) {
        assert!(Instant::now() < until, "node 1 does not notice that it is alone");
        std::thread::sleep(Duration::from_millis(50));
    }
    cluster.ok(1, &["put", "carts", "alone", "yes"]);
    assert_eq!(cluster.ok(1, &["get", "carts", "alone"]), "yes\n");
    for keyspace in ["locks", "settings"] {
        for args in [&["put", keyspace, "alone", "no"][..], &["get", keyspace, "lock"]] {
            // It is refused at once, not when the time is over.
            let began = Instant::now();
            let error = cluster.fails(1, &[args, &["--timeout", "60s"]].concat(), 4);
            assert!(
                error.contains("unavailable: no quorum (1 of 3"),
                "{args:?}: {error}"
            );
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "{args:?} took {:?}",
                began.elapsed()
            );
        }
        assert_eq!(
            cluster.ok(1, &["get", keyspace, "lock", "--level", "local"]),
            "you\n"
        );
    }
    let error = cluster.fails(1, &["put", "orders", "alone", "no"], 4);
    assert!(error.contains("node 2, 3 cannot be reached"), "{error}");
    assert_eq!(
        cluster.ok(1, &["get", "orders", "lock"]),
        "you\n",
        "two-phase reads linearizably, alone"
    );
    let status = cluster.ok(1, &["keyspaces"]);
    assert!(
        status.contains("2, 3") || status.contains("no quorum"),
        "the table says why not: {status}"
    );
}
