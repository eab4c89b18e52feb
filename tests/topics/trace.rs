//! The trace in ClickHouse: its contract on a real server of 2018, its SQL on an engine of today, and a service that goes
//! on while it is away.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir::reconcile::accounts::adds_up;
use weir::trace::clickhouse::{ClickHouseTrace, Server, sql};
use weir::trace::sqlite::SqliteTrace;
use weir::trace::{Shipment, StageCount, TraceSink, contract};
use weir_model::{TableId, Window};

use crate::support::clickhouse::Clickhouse;
use crate::support::lake::python;
use crate::support::mysql::{Mysql, block_on};
use crate::support::root;
use crate::support::weir::{Weir, eventually};

/// A trace in a database of its own on the shared server; the database is not there yet.
fn server_of(test: &str) -> Server {
    let url = url::Url::parse(&Clickhouse::shared().url_of(&unique(test))).expect("a url");
    Server {
        url: format!(
            "{}://{}:{}",
            url.scheme(),
            url.host_str().expect("a host"),
            url.port_or_known_default().expect("a port")
        ),
        user: url.username().to_owned(),
        password: url.password().unwrap_or_default().to_owned(),
        database: url.path().trim_matches('/').to_owned(),
    }
}

/// A user's own server is asked again and again.
fn unique(test: &str) -> String {
    format!("{test}_{}_{}", std::process::id(), uuid::Uuid::new_v4().simple())
}

fn client(server: &Server) -> clickhouse::Client {
    let client = clickhouse::Client::default().with_url(&server.url).with_validation(false);
    let client = client.with_database(&server.database);
    if server.user.is_empty() { client } else { client.with_user(&server.user).with_password(&server.password) }
}

/// What a query gives, tab-separated.
async fn answer(server: &Server, query: &str) -> String {
    let mut cursor = client(server).query_raw(query).fetch_bytes("TabSeparated").expect("a query");
    let bytes = cursor.collect().await.unwrap_or_else(|error| panic!("{error}: {query}"));
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn upholds_the_contract() {
    block_on(async { contract::upheld_by(&ClickHouseTrace::new(server_of("contract"))).await });
}

#[test]
fn what_two_processes_ship_counts_once_whether_merged_or_not() {
    let server = server_of("processes");
    block_on(async move {
        let (a, b) = (ClickHouseTrace::new(server.clone()), ClickHouseTrace::new(server));
        for version in 0..30 {
            for trace in [&a, &b] {
                trace.ship("shop", &[contract::commit(version, version, contract::accounts(0, 2))]).await.unwrap();
            }
        }
        let totals = contract::sink_totals(&a, "shop", &contract::table(), None).await;
        assert!(totals.iter().all(|total| total.count == 60), "{totals:?}");
    });
}

#[test]
fn a_table_that_another_process_forgot_is_not_shipped_on_with_a_gap() {
    let server = server_of("forgotten");
    block_on(async move {
        let (a, b) = (ClickHouseTrace::new(server.clone()), ClickHouseTrace::new(server));
        let commit = |version| [contract::commit(version, 0, contract::accounts(0, 1))];
        a.ship("shop", &commit(4)).await.unwrap();
        b.forget("shop", &contract::table()).await.unwrap();
        assert!(a.ship("shop", &commit(5)).await.unwrap_err().to_string().contains("anew"));
        let origin = commit(0)[0].origin.clone();
        assert_eq!(a.shipped_version("shop", &origin).await.unwrap(), None);
        a.ship("shop", &commit(0)).await.unwrap();
        assert_eq!(b.shipped_version("shop", &origin).await.unwrap(), Some(0));
    });
}

#[test]
fn counts_above_the_mark_are_as_if_they_were_not_there() {
    let server = server_of("torn");
    block_on(async move {
        let trace = ClickHouseTrace::new(server.clone());
        trace.ship("shop", &[contract::commit(0, 0, contract::accounts(0, 3))]).await.unwrap();
        // As when a process ends between the counts and their mark.
        let torn = "INSERT INTO weir_trace SELECT source, table_name, origin, generation, 1, window_ms, op, hop, at_ms, \
                    count, digest_0, digest_1, digest_2, digest_3 FROM weir_trace";
        client(&server).query(torn).execute().await.unwrap();
        let totals = contract::sink_totals(&trace, "shop", &contract::table(), None).await;
        assert_eq!(totals, contract::accounts(0, 3));
    });
}

#[test]
fn a_dropped_database_is_made_again_and_a_later_format_is_refused() {
    let server = server_of("dropped");
    block_on(async move {
        let trace = ClickHouseTrace::new(server.clone());
        let commit = [contract::commit(0, 0, contract::accounts(0, 1))];
        trace.ship("shop", &commit).await.unwrap();
        let drop = format!("DROP DATABASE {}", server.database);
        client(&Server { database: "default".into(), ..server.clone() }).query(&drop).execute().await.unwrap();
        assert!(trace.ship("shop", &commit).await.is_err());
        assert_eq!(trace.shipped_version("shop", &commit[0].origin).await.unwrap(), None);
        client(&server).query("INSERT INTO weir_trace_format VALUES (9)").execute().await.unwrap();
        let error = ClickHouseTrace::new(server).ship("shop", &commit).await.unwrap_err().to_string();
        assert!(error.contains("its format is 9"), "{error}");
    });
}

#[test]
fn minutes_are_dropped_once_every_source_is_past_them_and_all_of_them_add_up() {
    let server = server_of("dropping");
    block_on(async move {
        let trace = ClickHouseTrace::new(server.clone());
        let (old, young) = (30 * sql::PARTITION_MS, 40 * sql::PARTITION_MS);
        let minutes = format!("SELECT count() FROM weir_trace WHERE window_ms < {young}");
        let lost = vec![contract::accounts(old + 60_000, 1)[0]];
        for source in ["a", "b", "c"] {
            let last = if source == "c" { lost.clone() } else { Vec::new() };
            let counted = [contract::accounts(old, 2), contract::accounts(young, 3), last];
            let commits = counted.into_iter().zip(0..).map(|(counts, version)| contract::commit(version, 0, counts));
            trace.ship(source, &commits.collect::<Vec<_>>()).await.unwrap();
            trace.fold(source, Window(young + 86_400_000), adds_up).await.unwrap();
        }
        let end = Window(old + sql::PARTITION_MS);
        trace.expire("a", end).await.unwrap();
        assert_eq!(counts(&trace, "a").await, [3; 4]);
        assert_eq!(counts(&trace, "b").await, [2, 2, 2, 2, 3, 3, 3, 3]);
        trace.expire("b", end).await.unwrap();
        trace.expire("c", end).await.unwrap();
        // What was lost in one of them keeps all of it.
        assert_eq!(answer(&server, &minutes).await, "13\n");
        assert_eq!(counts(&trace, "c").await, [1, 3, 3, 3, 3]);
        let rest = lost_and_found(&lost[0], old + 60_000);
        trace.ship("c", &[contract::commit(3, 0, rest)]).await.unwrap();
        trace.fold("c", Window(young + 86_400_000), adds_up).await.unwrap();
        for _ in 0..2 {
            trace.expire("c", end).await.unwrap();
            assert_eq!(answer(&server, &minutes).await, "0\n");
            for source in ["a", "b", "c"] {
                assert_eq!(counts(&trace, source).await, [3; 4], "{source}");
            }
        }
    });
}

async fn counts(trace: &ClickHouseTrace, source: &str) -> Vec<u64> {
    let totals = contract::sink_totals(trace, source, &contract::table(), None).await;
    totals.iter().map(|total| total.count).collect()
}

/// What makes up for `lost`.
fn lost_and_found(lost: &StageCount, window_ms: i64) -> Vec<StageCount> {
    contract::accounts(window_ms, 1).into_iter().filter(|count| count.hop != lost.hop).collect()
}

/// `?` by values in turn.
fn with_values(statement: &str, values: &[&str]) -> String {
    values.iter().fold(statement.to_owned(), |statement, value| statement.replacen('?', value, 1))
}

/// The queries of docs/trace.md.
fn documented() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("docs/trace.md")).expect("docs/trace.md is there");
    let blocks = text.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default().to_owned());
    blocks.collect()
}

/// The queries of docs/grafana.json, for a moment at which all is shown.
fn of_the_dashboard() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("docs/grafana.json")).expect("docs/grafana.json is there");
    let board: Value = serde_json::from_str(&text).expect("JSON");
    let panels = board["panels"].as_array().expect("panels");
    let queries = panels.iter().map(|panel| panel["targets"][0]["rawSql"].as_str().expect("a query"));
    let variables = board["templating"]["list"].as_array().expect("variables");
    let lists =
        variables.iter().filter(|variable| variable["type"] == "query").map(|v| v["query"].as_str().expect("one"));
    let filled = |query: &str| {
        let values = [
            ("${source}", "shop"),
            ("${table:singlequote}", "'shop.orders'"),
            ("${__from}", "0"),
            ("${__to}", "600000"),
        ];
        values.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value))
    };
    queries.chain(lists).map(filled).inspect(|query| assert!(!query.contains('$'), "{query}")).collect()
}

fn on_chdb(statements: &[String]) -> Vec<Value> {
    let mut python = python("tests/support/trace_sql_on_chdb.py")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let input = serde_json::to_vec(statements).expect("plain text");
    python.stdin.take().expect("piped").write_all(&input).expect("Python reads");
    let output = python.wait_with_output().expect("Python ends");
    assert!(output.status.success(), "a statement failed on the engine of today");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn the_sql_holds_on_an_engine_of_today() {
    let mut statements = vec![sql::VERSION.to_owned(), with_values(sql::DATABASE_IS_THERE, &["'weir'"])];
    statements.extend([with_values(sql::CREATE_DATABASE, &["`weir`"]), "USE weir".into()]);
    statements.extend(sql::TABLES.map(|(_, create)| format!("{create}{}", sql::ON_DISK_FIRST)));
    statements.push(with_values(sql::TABLE_IS_THERE, &["'weir'", "'weir_trace'"]));
    statements.push(sql::FORMAT_FOUND.into());
    let count = |origin: &str, generation: u64, version: i64, window_ms: i64, n: u64| {
        format!(
            "INSERT INTO weir_trace VALUES ('shop', 'shop.orders', '{origin}', {generation}, {version}, {window_ms}, \
             'u', 'captured', 0, {n}, 4294967295, 4294967295, 4294967295, 4294967295)"
        )
    };
    for _ in 0..2 {
        statements.push(count("shop.orders", 1, 0, 60_000, 3));
        statements.push(count("shop.orders", 1, 1, 60_000, 4));
        statements.push(count("capture", 0, 7, 60_000, 5));
    }
    // Before `since`, above the mark, forgotten.
    statements.extend([count("shop.orders", 1, 1, 0, 9), count("shop.orders", 1, 2, 60_000, 9)]);
    statements.push(count("shop.orders", 0, 0, 60_000, 9));
    for (origin, generation, next_version) in [("shop.orders", 0, 9), ("shop.orders", 1, 2), ("capture", 0, 8)] {
        statements
            .push(format!("INSERT INTO weir_trace_marks VALUES ('shop', '{origin}', {generation}, {next_version})"));
    }
    let asked = statements.len();
    statements
        .push(with_values(&sql::marks(2), &["'shop'", "'shop.orders'", "'capture'"]) + " ORDER BY origin, generation");
    let from = sql::minutes(&format!("window_ms >= ?{}", sql::only(true)), true);
    statements
        .push(with_values(&from, &["'shop'", "60000", "'shop.orders'", "'shop'"]) + " ORDER BY origin, generation");
    let day = sql::DAYS_BEFORE_1970.to_string();
    let of_days = sql::minutes(&sql::of_days(2), false);
    statements.push(
        with_values(&of_days, &["'shop'", "0", "60000", "'shop.orders'", &day, "'shop.other'", "7"])
            + " ORDER BY origin",
    );
    statements.push(with_values(sql::DAYS_WITH_COUNTS, &["'shop'", "0", "86400000"]));
    statements.push("INSERT INTO weir_trace_bounds VALUES ('shop', 'folded', 5), ('shop', 'folded', 7)".into());
    statements.push(with_values(sql::BOUNDS, &["'shop'"]));
    statements.push("INSERT INTO weir_trace_late VALUES ('shop', 'shop.orders', 0, 'capture', 0, 3)".into());
    statements.push(with_values(&sql::LATE.replace("{only}", sql::only(true)), &["'shop'", "0", "'shop.orders'"]));
    statements.push(
        "INSERT INTO weir_trace_days VALUES ('shop', 'shop.orders', 0, 1, 60000, [0], 1, 2, 0, 8, [0], ['capture'], ['u'], ['captured'], \
         [3], [1], [2], [3], [4])"
            .into(),
    );
    statements.push(with_values(&sql::DAYS.replace("{only}", sql::only(true)), &["'shop'", "0", "'shop.orders'"]));
    statements.extend([sql::PARTITIONS, sql::PARTITIONS_WITH_KEPT, sql::EXPIRED].map(str::to_owned));
    statements.push(with_values(sql::MARKS_OF_SOURCE, &["'shop'"]));
    statements.push(
        "INSERT INTO weir_trace_repairs VALUES ('shop', 'a', 'shop.t', 5, 'command', 'here', 1, 0, 0, '{}', 1, '', 0, '', -1, '', '[]'), \
         ('shop', 'a', 'shop.t', 5, 'command', 'here', 1, 0, 0, '{}', 1, '', 9, 'job', 0, '', '[]')"
            .into(),
    );
    statements.push(with_values(sql::REPAIRS_NOTED, &["'shop'"]));
    statements.push(with_values(sql::REPAIRS, &["'shop'", "5"]));
    let docs = statements.len();
    statements.extend(documented());
    let dashboard = statements.len();
    statements.extend(of_the_dashboard());
    let answers = on_chdb(&statements);
    assert_eq!(answers.len(), statements.len());
    assert_eq!(answers[asked], json!([["capture", 0, 8], ["shop.orders", 0, 9], ["shop.orders", 1, 2]]));
    let summed = |origin: &str, generation: u64, window_ms: i64, n: u64, copies: u64| {
        let limb = copies * 4_294_967_295;
        json!(["shop.orders", origin, generation, window_ms, "u", "captured", n, limb, limb, limb, limb])
    };
    let minutes = [
        summed("capture", 0, 60_000, 5, 1),
        // A generation that is over is told, and left out by whoever asked.
        summed("shop.orders", 0, 60_000, 9, 1),
        summed("shop.orders", 1, 60_000, 7, 2),
    ];
    assert_eq!(answers[asked + 1], Value::from(minutes.to_vec()));
    assert_eq!(answers[asked + 2], json!([summed("shop.orders", 1, 0, 9, 1)]));
    assert_eq!(answers[asked + 3], json!([["shop.orders", sql::DAYS_BEFORE_1970]]));
    assert_eq!(answers[asked + 5], json!([["folded", 7]]));
    assert_eq!(answers[asked + 7], json!([["shop.orders", 0, "capture", 0, 3]]));
    let day = json!([
        "shop",
        "shop.orders",
        0,
        1,
        60_000,
        [0],
        1,
        2,
        0,
        8,
        [0],
        ["capture"],
        ["u"],
        ["captured"],
        [3],
        [1],
        [2],
        [3],
        [4]
    ]);
    assert_eq!(answers[asked + 9], json!([day]));
    assert_eq!(answers[asked + 10], json!([[0, "shop"]]));
    assert_eq!(answers[docs - 2], json!([["a", 9]]));
    let repair = json!(["shop", "a", "shop.t", 5, "command", "here", 1, 0, 0, "{}", 1, "", 9, "job", 0, "", "[]"]);
    assert_eq!(answers[docs - 1], json!([repair]));
    // Rows above the mark and before `since` count in the documented queries.
    assert_eq!(answers[docs], json!([["shop", "shop.orders", "captured", 30]]));
    assert_eq!(answers[dashboard + 4], json!([["shop.orders", 30, 0, 0, 0, 0, 0, 0, 0]]));
}

#[test]
fn the_documented_queries_run_on_an_old_server_too() {
    let server = server_of("documented");
    block_on(async move {
        let trace = ClickHouseTrace::new(server.clone());
        for _ in 0..2 {
            trace.ship("shop", &[contract::commit(0, 0, contract::accounts(60_000, 3))]).await.unwrap();
        }
        let mut queries = documented();
        assert!(queries.len() >= 5);
        let documented = queries.len();
        queries.extend(of_the_dashboard());
        let mut answers = Vec::new();
        for query in &queries {
            answers.push(answer(&server, query).await);
        }
        assert!(answers[0].contains("shop\tshop.orders\tcaptured\t3\n"), "{}", answers[0]);
        assert!(answers[2].is_empty(), "{}", answers[2]);
        let [.., not_adding_up, sources, tables] = &answers[documented..] else { panic!("panels and variables") };
        assert_eq!((not_adding_up.as_str(), sources.as_str(), tables.as_str()), ("", "shop\n", "shop.orders\n"));
    });
}

fn section(url: &str) -> String {
    format!("[trace]\nkind = \"clickhouse\"\nurl = \"{url}\"")
}

#[test]
fn the_service_goes_on_while_the_trace_is_away_and_catches_up() {
    let (mysql, clickhouse) = (Mysql::start(&[]), Clickhouse::start());
    mysql
        .run("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY, v INT); INSERT INTO shop.t VALUES (1, 1)");
    let weir = Weir::new(&mysql.url, &["shop.*"], &section(&clickhouse.url));
    weir.catch_up();
    let checked = weir.expect(0, &["check"]);
    assert!(checked.stdout.contains("ClickHouse 18.") || checked.stdout.contains("ClickHouse 2"), "{}", checked.stdout);

    clickhouse.kill();
    let down = weir.expect(1, &["reconcile"]);
    assert!(down.stderr.contains("trace") && down.stderr.contains("way out"), "{}", down.stderr);
    assert!(weir.expect(1, &["check"]).stdout.contains("WEIR_TRACE_PASSWORD"));
    let running = weir.run();
    for id in 2..30 {
        mysql.run(&format!("INSERT INTO shop.t VALUES ({id}, {id})"));
    }
    eventually("all rows are in the table although the trace is away", Duration::from_secs(60), || {
        weir.output(&["read", "--table", "shop.t", "--format", "csv"]).stdout.iter().filter(|b| **b == b'\n').count()
            >= 30
    });
    clickhouse.restart();
    mysql.run("UPDATE shop.t SET v = 0 WHERE id < 10");
    eventually("the trace has everything", Duration::from_secs(60), || {
        let report = weir.output(&["reconcile", "--format", "json"]);
        let report: Value = serde_json::from_slice(&report.stdout).unwrap_or_default();
        report["verdict"] == "balanced" && report["tables"][0]["hops"]["captured"] == 37
    });
    let (code, _) = running.terminate();
    assert_eq!(code, Some(0));
}

#[test]
fn an_end_with_the_trace_away_is_in_order_and_caught_up_is_not_reached_without_it() {
    let (mysql, clickhouse) = (Mysql::start(&[]), Clickhouse::start());
    mysql
        .run("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY, v INT); INSERT INTO shop.t VALUES (1, 1)");
    let weir = Weir::new(&mysql.url, &["shop.*"], &section(&clickhouse.url));
    clickhouse.kill();
    let begun = Instant::now();
    let behind = weir.expect(1, &["run", "--until-caught-up"]);
    assert!(behind.stderr.contains("shop.t") && behind.stderr.contains("trace"), "{}", behind.stderr);
    assert!(begun.elapsed() < Duration::from_secs(60));
    let running = weir.run();
    eventually("it runs", Duration::from_secs(30), || running.log().contains("the trace is behind"));
    let (code, took) = running.terminate();
    assert!(code == Some(0) && took < Duration::from_secs(30), "{code:?} after {took:?}");
    clickhouse.restart();
    weir.catch_up();
    assert_eq!(weir.expect(0, &["reconcile", "--format", "json"]).json()["verdict"], "balanced");
}

/// What the trace costs a million changes, in 2,000 commits. `cargo test -p weir --test main -- --ignored cost_of_the_trace
/// --nocapture`
#[test]
#[ignore = "a measurement"]
fn cost_of_the_trace() {
    const COMMITS: i64 = 2_000;
    const CHANGES_PER_COMMIT: u64 = 500;
    let server = server_of("cost");
    block_on(async move {
        let trace = ClickHouseTrace::new(server.clone());
        let commits: Vec<_> = (0..COMMITS)
            .map(|n| {
                contract::commit(n, n * 1_000, contract::accounts(n * 1_000 / 60_000 * 60_000, CHANGES_PER_COMMIT))
            })
            .collect();
        let cpu_before = cpu_seconds();
        let begun = Instant::now();
        for batch in commits.chunks(500) {
            trace.ship("shop", batch).await.unwrap();
        }
        let seconds = begun.elapsed().as_secs_f64();
        let bytes = "SELECT sum(bytes), sum(rows) FROM system.parts WHERE active AND database = ";
        let size = answer(&server, &format!("{bytes}'{}'", server.database)).await;
        println!("{seconds:.3} s, {:.3} CPU-s of ours, bytes and rows on disk {size}", cpu_seconds() - cpu_before);
    });
}

/// Of this process, user and system.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / 100.0
}

/// What a report of a month costs: 1,000 tables, 30 days, 8 minutes a day that all add up. `cargo test -p weir --test main --
/// --ignored a_month_of_a_thousand_tables --nocapture`
async fn fill_a_month(sink: &impl TraceSink) -> Vec<TableId> {
    const DAY_MS: i64 = 86_400_000;
    let (begin, minutes_ms) = (20_000 * DAY_MS, DAY_MS / 8);
    let tables: Vec<TableId> = (0..1_000).map(|n| TableId::new("shop", &format!("t{n}"))).collect();
    let (filling, mut folding) = (Instant::now(), Duration::ZERO);
    for day in 0..30 {
        for tables in tables.chunks(50) {
            let of = |table: &TableId| {
                let counts =
                    (0..8).flat_map(|n| contract::accounts(begin + day * DAY_MS + n * minutes_ms, 1)).collect();
                Shipment::of_commit(table.clone(), day, 0, counts)
            };
            sink.ship("shop", &tables.iter().map(of).collect::<Vec<_>>()).await.unwrap();
        }
        let fold = Instant::now();
        sink.fold("shop", Window(begin + (day + 1) * DAY_MS), adds_up).await.unwrap();
        folding += fold.elapsed();
    }
    println!("filled in {:?}, of which {folding:?} to fold", filling.elapsed());
    tables
}

async fn ask_of_a_month(sink: &impl TraceSink, tables: &[TableId]) {
    for _ in 0..3 {
        let asked = Instant::now();
        let totals = sink.totals("shop", tables, None).await.unwrap();
        println!("totals of all tables in {:?}", asked.elapsed());
        assert_eq!(totals.len(), 1_000);
        assert!(totals.values().all(|counts| counts[0].count == 8 && counts.len() == 120));
    }
}

#[test]
#[ignore = "a measurement"]
fn a_month_of_a_thousand_tables_in_sqlite() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("trace.sqlite");
    block_on(async move {
        let trace = SqliteTrace::open(&file).unwrap();
        let tables = fill_a_month(&trace).await;
        println!("{} bytes", std::fs::metadata(&file).map_or(0, |file| file.len()));
        ask_of_a_month(&trace, &tables).await;
        drop(folder);
    });
}

#[test]
#[ignore = "a measurement"]
fn a_month_of_a_thousand_tables_in_clickhouse() {
    let server = server_of("month");
    block_on(async move {
        let trace = ClickHouseTrace::new(server.clone());
        let tables = fill_a_month(&trace).await;
        let sizes = "SELECT table, sum(bytes), sum(rows) FROM system.parts WHERE active AND database = ";
        println!("{}", answer(&server, &format!("{sizes}'{}' GROUP BY table", server.database)).await);
        ask_of_a_month(&trace, &tables).await;
    });
}
