//! The source's rows: of a part, chunk by chunk, or of single keys.

use std::collections::HashMap;

use snapshot_loader::{ChunkReader, TableProgress};
use weir_model::{RecordKey, RecordKeys};
use weir_mysql::RowConnection;

use super::compare::Counting;
use super::entries::{Collected, Collector};
use super::parts::Part;
use super::table::ComparedTable;
use super::{DeepError, DeepQuestion};
use crate::limits::DEEP_LOOKUP_KEYS;
use weir_model::row_hash::RowHash;

/// Reads the part, one SELECT a chunk.
///
/// # Errors
/// When a chunk cannot be read; the part is then to be read anew.
pub async fn collect(
    question: &DeepQuestion,
    connection: &mut RowConnection,
    table: &ComparedTable,
    part: &Part,
    progress: &TableProgress,
) -> Result<Collected, DeepError> {
    let mut collector = Collector::new(question.scratch.clone(), Counting::Rows);
    for chunk in &part.chunks {
        question.throttle.before_chunk().await?;
        let mut reader = ChunkReader::open(connection, &table.description, chunk, &table.read).await?;
        while let Some(batch) = reader.next_batch().await? {
            let rows = table.of_source(&batch)?;
            let (count, bytes) = (batch.num_rows() as u64, batch.get_array_memory_size() as u64);
            progress.add(count, bytes);
            collector.push(rows).map_err(|source| question.scratch_error(source))?;
            question.throttle.after_batch(count, bytes).await?;
        }
        progress.chunk_done();
    }
    Ok(collector.finish())
}

/// The hashes of the rows of those of `keys` that are there. A server whose collation finds more than the very key is not
/// believed: only rows of the same canonical key count.
///
/// # Errors
/// When the source cannot be read.
pub async fn look_up(
    connection: &mut RowConnection,
    table: &ComparedTable,
    keys: &[RecordKey],
) -> Result<HashMap<RecordKey, RowHash>, DeepError> {
    let mut found = HashMap::new();
    for some in keys.chunks(DEEP_LOOKUP_KEYS) {
        let values: Vec<_> = some.iter().filter_map(|key| table.shape.values(key.as_ref())).collect();
        if values.is_empty() {
            continue;
        }
        let mut reader = ChunkReader::open(connection, &table.description, &values[..], &table.read).await?;
        while let Some(batch) = reader.next_batch().await? {
            let rows = table.of_source(&batch)?;
            found.extend(keyed(&rows.keys).zip(rows.hashes));
        }
    }
    Ok(found)
}

fn keyed(keys: &RecordKeys) -> impl Iterator<Item = RecordKey> {
    (0..keys.len()).map(|row| keys.get(row).to_owned())
}
