//! Batches of older or newer source schemas brought to the columns that the lake table has. Pure.

use std::rc::Rc;
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, new_null_array};
use arrow_schema::{ArrowError, SchemaRef};
use arrow_select::interleave::interleave;
use weir_model::{Absences, ChangeBatch, Layout, Op, TableSchema};

use super::reduce::{ChangeAt, op, order};
use crate::table::widened;

/// The changes at `picks`, in that order, as rows of the lake table: its columns by name and of its types, NULL where a batch
/// has none or `absences` says that the column has lost what the batch has; those that it is partitioned by and that are
/// made of others; then the order and what its layout adds.
pub fn lake_rows(
    batches: &[ChangeBatch],
    picks: &[ChangeAt],
    lake: &TableSchema,
    absences: &Absences,
) -> Result<RecordBatch, ArrowError> {
    let schema: SchemaRef = lake.lake_arrow();
    let indices: Vec<(usize, usize)> = picks.iter().map(|at| (at.batch as usize, at.row as usize)).collect();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    let places = places_of(batches, lake);
    for (i, field) in schema.fields().iter().take(lake.columns.len()).enumerate() {
        let sources: Vec<ArrayRef> = batches
            .iter()
            .zip(&places)
            .map(|(batch, places)| match places[i].filter(|_| keeps(absences, field.name(), batch)) {
                Some(at) => widened(batch.rows.column(at), &batch.schema.columns[at].ty, &lake.columns[i].ty),
                None => Ok(new_null_array(field.data_type(), batch.len())),
            })
            .collect::<Result<_, _>>()?;
        let sources: Vec<_> = sources.iter().map(AsRef::as_ref).collect();
        columns.push(match sources[..] {
            [] => new_null_array(field.data_type(), 0),
            _ => interleave(&sources, &indices)?,
        });
    }
    columns.extend(lake.made_columns(&columns, picks.len())?);
    let orders = picks.iter().map(|at| order(batches, *at));
    columns.push(Arc::new(orders.clone().map(|o| o.ts_ms).collect::<Int64Array>()));
    columns.push(Arc::new(orders.map(|o| o.seq).collect::<Int64Array>()));
    columns.extend(layout_columns(batches, picks, &lake.layout));
    RecordBatch::try_new(schema, columns)
}

/// Whether the lake keeps what a batch has in a column. A batch ends where a column is dropped, so any of its rows' orders tells.
fn keeps(absences: &Absences, name: &str, batch: &ChangeBatch) -> bool {
    // Of most columns nothing is known, and then no order need be looked at.
    absences.get(name).is_none() || batch.orders.iter().max().is_none_or(|order| absences.keeps(name, *order))
}

/// The columns behind the order's that a layout adds.
fn layout_columns(batches: &[ChangeBatch], picks: &[ChangeAt], layout: &Layout) -> Vec<ArrayRef> {
    let mut columns: Vec<ArrayRef> = Vec::new();
    if layout.is_append() {
        let ids = picks.iter().map(|at| batches[at.batch as usize].ids[at.row as usize]);
        columns.push(Arc::new(StringArray::from_iter_values(picks.iter().map(|at| op(batches, *at).to_string()))));
        columns.push(Arc::new(StringArray::from_iter_values(ids.map(|id| id.to_string()))));
    }
    if layout.deletes_softly() {
        let deleted = picks.iter().map(|at| Some(op(batches, *at) == Op::Delete));
        columns.push(Arc::new(deleted.collect::<BooleanArray>()));
    }
    columns
}

/// Of each batch where it has the lake table's columns. Batches in a row that share a schema share the answer.
fn places_of(batches: &[ChangeBatch], lake: &TableSchema) -> Vec<Rc<[Option<usize>]>> {
    let mut places: Vec<Rc<[Option<usize>]>> = Vec::with_capacity(batches.len());
    for (b, batch) in batches.iter().enumerate() {
        let same = b.checked_sub(1).filter(|last| Arc::ptr_eq(&batches[*last].schema, &batch.schema));
        places.push(match same {
            Some(last) => places[last].clone(),
            None => lake.columns.iter().map(|column| batch.schema.column_index(&column.name)).collect(),
        });
    }
    places
}
