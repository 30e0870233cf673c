//! Micro-benchmarks of what every write passes: codec, table, session record; and signatures, where a keyspace asks for them.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use trilemma_core::codec;
use trilemma_core::table::Table;
use trilemma_core::{Command, OpId, SessionId, Version};
use trilemma_transport::signing::SigningKey;

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

fn signature_benches(c: &mut Criterion) {
    let pem = SigningKey::generate().expect("a key");
    let key = SigningKey::from_pem(pem.as_bytes()).expect("our own key");
    let statement = [7; 400];
    let signature = key.sign(&statement);
    let public = key.public();
    c.bench_function("sign a change of 256 bytes", |b| b.iter(|| key.sign(&statement)));
    c.bench_function("verify that change", |b| {
        b.iter(|| assert!(public.verify(&statement, &signature)));
    });
}

criterion_group!(benches, codec_benches, table_benches, signature_benches);
criterion_main!(benches);
