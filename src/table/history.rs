//! What a table's log tells readers beside its writer: commits, their accounts, and figures.

use serde::Serialize;
use weir_model::TableId;

use super::TableError;
use super::delta::{Action, Add, MetaData};
use super::location::Warehouse;
use super::log::Log;
use super::record::{CommitRecord, TableState};
use super::statistics::rows_of;

/// One version of a table.
#[derive(Debug)]
pub struct Commit {
    pub version: i64,
    /// Milliseconds since the epoch, by the writer's clock.
    pub at_ms: i64,
    /// None for a foreign writer's.
    pub record: Option<CommitRecord>,
}

/// Every commit above `after`, or all, ascending. Cleaning the log never passes what has been shipped, so the version
/// behind `after` is missing only if it has not been written.
pub async fn commits_since(
    warehouse: &Warehouse,
    table: &TableId,
    after: Option<i64>,
) -> Result<Vec<Commit>, TableError> {
    let log = Log::new(warehouse, table);
    let mut commits = Vec::new();
    match after {
        // One look for the next version, rather than a list of all: this is asked again and again.
        Some(after) => {
            let mut version = after + 1;
            while let Some(actions) = log.read_if_there(version).await? {
                commits.push(Commit::of(version, actions));
                version += 1;
            }
        }
        None => {
            for version in log.versions().await?.commits {
                commits.push(Commit::of(version, log.read(version).await?));
            }
        }
    }
    Ok(commits)
}

/// The first commits above `after`, at most so many; as in [`commits_since`].
pub async fn next_commits(
    warehouse: &Warehouse,
    table: &TableId,
    after: Option<i64>,
    commits_max: usize,
) -> Result<Vec<Commit>, TableError> {
    let log = Log::new(warehouse, table);
    let first = match after {
        Some(after) => Some(after + 1),
        None => log.versions().await?.commits.first().copied(),
    };
    let mut commits = Vec::new();
    let Some(first) = first else { return Ok(commits) };
    while commits.len() < commits_max {
        let version = first + commits.len() as i64;
        let Some(actions) = log.read_if_there(version).await? else { break };
        commits.push(Commit::of(version, actions));
    }
    Ok(commits)
}

/// The newest version of `table` in its log, without reading it; `None` if there is no table.
pub async fn newest_version(warehouse: &Warehouse, table: &TableId) -> Result<Option<i64>, TableError> {
    Ok(Log::new(warehouse, table).versions().await?.commits.last().copied())
}

impl Commit {
    fn of(version: i64, actions: Vec<Action>) -> Self {
        let info = actions.into_iter().find_map(|action| action.commit_info);
        let at_ms = info.as_ref().map_or(0, |info| info.timestamp);
        Self { version, at_ms, record: info.and_then(|info| info.weir) }
    }
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
    /// Names of the columns that it is partitioned by.
    pub partitions: Vec<String>,
    /// Where the table stands, if we wrote it.
    pub state: Option<TableState>,
}

/// The table at its newest version; `None` if there is none.
pub async fn figures(warehouse: &Warehouse, table: &TableId) -> Result<Option<TableFigures>, TableError> {
    let Some(replay) = Log::new(warehouse, table).replay(None).await? else { return Ok(None) };
    let dead = |add: &Add| add.deletion_vector.as_ref().map_or(0, |vector| vector.cardinality as u64);
    let rows_dead: u64 = replay.files.values().map(dead).sum();
    let rows_all: u64 = replay.files.values().filter_map(|add| rows_of(add.stats.as_deref())).sum();
    Ok(Some(TableFigures {
        table: table.clone(),
        version: replay.version,
        files: replay.files.len() as u64,
        rows: rows_all.saturating_sub(rows_dead),
        rows_dead,
        bytes: replay.files.values().map(|add| add.size as u64).sum(),
        columns: replay.meta_data.as_ref().map(columns).unwrap_or_default(),
        partitions: replay.meta_data.as_ref().map(|meta_data| meta_data.partition_columns.clone()).unwrap_or_default(),
        state: replay.own.map(|(_, record)| record.state),
    }))
}

fn columns(meta_data: &MetaData) -> Vec<(String, String)> {
    let schema: serde_json::Value = serde_json::from_str(&meta_data.schema_string).unwrap_or_default();
    let fields = schema.get("fields").and_then(|fields| fields.as_array()).cloned().unwrap_or_default();
    let text = |field: &serde_json::Value, name: &str| match &field[name] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    fields.iter().map(|field| (text(field, "name"), text(field, "type"))).collect()
}
