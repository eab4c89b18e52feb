//! What people configure of Kafka and ClickHouse: options reach librdkafka, and what is wrong is told.

use std::time::{Duration, Instant};

use crate::support::clickhouse::Clickhouse;
use crate::support::kafka::Kafka;
use crate::support::lake::assert_equal;
use crate::support::mysql::Mysql;
use crate::support::weir::Weir;

/// Nobody listens on port 1.
const NOBODY: &str = "127.0.0.1:1";

fn over(mysql: &Mysql, database: &str, transport: &str) -> Weir {
    let servers = (Kafka::shared(), Clickhouse::shared());
    Weir::over_kafka(database, &mysql.url, &[&format!("{database}.*")], servers, transport)
}

#[test]
fn check_shows_the_brokers_and_options_are_passed_through() {
    let mysql = Mysql::shared();
    mysql
        .run("CREATE DATABASE kopt; CREATE TABLE kopt.t (id INT PRIMARY KEY, v INT); INSERT INTO kopt.t VALUES (1, 1)");
    let options = r#"partitions = 2
                     options = { "client.id" = "weir-options", "socket.keepalive.enable" = "true", "linger.ms" = "1" }"#;
    let weir = over(mysql, "kopt", options);
    let printed = weir.expect(0, &["check"]);
    assert!(printed.stdout.contains(&Kafka::shared().brokers), "{}", printed.stdout);
    weir.catch_up();
    assert_equal(mysql, &weir, "kopt");

    // A broker that speaks no TLS cannot be reached with it: the option has an effect.
    let tls = over(mysql, "kopt", r#"options = { "security.protocol" = "ssl" }"#);
    tls.expect(1, &["check"]);
}

#[test]
fn an_option_that_librdkafka_does_not_know_is_named() {
    let mysql = Mysql::shared();
    let weir = over(mysql, "kwrong", r#"options = { "no.such.option" = "1" }"#);
    for command in [&["check"][..], &["run", "--until-caught-up"], &["capture"], &["apply"]] {
        let output = weir.output(command);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(matches!(output.status.code(), Some(1 | 2)), "weir {command:?}: {:?}\n{said}", output.status);
        assert!(said.contains("no.such.option"), "weir {command:?}: {said}");
    }
}

#[test]
fn brokers_that_are_not_there_are_told_in_time() {
    let mysql = Mysql::shared();
    mysql.run("CREATE DATABASE knobody; CREATE TABLE knobody.t (id INT PRIMARY KEY)");
    let weir = over(mysql, "knobody", "");
    weir.replace_in_config(&Kafka::shared().brokers, NOBODY);
    for command in [&["check"][..], &["run", "--until-caught-up"]] {
        let started = Instant::now();
        let printed = weir.expect(1, command);
        let said = format!("{}{}", printed.stdout, printed.stderr);
        assert!(said.contains(NOBODY), "weir {command:?}: {said}");
        assert!(started.elapsed() < Duration::from_secs(60), "weir {command:?} took {:?}", started.elapsed());
    }
}

#[test]
fn a_clickhouse_that_is_not_there_fails_the_check_and_is_named() {
    let mysql = Mysql::shared();
    mysql.run("CREATE DATABASE knotrace; CREATE TABLE knotrace.t (id INT PRIMARY KEY)");
    let weir = over(mysql, "knotrace", "");
    let server = Clickhouse::shared().url.rsplit_once('/').unwrap().0;
    weir.replace_in_config(server, &format!("http://{NOBODY}"));
    let printed = weir.expect(1, &["check"]);
    assert!(printed.stdout.contains(NOBODY), "{}", printed.stdout);
}
