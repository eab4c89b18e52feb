//! Which settings can change while a service runs, and that all or none of them do.

use std::collections::BTreeMap;
use std::path::Path;

use weir_model::TableId;

use super::{ReloadPlan, plan};
use crate::config::Config;

const BASE: &str = r#"
[source]
name = "shop"
url = "mysql://weir:one@db:3306"
tables = ["shop.*"]

[warehouse]
url = "s3://lake/shop"
options = { region = "eu", access_key_id = "a" }

[transport]
kind = "kafka"
brokers = "b:9092"

[trace]
kind = "clickhouse"
url = "http://u:p@t:8123/weir"

[[table]]
name = "shop.orders"
deletes = "soft"
"#;

fn config(text: &str) -> Config {
    Config::parse("weir.toml", text, Path::new("/etc/weir"), &BTreeMap::new()).expect("a sound configuration")
}

/// The plan for [`BASE`] with `from` replaced, of a service that follows `shop.orders` and `shop.items`.
fn changed(from: &str, to: &str) -> ReloadPlan {
    assert!(BASE.contains(from), "{from}");
    let followed = ["orders", "items"].map(|name| TableId::new("shop", name));
    plan(&config(BASE), &config(&BASE.replacen(from, to, 1)), |table| followed.contains(table))
}

/// [`changed`] by sections that are added.
fn added(sections: &str) -> ReloadPlan {
    changed("deletes = \"soft\"\n", &format!("deletes = \"soft\"\n{sections}"))
}

fn apply(names: &[&str]) -> ReloadPlan {
    ReloadPlan::Apply(names.iter().map(ToString::to_string).collect())
}

fn refused(names: &[&str]) -> ReloadPlan {
    ReloadPlan::Refused(names.iter().map(ToString::to_string).collect())
}

#[test]
fn what_says_the_same_in_other_words_is_unchanged() {
    assert_eq!(changed("[warehouse]", "# the lake\n[warehouse]"), ReloadPlan::Unchanged);
    assert_eq!(added("[apply]\ncommit_interval_ms = 1000\n"), ReloadPlan::Unchanged);
    // Without a rule a table is kept as by an empty one.
    assert_eq!(added("[[table]]\nname = \"shop.items\"\n"), ReloadPlan::Unchanged);
}

#[test]
fn what_can_change_does_and_is_named() {
    for (from, to, names) in [
        ("[\"shop.*\"]", "[\"shop.*\", \"!shop.items\"]", &["source.tables"][..]),
        ("weir:one@db", "weir:two@db", &["source.url"]),
        ("weir:one@db", "weir:one@replica", &["source.url"]),
        ("access_key_id = \"a\"", "access_key_id = \"b\"", &["warehouse.options.access_key_id"]),
        ("u:p@t", "u:q@t", &["the login of trace.url"]),
        (
            "[warehouse]",
            "max_connections = 2\non_truncate = \"keep\"\n[warehouse]",
            &["source.max_connections", "source.on_truncate"],
        ),
    ] {
        assert_eq!(changed(from, to), apply(names), "{to}");
    }
    let sections = "[apply]\ncommit_interval_ms = 50\nmemory_max = \"64MiB\"\nindex_memory_max = \"2GiB\"\n\
                    [reconcile]\nhops_every = \"2s\"\ndeep_within = \"1h\"\n\
                    [[backfill]]\ntable = \"shop.orders\"\ncron = \"0 3 * * *\"\n";
    let names = [
        "apply.commit_interval_ms",
        "apply.memory_max",
        "apply.index_memory_max",
        "reconcile.hops_every",
        "reconcile.deep_within",
        "[[backfill]]",
    ];
    assert_eq!(added(sections), apply(&names));
}

#[test]
fn what_cannot_change_is_named_and_nothing_else_changes_with_it() {
    for (from, to, name) in [
        ("name = \"shop\"", "name = \"market\"", "source.name"),
        ("s3://lake/shop", "s3://lake/other", "warehouse.url"),
        ("region = \"eu\"", "region = \"us\"", "warehouse.options.region"),
        ("b:9092", "c:9092", "transport.brokers"),
        ("t:8123/weir", "t:8123/other", "trace.url"),
        ("deletes = \"soft\"", "deletes = \"hard\"", "[[table]] shop.orders: deletes"),
        ("deletes = \"soft\"", "deletes = \"soft\"\nbuckets = 9", "[[table]] shop.orders: buckets"),
    ] {
        assert_eq!(changed(from, to), refused(&[name]), "{to}");
    }
    let sections = "[http]\nlisten = \"127.0.0.1:1\"\n[apply]\ncommit_interval_ms = 50\nstate_dir = \"/elsewhere\"\n";
    assert_eq!(added(sections), refused(&["apply.state_dir", "http.listen"]));
}

#[test]
fn settings_of_a_kind_that_is_not_chosen_say_nothing() {
    let direct = BASE.replace("\"kafka\"", "\"direct\"").replace("\"clickhouse\"", "\"sqlite\"");
    let other = direct.replace("b:9092", "c:9092").replace("t:8123", "u:8123");
    assert_eq!(plan(&config(&direct), &config(&other), |_| true), ReloadPlan::Unchanged);
}

#[test]
fn how_a_table_is_kept_is_fixed_once_the_lake_has_it() {
    // One that appears later, or is taken in by this very change, can be kept in any way.
    let new = "[[table]]\nname = \"shop.new\"\nmode = \"append\"\n";
    assert_eq!(added(new), apply(&["[[table]] shop.new: mode"]));
    let items = "[[table]]\nname = \"shop.items\"\nmode = \"append\"\n";
    assert_eq!(added(items), refused(&["[[table]] shop.items: mode"]));
    // One that is left out is not kept any more.
    let text = BASE.replace("\"shop.*\"", "\"shop.*\", \"!shop.orders\"").replace("deletes = \"soft\"", "");
    let without = plan(&config(BASE), &config(&text), |_| true);
    assert_eq!(without, apply(&["source.tables", "[[table]] shop.orders: deletes"]));
}

#[test]
fn row_rules_of_a_table_that_the_lake_has_can_change() {
    let rules = "hash_columns = [\"email\"]\nnull_columns = [\"born\"]\n";
    let names = ["[[table]] shop.orders: hash_columns", "[[table]] shop.orders: null_columns"];
    assert_eq!(added(rules), apply(&names));
}

#[test]
fn a_password_counts_wherever_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    let base = BASE.replace("weir:one@", "weir@");
    let text = base.replacen("[warehouse]", &format!("password_file = \"{}\"\n[warehouse]", file.display()), 1);
    std::fs::write(&file, "one").unwrap();
    let before = config(&text);
    assert_eq!(plan(&before, &config(&text), |_| true), ReloadPlan::Unchanged);
    std::fs::write(&file, "two").unwrap();
    assert_eq!(plan(&before, &config(&text), |_| true), apply(&["source.password"]));
}
