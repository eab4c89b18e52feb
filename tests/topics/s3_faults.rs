//! What goes wrong between the service and a bucket: answers that are lost after the write was done, servers that are busy
//! or away, and requests that hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::support::lake::{Workload, assert_equal};
use crate::support::mysql::Mysql;
use crate::support::s3::S3;
use crate::support::s3_ways::{Relayed, Way};
use crate::support::weir::{Weir, eventually};

#[test]
fn answers_that_are_lost_and_a_busy_server_lose_and_double_nothing() {
    let (mysql, s3) = (&Mysql::start(&[]), S3::shared());
    let asked = AtomicU64::new(0);
    // Not those of the start: a service that cannot prove its store is not to run.
    let way = Way::before(
        &s3.endpoint,
        Box::new(move |method, path| {
            let n = asked.fetch_add(1, Ordering::Relaxed);
            match n {
                _ if path.contains("/probe-") || n < 20 => Relayed::Through,
                _ if method == "PUT" && n.is_multiple_of(5) => Relayed::AnswerDropped,
                _ if n.is_multiple_of(13) => Relayed::Busy,
                _ if n.is_multiple_of(17) => Relayed::Dropped,
                _ => Relayed::Through,
            }
        }),
    );
    let workload = Workload { mysql, database: "lossy", seed: 7 };
    workload.create(3_000);
    let weir = Weir::into_s3("lossy", &mysql.url, &["lossy.*"], (s3, &way.endpoint), "");
    let service = weir.run();
    let mut writers = workload.live(10_000, &["--rate", "1000"]);
    assert!(writers.wait().expect("the workload ends").success());
    let log = service.log_file();
    let (code, _) = service.terminate();
    assert_eq!(code, Some(0), "{}", std::fs::read_to_string(log).unwrap_or_default());
    weir.catch_up();
    assert!(way.faults() > 50, "only {} requests met a fault", way.faults());
    assert_equal(mysql, &weir, "lossy");
    let report = weir.balanced();
    for table in report["tables"].as_array().unwrap() {
        assert_eq!(table["hops"]["duplicate"], 0, "{table:#}");
    }
}

#[test]
fn a_store_that_is_away_for_long_is_waited_for_and_no_table_stops() {
    let (mysql, s3) = (&Mysql::start(&[]), S3::shared());
    let away = Arc::new(AtomicBool::new(false));
    let told = away.clone();
    let way = Way::before(
        &s3.endpoint,
        Box::new(move |method, path| {
            // Commits and state do not get through; data files do, so that this does not take the client's whole patience.
            let concerned = method == "PUT" && (path.contains("_delta_log") || path.contains("/_weir/"));
            if concerned && told.load(Ordering::Relaxed) { Relayed::Dropped } else { Relayed::Through }
        }),
    );
    mysql
        .run("CREATE DATABASE away; CREATE TABLE away.t (id INT PRIMARY KEY, v INT); INSERT INTO away.t VALUES (1, 1)");
    let weir = Weir::into_s3("away", &mysql.url, &["away.*"], (s3, &way.endpoint), "");
    let mut service = weir.run();
    eventually("the table is there", Duration::from_secs(60), || weir.has_rows("away.t", 1));
    away.store(true, Ordering::Relaxed);
    mysql.run("INSERT INTO away.t VALUES (2, 2)");
    eventually("the absence is told", Duration::from_secs(60), || {
        service.log().contains("the warehouse is still away")
    });
    assert!(service.is_running(), "{}", service.log());
    mysql.run("UPDATE away.t SET v = 3 WHERE id = 1; INSERT INTO away.t VALUES (3, 3)");
    away.store(false, Ordering::Relaxed);
    eventually("the service goes on", Duration::from_secs(90), || weir.has_rows("away.t", 3));
    let (code, _) = service.terminate();
    assert_eq!(code, Some(0));
    weir.catch_up();
    assert_equal(mysql, &weir, "away");
    weir.balanced();
}

#[test]
fn a_request_that_hangs_is_given_up_and_made_again() {
    let (mysql, s3) = (&Mysql::start(&[]), S3::shared());
    let hung = Arc::new(AtomicU64::new(0));
    let counted = hung.clone();
    let way = Way::before(
        &s3.endpoint,
        Box::new(move |method, path| {
            let commit = method == "PUT" && path.contains("_delta_log") && path.contains("0000000002.json");
            let first = commit && counted.fetch_add(1, Ordering::Relaxed) == 0;
            if first { Relayed::Hung } else { Relayed::Through }
        }),
    );
    mysql
        .run("CREATE DATABASE hung; CREATE TABLE hung.t (id INT PRIMARY KEY, v INT); INSERT INTO hung.t VALUES (1, 1)");
    let weir = Weir::into_s3("hung", &mysql.url, &["hung.*"], (s3, &way.endpoint), "");
    weir.replace_in_config("allow_http", "timeout = \"3s\"\nallow_http");
    weir.catch_up();
    assert_eq!(way.faults(), 1);
    assert!(hung.load(Ordering::Relaxed) > 1);
    assert_equal(mysql, &weir, "hung");
    weir.balanced();
}
