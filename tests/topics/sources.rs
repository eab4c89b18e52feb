//! Sources other than the newest MySQL: each is loaded, followed through kills of the service, and ends equal and balanced; and
//! what a binlog that does not describe its tables takes.

use std::process::Child;
use std::time::Duration;

use crate::support::clickhouse::Clickhouse;
use crate::support::kafka::Kafka;
use crate::support::lake::{Workload, assert_equal, compare};
use crate::support::mysql::{Flavour, Mysql};
use crate::support::weir::{Weir, eventually, hops};

/// Changes of the workload beside which the service is killed.
const CHANGES: u32 = 8_000;
/// Changes behind them, which come while the service is down.
const STREAMED: u32 = 2_000;

/// An account with a password and no privilege more than docs/sources.md asks for; the url that names it.
pub(super) fn account(mysql: &Mysql, flavour: Flavour, database: &str) -> String {
    let by = match flavour {
        Flavour::Mysql80 | Flavour::Mysql57 => "IDENTIFIED WITH mysql_native_password BY",
        Flavour::Mysql | Flavour::Mariadb => "IDENTIFIED BY",
    };
    for statement in [
        format!("CREATE DATABASE IF NOT EXISTS {database} DEFAULT CHARSET utf8mb4"),
        format!("CREATE USER 'weir'@'127.0.0.1' {by} 'pass word:1'"),
        "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'weir'@'127.0.0.1'".into(),
        format!("GRANT SELECT ON {database}.* TO 'weir'@'127.0.0.1'"),
    ] {
        mysql.run(&statement);
    }
    mysql.url.replace("root@", "weir:pass%20word%3A1@")
}

/// What happens to a service that will be killed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kill {
    Comes,
    IsDone,
}

/// The service is killed after each of the pauses, with what `beside` does before and after that, and has caught up with the
/// writers when this returns.
pub(super) fn loaded_beside_kills(weir: &Weir, writers: &mut Child, pauses_ms: &[u64], beside: impl Fn(Kill)) {
    for pause_ms in pauses_ms {
        let service = weir.run();
        std::thread::sleep(Duration::from_millis(*pause_ms));
        beside(Kill::Comes);
        service.kill();
        beside(Kill::IsDone);
    }
    // One that is asked to end before it has begun has no exit code.
    let service = weir.run_until_it_is_seen();
    assert!(writers.wait().expect("the workload ends").success());
    assert_eq!(service.terminate().0, Some(0));
    weir.catch_up();
}

/// The random workload on every table that the server can have, during load and stream, with kills of the service.
fn ends_equal_and_balanced(flavour: Flavour, flags: &[&str], seed: u64) {
    ends_equal_and_balanced_by(flavour, flags, seed, |url| Weir::new(url, &["src.*"], ""));
}

/// The same by the service that is configured for the url.
fn ends_equal_and_balanced_by(flavour: Flavour, flags: &[&str], seed: u64, configured: impl FnOnce(&str) -> Weir) {
    let mysql = &Mysql::start_flavour(flavour, flags);
    let url = account(mysql, flavour, "src");
    let workload = Workload { mysql, database: "src", seed };
    workload.create(4_000);
    let weir = configured(&url);
    weir.expect(0, &["check"]);
    let mut writers = workload.live(CHANGES, &["--workers", "2", "--compression", "0", "--rate", "1500"]);
    loaded_beside_kills(&weir, &mut writers, &[900, 2_100], |_| {});
    assert_equal(mysql, &weir, "src");
    // Whatever the kills left to the stream, these changes come by it.
    assert!(workload.at(1).live(STREAMED, &["--compression", "0"]).wait().expect("the workload ends").success());
    weir.catch_up();
    assert_equal(mysql, &weir, "src");
    assert!(hops(&weir.balanced(), "captured") > u64::from(STREAMED) / 2);
    weir.expect(0, &["reconcile", "--deep"]);
}

#[test]
fn mysql_8_0_ends_equal_and_balanced() {
    ends_equal_and_balanced(Flavour::Mysql80, &[], 801_501);
}

#[test]
fn mysql_8_0_without_metadata_ends_equal_and_balanced() {
    ends_equal_and_balanced(Flavour::Mysql80, &["--binlog-row-metadata=MINIMAL"], 801_502);
}

#[test]
fn mysql_5_7_ends_equal_and_balanced() {
    ends_equal_and_balanced(Flavour::Mysql57, &[], 572_201);
}

#[test]
fn mariadb_ends_equal_and_balanced() {
    ends_equal_and_balanced(Flavour::Mariadb, &[], 101_101);
}

#[test]
fn mariadb_with_metadata_and_compressed_events_ends_equal_and_balanced() {
    let flags = ["--binlog-row-metadata=FULL", "--log-bin-compress=ON", "--log-bin-compress-min-len=10"];
    ends_equal_and_balanced(Flavour::Mariadb, &flags, 101_102);
}

#[test]
fn mariadb_over_kafka_ends_equal_and_balanced() {
    ends_equal_and_balanced_by(Flavour::Mariadb, &[], 101_103, |url| {
        Weir::over_kafka("mariadb", url, &["src.*"], (Kafka::shared(), Clickhouse::shared()), "")
    });
}

/// Tables of which the binlog says types alone change beside the service, and while it is down.
fn is_followed_by_its_catalogue(flavour: Flavour, flags: &[&str]) {
    let mysql = &Mysql::start_flavour(flavour, flags);
    let url = account(mysql, flavour, "ddl");
    let run = |statements: &[&str]| statements.iter().for_each(|statement| mysql.run(statement));
    run(&[
        "CREATE TABLE ddl.live (id INT UNSIGNED PRIMARY KEY, a VARCHAR(20) CHARACTER SET latin1, e ENUM('x','é') CHARACTER SET latin1)",
        "INSERT INTO ddl.live VALUES (1, 'é', 'é'), (4294967295, 'b', 'x')",
        "CREATE TABLE ddl.swapped (id INT PRIMARY KEY, a INT, b INT)",
        "INSERT INTO ddl.swapped VALUES (1, 10, 20)",
        "CREATE TABLE ddl.wider (id INT PRIMARY KEY, v INT)",
        "INSERT INTO ddl.wider VALUES (1, 1)",
    ]);
    let weir = Weir::new(&url, &["ddl.*"], "");
    let service = weir.run();
    eventually("the tables are loaded", Duration::from_secs(60), || weir.has_rows("ddl.wider", 1));
    let followed = |rows| {
        eventually("the altered table is followed", Duration::from_secs(60), || weir.has_rows("ddl.live", rows));
    };
    // No row has come that would have shown the columns before they change.
    run(&[
        "INSERT INTO ddl.live VALUES (2, 'ü', 'é')",
        "ALTER TABLE ddl.live ADD COLUMN n BIGINT UNSIGNED NULL",
        "INSERT INTO ddl.live VALUES (3, 'ß', 'x', 18446744073709551615)",
    ]);
    followed(4);
    run(&[
        "ALTER TABLE ddl.live CHANGE n m BIGINT UNSIGNED NULL FIRST, ADD COLUMN later TINYINT NOT NULL DEFAULT 7",
        "INSERT INTO ddl.live VALUES (5, 4, 'ß', 'x', 8)",
        "CREATE TABLE ddl.late (id INT PRIMARY KEY, v TINYINT UNSIGNED)",
        "INSERT INTO ddl.late VALUES (1, 255)",
    ]);
    followed(5);
    eventually("the new table is there", Duration::from_secs(60), || weir.has_rows("ddl.late", 1));
    assert_eq!(service.terminate().0, Some(0));
    weir.catch_up();
    // What went by other names stays in the lake.
    compare(mysql, &weir, "ddl", &["--extra-columns-allowed"]);
    run(&[
        "INSERT INTO ddl.swapped VALUES (2, 11, 21)",
        "ALTER TABLE ddl.swapped CHANGE a b INT, CHANGE b a INT",
        "INSERT INTO ddl.swapped VALUES (3, 12, 22)",
        "INSERT INTO ddl.wider VALUES (2, 2)",
        "ALTER TABLE ddl.wider ADD COLUMN w INT NULL",
        "INSERT INTO ddl.wider VALUES (3, 3, 3)",
    ]);
    let stopped = weir.expect(1, &["run", "--until-caught-up"]);
    assert!(stopped.stderr.contains("has 2 columns in ddl.wider, and 3 are known"), "{}", stopped.stderr);
    assert!(stopped.stderr.contains("weir snapshot --table ddl.wider"), "{}", stopped.stderr);
    assert!(!stopped.stderr.contains("stopped; the others go on table=ddl.swapped"), "{}", stopped.stderr);
    weir.expect(0, &["snapshot", "--table", "ddl.wider"]);
    weir.catch_up();
    compare(mysql, &weir, "ddl", &["--extra-columns-allowed"]);
    weir.expect(0, &["reconcile", "--deep"]);
}

#[test]
fn mysql_5_7_is_followed_by_its_catalogue() {
    is_followed_by_its_catalogue(Flavour::Mysql57, &[]);
}

#[test]
fn mariadb_is_followed_by_its_catalogue() {
    is_followed_by_its_catalogue(Flavour::Mariadb, &[]);
}

#[test]
fn mariadb_that_was_reset_or_purged_is_refused() {
    let mysql = &Mysql::start_flavour(Flavour::Mariadb, &[]);
    let insert = |id: u32| mysql.run(&format!("INSERT INTO gone.t VALUES ({id}, {id})"));
    mysql.run("CREATE DATABASE gone");
    mysql.run("CREATE TABLE gone.t (id INT PRIMARY KEY, v INT)");
    insert(1);
    let weir = Weir::new(&mysql.url, &["gone.*"], "");
    weir.catch_up();
    insert(2);
    weir.catch_up();
    let refused = |words: &str| {
        let failed = weir.expect(1, &["run", "--until-caught-up"]);
        assert!(failed.stderr.contains(words), "`{words}` is not in {}", failed.stderr);
    };
    // The same numbers stand for other transactions.
    mysql.run("RESET MASTER");
    refused("0-1-4 that the lake holds");
    for id in 3..=8 {
        insert(id);
    }
    refused("history was rewritten");
    weir.expect(0, &["snapshot"]);
    assert_equal(mysql, &weir, "gone");
    insert(9);
    mysql.run("FLUSH BINARY LOGS");
    insert(10);
    mysql.run("FLUSH BINARY LOGS");
    let files = || {
        let names = std::fs::read_dir(mysql.data()).expect("a data folder").flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().starts_with("binlog.0")).count()
    };
    // What a crash would need is kept until the engine has caught up.
    eventually("the binlog is purged", Duration::from_secs(30), || {
        mysql.run("PURGE BINARY LOGS BEFORE NOW() + INTERVAL 1 DAY");
        files() == 1
    });
    refused("purged binlogs");
    weir.expect(0, &["snapshot"]);
    assert_equal(mysql, &weir, "gone");
}

#[test]
fn images_of_mariadb_that_leave_columns_out_are_refused() {
    let mysql = &Mysql::start_flavour(Flavour::Mariadb, &[]);
    mysql.run("CREATE DATABASE part");
    mysql.run("CREATE TABLE part.t (id INT PRIMARY KEY, v INT, doubled INT AS (v * 2) VIRTUAL)");
    mysql.run("INSERT INTO part.t (id, v) VALUES (1, 1)");
    let weir = Weir::new(&mysql.url, &["part.*"], "");
    weir.catch_up();
    mysql.run("SET GLOBAL binlog_row_image = 'MINIMAL'");
    mysql.run("UPDATE part.t SET v = 2");
    let refused = weir.expect(1, &["run", "--until-caught-up"]).stderr;
    assert!(refused.contains("SET GLOBAL binlog_row_image = FULL"), "{refused}");
    // By the setting of the session that wrote it alone.
    mysql.run("SET GLOBAL binlog_row_image = 'FULL'");
    let stopped = weir.expect(1, &["run", "--until-caught-up"]).stderr;
    assert!(stopped.contains("a row event of part.t leaves columns out"), "{stopped}");
    weir.expect(0, &["snapshot", "--table", "part.t"]);
    assert_equal(mysql, &weir, "part");
}

#[test]
fn types_that_only_mariadb_has_stop_their_tables_alone() {
    // Their columns are in the metadata of the others, too.
    let mysql = &Mysql::start_flavour(Flavour::Mariadb, &["--binlog-row-metadata=FULL"]);
    for statement in [
        "CREATE DATABASE own",
        "CREATE TABLE own.t (id INT PRIMARY KEY, g GEOMETRY, j JSON, d DATETIME(3))",
        "CREATE TABLE own.ids (id UUID PRIMARY KEY, address INET6)",
        "CREATE TABLE own.packed (id INT PRIMARY KEY, v VARCHAR(200) COMPRESSED, b BLOB COMPRESSED)",
        "CREATE TABLE own.dated (id INT PRIMARY KEY, v INT) WITH SYSTEM VERSIONING",
    ] {
        mysql.run(statement);
    }
    let write = |id: u32| {
        mysql.run(&format!("INSERT INTO own.t VALUES ({id}, POINT({id}, 2), '{{\"a\":  {id}}}', NOW(3))"));
        mysql.run("INSERT INTO own.ids VALUES (UUID(), '::1')");
        mysql.run(&format!("INSERT INTO own.packed VALUES ({id}, REPEAT('x', 150), 'abc')"));
        mysql.run(&format!("INSERT INTO own.dated VALUES ({id}, 1)"));
        mysql.run("UPDATE own.dated SET v = v + 1");
    };
    write(1);
    let weir = Weir::new(&mysql.url, &["own.*"], "");
    let first = weir.expect(1, &["run", "--until-caught-up"]).stderr;
    for words in ["type `uuid`", "COMPRESSED", "own.dated is system-versioned"] {
        assert!(first.contains(words), "`{words}` is not in {first}");
    }
    write(2);
    weir.expect(1, &["run", "--until-caught-up"]);
    compare(mysql, &weir, "own", &["--tables", "t"]);
}
