//! Tests of causal contexts, against a plain set of dots.

use std::collections::BTreeSet;

use trilemma_core::Rng;

use super::*;

fn dot(origin: u32, incarnation: u64, seq: u64) -> Dot {
    Dot::new(NodeId(origin), Incarnation(incarnation), seq)
}

fn random(rng: &mut Rng, count: u64) -> (Context, BTreeSet<Dot>) {
    let (mut context, mut naive) = (Context::default(), BTreeSet::new());
    for _ in 0..rng.below(count) {
        let dot = dot(1 + rng.below(2) as u32, 1 + rng.below(2), 1 + rng.below(20));
        context.insert(dot);
        naive.insert(dot);
    }
    (context, naive)
}

fn all() -> Vec<Dot> {
    let mut dots = Vec::new();
    for origin in 1..=2 {
        for incarnation in 0..=3 {
            dots.extend((1..=22).map(|seq| dot(origin, incarnation, seq)));
        }
    }
    dots
}

fn members(context: &Context) -> BTreeSet<Dot> {
    all().into_iter().filter(|dot| context.contains(*dot)).collect()
}

#[test]
fn a_context_behaves_as_a_set_of_dots() {
    let mut rng = Rng::new(1);
    for _ in 0..2000 {
        let (mut a, naive_a) = random(&mut rng, 60);
        let (b, naive_b) = random(&mut rng, 60);
        assert_eq!(members(&a), naive_a);
        let rest: BTreeSet<Dot> = a
            .minus(&b)
            .into_iter()
            .flat_map(|(from, to)| (from.seq..=to.seq).map(move |seq| Dot { seq, ..from }))
            .collect();
        assert_eq!(rest, &naive_a - &naive_b);
        assert_eq!(a.includes(&b), naive_a.is_superset(&naive_b));
        for dot in all() {
            let prefix = (1..=dot.seq).all(|seq| naive_a.contains(&Dot { seq, ..dot }));
            assert_eq!(a.contains_up_to(dot), prefix, "{dot}");
        }
        let again = Context::from_wire(&a.to_wire(usize::MAX)).expect("our own form is proper");
        assert_eq!((&again, again.hash()), (&a, a.hash()));
        let withheld: BTreeSet<Dot> = naive_b.iter().filter(|_| rng.below(4) == 0).copied().collect();
        a.join(&b, &withheld);
        assert_eq!(members(&a), &naive_a | &(&naive_b - &withheld));
    }
}

#[test]
fn a_floor_stands_for_all_lower_lives_and_spares_withheld_ones() {
    let mut a = Context::default();
    a.insert(dot(1, 1, 3));
    a.insert(dot(1, 4, 1));
    let mut b = Context::default();
    b.raise_floor(NodeId(1), Incarnation(3));
    assert_eq!(b.minus(&a), [(dot(1, 0, 1), dot(1, 2, u64::MAX))]);
    let mut held = a.clone();
    held.join(&b, &BTreeSet::from([dot(1, 2, 9)]));
    assert!(held.contains(dot(1, 1, 77)) && !held.contains(dot(1, 2, 9)));
    a.join(&b, &BTreeSet::new());
    assert!(a.contains(dot(1, 2, 9)) && a.contains(dot(1, 4, 1)) && !a.contains(dot(1, 4, 2)));
    assert_eq!(a.intervals(), 2);
    assert!(a.includes(&b));
    a.insert(dot(1, 2, 5));
    assert_eq!(a.intervals(), 2, "a dot below the floor costs nothing");
}

#[test]
fn ten_to_the_five_restarts_cost_one_floor() {
    let mut context = Context::default();
    for life in 1..=100_000 {
        context.insert(dot(1, life, 1));
        context.raise_floor(NodeId(1), Incarnation(life));
    }
    assert_eq!(context.intervals(), 2);
}

#[test]
fn a_truncated_or_broken_context_of_a_peer_claims_less_or_is_refused() {
    let mut context = Context::default();
    for seq in (1..200).step_by(2) {
        context.insert(dot(1, 1, seq));
    }
    let less = Context::from_wire(&context.to_wire(10)).expect("proper");
    assert!(context.includes(&less) && less.intervals() == 10);
    for intervals in [
        vec![(0, 3)],
        vec![(5, 4)],
        vec![(5, 6), (6, 9)],
        vec![(5, 6), (1, 2)],
    ] {
        let wire = WireContext {
            floors: Vec::new(),
            lives: vec![(NodeId(1), Incarnation(1), WireIntervals(intervals))],
        };
        assert_eq!(Context::from_wire(&wire), None);
    }
}

#[test]
fn numbers_at_the_end_of_the_range_do_not_overflow() {
    let mut context = Context::default();
    context.insert(dot(1, 1, u64::MAX));
    context.insert(dot(1, 1, u64::MAX - 1));
    assert!(!context.would_fragment(dot(1, 1, u64::MAX)));
    assert!(context.minus(&context).is_empty());
    let mut other = Context::default();
    other.join(&context, &BTreeSet::from([dot(1, 1, u64::MAX)]));
    assert!(other.contains(dot(1, 1, u64::MAX - 1)) && !other.contains(dot(1, 1, u64::MAX)));
    assert_eq!(
        context.minus(&other),
        [(dot(1, 1, u64::MAX), dot(1, 1, u64::MAX))]
    );
}
