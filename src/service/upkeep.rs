//! Upkeep that is not a worker's: what is asked for by command, beside a running service or without one, and the cleaning
//! of the tables' logs, which must not pass what the trace has.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio_util::task::AbortOnDropHandle;
use weir_model::{TableId, clock};

use super::{index_home, is_running};
use crate::config::Config;
use crate::error::Error;
use crate::limits::{LOG_CLEANED_EVERY, UPKEEP_TRIES_MAX};
use crate::state::{CheckpointLog, Written};
use crate::table::clean::{Garbage, Look, Retention, clean_log, find_garbage, remove};
use crate::table::{Absorbed, Buckets, CommitOutcome, Effort, Table, TableError, Warehouse, Writer, history};
use crate::trace::{Origin, TraceSink};

/// What a compaction came to.
#[derive(Debug, Clone, Serialize)]
pub struct Compacted {
    pub table: TableId,
    pub version: i64,
    pub files_before: u64,
    pub files_after: u64,
    pub bytes_before: u64,
    pub bytes_after: u64,
    pub commits: u64,
}

/// What a cleaning came to.
#[derive(Debug, Clone, Serialize)]
pub struct Cleaned {
    pub table: TableId,
    pub files_removed: u64,
    pub bytes_removed: u64,
    pub commits_removed: u64,
}

/// Opens a table to change nothing but how it lies: as the service that wrote it last, which is then told of it by the
/// table's log.
async fn open(config: &Config, warehouse: &Warehouse, table: &TableId, epoch: Option<u64>) -> Result<Table, Error> {
    let no_table = || TableError::NoTable(table.clone());
    let figures = history::figures(warehouse, table).await?.ok_or_else(no_table)?;
    let state = figures.state.ok_or_else(|| Error::failed(format!("{table} was not written by weir")))?;
    let epoch = epoch.unwrap_or(state.epoch).max(state.epoch);
    let writer = Writer { index_home: index_home(config), ..Writer::new(&config.source.name, epoch) };
    let buckets = Buckets::all(state.bucket_count());
    Ok(Table::open(warehouse, table, writer, buckets).await?.ok_or_else(no_table)?)
}

fn lost(table: &TableId) -> Error {
    Error::failed(format!("{table} changes faster than it can be compacted, or another instance has taken over"))
        .way_out("try again; nothing was changed")
}

/// Compacts everything that is small or has dead rows; beside a running service, too.
///
/// # Errors
/// When the warehouse or the table cannot be read or written, or every attempt lost against its writer.
pub async fn compact(config: &Config, id: &TableId) -> Result<Compacted, Error> {
    let warehouse = Warehouse::open_to_write(&config.warehouse.url, &config.warehouse.options).await?;
    let mut table = open(config, &warehouse, id, None).await?;
    let (files_before, _, bytes_before) = table.figures();
    let (mut commits, mut tries) = (0, 0);
    while let Some(rewriting) = table.compaction(Effort::Full) {
        tries += 1;
        if tries > UPKEEP_TRIES_MAX {
            return Err(lost(id));
        }
        let rewritten = rewriting.run().await?;
        // What has been committed while files were read: so that only a moment is left for others to be faster.
        match table.absorb().await {
            Ok(_) => {}
            Err(TableError::Fenced { .. }) => {
                table = open(config, &warehouse, id, None).await?;
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        match table.commit_rewritten(rewritten).await? {
            Some(CommitOutcome::Committed { .. }) => (commits, tries) = (commits + 1, 0),
            None => {}
            Some(CommitOutcome::Moved | CommitOutcome::Fenced { .. }) => {
                table = open(config, &warehouse, id, None).await?;
            }
        }
    }
    let (files_after, _, bytes_after) = table.figures();
    let version = table.version();
    Ok(Compacted { table: id.clone(), version, files_before, files_after, bytes_before, bytes_after, commits })
}

/// Removes what nothing names any more and no reader can need, and what of the log is older than `kept`.
///
/// Without a running service the source's next epoch is taken, so that no writer that sleeps can name a file that goes;
/// then what was never named goes at once.
///
/// # Errors
/// When the warehouse, the table or its log cannot be read or written.
pub async fn clean<T: TraceSink>(config: &Config, sink: &T, id: &TableId, kept: Duration) -> Result<Cleaned, Error> {
    let warehouse = Warehouse::open_to_write(&config.warehouse.url, &config.warehouse.options).await?;
    let no_table = || TableError::NoTable(id.clone());
    let figures = history::figures(&warehouse, id).await?.ok_or_else(no_table)?;
    let shared = figures.state.is_some_and(|state| state.is_shared());
    let epoch = if shared || is_running(config).await? { None } else { Some(take_epoch(config, &warehouse).await?) };
    let look = Look::Thorough { alone: epoch.is_some() };
    let mut removed = Garbage::default();
    let mut garbage = find_garbage(&warehouse, id, Retention { kept, look }, clock::now_ms()).await?;
    removed.bytes = garbage.bytes;
    if !garbage.names.is_empty() {
        let mut table = open(config, &warehouse, id, epoch).await?;
        let mut tries = 0;
        while !garbage.names.is_empty() {
            let mut attempt = garbage.clone();
            match table.commit_cleaning(&mut attempt).await? {
                (CommitOutcome::Committed { .. }, names) => {
                    remove(&table.files(), &names).await;
                    removed.names.extend(names);
                    garbage = attempt;
                }
                _ if tries < UPKEEP_TRIES_MAX => {
                    tries += 1;
                    // What others have committed may name what was garbage.
                    let _: Absorbed = table.absorb().await?;
                    garbage = find_garbage(&warehouse, id, Retention { kept, look }, clock::now_ms()).await?;
                }
                _ => return Err(lost(id)),
            }
        }
    }
    let shipped = sink.shipped_version(&config.source.name, &Origin::Table(id.clone())).await?;
    let commits = match shipped {
        Some(shipped) => clean_log(&warehouse, id, kept, shipped, clock::now_ms()).await?,
        None => 0,
    };
    Ok(Cleaned {
        table: id.clone(),
        files_removed: removed.names.len() as u64,
        bytes_removed: removed.bytes,
        commits_removed: commits as u64,
    })
}

/// Makes this process the source's newest instance, and says at once that it does not run.
async fn take_epoch(config: &Config, warehouse: &Warehouse) -> Result<u64, Error> {
    let state = warehouse.state_path(&config.source.name);
    let mut checkpoints = CheckpointLog::new(warehouse.store().clone(), state);
    let mut checkpoint = checkpoints.take_epoch().await?;
    checkpoint.running = false;
    match checkpoints.write(&checkpoint).await? {
        Written::Done => Ok(checkpoint.epoch),
        Written::Fenced { epoch } => Err(Error::fenced(format!("another instance took over (epoch {epoch})"))),
    }
}

/// Keeps the logs of a source's tables short, in the background, until the handle is dropped.
pub fn keep_logs_short<T: TraceSink + 'static>(
    sink: Arc<T>,
    config: &Config,
    warehouse: Warehouse,
) -> AbortOnDropHandle<()> {
    let (source, kept) = (config.source.name.clone(), config.warehouse.retention());
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOG_CLEANED_EVERY).await;
            let tables = match warehouse.list_tables().await {
                Ok(tables) => tables,
                Err(error) => {
                    tracing::warn!(%error, "the logs are cleaned later");
                    continue;
                }
            };
            for table in tables {
                // None of another source's, and nothing that the trace has yet to be given.
                let shipped = sink.shipped_version(&source, &Origin::Table(table.clone())).await;
                let Ok(Some(shipped)) = shipped else { continue };
                match clean_log(&warehouse, &table, kept, shipped, clock::now_ms()).await {
                    Ok(0) => {}
                    Ok(commits) => tracing::debug!(%table, commits, "old versions removed from the log"),
                    Err(error) => tracing::warn!(%table, %error, "the log is cleaned later"),
                }
            }
        }
    }))
}
