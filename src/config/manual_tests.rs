//! docs/settings.md against the settings themselves: it lists every key and no other, its defaults are the real ones, and
//! what it calls allowed is accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Config;

/// A line of one of the page's tables.
struct Row {
    /// The heading above: `[source]`, or `[[table]]` of a section that may stand several times.
    section: &'static str,
    key: &'static str,
    default: &'static str,
    values: &'static str,
    a_change_takes: &'static str,
}

impl Row {
    fn name(&self) -> String {
        format!("{} {}", self.section, self.key)
    }

    /// The default as TOML; none where the page says that nothing is set, or that something has to be.
    fn default_literal(&self) -> Option<&'static str> {
        literals(self.default).first().copied()
    }

    /// Both ends of `from` `to` `to`, where values are given by them.
    fn range(&self) -> Option<(i64, i64)> {
        let (from, to) = self.values.split_once("` to `")?;
        Some((from.trim_start_matches('`').parse().ok()?, to.split('`').next()?.parse().ok()?))
    }
}

const PAGE: &str = include_str!("../../docs/settings.md");
const COLUMNS: &str = "| key | default | values | is | a change takes |";

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let (mut section, mut lines) = ("", PAGE.lines());
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_prefix("## `") {
            section = heading.trim_end_matches('`');
        }
        if line != COLUMNS {
            continue;
        }
        for line in lines.by_ref().skip(1).take_while(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = line.trim_matches(['|', ' ']).split(" | ").collect();
            let [key, default, values, _, a_change_takes] = cells[..] else { panic!("five columns: {line}") };
            rows.push(Row { section, key: key.trim_matches('`'), default, values, a_change_takes });
        }
    }
    rows
}

/// What stands in backticks.
fn literals(text: &'static str) -> Vec<&'static str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn value(literal: &str) -> Option<toml::Value> {
    format!("value = {literal}").parse::<toml::Table>().ok()?.remove("value")
}

/// Everything that is required, a table and a backfill, and the kinds of transport and trace whose settings count.
const BASE: &str = r#"
[source]
name = "shop"
url = "mysql://weir@db:3306"
tables = ["shop.*"]
[warehouse]
[transport]
kind = "kafka"
[trace]
kind = "clickhouse"
[apply]
[reconcile]
[http]
[[table]]
name = "shop.orders"
[[backfill]]
table = "shop.orders"
cron = "0 3 * * *"
"#;

/// [`BASE`] with one key of a section set to a value, or without it.
fn with(section: &str, key: &str, value: Option<toml::Value>) -> Result<Config, String> {
    let mut document: toml::Table = BASE.parse().unwrap();
    let within = &mut document[section.trim_matches(['[', ']'])];
    let within = if section.starts_with("[[") { &mut within[0] } else { within };
    match value {
        Some(value) => within.as_table_mut().unwrap().insert(key.to_owned(), value),
        None => within.as_table_mut().unwrap().remove(key),
    };
    let text = toml::to_string(&document).unwrap();
    Config::parse("weir.toml", &text, Path::new("/etc/weir"), &BTreeMap::new()).map_err(|error| error.render())
}

/// What an error says would be accepted: the names in backticks behind `expected`.
fn expected(error: &str) -> BTreeSet<&str> {
    let named = error.split_once("expected ").map_or("", |(_, named)| named.lines().next().unwrap_or_default());
    named.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_page_has_every_key_and_no_other() {
    let rows = rows();
    let sections: BTreeSet<&str> = rows.iter().map(|row| row.section).collect();
    let names: BTreeSet<&str> = sections.iter().map(|section| section.trim_matches(['[', ']'])).collect();
    let unknown = Config::parse("weir.toml", "[nonsense]", Path::new("/"), &BTreeMap::new()).unwrap_err().render();
    assert_eq!(names, expected(&unknown), "sections of docs/settings.md, and those there are");
    for section in sections {
        let of_page: Vec<&str> = rows.iter().filter(|row| row.section == section).map(|row| row.key).collect();
        let unknown = with(section, "nonsense", Some(1.into())).unwrap_err();
        let of_code = expected(&unknown);
        assert_eq!(
            of_page.iter().copied().collect::<BTreeSet<_>>(),
            of_code,
            "{section}: docs/settings.md, and the code"
        );
        assert_eq!(of_page.len(), of_code.len(), "{section} of docs/settings.md has a key twice");
    }
}

#[test]
fn defaults_of_the_page_are_those_of_the_program() {
    for row in rows() {
        let set = |value| with(row.section, row.key, value);
        let left_out = set(None);
        match (row.default, row.default_literal()) {
            ("required", _) => {
                let Err(refusal) = left_out else { panic!("{} is not required", row.name()) };
                assert!(refusal.contains(row.key), "{}: {refusal}", row.name());
            }
            ("none", _) => {
                let shown = format!("{:?}", left_out.unwrap());
                assert!(shown.contains(&format!("{}: None", row.key)), "{} has a default", row.name());
            }
            (_, Some(literal)) => {
                // A default that is set changes nothing, and anything else does.
                let shown = |config: Result<Config, String>| format!("{:?}", config.unwrap());
                let (left_out, as_told) = (shown(left_out), shown(set(value(literal))));
                assert_eq!(as_told, left_out, "the default of {} is not {literal}", row.name());
                let others = literals(row.values).into_iter().filter(|other| *other != literal);
                let others: Vec<&str> = others.filter(|other| value(other).is_some()).collect();
                assert!(!others.is_empty(), "{} has no other value than its default", row.name());
                for other in others {
                    assert_ne!(shown(set(value(other))), left_out, "{} = {other} is as good as unset", row.name());
                }
            }
            (other, None) => panic!("{}: `{other}` is no default", row.name()),
        }
    }
}

#[test]
fn values_of_the_page_are_accepted_and_choices_are_whole() {
    for row in rows() {
        let set = |value: toml::Value| with(row.section, row.key, Some(value));
        for literal in literals(row.values) {
            // What is no TOML is a word about the values.
            let Some(value) = value(literal) else { continue };
            set(value).unwrap_or_else(|refusal| panic!("{} = {literal}: {refusal}", row.name()));
        }
        if let Some((from, to)) = row.range() {
            for beyond in [from - 1, to + 1] {
                assert!(set(beyond.into()).is_err(), "{} = {beyond} is beyond what the page allows", row.name());
            }
        }
        if let Err(refusal) = set("nonsense".into())
            && refusal.contains("unknown variant")
        {
            let told: BTreeSet<&str> = literals(row.values).into_iter().map(|value| value.trim_matches('"')).collect();
            assert_eq!(told, expected(&refusal), "{}: docs/settings.md, and what there is", row.name());
        }
        assert!(!row.a_change_takes.is_empty(), "{}", row.name());
    }
}
