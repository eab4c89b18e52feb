//! Tables of other modes, against their source: soft deletes keep what the source has deleted, marked; a log that is appended
//! to has every change once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::beside;
use crate::support::clickhouse::Clickhouse;
use crate::support::kafka::{Kafka, topic};
use crate::support::lake::{Workload, compare};
use crate::support::mysql::Mysql;
use crate::support::weir::{Weir, hops};

/// A `[[table]]` section for each table of `database`, and for one that its workload makes in the middle.
fn sections(mysql: &Mysql, database: &str, settings: &str) -> String {
    let names = mysql.value(&format!(
        "SELECT GROUP_CONCAT(table_name) FROM information_schema.tables WHERE table_schema = '{database}'"
    ));
    let section = |name: &str| format!("[[table]]\nname = \"{database}.{name}\"\n{settings}\n\n");
    names.split(',').chain(["t_late_1"]).map(section).collect()
}

/// Rows of `weir read`, by the values of these columns.
fn rows(weir: &Weir, table: &str, columns: &[&str]) -> Vec<serde_json::Value> {
    let names = columns.join(",");
    let printed = weir.expect(0, &["read", "--table", table, "--format", "jsonl", "--columns", names.as_str()]);
    let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("a line is JSON");
    let pick = |row: serde_json::Value| columns.iter().map(|name| row[*name].clone()).collect::<serde_json::Value>();
    let mut rows: Vec<serde_json::Value> = printed.stdout.lines().map(parse).map(pick).collect();
    rows.sort_by_key(ToString::to_string);
    rows
}

/// A service that is killed and started again while the writers are at work, and then ends in order.
fn run_beside(weir: &Weir, mut writers: std::process::Child) {
    for after_ms in [1_500, 2_500] {
        let service = weir.run();
        std::thread::sleep(Duration::from_millis(after_ms));
        service.kill();
    }
    let service = weir.run();
    assert!(writers.wait().expect("the workload ends").success());
    let (code, _) = service.terminate();
    assert_eq!(code, Some(0), "{}", service_log(weir));
    weir.catch_up();
}

fn service_log(weir: &Weir) -> String {
    std::fs::read_to_string(weir.config().with_file_name("run.log")).unwrap_or_default()
}

/// Rows of a report's tables that are of `kind`.
fn kinds(found: &serde_json::Value, kind: &str) -> u64 {
    found["tables"].as_array().unwrap().iter().filter_map(|table| table["kinds"][kind].as_u64()).sum()
}

#[test]
fn soft_deletes_keep_every_deleted_row_through_kills_truncation_and_loads() {
    let mysql = &Mysql::start(&[]);
    let workload = Workload { mysql, database: "soft", seed: 20_261_128 };
    workload.create(6_000);
    mysql.run("CREATE TABLE soft.gone (id INT PRIMARY KEY, v INT); INSERT INTO soft.gone VALUES (1, 1), (2, 2), (3, 3), (4, 4)");
    let weir = Weir::new(&mysql.url, &["soft.*"], &sections(mysql, "soft", "deletes = \"soft\""));
    run_beside(&weir, workload.live(25_000, &["--workers", "2", "--rate", "3000", "--ddl"]));
    let found = compare(mysql, &weir, "soft", &["--mode", "soft"]);
    assert!(kinds(&found, "deleted") > 500, "{found:#}");
    assert!(hops(&weir.balanced(), "deleted") > 500);

    // Last values: the image before the delete, not that of the load.
    let columns = ["id", "v", "_weir_deleted"];
    mysql.run("USE soft; UPDATE gone SET v = 30 WHERE id = 3; DELETE FROM gone WHERE id = 3; UPDATE gone SET id = 40, v = 41 WHERE id = 4");
    weir.catch_up();
    let expected = serde_json::json!([[1, 1, false], [2, 2, false], [3, 30, true], [4, 4, true], [40, 41, false]]);
    assert_eq!(serde_json::Value::from(rows(&weir, "soft.gone", &columns)), expected);

    // A row that comes back is live again; TRUNCATE marks all.
    mysql.run("USE soft; INSERT INTO gone VALUES (3, 33); TRUNCATE gone; INSERT INTO gone VALUES (2, 22)");
    weir.catch_up();
    let expected = serde_json::json!([[1, 1, true], [2, 22, false], [3, 33, true], [4, 4, true], [40, 41, true]]);
    assert_eq!(serde_json::Value::from(rows(&weir, "soft.gone", &columns)), expected);

    // Rows that go without events are marked by the load that does not find them.
    mysql.run("SET sql_log_bin = 0; DELETE FROM soft.gone WHERE id = 2; INSERT INTO soft.gone VALUES (1, 111)");
    weir.expect(0, &["snapshot", "--table", "soft.gone"]);
    let expected = serde_json::json!([[1, 111, false], [2, 22, true], [3, 33, true], [4, 4, true], [40, 41, true]]);
    assert_eq!(serde_json::Value::from(rows(&weir, "soft.gone", &columns)), expected);
    compare(mysql, &weir, "soft", &["--mode", "soft"]);
    weir.balanced();
}

#[test]
fn soft_deletes_over_kafka_keep_every_deleted_row() {
    let mysql = &Mysql::start(&[]);
    let workload = Workload { mysql, database: "ksoft", seed: 20_261_129 };
    workload.create(3_000);
    let servers = (Kafka::shared(), Clickhouse::shared());
    let weir = Weir::over_kafka("soft", &mysql.url, &["ksoft.*"], servers, "");
    weir.append_to_config(&sections(mysql, "ksoft", "deletes = \"soft\""));
    run_beside(&weir, workload.live(10_000, &["--rate", "2000"]));
    mysql.run("TRUNCATE ksoft.t_decimal");
    weir.catch_up();
    weir.expect(0, &["snapshot", "--table", "ksoft.t_int"]);
    let found = compare(mysql, &weir, "ksoft", &["--mode", "soft"]);
    assert!(kinds(&found, "deleted") > 100, "{found:#}");
    let report = weir.balanced();
    assert_eq!(hops(&report, "duplicate"), 0, "{report:#}");
}

/// Inserts rows into a table without a key, many of them alike, and deletes some, until it is told to stop.
fn write_keyless(mysql: &Mysql, table: &str, stop: &AtomicBool) {
    for n in 0.. {
        if stop.load(Ordering::Acquire) {
            return;
        }
        mysql.run(&format!(
            "INSERT INTO {table} VALUES ({0}, 'x'), ({0}, 'x'), ({n}, NULL); DELETE FROM {table} WHERE a = {1} LIMIT 1",
            n % 7,
            (n + 3) % 7
        ));
    }
}

/// Rows of a log that are changes of the stream.
fn streamed(found: &serde_json::Value) -> u64 {
    kinds(found, "c") + kinds(found, "u") + kinds(found, "d")
}

#[test]
fn a_log_has_every_change_once_and_comes_to_its_source() {
    let mysql = &Mysql::start(&[]);
    let workload = Workload { mysql, database: "log", seed: 20_261_130 };
    workload.create(5_000);
    mysql.run("CREATE TABLE log.bare (a INT, b VARCHAR(9)); INSERT INTO log.bare VALUES (1, 'x'), (1, 'x'), (2, NULL)");
    let weir = Weir::new(&mysql.url, &["log.*"], &sections(mysql, "log", "mode = \"append\""));
    // The table without a key is read while it is written.
    beside(
        |stop| write_keyless(mysql, "log.bare", stop),
        || {
            run_beside(&weir, workload.live(20_000, &["--workers", "2", "--rate", "2500", "--ddl"]));
            weir.expect(0, &["snapshot", "--table", "log.bare"]);
        },
    );
    weir.catch_up();
    let found = compare(mysql, &weir, "log", &["--mode", "append"]);
    let report = weir.balanced();
    assert_eq!(streamed(&found), hops(&report, "captured"), "{report:#}");
    assert_eq!(kinds(&found, "d"), hops(&report, "deleted"), "{report:#}");
    assert_eq!(hops(&report, "duplicate") + hops(&report, "superseded") + hops(&report, "stale"), 0, "{report:#}");

    // Loaded anew, it appends what it reads; the rest stays.
    let read = kinds(&found, "r");
    let rows: u64 = mysql.value("SELECT CAST(COUNT(*) AS CHAR) FROM log.t_int").parse().unwrap();
    weir.expect(0, &["snapshot", "--table", "log.t_int"]);
    let found = compare(mysql, &weir, "log", &["--mode", "append"]);
    assert_eq!((kinds(&found, "r"), streamed(&found)), (read + rows, hops(&report, "captured")));

    // TRUNCATE takes nothing out of a log.
    mysql.run("TRUNCATE log.t_int; DELETE FROM log.bare LIMIT 1");
    weir.catch_up();
    let found = compare(mysql, &weir, "log", &["--mode", "append", "--except-tables", "t_int"]);
    assert_eq!(streamed(&found) + in_log(&weir, "log.t_int"), hops(&report, "captured") + 1);
    weir.balanced();
}

/// Changes of the stream in the log of `table`.
fn in_log(weir: &Weir, table: &str) -> u64 {
    rows(weir, table, &["_weir_op"]).iter().filter(|row| row[0] != "r").count() as u64
}

#[test]
fn a_table_without_a_key_is_followed_without_a_load() {
    let mysql = &Mysql::start(&[]);
    mysql.run("CREATE DATABASE bare; USE bare; CREATE TABLE t (a INT, b VARCHAR(9)); CREATE TABLE u LIKE t");
    let weir = Weir::new(&mysql.url, &["bare.*"], &sections(mysql, "bare", "mode = \"append\""));
    weir.replace_in_config("tables = ", "snapshot = \"never\"\ntables = ");
    weir.catch_up();
    let service = weir.run();
    let (mut inserted, mut updated, mut deleted) = (0, 0, 0);
    for n in 0..40_u64 {
        // Rows that nobody could tell apart.
        mysql.run(
            "USE bare; INSERT INTO t VALUES (1, 'x'), (1, 'x'), (2, NULL); INSERT INTO u VALUES (7, 'y'), (7, 'y')",
        );
        (inserted, deleted) = (inserted + 5, deleted + 1);
        mysql.run("USE bare; DELETE FROM t WHERE a = 1 LIMIT 1");
        if n % 10 == 0 {
            mysql.run("USE bare; UPDATE u SET b = CONCAT(LEFT(b, 5), 'z')");
            updated += 2 * (n + 1);
        }
    }
    service.kill();
    mysql.run("INSERT INTO bare.t VALUES (9, 'last')");
    inserted += 1;
    weir.catch_up();
    let found = compare(mysql, &weir, "bare", &["--mode", "append", "--tables", "t"]);
    assert_eq!((kinds(&found, "r"), kinds(&found, "d")), (0, deleted));
    let of_u = rows(&weir, "bare.u", &["_weir_op"]);
    let count = |op: &str| of_u.iter().filter(|row| row[0] == op).count() as u64;
    assert_eq!((kinds(&found, "c") + count("c"), count("u"), count("d"), count("r")), (inserted, updated, 0, 0));
    let report = weir.balanced();
    let counted = (hops(&report, "upserted"), hops(&report, "deleted"), hops(&report, "captured"));
    assert_eq!(counted, (inserted + updated, deleted, inserted + updated + deleted), "{report:#}");
}

#[test]
fn a_log_over_kafka_has_every_change_once_though_messages_come_again() {
    let (mysql, kafka) = (&Mysql::start(&[]), Kafka::shared());
    let workload = Workload { mysql, database: "klog", seed: 20_261_201 };
    workload.create(2_000);
    mysql.run(
        "CREATE TABLE klog.bare (a INT, b VARCHAR(9)); INSERT INTO klog.bare VALUES (1, 'x'), (1, 'x'), (2, NULL)",
    );
    let weir = Weir::over_kafka("log", &mysql.url, &["klog.*"], (kafka, Clickhouse::shared()), "");
    weir.append_to_config(&sections(mysql, "klog", "mode = \"append\""));
    beside(
        |stop| write_keyless(mysql, "klog.bare", stop),
        || {
            run_beside(&weir, workload.live(8_000, &["--rate", "1500"]));
            weir.expect(0, &["snapshot", "--table", "klog.bare", "--table", "klog.t_int"]);
        },
    );
    weir.catch_up();
    let found = compare(mysql, &weir, "klog", &["--mode", "append"]);
    let report = weir.balanced();
    assert_eq!(streamed(&found), hops(&report, "captured"), "{report:#}");
    assert_eq!(hops(&report, "duplicate"), 0, "{report:#}");

    let copied = kafka.copy_messages(&topic(&weir.name, "klog", "t_auto"), None)
        + kafka.copy_messages(&topic(&weir.name, "klog", "bare"), Some(2));
    assert!(copied > 0);
    mysql.run("INSERT INTO klog.bare VALUES (5, 'after'); UPDATE klog.t_auto SET number = number + 1000000000");
    weir.catch_up();
    let found = compare(mysql, &weir, "klog", &["--mode", "append"]);
    let report = weir.balanced();
    assert_eq!(hops(&report, "duplicate"), copied, "{report:#}");
    assert_eq!(streamed(&found) + copied, hops(&report, "consumed"), "{report:#}");
}
