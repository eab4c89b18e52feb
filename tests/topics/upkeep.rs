//! Upkeep of the lake's tables beside a running service, by its own commands and by another engine, and the files that are
//! left when everything has been said.

use std::path::Path;
use std::time::Duration;

use crate::support::clickhouse::Clickhouse;
use crate::support::kafka::Kafka;
use crate::support::lake::{Foreign, Workload, assert_equal, compare, foreign};
use crate::support::mysql::Mysql;
use crate::support::weir::{Weir, eventually};

/// Buckets of a table over Kafka, unless its section says otherwise.
const BUCKETS: u32 = 4;

/// Another engine merges the table's files.
fn optimize(weir: &Weir, database: &str, table: &str) {
    foreign(weir, database, table, &[]);
}

fn tables(weir: &Weir, database: &str) -> Vec<String> {
    let listed = weir.expect(0, &["table", "list", "--format", "json"]).json();
    let names =
        listed.as_array().expect("a list").iter().map(|table| table["table"].as_str().expect("a name").to_owned());
    names.filter(|name| name.starts_with(&format!("{database}."))).collect()
}

/// Data and vector files in a table's folder.
fn files(weir: &Weir, table: &str) -> usize {
    let (database, table) = table.split_once('.').expect("database.table");
    let entries = std::fs::read_dir(weir.warehouse().join(database).join(table)).expect("a table has a folder");
    let names =
        entries.map(|entry| entry.expect("a folder can be listed").file_name().into_string().expect("our names"));
    names.filter(|name| name.ends_with(".parquet") || name.ends_with(".bin")).count()
}

fn verified(weir: &Weir, database: &str) {
    for table in tables(weir, database) {
        weir.expect(0, &["table", "verify", &table]);
    }
}

#[test]
fn tables_are_compacted_and_cleaned_while_they_are_written() {
    let mysql = &Mysql::start(&[]);
    let workload = Workload { mysql, database: "upkeep", seed: 31 };
    workload.create(3_000);
    let weir = Weir::new(&mysql.url, &["upkeep.*"], "");
    weir.catch_up();
    let mut writers = workload.live(24_000, &["--workers", "1", "--rate", "1200"]);
    let mut service = weir.run();
    let names = tables(&weir, "upkeep");
    std::thread::sleep(Duration::from_secs(3));
    for (n, table) in names.iter().enumerate() {
        match n % 3 {
            0 => {
                weir.expect(0, &["table", "compact", table]);
            }
            1 => optimize(&weir, "upkeep", table.trim_start_matches("upkeep.")),
            _ => {}
        }
        weir.expect(0, &["table", "clean", table, "--retention-hours", "1"]);
    }
    assert!(writers.wait().expect("the workload ends").success());
    assert!(service.is_running(), "{}", service.log());
    let log = service.log();
    assert!(!log.contains("starting again from what is durable"), "no incarnation ended:\n{log}");
    let (code, _) = service.terminate();
    assert_eq!(code, Some(0));
    weir.catch_up();
    assert_equal(mysql, &weir, "upkeep");
    verified(&weir, "upkeep");
    weir.balanced();

    // With nothing running all that is left is what the newest version names.
    for table in &names {
        weir.expect(0, &["table", "compact", table]);
        weir.expect(0, &["table", "clean", table, "--retention-hours", "0"]);
        let described = weir.expect(0, &["table", "describe", table, "--format", "json"]).json();
        assert_eq!(files(&weir, table) as u64, described["files"].as_u64().expect("a number"), "{table}");
    }
    assert_equal(mysql, &weir, "upkeep");
    // And the service goes on from there.
    let mut writers = workload.at(1).live(2_000, &[]);
    assert!(writers.wait().expect("the workload ends").success());
    weir.catch_up();
    assert_equal(mysql, &weir, "upkeep");
    verified(&weir, "upkeep");
    weir.balanced();
}

#[test]
fn a_service_keeps_its_tables_files_few_by_itself() {
    let mysql = Mysql::shared();
    mysql.run("CREATE DATABASE few; CREATE TABLE few.t (id INT PRIMARY KEY, v INT); INSERT INTO few.t VALUES (0, 0)");
    let weir = Weir::new(&mysql.url, &["few.*"], "");
    weir.replace_in_config("commit_interval_ms = 200", "commit_interval_ms = 1");
    let service = weir.run();
    eventually("the table is loaded", Duration::from_secs(60), || weir.has_rows("few.t", 1));
    for n in 1..=150 {
        mysql.run(&format!("REPLACE INTO few.t VALUES ({n}, {n}), ({}, -{n})", n / 2));
    }
    let named = || {
        let described = weir.expect(0, &["table", "describe", "few.t", "--format", "json"]).json();
        (described["rows"].as_u64(), described["files"].as_u64().expect("a number"))
    };
    eventually("files are merged", Duration::from_secs(60), || {
        let (rows, files) = named();
        rows == Some(151) && files < 24
    });
    let (code, _) = service.terminate();
    assert_eq!(code, Some(0));
    weir.catch_up();
    assert_equal(mysql, &weir, "few");
    verified(&weir, "few");
}

#[test]
fn what_a_kill_leaves_is_cleaned_away() {
    let mysql = Mysql::shared();
    mysql.run("CREATE DATABASE left_over; CREATE TABLE left_over.t (id INT PRIMARY KEY, v INT); INSERT INTO left_over.t VALUES (1, 1)");
    let weir = Weir::new(&mysql.url, &["left_over.*"], "");
    weir.catch_up();
    let folder = weir.warehouse().join("left_over/t");
    let orphan = |name: &str| std::fs::copy(first_data_file(&folder), folder.join(name)).expect("a copy");
    orphan("part-00000000-0000-4000-8000-000000000000.parquet");
    std::fs::write(folder.join("._weir_torn"), "half a file").expect("a file");
    std::fs::write(folder.join("notes.txt"), "not ours").expect("a file");
    let cleaned = weir.expect(0, &["table", "clean", "left_over.t", "--format", "json"]).json();
    assert_eq!(cleaned["files_removed"], 2, "{cleaned:#}");
    assert_eq!(files(&weir, "left_over.t"), 1);
    assert!(folder.join("notes.txt").exists());
    weir.catch_up();
    assert_equal(mysql, &weir, "left_over");
}

fn first_data_file(folder: &Path) -> std::path::PathBuf {
    let mut entries = std::fs::read_dir(folder).expect("a table has a folder");
    entries
        .find_map(|entry| Some(entry.ok()?.path()).filter(|path| path.extension().is_some_and(|e| e == "parquet")))
        .expect("a table has a data file")
}

#[test]
fn a_table_that_is_shared_by_buckets_is_compacted_beside_its_writers() {
    let mysql = &Mysql::start(&[]);
    let workload = Workload { mysql, database: "shared_upkeep", seed: 77 };
    workload.create(1_500);
    let weir =
        Weir::over_kafka("upkeep", &mysql.url, &["shared_upkeep.*"], (Kafka::shared(), Clickhouse::shared()), "");
    weir.catch_up();
    let mut writers = workload.live(8_000, &["--workers", "1", "--rate", "600"]);
    let service = weir.run();
    std::thread::sleep(Duration::from_secs(3));
    let names = tables(&weir, "shared_upkeep");
    for (n, table) in names.iter().enumerate() {
        if n % 2 == 0 {
            optimize(&weir, "shared_upkeep", table.trim_start_matches("shared_upkeep."));
        }
        weir.expect(0, &["table", "compact", table]);
        weir.expect(0, &["table", "clean", table]);
    }
    assert!(writers.wait().expect("the workload ends").success());
    let (code, _) = service.terminate();
    assert_eq!(code, Some(0));
    weir.catch_up();
    assert_equal(mysql, &weir, "shared_upkeep");
    verified(&weir, "shared_upkeep");
    weir.balanced();

    // Another engine makes one file of all buckets; compaction makes one a bucket of it, and the writers go on.
    let files_and_rows = |table: &String| {
        let described = weir.expect(0, &["table", "describe", table, "--format", "json"]).json();
        (described["files"].as_u64().expect("a number"), described["rows"].as_u64().expect("a number"))
    };
    let mut split = 0;
    for table in &names {
        optimize(&weir, "shared_upkeep", table.trim_start_matches("shared_upkeep."));
        let (files, rows) = files_and_rows(table);
        weir.expect(0, &["table", "compact", table]);
        if files == 1 && rows > 100 {
            assert_eq!(files_and_rows(table), (u64::from(BUCKETS), rows), "{table}");
            split += 1;
        }
    }
    assert!(split > 0, "no table was of one file");
    assert_equal(mysql, &weir, "shared_upkeep");
    let mut writers = workload.at(1).live(2_000, &[]);
    assert!(writers.wait().expect("the workload ends").success());
    weir.catch_up();
    assert_equal(mysql, &weir, "shared_upkeep");
    verified(&weir, "shared_upkeep");
    weir.balanced();
}

#[test]
fn a_merge_of_files_that_was_begun_before_a_compaction_doubles_no_row() {
    let mysql = Mysql::shared();
    mysql.run("CREATE DATABASE begun_before");
    for table in ["keyed", "log"] {
        mysql.run(&format!("CREATE TABLE begun_before.{table} (id INT PRIMARY KEY, v INT)"));
    }
    let insert = |id: u32| {
        for table in ["keyed", "log"] {
            mysql.run(&format!("INSERT INTO begun_before.{table} VALUES ({id}, 1)"));
        }
    };
    let weir =
        Weir::new(&mysql.url, &["begun_before.*"], "[[table]]\nname = \"begun_before.log\"\nmode = \"append\"\n");
    for id in 1..=3 {
        insert(id);
        weir.catch_up();
    }
    let rows = |table: &str| weir.expect(0, &["read", "--table", table, "--format", "jsonl"]).stdout.lines().count();
    for table in ["keyed", "log"] {
        let name = &format!("begun_before.{table}");
        let folder = weir.warehouse().join("begun_before").join(table);
        let merging = Foreign::begin(&folder, &["--attempts", "1"]);
        weir.expect(0, &["table", "compact", name]);
        // A release of it that looks at every removal loses, whatever the table.
        let got_in = merging.go_on();
        assert!(!(got_in && table == "keyed"), "its removals tell it");
        if got_in {
            assert_eq!(rows(name), 6, "or there is nothing to undo");
            assert!(weir.expect(1, &["table", "verify", name]).stdout.contains("files that had gone already"));
        }
    }
    insert(4);
    weir.catch_up();
    for table in ["keyed", "log"] {
        assert_eq!(rows(&format!("begun_before.{table}")), 4, "{table}");
        weir.expect(0, &["table", "verify", &format!("begun_before.{table}")]);
    }
    compare(mysql, &weir, "begun_before", &["--tables", "keyed"]);
}
