//! Watchers: slow ones, dropped ones, ones that resume at other nodes.

use super::{Draw, MS};
use crate::scenario::{Protocol, Scenario};
use crate::swarm::{self, Shape};

pub(super) const DESCRIPTION: &str = "\
watch: watchers that read slowly, leave without a word, and resume at other nodes
  nodes          3, sometimes 2 or 5
  clients, keys  2 to 10 and 1 to 20; operations 110 to 169; values to 300 B
  time           heal after 2.5 s or 4 s
  faults         as in standard
  watchers       2 to 12, each of one keyspace or of a range of it; 200 B to 4 MiB may wait for one
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
    scenario.watchers = draw.between(2, 12) as u32;
    scenario.watch_bytes = draw.pick(&[200, 700, 4000, 32 * 1024 * 1024]);
    draw.common(&mut scenario);
    scenario
}
