//! Collects what the report is made from, with the service running or stopped.

use std::time::Instant;

use weir_model::{GtidSet, TableId, Window, clock};

use super::judge::{Standing, judge};
use super::{Report, Verdict, rfc3339};
use crate::error::Error;
use crate::limits::{RECONCILE_POLL, RECONCILE_WAIT_MAX};
use crate::state::{Checkpoint, CheckpointLog, Phase, TableStanding};
use crate::table::{Warehouse, history};
use crate::trace::TraceSink;

/// What is asked.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// Only these tables; every table if empty.
    pub tables: Vec<TableId>,
    /// Only windows from here on.
    pub since: Option<Window>,
}

/// Brings the trace up to the tables' own commits and judges every table.
///
/// `executed` is what the source had executed when the question was asked, if it could be asked; a running service is
/// given a moment to get there.
pub async fn report<T: TraceSink>(
    source: &str,
    warehouse: &Warehouse,
    trace: &T,
    executed: Option<GtidSet>,
    question: &Question,
) -> Result<Report, Error> {
    let checkpoint = settled_checkpoint(source, warehouse, executed.as_ref()).await?;
    let mut tables = Vec::new();
    for (table, standing) in &checkpoint.tables {
        if !question.tables.is_empty() && !question.tables.contains(table) {
            continue;
        }
        let standing = standing_of(source, warehouse, trace, &checkpoint, table, standing, executed.as_ref()).await?;
        let counts = trace.totals(source, table, question.since).await?;
        tables.push(judge(table.clone(), &counts, &standing));
    }
    if let Some(table) = question.tables.iter().find(|table| !checkpoint.tables.contains_key(table)) {
        return Err(Error::failed(format!("{table} is not among the tables of source {source}"))
            .way_out("`weir status` lists them; a table appears there once the service has met it"));
    }
    Ok(Report {
        source: source.to_owned(),
        at: rfc3339(clock::now_ms() / 1_000 * 1_000),
        position: checkpoint.gtid_set.to_string(),
        verdict: tables.iter().map(|table| table.verdict).max().unwrap_or(Verdict::Balanced),
        tables,
    })
}

/// The newest checkpoint; while a service runs, one that covers `executed` if it comes in time.
async fn settled_checkpoint(
    source: &str,
    warehouse: &Warehouse,
    executed: Option<&GtidSet>,
) -> Result<Checkpoint, Error> {
    let asked = Instant::now();
    loop {
        let state = warehouse.state_path(source);
        let read = CheckpointLog::new(warehouse.store().clone(), state).read().await?;
        let checkpoint = read.ok_or_else(|| {
            Error::failed(format!("source {source} has no checkpoint in this warehouse"))
                .way_out("run `weir run --until-caught-up` first")
        })?;
        let settled = executed.is_none_or(|executed| executed.is_subset(&checkpoint.gtid_set));
        if settled || !checkpoint.is_live(clock::now_ms()) || asked.elapsed() > RECONCILE_WAIT_MAX {
            return Ok(checkpoint);
        }
        tokio::time::sleep(RECONCILE_POLL).await;
    }
}

async fn standing_of<T: TraceSink>(
    source: &str,
    warehouse: &Warehouse,
    trace: &T,
    checkpoint: &Checkpoint,
    table: &TableId,
    standing: &TableStanding,
    executed: Option<&GtidSet>,
) -> Result<Standing, Error> {
    let after = trace.shipped_version(source, table).await?;
    let mut own_set = GtidSet::default();
    for commit in history::commits_since(warehouse, table, after).await? {
        if let Some(record) = commit.record {
            trace.ship(source, table, commit.version, commit.at_ms, &record.accounts).await?;
            own_set = record.state.gtid_set;
        }
    }
    // A stopped table gets nothing from the checkpoint's progress.
    let position = match standing.phase {
        Phase::Stopped => own_set,
        Phase::Filling { .. } | Phase::Streaming => own_set.union(&checkpoint.gtid_set),
    };
    Ok(Standing {
        phase: standing.phase,
        error: standing.error.clone(),
        missing_transactions: executed.map(|executed| executed.difference(&position).count()),
        trace_behind: false,
    })
}
