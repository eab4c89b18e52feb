//! A random workload for as long as `WEIR_SOAK_SECONDS` says, 20 unless set, with every way of reconciling at work all the time:
//! none of them may ever name a difference. `make soak` lets it run for an hour.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::lake::{Workload, assert_equal};
use crate::support::mysql::Mysql;
use crate::support::weir::{Weir, eventually};

const RATE: u64 = 2_000;
const WORKERS: u64 = 2;

/// Fails if a report or the service itself calls a table different.
fn no_difference(report: &Value, status: &Value) {
    assert_ne!(report["verdict"], "different", "{report:#}");
    for table in status["tables"].as_array().expect("a status has tables") {
        let proof = &table["proof"];
        for kind in ["missing", "extra", "different", "lost_files"] {
            assert!(proof["found"][kind].as_u64().unwrap_or(0) == 0, "{table:#}");
        }
        assert_eq!(proof["hops_unbalanced"].as_u64().unwrap_or(0), 0, "{table:#}");
        assert_ne!(table["phase"], "stopped", "{table:#}");
    }
}

#[test]
fn nothing_is_called_different_however_long_changes_come() {
    let seconds = std::env::var("WEIR_SOAK_SECONDS").map_or(20, |text| text.parse::<u64>().expect("whole seconds"));
    let seed = std::env::var("WEIR_SOAK_SEED").map_or(71, |text| text.parse::<u64>().expect("a whole number"));
    let mysql = &Mysql::start(&[]);
    let workload = Workload { mysql, database: "soak", seed };
    workload.create(10_000);
    let within = (seconds / 4).clamp(10, 300);
    let extra = format!(
        "[reconcile]\nhops_every = \"1s\"\ndeep_within = \"{within}s\"\n[[table]]\nname = \"soak.t_varchar\"\nmode = \"append\"\n"
    );
    let weir = Weir::new(&mysql.url, &["soak.*"], &extra);
    weir.catch_up();
    let service = weir.run();
    let rate = RATE.to_string();
    let mut writers = workload.live(
        u32::try_from(RATE * seconds).expect("some days at most"),
        &["--workers", &WORKERS.to_string(), "--rate", &rate],
    );
    let (began, mut reports, mut rechecked) = (Instant::now(), 0_u64, 0);
    while writers.try_wait().expect("its state can be asked").is_none() {
        let deep: &[&str] = if reports.is_multiple_of(2) { &["--deep"] } else { &[] };
        let report = weir.expect(0, &[&["reconcile", "--format", "json"], deep].concat()).json();
        no_difference(&report, &weir.expect(0, &["status", "--format", "json"]).json());
        let tables = report["tables"].as_array().expect("a report has tables");
        rechecked += tables.iter().filter_map(|table| table["deep"]["rechecked"].as_u64()).sum::<u64>();
        reports += 1;
    }
    assert!(writers.wait().expect("the workload ends").success());
    eprintln!("{reports} reports in {:?}, {rechecked} keys looked at again, seed {seed}", began.elapsed());
    eventually("everything is in and proven", Duration::from_secs(240), || {
        let status = weir.expect(0, &["status", "--format", "json"]).json();
        let tables = status["tables"].as_array().expect("a status has tables");
        tables.iter().all(|table| {
            table["lag_transactions"] == 0
                && (table["proof"]["verified_through"].is_string() || table["proof"]["not_compared"].is_string())
        })
    });
    no_difference(&weir.balanced(), &weir.expect(0, &["status", "--format", "json"]).json());
    assert_eq!(service.terminate().0, Some(0));
    assert_equal(mysql, &weir, "soak");
}
