//! The live binlog against a real server: it must say the same as the server's files, and the server's refusals must come
//! out as what the caller can act on.
//!
//! Every function takes the url of a server that nobody else writes to, as a user that may do anything.

use std::path::Path;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, SslOpts};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use weir::binlog::{
    EventBody, FileSource, LiveSource, RowsKind, Source, SourceError, SourceEvent, list_binlog_dir, random_server_id,
};
use weir_model::{GtidSet, LogPosition};

const BASIC: &str = include_str!("../../fixtures/binlog/basic.sql");
const DDL: &str = include_str!("../../fixtures/binlog/ddl.sql");

/// The stream and the files in `data_dir` (the server's own) hold the same events at the same positions, through
/// rotations, compressed transactions, tagged GTIDs and changes of the checksum algorithm.
pub(crate) async fn live_and_files_agree(url: &str, data_dir: &Path) {
    let mut admin = connect(url).await;
    let mut live = LiveSource::connect(opts(url), &GtidSet::default(), random_server_id()).await.unwrap();
    write_everything(&mut admin).await;
    let executed = executed(&mut admin).await;
    let streamed = read_until(&mut live, &executed).await;
    let mut files = FileSource::open(list_binlog_dir(data_dir).unwrap()).unwrap();
    let mut recorded = Vec::new();
    while let Some(event) = files.next().await.unwrap() {
        recorded.push(event);
    }
    let (streamed, recorded) = (described(&streamed), described(&recorded));
    assert!(recorded.len() > 300, "{} events", recorded.len());
    for (streamed, recorded) in streamed.iter().zip(&recorded) {
        assert_eq!(streamed, recorded);
    }
    assert_eq!(streamed.len(), recorded.len());
}

/// A reader that has some transactions gets the others, each once, also if the set has tags or holes.
pub(crate) async fn a_resumed_stream_sends_what_is_missing(url: &str) {
    let mut admin = connect(url).await;
    write_everything(&mut admin).await;
    let executed = executed(&mut admin).await;
    let mut source = LiveSource::connect(opts(url), &GtidSet::default(), random_server_id()).await.unwrap();
    let all = gtids(&read_until(&mut source, &executed).await);
    let mut held = executed.clone();
    let missing: Vec<_> = all.iter().enumerate().filter(|(n, _)| n % 7 == 3 || n + 2 > all.len()).collect();
    for (_, gtid) in &missing {
        held.remove(&gtid.parse().unwrap());
    }
    let mut source = LiveSource::connect(opts(url), &held, random_server_id()).await.unwrap();
    let resumed = gtids(&read_until(&mut source, &executed.difference(&held)).await);
    assert_eq!(resumed, missing.iter().map(|(_, gtid)| (*gtid).clone()).collect::<Vec<_>>());
}

/// A stream that has nothing to send says soon, and again and again, that it has passed the end of the binlog.
pub(crate) async fn an_idle_stream_passes_the_end_of_the_binlog(url: &str) {
    let mut admin = connect(url).await;
    write_everything(&mut admin).await;
    admin.query_drop("FLUSH BINARY LOGS").await.unwrap();
    let executed = executed(&mut admin).await;
    let end = binlog_end(&mut admin).await;
    let mut source = LiveSource::connect(opts(url), &executed, random_server_id()).await.unwrap();
    let started = Instant::now();
    let mut passed = 0;
    while passed < 3 {
        let event = next(&mut source).await.unwrap();
        assert!(matches!(event.body, EventBody::Position), "{event:?}");
        passed += usize::from(event.end.has_passed(&end).unwrap());
        assert!(!event.end.has_passed(&LogPosition { offset: end.offset + 1, ..end.clone() }).unwrap());
    }
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

/// Events larger than a packet arrive whole.
pub(crate) async fn an_event_larger_than_a_packet_arrives_whole(url: &str) {
    let mut admin = connect(url).await;
    fresh_database(&mut admin).await;
    admin.query_drop("CREATE TABLE large (id INT PRIMARY KEY, body LONGBLOB)").await.unwrap();
    let before = executed(&mut admin).await;
    for len in [(1 << 24) - 60, 1 << 24, 40_000_000] {
        admin.query_drop(format!("REPLACE INTO large VALUES ({len}, REPEAT('x', {len}))")).await.unwrap();
    }
    let wanted = executed(&mut admin).await.difference(&before);
    let mut source = LiveSource::connect(opts(url), &before, random_server_id()).await.unwrap();
    let events = read_until(&mut source, &wanted).await;
    let lens: Vec<usize> = events
        .iter()
        .filter_map(|e| if let EventBody::Rows(r) = &e.body { Some(r.rows.len()) } else { None })
        .collect();
    assert_eq!(lens, [(1 << 24) - 60, 1 << 24, 40_000_000].map(|len| len + 1 + 4 + 4));
}

/// The caller learns whether to connect again, to stop, or that binlogs are gone.
pub(crate) async fn refusals_say_what_to_do(url: &str) {
    let mut admin = connect(url).await;
    write_everything(&mut admin).await;
    let executed = executed(&mut admin).await;

    // Killed: connect again.
    let mut source = LiveSource::connect(opts(url), &executed, 77).await.unwrap();
    let dump: u64 = admin
        .query_first("SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%' ORDER BY id DESC")
        .await
        .unwrap()
        .unwrap();
    admin.query_drop(format!("KILL {dump}")).await.unwrap();
    let error = until_error(&mut source).await;
    assert!(matches!(error, SourceError::Retryable { .. }), "{error}");

    // Another reader with our id: the first one is ended and says why.
    let mut first = LiveSource::connect(opts(url), &executed, 78).await.unwrap();
    let _second = LiveSource::connect(opts(url), &executed, 78).await.unwrap();
    let error = until_error(&mut first).await;
    assert!(matches!(&error, SourceError::AuthOrConfig { why } if why.contains("server_id")), "{error}");

    // The binlogs are gone.
    admin.query_drop("FLUSH BINARY LOGS").await.unwrap();
    let end = binlog_end(&mut admin).await;
    admin.query_drop(format!("PURGE BINARY LOGS TO '{}'", end.file)).await.unwrap();
    let error = refused(LiveSource::connect(opts(url), &GtidSet::default(), 79).await);
    assert!(matches!(&error, SourceError::Purged { message } if message.contains("missing transactions")), "{error}");

    // More transactions than the server has.
    let server: String = admin.query_first("SELECT @@server_uuid").await.unwrap().unwrap();
    let mut ahead = executed.clone();
    ahead.insert(&format!("{server}:9999999").parse().unwrap());
    let error = refused(LiveSource::connect(opts(url), &ahead, 80).await);
    assert!(matches!(&error, SourceError::AuthOrConfig { why } if why.contains("lacks")), "{error}");

    // Nobody there.
    let nobody = OptsBuilder::from_opts(opts(url)).tcp_port(1).into();
    let error = refused(LiveSource::connect(nobody, &executed, 81).await);
    assert!(matches!(error, SourceError::Retryable { .. }), "{error}");
}

/// Passwords, with the server's cache cold and warm, in the clear and in TLS; and accounts that may not read the binlog.
pub(crate) async fn every_kind_of_login_works(url: &str) {
    let mut admin = connect(url).await;
    let executed = executed(&mut admin).await;
    let server = |user: &str, password: &str| {
        OptsBuilder::from_opts(opts(url)).user(Some(user)).pass(Some(password)).prefer_socket(false)
    };
    let tls = || SslOpts::default().with_danger_accept_invalid_certs(true);
    for (user, requires) in [("plain", ""), ("secure", "REQUIRE SSL")] {
        admin.query_drop(format!("DROP USER IF EXISTS {user}")).await.unwrap();
        admin.query_drop(format!("CREATE USER {user} IDENTIFIED BY 'pass word é' {requires}")).await.unwrap();
        admin.query_drop(format!("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {user}")).await.unwrap();
        for attempt in ["cold cache", "warm cache"] {
            let opts = server(user, "pass word é");
            let opts = if requires.is_empty() { opts } else { opts.ssl_opts(tls()) };
            let source = LiveSource::connect(opts.into(), &executed, random_server_id()).await;
            assert!(source.is_ok(), "{user}, {attempt}: {:?}", source.err());
        }
        admin.query_drop("FLUSH PRIVILEGES").await.unwrap();
        let opts = server(user, "pass word é").ssl_opts(tls());
        let source = LiveSource::connect(opts.into(), &executed, random_server_id()).await;
        assert!(source.is_ok(), "{user} in TLS, cold cache: {:?}", source.err());
    }
    let unverified = server("secure", "pass word é").ssl_opts(SslOpts::default());
    for (opts, words) in
        [(server("plain", "wrong"), "1045"), (server("secure", "pass word é"), "error"), (unverified, "certificate")]
    {
        let error = refused(LiveSource::connect(opts.into(), &executed, 82).await);
        assert!(matches!(&error, SourceError::AuthOrConfig { why } if why.contains(words)), "{error}");
    }
    admin.query_drop("DROP USER IF EXISTS powerless").await.unwrap();
    admin.query_drop("CREATE USER powerless IDENTIFIED BY 'x'").await.unwrap();
    let error = refused(LiveSource::connect(server("powerless", "x").into(), &executed, 83).await);
    assert!(matches!(&error, SourceError::AuthOrConfig { why } if why.contains("REPLICATION SLAVE")), "{error}");
}

/// A connection over which nothing comes any more, not even heartbeats, is given up.
pub(crate) async fn a_silent_server_is_given_up(url: &str) {
    let mut admin = connect(url).await;
    let executed = executed(&mut admin).await;
    let (host, port) = (opts(url).ip_or_hostname().to_owned(), opts(url).tcp_port());
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy_port = proxy.local_addr().unwrap().port();
    let stalls_after = Duration::from_secs(2);
    tokio::spawn(async move {
        let (mut client, _) = proxy.accept().await.unwrap();
        let mut server = TcpStream::connect((host, port)).await.unwrap();
        let _ = timeout(stalls_after, tokio::io::copy_bidirectional(&mut client, &mut server)).await;
        std::future::pending::<()>().await;
    });
    let through = OptsBuilder::from_opts(opts(url)).ip_or_hostname("127.0.0.1").tcp_port(proxy_port).into();
    let mut source = LiveSource::connect(through, &executed, random_server_id()).await.unwrap();
    let started = Instant::now();
    let error = until_error(&mut source).await;
    assert!(matches!(&error, SourceError::Retryable { why } if why.contains("heartbeat")), "{error}");
    assert!(started.elapsed() >= stalls_after, "heartbeats kept it alive until then");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

fn opts(url: &str) -> Opts {
    Opts::from_url(url).unwrap()
}

async fn connect(url: &str) -> Conn {
    Conn::new(opts(url)).await.unwrap()
}

async fn fresh_database(admin: &mut Conn) {
    for sql in ["DROP DATABASE IF EXISTS other", "DROP DATABASE IF EXISTS shop", "CREATE DATABASE shop", "USE shop"] {
        admin.query_drop(sql).await.unwrap();
    }
    admin.query_drop("SET time_zone = '+00:00'").await.unwrap();
}

/// The fixtures' statements, plain and compressed, over several files and both checksum settings.
async fn write_everything(admin: &mut Conn) {
    for (sql, setting) in [
        (BASIC, "SET SESSION binlog_transaction_compression = OFF"),
        (BASIC, "SET SESSION binlog_transaction_compression = ON"),
        (DDL, "SET GLOBAL binlog_checksum = NONE"),
        (BASIC, "SET GLOBAL binlog_checksum = CRC32"),
    ] {
        fresh_database(admin).await;
        admin.query_drop(setting).await.unwrap();
        run_script(admin, sql).await;
        admin.query_drop("FLUSH BINARY LOGS").await.unwrap();
    }
    admin.query_drop("SET SESSION binlog_transaction_compression = OFF").await.unwrap();
}

/// Statements end in a semicolon at the end of a line.
async fn run_script(admin: &mut Conn, sql: &str) {
    for statement in sql.split(";\n").filter(|statement| !statement.trim().is_empty()) {
        admin.query_drop(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

async fn executed(admin: &mut Conn) -> GtidSet {
    let set: String = admin.query_first("SELECT @@global.gtid_executed").await.unwrap().unwrap();
    set.parse().unwrap()
}

async fn binlog_end(admin: &mut Conn) -> LogPosition {
    let row: mysql_async::Row = admin.query_first("SHOW BINARY LOG STATUS").await.unwrap().unwrap();
    LogPosition { file: row.get(0).unwrap(), offset: row.get(1).unwrap() }
}

async fn next(source: &mut LiveSource) -> Result<SourceEvent, SourceError> {
    let event = timeout(Duration::from_secs(20), source.next()).await.expect("the stream went silent");
    event.map(|event| event.expect("a live stream does not end"))
}

/// Events until every transaction of `wanted` is complete.
async fn read_until(source: &mut LiveSource, wanted: &GtidSet) -> Vec<SourceEvent> {
    let mut left = wanted.clone();
    let mut events = Vec::new();
    let mut current = None;
    while !left.is_empty() {
        let event = next(source).await.unwrap();
        match &event.body {
            EventBody::Begin(head) => current = Some(head.gtid.clone()),
            EventBody::Commit => left.remove(&current.take().expect("a commit follows its beginning")),
            _ => {}
        }
        events.push(event);
    }
    events
}

async fn until_error(source: &mut LiveSource) -> SourceError {
    loop {
        if let Err(error) = next(source).await {
            return error;
        }
    }
}

fn refused(source: Result<LiveSource, SourceError>) -> SourceError {
    match source {
        Ok(_) => panic!("the server should have refused"),
        Err(error) => error,
    }
}

fn gtids(events: &[SourceEvent]) -> Vec<String> {
    let heads = events.iter().filter_map(|e| if let EventBody::Begin(head) = &e.body { Some(head) } else { None });
    heads.map(|head| head.gtid.to_string()).collect()
}

/// Everything an event says, positions left out that only the stream has.
fn described(events: &[SourceEvent]) -> Vec<String> {
    let text = |event: &SourceEvent| match &event.body {
        EventBody::Position => None,
        EventBody::Rows(rows) => {
            let columns = if rows.kind == RowsKind::Update { &rows.present_after } else { &rows.present };
            Some(format!("{} {:?} {:?} {columns:?} {:?} {:?}", event.end, rows.kind, rows.map, rows.present, rows.rows))
        }
        body => Some(format!("{} {body:?}", event.end)),
    };
    events.iter().filter_map(text).collect()
}
