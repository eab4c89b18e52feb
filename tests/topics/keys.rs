//! A table whose record key becomes another one begins anew and ends equal, while the others flow on.

use std::time::Duration;

use crate::support::clickhouse::Clickhouse;
use crate::support::kafka::Kafka;
use crate::support::lake::assert_equal;
use crate::support::mysql::Mysql;
use crate::support::weir::{Running, Weir, eventually};

/// Tables, each with a way in which its key becomes another one.
fn create(mysql: &Mysql, database: &str) {
    mysql.run(&format!(
        "CREATE DATABASE {database}; USE {database};
         CREATE TABLE moved (id INT PRIMARY KEY, code INT NOT NULL, v VARCHAR(20));
         CREATE TABLE longer (id INT, part INT NOT NULL, v VARCHAR(20), PRIMARY KEY (id));
         CREATE TABLE renamed (id INT PRIMARY KEY, v VARCHAR(20));
         CREATE TABLE retyped (id INT PRIMARY KEY, v VARCHAR(20));
         CREATE TABLE without (id INT PRIMARY KEY, code INT NOT NULL, v VARCHAR(20));
         CREATE TABLE by_unique (a INT NOT NULL, b INT NOT NULL, v VARCHAR(20), UNIQUE KEY first_one (a));
         CREATE TABLE swapped (id INT PRIMARY KEY, v VARCHAR(20));
         CREATE TABLE other (name VARCHAR(20) PRIMARY KEY, id INT);
         CREATE TABLE beside (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(20))"
    ));
    let rows = |columns: &str| -> Vec<String> {
        (1..=40)
            .map(|n| columns.replace("N", &n.to_string()).replace('M', &(n + 100).to_string()))
            .map(|row| format!("({row})"))
            .collect()
    };
    for (table, columns) in [
        ("moved", "N, M, 'v'"),
        ("longer", "N, M, 'v'"),
        ("renamed", "N, 'v'"),
        ("retyped", "N, 'v'"),
        ("without", "N, M, 'v'"),
        ("by_unique", "N, M, 'v'"),
        ("swapped", "N, 'v'"),
        ("other", "'nN', M"),
    ] {
        mysql.run(&format!("INSERT INTO {database}.{table} VALUES {}", rows(columns).join(", ")));
    }
}

/// Each table's key becomes another one, between changes that the former and the new one tell differently.
fn change(mysql: &Mysql, database: &str) {
    mysql.run(&format!(
        "USE {database};
         UPDATE moved SET v = 'before' WHERE id = 1;
         ALTER TABLE moved DROP PRIMARY KEY, ADD PRIMARY KEY (code), MODIFY id INT NULL;
         INSERT INTO moved VALUES (1, 900, 'same id'), (NULL, 901, 'none'); UPDATE moved SET id = 7 WHERE code > 120;
         INSERT INTO beside (v) VALUES ('1');

         DELETE FROM longer WHERE id = 3;
         ALTER TABLE longer DROP PRIMARY KEY, ADD PRIMARY KEY (id, part);
         INSERT INTO longer VALUES (1, 1, 'second'), (1, 2, 'third'); DELETE FROM longer WHERE id = 2;

         INSERT INTO renamed VALUES (50, 'before');
         ALTER TABLE renamed RENAME COLUMN id TO ident;
         INSERT INTO renamed VALUES (51, 'behind'); UPDATE renamed SET ident = 99 WHERE ident = 4;

         INSERT INTO retyped VALUES (50, 'before');
         ALTER TABLE retyped MODIFY id VARCHAR(20);
         INSERT INTO retyped VALUES ('x1', 'behind'); UPDATE retyped SET v = 'u' WHERE id = '5';
         INSERT INTO beside (v) VALUES ('2');

         ALTER TABLE without DROP PRIMARY KEY;
         INSERT INTO without VALUES (1, 500, 'twice'), (1, 501, 'twice'), (2, 502, 'twice');
         DELETE FROM without WHERE id = 2 AND code < 500; DELETE FROM without WHERE code = 500;
         ALTER TABLE without ADD PRIMARY KEY (id, code);
         INSERT INTO without VALUES (1, 503, 'behind');

         ALTER TABLE by_unique ADD UNIQUE KEY second_one (b);
         DROP INDEX first_one ON by_unique;
         INSERT INTO by_unique VALUES (1, 500, 'same a'), (1, 501, 'same a'); DELETE FROM by_unique WHERE b = 102;

         RENAME TABLE swapped TO between_both, other TO swapped, between_both TO other;
         INSERT INTO swapped VALUES ('x', 1); DELETE FROM swapped WHERE id > 130;
         INSERT INTO other VALUES (500, 'x'); DELETE FROM other WHERE id < 10;
         INSERT INTO beside (v) VALUES ('3')"
    ));
}

/// The keys of the tables change under a service, which has come to the last change.
fn run_beside_changes(mysql: &Mysql, weir: &Weir) -> Running {
    let service = weir.run_until_it_is_seen();
    change(mysql, "rekeyed");
    eventually("the last change is in", Duration::from_secs(120), || weir.has_rows("rekeyed.beside", 3));
    service
}

/// Nothing stopped, and the lake has what the source has.
fn assert_mirrored(mysql: &Mysql, weir: &Weir, database: &str) {
    weir.catch_up();
    let status = weir.expect(0, &["status", "--format", "json"]).stdout;
    assert!(!status.contains("stopped"), "{status}");
    assert_equal(mysql, weir, database);
    weir.balanced();
    let deep = weir.expect(0, &["reconcile", "--deep", "--format", "json"]).json();
    assert_eq!(deep["verdict"], "balanced", "{deep:#}");
}

#[test]
fn keys_that_change_under_a_running_service_end_equal() {
    let mysql = &Mysql::start(&[]);
    create(mysql, "rekeyed");
    let weir = Weir::new(&mysql.url, &["rekeyed.*"], "");
    weir.catch_up();
    let service = run_beside_changes(mysql, &weir);
    let (code, _) = service.terminate();
    assert_eq!(code, Some(0));
    assert_mirrored(mysql, &weir, "rekeyed");
}

#[test]
fn keys_that_changed_while_no_service_ran_end_equal() {
    let mysql = &Mysql::start(&[]);
    create(mysql, "rekeyed");
    let weir = Weir::new(&mysql.url, &["rekeyed.*"], "");
    weir.catch_up();
    change(mysql, "rekeyed");
    assert_mirrored(mysql, &weir, "rekeyed");
}

#[test]
fn keys_that_change_in_a_log_that_does_not_describe_its_tables_end_equal() {
    let mysql = &Mysql::start(&["--binlog-row-metadata=MINIMAL"]);
    create(mysql, "rekeyed");
    let weir = Weir::new(&mysql.url, &["rekeyed.*"], "");
    weir.catch_up();
    let service = run_beside_changes(mysql, &weir);
    service.terminate();
    change_back(mysql, "rekeyed");
    assert_mirrored(mysql, &weir, "rekeyed");
}

/// Some of the keys become the former ones again.
fn change_back(mysql: &Mysql, database: &str) {
    mysql.run(&format!(
        "USE {database};
         DELETE FROM moved WHERE id IS NULL OR id = 7 OR code = 900; ALTER TABLE moved DROP PRIMARY KEY, ADD PRIMARY KEY (id);
         INSERT INTO moved VALUES (700, 101, 'same code');
         ALTER TABLE renamed RENAME COLUMN ident TO id; DELETE FROM renamed WHERE id = 51;
         DELETE FROM longer WHERE part < 100; ALTER TABLE longer DROP PRIMARY KEY, ADD PRIMARY KEY (id);
         INSERT INTO longer VALUES (700, 101, 'same part')"
    ));
}

#[test]
fn keys_that_change_under_kills_end_equal() {
    let mysql = &Mysql::start(&[]);
    create(mysql, "rekeyed");
    let weir = Weir::new(&mysql.url, &["rekeyed.*"], "");
    weir.catch_up();
    for round in 0..3 {
        let service = weir.run_until_it_is_seen();
        if round == 0 {
            change(mysql, "rekeyed")
        } else {
            change_back(mysql, "rekeyed")
        }
        std::thread::sleep(Duration::from_millis(130 * round));
        service.kill();
        if round == 1 {
            mysql.run(
                "USE rekeyed; ALTER TABLE moved DROP PRIMARY KEY, ADD PRIMARY KEY (code, id); ALTER TABLE longer DROP PRIMARY KEY, ADD PRIMARY KEY (part, id);
                 ALTER TABLE renamed RENAME COLUMN id TO ident; INSERT INTO longer VALUES (900, 1, 'x'); DELETE FROM moved WHERE id = 700; DELETE FROM longer WHERE id = 700",
            );
        }
    }
    assert_mirrored(mysql, &weir, "rekeyed");
}

#[test]
fn keys_that_change_over_kafka_end_equal() {
    let mysql = &Mysql::start(&[]);
    create(mysql, "rekeyed");
    let servers = (Kafka::shared(), Clickhouse::shared());
    let weir = Weir::over_kafka("keys", &mysql.url, &["rekeyed.*"], servers, "");
    weir.catch_up();
    let service = run_beside_changes(mysql, &weir);
    service.kill();
    change_back(mysql, "rekeyed");
    assert_mirrored(mysql, &weir, "rekeyed");
}

#[test]
fn a_key_that_changes_without_loads_stops_its_table_with_the_way_out() {
    let mysql = Mysql::shared();
    mysql.run(
        "CREATE DATABASE keys_never; USE keys_never; CREATE TABLE t (id INT PRIMARY KEY, code INT NOT NULL);
         CREATE TABLE good (id INT PRIMARY KEY)",
    );
    let weir = Weir::new(&mysql.url, &["keys_never.*"], "");
    weir.replace_in_config("[source]\n", "[source]\nsnapshot = \"never\"\n");
    weir.catch_up();
    mysql.run(
        "USE keys_never; INSERT INTO t VALUES (1, 1); ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (code);
         INSERT INTO t VALUES (1, 2); INSERT INTO good VALUES (1)",
    );
    let printed = weir.expect(1, &["run", "--until-caught-up"]);
    assert!(printed.stderr.contains("weir snapshot --table keys_never.t"), "{}", printed.stderr);
    assert!(weir.has_rows("keys_never.good", 1));
    weir.expect(0, &["snapshot", "--table", "keys_never.t"]);
    assert_equal(mysql, &weir, "keys_never");
}
