//! Clients of the library: connections lost at any moment, sessions that the servers forget, calls that are dropped.

use super::{Draw, MS};
use crate::scenario::{Library, Protocol, Scenario};
use crate::swarm::{self, Shape};

/// Sessions that a node remembers, and results of each.
const SESSIONS: &[u64] = &[1, 2, 8, 10_000];
const RESULTS: &[u64] = &[1, 2, 4, 1024];

pub(super) const DESCRIPTION: &str = "\
client: clients and watchers go through the client library, as applications do
  nodes          3, sometimes 2 or 5
  clients, keys  4, 8 or 16 and 1 to 20; operations 110 to 169; values to 300 B
  library        1 to 4 instances, each losing a connection about every 30 ms to 1 s, at once or after a silence; 1, 2,
                 16 or 4096 calls under way on one; no, 3 % or 15 % of the calls are dropped by their callers
  sessions       1 to 8 of each instance and keyspace; nodes remember 1, 2, 8 or 10,000, with 1, 2, 4 or 1,024 results
                 each; registers of paxos 2, 4, 8 or 64 results, and of 1, 2, 8 or 128 sessions what they have forgotten
  watchers       none to 6
  time           heal after 2.5 s or 4 s
  faults         as in standard
  also           a cut lets through what is under way (half of the seeds); gossip durability none, os or fsync
";

pub(super) fn scenario(protocol: Protocol, seed: u64, mut draw: Draw) -> Scenario {
    let shape = Shape {
        nodes: draw.pick(&[3, 3, 3, 2, 5]),
        heal: draw.pick(&[2500, 4000]) * MS,
        keys: draw.pick(&[1, 2, 6, 20]),
        value: draw.pick(&[0, 40, 300]),
    };
    let mut scenario = swarm::draw(protocol, seed, draw.fork(), shape);
    // Reads of twenty keys, one after the other, would take longer in such turns than the cluster has to recover.
    scenario.turn = scenario.turn.min(4 * MS);
    scenario.workload.clients = draw.pick(&[4, 8, 16]);
    scenario.workload.deadline = draw.pick(&[200, 500, 2000]) * MS;
    scenario.library = Some(Library {
        count: draw.between(1, 4) as u32,
        sever: draw.pick(&[30, 100, 300, 1000]) * MS,
        drop: draw.pick(&[0, 30, 150]),
        sessions: draw.pick(&[1, 2, 4, 8]),
        spread: draw.pick(&[1, 4, 512]),
        window: draw.pick(&[1, 2, 16, 4096]),
    });
    scenario.watchers = draw.between(0, 6) as u32;
    sessions(&mut scenario, &mut draw);
    draw.common(&mut scenario);
    scenario
}

/// What nodes, or registers, remember of sessions.
fn sessions(scenario: &mut Scenario, draw: &mut Draw) {
    for part in scenario.protocol.parts() {
        let limits: [(&str, &[u64]); 2] = match part {
            Protocol::Raft => [
                ("raft.sessions_max", SESSIONS),
                ("raft.session_results_max", RESULTS),
            ],
            Protocol::Gossip => [
                ("gossip.sessions_max", SESSIONS),
                ("gossip.session_results_max", RESULTS),
            ],
            Protocol::TwoPhase => [
                ("two-phase.sessions_max", SESSIONS),
                ("two-phase.session_results_max", RESULTS),
            ],
            Protocol::Paxos => [
                ("paxos.sessions_max", &[1, 2, 8, 128]),
                ("paxos.recent_max", &[2, 4, 8, 64]),
            ],
            Protocol::Mixed => continue,
        };
        for (name, values) in limits {
            scenario.knobs.insert(name.to_owned(), draw.pick(values));
        }
    }
}
