//! Data files written again: several become one, without the rows that are dead, and with the columns that the table has
//! by now. Those that may hold rows of several buckets become one a bucket.
//!
//! The writer goes on meanwhile. What dies while the files are read is known by their vectors when the new ones are to be
//! committed, and [`Rewritten::died`] and [`Output::of`] say where those rows went.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, UInt32Array};
use arrow_select::interleave::interleave;
use arrow_select::take::take_record_batch;
use bytes::Bytes;
use futures::StreamExt;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use roaring::RoaringBitmap;
use weir_model::{Order, RecordKeys, TableSchema, clock};

use super::chunk::{TableFiles, is_too_old};
use super::delta::Add;
use super::files::DataFile;
use super::partition::{PartitionValues, ToldKeys};
use super::read::orders_of_batch;
use super::scan::conform;
use super::stage::NewFile;
use super::writer::{EncodedFile, FileOrders, FileWriter, Placed, add_action};
use super::{Table, TableError};
use crate::failpoint;

/// Rows written at a time.
const ROWS_AT_A_TIME: usize = 16_384;
/// Where a row that was dead already has gone.
const NOWHERE: u32 = u32::MAX;

/// A file to be read, as it stood when the rewriting was planned.
#[derive(Debug, Clone)]
pub(super) struct Input {
    pub number: u32,
    pub add: Add,
    pub rows: u32,
    pub dead: RoaringBitmap,
}

/// The buckets of the rows that are written again.
#[derive(Debug, Clone, Copy)]
pub(super) enum RowsOf {
    /// All are of this one.
    One(u32),
    /// Each row's key tells; the table has so many.
    Several { count: u32 },
}

impl RowsOf {
    /// Those of a file of `bucket`, if it says one, in a table of `count`.
    pub(super) fn file(bucket: Option<u32>, count: u32) -> Self {
        bucket.map_or(Self::Several { count }, Self::One)
    }
}

/// Files of one partition to become one, or one for each bucket that has a row in them.
#[derive(Debug)]
pub struct Rewriting {
    pub(super) files: TableFiles,
    pub(super) schema: Arc<TableSchema>,
    pub(super) rows_of: RowsOf,
    pub(super) partition: PartitionValues,
    pub(super) inputs: Vec<Input>,
}

/// A file that has been read, and where its rows have gone.
#[derive(Debug)]
pub(super) struct Reread {
    pub number: u32,
    pub path: String,
    /// Dead when it was read.
    pub dead: RoaringBitmap,
    /// Each row's number among all that were written.
    places: Vec<u32>,
}

/// A new file; durable, and in no commit.
#[derive(Debug)]
pub(super) struct Output {
    /// From the table's folder.
    pub path: String,
    pub bucket: u32,
    pub size: usize,
    pub stats: String,
    pub orders: FileOrders,
    pub rows: u32,
    /// The rows' keys; none in a table that is appended to.
    pub keys: RecordKeys,
    /// Of all rows that were written the numbers of those that are in this file, ascending as they are there; none if all
    /// are.
    taken: Option<RoaringBitmap>,
}

/// What became of a [`Rewriting`].
#[derive(Debug)]
pub struct Rewritten {
    files: TableFiles,
    pub(super) partition: PartitionValues,
    pub(super) schema: Arc<TableSchema>,
    pub(super) inputs: Vec<Reread>,
    /// One a bucket; none if no row was live.
    pub(super) outputs: Vec<Output>,
    /// When they were written, in milliseconds since the epoch.
    pub(super) written_ms: i64,
}

impl Reread {
    /// Numbers of the rows that have died in this file since it was read; it has `dead` rows by now.
    fn died(&self, dead: &RoaringBitmap) -> RoaringBitmap {
        (dead - &self.dead).iter().map(|row| self.places[row as usize]).filter(|row| *row != NOWHERE).collect()
    }
}

impl Output {
    /// The rows of this file among those of all files that have these numbers.
    pub(super) fn of(&self, written: &RoaringBitmap) -> RoaringBitmap {
        let Some(taken) = &self.taken else { return written.clone() };
        (written & taken).iter().map(|row| taken.rank(row) as u32 - 1).collect()
    }

    /// The file as one of a table of `schema`, with `dead` rows.
    pub(super) fn in_table(
        &self,
        schema: &TableSchema,
        partition: &PartitionValues,
        dead: RoaringBitmap,
        at_ms: i64,
    ) -> NewFile {
        let Self { path, bucket, size, stats, orders, rows, keys, .. } = self;
        let placed = Placed { path: path.clone(), size: *size, stats: stats.clone(), bucket: *bucket, partition };
        let add = add_action(&schema.layout, placed, *orders, at_ms);
        let file = DataFile { add, bucket: Some(*bucket), rows: *rows, dead, orders: *orders };
        NewFile { file, keys: keys.clone() }
    }
}

impl Rewritten {
    /// Whether it may take the place of the files that were read, as `table` has them by now: they are there, every row that
    /// was dead still is, the columns are the same, and cleaning does not take the new files for orphans yet.
    pub(super) fn may_replace(&self, table: &Table) -> bool {
        let stands = |input: &Reread| {
            let file = table.files.get(&input.number);
            file.is_some_and(|file| file.add.path == input.path && input.dead.is_subset(&file.dead))
        };
        self.inputs.iter().all(stands) && self.schema == table.schema && !is_too_old(self.written_ms)
    }

    /// Numbers of the rows that have died since they were read.
    pub(super) fn died(&self, table: &Table) -> RoaringBitmap {
        let died = self.inputs.iter().map(|input| input.died(&table.files[&input.number].dead));
        died.fold(RoaringBitmap::new(), |all, died| all | died)
    }

    /// Removes the new files, which no version names.
    pub(super) async fn discard(self) {
        for output in &self.outputs {
            self.files.discard(&output.path).await;
        }
    }
}

impl Rewriting {
    /// Bytes of the files that are read.
    pub fn bytes(&self) -> u64 {
        self.inputs.iter().map(|input| input.add.size as u64).sum()
    }

    /// Number of files that are read.
    pub fn files(&self) -> usize {
        self.inputs.len()
    }

    /// Reads the files and makes the new ones durable. In memory is a batch of each, and the new files' bytes.
    ///
    /// # Errors
    /// When a file cannot be read, or is not what its entry says; nothing is changed then.
    pub async fn run(self) -> Result<Rewritten, TableError> {
        let Self { files, schema, rows_of, partition, inputs } = self;
        let keys = Keys { names: sorted_by(&schema), told: ToldKeys::of(&schema), partition: &partition };
        let mut merged = Merged { rows_of, rows: 0, parts: BTreeMap::new() };
        let mut cursors = Vec::with_capacity(inputs.len());
        for input in inputs {
            cursors.push(Cursor::open(&files, input, &schema, &keys).await?);
        }
        let mut picks: Vec<(usize, usize)> = Vec::with_capacity(ROWS_AT_A_TIME);
        while let Some(least) = least_of(&cursors) {
            let cursor = &mut cursors[least];
            picks.push((least, cursor.at));
            cursor.places.push(merged.rows + picks.len() as u32 - 1);
            cursor.at += 1;
            cursor.pass_dead();
            let ended = cursor.is_at_end();
            if ended || picks.len() == ROWS_AT_A_TIME {
                merged.flush(&cursors, &mut picks, &schema, &keys)?;
            }
            if ended {
                cursors[least].next_batch(&keys).await?;
            }
        }
        let inputs = cursors.into_iter().map(Cursor::finish).collect::<Result<_, _>>()?;
        let mut outputs = Vec::with_capacity(merged.parts.len());
        for (bucket, part) in merged.parts {
            let (output, bytes) = part.finish(bucket, &partition, &schema)?;
            files.put(&output.path, bytes).await?;
            outputs.push(output);
        }
        failpoint::reach(failpoint::COMPACTION_WRITTEN);
        Ok(Rewritten { files, partition, schema, inputs, outputs, written_ms: clock::now_ms() })
    }
}

/// How rows of the files are told apart.
struct Keys<'a> {
    names: Vec<&'a str>,
    /// Those of the columns that the files leave out.
    told: ToldKeys,
    partition: &'a PartitionValues,
}

impl Keys<'_> {
    fn of(&self, rows: &RecordBatch) -> Result<RecordKeys, TableError> {
        Ok(RecordKeys::of(&self.told.complete(rows.clone(), self.partition)?, &self.names)?)
    }
}

/// The columns that the new file is sorted by; none keeps rows one file behind the other.
fn sorted_by(schema: &TableSchema) -> Vec<&str> {
    if schema.layout.is_append() { Vec::new() } else { schema.key_names() }
}

/// The cursor whose next row has the least key.
fn least_of(cursors: &[Cursor]) -> Option<usize> {
    let open = cursors.iter().enumerate().filter(|(_, cursor)| !cursor.is_at_end());
    open.min_by(|(_, a), (_, b)| a.keys.get(a.at).cmp(&b.keys.get(b.at))).map(|(place, _)| place)
}

/// What has been written so far.
struct Merged {
    rows_of: RowsOf,
    rows: u32,
    /// By bucket.
    parts: BTreeMap<u32, Part>,
}

impl Merged {
    /// Writes the rows that were picked of the cursors' present batches.
    fn flush(
        &mut self,
        cursors: &[Cursor],
        picks: &mut Vec<(usize, usize)>,
        schema: &TableSchema,
        keys: &Keys<'_>,
    ) -> Result<(), TableError> {
        let columns = (0..schema.file_arrow().fields().len()).map(|i| -> Result<ArrayRef, TableError> {
            let sources: Vec<_> = cursors.iter().map(|cursor| cursor.batch.column(i).as_ref()).collect();
            Ok(interleave(&sources, picks)?)
        });
        let batch = RecordBatch::try_new(schema.file_arrow(), columns.collect::<Result<_, _>>()?)?;
        match self.rows_of {
            RowsOf::One(bucket) => self.part(bucket, schema)?.write(&batch, schema, keys)?,
            RowsOf::Several { count } => {
                // Of a log without a key every row has the same, empty one.
                let told = keys.told.complete(batch.clone(), keys.partition)?;
                for (bucket, picked) in RecordKeys::of(&told, &schema.key_names())?.rows_by_bucket(count) {
                    let first = self.rows;
                    let part = self.part(bucket, schema)?;
                    part.taken.get_or_insert_default().extend(picked.iter().map(|row| first + row));
                    part.write(&take_record_batch(&batch, &UInt32Array::from(picked))?, schema, keys)?;
                }
            }
        }
        self.rows += picks.len() as u32;
        picks.clear();
        Ok(())
    }

    fn part(&mut self, bucket: u32, schema: &TableSchema) -> Result<&mut Part, TableError> {
        Ok(match self.parts.entry(bucket) {
            Entry::Occupied(part) => part.into_mut(),
            Entry::Vacant(place) => place.insert(Part::new(schema)?),
        })
    }
}

/// A new file while it is written.
struct Part {
    writer: FileWriter,
    rows: u32,
    keys: Option<RecordKeys>,
    orders: FileOrders,
    taken: Option<RoaringBitmap>,
}

impl Part {
    fn new(schema: &TableSchema) -> Result<Self, TableError> {
        let least = Order { ts_ms: i64::MAX, seq: i64::MAX };
        let orders = FileOrders { least, greatest: Order::MIN };
        Ok(Self { writer: FileWriter::new(schema)?, rows: 0, keys: None, orders, taken: None })
    }

    fn write(&mut self, batch: &RecordBatch, schema: &TableSchema, keys: &Keys<'_>) -> Result<(), TableError> {
        for order in orders_of_batch(batch) {
            self.orders.least = self.orders.least.min(order);
            self.orders.greatest = self.orders.greatest.max(order);
        }
        if !schema.layout.is_append() {
            let keys = keys.of(batch)?;
            match &mut self.keys {
                Some(before) => before.append(&keys),
                None => self.keys = Some(keys),
            }
        }
        self.writer.write(batch)?;
        self.rows += batch.num_rows() as u32;
        Ok(())
    }

    fn finish(
        self,
        bucket: u32,
        partition: &PartitionValues,
        schema: &TableSchema,
    ) -> Result<(Output, Bytes), TableError> {
        let Self { writer, rows, keys, orders, taken } = self;
        let EncodedFile { name, bytes, stats } = writer.finish()?;
        let path = partition.path_of(&schema.layout, &name);
        let keys = keys.unwrap_or_else(RecordKeys::none);
        Ok((Output { path, bucket, size: bytes.len(), stats, orders, rows, keys, taken }, bytes))
    }
}

/// A file while it is read, row by row.
struct Cursor {
    input: Input,
    batches: BoxStream<'static, Result<RecordBatch, TableError>>,
    schema: Arc<TableSchema>,
    /// Number of the batch's first row in the file.
    first_row: u32,
    batch: RecordBatch,
    keys: RecordKeys,
    /// The next row of the batch.
    at: usize,
    places: Vec<u32>,
}

impl Cursor {
    async fn open(
        files: &TableFiles,
        input: Input,
        schema: &Arc<TableSchema>,
        keys_of: &Keys<'_>,
    ) -> Result<Self, TableError> {
        let batches = files.folder().rows(&input.add.path, input.add.size as u64).await?.boxed();
        let batch = RecordBatch::new_empty(schema.file_arrow());
        let keys = keys_of.of(&batch)?;
        let places = Vec::with_capacity(input.rows as usize);
        let mut cursor = Self { input, batches, schema: schema.clone(), first_row: 0, batch, keys, at: 0, places };
        cursor.next_batch(keys_of).await?;
        Ok(cursor)
    }

    /// Goes on to the next live row that is not in the present batch.
    async fn next_batch(&mut self, keys_of: &Keys<'_>) -> Result<(), TableError> {
        while self.is_at_end() {
            let Some(batch) = self.batches.try_next().await? else { return Ok(()) };
            self.first_row += self.batch.num_rows() as u32;
            self.batch = conform(&batch, &self.schema.file_arrow(), &[], &self.input.add)?;
            self.keys = keys_of.of(&self.batch)?;
            self.at = 0;
            self.pass_dead();
        }
        Ok(())
    }

    fn is_at_end(&self) -> bool {
        self.at == self.batch.num_rows()
    }

    fn pass_dead(&mut self) {
        while !self.is_at_end() && self.input.dead.contains(self.first_row + self.at as u32) {
            self.places.push(NOWHERE);
            self.at += 1;
        }
    }

    /// # Errors
    /// When the file did not hold the rows that its entry says.
    fn finish(self) -> Result<Reread, TableError> {
        let Self { input, places, .. } = self;
        if places.len() != input.rows as usize {
            let path = &input.add.path;
            return Err(TableError::Damaged(format!("{path} holds {} rows, not {}", places.len(), input.rows)));
        }
        Ok(Reread { number: input.number, path: input.add.path, dead: input.dead, places })
    }
}
