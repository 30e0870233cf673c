//! Nodes are killed with SIGKILL under load, one after the other and all at once: no acknowledged write is lost.

use std::ops::Range;
use std::time::{Duration, Instant};

use trilemma::Backend;

use crate::check::{Finals, differences, linearizability, lost, write_order};
use crate::harness::{Cluster, KEYSPACES, lines};
use crate::history::{Event, History, Micros, Record};
use crate::workload::{Writers, held};

/// How long the load runs in each state of the cluster.
const PHASE: Duration = Duration::from_millis(2000);
/// Longest time for all nodes to agree at the end.
const AGREEMENT: Duration = Duration::from_secs(20);

#[test]
fn killed_nodes_lose_no_acknowledged_write() {
    let mut cluster = Cluster::three("crash");
    let history = History::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let writers = {
        let _inside = runtime.enter();
        Writers::start(&cluster.dir, &history)
    };
    std::thread::sleep(PHASE);

    let leader = leader(&cluster);
    let one_down = down(&mut cluster, &history, &[leader]);
    while_one_is_down(&history, &one_down, leader);
    let other = leader % 3 + 1;
    let one_down = down(&mut cluster, &history, &[other]);
    while_one_is_down(&history, &one_down, other);
    down(&mut cluster, &history, &[1, 2, 3]);
    let again = history.now();
    std::thread::sleep(PHASE);
    runtime.block_on(writers.stop());

    for (name, backend) in KEYSPACES {
        let records = history.of(name);
        let finals = runtime.block_on(agreed(&cluster, name, backend));
        assert_eq!(
            lost(&records, &finals),
            Vec::<String>::new(),
            "{name}: acknowledged writes lost"
        );
        assert_eq!(differences(&finals), Vec::<String>::new(), "{name}: nodes differ");
        let backend: Backend = backend.parse().unwrap();
        if backend.descriptor().linearizable_reads {
            assert_eq!(linearizability(&records), Vec::<String>::new(), "{name}");
        }
        if matches!(backend, Backend::Raft | Backend::TwoPhase) {
            assert_eq!(write_order(&records), Vec::<String>::new(), "{name}");
        }
        let after = acknowledged(&records, &(again..Micros::MAX), None);
        assert!(after > 0, "{name}: writes go on after all nodes were killed");
        println!(
            "{name}: {} operations, {} acknowledged writes",
            records.len(),
            acknowledged(&records, &(0..Micros::MAX), None)
        );
    }
}

fn leader(cluster: &Cluster) -> u32 {
    let keyspaces = lines(&cluster.at(1, &["keyspaces", "--output", "json"]));
    let raft = keyspaces
        .iter()
        .find(|keyspace| keyspace["backend"] == "raft")
        .expect("a raft keyspace");
    raft["leader"].as_u64().expect("a leader") as u32
}

/// Kills nodes, lets the load go on, starts them again; the time in which they were surely down and noticed.
fn down(cluster: &mut Cluster, history: &History, nodes: &[u32]) -> Range<Micros> {
    for node in nodes {
        cluster.kill(*node);
    }
    // Until the others have noticed and, where needed, elected.
    std::thread::sleep(PHASE);
    let since = history.now();
    std::thread::sleep(PHASE);
    let time = since..history.now();
    for node in nodes {
        cluster.spawn(*node);
    }
    for node in 1..=3 {
        cluster.wait_writable(node);
    }
    std::thread::sleep(PHASE);
    time
}

fn acknowledged(records: &[Record], time: &Range<Micros>, not: Option<u32>) -> usize {
    let counts = |record: &&Record| {
        matches!(record.event, Event::Written { .. }) && record.within(time) && Some(record.node) != not
    };
    records.iter().filter(counts).count()
}

fn while_one_is_down(history: &History, time: &Range<Micros>, down: u32) {
    for (name, backend) in KEYSPACES {
        let records = history.of(name);
        let living: Vec<&Record> = records
            .iter()
            .filter(|record| record.within(time) && record.node != down)
            .collect();
        let written = acknowledged(&records, time, Some(down));
        let refusals: Vec<&Event> = living
            .iter()
            .map(|record| &record.event)
            .filter(|event| !matches!(event, Event::Written { .. } | Event::Read { .. }))
            .collect();
        match backend {
            "gossip" => assert!(
                written > 0 && refusals.is_empty(),
                "{name} never stops: {refusals:?}"
            ),
            "raft" | "paxos" => assert!(
                written > 0,
                "{name} writes while node {down} is down: {refusals:?}"
            ),
            _ => {
                assert_eq!(written, 0, "{name} needs every node");
                let names = |event: &&&Event| matches!(event, Event::Refused { why, .. } if why.contains(&format!("node {down}")) && why.contains("cannot be reached"));
                assert!(
                    refusals.iter().any(|event| names(&event)),
                    "{name} names node {down}: {refusals:?}"
                );
            }
        }
    }
}

async fn agreed(cluster: &Cluster, name: &str, backend: &str) -> Vec<Finals> {
    let until = Instant::now() + AGREEMENT;
    loop {
        let mut finals = Vec::new();
        for node in 1..=3 {
            match held(&cluster.dir, node, name, backend).await {
                Ok(held) => finals.push(held),
                Err(error) => assert!(Instant::now() < until, "{name} at node {node}: {error}"),
            }
        }
        let complete = finals.len() == 3 && differences(&finals).is_empty();
        if complete || Instant::now() > until {
            return finals;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
