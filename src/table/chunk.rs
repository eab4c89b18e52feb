//! Chunks of a load: written as final data files while the stream goes on, added by a later commit.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::Schema;
use arrow_select::concat::concat_batches;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use weir_model::{Order, RecordKeys, TableSchema, Window};

use super::TableError;
use super::location::Warehouse;
use super::scan::read_columns;
use super::writer::{FileWriter, data_file_name};

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

    /// The chunk with the columns' names as `lake` spells them: MySQL does not tell `Name` from `name`, and readers of
    /// the lake do. Its file is written again if it must be.
    pub(super) async fn conform(self, lake: &TableSchema) -> Result<Self, TableError> {
        let mut schema = self.schema.as_ref().clone();
        for column in &mut schema.columns {
            let found = lake.column_index(&column.name).map(|i| &lake.columns[i].name);
            column.name.clone_from(found.ok_or_else(|| TableError::NoColumn {
                table: lake.table.clone(),
                column: column.name.clone(),
            })?);
        }
        if schema == *self.schema {
            return Ok(self);
        }
        let bytes = self.files.warehouse.get(&self.files.folder.clone().join(self.name.as_str())).await?;
        let arrow = schema.lake_arrow();
        let mut writer = FileWriter::new(&schema, arrow.clone())?;
        for batch in read_columns(bytes, &field_names(&self.schema.lake_arrow()))? {
            writer.write(&RecordBatch::try_new(arrow.clone(), batch?.columns().to_vec())?)?;
        }
        let name = data_file_name();
        let bytes = writer.finish()?;
        let size = bytes.len();
        self.files.put(&name, bytes).await?;
        self.files.discard(&self.name).await;
        Ok(Self { name, size, schema: Arc::new(schema), ..self })
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
        let writer = FileWriter::new(&schema, schema.lake_arrow())?;
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
        let name = data_file_name();
        let bytes = self.writer.finish()?;
        let size = bytes.len();
        self.files.put(&name, bytes).await?;
        let Self { files, schema, order0, window, .. } = self;
        Ok(Some(StagedChunk { files, name, size, schema, keys, order0, window }))
    }
}

fn field_names(schema: &Schema) -> Vec<&str> {
    schema.fields().iter().map(|field| field.name().as_str()).collect()
}
