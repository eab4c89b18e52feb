//! What must not get out, and what must not get in: passwords are nowhere but where they were given, files are not for
//! everybody, and names of tables and columns are names whatever is in them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::http::{address, get};
use crate::support::lake::assert_equal;
use crate::support::mysql::Mysql;
use crate::support::s3::S3;
use crate::support::weir::{Weir, eventually};

const PASSWORD: &str = "hush-source-4711";
const WRONG: &str = "hush-wrong-0815";
const TRACE: &str = "hush-trace-1138";

/// Every file in `folder` and below, but for the configuration.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(files(&entry));
        } else if entry.extension().is_none_or(|extension| extension != "toml") {
            found.push(entry);
        }
    }
    found
}

fn contains(bytes: &[u8], secret: &str) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
}

#[test]
fn passwords_are_nowhere_but_where_they_were_given() {
    let (mysql, s3) = (Mysql::shared(), S3::shared());
    mysql.run(&format!(
        "CREATE DATABASE hush; CREATE TABLE hush.t (id INT PRIMARY KEY, v INT); INSERT INTO hush.t VALUES (1, 1), (2, 2);
         CREATE USER 'quiet'@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO 'quiet'@'%'"
    ));
    let keys: Vec<String> =
        s3.environment().into_iter().filter(|(name, _)| name.contains("SECRET")).map(|(_, key)| key).collect();
    assert_eq!(keys.len(), 1);
    let secrets = [&[PASSWORD.to_owned(), WRONG.to_owned(), TRACE.to_owned()][..], &keys[..]].concat();
    let of = |password: &str| mysql.url.replace("root@", &format!("quiet:{password}@"));
    let weir = Weir::into_s3(
        "hush",
        &of(PASSWORD),
        &["hush.*"],
        (s3, &s3.endpoint),
        "[[backfill]]\ntable = \"hush.t\"\ncron = \"0 3 * * *\"\n",
    );

    // What is said, also where something is wrong.
    let mut said: Vec<(String, Vec<u8>)> = Vec::new();
    let mut say = |weir: &Weir, arguments: &[&str]| {
        let output = weir.output(arguments);
        said.push((format!("weir {arguments:?}"), [output.stdout, output.stderr].concat()));
    };
    say(&weir, &["check", "-vv"]);
    let service = weir.start(&["run", "-v"], "run.log");
    eventually("the table is there", Duration::from_secs(60), || weir.has_rows("hush.t", 2));
    mysql.run("INSERT INTO hush.t VALUES (3, 3); UPDATE hush.t SET v = 4 WHERE id = 1");
    eventually("the change is there", Duration::from_secs(60), || weir.has_rows("hush.t", 3));
    let face = address(&service);
    for command in [
        &["status", "--format", "json", "-vv"][..],
        &["reconcile", "--deep", "--format", "json", "-v"],
        &["backfill", "--table", "hush.t", "--from", "1", "--to", "2", "--wait", "-v"],
        &["backfill", "list", "--format", "json"],
        &["schedule", "list", "--format", "json"],
        &["table", "list", "--format", "json"],
        &["table", "compact", "hush.t", "-v"],
    ] {
        say(&weir, command);
    }
    for path in ["/metrics", "/status", "/healthz", "/readyz", "/"] {
        let answer = get(&face, path);
        assert!(answer.code == 200 || path == "/readyz", "{path}: {}", answer.code);
        said.push((path.to_owned(), answer.body.into_bytes()));
    }
    assert_eq!(service.terminate().0, Some(0));
    let mut say = |weir: &Weir, arguments: &[&str]| {
        let output = weir.output(arguments);
        assert!(!output.status.success(), "weir {arguments:?} was to fail");
        said.push((format!("weir {arguments:?}, with something wrong"), [output.stdout, output.stderr].concat()));
    };
    for (from, to) in [
        (PASSWORD, WRONG),
        (&*format!("quiet:{WRONG}@127.0.0.1:"), &*format!("quiet:{WRONG}@127.0.0.1:1")),
        (&*format!("mysql://quiet:{WRONG}@"), &*format!("mysql://quiet:{WRONG}@[")),
    ] {
        weir.replace_in_config(from, to);
        say(&weir, &["check", "-v"]);
        say(&weir, &["run", "--until-caught-up", "-v"]);
    }
    weir.configure(
        &of(PASSWORD),
        &["hush.*"],
        &format!("[trace]\nkind = \"clickhouse\"\nurl = \"http://quiet:{TRACE}@127.0.0.1:1/hush\"\n"),
    );
    say(&weir, &["check", "-v"]);
    weir.replace_in_config("kind = \"clickhouse\"", "kind = \"clickhause\"");
    say(&weir, &["check", "-v"]);

    // What is kept.
    let kept =
        [files(weir.config().parent().unwrap()), s3.files(&weir.name).map(|folder| files(&folder)).unwrap_or_default()];
    let kept: Vec<(String, Vec<u8>)> =
        kept.concat().into_iter().map(|file| (file.display().to_string(), std::fs::read(&file).unwrap())).collect();
    assert!(
        kept.iter().any(|(name, _)| name.ends_with("run.log"))
            && kept.iter().any(|(name, _)| name.ends_with("trace.sqlite"))
    );
    for (place, bytes) in said.iter().chain(&kept) {
        for secret in &secrets {
            assert!(!contains(bytes, secret), "{place} has {secret}:\n{}", String::from_utf8_lossy(bytes));
        }
    }
    mysql.run("DROP USER 'quiet'@'%'");
}

#[test]
fn what_weir_makes_is_not_for_everybody() {
    let mysql = Mysql::shared();
    mysql.run("CREATE DATABASE modes_of; CREATE TABLE modes_of.t (id INT PRIMARY KEY, v INT); INSERT INTO modes_of.t VALUES (1, 1), (2, 2)");
    let weir = Weir::new(&mysql.url, &["modes_of.*"], "");
    weir.catch_up();
    mysql.run("DELETE FROM modes_of.t WHERE id = 1; INSERT INTO modes_of.t VALUES (5, 5)");
    weir.catch_up();
    weir.expect(0, &["reconcile", "--deep"]);
    weir.expect(0, &["table", "compact", "modes_of.t"]);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut looked_at = 0;
    let mut folders = vec![weir.warehouse(), weir.trace().parent().unwrap().to_owned()];
    while let Some(folder) = folders.pop() {
        assert_eq!(mode(&folder), 0o750, "{}", folder.display());
        for path in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                assert_eq!(mode(&path), 0o640, "{}", path.display());
                looked_at += 1;
            }
        }
    }
    assert!(looked_at > 10, "{looked_at} files");
    let made = weir.config().with_file_name("made.toml");
    let init = std::process::Command::new(env!("CARGO_BIN_EXE_weir")).arg("--config").arg(&made).arg("init").output();
    assert!(init.unwrap().status.success());
    assert_eq!(mode(&made), 0o640);
}

#[test]
fn names_are_names_whatever_is_in_them() {
    let mysql = &Mysql::start(&[]);
    let quoted = |name: &str| format!("`{}`", name.replace('`', "``"));
    let (database, table, column) = ("a`b'; drop x", "t\"`; DROP TABLE x; -- é\\", "c`'\"; drop é, (x)");
    let (database_sql, table_sql, column_sql) = (quoted(database), quoted(table), quoted(column));
    mysql.run(&format!(
        "CREATE DATABASE {database_sql}; USE {database_sql};
         CREATE TABLE x (id INT PRIMARY KEY); INSERT INTO x VALUES (1);
         CREATE TABLE {table_sql} (`k``'` VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, {column_sql} INT, PRIMARY KEY (`k``'`));
         INSERT INTO {table_sql} VALUES ('one', 1), ('two''`\"', 2)"
    ));
    let weir = Weir::new(&mysql.url, &["a*.*"], "");
    weir.catch_up();
    let service = weir.run_until_it_is_seen();
    mysql.run(&format!(
        "USE {database_sql}; UPDATE {table_sql} SET {column_sql} = 10 WHERE `k``'` = 'one'; DELETE FROM {table_sql} WHERE `k``'` LIKE 'two%';
         INSERT INTO {table_sql} VALUES ('three', 3);
         ALTER TABLE {table_sql} ADD COLUMN `new``; drop` INT NOT NULL DEFAULT 7; INSERT INTO {table_sql} VALUES ('four', 4, 8);
         RENAME TABLE {table_sql} TO `between``'`; RENAME TABLE `between``'` TO {table_sql}; INSERT INTO {table_sql} VALUES ('five', 5, 9)"
    ));
    let name = format!("{database}.{table}");
    eventually("all rows are there", Duration::from_secs(60), || weir.has_rows(&name, 4));
    let metrics = get(&address(&service), "/metrics").body;
    assert!(metrics.contains("drop "), "the table has no metrics:\n{metrics}");
    weir.expect(0, &["backfill", "--table", &name, "--from", "f", "--to", "o", "--wait"]);
    assert_eq!(service.terminate().0, Some(0));
    // Rows that only a look at the source can find.
    mysql.run(&format!(
        "USE {database_sql}; SET sql_log_bin = 0; UPDATE {table_sql} SET {column_sql} = 11 WHERE `k``'` = 'one'"
    ));
    weir.expect(3, &["reconcile", "--deep", "--format", "json"]);
    weir.expect(0, &["reconcile", "--deep", "--repair", "--format", "json"]);
    weir.expect(0, &["snapshot", "--table", &name]);
    weir.expect(0, &["table", "compact", &name]);
    weir.expect(0, &["table", "verify", &name]);
    weir.expect(0, &["table", "clean", &name, "--retention-hours", "0"]);
    weir.catch_up();
    assert_equal(mysql, &weir, database);
    weir.balanced();
}
