//! Batches of older or newer source schemas brought to the columns that the lake table has. Pure.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, new_null_array};
use arrow_schema::{ArrowError, SchemaRef};
use arrow_select::interleave::interleave;
use weir_model::{ChangeBatch, TableSchema};

use super::reduce::{ChangeAt, order};

/// The changes at `picks`, in that order, as rows of the lake table: its columns by name, NULL where a batch has none,
/// then the order.
pub fn lake_rows(batches: &[ChangeBatch], picks: &[ChangeAt], lake: &TableSchema) -> Result<RecordBatch, ArrowError> {
    let schema: SchemaRef = lake.lake_arrow();
    let indices: Vec<(usize, usize)> = picks.iter().map(|at| (at.batch as usize, at.row as usize)).collect();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for (i, column) in lake.columns.iter().enumerate() {
        let data_type = schema.field(i).data_type();
        let sources: Vec<ArrayRef> = batches
            .iter()
            .map(|batch| match batch.schema.column_index(&column.name) {
                Some(at) => batch.rows.column(at).clone(),
                None => new_null_array(data_type, batch.len()),
            })
            .collect();
        let sources: Vec<_> = sources.iter().map(AsRef::as_ref).collect();
        columns.push(if sources.is_empty() { new_null_array(data_type, 0) } else { interleave(&sources, &indices)? });
    }
    let orders = picks.iter().map(|at| order(batches, *at));
    columns.push(Arc::new(orders.clone().map(|o| o.ts_ms).collect::<Int64Array>()));
    columns.push(Arc::new(orders.map(|o| o.seq).collect::<Int64Array>()));
    RecordBatch::try_new(schema, columns)
}
