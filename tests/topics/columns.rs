//! Columns that become wider, and columns whose names are used again, under writers and kills: independent readers find the
//! types and the rows of the source, and no table has to be loaded by hand.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::beside;
use crate::support::clickhouse::Clickhouse;
use crate::support::kafka::Kafka;
use crate::support::lake::assert_equal;
use crate::support::mysql::Mysql;
use crate::support::weir::{Weir, eventually};

/// Tables, and what their sections say of them.
const TABLES: [(&str, &str); 3] =
    [("mor", "storage = \"merge-on-read\""), ("cow", "storage = \"copy-on-write\""), ("log", "mode = \"append\"")];

/// Changes of columns in a row, with changes of rows in between that only the columns as they are by then can hold.
const CHANGES: [&str; 8] = [
    "ALTER TABLE {t} MODIFY n BIGINT; UPDATE {t} SET n = 9000000000 + id WHERE id % 7 = 0",
    "ALTER TABLE {t} MODIFY f DOUBLE; UPDATE {t} SET f = 0.1 + id WHERE id % 5 = 0",
    "ALTER TABLE {t} MODIFY d DECIMAL(14,4); UPDATE {t} SET d = 1234567890.1234 WHERE id % 3 = 0",
    "ALTER TABLE {t} DROP COLUMN c; DELETE FROM {t} WHERE id % 11 = 0; ALTER TABLE {t} ADD COLUMN c VARCHAR(20) NULL",
    "UPDATE {t} SET c = CONCAT('c', id) WHERE id % 2 = 0; ALTER TABLE {t} DROP c, ADD c VARCHAR(30) NULL",
    "UPDATE {t} SET c = 'again' WHERE id % 13 = 0; ALTER TABLE {t} MODIFY id BIGINT; INSERT INTO {t} (id) VALUES (5000000000)",
    "ALTER TABLE {t} RENAME COLUMN c TO e; ALTER TABLE {t} ADD c DATE NULL; UPDATE {t} SET c = '2026-11-28' WHERE id = 4",
    // Nothing comes behind it: what is there must go all the same.
    "UPDATE {t} SET c = '2026-11-29' WHERE id < 9; ALTER TABLE {t} DROP c, ADD c INT NULL",
];

fn create(mysql: &Mysql, database: &str) {
    mysql.run(&format!("CREATE DATABASE {database}"));
    for (table, _) in TABLES {
        let values: Vec<String> = (0..300).map(|id| format!("({id}, {id}, {id}.3, {id}.25, {id})")).collect();
        mysql.run(&format!(
            "USE {database}; CREATE TABLE {table} (id INT PRIMARY KEY, n INT, f FLOAT, d DECIMAL(10,2), c INT);
             INSERT INTO {table} VALUES {}",
            values.join(", ")
        ));
    }
}

fn sections(database: &str) -> String {
    TABLES.map(|(table, settings)| format!("[[table]]\nname = \"{database}.{table}\"\n{settings}\n\n")).concat()
}

/// Changes rows by columns that never go, until it is told to stop.
fn write(mysql: &Mysql, database: &str, stop: &AtomicBool) {
    for n in 0.. {
        if stop.load(Ordering::Acquire) {
            return;
        }
        for (table, _) in TABLES {
            mysql.run(&format!(
                "USE {database}; INSERT INTO {table} (id, n, f, d) VALUES ({0}, {n}, {n}.7, {n}.5), ({1}, -{n}, NULL, -0.25)
                 ON DUPLICATE KEY UPDATE n = VALUES(n), d = VALUES(d); DELETE FROM {table} WHERE id = {2}",
                n * 7 % 400,
                n * 3 % 400 + 400,
                n * 5 % 900,
            ));
        }
    }
}

/// Changes the columns while rows change, too; `between` is called after each.
fn change_columns(mysql: &Mysql, database: &str, mut between: impl FnMut(usize)) {
    beside(
        |stop| write(mysql, database, stop),
        || {
            for (nth, change) in CHANGES.iter().enumerate() {
                for (table, _) in TABLES {
                    mysql.run(&change.replace("{t}", &format!("{database}.{table}")));
                }
                between(nth);
            }
        },
    );
}

/// Of a table that is changed no more.
fn is_as_the_source_says(mysql: &Mysql, weir: &Weir, database: &str) {
    assert_equal(mysql, weir, database);
    for (table, _) in TABLES {
        weir.expect(0, &["table", "verify", &format!("{database}.{table}")]);
    }
    weir.balanced();
}

/// Commits that gave a table's files other columns.
fn rewrites(weir: &Weir, database: &str, table: &str) -> usize {
    let log = weir.warehouse().join(database).join(table).join("_delta_log");
    let commits = std::fs::read_dir(log).expect("a table has a log").map(|entry| entry.expect("an entry").path());
    commits.filter(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains("\"CHANGE COLUMN\""))).count()
}

#[test]
fn columns_are_followed_under_writers_and_kills() {
    let mysql = &Mysql::start(&[]);
    create(mysql, "columns");
    let weir = Weir::new(&mysql.url, &["columns.*"], &sections("columns"));
    weir.catch_up();
    let mut service = Some(weir.run());
    change_columns(mysql, "columns", |nth| {
        std::thread::sleep(Duration::from_millis(700));
        // Not the last: a service is only asked to end once it has begun.
        if nth == 1 || nth == 4 {
            service.take().expect("it runs").kill();
            service = Some(weir.run());
        }
    });
    let (code, _) = service.take().expect("it runs").terminate();
    assert_eq!(code, Some(0));
    weir.catch_up();
    is_as_the_source_says(mysql, &weir, "columns");
    for (table, _) in TABLES {
        // Four become wider, and one name is used again four times.
        let rewrites = rewrites(&weir, "columns", table);
        assert!((5..=8).contains(&rewrites), "{table}: {rewrites}");
    }
    // A type that no value of the other is one of still stops the table, and says so.
    mysql.run("ALTER TABLE columns.mor MODIFY n DECIMAL(20,2)");
    let stopped = weir.expect(1, &["run", "--until-caught-up"]).stderr;
    assert!(stopped.contains("from long to decimal(20,2)") && stopped.contains("weir snapshot"), "{stopped}");
    weir.expect(0, &["snapshot", "--table", "columns.mor"]);
    is_as_the_source_says(mysql, &weir, "columns");
}

#[test]
fn columns_are_followed_over_kafka_by_several_that_apply() {
    let mysql = &Mysql::start(&[]);
    create(mysql, "kcolumns");
    let servers = (Kafka::shared(), Clickhouse::shared());
    let weir = Weir::over_kafka("columns", &mysql.url, &["kcolumns.*"], servers, "");
    weir.append_to_config(&sections("kcolumns"));
    let capture = weir.capture();
    let mut applies = vec![weir.apply(1), weir.apply(2)];
    eventually("the tables are loaded", Duration::from_secs(60), || {
        TABLES.iter().all(|(table, _)| weir.has_rows(&format!("kcolumns.{table}"), 300))
    });
    change_columns(mysql, "kcolumns", |nth| {
        std::thread::sleep(Duration::from_millis(700));
        if nth == 4 {
            applies.remove(0).kill();
            applies.push(weir.apply(3));
        }
    });
    assert_eq!(capture.terminate().0, Some(0));
    for apply in applies {
        assert_eq!(apply.terminate().0, Some(0));
    }
    weir.catch_up();
    is_as_the_source_says(mysql, &weir, "kcolumns");
}
