//! Chunks of every kind of key cover each row exactly once, and MySQL reads each as a range of the index.

use std::collections::BTreeMap;
use std::time::Instant;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use snapshot_loader::{ChunkRange, KeyValue, PlanTarget, plan_chunks, select_rows};
use weir_model::RecordKeys;
use weir_model::key::RecordKey;
use weir_mysql::{TableDescription, query};

use crate::read_all;
use crate::support::{database, described};

const ROWS: u64 = 6_000;
const TARGET: PlanTarget = PlanTarget { rows: 500, bytes: 1 << 30 };

/// `n` runs from 1 to ROWS; `values` makes a row of it. Rows whose key is there already are left out.
async fn filled(name: &str, columns: &str, values: &str) -> (Conn, TableDescription) {
    let mut conn = database(name).await;
    for sql in [
        format!("CREATE TABLE t ({columns})"),
        format!("SET cte_max_recursion_depth={ROWS}"),
        format!(
            "INSERT IGNORE INTO t WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {ROWS}) \
             SELECT {values} FROM c"
        ),
        "ANALYZE TABLE t".into(),
    ] {
        conn.query_drop(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
    let table = described(&mut conn, name, "t").await;
    (conn, table)
}

/// How often each record key occurs in `range`.
async fn keys(table: &TableDescription, range: &ChunkRange) -> BTreeMap<String, u32> {
    let rows = read_all(table, range).await;
    let keys = RecordKeys::of(&rows, &table.schema.key_names()).unwrap();
    let mut counts = BTreeMap::new();
    for row in 0..keys.len() {
        let name = match keys.get(row).to_owned() {
            RecordKey::Int(v) => v.to_string(),
            RecordKey::Bytes(bytes) => format!("{bytes:?}"),
        };
        *counts.entry(name).or_default() += 1;
    }
    counts
}

/// Plans `table`, checks that its chunks hold every row once, and gives the chunks' sizes.
async fn covered_once(conn: &mut Conn, table: &TableDescription, within: &ChunkRange) -> Vec<u64> {
    let chunks = plan_chunks(conn, table, within, TARGET).await.unwrap();
    assert_eq!((&chunks[0].from, &chunks.last().unwrap().to), (&within.from, &within.to));
    let whole = keys(table, within).await;
    let mut together: BTreeMap<String, u32> = BTreeMap::new();
    let mut sizes = Vec::new();
    for chunk in &chunks {
        let text = serde_json::to_string(chunk).unwrap();
        assert_eq!(&serde_json::from_str::<ChunkRange>(&text).unwrap(), chunk);
        let part = keys(table, chunk).await;
        sizes.push(part.values().map(|c| u64::from(*c)).sum());
        for (key, count) in part {
            *together.entry(key).or_default() += count;
        }
    }
    assert!(whole == together, "{}: the chunks do not add up to the table", table.table());
    assert!(whole.values().all(|count| *count == 1) || table.key_source == weir_mysql::KeySource::Configured);
    sizes
}

/// The plan of the SELECT of `range`: access type and extra.
async fn access(conn: &mut Conn, table: &TableDescription, range: &ChunkRange) -> (String, String) {
    let sql = format!("EXPLAIN FORMAT=TRADITIONAL {}", select_rows(table, range).unwrap());
    let row: Row = conn.query_first(sql).await.unwrap().unwrap();
    (query::named(&row, "type").unwrap_or_default(), query::named(&row, "Extra").unwrap_or_default())
}

#[tokio::test]
async fn every_kind_of_key_is_divided_and_covered_once() {
    let word = "CONCAT(ELT(1 + n % 7, 'e', 'é', 'E', 'École', 'z', 'ß', 'ss'), n % 900, ELT(1 + n % 3, '', 'à', 'A '))";
    let cases = [
        ("plan_int", "id INT PRIMARY KEY, v INT".to_owned(), "n * 3, n".to_owned()),
        (
            "plan_neg",
            "id BIGINT PRIMARY KEY, v INT".into(),
            "IF(n % 2, -9223372036854775808 + n, 9223372036854775807 - n), n".into(),
        ),
        ("plan_huge", "id BIGINT UNSIGNED PRIMARY KEY, v INT".into(), "18446744073709551615 - n * n, n".into()),
        ("plan_desc", "id INT, v INT, PRIMARY KEY (id DESC)".into(), "n, n".into()),
        ("plan_two", "a INT, b VARCHAR(20), v INT, PRIMARY KEY (a, b)".into(), "n % 3, CONCAT('k', n), n".into()),
        (
            "plan_three",
            "a SMALLINT, b DATE, c BINARY(4), PRIMARY KEY (a, b, c)".into(),
            "n % 2, '2024-01-01' + INTERVAL (n % 20) DAY, UNHEX(LPAD(HEX(n), 8, '0'))".into(),
        ),
        ("plan_ai", "k VARCHAR(40) COLLATE utf8mb4_0900_ai_ci PRIMARY KEY".into(), word.into()),
        ("plan_general", "k VARCHAR(40) COLLATE utf8mb4_general_ci PRIMARY KEY".into(), word.into()),
        ("plan_bin", "k VARCHAR(40) COLLATE utf8mb4_bin PRIMARY KEY".into(), word.into()),
        ("plan_latin", "k VARCHAR(40) CHARACTER SET latin1 PRIMARY KEY".into(), word.into()),
        (
            "plan_gbk",
            "k VARCHAR(40) CHARACTER SET gbk PRIMARY KEY".into(),
            "CONCAT(ELT(1 + n % 3, '汉', '字', 'a'), n)".into(),
        ),
        ("plan_ucs2", "k VARCHAR(40) CHARACTER SET ucs2 PRIMARY KEY".into(), word.into()),
        ("plan_char", "k CHAR(10) PRIMARY KEY".into(), "CONCAT(n, ' ')".into()),
        ("plan_uuid", "k BINARY(16) PRIMARY KEY".into(), "UNHEX(LEFT(SHA2(n, 256), 32))".into()),
        ("plan_varbin", "k VARBINARY(9) PRIMARY KEY".into(), "CONCAT(CHAR(n % 256), n, CHAR(0))".into()),
        (
            "plan_dec",
            "k DECIMAL(65,30) PRIMARY KEY".into(),
            "(n - 3000) * 12345678901234567890.000000000000000000000000000001".into(),
        ),
        (
            "plan_datetime",
            "k DATETIME(3) PRIMARY KEY".into(),
            "IF(n = 1, '0000-00-00', '1990-01-01' + INTERVAL n * 86399001 MICROSECOND)".into(),
        ),
        ("plan_timestamp", "k TIMESTAMP(6) PRIMARY KEY".into(), "'2020-01-01' + INTERVAL n * 7 MICROSECOND".into()),
        ("plan_time", "k TIME(2) PRIMARY KEY".into(), "SEC_TO_TIME((n - 3000) * 7.25)".into()),
        ("plan_float", "k FLOAT PRIMARY KEY".into(), "(n - 3000) * 0.1".into()),
        ("plan_double", "k DOUBLE PRIMARY KEY".into(), "(n - 3000) / 7e0".into()),
        ("plan_bit", "k BIT(40) PRIMARY KEY".into(), "n * 1000".into()),
        ("plan_unique", "a INT, k VARCHAR(20) NOT NULL, UNIQUE u (k)".into(), "n, CONCAT('k', n)".into()),
    ];
    for (name, columns, values) in cases {
        let (mut conn, table) = filled(name, &columns, &values).await;
        // A zero date cannot be a record key, but it must not be lost on the way: count it instead.
        if name == "plan_datetime" {
            conn.query_drop("DELETE FROM t WHERE k = 0").await.unwrap();
        }
        let sizes = covered_once(&mut conn, &table, &ChunkRange::all()).await;
        let total: u64 = sizes.iter().sum();
        assert!(total > 2 * TARGET.rows, "{name} has only {total} rows");
        let expected = total.div_ceil(TARGET.rows);
        assert!(sizes.len() as u64 >= expected / 2 && sizes.len() as u64 <= expected * 3, "{name}: {sizes:?}");
        assert!(sizes.iter().all(|s| *s <= TARGET.rows * 3), "{name}: {sizes:?}");
        let chunks = plan_chunks(&mut conn, &table, &ChunkRange::all(), TARGET).await.unwrap();
        // The very last holds what comes in meanwhile; of nothing MySQL makes no range.
        for chunk in [&chunks[0], &chunks[chunks.len() / 2], &chunks[chunks.len() - 2]] {
            let (kind, extra) = access(&mut conn, &table, chunk).await;
            assert_eq!(kind, "range", "{name}: {}", select_rows(&table, chunk).unwrap());
            assert!(!extra.contains("filesort"), "{name}: {extra}");
        }
    }
}

#[tokio::test]
async fn gaps_and_clusters_of_integers_give_balanced_chunks() {
    let (mut conn, table) =
        filled("plan_gaps", "id BIGINT PRIMARY KEY, v INT", "IF(n % 10 = 0, n * 1000000000000, n), n").await;
    let sizes = covered_once(&mut conn, &table, &ChunkRange::all()).await;
    assert!(sizes.iter().all(|s| *s <= TARGET.rows * 3), "{sizes:?}");
    assert!((6..=36).contains(&sizes.len()), "{sizes:?}");
}

#[tokio::test]
async fn a_part_of_the_key_range_is_divided_within_its_bounds() {
    let (mut conn, table) = filled("plan_part", "id INT PRIMARY KEY, v INT", "n, n").await;
    let part = ChunkRange { from: Some(vec![KeyValue::Int(1_001)]), to: Some(vec![KeyValue::Int(4_001)]) };
    let sizes = covered_once(&mut conn, &table, &part).await;
    assert_eq!(sizes.iter().sum::<u64>(), 3_000);
    assert!(sizes.len() >= 3, "{sizes:?}");
    let nothing = ChunkRange { from: Some(vec![KeyValue::Int(900_000)]), to: None };
    assert_eq!(plan_chunks(&mut conn, &table, &nothing, TARGET).await.unwrap(), [nothing]);

    let (mut conn, table) = filled("plan_part2", "a INT, b INT, PRIMARY KEY (a, b)", "n % 10, n").await;
    let leading = ChunkRange { from: Some(vec![KeyValue::Int(3)]), to: Some(vec![KeyValue::Int(6)]) };
    assert_eq!(covered_once(&mut conn, &table, &leading).await.iter().sum::<u64>(), 1_800);
    let pair = |a, b| Some(vec![KeyValue::Int(a), KeyValue::Int(b)]);
    let inside = ChunkRange { from: pair(3, 3_003), to: pair(5, 3_005) };
    assert_eq!(covered_once(&mut conn, &table, &inside).await.iter().sum::<u64>(), 1_200);
}

#[tokio::test]
async fn keys_that_do_not_divide_give_one_chunk() {
    for (name, columns, values) in [
        ("plan_enum", "e ENUM('z','y','x'), n INT, PRIMARY KEY (e, n)", "1 + n % 3, n"),
        ("plan_prefix", "k TEXT NOT NULL, PRIMARY KEY (k(4))", "LPAD(n, 4, '0')"),
        ("plan_mixed", "a INT, b INT, PRIMARY KEY (a, b DESC)", "n, n"),
    ] {
        let (mut conn, table) = filled(name, columns, values).await;
        assert_eq!(covered_once(&mut conn, &table, &ChunkRange::all()).await, [ROWS], "{name}");
    }
}

#[tokio::test]
async fn a_configured_key_that_repeats_is_walked_to_its_end() {
    let (mut conn, table) = filled("plan_repeat", "id INT PRIMARY KEY, g INT NOT NULL, KEY (g)", "n, n DIV 2000").await;
    let by_group = table.with_key(&["g".into()]).unwrap();
    let sizes = covered_once(&mut conn, &by_group, &ChunkRange::all()).await;
    assert_eq!(sizes.iter().sum::<u64>(), ROWS);
    assert!(sizes.len() > 1, "{sizes:?}");
}

#[tokio::test]
async fn statistics_that_lag_behind_do_not_make_one_huge_chunk() {
    let (mut conn, mut table) = filled("plan_stale", "id INT PRIMARY KEY, v INT", "n, n").await;
    (table.approx_rows, table.avg_row_bytes) = (0, 0);
    let sizes = covered_once(&mut conn, &table, &ChunkRange::all()).await;
    // The last one is for keys that come in meanwhile.
    assert_eq!((sizes.len() as u64, sizes.last()), (ROWS / TARGET.rows + 1, Some(&0)), "{sizes:?}");
}

#[tokio::test]
async fn keys_that_come_in_behind_all_others_are_a_chunk_of_their_own() {
    for (name, columns, old, new) in [
        ("plan_grows", "id INT PRIMARY KEY, v INT", "n, n", "n + 6000, n"),
        ("plan_grows2", "a INT, b VARCHAR(9), PRIMARY KEY (a, b)", "1, LPAD(n, 9, '0')", "1, LPAD(n + 6000, 9, '0')"),
        (
            "plan_grows3",
            "at DATETIME PRIMARY KEY",
            "'2020-01-01' + INTERVAL n SECOND",
            "'2021-01-01' + INTERVAL n SECOND",
        ),
    ] {
        let (mut conn, table) = filled(name, columns, old).await;
        let chunks = plan_chunks(&mut conn, &table, &ChunkRange::all(), TARGET).await.unwrap();
        let sql = format!(
            "INSERT INTO t WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {ROWS}) SELECT {new} FROM c"
        );
        conn.query_drop(&sql).await.unwrap();
        let mut sizes = Vec::new();
        for chunk in &chunks {
            sizes.push(read_all(&table, chunk).await.num_rows() as u64);
        }
        let tail = sizes.pop().unwrap();
        assert!((ROWS..=ROWS + 1).contains(&tail), "{name}: {tail}");
        assert!(sizes.iter().all(|size| *size <= TARGET.rows * 3), "{name}: {sizes:?}");
    }
}

#[tokio::test]
async fn a_small_table_is_one_chunk() {
    let (mut conn, table) = filled("plan_small", "id INT PRIMARY KEY, v INT", "n, n").await;
    let started = Instant::now();
    // In a task of its own, as a service does it.
    let planning = tokio::spawn(async move {
        plan_chunks(&mut conn, &table, &ChunkRange::all(), PlanTarget::default()).await.unwrap()
    });
    assert_eq!(planning.await.unwrap(), [ChunkRange::all()]);
    assert!(started.elapsed().as_secs() < 2);
}
