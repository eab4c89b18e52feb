//! The service reconciles by itself: every key is proven within the configured time, and what differs is told by `status`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::beside;
use crate::support::clickhouse::Clickhouse;
use crate::support::kafka::Kafka;
use crate::support::lake::Workload;
use crate::support::mysql::Mysql;
use crate::support::weir::{Weir, eventually};

const SECTION: &str = "[reconcile]\nhops_every = \"1s\"\ndeep_within = \"8s\"\n";
const LIMIT: Duration = Duration::from_secs(240);

/// What the service has proven of a table.
fn proof(weir: &Weir, table: &str) -> Value {
    let status = weir.expect(0, &["status", "--format", "json"]).json();
    let tables = status["tables"].as_array().expect("a status has tables");
    tables.iter().find(|entry| entry["table"] == table).map_or(Value::Null, |entry| entry["proof"].clone())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[test]
fn every_key_is_proven_again_and_again_and_what_differs_is_told_until_it_is_mended() {
    let mysql = &Mysql::start(&[]);
    mysql.run(
        "CREATE DATABASE proven; USE proven; SET cte_max_recursion_depth = 10000000;
         CREATE TABLE big (id INT PRIMARY KEY, v INT);
         INSERT INTO big WITH RECURSIVE up AS (SELECT 0 AS n UNION ALL SELECT n + 1 FROM up WHERE n < 899999) SELECT n, n FROM up;
         CREATE TABLE small (a INT, code VARCHAR(20), v INT, PRIMARY KEY (a, code)); INSERT INTO small VALUES (1, 'é', 1), (2, 'b', 2);
         CREATE TABLE keyless (v INT); INSERT INTO keyless VALUES (1);
         ANALYZE TABLE big",
    );
    let sections = format!("{SECTION}[[table]]\nname = \"proven.keyless\"\nmode = \"append\"\n");
    let weir = Weir::new(&mysql.url, &["proven.*"], &sections);
    let service = weir.run();
    eventually("each key of both tables is proven", LIMIT, || {
        ["proven.big", "proven.small"].iter().all(|table| proof(&weir, table)["verified_through"].is_string())
    });
    let first = proof(&weir, "proven.big");
    assert!(first["ranges"].as_u64() > Some(2) && first["ranges"] == first["ranges_proven"], "{first:#}");
    assert!(text(&proof(&weir, "proven.keyless")["not_compared"]).contains("key"));
    eventually("it is proven once more", LIMIT, || {
        text(&proof(&weir, "proven.big")["verified_through"]) > text(&first["verified_through"])
    });
    mysql.run("INSERT INTO proven.small VALUES (3, 'c', 3)");
    eventually("the counts of the hops add up", LIMIT, || proof(&weir, "proven.small")["hops_balanced"].is_string());

    mysql.run(
        "SET sql_log_bin = 0; DELETE FROM proven.big WHERE id = 700001; INSERT INTO proven.big VALUES (-5, 1); \
         UPDATE proven.small SET v = 9 WHERE a = 1",
    );
    eventually("the differences are found", LIMIT, || {
        let (big, small) = (proof(&weir, "proven.big")["found"].clone(), proof(&weir, "proven.small")["found"].clone());
        big["missing"] == 1 && big["extra"] == 1 && small["different"] == 1
    });
    let before = proof(&weir, "proven.big");
    let mut keys = before["found"]["keys"].as_array().expect("keys are named").clone();
    keys.sort_by_key(|key| key["id"].as_i64());
    assert_eq!(keys, [json!({"id": -5}), json!({"id": 700_001})]);
    let people = weir.expect(0, &["status"]).stdout;
    assert!(people.contains("DIFFERENT: 1 missing, 1 extra"), "{people}");
    assert!(service.log().contains("the lake does not hold what the source has"));
    let report = weir.expect(0, &["reconcile", "--format", "json"]).json();
    assert!(report["tables"][0]["notices"][0].as_str().is_some_and(|notice| notice.contains("2 key(s)")), "{report:#}");
    assert!(report["tables"][0]["verified_through"].is_string(), "{report:#}");
    let report = weir.expect(3, &["reconcile", "--format", "json", "--deep"]).json();
    assert_eq!(report["verdict"], "different");
    // What has been proven outlives the service.
    service.kill();
    assert_eq!(proof(&weir, "proven.big")["found"]["missing"], 1);
    let service = weir.run_until_it_is_seen();
    weir.expect(0, &["reconcile", "--deep", "--repair"]);
    eventually("all is equal again, and proven later than what was found", LIMIT, || {
        ["proven.big", "proven.small"].iter().all(|table| {
            let after = proof(&weir, table);
            after["found"].is_null() && text(&after["verified_through"]) > text(&before["verified_through"])
        })
    });
    assert_eq!(service.terminate().0, Some(0));
}

#[test]
fn over_kafka_the_counts_and_rows_are_proven_beside_writers() {
    let mysql = &Mysql::start(&[]);
    let workload = Workload { mysql, database: "kproven", seed: 61 };
    workload.create_tables(2_000, "t_auto,t_varchar");
    let servers = (Kafka::shared(), Clickhouse::shared());
    let weir = Weir::over_kafka("proven", &mysql.url, &["kproven.*"], servers, "");
    weir.append_to_config(SECTION);
    let service = weir.run();
    let (first, second) = ("kproven.t_auto", "kproven.t_varchar");
    let write = |stop: &std::sync::atomic::AtomicBool| {
        while !stop.load(std::sync::atomic::Ordering::Acquire) {
            mysql.run("UPDATE kproven.t_auto SET counter = counter + 1 ORDER BY id LIMIT 3");
        }
    };
    beside(write, || {
        eventually("both are proven", LIMIT, || {
            [first, second].iter().all(|table| proof(&weir, table)["verified_through"].is_string())
        });
    });
    eventually("the counts add up", LIMIT, || {
        let of = proof(&weir, first);
        of["hops_balanced"].is_string() && of["hops_unbalanced"] == 0 && of["found"].is_null()
    });
    mysql.run("SET sql_log_bin = 0; DELETE FROM kproven.t_varchar LIMIT 1");
    eventually("the row that went silently is found", LIMIT, || proof(&weir, second)["found"]["extra"] == 1);
    assert_eq!(service.terminate().0, Some(0));
}
