//! Metrics, health, status and the page of a running service: they agree with the commands, tell nothing that is secret, and
//! no client can do harm.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::clickhouse::Clickhouse;
use crate::support::http::{Metrics, address, ask, get, try_get};
use crate::support::kafka::Kafka;
use crate::support::lake::assert_equal;
use crate::support::mysql::Mysql;
use crate::support::root;
use crate::support::weir::{Weir, eventually};

const LIMIT: Duration = Duration::from_secs(60);

/// The entry of a table in a status.
fn table<'a>(status: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let tables = status["tables"].as_array().expect("a status has tables");
    tables.iter().find(|table| table["table"] == name).unwrap_or_else(|| panic!("no {name} in {status:#}"))
}

#[test]
fn metrics_move_with_changes_and_agree_with_status_and_reconcile() {
    let mysql = Mysql::shared();
    mysql.run(
        "CREATE DATABASE face; CREATE TABLE face.a (id INT PRIMARY KEY, v INT); CREATE TABLE face.b (id INT PRIMARY KEY); \
         INSERT INTO face.a VALUES (1, 1), (2, 2), (3, 3)",
    );
    let weir = Weir::new(&mysql.url, &["face.*"], "");
    let service = weir.run();
    let at = address(&service);
    assert!(!at.ends_with(":0"), "the system chooses the port, and the log says which: {at}");
    eventually("it streams", LIMIT, || get(&at, "/readyz").code == 200);
    let before = Metrics::of(&at);
    assert_eq!(before.value("weir_table_live_rows{table=\"face.a\"}"), 3.0);
    assert_eq!(before.passed("face.a", "chunk_upserted"), 3);
    assert_eq!(before.value("weir_table_phase{phase=\"streaming\",table=\"face.a\"}"), 1.0);

    mysql.run(
        "INSERT INTO face.a VALUES (4, 4), (5, 5); UPDATE face.a SET v = 9 WHERE id = 1; DELETE FROM face.a WHERE id = 2",
    );
    let caught_up = |status: &serde_json::Value, name: &str| table(status, name)["lag_transactions"] == 0;
    let mut status = serde_json::Value::Null;
    eventually("the changes are in", LIMIT, || {
        status = get(&at, "/status").json();
        table(&status, "face.a")["rows"] == 4 && caught_up(&status, "face.a") && caught_up(&status, "face.b")
    });
    assert_eq!(
        (table(&status, "face.a")["lag_ms"].clone(), status["service"]["address"].as_str()),
        (0.into(), Some(&*at))
    );
    assert_eq!(status["service"]["role"], "run");
    let after = Metrics::of(&at);
    assert_eq!(after.passed("face.a", "upserted"), 3);
    assert_eq!(after.passed("face.a", "deleted"), 1);
    assert_eq!(after.value("weir_table_rows_total{hop=\"captured\",op=\"u\",table=\"face.a\"}"), 1.0);
    assert_eq!(after.value("weir_table_lag_seconds{table=\"face.a\"}"), 0.0);
    for moved in ["weir_publishes_total", "weir_source_events_total", "weir_commit_duration_seconds_count"] {
        assert!(after.value(moved) > before.value(moved), "{moved}");
    }
    assert_eq!(status["traffic"]["face.a"]["upserted"], 3);

    // What it shows from memory is what the commands read from the warehouse.
    let keys = ["phase", "version", "rows", "files", "bytes", "load", "last_error"];
    let mut told = serde_json::Value::Null;
    let alike = |told: &serde_json::Value| {
        let of = |status| ["face.a", "face.b"].map(|name| keys.map(|key| table(status, name)[key].clone()));
        of(told) == of(&status)
    };
    eventually("the checkpoint says the same", LIMIT, || {
        told = weir.expect(0, &["status", "--format", "json"]).json();
        alike(&told)
    });
    assert_eq!(told["epoch"], status["epoch"]);
    let report = weir.balanced();
    for part in report["tables"].as_array().unwrap() {
        let name = part["table"].as_str().unwrap();
        for (hop, count) in part["hops"].as_object().unwrap() {
            assert_eq!(after.passed(name, hop), count.as_u64().unwrap(), "{hop} of {name}");
        }
        for (hop, count) in part["chunks"].as_object().unwrap() {
            assert_eq!(after.passed(name, &format!("chunk_{hop}")), count.as_u64().unwrap(), "{hop} of {name}");
        }
    }
    let (code, took) = service.terminate();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(try_get(&at, "/healthz").is_err(), "the port is free again");
    assert_equal(mysql, &weir, "face");
}

#[test]
fn it_is_ready_once_the_first_load_is_in() {
    let mysql = &Mysql::start(&[]);
    mysql.run(
        "CREATE DATABASE unready; CREATE TABLE unready.t (id INT PRIMARY KEY); INSERT INTO unready.t VALUES (1), (2), (3)",
    );
    let weir = Weir::new(&mysql.url, &["unready.*"], "");
    // No chunk is read while so many are at work.
    weir.replace_in_config("tables = ", "pause_above_threads_running = 6\ntables = ");
    std::thread::scope(|scope| {
        let at_work: Vec<_> = (0..8).map(|_| scope.spawn(|| mysql.value("SELECT CAST(SLEEP(10) AS CHAR)"))).collect();
        let service = weir.run();
        let at = address(&service);
        eventually("the load is said to be under way", LIMIT, || {
            let answer = get(&at, "/readyz");
            answer.code == 503 && answer.body.contains("unready.t")
        });
        assert_eq!(get(&at, "/healthz").code, 200);
        assert_eq!(Metrics::of(&at).value("weir_ready"), 0.0);
        let status = get(&at, "/status").json();
        assert_eq!(table(&status, "unready.t")["phase"], "filling", "{status:#}");
        at_work.into_iter().for_each(|sleeper| drop(sleeper.join()));
        eventually("it streams", LIMIT, || get(&at, "/readyz").code == 200);
        assert_eq!(Metrics::of(&at).value("weir_ready"), 1.0);
        assert_eq!(service.terminate().0, Some(0));
    });
}

#[test]
fn a_table_that_stops_is_shown_with_its_way_out_and_names_are_not_markup() {
    let mysql = Mysql::shared();
    mysql.run(
        "CREATE DATABASE halt; CREATE TABLE halt.ok (id INT PRIMARY KEY); CREATE TABLE halt.`<b>\"x` (id INT); \
         INSERT INTO halt.ok VALUES (1)",
    );
    let proving = "[reconcile]\nhops_every = \"1s\"\ndeep_within = \"5s\"\n";
    let weir = Weir::new(&mysql.url, &["halt.*"], proving);
    let service = weir.run();
    let at = address(&service);
    eventually("it streams", LIMIT, || get(&at, "/readyz").code == 200);
    let name = "halt.<b>\"x";
    let mut status = serde_json::Value::Null;
    eventually("the table without a key has stopped", LIMIT, || {
        status = get(&at, "/status").json();
        table(&status, name)["phase"] == "stopped"
    });
    assert!(table(&status, name)["last_error"].as_str().is_some_and(|error| error.contains("key")), "{status:#}");
    assert!(table(&status, name)["way_out"].as_str().is_some_and(|way| way.contains("weir snapshot")), "{status:#}");
    let noted = status["errors"].as_array().unwrap();
    assert!(noted.iter().any(|error| error["table"] == name && error["way_out"].is_string()), "{status:#}");
    let metrics = Metrics::of(&at);
    assert_eq!(metrics.value("weir_table_phase{phase=\"stopped\",table=\"halt.<b>\\\"x\"}"), 1.0);
    assert!(metrics.value("weir_table_last_error_timestamp_seconds{table=\"halt.<b>\\\"x\"}") > 1.7e9);
    assert_eq!(metrics.value("weir_table_phase{phase=\"streaming\",table=\"halt.ok\"}"), 1.0);

    // What the service proves by itself shows, too.
    let verified = "weir_verified_through_seconds{table=\"halt.ok\"}";
    eventually("the rows are proven", LIMIT * 2, || Metrics::of(&at).find(verified).is_some_and(|at| at > 1.7e9));
    let metrics = Metrics::of(&at);
    assert_eq!(metrics.value("weir_table_unbalanced_events{table=\"halt.ok\"}"), 0.0);
    let status = get(&at, "/status").json();
    assert!(table(&status, "halt.ok")["proof"]["verified_through"].is_string(), "{status:#}");
    every_metric_is_documented(&metrics);
    what_is_named_exists(&metrics);

    let page = get(&at, "/");
    assert_eq!((page.code, page.headers["x-content-type-options"].as_str()), (200, "nosniff"));
    assert!(page.headers["content-security-policy"].contains("default-src 'none'"), "{:?}", page.headers);
    for path in ["/page.css", "/page.js"] {
        assert_eq!(get(&at, path).code, 200, "{path}");
        assert!(page.body.contains(path), "{path}");
    }
    assert_eq!(get(&at, "/else").code, 404);
    let post =
        ask(&at, &format!("POST /status HTTP/1.1\r\nHost: {at}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
    assert_eq!(post.unwrap().code, 405);
    let rebound = ask(&at, "GET /status HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(rebound.code, 421);
    assert!(!rebound.body.contains("halt"), "{}", rebound.body);
    assert_eq!(service.terminate().0, Some(0));
}

#[test]
fn passwords_are_shown_nowhere() {
    let mysql = Mysql::start(&[]);
    mysql.run(
        "CREATE USER careful@'%' IDENTIFIED BY 'hush-of-url'; GRANT ALL ON *.* TO careful@'%'; \
         CREATE DATABASE hush; CREATE TABLE hush.t (id INT PRIMARY KEY); INSERT INTO hush.t VALUES (1)",
    );
    let url = mysql.url.replace("root@", "careful:hush-of-url@");
    let trace = "[trace]\nkind = \"clickhouse\"\nurl = \"http://weir:hush-of-trace@127.0.0.1:9/weir\"\n";
    let weir = Weir::new(&url, &["hush.*"], trace);
    let service = weir.run();
    let at = address(&service);
    eventually("it streams", LIMIT, || get(&at, "/readyz").code == 200);
    // The trace is away, and the source is lost now and then.
    let ids = "SELECT CAST(GROUP_CONCAT(id) AS CHAR) FROM information_schema.processlist WHERE user = 'careful'";
    let kills = mysql.value(ids).split(',').map(|id| format!("KILL {id};")).collect::<String>();
    mysql.run(&kills);
    eventually("both are noted", LIMIT, || {
        let status = get(&at, "/status").json();
        let noted =
            |what: &str| status["errors"].as_array().unwrap().iter().any(|e| e["what"].to_string().contains(what));
        noted("trace") && noted("source")
    });
    assert!(Metrics::of(&at).value("weir_trace_failures_total") >= 1.0);
    for path in ["/", "/status", "/metrics", "/healthz", "/readyz", "/page.js"] {
        let answer = get(&at, path);
        assert!(!answer.body.contains("hush-of"), "{path}: {}", answer.body);
    }
    drop(service);
}

#[test]
fn slow_and_many_clients_hold_nothing() {
    let mysql = Mysql::shared();
    mysql.run("CREATE DATABASE crowd; CREATE TABLE crowd.t (id INT PRIMARY KEY); INSERT INTO crowd.t VALUES (1)");
    let weir = Weir::new(&mysql.url, &["crowd.*"], "");
    let service = weir.run();
    let at = address(&service);
    eventually("it streams", LIMIT, || get(&at, "/readyz").code == 200);
    // Heads that never end, and more of them than there is room for.
    let slow: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(&at).expect("a connection");
            let _ = stream.write_all(b"GET /status HTTP/1.1\r\nX: ");
            stream
        })
        .collect();
    mysql.run("INSERT INTO crowd.t VALUES (2)");
    eventually("the stream goes on", LIMIT, || weir.has_rows("crowd.t", 2));
    let since = Instant::now();
    eventually("there is room again", LIMIT, || try_get(&at, "/healthz").is_ok_and(|answer| answer.code == 200));
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    assert!(Metrics::of(&at).value("weir_http_refused_total") >= 100.0);
    // An endless head, and one with garbage.
    let endless = format!("GET / HTTP/1.1\r\nHost: {at}\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let _ = ask(&at, &endless);
    let _ = ask(&at, "\0\u{1}nonsense\r\n\r\n");
    assert_eq!(get(&at, "/healthz").code, 200);
    let (code, took) = service.terminate();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(10), "open connections held the end for {took:?}");
    drop(slow);
}

#[test]
fn a_port_that_is_taken_is_said_and_waited_for_and_one_that_is_not_ours_is_refused() {
    let mysql = Mysql::shared();
    mysql.run("CREATE DATABASE port; CREATE TABLE port.t (id INT PRIMARY KEY); INSERT INTO port.t VALUES (1)");
    let weir = Weir::new(&mysql.url, &["port.*"], "");
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    weir.replace_in_config("127.0.0.1:0", &taken);
    let service = weir.run();
    eventually("the stream goes on without it", LIMIT, || weir.has_rows("port.t", 1));
    assert!(service.log().contains("another process listens there"), "{}", service.log());
    drop(other);
    eventually("it serves once the other is gone", LIMIT, || {
        try_get(&taken, "/healthz").is_ok_and(|answer| answer.code == 200)
    });
    assert_eq!(service.terminate().0, Some(0));
    weir.replace_in_config(&taken, "192.0.2.1:9187");
    let printed = weir.expect(2, &["run", "--until-caught-up"]);
    assert!(printed.stderr.contains("192.0.2.1:9187") && printed.stderr.contains("way out"), "{}", printed.stderr);
    weir.replace_in_config("192.0.2.1:9187", "off");
    assert!(!weir.expect(0, &["run", "--until-caught-up"]).stderr.contains("http://"));
}

#[test]
fn over_kafka_both_halves_serve() {
    let mysql = Mysql::shared();
    mysql.run(
        "CREATE DATABASE kface; CREATE TABLE kface.t (id INT PRIMARY KEY, v INT); INSERT INTO kface.t VALUES (1, 1), (2, 2)",
    );
    let servers = (Kafka::shared(), Clickhouse::shared());
    let weir = Weir::over_kafka("face", &mysql.url, &["kface.*"], servers, "");
    let (capture, apply) = (weir.capture(), weir.apply(1));
    let (at_capture, at_apply) = (address(&capture), address(&apply));
    for at in [&at_capture, &at_apply] {
        eventually("it streams", LIMIT, || get(at, "/readyz").code == 200);
        assert_eq!(get(at, "/healthz").code, 200);
    }
    mysql.run("INSERT INTO kface.t VALUES (3, 3); UPDATE kface.t SET v = 5 WHERE id = 1");
    let mut of_capture = serde_json::Value::Null;
    eventually("capture sees the table catch up", LIMIT, || {
        of_capture = get(&at_capture, "/status").json();
        let entry = table(&of_capture, "kface.t");
        entry["rows"] == 3 && entry["lag_transactions"] == 0
    });
    let mut of_apply = serde_json::Value::Null;
    eventually("apply tells of the same table", LIMIT, || {
        of_apply = get(&at_apply, "/status").json();
        table(&of_apply, "kface.t")["rows"] == 3
    });
    assert_eq!(
        (of_capture["service"]["role"].as_str(), of_apply["service"]["role"].as_str()),
        (Some("capture"), Some("apply"))
    );
    let (captured, applied) = (Metrics::of(&at_capture), Metrics::of(&at_apply));
    assert_eq!((captured.passed("kface.t", "published"), captured.passed("kface.t", "upserted")), (2, 2));
    assert_eq!((applied.passed("kface.t", "consumed"), applied.passed("kface.t", "upserted")), (2, 2));
    assert!(applied.value("weir_table_commits_total{table=\"kface.t\"}") >= 1.0);
    assert_eq!(captured.find("weir_table_commits_total{table=\"kface.t\"}"), None);
    for half in [capture, apply] {
        assert_eq!(half.terminate().0, Some(0));
    }
}

/// The lines of the table in docs/metrics.md are those of a running service: name, kind and help.
fn every_metric_is_documented(metrics: &Metrics) {
    let text = document("docs/metrics.md");
    let lines: BTreeSet<String> = text.lines().filter(|line| line.starts_with("| `weir_")).map(str::to_owned).collect();
    let told = |line: &String| {
        let cells: Vec<&str> = line.split(" | ").map(|cell| cell.trim_matches(['|', ' ', '`'])).collect();
        let help = line.rsplit(" | ").next().unwrap().trim_end_matches(" |").to_owned();
        (cells[0].to_owned(), (cells[1].to_owned(), help))
    };
    let documented: BTreeMap<String, (String, String)> = lines.iter().map(told).collect();
    assert_eq!(
        documented, metrics.families,
        "docs/metrics.md lists what a running service does not show, or the other way round"
    );
    assert!(documented.keys().all(|name| name.starts_with("weir_")));
}

/// Alert rules and the dashboard are PromQL, and name only what a running service shows.
fn what_is_named_exists(metrics: &Metrics) {
    let rules = document("docs/prometheus-rules.yml");
    let alerts = rules.matches("- alert: ").count();
    let mut asked: Vec<String> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).map(str::to_owned).collect();
    assert_eq!((asked.len(), rules.matches("description: ").count()), (alerts, alerts), "each has one");
    let board: serde_json::Value = serde_json::from_str(&document("docs/grafana-service.json")).expect("JSON");
    for target in board["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap()) {
        asked.push(target["expr"].as_str().expect("an expression").replace("$__rate_interval", "5m"));
    }
    assert!(asked.len() > 25, "{asked:?}");
    for query in &asked {
        promql_parser::parser::parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    }
    let variables = board["templating"]["list"].as_array().unwrap().iter();
    asked.extend(variables.filter_map(|variable| variable["definition"].as_str().map(str::to_owned)));
    let of_histogram =
        |name: &str| ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).map(str::to_owned);
    for query in &asked {
        let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in words.filter(|word| word.starts_with("weir_")) {
            let family = of_histogram(name).filter(|family| metrics.families.contains_key(family));
            assert!(family.is_some() || metrics.families.contains_key(name), "{name} of {query} does not exist");
        }
    }
}

fn document(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn status_is_watched_in_lines_where_nobody_sits_before_it() {
    let mysql = Mysql::shared();
    mysql.run("CREATE DATABASE look; CREATE TABLE look.t (id INT PRIMARY KEY); INSERT INTO look.t VALUES (1)");
    let weir = Weir::new(&mysql.url, &["look.*"], "");
    weir.catch_up();
    let mut watching = weir
        .command(&["status", "--watch", "--format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("weir starts");
    let mut lines = BufReader::new(watching.stdout.take().expect("piped")).lines();
    for _ in 0..2 {
        let line = lines.next().expect("a line").expect("text");
        let status: serde_json::Value = serde_json::from_str(&line).expect("an object a line");
        assert_eq!(table(&status, "look.t")["rows"], 1);
    }
    let interrupted = Command::new("kill").args(["-INT", &watching.id().to_string()]).status().expect("kill runs");
    assert!(interrupted.success());
    assert_eq!(watching.wait().expect("it ends").code(), Some(0), "Ctrl-C is how it ends");
}
