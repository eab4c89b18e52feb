//! Opening a table: the log is replayed and the index rebuilt from key and order columns.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use roaring::RoaringBitmap;
use uuid::Uuid;
use weir_model::key::KeyRef;
use weir_model::{Order, RecordKeys, TableId, TableSchema, clock};

use super::buckets::Buckets;
use super::commit::Settled;
use super::delta::{Action, Add, MetaData, Protocol};
use super::files::DataFile;
use super::index::{Index, RowAddress};
use super::log::{Log, Replay, serialise};
use super::orders::OrderCache;
use super::read::Folder;
use super::record::{CommitRecord, TableState};
use super::statistics::rows_of;
use super::writer::{bucket_of_entry, orders_of_entry};
use super::{Table, TableError, Warehouse, Writer};
use crate::limits::FILES_READ_TOGETHER;

impl Table {
    /// Opens the table for writing `buckets`; `None` if there is none.
    ///
    /// Reads the key columns of every file of those buckets. Deletes of earlier incarnations are forgotten: a bucket's
    /// floor is the greatest order committed in it.
    ///
    /// # Errors
    /// When the table is another source's, has another number of buckets, was changed as no reader of ours expects, or
    /// is damaged; and, unless it is shared, when a greater epoch has written it.
    pub async fn open(
        warehouse: &Warehouse,
        id: &TableId,
        writer: Writer,
        buckets: Buckets,
    ) -> Result<Option<Self>, TableError> {
        let log = Log::new(warehouse, id);
        let Some(replay) = log.replay(None).await? else { return Ok(None) };
        let rule = |rule: &str| TableError::Rule { table: id.clone(), version: replay.version, rule: rule.to_owned() };
        let (_, record) = replay.own.clone().ok_or_else(|| rule("it was not written by weir"))?;
        if record.source != writer.source {
            return Err(TableError::OtherSource { ours: writer.source, theirs: record.source });
        }
        // Who may write a bucket that is fed through a topic is settled by what was committed of it.
        if record.state.epoch > writer.epoch && !record.state.is_shared() {
            return Err(TableError::Fenced { table: id.clone(), epoch: record.state.epoch, ours: writer.epoch });
        }
        if !replay.protocol.as_ref().is_some_and(Protocol::is_ours) {
            return Err(rule("its protocol was changed by someone else"));
        }
        let meta_data = replay.meta_data.clone().ok_or_else(|| rule("it has no metaData action"))?;
        let schema = record.state.schema.clone().ok_or_else(|| rule("its record does not say its columns"))?;
        if !meta_data.has_columns_of(&schema) {
            return Err(rule("its columns were changed by someone else"));
        }
        if !buckets.is_sound() || record.state.bucket_count() != buckets.count {
            let (theirs, ours) = (record.state.bucket_count(), buckets.count);
            return Err(rule(&format!("it has {theirs} buckets and was to be opened as one of {ours}")));
        }
        let index = Index::new(buckets, |bucket| record.state.greatest_of(bucket), writer.index_home.clone());
        let mut table = Self {
            warehouse: warehouse.clone(),
            path: warehouse.table_path(id),
            log,
            writer,
            schema: Arc::new(schema),
            state: record.state,
            version: replay.version,
            identity: (meta_data.id, meta_data.created_time.unwrap_or_default()),
            files: BTreeMap::new(),
            next_file: 0,
            index,
            order_cache: OrderCache::default(),
        };
        table.rebuild(replay).await?;
        Ok(Some(table))
    }

    /// Creates the table, empty, with `state` as its beginning: of a shared table whoever comes first says it for all
    /// buckets.
    ///
    /// # Errors
    /// When it exists, or the warehouse cannot be written.
    pub async fn create(
        warehouse: &Warehouse,
        schema: &TableSchema,
        writer: Writer,
        state: TableState,
        buckets: Buckets,
    ) -> Result<Self, TableError> {
        Self::try_create(warehouse, schema, writer, state, buckets)
            .await?
            .ok_or_else(|| creation_rule(schema, "someone else has just created it"))
    }

    /// Opens the table, or creates it if there is none. Of writers that do so at once one creates it, and the others
    /// go on from what that one says.
    ///
    /// # Errors
    /// As [`Table::open`] and [`Table::create`].
    pub async fn open_or_create(
        warehouse: &Warehouse,
        schema: &TableSchema,
        writer: Writer,
        state: TableState,
        buckets: Buckets,
    ) -> Result<Self, TableError> {
        if let Some(table) = Self::open(warehouse, &schema.table, writer.clone(), buckets.clone()).await? {
            return table.of_layout(schema);
        }
        if let Some(table) = Self::try_create(warehouse, schema, writer.clone(), state, buckets.clone()).await? {
            return Ok(table);
        }
        Self::open(warehouse, &schema.table, writer, buckets)
            .await?
            .ok_or_else(|| creation_rule(schema, "someone else has just created it, and it is gone again"))?
            .of_layout(schema)
    }

    /// The table, if it is laid out as `wanted` says: that is decided when it is made.
    fn of_layout(self, wanted: &TableSchema) -> Result<Self, TableError> {
        if self.schema.layout == wanted.layout {
            return Ok(self);
        }
        Err(TableError::Layout { table: wanted.table.clone() })
    }

    /// Creates the table; `None` if someone else has.
    async fn try_create(
        warehouse: &Warehouse,
        schema: &TableSchema,
        writer: Writer,
        state: TableState,
        buckets: Buckets,
    ) -> Result<Option<Self>, TableError> {
        let state = state.of_buckets(buckets.count);
        if !buckets.is_sound() || state.bucket_count() != buckets.count {
            return Err(creation_rule(schema, "its beginning is of another number of buckets"));
        }
        let at_ms = clock::now_ms();
        let identity = (Uuid::new_v4().to_string(), at_ms);
        let state = TableState { epoch: writer.epoch, commits: 1, schema: Some(schema.clone()), ..state };
        let log = Log::new(warehouse, &schema.table);
        let table = Self {
            warehouse: warehouse.clone(),
            path: warehouse.table_path(&schema.table),
            log,
            index: Index::new(buckets, |_| Order::MIN, writer.index_home.clone()),
            writer,
            schema: Arc::new(schema.clone()),
            state: state.clone(),
            version: 0,
            identity,
            files: BTreeMap::new(),
            next_file: 0,
            order_cache: OrderCache::default(),
        };
        let record = CommitRecord {
            source: table.writer.source.clone(),
            commit_id: Uuid::new_v4().to_string(),
            state,
            accounts: Vec::new(),
        };
        let commit_id = record.commit_id.clone();
        let mut actions = table.frame("CREATE TABLE", record, at_ms);
        actions.push(Action { protocol: Some(Protocol::ours()), ..Action::default() });
        actions.push(Action { meta_data: Some(table.meta_data(schema)), ..Action::default() });
        match table.settle(0, serialise(&actions), &commit_id).await? {
            Settled::Ours => Ok(Some(table)),
            Settled::Theirs(_) | Settled::Unread => Ok(None),
        }
    }

    /// The table's `metaData` with these columns.
    pub(super) fn meta_data(&self, schema: &TableSchema) -> MetaData {
        MetaData::of(schema, self.identity.0.clone(), self.identity.1)
    }

    /// Fills files and index from what the log says is live.
    async fn rebuild(&mut self, replay: Replay) -> Result<(), TableError> {
        let key_names: Arc<[String]> = self.schema.key_names().into_iter().map(str::to_owned).collect();
        let folder = self.folder();
        let buckets = self.buckets().clone();
        let files = replay.files.into_values().map(|add| (bucket_of_entry(&add, buckets.count), add));
        let ours = files.filter(|(bucket, _)| bucket.is_none_or(|bucket| buckets.owns(bucket)));
        let mut reads = futures::stream::iter(ours)
            .map(|(bucket, add)| {
                let (folder, key_names) = (folder.clone(), key_names.clone());
                // A task of its own: keys are decoded beside the filling of the index.
                let read = tokio::spawn(async move { LiveKeys::read(&folder, add, bucket, &key_names).await });
                async move { read.await.map_err(|error| TableError::Disk(error.into()))? }
            })
            .buffered(FILES_READ_TOGETHER);
        while let Some(read) = reads.try_next().await? {
            self.take_in(read)?;
        }
        Ok(self.index.health()?)
    }

    /// Takes a file and its live keys into the index.
    fn take_in(&mut self, read: LiveKeys) -> Result<(), TableError> {
        let LiveKeys { add, bucket, dead, keys } = read;
        let number = self.next_file;
        self.next_file += 1;
        let rows = keys.iter().map(RecordKeys::len).sum::<usize>();
        let damaged = || TableError::Damaged(format!("{} does not hold the rows its entry says", add.path));
        let rows = u32::try_from(rows).map_err(|_| damaged())?;
        self.index.add_file(number, rows)?;
        let mut row = 0_u32;
        for batch in &keys {
            for i in 0..batch.len() {
                if !dead.contains(row) {
                    self.take_in_row(batch.get(i), RowAddress { file: number, row }, bucket, &add)?;
                }
                row += 1;
            }
        }
        let entry = rows_of(add.stats.as_deref()).is_none_or(|said| said == u64::from(rows));
        if !entry || dead.max().is_some_and(|dead| dead >= rows) {
            return Err(damaged());
        }
        let orders = orders_of_entry(&add);
        self.files.insert(number, DataFile { add, bucket, rows, dead, orders });
        Ok(())
    }

    /// Takes a live row of a file of `bucket`, or of several, into the index, if it is of the writer's buckets.
    fn take_in_row(
        &mut self,
        key: KeyRef<'_>,
        address: RowAddress,
        bucket: Option<u32>,
        add: &Add,
    ) -> Result<(), TableError> {
        if self.buckets().count > 1 {
            let of_key = self.buckets().of(key);
            if bucket.is_some_and(|bucket| bucket != of_key) {
                return Err(TableError::Damaged(format!(
                    "{} has a row of bucket {of_key} among those of another: row {} of {}",
                    self.schema.table, address.row, add.path
                )));
            }
            if !self.buckets().owns(of_key) {
                return Ok(());
            }
        }
        let Some(other) = self.index.put(key, address) else { return Ok(()) };
        let other_file = self.files.get(&other.file).map_or(&add.path, |file| &file.add.path);
        Err(TableError::Damaged(format!(
            "{} has two live rows of one key: row {} of {} and row {} of {other_file}",
            self.schema.table, address.row, add.path, other.row,
        )))
    }
}

fn creation_rule(schema: &TableSchema, rule: &str) -> TableError {
    TableError::Rule { table: schema.table.clone(), version: 0, rule: rule.to_owned() }
}

/// What the index needs of a file.
struct LiveKeys {
    add: Add,
    /// The bucket of all rows; none if there may be several.
    bucket: Option<u32>,
    dead: RoaringBitmap,
    /// Keys of all rows, the dead ones included, batch by batch.
    keys: Vec<RecordKeys>,
}

impl LiveKeys {
    async fn read(folder: &Folder, add: Add, bucket: Option<u32>, key_names: &[String]) -> Result<Self, TableError> {
        let dead = folder.dead_rows(&add).await?;
        let names: Vec<&str> = key_names.iter().map(String::as_str).collect();
        let mut batches = folder.columns(&add.path, add.size as u64, &names).await?;
        let mut keys = Vec::new();
        while let Some(batch) = batches.try_next().await? {
            keys.push(RecordKeys::of(&batch, &names)?);
        }
        Ok(Self { add, bucket, dead, keys })
    }
}
