//! Checkpoints of the Delta log, so that readers and restarts need not read every commit.
//!
//! Written by delta-rs; read here through Arrow's JSON, so that a checkpoint's rows become the same actions as a
//! commit's lines.

use deltalake_core::DeltaTableBuilder;
use deltalake_core::protocol::checkpoints::create_checkpoint;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use url::Url;

use super::TableError;
use super::delta::Action;
use super::location::Warehouse;
use super::log::Replay;

/// Writes a checkpoint of the newest version of the table in `folder`.
///
/// # Errors
/// When delta-rs cannot; the table is as good without it.
pub(super) async fn write(warehouse: &Warehouse, folder: &Path) -> Result<(), TableError> {
    let failed = |error: deltalake_core::DeltaTableError| TableError::Checkpoint(error.to_string());
    // The url only tells delta-rs the folder below the store's root; every byte goes through our store, so that what
    // it writes is as durable as what we write.
    let url = Url::parse(&format!("memory:///{folder}/")).map_err(|error| TableError::Checkpoint(error.to_string()))?;
    let table = DeltaTableBuilder::from_url(url.clone())
        .map_err(failed)?
        .with_storage_backend(warehouse.store().clone(), url)
        .load()
        .await
        .map_err(failed)?;
    create_checkpoint(&table, None).await.map_err(failed)
}

/// The table as the checkpoint of `version` in the log's folder has it.
pub(super) async fn read(warehouse: &Warehouse, log: &Path, version: i64) -> Result<Replay, TableError> {
    let bytes = warehouse.get(&log.clone().join(format!("{version:020}.checkpoint.parquet"))).await?;
    let mut replay = Replay { version, ..Replay::default() };
    for batch in ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()? {
        let mut lines = arrow_json::LineDelimitedWriter::new(Vec::new());
        lines.write(&batch?)?;
        lines.finish()?;
        for line in lines.into_inner().split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let action: Action = serde_json::from_slice(line)
                .map_err(|error| TableError::Damaged(format!("the checkpoint of version {version}: {error}")))?;
            // Tombstones say what is gone, which a fresh replay never had.
            replay.apply(Action { remove: None, ..action }, version);
        }
    }
    // Arrow's JSON leaves out a map's NULLs, and our entries say them.
    let columns = replay.meta_data.as_ref().map_or_else(Vec::new, |meta_data| meta_data.partition_columns.clone());
    for add in replay.files.values_mut() {
        for column in &columns {
            add.partition_values.entry(column.clone()).or_insert(None);
        }
    }
    Ok(replay)
}
