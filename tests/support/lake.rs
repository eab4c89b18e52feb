//! The independent readers: DuckDB and deltalake's QueryBuilder, against MySQL, row for row.

use std::process::{Child, Command, Stdio};

use super::mysql::Mysql;
use super::root;
use super::weir::{Reading, Weir};

/// A script of the checkout, in the readers' Python environment.
pub fn python(script: &str) -> Command {
    let services = std::env::var_os("WEIR_SERVICES_DIR").map_or_else(|| root().join("target/services"), Into::into);
    let python = services.join("readers/bin/python");
    assert!(python.exists(), "the readers' Python environment is missing; `make services` fetches it");
    let mut command = Command::new(python);
    command.arg(root().join(script));
    command
}

/// Fails unless every table of `database` is equal, by every reader that can reach them.
pub fn assert_equal(mysql: &Mysql, weir: &Weir, database: &str) {
    for Reading { reader, warehouse, environment } in weir.readings() {
        let output = python("tests/support/compare.py")
            .args(["--url", &mysql.url, "--database", database, "--reader", reader])
            .args(["--warehouse", warehouse])
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .output()
            .expect("the comparer starts");
        assert!(
            output.status.success(),
            "{database} differs by {reader} in {warehouse}:\n{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Random changes on a database of their own.
pub struct Workload<'a> {
    pub mysql: &'a Mysql,
    pub database: &'a str,
    pub seed: u64,
}

impl Workload<'_> {
    /// Makes the tables and `rows` rows.
    pub fn create(&self, rows: u32) {
        let output = self.phase("create").args(["--rows", &rows.to_string()]).output().expect("the workload starts");
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
