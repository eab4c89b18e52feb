//! Faults put between capture and the tables, and into the trace, over real Kafka and ClickHouse: what was lost is told apart
//! from what only the trace lost, is named by hop, window, operation, count and key, and is mended.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::clickhouse::Clickhouse;
use crate::support::kafka::{Kafka, topic};
use crate::support::lake::assert_equal;
use crate::support::mysql::{Mysql, block_on};
use crate::support::weir::{Weir, eventually, hops};

/// A table of ten rows with changes of every kind, mirrored and balanced.
fn mirrored(mysql: &Mysql, database: &str, clickhouse: &Clickhouse) -> Weir {
    mysql.run(&format!(
        "CREATE DATABASE {database}; USE {database}; CREATE TABLE t (id INT PRIMARY KEY, v INT);
         INSERT INTO t VALUES (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0), (7, 0), (8, 0), (9, 0), (10, 0)"
    ));
    let servers = (Kafka::shared(), clickhouse);
    let weir = Weir::over_kafka(database, &mysql.url, &[&format!("{database}.*")], servers, "partitions = 2");
    weir.catch_up();
    mysql.run(&format!("UPDATE {database}.t SET v = 1; DELETE FROM {database}.t WHERE id = 10"));
    weir.catch_up();
    assert_eq!(hops(&weir.balanced(), "captured"), 11);
    weir
}

/// Publishes what `statement` does, and ends before anybody applies it.
fn publish_only(mysql: &Mysql, weir: &Weir, topic: &str, statement: &str) {
    let before = Kafka::shared().written(topic);
    let capture = weir.capture();
    mysql.run(statement);
    eventually("it is published", Duration::from_secs(60), || Kafka::shared().written(topic) > before);
    assert_eq!(capture.terminate().0, Some(0));
}

fn reconcile(weir: &Weir, code: i32, more: &[&str]) -> Value {
    weir.expect(code, &[&["reconcile", "--format", "json"], more].concat()).json()
}

/// The one difference of the report's one table.
fn difference(report: &Value) -> &Value {
    assert_eq!(report["verdict"], "different", "{report:#}");
    let unbalanced = report["tables"][0]["unbalanced"].as_array().expect("a list");
    assert_eq!(unbalanced.len(), 1, "{report:#}");
    &unbalanced[0]
}

/// Whatever differs lies between published and consumed, and is so many of one operation, in one window or, if the minute turned
/// meanwhile, in two.
fn lost_between_published_and_consumed(report: &Value, op: &str, count: u64) {
    assert_eq!(report["verdict"], "different", "{report:#}");
    let unbalanced = report["tables"][0]["unbalanced"].as_array().expect("a list");
    for difference in unbalanced {
        assert_eq!(difference["between"], json!(["published", "consumed"]), "{report:#}");
        assert_eq!(difference["op"], op, "{report:#}");
        let window = difference["window"].as_str().expect("a time");
        window.parse::<jiff::Timestamp>().unwrap_or_else(|error| panic!("{window}: {error}"));
    }
    let lost: u64 = unbalanced.iter().map(|difference| difference["count"].as_u64().expect("a count")).sum();
    assert_eq!(lost, count, "{report:#}");
}

/// Repairs, and sees that the table is equal then, that the accounts no longer differ, and that a row tells of it.
fn mended(mysql: &Mysql, weir: &Weir, database: &str) -> Value {
    let report = reconcile(weir, 0, &["--repair"]);
    assert_eq!(report["verdict"], "balanced", "{report:#}");
    weir.catch_up();
    assert_equal(mysql, weir, database);
    let after = weir.balanced();
    let repairs = after["tables"][0]["repairs"].as_array().unwrap_or_else(|| panic!("no repair: {after:#}"));
    assert_eq!((&repairs[0]["by"], &repairs[0]["left_count"]), (&json!("command"), &json!(0)), "{after:#}");
    assert!(after["tables"][0]["notices"].to_string().contains("repaired"), "{after:#}");
    reconcile(weir, 0, &["--deep"]);
    after
}

#[test]
fn messages_that_vanish_without_a_trace_are_named_by_window_and_key_and_mended() {
    let mysql = &Mysql::start(&[]);
    let weir = mirrored(mysql, "ivanish", Clickhouse::shared());
    let of_table = topic(&weir.name, "ivanish", "t");
    publish_only(mysql, &weir, &of_table, "UPDATE ivanish.t SET v = 2 WHERE id IN (3, 4)");
    Kafka::shared().vanish(&of_table);
    // What comes behind is taken in as if nothing were missing.
    publish_only(mysql, &weir, &of_table, "UPDATE ivanish.t SET v = 3 WHERE id > 4");
    weir.catch_up();
    lost_between_published_and_consumed(&reconcile(&weir, 3, &[]), "u", 2);
    let report = reconcile(&weir, 3, &["--deep"]);
    let deep = &report["tables"][0]["deep"];
    assert_eq!((&deep["different"], &deep["missing_count"]), (&json!([{"id": 3}, {"id": 4}]), &json!(0)), "{report:#}");
    let after = mended(mysql, &weir, "ivanish");
    let repair = &after["tables"][0]["repairs"][0];
    assert_eq!((&repair["different_count"], &repair["keys"]), (&json!(2), &json!(2)), "{after:#}");
    assert_eq!(repair["made_up_for_count"], 1, "{after:#}");
    // What is lost again is told again.
    publish_only(mysql, &weir, &of_table, "DELETE FROM ivanish.t WHERE id = 5");
    Kafka::shared().vanish(&of_table);
    publish_only(mysql, &weir, &of_table, "UPDATE ivanish.t SET v = 4 WHERE id <> 5");
    weir.catch_up();
    lost_between_published_and_consumed(&reconcile(&weir, 3, &[]), "d", 1);
    mended(mysql, &weir, "ivanish");
}

#[test]
fn the_last_messages_that_vanish_stop_their_table_and_are_told_as_lost() {
    let mysql = &Mysql::start(&[]);
    let weir = mirrored(mysql, "itail", Clickhouse::shared());
    let of_table = topic(&weir.name, "itail", "t");
    publish_only(mysql, &weir, &of_table, "INSERT INTO itail.t VALUES (20, 0); DELETE FROM itail.t WHERE id = 1");
    Kafka::shared().vanish(&of_table);
    // Told before anybody has tried to apply it, and after.
    let report = reconcile(&weir, 3, &[]);
    assert!(report["tables"][0]["notices"].to_string().contains("not all is there any more"), "{report:#}");
    let ended = weir.expect(1, &["run", "--until-caught-up"]);
    assert!(ended.stderr.contains("weir snapshot --table") && ended.stderr.contains("itail.t"), "{}", ended.stderr);
    let report = reconcile(&weir, 3, &[]);
    let unbalanced = report["tables"][0]["unbalanced"].as_array().expect("a list");
    let told: Vec<(&Value, &Value)> = unbalanced.iter().map(|entry| (&entry["op"], &entry["count"])).collect();
    assert_eq!(told, [(&json!("c"), &json!(1)), (&json!("d"), &json!(1))], "{report:#}");
    let planned = reconcile(&weir, 3, &["--deep", "--dry-run"]);
    assert_eq!(planned["tables"][0]["deep"]["repair"]["anew"], "it has stopped", "{planned:#}");
    let after = mended(mysql, &weir, "itail");
    assert_eq!(after["tables"][0]["repairs"][0]["anew"], "it has stopped", "{after:#}");
}

#[test]
fn records_that_are_deleted_stop_their_table_and_are_told_as_lost() {
    let mysql = &Mysql::start(&[]);
    let weir = mirrored(mysql, "icut", Clickhouse::shared());
    let of_table = topic(&weir.name, "icut", "t");
    publish_only(mysql, &weir, &of_table, "UPDATE icut.t SET v = 2 WHERE id = 7");
    Kafka::shared().cut(&of_table);
    publish_only(mysql, &weir, &of_table, "UPDATE icut.t SET v = 3 WHERE id = 8");
    weir.expect(1, &["run", "--until-caught-up"]);
    lost_between_published_and_consumed(&reconcile(&weir, 3, &[]), "u", 2);
    mended(mysql, &weir, "icut");
}

#[test]
fn a_copy_in_a_transaction_of_another_producer_is_dropped_and_told() {
    let mysql = &Mysql::start(&[]);
    let weir = mirrored(mysql, "icopy", Clickhouse::shared());
    let copied = Kafka::shared().copy_in_a_transaction(&topic(&weir.name, "icopy", "t"));
    assert_eq!(copied, 11);
    mysql.run("UPDATE icopy.t SET v = 5 WHERE id = 2");
    weir.catch_up();
    assert_equal(mysql, &weir, "icopy");
    let report = weir.balanced();
    assert_eq!(hops(&report, "duplicate") + hops(&report, "stale"), copied, "{report:#}");
    let notices = report["tables"][0]["notices"].to_string();
    assert!(notices.contains("between published and consumed: 11 half-event(s) came twice"), "{notices}");
}

/// Says something to the trace's server, in the source's database.
fn say(clickhouse: &Clickhouse, weir: &Weir, statement: &str) {
    let url = url::Url::parse(&clickhouse.url_of(&weir.name)).expect("a url");
    let server = format!("{}://{}:{}", url.scheme(), url.host_str().unwrap(), url.port_or_known_default().unwrap());
    let mut client = clickhouse::Client::default().with_url(server).with_validation(false);
    client = client.with_database(url.path().trim_matches('/'));
    if !url.username().is_empty() {
        client = client.with_user(url.username()).with_password(url.password().unwrap_or_default());
    }
    let statement = statement.to_owned();
    block_on(
        async move { client.query(&statement).execute().await.unwrap_or_else(|error| panic!("{error}: {statement}")) },
    );
}

/// Puts in the place of the counts those that `select` gives.
fn replace_counts(clickhouse: &Clickhouse, weir: &Weir, select: &str) {
    say(clickhouse, weir, "CREATE TABLE held AS weir_trace");
    say(clickhouse, weir, &format!("INSERT INTO held {select}"));
    say(clickhouse, weir, "RENAME TABLE weir_trace TO thrown, held TO weir_trace");
    say(clickhouse, weir, "DROP TABLE thrown");
}

#[test]
fn counts_that_the_trace_lost_or_has_otherwise_are_named_with_their_hop() {
    let (mysql, clickhouse) = (&Mysql::start(&[]), Clickhouse::shared());
    let weir = mirrored(mysql, "icounts", clickhouse);
    let changed = "SELECT source, table_name, origin, generation, version, window_ms, op, hop, at_ms, \
         if(hop = 'upserted' AND op = 'u' AND version = v, toUInt64(count - 1), count) AS count, \
         digest_0, digest_1, digest_2, digest_3 \
         FROM weir_trace CROSS JOIN (SELECT max(version) AS v FROM weir_trace WHERE hop = 'upserted' AND op = 'u')";
    replace_counts(clickhouse, &weir, changed);
    let report = reconcile(&weir, 3, &[]);
    let told = difference(&report);
    assert_eq!(told["between"], json!(["consumed", "upserted"]), "{report:#}");
    assert_eq!((&told["op"], &told["count"]), (&json!("u"), &json!(1)), "{report:#}");

    replace_counts(clickhouse, &weir, "SELECT * FROM weir_trace WHERE NOT (hop = 'consumed' AND op = 'd')");
    let report = reconcile(&weir, 3, &[]);
    let of_deletes: Vec<&Value> =
        report["tables"][0]["unbalanced"].as_array().unwrap().iter().filter(|entry| entry["op"] == "d").collect();
    assert!(of_deletes.iter().any(|entry| entry["between"] == json!(["published", "consumed"]) && entry["count"] == 1));
    // Every row is equal: that is seen, noted, and the accounts do not differ any more.
    let after = mended(mysql, &weir, "icounts");
    let repair = &after["tables"][0]["repairs"][0];
    assert_eq!((&repair["keys"], &repair["different_count"]), (&json!(0), &json!(0)), "{after:#}");
}

#[test]
fn a_trace_that_was_lost_is_filled_again_with_its_repairs_and_one_that_is_down_says_so() {
    let (mysql, clickhouse) = (&Mysql::start(&[]), Clickhouse::start());
    let weir = mirrored(mysql, "iwiped", &clickhouse);
    mysql.run("SET sql_log_bin = 0; UPDATE iwiped.t SET v = 77 WHERE id = 6");
    let before = mended(mysql, &weir, "iwiped");
    assert_eq!(before["tables"][0]["repairs"][0]["different_count"], 1, "{before:#}");
    clickhouse.kill();
    let down = weir.expect(1, &["reconcile"]);
    assert!(down.stderr.contains("this says nothing about the tables"), "{}", down.stderr);
    clickhouse.restart();
    let database = clickhouse.url_of(&weir.name);
    let (_, database) = database.rsplit_once('/').expect("a database");
    say(&clickhouse, &weir, &format!("DROP DATABASE {database}"));
    let after = weir.balanced();
    for member in ["hops", "chunks", "repairs"] {
        assert_eq!(after["tables"][0][member], before["tables"][0][member], "{after:#}");
    }
}
