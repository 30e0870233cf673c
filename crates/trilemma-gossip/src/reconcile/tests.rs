//! Tests against plain sets, against numbers of other programs, and against peers that lie.

use std::collections::BTreeSet;

use trilemma_core::Rng;

use super::*;

const SECRET: Secret = Secret([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);

fn element(rng: &mut Rng) -> Element {
    Element(u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64()))
}

fn elements(rng: &mut Rng, count: usize) -> Vec<Element> {
    (0..count).map(|_| element(rng)).collect()
}

/// Sends symbols in chunks that grow, until the decoder wants no more. Returns the difference and the number sent.
fn reconcile(there: &Sketch, here: &Sketch, chunk: usize) -> Result<(Option<Decoded>, usize), Defect> {
    let mut decoder = Decoder::new(here.clone());
    let (mut sent, mut chunk) = (0, chunk);
    while sent < there.symbols().len() {
        let end = (sent + chunk).min(there.symbols().len());
        let progress = decoder.take(&there.symbols()[sent..end])?;
        sent = end;
        if progress != Progress::Open {
            break;
        }
        chunk = (sent / 8).max(1);
    }
    Ok((decoder.finish(), sent))
}

/// Two sets that differ in these: what is only there, and what is only here.
struct Pair {
    there: Sketch,
    here: Sketch,
    expected: Decoded,
}

fn pair(common: &Sketch, rng: &mut Rng, only_there: usize, only_here: usize) -> Pair {
    let (mut there, mut here) = (common.clone(), common.clone());
    let mut expected = Decoded {
        there: elements(rng, only_there),
        here: elements(rng, only_here),
    };
    expected.there.iter().for_each(|element| there.insert(*element));
    expected.here.iter().for_each(|element| here.insert(*element));
    expected.there.sort_unstable();
    expected.here.sort_unstable();
    Pair {
        there,
        here,
        expected,
    }
}

/// Computed by a program of its own with numbers of 60 digits; the rule is that of the authors' program.
#[test]
fn a_mapping_is_that_of_the_paper() {
    let golden: [(u64, [u64; 14]); 5] = [
        (1, [0, 1, 2, 3, 6, 11, 19, 44, 116, 122, 341, 972, 3263, 8777]),
        (2, [0, 1, 2, 4, 5, 7, 9, 15, 29, 33, 66, 135, 323, 616]),
        (
            0xdead_beef_cafe_f00d,
            [0, 1, 3, 9, 10, 20, 21, 31, 69, 97, 602, 968, 1264, 1556],
        ),
        (
            0x0123_4567_89ab_cdef,
            [0, 1, 2, 4, 6, 8, 20, 24, 34, 36, 126, 153, 155, 1225],
        ),
        (
            u64::MAX,
            [0, 3, 29, 59, 80, 101, 128, 145, 158, 520, 558, 597, 626, 675],
        ),
    ];
    for (check, indexes) in golden {
        let mut mapping = Mapping::new(check);
        for index in indexes {
            assert_eq!(mapping.at(), index, "of {check:#x}");
            mapping.advance();
        }
        let all: BTreeSet<u64> = indexes.into_iter().collect();
        let last = indexes[indexes.len() - 1];
        assert!((0..=last).all(|index| Mapping::new(check).hits(index) == all.contains(&index)));
    }
}

/// Section 4.1: 1/(1 + i/2). The rule of the authors' program takes up to 4 % less of the first ones.
#[test]
fn a_symbol_holds_the_share_of_elements_that_the_paper_gives_it() {
    const ELEMENTS: u32 = 40_000;
    let mut rng = Rng::new(3);
    let sketch = Sketch::of(SECRET, elements(&mut rng, ELEMENTS as usize));
    for (at, symbol) in sketch.symbols().iter().enumerate().take(600) {
        let expected = f64::from(ELEMENTS) / (1.0 + at as f64 / 2.0);
        let count = f64::from(symbol.count);
        assert!(
            (count - expected).abs() <= 0.04 * expected + 5.0 * expected.sqrt(),
            "symbol {at} holds {count}, not {expected}"
        );
    }
}

/// From the appendix of the paper on SipHash, and its reference program: key and text are 0, 1, 2, …
#[test]
fn the_check_is_siphash() {
    let text = std::array::from_fn(|at| at as u8);
    assert_eq!(
        SECRET.check(Element(u128::from_le_bytes(text))),
        0x3f2a_cc7f_57c2_9bdb
    );
    assert_eq!(format!("{SECRET:?}"), "Secret");
}

#[test]
fn a_symbol_has_26_bytes() {
    let symbol = Symbol {
        sum: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
        check: 0x1112_1314_1516_1718,
        count: 0x191a,
    };
    let bytes = Symbol::write_all(&[symbol]);
    let golden = [
        0x10, 0x0f, 0x0e, 0x0d, 0x0c, 0x0b, 0x0a, 0x09, 8, 7, 6, 5, 4, 3, 2, 1, 0x18, 0x17, 0x16, 0x15, 0x14,
        0x13, 0x12, 0x11, 0x1a, 0x19,
    ];
    assert_eq!(bytes, golden);
    assert_eq!(Symbol::read_all(&bytes), Some(vec![symbol]));
    assert_eq!(Symbol::read_all(&bytes[1..]), None);
    assert_eq!(Symbol::read_all(&[]), Some(Vec::new()));
}

#[test]
fn what_comes_and_goes_leaves_no_trace() {
    let mut rng = Rng::new(1);
    let kept = elements(&mut rng, 300);
    let gone = elements(&mut rng, 200);
    let mut sketch = Sketch::of(SECRET, kept.iter().copied().chain(gone.iter().copied()));
    let before = sketch.clone();
    gone.iter().for_each(|element| sketch.remove(*element));
    let plain = Sketch::of(SECRET, kept.iter().rev().copied());
    assert_eq!(plain.symbols(), &sketch.symbols()[..plain.symbols().len()]);
    gone.iter().for_each(|element| sketch.insert(*element));
    let others = elements(&mut rng, 200);
    let exchanged = gone.iter().zip(&others);
    exchanged.for_each(|(one, other)| sketch.replace(*one, *other));
    assert_ne!(sketch.symbols(), before.symbols());
    let exchanged = others.iter().zip(&gone);
    exchanged.for_each(|(one, other)| sketch.replace(*one, *other));
    assert_eq!(
        sketch.symbols(),
        before.symbols(),
        "a clone does not change with its original"
    );
}

#[test]
fn a_sketch_grows_with_its_set_and_its_first_symbols_stay() {
    let mut rng = Rng::new(2);
    let all = elements(&mut rng, 5000);
    let mut sketch = Sketch::new(SECRET);
    let mut lengths = BTreeSet::new();
    for (count, element) in all.iter().enumerate() {
        if sketch.is_outgrown(count + 1) {
            sketch.grow(count + 1, all[..count].iter().copied());
        }
        sketch.insert(*element);
        lengths.insert(sketch.symbols().len());
    }
    assert_eq!(
        lengths.into_iter().collect::<Vec<_>>(),
        [64, 128, 256, 512, 1024, 2048, 4096]
    );
    assert_eq!(sketch.symbols(), Sketch::of(SECRET, all).symbols());
}

/// G5 of the design: at most 1.6 symbols for each difference, and a few for very small ones.
#[test]
fn differences_among_100_000_are_found_with_few_symbols() {
    let mut rng = Rng::new(4);
    let common = Sketch::of(SECRET, elements(&mut rng, 100_000));
    let sizes = [0, 1, 2, 3, 4, 5, 7, 10, 20, 50, 100, 200, 500, 1000, 2000];
    for differences in sizes {
        let runs = if differences < 50 { 300 } else { 10 };
        let mut total = 0;
        for _ in 0..runs {
            let only_there = rng.below(differences as u64 + 1) as usize;
            let pair = pair(&common, &mut rng, only_there, differences - only_there);
            let (decoded, _) = reconcile(&pair.there, &pair.here, 1).expect("honest symbols");
            assert_eq!(
                decoded.as_ref(),
                Some(&pair.expected),
                "{differences} differences"
            );
            // How many are needed at least: one by one.
            let mut decoder = Decoder::new(pair.here);
            total += 1 + pair
                .there
                .symbols()
                .iter()
                .position(|symbol| decoder.take(&[*symbol]) == Ok(Progress::Done))
                .expect("found above");
        }
        let mean = total as f64 / f64::from(runs);
        let limit = 1.6 * differences as f64 + 3.0;
        assert!(
            mean <= limit,
            "{differences} differences took {mean} symbols, more than {limit}"
        );
    }
}

#[test]
fn one_difference_among_a_million_is_found_with_two_symbols() {
    let mut rng = Rng::new(5);
    let common = Sketch::of(SECRET, elements(&mut rng, 1_000_000));
    for only_there in [0, 1] {
        let pair = pair(&common, &mut rng, only_there, 1 - only_there);
        let (decoded, symbols) = reconcile(&pair.there, &pair.here, 1).expect("honest symbols");
        assert_eq!(decoded, Some(pair.expected));
        assert!(symbols <= 2, "{symbols} symbols");
    }
}

#[test]
fn the_difference_of_random_sets_is_that_of_plain_ones() {
    let mut rng = Rng::new(6);
    for _ in 0..300 {
        let pool = rng.below(200) as usize;
        let pool = elements(&mut rng, pool);
        let mut pick = |per_mille| -> BTreeSet<Element> {
            let picked = pool.iter().filter(|_| rng.per_mille(per_mille));
            picked.copied().collect()
        };
        let (there, here) = (pick(900), pick(850));
        let expected = Decoded {
            there: there.difference(&here).copied().collect(),
            here: here.difference(&there).copied().collect(),
        };
        let sketches = (Sketch::of(SECRET, there), Sketch::of(SECRET, here));
        let chunk = 1 + rng.below(80) as usize;
        let (decoded, sent) = reconcile(&sketches.0, &sketches.1, chunk).expect("honest symbols");
        assert_eq!(decoded, Some(expected));
        let again = reconcile(&sketches.0, &sketches.1, chunk);
        assert_eq!(again, Ok((decoded, sent)), "the same again");
    }
}

#[test]
fn too_large_a_difference_is_said_and_not_guessed() {
    let mut rng = Rng::new(7);
    let there = Sketch::of(SECRET, elements(&mut rng, 5000));
    let here = Sketch::of(SECRET, elements(&mut rng, 5000));
    let mut decoder = Decoder::new(here);
    assert_eq!(decoder.take(there.symbols()), Ok(Progress::Exhausted));
    assert_eq!(decoder.take(there.symbols()), Ok(Progress::Exhausted));
    assert_eq!(decoder.finish(), None);
    // The smaller of two sketches ends it.
    let small = Sketch::of(SECRET, elements(&mut rng, 10));
    let mut decoder = Decoder::new(small.clone());
    assert_eq!(decoder.take(there.symbols()), Ok(Progress::Exhausted));
    assert_eq!(decoder.taken(), small.symbols().len());
}

/// Whatever one bit does, the answer is right, or there is none.
#[test]
fn a_corrupted_symbol_never_gives_a_wrong_answer() {
    let mut rng = Rng::new(8);
    let common = Sketch::of(SECRET, elements(&mut rng, 1000));
    let (mut refused, mut unanswered) = (0, 0);
    for _ in 0..2000 {
        let (only_there, only_here) = (rng.below(20) as usize, rng.below(20) as usize);
        let pair = pair(&common, &mut rng, only_there, only_here);
        let mut bytes = Symbol::write_all(&pair.there.symbols()[..120]);
        for _ in 0..=rng.below(2) {
            let bit = rng.below(8 * bytes.len() as u64) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        let symbols = Symbol::read_all(&bytes).expect("whole symbols");
        let mut decoder = Decoder::new(pair.here);
        match decoder.take(&symbols) {
            Err(_) => refused += 1,
            Ok(Progress::Done) => assert_eq!(decoder.finish(), Some(pair.expected), "a wrong answer"),
            Ok(_) => unanswered += 1,
        }
    }
    assert!(
        refused > 1000,
        "{refused} refused, {unanswered} without an answer"
    );
}

#[test]
fn another_secret_finds_everything_different() {
    let mut rng = Rng::new(9);
    let all = elements(&mut rng, 500);
    let there = Sketch::of(Secret([1, 2]), all.iter().copied());
    let mut decoder = Decoder::new(Sketch::of(SECRET, all));
    assert_ne!(decoder.take(there.symbols()), Ok(Progress::Done));
    assert_eq!(decoder.finish(), None);
}

/// Symbols of which the sender knows the secret, but that are those of no set.
#[test]
fn symbols_of_no_set_are_refused() {
    let mut rng = Rng::new(10);
    let lie = |symbols: &[Symbol]| Decoder::new(Sketch::new(SECRET)).take(symbols);
    let single = |element: Element| {
        let mut symbol = Symbol::default();
        symbol.change(element, SECRET.check(element), symbol::By::One);
        symbol
    };
    let one = element(&mut rng);
    let mapping = Mapping::new(SECRET.check(one));
    let outside = (0..64)
        .find(|at| !mapping.hits(*at))
        .expect("no element is everywhere");
    let mut symbols = vec![Symbol::default(); 64];
    symbols[0] = single(element(&mut rng));
    symbols[outside as usize] = single(one);
    assert_eq!(
        lie(&symbols),
        Err(Defect::Misplaced(outside as usize)),
        "an element where it does not belong"
    );
    // Symbol 0 says that this is all.
    let mut symbols = Sketch::of(SECRET, [one]).symbols().to_vec();
    symbols[outside as usize] = Symbol {
        count: 2,
        ..Symbol::default()
    };
    assert_eq!(lie(&symbols), Err(Defect::Rest(outside as usize)));
    // Found in one symbol, an element is taken out of a later one that did not hold it: there it is found again, on the other
    // side, is put back, and so on without end.
    let last = (1..64).rev().find(|at| mapping.hits(*at));
    let last = last.expect("in two symbols at least") as usize;
    let mut symbols = vec![Symbol::default(); 64];
    symbols[last] = single(one);
    assert_eq!(lie(&symbols), Err(Defect::Repeated));
}

/// Random symbols, and true ones in another order: no call takes more steps than its symbols warrant.
#[test]
fn nonsense_ends() {
    let mut rng = Rng::new(11);
    let honest = Sketch::of(SECRET, elements(&mut rng, 3000));
    for _ in 0..20 {
        let mut symbols = honest.symbols().to_vec();
        for at in 0..symbols.len() {
            let other = rng.below(symbols.len() as u64) as usize;
            if rng.per_mille(500) {
                symbols.swap(at, other);
            }
        }
        let mut decoder = Decoder::new(Sketch::of(SECRET, elements(&mut rng, 3000)));
        assert_ne!(decoder.take(&symbols), Ok(Progress::Done));
        assert!(decoder.finish().is_none());
    }
}

/// Elements that cancel out: with the secret known, anybody could choose 193 of them; without it, nobody can.
#[test]
fn elements_chosen_to_cancel_out_in_the_sum_are_found() {
    let mut rng = Rng::new(12);
    let common = Sketch::of(SECRET, elements(&mut rng, 100));
    let mut there = common.clone();
    let mut chosen = elements(&mut rng, 3);
    let sum = chosen.iter().fold(0, |sum, element| sum ^ element.0);
    chosen.push(Element(sum));
    chosen.iter().for_each(|element| there.insert(*element));
    let here = {
        let mut here = common.clone();
        // As many, so that not even the number tells.
        elements(&mut rng, 4)
            .iter()
            .for_each(|element| here.insert(*element));
        here
    };
    let (decoded, _) = reconcile(&there, &here, 1).expect("honest symbols");
    chosen.sort_unstable();
    assert_eq!(decoded.map(|decoded| decoded.there), Some(chosen));
}

/// One round trip, and not much more than is needed.
#[test]
fn an_outline_tells_how_many_symbols_to_send() {
    let mut rng = Rng::new(13);
    let common = Sketch::of(SECRET, elements(&mut rng, 20_000));
    assert!(outline(&common).len() <= OUTLINE_BYTES_MAX);
    assert_eq!(
        differences(&common, &outline(&common)).to_bits(),
        0.0_f64.to_bits()
    );
    let (mut enough, mut runs) = (0, 0);
    for count in [1, 3, 10, 30, 100, 300, 1000, 2000] {
        let (mut error, mut sent, few) = (0.0, 0, 12);
        for _ in 0..few {
            let only_there = rng.below(count as u64 + 1) as usize;
            let pair = pair(&common, &mut rng, only_there, count - only_there);
            let estimate = differences(&pair.there, &outline(&pair.here));
            error += estimate / count as f64 - 1.0;
            let symbols = symbols_for(estimate).min(SYMBOLS_MAX);
            sent += symbols;
            let mut decoder = Decoder::new(pair.here);
            let progress = decoder.take(&pair.there.symbols()[..symbols]);
            enough += usize::from(progress == Ok(Progress::Done));
            runs += 1;
        }
        let (error, sent) = (error / f64::from(few), f64::from(sent as u32) / f64::from(few));
        let limit = 0.08 + 0.3 / f64::from(count as u32).sqrt();
        assert!(error.abs() < limit, "{count} differences, error {error}");
        assert!(
            sent <= 1.6 * count as f64 + 10.0,
            "{sent} symbols for {count} differences"
        );
    }
    assert!(enough * 100 >= runs * 85, "enough in {enough} of {runs}");
}

#[test]
fn outlines_of_sets_of_any_size_can_be_compared() {
    let mut rng = Rng::new(14);
    let large = Sketch::of(SECRET, elements(&mut rng, 3000));
    let small = Sketch::of(SECRET, elements(&mut rng, 3));
    assert!(differences(&large, &outline(&small)) > 100.0);
    assert!(differences(&small, &outline(&large)) > 100.0);
    assert_eq!(symbols_for(differences(&small, &[])), 2);
}
