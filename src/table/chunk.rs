//! Chunks of a load: written as final data files, one a partition of a bucket, while the stream goes on, and added by a
//! later commit, which may be another process's.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, UInt32Array, new_null_array};
use arrow_schema::{DataType, Field};
use arrow_select::concat::concat_batches;
use arrow_select::interleave::interleave_record_batch;
use arrow_select::take::take_record_batch;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use weir_model::schema::TS_COLUMN;
use weir_model::{Absences, Column, Layout, Op, Order, RecordKeys, TableId, TableSchema, Window, clock};

use super::TableError;
use super::location::Warehouse;
use super::partition::{PartitionValues, ToldKeys, file_rows, rows_by_partition};
use super::read::Folder;
use super::reshape::widened;
use super::writer::{EncodedFile, FileWriter};
use crate::failpoint;
use crate::limits::{CHUNK_FILE_AGE_MAX, CHUNK_HELD_BYTES_MAX, FILES_WRITTEN_TOGETHER};

/// Where data files of one table go; cheap to clone, independent of the table's writer.
#[derive(Debug, Clone)]
pub struct TableFiles {
    pub(super) warehouse: Warehouse,
    pub(super) folder: Path,
}

impl TableFiles {
    /// Those of `table`, which need not exist yet.
    pub fn of(warehouse: &Warehouse, table: &TableId) -> Self {
        Self { warehouse: warehouse.clone(), folder: warehouse.table_path(table) }
    }

    pub fn warehouse(&self) -> &Warehouse {
        &self.warehouse
    }

    /// Removes a data file that no commit names.
    pub async fn discard(&self, name: &str) {
        if let Err(error) = self.warehouse.store().delete(&self.folder().child(name)).await {
            tracing::warn!(file = name, %error, "a file that no commit names could not be removed");
        }
    }

    /// For reading what lies there.
    pub(super) fn folder(&self) -> Folder {
        Folder { warehouse: self.warehouse.clone(), path: self.folder.clone() }
    }

    /// Writes a data file; durable when it returns.
    pub(super) async fn put(&self, name: &str, bytes: bytes::Bytes) -> Result<(), TableError> {
        let (before, after) = match name.ends_with(".bin") {
            true => (failpoint::VECTOR_FILE_BEFORE, failpoint::VECTOR_FILE_AFTER),
            false => (failpoint::DATA_FILE_BEFORE, failpoint::DATA_FILE_AFTER),
        };
        failpoint::reach(before);
        let put = self.warehouse.put(&self.folder().child(name), bytes).await;
        failpoint::reach(after);
        put
    }
}

/// A part of a chunk that is of one bucket and partition. It lies in the table's folder and is in no commit.
#[derive(Debug)]
pub struct StagedChunk {
    files: TableFiles,
    pub(super) file: StagedFile,
    /// Record keys by row of the file; none in a table that is appended to.
    pub(super) keys: RecordKeys,
    /// When its file was written, in milliseconds since the epoch.
    written_ms: i64,
}

/// A [`StagedChunk`] as it is told to another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedFile {
    /// Its file, from the table's folder.
    pub name: String,
    /// Bytes of the file.
    pub size: u64,
    /// What the log will say of its rows.
    pub stats: String,
    /// The source's columns as it was read with.
    pub schema: Arc<TableSchema>,
    /// The order of every row.
    pub order0: Order,
    pub window: Window,
    pub bucket: u32,
    /// The partition of every row.
    #[serde(default, skip_serializing_if = "PartitionValues::is_empty")]
    pub partition: PartitionValues,
    pub rows: u64,
}

impl StagedChunk {
    /// The chunk that another process, or this one, has described; `None` if its file is not there any more, or is
    /// about to be taken for an orphan.
    ///
    /// Reads the key columns of the file; of a table that is appended to no more than how many rows it has.
    ///
    /// # Errors
    /// When the file cannot be read, or is not what is described.
    pub async fn open(files: TableFiles, file: StagedFile) -> Result<Option<Self>, TableError> {
        let StagedFile { name, size, schema, partition, rows, .. } = &file;
        let Some(written_ms) = files.warehouse.written_ms(&files.folder().child(name)).await? else {
            return Ok(None);
        };
        let is_keyed = !schema.layout.is_append();
        let key_names = if is_keyed { schema.key_names() } else { vec![TS_COLUMN] };
        let told = if is_keyed { ToldKeys::of(schema) } else { ToldKeys::default() };
        let stored = files.folder().columns(name, *size, &key_names).await?;
        let stored = stored.and_then(|batch| std::future::ready(told.complete(batch, partition)));
        let batches: Vec<RecordBatch> = stored.try_collect().await?;
        let keys = match batches.first() {
            Some(first) if is_keyed => RecordKeys::of(&concat_batches(&first.schema(), &batches)?, &key_names)?,
            Some(_) => RecordKeys::none(),
            None => return Err(TableError::Damaged(format!("{name} holds no row, and a chunk's file does"))),
        };
        let held: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if held as u64 != *rows {
            return Err(TableError::Damaged(format!("{name} holds {held} rows, not the {rows} of its chunk")));
        }
        let chunk = Self { files, file, keys, written_ms };
        Ok((!chunk.is_too_old()).then_some(chunk))
    }

    /// Whether cleaning may soon take its file for one that nobody will name: it must be read again then.
    pub fn is_too_old(&self) -> bool {
        is_too_old(self.written_ms)
    }

    /// What another process needs to know so that it can merge the chunk.
    pub fn describe(&self) -> StagedFile {
        self.file.clone()
    }

    /// The bucket of every row.
    pub fn bucket(&self) -> u32 {
        self.file.bucket
    }

    pub fn rows(&self) -> u64 {
        self.file.rows
    }

    /// Bytes of its file.
    pub fn bytes(&self) -> u64 {
        self.file.size
    }

    /// Its file in the table's folder.
    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// The source's columns as it was read with.
    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.file.schema
    }

    pub fn order0(&self) -> Order {
        self.file.order0
    }

    /// The chunk with the columns of `lake`: spelled as there, since MySQL does not tell `Name` from `name` and readers of the
    /// lake do; of its types; and without values that `absences` says its columns have lost. Unless it is so already, it is
    /// then in a file of its own, and the one that it was in stays.
    pub(super) async fn conform(self, lake: &TableSchema, absences: &Absences) -> Result<Self, TableError> {
        let StagedFile { name, size, partition, schema, order0, .. } = &self.file;
        let is_as_there = |column: &Column| {
            let held = lake.columns.iter().find(|held| held.name == column.name);
            held.is_some_and(|held| held.ty.arrow() == column.ty.arrow()) && absences.keeps(&column.name, *order0)
        };
        if schema.columns.iter().all(is_as_there) {
            return Ok(self);
        }
        let mut writer = FileWriter::new(lake)?;
        let mut rows = self.files.folder().rows(name, *size).await?;
        while let Some(batch) = rows.try_next().await? {
            writer.write(&conformed(&batch, schema, lake, |name| absences.keeps(name, *order0))?)?;
        }
        let EncodedFile { name, bytes, stats } = writer.finish()?;
        let name = partition.path_of(&lake.layout, &name);
        let size = bytes.len() as u64;
        self.files.put(&name, bytes).await?;
        Ok(Self { file: StagedFile { name, size, stats, schema: Arc::new(lake.clone()), ..self.file }, ..self })
    }
}

/// Whether cleaning may soon take a file that was written then, in milliseconds since the epoch, for one that nobody will name.
pub(super) fn is_too_old(written_ms: i64) -> bool {
    clock::now_ms() - written_ms > CHUNK_FILE_AGE_MAX.as_millis() as i64
}

/// Rows of a data file of a table of `from` as one of `lake` has them; of columns that are not `kept` without their values.
fn conformed(
    rows: &RecordBatch,
    from: &TableSchema,
    lake: &TableSchema,
    kept: impl Fn(&str) -> bool,
) -> Result<RecordBatch, TableError> {
    let column = |field: &Arc<Field>| -> Result<ArrayRef, TableError> {
        let name = field.name();
        let nothing = || new_null_array(field.data_type(), rows.num_rows());
        let Some(held) = lake.columns.iter().find(|column| column.name == *name) else {
            return Ok(rows.column_by_name(name).cloned().unwrap_or_else(nothing));
        };
        let Some(at) = from.column_index(name).filter(|_| kept(name)) else { return Ok(nothing()) };
        let Column { name, ty, .. } = &from.columns[at];
        Ok(match rows.column_by_name(name) {
            Some(values) => widened(values, ty, &held.ty)?,
            None => nothing(),
        })
    };
    let schema = lake.file_arrow();
    let columns = schema.fields().iter().map(column).collect::<Result<_, _>>()?;
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// Writes the batches of one chunk. What it holds in memory is bounded, however large the chunk turns out to be: what has
/// grown large goes out as a file of its own, and more of the same bucket and partition into another.
pub struct ChunkWriter {
    chunk: Chunk,
    rows: ChunkRows,
    /// In the table's folder already.
    staged: Vec<StagedChunk>,
    bucket_count: u32,
}

/// What is the same of every file of a chunk.
struct Chunk {
    files: TableFiles,
    schema: Arc<TableSchema>,
    order0: Order,
    window: Window,
}

/// The rows so far that are in no file yet.
enum ChunkRows {
    /// Encoded as they come, a file a bucket that has a row.
    Encoded(BTreeMap<u32, PartWriter>),
    /// Of a table with partitions, which may be thousands: they are held as they came, and then encoded file by file. What a
    /// writer of each file holds would not be bounded.
    Held(HeldRows),
}

/// Writes what a chunk has of one bucket.
struct PartWriter {
    writer: FileWriter,
    rows: u64,
    /// None in a table that is appended to.
    keys: RecordKeys,
}

/// Rows of a chunk by where they will lie.
#[derive(Default)]
struct HeldRows {
    /// As data files have them.
    batches: Vec<RecordBatch>,
    /// Bytes of them.
    bytes: usize,
    /// Their keys.
    keys: Vec<RecordKeys>,
    /// By bucket and partition: batch and row.
    parts: BTreeMap<(u32, PartitionValues), Vec<(usize, usize)>>,
}

/// A data file in memory, and the keys of its rows.
struct Part {
    bucket: u32,
    partition: PartitionValues,
    file: EncodedFile,
    rows: u64,
    keys: RecordKeys,
}

impl ChunkWriter {
    /// A chunk of rows with the source's columns of `schema`, each of order `order0`, accounted to `window`, for a
    /// table of `bucket_count` buckets.
    ///
    /// # Errors
    /// When the source's columns cannot have the table's partitions.
    pub fn create(
        files: TableFiles,
        schema: Arc<TableSchema>,
        order0: Order,
        window: Window,
        bucket_count: u32,
    ) -> Result<Self, TableError> {
        let misfit = |why| TableError::Partitions { table: schema.table.clone(), why };
        schema.check_partitions().map_err(misfit)?;
        let rows = if schema.layout.partitions.is_empty() {
            ChunkRows::Encoded(BTreeMap::new())
        } else {
            ChunkRows::Held(HeldRows::default())
        };
        Ok(Self { chunk: Chunk { files, schema, order0, window }, rows, staged: Vec::new(), bucket_count })
    }

    /// Adds rows with the source's columns. What they make too large is durable when it returns.
    ///
    /// # Errors
    /// When a row lies in a partition that cannot be, or has no key, or a file cannot be written.
    pub async fn write(&mut self, rows: &RecordBatch) -> Result<(), TableError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let schema = &self.chunk.schema;
        let lake = lake_rows(schema, rows, self.chunk.order0)?;
        match &mut self.rows {
            ChunkRows::Encoded(parts) => {
                encode(parts, schema, rows, &lake, self.bucket_count)?;
                let held: usize = parts.values().map(|part| part.writer.bytes()).sum();
                if held >= CHUNK_HELD_BYTES_MAX {
                    // The largest goes, so that files stay as large as may be.
                    let largest = parts.iter().max_by_key(|(_, part)| part.writer.bytes()).map(|(bucket, _)| *bucket);
                    if let Some((bucket, part)) = largest.and_then(|bucket| parts.remove_entry(&bucket)) {
                        let part = part.finish(bucket)?;
                        self.staged.push(self.chunk.put(part).await?);
                    }
                }
            }
            ChunkRows::Held(held) => {
                held.add(schema, rows, &lake, self.bucket_count)?;
                if held.bytes >= CHUNK_HELD_BYTES_MAX {
                    let held = std::mem::take(held);
                    self.staged.extend(self.chunk.put_held(&held).await?);
                }
            }
        }
        Ok(())
    }

    /// Makes the rest durable; gives the chunk's files, as many as it took for each partition of a bucket that has a row.
    pub async fn finish(self) -> Result<Vec<StagedChunk>, TableError> {
        let Self { chunk, rows, mut staged, .. } = self;
        staged.extend(match rows {
            ChunkRows::Encoded(parts) => {
                chunk.put_all(parts.into_iter().map(|(bucket, part)| part.finish(bucket))).await?
            }
            ChunkRows::Held(held) => chunk.put_held(&held).await?,
        });
        Ok(staged)
    }
}

impl Chunk {
    async fn put_held(&self, held: &HeldRows) -> Result<Vec<StagedChunk>, TableError> {
        self.put_all(held.parts.iter().map(|(place, rows)| held.encode(place, rows, &self.schema))).await
    }

    /// Makes files durable, in their order, some side by side.
    async fn put_all(
        &self,
        parts: impl Iterator<Item = Result<Part, TableError>> + Send,
    ) -> Result<Vec<StagedChunk>, TableError> {
        // Named so, since the compiler does not see otherwise that the iterator may go to another thread.
        let parts: Box<dyn Iterator<Item = Result<Part, TableError>> + Send + '_> = Box::new(parts);
        let put = |part: Result<Part, TableError>| async move { self.put(part?).await };
        futures::stream::iter(parts).map(put).buffered(FILES_WRITTEN_TOGETHER).try_collect().await
    }

    async fn put(&self, part: Part) -> Result<StagedChunk, TableError> {
        let Part { bucket, partition, file: EncodedFile { name, bytes, stats }, rows, keys } = part;
        let Self { files, schema, order0, window } = self;
        let (name, size) = (partition.path_of(&schema.layout, &name), bytes.len() as u64);
        files.put(&name, bytes).await?;
        let (order0, window, schema) = (*order0, *window, schema.clone());
        let file = StagedFile { name, size, stats, schema, order0, window, bucket, partition, rows };
        Ok(StagedChunk { files: files.clone(), file, keys, written_ms: clock::now_ms() })
    }
}

/// A chunk's rows in the lake table's columns.
fn lake_rows(schema: &TableSchema, rows: &RecordBatch, order0: Order) -> Result<RecordBatch, TableError> {
    let count = rows.num_rows();
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    columns.extend(schema.made_columns(rows.columns(), count)?);
    columns.push(Arc::new(Int64Array::from_value(order0.ts_ms, count)));
    columns.push(Arc::new(Int64Array::from_value(order0.seq, count)));
    columns.extend(layout_columns(&schema.layout, count));
    Ok(RecordBatch::try_new(schema.lake_arrow(), columns)?)
}

/// The columns behind the order's that a layout adds, for rows that were read and not changed. They are no events, so they
/// have no id.
fn layout_columns(layout: &Layout, count: usize) -> Vec<ArrayRef> {
    let mut columns: Vec<ArrayRef> = Vec::new();
    if layout.is_append() {
        let read = Op::Read.to_string();
        columns.push(Arc::new(StringArray::from_iter_values(std::iter::repeat_n(read, count))));
        columns.push(new_null_array(&DataType::Utf8, count));
    }
    if layout.deletes_softly() {
        columns.push(Arc::new(BooleanArray::from(vec![false; count])));
    }
    columns
}

/// Adds rows, which are `lake` in the lake table's columns, to the writers of their buckets.
fn encode(
    parts: &mut BTreeMap<u32, PartWriter>,
    schema: &TableSchema,
    rows: &RecordBatch,
    lake: &RecordBatch,
    bucket_count: u32,
) -> Result<(), TableError> {
    let is_keyed = !schema.layout.is_append();
    let keys =
        if is_keyed || bucket_count > 1 { RecordKeys::of(rows, &schema.key_names())? } else { RecordKeys::none() };
    if bucket_count == 1 {
        return PartWriter::of(parts, 0, schema)?.write(lake, if is_keyed { keys } else { RecordKeys::none() });
    }
    for (bucket, picked) in keys.rows_by_bucket(bucket_count) {
        let keys = if is_keyed { keys.take(&picked) } else { RecordKeys::none() };
        let rows = take_record_batch(lake, &UInt32Array::from(picked))?;
        PartWriter::of(parts, bucket, schema)?.write(&rows, keys)?;
    }
    Ok(())
}

impl PartWriter {
    /// The writer of a bucket.
    fn of<'a>(
        parts: &'a mut BTreeMap<u32, Self>,
        bucket: u32,
        schema: &TableSchema,
    ) -> Result<&'a mut Self, TableError> {
        Ok(match parts.entry(bucket) {
            Entry::Occupied(part) => part.into_mut(),
            Entry::Vacant(place) => {
                place.insert(Self { writer: FileWriter::new(schema)?, rows: 0, keys: RecordKeys::none() })
            }
        })
    }

    /// Adds rows in the lake table's columns, and their keys.
    fn write(&mut self, rows: &RecordBatch, keys: RecordKeys) -> Result<(), TableError> {
        self.writer.write(rows)?;
        self.rows += rows.num_rows() as u64;
        if self.keys.is_empty() {
            self.keys = keys;
        } else {
            self.keys.append(&keys);
        }
        Ok(())
    }

    fn finish(self, bucket: u32) -> Result<Part, TableError> {
        let Self { writer, rows, keys } = self;
        Ok(Part { bucket, partition: PartitionValues::default(), file: writer.finish()?, rows, keys })
    }
}

impl HeldRows {
    /// Adds rows, which are `lake` in the lake table's columns.
    fn add(
        &mut self,
        schema: &TableSchema,
        rows: &RecordBatch,
        lake: &RecordBatch,
        bucket_count: u32,
    ) -> Result<(), TableError> {
        let keys = RecordKeys::of(rows, &schema.key_names())?;
        let batch = self.batches.len();
        for (partition, picked) in rows_by_partition(schema, lake)? {
            let mut by_bucket: BTreeMap<u32, Vec<(usize, usize)>> = BTreeMap::new();
            for row in picked.into_iter().map(|row| row as usize) {
                by_bucket.entry(keys.get(row).bucket(bucket_count)).or_default().push((batch, row));
            }
            for (bucket, rows) in by_bucket {
                self.parts.entry((bucket, partition.clone())).or_default().extend(rows);
            }
        }
        let held = file_rows(schema, lake)?;
        self.bytes += held.get_array_memory_size();
        self.keys.push(keys);
        self.batches.push(held);
        Ok(())
    }

    fn encode(
        &self,
        (bucket, partition): &(u32, PartitionValues),
        rows: &[(usize, usize)],
        schema: &TableSchema,
    ) -> Result<Part, TableError> {
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let keys: Vec<&RecordKeys> = self.keys.iter().collect();
        let mut writer = FileWriter::new(schema)?;
        for rows in rows.chunks(ROWS_COPIED_TOGETHER) {
            writer.write(&interleave_record_batch(&batches, rows)?)?;
        }
        let is_keyed = !schema.layout.is_append();
        let keys = if is_keyed { RecordKeys::interleave(&keys, rows) } else { RecordKeys::none() };
        let (bucket, partition, rows) = (*bucket, partition.clone(), rows.len() as u64);
        Ok(Part { bucket, partition, file: writer.finish()?, rows, keys })
    }
}

/// Rows that are copied together for a file, so that a chunk that lies in one partition is not there twice.
const ROWS_COPIED_TOGETHER: usize = 16_384;
