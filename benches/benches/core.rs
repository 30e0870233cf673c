//! Micro-benchmarks of what every write passes: codec, table, session record.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use trilemma_core::codec;
use trilemma_core::table::Table;
use trilemma_core::{Command, OpId, SessionId, Version};

fn command() -> Command {
    Command::put("bench/some/ordinary/key", vec![7; 256])
}

fn codec_benches(c: &mut Criterion) {
    let command = command();
    let bytes = codec::encode(&command);
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode a put of 256 bytes", |b| {
        b.iter(|| codec::encode(&command))
    });
    group.bench_function("decode a put of 256 bytes", |b| {
        b.iter(|| codec::decode::<Command>(&bytes).expect("our own bytes decode"));
    });
    group.finish();
}

fn table_benches(c: &mut Criterion) {
    let mut table = Table::default();
    let mut position = 0;
    c.bench_function("apply a put to a table of 10,000 keys", |b| {
        b.iter(|| {
            position += 1;
            let op = OpId {
                session: SessionId::default(),
                seq: position,
            };
            let command = Command::put(format!("bench/{}", position % 10_000), vec![7; 256]);
            table.apply(op, &command, Version(position))
        });
    });
    c.bench_function("clone that table", |b| b.iter(|| table.clone()));
}

criterion_group!(benches, codec_benches, table_benches);
criterion_main!(benches);
