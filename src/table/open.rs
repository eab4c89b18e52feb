//! Opening a table: the log is replayed and the index rebuilt from key and order columns.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use futures::TryStreamExt;
use roaring::RoaringBitmap;
use uuid::Uuid;
use weir_model::{Order, RecordKeys, TableId, TableSchema, clock};

use super::absorb::Standing;
use super::buckets::Buckets;
use super::change::{Clear, CommitOutcome};
use super::commit::Settled;
use super::delta::{Action, Add, MetaData, Protocol};
use super::files::DataFile;
use super::index::Index;
use super::kept::{self, Kept};
use super::log::{Log, serialise};
use super::orders::OrderCache;
use super::read::Folder;
use super::record::{CommitRecord, TableState};
use super::reshape::Drafts;
use super::stage::Staged;
use super::writer::{FileOrders, bucket_of_entry};
use super::{Table, TableError, Warehouse, Writer};

impl Table {
    /// Opens the table for writing `buckets`; `None` if there is none.
    ///
    /// Reads the key columns of every file of those buckets; of a table that is appended to none. Deletes of earlier
    /// incarnations are forgotten: a bucket's floor is the greatest order committed in it.
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
        let Some((mut table, files)) = Self::look_at(warehouse, id, writer, buckets).await? else { return Ok(None) };
        if table.take_kept().await {
            match table.adopt(files.clone()).await {
                Ok(()) => return Ok(Some(table)),
                Err(error) => {
                    tracing::warn!(table = %id, %error, "the kept key index is of no use; the table's keys are read");
                    table.begin_index();
                }
            }
        }
        table.adopt(files).await?;
        Ok(Some(table))
    }

    /// Opens a table whose files cannot be read as they must be, and takes all of them out of it in one commit: nothing of
    /// them is looked at, so rows that were marked as deleted go, too. For a load that brings everything anew.
    ///
    /// # Errors
    /// As [`Table::open`], but for what is wrong with the files.
    pub async fn open_emptied(
        warehouse: &Warehouse,
        id: &TableId,
        writer: Writer,
        buckets: Buckets,
    ) -> Result<Option<Self>, TableError> {
        let Some((mut table, files)) = Self::look_at(warehouse, id, writer, buckets).await? else { return Ok(None) };
        for (number, add) in (0..).zip(files.into_values()) {
            let bucket = bucket_of_entry(&add, table.buckets().count);
            let (rows, dead, orders) = (0, RoaringBitmap::new(), FileOrders::UNKNOWN);
            table.index.add_file(number, rows)?;
            table.files.insert(number, DataFile { add, bucket, rows, dead, orders });
            table.next_file = number + 1;
        }
        let mut state = table.state.clone();
        let at = state.order.assign(state.order.0.ts_ms);
        state.greatest.fill(at);
        state.seed = None;
        let clear = Clear { at, buckets: table.buckets().owned.clone() };
        let next = table.next_state(state, &table.schema)?;
        let mut staged =
            Staged { data_change: true, clear: Some(clear.clone()), ..Staged::of_upkeep("MERGE", next, &table) };
        table.stage_clear(&clear, &mut staged.deaths);
        match table.put_staged(staged).await? {
            CommitOutcome::Committed { .. } => Ok(Some(table)),
            CommitOutcome::Moved | CommitOutcome::Fenced { .. } => Err(table.rule("another writer is at work on it")),
        }
    }

    /// The table as its log tells it, with an index of no file, and its files.
    async fn look_at(
        warehouse: &Warehouse,
        id: &TableId,
        writer: Writer,
        buckets: Buckets,
    ) -> Result<Option<(Self, BTreeMap<String, Add>)>, TableError> {
        let log = Log::new(warehouse, id);
        loop {
            let Some(replay) = log.replay(None).await? else { return Ok(None) };
            let Standing { record, schema, meta_data } = Standing::of(&replay, id, &writer, &buckets)?;
            let floor = |bucket| record.state.greatest_of(bucket);
            let table = Self {
                warehouse: warehouse.clone(),
                path: warehouse.table_path(id),
                log: log.clone(),
                index: Index::new(buckets.clone(), floor, writer.index_home.clone()),
                writer: writer.clone(),
                schema,
                state: record.state,
                version: replay.version,
                identity: (meta_data.id, meta_data.created_time.unwrap_or_default()),
                files: BTreeMap::new(),
                next_file: 0,
                order_cache: OrderCache::default(),
                unkept_rows: 0,
                drafts: Drafts::default(),
            };
            match &replay.sound {
                Some(sound) => table.undo(&replay, sound, &table.state).await?,
                None => return Ok(Some((table, replay.files))),
            }
        }
    }

    /// An empty index, of no file.
    fn begin_index(&mut self) {
        let (state, home) = (&self.state, self.writer.index_home.clone());
        self.index = Index::new(self.buckets().clone(), |bucket| state.greatest_of(bucket), home);
        self.files.clear();
        self.next_file = 0;
    }

    /// Begins with the index that was kept on local disk, and the files that it is of; false if there is none.
    async fn take_kept(&mut self) -> bool {
        let home = self.writer.index_home.clone();
        if self.schema.layout.is_append() || home.folder().is_none() {
            return false;
        }
        let (table, table_id, buckets) =
            (self.schema.table.to_string(), self.identity.0.clone(), self.buckets().clone());
        let (schema, state) = (self.schema.clone(), self.state.clone());
        let read = tokio::task::spawn_blocking(move || {
            let floor = |bucket| state.greatest_of(bucket);
            kept::read(&home, &table, &table_id, &schema.key_names(), &buckets, floor)
        });
        let Ok(Some(Kept { index, files, next_file })) = read.await else { return false };
        (self.index, self.files, self.next_file) = (index, files, next_file);
        true
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
        let misfit = |why| TableError::Partitions { table: schema.table.clone(), why };
        schema.check_partitions_begin().map_err(misfit)?;
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
            unkept_rows: 0,
            drafts: Drafts::default(),
        };
        let record = CommitRecord {
            format: CommitRecord::FORMAT,
            source: table.writer.source.clone(),
            commit_id: Uuid::new_v4().to_string(),
            state,
            accounts: Vec::new(),
            cleans: Vec::new(),
        };
        let commit_id = record.commit_id.clone();
        let mut actions = table.frame("CREATE TABLE", record, at_ms);
        actions.push(Action { protocol: Some(Protocol::of(schema)), ..Action::default() });
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
}

fn creation_rule(schema: &TableSchema, rule: &str) -> TableError {
    TableError::Rule { table: schema.table.clone(), version: 0, rule: rule.to_owned() }
}

/// What the index needs of a file.
pub(super) struct LiveKeys {
    pub add: Add,
    /// The bucket of all rows; none if there may be several.
    pub bucket: Option<u32>,
    pub dead: RoaringBitmap,
    /// Keys of all rows, the dead ones included, batch by batch.
    pub keys: Vec<RecordKeys>,
}

impl LiveKeys {
    /// `complete` adds to the file's columns those of the key that its entry tells.
    pub(super) async fn read(
        folder: &Folder,
        add: Add,
        bucket: Option<u32>,
        key_names: &[String],
        complete: impl Fn(RecordBatch) -> Result<RecordBatch, TableError>,
    ) -> Result<Self, TableError> {
        let dead = folder.dead_rows(&add).await?;
        let names: Vec<&str> = key_names.iter().map(String::as_str).collect();
        let mut batches = folder.columns(&add.path, add.size as u64, &names).await?;
        let mut keys = Vec::new();
        while let Some(batch) = batches.try_next().await? {
            keys.push(RecordKeys::of(&complete(batch)?, &names)?);
        }
        Ok(Self { add, bucket, dead, keys })
    }
}
