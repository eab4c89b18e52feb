//! XA transactions of two phases: rows that are prepared appear with their commit, however long it takes and whatever is
//! killed, restarted and purged in between.

use std::time::Duration;

use crate::support::clickhouse::Clickhouse;
use crate::support::kafka::Kafka;
use crate::support::lake::assert_equal;
use crate::support::mysql::Mysql;
use crate::support::random::Random;
use crate::support::weir::{Weir, eventually};

/// A branch locks the rows that it changes there, and not what lies between.
fn start() -> Mysql {
    Mysql::start(&["--transaction-isolation=READ-COMMITTED"])
}

fn create(mysql: &Mysql, database: &str) {
    mysql.run(&format!(
        "CREATE DATABASE {database}; USE {database};
         CREATE TABLE a (id INT PRIMARY KEY, v VARCHAR(300)); INSERT INTO a VALUES (1, 'one'), (2, 'two'), (3, 'three');
         CREATE TABLE b (id INT PRIMARY KEY, n BIGINT); INSERT INTO b VALUES (1, 10), (2, 20);
         CREATE TABLE log (id INT PRIMARY KEY, n INT)"
    ));
}

fn append_log(database: &str) -> String {
    format!("[[table]]\nname = \"{database}.log\"\nmode = \"append\"\n")
}

fn prepare(mysql: &Mysql, database: &str, xid: &str, changes: &str) {
    mysql.run(&format!("USE {database}; XA START {xid}; {changes}; XA END {xid}; XA PREPARE {xid}"));
}

/// Names of the objects that hold prepared rows.
fn held(weir: &Weir) -> Vec<String> {
    let folder = weir.warehouse().join("_weir").join(&weir.name).join("prepared");
    let Ok(found) = std::fs::read_dir(folder) else { return Vec::new() };
    let names = found.map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"));
    names.filter(|name| name != "beginning.json").collect()
}

/// Everything that the server has written before now goes.
fn purge(mysql: &Mysql) {
    mysql.run("FLUSH BINARY LOGS");
    eventually("everything before now is purged", Duration::from_secs(30), || {
        mysql.run("PURGE BINARY LOGS BEFORE NOW()");
        mysql.value("SELECT CAST(GTID_SUBSET(@@gtid_executed, @@gtid_purged) AS CHAR)") == "1"
    });
}

/// Branches over several tables, plain and compressed, committed and rolled back, in this and in later runs.
fn two_phases(mysql: &Mysql, weir: &Weir, database: &str) {
    weir.catch_up();
    let service = weir.run();
    prepare(
        mysql,
        database,
        "'first','branch',7",
        "INSERT INTO a VALUES (10, 'prepared'); UPDATE a SET v = 'changed' WHERE id = 1; DELETE FROM b WHERE id = 2; INSERT INTO log VALUES (1, 1)",
    );
    mysql.run("SET GLOBAL binlog_transaction_compression = ON");
    prepare(
        mysql,
        database,
        "'packed'",
        "INSERT INTO b VALUES (30, 300), (31, 310); UPDATE a SET id = 20 WHERE id = 2; INSERT INTO log VALUES (2, 2)",
    );
    mysql.run("SET GLOBAL binlog_transaction_compression = OFF");
    prepare(
        mysql,
        database,
        "'dropped'",
        "INSERT INTO a VALUES (40, 'never'); SAVEPOINT s; INSERT INTO b VALUES (40, 1); ROLLBACK TO s",
    );
    // At once, with its rows in between.
    prepare(mysql, database, "'quick'", "INSERT INTO a VALUES (50, 'quick'); INSERT INTO log VALUES (3, 3)");
    mysql.run(&format!(
        "USE {database}; XA COMMIT 'quick'; INSERT INTO a VALUES (51, 'beside'); XA START 'one'; INSERT INTO b VALUES (52, 1); XA END 'one';
         XA COMMIT 'one' ONE PHASE; XA START 'reads'; SELECT COUNT(*) FROM a; XA END 'reads'; XA PREPARE 'reads'; XA COMMIT 'reads'"
    ));
    eventually("what is committed is there", Duration::from_secs(60), || weir.has_rows(&format!("{database}.a"), 5));
    eventually("what is prepared is held", Duration::from_secs(20), || held(weir).len() >= 3);
    let status = weir.expect(0, &["status", "--format", "json"]).json();
    assert_eq!(status["prepared"].as_array().map(Vec::len), Some(3), "{status:#}");
    service.kill();
    weir.catch_up();
    assert_equal(mysql, weir, database);
    // Nothing of the rows is in the source's log any more.
    purge(mysql);
    let service = weir.run();
    mysql.run("XA COMMIT 'first','branch',7");
    service.kill();
    let service = weir.run();
    mysql.run(&format!(
        "USE {database}; XA ROLLBACK 'dropped'; XA COMMIT 'packed'; UPDATE a SET v = 'later' WHERE id = 1"
    ));
    eventually("what was prepared is there", Duration::from_secs(60), || weir.has_rows(&format!("{database}.b"), 4));
    service.kill();
    weir.catch_up();
    assert_equal(mysql, weir, database);
    weir.balanced();
    // The names are free again.
    prepare(mysql, database, "'packed'", "DELETE FROM a WHERE id = 20; INSERT INTO log VALUES (4, 4)");
    weir.catch_up();
    mysql.run("XA COMMIT 'packed'");
    weir.catch_up();
    // Removed by the checkpoint behind, or the next start.
    weir.catch_up();
    assert_equal(mysql, weir, database);
    weir.balanced();
    assert_eq!(held(weir), Vec::<String>::new());
}

#[test]
fn prepared_rows_appear_with_their_commit_though_their_binlogs_are_gone() {
    let mysql = &start();
    create(mysql, "xa");
    let weir = Weir::new(&mysql.url, &["xa.*"], &append_log("xa"));
    two_phases(mysql, &weir, "xa");
    weir.expect(0, &["reconcile", "--deep"]);
}

#[test]
fn over_kafka_prepared_rows_appear_with_their_commit() {
    let mysql = &start();
    create(mysql, "xak");
    let servers = (Kafka::shared(), Clickhouse::shared());
    let weir = Weir::over_kafka("xa", &mysql.url, &["xak.*"], servers, "partitions = 2\n");
    weir.append_to_config(&append_log("xak"));
    two_phases(mysql, &weir, "xak");
}

#[test]
fn what_is_prepared_before_the_first_start_is_waited_for() {
    let mysql = &start();
    create(mysql, "xa_before");
    prepare(mysql, "xa_before", "'old'", "INSERT INTO a VALUES (10, 'old')");
    prepare(mysql, "xa_before", "'older'", "INSERT INTO b VALUES (10, 1)");
    let weir = Weir::new(&mysql.url, &["xa_before.*"], &append_log("xa_before"));
    let check = weir.expect(0, &["check"]).stdout;
    assert!(check.contains("2 XA transactions are prepared"), "{check}");
    let service = weir.run();
    eventually("it says what it waits for", Duration::from_secs(30), || service.log().contains("XA RECOVER"));
    // One that comes later is no reason to wait.
    prepare(mysql, "xa_before", "'young'", "INSERT INTO a VALUES (11, 'young'); INSERT INTO log VALUES (1, 1)");
    mysql.run("XA COMMIT 'old'; XA ROLLBACK 'older'");
    eventually("the tables are loaded", Duration::from_secs(60), || weir.has_rows("xa_before.a", 4));
    mysql.run("XA COMMIT 'young'");
    eventually("the young one is there", Duration::from_secs(60), || weir.has_rows("xa_before.a", 5));
    assert_eq!(service.terminate().0, Some(0));
    weir.catch_up();
    assert_equal(mysql, &weir, "xa_before");
    weir.balanced();
}

#[test]
fn a_table_is_loaded_while_rows_of_it_are_prepared() {
    let mysql = &start();
    create(mysql, "xa_load");
    mysql.run("CREATE TABLE xa_load.later (id INT PRIMARY KEY); CREATE TABLE xa_load.other (id INT PRIMARY KEY)");
    let weir = Weir::new(&mysql.url, &["xa_load.*", "!xa_load.other"], &append_log("xa_load"));
    weir.catch_up();
    prepare(
        mysql,
        "xa_load",
        "'x'",
        "INSERT INTO a VALUES (10, 'x'); DELETE FROM a WHERE id = 1; INSERT INTO b VALUES (10, 1)",
    );
    prepare(mysql, "xa_load", "'y'", "INSERT INTO a VALUES (11, 'y'); INSERT INTO other VALUES (1)");
    weir.catch_up();
    // The whole of one, by a service that begins at the present; then one commit before and one behind another load.
    weir.expect(0, &["snapshot", "--table", "xa_load.a"]);
    assert!(weir.has_rows("xa_load.a", 3));
    mysql.run("XA COMMIT 'x'");
    weir.expect(0, &["snapshot", "--table", "xa_load.a"]);
    // A table that is captured from here on, of which rows were prepared before.
    weir.configure(&mysql.url, &["xa_load.*"], &append_log("xa_load"));
    weir.catch_up();
    mysql.run("XA COMMIT 'y'");
    weir.catch_up();
    assert_equal(mysql, &weir, "xa_load");
    weir.expect(0, &["reconcile", "--deep"]);
}

#[test]
fn a_commit_of_rows_that_nobody_has_stops_the_stream_and_a_snapshot_mends_it() {
    let mysql = &start();
    create(mysql, "xa_lost");
    // An account that may not ask which transactions are prepared.
    mysql.run(
        "CREATE USER weak IDENTIFIED BY 'w'; GRANT SELECT, RELOAD, REPLICATION SLAVE, REPLICATION CLIENT, LOCK TABLES ON *.* TO weak",
    );
    let url = mysql.url.replace("root@", "weak:w@");
    prepare(mysql, "xa_lost", "'unseen'", "INSERT INTO a VALUES (10, 'unseen')");
    let weir = Weir::new(&url, &["xa_lost.*"], &append_log("xa_lost"));
    let first = weir.expect(0, &["run", "--until-caught-up"]);
    assert!(first.stderr.contains("XA_RECOVER_ADMIN"), "{}", first.stderr);
    mysql.run("XA COMMIT 'unseen'; INSERT INTO xa_lost.a VALUES (11, 'behind')");
    let stopped = weir.expect(1, &["run", "--until-caught-up"]).stderr;
    for words in ["X'756e7365656e',X'',1", "binlog.0", "weir snapshot"] {
        assert!(stopped.contains(words), "{words}: {stopped}");
    }
    weir.expect(0, &["snapshot"]);
    weir.catch_up();
    assert_equal(mysql, &weir, "xa_lost");
}

#[test]
fn a_branch_larger_than_memory_may_hold_is_kept_in_parts() {
    let mysql = &start();
    create(mysql, "xa_large");
    let extra = format!("{}\n", append_log("xa_large"));
    let weir = Weir::new(&mysql.url, &["xa_large.*"], &extra);
    weir.replace_in_config("[apply]\n", "[apply]\nmemory_max = \"32MiB\"\n");
    weir.catch_up();
    let insert = |from: u32| {
        let digits = "(SELECT 0 n UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9)";
        format!(
            "INSERT INTO a SELECT {from} + a.n + 10 * b.n + 100 * c.n + 1000 * d.n + 10000 * e.n, REPEAT(CHAR(97 + a.n), 290)
             FROM {digits} a, {digits} b, {digits} c, {digits} d, {digits} e"
        )
    };
    prepare(mysql, "xa_large", "'large'", &insert(1_000));
    let service = weir.run();
    eventually("its parts are put", Duration::from_secs(60), || held(&weir).len() >= 4);
    service.kill();
    weir.catch_up();
    mysql.run(&format!("USE xa_large; XA START 'one'; {}; XA END 'one'; XA COMMIT 'one' ONE PHASE", insert(200_000)));
    let service = weir.run();
    mysql.run("XA COMMIT 'large'");
    std::thread::sleep(Duration::from_millis(1_500));
    service.kill();
    weir.catch_up();
    assert_equal(mysql, &weir, "xa_large");
    weir.balanced();
}

/// Branches of random sizes, with random outcomes, while the service is killed.
#[test]
fn random_branches_under_kills_end_equal_and_balanced() {
    random_branches(&start(), 20_261);
}

/// The same on a server that is as [`start`] makes it.
pub(super) fn random_branches(mysql: &Mysql, seed: u64) {
    eprintln!("branches and kills of seed {seed}");
    let mut random = Random::new(seed);
    create(mysql, "xa_random");
    let weir = Weir::new(&mysql.url, &["xa_random.*"], &append_log("xa_random"));
    // A first start would wait for what is prepared by then, and be killed at it.
    weir.catch_up();
    let mut open: Vec<u64> = Vec::new();
    let mut next = 0;
    for _ in 0..8 {
        let service = weir.run();
        for _ in 0..40 + random.below(40) {
            if open.len() >= 6 || (!open.is_empty() && random.below(3) == 0) {
                let branch = open.swap_remove(random.below(open.len() as u64) as usize);
                let outcome = if random.below(4) == 0 { "ROLLBACK" } else { "COMMIT" };
                mysql.run(&format!("XA {outcome} 'x{branch}'"));
            } else {
                next += 1;
                // Keys of its own, since it keeps them locked.
                let (from, rows) = (next * 1_000 + 100, 1 + random.below(60));
                let values = |width: usize| -> String {
                    let rows: Vec<String> =
                        (0..rows).map(|n| format!("({}, {})", from + n, width as u64 * n)).collect();
                    rows.join(", ")
                };
                let compression = if random.below(3) == 0 { "ON" } else { "OFF" };
                mysql.run(&format!("SET GLOBAL binlog_transaction_compression = {compression}"));
                let more = if random.below(2) == 0 {
                    format!("; UPDATE a SET v = 'u' WHERE id >= {from} AND id < {from} + 500")
                } else {
                    String::new()
                };
                prepare(
                    mysql,
                    "xa_random",
                    &format!("'x{next}'"),
                    &format!(
                        "INSERT INTO a VALUES {}; INSERT INTO b VALUES {}; INSERT INTO log VALUES {}{more}",
                        values(3),
                        values(5),
                        values(7)
                    ),
                );
                open.push(next);
            }
            mysql.run(&format!(
                "INSERT INTO xa_random.b VALUES ({}, 1) ON DUPLICATE KEY UPDATE n = n + 1",
                random.below(50)
            ));
        }
        if random.below(3) == 0 {
            assert_eq!(service.terminate().0, Some(0));
        } else {
            service.kill();
        }
    }
    weir.catch_up();
    assert_equal(mysql, &weir, "xa_random");
    for branch in open {
        mysql.run(&format!("XA COMMIT 'x{branch}'"));
    }
    weir.catch_up();
    assert_equal(mysql, &weir, "xa_random");
    weir.balanced();
}
