//! Random schedules of crashes, restarts, pauses, partitions, losses, leaves and evictions, and what must hold in all of them:
//! for the tests, and for seeds of the campaign.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use trilemma_core::{NodeId, Rng};

use crate::authority::Statement;
use crate::config::Seed;
use crate::effects::Input;
use crate::standing::{Incarnation, Standing, State};
use crate::world::{ToyAuthority, World};

/// Things that happen in a schedule.
const STEPS: u32 = 60;
/// The member that stays down in the end if it is down.
const STAYS_DOWN: NodeId = NodeId(3);

/// What did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which of the things that must hold.
    pub checker: &'static str,
    /// Where and how.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.checker, self.what)
    }
}

/// Runs the schedule of a seed: 3 to 10 members, each step a fault or its end, then all heals.
///
/// # Panics
/// If a member finds one of its own invariants broken.
pub fn run(seed: u64) -> Result<(), Broken> {
    let mut rng = Rng::new(seed);
    let size = 3 + rng.below(8) as u32;
    let mut world = World::founded(size, seed, |config| {
        config.seeds = (1..=2)
            .map(|node| Seed {
                node: NodeId(node),
                address: String::new(),
            })
            .collect();
    });
    world.encode_all();
    let mut seen = Seen::default();
    for _ in 0..STEPS {
        happen(&mut world, &mut rng, size, &mut seen);
        world.run(rng.between(Duration::from_millis(10), secs(4)));
        seen.look(&world)?;
        world.running().for_each(|member| member.check_all());
    }
    finish(&mut world, &mut seen)
}

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// What was seen so far, for what must never be seen after it.
#[derive(Default)]
struct Seen {
    /// By observer, its run, and member: the greatest standing.
    greatest: BTreeMap<(NodeId, u64, NodeId), Standing>,
    /// By member: the last epoch that was evicted.
    evicted: BTreeMap<NodeId, u64>,
    /// By member: its greatest epoch, and the run of its process that announced it.
    epochs: BTreeMap<NodeId, u64>,
}

impl Seen {
    fn look(&mut self, world: &World) -> Result<(), Broken> {
        for observer in world.running() {
            let run = observer.status().incarnation.epoch;
            self.durable(world, observer.node(), run)?;
            for (record, standing) in observer.members() {
                let key = (observer.node(), run, record.node);
                let greatest = self.greatest.entry(key).or_insert(standing);
                if *greatest > standing {
                    return Err(Broken {
                        checker: "monotone",
                        what: format!(
                            "node {} believed {greatest} of {} and then {standing}",
                            observer.node(),
                            record.node
                        ),
                    });
                }
                *greatest = standing;
            }
        }
        Ok(())
    }

    /// Who announces an epoch has it on its disk, and no earlier run had it.
    fn durable(&mut self, world: &World, node: NodeId, epoch: u64) -> Result<(), Broken> {
        let durable = world.durable_epoch(node);
        let greatest = self.epochs.entry(node).or_insert(epoch);
        if epoch > durable || epoch < *greatest {
            return Err(Broken {
                checker: "durable-epoch",
                what: format!(
                    "node {node} runs in epoch {epoch}; its disk has {durable}, and it was in {greatest} before"
                ),
            });
        }
        *greatest = epoch;
        Ok(())
    }

    /// An eviction that only members knew that have crashed since is lost with them: nobody was promised more.
    fn keep_known_evictions(&mut self, world: &World) {
        let is_known = |node: NodeId, epoch: u64| {
            let mut standings = world.running().filter_map(|observer| observer.standing(node));
            standings.any(|standing| standing >= Standing::new(Incarnation::first(epoch), State::Evicted))
        };
        self.evicted.retain(|node, epoch| is_known(*node, *epoch));
    }

    /// Who is connected with one that knows of an eviction never holds the epoch for alive again.
    fn no_resurrection(&self, world: &World) -> Result<(), Broken> {
        for (node, epoch) in &self.evicted {
            for observer in world.running().filter(|observer| observer.node() != *node) {
                let standing = observer.standing(*node);
                let holds = standing.is_some_and(|standing| {
                    standing.incarnation().epoch > *epoch || standing.state() == State::Evicted
                });
                if !holds {
                    return Err(Broken {
                        checker: "resurrection",
                        what: format!(
                            "node {} believes {standing:?} of {node}, whose epoch {epoch} was evicted",
                            observer.node()
                        ),
                    });
                }
            }
        }
        Ok(())
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

/// All faults end; who left or was evicted comes back; some stay down.
fn finish(world: &mut World, seen: &mut Seen) -> Result<(), Broken> {
    world.heal();
    world.net.loss_per_mille = 10;
    world.run(secs(15));
    seen.keep_known_evictions(world);
    bring_back(world);
    world.run(secs(30));
    seen.look(world)?;
    seen.no_resurrection(world)?;
    let begin = world.now();
    // Who learns late that it was evicted joins again then.
    while world.run_until(secs(1), World::is_whole).is_none() {
        bring_back(world);
        if world.now().since(begin) > secs(90) {
            return Err(not_whole(world));
        }
    }
    world.running().for_each(|member| member.check_all());
    // Who stayed down is known to be gone, by all.
    let down: Vec<NodeId> = world.ids().filter(|node| world.member(*node).is_none()).collect();
    for node in down {
        for observer in world.running() {
            let standing = observer.standing(node);
            if standing.is_some_and(|standing| standing.state().is_present()) {
                return Err(Broken {
                    checker: "down-is-dead",
                    what: format!(
                        "node {} believes {standing:?} of {node}, which is down",
                        observer.node()
                    ),
                });
            }
        }
    }
    Ok(())
}

fn bring_back(world: &mut World) {
    for node in world.ids() {
        if world.has_left(node) {
            world.crash(node);
        }
        let is_gone = world.member(node).is_none();
        if world.is_evicted(node) {
            world.give(node, Input::Rejoin);
        } else if is_gone && node != STAYS_DOWN {
            world.start(node);
        }
    }
}

fn not_whole(world: &World) -> Broken {
    let believes = |observer: &crate::Membership| {
        let standings = observer
            .members()
            .map(|(record, standing)| format!("{} {standing}", record.node));
        format!(
            "{}: {}",
            observer.node(),
            standings.collect::<Vec<_>>().join(", ")
        )
    };
    let all: Vec<String> = world.running().map(believes).collect();
    Broken {
        checker: "whole",
        what: format!(
            "live, connected members are not whole after two minutes; {}",
            all.join("; ")
        ),
    }
}
