//! Tables that come later, change their shape, or cannot go on.

use std::time::Duration;

use crate::support::lake::assert_equal;
use crate::support::mysql::Mysql;
use crate::support::weir::{Weir, eventually};

#[test]
fn tables_created_while_the_service_runs_are_picked_up() {
    let mysql = Mysql::shared();
    mysql.run("CREATE DATABASE later");
    let weir = Weir::new(&mysql.url, &["later.*", "!later.skipped_*"], "");
    let service = weir.run();
    mysql.run(
        "CREATE TABLE later.a (id INT PRIMARY KEY, v VARCHAR(20)); INSERT INTO later.a VALUES (1, 'x'), (2, 'y');
         CREATE TABLE later.skipped_b (id INT PRIMARY KEY);
         CREATE TABLE later.copied (id INT PRIMARY KEY) AS SELECT id FROM later.a;
         CREATE TABLE later.empty (id INT PRIMARY KEY)",
    );
    eventually("the new tables are in the lake", Duration::from_secs(30), || {
        ["a", "copied", "empty"].iter().all(|table| weir.warehouse().join("later").join(table).exists())
    });
    service.terminate();
    weir.catch_up();
    mysql.run("DROP TABLE later.skipped_b");
    assert_equal(mysql, &weir, "later");
    assert!(!weir.warehouse().join("later/skipped_x5fb").exists());
}

#[test]
fn added_columns_truncate_and_a_renamed_table_end_equal_without_a_restart() {
    let mysql = Mysql::shared();
    mysql.run(
        "CREATE DATABASE ddl; USE ddl;
         CREATE TABLE plain (id INT PRIMARY KEY, v INT); INSERT INTO plain VALUES (1, 1), (2, 2), (3, 3);
         CREATE TABLE emptied (id INT PRIMARY KEY, v INT); INSERT INTO emptied VALUES (1, 1), (2, 2);
         CREATE TABLE swapped (id INT PRIMARY KEY, v INT); INSERT INTO swapped VALUES (1, 1), (2, 2)",
    );
    let weir = Weir::new(&mysql.url, &["ddl.plain", "ddl.emptied", "ddl.swapped"], "");
    weir.catch_up();
    let service = weir.run();
    mysql.run(
        "USE ddl;
         ALTER TABLE plain ADD COLUMN note VARCHAR(50) NULL;
         INSERT INTO plain VALUES (4, 4, 'näw'); UPDATE plain SET note = 'x' WHERE id = 1;
         ALTER TABLE plain ADD COLUMN state INT NOT NULL DEFAULT 5;
         INSERT INTO plain (id, v) VALUES (5, 5);
         TRUNCATE TABLE emptied; INSERT INTO emptied VALUES (9, 9);
         CREATE TABLE _swapped_new LIKE swapped; INSERT INTO _swapped_new VALUES (2, 20), (7, 70);
         RENAME TABLE swapped TO _swapped_old, _swapped_new TO swapped;
         INSERT INTO swapped VALUES (8, 80); DROP TABLE _swapped_old",
    );
    let (code, took) = service.terminate();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(30), "{took:?}");
    weir.catch_up();
    assert_equal(mysql, &weir, "ddl");
}

#[test]
fn a_table_that_cannot_go_on_stops_alone_with_the_way_out() {
    let mysql = Mysql::shared();
    mysql.run(
        "CREATE DATABASE alone; USE alone;
         CREATE TABLE good (id INT PRIMARY KEY, v INT); INSERT INTO good VALUES (1, 1);
         CREATE TABLE retyped (id INT PRIMARY KEY, v INT); INSERT INTO retyped VALUES (1, 1);
         CREATE TABLE keyless (v INT); INSERT INTO keyless VALUES (1)",
    );
    let weir = Weir::new(&mysql.url, &["alone.*"], "");
    let first = weir.expect(1, &["run", "--until-caught-up"]);
    assert!(first.stderr.contains("alone.keyless") && first.stderr.contains("ADD PRIMARY KEY"), "{}", first.stderr);
    mysql.run("ALTER TABLE alone.retyped MODIFY v VARCHAR(20); INSERT INTO alone.retyped VALUES (2, 'two'); INSERT INTO alone.good VALUES (2, 2)");
    let second = weir.expect(1, &["run", "--until-caught-up"]);
    assert!(second.stderr.contains("alone.retyped") && second.stderr.contains("weir snapshot"), "{}", second.stderr);
    let status = weir.expect(0, &["status", "--format", "json"]).stdout;
    assert!(status.contains("stopped"), "{status}");
    let report = weir.expect(0, &["reconcile", "--format", "json"]).json();
    assert_ne!(report["verdict"], "balanced");
    let good = weir.expect(0, &["read", "--table", "alone.good", "--format", "jsonl"]).stdout;
    assert_eq!(good.lines().count(), 2, "{good}");
    // Exclude what has no key, and load the retyped table anew.
    weir.configure(&mysql.url, &["alone.*", "!alone.keyless"], "");
    weir.expect(0, &["snapshot", "--table", "alone.retyped"]);
    mysql.run("DROP TABLE alone.keyless");
    assert_equal(mysql, &weir, "alone");
}

#[test]
fn a_re_seed_removes_what_the_source_no_longer_has() {
    let mysql = &Mysql::start(&[]);
    mysql.run("CREATE DATABASE reseed; CREATE TABLE reseed.t (id INT PRIMARY KEY, v INT); INSERT INTO reseed.t VALUES (1, 1), (2, 2), (3, 3)");
    let weir = Weir::new(&mysql.url, &["reseed.*"], "");
    weir.catch_up();
    mysql.run("SET sql_log_bin = 0; DELETE FROM reseed.t WHERE id = 2; UPDATE reseed.t SET v = 30 WHERE id = 3");
    weir.expect(0, &["snapshot", "--table", "reseed.t"]);
    assert_equal(mysql, &weir, "reseed");
    let report = weir.expect(0, &["reconcile", "--format", "json"]).json();
    assert_eq!(report["verdict"], "balanced", "{report:#}");
}
