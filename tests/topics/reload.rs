//! A configuration that changes while the service runs: what can be taken is, all of it or nothing, and no row is lost or doubled
//! by that.

use std::time::Duration;

use serde_json::Value;

use crate::support::clickhouse::Clickhouse;
use crate::support::http::{Metrics, address, get};
use crate::support::kafka::Kafka;
use crate::support::lake::{Workload, assert_equal};
use crate::support::mysql::Mysql;
use crate::support::weir::{Running, Weir, eventually, hops};

const LIMIT: Duration = Duration::from_secs(90);

/// Changes of the workload under which tables and settings change: some 20 s of it.
const CHANGES: u32 = 40_000;

/// What a service shows of itself, asked again until it `holds`.
fn shows(address: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let mut status = Value::Null;
    let mut has_come = || {
        status = get(address, "/status").json();
        holds(&status)
    };
    eventually(what, LIMIT, &mut has_come);
    status
}

fn reloads(status: &Value) -> u64 {
    status["config"]["reloads"].as_u64().unwrap_or(0)
}

fn refusal(status: &Value) -> String {
    status["config"]["refused"]["why"].as_str().unwrap_or_default().to_owned()
}

fn phase<'a>(status: &'a Value, table: &str) -> Option<&'a str> {
    let tables = status["tables"].as_array()?;
    tables.iter().find(|known| known["table"] == table)?["phase"].as_str()
}

/// Every table streams, and lacks nothing.
fn is_up_to_date(status: &Value) -> bool {
    let tables = status["tables"].as_array().map(Vec::as_slice).unwrap_or_default();
    !tables.is_empty() && tables.iter().all(|table| table["phase"] == "streaming" && table["lag_transactions"] == 0)
}

/// How often a process has gone on by a changed configuration, by its log.
fn taken(process: &Running) -> usize {
    process.log().matches("running by the changed configuration").count()
}

#[test]
fn tables_and_settings_change_under_load_and_nothing_is_lost_or_doubled() {
    let mysql = &Mysql::start(&[]);
    let workload = Workload { mysql, database: "rel", seed: 4_242 };
    workload.create(6_000);
    let weir = Weir::new(&mysql.url, &["rel.*", "!rel.t_varchar"], "");
    let mut service = weir.run();
    let address = &address(&service);
    let first = shows(address, "every table streams", is_up_to_date)["epoch"].as_u64().expect("a number");
    let mut writers = workload.live(CHANGES, &["--workers", "2", "--rate", "2000"]);

    // Added, and seeded beside the stream.
    weir.replace_in_config("\"!rel.t_varchar\"", "\"!rel.t_int\"");
    let status = shows(address, "one is added and one left out", |status| reloads(status) == 1);
    assert_eq!(status["config"]["changed"], serde_json::json!(["source.tables"]));
    shows(address, "the added one streams", |status| phase(status, "rel.t_varchar") == Some("streaming"));
    assert_eq!(phase(&get(address, "/status").json(), "rel.t_int"), None);
    assert!(weir.warehouse().join("rel/t_int/_delta_log").exists(), "a table that is left out stays in the lake");

    // Wrong: told, and nothing changes.
    weir.replace_in_config("commit_interval_ms = 200", "commit_interval_ms = \"soon\"");
    let status = shows(address, "the file is refused", |status| !refusal(status).is_empty());
    assert!(refusal(&status).contains("apply.commit_interval_ms") && refusal(&status).contains("line"), "{status:#}");
    assert_eq!(Metrics::of(address).value("weir_config_reload_failed"), 1.0);
    assert_eq!(reloads(&status), 1);

    // One that can change beside one that cannot: neither does.
    weir.replace_in_config("commit_interval_ms = \"soon\"", "commit_interval_ms = 50");
    weir.replace_in_config("127.0.0.1:0", "127.0.0.1:9");
    shows(address, "the setting is refused", |status| refusal(status).starts_with("http.listen cannot change"));
    assert_eq!(reloads(&get(address, "/status").json()), 1);
    eventually("commands tell it, too", LIMIT, || {
        weir.expect(0, &["status"]).stdout.contains("not taken: http.listen cannot change")
    });

    // Taken in again; several that change, one after another, at moments of their own.
    weir.replace_in_config("127.0.0.1:9", "127.0.0.1:0");
    weir.replace_in_config(", \"!rel.t_int\"", "");
    service.hang_up();
    let status = shows(address, "the one that was left out is back", |status| reloads(status) >= 2);
    assert_eq!((refusal(&status).as_str(), status["config"]["refused"].is_null()), ("", true));
    let mut before = reloads(&status);
    for (from, to) in [(50, 120), (120, 80), (80, 200)] {
        weir.replace_in_config(&format!("commit_interval_ms = {from}"), &format!("commit_interval_ms = {to}"));
        service.hang_up();
        before = reloads(&shows(address, "the interval changes", |status| reloads(status) > before));
    }
    assert!(writers.wait().expect("the workload ends").success());
    let status = shows(address, "everything is in", is_up_to_date);
    assert!(phase(&status, "rel.t_int").is_some() && phase(&status, "rel.t_varchar").is_some(), "{status:#}");
    let (epochs, reloads) = (status["epoch"].as_u64().expect("a number") - first, reloads(&status));
    assert!(epochs >= reloads && reloads >= 5, "{reloads} reloads, and {epochs} incarnations");
    assert_eq!(Metrics::of(address).value("weir_config_reload_failed"), 0.0);
    assert_eq!(Metrics::of(address).value("weir_config_reloads_total"), reloads as f64);
    eprintln!("{reloads} reloads under load, {} events captured", hops(&weir.balanced(), "captured"));
    assert!(service.is_running(), "{}", service.log());
    assert_eq!(service.terminate().0, Some(0));
    assert_equal(mysql, &weir, "rel");
    let report = weir.balanced();
    assert_eq!(hops(&report, "duplicate"), 0, "{report:#}");
    weir.expect(0, &["reconcile", "--deep"]);
}

#[test]
fn what_the_source_refuses_is_not_begun_by_and_the_service_streams_on() {
    let mysql = Mysql::shared();
    mysql
        .run("CREATE DATABASE relp; CREATE TABLE relp.t (id INT PRIMARY KEY, v INT); INSERT INTO relp.t VALUES (1, 1)");
    let table = "\n[[table]]\nname = \"relp.t\"\nzero_dates = \"null\"\n";
    let weir = Weir::new(&mysql.url, &["relp.*"], table);
    let service = weir.run();
    let address = &address(&service);
    shows(address, "it streams", is_up_to_date);

    let wrong = mysql.url.replace("root@", "nobody_of_that_name:wrong@");
    weir.replace_in_config(&mysql.url, &wrong);
    let status = shows(address, "the login is refused", |status| !refusal(status).is_empty());
    assert!(refusal(&status).contains("tried again") && !refusal(&status).contains("wrong@"), "{status:#}");
    mysql.run("INSERT INTO relp.t VALUES (2, 2)");
    eventually("it streams on", LIMIT, || weir.has_rows("relp.t", 2));
    assert_eq!(reloads(&get(address, "/status").json()), 0);

    // How a table is kept that the lake has.
    weir.replace_in_config(&wrong, &mysql.url);
    weir.replace_in_config("zero_dates = \"null\"", "zero_dates = \"null\"\nmode = \"append\"");
    shows(address, "the mode is refused", |status| refusal(status).starts_with("[[table]] relp.t: mode cannot change"));

    // Undone, it is as if nothing had been.
    weir.replace_in_config("\nmode = \"append\"", "");
    let status = shows(address, "nothing is refused", |status| refusal(status).is_empty());
    assert_eq!((reloads(&status), taken(&service)), (0, 0));
    assert_eq!(service.terminate().0, Some(0));
    assert_equal(mysql, &weir, "relp");
}

#[test]
fn a_sighup_without_a_change_changes_nothing() {
    let mysql = Mysql::shared();
    mysql.run("CREATE DATABASE relhup; CREATE TABLE relhup.t (id INT PRIMARY KEY)");
    let weir = Weir::new(&mysql.url, &["relhup.*"], "");
    let service = weir.run();
    let address = &address(&service);
    shows(address, "it streams", is_up_to_date);
    service.hang_up();
    eventually("it says so", LIMIT, || service.log().contains("the configuration says what it said before"));
    assert_eq!((service.terminate().0, weir.has_rows("relhup.t", 0)), (Some(0), true));
}

/// A table is left out and taken in again, and the interval changes, all under load; `has_taken` says whether every process
/// has gone on by the change of this number.
fn changes_over_kafka(weir: &Weir, database: &str, has_taken: impl Fn(usize) -> bool) {
    let mut change = 0;
    let mut apply = |from: &str, to: &str| {
        weir.replace_in_config(from, to);
        change += 1;
        eventually("the change is taken", LIMIT, || has_taken(change));
        std::thread::sleep(Duration::from_millis(1_500));
    };
    let all = format!("\"{database}.*\"]");
    let without = format!("\"{database}.*\", \"!{database}.t_int\"]");
    apply(&all, &without);
    apply("commit_interval_ms = 200", "commit_interval_ms = 60");
    apply(&without, &all);
}

#[test]
fn over_kafka_a_table_that_was_left_out_for_a_while_ends_equal() {
    let mysql = &Mysql::start(&[]);
    let workload = Workload { mysql, database: "relk", seed: 4_243 };
    workload.create(3_000);
    let servers = (Kafka::shared(), Clickhouse::shared());
    let weir = Weir::over_kafka("relk", &mysql.url, &["relk.*"], servers, "");
    let service = weir.run();
    shows(&address(&service), "every table streams", is_up_to_date);
    let mut writers = workload.live(20_000, &["--rate", "1000"]);
    changes_over_kafka(&weir, "relk", |change| taken(&service) >= change);
    assert!(writers.wait().expect("the workload ends").success());
    shows(&address(&service), "everything is in", is_up_to_date);
    assert_eq!(service.terminate().0, Some(0));
    weir.catch_up();
    assert_equal(mysql, &weir, "relk");
    let report = weir.balanced();
    assert_eq!((hops(&report, "duplicate"), hops(&report, "captured")), (0, hops(&report, "consumed")), "{report:#}");
}

#[test]
fn the_halves_change_each_by_itself_and_end_equal() {
    let mysql = &Mysql::start(&[]);
    let workload = Workload { mysql, database: "relh", seed: 4_244 };
    workload.create(2_000);
    let servers = (Kafka::shared(), Clickhouse::shared());
    let weir = Weir::over_kafka("relh", &mysql.url, &["relh.*"], servers, "");
    let processes = [weir.capture(), weir.apply(1), weir.apply(2)];
    shows(&address(&processes[0]), "every table streams", is_up_to_date);
    let mut writers = workload.live(16_000, &["--rate", "800"]);
    changes_over_kafka(&weir, "relh", |change| processes.iter().all(|process| taken(process) >= change));
    assert!(writers.wait().expect("the workload ends").success());
    shows(&address(&processes[0]), "everything is in", is_up_to_date);
    for process in processes {
        assert_eq!(process.terminate().0, Some(0));
    }
    assert_equal(mysql, &weir, "relh");
    let report = weir.balanced();
    assert_eq!((hops(&report, "duplicate"), hops(&report, "captured")), (0, hops(&report, "consumed")), "{report:#}");
}
