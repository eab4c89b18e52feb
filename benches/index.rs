//! The key index beside a plain hash map: lookups, what comes in and moves, and its snapshot, at a million keys and at
//! `WEIR_BENCH_KEYS`.

use std::collections::HashMap;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use weir::table::Buckets;
use weir::table::index::{Index, IndexBudget, IndexHome, RowAddress};
use weir_model::Order;
use weir_model::key::KeyRef;

const FILES: u32 = 64;
const LOOKUPS: u64 = 100_000;

/// A permutation of all numbers, so that keys come in no order.
fn scattered(n: u64) -> u64 {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn address(n: u64) -> RowAddress {
    RowAddress { file: (n % u64::from(FILES)) as u32, row: (n / u64::from(FILES)) as u32 }
}

/// A key of 18 bytes, as BINARY(16) and two integers have.
fn bytes_of(n: u64) -> [u8; 18] {
    let mut key = [1; 18];
    key[..8].copy_from_slice(&scattered(n).to_be_bytes());
    key[8..16].copy_from_slice(&scattered(!n).to_be_bytes());
    key
}

fn put(index: &mut Index, n: u64, bytes: bool) {
    if bytes {
        index.put(KeyRef::Bytes(&bytes_of(n)), address(n));
    } else {
        index.put(KeyRef::Int(n as i64), address(n));
    }
}

fn live(index: &Index, n: u64, bytes: bool) -> Option<RowAddress> {
    if bytes { index.live(KeyRef::Bytes(&bytes_of(n))) } else { index.live(KeyRef::Int(n as i64)) }
}

fn index_of(home: IndexHome, keys: u64, bytes: bool) -> Index {
    let mut index = Index::new(Buckets::whole(), |_| Order::MIN, home);
    for file in 0..FILES {
        index.add_file(file, u32::MAX).expect("there is room for all files");
    }
    for n in 0..keys {
        put(&mut index, n, bytes);
    }
    index
}

fn sizes() -> Vec<u64> {
    let more = std::env::var("WEIR_BENCH_KEYS").ok().and_then(|keys| keys.parse().ok());
    [1_000_000].into_iter().chain(more).collect()
}

fn lookups(c: &mut Criterion) {
    let mut group = c.benchmark_group("index");
    group.throughput(Throughput::Elements(LOOKUPS)).sample_size(10);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for keys in sizes() {
        let wanted = |from: u64| (0..LOOKUPS).map(move |n| from + scattered(n) % keys);
        for (kind, bytes) in [("int", false), ("bytes", true)] {
            let start = Instant::now();
            let mut index = index_of(IndexHome::unbounded(), keys, bytes);
            let each = index.bytes_in_memory() as f64 / keys as f64;
            eprintln!("{kind}: {keys} keys put in {:?}; {each:.2} bytes a key", start.elapsed());
            let id = |what: &str| BenchmarkId::new(format!("{kind}/{what}"), keys);
            group.bench_function(id("hit"), |b| {
                b.iter(|| wanted(0).filter(|n| black_box(live(&index, *n, bytes)).is_some()).count())
            });
            group.bench_function(id("miss"), |b| {
                b.iter(|| wanted(keys).filter(|n| black_box(live(&index, *n, bytes)).is_some()).count())
            });
            group.bench_function(id("update"), |b| b.iter(|| wanted(0).for_each(|n| put(&mut index, n, bytes))));
            let mut next = keys;
            group.bench_function(id("insert"), |b| {
                b.iter(|| {
                    (next..next + LOOKUPS).for_each(|n| put(&mut index, n, bytes));
                    next += LOOKUPS;
                })
            });
            let path = folder.join("bench.index");
            group.bench_function(id("snapshot written"), |b| {
                b.iter(|| index.snapshot().and_then(|snapshot| snapshot.write(&path, b"")).expect("it is written"))
            });
            group.bench_function(id("snapshot read"), |b| {
                let read = || Index::read(&path, Buckets::whole(), |_| Order::MIN, IndexHome::unbounded());
                b.iter_batched(|| (), |()| read().expect("it is read").expect("it is whole"), BatchSize::PerIteration)
            });
            drop(index);
            let home = IndexHome::new(IndexBudget::new(64 << 20), folder);
            let start = Instant::now();
            let index = index_of(home, keys, bytes);
            eprintln!("{kind}: put in {:?} within 64 MiB; on disk: {}", start.elapsed(), index.on_disk());
            group.bench_function(id("hit within 64 MiB"), |b| {
                b.iter(|| wanted(0).filter(|n| black_box(live(&index, *n, bytes)).is_some()).count())
            });
        }
        let map: HashMap<i64, RowAddress> = (0..keys).map(|n| (n as i64, address(n))).collect();
        group.bench_function(BenchmarkId::new("HashMap/hit", keys), |b| {
            b.iter(|| wanted(0).filter(|n| black_box(map.get(&(*n as i64))).is_some()).count())
        });
    }
    group.finish();
}

criterion_group!(benches, lookups);
criterion_main!(benches);
