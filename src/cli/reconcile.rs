//! `weir reconcile`: what passed each hop, and whether it adds up.

use clap::{Args, ValueEnum};
use weir_model::{TableId, Window, clock};
use weir_mysql::server;

use super::output::print;
use super::snapshot::table_id;
use crate::config::Config;
use crate::error::{Error, Exit};
use crate::reconcile::gather::{Question, report};
use crate::reconcile::{Verdict, render};
use crate::table::Warehouse;
use crate::trace::sqlite::SqliteTrace;

/// Compares the accounts of every hop. Exits 0 if nothing is lost (balanced, or in flight), 3 if something is.
#[derive(Debug, Args)]
pub(super) struct Reconcile {
    /// A table to report on, as database.table; may be given again. Default: every table.
    #[arg(long = "table", value_name = "TABLE", value_parser = table_id)]
    tables: Vec<TableId>,
    /// Only windows of event time from here on: RFC 3339, or back from now as 90m, 2h, 7d.
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Window>,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
    Markdown,
    Html,
}

impl Reconcile {
    pub(super) async fn run(self, config: &Config) -> Result<Exit, Error> {
        let warehouse = Warehouse::open(&config.warehouse.url, &config.warehouse.options)?;
        let trace = SqliteTrace::open(&config.trace_path())?;
        let executed = match executed(config).await {
            Ok(executed) => Some(executed),
            Err(error) => {
                tracing::warn!(%error, "the source cannot be asked how far it is");
                None
            }
        };
        let question = Question { tables: self.tables, since: self.since };
        let report = report(&config.source.name, &warehouse, &trace, executed, &question).await?;
        print(&match self.format {
            Format::Table => render::text(&report),
            Format::Markdown => render::markdown(&report),
            Format::Html => render::html(&report),
            Format::Json => {
                serde_json::to_string_pretty(&report).map_err(|error| Error::failed(error.to_string()))?
            }
        })?;
        Ok(if report.verdict == Verdict::Different { Exit::Different } else { Exit::Done })
    }
}

async fn executed(config: &Config) -> Result<weir_model::GtidSet, Error> {
    let mut connection = weir_mysql::connect(&config.source_options()?).await?;
    Ok(server::executed_gtids(&mut connection).await?)
}

/// The window that holds a moment given as RFC 3339, or as a time back from now.
fn since(text: &str) -> Result<Window, String> {
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Ok(Window::of(moment.as_millisecond()));
    }
    let expected = || format!("`{text}` is neither a moment such as 2026-11-21T03:00:00Z nor a time back such as 2h");
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let number: i64 = number.parse().map_err(|_| expected())?;
    let unit_ms = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(expected()),
    };
    Ok(Window::of(clock::now_ms() - number.saturating_mul(unit_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_takes_moments_and_spans() {
        assert_eq!(since("1970-01-01T00:02:30Z"), Ok(Window(120_000)));
        assert!(since("2h").unwrap() < since("1h").unwrap());
        assert!(since("yesterday").is_err());
        assert!(since("").is_err());
    }
}
