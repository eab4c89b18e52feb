//! Sources without GTIDs, followed by binlog file and position: they end equal through kills, rotations and restarts, loads see
//! what the stream has sent before the server shows it, and what this mode cannot survive is refused with the way out.

use std::time::{Duration, Instant};

use super::sources::{Kill, account, loaded_beside_kills};
use super::xa::random_branches;
use crate::support::clickhouse::Clickhouse;
use crate::support::kafka::Kafka;
use crate::support::lake::{Workload, assert_equal};
use crate::support::mysql::{Flavour, Mysql};
use crate::support::root;
use crate::support::weir::{Weir, eventually, hops};

const OFF: [&str; 2] = ["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"];
/// Changes of the workload beside which the service is killed, and more for the stream.
const CHANGES: u32 = 8_000;
const STREAMED: u32 = 2_000;

fn start() -> Mysql {
    Mysql::start(&OFF)
}

fn rotate(mysql: &Mysql) {
    mysql.run("FLUSH BINARY LOGS");
}

/// A table `t` in `database` with a row.
fn create(mysql: &Mysql, database: &str) {
    mysql.run(&format!(
        "CREATE DATABASE {database}; CREATE TABLE {database}.t (id INT PRIMARY KEY, v VARCHAR(100));
         INSERT INTO {database}.t VALUES (1, 'one')"
    ));
}

fn insert(mysql: &Mysql, database: &str, id: u32) {
    mysql.run(&format!("INSERT INTO {database}.t VALUES ({id}, '{}')", "x".repeat(id as usize % 50)));
}

/// Fails unless `weir run` ends with every one of `words`.
fn refused(weir: &Weir, words: &[&str]) {
    let failed = weir.expect(1, &["run", "--until-caught-up"]);
    for word in words {
        assert!(failed.stderr.contains(word), "`{word}` is not in {}", failed.stderr);
    }
}

/// The line of `weir check` about `name`.
fn check_line(weir: &Weir, code: i32, name: &str) -> serde_json::Value {
    let lines = weir.expect(code, &["check", "--format", "json"]).json();
    let line = lines.as_array().expect("lines").iter().find(|line| line["name"] == name).cloned();
    line.unwrap_or_else(|| panic!("no line {name} in {lines:#}"))
}

/// The random workload during load and stream, with kills of the service, and rotations under it and between its runs.
fn ends_equal_and_balanced(flavour: Flavour, seed: u64, configured: impl FnOnce(&str) -> Weir) {
    let mysql = &Mysql::start_flavour(flavour, &OFF);
    let url = account(mysql, flavour, "src");
    mysql.run("GRANT LOCK TABLES ON src.* TO 'weir'@'127.0.0.1'");
    let workload = Workload { mysql, database: "src", seed };
    workload.create(4_000);
    let weir = configured(&url);
    weir.expect(0, &["check"]);
    let compression: &[&str] = if flavour == Flavour::Mysql { &[] } else { &["--compression", "0"] };
    let mut writers = workload.live(CHANGES, &[&["--workers", "2", "--rate", "1200"][..], compression].concat());
    loaded_beside_kills(&weir, &mut writers, &[900, 1_500, 2_400], |kill| {
        rotate(mysql);
        if kill == Kill::Comes {
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    assert_equal(mysql, &weir, "src");
    // Whatever the kills left to the stream, these changes come by it.
    let service = weir.run();
    let mut writers = workload.at(1).live(STREAMED, compression);
    rotate(mysql);
    assert!(writers.wait().expect("the workload ends").success());
    service.kill();
    rotate(mysql);
    weir.catch_up();
    assert_equal(mysql, &weir, "src");
    assert!(hops(&weir.balanced(), "captured") > u64::from(STREAMED) / 2);
    weir.expect(0, &["reconcile", "--deep"]);
}

#[test]
fn a_source_without_gtids_ends_equal_and_balanced() {
    ends_equal_and_balanced(Flavour::Mysql, 970_101, |url| Weir::new(url, &["src.*"], ""));
}

#[test]
fn a_source_without_gtids_over_kafka_ends_equal_and_balanced() {
    ends_equal_and_balanced(Flavour::Mysql, 970_102, |url| {
        Weir::over_kafka("positions", url, &["src.*"], (Kafka::shared(), Clickhouse::shared()), "partitions = 2\n")
    });
}

#[test]
fn mysql_5_7_without_gtids_ends_equal_and_balanced() {
    ends_equal_and_balanced(Flavour::Mysql57, 570_101, |url| Weir::new(url, &["src.*"], ""));
}

#[test]
fn mysql_8_0_without_gtids_ends_equal_and_balanced() {
    ends_equal_and_balanced(Flavour::Mysql80, 800_101, |url| Weir::new(url, &["src.*"], ""));
}

#[test]
fn branches_of_a_source_without_gtids_end_equal_and_balanced() {
    random_branches(&Mysql::start(&[&OFF[..], &["--transaction-isolation=READ-COMMITTED"]].concat()), 970_103);
}

#[test]
fn restarts_of_the_server_and_idle_rotations_are_followed() {
    let mysql = &start();
    create(mysql, "restarts");
    let weir = Weir::new(&mysql.url, &["restarts.*"], "");
    weir.catch_up();
    // Nothing but new files: there is no transaction that would tell how far it is.
    rotate(mysql);
    rotate(mysql);
    weir.catch_up();
    assert_eq!(weir.expect(0, &["status", "--format", "json"]).json()["tables"][0]["lag_transactions"], 0);
    let service = weir.run();
    insert(mysql, "restarts", 2);
    eventually("the row is there", Duration::from_secs(60), || weir.has_rows("restarts.t", 2));
    mysql.stop();
    mysql.start_again_with(&OFF);
    insert(mysql, "restarts", 3);
    eventually("the stream goes on", Duration::from_secs(60), || weir.has_rows("restarts.t", 3));
    assert_eq!(service.terminate().0, Some(0));
    mysql.stop();
    mysql.start_again_with(&OFF);
    weir.catch_up();
    let balanced = weir.balanced();
    let position = balanced["position"].as_str().expect("a position");
    let end = format!(
        "{}:{}",
        mysql.value("SELECT @@server_uuid"),
        mysql.value("SELECT LOCAL->>'$.binary_log_file' FROM performance_schema.log_status")
    );
    assert!(position.starts_with(&end), "{position} is not in {end}");
    assert_equal(mysql, &weir, "restarts");
}

#[test]
fn check_says_how_such_a_source_is_followed_and_what_that_does_not_survive() {
    let mysql = &start();
    create(mysql, "said");
    let url = account(mysql, Flavour::Mysql, "said");
    let weir = Weir::new(&url, &["said.*"], "");
    let lock = check_line(&weir, 1, "grant_lock_tables");
    assert_eq!(lock["mend"], "GRANT LOCK TABLES ON `said`.* TO 'weir'@'127.0.0.1'");
    mysql.run(lock["mend"].as_str().expect("a statement"));
    let mode = check_line(&weir, 0, "gtid_mode");
    assert_eq!(mode["status"], "warn");
    let detail = mode["detail"].as_str().expect("words");
    for words in ["followed by binlog file and position", "failover", "RESET MASTER", "GTIDs that are switched on"] {
        assert!(detail.contains(words), "`{words}` is not in {detail}");
    }
    assert_eq!(check_line(&weir, 0, "grant_lock_tables")["status"], "ok");
    weir.catch_up();
    insert(mysql, "said", 2);
    let continuity = check_line(&weir, 0, "continuity");
    assert!(continuity["detail"].as_str().expect("words").contains("hold what the lake lacks, from "), "{continuity}");
    // A replica has another binlog.
    weir.replace_in_config("[source]\n", &format!("[source]\nsnapshot_url = \"{url}\"\n"));
    let replica = weir.expect(2, &["run", "--until-caught-up"]).stderr;
    assert!(replica.contains("a replica of a source without GTIDs"), "{replica}");
}

/// With semi-synchronous replication and nobody to acknowledge, a transaction is in the binlog, and sent, seconds before
/// anybody can see it: what else takes a moment.
fn start_slow_to_show() -> Mysql {
    let services = std::env::var_os("WEIR_SERVICES_DIR").map_or_else(|| root().join("target/services"), Into::into);
    let plugins = services.join("mysql/usr/lib/mysql/plugin");
    let directory = format!("--plugin-dir={}", plugins.display());
    let flags: Vec<&str> = OFF.into_iter().chain(plugins.exists().then_some(&*directory)).collect();
    let mysql = Mysql::start(&flags);
    mysql.run(
        "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'; SET GLOBAL rpl_semi_sync_source_timeout = 6000;
         SET GLOBAL rpl_semi_sync_source_wait_no_replica = ON",
    );
    mysql
}

/// Runs a statement whose outcome is shown late, and `meanwhile` beside it.
fn shown_late(mysql: &Mysql, statement: &str, meanwhile: impl FnOnce()) {
    mysql.run("SET GLOBAL rpl_semi_sync_source_enabled = OFF; SET GLOBAL rpl_semi_sync_source_enabled = ON");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| mysql.run(statement));
        meanwhile();
        writer.join().expect("the statement is carried out");
    });
    mysql.run("SET GLOBAL rpl_semi_sync_source_enabled = OFF");
}

#[test]
fn loads_and_statements_wait_for_what_the_stream_has_and_nobody_can_see() {
    let mysql = &start_slow_to_show();
    create(mysql, "late");
    mysql.run("INSERT INTO late.t VALUES (2, 'two'), (3, 'three')");
    let weir = Weir::new(&mysql.url, &["late.*"], "");
    weir.catch_up();
    let service = weir.run_until_it_is_seen();
    shown_late(mysql, "INSERT INTO late.t VALUES (4, 'four'); UPDATE late.t SET v = 'zwei' WHERE id = 2", || {
        eventually("the row has come by the stream", Duration::from_secs(20), || weir.has_rows("late.t", 4));
        assert_eq!(mysql.value("SELECT COUNT(*) FROM late.t"), "3", "the source shows it already");
        weir.expect(0, &["snapshot", "--table", "late.t"]);
        assert_eq!(mysql.value("SELECT COUNT(*) FROM late.t"), "4");
        assert!(weir.has_rows("late.t", 4));
    });
    shown_late(mysql, "ALTER TABLE late.t ADD COLUMN n INT NOT NULL DEFAULT 7", || {});
    mysql.run("INSERT INTO late.t VALUES (5, 'five', 7), (6, 'six', 8)");
    eventually("the altered table is followed", Duration::from_secs(60), || weir.has_rows("late.t", 6));
    assert_eq!(service.terminate().0, Some(0));
    weir.catch_up();
    assert_equal(mysql, &weir, "late");
    weir.expect(0, &["reconcile", "--deep"]);
}

#[test]
fn a_load_waits_for_a_long_transaction_and_lets_others_write() {
    let mysql = &start();
    create(mysql, "held");
    let weir = Weir::new(&mysql.url, &["held.*"], "");
    weir.catch_up();
    std::thread::scope(|scope| {
        let long = scope.spawn(|| mysql.run("BEGIN; INSERT INTO held.t VALUES (1000000, 'long'); DO SLEEP(9); COMMIT"));
        std::thread::sleep(Duration::from_millis(500));
        let load = scope.spawn(|| weir.expect(0, &["snapshot", "--table", "held.t"]));
        let (mut id, mut longest) = (2, Duration::ZERO);
        while !load.is_finished() {
            let asked = Instant::now();
            insert(mysql, "held", id);
            longest = longest.max(asked.elapsed());
            id += 1;
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = load.join().expect("the load ends").stderr;
        assert!(log.contains("somebody writes the table for long"), "{log}");
        assert!(longest < Duration::from_secs(5), "a writer waited {longest:?}");
        long.join().expect("the long transaction ends");
    });
    weir.catch_up();
    assert_equal(mysql, &weir, "held");
}

#[test]
fn another_history_of_the_same_server_is_refused() {
    let mysql = &start();
    create(mysql, "reset");
    let weir = Weir::new(&mysql.url, &["reset.*"], "");
    weir.catch_up();
    for id in 2..=9 {
        insert(mysql, "reset", id);
    }
    weir.catch_up();
    mysql.run("RESET BINARY LOGS AND GTIDS");
    refused(&weir, &["the source's binlog ends at binlog.000001:", "where the lake has come to", "weir snapshot"]);
    // It comes further than we are: nothing begins in the place of our last transaction.
    for id in 20..=45 {
        insert(mysql, "reset", id);
    }
    rotate(mysql);
    refused(&weir, &["its history is another one", "weir snapshot"]);
    weir.expect(0, &["snapshot"]);
    assert_equal(mysql, &weir, "reset");
    // The same places, by transactions of the same lengths.
    let same =
        |from: u32| (from..from + 3).for_each(|id| mysql.run(&format!("INSERT INTO reset.t VALUES ({id}, 'same')")));
    mysql.run("RESET BINARY LOGS AND GTIDS");
    weir.expect(0, &["snapshot"]);
    same(100);
    weir.catch_up();
    mysql.run("RESET BINARY LOGS AND GTIDS");
    same(200);
    insert(mysql, "reset", 300);
    refused(&weir, &["is not the one that was applied before", "history was rewritten"]);
    weir.expect(0, &["snapshot"]);
    assert_equal(mysql, &weir, "reset");
}

#[test]
fn files_that_are_gone_are_named_and_may_be_fed() {
    let mysql = &start();
    create(mysql, "gone");
    let weir = Weir::new(&mysql.url, &["gone.*"], "");
    weir.catch_up();
    let archive = tempfile::tempdir().expect("a folder");
    insert(mysql, "gone", 2);
    rotate(mysql);
    insert(mysql, "gone", 3);
    // The last file before the gap ends with a stop, and not with a rotation.
    mysql.stop();
    for entry in std::fs::read_dir(mysql.data()).expect("the data folder").flatten() {
        let name = entry.file_name().into_string().expect("a plain name");
        if name.starts_with("binlog.0") {
            std::fs::copy(entry.path(), archive.path().join(name)).expect("a copy");
        }
    }
    mysql.start_again_with(&OFF);
    insert(mysql, "gone", 4);
    let newest = mysql.value("SELECT LOCAL->>'$.binary_log_file' FROM performance_schema.log_status");
    mysql.run(&format!("PURGE BINARY LOGS TO '{newest}'"));
    let begins = format!("the oldest file begins at {newest}:4");
    refused(&weir, &["purged binlogs", &begins, "--binlog-dir", "weir snapshot"]);
    let continuity = check_line(&weir, 1, "continuity");
    assert!(continuity["detail"].as_str().expect("words").contains(&begins), "{continuity}");
    let mut files: Vec<String> = std::fs::read_dir(archive.path())
        .expect("the folder is there")
        .map(|entry| entry.expect("an entry").path().display().to_string())
        .filter(|path| !path.ends_with(".index"))
        .collect();
    files.sort();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let dumped = weir.expect(0, &[&["binlog", "dump"], &files[..]].concat()).stdout;
    let places = dumped.lines().filter(|line| line.contains("\"begin\"") && line.contains("00000000-0000")).count();
    assert!(places > 0 && dumped.contains("\"commit\""), "{dumped}");
    let archive = archive.path().to_str().expect("a plain path");
    weir.expect(0, &["run", "--until-caught-up", "--binlog-dir", archive]);
    assert_equal(mysql, &weir, "gone");
    weir.balanced();
}

#[test]
fn another_server_and_another_name_of_the_binlog_are_refused() {
    let mysql = &start();
    create(mysql, "moved");
    let weir = Weir::new(&mysql.url, &["moved.*"], "");
    weir.catch_up();
    insert(mysql, "moved", 2);
    weir.catch_up();
    let other = start();
    create(&other, "moved");
    weir.replace_in_config(&mysql.url, &other.url);
    refused(
        &weir,
        &["the source is another", "Failing over", "Point [source] url at the server that was mirrored before"],
    );
    weir.replace_in_config(&other.url, &mysql.url);
    weir.catch_up();
    // Under a service, too.
    let mut service = weir.run_until_it_is_seen();
    mysql.stop();
    mysql.start_again_with(&[&OFF[..], &["--log-bin=renamed"]].concat());
    insert(mysql, "moved", 3);
    assert_eq!(service.wait(), Some(1));
    assert!(service.log().contains("another name of the binlog (log_bin)"), "{}", service.log());
    weir.expect(0, &["snapshot"]);
    assert_equal(mysql, &weir, "moved");
}

#[test]
fn switching_gtids_on_or_off_is_refused_in_both_directions() {
    let mysql = &start();
    create(mysql, "switched");
    let weir = Weir::new(&mysql.url, &["switched.*"], "");
    weir.catch_up();
    let mut service = weir.run_until_it_is_seen();
    mysql.run("SET GLOBAL enforce_gtid_consistency = ON; SET GLOBAL gtid_mode = OFF_PERMISSIVE");
    // Still without.
    insert(mysql, "switched", 2);
    eventually("the row is there", Duration::from_secs(60), || weir.has_rows("switched.t", 2));
    mysql.run("SET GLOBAL gtid_mode = ON_PERMISSIVE");
    insert(mysql, "switched", 3);
    assert_eq!(service.wait(), Some(1));
    let log = service.log();
    assert!(log.contains("a transaction with a GTID, in a log that is followed by file and position"), "{log}");
    assert!(log.contains("weir snapshot"), "{log}");
    refused(
        &weir,
        &["gtid_mode is ON_PERMISSIVE", "SET PERSIST gtid_mode = ON; or SET PERSIST gtid_mode = OFF_PERMISSIVE"],
    );
    mysql.run("SET GLOBAL gtid_mode = ON");
    refused(&weir, &["by GTIDs, and was followed by file and position", "Set gtid_mode as it was", "weir snapshot"]);
    weir.expect(0, &["snapshot"]);
    assert_equal(mysql, &weir, "switched");
    // And back.
    let mut service = weir.run_until_it_is_seen();
    mysql.run("SET GLOBAL gtid_mode = ON_PERMISSIVE; SET GLOBAL gtid_mode = OFF_PERMISSIVE");
    insert(mysql, "switched", 4);
    assert_eq!(service.wait(), Some(1));
    let log = service.log();
    assert!(log.contains("by GTIDs"), "{log}");
    mysql.run("SET GLOBAL gtid_mode = OFF");
    refused(&weir, &["by file and position alone, and was followed by GTIDs", "weir snapshot"]);
    weir.expect(0, &["snapshot"]);
    insert(mysql, "switched", 5);
    weir.catch_up();
    assert_equal(mysql, &weir, "switched");
    weir.balanced();
}
