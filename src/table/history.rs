//! What a table's log tells readers beside its writer: commits, their accounts, and figures.

use serde::Serialize;
use weir_model::TableId;

use super::TableError;
use super::delta::MetaData;
use super::location::Warehouse;
use super::log::Log;
use super::record::{CommitRecord, TableState};
use super::writer::rows_of_entry;

/// One version of a table.
#[derive(Debug)]
pub struct Commit {
    pub version: i64,
    /// Milliseconds since the epoch, by the writer's clock.
    pub at_ms: i64,
    /// None for a foreign writer's.
    pub record: Option<CommitRecord>,
}

/// Every commit above `after`, or all, ascending.
pub async fn commits_since(
    warehouse: &Warehouse,
    table: &TableId,
    after: Option<i64>,
) -> Result<Vec<Commit>, TableError> {
    let log = Log::new(warehouse, table);
    let mut commits = Vec::new();
    for version in log.versions().await?.into_iter().filter(|version| after.is_none_or(|after| *version > after)) {
        let info = log.commit_info(version).await?;
        let at_ms = info.as_ref().map_or(0, |info| info.timestamp);
        commits.push(Commit { version, at_ms, record: info.and_then(|info| info.weir) });
    }
    Ok(commits)
}

/// A table in numbers.
#[derive(Debug, Clone, Serialize)]
pub struct TableFigures {
    pub table: TableId,
    pub version: i64,
    pub files: u64,
    /// Live rows.
    pub rows: u64,
    /// Rows that are dead and not yet compacted away.
    pub rows_dead: u64,
    /// Bytes of the data files.
    pub bytes: u64,
    /// Name and Delta type of each column.
    pub columns: Vec<(String, String)>,
    /// Where the table stands, if we wrote it.
    pub state: Option<TableState>,
}

/// The table at its newest version; `None` if there is none.
pub async fn figures(warehouse: &Warehouse, table: &TableId) -> Result<Option<TableFigures>, TableError> {
    let Some(replay) = Log::new(warehouse, table).replay(None).await? else { return Ok(None) };
    let dead = |add: &super::delta::Add| add.deletion_vector.as_ref().map_or(0, |vector| vector.cardinality as u64);
    let rows_dead: u64 = replay.files.values().map(dead).sum();
    let rows_all: u64 = replay.files.values().filter_map(rows_of_entry).sum();
    Ok(Some(TableFigures {
        table: table.clone(),
        version: replay.version,
        files: replay.files.len() as u64,
        rows: rows_all.saturating_sub(rows_dead),
        rows_dead,
        bytes: replay.files.values().map(|add| add.size as u64).sum(),
        columns: replay.meta_data.as_ref().map(MetaData::columns).unwrap_or_default(),
        state: replay.own.map(|(_, record)| record.state),
    }))
}
