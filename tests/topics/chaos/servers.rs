//! Servers that are killed under a running service: MySQL, Kafka in the middle of a transaction, ClickHouse for long.

use std::time::Duration;

use super::repeats;
use super::scene::Scene;
use crate::support::clickhouse::Clickhouse;
use crate::support::kafka::Kafka;
use crate::support::weir::eventually;

const BACK_WITHIN: Duration = Duration::from_secs(120);

#[test]
fn a_source_that_is_killed_is_waited_for() {
    let mut scene = Scene::direct("mkilled", 9_007);
    let mut service = scene.weir.run();
    for _ in 0..repeats() {
        // One that cannot reach its source when it starts says so and ends.
        scene.goes_on();
        let writers = scene.write();
        std::thread::sleep(Duration::from_millis(800 + scene.random.below(1_500)));
        scene.mysql.kill();
        let _ = writers.stop();
        std::thread::sleep(Duration::from_millis(scene.random.below(1_000)));
        scene.mysql.start_again_with(&["--transaction-isolation=READ-COMMITTED"]);
        scene.goes_on();
        scene.outlived(service, "MySQL killed and started again", "went on by itself");
        service = scene.weir.run();
    }
    service.kill();
}

#[test]
fn a_broker_killed_in_mid_transaction_and_a_trace_that_is_away_are_waited_for() {
    let (kafka, clickhouse) = (Kafka::start(), Clickhouse::start());
    let mut scene = Scene::over_kafka("bkilled", 9_008, &kafka, &clickhouse);
    scene.weir.catch_up();
    for _ in 0..repeats() {
        // Some transaction waits with its messages sent and its record not, for longer than the broker takes to go.
        let passed = 3 + scene.random.below(4);
        let waits = format!("kafka:produced={passed}*off->1*sleep(2500)->off");
        let service = scene.weir.start_at(&["run"], "run.log", &waits);
        let writers = scene.write();
        clickhouse.kill();
        std::thread::sleep(Duration::from_millis(2_000 + scene.random.below(500)));
        kafka.kill();
        std::thread::sleep(Duration::from_millis(300));
        kafka.restart();
        assert!(writers.stop(), "the writers failed");
        scene.goes_on();
        eventually("the absence of the trace is told", BACK_WITHIN, || service.log().contains("the trace is behind"));
        clickhouse.restart();
        scene.outlived(service, "Kafka killed in mid-transaction, ClickHouse away meanwhile", "went on by itself");
    }
}
