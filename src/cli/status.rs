//! `weir status`: where every table stands, with the service running or stopped.

use clap::Args;
use serde::Serialize;
use weir_model::{Gtid, GtidSet, TableId, Xid, clock};
use weir_mysql::server;

use super::output::{Output, table};
use crate::config::Config;
use crate::error::{Error, Exit};
use crate::limits::PROOF_KEYS_SHOWN_MAX;
use crate::reconcile::rfc3339;
use crate::service::{LoadStanding, load_standing};
use crate::state::proofs::{Found, ProofLog, TableProof};
use crate::state::{Checkpoint, CheckpointLog, PreparedStore, TableStanding};
use crate::table::{Warehouse, history};

/// Phase, position, lag and figures of every table.
#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Report {
    source: String,
    /// Whether a service has renewed the checkpoint a moment ago.
    running: bool,
    epoch: u64,
    /// Everything in it is in every healthy table.
    position: GtidSet,
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<String>,
    tables: Vec<TableStatus>,
    /// XA transactions whose rows wait for their outcome.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prepared: Vec<PreparedStatus>,
}

#[derive(Debug, Serialize)]
struct PreparedStatus {
    xid: Xid,
    gtid: Gtid,
    /// Milliseconds since the epoch.
    since_ms: i64,
}

#[derive(Debug, Serialize)]
struct TableStatus {
    table: TableId,
    phase: &'static str,
    position: GtidSet,
    /// Transactions of the source that the table does not have; none if the source could not be asked.
    lag_transactions: Option<u64>,
    /// Milliseconds since the newest change that the table has, while it lags.
    lag_ms: Option<i64>,
    version: Option<i64>,
    rows: Option<u64>,
    files: Option<u64>,
    bytes: Option<u64>,
    /// The load under way: of the whole table, or of a part.
    load: Option<LoadStanding>,
    last_error: Option<String>,
    /// What the service has proven by itself; none if it has not looked yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<Proof>,
}

/// What a running service has reconciled of a table.
#[derive(Debug, Serialize)]
struct Proof {
    /// Each key was equal at this moment or later; RFC 3339. None as long as some were never compared.
    verified_through: Option<String>,
    /// Ranges of keys, and how many of them have been proven.
    ranges: usize,
    ranges_proven: usize,
    /// What the last comparison of each range found.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<Found>,
    /// Why rows were not compared lately.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_compared: Option<String>,
    /// When the counts of all hops last added up; RFC 3339.
    hops_balanced: Option<String>,
    /// Half-events that were missing or too many at the last look.
    hops_unbalanced: u64,
}

impl Proof {
    fn of(proof: &TableProof) -> Self {
        let found = proof.ranges.found(PROOF_KEYS_SHOWN_MAX);
        let hops = proof.hops.as_ref();
        Self {
            verified_through: proof.ranges.through_ms().map(rfc3339),
            ranges: proof.ranges.iter().count(),
            ranges_proven: proof
                .ranges
                .iter()
                .filter(|range| range.proven_ms.is_some() && range.found.is_none())
                .count(),
            found: (found != Found::default()).then_some(found),
            not_compared: proof.not_compared.clone(),
            hops_balanced: hops.and_then(|hops| hops.balanced_ms).map(rfc3339),
            hops_unbalanced: hops.map_or(0, |hops| hops.unbalanced),
        }
    }

    /// For people: `2026-11-28T03:00:00Z`, `3 of 9 ranges`, `DIFFERENT: 2 missing`.
    fn cell(&self) -> String {
        match (&self.found, &self.verified_through) {
            (Some(found), _) if found.is_difference() => {
                let counts = [
                    (found.missing, "missing"),
                    (found.extra, "extra"),
                    (found.different, "different"),
                    (found.lost_files, "files lost"),
                ];
                let told: Vec<String> = counts
                    .iter()
                    .filter(|(count, _)| *count > 0)
                    .map(|(count, what)| format!("{count} {what}"))
                    .collect();
                format!("DIFFERENT: {}", told.join(", "))
            }
            (_, Some(through)) => through.clone(),
            (_, None) if self.ranges_proven > 0 => format!("{} of {} ranges", self.ranges_proven, self.ranges),
            (_, None) => "-".to_owned(),
        }
    }
}

impl Status {
    pub(super) async fn run(self, config: &Config) -> Result<Exit, Error> {
        let warehouse = Warehouse::open(&config.warehouse.url, &config.warehouse.options)?;
        let state = warehouse.state_path(&config.source.name);
        let checkpoint = CheckpointLog::new(warehouse.store().clone(), state.clone()).read().await?.unwrap_or_default();
        let (executed, notice) = match executed(config).await {
            Ok(executed) => (Some(executed), None),
            Err(error) => (None, Some(format!("lag is not known: {error}"))),
        };
        let proofs = ProofLog::new(warehouse.store().clone(), warehouse.state_path(&config.source.name)).read().await?;
        let mut tables = Vec::new();
        for (table, standing) in &checkpoint.tables {
            let place = (&warehouse, config.source.name.as_str());
            let mut of_table = table_status(place, &checkpoint, table, standing, executed.as_ref()).await?;
            of_table.proof = proofs.tables.get(table).map(Proof::of);
            tables.push(of_table);
        }
        let held = PreparedStore::new(warehouse.store().clone(), state).list_held().await?;
        let prepared = held.into_iter().map(|head| {
            let (xid, gtid, since_ms) = (head.xid, head.gtid, head.prepared_ms);
            PreparedStatus { xid, gtid, since_ms }
        });
        let report = Report {
            prepared: prepared.collect(),
            source: config.source.name.clone(),
            running: checkpoint.is_live(clock::now_ms()),
            epoch: checkpoint.epoch,
            position: checkpoint.gtid_set,
            notice,
            tables,
        };
        self.output.print(&report, render)?;
        Ok(Exit::Done)
    }
}

async fn executed(config: &Config) -> Result<GtidSet, Error> {
    let mut connection = weir_mysql::connect(&config.source_options()?).await?;
    Ok(server::executed_gtids(&mut connection).await?)
}

async fn table_status(
    (warehouse, source): (&Warehouse, &str),
    checkpoint: &Checkpoint,
    table: &TableId,
    standing: &TableStanding,
    executed: Option<&GtidSet>,
) -> Result<TableStatus, Error> {
    let figures = history::figures(warehouse, table).await?;
    let state = figures.as_ref().and_then(|figures| figures.state.as_ref());
    let own = state.map(|state| state.gtid_set.clone()).unwrap_or_default();
    let position = if standing.error.is_some() { own } else { own.union(&checkpoint.gtid_set) };
    let lag_transactions = executed.map(|executed| executed.difference(&position).count());
    let newest_ms = state.map_or(0, |state| state.order.0.ts_ms);
    let lag_ms = lag_transactions.map(|lag| if lag == 0 { 0 } else { (clock::now_ms() - newest_ms).max(0) });
    let load = match state {
        Some(state) => load_standing(warehouse, source, table, state).await?,
        None => None,
    };
    Ok(TableStatus {
        load,
        table: table.clone(),
        phase: standing.phase.name(),
        position,
        lag_transactions,
        lag_ms,
        version: figures.as_ref().map(|figures| figures.version),
        rows: figures.as_ref().map(|figures| figures.rows),
        files: figures.as_ref().map(|figures| figures.files),
        bytes: figures.as_ref().map(|figures| figures.bytes),
        last_error: standing.error.clone(),
        proof: None,
    })
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
            t.proof.as_ref().map_or_else(|| "-".to_owned(), Proof::cell),
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
    if let Some(notice) = &report.notice {
        text.push_str(&format!("\n{notice}"));
    }
    text
}
