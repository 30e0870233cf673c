//! Starts: torn in the middle, after snapshots of all sizes, with other settings than before and than others have.

use trilemma_core::NodeId;

use super::{Draw, MS};
use crate::scenario::{Action, Fault, Protocol, Scenario, When};
use crate::swarm::{self, Shape};

pub(super) const DESCRIPTION: &str = "\
restart: crashes while a node starts, and settings that change over a restart
  nodes          3, sometimes 2, 4 or 5
  clients, keys  2 to 10 and 1 to 40; operations 110 to 169; values to 3,000 B
  time           heal after 2.5 s or 4 s
  faults         as in standard, and 10 to 30 times: a node is killed and power fails after 0 to 39 disk operations of its
                 start
  clean stops    2 to 8, of any node
  settings       8 to 30 settings of single nodes change, some before the first start; each holds from the next start on
  snapshots      after 1 B to 1 MB of log
  incarnations   wall-clock milliseconds, as in production
  lost disks     in half of the seeds but of mixed: of a minority where majorities are counted, of all but one node in
                 gossip, of all but the sequencer in two-phase; often of a node that has what another lacks, while the
                 third is away
  also           a cut lets through what is under way (half of the seeds); gossip durability none, os or fsync
";

/// Settings that may differ between nodes and change over a restart, with what is drawn. Not among them are those that
/// all nodes must share (sessions, siblings) and the times that only fit together.
const RAFT: &[(&str, &[u64])] = &[
    ("raft.append_entries_max", &[1, 2, 8, 4096]),
    ("raft.append_bytes", &[200, 4000]),
    ("raft.inflight_max", &[1, 2, 64]),
    ("raft.inflight_bytes", &[300, 8_000_000]),
    ("raft.kept_entries", &[0, 1, 5, 20_000]),
    ("raft.kept_bytes", &[0, 500, 16_000_000]),
    ("raft.pinned_bytes_max", &[0, 500, 64_000_000]),
    ("raft.chunk_bytes", &[100, 200, 1000, 256_000]),
    ("raft.chunks_inflight", &[1, 4]),
];
const PAXOS: &[(&str, &[u64])] = &[
    ("paxos.sync_interval", &[20_000, 100_000]),
    ("paxos.sync_page_max", &[1, 2, 100]),
    ("paxos.confirm_after", &[10_000, 100_000]),
    ("paxos.cache_max", &[0, 1, 1000]),
    ("paxos.recent_max", &[2, 6, 1000]),
    ("paxos.combine_max", &[1, 2, 100]),
];
const GOSSIP: &[(&str, &[u64])] = &[
    ("gossip.tick", &[10_000, 30_000, 100_000]),
    ("gossip.fanout", &[1, 2, 3]),
    ("gossip.flush_peers_max", &[0, 1, 8]),
    ("gossip.sync_ticks", &[1, 3, 10]),
    ("gossip.deferred_max", &[1, 3, 1000]),
    ("gossip.rumors_max", &[1, 4, 1000]),
    ("gossip.tick_bytes_max", &[300, 64_000]),
    ("gossip.page_bytes", &[300, 64_000]),
    ("gossip.serving_max", &[1, 8]),
];
const TWO_PHASE: &[(&str, &[u64])] = &[
    ("two-phase.pipeline_depth", &[1, 2, 32]),
    ("two-phase.batch_bytes", &[200, 4000]),
    ("two-phase.prepare_timeout", &[30_000, 100_000, 500_000]),
    ("two-phase.retry_interval", &[5_000, 20_000, 100_000]),
    ("two-phase.chunk_bytes", &[100, 200, 256_000]),
];

pub(super) fn scenario(protocol: Protocol, seed: u64, mut draw: Draw) -> Scenario {
    let shape = Shape {
        nodes: draw.pick(&[3, 3, 3, 3, 2, 4, 5]),
        heal: draw.pick(&[2500, 4000]) * MS,
        keys: draw.pick(&[1, 3, 6, 10, 40]),
        value: draw.pick(&[0, 60, 300, 3000]),
    };
    let large = shape.value > 300 || shape.keys > 10;
    let mut scenario = swarm::draw(protocol, seed, draw.fork(), shape);
    scenario.disk.snapshot = draw.pick(&[1, 60, 500, 2_000, 10_000, 100_000, 1_000_000]);
    if large {
        scenario.disk.segment = 512 * 1024;
    }
    // One entry in each of such long round trips would take longer than the cluster has to recover.
    scenario.turn = scenario.turn.min(4 * MS);
    for _ in 0..draw.between(10, 30) {
        let node = NodeId(draw.between(1, scenario.nodes.into()) as u32);
        torn_start(&mut scenario, &mut draw, node);
    }
    if draw.0.per_mille(500) && protocol != Protocol::Mixed {
        lost_disks(&mut scenario, &mut draw);
    }
    for _ in 0..draw.between(8, 30) {
        let node = NodeId(draw.between(1, scenario.nodes.into()) as u32);
        setting(&mut scenario, &mut draw, node);
    }
    draw.common(&mut scenario);
    for _ in 0..draw.between(2, 8) {
        let node = NodeId(draw.between(1, scenario.nodes.into()) as u32);
        let length = draw.between(2, 300) * MS;
        scenario.faults.push(Fault {
            when: When::At(50 * MS + draw.0.below(scenario.heal * 9 / 10)),
            action: Action::Stop { node, length },
        });
    }
    // Between a change of names and the sync that makes it durable: two operations of hundreds.
    for _ in 0..draw.between(1, 6) {
        let node = NodeId(draw.between(1, scenario.nodes.into()) as u32);
        let (operations, names) = (draw.0.below(6), true);
        let length = draw.between(50, 500) * MS;
        scenario.faults.push(Fault {
            when: When::At(50 * MS + draw.0.below(scenario.heal * 9 / 10)),
            action: Action::Tear {
                node,
                operations,
                names,
                length,
            },
        });
    }
    scenario
}

fn torn_start(scenario: &mut Scenario, draw: &mut Draw, node: NodeId) {
    let at = 50 * MS + draw.0.below(scenario.heal * 9 / 10);
    let down = draw.between(2, 60) * MS;
    let dead = Action::Kill { node, length: down };
    // Most starts take a dozen operations, those that repair a log more.
    let most = draw.pick(&[4, 12, 40]);
    let torn = Action::Tear {
        node,
        operations: draw.0.below(most),
        names: false,
        length: down + draw.between(10, 300) * MS,
    };
    scenario.faults.push(Fault {
        when: When::At(at),
        action: dead,
    });
    scenario.faults.push(Fault {
        when: When::At(at + MS),
        action: torn,
    });
}

/// Disks are lost, of a minority where majorities are counted, and never the sequencer's. Most are traps: one node lacks
/// what the others acknowledge, then one of these loses its disk and another is away. A node that counts the empty disk
/// loses what was acknowledged.
fn lost_disks(scenario: &mut Scenario, draw: &mut Draw) {
    let ids: Vec<NodeId> = (1..=scenario.nodes).map(NodeId).collect();
    let parts = scenario.protocol.parts();
    let most = if parts.iter().any(|part| part.counts_majorities()) {
        (ids.len() - 1) / 2
    } else {
        ids.len() - 1
    };
    let mut victims = ids.clone();
    victims.retain(|id| scenario.protocol.may_lose_disk(*id));
    for _ in 0..most {
        let victim = victims.remove(draw.0.below(victims.len() as u64) as usize);
        let at = 400 * MS + draw.0.below(scenario.heal / 2);
        let mut push = |at: u64, action: Action| {
            let when = When::At(at);
            scenario.faults.push(Fault { when, action });
        };
        let length = draw.between(2, 60) * MS;
        push(at, Action::Wipe { node: victim, length });
        let mut others = ids.clone();
        others.retain(|id| *id != victim);
        if others.len() < 2 || !draw.0.per_mille(700) {
            continue;
        }
        let lacking = others.remove(draw.0.below(others.len() as u64) as usize);
        let before = draw.between(50, 300) * MS;
        let split = Action::Split {
            side: vec![lacking],
            length: before + draw.between(0, 5) * MS,
        };
        push(at - before, split);
        let away = Action::Crash {
            node: draw.pick(&others),
            length: draw.between(200, 1000) * MS,
        };
        push(at, away);
    }
}

fn setting(scenario: &mut Scenario, draw: &mut Draw, node: NodeId) {
    let table = match draw.pick(scenario.protocol.parts()) {
        Protocol::Raft | Protocol::Mixed => RAFT,
        Protocol::Paxos => PAXOS,
        Protocol::Gossip => GOSSIP,
        Protocol::TwoPhase => TWO_PHASE,
    };
    let (name, values) = draw.pick(table);
    let at = if draw.0.per_mille(300) {
        0
    } else {
        draw.0.below(scenario.heal)
    };
    scenario.faults.push(Fault {
        when: When::At(at),
        action: Action::Set {
            node,
            name: name.to_owned(),
            value: draw.pick(values),
        },
    });
}
