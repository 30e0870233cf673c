//! Micro-benchmarks of set reconciliation: what each write pays for it, and what finding a difference takes.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use trilemma_core::Rng;
use trilemma_gossip::reconcile::{Decoder, Element, Progress, SYMBOLS_MAX, Secret, Sketch};

const SECRET: Secret = Secret([1, 2]);

fn elements(rng: &mut Rng, count: usize) -> Vec<Element> {
    let mut word = || u128::from(rng.next_u64());
    (0..count).map(|_| Element(word() << 64 | word())).collect()
}

/// Goal: at most 0.5 µs for each write.
fn cache_benches(c: &mut Criterion) {
    let mut rng = Rng::new(1);
    let mut sketch = Sketch::of(SECRET, elements(&mut rng, 100_000));
    assert_eq!(sketch.symbols().len(), SYMBOLS_MAX);
    let all = elements(&mut rng, 1 << 16);
    let mut at = 0;
    c.bench_function("insert an element into a sketch", |b| {
        b.iter(|| {
            at = (at + 1) % all.len();
            sketch.insert(all[at]);
        });
    });
    c.bench_function("replace an element of a sketch", |b| {
        b.iter(|| {
            let old = all[at];
            at = (at + 1) % all.len();
            sketch.replace(old, all[at]);
        });
    });
}

/// Goal: at most 5 ms for 1,000 differences.
fn decode_benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("reconcile");
    let mut rng = Rng::new(2);
    let common = Sketch::of(SECRET, elements(&mut rng, 100_000));
    for differences in [10, 100, 1000, 2000] {
        let mut there = common.clone();
        for element in elements(&mut rng, differences) {
            there.insert(element);
        }
        let symbols = &there.symbols()[..(8 + 8 * differences / 5).min(SYMBOLS_MAX)];
        group.throughput(Throughput::Elements(differences as u64));
        group.bench_function(format!("find {differences} differences"), |b| {
            b.iter(|| {
                let mut decoder = Decoder::new(common.clone());
                assert_eq!(decoder.take(symbols), Ok(Progress::Done));
                decoder.finish()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, cache_benches, decode_benches);
criterion_main!(benches);
