//! Precedence, packing and the reach of one message.

use trilemma_core::codec;

use super::{COUNTER_MAX, EPOCH_MAX, Incarnation, RAISE_MAX, Standing, State};

fn standing(epoch: u64, counter: u32, state: State) -> Standing {
    Standing::new(Incarnation::new(epoch, counter).expect("in range"), state)
}

#[test]
fn the_order_of_standings_is_precedence() {
    let ascending = [
        standing(1, 0, State::Alive),
        standing(1, 0, State::Suspect),
        standing(1, 0, State::Dead),
        standing(1, 1, State::Alive),
        standing(1, COUNTER_MAX, State::Dead),
        standing(1, 0, State::Left),
        standing(1, 0, State::Evicted),
        standing(2, 0, State::Alive),
        standing(EPOCH_MAX, COUNTER_MAX, State::Evicted),
    ];
    assert!(ascending.is_sorted(), "{ascending:?}");
}

#[test]
fn a_standing_survives_packing_and_the_wire() {
    for epoch in [0, 1, 77, EPOCH_MAX] {
        for counter in [0, 1, 9_999, COUNTER_MAX] {
            for state in State::ALL {
                let packed = standing(epoch, counter, state);
                let expected = if state.is_final() { 0 } else { counter };
                assert_eq!(
                    packed.incarnation(),
                    Incarnation {
                        epoch,
                        counter: expected
                    }
                );
                assert_eq!(packed.state(), state);
                assert_eq!(codec::decode(&codec::encode(&packed)), Ok(packed));
            }
        }
    }
}

#[test]
fn numbers_beyond_their_range_do_not_decode() {
    for (epoch, low) in [
        (EPOCH_MAX + 1, 0),
        (0, (COUNTER_MAX + 1) << 3),
        (0, 5),
        (0, (1 << 3) | 3),
    ] {
        let bytes = codec::encode(&(epoch, low));
        assert!(
            codec::decode::<Standing>(&bytes).is_err(),
            "{epoch} {low} was accepted"
        );
    }
}

#[test]
fn one_message_raises_a_number_by_a_million_at_most() {
    let known = Incarnation::first(7);
    let reach = |epoch, counter| Incarnation { epoch, counter }.is_within_reach_of(known);
    assert!(reach(7, RAISE_MAX));
    assert!(!reach(7, RAISE_MAX + 1));
    assert!(reach(7 + u64::from(RAISE_MAX), 0));
    assert!(!reach(8 + u64::from(RAISE_MAX), 0));
    assert!(!reach(8, RAISE_MAX + 1));
    assert!(reach(3, COUNTER_MAX), "what is old is never too far");
}
