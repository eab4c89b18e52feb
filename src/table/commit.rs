//! The commit protocol: everything durable before it is visible, version N+1 put if absent, the index only then.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use bytes::Bytes;
use futures::future::try_join_all;
use roaring::RoaringBitmap;
use uuid::Uuid;
use weir_model::{Order, RecordKey, RecordKeys, TableSchema, Window, clock};

use super::change::{CommitOutcome, TableChange, may_be_committed};
use super::checkpoint;
use super::chunk::StagedChunk;
use super::deletes::VectorFile;
use super::delta::{Action, Add, CommitInfo, Txn, vector_file_name};
use super::files::DataFile;
use super::index::RowAddress;
use super::location::Put;
use super::log::serialise;
use super::read::orders_of_batch;
use super::record::{CommitRecord, TableState, may_follow};
use super::stage::Deaths;
use super::statistics::with_dead_rows;
use super::writer::{EncodedFile, FileOrders, FileWriter, add_action};
use super::{Table, TableError};
use crate::limits::{AMBIGUOUS_COMMIT_TRIES, DELTA_CHECKPOINT_EVERY};
use crate::trace::{Hop, StageCount, Tally};

/// A new data file and the keys of its rows.
struct NewFile {
    file: DataFile,
    keys: RecordKeys,
}

/// A file that stays, with another vector.
struct NewVector {
    number: u32,
    add: Add,
    dead: RoaringBitmap,
}

/// A commit that has been worked out: what it writes, and what the table is once it is in.
struct Staged {
    /// Data and vectors, to be durable before the version is put.
    objects: Vec<(String, Bytes)>,
    deaths: Deaths,
    vectors: Vec<NewVector>,
    new_files: Vec<NewFile>,
    deletes: Vec<(RecordKey, Order)>,
    schema: Arc<TableSchema>,
    evolves: bool,
    state: TableState,
    clear: Option<Order>,
    ends_load: bool,
    accounts: Vec<StageCount>,
    at_ms: i64,
}

/// What became of a version that was put.
pub(super) enum Settled {
    Ours,
    /// Someone else's; none has our bytes.
    Theirs(CommitOutcome),
    /// At a place in the log that has been cleaned away: readers begin above it. It may be ours.
    Unread,
}

impl Table {
    /// Makes `change` the table's next version.
    ///
    /// # Errors
    /// When something could not be written, or a rule would be broken. The table must then be opened anew: the commit
    /// may have become visible all the same, and its record says so.
    pub async fn commit(&mut self, change: TableChange) -> Result<CommitOutcome, TableError> {
        may_be_committed(&change, &self.schema).map_err(|rule| self.rule(rule))?;
        let staged = self.stage(change).await?;
        let files = self.files();
        try_join_all(staged.objects.iter().map(|(name, bytes)| files.put(name, bytes.clone()))).await?;

        let commit_id = Uuid::new_v4().to_string();
        let version = self.version + 1;
        match self.settle(version, self.actions(&staged, commit_id.clone()), &commit_id).await? {
            Settled::Ours => {
                let accounts = staged.accounts.clone();
                self.publish(staged, version);
                self.checkpoint_if_due();
                Ok(CommitOutcome::Committed { version, accounts })
            }
            Settled::Unread => Ok(CommitOutcome::Moved),
            Settled::Theirs(outcome) => {
                // It is certain that no version names them.
                for (name, _) in &staged.objects {
                    files.discard(name).await;
                }
                Ok(outcome)
            }
        }
    }

    /// Works the commit out. Nothing is written; orders are read where a chunk or the end of a load needs them.
    async fn stage(&mut self, change: TableChange) -> Result<Staged, TableError> {
        let at_ms = clock::now_ms();
        let TableChange { clear, evolve, rows, deletes, staged, remove_below, state, mut accounts } = change;
        let evolves = evolve.is_some();
        let schema = evolve.map_or_else(|| self.schema.clone(), Arc::new);
        let state = TableState {
            epoch: self.writer.epoch,
            commits: self.state.commits + 1,
            schema: Some(schema.as_ref().clone()),
            ..state
        };
        may_follow(&self.state, &state).map_err(|rule| self.rule(rule))?;

        let mut deaths = Deaths::default();
        let mut new_files = Vec::new();
        let mut objects = Vec::new();
        if clear.is_some() {
            deaths.files.extend(self.files.keys());
        }
        if let Some(order) = remove_below {
            let removed = self.stage_remove_below(order, &mut deaths).await?;
            accounts.chunk_rows(Hop::ChunkRemoved, Window::of(order.ts_ms), removed);
        }
        if let Some((batch, keys)) = rows.filter(|(batch, _)| batch.num_rows() > 0) {
            for row in 0..keys.len() {
                self.stage_death_of(keys.get(row), &mut deaths);
            }
            let (file, encoded) = encode_rows(&schema, &batch, at_ms)?;
            objects.push((encoded.name, encoded.bytes));
            new_files.push(NewFile { file, keys });
        }
        for (key, _) in &deletes {
            self.stage_death_of(key.as_ref(), &mut deaths);
        }
        if let Some(chunk) = staged {
            new_files.extend(self.stage_chunk_file(chunk, &schema, &mut deaths, &mut accounts, at_ms).await?);
        }
        let (vectors, vector_file) = self.stage_vectors(&mut deaths, &mut new_files);
        objects.extend(vector_file);
        let (ends_load, accounts) = (remove_below.is_some(), accounts.counts());
        Ok(Staged {
            objects,
            deaths,
            vectors,
            new_files,
            deletes,
            schema,
            evolves,
            state,
            clear,
            ends_load,
            accounts,
            at_ms,
        })
    }

    /// The chunk's file with a vector over the rows that lose; none if all do.
    async fn stage_chunk_file(
        &mut self,
        chunk: StagedChunk,
        schema: &TableSchema,
        deaths: &mut Deaths,
        accounts: &mut Tally,
        at_ms: i64,
    ) -> Result<Option<NewFile>, TableError> {
        let chunk = chunk.conform(schema).await?;
        let dead = self.stage_chunk(&chunk, deaths, accounts).await?;
        if dead.len() == chunk.rows() {
            self.files().discard(&chunk.name).await;
            return Ok(None);
        }
        let rows = chunk.keys.len() as u32;
        let orders = FileOrders { least: chunk.order0, greatest: chunk.order0 };
        let add = add_action(chunk.name, chunk.size, chunk.stats, orders, at_ms);
        let file = DataFile { add, rows, dead, orders };
        Ok(Some(NewFile { file, keys: chunk.keys }))
    }

    /// Every vector that changes, and the file that holds them all. A file without a live row goes instead of getting
    /// a vector.
    fn stage_vectors(
        &self,
        deaths: &mut Deaths,
        new_files: &mut [NewFile],
    ) -> (Vec<NewVector>, Option<(String, Bytes)>) {
        let uuid = Uuid::new_v4();
        let mut vector_file = VectorFile::new(uuid);
        let mut vectors = Vec::new();
        for (&number, rows) in &deaths.rows {
            if deaths.files.contains(&number) {
                continue;
            }
            let file = &self.files[&number];
            let dead = &file.dead | rows;
            if dead.len() == u64::from(file.rows) {
                deaths.files.insert(number);
            } else {
                let add = file.with_vector(vector_file.push(&dead));
                vectors.push(NewVector { number, add, dead });
            }
        }
        let mut any = !vectors.is_empty();
        for NewFile { file, .. } in new_files.iter_mut().filter(|new| !new.file.dead.is_empty()) {
            file.add.deletion_vector = Some(vector_file.push(&file.dead));
            file.add.stats = Some(with_dead_rows(file.add.stats.as_deref(), u64::from(file.rows)));
            any = true;
        }
        (vectors, any.then(|| (vector_file_name(uuid), vector_file.finish())))
    }

    /// The actions every commit begins with.
    pub(super) fn frame(&self, operation: &str, record: CommitRecord, at_ms: i64) -> Vec<Action> {
        let txn = Txn {
            app_id: format!("weir:{}:{}", self.writer.source, self.schema.table),
            version: record.state.commits as i64,
            last_updated: Some(at_ms),
        };
        let commit_info = CommitInfo {
            timestamp: at_ms,
            operation: operation.to_owned(),
            operation_parameters: Some(serde_json::json!({})),
            engine_info: Some(format!("weir/{}", env!("CARGO_PKG_VERSION"))),
            weir: Some(record),
        };
        vec![
            Action { commit_info: Some(commit_info), ..Action::default() },
            Action { txn: Some(txn), ..Action::default() },
        ]
    }

    fn actions(&self, staged: &Staged, commit_id: String) -> Bytes {
        let record = CommitRecord {
            source: self.writer.source.clone(),
            commit_id,
            state: staged.state.clone(),
            accounts: staged.accounts.clone(),
        };
        let remove = |number| Action { remove: Some(self.files[number].remove(staged.at_ms)), ..Action::default() };
        let add = |add: &Add| Action { add: Some(add.clone()), ..Action::default() };
        let mut actions = self.frame("MERGE", record, staged.at_ms);
        if staged.evolves {
            actions.push(Action { meta_data: Some(self.meta_data(&staged.schema)), ..Action::default() });
        }
        actions.extend(staged.deaths.files.iter().map(remove));
        for vector in &staged.vectors {
            actions.push(remove(&vector.number));
            actions.push(add(&vector.add));
        }
        actions.extend(staged.new_files.iter().map(|new| add(&new.file.add)));
        serialise(&actions)
    }

    /// Puts the same bytes until it is certain whose version it is.
    pub(super) async fn settle(&self, version: i64, bytes: Bytes, commit_id: &str) -> Result<Settled, TableError> {
        let mut tries = 0;
        loop {
            match self.put_once(version, bytes.clone(), commit_id).await {
                Err(error @ TableError::Store(_)) if tries < AMBIGUOUS_COMMIT_TRIES => {
                    tries += 1;
                    tracing::warn!(table = %self.schema.table, version, %error, "a commit whose outcome is not known is put again");
                    tokio::time::sleep(Duration::from_millis(50 << tries)).await;
                }
                settled => return settled,
            }
        }
    }

    async fn put_once(&self, version: i64, bytes: Bytes, commit_id: &str) -> Result<Settled, TableError> {
        if let Put::Taken = self.log.put(version, bytes).await? {
            let Some(actions) = self.log.read_if_there(version).await? else { return Ok(Settled::Unread) };
            if let Some(outcome) = self.whose(actions, commit_id) {
                return Ok(Settled::Theirs(outcome));
            }
        }
        // Logs are cleaned upwards: a process that was paused for long may find its version free because others have
        // been there and it is gone again.
        let unread = version > 0 && !self.log.has(version - 1).await?;
        Ok(if unread { Settled::Unread } else { Settled::Ours })
    }

    /// What a version of these actions makes of ours; `None` if it is ours.
    fn whose(&self, actions: Vec<Action>, commit_id: &str) -> Option<CommitOutcome> {
        let theirs = actions.into_iter().find_map(|action| action.commit_info).and_then(|info| info.weir);
        match theirs {
            Some(record) if record.commit_id == commit_id => None,
            Some(record) if record.source == self.writer.source && record.state.epoch > self.writer.epoch => {
                Some(CommitOutcome::Fenced { epoch: record.state.epoch })
            }
            _ => Some(CommitOutcome::Moved),
        }
    }

    /// The commit is in: files and index follow.
    fn publish(&mut self, staged: Staged, version: i64) {
        let Staged { deaths, new_files, deletes, schema, state, clear, ends_load, vectors, .. } = staged;
        let any = !deaths.files.is_empty() || !deaths.rows.is_empty();
        if any && (clear.is_some() || ends_load) {
            self.index.drop_rows(|address| deaths.covers(address));
        }
        for number in &deaths.files {
            self.files.remove(number);
            self.order_cache.forget(*number);
        }
        for NewVector { number, add, dead } in vectors {
            let file = self.files.get_mut(&number).expect("a file that gets a vector stays");
            file.add = add;
            file.dead = dead;
        }
        for NewFile { file, keys } in new_files {
            let number = self.next_file;
            self.next_file += 1;
            for row in (0..file.rows).filter(|row| !file.dead.contains(*row)) {
                self.index.put(keys.get(row as usize), RowAddress { file: number, row });
            }
            self.files.insert(number, file);
        }
        // Only a chunk under way can be older than a delete, and it can be only while the table is loaded.
        let remember = state.seed.is_some();
        for (key, order) in deletes {
            self.index.delete(&key, order, remember);
        }
        if let Some(order) = clear {
            self.index.raise_floor(order);
        }
        if !remember {
            // Outside a load every change is newer than every row.
            self.order_cache.clear();
        }
        if !remember && let Some(greatest) = state.greatest.iter().copied().max() {
            self.index.raise_floor(greatest);
        }
        self.schema = schema;
        self.state = state;
        self.version = version;
    }

    /// A checkpoint in the background: neither the stream waits for it, nor does its failure matter to the table.
    fn checkpoint_if_due(&self) {
        if !(self.version as u64).is_multiple_of(DELTA_CHECKPOINT_EVERY) {
            return;
        }
        let (warehouse, path, table) = (self.warehouse.clone(), self.path.clone(), self.schema.table.clone());
        tokio::spawn(async move {
            if let Err(error) = checkpoint::write(&warehouse, &path).await {
                tracing::warn!(%table, %error, "the log's checkpoint could not be written; reading takes longer until the next");
            }
        });
    }
}

/// A data file of rows in the lake table's columns.
fn encode_rows(schema: &TableSchema, batch: &RecordBatch, at_ms: i64) -> Result<(DataFile, EncodedFile), TableError> {
    let orders = FileOrders::of(&orders_of_batch(batch));
    let mut writer = FileWriter::new(schema)?;
    writer.write(batch)?;
    let encoded = writer.finish()?;
    let add = add_action(encoded.name.clone(), encoded.bytes.len(), encoded.stats.clone(), orders, at_ms);
    let rows = batch.num_rows() as u32;
    Ok((DataFile { add, rows, dead: RoaringBitmap::new(), orders }, encoded))
}
