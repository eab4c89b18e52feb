//! The topics as others see them: deleted behind weir's back, and read by a program that knows only the documents.

use std::time::Duration;

use crate::support::clickhouse::Clickhouse;
use crate::support::kafka::{Kafka, topic};
use crate::support::lake::{assert_equal, python};
use crate::support::mysql::Mysql;
use crate::support::weir::{Weir, eventually};

/// Two tables of one row, mirrored.
fn mirrored(mysql: &Mysql, database: &str) -> Weir {
    mysql.run(&format!(
        "CREATE DATABASE {database}; USE {database};
         CREATE TABLE good (id INT PRIMARY KEY, v INT); INSERT INTO good VALUES (1, 1);
         CREATE TABLE hurt (id INT PRIMARY KEY, v INT); INSERT INTO hurt VALUES (1, 1)"
    ));
    let servers = (Kafka::shared(), Clickhouse::shared());
    let weir = Weir::over_kafka(database, &mysql.url, &[&format!("{database}.*")], servers, "");
    weir.catch_up();
    mysql.run(&format!("INSERT INTO {database}.good VALUES (2, 2); INSERT INTO {database}.hurt VALUES (2, 2)"));
    weir.catch_up();
    weir
}

/// What the log must say of a topic that was lost.
fn says_the_way_out(log: &str, topic: &str, table: &str) -> bool {
    log.contains(topic) && log.contains(&format!("weir snapshot --table {table}"))
}

#[test]
fn a_topic_made_anew_while_the_service_is_stopped_stops_its_table_alone() {
    let mysql = &Mysql::start(&[]);
    let weir = mirrored(mysql, "kanew");
    let lost = topic(&weir.name, "kanew", "hurt");
    Kafka::shared().recreate(&lost);
    mysql.run("INSERT INTO kanew.good VALUES (3, 3); INSERT INTO kanew.hurt VALUES (3, 3); UPDATE kanew.hurt SET v = 9 WHERE id = 1");
    let printed = weir.expect(1, &["run", "--until-caught-up"]);
    assert!(says_the_way_out(&printed.stderr, &lost, "kanew.hurt"), "{}", printed.stderr);
    assert!(weir.has_rows("kanew.good", 3));
    assert!(weir.expect(0, &["status", "--format", "json"]).stdout.contains("stopped"));

    weir.expect(0, &["snapshot", "--table", "kanew.hurt"]);
    mysql.run("INSERT INTO kanew.hurt VALUES (4, 4)");
    weir.catch_up();
    assert_equal(mysql, &weir, "kanew");
}

#[test]
fn a_topic_made_anew_while_the_service_runs_stops_its_table_alone() {
    let mysql = &Mysql::start(&[]);
    let weir = mirrored(mysql, "kbeside");
    let lost = topic(&weir.name, "kbeside", "hurt");
    let service = weir.run();
    mysql.run("INSERT INTO kbeside.hurt VALUES (3, 3)");
    eventually("the service streams", Duration::from_secs(30), || weir.has_rows("kbeside.hurt", 3));
    Kafka::shared().recreate(&lost);
    let mut id = 10;
    eventually("the table is stopped with the way out", Duration::from_secs(60), || {
        id += 1;
        mysql.run(&format!("INSERT INTO kbeside.good VALUES ({id}, 1); INSERT INTO kbeside.hurt VALUES ({id}, 1)"));
        std::thread::sleep(Duration::from_millis(200));
        says_the_way_out(&service.log(), &lost, "kbeside.hurt")
    });
    mysql.run("DELETE FROM kbeside.good WHERE id >= 10; INSERT INTO kbeside.good VALUES (3, 3)");
    eventually("the other table flows on", Duration::from_secs(30), || weir.has_rows("kbeside.good", 3));
    let (code, _) = service.terminate();
    assert_eq!(code, Some(0));

    weir.expect(0, &["snapshot", "--table", "kbeside.hurt"]);
    mysql.run("INSERT INTO kbeside.hurt VALUES (4, 4)");
    weir.catch_up();
    assert_equal(mysql, &weir, "kbeside");
}

#[test]
fn the_example_reads_every_change_of_a_topic() {
    let (mysql, kafka) = (&Mysql::start(&[]), Kafka::shared());
    mysql.run(
        "CREATE DATABASE kread; USE kread;
         CREATE TABLE `odd.näme` (id INT PRIMARY KEY, price DECIMAL(10,2), note VARCHAR(20), raw VARBINARY(4), at DATETIME);
         INSERT INTO `odd.näme` VALUES (1, 1.50, 'loaded', x'00ff', '2026-11-27 01:02:03')",
    );
    let weir = Weir::over_kafka("read", &mysql.url, &["kread.*"], (kafka, Clickhouse::shared()), "");
    weir.catch_up();
    mysql.run("USE kread; INSERT INTO `odd.näme` VALUES (2, -2.25, 'naïve', NULL, NULL)");
    mysql.run("USE kread; UPDATE `odd.näme` SET note = 'changed' WHERE id = 1; DELETE FROM `odd.näme` WHERE id = 2");
    mysql.run("USE kread; SET SESSION binlog_row_image = MINIMAL; UPDATE `odd.näme` SET note = 'again' WHERE id = 1; INSERT INTO `odd.näme` (id, price) VALUES (3, 7)");
    weir.catch_up();

    let topic = topic(&weir.name, "kread", "odd.näme");
    let mut command = python("examples/read_batches.py");
    let output = command.args(["--brokers", &kafka.brokers, &topic]).output().expect("the example starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let mut changes: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    changes.sort_by_key(|change| (change["ts_ms"].as_i64(), change["seq"].as_i64()));
    let told: Vec<(&str, String)> =
        changes.iter().map(|change| (change["op"].as_str().unwrap(), change["row"].to_string())).collect();
    let row = |id: u32, price: &str, note: &str, raw: &str, at: &str| {
        format!(r#"{{"id":{id},"price":"{price}","note":"{note}","raw":{raw},"at":{at}}}"#)
    };
    let (raw, at) = (r#""00ff""#, r#""2026-11-27 01:02:03""#);
    let expected = [
        ("create", row(2, "-2.25", "naïve", "null", "null")),
        ("update", row(1, "1.50", "changed", raw, at)),
        ("delete", row(2, "-2.25", "naïve", "null", "null")),
        // Of images that leave columns out, what they have.
        ("update", r#"{"id":1,"note":"again"}"#.to_owned()),
        ("create", r#"{"id":3,"price":"7.00"}"#.to_owned()),
    ];
    let parsed = |rows: &[(&str, String)]| -> Vec<(String, serde_json::Value)> {
        rows.iter().map(|(op, row)| ((*op).to_owned(), serde_json::from_str(row).unwrap())).collect()
    };
    assert_eq!(parsed(&told), parsed(&expected), "{lines}");
    assert_eq!(changes[3]["unchanged"], serde_json::json!(["price", "raw", "at"]), "{lines}");
    assert_eq!(changes[4]["not_told"], serde_json::json!(["note", "raw", "at"]), "{lines}");
}
