//! Whole clusters of members in virtual time: the pitfalls of the design by name, and what must hold on random schedules.

mod hostile;
mod pitfalls;
mod random;

use std::time::Duration;

use trilemma_core::NodeId;

use crate::membership::Membership;
use crate::message::{Detail, Message, News, SenderIncarnation, Update};
use crate::standing::{Incarnation, Standing, State};
use crate::world::World;

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A cluster that is whole, and through whose codec every message goes.
fn cluster(size: u32, seed: u64) -> World {
    let mut world = World::founded(size, seed, |_| {});
    world.encode_all();
    let whole = world.run_until(secs(30), World::is_whole);
    assert!(whole.is_some(), "seed {seed}: not whole after 30 s");
    world
}

fn state(world: &World, observer: NodeId, node: NodeId) -> Option<State> {
    let member = world.member(observer)?;
    member.standing(node).map(Standing::state)
}

fn all_hold(world: &World, node: NodeId, state: State) -> bool {
    let mut others = world.running().filter(|member| member.node() != node);
    others.all(|member| member.standing(node).map(Standing::state) == Some(state))
}

fn incarnation(world: &World, node: NodeId) -> Incarnation {
    world
        .member(node)
        .map(|member| member.status().incarnation)
        .expect("it runs")
}

fn update(node: NodeId, incarnation: Incarnation, state: State, detail: Detail) -> Update {
    Update {
        node,
        standing: Standing::new(incarnation, state),
        detail,
    }
}

/// A message of `from` with one statement.
fn gossip(world: &World, from: NodeId, update: Update) -> Message {
    Message::Gossip(News {
        sender: SenderIncarnation(incarnation(world, from)),
        updates: vec![update],
        ..News::default()
    })
}

fn check_all(world: &World) {
    world.running().for_each(Membership::check_all);
}

#[test]
fn a_failure_is_known_to_all_in_seconds_and_datagrams_stay_small() {
    let mut world = cluster(30, 3);
    world.run(secs(10));
    world.crash(N2);
    let known = world.run_until(secs(12), |world| all_hold(world, N2, State::Dead));
    assert!(known.is_some(), "not known after 12 s");
    assert!(world.largest_datagram() <= crate::message::DATAGRAM_BYTES_MAX);
    check_all(&world);
}

#[test]
fn one_that_joins_through_a_seed_learns_all_and_is_learned_of() {
    let mut world = cluster(300, 4);
    let seed = crate::config::Seed {
        node: N1,
        address: "10.0.0.1:4242".into(),
    };
    let node = world.add(crate::world::record(NodeId(301)), &|config| {
        config.seeds = vec![seed.clone()];
        config.record.role = crate::record::Role::Observer;
    });
    world.start(node);
    let whole = world.run_until(secs(10), World::is_whole);
    assert!(whole.is_some(), "not whole after 10 s");
    let seen = world
        .member(N2)
        .and_then(|member| member.member(node))
        .expect("a member");
    assert_eq!(seen.record.role, crate::record::Role::Observer);
    assert_eq!(
        world.member(node).and_then(|member| member.address(N3)),
        Some("10.0.0.3:4242")
    );
    world.crash(node);
    let known = world.run_until(secs(15), |world| all_hold(world, node, State::Dead));
    assert!(known.is_some(), "observers are probed, too");
}

#[test]
fn a_restart_needs_no_seed_because_the_list_was_saved() {
    let mut world = cluster(10, 5);
    world.run(secs(15));
    world.crash(N3);
    world.run(secs(20));
    assert!(all_hold(&world, N3, State::Dead));
    let before = world.durable_epoch(N3);
    world.start(N3);
    let whole = world.run_until(secs(5), World::is_whole);
    assert!(whole.is_some(), "not whole 5 s after the restart");
    assert_eq!(world.durable_epoch(N3), before + 1);
}

#[test]
fn nothing_is_said_of_an_epoch_before_it_is_durable() {
    use crate::effects::{Effects, Input, Persist};
    use trilemma_core::{Instant, Now};
    let config = crate::config::Config::new(crate::world::record(N1), 1);
    let saved = [update(
        N2,
        Incarnation::first(1),
        State::Alive,
        Detail::Record(crate::world::record(N2).into()),
    )];
    let mut member = Membership::new(config, Box::new(crate::world::ToyAuthority), 6, &saved);
    let mut effects = Effects::default();
    member.step(Now::default(), Input::Start, &mut effects);
    assert_eq!(effects.persists, [Persist::Epoch(7)]);
    let ping = Message::Ping {
        probe: 1,
        news: News::default(),
    };
    for second in 1..20 {
        let now = Now {
            instant: Instant::ZERO + secs(second),
            ..Now::default()
        };
        member.step(now, Input::Wake, &mut effects);
        let message = ping.clone();
        let lane = trilemma_core::Lane::Datagram;
        let input = Input::Receive {
            from: N2,
            lane,
            message,
        };
        member.step(now, input, &mut effects);
        member.step(now, Input::EpochPersisted(6), &mut effects);
    }
    assert!(effects.sends.is_empty(), "{:?}", effects.sends);
    let now = Now {
        instant: Instant::ZERO + secs(20),
        ..Now::default()
    };
    member.step(now, Input::EpochPersisted(7), &mut effects);
    let input = Input::Receive {
        from: N2,
        lane: trilemma_core::Lane::Datagram,
        message: ping,
    };
    member.step(now, input, &mut effects);
    assert_eq!(effects.sends.len(), 1);
    assert_eq!(member.status().incarnation, Incarnation::first(7));
}

#[test]
fn a_network_that_loses_datagrams_alone_accuses_nobody() {
    let mut world = cluster(10, 6);
    world.net.loss_per_mille = 1000;
    world.run(secs(30));
    assert!(
        world
            .running()
            .all(|member| member.status().counts[State::Dead as usize] == 0)
    );
}

#[test]
fn connections_are_kept_to_all_of_a_few_and_to_some_of_many() {
    let world = cluster(20, 7);
    assert_eq!(world.member(N1).map(|member| member.warm().len()), Some(19));
    let mut world = World::founded(200, 7, |_| {});
    world.run(secs(10));
    let before = world
        .member(N1)
        .map(|member| member.warm().clone())
        .expect("it runs");
    world.run(secs(10));
    let after = world
        .member(N1)
        .map(|member| member.warm().clone())
        .expect("it runs");
    assert_eq!((before.len(), after.len()), (32, 32));
    let exchanged = after.difference(&before).count();
    assert!(
        (1..=3).contains(&exchanged),
        "{exchanged} connections exchanged in 10 s"
    );
    let zones: std::collections::BTreeSet<u32> = after.iter().map(|node| node.0 % 3).collect();
    assert_eq!(zones.len(), 3, "a zone without a connection");
}
