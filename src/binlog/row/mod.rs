//! Row images to columns: what a row event says becomes rows of a [`ChangeBuilder`].
//!
//! In: a [`RowsImage`] and its table map. Out: one half-event a row change, two for an update that changes the key.
//! Everything that depends on the column alone (type, length bytes, character set, members) is resolved once into a plan,
//! so that decoding is a walk over bytes. Events that leave columns out go another way, in `partial`. Identity and order of the
//! changes are the sequencer's.

use std::sync::Arc;

use weir_model::{ChangeBuilder, Half, Op, TableSchema};

use crate::binlog::table_map::Writer;
use crate::binlog::{RowsImage, RowsKind, TableMap};

pub(crate) mod cursor;
pub(crate) mod decimal;
mod error;
mod partial;
pub(crate) mod plan;
pub(crate) mod temporal;
#[cfg(test)]
mod tests;
mod value;

use cursor::Cursor;
use plan::{Length, Step};
use value::Scratch;

pub use error::{CellError, RowError};

/// How to decode the rows that follow one table map.
#[derive(Debug)]
pub struct RowDecoder {
    schema: Arc<TableSchema>,
    writer: Writer,
    steps: Vec<Step>,
    /// Columns up to and including the last one of the key.
    key_end: usize,
}

impl RowDecoder {
    /// Plans the decoding of rows of `map` into columns of `schema`, which must have the map's columns in its order.
    pub fn new(map: &TableMap, schema: Arc<TableSchema>) -> Result<Self, RowError> {
        let steps = plan::steps(map, &schema)?;
        let key_end = steps.iter().rposition(|step| step.is_key).map_or(0, |last| last + 1);
        Ok(Self { schema, writer: map.writer, steps, key_end })
    }

    /// Decodes every row change of `image` but the first `skip`, which are walked over; returns how many it holds.
    ///
    /// An update becomes one row, its after image, if the bytes of the key columns are the same in both images, else a
    /// delete of the before image and a create of the after image. Columns that an event leaves out are NULL, and the row's
    /// image says so. After an error the builder holds half a row and must be dropped.
    ///
    /// # Panics
    /// If `builder` was made for another schema.
    pub fn decode(&self, image: &RowsImage, skip: u64, builder: &mut ChangeBuilder) -> Result<u64, RowError> {
        assert_eq!(builder.schema(), &self.schema, "rows are decoded into a builder of their own schema");
        let is_whole = |present: &[u8]| (0..self.steps.len()).all(|index| is_set(present, index));
        let is_update = image.kind == RowsKind::Update;
        if image.has_differences || !is_whole(&image.present) || (is_update && !is_whole(&image.present_after)) {
            // What it leaves out may have changed: a generated column does with those that it is made of.
            if self.writer == Writer::Mariadb {
                return Err(RowError::PartialImageOfMariadb(self.schema.table.clone()));
            }
            return self.decode_partial(image, skip, builder);
        }
        let mut work = Work { rows: Cursor::new(&image.rows), scratch: Scratch::default(), keys: Keys::default() };
        let mut walked = 0;
        while !work.rows.is_empty() {
            let change = if walked < skip {
                self.skip(image.kind, &mut work)
            } else {
                self.change(image.kind, &mut work, builder)
            };
            change.map_err(|fault| self.fault(fault, walked + 1))?;
            walked += 1;
        }
        Ok(walked)
    }

    fn change<'a>(&self, kind: RowsKind, work: &mut Work<'a>, builder: &mut ChangeBuilder) -> Result<(), Fault> {
        match kind {
            RowsKind::Insert => self.emit(&mut work.rows, &mut work.scratch, builder, Op::Create, Half::First),
            RowsKind::Delete => self.emit(&mut work.rows, &mut work.scratch, builder, Op::Delete, Half::First),
            RowsKind::Update => {
                let mut before = work.rows;
                self.walk(&mut work.rows, self.steps.len(), &mut work.keys.before)?;
                let mut after = work.rows;
                self.walk(&mut after, self.key_end, &mut work.keys.after)?;
                if work.keys.before == work.keys.after {
                    self.emit(&mut work.rows, &mut work.scratch, builder, Op::Update, Half::First)
                } else {
                    self.emit(&mut before, &mut work.scratch, builder, Op::Delete, Half::First)?;
                    self.emit(&mut work.rows, &mut work.scratch, builder, Op::Create, Half::Second)
                }
            }
        }
    }

    fn skip<'a>(&self, kind: RowsKind, work: &mut Work<'a>) -> Result<(), Fault> {
        if kind == RowsKind::Update {
            self.walk(&mut work.rows, self.steps.len(), &mut work.keys.before)?;
        }
        self.walk(&mut work.rows, self.steps.len(), &mut work.keys.after)
    }

    /// Decodes one image into a row of the builder.
    fn emit(
        &self,
        rows: &mut Cursor<'_>,
        scratch: &mut Scratch,
        builder: &mut ChangeBuilder,
        op: Op,
        half: Half,
    ) -> Result<(), Fault> {
        let nulls = self.null_bitmap(rows)?;
        for (index, (step, column)) in self.steps.iter().zip(builder.columns_mut()).enumerate() {
            if is_set(nulls, index) {
                column.push_null();
                continue;
            }
            let pushed = payload(rows, step.length).and_then(|bytes| step.value.push(bytes, column, scratch));
            pushed.map_err(|error| Fault { column: Some(index), error })?;
        }
        builder.end_row(op, half);
        Ok(())
    }

    /// Goes over the first `columns` columns of an image and notes the bytes of those that belong to the key.
    fn walk<'a>(&self, rows: &mut Cursor<'a>, columns: usize, key: &mut Vec<Option<&'a [u8]>>) -> Result<(), Fault> {
        key.clear();
        let nulls = self.null_bitmap(rows)?;
        for (index, step) in self.steps.iter().enumerate().take(columns) {
            let bytes = if is_set(nulls, index) {
                None
            } else {
                Some(payload(rows, step.length).map_err(|error| Fault { column: Some(index), error })?)
            };
            if step.is_key {
                key.push(bytes);
            }
        }
        Ok(())
    }

    fn null_bitmap<'a>(&self, rows: &mut Cursor<'a>) -> Result<&'a [u8], Fault> {
        rows.take(self.steps.len().div_ceil(8)).map_err(|error| Fault { column: None, error: error.into() })
    }

    #[cold]
    fn fault(&self, fault: Fault, row: u64) -> RowError {
        let place = match fault.column {
            Some(index) => format!("column {}", self.schema.columns[index].name),
            None => "null bitmap".to_owned(),
        };
        RowError::Cell { table: self.schema.table.clone(), place, row, source: fault.error }
    }
}

/// What decoding one event needs beside the plan; nothing of it is allocated per row.
struct Work<'a> {
    rows: Cursor<'a>,
    scratch: Scratch,
    keys: Keys<'a>,
}

/// The key columns' bytes of an update's two images, in the order of the columns.
#[derive(Default)]
struct Keys<'a> {
    before: Vec<Option<&'a [u8]>>,
    after: Vec<Option<&'a [u8]>>,
}

/// A value that could not be decoded, by its column; none if it was the row's null bitmap.
struct Fault {
    column: Option<usize>,
    error: CellError,
}

/// The bytes of a value, without the length in front of them.
#[inline]
fn payload<'a>(rows: &mut Cursor<'a>, length: Length) -> Result<&'a [u8], CellError> {
    let length = match length {
        Length::Fixed(bytes) => bytes,
        Length::Prefixed(bytes) => rows.uint_le(bytes)? as usize,
    };
    Ok(rows.take(length)?)
}

/// Bit `index`, the least significant bit of each byte first; false beyond the end.
#[inline]
fn is_set(bitmap: &[u8], index: usize) -> bool {
    bitmap.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}
