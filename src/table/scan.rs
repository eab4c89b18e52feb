//! Reading data files: live rows for people, key and order columns for the index.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow_schema::{Schema, SchemaRef};
use arrow_select::filter::filter_record_batch;
use bytes::Bytes;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use roaring::RoaringBitmap;
use weir_model::schema::{SEQ_COLUMN, TS_COLUMN};
use weir_model::{Order, TableId};

use super::TableError;
use super::delta::Add;
use super::deletes::read_vector;
use super::location::Warehouse;
use super::log::{Log, Replay};

/// Rows of one batch when a file is read.
const READ_ROWS: usize = 16_384;

/// The columns of a file called `names`, those that it has, batch by batch.
pub(super) fn read_columns(
    file: Bytes,
    names: &[&str],
) -> Result<impl Iterator<Item = Result<RecordBatch, TableError>> + use<>, TableError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let present: Vec<usize> = builder
        .schema()
        .fields()
        .iter()
        .enumerate()
        .filter(|(_, field)| names.contains(&field.name().as_str()))
        .map(|(i, _)| i)
        .collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), present);
    let reader = builder.with_projection(mask).with_batch_size(READ_ROWS).build()?;
    Ok(reader.map(|batch| Ok(batch?)))
}

/// Order of each row of a batch that has our columns; NULL, a foreign writer's, counts as the least.
pub(super) fn orders_of_batch(batch: &RecordBatch) -> Vec<Order> {
    let column = |name: &str| batch.column_by_name(name).map(|c| c.as_primitive::<Int64Type>());
    let (Some(ts), Some(seq)) = (column(TS_COLUMN), column(SEQ_COLUMN)) else {
        return vec![Order::MIN; batch.num_rows()];
    };
    (0..batch.num_rows())
        .map(|row| if ts.is_null(row) || seq.is_null(row) { Order::MIN } else { Order::new(ts.value(row), seq.value(row)) })
        .collect()
}

/// Reads deletion vectors, each file once.
pub(super) struct VectorReader<'a> {
    warehouse: &'a Warehouse,
    folder: Path,
    files: HashMap<String, Bytes>,
}

impl<'a> VectorReader<'a> {
    pub(super) fn new(warehouse: &'a Warehouse, folder: Path) -> Self {
        Self { warehouse, folder, files: HashMap::new() }
    }

    /// The dead rows of a data file.
    pub(super) async fn dead_rows(&mut self, add: &Add) -> Result<RoaringBitmap, TableError> {
        let Some(vector) = &add.deletion_vector else { return Ok(RoaringBitmap::new()) };
        let (name, _) = vector.file().ok_or_else(|| {
            TableError::Damaged(format!("the deletion vector of {} does not lie in a file of its own", add.path))
        })?;
        if !self.files.contains_key(&name) {
            let mut path = self.folder.clone();
            for part in name.split('/') {
                path = path.join(part);
            }
            let bytes = self.warehouse.get(&path).await?;
            self.files.insert(name.clone(), bytes);
        }
        read_vector(vector, &self.files[&name])
    }
}

/// The live rows of a table at one version, for readers beside the writer.
pub struct Scan {
    warehouse: Warehouse,
    folder: Path,
    replay: Replay,
    schema: SchemaRef,
}

impl Scan {
    /// The table at `version`, or at its newest, with `columns`, or with all.
    ///
    /// # Errors
    /// When there is no such table, version or column.
    pub async fn open(
        warehouse: &Warehouse,
        table: &TableId,
        version: Option<i64>,
        columns: Option<&[String]>,
    ) -> Result<Self, TableError> {
        let log = Log::new(warehouse, table);
        let replay = log.replay(version).await?.ok_or_else(|| TableError::NoTable(table.clone()))?;
        let meta_data = replay
            .meta_data
            .as_ref()
            .ok_or_else(|| TableError::Damaged(format!("{table} has no metaData action")))?;
        let schema = arrow_schema_of(&meta_data.schema_string)?;
        let schema = match columns {
            None => schema,
            Some(names) => {
                let fields = names.iter().map(|name| match schema.field_with_name(name) {
                    Ok(field) => Ok(field.clone()),
                    Err(_) => Err(TableError::NoColumn { table: table.clone(), column: name.clone() }),
                });
                Schema::new(fields.collect::<Result<Vec<_>, _>>()?)
            }
        };
        Ok(Self { warehouse: warehouse.clone(), folder: warehouse.table_path(table), replay, schema: Arc::new(schema) })
    }

    pub fn version(&self) -> i64 {
        self.replay.version
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Hands the live rows to `sink`, batch by batch.
    pub async fn for_each(
        &self,
        mut sink: impl FnMut(RecordBatch) -> Result<(), TableError>,
    ) -> Result<(), TableError> {
        let mut vectors = VectorReader::new(&self.warehouse, self.folder.clone());
        let names: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        for add in self.replay.files.values() {
            let dead = vectors.dead_rows(add).await?;
            let file = self.warehouse.get(&self.folder.clone().join(add.path.as_str())).await?;
            let mut first_row = 0;
            for batch in read_columns(file, &names)? {
                let batch = batch?;
                let rows = batch.num_rows() as u32;
                let live: BooleanArray =
                    (first_row..first_row + rows).map(|row| Some(!dead.contains(row))).collect();
                first_row += rows;
                sink(filter_record_batch(&conform(&batch, &self.schema)?, &live)?)?;
            }
        }
        Ok(())
    }
}

/// A file's columns as the table's: NULL where the file is older than the column.
fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, TableError> {
    let columns: Vec<ArrayRef> = schema
        .fields()
        .iter()
        .map(|field| match batch.column_by_name(field.name()) {
            Some(column) => column.clone(),
            None => new_null_array(field.data_type(), batch.num_rows()),
        })
        .collect();
    let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// Arrow's columns for a Delta schema string within our profile.
fn arrow_schema_of(schema_string: &str) -> Result<Schema, TableError> {
    use deltalake_core::kernel::StructType;
    use deltalake_core::kernel::engine::arrow_conversion::TryIntoArrow;
    let damaged = |error: String| TableError::Damaged(format!("the table's schema: {error}"));
    let schema: StructType = serde_json::from_str(schema_string).map_err(|error| damaged(error.to_string()))?;
    (&schema).try_into_arrow().map_err(|error| damaged(error.to_string()))
}
