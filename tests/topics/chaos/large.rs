//! Kills at the points that only a table of many versions or many rows comes to.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use weir::failpoint as point;

use super::results::{Verdict, note};
use crate::support::lake::assert_equal;
use crate::support::mysql::Mysql;
use crate::support::weir::{Weir, eventually};

/// Above the rows from which an index is kept.
const ROWS: u32 = 210_000;
/// A checkpoint of the log is written every 200.
const VERSIONS: usize = 200;

/// A command comes to the point, where it ends.
fn dies_at(weir: &Weir, arguments: &[&str], point: &'static str) {
    let mut program = weir.start_at(arguments, "large.log", &format!("{point}=return"));
    let ended = program.wait_within(Duration::from_secs(120));
    assert_eq!(ended.and_then(|status| status.signal()), Some(9), "{point}:\n{}", program.log());
    note(&format!("SIGKILL, direct, at {point}"), "the next start went on", Verdict::default());
}

/// Commits in a table's log.
fn versions(weir: &Weir, table: &str) -> usize {
    let log = weir.warehouse().join("large").join(table).join("_delta_log");
    let names = std::fs::read_dir(log).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".json")).count()
}

/// Changes, each a commit of its own, until the service is gone or `enough` holds.
fn commit_many(weir: &Weir, mysql: &Mysql, failpoints: &str, enough: impl Fn() -> bool) {
    let mut service = weir.start_at(&["run"], "large.log", failpoints);
    eventually("many versions", Duration::from_secs(240), || {
        let statements: Vec<&str> = vec!["INSERT INTO large.log (v) VALUES (1); DO SLEEP(0.02)"; 10];
        mysql.run(&statements.join(";"));
        enough() || !service.is_running()
    });
    if service.is_running() {
        assert_eq!(service.terminate().0, Some(0));
    }
}

#[test]
fn kills_where_logs_are_cut_and_indexes_kept_lose_and_double_nothing() {
    let mysql = &Mysql::start(&[]);
    mysql.run(&format!(
        "CREATE DATABASE large; CREATE TABLE large.log (id INT PRIMARY KEY AUTO_INCREMENT, v INT);
         CREATE TABLE large.many (id INT PRIMARY KEY, v INT); SET SESSION cte_max_recursion_depth = {ROWS};
         INSERT INTO large.many WITH RECURSIVE n (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < {ROWS})
         SELECT id, 0 FROM n"
    ));
    let weir = Weir::new(&mysql.url, &["large.*"], "");
    weir.replace_in_config("commit_interval_ms = 200", "commit_interval_ms = 1");

    for point in [point::INDEX_KEPT_WRITTEN, point::INDEX_KEPT_NAMED] {
        dies_at(&weir, &["run", "--until-caught-up"], point);
        mysql.run("UPDATE large.many SET v = v + 1 WHERE id % 20000 = 0; DELETE FROM large.many WHERE id = 77");
    }
    for point in [point::DELTA_CHECKPOINT_BEFORE, point::DELTA_CHECKPOINT_AFTER] {
        let before = versions(&weir, "log");
        commit_many(&weir, mysql, &format!("{point}=return"), || versions(&weir, "log") > before + 2 * VERSIONS);
        assert!(versions(&weir, "log") < before + 2 * VERSIONS, "{point} was not come to");
        note(&format!("SIGKILL, direct, at {point}"), "the next start went on", Verdict::default());
    }
    weir.catch_up();
    dies_at(&weir, &["table", "clean", "large.log", "--retention-hours", "0"], point::LOG_CLEANED);
    weir.expect(0, &["table", "clean", "large.log", "--retention-hours", "0"]);
    weir.catch_up();
    assert_equal(mysql, &weir, "large");
    let report = weir.balanced();
    for table in report["tables"].as_array().unwrap() {
        assert_eq!(table["hops"]["duplicate"], 0, "{table:#}");
    }
    assert!(versions(&weir, "log") < VERSIONS, "the log is cut");
}
