//! `weir status`: where every table stands, with the service running or stopped.

use std::io::IsTerminal;

use clap::Args;
use weir_model::clock;

use super::output::{Output, print_on, table};
use crate::config::Config;
use crate::error::{Error, Exit};
use crate::limits::STATUS_WATCH_EVERY;
use crate::reconcile::rfc3339;
use crate::service::LoadStanding;
use crate::service::status::{self, Proof, Status as Report};

/// Phase, position, lag and figures of every table.
#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    output: Output,
    /// Look again every two seconds, until Ctrl-C; with `--format json` a line a look.
    #[arg(long)]
    watch: bool,
}

impl Status {
    pub(super) async fn run(self, config: &Config) -> Result<Exit, Error> {
        if self.watch {
            return self.watch(config).await;
        }
        self.output.print(&status::status(config).await?, render)?;
        Ok(Exit::Done)
    }

    /// Redraws a terminal; elsewhere every look follows the one before.
    async fn watch(self, config: &Config) -> Result<Exit, Error> {
        let is_screen = std::io::stdout().is_terminal() && !self.output.is_json();
        let mut ticks = tokio::time::interval(STATUS_WATCH_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        loop {
            let status = tokio::select! {
                _ = &mut interrupt => return Ok(Exit::Done),
                status = async { ticks.tick().await; status::status(config).await } => status?,
            };
            let text = match self.output.is_json() {
                true => serde_json::to_string(&status).map_err(|error| Error::failed(error.to_string()))?,
                false => format!("{}{}\n", if is_screen { CLEAR } else { "" }, render(&status)),
            };
            if !print_on(&text)? {
                return Ok(Exit::Done);
            }
        }
    }
}

/// Empties a terminal, and begins at its top left (ECMA-48: ED, CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

/// `12 of 64 chunks, 90 s left`
fn load_cell(load: &LoadStanding) -> String {
    let LoadStanding { part, chunks, chunks_done, seconds_left, .. } = load;
    let what = if *part { "part: " } else { "" };
    let left = seconds_left.map(|seconds| format!(", {seconds} s left")).unwrap_or_default();
    format!("{what}{chunks_done} of {chunks} chunks{left}")
}

/// For people: `2026-11-28T03:00:00Z`, `3 of 9 ranges`, `DIFFERENT: 2 missing`.
fn proof_cell(proof: &Proof) -> String {
    match (&proof.found, &proof.verified_through) {
        (Some(found), _) if found.is_difference() => {
            let counts = [
                (found.missing, "missing"),
                (found.extra, "extra"),
                (found.different, "different"),
                (found.lost_files, "files lost"),
            ];
            let told: Vec<String> =
                counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
            format!("DIFFERENT: {}", told.join(", "))
        }
        (_, Some(through)) => through.clone(),
        (_, None) if proof.ranges_proven > 0 => format!("{} of {} ranges", proof.ranges_proven, proof.ranges),
        (_, None) => "-".to_owned(),
    }
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
            t.proof.as_ref().map_or_else(|| "-".to_owned(), proof_cell),
            t.last_error.clone().unwrap_or_default(),
        ]
    });
    let header = [
        "table",
        "phase",
        "lag (transactions)",
        "lag (ms)",
        "version",
        "rows",
        "files",
        "bytes",
        "load",
        "verified through",
        "last error",
    ];
    let running = if report.running { "running" } else { "not running" };
    let mut text = format!("source {} · service {running} · epoch {}\n", report.source, report.epoch);
    text.push_str(&table(&header, rows));
    text.push_str(&format!("\nposition {}", report.position));
    if let Some(oldest) = report.prepared.iter().min_by_key(|prepared| prepared.since_ms) {
        let minutes = (clock::now_ms() - oldest.since_ms).max(0) / 60_000;
        let count = report.prepared.len();
        text.push_str(&format!("\nprepared {count} XA, the oldest {} for {minutes} min", oldest.xid));
    }
    for stopped in report.tables.iter().filter(|table| table.way_out.is_some()) {
        text.push_str(&format!("\n{}: {}", stopped.table, stopped.way_out.as_deref().unwrap_or_default()));
    }
    if let Some(refused) = &report.config.refused {
        let at = rfc3339(refused.at_ms);
        text.push_str(&format!("\nconfiguration: what the file held at {at} is not taken: {}", refused.why));
    }
    if let Some(notice) = &report.notice {
        text.push_str(&format!("\n{notice}"));
    }
    text
}
