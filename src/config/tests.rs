//! What is accepted, what is refused, and how an error reads.

use std::collections::BTreeMap;
use std::path::Path;

use bytesize::ByteSize;
use weir_model::{TableId, ZeroDates};

use super::{Config, KeyBound, KeyPart, SnapshotMode};
use crate::error::{Error, Kind};

const MINIMAL: &str = "[source]\nname = \"shop\"\nurl = \"mysql://weir@db:3306\"\ntables = [\"shop.*\"]\n";

/// The whole of what users can set, as it is documented.
const EVERYTHING: &str = r#"
[source]
name = "shop"
url = "mysql://weir@db:3306"
tables = ["shop.*", "!shop.tmp_*"]
snapshot = "never"
snapshot_url = "mysql://weir@replica:3306"
max_connections = 8
rows_per_second_max = 1000
bytes_per_second_max = "20MiB"
pause_above_threads_running = 20
pause_above_lag_ms = 5000
on_truncate = "keep"
on_drop = "follow"
server_id = 4711

[warehouse]
url = "file:///var/lib/weir"
options = {}

[transport]
kind = "direct"
brokers = "127.0.0.1:9092"
partitions = 4
options = { "message.max.bytes" = 1000000, "security.protocol" = "ssl" }

[trace]
kind = "sqlite"
url = "http://127.0.0.1:8123/weir"

[apply]
commit_interval_ms = 500
memory_max = "64MiB"
index_memory_max = "512MiB"
state_dir = "/var/lib/weir/state"

[http]
listen = "127.0.0.1:0"

[[table]]
name = "shop.orders"
mode = "upsert"
storage = "merge-on-read"
deletes = "hard"
key = ["id"]
partition_by = ["region", "created_day = day(created_at)", "b = bucket(16, id)"]
buckets = 4
zero_dates = "error"

[[backfill]]
table = "shop.orders"
cron = "0 3 * * *"
from = 5
to = ["9", 1]

[[backfill]]
name = "hourly"
table = "shop.orders"
cron = "0 * * * mon-fri"
"#;

fn with(text: &str, environment: &[(&str, &str)]) -> Result<Config, Error> {
    let environment: BTreeMap<String, String> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::parse("weir.toml", text, Path::new("/etc/weir"), &environment)
}

fn refusal(text: &str, environment: &[(&str, &str)]) -> String {
    let error = with(text, environment).expect_err("the configuration is wrong");
    assert_eq!(error.kind(), Kind::Config);
    error.render()
}

#[test]
fn a_minimal_file_gets_the_defaults() {
    let config = with(MINIMAL, &[]).unwrap();
    assert_eq!(config.apply.memory_max, ByteSize::mib(256));
    assert_eq!(config.source.snapshot, SnapshotMode::Initial);
    assert_eq!(config.state_dir(), Path::new("/var/lib/weir/_weir/shop/local"));
    assert_eq!(config.warnings(), Vec::<String>::new());
    assert!(config.source.follows_truncate());
}

#[test]
fn a_bucket_has_its_local_state_elsewhere_and_its_keys_are_not_shown() {
    let text = format!(
        "{MINIMAL}\n[warehouse]\nurl = \"s3://lake/shop\"\n[warehouse.options]\naws_secret_access_key = \"hush\"\n\
         allow_http = true\n"
    );
    let config = with(&text, &[]).unwrap();
    assert_eq!(config.warehouse.url, "s3://lake/shop");
    assert_eq!(config.state_dir(), Path::new("/var/lib/weir/state/shop"));
    assert_eq!(config.warehouse.options["allow_http"], "true");
    assert!(!format!("{config:?}").contains("hush"));
}

#[test]
fn every_documented_key_is_accepted_and_the_idle_ones_warn() {
    let config = with(EVERYTHING, &[]).unwrap();
    let settings = config.table_settings(&TableId::new("shop", "orders"));
    assert_eq!((settings.key, settings.zero_dates), (Some(vec!["id".to_owned()]), ZeroDates::Error));
    assert_eq!(config.transport.options["message.max.bytes"], "1000000");
    assert_eq!(config.trace_path(), Path::new("/var/lib/weir/state/trace.sqlite"));
    assert_eq!(config.apply.index_memory_bytes(), 512 << 20);
    insta::assert_snapshot!(config.warnings().join("\n"), @r"
    source.on_drop has no effect yet
    [[table]] buckets has no effect yet
    ");
}

#[test]
fn row_rules_are_those_of_the_table_and_the_salt_is_a_secret() {
    let rules = "[[table]]\nname = \"shop.t\"\nexclude_columns = [\"a\"]\nhash_columns = [\"b\"]\nmask_columns = { c = \"x\" }\nnull_columns = [\"d\"]\n";
    let config = with(&format!("{MINIMAL}{rules}"), &[("WEIR_HASH_SALT", "hunter2")]).unwrap();
    let rules = config.row_rules();
    let of_t = &rules[&TableId::new("shop", "t")];
    assert_eq!((rules.len(), &of_t.hashed[..], of_t.masked.len()), (1, &["b".to_owned()][..], 2));
    assert_eq!(of_t.salt.0, "hunter2");
    assert!(!format!("{config:?} {rules:?}").contains("hunter2"));
    assert!(with(EVERYTHING, &[]).unwrap().row_rules().is_empty());
}

#[test]
fn where_http_listens_is_loopback_unless_it_is_said() {
    let listen = |text: &str| with(&format!("{MINIMAL}{text}"), &[]).unwrap().http.listen;
    assert_eq!(listen(""), "127.0.0.1:9187");
    for address in ["off", "0.0.0.0:80", "[::1]:0", "weir.example:9187"] {
        assert_eq!(listen(&format!("[http]\nlisten = \"{address}\"\n")), address);
    }
    let of_variable = with(MINIMAL, &[("WEIR_HTTP__LISTEN", "127.0.0.1:0")]).unwrap();
    assert_eq!(of_variable.http.listen, "127.0.0.1:0");
}

#[test]
fn backfills_are_called_by_their_names_or_their_tables() {
    let config = with(EVERYTHING, &[]).unwrap();
    assert_eq!(config.backfill_ids(), ["config-shop-orders-1", "hourly"]);
    let parts = |bound: &Option<KeyBound>| bound.as_ref().map(|bound| bound.parts().to_vec());
    let text = |text: &str| KeyPart::Text(text.into());
    assert_eq!(parts(&config.backfills[0].from), Some(vec![KeyPart::Number(5)]));
    assert_eq!(parts(&config.backfills[0].to), Some(vec![text("9"), KeyPart::Number(1)]));
    let elsewhere = with(&format!("{MINIMAL}[[backfill]]\ntable = \"crm.a\"\ncron = \"0 3 * * *\"\n"), &[]).unwrap();
    assert_eq!(elsewhere.warnings(), ["[[backfill]] crm.a has no effect: source.tables does not match it"]);
}

#[test]
fn mistakes_name_the_key_the_line_and_what_is_allowed() {
    for (addition, line, said) in [
        ("[apply]\ncommit_interval = 5", 6, "apply.commit_interval: unknown field `commit_interval`, expected one of"),
        ("[sink]\nx = 1", 5, "sink: unknown field `sink`, expected one of `source`, `warehouse`"),
        ("[transport]\nkind = \"rabbit\"", 6, "transport.kind: unknown variant `rabbit`, expected `direct` or `kafka`"),
        ("[apply]\n\ncommit_interval_ms = \"1s\"", 7, "apply.commit_interval_ms: a string where it should be u64"),
        ("[apply]\ncommit_interval_ms = 0", 6, "apply.commit_interval_ms must be from 1 to 3600000, and is 0"),
        ("[apply]\nmemory_max = \"1MiB\"", 6, "apply.memory_max must be at least 32.0 MiB, and is 1.0 MiB"),
        ("[transport]\nkind = \"kafka\"\nbrokers = \"h\"", 7, "transport.brokers must be host:port"),
        ("[transport]\nkind = \"kafka\"\npartitions = 0", 7, "transport.partitions must be from 1 to 1024, and is 0"),
        (
            "[trace]\nkind = \"clickhouse\"\nurl = \"tcp://h:9000/weir\"",
            7,
            "trace.url must be http(s)://user@host:port",
        ),
        ("[trace]\nkind = \"mysql\"", 6, "trace.kind: unknown variant `mysql`, expected `sqlite` or `clickhouse`"),
        ("[warehouse]\nurl = \"hdfs://names/lake\"", 6, "warehouse.url has the scheme `hdfs`"),
        ("[warehouse]\nurl = \"s3://key:secret@bucket/lake\"", 6, "warehouse.url must be s3://bucket/prefix"),
        ("[warehouse]\nurl = \"s3:///lake\"", 6, "warehouse.url must be s3://bucket/prefix"),
        (
            "[[table]]\nname = \"shop.a\"\nmode = \"append\"\ndeletes = \"soft\"",
            8,
            "table[0].deletes = \"soft\" contradicts mode = \"append\"",
        ),
        ("[[table]]\nname = \"shop.a\"\nstorage = \"columnar\"", 7, "expected `merge-on-read` or `copy-on-write`"),
        ("[[table]]\nname = \"shop.a\"\ndeletes = \"later\"", 7, "expected `hard` or `soft`"),
        ("[[table]]\nname = \"shop.a\"\npartition_by = [\"week(d)\"]", 7, "is neither a column nor"),
        ("[[table]]\nname = \"shop.a\"\npartition_by = [\"Straße\"]", 7, "letters, digits, _ and -"),
        ("[[table]]\nname = \"shop.a\"\npartition_by = [\"_Weir_d = day(d)\"]", 7, "not begin with _weir"),
        ("[[table]]\nname = \"shop.a\"\npartition_by = [\"D = day(d)\"]", 7, "needs another name"),
        ("[[table]]\nname = \"shop.a\"\npartition_by = [\"d\", \"D\"]", 7, "names `D` twice"),
        ("[[table]]\nname = \"shop.a\"\npartition_by = [\"b = bucket(5000, id)\"]", 7, "from 1 to 4096 buckets"),
        ("[[table]]\nname = \"shop.a\"\n[[table]]\nname = \"shop.a\"", 8, "table[1].name repeats shop.a"),
        ("[[table]]\nname = \"shop.a\"\nkey = []", 7, "table[0].key must name at least one column"),
        ("[[table]]\nname = \"orders\"", 6, "table[0].name: `orders` is not database.table"),
        ("[[table]]\nname = \"shop.a\"\nzero_dates = \"skip\"", 7, "expected `null` or `error`"),
        ("[[backfill]]\ntable = \"shop.a\"\ncron = \"daily\"", 7, "backfill[0].cron must have five fields"),
        ("[[backfill]]\ntable = \"shop.a\"\ncron = \"0 24 * * *\"", 7, "backfill[0].cron must have five fields"),
        ("[[backfill]]\ncron = \"0 3 * * *\"", 5, "backfill[0].table must be set"),
        ("[[backfill]]\ntable = \"shop.a\"\ncron = \"0 3 * * *\"\nfrom = []", 8, "backfill[0].from must have a value"),
        (
            "[[backfill]]\ntable = \"shop.a\"\ncron = \"0 3 * * *\"\nto = 1.5",
            8,
            "a whole number, a string, or an array",
        ),
        ("[[backfill]]\nname = \"a b\"\ntable = \"shop.a\"\ncron = \"0 3 * * *\"", 6, "backfill[0].name must be up to"),
        (
            "[[backfill]]\ntable = \"a-b.c\"\ncron = \"0 3 * * *\"\n[[backfill]]\ntable = \"a.b-c\"\ncron = \"0 3 * * *\"",
            8,
            "backfill[1].name repeats config-a-b-c-1",
        ),
        ("[reconcile]\nhops_every = \"soon\"", 6, "reconcile.hops_every: `soon` is no length of time"),
        ("[reconcile]\ndeep_within = 24", 6, "24 of what?"),
        ("[reconcile]\ndeep_within = \"10ms\"", 6, "reconcile.deep_within must be at least 1s"),
        ("[http]\nlisten = \"9187\"", 6, "http.listen must be host:port"),
        ("[http]\nlisten = \"127.0.0.1:http\"", 6, "http.listen must be host:port"),
        ("[http]\nlisten = \"127.0.0.1:70000\"", 6, "http.listen must be host:port"),
        (
            "[[table]]\nname = \"shop.t\"\nhash_columns = [\"a\"]\nnull_columns = [\"A\"]",
            8,
            "table[0].null_columns names `A`, which another rule names, too",
        ),
        (
            "[[table]]\nname = \"shop.t\"\ninclude_columns = [\"a\"]\nexclude_columns = [\"b\"]",
            8,
            "table[0].exclude_columns contradicts include_columns",
        ),
        (
            "[[table]]\nname = \"shop.t\"\nkey = [\"a\"]\nmask_columns = { A = \"x\" }",
            8,
            "table[0].mask_columns names `A`, which is part of the record key",
        ),
        ("[http]\nport = 9187", 6, "http.port: unknown field `port`, expected `listen`"),
        ("[http\nlisten = 1", 5, "not TOML"),
    ] {
        let text = refusal(&format!("{MINIMAL}{addition}\n"), &[]);
        assert!(text.contains(said), "{addition}\n{text}");
        assert!(text.contains(&format!("weir.toml, line {line}")), "{addition}\n{text}");
    }
}

#[test]
fn what_must_be_set_is_asked_for() {
    for (text, said) in [
        ("", "source.name must be set"),
        ("[source]\nname = \"shop\"", "source.url must be set"),
        ("[source]\nname = \"shop\"\nurl = \"mysql://weir@db\"", "source.tables must be set"),
        ("[source]\nname = \"a.b\"\nurl = \"mysql://weir@db\"", "source.name must be set"),
        ("[source]\nname = \"shop\"\nurl = \"postgres://weir@db\"", "source.url must be mysql://user@host:port"),
        ("[source]\nname = \"shop\"\nurl = \"mysql://weir@db\"\ntables = [\"orders\"]", "source.tables: table pattern"),
    ] {
        let rendered = refusal(text, &[]);
        assert!(rendered.contains(said), "{text}\n{rendered}");
    }
}

#[test]
fn variables_override_keys_of_every_type() {
    let config = with(
        MINIMAL,
        &[
            ("WEIR_SOURCE__URL", "mysql://other@db2:3307"),
            ("WEIR_SOURCE__TABLES", "crm.*, !crm.tmp"),
            ("WEIR_SOURCE__NAME", "7"),
            ("WEIR_APPLY__COMMIT_INTERVAL_MS", "250"),
            ("WEIR_APPLY__MEMORY_MAX", "128MiB"),
            ("WEIR_WAREHOUSE__OPTIONS__AWS_REGION", "eu-1"),
            ("WEIR_WAREHOUSE__URL", "lake"),
            ("WEIR_TEST_MYSQL_URL", "not ours"),
        ],
    )
    .unwrap();
    assert_eq!((config.source.url.expose(), config.source.name.as_str()), ("mysql://other@db2:3307", "7"));
    assert_eq!(config.source.tables, ["crm.*", "!crm.tmp"]);
    assert_eq!((config.apply.commit_interval_ms, config.apply.memory_max), (250, ByteSize::mib(128)));
    assert_eq!(config.warehouse.options["aws_region"], "eu-1");
    assert_eq!(config.warehouse.url, "file:///etc/weir/lake");
}

#[test]
fn variables_alone_are_enough() {
    let environment =
        [("WEIR_SOURCE__NAME", "shop"), ("WEIR_SOURCE__URL", "mysql://w@db"), ("WEIR_SOURCE__TABLES", "[\"shop.*\"]")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weir.toml");
    assert!(Config::load(&file, true, &environment).is_ok());
    let error = Config::load(&file, false, &environment).unwrap_err().render();
    assert!(error.contains("weir init"), "{error}");
}

#[test]
fn a_wrong_variable_is_named() {
    for (variable, value, said) in [
        ("WEIR_APPLY__COMMIT_INTERVAL_MS", "0", "must be from 1 to 3600000"),
        ("WEIR_APPLY__COMMIT_INTERVAL_MS", "soon", "a string where it should be u64"),
        ("WEIR_APPLY__SPEED", "1", "unknown field `speed`"),
        ("WEIR_SNIK__URL", "x", "unknown field `snik`"),
        ("WEIR_TRANSPORT__KIND", "pigeon", "expected `direct` or `kafka`"),
    ] {
        let rendered = refusal(MINIMAL, &[(variable, value)]);
        assert!(rendered.contains(said) && rendered.contains(&format!("variable {variable}")), "{rendered}");
    }
}

#[test]
fn the_password_comes_from_the_variable_the_file_or_the_url() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "from file\n").unwrap();
    let text = format!("{MINIMAL}password_file = \"{}\"\n", folder.path().join("password").display());
    let password = |text: &str, environment: &[(&str, &str)]| {
        with(text, environment).unwrap().source.password.map(|password| password.expose().to_owned())
    };
    assert_eq!(password(&text, &[]).as_deref(), Some("from file"));
    assert_eq!(password(&text, &[("WEIR_SOURCE_PASSWORD", "from variable")]).as_deref(), Some("from variable"));
    assert_eq!(password(MINIMAL, &[]), None);
    let both = text.replace("weir@db", "weir:secret@db");
    let rendered = refusal(&both, &[]);
    assert!(rendered.contains("source.password_file and the url both give a password"), "{rendered}");
}

#[test]
fn the_trace_server_takes_its_password_from_the_variable_or_the_url() {
    let text = format!("{MINIMAL}[trace]\nkind = \"clickhouse\"\nurl = \"http://weir:from%20url@trace:8123\"\n");
    let password = |environment| with(&text, environment).unwrap().trace_server().unwrap().password.expose().to_owned();
    assert_eq!(password(&[]), "from url");
    assert_eq!(password(&[("WEIR_TRACE_PASSWORD", "from variable")]), "from variable");
    // The url of a kind that is not chosen is not looked at.
    assert!(with(&format!("{MINIMAL}[trace]\nurl = \"nonsense\"\n"), &[]).is_ok());
}

#[test]
fn no_password_is_ever_shown() {
    let text = EVERYTHING
        .replace("weir@", "weir:hunter2@")
        .replace("\"ssl\"", "\"hunter2\"")
        .replace("http://", "http://weir:hunter2@")
        .replace("\"sqlite\"", "\"clickhouse\"");
    let config = with(&text, &[("WEIR_SOURCE_PASSWORD", "hunter2"), ("WEIR_TRACE_PASSWORD", "hunter2")]).unwrap();
    let shown = format!("{config:?} {} {:?}", config.source.url, config.source_options().unwrap());
    let shown = format!("{shown} {:?}", config.trace_server().unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
    for wrong in ["[trace]\nurl = 5 hunter2", "[warehouse]\noptions = \"hunter2\"", "[apply]\nmemory_max = \"hunter2\""]
    {
        let rendered = refusal(&format!("{MINIMAL}{wrong}\n"), &[]);
        assert!(!rendered.contains("hunter2"), "{rendered}");
    }
    let rendered = refusal(&text.replace("mysql://weir:", "mariadb://weir:"), &[]);
    assert!(!rendered.contains("hunter2"), "{rendered}");
}
