//! From where the table was known to stand to what its log names now: after a foreign commit, or from an index that was
//! kept on local disk.
//!
//! Only files that have come are read. An index may go on naming rows that have died or whose file has gone: whoever
//! asks it looks whether the row is live ([`Table::live`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use weir_model::key::KeyRef;

use super::buckets::Buckets;
use super::delta::{Add, MetaData};
use super::files::DataFile;
use super::index::{Located, RowAddress, lookahead};
use super::log::Replay;
use super::open::LiveKeys;
use super::partition::{PartitionValues, ToldKeys};
use super::record::{CommitRecord, TableState};
use super::statistics::rows_of;
use super::writer::{bucket_of_entry, orders_of_entry};
use super::{Table, TableError, Writer};
use crate::limits::FILES_READ_TOGETHER;

/// How a table stands that has taken in what others committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absorbed {
    /// The writer may go on from where it was: rows lie otherwise, or have been changed by someone who is not a source.
    Beside,
    /// What the table holds of the source has moved: changes that are in the writer's hands may be in already.
    Moved,
}

/// What the log says of a table, checked.
pub(super) struct Standing {
    pub record: CommitRecord,
    pub schema: Arc<weir_model::TableSchema>,
    pub meta_data: MetaData,
}

impl Standing {
    /// What `replay` says of a table that `writer` means to write.
    ///
    /// # Errors
    /// When the table is another source's, was changed as no reader of ours expects, or, unless it is shared, a greater
    /// epoch has written it.
    pub(super) fn of(
        replay: &Replay,
        id: &weir_model::TableId,
        writer: &Writer,
        buckets: &Buckets,
    ) -> Result<Self, TableError> {
        let rule = |rule: &str| TableError::Rule { table: id.clone(), version: replay.version, rule: rule.to_owned() };
        let (_, record) = replay.own.clone().ok_or_else(|| rule("it was not written by weir"))?;
        if record.source != writer.source {
            return Err(TableError::OtherSource { ours: writer.source.clone(), theirs: record.source });
        }
        // Who may write a bucket that is fed through a topic is settled by what was committed of it.
        if record.state.epoch > writer.epoch && !record.state.is_shared() {
            return Err(TableError::Fenced { table: id.clone(), epoch: record.state.epoch, ours: writer.epoch });
        }
        let meta_data = replay.meta_data.clone().ok_or_else(|| rule("it has no metaData action"))?;
        if meta_data.weir_format() > CommitRecord::FORMAT {
            return Err(TableError::newer(id.clone(), replay.version, meta_data.weir_format()));
        }
        let schema = record.state.schema.clone().ok_or_else(|| rule("its record does not say its columns"))?;
        if !replay.protocol.as_ref().is_some_and(|protocol| protocol.is_of(&schema)) {
            return Err(rule("its protocol was changed by someone else"));
        }
        if !meta_data.has_columns_of(&schema) {
            return Err(rule("its columns were changed by someone else"));
        }
        if !buckets.is_sound() || record.state.bucket_count() != buckets.count {
            let (theirs, ours) = (record.state.bucket_count(), buckets.count);
            return Err(rule(&format!("it has {theirs} buckets and was to be opened as one of {ours}")));
        }
        Ok(Self { record, schema: Arc::new(schema), meta_data })
    }
}

/// Whether a writer that stood at `before` may go on at `after`.
fn is_beside(before: &TableState, after: &TableState) -> bool {
    // Of a table that is not shared nobody else takes in changes. Of a shared one each bucket's share tells.
    after.is_shared()
        || TableState { epoch: before.epoch, commits: before.commits, schema: before.schema.clone(), ..after.clone() }
            == *before
}

impl Table {
    /// The key's live row.
    pub fn live(&self, key: KeyRef<'_>) -> Option<RowAddress> {
        self.index.live(key).filter(|address| self.is_live(*address))
    }

    /// What the table knows of a key.
    pub fn locate(&self, key: KeyRef<'_>) -> Located {
        match self.index.locate(key) {
            Located::Live(address) if !self.is_live(address) => Located::Absent,
            located => located,
        }
    }

    /// What the table knows of each of `keys`.
    pub fn locate_all(&self, keys: &[KeyRef<'_>]) -> Vec<Located> {
        let mut located = vec![Located::Absent; keys.len()];
        let numbers = self.index.in_place(keys.len(), |nth| keys[nth]);
        for block in lookahead(keys.len()) {
            let numbers = &numbers[block];
            self.index.fetch(numbers.iter().map(|&nth| keys[nth as usize]));
            numbers.iter().for_each(|&nth| located[nth as usize] = self.locate(keys[nth as usize]));
        }
        located
    }

    pub(super) fn is_live(&self, address: RowAddress) -> bool {
        self.files.get(&address.file).is_some_and(|file| !file.dead.contains(address.row))
    }

    /// Takes in what others have committed since.
    ///
    /// # Errors
    /// When the table cannot be read, may not be written any more (as in [`Table::open`]), or holds two live rows of a
    /// key. It must be opened anew then.
    pub async fn absorb(&mut self) -> Result<Absorbed, TableError> {
        let id = self.schema.table.clone();
        let (replay, standing) = loop {
            let replay = self.log.replay(None).await?.ok_or_else(|| TableError::NoTable(id.clone()))?;
            let standing = Standing::of(&replay, &id, &self.writer, self.buckets())?;
            let Some(sound) = &replay.sound else { break (replay, standing) };
            self.undo(&replay, sound, &standing.record.state).await?;
        };
        let Standing { record, schema, meta_data } = standing;
        if meta_data.id != self.identity.0 {
            return Err(self.rule("it was removed and made anew by someone else"));
        }
        let absorbed = if is_beside(&self.state, &record.state) { Absorbed::Beside } else { Absorbed::Moved };
        tracing::info!(table = %id, from = self.version, to = replay.version, ?absorbed, "what others committed is taken in");
        self.schema = schema;
        self.version = replay.version;
        self.adopt(replay.files).await?;
        for bucket in self.buckets().owned.clone() {
            let greatest = record.state.greatest_of(bucket);
            if greatest > self.state.greatest_of(bucket) {
                // Deletes of that part of the stream are not remembered.
                self.index.raise_floor(bucket, greatest);
            }
        }
        self.state = record.state;
        Ok(absorbed)
    }

    /// Brings files and index to what the log names as live.
    pub(super) async fn adopt(&mut self, live: BTreeMap<String, Add>) -> Result<(), TableError> {
        let buckets = self.buckets().clone();
        let known: HashMap<String, u32> =
            self.files.iter().map(|(number, file)| (file.add.path.clone(), *number)).collect();
        let gone: Vec<u32> =
            known.iter().filter(|(path, _)| !live.contains_key(*path)).map(|(_, number)| *number).collect();
        gone.into_iter().for_each(|number| self.forget_file(number));
        let mut added = Vec::new();
        let layout = self.schema.layout.clone();
        for (path, add) in live {
            let bucket = bucket_of_entry(&add, buckets.count);
            if bucket.is_some_and(|bucket| !buckets.owns(bucket)) {
                continue;
            }
            // Whoever wrote the entry, and however it says a NULL: ours says it as the protocol does.
            let partition_values = PartitionValues::of_entry(&layout, &add).entry(&layout);
            let add = Add { partition_values, ..add };
            match known.get(&path) {
                Some(number) => {
                    if let Some(revived) = self.update_file(*number, add).await? {
                        self.forget_file(*number);
                        added.push((bucket, revived));
                    }
                }
                None => added.push((bucket, add)),
            }
        }
        self.read_keys(added).await
    }

    fn forget_file(&mut self, number: u32) {
        self.files.remove(&number);
        self.index.remove_file(number);
        self.order_cache.forget(number);
    }

    /// Takes a file's present entry in; gives it back if rows of the file have come back to life, which the index does
    /// not know.
    async fn update_file(&mut self, number: u32, add: Add) -> Result<Option<Add>, TableError> {
        let is_unchanged = self.files[&number].add.deletion_vector == add.deletion_vector;
        let dead = if is_unchanged { None } else { Some(self.folder().dead_rows(&add).await?) };
        let Some(file) = self.files.get_mut(&number) else { return Ok(Some(add)) };
        if let Some(dead) = dead {
            if !file.dead.is_subset(&dead) {
                return Ok(Some(add));
            }
            file.dead = dead;
        }
        file.add = add;
        Ok(None)
    }

    /// Takes files and their live keys into the index.
    async fn read_keys(&mut self, added: Vec<(Option<u32>, Add)>) -> Result<(), TableError> {
        if self.schema.layout.is_append() {
            return self.note_files(added).await;
        }
        let key_names: Arc<[String]> = self.schema.key_names().into_iter().map(str::to_owned).collect();
        let (folder, layout) = (self.folder(), self.schema.layout.clone());
        let told = Arc::new(ToldKeys::of(&self.schema));
        let placed = added.into_iter().map(|(bucket, add)| {
            let partition = PartitionValues::of_entry(&layout, &add);
            (bucket, add, partition)
        });
        let mut reads = futures::stream::iter(placed)
            .map(|(bucket, add, partition)| {
                let (folder, key_names, told) = (folder.clone(), key_names.clone(), told.clone());
                // A task of its own: keys are decoded beside the filling of the index.
                let read = tokio::spawn(async move {
                    let complete = |batch| told.complete(batch, &partition);
                    LiveKeys::read(&folder, add, bucket, &key_names, complete).await
                });
                async move { read.await.map_err(|error| TableError::Disk(error.into()))? }
            })
            .buffered(FILES_READ_TOGETHER);
        while let Some(read) = reads.try_next().await? {
            self.take_in(read)?;
        }
        Ok(self.index.health()?)
    }

    /// Notes what files there are, where no row need be found by its key.
    async fn note_files(&mut self, added: Vec<(Option<u32>, Add)>) -> Result<(), TableError> {
        for (bucket, add) in added {
            let dead = self.folder().dead_rows(&add).await?;
            let rows = match rows_of(add.stats.as_deref()) {
                Some(rows) => rows as u32,
                None => self.folder().orders(&add).await?.len() as u32,
            };
            let orders = orders_of_entry(&add);
            self.files.insert(self.next_file, DataFile { add, bucket, rows, dead, orders });
            self.next_file += 1;
        }
        Ok(())
    }

    /// Takes a file and its live keys into the index.
    fn take_in(&mut self, read: LiveKeys) -> Result<(), TableError> {
        let LiveKeys { add, bucket, dead, keys } = read;
        let number = self.next_file;
        self.next_file += 1;
        let rows: usize = keys.iter().map(weir_model::RecordKeys::len).sum();
        let entry = rows_of(add.stats.as_deref()).is_none_or(|entry| entry == rows as u64);
        if !entry || dead.max().is_some_and(|dead| dead as usize >= rows) {
            return Err(TableError::Damaged(format!("{} does not hold the rows its entry says", add.path)));
        }
        let orders = orders_of_entry(&add);
        let path = add.path.clone();
        self.index.add_file(number, rows as u32)?;
        self.unkept_rows += rows as u64;
        self.files.insert(number, DataFile { add, bucket, rows: rows as u32, dead, orders });
        let mut row = 0_u32;
        for batch in &keys {
            for i in 0..batch.len() {
                let address = RowAddress { file: number, row };
                if self.is_live(address) {
                    self.take_in_row(batch.get(i), address, bucket, &path)?;
                }
                row += 1;
            }
        }
        Ok(())
    }

    /// Takes a live row of a file of `bucket`, or of several, into the index, if it is of the writer's buckets.
    fn take_in_row(
        &mut self,
        key: KeyRef<'_>,
        address: RowAddress,
        bucket: Option<u32>,
        path: &str,
    ) -> Result<(), TableError> {
        if self.buckets().count > 1 {
            let of_key = self.buckets().of(key);
            if bucket.is_some_and(|bucket| bucket != of_key) {
                return Err(TableError::Damaged(format!(
                    "{} has a row of bucket {of_key} among those of another: row {} of {path}",
                    self.schema.table, address.row
                )));
            }
            if !self.buckets().owns(of_key) {
                return Ok(());
            }
        }
        let Some(other) = self.index.put(key, address).filter(|other| self.is_live(*other)) else { return Ok(()) };
        Err(TableError::Damaged(format!(
            "{} has two live rows of one key: row {} of {path} and row {} of {}",
            self.schema.table, address.row, other.row, self.files[&other.file].add.path
        )))
    }
}
