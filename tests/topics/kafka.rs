//! One `weir run` through Kafka, with counts in ClickHouse, is as exact as the direct way: under writers, under kills of the
//! service, and under kills of the broker.

use std::time::Duration;

use crate::support::clickhouse::Clickhouse;
use crate::support::kafka::{Kafka, topic};
use crate::support::lake::{Workload, assert_equal};
use crate::support::mysql::Mysql;
use crate::support::weir::{Weir, hops};

/// Changes of the workload under which the tables must end equal.
const CHANGES: u32 = 30_000;
/// Kills of the service while the workload runs.
const KILLS: u64 = 8;

#[test]
fn a_random_workload_over_kafka_ends_equal_and_balanced() {
    let (mysql, kafka) = (&Mysql::start(&[]), Kafka::shared());
    let workload = Workload { mysql, database: "kmirror", seed: 20_261_127 };
    workload.create(8_000);
    let weir = Weir::over_kafka("mirror", &mysql.url, &["kmirror.*"], (kafka, Clickhouse::shared()), "");
    // The service seeds while the writers are at work, and they are at work for longer than it takes to start.
    let service = weir.run();
    let mut writers = workload.live(CHANGES, &["--workers", "2", "--compression", "0.2", "--ddl", "--rate", "2000"]);
    assert!(writers.wait().expect("the workload ends").success());
    let (code, took) = service.terminate();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(30), "{took:?}");
    weir.catch_up();
    assert_equal(mysql, &weir, "kmirror");
    let report = weir.balanced();
    assert!(hops(&report, "captured") > u64::from(CHANGES) / 2, "{report:#}");
    assert_eq!(hops(&report, "captured"), hops(&report, "consumed"));

    let topics = kafka.topics();
    assert!(topics.contains(&format!("weir.{}.position", weir.name)), "{topics:?}");
    for table in report["tables"].as_array().unwrap() {
        let (database, table) = table["table"].as_str().unwrap().split_once('.').unwrap();
        assert!(topics.contains(&topic(&weir.name, database, table)), "no topic for {table}: {topics:?}");
    }
}

#[test]
fn kills_of_the_service_lose_and_double_nothing_over_kafka() {
    let mysql = &Mysql::start(&[]);
    let workload = Workload { mysql, database: "kkills", seed: 98 };
    workload.create(6_000);
    let servers = (Kafka::shared(), Clickhouse::shared());
    let weir = Weir::over_kafka("kills", &mysql.url, &["kkills.*"], servers, "");
    let mut writers = workload.live(20_000, &["--workers", "1", "--rate", "1500"]);
    for kill in 0..KILLS {
        let service = weir.run();
        // Some before the first publish, some in the middle of the seeding, some in mid-stream.
        std::thread::sleep(Duration::from_millis(400 + kill * 677 % 1_900));
        service.kill();
    }
    assert!(writers.wait().expect("the workload ends").success());
    weir.catch_up();
    assert_equal(mysql, &weir, "kkills");
    let report = weir.balanced();
    assert_eq!(hops(&report, "duplicate"), 0, "{report:#}");
}

#[test]
fn a_broker_that_is_killed_in_mid_stream_is_waited_for() {
    let (mysql, kafka) = (&Mysql::start(&[]), Kafka::start());
    let workload = Workload { mysql, database: "kbroker", seed: 97 };
    workload.create(3_000);
    let weir = Weir::over_kafka("broker", &mysql.url, &["kbroker.*"], (&kafka, Clickhouse::shared()), "");
    weir.catch_up();
    let mut service = weir.run();
    let mut writers = workload.live(15_000, &["--rate", "1500"]);
    for _ in 0..2 {
        std::thread::sleep(Duration::from_secs(2));
        kafka.kill();
        std::thread::sleep(Duration::from_millis(500));
        kafka.restart();
    }
    assert!(writers.wait().expect("the workload ends").success());
    assert!(service.is_running(), "{}", service.log());
    let log = service.log_file();
    let (code, _) = service.terminate();
    assert_eq!(code, Some(0), "{}", std::fs::read_to_string(log).unwrap_or_default());
    weir.catch_up();
    assert_equal(mysql, &weir, "kbroker");
    let report = weir.balanced();
    assert_eq!(hops(&report, "duplicate"), 0, "{report:#}");
}
