//! Random schedules, and that a seed names one.

use trilemma_core::NodeId;

use super::secs;
use crate::schedule;
use crate::world::World;

/// How many schedules; `TRILEMMA_SEEDS` asks for more.
fn seeds() -> u64 {
    let asked = std::env::var("TRILEMMA_SEEDS").ok();
    asked.and_then(|asked| asked.parse().ok()).unwrap_or(40)
}

#[test]
fn whatever_happens_beliefs_never_go_back_and_in_the_end_all_agree() {
    for seed in 0..seeds() {
        if let Err(broken) = schedule::run(seed) {
            panic!("seed {seed}: {broken}");
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
