//! What happens to standard output and error must neither change what an exit code says nor end a node.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use crate::harness::{Cluster, binary, exit_code, fresh_dir, path, text, trilemma};

/// A stream that takes nothing: the disk is full.
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// A stream whose reader has gone.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn an_exit_code_says_what_happened_whether_or_not_the_output_is_read() {
    let mut cluster = Cluster::init("streams", 1);
    cluster.spawn(1);
    cluster.wait_writable(1);
    let config = cluster.dir.join("client.toml");
    for (name, stream) in [("full", full as fn() -> Stdio), ("closed", closed)] {
        let run = |args: &[&str]| {
            exit_code(
                &[args, &["--config", path(&config)]].concat(),
                stream(),
                Stdio::null(),
            )
        };
        let ok = |args: &[&str]| {
            exit_code(
                &[args, &["--config", path(&config)]].concat(),
                Stdio::null(),
                stream(),
            )
        };
        let (job, order) = (format!("job-{name}"), format!("order-{name}"));
        let cas = ["cas", "locks", &job, "--expect-absent", "worker-1"];
        assert_eq!(run(&cas), Some(10), "{name}: it won, and nobody has read it");
        assert_eq!(run(&cas), Some(6), "{name}: it lost");
        assert_eq!(cluster.ok(1, &["get", "locks", &job]), "worker-1\n");
        let put = format!("{order}=1");
        let txn = ["txn", "orders", "--if-absent", &order, "--put", &put];
        assert_eq!(run(&txn), Some(10), "{name}");
        assert_eq!(run(&txn), Some(6), "{name}");
        assert_eq!(
            run(&["outcome", "locks", "s0-00c0ffee00c0ffee/1"]),
            Some(3),
            "{name}"
        );
        assert_eq!(
            run(&["get", "locks", &job]),
            Some(10),
            "{name}: nothing was delivered"
        );
        assert_eq!(run(&["get", "locks", "nothing"]), Some(1), "{name}");
        assert_eq!(run(&["export", "locks", "--format", "json"]), Some(10), "{name}");
        assert_eq!(run(&["range", "locks"]), Some(10), "{name}");
        assert_eq!(
            run(&["put", "locks", "quiet", "x", "--output", "raw"]),
            Some(0),
            "{name}"
        );
        assert_eq!(run(&["put", "locks", "", "x"]), Some(3), "{name}");
        assert_eq!(
            ok(&["get", "locks", "nothing"]),
            Some(1),
            "{name}: standard error"
        );
        assert_eq!(
            ok(&["put", "locks", "quiet", "x"]),
            Some(0),
            "{name}: nothing to say there"
        );
        assert_eq!(
            ok(&["put", "locks", "quiet", "x", "--explain"]),
            Some(10),
            "{name}: the explanation is missing"
        );
        let watch = ["watch", "locks", "--prefix", "job", "--count", "1"];
        assert_eq!(run(&watch), Some(10), "{name}");
    }
    cluster.terminate(1);
}

#[test]
fn verdicts_and_help_are_exit_codes_too() {
    let dir = fresh_dir("verdicts");
    std::fs::create_dir_all(&dir).unwrap();
    let (legal, illegal) = (dir.join("legal.jsonl"), dir.join("illegal.jsonl"));
    let put = "{\"process\":1,\"invoke\":1,\"return\":2,\"call\":{\"put\":{\"key\":\"a\",\"value\":\"1\"}},\"outcome\":{\"ok\":{\"done\":{}}}}\n";
    let get = put
        .replace("\"invoke\":1,\"return\":2", "\"invoke\":3,\"return\":4")
        .replace(
            "{\"put\":{\"key\":\"a\",\"value\":\"1\"}}",
            "{\"get\":{\"key\":\"a\"}}",
        )
        .replace("{\"done\":{}}", "{\"value\":{\"value\":\"2\"}}");
    std::fs::write(&legal, put).unwrap();
    std::fs::write(&illegal, format!("{put}{get}")).unwrap();
    let check = |file: &std::path::Path, stdout: Stdio| {
        exit_code(
            &["check", "--model", "register", path(file)],
            stdout,
            Stdio::null(),
        )
    };
    assert_eq!(check(&legal, Stdio::null()), Some(0));
    assert_eq!(check(&legal, full()), Some(10));
    assert_eq!(check(&illegal, Stdio::null()), Some(1));
    assert_eq!(check(&illegal, full()), Some(1));
    let picture = dir.join("missing/why.svg");
    let output = trilemma(&[
        "check",
        "--model",
        "register",
        path(&illegal),
        "--svg",
        path(&picture),
    ]);
    assert_eq!(
        output.status.code(),
        Some(1),
        "the verdict stands: {}",
        text(&output)
    );
    assert!(
        text(&output).contains("the picture cannot be written"),
        "{}",
        text(&output)
    );
    for args in [&["--help"][..], &["--version"], &["completions", "bash"]] {
        assert_eq!(exit_code(args, Stdio::null(), Stdio::null()), Some(0), "{args:?}");
        assert_eq!(exit_code(args, full(), Stdio::null()), Some(10), "{args:?}");
    }
    assert_eq!(exit_code(&["get"], full(), full()), Some(2));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn what_cannot_be_said_is_said_on_the_other_stream() {
    let output = std::process::Command::new(binary())
        .args(["completions", "bash"])
        .stdout(full())
        .output()
        .unwrap();
    assert!(
        text(&output).contains("error: standard output: "),
        "{}",
        text(&output)
    );
    let output = std::process::Command::new(binary())
        .args(["completions", "bash"])
        .stdout(closed())
        .output()
        .unwrap();
    assert!(
        output.stderr.is_empty(),
        "a reader that has gone knows: {}",
        text(&output)
    );
}

#[test]
fn nothing_that_happens_to_its_streams_ends_or_stops_a_node() {
    let mut cluster = Cluster::init("node-streams", 1);
    // Nobody reads it, and it holds 64 KiB.
    let (_reader, standing) = std::io::pipe().unwrap();
    let streams = [
        ("full", full(), full()),
        ("closed", closed(), closed()),
        ("standing", Stdio::null(), standing.into()),
    ];
    for (name, stdout, stderr) in streams {
        cluster.spawn_with(1, &["--log", "trace"], stdout, stderr);
        cluster.wait_writable(1);
        for number in 0..50 {
            cluster.ok(
                1,
                &["put", "locks", name, &number.to_string(), "--timeout", "10s"],
            );
        }
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(cluster.ok(1, &["get", "locks", name]), "49\n");
        cluster.terminate(1);
    }
}
