//! A report as text for people: Markdown for tickets, HTML for mail and archives. The terminal's table is the command's.

use std::fmt::Write;

use super::chart;
use super::deep::{DeepReport, ShownKey};
use super::report::{Report, TableReport};

/// The columns of the tables below and of the terminal's: hops, then the rows of chunks.
pub const COLUMNS: [&str; 15] = [
    "table",
    "verdict",
    "captured",
    "filtered",
    "published",
    "consumed",
    "upserted",
    "deleted",
    "duplicate",
    "superseded",
    "stale",
    "chunk rows",
    "chunk upserted",
    "chunk stale",
    "removed",
];

/// One table's cells under [`COLUMNS`].
pub fn cells(table: &TableReport) -> Vec<String> {
    let chunk = |name| table.chunks.0.iter().find(|(n, _)| *n == name).map_or(0, |(_, count)| *count);
    let hops = table.hops.0.iter().map(|(_, count)| count.to_string());
    let chunks = ["read", "upserted", "stale", "removed"].map(|name| chunk(name).to_string());
    [table.table.to_string(), table.verdict.name().to_owned()].into_iter().chain(hops).chain(chunks).collect()
}

/// The columns of a second table, of rows that were compared with the source's.
pub const DEEP_COLUMNS: [&str; 9] = [
    "table",
    "rows at the source",
    "rows in the lake",
    "missing",
    "extra",
    "different",
    "in flight",
    "looked at again",
    "ranges",
];

/// The cells of every table that was compared, under [`DEEP_COLUMNS`]; empty if none was.
pub fn deep_rows(report: &Report) -> Vec<Vec<String>> {
    let compared = report.tables.iter().filter_map(|table| Some((table, table.deep.as_ref()?)));
    let compared = compared.filter(|(_, deep)| deep.not_compared.is_none());
    compared.map(|(table, deep)| deep_cells(&table.table.to_string(), deep)).collect()
}

fn deep_cells(table: &str, deep: &DeepReport) -> Vec<String> {
    let ranges = format!("{} of {}", deep.ranges_compared, deep.ranges);
    let counts = [
        deep.rows_source,
        deep.rows_table,
        deep.missing_count,
        deep.extra_count,
        deep.different_count,
        deep.in_flight_count + deep.unconfirmed_count,
        deep.rechecked,
    ];
    let counts = counts.iter().map(u64::to_string);
    [table.to_owned()].into_iter().chain(counts).chain([ranges]).collect()
}

/// Keys of a kind that people are shown; programs are shown more.
const KEYS_SHOWN: usize = 20;

fn key_remarks(table: &TableReport) -> Vec<String> {
    let Some(deep) = &table.deep else { return Vec::new() };
    let kinds: [(&str, &[ShownKey], u64); 3] = [
        ("missing in the lake", &deep.missing, deep.missing_count),
        ("not at the source", &deep.extra, deep.extra_count),
        ("different", &deep.different, deep.different_count),
    ];
    let mut lines = Vec::new();
    for (what, keys, count) in kinds {
        let key = |key: &ShownKey| format!("{}: {what}: {key}", table.table);
        lines.extend(keys.iter().take(KEYS_SHOWN).map(key));
        if count > keys.len().min(KEYS_SHOWN) as u64 {
            let more = count - keys.len().min(KEYS_SHOWN) as u64;
            lines.push(format!("{}: {what}: {more} more", table.table));
        }
    }
    lines
}

/// A line for every equation that does not hold, every notice, and keys that differ.
pub fn remarks(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    for table in &report.tables {
        for unbalanced in &table.unbalanced {
            let [earlier, later] = unbalanced.between;
            let (window, op, count) = (&unbalanced.window, unbalanced.op, unbalanced.count);
            lines.push(format!("{}: {earlier} and {later} differ by {count} in window {window}, op {op}", table.table));
        }
        lines.extend(table.notices.iter().map(|notice| format!("{}: {notice}", table.table)));
        lines.extend(
            table.verified_through.iter().map(|through| format!("{}: verified through {through}", table.table)),
        );
        lines.extend(key_remarks(table));
    }
    lines
}

pub fn markdown(report: &Report) -> String {
    let escape = |text: &str| text.replace('|', "\\|");
    let mut text = format!("# {}: {}\n\n", escape(&report.source), report.verdict.name());
    let _ = writeln!(text, "At {}, position `{}`.\n", report.at, report.position);
    let row = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    text.push_str(&row(&COLUMNS.map(str::to_owned)));
    text.push_str(&row(
        &COLUMNS.map(|name| if matches!(name, "table" | "verdict") { "---" } else { "---:" }.to_owned())
    ));
    for table in &report.tables {
        text.push_str(&row(&cells(table).iter().map(|cell| escape(cell)).collect::<Vec<_>>()));
    }
    let deep = deep_rows(report);
    if !deep.is_empty() {
        text.push('\n');
        text.push_str(&row(&DEEP_COLUMNS.map(str::to_owned)));
        text.push_str(&row(&DEEP_COLUMNS.map(|name| if name == "table" { "---" } else { "---:" }.to_owned())));
        for cells in deep {
            text.push_str(&row(&cells.iter().map(|cell| escape(cell)).collect::<Vec<_>>()));
        }
    }
    let remarks = remarks(report);
    if !remarks.is_empty() {
        text.push('\n');
    }
    for remark in remarks {
        let _ = writeln!(text, "- {}", escape(&remark));
    }
    text
}

/// A page that needs nothing else.
pub fn html(report: &Report) -> String {
    let title = format!("{}: {}", escape_html(&report.source), report.verdict.name());
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n<style>{STYLE}{}</style></head>\n\
         <body><h1 class=\"{}\">{title}</h1>\n<p>At {}, position <code>{}</code></p>\n",
        chart::STYLE,
        report.verdict.name(),
        report.at,
        report.position
    );
    push_charts(&mut text, report);
    html_table(&mut text, &COLUMNS, report.tables.iter().map(|table| (table.verdict.name(), cells(table))));
    let deep = deep_rows(report);
    if !deep.is_empty() {
        html_table(&mut text, &DEEP_COLUMNS, deep.into_iter().map(|cells| ("", cells)));
    }
    text.push_str("<ul>\n");
    for remark in remarks(report) {
        let _ = writeln!(text, "<li>{}</li>", escape_html(&remark));
    }
    text.push_str("</ul></body></html>\n");
    text
}

/// What was captured on all tables, and on each where there are several.
fn push_charts(text: &mut String, report: &Report) {
    let unbalanced = |tables: &[TableReport]| -> Vec<String> {
        tables.iter().flat_map(|table| &table.unbalanced).map(|unbalanced| unbalanced.window.clone()).collect()
    };
    let mut push = |name: &str, tables: &[TableReport]| {
        let windows = unbalanced(tables);
        let windows: Vec<&str> = windows.iter().map(String::as_str).collect();
        let picture = chart::svg(&chart::together(tables.iter().map(|table| &table.days)), &windows);
        if !picture.is_empty() {
            let _ = write!(text, "<details open><summary>{}</summary>\n{picture}</details>\n", escape_html(name));
        }
    };
    push("changes captured: inserts, updates, deletes", &report.tables);
    if report.tables.len() > 1 {
        for table in &report.tables {
            push(&table.table.to_string(), std::slice::from_ref(table));
        }
    }
}

/// Rows are a class and cells.
fn html_table<'a>(text: &mut String, header: &[&str], rows: impl Iterator<Item = (&'a str, Vec<String>)>) {
    text.push_str("<table><thead><tr>");
    for name in header {
        let _ = write!(text, "<th>{name}</th>");
    }
    text.push_str("</tr></thead><tbody>\n");
    for (class, cells) in rows {
        let _ = write!(text, "<tr class=\"{class}\">");
        for cell in cells {
            let _ = write!(text, "<td>{}</td>", escape_html(&cell));
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody></table>\n");
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2em;color-scheme:light dark}\
table{border-collapse:collapse}th,td{padding:.3em .7em;border-bottom:1px solid #8886;text-align:right}\
th:first-child,td:first-child{text-align:left}h1.different,tr.different{color:#c62828}\
h1.in_flight,tr.in_flight{color:#b26a00}h1.balanced{color:#2e7d32}";

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use weir_model::{EventId, Op, TableId, Window};

    use super::*;
    use crate::reconcile::report::{Facts, Reach, TableFacts, report};
    use crate::trace::{Hop, Tally};

    fn sample() -> Report {
        let mut tally = Tally::default();
        for hop in [Hop::Captured, Hop::Published] {
            tally.event(hop, Op::Delete, Window(0), EventId(1));
        }
        let table = TableId::new("shop", "<a|b>");
        let deep = DeepReport {
            rows_source: 7,
            rows_table: 6,
            missing_count: 2,
            missing: vec![ShownKey(vec![("id".into(), 5.into()), ("code".into(), "a|<b>".into())])],
            ranges: 3,
            ranges_compared: 3,
            ..DeepReport::default()
        };
        let (counts, open) = (tally.counts(), Default::default());
        let facts = TableFacts {
            table,
            reach: Reach::Behind(Some(2)),
            counts,
            open,
            lost: None,
            deep: Some(deep),
            proof: None,
            repairs: Vec::new(),
        };
        report(Facts { source: "shop".into(), tables: vec![facts], ..Facts::default() })
    }

    #[test]
    fn markdown_names_what_is_missing_and_where() {
        insta::assert_snapshot!(markdown(&sample()), @r#"
        # shop: different

        At 1970-01-01T00:00:00Z, position ``.

        | table | verdict | captured | filtered | published | consumed | upserted | deleted | duplicate | superseded | stale | chunk rows | chunk upserted | chunk stale | removed |
        | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
        | shop.<a\|b> | different | 1 | 0 | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |

        | table | rows at the source | rows in the lake | missing | extra | different | in flight | looked at again | ranges |
        | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
        | shop.<a\|b> | 7 | 6 | 2 | 0 | 0 | 0 | 0 | 3 of 3 |

        - shop.<a\|b>: published and consumed differ by 1 in window 1970-01-01T00:00:00Z, op d
        - shop.<a\|b>: 2 transaction(s) of the source are not in yet
        - shop.<a\|b>: missing in the lake: {"id":5,"code":"a\|<b>"}
        - shop.<a\|b>: missing in the lake: 1 more
        "#);
    }

    #[test]
    fn html_escapes_names_and_needs_nothing_else() {
        let page = html(&sample());
        assert!(page.contains("shop.&lt;a|b&gt;") && !page.contains("<a|b>"), "{page}");
        assert!(page.contains("a|&lt;b&gt;") && !page.contains("<b>"), "{page}");
        assert!(page.contains("<title>1970-01-01: 0 inserts, 0 updates, 1 deletes</title>"), "{page}");
        assert!(!page.contains("http"), "{page}");
    }
}
