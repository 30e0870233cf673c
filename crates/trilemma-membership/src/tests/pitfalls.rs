//! The pitfalls that the design names, as tests with the same numbers.

use super::{N1, N2, N3, all_hold, check_all, cluster, gossip, incarnation, secs, state, update};
use crate::authority::Statement;
use crate::effects::Input;
use crate::message::Detail;
use crate::refusal::Refusal;
use crate::standing::{COUNTER_MAX, EPOCH_MAX, Incarnation, RAISE_MAX, State};
use crate::world::{Change, ToyAuthority, World};
use trilemma_core::NodeId;

/// P4: a forged or overflowing incarnation must not evict permanently.
#[test]
fn p4_a_forged_incarnation_at_the_maximum_is_refused_by_all() {
    let mut world = cluster(5, 1);
    let forged = [
        Incarnation {
            epoch: EPOCH_MAX,
            counter: COUNTER_MAX,
        },
        Incarnation {
            epoch: 2,
            counter: COUNTER_MAX,
        },
    ];
    for to in world.ids() {
        for incarnation in forged {
            for state in [State::Alive, State::Suspect, State::Dead] {
                let message = gossip(&world, N1, update(N2, incarnation, state, Detail::None));
                world.forge(N1, to, message);
            }
        }
    }
    let refused = world
        .member(N3)
        .map(|member| member.refusals().of(Refusal::OutOfReach));
    let refused = refused.expect("it runs");
    assert_eq!(
        (refused.count, refused.from, refused.about),
        (6, Some(N1), Some(N2))
    );
    let whole = world.run_until(secs(3), World::is_whole);
    assert!(whole.is_some(), "not whole 3 s after the forgeries");
    assert!(
        incarnation(&world, N2).epoch <= 3 + u64::from(RAISE_MAX),
        "the victim went beyond its reach"
    );
    check_all(&world);
}

#[test]
fn p4_a_member_accused_above_its_reach_recovers_by_a_new_epoch() {
    let mut world = cluster(5, 2);
    let epoch = incarnation(&world, N2).epoch;
    // Each message raises the counter as far as it may, until it is at its end.
    for counter in [RAISE_MAX, COUNTER_MAX] {
        for to in [N1, N3, NodeId(4), NodeId(5)] {
            let forged = update(N2, Incarnation { epoch, counter }, State::Dead, Detail::None);
            let message = gossip(&world, N1, forged);
            world.forge(N1, to, message);
        }
    }
    assert_eq!(state(&world, N3, N2), Some(State::Dead));
    let whole = world.run_until(secs(5), World::is_whole);
    assert!(whole.is_some(), "not whole after 5 s");
    assert_eq!(incarnation(&world, N2).epoch, epoch + 1);
    assert_eq!(world.durable_epoch(N2), epoch + 1);
}

#[test]
fn p4_a_member_whose_epoch_was_forged_upwards_outranks_it() {
    let mut world = cluster(5, 3);
    let epoch = incarnation(&world, N2).epoch + u64::from(RAISE_MAX);
    let record = world
        .member(N1)
        .and_then(|member| member.member(N2))
        .expect("known")
        .record;
    for to in [N1, N3, NodeId(4), NodeId(5)] {
        let forged = update(
            N2,
            Incarnation::first(epoch),
            State::Dead,
            Detail::Record(record.clone()),
        );
        let message = gossip(&world, N1, forged);
        world.forge(N1, to, message);
    }
    assert_eq!(state(&world, N3, N2), Some(State::Dead));
    let whole = world.run_until(secs(5), World::is_whole);
    assert!(whole.is_some(), "not whole after 5 s");
    assert_eq!(incarnation(&world, N2).epoch, epoch + 1);
}

/// P5: in a mass restart an accusation must reach its victim.
#[test]
fn p5_a_thousand_restart_at_once_and_all_see_all_in_half_a_minute() {
    let mut world = World::founded(1_000, 1, |_| {});
    assert!(
        world.run_until(secs(30), World::is_whole).is_some(),
        "not whole at first"
    );
    let all: Vec<NodeId> = world.ids().collect();
    all.iter().for_each(|node| world.crash(*node));
    world.run(secs(2));
    all.iter().for_each(|node| world.start(*node));
    let whole = world.run_until(secs(30), World::is_whole);
    assert!(whole.is_some(), "not whole after 30 s");
}

/// P6: an old `alive` must not resurrect.
#[test]
fn p6_an_old_alive_after_a_higher_dead_changes_nothing_and_is_counted() {
    let mut world = cluster(5, 4);
    let alive = world
        .member(N1)
        .and_then(|member| member.member(N2))
        .expect("known");
    world.crash(N2);
    assert!(
        world
            .run_until(secs(15), |world| all_hold(world, N2, State::Dead))
            .is_some()
    );
    for detail in [Detail::None, Detail::Record(alive.record.clone())] {
        let old = update(N2, alive.standing.incarnation(), State::Alive, detail);
        let message = gossip(&world, N3, old);
        world.forge(N3, N1, message);
    }
    assert_eq!(state(&world, N1, N2), Some(State::Dead));
    let refused = world
        .member(N1)
        .map(|member| member.refusals().of(Refusal::Outdated));
    let refused = refused.expect("it runs");
    assert!(refused.count >= 2 && refused.about == Some(N2), "{refused:?}");
    world.run(secs(10));
    assert!(all_hold(&world, N2, State::Dead));
}

/// P7: a forged leave must not take an identity.
#[test]
fn p7_a_leave_without_a_right_signature_is_refused_counted_and_named() {
    let mut world = cluster(5, 5);
    let now = incarnation(&world, N2);
    let wrong = Statement::Leave {
        node: N2,
        epoch: now.epoch + 7,
    };
    for (detail, reason) in [
        (Detail::None, Refusal::Unsigned),
        (
            Detail::Signature(ToyAuthority::signature(&wrong)),
            Refusal::BadSignature,
        ),
    ] {
        for state in [State::Left, State::Evicted] {
            let message = gossip(&world, N3, update(N2, now, state, detail.clone()));
            world.forge(N3, N1, message);
        }
        let refused = world
            .member(N1)
            .map(|member| member.refusals().of(reason))
            .expect("it runs");
        assert_eq!(
            (refused.count, refused.from, refused.about),
            (2, Some(N3), Some(N2))
        );
    }
    assert_eq!(state(&world, N1, N2), Some(State::Alive));
}

#[test]
fn p7_who_leaves_with_a_signature_is_gone_until_its_next_epoch() {
    let mut world = cluster(5, 6);
    world.give(N2, Input::Leave);
    assert!(world.run_until(secs(10), |world| world.has_left(N2)).is_some());
    world.crash(N2);
    assert!(
        world
            .run_until(secs(5), |world| all_hold(world, N2, State::Left))
            .is_some()
    );
    world.run(secs(30));
    assert!(
        all_hold(&world, N2, State::Left),
        "one that left is not suspected"
    );
    world.start(N2);
    assert!(world.run_until(secs(10), World::is_whole).is_some());
    check_all(&world);
}

/// P8: a network partition of ten minutes must heal by itself.
#[test]
fn p8_two_halves_are_one_again_ten_seconds_after_ten_minutes_apart() {
    let mut world = World::founded(60, 7, |_| {});
    assert!(
        world.run_until(secs(30), World::is_whole).is_some(),
        "not whole at first"
    );
    world.partition((1..=30).map(NodeId));
    world.run(secs(600));
    assert!(
        world
            .running()
            .all(|member| member.status().counts[State::Dead as usize] == 30)
    );
    world.heal();
    let whole = world.run_until(secs(10), World::is_whole);
    assert!(whole.is_some(), "not whole 10 s after the heal");
    check_all(&world);
}

/// P9: a starved node must not accuse many.
#[test]
fn p9_ten_nodes_that_pause_make_no_healthy_one_dead() {
    for seed in 0..3 {
        let mut world = World::founded(60, seed, |_| {});
        assert!(
            world.run_until(secs(30), World::is_whole).is_some(),
            "not whole at first"
        );
        world.record_changes(|change: &Change| change.standing.state() == State::Dead);
        for second in 0..60 {
            for node in 1..=10 {
                if (second + node) % 4 == 0 {
                    world.pause(NodeId(node), secs(3));
                }
            }
            world.run(secs(1));
        }
        let healthy = world.changes.iter().filter(|change| change.node.0 > 10).count();
        assert_eq!(healthy, 0, "seed {seed}: healthy nodes were declared dead");
        let whole = world.run_until(secs(20), World::is_whole);
        assert!(whole.is_some(), "seed {seed}: not whole 20 s after the pauses");
    }
}

/// P15: one that was evicted must not come back with its old epoch.
#[test]
fn p15_an_evicted_epoch_is_fenced_and_a_new_one_is_welcome() {
    let mut world = cluster(6, 8);
    world.partition([N2]);
    world.run(secs(20));
    let before = incarnation(&world, N2);
    let evict = Statement::Evict {
        node: N2,
        epoch: before.epoch,
    };
    world.give(
        N1,
        Input::Evict {
            node: N2,
            epoch: before.epoch,
            signature: ToyAuthority::signature(&evict),
        },
    );
    assert!(
        world
            .run_until(secs(10), |world| {
                let mut others = world.running().filter(|member| member.node() != N2);
                others.all(|member| member.standing(N2).map(|s| s.state()) == Some(State::Evicted))
            })
            .is_some()
    );
    world.heal();
    // It learns of it from the first one that it talks to, and is silent.
    assert!(world.run_until(secs(5), |world| world.is_evicted(N2)).is_some());
    world.run(secs(20));
    assert!(all_hold(&world, N2, State::Evicted));
    world.give(N2, Input::Rejoin);
    assert!(
        world.run_until(secs(10), World::is_whole).is_some(),
        "not whole after the rejoin"
    );
    assert_eq!(incarnation(&world, N2).epoch, before.epoch + 1);
    check_all(&world);
}

/// Node 1 has news of node 2, and nobody but node 2 to send it to, so it stays. Node 1 used to wait for that without end.
#[test]
fn a_member_leaves_whatever_else_it_had_to_say() {
    let mut world = cluster(2, 7);
    world.crash(N2);
    world.start(N2);
    let restarted = |world: &World| {
        let standing = world.member(N1).and_then(|member| member.standing(N2));
        standing.is_some_and(|standing| standing.incarnation().epoch == 3)
    };
    assert!(world.run_until(secs(30), restarted).is_some());
    world.give(N1, Input::Leave);
    let left = world.run_until(secs(15), |world| world.has_left(N1));
    assert!(left.is_some(), "it has not left after 15 s");
    assert_eq!(state(&world, N2, N1), Some(State::Left));
}
