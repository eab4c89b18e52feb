//! The independent readers: DuckDB and deltalake's QueryBuilder, against MySQL, row for row.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::mysql::Mysql;
use super::weir::{Reading, Weir};
use super::{root, services_folder};

/// A script of the checkout, in the readers' Python environment.
pub fn python(script: &str) -> Command {
    let python = services_folder().join("readers/bin/python");
    assert!(python.exists(), "the readers' Python environment is missing; `make services` fetches it");
    let mut command = Command::new(python);
    command.arg(root().join(script));
    command
}

/// Another engine does something to a lake table; without `what`, it merges its files.
pub fn foreign(weir: &Weir, database: &str, table: &str, what: &[&str]) {
    let path = weir.warehouse().join(database).join(table);
    let output = python("tests/support/foreign.py").arg("--path").arg(path).args(what).output();
    let output = output.expect("the other engine starts");
    assert!(output.status.success(), "{what:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Another engine that has read a table and waits before it does something to it.
pub struct Foreign {
    child: Child,
}

impl Foreign {
    /// It has read the table in `folder` when this returns; `what` as for [`foreign`].
    pub fn begin(folder: &Path, what: &[&str]) -> Self {
        let mut command = python("tests/support/foreign.py");
        command.arg("--path").arg(folder).arg("--when-told").args(what);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the other engine starts");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("its output is ours");
        BufReader::new(stdout).read_line(&mut line).expect("it says something");
        assert_eq!(line.trim(), "read");
        Self { child }
    }

    /// Lets it go on; whether its commit got in.
    pub fn go_on(mut self) -> bool {
        let mut stdin = self.child.stdin.take().expect("its input is ours");
        stdin.write_all(b"\n").expect("it listens");
        drop(stdin);
        match self.child.wait().expect("its end can be waited for").code() {
            Some(0) => true,
            Some(3) => false,
            other => panic!("the other engine ended with {other:?}"),
        }
    }
}

/// Readers that every test may count on.
pub const READERS: [&str; 3] = ["duckdb", "deltalake", "polars"];
/// With those that `make test-all` fetches.
pub const EVERY_READER: [&str; 6] = ["duckdb", "deltalake", "polars", "chdb", "kernel", "spark"];

/// Fails unless every table of `database` is equal, by every reader that can reach them.
pub fn assert_equal(mysql: &Mysql, weir: &Weir, database: &str) {
    compare(mysql, weir, database, &[]);
}

/// Fails unless the tables of `database` are equal, by every reader that can reach them, compared as `options` say. Gives
/// what the last found.
pub fn compare(mysql: &Mysql, weir: &Weir, database: &str, options: &[&str]) -> serde_json::Value {
    let mut found = serde_json::Value::Null;
    for reading in weir.readings() {
        found = compare_by(mysql, database, reading, options, "at the end");
    }
    found
}

/// Fails unless every table of `databases`, which have commas between them, is equal by one of [`EVERY_READER`], compared as
/// `options` say.
pub fn assert_equal_by(
    mysql: &Mysql,
    weir: &Weir,
    databases: &str,
    reader: &'static str,
    options: &[&str],
    when: &str,
) {
    let warehouse = weir.warehouse().display().to_string();
    let reading = Reading { reader, warehouse, environment: Vec::new() };
    compare_by(mysql, databases, &reading, options, when);
}

/// Fails unless the tables of `databases`, which have commas between them, are equal by `reading`. Gives what was found.
fn compare_by(mysql: &Mysql, databases: &str, reading: &Reading, options: &[&str], when: &str) -> serde_json::Value {
    let Reading { reader, warehouse, .. } = reading;
    match differences(mysql, databases, reading, options) {
        Ok(found) => found,
        Err(found) => panic!("{databases} differ by {reader} in {warehouse}, {when}:\n{found:#}"),
    }
}

/// What is found of the tables of `databases`, which have commas between them, by `reading`: an error if they differ.
pub fn differences(
    mysql: &Mysql,
    databases: &str,
    reading: &Reading,
    options: &[&str],
) -> Result<serde_json::Value, serde_json::Value> {
    let Reading { reader, warehouse, environment } = reading;
    let output = python("tests/support/compare.py")
        .args(["--url", &mysql.url, "--database", databases, "--reader", reader, "--warehouse", warehouse])
        .args(options)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .output()
        .expect("the comparer starts");
    let found = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("the comparer failed: {}", String::from_utf8_lossy(&output.stderr)));
    if output.status.success() { Ok(found) } else { Err(found) }
}

/// Fails unless the table's partition columns say what they are made of, and its log is as every reader reads it.
pub fn assert_partitioned(weir: &Weir, database: &str, table: &str, reader: &str, by: &[&str]) {
    let output = python("tests/support/partitioned.py")
        .arg("--path")
        .arg(weir.warehouse().join(database).join(table))
        .args(["--reader", reader])
        .args(by.iter().flat_map(|by| ["--by", by]))
        .output()
        .expect("the comparer starts");
    assert!(
        output.status.success(),
        "{database}.{table} by {reader}:\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Random changes on a database of their own.
pub struct Workload<'a> {
    pub mysql: &'a Mysql,
    pub database: &'a str,
    pub seed: u64,
}

impl Workload<'_> {
    /// The same with another seed, which follows from this one and a number.
    #[must_use]
    pub fn at(&self, step: u32) -> Self {
        Self { seed: self.seed + u64::from(step), ..*self }
    }

    /// Makes the tables and `rows` rows.
    pub fn create(&self, rows: u32) {
        self.create_tables(rows, "");
    }

    /// Makes `tables`, with commas between, and `rows` rows.
    pub fn create_tables(&self, rows: u32, tables: &str) {
        let output = self.phase("create").args(["--rows", &rows.to_string(), "--tables", tables]).output();
        let output = output.expect("the workload starts");
        assert!(output.status.success(), "seed {}: {}", self.seed, String::from_utf8_lossy(&output.stderr));
    }

    /// Changes them in the background.
    pub fn live(&self, changes: u32, extra: &[&str]) -> Child {
        self.phase("live")
            .args(["--changes", &changes.to_string()])
            .args(extra)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the workload starts")
    }

    fn phase(&self, phase: &str) -> Command {
        eprintln!("workload {phase} on {}, seed {}", self.database, self.seed);
        let mut command = python("tests/support/workload.py");
        command.args(["--url", &self.mysql.url, "--database", self.database]);
        command.args(["--seed", &self.seed.to_string(), "--phase", phase]);
        command
    }
}
