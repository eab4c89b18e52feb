//! Schedules and jobs as people ask for them: what is kept, what is listed, what is refused. Nothing is loaded here.

use serde_json::{Value, json};

use crate::support::mysql::Mysql;
use crate::support::weir::Weir;

/// A mirrored table with a key of a date and a number, in a database of its own.
fn days(database: &str, extra: &str) -> Weir {
    let mysql = Mysql::shared();
    mysql.run(&format!(
        "DROP DATABASE IF EXISTS {database}; CREATE DATABASE {database}; \
         CREATE TABLE {database}.days (day DATE, id INT UNSIGNED, PRIMARY KEY (day, id))"
    ));
    Weir::new(&mysql.url, &[&format!("{database}.*")], extra)
}

fn schedules(weir: &Weir) -> Value {
    weir.expect(0, &["schedule", "list", "--format", "json"]).json()
}

fn jobs(weir: &Weir) -> Value {
    weir.expect(0, &["backfill", "list", "--format", "json"]).json()
}

/// A job that waits, as another command has left it.
fn put_job(weir: &Weir, id: &str, table: &str, work: Value) {
    let folder = weir.warehouse().join("_weir/test/jobs");
    std::fs::create_dir_all(&folder).unwrap();
    let job =
        json!({"id": id, "table": table, "work": work, "origin": "command", "requested_ms": 1_795_226_400_000_i64});
    std::fs::write(folder.join(format!("{id}.json")), job.to_string()).unwrap();
}

#[test]
fn schedules_are_added_listed_and_removed() {
    let config = "[[backfill]]\nname = \"nightly\"\ntable = \"schedules_list.days\"\ncron = \"0 3 * * *\"\nfrom = \"2026-01-01\"\n";
    let weir = days("schedules_list", config);
    let add =
        ["schedule", "add", "--table", "schedules_list.days", "--cron", "*/5 * * * *", "--to", "[\"2026-1-2\", 7]"];
    let added = weir.expect(0, &add).stdout.trim().to_owned();
    assert!(added.starts_with("schedules_list-days-"), "{added}");
    let listed = schedules(&weir);
    let expected = json!([
        ["nightly", "0 3 * * *", "from [\"2026-01-01\"]", "configuration"],
        [added, "*/5 * * * *", "to [\"2026-01-02\",7]", "command"],
    ]);
    let shown: Vec<Value> =
        listed.as_array().unwrap().iter().map(|s| json!([s["id"], s["cron"], s["scope"], s["place"]])).collect();
    assert_eq!(Value::Array(shown), expected);
    assert!(listed.as_array().unwrap().iter().all(|s| s["next_at"].is_string() && s["missed"].is_null()), "{listed:#}");
    weir.expect(0, &["schedule", "remove", &added]);
    assert_eq!(schedules(&weir).as_array().unwrap().len(), 1);
    for (id, said) in [(added.as_str(), "no schedule"), ("nightly", "[[backfill]]")] {
        let printed = weir.expect(2, &["schedule", "remove", id]);
        assert!(printed.stderr.contains(said) && printed.stdout.is_empty(), "{}", printed.stderr);
    }
    weir.expect(2, &["schedule", "run", &added]);
    assert_eq!(jobs(&weir), json!([]));
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_asked_for() {
    let weir = days("schedules_refused", "");
    let table = "schedules_refused.days";
    for command in [&["backfill"][..], &["schedule", "add", "--cron", "0 3 * * *"]] {
        for (arguments, said) in [
            (&["--table", "elsewhere.t"][..], "elsewhere.t matches no pattern"),
            (&["--table", "schedules_refused.gone"], "no table schedules_refused.gone"),
            (&["--table", table, "--from", "yesterday"], "where: --from"),
            (&["--table", table, "--from", "2026-02-30"], "key column day: expected a date"),
            (&["--table", table, "--to", "[\"2026-01-01\", -1]"], "key column id: expected a whole number from 0"),
            (&["--table", table, "--to", "[\"2026-01-01\", 1, 2]"], "the key is (day, id)"),
        ] {
            let printed = weir.expect(2, &[command, arguments].concat());
            assert!(printed.stderr.contains(said) && printed.stdout.is_empty(), "{said}: {}", printed.stderr);
            assert!(!printed.stderr.contains("yesterday"), "{}", printed.stderr);
        }
    }
    let printed = weir.expect(2, &["schedule", "add", "--table", table, "--cron", "every day"]);
    assert!(printed.stderr.contains("--cron") && printed.stderr.contains("five fields"), "{}", printed.stderr);
    let printed = weir.expect(2, &["backfill", "--table", table, "--key", "2026-01-01"]);
    assert!(printed.stderr.contains("where: --key"), "{}", printed.stderr);
    let printed = weir.expect(2, &["backfill", "--table", table, "--keys-file", "nowhere.jsonl"]);
    assert!(printed.stderr.contains("nowhere.jsonl"), "{}", printed.stderr);
    assert_eq!((schedules(&weir), jobs(&weir)), (json!([]), json!([])));
}

#[test]
fn check_tells_of_a_configured_range_that_fits_no_key() {
    let section =
        |from: &str| format!("[[backfill]]\ntable = \"schedules_check.days\"\ncron = \"0 3 * * *\"\nfrom = {from}\n");
    let weir = days("schedules_check", &(section("[\"2026-01-01\", 7]") + &section("[\"2026-01-01\", \"seven\"]")));
    let lines = weir.expect(1, &["check", "--format", "json"]).json();
    let backfills: Vec<&Value> = lines.as_array().unwrap().iter().filter(|line| line["name"] == "backfill").collect();
    assert_eq!((backfills.len(), &backfills[0]["status"]), (2, &json!("ok")), "{lines:#}");
    let wrong = backfills[1]["detail"].as_str().unwrap();
    assert!(
        backfills[1]["status"] == "fail" && wrong.contains("from: key column id") && !wrong.contains("seven"),
        "{wrong}"
    );
}

#[test]
fn a_job_under_way_refuses_another_until_it_is_cancelled() {
    let weir = days("schedules_jobs", "");
    let table = "schedules_jobs.days";
    put_job(&weir, "earlier", table, json!({"backfill": {"range": {"from": null, "to": ["2026-01-01"]}}}));
    for arguments in
        [&["backfill", "--table", table][..], &["backfill", "--table", table, "--to", "2026-1-1", "--wait"]]
    {
        let printed = weir.expect(1, arguments);
        assert!(
            printed.stderr.contains("weir backfill cancel earlier") && printed.stdout.is_empty(),
            "{}",
            printed.stderr
        );
    }
    let listed = jobs(&weir);
    assert_eq!(listed[0]["scope"], "to [\"2026-01-01\"]");
    assert_eq!((&listed[0]["state"], &listed[0]["requested_at"]), (&json!("waiting"), &json!("2026-11-21T02:00:00Z")));
    // No service runs that would end it.
    weir.expect(0, &["backfill", "cancel", "earlier"]);
    assert_eq!(jobs(&weir)[0]["state"], "cancelled");
    let printed = weir.expect(1, &["backfill", "cancel", "earlier"]);
    assert!(printed.stderr.contains("has ended already"), "{}", printed.stderr);
    weir.expect(2, &["backfill", "cancel", "unheard-of"]);
    assert!(weir.expect(0, &["backfill", "list"]).stdout.contains("cancelled"));
}

#[test]
fn what_a_newer_version_asked_is_listed_and_can_be_cancelled() {
    let weir = days("schedules_newer", "");
    put_job(&weir, "mending", "schedules_newer.days", json!({"mend": {"deep": true}}));
    let listed = jobs(&weir);
    assert_eq!(listed[0]["state"], "waiting");
    assert!(listed[0]["error"].as_str().unwrap().contains("newer version"), "{listed:#}");
    weir.expect(0, &["backfill", "cancel", "mending"]);
    assert_eq!(jobs(&weir)[0]["state"], "cancelled");
}
