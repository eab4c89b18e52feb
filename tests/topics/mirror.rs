//! A random workload ends equal, row for row and value for value, and its accounts balance.

use crate::support::lake::{Workload, assert_equal};
use crate::support::mysql::Mysql;
use crate::support::weir::Weir;

/// Changes of the workload under which the tables must end equal.
const CHANGES: u32 = 100_000;

#[test]
fn a_random_workload_during_snapshot_and_stream_ends_equal_and_balanced() {
    let mysql = &Mysql::start(&[]);
    let workload = Workload { mysql, database: "mirror", seed: 20_261_121 };
    workload.create(20_000);
    let weir = Weir::new(&mysql.url, &["mirror.*"], "");
    // The service seeds while the writers are at work.
    let mut writers = workload.live(CHANGES, &["--workers", "2", "--compression", "0.2", "--ddl"]);
    let service = weir.run();
    assert!(writers.wait().expect("the workload ends").success());
    let (code, _) = service.terminate();
    assert_eq!(code, Some(0));
    weir.catch_up();
    assert_equal(mysql, &weir, "mirror");
    let report = weir.expect(0, &["reconcile", "--format", "json"]).json();
    assert_eq!(report["verdict"], "balanced", "{report:#}");
    let hops = |name: &str| -> u64 {
        report["tables"].as_array().unwrap().iter().map(|t| t["hops"][name].as_u64().unwrap()).sum()
    };
    assert!(hops("captured") > u64::from(CHANGES) / 2, "{report:#}");
    assert_eq!(hops("captured"), hops("consumed"));
}

#[test]
fn the_stream_phase_does_not_read_the_tables_again() {
    let mysql = Mysql::start(&[]);
    let workload = Workload { mysql: &mysql, database: "reads", seed: 7 };
    workload.create(5_000);
    let weir = Weir::new(&mysql.url, &["reads.*"], "");
    weir.catch_up();
    assert!(workload.live(5_000, &[]).wait().unwrap().success());
    let reads = || -> u64 {
        mysql
            .value(
                "SELECT CAST(COALESCE(SUM(count_star), 0) AS CHAR) FROM performance_schema.events_statements_summary_by_digest \
                 WHERE digest_text LIKE 'SELECT%' AND digest_text LIKE '%`reads` . `%' AND schema_name IS NULL",
            )
            .parse()
            .unwrap()
    };
    let before = reads();
    weir.catch_up();
    assert_eq!(reads(), before, "a caught-up start selected from the tables");
    assert_equal(&mysql, &weir, "reads");
}

#[test]
fn a_run_with_nothing_to_do_ends_at_once_and_writes_no_version() {
    let mysql = Mysql::shared();
    mysql
        .run("CREATE DATABASE idle; CREATE TABLE idle.t (id INT PRIMARY KEY, v INT); INSERT INTO idle.t VALUES (1, 1)");
    let weir = Weir::new(&mysql.url, &["idle.*"], "");
    weir.catch_up();
    let log = weir.warehouse().join("idle/t/_delta_log");
    let versions = || std::fs::read_dir(&log).unwrap().count();
    let before = versions();
    weir.catch_up();
    assert_eq!(versions(), before);
}
