//! Every kind of column with the values at its edges, nullable, not null and as a key, by each way that a row can come to the lake
//! and with each row image that the source writes. `tests/support/matrix_kinds.py` has a line a kind.
//!
//! The judges are others: DuckDB and deltalake read the lake, MySQL says what it should be, and mysql_cdc reads the binlog beside us.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::oracle::{Asked, both_readers_agree_on};
use crate::support::lake::{assert_equal, assert_equal_by, python};
use crate::support::mysql::{Flavour, Mysql, block_on};
use crate::support::weir::{Weir, eventually};

const DATABASE: &str = "matrix";
/// For mysql_cdc: a table a kind, a row a transaction.
const APART: &str = "apart";

/// A source of the matrix.
struct Source {
    flavour: Flavour,
    flags: &'static [&'static str],
    /// Row images, with commas between.
    images: &'static str,
    /// Its binlog describes the tables, so that files of it can be read by themselves.
    describes: bool,
    kinds_min: u64,
    /// Of the snapshot, and of each of the stream and the archived files.
    cases_min: (u64, u64),
}

#[test]
fn every_value_of_mysql_comes_through_by_every_way() {
    let images = "FULL,MINIMAL,NOBLOB";
    let (flavour, kinds_min, cases_min) = (Flavour::Mysql, 155, (4_400, 32_000));
    Source { flavour, flags: &[], images, describes: true, kinds_min, cases_min }.comes_through();
}

#[test]
fn every_value_of_mysql_8_0_comes_through_by_every_way() {
    let images = "FULL,MINIMAL,NOBLOB";
    let (flavour, kinds_min, cases_min) = (Flavour::Mysql80, 153, (4_300, 32_000));
    // Whether it counts YEAR columns among those with a sign, its binlog does not say.
    Source { flavour, flags: &[], images, describes: false, kinds_min, cases_min }.comes_through();
}

#[test]
fn every_value_of_mysql_5_7_comes_through_by_every_way() {
    let images = "FULL,MINIMAL,NOBLOB";
    let (flavour, kinds_min, cases_min) = (Flavour::Mysql57, 152, (4_300, 32_000));
    Source { flavour, flags: &[], images, describes: false, kinds_min, cases_min }.comes_through();
}

#[test]
fn every_value_of_mariadb_comes_through_by_every_way() {
    let flags = &["--binlog-row-metadata=FULL"];
    let (flavour, kinds_min, cases_min) = (Flavour::Mariadb, 149, (4_200, 10_900));
    Source { flavour, flags, images: "FULL", describes: true, kinds_min, cases_min }.comes_through();
}

impl Source {
    fn comes_through(&self) {
        let started = Instant::now();
        let said = |what: &str| eprintln!("{:?} after {:?}: {what}", self.flavour, started.elapsed());
        let mysql = &Mysql::start_flavour(self.flavour, self.flags);
        let loaded = write(mysql, &["--block", "0", "--create"]);
        let kinds = loaded["kinds"].as_u64().expect("a number");
        assert!(kinds >= self.kinds_min, "{kinds} kinds");
        let weir = Weir::new(&mysql.url, &[&format!("{DATABASE}.*")], "");
        weir.catch_up();
        let when = "behind the load";
        assert_equal_by(mysql, &weir, DATABASE, "duckdb", &[], when);
        said(when);

        let streamed = write(mysql, &["--block", "1", "--images", self.images]);
        weir.catch_up();
        let when = "behind the live stream";
        assert_equal_by(mysql, &weir, DATABASE, "deltalake", &[], when);
        said(when);

        flush(mysql);
        let first = mysql.binlogs().len() - 1;
        let archived = write(mysql, &["--block", "2", "--images", self.images]);
        let (archive, files) = archived_from(mysql, first);
        self.dump(&weir, &files);
        let folder = archive.path().to_str().expect("a plain name");
        let log = weir.expect(0, &["run", "--until-caught-up", "--binlog-dir", folder]).stderr;
        assert!(log.contains("reading archived files"), "{log}");
        assert_equal(mysql, &weir, DATABASE);
        said("behind archived files");
        weir.balanced();
        weir.expect(0, &["reconcile", "--deep"]);
        said("reconciled");

        let cases = [&loaded, &streamed, &archived].map(|written| written["cases"].as_u64().expect("a number"));
        println!(
            "{:?}: {kinds} kinds, {} of them as keys; cases: {} of the load, {} of the stream, {} of archived files; no difference",
            self.flavour, loaded["keys"], cases[0], cases[1], cases[2]
        );
        assert!(cases[0] >= self.cases_min.0, "{cases:?}");
        assert!(cases[1] >= self.cases_min.1 && cases[2] == cases[1], "{cases:?}");
        if self.describes {
            self.mysql_cdc_agrees(mysql);
            said("read by mysql_cdc");
        }
    }

    /// `weir binlog dump` shows every row change of the files.
    fn dump(&self, weir: &Weir, files: &[PathBuf]) {
        if !self.describes {
            return;
        }
        let names: Vec<&str> = files.iter().map(|file| file.to_str().expect("a plain name")).collect();
        let shown = weir.expect(0, &[&["binlog", "dump"], &names[..]].concat()).stdout;
        let rows = shown.lines().filter(|line| line.contains("\"event\":\"row\"")).count() as u64;
        assert!(rows > self.cases_min.1 / 10, "{rows} changes of rows are shown");
    }

    fn mysql_cdc_agrees(&self, mysql: &Mysql) {
        flush(mysql);
        let first = mysql.binlogs().len() - 1;
        let written = write(mysql, &["--apart", APART]);
        let (_archive, files) = archived_from(mysql, first);
        let [file] = &files[..] else { panic!("{files:?}") };
        let kinds = |asked: &str| -> Vec<String> {
            serde_json::from_value(written["cdc"][asked].clone()).expect("names of kinds")
        };
        let (all, some) = (kinds("all"), kinds("some"));
        let file = file.clone();
        let (number, all_and_some) = (all.len() + some.len(), (all, some));
        let changes = block_on(async move {
            let (all, some) = all_and_some;
            both_readers_agree_on(&file, |table| match table {
                table if all.iter().any(|kind| kind == table) => Asked::All,
                table if some.iter().any(|kind| kind == table) => Asked::Some,
                _ => Asked::Nothing,
            })
            .await
        });
        println!("{:?}: mysql_cdc agrees on {changes} changes of {number} kinds", self.flavour);
        assert!(number > 90 && changes > 1_200, "{changes} changes of {number} kinds");
    }
}

/// What `matrix.py` writes, and says of it.
fn write(mysql: &Mysql, arguments: &[&str]) -> serde_json::Value {
    let mut command = python("tests/support/matrix.py");
    command.args(["--url", &mysql.url, "--database", DATABASE]).args(arguments);
    let output = command.output().expect("the matrix starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

fn flush(mysql: &Mysql) {
    mysql.run("FLUSH BINARY LOGS");
}

/// Copies the binlogs from the one at `first` on into a folder, and has the server purge all that it need not have.
fn archived_from(mysql: &Mysql, first: usize) -> (tempfile::TempDir, Vec<PathBuf>) {
    flush(mysql);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let binlogs = mysql.binlogs();
    let files = binlogs[first..binlogs.len() - 1].iter().map(|name| {
        let file = folder.path().join(name);
        std::fs::copy(mysql.data().join(name), &file).expect("a binlog can be copied");
        file
    });
    let files = files.collect();
    // What a crash would need is kept until the engine has caught up.
    eventually("the binlog is purged", Duration::from_secs(30), || {
        mysql.run("PURGE BINARY LOGS BEFORE NOW() + INTERVAL 1 DAY");
        mysql.binlogs().len() == 1
    });
    (folder, files)
}
