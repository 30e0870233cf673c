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
        a.join(&b);
        a.check();
        assert_eq!(members(&a), &naive_a | &naive_b);
    }
}

#[test]
fn closed_incarnations_cost_one_interval_for_each_row() {
    let mut a = Context::default();
    a.insert(dot(1, 1, 3));
    a.insert(dot(1, 4, 1));
    let mut b = Context::default();
    b.close(NodeId(1), Incarnation(1), Incarnation(3));
    assert_eq!(b.minus(&a), [(dot(1, 1, 1), dot(1, 2, u64::MAX))]);
    a.join(&b);
    assert!(a.contains(dot(1, 2, 9)) && a.contains(dot(1, 4, 1)) && !a.contains(dot(1, 4, 2)));
    assert_eq!(a.intervals(), 2);
    assert!(a.includes(&b) && !b.includes(&a));
    a.insert(dot(1, 2, 5));
    assert_eq!(a.intervals(), 2, "a dot of a closed incarnation costs nothing");
    // A disk that began later closes a row of its own.
    a.close(NodeId(1), Incarnation(7), Incarnation(9));
    assert!(!a.contains(dot(1, 6, 1)) && a.contains(dot(1, 8, 1)) && !a.contains(dot(1, 9, 1)));
    assert_eq!(
        (a.intervals(), a.last_closed(NodeId(1))),
        (3, Some(Incarnation(8)))
    );
    a.close(NodeId(1), Incarnation(3), Incarnation(7));
    assert_eq!(a.intervals(), 1, "rows that touch are one");
    a.check();
}

#[test]
fn random_rows_of_closed_incarnations_survive_the_wire_and_behave_as_a_set() {
    let mut rng = Rng::new(2);
    for _ in 0..2000 {
        let draw = |rng: &mut Rng| {
            let (mut context, mut naive) = random(rng, 20);
            for _ in 0..rng.below(3) {
                let (origin, from) = (1 + rng.below(2) as u32, rng.below(4));
                let end = from + rng.below(4);
                context.close(NodeId(origin), Incarnation(from), Incarnation(end));
                let is_closed =
                    |dot: &Dot| dot.origin.0 == origin && (from.max(1)..end).contains(&dot.incarnation.0);
                naive.extend(all().into_iter().filter(is_closed));
            }
            context.check();
            (context, naive)
        };
        let ((mut a, naive_a), (b, naive_b)) = (draw(&mut rng), draw(&mut rng));
        assert_eq!(members(&a), naive_a);
        let again = Context::from_wire(&a.to_wire(100)).expect("our own form is proper");
        assert_eq!((&again, again.hash()), (&a, a.hash()));
        let spans = a.minus(&b);
        for dot in &naive_a - &naive_b {
            assert!(
                spans.iter().any(|(first, last)| *first <= dot && dot <= *last),
                "{dot}"
            );
        }
        a.join(&b);
        a.check();
        assert_eq!(members(&a), &naive_a | &naive_b);
    }
}

#[test]
fn ten_to_the_five_restarts_cost_one_interval() {
    let first = 1_700_000_000_000;
    let mut context = Context::default();
    for incarnation in first..first + 100_000 {
        context.insert(dot(1, incarnation, 1));
        context.close(NodeId(1), Incarnation(first), Incarnation(incarnation));
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
            turns: Vec::new(),
            open: vec![(NodeId(1), Incarnation(1), WireIntervals(intervals))],
        };
        assert_eq!(Context::from_wire(&wire), None);
    }
    let turns = [(2, 3), (1, 4)].map(|(origin, at)| (NodeId(origin), Incarnation(at)));
    let wire = WireContext {
        turns: turns.into(),
        open: Vec::new(),
    };
    assert_eq!(Context::from_wire(&wire), None);
}

#[test]
fn a_context_of_the_first_format_is_read_as_it_was_meant() {
    // There was one floor for each origin: everything of a lower incarnation is in the set.
    let wire = WireContext {
        turns: vec![(NodeId(1), Incarnation(9))],
        open: vec![(NodeId(1), Incarnation(9), WireIntervals(vec![(1, 4)]))],
    };
    let context = Context::from_wire(&wire).expect("proper");
    assert!(context.contains(dot(1, 1, 77)) && context.contains(dot(1, 8, 1)));
    assert!(context.contains(dot(1, 9, 4)) && !context.contains(dot(1, 9, 5)));
    assert_eq!(context.to_wire(100), wire);
}

#[test]
fn numbers_at_the_end_of_the_range_do_not_overflow() {
    let mut context = Context::default();
    context.insert(dot(1, 1, u64::MAX));
    context.insert(dot(1, 1, u64::MAX - 1));
    assert!(!context.would_fragment(dot(1, 1, u64::MAX)));
    assert!(context.minus(&context).is_empty());
    let mut other = Context::default();
    other.insert(dot(1, 1, u64::MAX - 1));
    assert!(context.includes(&other));
    assert_eq!(
        context.minus(&other),
        [(dot(1, 1, u64::MAX), dot(1, 1, u64::MAX))]
    );
}

#[test]
fn intervals_that_touch_are_caught() {
    let mut context = Context::default();
    context.insert(dot(1, 1, 1));
    context.check();
    context
        .open
        .insert((NodeId(1), Incarnation(2)), Intervals(vec![(1, 2), (3, 4)]));
    assert!(std::panic::catch_unwind(|| context.check()).is_err());
}

#[test]
fn what_several_sets_agree_on_and_a_set_without_some_dots() {
    let mut rng = Rng::new(7);
    for _ in 0..2000 {
        let mut pairs: Vec<(Context, BTreeSet<Dot>)> = (0..4).map(|_| random(&mut rng, 60)).collect();
        for (context, naive) in &mut pairs {
            if rng.below(3) == 0 {
                let (origin, incarnation) = (1 + rng.below(2) as u32, 1 + rng.below(2));
                context.close(
                    NodeId(origin),
                    Incarnation(incarnation),
                    Incarnation(incarnation + 1),
                );
                naive.extend((1..=22).map(|seq| dot(origin, incarnation, seq)));
            }
        }
        let contexts: Vec<&Context> = pairs.iter().map(|(context, _)| context).collect();
        for needed in 1..=4 {
            let agreed = Context::agreed(&contexts, needed);
            agreed.check();
            let holders = |dot: &Dot| pairs.iter().filter(|(_, naive)| naive.contains(dot)).count();
            let naive: BTreeSet<Dot> = all().into_iter().filter(|dot| holders(dot) >= needed).collect();
            assert_eq!(members(&agreed), naive, "{needed} of {contexts:?}");
        }
        let (context, naive) = &pairs[0];
        let gone: Vec<Dot> = (0..rng.below(4))
            .map(|_| all()[rng.below(all().len() as u64) as usize])
            .collect();
        let rest = context.without(gone.iter().copied());
        rest.check();
        let left = members(&rest);
        for dot in &gone {
            assert!(!left.contains(dot), "{dot} of {context:?}");
        }
        for dot in naive - &left {
            let is_whole = context.is_closed(dot.origin, dot.incarnation);
            let is_near = gone.iter().any(|gone| gone.source() == dot.source());
            assert!(gone.contains(&dot) || is_whole && is_near, "{dot} of {context:?}");
        }
    }
}
