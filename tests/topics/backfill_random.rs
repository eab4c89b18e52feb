//! Loads and backfills against chance: random ranges during random changes, and a first load that is killed again and again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::beside;
use crate::support::clickhouse::Clickhouse;
use crate::support::kafka::Kafka;
use crate::support::lake::{Workload, assert_equal};
use crate::support::mysql::Mysql;
use crate::support::random::Random;
use crate::support::weir::{Running, Weir, eventually};

const IDS: u64 = 600;

/// Kills of a service while it loads a table.
const KILLS: u64 = 8;

/// Statements on a few rows, keys that change among them.
fn change(random: &mut Random, table: &str) -> String {
    let (id, other, v) = (random.below(IDS), random.below(IDS), random.below(1_000_000));
    match random.below(10) {
        0..=3 => format!("REPLACE INTO {table} VALUES ({id}, {v})"),
        4..=6 => format!("UPDATE {table} SET v = {v} WHERE id BETWEEN {id} AND {id} + 3"),
        7 => format!("UPDATE IGNORE {table} SET id = {other} WHERE id = {id}"),
        _ => format!("DELETE FROM {table} WHERE id = {id}"),
    }
}

fn write(mysql: &Mysql, table: &str, seed: u64, stop: &AtomicBool) {
    let mut random = Random::new(seed);
    while !stop.load(Ordering::Acquire) {
        let count = 1 + random.below(12);
        let statements: Vec<String> = (0..count).map(|_| change(&mut random, table)).collect();
        mysql.run(&format!("BEGIN; {}; COMMIT", statements.join("; ")));
    }
}

#[test]
fn random_backfills_beside_random_changes_never_step_back() {
    let mysql = Mysql::shared();
    mysql.run("CREATE DATABASE bf_random; CREATE TABLE bf_random.t (id INT PRIMARY KEY, v INT)");
    let weir = Weir::new(&mysql.url, &["bf_random.*"], "");
    weir.catch_up();
    let seed = 20_261_128;
    eprintln!("changes and backfills of seed {seed}");
    let mut random = Random::new(seed);
    let mut service = Some(weir.run_until_it_is_seen());
    beside(
        |stop| write(mysql, "bf_random.t", seed + 1, stop),
        || {
            for nth in 0..14 {
                let (a, b) = (random.below(IDS), random.below(IDS));
                let (from, to) = (a.min(b).to_string(), a.max(b).to_string());
                let asked = match random.below(3) {
                    0 => vec!["--key", &from, "--key", &to],
                    1 => vec!["--from", &from, "--to", &to],
                    _ => vec!["--from", &from],
                };
                // A row that goes behind the stream's back must go from the lake with the next backfill of its range.
                weir.expect(0, &[&["backfill", "--table", "bf_random.t", "--wait"][..], &asked].concat());
                if nth == 6 {
                    service.take().into_iter().for_each(Running::kill);
                    service = Some(weir.run_until_it_is_seen());
                }
            }
        },
    );
    assert_eq!(service.take().map(|service| service.terminate().0), Some(Some(0)));
    weir.catch_up();
    assert_equal(mysql, &weir, "bf_random");
    weir.expect(0, &["reconcile"]);
    never_steps_back(&weir, "bf_random.t");
}

#[test]
fn parts_of_a_table_that_several_processes_share_are_loaded_while_they_come_and_go() {
    let mysql = &Mysql::start(&[]);
    mysql.run("CREATE DATABASE bf_group; CREATE TABLE bf_group.t (id INT PRIMARY KEY, v INT)");
    let ids: Vec<String> = (0..IDS).map(|id| format!("({id}, 0)")).collect();
    mysql.run(&format!("INSERT INTO bf_group.t VALUES {}", ids.join(", ")));
    let servers = (Kafka::shared(), Clickhouse::shared());
    let weir = Weir::over_kafka("bfgroup", &mysql.url, &["bf_group.*"], servers, "");
    weir.catch_up();
    let capture = weir.capture();
    let mut applies: Vec<Running> = (1..=2).map(|ordinal| weir.apply(ordinal)).collect();
    eventually("capture is seen", Duration::from_secs(60), || {
        let status = weir.output(&["status", "--format", "json"]).stdout;
        serde_json::from_slice::<Value>(&status).is_ok_and(|status| status["running"] == true)
    });
    let seed = 91;
    eprintln!("changes and backfills of seed {seed}");
    let mut random = Random::new(seed);
    beside(
        |stop| write(mysql, "bf_group.t", seed + 1, stop),
        || {
            for nth in 0..8 {
                let (a, b) = (random.below(IDS), random.below(IDS));
                let (from, to) = (a.min(b).to_string(), a.max(b).to_string());
                if nth % 3 == 1 {
                    applies.remove(0).kill();
                    applies.push(weir.apply(nth + 3));
                }
                weir.expect(0, &["backfill", "--table", "bf_group.t", "--from", &from, "--to", &to, "--wait"]);
            }
        },
    );
    // What goes behind the binlog's back goes from every bucket.
    mysql.run(
        "SET sql_log_bin = 0; DELETE FROM bf_group.t WHERE id % 7 = 3; UPDATE bf_group.t SET v = -1 WHERE id % 7 = 4",
    );
    weir.expect(0, &["backfill", "--table", "bf_group.t", "--wait"]);
    assert_eq!(capture.terminate().0, Some(0));
    weir.expect(0, &["capture", "--until-caught-up"]);
    applies.into_iter().for_each(|apply| assert_eq!(apply.terminate().0, Some(0)));
    assert_equal(mysql, &weir, "bf_group");
    weir.expect(0, &["reconcile", "--deep"]);
    never_steps_back(&weir, "bf_group.t");
}

/// In no version has a row a lower order than in one before.
fn never_steps_back(weir: &Weir, table: &str) {
    let described = weir.expect(0, &["table", "describe", table, "--format", "json"]).json();
    let newest = described["version"].as_i64().expect("a version");
    assert!(newest > 20, "{newest} versions say little");
    let mut greatest: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for version in 0..=newest {
        let version_text = version.to_string();
        let columns = "id,_weir_ts_ms,_weir_seq";
        let arguments =
            ["read", "--table", table, "--version", &version_text, "--format", "jsonl", "--columns", columns];
        for line in weir.expect(0, &arguments).stdout.lines() {
            let row: Value = serde_json::from_str(line).expect("a row");
            let number = |name: &str| row[name].as_i64().expect("a number");
            let (id, order) = (number("id"), (number("_weir_ts_ms"), number("_weir_seq")));
            let before = greatest.insert(id, order);
            assert!(before <= Some(order), "row {id} steps back in version {version}: {before:?} to {order:?}");
        }
    }
}

#[test]
fn a_first_load_goes_on_where_it_was_killed() {
    let mysql = &Mysql::start(&[]);
    mysql.run("CREATE DATABASE lk; CREATE TABLE lk.t (id INT PRIMARY KEY AUTO_INCREMENT, a BIGINT, v VARCHAR(120))");
    let fill = "INSERT INTO lk.t (a, v) SELECT RAND() * 1e9, REPEAT('x', 90) FROM";
    mysql.run(&format!("{fill} information_schema.columns LIMIT 3000"));
    for _ in 0..8 {
        mysql.run(&format!("{fill} lk.t"));
    }
    mysql.run("ANALYZE TABLE lk.t");
    let rows: u64 = mysql.value("SELECT CAST(COUNT(*) AS CHAR) FROM lk.t").parse().unwrap();
    let read = || -> u64 {
        let query = "SELECT CAST(variable_value AS CHAR) FROM performance_schema.global_status WHERE variable_name = 'Innodb_rows_read'";
        mysql.value(query).parse().unwrap()
    };
    let before = read();
    let weir = Weir::new(&mysql.url, &["lk.*"], "");
    let mut random = Random::new(4);
    let (started, mut kills) = (Instant::now(), 0_u64);
    while kills < KILLS {
        let service = weir.run();
        std::thread::sleep(Duration::from_millis(1_500 + random.below(1_500)));
        service.kill();
        kills += 1;
    }
    weir.catch_up();
    let again = (read() - before).saturating_sub(rows);
    eprintln!("{rows} rows, {kills} kills within {:?}: {again} rows read again", started.elapsed());
    assert_equal(mysql, &weir, "lk");
    // At most what each of four connections was at when it was killed, a chunk of 200,000 rows and half as many more; and the
    // index, which is walked to plan a load, as long as none has been announced.
    assert!(again <= kills * (4 * 300_000 + rows), "{again}");
    weir.expect(0, &["reconcile"]);
}

#[test]
fn a_table_that_is_loaded_under_changes_ends_equal_and_the_stream_keeps_up() {
    let mysql = Mysql::shared();
    let workload = Workload { mysql, database: "bf_load", seed: 31 };
    workload.create(20_000);
    let weir = Weir::new(&mysql.url, &["bf_load.*"], "");
    let mut writers = workload.live(24_000, &["--rate", "2000"]);
    let service = weir.run();
    let mut lag_max = 0;
    eventually("the writers are done", Duration::from_secs(120), || {
        let status = weir.output(&["status", "--format", "json"]);
        let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        let lags = status["tables"].as_array().into_iter().flatten().filter_map(|table| table["lag_ms"].as_i64());
        lag_max = lags.fold(lag_max, i64::max);
        writers.try_wait().expect("its state can be asked").is_some()
    });
    eprintln!("greatest lag while the tables were loaded and changed: {lag_max} ms");
    assert_eq!(service.terminate().0, Some(0));
    weir.catch_up();
    assert_equal(mysql, &weir, "bf_load");
    weir.expect(0, &["reconcile"]);
}
