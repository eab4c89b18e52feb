//! The report for people: as a table, as Markdown, as a page. Pure.

use comfy_table::Table;
use comfy_table::presets::{ASCII_MARKDOWN, NOTHING};

use super::{Report, TableReport, Verdict};

const HEADER: [&str; 12] = [
    "table", "verdict", "captured", "published", "consumed", "upserted", "deleted", "superseded", "duplicate", "stale",
    "chunk rows", "removed",
];

/// The word for a verdict.
pub fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Balanced => "balanced",
        Verdict::InFlight => "in_flight",
        Verdict::Different => "different",
    }
}

/// For a terminal.
pub fn text(report: &Report) -> String {
    let mut table = filled(report);
    table.load_preset(NOTHING);
    format!("{}\n{table}\n{}verdict  {}", head(report), remarks(report, ""), word(report.verdict))
}

/// Markdown.
pub fn markdown(report: &Report) -> String {
    let mut table = filled(report);
    table.load_preset(ASCII_MARKDOWN);
    format!("# {}\n\nVerdict: **{}**\n\n{table}\n\n{}", head(report), word(report.verdict), remarks(report, "- "))
}

/// A page that needs nothing else.
pub fn html(report: &Report) -> String {
    let cell = |tag: &str, text: &str| format!("<{tag}>{}</{tag}>", escaped(text));
    let head_row: String = HEADER.iter().map(|name| cell("th", name)).collect();
    let rows: String = report
        .tables
        .iter()
        .map(|table| {
            let cells: String = row(table).iter().map(|text| cell("td", text)).collect();
            format!("<tr class=\"{}\">{cells}</tr>", word(table.verdict))
        })
        .collect();
    let remarks: String = remarks(report, "").lines().map(|line| cell("li", line)).collect();
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>weir: {title}</title>\
         <style>body{{font:14px system-ui;margin:2em}}table{{border-collapse:collapse}}\
         th,td{{padding:.3em .8em;border-bottom:1px solid #ccc;text-align:right}}\
         th:first-child,td:first-child{{text-align:left}}.different td{{background:#fdd}}.in_flight td{{background:#ffd}}\
         </style><h1>{title}</h1><p>Verdict: <strong>{verdict}</strong></p>\
         <table><tr>{head_row}</tr>{rows}</table><ul>{remarks}</ul></html>",
        title = escaped(&head(report)),
        verdict = word(report.verdict),
    )
}

fn head(report: &Report) -> String {
    format!("source {} at {}, position {}", report.source, report.at, report.position)
}

fn filled(report: &Report) -> Table {
    let mut table = Table::new();
    table.set_header(HEADER);
    for line in &report.tables {
        table.add_row(row(line));
    }
    table
}

fn row(table: &TableReport) -> Vec<String> {
    let hops = &table.hops;
    let numbers = [
        hops.captured,
        hops.published,
        hops.consumed,
        hops.upserted,
        hops.deleted,
        hops.superseded,
        hops.duplicate,
        hops.stale,
        table.chunks.read,
        table.chunks.removed,
    ];
    [table.table.to_string(), word(table.verdict).to_owned()]
        .into_iter()
        .chain(numbers.iter().map(u64::to_string))
        .collect()
}

fn remarks(report: &Report, bullet: &str) -> String {
    let mut lines = String::new();
    for table in &report.tables {
        for unbalanced in &table.unbalanced {
            lines.push_str(&format!(
                "{bullet}{}: {} differ between {} and {} (op {}, window {})\n",
                table.table, unbalanced.count, unbalanced.between.0, unbalanced.between.1, unbalanced.op, unbalanced.window
            ));
        }
        for notice in &table.notices {
            lines.push_str(&format!("{bullet}{}: {notice}\n", table.table));
        }
    }
    lines
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
