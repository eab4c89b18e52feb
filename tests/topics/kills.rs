//! SIGTERM and SIGKILL at any moment lose nothing and double nothing.

use std::time::Duration;

use crate::support::lake::{Workload, assert_equal};
use crate::support::mysql::Mysql;
use crate::support::weir::Weir;

/// Kills of the service while the workload runs.
const KILLS: u64 = 20;

/// Moments from a fixed seed (splitmix64), so that a failure can be run again.
fn pause_ms(seed: u64, kill: u64) -> u64 {
    let mut z = seed.wrapping_add(kill.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    100 + (z ^ (z >> 31)) % 1_400
}

#[test]
fn twenty_kills_lose_and_double_nothing() {
    let mysql = &Mysql::start(&[]);
    let workload = Workload { mysql, database: "kills", seed: 99 };
    workload.create(20_000);
    let weir = Weir::new(&mysql.url, &["kills.*"], "");
    let mut writers = workload.live(60_000, &["--workers", "1", "--rate", "3000"]);
    let seed = 4_711;
    eprintln!("kills at moments of seed {seed}");
    for kill in 0..KILLS {
        let service = weir.run();
        std::thread::sleep(Duration::from_millis(pause_ms(seed, kill)));
        service.kill();
    }
    assert!(writers.wait().expect("the workload ends").success());
    weir.catch_up();
    assert_equal(mysql, &weir, "kills");
    let report = weir.expect(0, &["reconcile", "--format", "json"]).json();
    assert_eq!(report["verdict"], "balanced", "{report:#}");
    for table in report["tables"].as_array().unwrap() {
        assert_eq!(table["hops"]["duplicate"], 0, "{table:#}");
    }
}

#[test]
fn sigterm_in_mid_stream_exits_0_and_the_next_run_goes_on() {
    let mysql = Mysql::shared();
    let workload = Workload { mysql, database: "term", seed: 5 };
    workload.create(5_000);
    let weir = Weir::new(&mysql.url, &["term.*"], "");
    let mut writers = workload.live(30_000, &["--rate", "4000"]);
    for _ in 0..3 {
        let service = weir.run();
        std::thread::sleep(Duration::from_millis(1_500));
        let (code, took) = service.terminate();
        assert_eq!(code, Some(0));
        assert!(took < Duration::from_secs(30), "{took:?}");
    }
    assert!(writers.wait().expect("the workload ends").success());
    weir.catch_up();
    assert_equal(mysql, &weir, "term");
}

#[test]
fn of_two_live_services_the_older_exits_4() {
    let mysql = Mysql::shared();
    mysql.run("CREATE DATABASE two; CREATE TABLE two.t (id INT PRIMARY KEY AUTO_INCREMENT, v INT); INSERT INTO two.t (v) VALUES (1)");
    let weir = Weir::new(&mysql.url, &["two.*"], "");
    let mut older = weir.run();
    std::thread::sleep(Duration::from_secs(2));
    let newer = weir.run();
    for v in 0..10 {
        mysql.run(&format!("INSERT INTO two.t (v) VALUES ({v})"));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(older.wait(), Some(4), "{}", older.log());
    let (code, _) = newer.terminate();
    assert_eq!(code, Some(0));
    weir.catch_up();
    assert_equal(mysql, &weir, "two");
}
