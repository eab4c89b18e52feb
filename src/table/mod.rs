//! The table engine: one Delta table with a key index, merge-on-read unless its layout says otherwise. A commit costs what
//! changed.
//!
//! ```text
//! TableChange ─► stage (index: which rows die) ─► data file, vector file ─► version N+1 ─► index
//!                 pure but for orders              durable before visible    put if absent   only then
//! ```
//!
//! Reading order: [`record`] (what a commit says of itself), [`delta`] (the actions), [`change`] (what is asked),
//! [`index`], [`files`], [`partition`], `deaths` and `stage`, which work a commit out, and `commit`, the protocol; [`chunk`] for
//! loads, [`scan`] and [`history`] for readers. Upkeep is [`rewrite`], [`compact`] and [`copy`], [`clean`], [`verify`];
//! [`reshape`](self) writes all files again when columns change; `kept` is the index between two runs. Each of a table's
//! [`Buckets`] has one writer, of which [`family`](self) sees several get along, and [`absorb`] takes in what anybody else has
//! committed; readers need only the [`Warehouse`].

mod absorb;
mod buckets;
mod change;
mod checkpoint;
mod chunk;
pub mod clean;
mod commit;
mod compact;
mod copy;
mod deaths;
mod deletes;
mod delta;
mod durable;
mod family;
#[doc(hidden)]
pub mod faulty;
mod files;
pub mod history;
pub mod index;
mod kept;
mod location;
mod log;
mod marking;
#[cfg(test)]
pub(crate) mod mortal;
mod open;
mod orders;
mod partition;
mod read;
mod record;
mod reshape;
mod rewrite;
mod rows_at;
mod s3;
mod s3_options;
mod scan;
mod sound;
mod stage;
mod statistics;
#[doc(hidden)]
pub mod store_contract;
pub mod verify;
mod whole;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::path::Path;
use weir_model::key::{KeyError, KeyRef};
use weir_model::{GtidSet, Order, TableId, TableSchema};

pub use self::absorb::Absorbed;
pub use self::buckets::Buckets;
pub use self::change::{AbsentKeys, BucketRows, Clear, CommitOutcome, RemoveBelow, TableChange};
pub use self::chunk::{ChunkWriter, StagedChunk, StagedFile, TableFiles};
pub use self::compact::Effort;
pub use self::index::{IndexBudget, IndexHome, Located, RowAddress};
pub use self::kept::Keeping;
pub use self::location::{Object, Warehouse};
pub use self::partition::PartitionValues;
pub use self::read::orders_of_batch;
pub use self::record::{BucketShare, CommitRecord, PartialTransaction, SeedProgress, TableState};
pub use self::reshape::widened;
pub use self::rewrite::{Rewriting, Rewritten};
pub use self::scan::{Scan, ScanFile};

use self::files::DataFile;
use self::index::{Index, RowSpaceFull};
use self::log::Log;
use self::orders::OrderCache;
use self::read::Folder;
use self::reshape::Drafts;
use crate::error::{Error, Kind};
use crate::figures::TableNow;
use crate::format::Format;

/// Why a table could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("warehouse {url}: {what}")]
    Warehouse { url: String, what: String },
    /// `[warehouse]` says something that cannot be.
    #[error("[warehouse] {url}: {what}")]
    Configuration { url: String, what: String },
    /// It cannot be written as it must be.
    #[error("warehouse {url} cannot be read and written: {source}")]
    Unreachable { url: String, source: object_store::Error },
    #[error("there is no table {0} in the warehouse")]
    NoTable(TableId),
    #[error("{table} has no version {wanted}; the newest is {newest}")]
    NoVersion { table: TableId, wanted: i64, newest: i64 },
    #[error("{table} has no column {column}")]
    NoColumn { table: TableId, column: String },
    /// What is stored is not what it should be.
    #[error("damaged: {0}")]
    Damaged(String),
    /// A later version of weir wrote it.
    #[error(
        "{table} at version {version} has format {found}; this version of weir knows {known}. Run the version that wrote it, \
         or a later one"
    )]
    Newer { table: TableId, version: i64, found: Format, known: Format },
    /// A rule about durable state would be broken by the write, or is by what was read.
    #[error(
        "{table} at version {version}: {rule}; nothing was written. Re-seed it with `weir snapshot --table {table}`"
    )]
    Rule { table: TableId, version: i64, rule: String },
    /// A service of a greater epoch has written the table.
    #[error("{table} was written by an instance of a greater epoch ({epoch}, ours is {ours}), which has taken over")]
    Fenced { table: TableId, epoch: u64, ours: u64 },
    #[error("the table was written by source `{theirs}`, not by `{ours}`; two sources cannot share a table")]
    OtherSource { ours: String, theirs: String },
    /// What its `[[table]]` section says of it is not what it was created with.
    #[error(
        "{table} was created with another mode, storage, deletes or partition_by than its [[table]] section has now. \
         Set them back, or remove the table's folder from the warehouse and load it with `weir snapshot --table {table}`"
    )]
    Layout { table: TableId },
    /// Its columns cannot have the partitions of its [[table]] section.
    #[error("{table}: {why}")]
    Partitions { table: TableId, why: String },
    /// A row lies in a partition that no folder can be named after. Never tells the value.
    #[error(
        "{table}: column {column} has a value that cannot be a partition's, since not every reader would read it: texts \
         must be of ASCII letters, digits, `.`, `_` and `-`, and neither empty nor longer than {max} bytes. Change it at the \
         source and load the table with `weir snapshot --table {table}`; or set partition_by = [\"{column}_bucket = \
         bucket(16, {column})\"], remove the table's folder from the warehouse, and load it",
        max = crate::limits::PARTITION_VALUE_BYTES_MAX
    )]
    PartitionValue { table: TableId, column: String },
    #[error("checkpoint of the log: {0}")]
    Checkpoint(String),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    RowSpace(#[from] RowSpaceFull),
    #[error("object store: {0}")]
    Store(#[from] object_store::Error),
    #[error("local disk: {0}")]
    Disk(#[from] std::io::Error),
    #[error("Parquet: {0}")]
    Parquet(#[source] parquet::errors::ParquetError),
    #[error("Arrow: {0}")]
    Arrow(#[from] arrow_schema::ArrowError),
}

impl TableError {
    fn warehouse(url: &str, what: String) -> Self {
        Self::Warehouse { url: url.to_owned(), what }
    }

    fn newer(table: TableId, version: i64, found: Format) -> Self {
        Self::Newer { table, version, found, known: CommitRecord::FORMAT }
    }

    /// Whether something that the log names is not in the store.
    pub fn is_lost_file(&self) -> bool {
        matches!(self, Self::Store(object_store::Error::NotFound { .. }))
    }

    /// Whether what the table's files hold is not what it must be: asking again will not help, and loading the table anew
    /// does.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_) | Self::Key(_) | Self::Parquet(_)) || self.is_lost_file()
    }

    /// Whether the store could not be had, or its answer, rather than that it refused: what was asked may be done, and
    /// asking again later may help.
    pub fn is_away(&self) -> bool {
        matches!(
            self,
            Self::Store(object_store::Error::Generic { .. })
                | Self::Unreachable { source: object_store::Error::Generic { .. }, .. }
        )
    }
}

/// What a store said while a file was read is the store's error.
impl From<parquet::errors::ParquetError> for TableError {
    fn from(error: parquet::errors::ParquetError) -> Self {
        match error {
            parquet::errors::ParquetError::External(source) => match source.downcast::<object_store::Error>() {
                Ok(error) => Self::Store(*error),
                Err(source) => Self::Parquet(parquet::errors::ParquetError::External(source)),
            },
            error => Self::Parquet(error),
        }
    }
}

impl From<TableError> for Error {
    fn from(error: TableError) -> Self {
        let kind = match error {
            TableError::Fenced { .. } => Kind::Fenced,
            TableError::Configuration { .. } => Kind::Config,
            _ => Kind::Failed,
        };
        Self::new(kind, error.to_string()).because(error)
    }
}

/// Who writes a table.
#[derive(Debug, Clone)]
pub struct Writer {
    /// Name of the source that the table mirrors.
    pub source: String,
    /// Number of the service's incarnation; a greater one fences a lower one.
    pub epoch: u64,
    /// Where key indexes live.
    pub index_home: IndexHome,
}

impl Writer {
    /// A writer whose indexes live in memory.
    pub fn new(source: impl Into<String>, epoch: u64) -> Self {
        Self { source: source.into(), epoch, index_home: IndexHome::unbounded() }
    }
}

/// One lake table, open for writing some of its buckets or all. Which ones stays as it is while the table is open.
#[derive(Debug)]
pub struct Table {
    warehouse: Warehouse,
    path: Path,
    log: Log,
    writer: Writer,
    schema: Arc<TableSchema>,
    state: TableState,
    version: i64,
    /// Id and time of creation of the table, which every `metaData` repeats.
    identity: (String, i64),
    /// Those that hold, or may hold, rows of the writer's buckets, by the number that the index knows them by.
    files: BTreeMap<u32, DataFile>,
    next_file: u32,
    index: Index,
    order_cache: OrderCache,
    /// Rows of which the index has learned since it was kept on local disk.
    unkept_rows: u64,
    drafts: Drafts,
}

impl Table {
    /// The columns and the record key that the lake table has.
    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    /// Where the table stands, by its newest own commit.
    pub fn state(&self) -> &TableState {
        &self.state
    }

    pub fn version(&self) -> i64 {
        self.version
    }

    /// How the table is sharded, and which shards are the writer's.
    pub fn buckets(&self) -> &Buckets {
        self.index.buckets()
    }

    /// What the log calls the table: another for one that was deleted and created again.
    pub fn identity_id(&self) -> &str {
        &self.identity.0
    }

    /// The table is loaded from the beginning: what it holds of the stream begins at `set`, whatever it last said. One that
    /// is appended to goes on from what it has besides, or changes would come again under other orders; but not from what
    /// the source, which has `executed`, does not know: that was another history.
    pub fn restart_set(&mut self, set: &GtidSet, executed: &GtidSet) {
        let (held, partial) = (std::mem::take(&mut self.state.gtid_set), self.state.partial.take());
        self.state.gtid_set = set.clone();
        self.state.seed = None;
        if self.schema.layout.is_append() {
            self.state.gtid_set = set.union(&held.difference(&held.difference(executed)));
            self.state.partial = partial.filter(|partial| !self.state.gtid_set.contains(&partial.gtid));
        }
    }

    pub fn warehouse(&self) -> &Warehouse {
        &self.warehouse
    }

    /// Where chunks of a load are written.
    pub fn files(&self) -> TableFiles {
        TableFiles { warehouse: self.warehouse.clone(), folder: self.path.clone() }
    }

    /// What is read of the table's own folder.
    fn folder(&self) -> Folder {
        Folder { warehouse: self.warehouse.clone(), path: self.path.clone() }
    }

    fn rule(&self, rule: &str) -> TableError {
        TableError::Rule { table: self.schema.table.clone(), version: self.version, rule: rule.to_owned() }
    }

    /// Files, live rows and bytes of the writer's buckets at the table's present version.
    pub fn figures(&self) -> (u64, u64, u64) {
        let rows = self.files.values().map(DataFile::live_rows).sum();
        let bytes = self.files.values().map(|file| file.add.size as u64).sum();
        (self.files.len() as u64, rows, bytes)
    }

    /// The table in numbers, for whoever watches the process that writes it.
    pub fn now(&self) -> TableNow {
        let (files, rows, bytes) = self.figures();
        let (index_bytes, index_on_disk) = (self.index.bytes() as u64, self.index.on_disk());
        TableNow { version: self.version, rows, files, bytes, index_bytes, index_on_disk }
    }

    /// Keys in the index and the bytes that they take in memory and on disk, roughly.
    pub fn index_figures(&self) -> (usize, usize) {
        (self.index.len(), self.index.bytes())
    }

    /// The order below which deletes are forgotten in the bucket of `key`, which is one of the writer's.
    pub fn floor_of(&self, key: KeyRef<'_>) -> Order {
        self.index.floor(self.buckets().of(key)).unwrap_or(Order::MIN)
    }

    /// No row of the file that `address` lies in has a greater order.
    pub fn file_greatest(&self, address: RowAddress) -> Order {
        self.files.get(&address.file).map_or(Order::MIN, |file| file.orders.greatest)
    }

    /// Whether the table can tell which of a chunk's rows of `bucket` are newer than its own: not if it may have
    /// forgotten a delete that is. One that is appended to takes them all.
    pub fn may_merge(&self, bucket: u32, order0: Order) -> bool {
        if self.schema.layout.is_append() {
            return self.buckets().owns(bucket);
        }
        self.index.floor(bucket).is_some_and(|floor| order0 > floor)
    }
}
