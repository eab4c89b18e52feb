//! Every layout of a lake table, read by everybody: the same rows as the source's after a load, changes, compaction and
//! cleaning. By DuckDB, deltalake and Polars; with `WEIR_TEST_ALL_READERS=1` (`make test-all`) by chDB, Delta Kernel and
//! Spark, too.

use std::path::{Path, PathBuf};

use crate::support::lake::{EVERY_READER, READERS, Workload, assert_equal_by};
use crate::support::mysql::Mysql;
use crate::support::weir::Weir;

/// One combination of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Combination {
    storage: &'static str,
    mode: &'static str,
    deletes: &'static str,
    partitioned: bool,
}

/// Tables of the workload's shapes: every column type with awkward values, and keys of several kinds. Each with how it is
/// partitioned where it is. A column called `day_of_<column>` is compared with that column.
const TABLES: [(&str, &str); 4] = [
    ("t_wide", "slot = bucket(4, id)"),
    ("t_composite", "flag"),
    ("t_date", "month_of_day = month(day)"),
    ("t_datetime", "day_of_at = day(at)"),
];
/// Rows of a database at the beginning.
const ROWS: u32 = 600;
/// Changed rows of each database between two looks at the tables.
const CHANGES: u32 = 1_500;

/// Every combination but the contradiction: an appended table has each delete as a row of its own.
fn combinations() -> Vec<Combination> {
    let mut all = Vec::new();
    for storage in ["merge-on-read", "copy-on-write"] {
        for (mode, deletes) in [("upsert", "hard"), ("upsert", "soft"), ("append", "hard")] {
            for partitioned in [false, true] {
                all.push(Combination { storage, mode, deletes, partitioned });
            }
        }
    }
    all
}

impl Combination {
    /// The database of its tables.
    fn database(self) -> String {
        let parts = if self.partitioned { "parts" } else { "plain" };
        format!("readers_{}_{}_{}_{parts}", self.storage.replace('-', "_"), self.mode, self.deletes)
    }

    /// The `[[table]]` sections of its tables.
    fn sections(self) -> String {
        let Self { storage, mode, deletes, partitioned } = self;
        let section = |(table, partition): (&str, &str)| {
            let partition_by = if partitioned { format!("partition_by = [\"{partition}\"]\n") } else { String::new() };
            format!(
                "[[table]]\nname = \"{}.{table}\"\nstorage = \"{storage}\"\nmode = \"{mode}\"\ndeletes = \"{deletes}\"\n{partition_by}",
                self.database()
            )
        };
        TABLES.map(section).join("\n")
    }
}

#[test]
fn every_layout_is_read_alike_by_every_reader() {
    let combinations = combinations();
    let databases: Vec<String> = combinations.iter().map(|combination| combination.database()).collect();
    let mysql = &Mysql::start(&[]);
    let workloads: Vec<Workload> =
        databases.iter().map(|database| Workload { mysql, database, seed: 20_261_128 }).collect();
    let shapes = TABLES.map(|(table, _)| table).join(",");
    for workload in &workloads {
        workload.create_tables(ROWS, &shapes);
    }
    let patterns: Vec<String> = databases.iter().map(|database| format!("{database}.*")).collect();
    let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
    let sections: String = combinations.iter().map(|combination| combination.sections()).collect();
    let weir = Weir::new(&mysql.url, &patterns, &sections);
    let equal = |when: &str| {
        for reader in readers() {
            assert_equal_by(mysql, &weir, &databases.join(","), reader, &[], when);
        }
    };
    let change = |step: u32| {
        for workload in &workloads {
            let mut live = workload.at(step).live(CHANGES, &["--tables", &shapes]);
            assert!(live.wait().expect("the workload ends").success());
        }
        weir.catch_up();
    };

    weir.catch_up();
    change(1);
    equal("loaded and changed");
    for combination in &combinations {
        let vectors = vectors_of(&weir, *combination);
        let wanted = combination.storage == "merge-on-read" && combination.mode == "upsert";
        assert_eq!(vectors > 0, wanted, "{combination:?} has {vectors} commits with deletion vectors");
    }
    for command in ["compact", "clean"] {
        for table in databases.iter().flat_map(|database| TABLES.map(|(table, _)| format!("{database}.{table}"))) {
            weir.expect(0, &["table", command, &table]);
        }
    }
    equal("compacted and cleaned");
    for table in databases.iter().flat_map(|database| TABLES.map(|(table, _)| format!("{database}.{table}"))) {
        weir.expect(0, &["table", "verify", &table]);
    }
    change(2);
    equal("changed after compaction and cleaning");
}

#[test]
fn a_layout_that_contradicts_itself_is_refused_by_name() {
    let contradiction = Combination { storage: "merge-on-read", mode: "append", deletes: "soft", partitioned: false };
    let weir = Weir::new("mysql://root@127.0.0.1:1", &["readers.*"], &contradiction.sections());
    let printed = weir.expect(2, &["run", "--until-caught-up"]);
    assert!(printed.stderr.contains("table[0].deletes"), "{}", printed.stderr);
}

fn readers() -> &'static [&'static str] {
    let all = std::env::var("WEIR_TEST_ALL_READERS").is_ok_and(|value| value == "1");
    if all { &EVERY_READER } else { &READERS }
}

/// Commits of the combination's tables that name a deletion vector.
fn vectors_of(weir: &Weir, combination: Combination) -> usize {
    let logs = TABLES.map(|(table, _)| weir.warehouse().join(combination.database()).join(table).join("_delta_log"));
    let commits =
        logs.iter().flat_map(|log| files_of(log)).filter(|file| file.extension().is_some_and(|e| e == "json"));
    commits.filter(|file| std::fs::read_to_string(file).is_ok_and(|text| text.contains("\"deletionVector\":{"))).count()
}

fn files_of(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a table has a log");
    entries.map(|entry| entry.expect("a folder can be listed").path()).collect()
}
