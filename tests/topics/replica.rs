//! Chunks read from a replica of the source, while the stream comes from the source itself.

use std::time::Duration;

use crate::support::lake::{Workload, assert_equal};
use crate::support::mysql::Mysql;
use crate::support::weir::{Weir, eventually};

/// A server that follows `primary` from its beginning.
fn replica_of(primary: &Mysql) -> Mysql {
    let replica = Mysql::start(&["--server-id=4242", "--log-replica-updates=ON"]);
    let port = primary.url.rsplit(':').next().and_then(|rest| rest.split('/').next()).expect("a url with a port");
    // What the server wrote while it was set up is no part of the source's history.
    replica.run(&format!(
        "RESET BINARY LOGS AND GTIDS; CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, \
         SOURCE_USER = 'root', SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1; START REPLICA"
    ));
    replica
}

fn wait_for(replica: &Mysql, primary: &Mysql) {
    let executed = primary.value("SELECT @@GLOBAL.gtid_executed").replace('\n', "");
    eventually("the replica has what the source has", Duration::from_secs(60), || {
        replica.value(&format!("SELECT CAST(GTID_SUBSET('{executed}', @@GLOBAL.gtid_executed) AS CHAR)")) == "1"
    });
}

#[test]
fn tables_are_loaded_from_a_replica_that_lags_and_end_equal() {
    let primary = &Mysql::start(&[]);
    let replica = &replica_of(primary);
    let workload = Workload { mysql: primary, database: "rep", seed: 61 };
    workload.create(4_000);
    primary.run("CREATE TABLE rep.bare (v INT); INSERT INTO rep.bare VALUES (1), (1), (2)");
    wait_for(replica, primary);
    let weir = Weir::new(&primary.url, &["rep.*"], "[[table]]\nname = \"rep.bare\"\nmode = \"append\"\n");
    weir.replace_in_config("[source]\n", &format!("[source]\nsnapshot_url = \"{}\"\n", replica.url));
    let mut writers = workload.live(12_000, &["--rate", "1500"]);
    let service = weir.run_until_it_is_seen();
    // The replica falls behind and catches up while it is read.
    for _ in 0..3 {
        replica.run("STOP REPLICA SQL_THREAD");
        std::thread::sleep(Duration::from_millis(700));
        replica.run("START REPLICA SQL_THREAD");
        std::thread::sleep(Duration::from_millis(300));
    }
    weir.expect(0, &["backfill", "--table", "rep.t_auto", "--wait"]);
    assert!(writers.wait().expect("the workload ends").success());
    assert_eq!(service.terminate().0, Some(0));
    weir.catch_up();
    assert_equal(primary, &weir, "rep");
    // Nobody else asks it for rows.
    let executed = |mysql: &Mysql| -> u64 {
        let of = "performance_schema.events_statements_summary_global_by_event_name WHERE event_name = 'statement/com/Execute'";
        mysql.value(&format!("SELECT CAST(count_star AS CHAR) FROM {of}")).parse().expect("a number")
    };
    assert!(executed(replica) > 0);
    weir.expect(0, &["reconcile", "--deep"]);
}

#[test]
fn a_replica_with_transactions_of_its_own_is_refused() {
    let primary = &Mysql::start(&[]);
    let replica = &replica_of(primary);
    primary.run("CREATE DATABASE err; CREATE TABLE err.t (id INT PRIMARY KEY); INSERT INTO err.t VALUES (1)");
    wait_for(replica, primary);
    replica.run("INSERT INTO err.t VALUES (2)");
    let weir = Weir::new(&primary.url, &["err.*"], "");
    weir.replace_in_config("[source]\n", &format!("[source]\nsnapshot_url = \"{}\"\n", replica.url));
    let failed = weir.expect(1, &["run", "--until-caught-up"]);
    assert!(failed.stderr.contains("transactions of its own"), "{}", failed.stderr);
    let uuid = replica.value("SELECT @@server_uuid");
    assert!(failed.stderr.contains(&format!("{uuid}:1")), "{}", failed.stderr);
    // Without it the table is loaded from the source.
    weir.replace_in_config(&format!("snapshot_url = \"{}\"\n", replica.url), "");
    weir.catch_up();
    assert_equal(primary, &weir, "err");
}
