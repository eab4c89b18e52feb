//! Checkpoints of the Delta log, so that readers and restarts need not read every commit.
//!
//! Written by delta-rs; read here through Arrow's JSON, so that a checkpoint's rows become the same actions as a
//! commit's lines.

use bytes::Bytes;
use deltalake_core::protocol::checkpoints::create_checkpoint;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;
use url::Url;

use super::TableError;
use super::delta::Action;
use super::location::Warehouse;
use super::log::{Log, Replay};

/// `_last_checkpoint` (Delta protocol, "Last Checkpoint File").
#[derive(Debug, Deserialize)]
struct LastCheckpoint {
    version: i64,
    /// Set for checkpoints in several files, which we neither write nor read.
    #[serde(default)]
    parts: Option<u32>,
}

/// Writes a checkpoint of the table's newest version.
///
/// # Errors
/// When delta-rs cannot; the table is as good without it.
pub async fn write(table: Url) -> Result<(), TableError> {
    let failed = |error: deltalake_core::DeltaTableError| TableError::Checkpoint(error.to_string());
    let table = deltalake_core::open_table(table).await.map_err(failed)?;
    create_checkpoint(&table, None).await.map_err(failed)
}

/// The table as the newest checkpoint at or below `wanted` has it; `None` without one that can be read: then the
/// commits tell, or that they are missing.
pub(super) async fn read_newest(warehouse: &Warehouse, log: &Log, wanted: i64) -> Option<Replay> {
    let last = warehouse.get(&log.folder().clone().join("_last_checkpoint")).await.ok()?;
    let last: LastCheckpoint = serde_json::from_slice(&last).ok()?;
    if last.version > wanted || last.parts.is_some() {
        return None;
    }
    let name = format!("{:020}.checkpoint.parquet", last.version);
    let read = async { replay_of(warehouse.get(&log.folder().clone().join(name)).await?, last.version) };
    match read.await {
        Ok(replay) => Some(replay),
        Err(error) => {
            tracing::warn!(table = %log.table, version = last.version, %error, "the log's checkpoint cannot be read; every commit is");
            None
        }
    }
}

/// The table that a checkpoint's rows describe.
fn replay_of(checkpoint: Bytes, version: i64) -> Result<Replay, TableError> {
    let mut replay = Replay { version, ..Replay::default() };
    for batch in ParquetRecordBatchReaderBuilder::try_new(checkpoint)?.build()? {
        let mut lines = arrow_json::LineDelimitedWriter::new(Vec::new());
        lines.write(&batch?)?;
        lines.finish()?;
        for line in lines.into_inner().split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let action: Action =
                serde_json::from_slice(line).map_err(|error| TableError::Damaged(error.to_string()))?;
            // Tombstones say what is gone, which a fresh replay never had.
            replay.apply(Action { remove: None, ..action }, version);
        }
    }
    if replay.protocol.is_none() || replay.meta_data.is_none() {
        return Err(TableError::Damaged("it lacks protocol or metaData".into()));
    }
    Ok(replay)
}
