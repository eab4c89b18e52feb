//! Row images that leave columns out, and documents that are logged as differences, switching in mid-stream: the tables end as
//! with whole images.

use std::time::Duration;

use crate::support::clickhouse::Clickhouse;
use crate::support::kafka::Kafka;
use crate::support::lake::{Workload, assert_equal, compare};
use crate::support::mysql::Mysql;
use crate::support::weir::{Weir, eventually, hops};

/// Tables of the workload that are kept in other ways: copied on write, and in partitions whose column an image may leave out.
const LAYOUTS: [(&str, &str); 4] = [
    ("t_wide", "storage = \"copy-on-write\""),
    ("t_decimal", "storage = \"copy-on-write\""),
    ("t_composite", "partition_by = [\"flag\"]"),
    ("t_auto", "partition_by = [\"b = bucket(3, id)\"]"),
];

fn sections(database: &str) -> String {
    LAYOUTS.map(|(table, settings)| format!("[[table]]\nname = \"{database}.{table}\"\n{settings}\n\n")).concat()
}

/// Kills the service while the writers are at work, then ends it in order.
fn run_beside(weir: &Weir, mut writers: std::process::Child, pauses_ms: &[u64]) {
    for pause_ms in pauses_ms {
        let service = weir.run();
        std::thread::sleep(Duration::from_millis(*pause_ms));
        service.kill();
    }
    let service = weir.run();
    assert!(writers.wait().expect("the workload ends").success());
    let log = service.log_file();
    let (code, _) = service.terminate();
    assert_eq!(code, Some(0), "{}", std::fs::read_to_string(log).unwrap_or_default());
    weir.catch_up();
}

/// Images of a binlog that leave something out, as `mysql` writes them from here on.
fn session(image: &str) -> String {
    format!("SET SESSION binlog_row_image = {image}, SESSION binlog_row_value_options = 'PARTIAL_JSON'; ")
}

#[test]
fn images_that_switch_in_mid_stream_end_equal_through_a_load_and_kills() {
    let mysql = &Mysql::start(&[]);
    let workload = Workload { mysql, database: "images", seed: 20_261_130 };
    workload.create(8_000);
    let weir = Weir::new(&mysql.url, &["images.*"], &sections("images"));
    // Some kills fall into the load, some into the stream.
    let writers = workload.live(25_000, &["--workers", "2", "--rate", "2500", "--images", "--ddl"]);
    run_beside(&weir, writers, &[700, 1_300, 900, 1_700]);
    assert_equal(mysql, &weir, "images");
    let report = weir.balanced();
    assert!(hops(&report, "captured") > 10_000, "{report:#}");
    assert_eq!(hops(&report, "captured"), hops(&report, "consumed"));
    weir.expect(0, &["reconcile", "--deep"]);

    // A load beside such changes, of tables that have rows.
    let writers = workload.at(1).live(8_000, &["--rate", "2500", "--images"]);
    weir.expect(
        0,
        &["snapshot", "--table", "images.t_int", "--table", "images.t_composite", "--table", "images.t_wide"],
    );
    run_beside(&weir, writers, &[]);
    assert_equal(mysql, &weir, "images");
    weir.balanced();
    weir.expect(0, &["reconcile", "--deep"]);
}

#[test]
fn soft_deletes_keep_what_the_lake_had_of_rows_whose_deletes_name_the_key_alone() {
    let mysql = &Mysql::start(&[]);
    let workload = Workload { mysql, database: "softly", seed: 20_261_131 };
    workload.create(4_000);
    let tables =
        mysql.value("SELECT GROUP_CONCAT(table_name) FROM information_schema.tables WHERE table_schema = 'softly'");
    let section = |name: &str| format!("[[table]]\nname = \"softly.{name}\"\ndeletes = \"soft\"\n\n");
    let sections: String = tables.split(',').map(section).collect();
    mysql.run("CREATE TABLE softly.gone (id INT PRIMARY KEY, v INT, b TEXT, n INT DEFAULT 9); INSERT INTO softly.gone VALUES (1, 1, 'x', 1), (2, 2, 'y', 2)");
    let weir = Weir::new(&mysql.url, &["softly.*"], &(sections + &section("gone")));
    run_beside(&weir, workload.live(12_000, &["--rate", "2500", "--images"]), &[900, 1_500]);
    compare(mysql, &weir, "softly", &["--mode", "soft"]);
    weir.balanced();

    mysql.run(&format!(
        "USE softly; {}UPDATE gone SET v = 10 WHERE id = 1; DELETE FROM gone WHERE id = 1; UPDATE gone SET id = 3 WHERE id = 2; INSERT INTO gone (id) VALUES (4)",
        session("MINIMAL")
    ));
    weir.catch_up();
    let read = weir.expect(0, &["read", "--table", "softly.gone", "--format", "jsonl"]).stdout;
    let mut rows: Vec<serde_json::Value> = read.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.sort_by_key(|row| row["id"].as_i64());
    let rows: Vec<_> = rows
        .iter()
        .map(|row| serde_json::json!([row["id"], row["v"], row["b"], row["n"], row["_weir_deleted"]]))
        .collect();
    let expected = serde_json::json!([
        [1, 10, "x", 1, true],
        [2, 2, "y", 2, true],
        [3, 2, "y", 2, false],
        [4, null, null, 9, false]
    ]);
    assert_eq!(serde_json::Value::from(rows), expected);
}

#[test]
fn images_that_leave_columns_out_go_through_kafka_to_several_appliers() {
    let mysql = &Mysql::start(&[]);
    let workload = Workload { mysql, database: "kimages", seed: 20_261_132 };
    workload.create(3_000);
    let servers = (Kafka::shared(), Clickhouse::shared());
    let transport = format!("partitions = 3\n{}", sections("kimages"));
    let weir = Weir::over_kafka("images", &mysql.url, &["kimages.*"], servers, &transport);
    let capture = weir.capture();
    let [first, second] = [weir.apply(1), weir.apply(2)];
    let mut writers = workload.live(10_000, &["--rate", "1500", "--images"]);
    std::thread::sleep(Duration::from_secs(6));
    first.kill();
    assert!(writers.wait().expect("the workload ends").success());
    let (code, _) = capture.terminate();
    assert_eq!(code, Some(0));
    weir.expect(0, &["capture", "--until-caught-up"]);
    let (code, _) = second.terminate();
    assert_eq!(code, Some(0));
    assert_equal(mysql, &weir, "kimages");
    weir.balanced();
}

#[test]
fn what_an_image_leaves_out_is_what_the_source_has_and_never_null() {
    let mysql = &Mysql::start(&[]);
    mysql.run(
        "CREATE DATABASE parts; USE parts;
         CREATE TABLE t (id INT PRIMARY KEY, a INT DEFAULT 7, b TEXT, c VARCHAR(40) DEFAULT (UUID()), g INT AS (a + 1), j JSON, at TIMESTAMP(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6));
         INSERT INTO t (id, b, j) VALUES (1, 'one', '{\"k\": [1.50, \"x\"], \"pad\": \"ppppppppppppppppppppppppppppppppppppppppppp\"}'), (2, 'two', '[1, 2]'), (3, 'three', NULL), (4, 'four', '{}');
         CREATE TABLE log (id INT PRIMARY KEY, v INT, w INT); INSERT INTO log VALUES (1, 1, 1);
         CREATE TABLE halves (a INT, b INT DEFAULT 3, v INT, PRIMARY KEY (a, b)); INSERT INTO halves VALUES (1, 1, 1)",
    );
    let weir = Weir::new(&mysql.url, &["parts.*"], "[[table]]\nname = \"parts.log\"\nmode = \"append\"\n");
    mysql.run("SET GLOBAL binlog_row_image = 'MINIMAL'; SET GLOBAL binlog_row_value_options = 'PARTIAL_JSON'");
    let checked = weir.expect(0, &["check"]).stdout;
    assert!(checked.contains("binlog_row_image") && checked.contains("binlog_row_value_options"), "{checked}");
    mysql.run("SET GLOBAL binlog_row_image = 'FULL'; SET GLOBAL binlog_row_value_options = ''");
    weir.catch_up();

    for image in ["MINIMAL", "NOBLOB", "FULL"] {
        mysql.run(&format!(
            "USE parts; {}
             UPDATE t SET a = a + 1 WHERE id = 1; UPDATE t SET b = NULL WHERE id = 2; UPDATE t SET b = 'again' WHERE id = 2;
             UPDATE t SET j = JSON_SET(j, '$.k[0]', CAST(2.500 AS DECIMAL(6, 3)), '$.d', DATE'2026-11-28') WHERE id = 1;
             UPDATE t SET j = JSON_ARRAY_INSERT(j, '$[0]', x'00FF') WHERE id = 2;
             INSERT INTO t (id) VALUES (10); INSERT INTO t (id, b) VALUES (11, 'gone'); DELETE FROM t WHERE id = 11;
             INSERT INTO t (id, a) VALUES (12, NULL); UPDATE t SET id = 13 WHERE id = 12; UPDATE t SET b = 'moved' WHERE id = 13;
             BEGIN; UPDATE t SET a = 50 WHERE id = 3; UPDATE t SET b = 'b' WHERE id = 3; UPDATE t SET id = 30 WHERE id = 3; UPDATE t SET a = 51 WHERE id = 30; COMMIT;
             REPLACE INTO t (id, a) VALUES (10, 5); INSERT INTO t (id, a) VALUES (10, 6) ON DUPLICATE KEY UPDATE b = 'dup'",
            session(image)
        ));
        weir.catch_up();
        assert_equal(mysql, &weir, "parts");
        mysql.run("USE parts; UPDATE t SET id = 3 WHERE id = 30; DELETE FROM t WHERE id > 9");
    }

    // A column that was added with a default has it in rows that no event was written for.
    mysql.run(&format!(
        "USE parts; {}ALTER TABLE t ADD COLUMN n INT NOT NULL DEFAULT 5; UPDATE t SET a = 60 WHERE id = 4; UPDATE t SET a = 61 WHERE id < 3",
        session("MINIMAL")
    ));
    weir.catch_up();
    assert_equal(mysql, &weir, "parts");
    weir.balanced();

    // What the lake has is not read at the source.
    mysql.run("SET GLOBAL log_output = 'TABLE'; SET GLOBAL general_log = 'ON'");
    let reads = || -> u64 {
        let by_key = "SELECT CAST(COUNT(*) AS CHAR) FROM mysql.general_log \
                      WHERE command_type = 'Execute' AND argument LIKE 'SELECT%FROM `parts`.`t`%WHERE%'";
        mysql.value(by_key).parse().expect("a number")
    };
    mysql
        .run(&format!("USE parts; {}UPDATE t SET a = a + 1; UPDATE t SET b = 'lake' WHERE id = 4", session("MINIMAL")));
    weir.catch_up();
    assert_eq!(reads(), 0, "updates of rows that the lake has read them at the source");
    mysql.run(&format!(
        "USE parts; {}INSERT INTO t (id) VALUES (20); UPDATE t SET a = 3 WHERE id = 20",
        session("MINIMAL")
    ));
    weir.catch_up();
    assert_eq!(reads(), 1);
    assert_equal(mysql, &weir, "parts");
    mysql.run("SET GLOBAL general_log = 'OFF'");

    // A column that goes, before and behind changes of others.
    mysql.run(&format!(
        "USE parts; {}UPDATE t SET a = 61; ALTER TABLE t DROP COLUMN c; UPDATE t SET a = 62",
        session("MINIMAL")
    ));
    weir.catch_up();
    weir.balanced();
    weir.expect(0, &["reconcile", "--deep"]);

    // What nobody can tell stops its table, and says the way out.
    mysql.run(&format!(
        "USE parts; {}UPDATE log SET v = 2; INSERT INTO halves (a) VALUES (5); UPDATE t SET a = 70",
        session("MINIMAL")
    ));
    let stopped = weir.expect(1, &["run", "--until-caught-up"]).stderr;
    for words in [
        "mode = \"append\" keeps the values",
        "a row event of parts.halves leaves out column b",
        "binlog_row_image=FULL",
    ] {
        assert!(stopped.contains(words), "`{words}` is not in {stopped}");
    }
    for table in ["log", "halves"] {
        weir.expect(0, &["snapshot", "--table", &format!("parts.{table}")]);
    }
    mysql.run("USE parts; UPDATE halves SET v = 9; UPDATE t SET a = 71");
    weir.catch_up();
    for table in ["t", "halves"] {
        weir.expect(0, &["reconcile", "--deep", "--table", &format!("parts.{table}")]);
    }
}

#[test]
fn rows_of_a_prepared_xa_transaction_are_made_whole_once_it_is_committed() {
    let mysql = &Mysql::start(&[]);
    mysql.run(
        "CREATE DATABASE xaparts; USE xaparts; CREATE TABLE t (id INT PRIMARY KEY, a INT DEFAULT 7, b TEXT, c VARCHAR(40) DEFAULT (UUID()));
         INSERT INTO t (id, b) VALUES (1, 'one'), (2, 'two'), (3, 'three')",
    );
    let weir = Weir::new(&mysql.url, &["xaparts.*"], "");
    weir.catch_up();
    mysql.run(&format!(
        "USE xaparts; {}XA START 'half'; UPDATE t SET a = 8 WHERE id = 1; INSERT INTO t (id) VALUES (20); UPDATE t SET id = 30 WHERE id = 3; XA END 'half'; XA PREPARE 'half'",
        session("MINIMAL")
    ));
    mysql.run("UPDATE xaparts.t SET b = 'between' WHERE id = 2");
    weir.catch_up();
    mysql.run("XA COMMIT 'half'");
    weir.catch_up();
    assert_equal(mysql, &weir, "xaparts");
    weir.balanced();
}

#[test]
fn a_source_that_is_away_when_its_rows_are_needed_is_waited_for_and_loses_nothing() {
    let mysql = &Mysql::start(&[]);
    mysql.run("CREATE DATABASE away; CREATE TABLE away.t (id INT PRIMARY KEY, a INT DEFAULT 7); INSERT INTO away.t VALUES (1, 1)");
    let weir = Weir::new(&mysql.url, &["away.*"], "");
    // Long enough for the server to end between a change and its commit.
    weir.replace_in_config("commit_interval_ms = 200", "commit_interval_ms = 12000");
    let service = weir.run();
    eventually("the table is loaded", Duration::from_secs(60), || weir.has_rows("away.t", 1));
    mysql.run("INSERT INTO away.t VALUES (2, 2)");
    eventually("a commit has been made", Duration::from_secs(60), || weir.has_rows("away.t", 2));
    let insert =
        format!("{}INSERT INTO away.t (id) VALUES (3), (4); UPDATE away.t SET a = 5 WHERE id = 4", session("MINIMAL"));
    mysql.run(&insert);
    std::thread::sleep(Duration::from_secs(1));
    mysql.stop();
    let asks = || service.log().contains("asked again for rows that were logged in part");
    eventually("the source is missed", Duration::from_secs(60), asks);
    let (code, took) = service.terminate();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(60), "{took:?}");
    mysql.start_again();
    weir.catch_up();
    assert_equal(mysql, &weir, "away");
    weir.balanced();
}
