//! What deep reconcile finds is mended by the very keys, or by a load where keys are not enough, and proven afterwards.

use serde_json::{Value, json};

use crate::support::lake::{assert_equal, foreign};
use crate::support::mysql::Mysql;
use crate::support::weir::Weir;

/// Tables with a few rows each.
fn small(mysql: &Mysql, database: &str, extra: &str) -> Weir {
    mysql.run(&format!(
        "CREATE DATABASE {database}; USE {database};
         CREATE TABLE n (id INT PRIMARY KEY, v VARCHAR(20), f DOUBLE, d DECIMAL(9,3));
         INSERT INTO n VALUES (1, 'a', 0.0, 1.005), (2, 'b', 1.5, 2.5), (3, '', -0.0, 0), (4, NULL, NULL, NULL), (5, 'e', 5e-324, 9);
         CREATE TABLE k (shop INT, code VARCHAR(20), kind ENUM('x', 'y'), v INT, PRIMARY KEY (shop, code, kind));
         INSERT INTO k VALUES (1, 'école', 'x', 1), (1, 'p', 'y', 2), (2, 'Zoo', 'x', 3)"
    ));
    let weir = Weir::new(&mysql.url, &[&format!("{database}.*")], extra);
    weir.catch_up();
    weir
}

/// The report of a repair, which must end with `code`.
fn repair(weir: &Weir, code: i32, more: &[&str]) -> Value {
    weir.expect(code, &[&["reconcile", "--deep", "--format", "json"], more].concat()).json()
}

fn of<'a>(report: &'a Value, table: &str) -> &'a Value {
    let tables = report["tables"].as_array().expect("a report has tables");
    &tables.iter().find(|entry| entry["table"] == table).unwrap_or_else(|| panic!("{table}: {report:#}"))["deep"]
}

fn silently(mysql: &Mysql, database: &str, statements: &str) {
    mysql.run(&format!("SET sql_log_bin = 0; USE {database}; {statements}"));
}

const AT_THE_SOURCE: &str = "UPDATE n SET v = 'a ' WHERE id = 1; DELETE FROM n WHERE id = 2; \
     UPDATE n SET v = '' WHERE id = 4; INSERT INTO n (id) VALUES (-7); UPDATE k SET code = 'École' WHERE code = 'école'; \
     DELETE FROM k WHERE code = 'Zoo'";

#[test]
fn keys_that_changed_behind_the_binlog_are_mended_and_nothing_else_is_read() {
    let mysql = &Mysql::start(&[]);
    let weir = small(mysql, "mend", "");
    silently(mysql, "mend", AT_THE_SOURCE);
    let planned = repair(&weir, 3, &["--dry-run"]);
    assert_eq!(of(&planned, "mend.n")["repair"], json!({"keys": 4}), "{planned:#}");
    let report = repair(&weir, 0, &["--repair"]);
    for (table, keys) in [("mend.n", 4), ("mend.k", 3)] {
        let repair = &of(&report, table)["repair"];
        assert_eq!((&repair["keys"], &repair["left_count"]), (&json!(keys), &json!(0)), "{report:#}");
    }
    assert_eq!(of(&report, "mend.n")["missing"], json!([{"id": -7}]));
    assert_equal(mysql, &weir, "mend");
    let again = repair(&weir, 0, &[]);
    assert_eq!(again["verdict"], "balanced", "{again:#}");
    let jobs = weir.expect(0, &["backfill", "list", "--format", "json"]).json();
    let rows: u64 = jobs.as_array().unwrap().iter().map(|job| job["rows"].as_u64().unwrap()).sum();
    // Of the seven keys three are gone from the source.
    assert_eq!(rows, 4, "{jobs:#}");
}

#[test]
fn a_running_service_mends_them_and_soft_deleted_rows_are_marked() {
    let mysql = &Mysql::start(&[]);
    let weir = small(mysql, "mendlive", "[[table]]\nname = \"mendlive.n\"\ndeletes = \"soft\"\n");
    silently(mysql, "mendlive", AT_THE_SOURCE);
    let service = weir.run_until_it_is_seen();
    let report = repair(&weir, 0, &["--repair"]);
    assert_eq!(report["verdict"], "balanced", "{report:#}");
    mysql.run("INSERT INTO mendlive.n (id) VALUES (77)");
    assert_eq!(service.terminate().0, Some(0));
    weir.catch_up();
    assert_eq!(repair(&weir, 0, &[])["verdict"], "balanced");
    let read = weir.expect(0, &["read", "--table", "mendlive.n", "--format", "jsonl", "--columns", "id,_weir_deleted"]);
    assert!(read.stdout.lines().any(|line| line == r#"{"id":2,"_weir_deleted":true}"#), "{}", read.stdout);
}

#[test]
fn what_others_did_to_the_lake_is_mended() {
    let mysql = &Mysql::start(&[]);
    let weir = small(mysql, "mendlake", "");
    foreign(&weir, "mendlake", "n", &["--delete", "id = 2"]);
    foreign(&weir, "mendlake", "n", &["--update", "v='x'", "--where", "id = 1"]);
    foreign(&weir, "mendlake", "n", &["--update", "v=NULL", "--where", "id = 5"]);
    foreign(&weir, "mendlake", "k", &["--update", "code='q'", "--where", "code = 'p'"]);
    let report = repair(&weir, 0, &["--repair"]);
    assert_eq!(report["verdict"], "balanced", "{report:#}");
    assert_equal(mysql, &weir, "mendlake");
}

#[test]
fn a_doubled_row_a_lost_file_and_a_lost_key_are_mended_by_a_load() {
    let mysql = &Mysql::start(&[]);
    let weir = small(mysql, "mendload", "");
    foreign(&weir, "mendload", "n", &["--double", "id = 3"]);
    let report = repair(&weir, 0, &["--repair", "--table", "mendload.n"]);
    assert_eq!(of(&report, "mendload.n")["different"], json!([{"id": 3}]), "{report:#}");
    assert_equal(mysql, &weir, "mendload");
    let folder = weir.warehouse().join("mendload/k");
    for entry in std::fs::read_dir(folder).expect("a table has a folder") {
        let path = entry.expect("a folder can be listed").path();
        if path.extension().is_some_and(|extension| extension == "parquet") {
            std::fs::remove_file(path).expect("the file is there");
        }
    }
    let report = repair(&weir, 0, &["--repair"]);
    assert_eq!(of(&report, "mendload.k")["repair"]["left_count"], 0, "{report:#}");
    assert_equal(mysql, &weir, "mendload");
    foreign(&weir, "mendload", "k", &["--null-key", "code"]);
    repair(&weir, 0, &["--repair"]);
    assert_equal(mysql, &weir, "mendload");
}
