//! A bucket as the warehouse: as exact as a folder, with real servers and independent readers; and what is wrong with a
//! configuration of one is said plainly and soon.

use std::time::{Duration, Instant};

use weir::table::{Warehouse, store_contract};

use crate::support::clickhouse::Clickhouse;
use crate::support::kafka::{Kafka, source_name};
use crate::support::lake::{Workload, assert_equal};
use crate::support::mysql::Mysql;
use crate::support::s3::S3;
use crate::support::s3_ways::Way;
use crate::support::weir::{Weir, hops};

#[test]
fn a_bucket_upholds_the_contract_of_every_store() {
    let s3 = S3::shared();
    let options = s3.options_at(&s3.endpoint).into_iter().collect();
    let warehouse = Warehouse::open(&s3.url(&source_name("contract")), &options).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(store_contract::upheld_by(&warehouse));
}

#[test]
fn kills_of_the_service_and_of_the_server_lose_and_double_nothing_in_a_bucket() {
    let (mysql, s3) = (&Mysql::start(&[]), S3::start());
    let workload = Workload { mysql, database: "bucket", seed: 20_261_128 };
    workload.create(8_000);
    let weir = Weir::into_s3("kills", &mysql.url, &["bucket.*"], (&s3, &s3.endpoint), "");
    let mut writers = workload.live(30_000, &["--workers", "2", "--compression", "0.2", "--ddl", "--rate", "2000"]);
    for pause_ms in [1_900, 2_700] {
        let service = weir.run();
        std::thread::sleep(Duration::from_millis(pause_ms));
        service.kill();
    }
    let mut service = weir.run();
    std::thread::sleep(Duration::from_secs(3));
    s3.kill();
    std::thread::sleep(Duration::from_millis(1_500));
    s3.restart();
    assert!(writers.wait().expect("the workload ends").success());
    assert!(service.is_running(), "{}", service.log());
    let log = service.log();
    let (code, took) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(took < Duration::from_secs(30), "{took:?}");
    weir.catch_up();
    assert_equal(mysql, &weir, "bucket");
    let report = weir.balanced();
    assert!(hops(&report, "captured") > 10_000, "{report:#}");
    assert_eq!(hops(&report, "duplicate"), 0, "{report:#}");
    assert!(!log.contains(&s3.secret_key) && !log.contains(&s3.access_key), "a key is in the log");
}

#[test]
fn every_command_works_on_a_bucket_and_shows_no_key() {
    let (mysql, s3) = (Mysql::shared(), S3::shared());
    mysql.run(
        "CREATE DATABASE `buck et`; CREATE TABLE `buck et`.`o.rders` (id INT PRIMARY KEY, v TEXT); \
         INSERT INTO `buck et`.`o.rders` VALUES (1, 'a'), (2, 'b')",
    );
    let weir = Weir::into_s3("usage", &mysql.url, &["buck et.*"], (s3, &s3.endpoint), "");
    let mut said = String::new();
    let mut run = |arguments: &[&str]| {
        let printed = weir.expect(0, arguments);
        said.push_str(&printed.stdout);
        said.push_str(&printed.stderr);
        printed.stdout
    };
    run(&["-vv", "check"]);
    run(&["-vv", "run", "--until-caught-up"]);
    let rows = run(&["read", "--table", "buck et.o.rders", "--format", "jsonl", "--columns", "id,v"]);
    assert_eq!(rows.lines().count(), 2, "{rows}");
    assert!(run(&["table", "list"]).contains("buck et.o.rders"));
    assert!(run(&["table", "describe", "buck et.o.rders"]).contains("string"));
    assert!(run(&["status"]).contains("streaming"));
    run(&["snapshot", "--table", "buck et.o.rders"]);
    mysql.run("UPDATE `buck et`.`o.rders` SET v = 'bb' WHERE id = 2");
    run(&["run", "--until-caught-up"]);
    run(&["reconcile"]);
    let mut upkeep = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&run(&[arguments, &["buck et.o.rders", "--format", "json"]].concat())).expect("JSON")
    };
    let compacted = upkeep(&["-vv", "table", "compact"]);
    assert_eq!((compacted["commits"].as_u64(), compacted["files_after"].as_u64()), (Some(1), Some(1)), "{compacted}");
    let cleaned = upkeep(&["-vv", "table", "clean", "--retention-hours", "0"]);
    assert!(cleaned["files_removed"].as_u64() >= compacted["files_before"].as_u64(), "{cleaned} {compacted}");
    assert_eq!(upkeep(&["table", "verify"])["problem_count"], 0);
    run(&["run", "--until-caught-up"]);
    run(&["reconcile"]);
    assert_equal(mysql, &weir, "buck et");
    for secret in [&s3.secret_key, &s3.access_key] {
        assert!(!said.contains(secret.as_str()), "a key was shown");
    }

    // Keys and endpoint from variables alone.
    weir.replace_in_config(
        &s3.section_at(&s3.endpoint, &weir.name),
        &format!("[warehouse]\nurl = \"{}\"\n", s3.url(&weir.name)),
    );
    let output = weir.command(&["table", "list"]).envs(s3.environment()).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("buck et.o.rders"), "{output:?}");
}

#[test]
fn a_bucket_over_kafka_is_as_exact() {
    let (mysql, s3, kafka) = (&Mysql::start(&[]), S3::shared(), Kafka::shared());
    let workload = Workload { mysql, database: "kbucket", seed: 41 };
    workload.create(3_000);
    let name = source_name("kbucket");
    let sections = kafka.sections(Clickhouse::shared(), &name, "partitions = 2");
    let weir = Weir::into_s3_as(&name, &mysql.url, &["kbucket.*"], (s3, &s3.endpoint), &sections);
    let mut writers = workload.live(12_000, &["--rate", "1500"]);
    let first = weir.run();
    std::thread::sleep(Duration::from_millis(3_500));
    first.kill();
    let capture = weir.capture();
    let halves = [weir.apply(1), weir.apply(2)];
    assert!(writers.wait().expect("the workload ends").success());
    for service in halves.into_iter().chain([capture]) {
        let log = service.log_file();
        assert_eq!(service.terminate().0, Some(0), "{}", std::fs::read_to_string(log).unwrap_or_default());
    }
    weir.catch_up();
    assert_equal(mysql, &weir, "kbucket");
    let report = weir.balanced();
    assert!(hops(&report, "captured") > 4_000, "{report:#}");
}

/// Soon, by both commands, with `words` (servers differ in their case) and without keys.
fn both_refuse(weir: &Weir, s3: &S3, codes: [i32; 2], words: &[&str]) {
    for (command, code) in [&["check"][..], &["run", "--until-caught-up"]].into_iter().zip(codes) {
        let asked = Instant::now();
        let printed = weir.expect(code, command);
        let said = format!("{}{}", printed.stdout, printed.stderr);
        assert!(asked.elapsed() < Duration::from_secs(15), "weir {command:?} took {:?}", asked.elapsed());
        for word in words {
            let is_said = said.to_lowercase().contains(&word.to_lowercase());
            assert!(is_said, "weir {command:?} does not say `{word}`:\n{said}");
        }
        assert!(!said.contains(&s3.secret_key) && !said.contains("wrong-secret"), "a key was shown:\n{said}");
    }
}

#[test]
fn what_is_wrong_with_a_bucket_is_told_within_seconds() {
    let (mysql, s3) = (Mysql::shared(), S3::shared());
    let weir = || Weir::into_s3("wrong", &mysql.url, &["shop.*"], (s3, &s3.endpoint), "");
    let of = |from: &str, to: &str| {
        let weir = weir();
        weir.replace_in_config(from, to);
        weir
    };
    let quoted = |text: &str| format!("= \"{text}\"");
    both_refuse(&of(&quoted(&s3.secret_key), &quoted("wrong-secret")), s3, [1, 1], &["SignatureDoesNotMatch"]);
    both_refuse(&of(&quoted(&s3.access_key), &quoted("nobody")), s3, [1, 1], &["access key"]);
    let (bucket, missing) = (format!("s3://{}/", s3.bucket), "s3://no-such-bucket/");
    both_refuse(&of(&bucket, missing), s3, [1, 1], &["NoSuchBucket", "no-such-bucket"]);
    both_refuse(&of(&s3.endpoint, "http://127.0.0.1:1"), s3, [1, 1], &["127.0.0.1:1"]);
    both_refuse(&of("allow_http = \"true\"", ""), s3, [1, 2], &["allow_http"]);
    both_refuse(&of("region", "regoin"), s3, [1, 2], &["`regoin`", "aws_region"]);
    both_refuse(&of("allow_http", "conditional_put = \"disabled\"\nallow_http"), s3, [1, 2], &["conditional_put"]);
    let no_keys = weir();
    for name in ["aws_access_key_id", "aws_secret_access_key"] {
        let (key, secret) = (quoted(&s3.access_key), quoted(&s3.secret_key));
        let value = if name == "aws_access_key_id" { key } else { secret };
        no_keys.replace_in_config(&format!("{name} {value}"), "");
    }
    both_refuse(&no_keys, s3, [1, 1], &["no keys are set"]);
}

#[test]
fn a_store_that_knows_no_conditions_is_refused() {
    let (mysql, s3) = (Mysql::shared(), S3::shared());
    let way = Way::to_a_store_without_conditions();
    let weir = Weir::into_s3("overwrites", &mysql.url, &["shop.*"], (s3, &way.endpoint), "");
    both_refuse(&weir, s3, [1, 1], &["does not honour If-None-Match", "overwrite each other's commits"]);
}
