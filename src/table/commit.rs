//! The commit protocol: everything durable before it is visible, version N+1 put if absent, the index only then.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use roaring::RoaringBitmap;
use uuid::Uuid;
use weir_model::{Order, RecordKey, RecordKeys, TableSchema, Window, clock};

use super::change::{CommitOutcome, TableChange};
use super::checkpoint;
use super::delta::{Action, Add, CommitInfo, Txn, vector_file_name};
use super::deletes::VectorFile;
use super::files::DataFile;
use super::index::RowAddress;
use super::location::Put;
use super::log::serialise;
use super::record::{CommitRecord, TableState, may_follow};
use super::scan::orders_of_batch;
use super::stage::Deaths;
use super::writer::{FileOrders, FileWriter, add_action, data_file_name, statistics};
use super::{Table, TableError};
use crate::limits::{AMBIGUOUS_COMMIT_TRIES, DELTA_CHECKPOINT_EVERY};
use crate::trace::Hop;

/// A new data file and the keys of its rows.
struct NewFile {
    file: DataFile,
    keys: RecordKeys,
}

/// What the index does once the commit is in.
struct Staged {
    deaths: Deaths,
    new_files: Vec<NewFile>,
    deletes: Vec<(RecordKey, Order)>,
    schema: Arc<TableSchema>,
    state: TableState,
    clear: Option<Order>,
    remove_below: bool,
    /// Vectors of files that stay, by number.
    vectors: Vec<(u32, Add, RoaringBitmap)>,
}

impl Table {
    /// Makes `change` the table's next version.
    ///
    /// # Errors
    /// When something could not be written, or a rule would be broken; the table is then as it was and must be opened
    /// anew.
    pub async fn commit(&mut self, change: TableChange) -> Result<CommitOutcome, TableError> {
        if self.state.epoch > self.writer.epoch {
            return Ok(CommitOutcome::Fenced { epoch: self.state.epoch });
        }
        self.may_change(&change).map_err(|rule| self.rule(rule))?;
        let at_ms = clock::now_ms();
        let TableChange { clear, evolve, rows, deletes, staged, remove_below, state, mut accounts } = change;
        let schema = evolve.clone().map_or_else(|| self.schema.clone(), Arc::new);
        let state = TableState {
            epoch: self.writer.epoch,
            commits: self.state.commits + 1,
            schema: Some(schema.as_ref().clone()),
            ..state
        };
        may_follow(&self.state, &state).map_err(|rule| self.rule(rule))?;

        let mut deaths = Deaths::default();
        let mut new_files = Vec::new();
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
            new_files.push(self.write_rows(&schema, &batch, keys, at_ms).await?);
        }
        for (key, _) in &deletes {
            self.stage_death_of(key.as_ref(), &mut deaths);
        }
        if let Some(chunk) = staged {
            let chunk = chunk.conform(&schema).await?;
            let fate = self.stage_chunk(&chunk, &mut deaths, &mut accounts).await?;
            if (fate.dead.len() as usize) < chunk.keys.len() {
                let orders = FileOrders { least: chunk.order0, greatest: chunk.order0 };
                let rows = chunk.keys.len() as u32;
                let add = add_action(chunk.name, chunk.size, u64::from(rows), orders, at_ms);
                let file = DataFile { add, rows, dead: fate.dead, orders };
                new_files.push(NewFile { file, keys: chunk.keys });
            } else {
                self.files().discard(&chunk.name).await;
            }
        }
        let vectors = self.write_vectors(&mut deaths, &mut new_files).await?;
        let staged = Staged {
            deaths,
            new_files,
            deletes,
            schema,
            state,
            clear,
            remove_below: remove_below.is_some(),
            vectors,
        };
        self.put_version(staged, evolve.is_some(), accounts.counts(), at_ms).await
    }

    fn rule(&self, rule: &str) -> TableError {
        TableError::Rule { table: self.schema.table.clone(), version: self.version, rule: rule.to_owned() }
    }

    async fn write_rows(
        &self,
        schema: &TableSchema,
        batch: &arrow_array::RecordBatch,
        keys: RecordKeys,
        at_ms: i64,
    ) -> Result<NewFile, TableError> {
        let orders = FileOrders::of(&orders_of_batch(batch));
        let mut writer = FileWriter::new(schema, batch.schema())?;
        writer.write(batch)?;
        let bytes = writer.finish()?;
        let name = data_file_name();
        let rows = batch.num_rows() as u32;
        let add = add_action(name.clone(), bytes.len(), u64::from(rows), orders, at_ms);
        self.files().put(&name, bytes).await?;
        Ok(NewFile { file: DataFile { add, rows, dead: RoaringBitmap::new(), orders }, keys })
    }

    /// Writes every vector that changes into one file. A file without a live row goes instead of getting a vector.
    async fn write_vectors(
        &self,
        deaths: &mut Deaths,
        new_files: &mut [NewFile],
    ) -> Result<Vec<(u32, Add, RoaringBitmap)>, TableError> {
        let uuid = Uuid::new_v4();
        let mut vector_file = VectorFile::new(uuid);
        let mut vectors = Vec::new();
        for (number, rows) in std::mem::take(&mut deaths.rows) {
            if deaths.files.contains(&number) {
                continue;
            }
            let file = &self.files[&number];
            let dead = &file.dead | &rows;
            if dead.len() == u64::from(file.rows) {
                deaths.files.insert(number);
            } else {
                vectors.push((number, file.with_vector(vector_file.push(&dead)), dead));
            }
            deaths.rows.insert(number, rows);
        }
        let mut any = !vectors.is_empty();
        for new in new_files.iter_mut().filter(|new| !new.file.dead.is_empty()) {
            new.file.add.deletion_vector = Some(vector_file.push(&new.file.dead));
            new.file.add.stats = Some(statistics(u64::from(new.file.rows), false));
            any = true;
        }
        if any {
            self.files().put(&vector_file_name(uuid), vector_file.finish()).await?;
        }
        Ok(vectors)
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
            engine_info: Some(format!("weir/{}", env!("CARGO_PKG_VERSION"))),
            weir: Some(record),
        };
        vec![
            Action { commit_info: Some(commit_info), ..Action::default() },
            Action { txn: Some(txn), ..Action::default() },
        ]
    }

    async fn put_version(
        &mut self,
        staged: Staged,
        with_meta_data: bool,
        accounts: Vec<crate::trace::StageCount>,
        at_ms: i64,
    ) -> Result<CommitOutcome, TableError> {
        let record = CommitRecord {
            source: self.writer.source.clone(),
            commit_id: Uuid::new_v4().to_string(),
            state: staged.state.clone(),
            accounts: accounts.clone(),
        };
        let commit_id = record.commit_id.clone();
        let mut actions = self.frame("MERGE", record, at_ms);
        if with_meta_data {
            actions.push(Action { meta_data: Some(self.meta_data(&staged.schema)), ..Action::default() });
        }
        for number in &staged.deaths.files {
            actions.push(Action { remove: Some(self.files[number].remove(at_ms)), ..Action::default() });
        }
        for (number, add, _) in &staged.vectors {
            actions.push(Action { remove: Some(self.files[number].remove(at_ms)), ..Action::default() });
            actions.push(Action { add: Some(add.clone()), ..Action::default() });
        }
        for new in &staged.new_files {
            actions.push(Action { add: Some(new.file.add.clone()), ..Action::default() });
        }
        let version = self.version + 1;
        match self.settle(version, serialise(&actions), &commit_id).await? {
            None => {
                self.publish(staged, version);
                self.checkpoint_if_due();
                Ok(CommitOutcome::Committed { version, accounts })
            }
            Some(outcome) => Ok(outcome),
        }
    }

    /// Puts the same bytes until it is certain whose version it is; `None` if ours.
    pub(super) async fn settle(
        &self,
        version: i64,
        bytes: Bytes,
        commit_id: &str,
    ) -> Result<Option<CommitOutcome>, TableError> {
        let mut tries = 0;
        loop {
            match self.put_once(version, bytes.clone(), commit_id).await {
                Err(error) if tries < AMBIGUOUS_COMMIT_TRIES => {
                    tries += 1;
                    tracing::warn!(table = %self.schema.table, version, %error, "a commit whose outcome is not known is put again");
                    tokio::time::sleep(Duration::from_millis(50 << tries)).await;
                }
                settled => return settled,
            }
        }
    }

    async fn put_once(
        &self,
        version: i64,
        bytes: Bytes,
        commit_id: &str,
    ) -> Result<Option<CommitOutcome>, TableError> {
        let outcome = match self.log.put(version, bytes).await? {
            Put::Done => None,
            Put::Taken => self.whose(version, commit_id).await?,
        };
        // Logs are cleaned upwards: a process that was paused long enough finds its version free because it was
        // there and has gone. Nobody reads what is put there.
        if outcome.is_none() && version > 0 && !self.log.has(version - 1).await? {
            return Ok(Some(CommitOutcome::Moved));
        }
        Ok(outcome)
    }

    /// Who has written `version`.
    async fn whose(&self, version: i64, commit_id: &str) -> Result<Option<CommitOutcome>, TableError> {
        let theirs = self.log.commit_info(version).await?.and_then(|info| info.weir);
        Ok(match theirs {
            Some(record) if record.commit_id == commit_id => None,
            Some(record) if record.source == self.writer.source && record.state.epoch > self.writer.epoch => {
                Some(CommitOutcome::Fenced { epoch: record.state.epoch })
            }
            _ => Some(CommitOutcome::Moved),
        })
    }

    /// The commit is in: files and index follow.
    fn publish(&mut self, staged: Staged, version: i64) {
        let Staged { deaths, new_files, deletes, schema, state, clear, remove_below, vectors } = staged;
        if clear.is_some() || remove_below {
            self.index.drop_rows(|address| deaths.covers(address));
        }
        for number in &deaths.files {
            self.files.remove(number);
            self.order_cache.forget(*number);
        }
        for (number, add, dead) in vectors {
            if let Some(file) = self.files.get_mut(&number) {
                file.add = add;
                file.dead = dead;
            }
        }
        for new in new_files {
            let number = self.next_file;
            self.next_file += 1;
            for row in (0..new.file.rows).filter(|row| !new.file.dead.contains(*row)) {
                self.index.put(new.keys.get(row as usize), RowAddress { file: number, row });
            }
            self.files.insert(number, new.file);
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
        if self.version % DELTA_CHECKPOINT_EVERY as i64 != 0 {
            return;
        }
        let Ok(url) = self.warehouse.url().join(&format!("{}/", url_path(self.warehouse.url().path(), &self.folder)))
        else {
            return;
        };
        let table = self.schema.table.clone();
        tokio::spawn(async move {
            if let Err(error) = checkpoint::write(url).await {
                tracing::warn!(%table, %error, "the log's checkpoint could not be written; reading takes longer until the next");
            }
        });
    }
}

fn url_path(root: &str, folder: &object_store::path::Path) -> String {
    format!("{}/{folder}", root.trim_end_matches('/'))
}
