//! What one turn does is limited, however large the state is: counted in changes, not in time.

use trilemma_core::{
    Attempt, Effects, Incarnation, Input, Instant, Mutation, Now, Proposal, Protocol, Ticket,
};
use trilemma_core::{Key, WallTime};
use trilemma_testkit::{Verdict, write};

use super::*;
use crate::clock::Stamp;
use crate::dot::{Dot, Observed};
use crate::message::{ITEMS_MAX, Message};
use crate::record::Record;
use crate::replica::{Item, Part};

type Out = Effects<Message, Record>;

fn item(origin: NodeId, seq: u64, key: &str, value: &str) -> Item {
    Item {
        dot: Dot::new(origin, Incarnation(1), seq),
        stamp: Stamp::at(WallTime(1000)),
        key: key.into(),
        content: Some(value.into()),
        observed: Observed::default(),
        part: Part { index: 0, of: 1 },
    }
}

/// Node 1 of three with these settings, started.
fn node(adjust: impl FnOnce(&mut GossipConfig)) -> (Gossip, Out, Now) {
    let mut config = GossipConfig::new(N1, Incarnation(5), [N1, N2, N3], 1);
    adjust(&mut config);
    let (mut gossip, mut effects, now) = (Gossip::new(config), Out::default(), at(1));
    gossip.step(now, Input::Start, &mut effects);
    (gossip, effects, now)
}

fn at(millis: u64) -> Now {
    Now {
        instant: Instant::from_nanos(millis * 1_000_000),
        wall: WallTime(1_000_000 + millis),
    }
}

/// Rumors of commands that others have replaced since are looked up in vain, part by part.
#[test]
fn a_tick_looks_up_a_limited_number_of_replaced_changes() {
    const COMMANDS: u64 = 20;
    let (mut gossip, mut effects, now) = node(|config| config.turn_items = 1024);
    for seq in 1..=COMMANDS {
        let mutations = (0..1000).map(|key| Mutation::Put {
            key: format!("k{key}").into(),
            value: "v".into(),
            lease: None,
        });
        let command = Command {
            guards: Vec::new(),
            mutations: mutations.collect(),
        };
        let proposal = Proposal {
            ticket: Ticket(seq),
            deadline: Instant::NEVER,
            request: write(seq, Attempt::First, command),
        };
        gossip.step(now, Input::Propose(proposal), &mut effects);
        gossip.step(now, Input::EndTurn, &mut effects);
    }
    let up_to = effects.last_append();
    gossip.step(now, Input::Persisted { up_to }, &mut effects);
    let mut left = vec![gossip.rumors.len() as u64];
    for tick in 2..=20 {
        gossip.step(at(tick * 110), Input::Wake, &mut effects);
        left.push(gossip.rumors.len() as u64);
    }
    let most = left.windows(2).map(|pair| pair[0] - pair[1]).max();
    assert!(most <= Some(2), "{left:?}");
    assert_eq!(left[0], COMMANDS);
    assert!(left[19] <= 1, "{left:?}");
}

/// A write goes to all members at once. They say that they have it, and are not sent it again.
#[test]
fn members_of_a_small_cluster_are_sent_a_write_once() {
    let mut cluster = cluster(3, 71);
    cluster.run_for(ms(500));
    let sent = std::rc::Rc::new(std::cell::Cell::new(0));
    let count = std::rc::Rc::clone(&sent);
    cluster.filter = Some(Box::new(move |_, _, message| {
        if let Message::Rumors { items, .. } = message {
            count.set(count.get() + items.len());
        }
        Verdict::Deliver
    }));
    for seq in 1..=200 {
        put(
            &mut cluster,
            NodeId(1 + (seq % 3) as u32),
            seq,
            &format!("k{seq}"),
            "v",
        );
        cluster.run_for(ms(7));
    }
    cluster.run_for(ms(2000));
    assert!(is_equal(&cluster));
    assert_eq!(sent.get(), 400);
}

/// What was lost on the way is sent again, long before the next comparison.
#[test]
fn a_write_that_was_lost_is_sent_again() {
    let mut cluster = cluster_with(3, 72, |config| config.sync_ticks = 1_000_000);
    cluster.run_for(ms(500));
    cluster.cut(N1, N2);
    cluster.cut(N1, N3);
    put(&mut cluster, N1, 1, "k", "v");
    cluster.heal();
    converge(&mut cluster, ms(500));
}

/// Of many keys the winner is to be written back at the same tick.
#[test]
fn a_tick_writes_a_limited_number_of_keys_back() {
    let (mut gossip, mut effects, _) = node(|config| config.turn_items = 10);
    for number in 0..25 {
        let key = Key::from(format!("k{number}"));
        // A tombstone that hides a concurrent value.
        let hidden = item(N2, number + 1, &key.to_string(), "v");
        let delete = Item {
            dot: Dot::new(N1, Incarnation(4), number + 1),
            stamp: Stamp::at(WallTime(2000)),
            content: None,
            ..hidden.clone()
        };
        for change in [hidden, delete] {
            gossip.store.join(&change);
        }
        gossip.store.note_siblings(&mut gossip.shared, &key);
    }
    let mut live = vec![gossip.replica().live()];
    for tick in 2..=6 {
        gossip.step(at(tick * 110), Input::Wake, &mut effects);
        live.push(gossip.replica().live());
    }
    assert_eq!(live, [50, 40, 30, 25, 25, 25]);
}

/// Everything may be collected at the same moment.
#[test]
fn a_turn_collects_a_limited_number_of_changes() {
    const KEYS: usize = 300;
    let mut config = GossipConfig::new(N1, Incarnation(5), [N1], 1);
    (config.turn_items, config.tombstone_age_min) = (80, ms(0));
    let (mut gossip, mut effects) = (Gossip::new(config), Out::default());
    gossip.step(at(1), Input::Start, &mut effects);
    for number in 0..KEYS {
        let mut delete = item(N1, number as u64 + 1, &format!("k{number}"), "");
        delete.content = None;
        gossip.store.join(&delete);
    }
    gossip.step(at(200), Input::Wake, &mut effects);
    assert_eq!(
        gossip.replica().live(),
        KEYS,
        "a tick only says what is to be done"
    );
    let mut live = vec![KEYS];
    for _ in 0..40 {
        gossip.step(at(200), Input::EndTurn, &mut effects);
        live.push(gossip.replica().live());
    }
    let most = live.windows(2).map(|pair| pair[0] - pair[1]).max();
    assert!(most <= Some(10) && live[40] <= 50, "{live:?}");
}

/// A repair of any size is shown and logged in slices, each an item that watchers can read.
#[test]
fn a_repair_is_shown_and_logged_in_slices() {
    let (mut gossip, mut effects, now) = node(|config| config.turn_items = 100);
    let items: Vec<Item> = (1..=3 * ITEMS_MAX as u64)
        .map(|seq| item(N2, seq, &format!("k{seq}"), "v"))
        .collect();
    let dots: Vec<Dot> = items.iter().map(|item| item.dot).collect();
    let Gossip { shared, store, .. } = &mut gossip;
    let before = effects.last_append().0;
    let restored = store.repair(shared, now, &items, &[], &mut effects);
    assert_eq!((restored, store.visible()), (items.len(), items.len() as u64));
    let removed = store.repair(shared, now, &[], &dots, &mut effects);
    assert_eq!((removed, store.visible()), (items.len(), 0));
    let slices = 2 * items.len().div_ceil(100) as u64;
    assert_eq!(effects.last_append().0 - before, slices);
}
