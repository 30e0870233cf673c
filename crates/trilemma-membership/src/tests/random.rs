//! Random schedules: crashes, restarts, pauses, partitions, losses, leaves and evictions, and what must hold in all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use trilemma_core::{NodeId, Rng};

use super::{check_all, secs};
use crate::authority::Statement;
use crate::effects::Input;
use crate::standing::{Standing, State};
use crate::world::{ToyAuthority, World};

/// How many schedules; `TRILEMMA_SEEDS` asks for more.
fn seeds() -> u64 {
    let asked = std::env::var("TRILEMMA_SEEDS").ok();
    asked.and_then(|asked| asked.parse().ok()).unwrap_or(40)
}

/// What was seen so far, for what must never be seen after it.
#[derive(Default)]
struct Seen {
    /// By observer, its run, and member: the greatest standing.
    greatest: BTreeMap<(NodeId, u64, NodeId), Standing>,
    /// By member: the last epoch that was evicted.
    evicted: BTreeMap<NodeId, u64>,
}

impl Seen {
    fn look(&mut self, world: &World, seed: u64) {
        for observer in world.running() {
            let run = observer.status().incarnation.epoch;
            for (record, standing) in observer.members() {
                let key = (observer.node(), run, record.node);
                let greatest = self.greatest.entry(key).or_insert(standing);
                assert!(
                    *greatest <= standing,
                    "seed {seed}: node {} believed {greatest} of {} and then {standing}",
                    observer.node(),
                    record.node
                );
                *greatest = standing;
            }
        }
    }

    /// An observer that knows of an eviction never holds the epoch for alive again.
    fn no_resurrection(&self, world: &World, seed: u64) {
        for (node, epoch) in &self.evicted {
            for observer in world.running().filter(|observer| observer.node() != *node) {
                let standing = observer.standing(*node).expect("a member");
                assert!(
                    standing.incarnation().epoch > *epoch || standing.state() == State::Evicted,
                    "seed {seed}: node {} believes {standing} of {node}, whose epoch {epoch} was evicted",
                    observer.node()
                );
            }
        }
    }
}

fn evict(world: &mut World, node: NodeId, by: NodeId, seen: &mut Seen) {
    let Some(standing) = world.member(by).and_then(|member| member.standing(node)) else {
        return;
    };
    let epoch = standing.incarnation().epoch;
    let signature = ToyAuthority::signature(&Statement::Evict { node, epoch });
    world.give(
        by,
        Input::Evict {
            node,
            epoch,
            signature,
        },
    );
    seen.evicted.insert(node, epoch);
}

fn happen(world: &mut World, rng: &mut Rng, size: u32, seen: &mut Seen) {
    let node = NodeId(rng.below(u64::from(size)) as u32 + 1);
    let other = NodeId(rng.below(u64::from(size)) as u32 + 1);
    let is_running = world.member(node).is_some();
    match rng.below(12) {
        0 | 1 if is_running => world.crash(node),
        2..=4 if !is_running => world.start(node),
        5 => world.pause(node, rng.between(Duration::from_millis(100), secs(8))),
        6 => world.partition(
            (1..=size)
                .map(NodeId)
                .filter(|_| rng.below(2) == 0)
                .collect::<Vec<_>>(),
        ),
        7 | 8 => world.heal(),
        9 => world.net.loss_per_mille = rng.below(300) as u32,
        10 if rng.below(4) == 0 => world.give(node, Input::Leave),
        11 if rng.below(4) == 0 && node != other => evict(world, node, other, seen),
        _ => {}
    }
}

#[test]
fn whatever_happens_beliefs_never_go_back_and_in_the_end_all_agree() {
    for seed in 0..seeds() {
        let mut rng = Rng::new(seed);
        let size = 3 + rng.below(8) as u32;
        let mut world = World::founded(size, seed, |config| {
            config.seeds = (1..=2)
                .map(|node| crate::config::Seed {
                    node: NodeId(node),
                    address: String::new(),
                })
                .collect();
        });
        world.encode_all();
        let mut seen = Seen::default();
        for _ in 0..60 {
            happen(&mut world, &mut rng, size, &mut seen);
            world.run(rng.between(Duration::from_millis(10), secs(4)));
            seen.look(&world, seed);
            check_all(&world);
        }
        finish(&mut world, seed, &mut seen);
    }
}

/// All faults end; who left or was evicted comes back; some stay down.
fn finish(world: &mut World, seed: u64, seen: &mut Seen) {
    world.heal();
    world.net.loss_per_mille = 10;
    world.run(secs(15));
    for node in world.ids() {
        if world.has_left(node) {
            world.crash(node);
        }
        let is_gone = world.member(node).is_none();
        if world.is_evicted(node) {
            world.give(node, Input::Rejoin);
        } else if is_gone && node.0 != 3 {
            world.start(node);
        }
    }
    world.run(secs(30));
    seen.look(world, seed);
    seen.no_resurrection(world, seed);
    let whole = world.run_until(secs(90), |world| world.is_whole());
    if whole.is_none() {
        for member in world.running() {
            println!("{} {:?}", member.node(), member.status());
            for (record, standing) in member.members() {
                println!("    {} {standing}", record.node);
            }
        }
        panic!("seed {seed}: live, connected members are not whole after two minutes");
    }
    check_all(world);
    // Who stayed down is known to be gone, by all.
    let down: Vec<NodeId> = world.ids().filter(|node| world.member(*node).is_none()).collect();
    for node in down {
        for observer in world.running() {
            let standing = observer.standing(node);
            assert!(
                !standing.is_some_and(|standing| standing.state().is_present()),
                "seed {seed}: node {} believes {standing:?} of {node}, which is down",
                observer.node()
            );
        }
    }
}

#[test]
fn one_seed_is_one_run() {
    let run = || {
        let mut world = World::founded(12, 9, |_| {});
        world.net.loss_per_mille = 100;
        world.run(secs(20));
        world.crash(NodeId(4));
        world.run(secs(20));
        (world.kinds().clone(), world.seconds().to_vec())
    };
    assert_eq!(run(), run());
}
