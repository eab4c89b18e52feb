//! One transaction that is larger than `memory_max` passes in parts, through kills in the midst of it. Its size is `WEIR_HUGE_MIB`, 300
//! unless set. What the service took in memory is told, not judged.

use std::thread;
use std::time::Duration;

use crate::support::mysql::Mysql;
use crate::support::weir::{Weir, eventually};

/// A row is about this large in the binlog.
const ROW_BYTES: u64 = 1_000;
/// Rows of one statement.
const STEP: u64 = 20_000;

/// Statements of one transaction over `rows` rows: it makes them, changes some and takes some away.
fn transaction(rows: u64) -> Vec<String> {
    let inserts = (0..rows.div_ceil(STEP)).map(|step| {
        let (first, last) = (step * STEP + 1, ((step + 1) * STEP).min(rows));
        format!(
            "INSERT INTO huge.t SELECT n, n MOD 7, RANDOM_BYTES({ROW_BYTES}) FROM
             (WITH RECURSIVE numbers AS (SELECT {first} AS n UNION ALL SELECT n + 1 FROM numbers WHERE n < {last}) SELECT n FROM numbers) AS numbers"
        )
    });
    let mut statements = vec![format!("SET SESSION cte_max_recursion_depth = {}", STEP + 1), "BEGIN".to_owned()];
    statements.extend(inserts);
    statements.push("UPDATE huge.t SET kind = 8 WHERE id MOD 101 = 0".to_owned());
    statements.push("UPDATE huge.t SET id = id + 1000000000 WHERE id MOD 1009 = 0".to_owned());
    statements.push("DELETE FROM huge.t WHERE id MOD 103 = 0".to_owned());
    statements.push("INSERT INTO huge.beside VALUES (2, 'of the same transaction')".to_owned());
    statements.push("COMMIT".to_owned());
    statements
}

#[test]
fn a_transaction_larger_than_memory_passes_in_parts() {
    let mib = std::env::var("WEIR_HUGE_MIB").map_or(300, |text| text.parse::<u64>().expect("whole MiB"));
    let rows = mib * 1024 * 1024 / ROW_BYTES;
    let mysql = &Mysql::start(&["--innodb-buffer-pool-size=1G", "--innodb-redo-log-capacity=1G"]);
    mysql.run(
        "CREATE DATABASE huge; USE huge; CREATE TABLE t (id BIGINT PRIMARY KEY, kind TINYINT NOT NULL, filling VARBINARY(1000) NOT NULL);
         CREATE TABLE beside (id INT PRIMARY KEY, v VARCHAR(40)); INSERT INTO beside VALUES (1, 'before')",
    );
    let weir = Weir::new(&mysql.url, &["huge.*"], "");
    weir.catch_up();
    mysql.run(&transaction(rows).join(";\n"));
    mysql.run("INSERT INTO huge.beside VALUES (3, 'behind')");
    let expected = mysql.value("SELECT CAST(COUNT(*) AS CHAR) FROM huge.t");
    let mut peaks = Vec::new();
    // In the midst of it, once early and once later.
    for kill in 1..=2 {
        let service = weir.run();
        thread::sleep(Duration::from_millis(1_500 * kill));
        peaks.push(service.peak_mib());
        service.kill();
    }
    let service = weir.run_until_it_is_seen();
    eventually("the transaction is in", Duration::from_secs(60 + mib), || weir.has_rows("huge.beside", 3));
    peaks.push(service.peak_mib());
    assert_eq!(service.terminate().0, Some(0));
    weir.catch_up();
    let report = weir.expect(0, &["reconcile", "--deep", "--format", "json"]).json();
    assert_eq!(report["verdict"], "balanced", "{report:#}");
    let tables = report["tables"].as_array().expect("a report has tables");
    let table = tables.iter().find(|table| table["table"] == "huge.t").expect("the table is told of");
    assert_eq!(table["deep"]["rows_table"].to_string(), expected, "{table:#}");
    eprintln!("a transaction of {mib} MiB, {rows} rows: peaks of {peaks:?} MiB");
}
