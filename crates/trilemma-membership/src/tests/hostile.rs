//! Messages that no honest member sends.

use std::sync::Arc;

use trilemma_core::{NodeId, codec};

use super::{N1, N2, N3, cluster, gossip, incarnation, secs, state, update};
use crate::message::{
    ACCUSERS_MAX, Detail, LISTED_MAX, Listed, Message, News, SUMS_MAX, Sums, UPDATES_MAX, WANTS_MAX,
};
use crate::record::{Record, RecordDigest};
use crate::refusal::Refusal;
use crate::standing::{Incarnation, Standing, State};
use crate::world::World;

fn refused(world: &World, reason: Refusal) -> u64 {
    world
        .member(N1)
        .map(|member| member.refusals().of(reason).count)
        .expect("it runs")
}

#[test]
fn lists_beyond_their_bounds_do_not_decode() {
    let standing = Standing::new(Incarnation::first(1), State::Alive);
    let listed = Listed {
        node: N2,
        standing,
        record: Some(RecordDigest::default()),
    };
    let news = News::default();
    let too_long = [
        News {
            updates: vec![update(N2, Incarnation::first(1), State::Alive, Detail::None); UPDATES_MAX + 1],
            ..news.clone()
        },
        News {
            listing: vec![listed; LISTED_MAX + 1],
            ..news.clone()
        },
        News {
            wants: vec![N2; WANTS_MAX + 1],
            ..news.clone()
        },
        News {
            sums: Some(Sums {
                buckets_log2: 2,
                first: 0,
                sums: vec![[0, 0]; SUMS_MAX + 1],
            }),
            ..news.clone()
        },
        News {
            updates: vec![update(
                N2,
                Incarnation::first(1),
                State::Suspect,
                Detail::Accusers(vec![N3; ACCUSERS_MAX + 1]),
            )],
            ..news.clone()
        },
        News {
            updates: vec![update(
                N2,
                Incarnation::first(1),
                State::Left,
                Detail::Signature(vec![0; 200].into()),
            )],
            ..news
        },
    ];
    for news in too_long {
        let bytes = codec::encode(&Message::Gossip(news));
        assert!(codec::decode::<Message>(&bytes).is_err());
    }
}

#[test]
fn members_beyond_the_limit_are_refused() {
    let mut world = World::founded(3, 1, |config| config.members_max = 5);
    world.run(secs(5));
    for node in 10..20 {
        let record = Arc::new(Record::new(NodeId(node), "nowhere"));
        let invented = update(
            NodeId(node),
            Incarnation::first(1),
            State::Alive,
            Detail::Record(record),
        );
        let message = gossip(&world, N2, invented);
        world.forge(N2, N1, message);
    }
    assert_eq!(refused(&world, Refusal::TooManyMembers), 8);
    world.run(secs(5));
    world.running().for_each(crate::Membership::check_all);
}

#[test]
fn a_record_of_another_member_is_refused_and_one_of_the_same_epoch_does_not_replace() {
    let mut world = cluster(3, 2);
    let wrong = Arc::new(Record::new(N3, "elsewhere"));
    let next = Incarnation {
        epoch: 9,
        ..incarnation(&world, N2)
    };
    let message = gossip(&world, N3, update(N2, next, State::Alive, Detail::Record(wrong)));
    world.forge(N3, N1, message);
    assert_eq!(refused(&world, Refusal::BadRecord), 1);
    let moved = Arc::new(Record::new(N2, "elsewhere"));
    let raised = Incarnation {
        counter: 1,
        ..incarnation(&world, N2)
    };
    let message = gossip(
        &world,
        N3,
        update(N2, raised, State::Alive, Detail::Record(moved)),
    );
    world.forge(N3, N1, message);
    let known = world
        .member(N1)
        .and_then(|member| member.member(N2))
        .expect("known");
    assert_eq!(known.record.address, "10.0.0.2:4242");
    assert_eq!(known.standing.incarnation(), raised);
}

#[test]
fn who_is_accused_by_a_liar_refutes_at_once() {
    let mut world = cluster(5, 3);
    world.record_changes(|change| change.standing.state() == State::Dead);
    for to in world.ids() {
        let lie = update(
            N2,
            incarnation(&world, N2),
            State::Suspect,
            Detail::Accusers(vec![N3, N1, NodeId(77)]),
        );
        let message = gossip(&world, N3, lie);
        world.forge(N3, to, message);
    }
    world.run(secs(10));
    assert!(world.changes.is_empty(), "{:?}", world.changes);
    assert!(world.is_whole());
}

#[test]
fn requests_beyond_what_is_served_are_counted() {
    let mut world = cluster(3, 4);
    for _ in 0..100 {
        let request = Message::ListRequest {
            after: None,
            news: News::default(),
        };
        world.forge(N2, N1, request);
        let help = Message::PingRequest {
            probe: 1,
            target: N3,
            news: News::default(),
        };
        world.forge(N2, N1, help);
    }
    assert!(refused(&world, Refusal::TooManyRequests) > 150);
    world.run(secs(5));
    assert_eq!(state(&world, N2, N1), Some(State::Alive));
}

/// Bytes of honest messages with one changed, and rows of statements at random: nothing panics, and the cluster recovers.
#[test]
fn garbage_that_decodes_harms_nobody_for_long() {
    let mut rng = trilemma_core::Rng::new(5);
    let mut world = cluster(6, 5);
    for _ in 0..3_000 {
        let node = NodeId(rng.below(8) as u32 + 1);
        let states = State::ALL;
        let random = Incarnation {
            epoch: rng.below(5),
            counter: rng.below(4) as u32,
        };
        let detail = match rng.below(5) {
            0 => Detail::None,
            1 => Detail::SameRecord(RecordDigest([7, rng.next_u64() as u8])),
            2 => Detail::Accusers(vec![NodeId(rng.below(9) as u32)]),
            3 => Detail::Signature(vec![1, 2, 3].into()),
            _ => Detail::Record(Arc::new(Record::new(node, "x"))),
        };
        let statement = update(node, random, states[rng.below(5) as usize], detail);
        let news = News {
            sender: crate::message::SenderIncarnation(random),
            record: RecordDigest([7, 0]),
            updates: vec![statement.clone(); 1 + rng.below(3) as usize],
            listing: vec![Listed {
                node,
                standing: statement.standing,
                record: Some(RecordDigest([7, 1])),
            }],
            wants: vec![node],
            sums: Some(Sums {
                buckets_log2: rng.below(256) as u8,
                first: rng.below(65_536) as u16,
                sums: vec![[1, 0]; rng.below(65) as usize],
            }),
        };
        let probe = rng.below(20) as u32;
        let message = match rng.below(7) {
            0 => Message::Ping { probe, news },
            1 => Message::Ack { probe, news },
            2 => Message::Nack { probe, news },
            3 => Message::Reached { probe, news },
            4 => Message::PingRequest {
                probe,
                target: node,
                news,
            },
            5 => Message::List {
                members: vec![statement],
                more_after: Some(node),
            },
            _ => Message::Gossip(news),
        };
        let mut bytes = codec::encode(&message).to_vec();
        if rng.below(2) == 0 {
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] = rng.next_u64() as u8;
        }
        let (from, to) = (NodeId(rng.below(6) as u32 + 1), NodeId(rng.below(6) as u32 + 1));
        if let Ok(message) = codec::decode(&bytes) {
            world.forge(from, to, message);
        }
        world.run(std::time::Duration::from_millis(5));
    }
    world.running().for_each(crate::Membership::check_all);
    world.run(secs(60));
    for observer in 1..=6 {
        for node in 1..=6 {
            assert_eq!(
                state(&world, NodeId(observer), NodeId(node)),
                Some(State::Alive),
                "{observer} about {node}"
            );
        }
    }
}
