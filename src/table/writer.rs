//! Data files: Parquet as every reader takes it, and what its entry in the log says of it.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;
use uuid::Uuid;
use weir_model::schema::{SEQ_COLUMN, TS_COLUMN};
use weir_model::{ColumnType, Layout, Order, TableSchema};

use super::TableError;
use super::delta::Add;
use super::partition::PartitionValues;
use super::statistics::Statistics;

/// What is known of the orders of a file's rows without reading them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileOrders {
    pub least: Order,
    pub greatest: Order,
}

impl FileOrders {
    /// A file of which nothing is known: each row must be looked at.
    pub const UNKNOWN: Self = Self { least: Order::MIN, greatest: Order { ts_ms: i64::MAX, seq: i64::MAX } };

    /// Those of a file whose rows have `orders`.
    pub fn of(orders: &[Order]) -> Self {
        Self {
            least: orders.iter().copied().min().unwrap_or(Order::MIN),
            greatest: orders.iter().copied().max().unwrap_or(Order::MIN),
        }
    }

    /// The order of every row, if all have the same.
    pub fn uniform(self) -> Option<Order> {
        (self.least == self.greatest).then_some(self.least)
    }
}

const LEAST_TAG: &str = "weir.least";
const GREATEST_TAG: &str = "weir.greatest";
const BUCKET_TAG: &str = "weir.bucket";

/// Writes one data file in memory; bounded by the batches it is given.
pub struct FileWriter {
    writer: ArrowWriter<Vec<u8>>,
    statistics: Statistics,
}

/// A data file that has not been put.
#[derive(Debug)]
pub struct EncodedFile {
    pub name: String,
    pub bytes: Bytes,
    pub stats: String,
}

impl FileWriter {
    /// A file of a table of `schema`: the lake table's columns but for those that a partition tells.
    pub fn new(schema: &TableSchema) -> Result<Self, TableError> {
        let writer = ArrowWriter::try_new(Vec::new(), schema.file_arrow(), Some(properties(schema)))?;
        Ok(Self { writer, statistics: Statistics::new(schema) })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), TableError> {
        self.statistics.add(batch);
        Ok(self.writer.write(batch)?)
    }

    /// Bytes that it holds in memory, roughly.
    pub fn bytes(&self) -> usize {
        self.writer.memory_size() + self.writer.bytes_written()
    }

    pub fn finish(self) -> Result<EncodedFile, TableError> {
        let name = format!("part-{}.parquet", Uuid::new_v4());
        Ok(EncodedFile { name, bytes: self.writer.into_inner()?.into(), stats: self.statistics.json() })
    }
}

/// zstd 1, dictionaries only where a column repeats, and the key that lets Spark read dates before 1900.
fn properties(schema: &TableSchema) -> WriterProperties {
    let mut builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).expect("a level of zstd")))
        .set_dictionary_enabled(false)
        .set_max_row_group_row_count(Some(1 << 20))
        .set_key_value_metadata(Some(vec![KeyValue::new("org.apache.spark.version".to_owned(), "3.5.7".to_owned())]))
        .set_created_by(format!("weir {}", env!("CARGO_PKG_VERSION")));
    for column in &schema.columns {
        if matches!(column.ty, ColumnType::Enum(_) | ColumnType::Set(_)) {
            builder = builder.set_column_dictionary_enabled(ColumnPath::from(column.name.as_str()), true);
        }
    }
    for repeating in [TS_COLUMN, SEQ_COLUMN] {
        builder = builder.set_column_dictionary_enabled(ColumnPath::from(repeating), true);
    }
    builder.build()
}

/// A data file that lies in the table's folder, by what its entry says of it.
pub struct Placed<'a> {
    /// From the table's folder.
    pub path: String,
    pub size: usize,
    pub stats: String,
    pub bucket: u32,
    pub partition: &'a PartitionValues,
}

/// The log's entry of a new file.
pub fn add_action(layout: &Layout, file: Placed<'_>, orders: FileOrders, at_ms: i64) -> Add {
    let Placed { path, size, stats, bucket, partition } = file;
    let order = |order: Order| format!("{}/{}", order.ts_ms, order.seq);
    let tags = BTreeMap::from([
        (BUCKET_TAG.to_owned(), Some(bucket.to_string())),
        (LEAST_TAG.to_owned(), Some(order(orders.least))),
        (GREATEST_TAG.to_owned(), Some(order(orders.greatest))),
    ]);
    Add {
        path,
        partition_values: partition.entry(layout),
        size: size as i64,
        modification_time: at_ms,
        data_change: true,
        stats: Some(stats),
        tags: Some(tags),
        deletion_vector: None,
    }
}

/// The bucket of every row of a file in a table of `count`; `None` if its entry does not say, as a foreign writer's.
pub fn bucket_of_entry(add: &Add, count: u32) -> Option<u32> {
    if count == 1 {
        return Some(0);
    }
    let bucket = add.tags.as_ref()?.get(BUCKET_TAG)?.as_deref()?.parse().ok()?;
    (bucket < count).then_some(bucket)
}

/// What an entry's tags say of its orders; a foreign writer's file says nothing.
pub fn orders_of_entry(add: &Add) -> FileOrders {
    let order = |tag: &str| {
        let (ts_ms, seq) = add.tags.as_ref()?.get(tag)?.as_deref()?.split_once('/')?;
        Some(Order::new(ts_ms.parse().ok()?, seq.parse().ok()?))
    };
    match (order(LEAST_TAG), order(GREATEST_TAG)) {
        (Some(least), Some(greatest)) => FileOrders { least, greatest },
        _ => FileOrders::UNKNOWN,
    }
}
