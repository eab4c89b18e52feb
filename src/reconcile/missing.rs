//! Ships to the trace what it lacks of a table, from the table's own log.
//!
//! The log also holds what other processes committed. A page at a time, so that a long absence of the trace costs no
//! memory.

use weir_model::TableId;

use crate::error::Error;
use crate::limits::TRACE_BATCH_MAX;
use crate::table::{Warehouse, history};
use crate::trace::{Origin, Shipment, TraceSink};

/// How far the trace is with a table after a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Everything up to here is in; `None` if there is nothing.
    pub mark: Option<i64>,
    /// Whether the log had no more.
    pub is_all: bool,
}

/// Ships every commit of `table` that the trace does not have, which says that it has everything up to `mark`.
///
/// # Errors
/// When the trace or the table's log cannot be used.
pub async fn ship_missing<T: TraceSink>(
    sink: &T,
    source: &str,
    warehouse: &Warehouse,
    table: &TableId,
    mark: Option<i64>,
) -> Result<(), Error> {
    let mut mark = forget_if_made_anew(sink, source, warehouse, table, mark).await?;
    loop {
        let reached = ship_page(sink, source, warehouse, table, mark).await?;
        if reached.is_all {
            return Ok(());
        }
        mark = reached.mark;
    }
}

/// Where the trace is with `table`.
pub async fn begin<T: TraceSink>(
    sink: &T,
    source: &str,
    warehouse: &Warehouse,
    table: &TableId,
) -> Result<Option<i64>, Error> {
    let mark = sink.shipped_version(source, &Origin::Table(table.clone())).await?;
    forget_if_made_anew(sink, source, warehouse, table, mark).await
}

/// A table that is older than the trace's mark was made anew, and what the trace has is another table's: it is forgotten.
async fn forget_if_made_anew<T: TraceSink>(
    sink: &T,
    source: &str,
    warehouse: &Warehouse,
    table: &TableId,
    mark: Option<i64>,
) -> Result<Option<i64>, Error> {
    let Some(shipped) = mark else { return Ok(None) };
    match history::newest_version(warehouse, table).await? {
        Some(newest) if newest < shipped => {
            tracing::warn!(%table, shipped, newest, "the table was made anew; its trace begins again");
            sink.forget(source, table).await?;
            Ok(None)
        }
        _ => Ok(mark),
    }
}

/// Ships the next commits above `mark`.
pub async fn ship_page<T: TraceSink>(
    sink: &T,
    source: &str,
    warehouse: &Warehouse,
    table: &TableId,
    mark: Option<i64>,
) -> Result<Reached, Error> {
    let commits = history::next_commits(warehouse, table, mark, TRACE_BATCH_MAX).await?;
    let is_all = commits.len() < TRACE_BATCH_MAX;
    let shipments: Vec<Shipment> = commits
        .into_iter()
        .map(|commit| {
            let accounts = commit.record.map(|record| record.accounts).unwrap_or_default();
            Shipment::of_commit(table.clone(), commit.version, commit.at_ms, accounts)
        })
        .collect();
    let Some(last) = shipments.last() else { return Ok(Reached { mark, is_all }) };
    let mark = Some(last.version);
    sink.ship(source, &shipments).await?;
    Ok(Reached { mark, is_all })
}
