//! Row events that leave columns out, or log documents as differences: rarer, and taken apart cell by cell.
//!
//! What an image leaves out (Reference Manual, `binlog_row_image`): of an insert with MINIMAL, columns that no value was
//! given for, which have their defaults then; of an update, in the image before what is not of the key, in the image after what
//! has not changed; of a delete, what is not of the key. NOBLOB does the same with BLOB and TEXT columns alone.

use weir_model::image::{PartialImage, Rest};
use weir_model::{ChangeBuilder, Half, Op};

use super::cursor::{Cursor, Truncated};
use super::value::{Scratch, Value};
use super::{CellError, Fault, RowDecoder, RowError, is_set, payload};
use crate::binlog::json::{Applied, write_changed};
use crate::binlog::{RowsImage, RowsKind};

/// What an image has of one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell<'a> {
    Absent,
    Null,
    Bytes(&'a [u8]),
    /// The difference of a document to the one before.
    Difference(&'a [u8]),
}

/// The two images of a row change; the one before is empty for an insert, the one after for a delete.
#[derive(Default)]
struct Images<'a> {
    before: Vec<Cell<'a>>,
    after: Vec<Cell<'a>>,
}

/// A bit of the options in front of an image after: what follows says which documents are differences.
const HAS_DIFFERENCES: u64 = 1;

impl RowDecoder {
    /// As [`RowDecoder::decode`].
    pub(super) fn decode_partial(
        &self,
        image: &RowsImage,
        skip: u64,
        builder: &mut ChangeBuilder,
    ) -> Result<u64, RowError> {
        self.require_key(&image.present)?;
        let (mut rows, mut scratch, mut images) = (Cursor::new(&image.rows), Scratch::default(), Images::default());
        let mut walked = 0;
        while !rows.is_empty() {
            let change = self.read_images(image, &mut rows, &mut images).and_then(|()| {
                if walked < skip { Ok(()) } else { self.partial_change(image.kind, &images, &mut scratch, builder) }
            });
            change.map_err(|fault| self.fault(fault, walked + 1))?;
            walked += 1;
        }
        Ok(walked)
    }

    /// A row whose key is not told cannot be found, here or at the source.
    fn require_key(&self, present: &[u8]) -> Result<(), RowError> {
        let is_absent = |index: &usize| !is_set(present, *index);
        let has_key = self.steps.iter().any(|step| step.is_key);
        let of_key = (0..self.steps.len()).filter(|index| self.steps[*index].is_key || !has_key);
        match of_key.into_iter().find(is_absent) {
            None => Ok(()),
            Some(index) => Err(RowError::PartialImage {
                table: self.schema.table.clone(),
                column: self.schema.columns[index].name.clone(),
            }),
        }
    }

    fn read_images<'a>(&self, image: &RowsImage, rows: &mut Cursor<'a>, images: &mut Images<'a>) -> Result<(), Fault> {
        images.before.clear();
        images.after.clear();
        match image.kind {
            RowsKind::Insert => self.read_image(rows, &image.present, false, &mut images.after),
            RowsKind::Delete => self.read_image(rows, &image.present, false, &mut images.before),
            RowsKind::Update => {
                self.read_image(rows, &image.present, false, &mut images.before)?;
                self.read_image(rows, &image.present_after, image.has_differences, &mut images.after)
            }
        }
    }

    /// Reads the cells of one image. NULLs have a bit for each column that is present; documents that are differences one for
    /// each JSON column of the table.
    fn read_image<'a>(
        &self,
        rows: &mut Cursor<'a>,
        present: &[u8],
        has_options: bool,
        cells: &mut Vec<Cell<'a>>,
    ) -> Result<(), Fault> {
        let head = |error: Truncated| Fault { column: None, error: error.into() };
        let is_json = |index: &usize| matches!(self.steps[*index].value, Value::Json);
        let mut differences: &[u8] = &[];
        if has_options && rows.packed().map_err(head)? & HAS_DIFFERENCES != 0 {
            let documents = (0..self.steps.len()).filter(is_json).count();
            differences = rows.take(documents.div_ceil(8)).map_err(head)?;
        }
        let count = (0..self.steps.len()).filter(|index| is_set(present, *index)).count();
        let nulls = rows.take(count.div_ceil(8)).map_err(head)?;
        let (mut nth_present, mut nth_document) = (0, 0);
        for (index, step) in self.steps.iter().enumerate() {
            let mut is_difference = false;
            if is_json(&index) {
                is_difference = is_set(differences, nth_document);
                nth_document += 1;
            }
            if !is_set(present, index) {
                cells.push(Cell::Absent);
                continue;
            }
            let is_null = is_set(nulls, nth_present);
            nth_present += 1;
            if is_null {
                cells.push(Cell::Null);
                continue;
            }
            let bytes = payload(rows, step.length).map_err(|error| Fault { column: Some(index), error })?;
            cells.push(if is_difference { Cell::Difference(bytes) } else { Cell::Bytes(bytes) });
        }
        Ok(())
    }

    fn partial_change(
        &self,
        kind: RowsKind,
        images: &Images<'_>,
        scratch: &mut Scratch,
        builder: &mut ChangeBuilder,
    ) -> Result<(), Fault> {
        let Images { before, after } = images;
        match kind {
            RowsKind::Insert => {
                self.emit_partial(after, &[], Rest::AtSource, scratch, builder, (Op::Create, Half::First))
            }
            RowsKind::Delete => {
                self.emit_partial(before, &[], Rest::Unchanged, scratch, builder, (Op::Delete, Half::First))
            }
            RowsKind::Update if self.changes_key(images) => {
                self.emit_partial(before, &[], Rest::Unchanged, scratch, builder, (Op::Delete, Half::First))?;
                // Of a row with the new key nobody here knows anything.
                self.emit_partial(after, before, Rest::AtSource, scratch, builder, (Op::Create, Half::Second))
            }
            RowsKind::Update => {
                self.emit_partial(after, before, Rest::Unchanged, scratch, builder, (Op::Update, Half::First))
            }
        }
    }

    fn changes_key(&self, Images { before, after }: &Images<'_>) -> bool {
        let cells = self.steps.iter().zip(before.iter().zip(after));
        cells.into_iter().any(|(step, (before, after))| step.is_key && *after != Cell::Absent && before != after)
    }

    /// Decodes a row from its cells; what is not in them has not changed from `before`, if that has it.
    fn emit_partial(
        &self,
        cells: &[Cell<'_>],
        before: &[Cell<'_>],
        rest: Rest,
        scratch: &mut Scratch,
        builder: &mut ChangeBuilder,
        (op, half): (Op, Half),
    ) -> Result<(), Fault> {
        let mut image = PartialImage::unknown(self.steps.len(), rest);
        let mut is_whole = true;
        for (index, (step, column)) in self.steps.iter().zip(builder.columns_mut()).enumerate() {
            let was = before.get(index).copied().unwrap_or(Cell::Absent);
            let cell = if cells[index] == Cell::Absent { was } else { cells[index] };
            let pushed = match (cell, was) {
                (Cell::Null, _) => {
                    column.push_null();
                    Ok(true)
                }
                (Cell::Bytes(bytes), _) => step.value.push(bytes, column, scratch).map(|()| true),
                (Cell::Difference(difference), Cell::Bytes(document)) => {
                    push_changed(document, difference, column, scratch)
                }
                (Cell::Absent | Cell::Difference(_), _) => Ok(false),
            };
            if pushed.map_err(|error| Fault { column: Some(index), error })? {
                image.set_known(index);
                continue;
            }
            column.push_null();
            is_whole = false;
            if matches!(cell, Cell::Difference(_)) {
                image.rest = Rest::AtSource;
            }
        }
        match is_whole {
            true => builder.end_row(op, half),
            false => builder.end_partial_row(op, half, image),
        }
        Ok(())
    }
}

/// Appends the document that `document` becomes by `difference`; false if that is one to another document.
fn push_changed(
    document: &[u8],
    difference: &[u8],
    column: &mut weir_model::ColumnBuilder,
    scratch: &mut Scratch,
) -> Result<bool, CellError> {
    scratch.text.clear();
    match write_changed(document, difference, &mut scratch.text)? {
        Applied::Written => column.push_text(&scratch.text)?,
        Applied::Elsewhere => return Ok(false),
    }
    Ok(true)
}
