//! The accounts: a fault in them is found and named, and they are filled again from the tables' own commits.

use crate::support::mysql::Mysql;
use crate::support::weir::Weir;

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
