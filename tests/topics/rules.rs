//! Row rules: columns that the lake does not get, or gets hashed or masked, by load and by stream alike, and rules that change.

use std::time::Duration;

use serde_json::Value;

use crate::support::clickhouse::Clickhouse;
use crate::support::http::{address, get};
use crate::support::kafka::Kafka;
use crate::support::mysql::Mysql;
use crate::support::weir::{Weir, eventually};

const LIMIT: Duration = Duration::from_secs(90);

/// Hashed in front of every value.
const SALT: &str = "pepper:1";

fn section(database: &str, rules: &str) -> String {
    format!("\n[[table]]\nname = \"{database}.people\"\n{rules}\n")
}

const FIRST: &str = "exclude_columns = [\"note\"]\nhash_columns = [\"email\", \"ssn\"]\nmask_columns = { name = \"***\" }\nnull_columns = [\"born\"]";
const SECOND: &str = "include_columns = [\"email\", \"name\", \"born\"]\nhash_columns = [\"email\"]";

fn create(mysql: &Mysql, database: &str) {
    mysql.run(&format!(
        "CREATE DATABASE {database} DEFAULT CHARSET utf8mb4;
         CREATE TABLE {database}.people (id INT PRIMARY KEY, name VARCHAR(50), email VARCHAR(90), ssn BIGINT, born DATE, note TEXT);
         CREATE TABLE {database}.other (id INT PRIMARY KEY, v INT);
         INSERT INTO {database}.other VALUES (1, 1);
         INSERT INTO {database}.people VALUES
            (1, 'Ann', 'ann@example.org', 1234567890123, '1980-02-29', 'one'), (2, 'Bob', NULL, -5, NULL, NULL),
            (3, 'Åsa', 'åsa@example.org', NULL, '2001-01-01', 'three'), (4, NULL, '', 0, '1999-12-31', '')"
    ));
}

/// Changes of every kind, whole and partial images.
fn change(mysql: &Mysql, database: &str, step: u32) {
    mysql.run(&format!(
        "INSERT INTO {database}.people VALUES ({step}0, 'New', 'new{step}@example.org', {step}, '2020-02-02', 'x');
         UPDATE {database}.people SET email = 'changed{step}@example.org', note = 'y' WHERE id = 1;
         SET SESSION binlog_row_image = MINIMAL;
         UPDATE {database}.people SET note = 'only{step}' WHERE id = 3;
         UPDATE {database}.people SET ssn = {step} WHERE id = 2;
         INSERT INTO {database}.people (id, email) VALUES ({step}1, 'few{step}@example.org');
         UPDATE {database}.people SET id = {step}2 WHERE id = {step}0;
         SET SESSION binlog_row_image = FULL;
         DELETE FROM {database}.people WHERE id = 4"
    ));
}

/// The rows of the lake, by key.
fn rows(weir: &Weir, database: &str) -> Vec<Value> {
    let read = weir.output(&["read", "--table", &format!("{database}.people"), "--format", "jsonl"]);
    let text = String::from_utf8_lossy(&read.stdout).into_owned();
    let mut rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a row")).collect();
    for row in &mut rows {
        let row = row.as_object_mut().expect("columns");
        // NULL may be left out.
        row.retain(|name, value| !name.starts_with("_weir") && !value.is_null());
    }
    rows.sort_by_key(|row| row["id"].as_i64());
    rows
}

/// What the server itself makes of the rules: `columns` is an expression for each member.
fn expected(mysql: &Mysql, database: &str, columns: &str) -> Vec<Value> {
    let all = mysql.value(&format!(
        "SELECT CAST(JSON_ARRAYAGG(JSON_OBJECT({columns})) AS CHAR) FROM (SELECT * FROM {database}.people ORDER BY id) people"
    ));
    let mut rows: Vec<Value> = serde_json::from_str(&all).expect("an array");
    for row in &mut rows {
        row.as_object_mut().expect("columns").retain(|_, value| !value.is_null());
    }
    rows.sort_by_key(|row| row["id"].as_i64());
    rows
}

fn by_first(mysql: &Mysql, database: &str) -> Vec<Value> {
    let hash = |column: &str| format!("'{column}', SHA2(CONCAT('{SALT}', {column}), 256)");
    expected(mysql, database, &format!("'id', id, 'name', '***', {}, {}", hash("email"), hash("ssn")))
}

fn by_second(mysql: &Mysql, database: &str) -> Vec<Value> {
    let columns = format!("'id', id, 'name', name, 'born', born, 'email', SHA2(CONCAT('{SALT}', email), 256)");
    expected(mysql, database, &columns)
}

fn salted(weir: &Weir) {
    std::fs::write(weir.config().with_file_name("salt"), SALT).expect("a file can be written");
    weir.replace_in_config("[source]\n", "[source]\nhash_salt_file = \"salt\"\n");
}

/// Nothing that is written of the table shows a value that a rule covers.
fn log_shows_none(weir: &Weir, database: &str) {
    let log = weir.warehouse().join(database).join("people/_delta_log");
    for entry in std::fs::read_dir(log).expect("a log").flatten() {
        let text = String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap_or_default()).into_owned();
        assert!(!text.contains("@example.org") && !text.contains("1234567890123"), "{:?}", entry.path());
    }
}

/// The newest version of a table, by its log.
fn version(weir: &Weir, table: &str) -> i64 {
    let status = weir.expect(0, &["status", "--format", "json"]).json();
    let tables = status["tables"].as_array().expect("a status has tables");
    let found = tables.iter().find(|known| known["table"] == table).and_then(|known| known["version"].as_i64());
    found.expect("a table that the lake has")
}

/// A table whose rules are those that it was loaded by is not loaded again.
fn nothing_is_loaded(weir: &Weir) {
    let log = weir.expect(0, &["run", "--until-caught-up"]).stderr;
    assert!(!log.contains("row rules have changed"), "{log}");
}

#[test]
fn load_and_stream_make_the_same_and_changed_rules_load_that_table_anew() {
    let mysql = &Mysql::start(&[]);
    create(mysql, "ruled");
    let weir = Weir::new(&mysql.url, &["ruled.*"], &section("ruled", FIRST));
    salted(&weir);
    let checked = weir.expect(0, &["check"]);
    assert!(checked.stdout.contains("the lake gets 5 of 6 columns"), "{}", checked.stdout);
    weir.catch_up();
    assert_eq!(rows(&weir, "ruled"), by_first(mysql, "ruled"));
    change(mysql, "ruled", 1);
    weir.catch_up();
    assert_eq!(rows(&weir, "ruled"), by_first(mysql, "ruled"));
    weir.expect(0, &["reconcile", "--deep"]);
    log_shows_none(&weir, "ruled");

    let service = weir.run();
    let address = &address(&service);
    eventually("it streams", LIMIT, || get(address, "/readyz").code == 200);
    let other = version(&weir, "ruled.other");
    weir.replace_in_config(FIRST, SECOND);
    change(mysql, "ruled", 2);
    eventually("the table is as by the other rules", LIMIT, || rows(&weir, "ruled") == by_second(mysql, "ruled"));
    change(mysql, "ruled", 3);
    eventually("and follows by them", LIMIT, || rows(&weir, "ruled") == by_second(mysql, "ruled"));
    assert_eq!(version(&weir, "ruled.other"), other, "no other table is loaded");
    assert_eq!(service.terminate().0, Some(0));
    weir.expect(0, &["reconcile", "--deep"]);

    // Started by rules that have changed meanwhile.
    nothing_is_loaded(&weir);
    weir.replace_in_config(SECOND, FIRST);
    weir.catch_up();
    nothing_is_loaded(&weir);
    assert_eq!(rows(&weir, "ruled"), by_first(mysql, "ruled"));
    weir.balanced();
    weir.expect(0, &["reconcile", "--deep"]);
}

#[test]
fn a_column_that_a_rule_covers_never_comes_in_under_another_name() {
    let mysql = Mysql::shared();
    create(mysql, "ruledname");
    let weir = Weir::new(&mysql.url, &["ruledname.*"], &section("ruledname", FIRST));
    weir.catch_up();
    mysql.run(
        "ALTER TABLE ruledname.people RENAME COLUMN email TO mail;
         INSERT INTO ruledname.people (id, mail) VALUES (5, 'late@example.org')",
    );
    weir.expect(1, &["run", "--until-caught-up"]);
    let status = weir.expect(0, &["status"]).stdout;
    assert!(status.contains("hash_columns names column email"), "{status}");
    log_shows_none(&weir, "ruledname");
    let failed = weir.expect(1, &["check"]).stdout;
    assert!(failed.contains("hash_columns names column email"), "{failed}");
    weir.replace_in_config("\"email\"", "\"mail\"");
    weir.expect(0, &["check"]);
    weir.catch_up();
    assert_eq!(rows(&weir, "ruledname").len(), 5);
    log_shows_none(&weir, "ruledname");
}

#[test]
fn over_kafka_rules_hold_and_change() {
    let mysql = &Mysql::start(&[]);
    create(mysql, "kruled");
    let servers = (Kafka::shared(), Clickhouse::shared());
    let weir = Weir::over_kafka("kruled", &mysql.url, &["kruled.*"], servers, "");
    weir.append_to_config(&section("kruled", FIRST));
    salted(&weir);
    weir.catch_up();
    change(mysql, "kruled", 1);
    weir.catch_up();
    assert_eq!(rows(&weir, "kruled"), by_first(mysql, "kruled"));
    weir.replace_in_config("null_columns = [\"born\"]", "");
    weir.replace_in_config("mask_columns = { name = \"***\" }", "exclude_columns = [\"name\", \"note\"]");
    weir.replace_in_config("exclude_columns = [\"note\"]\n", "");
    change(mysql, "kruled", 2);
    weir.catch_up();
    let hash = |column: &str| format!("'{column}', SHA2(CONCAT('{SALT}', {column}), 256)");
    let columns = format!("'id', id, 'born', born, {}, {}", hash("email"), hash("ssn"));
    assert_eq!(rows(&weir, "kruled"), expected(mysql, "kruled", &columns));
    nothing_is_loaded(&weir);
    weir.balanced();
    weir.expect(0, &["reconcile", "--deep"]);
}
