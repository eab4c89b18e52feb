//! `weir reconcile`: the report of what passed every hop, and, if asked for, of rows that differ.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use weir_model::{Repair, TableId, Window, clock};

use super::output::{print, table};
use super::repair::{self, UnbalancedTables};
use super::snapshot::table_id;
use crate::config::Config;
use crate::error::{Error, Exit};
use crate::reconcile::deep::{DeepQuestion, Recheck, compare_tables};
use crate::reconcile::{Facts, Question, Reach, Report, Verdict, gather, render, report};
use crate::service::{self, ConfiguredTrace, open_trace};
use crate::table::Warehouse;
use crate::trace::TraceSink;

/// Compares what the source sent with what every hop counted; exits 3 if something was lost.
#[derive(Debug, Args)]
pub(super) struct Reconcile {
    /// A table to look at, as database.table; may be given again. Default: every table.
    #[arg(long = "table", value_name = "TABLE", value_parser = table_id)]
    tables: Vec<TableId>,
    /// Count only what happened since then: 2026-11-21T02:00:00Z, 2026-11-21, or 90m, 2h, 7d ago.
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Window>,
    /// Compare the rows as well: read every table on both sides, and name the keys that differ.
    #[arg(long)]
    deep: bool,
    /// Mend what the comparison of rows finds: the keys that differ are read again. Implies --deep. Exit 0 if all is equal
    /// afterwards.
    #[arg(long)]
    repair: bool,
    /// Say what --repair would do, and do nothing.
    #[arg(long, conflicts_with = "repair", requires = "deep")]
    dry_run: bool,
    /// Compare only so many percent of the ranges of each table, drawn at random.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    sample: Option<f64>,
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
        let is_deep = self.deep || self.repair;
        if self.sample.is_some() && !is_deep {
            return Err(Error::config("--sample is of --deep"));
        }
        let warehouse = Warehouse::open(&config.warehouse.url, &config.warehouse.options)?;
        let trace = open_trace(config)?;
        let question = Question {
            source: &config.source.name,
            options: config.source_options()?,
            patterns: config.patterns()?,
            warehouse: &warehouse,
            tables: self.tables,
            since: self.since,
            kafka: service::kafka_of(config)?,
        };
        let mut facts = gather(&question, &trace).await?;
        if is_deep {
            let zero_dates = |table: &TableId| (table.clone(), config.table_settings(table).zero_dates);
            let asked = DeepQuestion {
                tables: facts.tables.iter().map(|facts| zero_dates(&facts.table)).collect(),
                sample_percent: self.sample,
                ..service::deep_question_of_command(config, &warehouse)?
            };
            let (progress, asked) = (asked.progress.clone(), Arc::new(asked));
            let mut compared = progress.show_while(compare_tables(asked.clone(), Arc::new(Recheck))).await?;
            for facts in &facts.tables {
                if let (Some(report), Reach::Stopped(_)) = (compared.get_mut(&facts.table), &facts.reach) {
                    report.has_stopped = report.not_compared.is_some();
                }
            }
            if self.repair {
                let repairing = repair::mend_all(config, &asked, &compared).await?;
                let before = unbalanced(&facts);
                let again = gather(&question, &trace).await;
                let after = again.as_ref().map(unbalanced).unwrap_or_default();
                let repairs = repairing.conclude(&mut compared, &before, &after).await?;
                facts = again?;
                note(&trace, &question, &repairs).await;
                for facts in &mut facts.tables {
                    let own = repairs.iter().filter(|repair| repair.table == facts.table);
                    facts.repairs.retain(|known| repairs.iter().all(|repair| repair.id != known.id));
                    facts.repairs.splice(0..0, own.cloned());
                }
            } else if self.dry_run {
                repair::plan(&mut compared);
            }
            for table in &mut facts.tables {
                table.deep = compared.remove(&table.table);
            }
        }
        let report = report(facts);
        match self.format {
            Format::Table => print(&for_terminal(&report))?,
            Format::Json => print(&serde_json::to_string_pretty(&report).map_err(|e| Error::failed(e.to_string()))?)?,
            Format::Markdown => print(render::markdown(&report).trim_end())?,
            Format::Html => print(render::html(&report).trim_end())?,
        }
        // What is in flight is no difference: it exits 0, and the verdict says so.
        Ok(if report.verdict == Verdict::Different { Exit::Different } else { Exit::Done })
    }
}

fn unbalanced(facts: &Facts) -> UnbalancedTables {
    let unbalanced = facts.tables.iter().map(|facts| (facts.table.clone(), facts.unbalanced()));
    unbalanced.filter(|(_, unbalanced)| !unbalanced.is_empty()).collect()
}

/// Gives the trace what was repaired. If it is away, whoever reaches it next does: the repairs are noted beside the tables.
async fn note(trace: &ConfiguredTrace, question: &Question<'_>, repairs: &[Repair]) {
    if let Err(error) = trace.note_repairs(question.source, repairs).await {
        tracing::warn!(%error, "the trace is given the repairs later");
    }
}

fn for_terminal(report: &Report) -> String {
    let mut text = format!("source {} at {}: {}\n", report.source, report.at, report.verdict.name());
    text.push_str(&table(&render::COLUMNS, report.tables.iter().map(render::cells)));
    let deep = render::deep_rows(report);
    if !deep.is_empty() {
        text.push_str(&format!("\n\n{}\n", table(&render::DEEP_COLUMNS, deep)));
    }
    text.push_str(&format!("\nposition {}", report.position));
    for remark in render::remarks(report) {
        text.push_str(&format!("\n{remark}"));
    }
    text
}

/// More than 0, and at most 100.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').parse::<f64>().ok().filter(|percent| *percent > 0.0 && *percent <= 100.0);
    number.ok_or_else(|| format!("`{text}` is no share of 100; write 5, 0.5 or 5%"))
}

/// The window that holds a moment: a timestamp, a day (UTC), or so long ago.
fn since(text: &str) -> Result<Window, String> {
    let error =
        || format!("`{text}` is no time; write 2026-11-21T02:00:00Z, 2026-11-21, or 90m, 2h, 7d for so long ago");
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(Window::of(at.as_millisecond()));
    }
    if let Ok(day) = text.parse::<jiff::civil::Date>() {
        let midnight = day.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| error())?;
        return Ok(Window::of(midnight.timestamp().as_millisecond()));
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_ms = match &text[digits.len()..] {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(error()),
    };
    let ago_ms =
        digits.parse::<i64>().ok().filter(|n| *n >= 0).and_then(|n| n.checked_mul(unit_ms)).ok_or_else(error)?;
    Ok(Window::of(clock::now_ms().saturating_sub(ago_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_above_nothing_and_up_to_all() {
        assert_eq!((percent("5"), percent("0.5%"), percent("100")), (Ok(5.0), Ok(0.5), Ok(100.0)));
        for wrong in ["", "0", "-1", "101", "NaN", "half"] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_is_a_timestamp_a_day_or_so_long_ago() {
        assert_eq!(since("2026-11-21T02:00:30Z"), Ok(Window(1_795_226_400_000)));
        assert_eq!(since("2026-11-21"), Ok(Window(1_795_219_200_000)));
        let hour_ago = clock::now_ms() - 3_600_000;
        assert!((since("1h").unwrap().0 - hour_ago).abs() <= Window::LENGTH_MS);
        assert_eq!(since("60m").unwrap(), since("3600s").unwrap());
        for wrong in ["", "yesterday", "h", "-2h", "2w", "9999999999999999999d"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
