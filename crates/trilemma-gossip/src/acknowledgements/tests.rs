//! Tests of what counts as acknowledged.

use trilemma_core::WallTime;

use super::*;
use crate::clock::Stamp;
use crate::dot::Observed;
use crate::replica::Part;

const PEER: NodeId = NodeId(2);

fn dot(seq: u64) -> Dot {
    Dot::new(NodeId(1), Incarnation(1), seq)
}

fn context(up_to: u64) -> Context {
    let mut context = Context::default();
    (1..=up_to).for_each(|seq| context.insert(dot(seq)));
    context
}

fn item(seq: u64) -> Item {
    Item {
        dot: dot(seq),
        stamp: Stamp::default(),
        key: "k".into(),
        content: None,
        observed: Observed::default(),
        part: Part { index: 0, of: 1 },
    }
}

fn at(seconds: u64) -> Now {
    Now {
        instant: Instant::from_nanos(seconds * 1_000_000_000),
        wall: WallTime(0),
    }
}

fn is_stable(acknowledgements: &Acknowledgements, own: &Context, seq: u64) -> bool {
    let config = GossipConfig::new(NodeId(1), Incarnation(1), [PEER], 1);
    acknowledgements.is_stable(&config, own, &item(seq))
}

/// What the tick does before it looks at single changes.
fn tick(acknowledgements: &mut Acknowledgements, now: Now, own: &Context) {
    for member in acknowledgements.members.values_mut() {
        member.promote(now, own);
        member.age(now, Duration::from_secs(60));
    }
    acknowledgements.check(own);
}

#[test]
fn the_age_counts_from_the_acknowledgement_and_a_repeat_does_not_begin_it_again() {
    let (mut acknowledgements, own) = (Acknowledgements::default(), context(3));
    for second in 0..=60 {
        let now = at(second);
        acknowledgements.on_acknowledged(now, PEER, Incarnation(1), context(2), [], &own);
        tick(&mut acknowledgements, now, &own);
        assert_eq!(
            is_stable(&acknowledgements, &own, 2),
            second == 60,
            "second {second}"
        );
    }
    assert!(!is_stable(&acknowledgements, &own, 3));
    acknowledgements.on_acknowledged(at(61), PEER, Incarnation(1), context(3), [], &own);
    tick(&mut acknowledgements, at(120), &own);
    assert!(!is_stable(&acknowledgements, &own, 3));
    tick(&mut acknowledgements, at(121), &own);
    assert!(is_stable(&acknowledgements, &own, 3));
}

#[test]
fn what_a_former_incarnation_acknowledged_does_not_count() {
    let (mut acknowledgements, own) = (Acknowledgements::default(), context(2));
    acknowledgements.on_acknowledged(at(0), PEER, Incarnation(1), context(2), [], &own);
    tick(&mut acknowledgements, at(60), &own);
    assert!(is_stable(&acknowledgements, &own, 2));
    acknowledgements.on_incarnation(PEER, Incarnation(1));
    assert!(is_stable(&acknowledgements, &own, 2), "the same one");
    acknowledgements.on_incarnation(PEER, Incarnation(2));
    assert!(!is_stable(&acknowledgements, &own, 2));
    acknowledgements.on_acknowledged(at(61), PEER, Incarnation(2), context(1), [], &own);
    acknowledgements.on_acknowledged(at(62), PEER, Incarnation(1), context(2), [], &own);
    tick(&mut acknowledgements, at(200), &own);
    assert!(is_stable(&acknowledgements, &own, 1) && !is_stable(&acknowledgements, &own, 2));
}

#[test]
fn what_a_member_defers_is_not_acknowledged_and_what_is_ahead_of_us_waits() {
    let (mut acknowledgements, own) = (Acknowledgements::default(), context(2));
    acknowledgements.on_acknowledged(at(0), PEER, Incarnation(1), context(2), [dot(1)], &own);
    acknowledgements.on_acknowledged(at(0), PEER, Incarnation(1), context(4), [], &own);
    tick(&mut acknowledgements, at(60), &own);
    assert!(!is_stable(&acknowledgements, &own, 1) && is_stable(&acknowledgements, &own, 2));
    let own = context(4);
    tick(&mut acknowledgements, at(61), &own);
    tick(&mut acknowledgements, at(121), &own);
    assert!(is_stable(&acknowledgements, &own, 1) && is_stable(&acknowledgements, &own, 4));
}

#[test]
fn an_acknowledgement_that_counts_and_is_ahead_is_caught() {
    let (mut acknowledgements, own) = (Acknowledgements::default(), context(2));
    acknowledgements.on_acknowledged(at(0), PEER, Incarnation(1), context(2), [], &own);
    acknowledgements.check(&own);
    let member = acknowledgements
        .members
        .get_mut(&PEER)
        .expect("it was just added");
    member.aging.as_mut().expect("it ages").context = context(3);
    assert!(std::panic::catch_unwind(|| acknowledgements.check(&own)).is_err());
}
