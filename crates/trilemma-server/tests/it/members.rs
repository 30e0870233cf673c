//! `members` of processes with `[membership]`, and of those without.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::harness::{Cluster, lines};

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Waits until node 1 sees a member in this state; all that it says then.
fn until(cluster: &Cluster, member: u64, state: &str) -> serde_json::Value {
    let begin = Instant::now();
    loop {
        let json = lines(&cluster.at(1, &["members", "--output", "json"])).remove(0);
        let members = json["members"].as_array().expect("members").clone();
        if members
            .iter()
            .any(|found| found["node"] == member && found["state"] == state)
        {
            return json;
        }
        assert!(begin.elapsed() < PATIENCE, "node {member} is not {state}: {json}");
        std::thread::sleep(PAUSE);
    }
}

#[test]
fn members_are_shown_as_alive_and_a_killed_one_as_dead() {
    let mut cluster = Cluster::init("members", 3);
    for node in 1..=3 {
        let file = std::fs::OpenOptions::new()
            .append(true)
            .open(cluster.dir.join(format!("node-{node}.toml")));
        let section = format!("\n[membership]\nzone = \"z{node}\"\n");
        file.unwrap().write_all(section.as_bytes()).unwrap();
        cluster.spawn(node);
    }
    until(&cluster, 2, "alive");
    let json = until(&cluster, 3, "alive");
    assert_eq!(json["members"][2]["zone"], "z3", "{json}");
    let status = &lines(&cluster.at(1, &["status", "--output", "json"]))[0];
    assert_eq!(status["membership"]["members"][0]["state"], "alive", "{status}");
    cluster.kill(3);
    let json = until(&cluster, 3, "dead");
    assert!(json["died"].as_u64() >= Some(1), "{json}");
    let table = cluster.ok(1, &["members"]);
    let row = table.lines().find(|line| line.starts_with('3')).expect("a row");
    assert!(
        row.contains("dead") && row.contains("1.0") && row.contains("z3"),
        "{table}"
    );
}

#[test]
fn a_node_without_the_section_says_how_to_begin() {
    let mut cluster = Cluster::init("no-members", 1);
    cluster.spawn(1);
    let refused = cluster.fails(1, &["members"], 3);
    assert!(refused.contains("[membership]"), "{refused}");
    let status = &lines(&cluster.at(1, &["status", "--output", "json"]))[0];
    assert!(status["membership"].is_null(), "{status}");
}
