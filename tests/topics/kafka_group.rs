//! `weir capture` and several `weir apply`, joined by Kafka.

use std::time::Duration;

use crate::support::clickhouse::Clickhouse;
use crate::support::kafka::Kafka;
use crate::support::lake::{Workload, assert_equal};
use crate::support::mysql::Mysql;
use crate::support::weir::{Running, Weir, eventually, hops};

#[test]
fn applies_that_come_and_go_and_a_killed_capture_end_equal_with_no_key_twice() {
    let mysql = &Mysql::start(&[]);
    let workload = Workload { mysql, database: "kgroup", seed: 96 };
    workload.create(4_000);
    let servers = (Kafka::shared(), Clickhouse::shared());
    let weir = Weir::over_kafka("group", &mysql.url, &["kgroup.*"], servers, "");
    let capture = weir.capture();
    let mut applies: Vec<Running> = (1..=3).map(|ordinal| weir.apply(ordinal)).collect();
    let mut writers = workload.live(20_000, &["--rate", "1500"]);
    std::thread::sleep(Duration::from_secs(3));
    applies.remove(0).kill();
    std::thread::sleep(Duration::from_secs(1));
    applies.push(weir.apply(4));
    std::thread::sleep(Duration::from_secs(1));
    capture.kill();
    let capture = weir.capture();
    assert!(writers.wait().expect("the workload ends").success());
    ends_in_order(capture);

    // While the applies run.
    weir.expect(0, &["capture", "--until-caught-up"]);
    for apply in &mut applies {
        assert!(apply.is_running(), "{}", apply.log());
    }
    applies.into_iter().for_each(ends_in_order);
    assert_equal(mysql, &weir, "kgroup");
    let report = weir.balanced();
    assert_eq!(hops(&report, "duplicate"), 0, "{report:#}");
    assert_eq!(hops(&report, "captured"), hops(&report, "consumed"));
}

#[test]
fn of_two_captures_started_at_once_one_goes_on() {
    let mysql = &Mysql::start(&[]);
    mysql.run("CREATE DATABASE ktwo; CREATE TABLE ktwo.t (id INT PRIMARY KEY AUTO_INCREMENT, v INT); INSERT INTO ktwo.t (v) VALUES (1)");
    let servers = (Kafka::shared(), Clickhouse::shared());
    let weir = Weir::over_kafka("two", &mysql.url, &["ktwo.*"], servers, "");
    let apply = weir.apply(1);
    let mut captures = vec![weir.start(&["capture"], "capture-1.log"), weir.start(&["capture"], "capture-2.log")];
    eventually("one of the captures ends", Duration::from_secs(30), || {
        // Whoever was taken over from learns it when it publishes.
        mysql.run("INSERT INTO ktwo.t (v) VALUES (2)");
        captures.iter_mut().any(|capture| !capture.is_running())
    });
    let ended = captures.iter_mut().position(|capture| !capture.is_running()).unwrap();
    let mut loser = captures.remove(ended);
    assert_eq!(loser.wait(), Some(4), "{}", loser.log());
    assert!(loser.log().contains("another instance took over"), "{}", loser.log());

    let mut winner = captures.remove(0);
    for _ in 0..10 {
        mysql.run("INSERT INTO ktwo.t (v) VALUES (3)");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(winner.is_running(), "{}", winner.log());
    ends_in_order(winner);
    weir.expect(0, &["capture", "--until-caught-up"]);
    ends_in_order(apply);
    assert_equal(mysql, &weir, "ktwo");
    weir.balanced();
}

fn ends_in_order(process: Running) {
    let log = process.log_file();
    let (code, took) = process.terminate();
    assert_eq!(code, Some(0), "{}", std::fs::read_to_string(log).unwrap_or_default());
    assert!(took < Duration::from_secs(30), "{took:?}");
}
