//! Many of everything, and tiny queues: what is bounded meets its bounds, and states are far larger than what is sent
//! of them at once.

use trilemma_core::NodeId;

use super::{Draw, MS, S, US, chunk_bytes};
use crate::scenario::{Action, Fault, Probe, Protocol, Scenario, When};
use crate::swarm::{self, ONE_AT_A_TIME, Shape};

pub(super) const DESCRIPTION: &str = "\
large: many nodes, operations, clients and bytes, and tiny queues
  nodes          7 to 9
  clients        64 to 80; keys 20 to 60; operations 5,000 to 5,499; values 200 B to 1,200 B, one in fifty to 64 KiB
  time           heal after 5 s to 8 s
  transfer       parts of 1/50 to 1/200 of the state; raft keeps 0, 5 or 50 entries
  queues         node.pending_max 4 to default, node.pending_bytes_max 8 KiB to default, node.log_bytes_max 64 KiB to default
  log            segments of 4 MiB (gossip alone: 512 KiB); a snapshot after 20 kB to 1 MB of log
  faults         as in standard, and 4 to 12 nodes die when they receive or send the 1st to 60th part of a state; with gossip
                 a clock is set back by 1 s to 4 s for 1 s to 3 s
  also           a cut lets through what is under way (half of the seeds); gossip durability none, os or fsync
";

/// Bytes of a segment: a record holds all that one turn took, here many values of 64 KiB.
const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
/// The same with `gossip` alone, whose records are pages and single commands.
const SMALL_SEGMENT_BYTES: u64 = 512 * 1024;

/// Settings whose minimum is too little for so many clients: all they would see is refusals.
const TOO_FEW: &[&str] = &[
    "raft.sessions_max",
    "gossip.sessions_max",
    "two-phase.sessions_max",
    "raft.waiting_max",
    "paxos.operations_max",
    "paxos.sessions_max",
    "paxos.keys_max",
    "two-phase.queue_max",
    "two-phase.queue_bytes",
    "two-phase.batch_bytes",
    "raft.uncommitted_bytes",
];
/// Settings whose minimum makes a message for each of thousands of changes.
const TOO_SMALL: &[&str] = &[
    "gossip.tick_bytes_max",
    "gossip.rumors_max",
    "paxos.sync_page_max",
    "paxos.recent_max",
    // And these a turn.
    "raft.apply_entries_max",
    "raft.apply_bytes",
    "raft.feed_bytes",
    "paxos.turn_rounds",
    "gossip.turn_items",
    "two-phase.turn_operations",
    "two-phase.turn_bytes",
];

pub(super) fn scenario(protocol: Protocol, seed: u64, mut draw: Draw) -> Scenario {
    let keys = draw.between(20, 60);
    let value = draw.pick(&[200, 600, 1200]);
    let heal = draw.between(5, 8) * S;
    let shape = Shape {
        nodes: draw.between(7, 9) as u32,
        heal,
        keys: keys as u32,
        value: value as usize,
    };
    let mut scenario = swarm::draw(protocol, seed, draw.fork(), shape);
    let unwanted = [ONE_AT_A_TIME, TOO_FEW, TOO_SMALL].concat();
    scenario
        .knobs
        .retain(|name, _| !unwanted.contains(&name.as_str()));
    scenario.turn = scenario.turn.min(MS);
    scenario.disk.segment = SEGMENT_BYTES;
    scenario.disk.snapshot = draw.pick(&[20_000, 200_000, 1_000_000]);
    let network = &mut scenario.network;
    network.loss = network.loss.min(30);
    network.delay = (network.delay.0, network.delay.1.min(network.delay.0 + 2 * MS));

    let parts = draw.pick(&[60, 100, 200]);
    chunk_bytes(&mut scenario, keys * value / parts);
    let kept = draw.pick(&[0, 5, 50]);
    if protocol.parts().contains(&Protocol::Raft) {
        scenario.knobs.insert("raft.kept_entries".to_owned(), kept);
        scenario.knobs.insert("raft.append_bytes".to_owned(), 100_000);
    }
    workload(&mut scenario, &mut draw);
    queues(&mut scenario, &mut draw);
    for _ in 0..draw.between(4, 12) {
        death_in_transfer(&mut scenario, &mut draw);
    }
    if protocol.parts().contains(&Protocol::Gossip) {
        clock_back(&mut scenario, &mut draw);
    }
    draw.common(&mut scenario);
    scenario
}

/// A clock is set back, and right again: what the others wrote meanwhile becomes due all at once.
fn clock_back(scenario: &mut Scenario, draw: &mut Draw) {
    if scenario.protocol == Protocol::Gossip {
        scenario.disk.segment = SMALL_SEGMENT_BYTES;
    }
    let node = NodeId(draw.between(1, scenario.nodes.into()) as u32);
    let ms = draw.between(1000, 4000) as i64;
    let at = draw.0.below(scenario.heal / 2);
    let back = at + draw.between(1000, 3000) * MS;
    for (at, ms) in [(at, -ms), (back, ms)] {
        scenario.faults.push(Fault {
            when: When::At(at),
            action: Action::Jump { node, ms },
        });
    }
}

fn workload(scenario: &mut Scenario, draw: &mut Draw) {
    let workload = &mut scenario.workload;
    workload.clients = draw.between(64, 80) as u32;
    workload.operations = draw.between(5000, 5499) as u32;
    workload.value_max = 63 * 1024;
    workload.deadline = draw.pick(&[200, 500, 2000]) * MS;
    // Most of the time of the faults, and the rest after the heal.
    workload.think =
        scenario.heal * u64::from(workload.clients) / u64::from(workload.operations) / 2 / US * US;
}

/// A node dies in the middle of a transfer, at one of its ends.
fn death_in_transfer(scenario: &mut Scenario, draw: &mut Draw) {
    let kind = match draw.pick(scenario.protocol.parts()) {
        Protocol::Raft | Protocol::Mixed => "snapshot",
        Protocol::Paxos => "values",
        Protocol::Gossip => "page",
        Protocol::TwoPhase => draw.pick(&["install", "piece"]),
    };
    let node = NodeId(draw.between(1, scenario.nodes.into()) as u32);
    let receives = draw.0.per_mille(700);
    let kind = kind.to_owned();
    let probe = if receives {
        Probe::Receive(kind)
    } else {
        Probe::Send(kind)
    };
    let length = draw.between(10, 500) * MS;
    scenario.faults.push(Fault {
        when: When::On {
            node,
            probe,
            count: draw.between(1, 60) as u32,
        },
        action: if draw.0.per_mille(600) {
            Action::Crash { node, length }
        } else {
            Action::Kill { node, length }
        },
    });
}

fn queues(scenario: &mut Scenario, draw: &mut Draw) {
    const DEFAULT: u64 = u64::MAX;
    let tables: [(&str, &[u64]); 3] = [
        ("node.pending_max", &[4, 16, DEFAULT, DEFAULT]),
        ("node.pending_bytes_max", &[8 << 10, 64 << 10, DEFAULT, DEFAULT]),
        ("node.log_bytes_max", &[64 << 10, 256 << 10, 1 << 20, DEFAULT]),
    ];
    for (name, values) in tables {
        let value = draw.pick(values);
        if value != DEFAULT {
            scenario.knobs.insert(name.to_owned(), value);
        }
    }
}
