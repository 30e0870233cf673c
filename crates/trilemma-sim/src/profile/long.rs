//! Minutes of little work: what times out, ages and is collected does so many times, and clocks are wrong by hours.

use std::ops::RangeInclusive;

use trilemma_core::NodeId;

use super::{Draw, MS, S};
use crate::scenario::{Action, Fault, Protocol, Scenario, When};
use crate::swarm::{self, Shape};

pub(super) const DESCRIPTION: &str = "\
long: minutes of little work
  nodes          3 to 5
  clients        2 to 10; keys 1 to 6; operations 200 to 399; values to 60 B
  time           heal after 10 to 15 minutes
  faults         as in standard, lasting up to a hundred times longer (at most 100 s, pauses 8 s); of gossip also lost disks
  clocks         2 to 6 jumps of up to 3 hours; with gossip back and, within 100 s, forth again, or forth on all nodes
                 together: what is dated hours ahead is deferred for hours; never back on a node that loses its disk
                 meanwhile, for safety rests on that clock
  tombstones     gossip.tombstone_age_min 1 s to 30 s, or the default
  also           a cut lets through what is under way (half of the seeds); gossip durability none, os or fsync
";

const HOURS_MS: i64 = 3 * 3600 * 1000;

/// Settings that make work all the time, for which there is no time here.
const BUSY: &[&str] = &[
    "gossip.tick",
    "paxos.sync_interval",
    "two-phase.retry_interval",
    "raft.heartbeat",
    "raft.election_timeout",
];

pub(super) fn scenario(protocol: Protocol, seed: u64, mut draw: Draw) -> Scenario {
    let heal = draw.between(600, 900) * S;
    let shape = Shape {
        nodes: draw.pick(&[3, 3, 3, 4, 5]),
        heal,
        keys: draw.pick(&[1, 2, 3, 6]),
        value: draw.pick(&[0, 0, 60]),
    };
    let mut scenario = swarm::draw(protocol, seed, draw.fork(), shape);
    scenario.knobs.retain(|name, _| !BUSY.contains(&name.as_str()));
    let workload = &mut scenario.workload;
    workload.operations = draw.between(200, 399) as u32;
    let parts = protocol.parts().len() as u64;
    workload.think = heal * u64::from(workload.clients) / u64::from(workload.operations) / parts / 2;
    let factor = draw.pick(&[1, 20, 100]);
    for fault in &mut scenario.faults {
        // The heal ends everything but a pause, and what it leaves of one must fit into the time to recover.
        let paused = matches!(fault.action, Action::Pause { .. });
        let longest = if paused { 8 * S } else { 100 * S };
        if let Some(length) = fault.action.length_mut() {
            *length = (*length * factor).min(longest);
        }
    }
    if protocol == Protocol::Gossip {
        for _ in 0..draw.between(0, 4) {
            let node = NodeId(draw.between(1, scenario.nodes.into()) as u32);
            let length = draw.between(10, 60_000) * MS;
            let at = draw.0.below(heal);
            push(&mut scenario, at, Action::Wipe { node, length });
        }
    }
    if protocol.parts().contains(&Protocol::Gossip) {
        let age = draw.pick(&[1_000_000, 5_000_000, 30_000_000, 0]);
        if age > 0 {
            scenario.knobs.insert("gossip.tombstone_age_min".to_owned(), age);
        }
    }
    for _ in 0..draw.between(2, 6) {
        jumps(&mut scenario, &mut draw);
    }
    draw.common(&mut scenario);
    scenario
}

fn push(scenario: &mut Scenario, at: u64, action: Action) {
    scenario.faults.push(Fault {
        when: When::At(at),
        action,
    });
}

fn jumps(scenario: &mut Scenario, draw: &mut Draw) {
    let node = NodeId(draw.between(1, scenario.nodes.into()) as u32);
    let ms = draw.0.below(HOURS_MS as u64) as i64;
    let at = draw.0.below(scenario.heal - 110 * S);
    if !scenario.protocol.parts().contains(&Protocol::Gossip) {
        let ms = if draw.0.per_mille(500) { ms } else { -ms };
        return push(scenario, at, Action::Jump { node, ms });
    }
    if draw.0.per_mille(300) {
        for node in (1..=scenario.nodes).map(NodeId) {
            push(scenario, at, Action::Jump { node, ms });
        }
        return;
    }
    let back = at + draw.between(1, 100) * S;
    if loses_its_disk(scenario, node, at..=back) {
        return;
    }
    push(scenario, at, Action::Jump { node, ms: -ms });
    push(scenario, back, Action::Jump { node, ms });
}

/// Whether a node is without a disk at some moment of this time. Safety rests on its clock then, which must not go back
/// (inside/gossip#write-after-a-lost-disk).
fn loses_its_disk(scenario: &Scenario, node: NodeId, time: RangeInclusive<u64>) -> bool {
    scenario
        .faults
        .iter()
        .any(|fault| match (&fault.when, &fault.action) {
            (When::At(at), Action::Wipe { node: of, length }) => {
                *of == node && *at <= *time.end() && at + length >= *time.start()
            }
            _ => false,
        })
}
