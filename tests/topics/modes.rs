//! Tables of other modes, against their source: soft deletes keep what the source has deleted, marked.

use std::time::Duration;

use crate::support::clickhouse::Clickhouse;
use crate::support::kafka::Kafka;
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
