//! The standalone tool: tables to Parquet, on again after a break, one moment for all.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use mysql_async::prelude::Queryable;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use snapshot_loader::{Caps, LoadOptions, Manifest, PlanTarget, Progress, Throttle, load};
use weir_model::ZeroDates;
use weir_mysql::TablePatterns;

use crate::support::{database, server_url, source};

const ROWS: i64 = 5_000;

async fn shop(name: &str) -> mysql_async::Conn {
    let mut conn = database(name).await;
    for sql in [
        "CREATE TABLE orders (id BIGINT PRIMARY KEY, note VARCHAR(50))".to_owned(),
        "CREATE TABLE `odd name` (id BIGINT PRIMARY KEY)".into(),
        "CREATE TABLE tmp_x (id BIGINT PRIMARY KEY)".into(),
        "INSERT INTO `odd name` VALUES (1), (2)".into(),
        format!("SET cte_max_recursion_depth={ROWS}"),
        format!(
            "INSERT INTO orders WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {ROWS}) \
             SELECT n, CONCAT('note ', n) FROM c"
        ),
        "ANALYZE TABLE orders".into(),
    ] {
        conn.query_drop(sql).await.unwrap();
    }
    conn
}

fn options(database: &str, out: &Path) -> LoadOptions {
    LoadOptions {
        source: source(),
        patterns: TablePatterns::new(&[format!("{database}.*"), format!("!{database}.tmp_*")]).unwrap(),
        out: out.into(),
        connections: 3,
        target: PlanTarget { rows: 500, bytes: 1 << 30 },
        zero_dates: ZeroDates::Null,
        consistent: false,
        throttle: Arc::new(Throttle::new(source(), Caps::default())),
    }
}

/// The ids in every file of a table, in file order.
fn ids(out: &Path, manifest: &Manifest, table: &str) -> Vec<i64> {
    let table = manifest.tables.iter().find(|t| &*t.table.table == table).unwrap();
    let mut ids = Vec::new();
    for file in &table.files {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(out.join(&file.path)).unwrap()).unwrap();
        let before = ids.len();
        for batch in reader.build().unwrap() {
            ids.extend_from_slice(batch.unwrap().column(0).as_primitive::<Int64Type>().values());
        }
        assert_eq!((ids.len() - before) as u64, file.rows);
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_become_files_that_hold_every_row_once() {
    let _conn = shop("load_all").await;
    let out = tempfile::tempdir().unwrap();
    let progress = Progress::new();
    let manifest = load(&options("load_all", out.path()), &progress).await.unwrap();
    assert_eq!(ids(out.path(), &manifest, "orders"), (1..=ROWS).collect::<Vec<_>>());
    assert_eq!(ids(out.path(), &manifest, "odd name"), [1, 2]);
    assert_eq!(manifest.tables.len(), 2, "tmp_x is left out");
    assert!(manifest.tables[1].files.len() > 5 && manifest.snapshot.is_none());
    assert!(out.path().join("load_all/odd_x20name/part-00000.parquet").exists());
    let totals = progress.totals();
    assert_eq!((totals.rows_done, totals.tables_done), (ROWS as u64 + 2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_load_reads_only_what_is_missing() {
    let mut conn = shop("load_resume").await;
    let out = tempfile::tempdir().unwrap();
    let options = options("load_resume", out.path());
    let first = load(&options, &Progress::new()).await.unwrap();
    let parts = &first.tables.iter().find(|t| &*t.table.table == "orders").unwrap().files;
    let (kept, lost) = (out.path().join(&parts[0].path), out.path().join(&parts[1].path));
    let kept_at = std::fs::metadata(&kept).unwrap().modified().unwrap();
    std::fs::remove_file(&lost).unwrap();
    std::fs::write(lost.with_extension("parquet.tmp"), b"half a file").unwrap();
    let again = load(&options, &Progress::new()).await.unwrap();
    assert_eq!(again, first);
    assert_eq!(std::fs::metadata(&kept).unwrap().modified().unwrap(), kept_at);

    // A changed table starts over.
    conn.query_drop("ALTER TABLE orders ADD extra INT DEFAULT 5").await.unwrap();
    let changed = load(&options, &Progress::new()).await.unwrap();
    assert_eq!(ids(out.path(), &changed, "orders").len() as i64, ROWS);
    assert_ne!(std::fs::metadata(&kept).unwrap().modified().unwrap(), kept_at);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consistent_load_shows_one_moment_under_writes() {
    let mut conn = shop("load_moment").await;
    conn.query_drop("CREATE TABLE pair_a (id BIGINT PRIMARY KEY, v BIGINT)").await.unwrap();
    conn.query_drop("CREATE TABLE pair_b (id BIGINT PRIMARY KEY, v BIGINT)").await.unwrap();
    conn.query_drop("INSERT INTO pair_a VALUES (1, 0)").await.unwrap();
    conn.query_drop("INSERT INTO pair_b VALUES (1, 0)").await.unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (stopped, mut writer) = (stop.clone(), conn);
    let writes = tokio::spawn(async move {
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            for sql in ["BEGIN", "UPDATE pair_a SET v = v + 1", "UPDATE pair_b SET v = v + 1", "COMMIT"] {
                writer.query_drop(sql).await.unwrap();
            }
        }
    });
    for _ in 0..5 {
        let out = tempfile::tempdir().unwrap();
        let options = LoadOptions { consistent: true, ..options("load_moment", out.path()) };
        let manifest = load(&options, &Progress::new()).await.unwrap();
        let value = |table: &str| {
            let file = out.path().join(format!("load_moment/{table}/part-00000.parquet"));
            let mut reader =
                ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap()).unwrap().build().unwrap();
            reader.next().unwrap().unwrap().column(1).as_primitive::<Int64Type>().value(0)
        };
        assert_eq!(value("pair_a"), value("pair_b"));
        assert!(!manifest.snapshot.unwrap().executed.is_empty());
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writes.await.unwrap();
}

fn tool(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_snapshot-loader")).args(arguments).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_says_by_its_exit_code_how_it_went() {
    let _conn = shop("load_tool").await;
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().to_str().unwrap();
    let good = tool(&["--url", server_url(), "--tables", "load_tool.*", "!load_tool.tmp_*", "--out", folder]);
    let errors = String::from_utf8_lossy(&good.stderr).into_owned();
    assert_eq!(good.status.code(), Some(0), "{errors}");
    assert!(errors.contains("load_tool.orders: 5000 rows"), "{errors}");
    assert!(good.stdout.is_empty());
    assert!(out.path().join("manifest.json").exists());

    let nothing = tool(&["--url", server_url(), "--tables", "load_tool.none", "--out", folder]);
    assert_eq!(nothing.status.code(), Some(1));
    for usage in [
        &["--url", server_url(), "--out", folder][..],
        &["--url", "http://x", "--tables", "a.*", "--out", folder],
        &["--url", server_url(), "--tables", "nodot", "--out", folder],
    ] {
        assert_eq!(tool(usage).status.code(), Some(2), "{usage:?}");
    }
}
