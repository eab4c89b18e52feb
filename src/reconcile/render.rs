//! A report as text for people: Markdown for tickets, HTML for mail and archives. The terminal's table is the command's.

use std::fmt::Write;

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

/// A line for every equation that does not hold and every notice.
pub fn remarks(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    for table in &report.tables {
        for unbalanced in &table.unbalanced {
            let [earlier, later] = unbalanced.between;
            let (window, op, count) = (&unbalanced.window, unbalanced.op, unbalanced.count);
            lines.push(format!("{}: {earlier} and {later} differ by {count} in window {window}, op {op}", table.table));
        }
        lines.extend(table.notices.iter().map(|notice| format!("{}: {notice}", table.table)));
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
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n<style>{STYLE}</style></head>\n\
         <body><h1 class=\"{}\">{title}</h1>\n<p>At {}, position <code>{}</code></p>\n<table><thead><tr>",
        report.verdict.name(),
        report.at,
        report.position
    );
    for name in COLUMNS {
        let _ = write!(text, "<th>{name}</th>");
    }
    text.push_str("</tr></thead><tbody>\n");
    for table in &report.tables {
        let _ = write!(text, "<tr class=\"{}\">", table.verdict.name());
        for cell in cells(table) {
            let _ = write!(text, "<td>{}</td>", escape_html(&cell));
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody></table>\n<ul>\n");
    for remark in remarks(report) {
        let _ = writeln!(text, "<li>{}</li>", escape_html(&remark));
    }
    text.push_str("</ul></body></html>\n");
    text
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
        let facts = TableFacts { table, reach: Reach::Behind(2), counts: tally.counts(), open: Default::default() };
        report(Facts { source: "shop".into(), tables: vec![facts], ..Facts::default() })
    }

    #[test]
    fn markdown_names_what_is_missing_and_where() {
        insta::assert_snapshot!(markdown(&sample()), @r"
        # shop: different

        At 1970-01-01T00:00:00Z, position ``.

        | table | verdict | captured | filtered | published | consumed | upserted | deleted | duplicate | superseded | stale | chunk rows | chunk upserted | chunk stale | removed |
        | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
        | shop.<a\|b> | different | 1 | 0 | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |

        - shop.<a\|b>: published and consumed differ by 1 in window 1970-01-01T00:00:00Z, op d
        - shop.<a\|b>: 2 transaction(s) of the source are not in yet
        ");
    }

    #[test]
    fn html_escapes_names_and_needs_nothing_else() {
        let page = html(&sample());
        assert!(page.contains("shop.&lt;a|b&gt;") && !page.contains("<a|b>"), "{page}");
        assert!(!page.contains("http"), "{page}");
    }
}
