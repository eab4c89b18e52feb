//! How weir gets in: TLS, kinds of passwords, compression, and what of that is refused, by each of the three ways in which it
//! connects: for questions, for the rows of a load, and for the binlog. Then the same through the program, and each privilege.

use std::path::{Path, PathBuf};
use std::time::Duration;

use weir::binlog::{LiveSource, random_server_id};
use weir_model::GtidSet;
use weir_mysql::{RowConnection, SourceOptions};

use crate::support::lake::{assert_equal, python};
use crate::support::mysql::{Flavour, Mysql, block_on};
use crate::support::weir::Weir;

/// The name in the servers' certificate, by which nobody here reaches them.
const HOST: &str = "db.example";
const PASSWORD: &str = "hunter2 é%/:@";
const WAYS: [&str; 3] = ["questions", "rows", "binlog"];

/// What a login comes to.
enum Expected<'a> {
    In,
    /// The error has one of the words of each group: the ways need not say it alike.
    Refused(&'a [&'a [&'a str]]),
}
use Expected::{In, Refused};

/// Certificates, and a server that has them.
struct Certified {
    folder: tempfile::TempDir,
    mysql: Mysql,
}

impl Certified {
    fn start(flavour: Flavour) -> Self {
        let folder = tempfile::Builder::new().prefix("weir-certificates-").tempdir().expect("a temporary folder");
        let made = python("tests/support/certificates.py").arg(folder.path()).arg(HOST).status();
        assert!(made.expect("the script starts").success());
        let flags = [("ca", "ca"), ("cert", "server-cert"), ("key", "server-key")]
            .map(|(flag, file)| format!("--ssl-{flag}={}", folder.path().join(file).with_extension("pem").display()));
        let mysql = Mysql::start_flavour(flavour, &flags.each_ref().map(String::as_str));
        Self { folder, mysql }
    }

    /// The url's option that names a file of the certificates.
    fn option(&self, option: &str, file: &str) -> String {
        format!("{option}={}", self.file(file).display())
    }

    fn file(&self, file: &str) -> PathBuf {
        self.folder.path().join(file).with_extension("pem")
    }
}

/// An account that may stream the binlog; `identified` is its kind of password, `requires` what TLS it asks for.
fn account(mysql: &Mysql, user: &str, identified: &str, requires: &str) {
    mysql.run(&format!("CREATE USER '{user}'@'127.0.0.1' {identified} {requires}"));
    mysql.run(&format!("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '{user}'@'127.0.0.1'"));
}

/// By the server's own kind of password.
fn identified() -> String {
    format!("IDENTIFIED BY '{PASSWORD}'")
}

/// Logs in by each way; what came of it. `before` is done before each, with the server's cache of passwords cold for one.
fn every_way(mysql: &Mysql, user: &str, password: &str, query: &str, before: impl Fn()) -> [Result<(), String>; 3] {
    let url = format!("{}?{query}", mysql.url.replace("root@", &format!("{user}@")));
    let options = SourceOptions::new(url).with_password(Some(password.to_owned()));
    WAYS.map(|way| {
        before();
        let options = options.clone();
        let result = block_on(async move {
            match way {
                "questions" => weir_mysql::connect(&options).await.map(drop).map_err(|error| error.to_string()),
                "rows" => RowConnection::open(&options).await.map(drop).map_err(|error| error.to_string()),
                _ => {
                    let opts = options.opts().map_err(|error| error.to_string())?;
                    let source = LiveSource::connect(opts, &GtidSet::default(), random_server_id()).await;
                    source.map(drop).map_err(|error| error.to_string())
                }
            }
        });
        result.inspect_err(|error| assert!(!error.contains("hunter2"), "{way}: {error}"))
    })
}

fn expect(found: [Result<(), String>; 3], expected: &Expected, case: &str) {
    for (way, found) in WAYS.iter().zip(found) {
        match (expected, found) {
            (In, Ok(())) => {}
            (In, Err(error)) => panic!("{case}, {way}: {error}"),
            (Refused(_), Ok(())) => panic!("{case}, {way}: let in"),
            (Refused(groups), Err(error)) => {
                for words in *groups {
                    let says = words.iter().any(|word| error.contains(word));
                    assert!(says, "{case}, {way}: none of {words:?} is in: {error}");
                }
            }
        }
    }
}

/// Every mode of TLS.
fn tls_is_as_the_url_asks(certified: &Certified) {
    let mysql = &certified.mysql;
    account(mysql, "open", &identified(), "");
    account(mysql, "secure", &identified(), "REQUIRE SSL");
    account(mysql, "known", &identified(), "REQUIRE X509");
    let (ca, other) = (certified.option("ssl_ca", "ca"), certified.option("ssl_ca", "other-ca"));
    let client =
        format!("{}&{}", certified.option("ssl_cert", "client-cert"), certified.option("ssl_key", "client-key"));
    let named = format!("ssl_name={HOST}");
    let unknown_authority: &[&[&str]] = &[&["invalid peer certificate"], &["ssl_ca=FILE"], &["ssl_mode=required"]];
    let other_name: &[&[&str]] = &[&["not valid for"], &["ssl_name=NAME"]];
    let denied: &[&[&str]] = &[&["1045", "refuses user"]];
    for (user, query, expected) in [
        ("open", String::new(), In),
        ("open", "ssl_mode=disabled".into(), In),
        ("open", "ssl_mode=required".into(), In),
        ("secure", "ssl_mode=required".into(), In),
        ("secure", "ssl_mode=required&compression=best".into(), In),
        ("secure", String::new(), Refused(denied)),
        ("secure", "ssl_mode=disabled".into(), Refused(denied)),
        ("secure", format!("ssl_mode=verify_identity&{ca}&{named}"), In),
        ("secure", format!("ssl_mode=verify_ca&{ca}&{named}"), In),
        ("secure", format!("{ca}&{named}"), In),
        ("secure", format!("ssl_mode=verify_identity&{other}&{named}"), Refused(unknown_authority)),
        ("secure", format!("ssl_mode=verify_identity&{named}"), Refused(unknown_authority)),
        ("secure", format!("{other}&{named}"), Refused(unknown_authority)),
        ("secure", format!("ssl_mode=verify_identity&{ca}"), Refused(other_name)),
        ("secure", format!("ssl_mode=verify_ca&{ca}"), Refused(other_name)),
        ("secure", format!("ssl_mode=verify_identity&{ca}&ssl_name=other.example"), Refused(other_name)),
        ("known", format!("ssl_mode=verify_identity&{ca}&{named}&{client}"), In),
        ("known", format!("ssl_mode=verify_identity&{ca}&{named}"), Refused(denied)),
        ("known", format!("ssl_mode=required&{client}"), In),
        ("secure", "ssl_mode=required&ssl_ca=/no/such/file".into(), Refused(&[&["/no/such/file"]])),
        (
            "secure",
            format!("ssl_mode=required&{}", certified.option("ssl_cert", "client-cert")),
            Refused(&[&["ssl_key"]]),
        ),
    ] {
        let found = every_way(mysql, user, PASSWORD, &query, || {});
        expect(found, &expected, &format!("`{user}` by `{query}`"));
    }
    let wrong = every_way(mysql, "secure", "sesame", "ssl_mode=required", || {});
    assert!(wrong.iter().all(|found| found.as_ref().is_err_and(|error| !error.contains("sesame"))), "{wrong:?}");
    expect(wrong, &Refused(denied), "a wrong password");
}

#[test]
fn tls_of_mysql_is_as_the_url_asks() {
    let certified = &Certified::start(Flavour::Mysql);
    tls_is_as_the_url_asks(certified);
    let mysql = &certified.mysql;
    mysql.run("SET GLOBAL require_secure_transport = ON");
    // Whoever starts the server gets in by its socket; this test's own connections do not need to any more.
    expect(every_way(mysql, "open", PASSWORD, "ssl_mode=required", || {}), &In, "TLS that the server requires");
    let refused: &[&[&str]] = &[&["3159"], &["ssl_mode=required"]];
    expect(every_way(mysql, "open", PASSWORD, "", || {}), &Refused(refused), "no TLS where the server requires it");
}

#[test]
fn tls_of_mariadb_is_as_the_url_asks() {
    tls_is_as_the_url_asks(&Certified::start(Flavour::Mariadb));
}

#[test]
fn a_server_whose_tls_is_too_old_is_told_as_such() {
    // It has TLS 1.2 without elliptic curves; so old are the libraries in it.
    let mysql = &Mysql::start_flavour(Flavour::Mysql80, &[]);
    account(mysql, "open", &identified(), "");
    let words: &[&[&str]] = &[&["TLS 1.2 with ECDHE"], &["without ssl_mode"]];
    expect(every_way(mysql, "open", PASSWORD, "ssl_mode=required", || {}), &Refused(words), "old TLS");
}

#[test]
fn a_server_without_tls_is_refused_where_the_url_asks_for_it() {
    for (flavour, flags) in
        [(Flavour::Mysql, &["--tls-version="][..]), (Flavour::Mysql57, &[]), (Flavour::Mariadb, &[])]
    {
        let mysql = &Mysql::start_flavour(flavour, flags);
        account(mysql, "open", &identified(), "");
        expect(every_way(mysql, "open", PASSWORD, "", || {}), &In, &format!("{flavour:?} without TLS"));
        for mode in ["required", "verify_identity"] {
            let found = every_way(mysql, "open", PASSWORD, &format!("ssl_mode={mode}"), || {});
            let words: &[&[&str]] = &[&["the server offers none"], &["leave ssl_mode out"]];
            expect(found, &Refused(words), &format!("{flavour:?} without TLS, {mode}"));
        }
    }
}

#[test]
fn every_kind_of_password_logs_in_cold_and_warm_in_the_clear_and_in_tls() {
    let kinds = |flavour| match flavour {
        Flavour::Mysql => &["caching_sha2_password"][..],
        Flavour::Mysql80 => &["caching_sha2_password", "mysql_native_password"],
        Flavour::Mysql57 | Flavour::Mariadb => &["mysql_native_password"],
    };
    let mut logins = 0;
    for flavour in [Flavour::Mysql, Flavour::Mysql80, Flavour::Mysql57, Flavour::Mariadb] {
        let mysql = &Mysql::start_flavour(flavour, &[]);
        let may_use_tls = flavour == Flavour::Mysql;
        for plugin in kinds(flavour) {
            for (user, password) in [("full", PASSWORD), ("empty", ""), ("long", &"x".repeat(60))] {
                let user = format!("{user}_{}", &plugin[..5]);
                // MariaDB takes VIA and a function for what the others spell BY.
                let identified = match flavour {
                    Flavour::Mariadb => format!("IDENTIFIED VIA {plugin} USING PASSWORD('{password}')"),
                    _ => format!("IDENTIFIED WITH {plugin} BY '{password}'"),
                };
                account(mysql, &user, &identified, "");
                let queries: &[&str] = if may_use_tls {
                    &["", "ssl_mode=required", "compression=fast"]
                } else {
                    &["", "compression=fast"]
                };
                for query in queries {
                    let cold = || mysql.run("FLUSH PRIVILEGES");
                    let case = format!("{flavour:?}, {plugin}, `{user}` by `{query}`");
                    expect(every_way(mysql, &user, password, query, cold), &In, &format!("{case}, cold"));
                    expect(every_way(mysql, &user, password, query, || {}), &In, &format!("{case}, warm"));
                    let denied: &[&[&str]] = &[&["1045", "refuses user"]];
                    expect(every_way(mysql, &user, "sesame", query, cold), &Refused(denied), &format!("{case}, wrong"));
                    logins += 3 * WAYS.len();
                }
            }
        }
    }
    println!("{logins} logins are as they should be");
    assert!(logins >= 200, "{logins}");
}

#[test]
fn an_account_of_another_kind_is_told_what_kind_it_needs() {
    for flavour in [Flavour::Mysql, Flavour::Mysql80, Flavour::Mysql57] {
        let mysql = &Mysql::start_flavour(flavour, &[]);
        account(mysql, "other", &format!("IDENTIFIED WITH sha256_password BY '{PASSWORD}'"), "");
        let words: &[&[&str]] = &[&["sha256_password"], &["ALTER USER"], &["caching_sha2_password"]];
        expect(every_way(mysql, "other", PASSWORD, "", || {}), &Refused(words), &format!("{flavour:?}"));
    }
}

/// Both commands fail, say all of `words` and no password.
fn both_refuse(weir: &Weir, words: &[&str]) {
    for command in [&["check"][..], &["run", "--until-caught-up"][..]] {
        let printed = weir.expect(1, command);
        let said = format!("{}{}", printed.stdout, printed.stderr);
        for word in words {
            assert!(said.contains(word), "weir {command:?} does not say `{word}`:\n{said}");
        }
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn the_program_gets_in_by_tls_with_a_password_from_its_url_a_file_and_the_environment() {
    let certified = &Certified::start(Flavour::Mysql);
    let mysql = &certified.mysql;
    mysql
        .run("CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY, v INT); INSERT INTO shop.t VALUES (0, 0)");
    account(mysql, "secure", &identified(), "REQUIRE SSL");
    mysql.run("GRANT SELECT ON shop.* TO 'secure'@'127.0.0.1'");
    let verified = format!("ssl_mode=verify_identity&{}&ssl_name={HOST}", certified.option("ssl_ca", "ca"));
    let url = |login: &str, query: &str| format!("{}?{query}", mysql.url.replace("root@", &format!("{login}@")));
    let weir = Weir::new(&url("secure", &verified), &["shop.*"], "");
    let file: &Path = &weir.config().with_file_name("password");
    let mut id = 0;
    // It loads at first, and streams at each.
    let mut works = |variable: Option<&str>, how: &str| {
        id += 1;
        mysql.run(&format!("INSERT INTO shop.t VALUES ({id}, {id})"));
        for arguments in [&["check"][..], &["run", "--until-caught-up"]] {
            let mut command = weir.command(arguments);
            variable.map(|password| command.env("WEIR_SOURCE_PASSWORD", password));
            let output = command.output().expect("weir starts");
            let said =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "password by {how}, {arguments:?}: {said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
        assert_equal(mysql, &weir, "shop");
    };
    works(Some(PASSWORD), "the environment");
    std::fs::write(file, format!("{PASSWORD}\n")).expect("a file can be written");
    weir.replace_in_config("[source]\n", "[source]\npassword_file = \"password\"\n");
    works(None, "a file");
    std::fs::write(file, "another").expect("a file can be written");
    works(Some(PASSWORD), "the environment, which wins over the file");
    weir.replace_in_config("password_file = \"password\"\n", "");
    let encoded = "secure:hunter2%20%C3%A9%25%2F%3A%40";
    weir.replace_in_config("mysql://secure@", &format!("mysql://{encoded}@"));
    works(None, "the url");

    for (query, words) in [
        (
            format!("ssl_mode=verify_identity&{}&ssl_name={HOST}", certified.option("ssl_ca", "other-ca")),
            ["ssl_ca=FILE"],
        ),
        (format!("ssl_mode=verify_identity&{}", certified.option("ssl_ca", "ca")), ["ssl_name=NAME"]),
        ("ssl_mode=disabled".into(), ["refuses user `secure`"]),
    ] {
        both_refuse(&Weir::new(&url(encoded, &query), &["shop.*"], ""), &words);
    }
    let replica = format!("snapshot_url = \"{}\"\n", url(encoded, "ssl_mode=disabled"));
    weir.replace_in_config("[source]\n", &format!("[source]\n{replica}"));
    let refused = weir.expect(1, &["check"]).stdout;
    assert!(refused.contains("snapshot_connection") && refused.contains("refuses user `secure`"), "{refused}");
    assert!(!refused.contains("hunter2"), "{refused}");
}

/// A line of `weir check`, by its name and table.
fn line<'a>(lines: &'a [serde_json::Value], name: &str, table: Option<&str>) -> &'a serde_json::Value {
    let is_it = |line: &&serde_json::Value| line["name"] == name && table.is_none_or(|table| line["table"] == table);
    lines.iter().find(is_it).unwrap_or_else(|| panic!("no {name} of {table:?} in {lines:#?}"))
}

fn checked(weir: &Weir) -> Vec<serde_json::Value> {
    let output = weir.output(&["check", "--format", "json"]);
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Without each of the privileges that docs/sources.md lists `weir check` names it, and the statement that mends it does.
fn each_privilege_that_is_missing_is_named(flavour: Flavour) {
    let mysql = &Mysql::start_flavour(flavour, &[]);
    for statement in
        ["CREATE DATABASE shop", "CREATE TABLE shop.t (id INT PRIMARY KEY)", "CREATE TABLE shop.log (v INT)"]
    {
        mysql.run(statement);
    }
    let mut granted = vec![
        ("grant_replication_slave", None, "REPLICATION SLAVE ON *.*", "fail"),
        ("grant_replication_client", None, "REPLICATION CLIENT ON *.*", "fail"),
        ("grant_select", Some("shop.t"), "SELECT ON shop.*", "fail"),
        ("grant_lock_tables", Some("shop.log"), "LOCK TABLES ON shop.*", "fail"),
    ];
    if matches!(flavour, Flavour::Mysql | Flavour::Mysql80) {
        granted.push(("grant_xa_recover", None, "XA_RECOVER_ADMIN ON *.*", "warn"));
    }
    let url = |user: &str| mysql.url.replace("root@", &format!("{user}@"));
    for (at, (name, table, missing, status)) in granted.iter().enumerate() {
        let user = format!("lacks_{at}");
        mysql.run(&format!("CREATE USER '{user}'@'127.0.0.1'"));
        for (_, _, privilege, _) in granted.iter().filter(|(_, _, privilege, _)| privilege != missing) {
            mysql.run(&format!("GRANT {privilege} TO '{user}'@'127.0.0.1'"));
        }
        // What may not be read is not in the catalogue that the account sees.
        if *name == "grant_select" {
            mysql.run(&format!("GRANT INSERT ON shop.* TO '{user}'@'127.0.0.1'"));
        }
        let weir = Weir::new(&url(&user), &["shop.*"], "[[table]]\nname = \"shop.log\"\nmode = \"append\"\n");
        let lines = checked(&weir);
        let found = line(&lines, name, *table);
        assert_eq!(found["status"], *status, "{flavour:?} without {missing}: {found:#}");
        let mend = found["mend"].as_str().expect("a statement that mends it");
        let words = missing.split(" ON ").next().expect("a privilege");
        assert!(mend.contains("GRANT") && mend.contains(words), "{mend}");
        let mut others = lines.iter().filter(|line| line["status"] == "fail" && line["name"] != *name);
        assert!(others.next().is_none(), "{flavour:?} without {missing}: {lines:#?}");
        for line in lines.iter().filter(|line| line["name"] == *name && line["status"] != "ok") {
            mysql.run(line["mend"].as_str().expect("a statement").split("; or ").next().expect("the statement"));
        }
        let mended = checked(&weir);
        let is_mended =
            |line: &serde_json::Value| line["status"] != "fail" && (line["name"] != *name || line["status"] == "ok");
        assert!(mended.iter().all(is_mended), "{flavour:?}: {mend}: {mended:#?}");
    }
    if flavour == Flavour::Mysql {
        // The replica that tables are loaded from has accounts of its own.
        mysql.run("CREATE USER 'reads_nothing'@'127.0.0.1'");
        let weir = Weir::new(&url("lacks_0"), &["shop.t"], "");
        weir.replace_in_config("[source]\n", &format!("[source]\nsnapshot_url = \"{}\"\n", url("reads_nothing")));
        let lines = checked(&weir);
        assert_eq!(line(&lines, "snapshot_connection", None)["status"], "ok");
        assert_eq!(line(&lines, "snapshot_grant_select", Some("shop.t"))["status"], "fail");
    }
}

#[test]
fn each_privilege_that_is_missing_is_named_by_check() {
    for flavour in [Flavour::Mysql, Flavour::Mysql80, Flavour::Mysql57, Flavour::Mariadb] {
        each_privilege_that_is_missing_is_named(flavour);
    }
}

#[test]
fn a_login_that_nobody_answers_ends_in_time() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let started = std::time::Instant::now();
    let weir = Weir::new(&format!("mysql://weir@127.0.0.1:{port}"), &["shop.*"], "");
    let refused = weir.expect(1, &["check"]).stdout;
    assert!(refused.contains("no answer within 15 s"), "{refused}");
    assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
}
