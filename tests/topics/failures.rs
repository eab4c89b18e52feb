//! What goes wrong is said plainly, by `check` and by `run`, with the way out and the documented exit code.

use crate::support::lake::assert_equal;
use crate::support::mysql::Mysql;
use crate::support::weir::Weir;

/// Both commands fail and name all of `words`.
fn both_say(weir: &Weir, words: &[&str]) {
    for command in [&["check"][..], &["run", "--until-caught-up"][..]] {
        let printed = weir.expect(1, command);
        let said = format!("{}{}", printed.stdout, printed.stderr);
        for word in words {
            assert!(said.contains(word), "weir {command:?} does not say `{word}`:\n{said}");
        }
    }
}

#[test]
fn a_wrong_password_is_told_without_showing_it() {
    let mysql = Mysql::shared();
    mysql.run("CREATE USER IF NOT EXISTS careful@'%' IDENTIFIED BY 'right'");
    let url = mysql.url.replace("root@", "careful:wrong-secret@");
    let weir = Weir::new(&url, &["shop.*"], "");
    both_say(&weir, &["careful"]);
    for command in [&["check"][..], &["run", "--until-caught-up"][..]] {
        let printed = weir.expect(1, command);
        assert!(!format!("{}{}", printed.stdout, printed.stderr).contains("wrong-secret"));
    }
}

#[test]
fn a_server_without_binlog_is_refused() {
    let mysql = Mysql::start(&["--skip-log-bin", "--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]);
    both_say(&Weir::new(&mysql.url, &["shop.*"], ""), &["log_bin"]);
}

#[test]
fn statement_format_is_refused_with_the_statement_that_mends_it() {
    let mysql = Mysql::start(&["--binlog-format=STATEMENT"]);
    both_say(&Weir::new(&mysql.url, &["shop.*"], ""), &["binlog_format", "ROW"]);
}

#[test]
fn a_statement_in_the_log_stops_the_stream_with_its_position() {
    let mysql = Mysql::start(&[]);
    mysql
        .run("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY, v INT); INSERT INTO shop.t VALUES (1, 1)");
    let weir = Weir::new(&mysql.url, &["shop.*"], "");
    weir.catch_up();
    mysql.run("SET SESSION binlog_format = 'STATEMENT'; UPDATE shop.t SET v = 2 WHERE id = 1");
    let printed = weir.expect(1, &["run", "--until-caught-up"]);
    assert!(printed.stderr.contains("binlog."), "{}", printed.stderr);
}

#[test]
fn an_unknown_key_in_the_configuration_exits_2_and_is_named() {
    let mysql = Mysql::shared();
    let weir = Weir::new(&mysql.url, &["shop.*"], "[transport]\nkimd = \"direct\"");
    for command in [&["check"][..], &["run"][..]] {
        let printed = weir.expect(2, command);
        assert!(printed.stderr.contains("kimd"), "{}", printed.stderr);
    }
}

#[test]
fn an_unwritable_warehouse_is_told() {
    let mysql = Mysql::shared();
    let weir = Weir::new(&mysql.url, &["shop.*"], "");
    std::fs::write(weir.warehouse(), "a file where the folder should be").unwrap();
    both_say(&weir, &["warehouse"]);
}

#[test]
fn purged_binlogs_are_told_and_mended_by_archived_files_or_a_snapshot() {
    let mysql = Mysql::start(&[]);
    mysql
        .run("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY, v INT); INSERT INTO shop.t VALUES (1, 1)");
    let weir = Weir::new(&mysql.url, &["shop.*"], "");
    weir.catch_up();
    mysql.run(
        "INSERT INTO shop.t VALUES (2, 2); FLUSH BINARY LOGS; INSERT INTO shop.t VALUES (3, 3); FLUSH BINARY LOGS",
    );
    let archive = tempfile::tempdir().unwrap();
    for file in mysql.binlogs() {
        std::fs::copy(mysql.data().join(&file), archive.path().join(&file)).unwrap();
    }
    purge_all(&mysql);
    both_say(&weir, &["purged", "weir snapshot", "--binlog-dir"]);

    let archive = archive.path().to_str().unwrap();
    weir.expect(0, &["run", "--until-caught-up", "--binlog-dir", archive]);
    assert_equal(&mysql, &weir, "shop");
    let report = weir.expect(0, &["reconcile", "--format", "json"]).json();
    assert_eq!((&report["verdict"], &report["tables"][0]["hops"]["consumed"]), (&"balanced".into(), &2.into()));

    let late = Weir::new(&mysql.url, &["shop.*"], "");
    late.catch_up();
    mysql.run("INSERT INTO shop.t VALUES (4, 4); FLUSH BINARY LOGS");
    purge_all(&mysql);
    both_say(&late, &["purged"]);
    late.expect(0, &["snapshot"]);
    assert_equal(&mysql, &late, "shop");
    late.catch_up();
}

/// Purges every binlog but the one in use.
fn purge_all(mysql: &Mysql) {
    mysql.run(&format!("PURGE BINARY LOGS TO '{}'", mysql.binlogs().last().unwrap()));
}

#[test]
fn a_lost_state_folder_is_made_up_for_by_the_tables_own_commits() {
    let mysql = Mysql::start(&[]);
    mysql.run("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY, v INT); INSERT INTO shop.t VALUES (1, 1), (2, 2)");
    let weir = Weir::new(&mysql.url, &["shop.*"], "");
    for _ in 0..3 {
        weir.catch_up();
    }
    std::fs::remove_dir_all(weir.warehouse().join("_weir")).unwrap();
    mysql.run("INSERT INTO shop.t VALUES (3, 3); DELETE FROM shop.t WHERE id = 1");
    weir.catch_up();
    assert_equal(&mysql, &weir, "shop");
    assert_eq!(weir.expect(0, &["reconcile", "--format", "json"]).json()["verdict"], "balanced");
}

#[test]
fn a_source_that_is_reset_under_a_running_service_is_noticed() {
    let mysql = &Mysql::start(&[]);
    mysql.run("CREATE DATABASE again; CREATE TABLE again.t (id INT PRIMARY KEY, v INT); INSERT INTO again.t VALUES (1, 1), (2, 2)");
    let weir = Weir::new(&mysql.url, &["again.*"], "");
    weir.catch_up();
    let mut service = weir.run_until_it_is_seen();
    mysql.run("RESET BINARY LOGS AND GTIDS; INSERT INTO again.t VALUES (3, 3); UPDATE again.t SET v = 10 WHERE id = 1");
    assert_eq!(service.wait(), Some(1));
    let log = service.log();
    assert!(log.contains("reset") && log.contains("weir snapshot"), "{log}");
    weir.expect(0, &["snapshot"]);
    assert_equal(mysql, &weir, "again");
}
