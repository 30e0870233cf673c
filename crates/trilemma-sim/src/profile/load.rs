//! Progress while clients write: a fault, then quiet in which the load goes on, and again.

use trilemma_core::NodeId;

use super::{Draw, MS, S, US, chunk_bytes};
use crate::engine::Knobs;
use crate::scenario::{Action, Demand, Fault, Protocol, Route, Scenario, When};
use crate::swarm::{self, Shape};

pub(super) const DESCRIPTION: &str = "\
load: progress is demanded while clients write
  nodes          3 to 5
  clients        6 to 12; keys 20 to 40; about 100 operations a second until the heal; values 100 B to 600 B
  time           2 to 4 times a fault and 12 s of quiet
  faults         crash, kill, pause, disk hang, cut off; each for 50 ms to 2 s, a quarter of them for 8 s to 12 s, then also
                 cut off in one direction
  demands        in quiet, a write succeeds within 5 s, and a node that has started has within 10 s what others had then;
                 always, a majority that no fault touches takes a write within 5 s (raft, paxos), and nodes that none
                 touches see each other within 1 s
  transfer       parts of 1/50 to 1/100 of the state; raft keeps 0, 5 or 50 entries; a snapshot after 2 kB to 50 kB of log
  also           a cut lets through what is under way (half of the seeds); gossip durability none, os or fsync
";

const DEMAND: Demand = Demand {
    write: 5 * S,
    catch_up: 10 * S,
};
/// Time after a fault: both demands, and something to see them met.
const QUIET: u64 = 12 * S;
/// Mean time from one operation of all clients to the next.
const OPERATION_TIME: u64 = 10 * MS;

pub(super) fn scenario(protocol: Protocol, seed: u64, mut draw: Draw) -> Scenario {
    let keys = draw.between(20, 40);
    let value = draw.pick(&[100, 300, 600]);
    let nodes = draw.pick(&[3, 3, 3, 4, 5]);
    let mut faults = Vec::new();
    let mut at = S;
    for _ in 0..draw.between(2, 4) {
        let node = NodeId(draw.between(1, nodes) as u32);
        let (action, length) = if draw.0.per_mille(250) {
            let length = draw.between(8, 12) * S;
            (lasting(&mut draw, node, length), length)
        } else {
            let length = draw.between(50, 2000) * MS;
            (action(&mut draw, node, length), length)
        };
        faults.push(Fault {
            when: When::At(at),
            action,
        });
        at += length + QUIET;
    }
    let shape = Shape {
        nodes: nodes as u32,
        heal: at,
        keys: keys as u32,
        value: value as usize,
    };
    let mut scenario = swarm::draw(protocol, seed, draw.fork(), shape);
    scenario.faults = faults;
    scenario.faults_min = 0;
    scenario.demand = Some(DEMAND);
    // A cluster of which everybody would expect that it goes on.
    scenario.knobs = Knobs::new();
    scenario.turn = scenario.turn.min(MS);
    scenario.network.loss = draw.pick(&[0, 0, 10]);
    scenario.network.delay = (100 * US, draw.pick(&[200, 1000, 2000]) * US);
    scenario.network.late = scenario.network.late.min(500 * MS);
    scenario.disk.sync = (100 * US, draw.pick(&[200, 1000, 5000]) * US);
    scenario.disk.segment = draw.pick(&[256, 1024]) * 1024;
    scenario.disk.snapshot = draw.pick(&[2_000, 10_000, 50_000]);
    scenario.clocks.retain(|clock| clock.drift_ppm.abs() <= 50_000);

    let parts = draw.pick(&[60, 100]);
    chunk_bytes(&mut scenario, keys * value / parts);
    let kept = draw.pick(&[0, 5, 50]);
    if protocol.parts().contains(&Protocol::Raft) {
        scenario.knobs.insert("raft.kept_entries".to_owned(), kept);
    }
    let workload = &mut scenario.workload;
    workload.clients = draw.between(6, 12) as u32;
    // More than there is time for, so that none is idle before the heal.
    workload.operations = (at / OPERATION_TIME) as u32;
    workload.think = OPERATION_TIME * u64::from(workload.clients);
    workload.deadline = draw.pick(&[200, 500, 2000]) * MS;
    draw.common(&mut scenario);
    scenario
}

/// A fault that lasts: a majority of the others must go on meanwhile.
fn lasting(draw: &mut Draw, node: NodeId, length: u64) -> Action {
    let cut = |from, to| Action::Cut {
        route: Route { from, to },
        length,
    };
    match draw.between(0, 4) {
        0 => Action::Crash { node, length },
        1 => Action::Pause { node, length },
        2 => cut(Some(node), None),
        3 => cut(None, Some(node)),
        _ => Action::Split {
            side: vec![node],
            length,
        },
    }
}

fn action(draw: &mut Draw, node: NodeId, length: u64) -> Action {
    match draw.between(0, 5) {
        0 | 1 => Action::Crash { node, length },
        2 => Action::Kill { node, length },
        3 => Action::Pause { node, length },
        4 => Action::SlowDisk {
            node,
            sync: length / 2,
            length,
        },
        _ => Action::Split {
            side: vec![node],
            length,
        },
    }
}
