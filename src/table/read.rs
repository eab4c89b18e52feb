//! Reading data files: only the columns asked for, and which of their rows are dead.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, RecordBatch};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use roaring::RoaringBitmap;
use weir_model::Order;
use weir_model::schema::{SEQ_COLUMN, TS_COLUMN};

use super::TableError;
use super::deletes::{range_of, read_vector};
use super::delta::Add;
use super::location::Warehouse;

/// Rows of one batch when a file is read.
const READ_ROWS: usize = 16_384;
/// A file up to this size is read at once: cheaper than asking for its footer and columns one by one.
const READ_WHOLE_BYTES: u64 = 256 << 10;
/// Bytes at a larger file's end that are read in the hope that the footer is in them.
const FOOTER_BYTES: usize = 64 << 10;

/// A table's folder, for reading what its log names.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    pub warehouse: Warehouse,
    pub path: Path,
}

impl Folder {
    /// A file by its path in the folder, which may have several parts.
    pub(super) fn child(&self, path: &str) -> Path {
        path.split('/').fold(self.path.clone(), |folder, part| folder.join(part))
    }

    /// The columns of a data file of `size` bytes called `names`, those that it has, batch by batch.
    pub(super) async fn columns(
        &self,
        path: &str,
        size: u64,
        names: &[&str],
    ) -> Result<impl Stream<Item = Result<RecordBatch, TableError>> + Send + Unpin + use<>, TableError> {
        let builder = self.open(path, size).await?;
        let fields = builder.schema().fields().iter().enumerate();
        let present: Vec<usize> =
            fields.filter(|(_, field)| names.contains(&field.name().as_str())).map(|(i, _)| i).collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), present);
        Ok(builder.with_projection(mask).with_batch_size(READ_ROWS).build()?.map_err(TableError::from))
    }

    /// All columns of a data file of `size` bytes, batch by batch.
    pub(super) async fn rows(
        &self,
        path: &str,
        size: u64,
    ) -> Result<impl Stream<Item = Result<RecordBatch, TableError>> + Send + Unpin + use<>, TableError> {
        let builder = self.open(path, size).await?;
        Ok(builder.with_batch_size(READ_ROWS).build()?.map_err(TableError::from))
    }

    /// All columns of some rows of a data file of `size` bytes, which are ascending and each there once.
    pub(super) async fn picked_rows(
        &self,
        path: &str,
        size: u64,
        rows: &[u32],
    ) -> Result<impl Stream<Item = Result<RecordBatch, TableError>> + Send + Unpin + use<>, TableError> {
        let builder = self.open(path, size).await?;
        let total = usize::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let ranges = rows.iter().map(|row| *row as usize..*row as usize + 1).filter(|range| range.end <= total);
        let selection = RowSelection::from_consecutive_ranges(ranges, total);
        Ok(builder.with_row_selection(selection).with_batch_size(READ_ROWS).build()?.map_err(TableError::from))
    }

    /// Opens a file by what Parquet says of its columns: another engine's may say besides which of Arrow's many forms of a
    /// text it had in memory, which is nothing to us.
    async fn open(&self, path: &str, size: u64) -> ParquetResult<ParquetRecordBatchStreamBuilder<RangedFile>> {
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        ParquetRecordBatchStreamBuilder::new_with_options(self.file(path, size), options).await
    }

    fn file(&self, path: &str, size: u64) -> RangedFile {
        RangedFile { store: self.warehouse.store().clone(), path: self.child(path), size, whole: None }
    }

    /// Order of each row of a data file.
    pub(super) async fn orders(&self, add: &Add) -> Result<Vec<Order>, TableError> {
        let mut batches = self.columns(&add.path, add.size as u64, &[TS_COLUMN, SEQ_COLUMN]).await?;
        let mut orders = Vec::new();
        while let Some(batch) = batches.try_next().await? {
            orders.extend(orders_of_batch(&batch));
        }
        Ok(orders)
    }

    /// The dead rows of a data file.
    pub(super) async fn dead_rows(&self, add: &Add) -> Result<RoaringBitmap, TableError> {
        let Some(vector) = &add.deletion_vector else { return Ok(RoaringBitmap::new()) };
        let (name, offset) = vector.file().ok_or_else(|| {
            TableError::Damaged(format!("the deletion vector of {} does not lie in a file of the table", add.path))
        })?;
        let bytes = self.warehouse.store().get_range(&self.child(&name), range_of(vector, offset)).await?;
        read_vector(vector, &bytes)
    }
}

/// Order of each row of a batch that has our columns; NULL, a foreign writer's, counts as the least.
pub fn orders_of_batch(batch: &RecordBatch) -> Vec<Order> {
    let column = |name: &str| batch.column_by_name(name).map(|c| c.as_primitive::<Int64Type>());
    let (Some(ts), Some(seq)) = (column(TS_COLUMN), column(SEQ_COLUMN)) else {
        return vec![Order::MIN; batch.num_rows()];
    };
    let order = |row| {
        if ts.is_null(row) || seq.is_null(row) { Order::MIN } else { Order::new(ts.value(row), seq.value(row)) }
    };
    (0..batch.num_rows()).map(order).collect()
}

/// A Parquet file in an object store, read by ranges.
struct RangedFile {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
    /// All of it, once it has been read, if it is small.
    whole: Option<Bytes>,
}

impl RangedFile {
    async fn read(&mut self, range: Range<u64>) -> ParquetResult<Bytes> {
        if self.size > READ_WHOLE_BYTES {
            return self.store.get_range(&self.path, range).await.map_err(external);
        }
        let whole = match &self.whole {
            Some(whole) => whole,
            None => {
                self.whole.insert(self.store.get(&self.path).await.map_err(external)?.bytes().await.map_err(external)?)
            }
        };
        if whole.len() as u64 != self.size {
            return Err(ParquetError::General(format!(
                "{} has {} bytes, not the {} that the log says",
                self.path,
                whole.len(),
                self.size
            )));
        }
        Ok(whole.slice(range.start as usize..range.end as usize))
    }
}

fn external(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for RangedFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.read(range).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        async move {
            if self.size > READ_WHOLE_BYTES {
                return self.store.get_ranges(&self.path, &ranges).await.map_err(external);
            }
            let mut bytes = Vec::with_capacity(ranges.len());
            for range in ranges {
                bytes.push(self.read(range).await?);
            }
            Ok(bytes)
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let size = self.size;
            let reader =
                ParquetMetaDataReader::new().with_arrow_reader_options(options).with_prefetch_hint(Some(FOOTER_BYTES));
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        }
        .boxed()
    }
}
