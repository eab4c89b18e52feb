//! `weir status`: where every table stands, with the service running or stopped.

use clap::Args;

use super::output::{Output, table};
use crate::config::Config;
use crate::error::{Error, Exit};
use crate::service::LoadStanding;
use crate::service::status::{self, Status as Report};

/// Phase, position, lag and figures of every table.
#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    output: Output,
}

impl Status {
    pub(super) async fn run(self, config: &Config) -> Result<Exit, Error> {
        self.output.print(&status::status(config).await?, render)?;
        Ok(Exit::Done)
    }
}

/// `12 of 64 chunks, 90 s left`
fn load_cell(load: &LoadStanding) -> String {
    let LoadStanding { part, chunks, chunks_done, seconds_left, .. } = load;
    let what = if *part { "part: " } else { "" };
    let left = seconds_left.map(|seconds| format!(", {seconds} s left")).unwrap_or_default();
    format!("{what}{chunks_done} of {chunks} chunks{left}")
}

fn render(report: &Report) -> String {
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let rows = report.tables.iter().map(|t| {
        vec![
            t.table.to_string(),
            t.phase.to_owned(),
            number(t.lag_transactions),
            t.lag_ms.map_or_else(|| "-".to_owned(), |ms| ms.to_string()),
            t.version.map_or_else(|| "-".to_owned(), |version| version.to_string()),
            number(t.rows),
            number(t.files),
            number(t.bytes),
            t.load.as_ref().map(load_cell).unwrap_or_default(),
            t.last_error.clone().unwrap_or_default(),
        ]
    });
    let header =
        ["table", "phase", "lag (transactions)", "lag (ms)", "version", "rows", "files", "bytes", "load", "last error"];
    let running = if report.running { "running" } else { "not running" };
    let mut text = format!("source {} · service {running} · epoch {}\n", report.source, report.epoch);
    text.push_str(&table(&header, rows));
    text.push_str(&format!("\nposition {}", report.position));
    for stopped in report.tables.iter().filter(|table| table.way_out.is_some()) {
        text.push_str(&format!("\n{}: {}", stopped.table, stopped.way_out.as_deref().unwrap_or_default()));
    }
    if let Some(notice) = &report.notice {
        text.push_str(&format!("\n{notice}"));
    }
    text
}
