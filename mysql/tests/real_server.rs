//! weir-mysql against a real server: sessions, accounts, TLS, the catalogue, positions, the preflight.

mod support;

use std::time::Duration;

use mysql_async::prelude::Queryable;
use weir_model::{ColumnType, Gtid, TableId};
use weir_mysql::error::codes;
use weir_mysql::*;

use support::{database, described, server_url, source};

/// The server's url with other credentials and options.
fn url_as(user: &str, password: Option<&str>, query: &str) -> String {
    let mut url = url::Url::parse(server_url()).unwrap();
    url.set_username(user).unwrap();
    url.set_password(password).unwrap();
    url.set_query((!query.is_empty()).then_some(query));
    url.to_string()
}

#[tokio::test]
async fn a_session_with_hostile_defaults_is_put_right() {
    let mut conn = mysql_async::Conn::new(source().opts().unwrap()).await.unwrap();
    for sql in [
        "SET sql_mode='ANSI,PAD_CHAR_TO_FULL_LENGTH,NO_BACKSLASH_ESCAPES'",
        "SET time_zone='+05:30'",
        "SET SESSION transaction_isolation='READ-UNCOMMITTED'",
        "SET max_execution_time=1",
        "SET sql_select_limit=1",
        "SET autocommit=0",
        "SET NAMES latin1",
    ] {
        conn.query_drop(sql).await.unwrap();
    }
    prepare_session(&mut conn).await.unwrap();
    let session: (String, String, String, u64, u64, u8, String) = conn
        .query_first(
            "SELECT @@sql_mode, @@time_zone, @@transaction_isolation, @@max_execution_time, @@sql_select_limit, \
             @@autocommit, @@character_set_results",
        )
        .await
        .unwrap()
        .unwrap();
    let expected = (String::new(), "+00:00".into(), "REPEATABLE-READ".into(), 0, u64::MAX, 1, "utf8mb4".to_owned());
    assert_eq!(session, expected);
}

#[tokio::test]
async fn caching_sha2_works_without_tls_cold_and_warm_with_and_without_password() {
    let mut admin = connect(&source()).await.unwrap();
    for (user, password) in [("auth_empty", ""), ("auth_full", "p@ss/w:rd%'é"), ("auth_long", &"x".repeat(60))] {
        admin.query_drop(format!("DROP USER IF EXISTS '{user}'@'%'")).await.unwrap();
        let create = format!("CREATE USER '{user}'@'%' IDENTIFIED WITH caching_sha2_password BY ?");
        admin.exec_drop(create.replace('?', &format!("'{}'", password.replace('\'', "''"))), ()).await.unwrap();
        for cache in ["cold", "warm", "cold"] {
            if cache == "cold" {
                admin.query_drop("FLUSH PRIVILEGES").await.unwrap();
            }
            let options = SourceOptions::new(url_as(user, None, "")).with_password(Some(password.into()));
            let mut conn = connect(&options).await.unwrap_or_else(|e| panic!("{user}, {cache} cache: {e}"));
            let account: String = conn.query_first("SELECT CURRENT_USER()").await.unwrap().unwrap();
            assert_eq!(account, format!("{user}@%"));
        }
        let in_url = SourceOptions::new(url_as(user, Some(password), ""));
        connect(&in_url).await.unwrap_or_else(|e| panic!("{user}, password in the url: {e}"));
    }
}

#[tokio::test]
async fn a_wrong_password_is_named_as_such_and_not_shown() {
    let mut admin = connect(&source()).await.unwrap();
    admin.query_drop("DROP USER IF EXISTS 'auth_wrong'@'%'").await.unwrap();
    admin.query_drop("CREATE USER 'auth_wrong'@'%' IDENTIFIED BY 'right'").await.unwrap();
    let error = connect(&SourceOptions::new(url_as("auth_wrong", Some("sesame"), ""))).await.unwrap_err();
    assert!(matches!(error, MysqlError::AccessDenied { code: codes::ACCESS_DENIED, .. }), "{error:?}");
    assert!(!error.is_retryable());
    assert!(!format!("{error} {error:?}").contains("sesame"));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable_and_worth_another_try() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Bound and listening, but it never speaks.
    let mut silent = SourceOptions::new(format!("mysql://weir@127.0.0.1:{port}"));
    silent.connect_timeout = Duration::from_millis(300);
    let error = connect(&silent).await.unwrap_err();
    assert!(matches!(error, MysqlError::Unreachable { .. }) && error.is_retryable(), "{error:?}");
    drop(listener);
    let error = connect(&silent).await.unwrap_err();
    assert!(matches!(error, MysqlError::Unreachable { .. }) && error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn tls_connects_and_verifies_what_was_asked_for() {
    let mut admin = connect(&source()).await.unwrap();
    let cipher = |url: String| async move {
        let mut conn = connect(&SourceOptions::new(url)).await?;
        let (_, cipher): (String, String) = conn.query_first("SHOW STATUS LIKE 'Ssl_cipher'").await.unwrap().unwrap();
        Ok::<_, MysqlError>(cipher)
    };
    admin.query_drop("DROP USER IF EXISTS 'auth_tls'@'%'").await.unwrap();
    admin.query_drop("CREATE USER 'auth_tls'@'%' IDENTIFIED BY 'secret' REQUIRE SSL").await.unwrap();
    let secret = Some("secret");
    assert!(!cipher(url_as("auth_tls", secret, "ssl_mode=required")).await.unwrap().is_empty());
    assert!(cipher(url_as("auth_tls", secret, "")).await.is_err(), "an account that requires TLS");
    // The server signs its own certificate, which no built-in root vouches for.
    let error = cipher(url_as("auth_tls", secret, "ssl_mode=verify_ca")).await.unwrap_err();
    assert!(matches!(error, MysqlError::Tls { .. }) && !error.is_retryable(), "{error:?}");
    assert!(error.to_string().contains("ssl_ca=FILE"), "{error}");
    let error = cipher(url_as("auth_tls", Some("sesame"), "ssl_mode=required")).await.unwrap_err();
    assert!(matches!(error, MysqlError::AccessDenied { .. }), "{error:?}");
}

#[tokio::test]
async fn the_catalogue_tells_columns_keys_and_defaults() {
    let mut conn = database("cat_columns").await;
    conn.query_drop(
        "CREATE TABLE t (
            note TEXT, id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT, hidden INT NOT NULL DEFAULT 5 INVISIBLE,
            doubled INT AS (hidden * 2) VIRTUAL, tripled INT AS (hidden * 3) STORED, made VARCHAR(36) DEFAULT (UUID()),
            region ENUM('a','b''c','d\\\\e') CHARACTER SET latin1 NOT NULL, PRIMARY KEY (region, id), KEY (id))",
    )
    .await
    .unwrap();
    let table = described(&mut conn, "cat_columns", "t").await;
    let names: Vec<&str> = table.schema.columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["note", "id", "hidden", "doubled", "tripled", "made", "region"]);
    assert_eq!(table.schema.key_names(), ["region", "id"]);
    assert_eq!(table.key_source, KeySource::Primary);
    assert_eq!(table.schema.columns[6].ty, ColumnType::Enum(vec!["a".into(), "b'c".into(), "d\\e".into()]));
    assert_eq!(table.columns[6].charset.as_deref(), Some("latin1"));
    let flags = |f: fn(&ColumnFacts) -> bool| table.columns.iter().map(f).collect::<Vec<_>>();
    assert_eq!(flags(|c| c.generated), [false, false, false, true, true, false, false]);
    assert_eq!(flags(|c| c.invisible), [false, false, true, false, false, false, false]);
    assert_eq!(flags(|c| c.fills_existing_rows), [false, true, true, true, true, true, true]);
    assert_eq!(describe(&mut conn, &TableId::new("cat_columns", "none")).await.unwrap(), None);
}

#[tokio::test]
async fn the_key_is_the_primary_else_a_unique_one_that_names_rows() {
    let mut conn = database("cat_keys").await;
    conn.query_drop("SET sql_generate_invisible_primary_key=OFF").await.unwrap();
    for (name, columns, expected) in [
        ("prefixed", "a TEXT NOT NULL, PRIMARY KEY (a(5))", Some((KeySource::Primary, vec!["a"], false))),
        (
            "unique_second",
            "a INT, b INT NOT NULL, UNIQUE nullable (a), UNIQUE prefix (b), UNIQUE other (b, a)",
            Some((KeySource::Unique("prefix".into()), vec!["b"], true)),
        ),
        ("functional", "a INT NOT NULL, UNIQUE f ((a + 1))", None),
        ("nothing", "a INT NOT NULL, KEY (a)", None),
        ("descending", "a INT, b INT, PRIMARY KEY (a DESC, b DESC)", Some((KeySource::Primary, vec!["a", "b"], true))),
        ("mixed", "a INT, b INT, PRIMARY KEY (a, b DESC)", Some((KeySource::Primary, vec!["a", "b"], false))),
    ] {
        conn.query_drop(format!("CREATE TABLE {name} ({columns})")).await.unwrap();
        let table = described(&mut conn, "cat_keys", name).await;
        let (source, key, ordered) = expected.unwrap_or((KeySource::None, vec![], false));
        assert_eq!((&table.key_source, table.schema.key_names()), (&source, key), "{name}");
        assert_eq!(table.key_index().is_some(), ordered, "{name}");
    }
    conn.query_drop("SET sql_generate_invisible_primary_key=ON").await.unwrap();
    conn.query_drop("CREATE TABLE gipk (a INT)").await.unwrap();
    let gipk = described(&mut conn, "cat_keys", "gipk").await;
    assert_eq!(gipk.schema.key_names(), ["my_row_id"]);
    assert_eq!(gipk.schema.columns.len(), 2);
}

#[tokio::test]
async fn only_base_tables_that_match_are_listed() {
    let mut conn = database("cat_list").await;
    for sql in [
        "CREATE TABLE b (id INT PRIMARY KEY)",
        "CREATE TABLE a (id INT PRIMARY KEY)",
        "CREATE TABLE tmp_x (id INT PRIMARY KEY)",
        "CREATE VIEW v AS SELECT * FROM a",
    ] {
        conn.query_drop(sql).await.unwrap();
    }
    let patterns = TablePatterns::new(&["cat_list.*".into(), "!cat_list.tmp_*".into(), "mysql.*".into()]).unwrap();
    let tables = list_tables(&mut conn, &patterns).await.unwrap();
    assert_eq!(tables, [TableId::new("cat_list", "a"), TableId::new("cat_list", "b")]);
}

#[tokio::test]
async fn positions_move_with_a_commit_and_waiting_ends() {
    let mut conn = database("pos").await;
    conn.query_drop("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
    let (before, end_before) = (executed_gtids(&mut conn).await.unwrap(), binlog_end(&mut conn).await.unwrap());
    conn.query_drop("INSERT INTO t VALUES (1)").await.unwrap();
    let (after, end_after) = (executed_gtids(&mut conn).await.unwrap(), binlog_end(&mut conn).await.unwrap());
    assert!(before.is_subset(&after) && !after.is_subset(&before));
    assert!(end_after.has_passed(&end_before).unwrap() && end_after != end_before);
    assert!(purged_gtids(&mut conn).await.unwrap().is_subset(&after));

    assert!(wait_for_executed(&mut conn, &after, Duration::ZERO).await.unwrap());
    // A tagged transaction first: the wait must neither hang nor refuse it.
    conn.query_drop("SET gtid_next='AUTOMATIC:weir_test'").await.unwrap();
    conn.query_drop("INSERT INTO t VALUES (2)").await.unwrap();
    conn.query_drop("SET gtid_next='AUTOMATIC'").await.unwrap();
    let tagged = executed_gtids(&mut conn).await.unwrap();
    assert!(tagged.ranges().any(|(server, ..)| &*server.tag == "weir_test"));
    assert!(wait_for_executed(&mut conn, &tagged, Duration::from_secs(1)).await.unwrap());
    let mut future = tagged.clone();
    future.insert(&Gtid::new("00000000-0000-0000-0000-00000000abcd", "weir_test", 7));
    assert!(!wait_for_executed(&mut conn, &future, Duration::from_millis(100)).await.unwrap());
}

#[tokio::test]
async fn the_server_tells_its_settings_clock_and_load() {
    let mut conn = database("facts").await;
    let facts = server_facts(&mut conn).await.unwrap();
    assert_eq!(facts.flavour, Flavour::Mysql);
    assert!(facts.version >= Version::new(5, 7, 0) && facts.server_uuid.len() == 36 && facts.log_bin, "{facts:?}");
    assert_eq!((facts.binlog_format.as_str(), facts.gtid_mode.as_str()), ("ROW", "ON"));
    assert!((facts.now_ms - weir_model::clock::now_ms()).abs() < 5_000);
    assert!(threads_running(&mut conn).await.unwrap() >= 1);
    conn.query_drop("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
    let before = xa_recover(&mut conn).await.unwrap().unwrap();
    let mut other = connect(&source()).await.unwrap();
    for sql in
        ["XA START 'facts','b',7", "INSERT INTO facts.t VALUES (1)", "XA END 'facts','b',7", "XA PREPARE 'facts','b',7"]
    {
        other.query_drop(sql).await.unwrap();
    }
    let after = xa_recover(&mut conn).await.unwrap().unwrap();
    assert_eq!(after.len(), before.len() + 1);
    let ours = weir_model::Xid { format: 7, gtrid: b"facts".to_vec(), bqual: b"b".to_vec() };
    assert!(after.contains(&ours), "{after:?}");
    other.query_drop("XA ROLLBACK 'facts','b',7").await.unwrap();
}

#[tokio::test]
async fn the_preflight_finds_what_is_wrong_and_its_statements_mend_it() {
    let mut conn = database("pre").await;
    for sql in [
        "SET sql_generate_invisible_primary_key=OFF",
        "CREATE TABLE good (id INT PRIMARY KEY)",
        "CREATE TABLE keyless (a INT)",
        "CREATE TABLE isam (id INT PRIMARY KEY) ENGINE=MyISAM",
        "CREATE TABLE taken (id INT PRIMARY KEY, _weir_seq INT)",
        "CREATE TABLE child (id INT PRIMARY KEY, g INT, FOREIGN KEY (g) REFERENCES good(id) ON DELETE CASCADE)",
        "DROP USER IF EXISTS 'pre_poor'@'%'",
        "CREATE USER 'pre_poor'@'%' IDENTIFIED BY 'poor'",
        "GRANT SELECT ON pre.good TO 'pre_poor'@'%'",
        "GRANT SHOW VIEW, INSERT ON pre.* TO 'pre_poor'@'%'",
    ] {
        conn.query_drop(sql).await.unwrap();
    }
    let patterns = TablePatterns::new(&["pre.*".into(), "absent.*".into()]).unwrap();
    let found = checks(&gather(&mut conn, &patterns).await.unwrap());
    let status = |name: &str, table: Option<&str>| {
        let table = table.map(|t| TableId::new("pre", t));
        found.iter().find(|c| c.name == name && c.table == table).map(|c| c.status)
    };
    assert_eq!(status("binlog_format", None), Some(CheckStatus::Ok));
    assert_eq!(status("grant_replication_slave", None), Some(CheckStatus::Ok));
    assert_eq!(status("tables", None), Some(CheckStatus::Warn), "absent.* matches nothing");
    assert_eq!(status("key", Some("good")), Some(CheckStatus::Ok));
    assert_eq!(status("key", Some("keyless")), Some(CheckStatus::Fail));
    assert_eq!(status("engine", Some("isam")), Some(CheckStatus::Warn));
    assert_eq!(status("column_name", Some("taken")), Some(CheckStatus::Fail));

    let account = SourceOptions::new(url_as("pre_poor", Some("poor"), ""));
    let mut poor = connect(&account).await.unwrap();
    let lacking = checks(&gather(&mut poor, &patterns).await.unwrap());
    let failed: Vec<&Check> =
        lacking.iter().filter(|c| c.name.starts_with("grant_") && c.status != CheckStatus::Ok).collect();
    assert!(failed.iter().any(|c| c.name == "grant_replication_slave"), "{failed:?}");
    assert!(failed.iter().any(|c| c.name == "grant_select"), "{failed:?}");
    for check in failed {
        conn.query_drop(check.mend.as_deref().unwrap()).await.unwrap();
    }
    // Global privileges reach new connections only.
    let mut poor = connect(&account).await.unwrap();
    let mended = checks(&gather(&mut poor, &patterns).await.unwrap());
    let left: Vec<&Check> =
        mended.iter().filter(|c| c.name.starts_with("grant_") && c.status != CheckStatus::Ok).collect();
    assert!(left.is_empty(), "{left:?}");
}
