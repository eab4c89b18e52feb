//! The accounts through Kafka and ClickHouse: a doubled message is dropped and told, and a trace that is away catches up.

use std::time::Duration;

use crate::support::clickhouse::Clickhouse;
use crate::support::kafka::{Kafka, topic};
use crate::support::lake::assert_equal;
use crate::support::mysql::Mysql;
use crate::support::weir::{Weir, eventually, hops};

#[test]
fn messages_that_are_doubled_or_come_late_change_nothing_and_are_told_with_their_hop() {
    let (mysql, kafka) = (&Mysql::start(&[]), Kafka::shared());
    mysql.run("CREATE DATABASE kdoubled; USE kdoubled; CREATE TABLE t (id INT PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 1), (2, 2)");
    let weir = Weir::over_kafka("doubled", &mysql.url, &["kdoubled.*"], (kafka, Clickhouse::shared()), "");
    weir.catch_up();
    let many: Vec<String> = (10..60).map(|id| format!("({id}, 0)")).collect();
    mysql.run(&format!(
        "USE kdoubled; INSERT INTO t VALUES {}; UPDATE t SET v = v + 1; UPDATE t SET id = id + 1000 WHERE id < 20; DELETE FROM t WHERE id > 50",
        many.join(", ")
    ));
    weir.catch_up();
    assert_eq!(hops(&weir.balanced(), "duplicate"), 0);

    // Doubled: what was published last comes again.
    let table_topic = topic(&weir.name, "kdoubled", "t");
    let doubled = kafka.copy_messages(&table_topic, None);
    assert!(doubled > 100, "{doubled}");
    mysql.run("UPDATE kdoubled.t SET v = v + 1");
    weir.catch_up();
    assert_equal(mysql, &weir, "kdoubled");
    told(&weir, doubled);

    // Late, beside a running service: the first messages come again after rows have changed and gone.
    mysql.run("DELETE FROM kdoubled.t WHERE id BETWEEN 30 AND 40; UPDATE kdoubled.t SET v = v + 1");
    let service = weir.run();
    let late = kafka.copy_messages(&table_topic, Some(2));
    assert!(late > 0);
    mysql.run("UPDATE kdoubled.t SET v = v + 1");
    let (code, _) = service.terminate();
    assert_eq!(code, Some(0));
    weir.catch_up();
    assert_equal(mysql, &weir, "kdoubled");
    told(&weir, doubled + late);
}

/// The report is balanced, counts what came twice, and names the hop where it did.
fn told(weir: &Weir, copied: u64) {
    let report = weir.balanced();
    assert_eq!(hops(&report, "duplicate") + hops(&report, "stale"), copied, "{report:#}");
    assert_eq!(hops(&report, "consumed") - hops(&report, "published"), copied, "{report:#}");
    let notices = report["tables"][0]["notices"].to_string();
    assert!(notices.contains("published") || notices.contains("consumed"), "no notice names the hop: {report:#}");
}

#[test]
fn a_clickhouse_that_was_down_catches_up_while_the_tables_flow_on() {
    let (mysql, clickhouse) = (&Mysql::start(&[]), Clickhouse::start());
    mysql.run(
        "CREATE DATABASE kdown; CREATE TABLE kdown.t (id INT PRIMARY KEY, v INT); INSERT INTO kdown.t VALUES (1, 1)",
    );
    let weir = Weir::over_kafka("down", &mysql.url, &["kdown.*"], (Kafka::shared(), &clickhouse), "");
    let mut service = weir.run();
    eventually("the table is loaded", Duration::from_secs(30), || weir.has_rows("kdown.t", 1));
    clickhouse.kill();
    for id in 2..=6 {
        mysql.run(&format!("INSERT INTO kdown.t VALUES ({id}, {id}); UPDATE kdown.t SET v = v + 1"));
        std::thread::sleep(Duration::from_millis(300));
    }
    eventually("the table flows on", Duration::from_secs(30), || weir.has_rows("kdown.t", 6));
    clickhouse.restart();
    mysql.run("DELETE FROM kdown.t WHERE id = 1");
    // With the service running: it ships by itself what it could not ship before.
    eventually("the trace catches up", Duration::from_secs(60), || {
        let report = weir.output(&["reconcile", "--format", "json"]);
        let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap_or_default();
        report["verdict"] == "balanced" && hops(&report, "deleted") == 1
    });
    assert!(service.is_running(), "{}", service.log());
    let (code, _) = service.terminate();
    assert_eq!(code, Some(0));
    weir.catch_up();
    assert_equal(mysql, &weir, "kdown");
    let report = weir.balanced();
    // Five inserts, their updates of 2 to 6 rows each, and the delete.
    assert_eq!(hops(&report, "captured"), 5 + 20 + 1, "{report:#}");
}
