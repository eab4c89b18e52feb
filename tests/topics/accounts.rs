//! The accounts: a fault in them is found and named, and they are filled again from the tables' own commits.

use std::time::Duration;

use crate::support::mysql::Mysql;
use crate::support::weir::{Weir, eventually};

/// On a server of its own: what others write would be in flight.
fn mirrored(database: &str) -> (Mysql, Weir) {
    let mysql = Mysql::start(&[]);
    mysql.run(&format!(
        "CREATE DATABASE {database}; CREATE TABLE {database}.t (id INT PRIMARY KEY, v INT); INSERT INTO {database}.t VALUES (1, 1)"
    ));
    let weir = Weir::new(&mysql.url, &[&format!("{database}.*")], "");
    weir.catch_up();
    mysql.run(&format!(
        "INSERT INTO {database}.t VALUES (2, 2), (3, 3); UPDATE {database}.t SET v = 9 WHERE id < 3; DELETE FROM {database}.t WHERE id = 3"
    ));
    weir.catch_up();
    (mysql, weir)
}

fn trace(weir: &Weir, statement: &str) -> usize {
    let trace = rusqlite::Connection::open(weir.trace()).unwrap();
    trace.execute(statement, []).unwrap()
}

#[test]
fn a_hop_whose_counts_are_lost_is_named_with_its_window_and_operation() {
    let (_mysql, weir) = mirrored("hoplost");
    let report = weir.expect(0, &["reconcile", "--format", "json"]).json();
    assert_eq!(report["verdict"], "balanced");
    let hops = &report["tables"][0]["hops"];
    assert_eq!((&hops["captured"], &hops["upserted"], &hops["deleted"]), (&5.into(), &2.into(), &1.into()), "{hops:#}");
    assert!(trace(&weir, "DELETE FROM weir_trace WHERE hop = 'consumed' AND op = 'u'") > 0);
    let report = weir.expect(3, &["reconcile", "--format", "json"]).json();
    assert_eq!(report["verdict"], "different");
    let unbalanced = report["tables"][0]["unbalanced"].as_array().unwrap();
    assert!(
        unbalanced
            .iter()
            .any(|u| u["between"] == serde_json::json!(["published", "consumed"]) && u["op"] == "u" && u["count"] == 2),
        "{report:#}"
    );
}

#[test]
fn a_trace_that_was_wiped_is_filled_again_from_the_tables() {
    let (_mysql, weir) = mirrored("wiped");
    let before = weir.expect(0, &["reconcile", "--format", "json"]).json();
    for suffix in ["", "-wal", "-shm"] {
        let mut file = weir.trace().into_os_string();
        file.push(suffix);
        let _ = std::fs::remove_file(file);
    }
    let after = weir.expect(0, &["reconcile", "--format", "json"]).json();
    assert_eq!(before["tables"], after["tables"]);
    assert_eq!(after["verdict"], "balanced");
}

#[test]
fn shipping_twice_counts_once() {
    let (_mysql, weir) = mirrored("twice");
    let before = weir.expect(0, &["reconcile", "--format", "json"]).json();
    for _ in 0..2 {
        weir.catch_up();
    }
    let after = weir.expect(0, &["reconcile", "--format", "json"]).json();
    assert_eq!(before["tables"], after["tables"]);
    assert!(trace(&weir, "UPDATE weir_trace SET count = count WHERE hop = 'captured'") > 0);
}

/// How many rows a table of the trace has.
fn rows(weir: &Weir, table: &str) -> i64 {
    let trace = rusqlite::Connection::open(weir.trace()).unwrap();
    trace.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[test]
fn the_service_folds_old_minutes_and_the_report_stays_as_it_was() {
    let (mysql, weir) = mirrored("folded");
    let days_ago = |days: i64| (weir_model::clock::now_ms() - days * 86_400_000) * 1_000;
    // Two days with changes, as a replica has them of its source.
    for days in [3, 2] {
        mysql.run(&format!(
            "SET @@SESSION.original_commit_timestamp = {}; UPDATE folded.t SET v = v + {days}; INSERT INTO folded.t VALUES ({days}0, 0)",
            days_ago(days)
        ));
        weir.catch_up();
    }
    let before = weir.balanced();
    let service = weir.run();
    eventually("old minutes are folded", Duration::from_secs(60), || rows(&weir, "weir_trace_days") > 0);
    let folded = |weir: &Weir| {
        let trace = rusqlite::Connection::open(weir.trace()).unwrap();
        let sql = format!("SELECT count(*) FROM weir_trace WHERE window_ms < {}", days_ago(1) / 1_000);
        trace.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap() == 0
    };
    eventually("both days are", Duration::from_secs(60), || folded(&weir));
    assert_eq!(service.terminate().0, Some(0));
    let after = weir.balanced();
    for member in ["hops", "chunks", "unbalanced"] {
        assert_eq!(after["tables"][0][member], before["tables"][0][member], "{after:#}");
    }
    // Filled again from the commits, it says the same.
    for suffix in ["", "-wal", "-shm"] {
        let mut file = weir.trace().into_os_string();
        file.push(suffix);
        let _ = std::fs::remove_file(file);
    }
    assert_eq!(weir.balanced()["tables"], after["tables"]);
}
