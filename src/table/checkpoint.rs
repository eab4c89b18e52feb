//! Checkpoints of the Delta log, so that readers and restarts need not read every commit.
//!
//! Written by delta-rs; read here through Arrow's JSON, so that a checkpoint's rows become the same actions as a
//! commit's lines.

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

/// The table as the newest checkpoint at or below `wanted` has it; `None` without one.
pub(super) async fn read_newest(
    warehouse: &Warehouse,
    log: &Log,
    wanted: i64,
) -> Result<Option<Replay>, TableError> {
    let Ok(last) = warehouse.get(&log.folder().clone().join("_last_checkpoint")).await else { return Ok(None) };
    let Ok(last) = serde_json::from_slice::<LastCheckpoint>(&last) else { return Ok(None) };
    if last.version > wanted || last.parts.is_some() {
        return Ok(None);
    }
    let name = format!("{:020}.checkpoint.parquet", last.version);
    let Ok(bytes) = warehouse.get(&log.folder().clone().join(name)).await else { return Ok(None) };
    let mut replay = Replay { version: last.version, ..Replay::default() };
    for batch in ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()? {
        let batch = batch?;
        let mut lines = arrow_json::LineDelimitedWriter::new(Vec::new());
        lines.write(&batch)?;
        lines.finish()?;
        for line in lines.into_inner().split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let action: Action = serde_json::from_slice(line).map_err(|error| {
                TableError::Damaged(format!("the checkpoint of version {} of {}: {error}", last.version, log.table))
            })?;
            // Tombstones say what is gone, which a fresh replay never had.
            replay.apply(Action { remove: None, ..action }, last.version);
        }
    }
    Ok(Some(replay))
}
