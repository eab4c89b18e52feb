//! Batches of older or newer source schemas brought to the columns that the lake table has. Pure.

use std::rc::Rc;
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, new_null_array};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{ArrowError, DataType, SchemaRef};
use arrow_select::interleave::interleave;
use weir_model::{Absences, ChangeBatch, Column, ColumnType, Layout, Op, TableSchema};

use super::fold::{Base, Folded};
use super::folding::Whole;
use super::reduce::{ChangeAt, op, order};
use crate::table::widened;

/// The changes at `picks`, in that order, as rows of the lake table: its columns by name and of its types, NULL where a batch
/// has none or `absences` says that the column has lost what the batch has; those that it is partitioned by and that are
/// made of others; then the order and what its layout adds. Changes that leave columns out are made whole by `whole`.
pub fn lake_rows(
    batches: &[ChangeBatch],
    picks: &[ChangeAt],
    lake: &TableSchema,
    absences: &Absences,
    whole: &Whole,
) -> Result<RecordBatch, ArrowError> {
    let schema: SchemaRef = lake.lake_arrow();
    let indices: Vec<(usize, usize)> = picks.iter().map(|at| (at.batch as usize, at.row as usize)).collect();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    let places = places_of(batches, lake);
    let stack = Stack::of(batches, &places, whole, lake);
    // Looked up once a row, and not once a value.
    let folds: Vec<Option<&Folded>> = match &stack {
        Some(_) => picks.iter().map(|at| whole.folds.get(*at)).collect(),
        None => Vec::new(),
    };
    for (i, field) in schema.fields().iter().take(lake.columns.len()).enumerate() {
        let mut sources: Vec<ArrayRef> = batches
            .iter()
            .zip(&places)
            .map(|(batch, places)| match places[i].filter(|_| keeps(absences, field.name(), batch)) {
                Some(at) => widened(batch.rows.column(at), &batch.schema.columns[at].ty, &lake.columns[i].ty),
                None => Ok(new_null_array(field.data_type(), batch.len())),
            })
            .collect::<Result<_, _>>()?;
        let folded = match &stack {
            Some(stack) => {
                stack.add_bases(i, field.data_type(), &mut sources)?;
                Some(picks.iter().zip(&folds).map(|(at, folded)| stack.place(i, *at, *folded)).collect::<Vec<_>>())
            }
            None => None,
        };
        let sources: Vec<_> = sources.iter().map(AsRef::as_ref).collect();
        columns.push(match sources[..] {
            [] => new_null_array(field.data_type(), 0),
            _ => interleave(&sources, folded.as_ref().unwrap_or(&indices))?,
        });
    }
    columns.extend(lake.made_columns(&columns, picks.len())?);
    let orders = picks.iter().map(|at| order(batches, *at));
    columns.push(Arc::new(orders.clone().map(|o| o.ts_ms).collect::<Int64Array>()));
    columns.push(Arc::new(orders.map(|o| o.seq).collect::<Int64Array>()));
    columns.extend(layout_columns(batches, picks, &lake.layout, whole));
    RecordBatch::try_new(schema, columns)
}

/// Whether the lake keeps what a batch has in a column. A batch ends where a column is dropped, so any of its rows' orders tells.
fn keeps(absences: &Absences, name: &str, batch: &ChangeBatch) -> bool {
    // Of most columns nothing is known, and then no order need be looked at.
    absences.get(name).is_none() || batch.orders.iter().max().is_none_or(|order| absences.keeps(name, *order))
}

/// The columns behind the order's that a layout adds.
fn layout_columns(batches: &[ChangeBatch], picks: &[ChangeAt], layout: &Layout, whole: &Whole) -> Vec<ArrayRef> {
    let mut columns: Vec<ArrayRef> = Vec::new();
    if layout.is_append() {
        let ids = picks.iter().map(|at| batches[at.batch as usize].ids[at.row as usize]);
        columns.push(Arc::new(StringArray::from_iter_values(picks.iter().map(|at| op(batches, *at).to_string()))));
        columns.push(Arc::new(StringArray::from_iter_values(ids.map(|id| id.to_string()))));
    }
    if layout.deletes_softly() {
        let is_gone = |at: ChangeAt| whole.folds.get(at).is_some_and(|folded| folded.is_gone);
        let deleted = picks.iter().map(|at| Some(op(batches, *at) == Op::Delete || is_gone(*at)));
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

/// Batches with what their changes are folded onto, by the lake table's columns.
struct Stack<'a> {
    batches: &'a [ChangeBatch],
    /// Of each batch where it has the lake table's columns.
    places: &'a [Rc<[Option<usize>]>],
    whole: &'a Whole,
    lake: &'a TableSchema,
    /// The same of each read at the source.
    found: Vec<Vec<Option<usize>>>,
}

impl<'a> Stack<'a> {
    /// `None` if nothing is folded.
    fn of(
        batches: &'a [ChangeBatch],
        places: &'a [Rc<[Option<usize>]>],
        whole: &'a Whole,
        lake: &'a TableSchema,
    ) -> Option<Self> {
        let columns = lake.columns.iter();
        let places_in = |schema: &TableSchema| columns.clone().map(|c| schema.column_index(&c.name)).collect();
        let found = whole.found.iter().map(|found| places_in(&found.schema)).collect();
        (!whole.folds.is_empty()).then_some(Self { batches, places, whole, lake, found })
    }

    /// Adds to the batches' values of a column those of the lake's rows, those of each read at the source, and a NULL.
    fn add_bases(&self, column: usize, wanted: &DataType, sources: &mut Vec<ArrayRef>) -> Result<(), ArrowError> {
        let Column { name, ty, .. } = &self.lake.columns[column];
        let of_lake = self.whole.lake.as_ref().map(|rows| match rows.column_by_name(name) {
            Some(values) if values.data_type() == wanted => values.clone(),
            _ => new_null_array(wanted, rows.num_rows()),
        });
        sources.push(of_lake.unwrap_or_else(|| new_null_array(wanted, 0)));
        for (found, places) in self.whole.found.iter().zip(&self.found) {
            sources.push(match places[column] {
                Some(at) => fitted(found.rows.column(at), &found.schema.columns[at].ty, ty)?,
                None => new_null_array(wanted, found.rows.num_rows()),
            });
        }
        sources.push(new_null_array(wanted, 1));
        Ok(())
    }

    /// Where a change's value of a column lies among the sources.
    fn place(&self, column: usize, at: ChangeAt, folded: Option<&Folded>) -> (usize, usize) {
        let itself = (at.batch as usize, at.row as usize);
        let Some(Folded { layers, base, .. }) = folded else { return itself };
        // What the source has not had since then is NULL.
        if self.places[at.batch as usize][column].is_none() {
            return itself;
        }
        let first_base = self.batches.len();
        if let Base::Source(read, row) = base
            && self.found[*read as usize][column].is_some()
        {
            return (first_base + 1 + *read as usize, *row as usize);
        }
        let knows = |layer: &&ChangeAt| {
            let (batch, row) = (layer.batch as usize, layer.row as usize);
            let image = self.batches[batch].images.get(row);
            self.places[batch][column].is_some_and(|at| image.is_none_or(|image| image.knows(at)))
        };
        match (layers.iter().find(knows), base) {
            (Some(layer), _) => (layer.batch as usize, layer.row as usize),
            (None, Base::Lake(row)) => (first_base, *row as usize),
            (None, Base::None | Base::Source(..)) => (first_base + 1 + self.found.len(), 0),
        }
    }
}

/// Values that the source has by now, as a column of the lake has them that may still be of an older type. One that this cannot
/// hold was set by a change that is still to come, which sets it again.
fn fitted(values: &ArrayRef, from: &ColumnType, to: &ColumnType) -> Result<ArrayRef, ArrowError> {
    if !from.widens_to(to) && to.widens_to(from) {
        return cast_with_options(values, &to.arrow(), &CastOptions { safe: true, ..CastOptions::default() });
    }
    widened(values, from, to)
}
