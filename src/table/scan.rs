//! The live rows of a table, for readers beside its writer.

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow_cast::cast;
use arrow_schema::{Schema, SchemaRef};
use arrow_select::filter::filter_record_batch;
use futures::TryStreamExt;
use weir_model::{Order, TableId};

use super::TableError;
use super::delta::Add;
use super::location::Warehouse;
use super::log::{Log, Replay};
use super::partition::{self, told_column};
use super::read::Folder;
use super::statistics::whole_bounds;
use super::writer::orders_of_entry;

/// The live rows of a table at one version.
#[derive(Debug)]
pub struct Scan {
    folder: Folder,
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
        let replay =
            Log::new(warehouse, table).replay(version).await?.ok_or_else(|| TableError::NoTable(table.clone()))?;
        let damaged = |what: &str| TableError::Damaged(format!("{table} {what}"));
        if !replay.protocol.as_ref().ok_or_else(|| damaged("has no protocol action"))?.is_readable() {
            return Err(damaged("needs reader features that weir does not have"));
        }
        let meta_data = replay.meta_data.as_ref().ok_or_else(|| damaged("has no metaData action"))?;
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
        let folder = Folder { warehouse: warehouse.clone(), path: warehouse.table_path(table) };
        Ok(Self { folder, replay, schema: Arc::new(schema) })
    }

    pub fn version(&self) -> i64 {
        self.replay.version
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Hands the live rows to `sink`, batch by batch, in no order.
    pub async fn for_each(
        &self,
        mut sink: impl FnMut(RecordBatch) -> Result<(), TableError>,
    ) -> Result<(), TableError> {
        for file in self.files() {
            self.read(&file, &mut sink).await?;
        }
        Ok(())
    }

    /// The data files of the version, to be read one by one by [`Self::read`].
    pub fn files(&self) -> impl Iterator<Item = ScanFile<'_>> {
        self.replay.files.values().map(ScanFile)
    }

    /// Hands the live rows of one file to `sink`, batch by batch, in the file's order.
    ///
    /// # Errors
    /// One that [`TableError::is_lost_file`] tells if the file, or its deletion vector, is not there.
    pub async fn read(
        &self,
        file: &ScanFile<'_>,
        mut sink: impl FnMut(RecordBatch) -> Result<(), TableError>,
    ) -> Result<(), TableError> {
        let add = file.0;
        let names: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        let meta_data = self.replay.meta_data.as_ref();
        let told: Vec<&str> =
            meta_data.iter().flat_map(|meta_data| meta_data.partition_columns.iter().map(String::as_str)).collect();
        let dead = self.folder.dead_rows(add).await?;
        let mut batches = self.folder.columns(&add.path, add.size as u64, &names).await?;
        let mut first_row = 0;
        while let Some(batch) = batches.try_next().await? {
            let rows = first_row..first_row + batch.num_rows() as u32;
            first_row = rows.end;
            let batch = conform(&batch, &self.schema, &told, add)?;
            if dead.range_cardinality(rows.clone()) == 0 {
                sink(batch)?;
            } else {
                let live: BooleanArray = rows.map(|row| Some(!dead.contains(row))).collect();
                sink(filter_record_batch(&batch, &live)?)?;
            }
        }
        Ok(())
    }
}

/// A data file of a version, as its log tells it.
#[derive(Debug, Clone, Copy)]
pub struct ScanFile<'a>(&'a Add);

impl ScanFile<'_> {
    /// By its path in the table's folder.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// Whether a row of it may be below `order`.
    pub fn may_be_older_than(&self, order: Order) -> bool {
        orders_of_entry(self.0).least < order
    }

    /// The least and the greatest value of a column of whole numbers, neither of which need be a live row's, if the log
    /// tells them and that no row has NULL there.
    pub fn whole_bounds(&self, column: &str) -> Option<(i64, i64)> {
        whole_bounds(self.0.stats.as_deref(), column)
    }
}

/// A file's columns as the table's: those that its entry tells, and NULL where the file is older than the column.
pub(super) fn conform(
    batch: &RecordBatch,
    schema: &SchemaRef,
    told: &[&str],
    add: &Add,
) -> Result<RecordBatch, TableError> {
    let column = |name: &str, wanted| match batch.column_by_name(name) {
        _ if told.contains(&name) => {
            told_column(wanted, partition::told(&add.partition_values, name), batch.num_rows())
        }
        Some(column) if column.data_type() == wanted => Ok(column.clone()),
        // A foreign writer's file may hold another Arrow form of the same Delta type.
        Some(column) => cast(column, wanted),
        None => Ok(new_null_array(wanted, batch.num_rows())),
    };
    let columns: Vec<ArrayRef> =
        schema.fields().iter().map(|field| column(field.name(), field.data_type())).collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
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
