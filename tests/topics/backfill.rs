//! Parts of tables read again: beside a running service and without one, at random, through kills.

use std::time::Duration;

use serde_json::Value;

use crate::support::lake::{Workload, assert_equal};
use crate::support::mysql::Mysql;
use crate::support::weir::{Running, Weir, eventually};

/// What happened behind the stream's back: rows without row events.
fn unlogged(mysql: &Mysql, statements: &str) {
    mysql.run(&format!("SET sql_log_bin = 0; {statements}"));
}

/// The job of this id, as `backfill list` shows it.
fn job(weir: &Weir, id: &str) -> Value {
    let jobs = weir.expect(0, &["backfill", "list", "--format", "json"]).json();
    let jobs = jobs.as_array().expect("a list").clone();
    jobs.into_iter().find(|job| job["id"] == id).unwrap_or_else(|| panic!("no job {id}"))
}

#[test]
fn a_range_without_a_service_is_made_equal_and_nothing_else_is_touched() {
    let mysql = Mysql::shared();
    mysql.run("CREATE DATABASE bf_range");
    mysql.run("CREATE TABLE bf_range.t (id INT PRIMARY KEY, v VARCHAR(20))");
    mysql.run(&format!("INSERT INTO bf_range.t VALUES {}", values(1..=400)));
    let weir = Weir::new(&mysql.url, &["bf_range.*"], "");
    weir.catch_up();
    // One in the range of each, and one outside of it.
    unlogged(
        mysql,
        "UPDATE bf_range.t SET v = 'changed' WHERE id IN (50, 250); DELETE FROM bf_range.t WHERE id IN (51, 251); \
         INSERT INTO bf_range.t VALUES (1001, 'new')",
    );
    weir.expect(0, &["backfill", "--table", "bf_range.t", "--from", "40", "--to", "51"]);
    let read = weir.expect(0, &["read", "--table", "bf_range.t", "--format", "jsonl", "--columns", "id,v"]).stdout;
    let rows: Vec<Value> = read.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let v = |id: i64| rows.iter().find(|row| row["id"] == id).map(|row| row["v"].as_str().unwrap().to_owned());
    assert_eq!((v(50).as_deref(), v(51)), (Some("changed"), None));
    assert_eq!((v(250).as_deref(), v(251).as_deref(), v(1001)), (Some("v250"), Some("v251"), None));
    weir.expect(0, &["backfill", "--table", "bf_range.t"]);
    assert_equal(mysql, &weir, "bf_range");
    weir.expect(0, &["reconcile"]);
}

#[test]
fn keys_of_every_shape_are_read_again_one_by_one() {
    let mysql = Mysql::shared();
    mysql.run("CREATE DATABASE bf_keys");
    mysql.run("CREATE TABLE bf_keys.two (a INT, b VARCHAR(20) COLLATE utf8mb4_0900_ai_ci, v INT, PRIMARY KEY (a, b))");
    mysql.run("INSERT INTO bf_keys.two VALUES (1, 'école', 1), (1, 'zebra', 1), (2, 'x,y', 1), (2, 'Q', 1)");
    mysql.run("CREATE TABLE bf_keys.bin (k BINARY(4) PRIMARY KEY, v INT)");
    mysql.run("INSERT INTO bf_keys.bin VALUES (x'00ff0000', 1), (x'ff', 1)");
    mysql.run("CREATE TABLE bf_keys.at (k DATETIME(3) PRIMARY KEY, v INT)");
    mysql.run("INSERT INTO bf_keys.at VALUES ('2026-11-21 03:00:00.125', 1), ('2026-11-22 00:00:00', 1)");
    let weir = Weir::new(&mysql.url, &["bf_keys.*"], "");
    weir.catch_up();
    unlogged(
        mysql,
        "UPDATE bf_keys.two SET v = 2; DELETE FROM bf_keys.two WHERE b = 'Q'; UPDATE bf_keys.bin SET v = 2",
    );
    unlogged(mysql, "DELETE FROM bf_keys.at WHERE k < '2026-11-22'; UPDATE bf_keys.at SET v = 2");
    let two = ["[1, \"école\"]", "{\"a\": 1, \"b\": \"zebra\"}", "[2, \"x,y\"]", "[2, \"Q\"]"];
    let mut arguments = vec!["backfill", "--table", "bf_keys.two"];
    two.iter().for_each(|key| arguments.extend(["--key", key]));
    weir.expect(0, &arguments);
    weir.expect(0, &["backfill", "--table", "bf_keys.bin", "--key", "00ff0000", "--key", "ff000000"]);
    let at = ["--key", "2026-11-21 03:00:00.125", "--key", "2026-11-22"];
    weir.expect(0, &[&["backfill", "--table", "bf_keys.at"][..], &at[..]].concat());
    assert_equal(mysql, &weir, "bf_keys");
    weir.expect(0, &["reconcile"]);
}

#[test]
fn texts_are_ranges_by_their_collation() {
    let mysql = Mysql::shared();
    mysql.run("CREATE DATABASE bf_text");
    mysql.run("CREATE TABLE bf_text.t (k VARCHAR(20) COLLATE utf8mb4_0900_ai_ci PRIMARY KEY, v INT)");
    mysql.run("INSERT INTO bf_text.t VALUES ('école', 1), ('Eclair', 1), ('fog', 1), ('p', 1), ('Zoo', 1), ('dog', 1)");
    let weir = Weir::new(&mysql.url, &["bf_text.*"], "");
    weir.catch_up();
    // By bytes `école` lies above all of them; by its collation between the bounds.
    unlogged(mysql, "DELETE FROM bf_text.t WHERE k = 'école'; UPDATE bf_text.t SET v = 2 WHERE k IN ('Eclair', 'fog')");
    weir.expect(0, &["backfill", "--table", "bf_text.t", "--from", "e", "--to", "g"]);
    assert_equal(mysql, &weir, "bf_text");
}

#[test]
fn every_mode_and_layout_is_backfilled() {
    let mysql = Mysql::shared();
    mysql.run("CREATE DATABASE bf_modes");
    let tables = ["soft", "copied", "parted", "log"];
    for table in tables {
        mysql.run(&format!("CREATE TABLE bf_modes.{table} (id INT PRIMARY KEY, v VARCHAR(20))"));
        mysql.run(&format!("INSERT INTO bf_modes.{table} VALUES {}", values(1..=60)));
    }
    let weir = Weir::new(
        &mysql.url,
        &["bf_modes.*"],
        "[[table]]\nname = \"bf_modes.soft\"\ndeletes = \"soft\"\n\
         [[table]]\nname = \"bf_modes.copied\"\nstorage = \"copy-on-write\"\n\
         [[table]]\nname = \"bf_modes.parted\"\npartition_by = [\"b = bucket(3, id)\"]\n\
         [[table]]\nname = \"bf_modes.log\"\nmode = \"append\"\n",
    );
    weir.catch_up();
    for table in tables {
        let name = format!("bf_modes.{table}");
        unlogged(mysql, &format!("UPDATE {name} SET v = 'changed' WHERE id = 7; DELETE FROM {name} WHERE id = 8"));
        weir.expect(0, &["backfill", "--table", &name, "--from", "5", "--to", "10"]);
    }
    let rows = |table: &str, columns: &str| -> Vec<Value> {
        let name = format!("bf_modes.{table}");
        let read = weir.expect(0, &["read", "--table", &name, "--format", "jsonl", "--columns", columns]).stdout;
        read.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    for table in ["copied", "parted"] {
        let rows = rows(table, "id,v");
        assert_eq!(rows.len(), 59, "{table}");
        assert!(rows.iter().any(|row| row["id"] == 7 && row["v"] == "changed"), "{table}");
        assert!(rows.iter().all(|row| row["id"] != 8), "{table}");
    }
    let soft = rows("soft", "id,v,_weir_deleted");
    assert_eq!(soft.len(), 60);
    for row in &soft {
        assert_eq!(row["_weir_deleted"], row["id"] == 8, "{row}");
    }
    // What a load does not find leaves no row in a log; what it reads is a row more each.
    let log = rows("log", "id,v,_weir_op");
    assert_eq!(log.len(), 65);
    weir.expect(0, &["reconcile"]);
}

#[test]
fn a_running_service_takes_jobs_beside_changes_and_tells_of_them() {
    let mysql = Mysql::shared();
    let workload = Workload { mysql, database: "bf_live", seed: 77 };
    workload.create(8_000);
    let weir = Weir::new(&mysql.url, &["bf_live.*"], "");
    let mut writers = workload.live(30_000, &["--rate", "2000"]);
    let service = weir.run();
    let tables: Vec<String> = lake_tables(mysql, "bf_live");
    eventually("every table streams", Duration::from_secs(120), || all_stream(&weir));
    for table in &tables {
        let asked = weir.expect(0, &["backfill", "--table", table, "--wait"]);
        assert!(!asked.stdout.trim().is_empty(), "{}", asked.stderr);
    }
    assert!(writers.wait().expect("the workload ends").success());
    assert_eq!(service.terminate().0, Some(0));
    weir.catch_up();
    assert_equal(mysql, &weir, "bf_live");
    weir.expect(0, &["reconcile"]);
    for table in &tables {
        let jobs = weir.expect(0, &["backfill", "list", "--format", "json"]).json();
        let of_table = jobs.as_array().unwrap().iter().filter(|job| job["table"] == table.as_str());
        assert!(of_table.clone().all(|job| job["state"] == "done" && job["chunks_done"] == job["chunks"]), "{jobs:#}");
        assert_eq!(of_table.count(), 1);
    }
}

#[test]
fn a_job_survives_kills_and_one_that_is_under_way_is_refused() {
    let mysql = Mysql::shared();
    fill_a_large_table(mysql, "bf_kills");
    let weir = Weir::new(&mysql.url, &["bf_kills.*"], "");
    weir.catch_up();
    read_slowly(&weir);
    unlogged(mysql, "DELETE FROM bf_kills.t WHERE id % 1000 = 7; UPDATE bf_kills.t SET v = 'y' WHERE id % 1000 = 8");
    let service = weir.run_until_it_is_seen();
    let id = ask(&weir, &["backfill", "--table", "bf_kills.t"]);
    let refused = weir.expect(1, &["backfill", "--table", "bf_kills.t"]);
    assert!(refused.stderr.contains(&id), "{}", refused.stderr);
    let mut service = Some(service);
    for kill in 0..6 {
        std::thread::sleep(Duration::from_millis(2_500 + 400 * kill));
        service.take().into_iter().for_each(Running::kill);
        if job(&weir, &id)["state"] == "done" {
            break;
        }
        service = Some(weir.run_until_it_is_seen());
    }
    drop(service);
    weir.catch_up();
    assert_eq!(job(&weir, &id)["state"], "done");
    assert_equal(mysql, &weir, "bf_kills");
    weir.expect(0, &["reconcile"]);
}

#[test]
fn a_cancelled_job_ends_and_the_table_streams_on() {
    let mysql = Mysql::shared();
    fill_a_large_table(mysql, "bf_cancel");
    let weir = Weir::new(&mysql.url, &["bf_cancel.*"], "");
    weir.catch_up();
    read_slowly(&weir);
    let service = weir.run_until_it_is_seen();
    let id = ask(&weir, &["backfill", "--table", "bf_cancel.t"]);
    eventually("it is under way", Duration::from_secs(30), || job(&weir, &id)["state"] == "running");
    weir.expect(0, &["backfill", "cancel", &id]);
    eventually("it has ended", Duration::from_secs(30), || job(&weir, &id)["ended_at"] != Value::Null);
    assert_eq!(job(&weir, &id)["state"], "cancelled");
    mysql.run("INSERT INTO bf_cancel.t (v) VALUES ('b')");
    // It is not in the way of the next one.
    weir.expect(0, &["backfill", "--table", "bf_cancel.t", "--from", "5", "--to", "50", "--wait"]);
    assert_eq!(service.terminate().0, Some(0));
    weir.catch_up();
    assert_equal(mysql, &weir, "bf_cancel");
}

#[test]
fn a_running_service_loads_a_table_anew_and_takes_up_one_that_stopped() {
    let mysql = Mysql::shared();
    mysql.run("CREATE DATABASE bf_anew; CREATE TABLE bf_anew.a (id INT PRIMARY KEY, v INT)");
    mysql.run("CREATE TABLE bf_anew.b (id INT PRIMARY KEY, v INT)");
    mysql.run("INSERT INTO bf_anew.a VALUES (1, 1); INSERT INTO bf_anew.b VALUES (1, 1)");
    let weir = Weir::new(&mysql.url, &["bf_anew.*"], "");
    let mut service = weir.run();
    eventually("every table streams", Duration::from_secs(60), || all_stream(&weir));
    // A type that cannot be followed.
    mysql.run("ALTER TABLE bf_anew.a MODIFY v VARCHAR(20); INSERT INTO bf_anew.a VALUES (2, 'text')");
    eventually("the table has stopped", Duration::from_secs(30), || {
        weir.output(&["status", "--format", "json"]).stdout.windows(7).any(|bytes| bytes == b"stopped")
    });
    let stopped = weir.expect(1, &["backfill", "--table", "bf_anew.a", "--wait"]);
    assert!(stopped.stderr.contains("weir snapshot --table bf_anew.a"), "{}", stopped.stderr);
    weir.expect(0, &["snapshot", "--table", "bf_anew.a"]);
    mysql.run("INSERT INTO bf_anew.a VALUES (3, 'more'); INSERT INTO bf_anew.b VALUES (2, 2)");
    assert!(service.is_running());
    assert_eq!(service.terminate().0, Some(0));
    weir.catch_up();
    assert_equal(mysql, &weir, "bf_anew");
    weir.expect(0, &["reconcile"]);
}

#[test]
fn a_running_service_carries_out_what_is_due_each_minute() {
    let mysql = Mysql::shared();
    mysql.run("CREATE DATABASE sch_due; CREATE TABLE sch_due.t (id INT PRIMARY KEY, v INT)");
    mysql.run("INSERT INTO sch_due.t VALUES (1, 1), (2, 2), (3, 3)");
    let every_minute = "[[backfill]]\nname = \"every\"\ntable = \"sch_due.t\"\ncron = \"* * * * *\"\nfrom = 2\n";
    let weir = Weir::new(&mysql.url, &["sch_due.*"], every_minute);
    weir.catch_up();
    mysql.run("SET sql_log_bin = 0; UPDATE sch_due.t SET v = 20 WHERE id = 2; DELETE FROM sch_due.t WHERE id = 3");
    let service = weir.run();
    let of_schedule = || {
        let jobs = weir.expect(0, &["backfill", "list", "--format", "json"]).json();
        jobs.as_array().expect("a list").iter().filter(|job| job["state"] == "done").count()
    };
    eventually("a run of the schedule is done", Duration::from_secs(100), || of_schedule() > 0);
    assert_eq!(service.terminate().0, Some(0));
    weir.catch_up();
    assert_equal(mysql, &weir, "sch_due");
    let listed = weir.expect(0, &["schedule", "list"]).stdout;
    assert!(listed.contains("every") && listed.contains("done"), "{listed}");
}

/// Asks for a job and gives its id.
fn ask(weir: &Weir, arguments: &[&str]) -> String {
    weir.expect(0, arguments).stdout.trim().to_owned()
}

fn all_stream(weir: &Weir) -> bool {
    let status = weir.output(&["status", "--format", "json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
    let tables = status["tables"].as_array().cloned().unwrap_or_default();
    !tables.is_empty() && tables.iter().all(|table| table["phase"] == "streaming")
}

fn lake_tables(mysql: &Mysql, database: &str) -> Vec<String> {
    let query = format!(
        "SELECT GROUP_CONCAT(CONCAT(table_schema, '.', table_name)) FROM information_schema.tables \
         WHERE table_schema = '{database}'"
    );
    mysql.value(&query).split(',').map(str::to_owned).collect()
}

/// From the next start on a large table takes a quarter of a minute.
fn read_slowly(weir: &Weir) {
    weir.replace_in_config("[source]\n", "[source]\nrows_per_second_max = 50000\n");
}

/// A table `t` of so many rows that reading it takes seconds.
fn fill_a_large_table(mysql: &Mysql, database: &str) {
    mysql.run(&format!("CREATE DATABASE {database}"));
    mysql.run(&format!("CREATE TABLE {database}.t (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(200))"));
    let fill = format!("INSERT INTO {database}.t (v) SELECT REPEAT('x', 150) FROM");
    mysql.run(&format!("{fill} information_schema.columns LIMIT 3000"));
    for _ in 0..8 {
        mysql.run(&format!("{fill} {database}.t"));
    }
}

/// `(1, 'v1'), …`
fn values(ids: std::ops::RangeInclusive<i64>) -> String {
    ids.map(|id| format!("({id}, 'v{id}')")).collect::<Vec<_>>().join(", ")
}
