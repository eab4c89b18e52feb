//! Chunks of a load: written as final data files while the stream goes on, added by a later commit.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_select::concat::concat_batches;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use weir_model::{Order, RecordKeys, TableSchema, Window};

use super::TableError;
use super::location::Warehouse;
use super::read::Folder;
use super::writer::{EncodedFile, FileWriter};

/// Where data files of one table go; cheap to clone, independent of the table's writer.
#[derive(Debug, Clone)]
pub struct TableFiles {
    pub(super) warehouse: Warehouse,
    pub(super) folder: Path,
}

impl TableFiles {
    /// Removes a data file that no commit names.
    pub async fn discard(&self, name: &str) {
        if let Err(error) = self.warehouse.store().delete(&self.folder.clone().join(name)).await {
            tracing::warn!(file = name, %error, "a file that no commit names could not be removed");
        }
    }

    /// Writes a data file; durable when it returns.
    pub(super) async fn put(&self, name: &str, bytes: bytes::Bytes) -> Result<(), TableError> {
        self.warehouse.put(&self.folder.clone().join(name), bytes).await
    }
}

/// A chunk that lies in the table's folder and is in no commit.
#[derive(Debug)]
pub struct StagedChunk {
    files: TableFiles,
    pub(super) name: String,
    pub(super) size: usize,
    pub(super) stats: String,
    pub(super) schema: Arc<TableSchema>,
    /// Record keys by row of the file.
    pub(super) keys: RecordKeys,
    /// The order of every row.
    pub(super) order0: Order,
    pub(super) window: Window,
}

impl StagedChunk {
    pub fn rows(&self) -> u64 {
        self.keys.len() as u64
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
    /// the lake do. Its file is written again if it must be.
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
        let folder = Folder { warehouse: self.files.warehouse.clone(), path: self.files.folder.clone() };
        let mut rows = folder.rows(&self.name, self.size as u64).await?;
        while let Some(batch) = rows.try_next().await? {
            writer.write(&RecordBatch::try_new(schema.lake_arrow(), batch.columns().to_vec())?)?;
        }
        let EncodedFile { name, bytes, stats } = writer.finish()?;
        let size = bytes.len();
        self.files.put(&name, bytes).await?;
        self.files.discard(&self.name).await;
        Ok(Self { name, size, stats, schema: Arc::new(schema), ..self })
    }
}

/// Writes the batches of one chunk.
pub struct ChunkWriter {
    files: TableFiles,
    schema: Arc<TableSchema>,
    writer: FileWriter,
    key_columns: Vec<RecordBatch>,
    order0: Order,
    window: Window,
}

impl ChunkWriter {
    /// A chunk of rows with the source's columns of `schema`, each of order `order0`, accounted to `window`.
    pub fn create(
        files: TableFiles,
        schema: Arc<TableSchema>,
        order0: Order,
        window: Window,
    ) -> Result<Self, TableError> {
        let writer = FileWriter::new(&schema)?;
        Ok(Self { files, schema, writer, key_columns: Vec::new(), order0, window })
    }

    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), TableError> {
        let count = rows.num_rows();
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        columns.push(Arc::new(Int64Array::from_value(self.order0.ts_ms, count)));
        columns.push(Arc::new(Int64Array::from_value(self.order0.seq, count)));
        self.writer.write(&RecordBatch::try_new(self.schema.lake_arrow(), columns)?)?;
        self.key_columns.push(rows.project(&self.schema.key)?);
        Ok(())
    }

    /// Makes the file durable; `None` if the chunk has no row.
    pub async fn finish(self) -> Result<Option<StagedChunk>, TableError> {
        let Some(first) = self.key_columns.first() else { return Ok(None) };
        if self.writer.rows() == 0 {
            return Ok(None);
        }
        let key_columns = concat_batches(&first.schema(), &self.key_columns)?;
        let keys = RecordKeys::of(&key_columns, &self.schema.key_names())?;
        let EncodedFile { name, bytes, stats } = self.writer.finish()?;
        let size = bytes.len();
        self.files.put(&name, bytes).await?;
        let Self { files, schema, order0, window, .. } = self;
        Ok(Some(StagedChunk { files, name, size, stats, schema, keys, order0, window }))
    }
}
