//! Tables with partitions end equal under updates that move rows between them, loads and kills, by every reader; what cannot be
//! partitioned stops alone, with the way out.

use std::time::Duration;

use crate::support::clickhouse::Clickhouse;
use crate::support::kafka::Kafka;
use crate::support::lake::{assert_equal_by, assert_partitioned};
use crate::support::mysql::Mysql;
use crate::support::random::Random;
use crate::support::weir::Weir;

/// All that read partitioned tables; Polars takes values from folders' names.
const READERS: [&str; 3] = ["duckdb", "deltalake", "polars"];

/// The tables and what they are partitioned by.
const TABLES: [(&str, &[&str]); 5] = [
    ("by_day", &["created_day = day(created_at)"]),
    ("by_number", &["region"]),
    ("by_bucket", &["b = bucket(8, id)"]),
    ("by_key", &["shop", "state"]),
    ("by_hour", &["m = month(changed_at)", "h = hour(changed_at)"]),
];

/// Rows that each table begins with.
const ROWS: u32 = 3_000;

/// Fails unless every table of `database` is equal by every reader; columns that were dropped stay in the lake.
fn equal_by_all(mysql: &Mysql, weir: &Weir, database: &str) {
    for reader in READERS {
        assert_equal_by(mysql, weir, database, reader, &["--extra-columns-allowed"], "at the end");
    }
}

/// A database with the tables, filled.
fn create(mysql: &Mysql, database: &str) {
    mysql.run(&format!(
        "CREATE DATABASE {database}; USE {database}; SET cte_max_recursion_depth = 100000; SET time_zone = '+00:00';
         CREATE TABLE numbers (n INT PRIMARY KEY);
         INSERT INTO numbers WITH RECURSIVE up AS (SELECT 0 AS n UNION ALL SELECT n + 1 FROM up WHERE n + 1 < {ROWS}) SELECT n FROM up;
         CREATE TABLE by_day (id BIGINT PRIMARY KEY, created_at DATETIME(6) NULL, v INT);
         INSERT INTO by_day SELECT n, IF(n % 11 = 0, NULL, '2026-11-21 23:59:59.999999' + INTERVAL n % 9 DAY), n FROM numbers;
         CREATE TABLE by_number (id INT PRIMARY KEY, region INT NULL, v INT);
         INSERT INTO by_number SELECT n, IF(n % 7 = 0, NULL, n % 5 - 2), n FROM numbers;
         CREATE TABLE by_bucket (id BIGINT UNSIGNED PRIMARY KEY, v INT);
         INSERT INTO by_bucket SELECT n + 18446744073709500000, n FROM numbers;
         CREATE TABLE by_key (shop SMALLINT NOT NULL, code VARCHAR(20) NOT NULL, state ENUM('new', 'sent', 'done') NULL, v INT,
             PRIMARY KEY (shop, code));
         INSERT INTO by_key SELECT n % 4, CONCAT('näw ', n), IF(n % 5 = 0, NULL, ELT(1 + n % 3, 'new', 'sent', 'done')), n FROM numbers;
         CREATE TABLE by_hour (id INT PRIMARY KEY, changed_at TIMESTAMP(3) NULL, v INT);
         INSERT INTO by_hour SELECT n, IF(n % 13 = 0, NULL, '2026-10-31 22:30:00' + INTERVAL n % 4 HOUR), n FROM numbers;
         DROP TABLE numbers"
    ));
}

/// Sections of the configuration for the tables.
fn sections(database: &str) -> String {
    let section =
        |(table, by): &(&str, &[&str])| format!("[[table]]\nname = \"{database}.{table}\"\npartition_by = {by:?}\n");
    TABLES.iter().map(section).collect()
}

/// Transactions that move rows between partitions and back, into NULL and out of it, change keys, insert and delete.
fn churn(mysql: &Mysql, database: &str, seed: u64, transactions: u32, pause: Duration) {
    eprintln!("churn on {database}, seed {seed}");
    let mut random = Random::new(seed);
    for transaction in 0..transactions {
        let mut sql = format!("USE {database}; SET time_zone = '+00:00'; BEGIN;");
        for _ in 0..=random.below(4) {
            let (m, shift) = (3 + random.below(200), random.below(9));
            let some = |column: &str, random: &mut Random| format!("{column} % {m} = {}", random.below(m));
            let fresh = u64::from(ROWS) + u64::from(transaction) * 100 + random.below(100);
            sql.push_str(&match random.below(12) {
                0 => format!("UPDATE by_day SET created_at = created_at + INTERVAL {shift} DAY WHERE {};", some("id", &mut random)),
                1 => format!("UPDATE by_day SET created_at = IF(created_at IS NULL, '2026-11-23', NULL) WHERE {};", some("id", &mut random)),
                2 => format!("UPDATE by_number SET region = COALESCE(region, 0) + {shift} - 4 WHERE {};", some("id", &mut random)),
                3 => format!("UPDATE by_number SET region = NULL, v = {fresh} WHERE {};", some("id", &mut random)),
                4 => format!("UPDATE by_bucket SET v = v + 1 WHERE {};", some("id", &mut random)),
                // Keys change, and with them the bucket.
                5 => format!("UPDATE by_bucket SET id = id + 10000 WHERE {} AND id < 18446744073709510000;", some("id", &mut random)),
                6 => format!("UPDATE IGNORE by_key SET shop = (shop + {shift}) % 4 WHERE {};", some("v", &mut random)),
                7 => format!("UPDATE by_key SET state = ELT({shift} % 4, 'new', 'sent', 'done') WHERE {};", some("v", &mut random)),
                8 => format!("UPDATE by_hour SET changed_at = changed_at + INTERVAL {shift} * 20 MINUTE WHERE {};", some("id", &mut random)),
                9 => format!("DELETE FROM by_day WHERE {}; DELETE FROM by_key WHERE v = {fresh} - 100;", some("id", &mut random)),
                10 => format!(
                    "REPLACE INTO by_day VALUES ({fresh}, '2026-12-0{}', 0); REPLACE INTO by_number VALUES ({fresh}, {shift}, 1);",
                    shift + 1
                ),
                _ => format!("REPLACE INTO by_key VALUES ({shift} % 4, 'c{fresh}', 'new', {fresh});"),
            });
        }
        sql.push_str(if random.below(20) == 0 { "ROLLBACK" } else { "COMMIT" });
        mysql.run(&sql);
        std::thread::sleep(pause);
    }
}

fn all_are_equal(mysql: &Mysql, weir: &Weir, database: &str) {
    equal_by_all(mysql, weir, database);
    for (table, by) in TABLES {
        for reader in READERS {
            assert_partitioned(weir, database, table, reader, by);
        }
    }
}

#[test]
fn rows_that_move_between_partitions_under_loads_and_kills_end_equal_by_every_reader() {
    let mysql = &Mysql::start(&[]);
    create(mysql, "parts");
    let weir = Weir::new(&mysql.url, &["parts.*"], &sections("parts"));
    weir.expect(0, &["check"]);
    // Some kills fall into the load, some into the stream.
    std::thread::scope(|scope| {
        let churning = scope.spawn(|| churn(mysql, "parts", 41, 260, Duration::from_millis(20)));
        for kill in 0..4 {
            let service = weir.run();
            std::thread::sleep(Duration::from_millis(700 + kill * 531 % 1_300));
            service.kill();
        }
        let service = weir.run();
        churning.join().expect("the workload ends");
        let (code, _) = service.terminate();
        assert_eq!(code, Some(0));
    });
    weir.catch_up();
    all_are_equal(mysql, &weir, "parts");
    weir.balanced();

    // A load into partitions that have rows, with changes beside it; and one that finds rows gone.
    mysql.run("SET sql_log_bin = 0; DELETE FROM parts.by_number WHERE id % 17 = 3; UPDATE parts.by_day SET created_at = '2026-12-09' WHERE id % 19 = 3");
    std::thread::scope(|scope| {
        let churning = scope.spawn(|| churn(mysql, "parts", 42, 60, Duration::from_millis(10)));
        weir.expect(0, &["snapshot", "--table", "parts.by_number", "--table", "parts.by_day"]);
        churning.join().expect("the workload ends");
    });
    weir.catch_up();
    all_are_equal(mysql, &weir, "parts");
    weir.balanced();

    // Our own reader, and what the table says of itself.
    let count: usize = mysql.value("SELECT CAST(COUNT(*) AS CHAR) FROM parts.by_key").parse().expect("a number");
    assert!(weir.has_rows("parts.by_key", count));
    let days =
        weir.expect(0, &["read", "--table", "parts.by_day", "--columns", "created_day", "--format", "jsonl"]).stdout;
    assert!(days.contains("{\"created_day\":\"2026-11-2") && days.contains("{\"created_day\":null}"), "{days:.200}");
    let described = weir.expect(0, &["table", "describe", "parts.by_key", "--format", "json"]).json();
    assert_eq!(described["partitions"], serde_json::json!(["shop", "state"]), "{described:#}");
}

#[test]
fn a_table_of_three_buckets_over_kafka_is_partitioned_too() {
    let mysql = &Mysql::start(&[]);
    create(mysql, "kparts");
    let servers = (Kafka::shared(), Clickhouse::shared());
    let transport = format!("partitions = 3\n{}", sections("kparts"));
    let weir = Weir::over_kafka("parts", &mysql.url, &["kparts.*"], servers, &transport);
    let capture = weir.capture();
    let applies = [weir.apply(1), weir.apply(2)];
    churn(mysql, "kparts", 43, 120, Duration::from_millis(25));
    let [first, second] = applies;
    first.kill();
    churn(mysql, "kparts", 44, 60, Duration::from_millis(25));
    let (code, _) = capture.terminate();
    assert_eq!(code, Some(0));
    weir.expect(0, &["capture", "--until-caught-up"]);
    let (code, _) = second.terminate();
    assert_eq!(code, Some(0));
    all_are_equal(mysql, &weir, "kparts");
    weir.balanced();
}

#[test]
fn what_cannot_be_partitioned_stops_alone_and_says_what_can() {
    let mysql = Mysql::shared();
    mysql.run(
        "CREATE DATABASE noparts; USE noparts;
         CREATE TABLE good (id INT PRIMARY KEY, region VARCHAR(20)); INSERT INTO good VALUES (1, 'EU'), (2, 'us-east.1'), (3, NULL), (7, '007'), (8, 'null'), (9, '..');
         CREATE TABLE gone (id INT PRIMARY KEY); INSERT INTO gone VALUES (1);
         CREATE TABLE typed (id INT PRIMARY KEY, at DATETIME); INSERT INTO typed VALUES (1, NOW());
         CREATE TABLE loaded (id INT PRIMARY KEY, region VARCHAR(20)); INSERT INTO loaded VALUES (1, 'not plain');
         CREATE TABLE streamed (id INT PRIMARY KEY, region VARCHAR(20)); INSERT INTO streamed VALUES (1, 'EU')",
    );
    let section = |table: &str, by: &str| format!("[[table]]\nname = \"noparts.{table}\"\npartition_by = [\"{by}\"]\n");
    let tables = [("good", "region"), ("gone", "regio"), ("typed", "at"), ("loaded", "region"), ("streamed", "region")];
    let sections: String = tables.iter().map(|(table, by)| section(table, by)).collect();
    let weir = Weir::new(&mysql.url, &["noparts.*"], &sections);
    let checked = weir.expect(1, &["check"]).stdout;
    assert!(checked.contains("no column regio") && checked.contains("timestamp_ntz"), "{checked}");
    let first = weir.expect(1, &["run", "--until-caught-up"]).stderr;
    for words in ["noparts.gone has no column regio", "bucket(16, at)", "noparts.loaded: column region has a value"] {
        assert!(first.contains(words), "`{words}` is not in {first}");
    }
    assert!(!first.contains("not plain"), "{first}");
    mysql.run("INSERT INTO noparts.streamed VALUES (2, ''); INSERT INTO noparts.good VALUES (4, 'EU'); UPDATE noparts.good SET region = 'us-west' WHERE id = 1");
    let second = weir.expect(1, &["run", "--until-caught-up"]).stderr;
    assert!(second.contains("noparts.streamed: column region has a value"), "{second}");
    assert!(weir.has_rows("noparts.good", 7) && weir.has_rows("noparts.streamed", 1));

    // The way out that each of them names.
    mysql.run("UPDATE noparts.streamed SET region = 'EU' WHERE id = 2; UPDATE noparts.loaded SET region = NULL");
    let text = sections.replace("regio\"", "id\"").replace("[\"at\"]", "[\"at_bucket = bucket(16, at)\"]");
    weir.configure(&mysql.url, &["noparts.*"], &text);
    for table in ["gone", "typed", "loaded", "streamed"] {
        weir.expect(0, &["snapshot", "--table", &format!("noparts.{table}")]);
    }
    // A partition's column that the source drops is NULL from then on, as any other.
    mysql.run("ALTER TABLE noparts.good DROP COLUMN region; INSERT INTO noparts.good (id) VALUES (5)");
    weir.catch_up();
    equal_by_all(mysql, &weir, "noparts");
    assert!(weir.warehouse().join("noparts/good/region=us-west").is_dir());
}
