//! What the command line takes, and which rows it means.

use clap::Parser;
use serde_json::json;
use weir_model::{Column, ColumnType, Layout, TableSchema};

use super::*;
use crate::cli::{Cli, Command};

fn parsed(arguments: &[&str]) -> Result<Backfill, String> {
    let all = ["weir", "backfill"].iter().chain(arguments);
    let cli = Cli::try_parse_from(all).map_err(|error| error.to_string())?;
    match cli.command {
        Command::Backfill(backfill) => Ok(backfill),
        other => Err(format!("{other:?}")),
    }
}

fn by_region_and_id() -> TableDescription {
    let column = |name: &str, ty| Column { name: name.into(), ty, nullable: false };
    TableDescription::plain(TableSchema {
        table: TableId::new("shop", "orders"),
        columns: vec![column("region", ColumnType::Text), column("id", ColumnType::Int32)],
        key: vec![0, 1],
        layout: Layout::default(),
    })
}

fn range(arguments: &[&str]) -> Result<Scope, Error> {
    let table = ["--table", "shop.orders"].iter().chain(arguments).copied().collect::<Vec<_>>();
    parsed(&table).unwrap().ask.range.scope(&by_region_and_id())
}

#[test]
fn a_backfill_is_asked_for_listed_or_cancelled() {
    let asked = parsed(&["--table", "shop.orders", "--from", "-5", "--to", "9", "--wait", "--format", "json"]).unwrap();
    assert_eq!(asked.ask.table, Some(TableId::new("shop", "orders")));
    assert_eq!((asked.ask.range.from.as_deref(), asked.ask.range.to.as_deref()), (Some("-5"), Some("9")));
    assert!(asked.ask.wait && asked.ask.output.is_json() && asked.action.is_none());
    assert!(matches!(parsed(&["list", "--format", "json"]).unwrap().action, Some(Action::List { .. })));
    assert!(matches!(parsed(&["--config", "w.toml", "list"]).unwrap().action, Some(Action::List { .. })));
    let cancel = parsed(&["cancel", "20261121T030000123Z-5f0c9a1b"]).unwrap();
    assert!(matches!(cancel.action, Some(Action::Cancel { .. })));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (arguments, said) in [
        (&[][..], "--table"),
        (&["--table", "orders"], "not database.table"),
        (&["--table", "shop.orders", "--key", "5", "--from", "4"], "cannot be used with"),
        (&["--table", "shop.orders", "--keys-file", "k", "--to", "4"], "cannot be used with"),
        (&["cancel"], "<ID>"),
        (&["cancel", "../x"], "no id of a job"),
        (&["list", "--format", "xml"], "possible values"),
    ] {
        let error = parsed(arguments).expect_err("it is refused");
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
}

#[test]
fn ends_of_a_range_are_plain_values_arrays_or_objects() {
    let bound = |values: Value| Some(Bound(values.as_array().unwrap().clone()));
    assert_eq!(range(&[]).unwrap(), Scope::All);
    let scope = range(&["--from", "north", "--to", "[\"south\", \"7\"]"]).unwrap();
    assert_eq!(scope, Scope::Range { from: bound(json!(["north"])), to: bound(json!(["south", 7])) });
    let scope = range(&["--to", "{\"region\": \"north\", \"id\": 7}"]).unwrap();
    assert_eq!(scope, Scope::Range { from: None, to: bound(json!(["north", 7])) });
    let error = range(&["--to", "[\"secret\", \"seven\"]"]).unwrap_err();
    assert_eq!(error.exit(), Exit::Usage);
    let text = error.render();
    assert!(text.contains("--to") && text.contains("column id") && !text.contains("secret"), "{text}");
}

#[test]
fn keys_come_from_the_command_line_and_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.jsonl");
    std::fs::write(&file, "[\"a\", 1]\n\n{\"id\": 2, \"region\": \"b\"}\n").unwrap();
    let table = by_region_and_id();
    let keys = ["[\"c\", 3]".to_owned()];
    let scope = keys_scope(&table, &keys, Some(&file)).unwrap();
    let bound = |values: [Value; 2]| Bound(values.to_vec());
    let expected = vec![bound([json!("c"), json!(3)]), bound([json!("a"), json!(1)]), bound([json!("b"), json!(2)])];
    assert_eq!(scope, Scope::Keys(expected));
}

#[test]
fn a_key_that_is_none_is_named_by_its_place_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.jsonl");
    let table = by_region_and_id();
    for (content, said) in [
        ("[\"a\", 1]\n[\"secret\"]\n", "keys.jsonl, line 2"),
        ("[\"secret\", \"x\"]\n", "column id"),
        ("secret\n", "not JSON"),
        ("\n", "--keys-file"),
    ] {
        std::fs::write(&file, content).unwrap();
        let error = keys_scope(&table, &[], Some(&file)).unwrap_err();
        let text = error.render();
        assert_eq!(error.exit(), Exit::Usage, "{text}");
        assert!(text.contains(said) && !text.contains("secret"), "{text}");
    }
    let text = keys_scope(&table, &["secret".to_owned()], None).unwrap_err().render();
    assert!(text.contains("--key") && text.contains("(region, id)") && !text.contains("secret"), "{text}");
    std::fs::write(&file, "[\"a\", 1]\n".repeat(BACKFILL_KEYS_MAX + 1)).unwrap();
    let text = keys_scope(&table, &[], Some(&file)).unwrap_err().render();
    assert!(text.contains("10001 keys"), "{text}");
}
