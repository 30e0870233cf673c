//! The demo's verdict holds on this machine.

use std::time::{Duration, Instant};

use crate::harness::{fresh_dir, path, text, trilemma};

#[test]
fn the_demo_holds_its_promises() {
    let dir = fresh_dir("demo");
    let began = Instant::now();
    let output = trilemma(&["demo", "--json", "--keep", path(&dir)]);
    let took = began.elapsed();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let last: serde_json::Value = serde_json::from_str(stdout.lines().last().unwrap_or_default())
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(last["held"], true, "{last}");
    for keyspace in last["keyspaces"].as_array().expect("keyspaces") {
        let count = |name: &str| keyspace[name].as_u64().expect("a count");
        assert_eq!(
            (&keyspace["converged"], count("acked_lost")),
            (&true.into(), 0),
            "{keyspace}"
        );
        let (minority, majority) = (count("accepted_minority"), count("accepted_majority"));
        match keyspace["backend"].as_str() {
            Some("gossip") => assert!(minority > 0 && majority > 0, "{keyspace}"),
            Some("raft" | "paxos") => assert!(minority == 0 && majority > 0, "{keyspace}"),
            _ => assert!(minority == 0 && majority == 0, "{keyspace}"),
        }
    }
    assert!(took < Duration::from_secs(60), "took {took:?}");
    std::fs::remove_dir_all(&dir).unwrap();
}
