//! What the key states' own check sees, and what they keep.

use trilemma_core::{Incarnation, NodeId, Version};

use super::*;
use crate::tests::harness::caught;

fn ballot(counter: u64) -> Ballot {
    Ballot {
        counter,
        node: NodeId(1),
        incarnation: Incarnation(1),
    }
}

fn register(version: u64) -> Arc<Register> {
    let version = Version(version);
    Arc::new(Register {
        version,
        ..Register::default()
    })
}

fn key() -> Key {
    "x".into()
}

/// KeyStates of one key, of which `b1` was accepted and `b5` promised.
fn slots() -> KeyStates {
    let mut slots = KeyStates::default();
    slots.change_or_make(&key(), |slot| {
        slot.accept(ballot(1), register(1));
        slot.promise(ballot(5));
    });
    slots.check();
    slots
}

fn slot(slots: &mut KeyStates) -> &mut KeyState {
    Arc::make_mut(slots.map.get_mut(&key()).expect("it was accepted"))
}

#[test]
fn the_check_sees_a_promise_below_what_was_accepted() {
    let mut slots = slots();
    slot(&mut slots).promised = Ballot::ZERO;
    assert!(caught(|| slots.check()).contains("but promised only"));
}

#[test]
fn the_check_sees_a_register_that_was_never_accepted() {
    let mut slots = slots();
    slot(&mut slots).accepted = Ballot::ZERO;
    assert!(caught(|| slots.check()).contains("holds a register that was never accepted"));
}

#[test]
fn the_check_sees_a_ballot_below_what_its_promise_reported() {
    let mut slots = slots();
    slot(&mut slots).promised = ballot(1);
    slot(&mut slots).is_cached = true;
    assert!(caught(|| slots.check()).contains("above what its promise reported"));
}

#[test]
fn the_check_sees_a_chosen_register_that_is_missing() {
    let mut slots = slots();
    slot(&mut slots).learned = ballot(2);
    assert!(caught(|| slots.check()).contains("beside the accepted one if they differ"));
}

#[test]
fn the_check_sees_counts_that_are_off() {
    let mut slots = slots();
    slots.change(&key(), |slot| slot.learn(ballot(1), &register(1)));
    slots.check();
    slots.counts.keys += 1;
    assert!(caught(|| slots.check()).contains("are counted among 1 key states"));
    slots.counts.keys = 1;
    slots.counts.tombstones = 0;
    assert!(caught(|| slots.check()).contains("key states are counted"));
}

/// What was chosen is shown until what was accepted since is chosen, too; and is held once where the two are one.
#[test]
fn what_was_chosen_is_shown_whatever_is_accepted() {
    let mut slots = slots();
    let shown = |slots: &KeyStates| {
        let slot = slots.get(&key()).expect("it was accepted");
        (slot.learned(), slot.shown().map(|register| register.version.0))
    };
    assert_eq!(shown(&slots), (Ballot::ZERO, None));
    slots.change(&key(), |slot| slot.learn(ballot(1), &register(1)));
    assert_eq!(shown(&slots), (ballot(1), Some(1)));
    assert!(slot(&mut slots).shown.is_none(), "it is held once");
    slots.change(&key(), |slot| {
        slot.accept(ballot(5), register(2));
        slot.promise(ballot(6));
    });
    assert_eq!(shown(&slots), (ballot(1), Some(1)));
    slots.change(&key(), |slot| slot.learn(ballot(9), &register(4)));
    assert_eq!(shown(&slots), (ballot(9), Some(4)));
    slots.change(&key(), |slot| {
        slot.promise(ballot(7));
        slot.accept(ballot(7), register(3));
    });
    assert_eq!(shown(&slots), (ballot(9), Some(4)), "an accept that comes late");
    slots.change(&key(), |slot| {
        slot.promise(ballot(9));
        slot.accept(ballot(9), register(4));
    });
    assert_eq!(shown(&slots), (ballot(9), Some(4)));
    assert!(slot(&mut slots).shown.is_none(), "it is held once");
    slots.check();
}

#[test]
fn a_cached_ballot_is_taken_once() {
    let mut slots = slots();
    slots.keep(&key(), ballot(5), ballot(1), 1);
    assert_eq!(slots.counts().cached, 1);
    let cached = slots.take_cached(&key()).expect("it was kept");
    assert_eq!((cached.ballot, cached.base), (ballot(5), ballot(1)));
    assert!(slots.take_cached(&key()).is_none());
    assert_eq!(slots.counts().cached, 0);
}

#[test]
fn a_ballot_that_was_overtaken_is_not_kept() {
    let mut slots = slots();
    for (promised, base) in [(4, 1), (6, 1), (5, 2)] {
        slots.keep(&key(), ballot(promised), ballot(base), 1);
        assert_eq!(slots.counts().cached, 0, "{promised} on {base}");
    }
    slots.keep(&key(), ballot(5), ballot(1), 0);
    assert_eq!(slots.counts().cached, 0, "none is kept");
    slots.keep(&key(), ballot(5), ballot(1), 1);
    slots.change(&key(), |slot| slot.promise(ballot(5)));
    assert_eq!(slots.counts().cached, 1, "nothing came between");
    slots.change(&key(), |slot| slot.promise(ballot(6)));
    assert_eq!(slots.counts().cached, 0, "another proposer has come");
}

/// Most of what a million keys cost beyond what they say.
#[test]
fn a_slot_is_small() {
    assert!(size_of::<KeyState>() <= 112, "{}", size_of::<KeyState>());
}
