//! What a source is spared: rates hold for all readers together, and a busy server is waited for.

use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use snapshot_loader::{Caps, ChunkRange, ChunkReader, ReadOptions, Throttle};

use crate::row_connection;
use crate::support::{database, described, source};

const ROWS: u64 = 6_000;

#[tokio::test(flavor = "multi_thread")]
async fn readers_together_keep_the_cap_on_rows() {
    let mut conn = database("throttle_rows").await;
    conn.query_drop("CREATE TABLE t (id INT PRIMARY KEY, v CHAR(50))").await.unwrap();
    conn.query_drop(format!("SET cte_max_recursion_depth={ROWS}")).await.unwrap();
    let numbers = format!("WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {ROWS})");
    conn.query_drop(format!("INSERT INTO t {numbers} SELECT n, LEFT(SHA2(n, 256), 32) FROM c")).await.unwrap();
    let table = described(&mut conn, "throttle_rows", "t").await;
    for (caps, at_least) in [
        (Caps { rows_per_second_max: ROWS, ..Caps::default() }, Duration::from_secs(3)),
        (Caps::default(), Duration::ZERO),
    ] {
        let throttle = std::sync::Arc::new(Throttle::new(source(), caps));
        let started = Instant::now();
        // Each reads the whole table.
        let readers = (0..3).map(|_| {
            let (throttle, table) = (throttle.clone(), table.clone());
            tokio::spawn(async move {
                let mut connection = row_connection().await;
                let options = ReadOptions { batch_bytes: 20_000, ..ReadOptions::default() };
                throttle.before_chunk().await.unwrap();
                let mut reader =
                    ChunkReader::open(&mut connection, &table, &ChunkRange::all(), &options).await.unwrap();
                while let Some(batch) = reader.next_batch().await.unwrap() {
                    throttle.after_batch(batch.num_rows() as u64, 0).await.unwrap();
                }
                assert_eq!(reader.rows(), ROWS);
            })
        });
        for reader in readers.collect::<Vec<_>>() {
            reader.await.unwrap();
        }
        assert!(started.elapsed() >= at_least, "{:?}", started.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_chunk_begins_while_the_server_has_many_threads_running() {
    const SLEEPERS: u64 = 40;
    const AWAKE: u64 = 10;
    let mut sleepers = Vec::new();
    for _ in 0..SLEEPERS {
        let mut conn = weir_mysql::connect(&source()).await.unwrap();
        sleepers.push(tokio::spawn(async move { conn.query_drop("DO SLEEP(8)").await.unwrap() }));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let with = |threads| Throttle::new(source(), Caps { pause_above_threads_running: threads, ..Caps::default() });
    let (busy, patient) = (with(SLEEPERS - AWAKE), with(10_000));
    patient.before_chunk().await.unwrap();
    let finished = || sleepers.iter().filter(|sleeper| sleeper.is_finished()).count() as u64;
    assert_eq!(finished(), 0, "a cap that is not reached stops nothing");
    // Within a chunk it is a bounded delay.
    let started = Instant::now();
    busy.after_batch(1, 1).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1) && finished() == 0, "{:?}", started.elapsed());
    busy.before_chunk().await.unwrap();
    assert!(finished() >= AWAKE, "{} of {SLEEPERS} after {:?}", finished(), started.elapsed());
}

#[tokio::test]
async fn a_server_that_is_no_replica_is_not_behind() {
    let throttle = Throttle::new(source(), Caps { pause_above_lag_ms: 1, ..Caps::default() });
    tokio::time::timeout(Duration::from_secs(10), throttle.before_chunk()).await.unwrap().unwrap();
}
