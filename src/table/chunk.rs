//! Chunks of a load: written as final data files, one a bucket, while the stream goes on, and added by a later commit,
//! which may be another process's.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, UInt32Array, new_null_array};
use arrow_schema::DataType;
use arrow_select::concat::concat_batches;
use arrow_select::take::take_record_batch;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use weir_model::schema::TS_COLUMN;
use weir_model::{Layout, Op, Order, RecordKeys, TableId, TableSchema, Window, clock};

use super::TableError;
use super::location::Warehouse;
use super::read::Folder;
use super::writer::{EncodedFile, FileWriter};
use crate::limits::CHUNK_FILE_AGE_MAX;

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

    /// Removes a data file that no commit names.
    pub async fn discard(&self, name: &str) {
        if let Err(error) = self.warehouse.store().delete(&self.folder.clone().join(name)).await {
            tracing::warn!(file = name, %error, "a file that no commit names could not be removed");
        }
    }

    /// For reading what lies there.
    pub(super) fn folder(&self) -> Folder {
        Folder { warehouse: self.warehouse.clone(), path: self.folder.clone() }
    }

    /// Writes a data file; durable when it returns.
    pub(super) async fn put(&self, name: &str, bytes: bytes::Bytes) -> Result<(), TableError> {
        self.warehouse.put(&self.folder.clone().join(name), bytes).await
    }
}

/// The part of a chunk that is of one bucket. It lies in the table's folder and is in no commit.
#[derive(Debug)]
pub struct StagedChunk {
    files: TableFiles,
    pub(super) name: String,
    pub(super) size: usize,
    pub(super) stats: String,
    pub(super) schema: Arc<TableSchema>,
    rows: u64,
    /// Record keys by row of the file; none in a table that is appended to.
    pub(super) keys: RecordKeys,
    /// The order of every row.
    pub(super) order0: Order,
    pub(super) window: Window,
    pub(super) bucket: u32,
    /// When its file was written, in milliseconds since the epoch.
    written_ms: i64,
}

/// A [`StagedChunk`] as it is told to another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedFile {
    /// Its file in the table's folder.
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
    pub async fn open(files: TableFiles, described: StagedFile) -> Result<Option<Self>, TableError> {
        let StagedFile { name, size, stats, schema, order0, window, bucket, rows } = described;
        let Some(written_ms) = files.warehouse.written_ms(&files.folder.clone().join(name.as_str())).await? else {
            return Ok(None);
        };
        let is_keyed = !schema.layout.is_append();
        let key_names = if is_keyed { schema.key_names() } else { vec![TS_COLUMN] };
        let batches: Vec<RecordBatch> = files.folder().columns(&name, size, &key_names).await?.try_collect().await?;
        let keys = match batches.first() {
            Some(first) if is_keyed => RecordKeys::of(&concat_batches(&first.schema(), &batches)?, &key_names)?,
            Some(_) => RecordKeys::none(),
            None => return Err(TableError::Damaged(format!("{name} holds no row, and a chunk's file does"))),
        };
        let held: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if held as u64 != rows {
            return Err(TableError::Damaged(format!("{name} holds {held} rows, not the {rows} of its chunk")));
        }
        let chunk =
            Self { files, name, size: size as usize, stats, schema, rows, keys, order0, window, bucket, written_ms };
        Ok((!chunk.is_too_old()).then_some(chunk))
    }

    /// Whether cleaning may soon take its file for one that nobody will name: it must be read again then.
    pub fn is_too_old(&self) -> bool {
        clock::now_ms() - self.written_ms > CHUNK_FILE_AGE_MAX.as_millis() as i64
    }

    /// What another process needs to know so that it can merge the chunk.
    pub fn describe(&self) -> StagedFile {
        StagedFile {
            name: self.name.clone(),
            size: self.bytes(),
            stats: self.stats.clone(),
            schema: self.schema.clone(),
            order0: self.order0,
            window: self.window,
            bucket: self.bucket,
            rows: self.rows(),
        }
    }

    /// The bucket of every row.
    pub fn bucket(&self) -> u32 {
        self.bucket
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes of its file.
    pub fn bytes(&self) -> u64 {
        self.size as u64
    }

    /// Its file in the table's folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The source's columns as it was read with.
    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    pub fn order0(&self) -> Order {
        self.order0
    }

    /// The chunk with its columns' names as `lake` spells them: MySQL does not tell `Name` from `name`, and readers of
    /// the lake do. It is then in a file of its own, and the one that it was in stays.
    pub(super) async fn conform(self, lake: &TableSchema) -> Result<Self, TableError> {
        let mut schema = self.schema.as_ref().clone();
        for column in &mut schema.columns {
            if let Some(i) = lake.column_index(&column.name) {
                column.name.clone_from(&lake.columns[i].name);
            }
        }
        if schema == *self.schema {
            return Ok(self);
        }
        let mut writer = FileWriter::new(&schema)?;
        let mut rows = self.files.folder().rows(&self.name, self.size as u64).await?;
        while let Some(batch) = rows.try_next().await? {
            writer.write(&RecordBatch::try_new(schema.lake_arrow(), batch.columns().to_vec())?)?;
        }
        let EncodedFile { name, bytes, stats } = writer.finish()?;
        let size = bytes.len();
        self.files.put(&name, bytes).await?;
        Ok(Self { name, size, stats, schema: Arc::new(schema), ..self })
    }
}

/// Writes the batches of one chunk.
pub struct ChunkWriter {
    files: TableFiles,
    schema: Arc<TableSchema>,
    /// Of the buckets that have a row.
    parts: BTreeMap<u32, PartWriter>,
    order0: Order,
    window: Window,
    bucket_count: u32,
}

/// Writes what a chunk has of one bucket.
struct PartWriter {
    writer: FileWriter,
    rows: u64,
    /// None in a table that is appended to.
    key_columns: Vec<RecordBatch>,
}

impl ChunkWriter {
    /// A chunk of rows with the source's columns of `schema`, each of order `order0`, accounted to `window`, for a
    /// table of `bucket_count` buckets.
    pub fn create(
        files: TableFiles,
        schema: Arc<TableSchema>,
        order0: Order,
        window: Window,
        bucket_count: u32,
    ) -> Result<Self, TableError> {
        Ok(Self { files, schema, parts: BTreeMap::new(), order0, window, bucket_count })
    }

    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), TableError> {
        if self.bucket_count == 1 {
            return self.write_part(0, rows);
        }
        let keys = RecordKeys::of(rows, &self.schema.key_names())?;
        let mut by_bucket: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for row in 0..keys.len() {
            by_bucket.entry(keys.get(row).bucket(self.bucket_count)).or_default().push(row as u32);
        }
        for (bucket, picked) in by_bucket {
            self.write_part(bucket, &take_record_batch(rows, &UInt32Array::from(picked))?)?;
        }
        Ok(())
    }

    fn write_part(&mut self, bucket: u32, rows: &RecordBatch) -> Result<(), TableError> {
        let count = rows.num_rows();
        if count == 0 {
            return Ok(());
        }
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        columns.push(Arc::new(Int64Array::from_value(self.order0.ts_ms, count)));
        columns.push(Arc::new(Int64Array::from_value(self.order0.seq, count)));
        columns.extend(layout_columns(&self.schema.layout, count));
        let part = match self.parts.entry(bucket) {
            Entry::Occupied(part) => part.into_mut(),
            Entry::Vacant(place) => {
                place.insert(PartWriter { writer: FileWriter::new(&self.schema)?, rows: 0, key_columns: Vec::new() })
            }
        };
        part.writer.write(&RecordBatch::try_new(self.schema.lake_arrow(), columns)?)?;
        part.rows += count as u64;
        if !self.schema.layout.is_append() {
            part.key_columns.push(rows.project(&self.schema.key)?);
        }
        Ok(())
    }

    /// Makes the files durable, one for each bucket that has a row, ascending by bucket.
    pub async fn finish(self) -> Result<Vec<StagedChunk>, TableError> {
        let Self { files, schema, parts, order0, window, .. } = self;
        let mut staged = Vec::with_capacity(parts.len());
        for (bucket, PartWriter { writer, rows, key_columns }) in parts {
            let keys = match key_columns.first() {
                Some(first) => RecordKeys::of(&concat_batches(&first.schema(), &key_columns)?, &schema.key_names())?,
                None => RecordKeys::none(),
            };
            let EncodedFile { name, bytes, stats } = writer.finish()?;
            let size = bytes.len();
            files.put(&name, bytes).await?;
            let (files, schema) = (files.clone(), schema.clone());
            let written_ms = clock::now_ms();
            staged.push(StagedChunk {
                files,
                name,
                size,
                stats,
                schema,
                rows,
                keys,
                order0,
                window,
                bucket,
                written_ms,
            });
        }
        Ok(staged)
    }
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
