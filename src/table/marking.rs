//! Soft deletes of many rows at once: what a load did not find, and what a TRUNCATE emptied. Such rows stay with their
//! values, in new files, marked as deleted; the old ones die.
//!
//! One file is read and one is written at a time, so memory is that of a file and of the keys of the rows that are marked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch};
use arrow_schema::{Field, Schema, SchemaRef};
use arrow_select::concat::concat_batches;
use arrow_select::filter::filter_record_batch;
use futures::TryStreamExt;
use roaring::RoaringBitmap;
use weir_model::schema::{DELETED_COLUMN, SEQ_COLUMN, TS_COLUMN};
use weir_model::{Order, RecordKeys, TableSchema, clock};

use super::change::{Clear, RemoveBelow};
use super::deaths::Deaths;
use super::delta::Add;
use super::files::DataFile;
use super::partition::{PartitionValues, partition_names};
use super::read::orders_of_batch;
use super::reshape::without_former;
use super::scan::conform;
use super::writer::{EncodedFile, FileOrders, FileWriter, Placed, add_action};
use super::{Table, TableError};
use crate::limits::MARKED_FILE_BYTES;

/// Which rows are marked as deleted: live rows of `buckets` that are not marked yet, below an order if there is one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks<'a> {
    buckets: &'a BTreeSet<u32>,
    below: Option<Order>,
    /// The order that they have from then on.
    order: Order,
}

impl<'a> Marks<'a> {
    pub(super) fn of_clear(clear: &'a Clear) -> Self {
        Self { buckets: &clear.buckets, below: None, order: clear.at }
    }

    pub(super) fn of_load(remove: &'a RemoveBelow) -> Self {
        Self { buckets: &remove.buckets, below: Some(remove.order), order: remove.order }
    }
}

/// Whether a row of this order is meant, unless it is marked already.
fn is_below(order: Order, below: Option<Order>) -> bool {
    below.is_none_or(|below| order < below)
}

/// A new data file, durable and in no commit, whose rows are marked.
pub(super) struct MarkedFile {
    pub(super) file: DataFile,
    /// The rows' keys.
    pub(super) keys: RecordKeys,
}

/// Files whose rows may share a new one: of the same bucket, and in the same place.
type Place = (u32, PartitionValues);

impl Table {
    /// Writes the rows that `marks` covers once more, marked; where they were they die.
    pub(super) async fn mark_deleted(
        &self,
        marks: &Marks<'_>,
        schema: &TableSchema,
        deaths: &mut Deaths,
    ) -> Result<Vec<MarkedFile>, TableError> {
        let Marks { below, order, .. } = *marks;
        self.mark(self.rows_to_look_at(marks), below, order, schema, deaths).await
    }

    /// The same for some live rows of one bucket, by file, with one order below which they are meant and which they get.
    pub(super) async fn mark_rows_deleted(
        &self,
        bucket: u32,
        rows: BTreeMap<u32, RoaringBitmap>,
        order: Order,
        schema: &TableSchema,
        deaths: &mut Deaths,
    ) -> Result<Vec<MarkedFile>, TableError> {
        let mut found: BTreeMap<Place, Vec<(u32, RoaringBitmap)>> = BTreeMap::new();
        for (number, rows) in rows {
            let place = PartitionValues::of_entry(&self.schema.layout, &self.files[&number].add);
            found.entry((bucket, place)).or_default().push((number, rows));
        }
        self.mark(found, Some(order), order, schema, deaths).await
    }

    /// Marks those of the rows found that are below an order, if one is given, and not marked yet.
    async fn mark(
        &self,
        found: BTreeMap<Place, Vec<(u32, RoaringBitmap)>>,
        below: Option<Order>,
        order: Order,
        schema: &TableSchema,
        deaths: &mut Deaths,
    ) -> Result<Vec<MarkedFile>, TableError> {
        let mut marked = Vec::new();
        for (place, files) in found {
            let mut writer = MarkWriter::new(schema, order)?;
            for (number, rows) in files {
                let rows = self.unmarked(number, rows, below).await?;
                if rows.is_empty() {
                    continue;
                }
                self.write_marked(number, &rows, &mut writer).await?;
                *deaths.rows.entry(number).or_default() |= rows;
                if writer.bytes >= MARKED_FILE_BYTES {
                    let full = std::mem::replace(&mut writer, MarkWriter::new(schema, order)?);
                    marked.push(self.put_marked(full, &place).await?);
                }
            }
            if writer.bytes > 0 {
                marked.push(self.put_marked(writer, &place).await?);
            }
        }
        Ok(marked)
    }

    /// Live rows of the marks' buckets, by file; of files that have nothing below their order none.
    fn rows_to_look_at(&self, marks: &Marks<'_>) -> BTreeMap<Place, Vec<(u32, RoaringBitmap)>> {
        let mut found: BTreeMap<Place, Vec<(u32, RoaringBitmap)>> = BTreeMap::new();
        let layout = &self.schema.layout;
        let place = |bucket, file: &DataFile| (bucket, PartitionValues::of_entry(layout, &file.add));
        for (number, file) in self.files.iter().filter(|(_, file)| is_below(file.orders.least, marks.below)) {
            let Some(bucket) = file.bucket.filter(|bucket| marks.buckets.contains(bucket)) else { continue };
            let mut live: RoaringBitmap = (0..file.rows).collect();
            live -= &file.dead;
            found.entry(place(bucket, file)).or_default().push((*number, live));
        }
        for bucket in marks.buckets {
            let mut mixed: BTreeMap<u32, RoaringBitmap> = BTreeMap::new();
            for address in self.rows_in_mixed_files(&BTreeSet::from([*bucket])) {
                mixed.entry(address.file).or_default().insert(address.row);
            }
            for (number, rows) in mixed {
                found.entry(place(*bucket, &self.files[&number])).or_default().push((number, rows));
            }
        }
        found
    }

    /// Those of `rows` of a file that are below the order and not marked yet.
    async fn unmarked(
        &self,
        number: u32,
        rows: RoaringBitmap,
        below: Option<Order>,
    ) -> Result<RoaringBitmap, TableError> {
        let add = &self.files[&number].add;
        let names = [TS_COLUMN, SEQ_COLUMN, DELETED_COLUMN];
        let mut batches = self.folder().columns(&add.path, add.size as u64, &names).await?;
        let (mut unmarked, mut first_row) = (RoaringBitmap::new(), 0);
        while let Some(batch) = batches.try_next().await? {
            let deleted = batch.column_by_name(DELETED_COLUMN).map(|column| column.as_boolean());
            let is_marked = |row| deleted.is_some_and(|deleted| deleted.is_valid(row) && deleted.value(row));
            for (row, order) in orders_of_batch(&batch).into_iter().enumerate() {
                let at = first_row + row as u32;
                if rows.contains(at) && is_below(order, below) && !is_marked(row) {
                    unmarked.insert(at);
                }
            }
            first_row += batch.num_rows() as u32;
        }
        Ok(unmarked)
    }

    async fn write_marked(&self, number: u32, rows: &RoaringBitmap, to: &mut MarkWriter) -> Result<(), TableError> {
        let add = &self.files[&number].add;
        let mut batches = self.folder().rows(&add.path, add.size as u64).await?;
        let mut first_row = 0;
        while let Some(batch) = batches.try_next().await? {
            let end = first_row + batch.num_rows() as u32;
            let picked: BooleanArray = (first_row..end).map(|row| Some(rows.contains(row))).collect();
            first_row = end;
            // With its mark a row gets a greater order, which would no longer tell that a value of it is of a column whose
            // name may be used again.
            let batch = without_former(conform(&batch, &to.columns, &[], add)?, self.state.absences.former())?;
            to.write(&filter_record_batch(&batch, &picked)?, add)?;
        }
        Ok(())
    }

    async fn put_marked(&self, written: MarkWriter, (bucket, place): &Place) -> Result<MarkedFile, TableError> {
        let MarkWriter { writer, order, keys, key_columns, .. } = written;
        let names: Vec<&str> = key_columns.fields().iter().map(|field| field.name().as_str()).collect();
        let keys = RecordKeys::of(&concat_batches(&key_columns, &keys)?, &names)?;
        let EncodedFile { name, bytes, stats } = writer.finish()?;
        let size = bytes.len();
        let path = place.path_of(&self.schema.layout, &name);
        self.files().put(&path, bytes).await?;
        let orders = FileOrders { least: order, greatest: order };
        let placed = Placed { path, size, stats, bucket: *bucket, partition: place };
        let add = add_action(&self.schema.layout, placed, orders, clock::now_ms());
        let rows = keys.len() as u32;
        let file = DataFile { add, bucket: Some(*bucket), rows, dead: RoaringBitmap::new(), orders };
        Ok(MarkedFile { file, keys })
    }
}

/// One file of marked rows while it is written.
struct MarkWriter {
    writer: FileWriter,
    order: Order,
    columns: SchemaRef,
    key_columns: SchemaRef,
    /// Columns that files leave out, since their entries tell them.
    told: Vec<String>,
    /// The key columns of what has been written.
    keys: Vec<RecordBatch>,
    /// Bytes in memory of what has been written.
    bytes: usize,
}

impl MarkWriter {
    /// A file of a table of `schema`, whose rows get `order`.
    fn new(schema: &TableSchema, order: Order) -> Result<Self, TableError> {
        let columns = schema.file_arrow();
        let key = schema.key.iter().map(|&at| &schema.columns[at]);
        let key_fields: Vec<Field> = key.map(|column| Field::new(&column.name, column.ty.arrow(), true)).collect();
        let key_columns = Arc::new(Schema::new(key_fields));
        let writer = FileWriter::new(schema)?;
        let told = partition_names(&schema.layout);
        Ok(Self { writer, order, columns, key_columns, told, keys: Vec::new(), bytes: 0 })
    }

    /// Adds rows of a file of this entry.
    fn write(&mut self, rows: &RecordBatch, add: &Add) -> Result<(), TableError> {
        if rows.num_rows() > 0 {
            self.writer.write(&with_mark(rows, self.order)?)?;
            let told: Vec<&str> = self.told.iter().map(String::as_str).collect();
            self.keys.push(conform(rows, &self.key_columns, &told, add)?);
            self.bytes += rows.get_array_memory_size();
        }
        Ok(())
    }
}

/// The rows with another order, marked as deleted.
fn with_mark(rows: &RecordBatch, order: Order) -> Result<RecordBatch, TableError> {
    let count = rows.num_rows();
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    for (column, field) in columns.iter_mut().zip(rows.schema_ref().fields()) {
        match field.name().as_str() {
            TS_COLUMN => *column = Arc::new(Int64Array::from_value(order.ts_ms, count)),
            SEQ_COLUMN => *column = Arc::new(Int64Array::from_value(order.seq, count)),
            DELETED_COLUMN => *column = Arc::new(BooleanArray::from(vec![true; count])),
            _ => {}
        }
    }
    Ok(RecordBatch::try_new(rows.schema(), columns)?)
}
