//! Deep reconcile: rows that differ between source and lake are found with their very keys, whatever made them differ, and
//! none is called different that is only in flight.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::beside;
use crate::support::clickhouse::Clickhouse;
use crate::support::kafka::Kafka;
use crate::support::lake::{Workload, foreign};
use crate::support::mysql::Mysql;
use crate::support::weir::{Weir, eventually};

/// The report of `weir reconcile --deep`, which must exit with `code`.
fn deep(weir: &Weir, code: i32, more: &[&str]) -> Value {
    let arguments = [&["reconcile", "--deep", "--format", "json"], more].concat();
    weir.expect(code, &arguments).json()
}

/// What the report says of a table's rows.
fn of<'a>(report: &'a Value, table: &str) -> &'a Value {
    let tables = report["tables"].as_array().expect("a report has tables");
    &tables.iter().find(|entry| entry["table"] == table).unwrap_or_else(|| panic!("{table}: {report:#}"))["deep"]
}

/// Fails unless every table was compared and proven.
fn proven(report: &Value) {
    assert_eq!(report["verdict"], "balanced", "{report:#}");
    for table in report["tables"].as_array().expect("a report has tables") {
        let deep = &table["deep"];
        assert_eq!(deep["rows_source"], deep["rows_table"], "{table:#}");
        assert_eq!(deep["ranges"], deep["ranges_compared"], "{table:#}");
        assert_eq!(deep.get("not_compared"), None, "{table:#}");
        for count in ["missing_count", "extra_count", "different_count", "in_flight_count", "unconfirmed_count"] {
            assert_eq!(deep[count], 0, "{table:#}");
        }
    }
}

/// Fails unless exactly these keys of a table are missing, extra and different.
fn found(report: &Value, table: &str, missing: Value, extra: Value, different: Value) {
    let deep = of(report, table);
    for (kind, expected) in [("missing", missing), ("extra", extra), ("different", different)] {
        assert_eq!(deep[kind], expected, "{kind} of {table}: {deep:#}");
        assert_eq!(deep[format!("{kind}_count")], expected.as_array().expect("a list").len(), "{deep:#}");
    }
}

/// Files of the table's folder that its newest version names and that were there when it was loaded.
fn data_files(weir: &Weir, database: &str, table: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(weir.warehouse().join(database).join(table)).expect("a table has a folder");
    let paths = entries.map(|entry| entry.expect("a folder can be listed").path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "parquet")).collect()
}

fn sections(tables: &[&str], settings: &str) -> String {
    tables.iter().map(|table| format!("[[table]]\nname = \"{table}\"\n{settings}\n\n")).collect()
}

#[test]
fn tables_of_every_type_key_and_layout_are_proven_equal() {
    let mysql = &Mysql::start(&[]);
    let workload = Workload { mysql, database: "deep", seed: 51 };
    workload.create(6_000);
    let layouts = sections(&["deep.t_auto", "deep.t_composite"], "deletes = \"soft\"")
        + &sections(&["deep.t_varchar", "deep.t_int"], "mode = \"append\"")
        + &sections(&["deep.t_unsigned"], "storage = \"copy-on-write\"")
        + &sections(&["deep.t_binary16"], "partition_by = [\"b = bucket(4, id)\"]");
    let weir = Weir::new(&mysql.url, &["deep.*"], &layouts);
    weir.catch_up();
    proven(&deep(&weir, 0, &[]));
    let mut writers = workload.live(12_000, &["--ddl"]);
    let service = weir.run();
    assert!(writers.wait().expect("the workload ends").success());
    service.kill();
    weir.catch_up();
    let report = deep(&weir, 0, &[]);
    proven(&report);
    assert!(of(&report, "deep.t_wide")["rows_source"].as_u64() > Some(50), "{report:#}");
    for format in ["table", "markdown", "html"] {
        let text = weir.expect(0, &["reconcile", "--deep", "--format", format]).stdout;
        assert!(text.contains("rows at the source") && text.contains("deep.t_wide"), "{text}");
    }
}

/// Tables with a few rows each, and what makes their faults.
fn small(mysql: &Mysql, database: &str) -> Weir {
    mysql.run(&format!(
        "CREATE DATABASE {database}; USE {database};
         CREATE TABLE n (id INT PRIMARY KEY, v VARCHAR(20), f DOUBLE, d DECIMAL(9,3), b VARBINARY(9), big BIGINT);
         INSERT INTO n VALUES (1, 'a', 0.0, 1.005, x'00', 1), (2, 'b', 1.5, 2.500, x'0100', 2), (3, '', -0.0, 0, x'', 3),
             (4, NULL, NULL, NULL, NULL, NULL), (5, 'e', 5e-324, 99.999, x'FF', 9007199254740993);
         CREATE TABLE k (shop INT, code VARCHAR(20), v INT, PRIMARY KEY (shop, code));
         INSERT INTO k VALUES (1, 'école', 1), (1, 'p', 2), (2, 'Zoo', 3), (2, 'ab', 4)"
    ));
    let weir = Weir::new(&mysql.url, &[&format!("{database}.*")], "");
    weir.catch_up();
    proven(&deep(&weir, 0, &[]));
    weir
}

#[test]
fn what_changes_at_the_source_without_events_is_found() {
    let mysql = &Mysql::start(&[]);
    let weir = small(mysql, "silent");
    let silently = |sql: &str| mysql.run(&format!("SET sql_log_bin = 0; USE silent; {sql}"));
    let different = |id: i64| json!([{"id": id}]);
    // Each is undone before the next.
    for (change, undo, id) in [
        ("UPDATE n SET v = 'a ' WHERE id = 1", "UPDATE n SET v = 'a' WHERE id = 1", 1),
        ("UPDATE n SET v = 'B' WHERE id = 2", "UPDATE n SET v = 'b' WHERE id = 2", 2),
        ("UPDATE n SET f = -0.0e0 WHERE id = 1", "UPDATE n SET f = 0.0e0 WHERE id = 1", 1),
        ("UPDATE n SET v = NULL WHERE id = 3", "UPDATE n SET v = '' WHERE id = 3", 3),
        ("UPDATE n SET v = '' WHERE id = 4", "UPDATE n SET v = NULL WHERE id = 4", 4),
        ("UPDATE n SET d = 1.00 WHERE id = 1", "UPDATE n SET d = 1.005 WHERE id = 1", 1),
        ("UPDATE n SET b = x'01' WHERE id = 2", "UPDATE n SET b = x'0100' WHERE id = 2", 2),
        ("UPDATE n SET big = big ^ 1 WHERE id = 5", "UPDATE n SET big = big ^ 1 WHERE id = 5", 5),
        ("UPDATE n SET f = 1e-323 WHERE id = 5", "UPDATE n SET f = 5e-324 WHERE id = 5", 5),
    ] {
        silently(change);
        let report = deep(&weir, 3, &["--table", "silent.n"]);
        found(&report, "silent.n", json!([]), json!([]), different(id));
        silently(undo);
    }
    proven(&deep(&weir, 0, &[]));
    silently(
        "DELETE FROM n WHERE id = 2; INSERT INTO n (id) VALUES (-7); UPDATE k SET code = 'École' WHERE code = 'école'",
    );
    silently("UPDATE k SET v = 9 WHERE code = 'Zoo'");
    let report = deep(&weir, 3, &[]);
    assert_eq!(report["verdict"], "different");
    found(&report, "silent.n", json!([{"id": -7}]), json!([{"id": 2}]), json!([]));
    let (upper, lower) = (json!([{"shop": 1, "code": "École"}]), json!([{"shop": 1, "code": "école"}]));
    found(&report, "silent.k", upper, lower, json!([{"shop": 2, "code": "Zoo"}]));
    let text = weir.expect(3, &["reconcile", "--deep"]).stdout;
    assert!(text.contains(r#"silent.k: different: {"shop":2,"code":"Zoo"}"#), "{text}");
}

#[test]
fn what_others_do_to_the_lake_is_found() {
    let mysql = &Mysql::start(&[]);
    let weir = small(mysql, "abused");
    foreign(&weir, "abused", "n", &["--delete", "id = 2"]);
    foreign(&weir, "abused", "n", &["--update", "v='x'", "--where", "id = 1"]);
    foreign(&weir, "abused", "n", &["--update", "v=NULL", "--where", "id = 5"]);
    foreign(&weir, "abused", "n", &["--double", "id = 3"]);
    foreign(&weir, "abused", "k", &["--update", "code='q'", "--where", "code = 'p'"]);
    let report = deep(&weir, 3, &[]);
    found(&report, "abused.n", json!([{"id": 2}]), json!([]), json!([{"id": 1}, {"id": 3}, {"id": 5}]));
    let (p, q) = (json!([{"shop": 1, "code": "p"}]), json!([{"shop": 1, "code": "q"}]));
    found(&report, "abused.k", p, q, json!([]));
    foreign(&weir, "abused", "k", &["--null-key", "code"]);
    let report = deep(&weir, 3, &["--table", "abused.k"]);
    assert_eq!(of(&report, "abused.k")["extra_count"], 2, "{report:#}");
    assert!(report["tables"][0]["notices"].to_string().contains("have no key"), "{report:#}");
}

#[test]
fn a_data_file_that_is_gone_is_named_and_its_rows_are_missing() {
    let mysql = &Mysql::start(&[]);
    let weir = small(mysql, "gone");
    let loaded = data_files(&weir, "gone", "n");
    mysql.run("INSERT INTO gone.n (id) VALUES (10), (11); UPDATE gone.n SET v = 'new' WHERE id = 2");
    weir.catch_up();
    for file in &loaded {
        std::fs::remove_file(file).expect("the file is there");
    }
    let report = deep(&weir, 3, &["--table", "gone.n"]);
    found(&report, "gone.n", json!([{"id": 1}, {"id": 3}, {"id": 4}, {"id": 5}]), json!([]), json!([]));
    assert_eq!(of(&report, "gone.n")["rows_table"], 3);
    let name = loaded[0].file_name().and_then(|name| name.to_str()).expect("a plain name");
    assert!(report["tables"][0]["notices"].to_string().contains(name), "{report:#}");
}

/// Types of a key's column, three literals of it, and each as a report shows it.
const KEYS: [(&str, [&str; 3], [&str; 3]); 20] = [
    ("TINYINT", ["-128", "0", "127"], ["-128", "0", "127"]),
    (
        "BIGINT",
        ["-9223372036854775808", "7", "9007199254740993"],
        [r#""-9223372036854775808""#, "7", r#""9007199254740993""#],
    ),
    ("BIGINT UNSIGNED", ["18446744073709551615", "5", "0"], [r#""18446744073709551615""#, "5", "0"]),
    ("DECIMAL(9,3)", ["-0.001", "12.5", "0"], [r#""-0.001""#, r#""12.500""#, r#""0.000""#]),
    (
        "DECIMAL(40,0)",
        ["-1234567890123456789012345678901234567890", "3", "0"],
        [r#""-1234567890123456789012345678901234567890""#, r#""3""#, r#""0""#],
    ),
    ("FLOAT", ["-1.5e0", "0.5e0", "1e10"], ["-1.5", "0.5", "10000000000.0"]),
    ("DOUBLE", ["-1.5e-300", "0.1e0", "0"], ["-1.5e-300", "0.1", "0.0"]),
    (
        "DATE",
        ["'1000-01-01'", "'9999-12-31'", "'1969-12-31'"],
        [r#""1000-01-01""#, r#""9999-12-31""#, r#""1969-12-31""#],
    ),
    (
        "DATETIME(6)",
        ["'9999-12-31 23:59:59.999999'", "'2026-11-21 03:00:00'", "'1000-01-01'"],
        [r#""9999-12-31T23:59:59.999999""#, r#""2026-11-21T03:00:00.000000""#, r#""1000-01-01T00:00:00.000000""#],
    ),
    (
        "TIMESTAMP(3)",
        ["'2026-03-29 01:30:00.125'", "'2038-01-19 03:14:07'", "'1970-01-01 00:00:01'"],
        [r#""2026-03-29T01:30:00.125000Z""#, r#""2038-01-19T03:14:07.000000Z""#, r#""1970-01-01T00:00:01.000000Z""#],
    ),
    (
        "TIME(2)",
        ["'-838:59:59'", "'00:00:00.25'", "'12:34:56'"],
        [r#""-838:59:59.000000""#, r#""00:00:00.250000""#, r#""12:34:56.000000""#],
    ),
    ("YEAR", ["1901", "0", "2155"], ["1901", "0", "2155"]),
    ("BIT(12)", ["b'101'", "b'0'", "b'111111111111'"], [r#""0005""#, r#""0000""#, r#""0fff""#]),
    ("ENUM('one', 'zwölf', '')", ["'one'", "'zwölf'", "''"], [r#""one""#, r#""zwölf""#, r#""""#]),
    ("SET('a', 'b')", ["'a,b'", "'b'", "''"], [r#""a,b""#, r#""b""#, r#""""#]),
    ("CHAR(9) CHARACTER SET latin1", ["'Ü'", "'it''s'", "''"], [r#""Ü""#, r#""it's""#, r#""""#]),
    ("VARCHAR(9) CHARACTER SET gbk", ["'中文'", "'a '", "'b'"], [r#""中文""#, r#""a ""#, r#""b""#]),
    ("VARCHAR(20) COLLATE utf8mb4_0900_ai_ci", ["'École 😀'", "'p'", "'Zoo'"], [r#""École 😀""#, r#""p""#, r#""Zoo""#]),
    ("VARBINARY(9)", ["x'00ff00'", "x''", "x'00'"], [r#""00ff00""#, r#""""#, r#""00""#]),
    ("BINARY(3)", ["x'00ff00'", "x'000000'", "x'616263'"], [r#""00ff00""#, r#""000000""#, r#""616263""#]),
];

#[test]
fn keys_of_every_type_are_looked_up_and_shown() {
    let mysql = &Mysql::start(&[]);
    mysql.run("CREATE DATABASE typed DEFAULT CHARSET utf8mb4");
    let session = "SET NAMES utf8mb4; SET time_zone = '+00:00'; SET sql_log_bin = 0; USE typed;";
    for (n, (ty, [gone, changed, _], _)) in KEYS.iter().enumerate() {
        // Alone, and behind a column of whole numbers, where keys are bytes.
        mysql.run(&format!(
            "{session} CREATE TABLE a{n} (k {ty}, v INT, PRIMARY KEY (k)); INSERT INTO a{n} VALUES ({gone}, 1), ({changed}, 2);
             CREATE TABLE b{n} (n INT, k {ty}, v INT, PRIMARY KEY (n, k)); INSERT INTO b{n} VALUES (1, {gone}, 1), (1, {changed}, 2)"
        ));
    }
    let weir = Weir::new(&mysql.url, &["typed.*"], "");
    weir.catch_up();
    proven(&deep(&weir, 0, &[]));
    for (n, (_, [gone, changed, come], _)) in KEYS.iter().enumerate() {
        mysql.run(&format!(
            "{session} DELETE FROM a{n} WHERE k = {gone}; UPDATE a{n} SET v = 9 WHERE k = {changed}; INSERT INTO a{n} VALUES ({come}, 3);
             DELETE FROM b{n} WHERE k = {gone}; UPDATE b{n} SET v = 9 WHERE k = {changed}; INSERT INTO b{n} VALUES (1, {come}, 3)"
        ));
    }
    let report = deep(&weir, 3, &[]);
    for (n, (_, _, shown)) in KEYS.iter().enumerate() {
        let [gone, changed, come] = shown.map(|shown| serde_json::from_str::<Value>(shown).expect("JSON"));
        found(&report, &format!("typed.a{n}"), json!([{"k": come}]), json!([{"k": gone}]), json!([{"k": changed}]));
        let key = |k: &Value| json!([{"n": 1, "k": k}]);
        found(&report, &format!("typed.b{n}"), key(&come), key(&gone), key(&changed));
    }
}

/// A table of many ranges, and one whose keys sort otherwise than their bytes and are more than is held in memory.
fn large(mysql: &Mysql, database: &str, rows: u32) {
    mysql.run(&format!(
        "CREATE DATABASE {database}; USE {database}; SET cte_max_recursion_depth = 10000000;
         CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(1000)) CHARSET utf8mb4 COLLATE utf8mb4_bin;
         INSERT INTO t WITH RECURSIVE up AS (SELECT 0 AS n UNION ALL SELECT n + 1 FROM up WHERE n + 1 < {rows})
             SELECT n * 3, REPEAT(CHAR(97 + n % 26), 1000) FROM up;
         CREATE TABLE s (id VARCHAR(330) COLLATE utf8mb4_0900_ai_ci PRIMARY KEY, v INT);
         INSERT INTO s SELECT CONCAT(ELT(1 + id % 4, 'é', 'p', 'Q', 'e'), id, REPEAT('x', 300)), id FROM t WHERE id % 6 = 0;
         ANALYZE TABLE t, s"
    ));
}

#[test]
fn many_ranges_are_compared_and_a_sample_says_what_it_is_worth() {
    let mysql = &Mysql::start(&[]);
    large(mysql, "ranges", 400_000);
    let weir = Weir::new(&mysql.url, &["ranges.*"], "");
    weir.catch_up();
    let report = deep(&weir, 0, &[]);
    proven(&report);
    assert!(of(&report, "ranges.t")["ranges"].as_u64() > Some(1), "{report:#}");
    mysql.run("SET sql_log_bin = 0; USE ranges; DELETE FROM t WHERE id IN (0, 600000, 1199997); INSERT INTO t VALUES (1000000, 'x'); UPDATE s SET v = -1 WHERE v = 900");
    let report = deep(&weir, 3, &[]);
    found(
        &report,
        "ranges.t",
        json!([{"id": 1_000_000}]),
        json!([{"id": 0}, {"id": 600_000}, {"id": 1_199_997}]),
        json!([]),
    );
    found(&report, "ranges.s", json!([]), json!([]), json!([{"id": format!("é900{}", "x".repeat(300))}]));
    let scratch = weir.trace().with_file_name("scratch");
    assert_eq!(std::fs::read_dir(scratch).expect("a scratch file was written").count(), 0, "and is gone");
    let report: Value =
        serde_json::from_slice(&weir.output(&["reconcile", "--deep", "--sample", "30", "--format", "json"]).stdout)
            .unwrap();
    let sampled = of(&report, "ranges.t");
    let (ranges, compared) = (sampled["ranges"].as_u64().unwrap(), sampled["ranges_compared"].as_u64().unwrap());
    assert!(ranges > 3 && compared == (ranges * 3).div_ceil(10), "{sampled:#}");
    assert!(sampled["sample"]["differing_percent_found"].as_f64() > Some(10.0), "{sampled:#}");
    assert!(sampled["rows_source"].as_u64() < Some(250_000), "{sampled:#}");
}

#[test]
fn a_table_that_cannot_be_compared_says_why() {
    let mysql = &Mysql::start(&[]);
    mysql.run("CREATE DATABASE why; USE why; CREATE TABLE bare (a INT); INSERT INTO bare VALUES (1), (1); CREATE TABLE behind (id INT PRIMARY KEY)");
    let weir = Weir::new(&mysql.url, &["why.*"], &sections(&["why.bare"], "mode = \"append\""));
    weir.catch_up();
    let report = deep(&weir, 0, &[]);
    assert_eq!(report["verdict"], "balanced");
    assert!(of(&report, "why.bare")["not_compared"].to_string().contains("without a key"), "{report:#}");
    // Without a service nothing brings the lake on: what it lacks is in flight.
    mysql.run("INSERT INTO why.behind VALUES (1), (2), (3)");
    let report = deep(&weir, 0, &["--table", "why.behind"]);
    assert_eq!(report["verdict"], "in_flight");
    found(&report, "why.behind", json!([]), json!([]), json!([]));
    assert_eq!(of(&report, "why.behind")["in_flight_count"], 3, "{report:#}");
    weir.expect(2, &["reconcile", "--sample", "5"]);
    weir.expect(2, &["reconcile", "--deep", "--sample", "0"]);
}

#[test]
fn a_log_is_compared_by_its_newest_rows() {
    let mysql = &Mysql::start(&[]);
    mysql.run("CREATE DATABASE logged; USE logged; CREATE TABLE t (id INT PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)");
    let weir = Weir::new(&mysql.url, &["logged.*"], &sections(&["logged.t"], "mode = \"append\""));
    weir.catch_up();
    mysql.run("USE logged; UPDATE t SET v = 10 WHERE id = 1; UPDATE t SET id = 20 WHERE id = 2; DELETE FROM t WHERE id = 3; INSERT INTO t VALUES (3, 33)");
    weir.catch_up();
    proven(&deep(&weir, 0, &[]));
    mysql.run("SET sql_log_bin = 0; UPDATE logged.t SET v = 1 WHERE id = 1; DELETE FROM logged.t WHERE id = 20; INSERT INTO logged.t VALUES (2, 2)");
    let report = deep(&weir, 3, &[]);
    found(&report, "logged.t", json!([{"id": 2}]), json!([{"id": 20}]), json!([{"id": 1}]));
    assert!(report["tables"][0]["notices"].to_string().contains("TRUNCATE"), "{report:#}");
}

/// Deep reconcile again and again while the workload and the service are at work; gives how many keys were looked at again.
fn no_false_alarm(weir: &Weir, workload: &Workload<'_>) -> u64 {
    let mut writers = workload.live(25_000, &["--workers", "2", "--rate", "1000"]);
    let mut rechecked = 0;
    while writers.try_wait().expect("its state can be asked").is_none() {
        let report = deep(weir, 0, &[]);
        assert_ne!(report["verdict"], "different", "{report:#}");
        for table in report["tables"].as_array().expect("a report has tables") {
            assert_eq!(table["deep"].get("not_compared"), None, "{table:#}");
            rechecked += table["deep"]["rechecked"].as_u64().expect("a count");
        }
    }
    assert!(writers.wait().expect("the workload ends").success());
    rechecked
}

#[test]
fn beside_writers_nothing_is_called_different_and_what_is_is_found() {
    let mysql = &Mysql::start(&[]);
    let workload = Workload { mysql, database: "busy", seed: 52 };
    workload.create(8_000);
    mysql.run(
        "CREATE TABLE busy.quiet (id INT PRIMARY KEY, v INT); INSERT INTO busy.quiet VALUES (1, 1), (2, 2), (3, 3)",
    );
    let weir = Weir::new(&mysql.url, &["busy.*"], &sections(&["busy.t_varchar"], "mode = \"append\""));
    weir.catch_up();
    let service = weir.run();
    let rechecked = no_false_alarm(&weir, &workload);
    assert!(rechecked > 0, "nothing was in flight");
    // Among all that a real difference is told, in an idle table and in a busy one.
    mysql.run("SET sql_log_bin = 0; SET sql_mode = ''; UPDATE busy.quiet SET v = 9 WHERE id = 2; INSERT INTO busy.t_int (id, number, counter) VALUES (2000000001, -1, 0)");
    let write = |stop: &AtomicBool| {
        for n in 0.. {
            if stop.load(Ordering::Acquire) {
                return;
            }
            mysql.run(&format!(
                "UPDATE busy.t_int SET counter = {n} WHERE id < 50; UPDATE busy.quiet SET v = {n} WHERE id = 3"
            ));
        }
    };
    beside(write, || {
        let report = deep(&weir, 3, &["--table", "busy.quiet", "--table", "busy.t_int"]);
        found(&report, "busy.quiet", json!([]), json!([]), json!([{"id": 2}]));
        found(&report, "busy.t_int", json!([{"id": 2_000_000_001}]), json!([]), json!([]));
    });
    assert_eq!(service.terminate().0, Some(0));
}

#[test]
fn over_kafka_tables_are_compared_beside_writers_and_afterwards() {
    let mysql = &Mysql::start(&[]);
    let workload = Workload { mysql, database: "kdeep", seed: 53 };
    workload.create(3_000);
    let servers = (Kafka::shared(), Clickhouse::shared());
    let weir = Weir::over_kafka("deep", &mysql.url, &["kdeep.*"], servers, "");
    weir.catch_up();
    let service = weir.run();
    no_false_alarm(&weir, &workload);
    assert_eq!(service.terminate().0, Some(0));
    weir.catch_up();
    eventually("everything is in", Duration::from_secs(60), || deep(&weir, 0, &[])["verdict"] == "balanced");
    proven(&deep(&weir, 0, &[]));
    mysql.run("SET sql_log_bin = 0; DELETE FROM kdeep.t_auto ORDER BY id LIMIT 1");
    let report = deep(&weir, 3, &["--table", "kdeep.t_auto"]);
    assert_eq!(of(&report, "kdeep.t_auto")["extra_count"], 1, "{report:#}");
}
