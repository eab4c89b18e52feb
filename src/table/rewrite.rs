//! Data files written again: several become one, without the rows that are dead, and with the columns that the table has
//! by now.
//!
//! The writer goes on meanwhile. What dies while the files are read is known by their vectors when the new one is to be
//! committed, and [`Reread::moved`] says where those rows went.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_select::interleave::interleave;
use futures::StreamExt;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use roaring::RoaringBitmap;
use weir_model::{Order, RecordKeys, TableSchema};

use super::TableError;
use super::chunk::TableFiles;
use super::delta::Add;
use super::read::orders_of_batch;
use super::scan::conform;
use super::writer::{EncodedFile, FileOrders, FileWriter};

/// Rows of the new file written at a time.
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

/// Files of one bucket and partition to become one.
#[derive(Debug)]
pub struct Rewriting {
    pub(super) files: TableFiles,
    pub(super) schema: Arc<TableSchema>,
    pub(super) bucket: u32,
    pub(super) inputs: Vec<Input>,
}

/// A file that has been read, and where its rows are in the new one.
#[derive(Debug)]
pub(super) struct Reread {
    pub number: u32,
    pub path: String,
    /// Dead when it was read.
    pub dead: RoaringBitmap,
    places: Vec<u32>,
}

/// The new file; durable, and in no commit.
#[derive(Debug)]
pub(super) struct Output {
    pub name: String,
    pub size: usize,
    pub stats: String,
    pub orders: FileOrders,
    pub rows: u32,
    /// The rows' keys; none in a table that is appended to.
    pub keys: RecordKeys,
}

/// What became of a [`Rewriting`].
#[derive(Debug)]
pub struct Rewritten {
    pub(super) bucket: u32,
    pub(super) schema: Arc<TableSchema>,
    pub(super) inputs: Vec<Reread>,
    /// None if no row was live.
    pub(super) output: Option<Output>,
}

impl Reread {
    /// The rows of the new file that have died in this one since it was read; it has `dead` rows by now.
    pub(super) fn moved(&self, dead: &RoaringBitmap) -> RoaringBitmap {
        (dead - &self.dead).iter().map(|row| self.places[row as usize]).filter(|row| *row != NOWHERE).collect()
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

    /// Reads the files and makes the new one durable. In memory is a batch of each, and the new file's bytes.
    ///
    /// # Errors
    /// When a file cannot be read, or is not what its entry says; nothing is changed then.
    pub async fn run(self) -> Result<Rewritten, TableError> {
        let Self { files, schema, bucket, inputs } = self;
        let mut writer = FileWriter::new(&schema)?;
        let mut merged = Merged::default();
        let mut cursors = Vec::with_capacity(inputs.len());
        for input in inputs {
            cursors.push(Cursor::open(&files, input, &schema).await?);
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
                merged.flush(&mut writer, &cursors, &mut picks, &schema)?;
            }
            if ended {
                cursors[least].next_batch().await?;
            }
        }
        let inputs = cursors.into_iter().map(Cursor::finish).collect::<Result<_, _>>()?;
        let Merged { rows, keys, orders } = merged;
        let output = if rows == 0 {
            None
        } else {
            let EncodedFile { name, bytes, stats } = writer.finish()?;
            let size = bytes.len();
            files.put(&name, bytes).await?;
            Some(Output { name, size, stats, orders, rows, keys: keys.unwrap_or_else(RecordKeys::none) })
        };
        Ok(Rewritten { bucket, schema, inputs, output })
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
    rows: u32,
    keys: Option<RecordKeys>,
    orders: FileOrders,
}

impl Default for Merged {
    fn default() -> Self {
        let least = Order { ts_ms: i64::MAX, seq: i64::MAX };
        Self { rows: 0, keys: None, orders: FileOrders { least, greatest: Order::MIN } }
    }
}

impl Merged {
    /// Writes the rows that were picked of the cursors' present batches.
    fn flush(
        &mut self,
        writer: &mut FileWriter,
        cursors: &[Cursor],
        picks: &mut Vec<(usize, usize)>,
        schema: &TableSchema,
    ) -> Result<(), TableError> {
        let columns = (0..schema.file_arrow().fields().len()).map(|i| -> Result<ArrayRef, TableError> {
            let sources: Vec<_> = cursors.iter().map(|cursor| cursor.batch.column(i).as_ref()).collect();
            Ok(interleave(&sources, picks)?)
        });
        let batch = RecordBatch::try_new(schema.file_arrow(), columns.collect::<Result<_, _>>()?)?;
        for order in orders_of_batch(&batch) {
            self.orders.least = self.orders.least.min(order);
            self.orders.greatest = self.orders.greatest.max(order);
        }
        if !schema.layout.is_append() {
            let keys = RecordKeys::of(&batch, &schema.key_names())?;
            match &mut self.keys {
                Some(before) => before.append(&keys),
                None => self.keys = Some(keys),
            }
        }
        writer.write(&batch)?;
        self.rows += picks.len() as u32;
        picks.clear();
        Ok(())
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
    async fn open(files: &TableFiles, input: Input, schema: &Arc<TableSchema>) -> Result<Self, TableError> {
        let batches = files.folder().rows(&input.add.path, input.add.size as u64).await?.boxed();
        let batch = RecordBatch::new_empty(schema.file_arrow());
        let keys = RecordKeys::of(&batch, &sorted_by(schema))?;
        let places = Vec::with_capacity(input.rows as usize);
        let mut cursor = Self { input, batches, schema: schema.clone(), first_row: 0, batch, keys, at: 0, places };
        cursor.next_batch().await?;
        Ok(cursor)
    }

    /// Goes on to the next live row that is not in the present batch.
    async fn next_batch(&mut self) -> Result<(), TableError> {
        while self.is_at_end() {
            let Some(batch) = self.batches.try_next().await? else { return Ok(()) };
            self.first_row += self.batch.num_rows() as u32;
            self.batch = conform(&batch, &self.schema.file_arrow())?;
            self.keys = RecordKeys::of(&self.batch, &sorted_by(&self.schema))?;
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
