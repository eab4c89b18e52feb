//! The commit protocol: everything durable before it is visible, version N+1 put if absent, the index only then.
//! Behind a version of a writer of other buckets it is put again, as it was worked out; `family` says when.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use uuid::Uuid;
use weir_model::{Absences, TableSchema};

use super::change::{Clear, CommitOutcome, TableChange, extends, may_be_committed};
use super::checkpoint;
use super::delta::{Action, Add, CommitInfo, Protocol, Remove, Txn};
use super::family::Theirs;
use super::index::{RowAddress, lookahead};
use super::location::Put;
use super::log::serialise;
use super::record::{BucketShare, CommitRecord, TableState, may_follow};
use super::sound::tells_removals;
use super::stage::{NewFile, NewVector, Staged};
use super::{Table, TableError};
use crate::failpoint;
use crate::figures::counters;
use crate::limits::{AMBIGUOUS_PUT_DELAY, AMBIGUOUS_PUT_TRIES, DELTA_CHECKPOINT_EVERY, FILES_WRITTEN_TOGETHER};

/// What became of a version that was put.
pub(super) enum Settled {
    Ours,
    /// Someone else's, of these actions; none has our bytes.
    Theirs(Vec<Action>),
    /// At a place in the log that has been cleaned away: readers begin above it. It may be ours.
    Unread,
}

/// How a commit ended.
pub(super) enum Ended {
    In(CommitOutcome),
    /// No version has it.
    Lost(CommitOutcome),
    /// A version may have it, where nobody can look any more.
    Unread,
}

impl Table {
    /// Makes `change` the table's next version, behind those of other writers beside this one.
    ///
    /// # Errors
    /// When something could not be written, or a rule would be broken. The table must then be opened anew: the commit
    /// may have become visible all the same, and its record says so.
    pub async fn commit(&mut self, change: TableChange) -> Result<CommitOutcome, TableError> {
        may_be_committed(&change, &self.schema, self.buckets()).map_err(|rule| self.rule(rule))?;
        let staged = self.stage(change).await?;
        self.put_staged(staged).await
    }

    /// Makes what is staged durable, and then visible.
    pub(super) async fn put_staged(&mut self, staged: Staged) -> Result<CommitOutcome, TableError> {
        Ok(match self.end_staged(staged).await? {
            Ended::In(outcome) | Ended::Lost(outcome) => outcome,
            Ended::Unread => CommitOutcome::Moved,
        })
    }

    /// Makes what is staged durable, and then visible; of what no version has, nothing that was written for it stays.
    pub(super) async fn end_staged(&mut self, mut staged: Staged) -> Result<Ended, TableError> {
        let files = self.files();
        let puts: Vec<_> = staged.objects.iter().map(|(name, bytes)| files.put(name, bytes.clone())).collect();
        futures::stream::iter(puts).buffer_unordered(FILES_WRITTEN_TOGETHER).try_collect::<()>().await?;

        let ended = self.put_behind_others(&mut staged).await?;
        match &ended {
            Ended::In(_) => {
                let leftover = std::mem::take(&mut staged.leftover);
                failpoint::reach(failpoint::INDEX_PUBLISH_BEFORE);
                let published = self.publish(staged);
                failpoint::reach(failpoint::INDEX_PUBLISH_AFTER);
                self.checkpoint_if_due();
                self.discard_drafts().await;
                for name in &leftover {
                    files.discard(name).await;
                }
                published?;
            }
            Ended::Unread => {}
            Ended::Lost(_) => {
                // It is certain that no version names them.
                for name in staged.objects.iter().map(|(name, _)| name).chain(&staged.rewritten) {
                    files.discard(name).await;
                }
            }
        }
        Ok(ended)
    }

    /// Puts what is staged as the first version that is free. Each turn but the last is a commit of another writer, so
    /// that of all of them somebody always gets on.
    async fn put_behind_others(&mut self, staged: &mut Staged) -> Result<Ended, TableError> {
        let commit_id = Uuid::new_v4().to_string();
        let named = staged.names();
        loop {
            if let Some(outcome) = self.catch_up(&named).await? {
                return Ok(Ended::Lost(outcome));
            }
            if staged.version != self.version + 1 && !self.move_behind(staged)? {
                return Ok(Ended::Lost(CommitOutcome::Moved));
            }
            let actions = self.actions(staged, commit_id.clone());
            match self.settle(staged.version, actions, &commit_id).await? {
                Settled::Ours => {
                    let (version, accounts) = (staged.version, staged.accounts.clone());
                    return Ok(Ended::In(CommitOutcome::Committed { version, accounts }));
                }
                Settled::Unread => return Ok(Ended::Unread),
                Settled::Theirs(actions) => match self.judge(&actions, &named) {
                    Theirs::Beside(state) => self.stand_behind(staged.version, *state),
                    Theirs::Lost(outcome) => return Ok(Ended::Lost(outcome)),
                },
            }
        }
    }

    /// Lets what is staged go behind the version at which the table stands by now; false if it cannot, for its columns.
    fn move_behind(&self, staged: &mut Staged) -> Result<bool, TableError> {
        if !staged.evolves || extends(&staged.schema, &self.schema) {
            // What we were to add has been added.
            (staged.schema, staged.evolves) = (self.schema.clone(), false);
        } else if !extends(&self.schema, &staged.schema) {
            return Ok(false);
        }
        staged.state = self.next_state(staged.state.clone(), &staged.schema)?;
        staged.version = self.version + 1;
        Ok(true)
    }

    /// `state` as that of the next version.
    pub(super) fn next_state(&self, state: TableState, schema: &TableSchema) -> Result<TableState, TableError> {
        let state = TableState { epoch: self.writer.epoch, schema: Some(schema.clone()), ..state };
        let mut state = state.behind(&self.state, self.buckets());
        may_follow(&self.state, &state).map_err(|rule| self.rule(rule))?;
        if !extends(&self.schema, schema) {
            // The table begins anew: none of its columns has ever been absent.
            state.absences = Absences::default();
        }
        Ok(state)
    }

    /// The actions every commit begins with.
    pub(super) fn frame(&self, operation: &str, record: CommitRecord, at_ms: i64) -> Vec<Action> {
        let txns = self.txns(&record.state, at_ms);
        let commit_info = CommitInfo {
            timestamp: at_ms,
            operation: operation.to_owned(),
            operation_parameters: Some(serde_json::json!({})),
            engine_info: Some(format!("weir/{}", env!("CARGO_PKG_VERSION"))),
            weir: Some(record),
        };
        let mut actions = vec![Action { commit_info: Some(commit_info), ..Action::default() }];
        actions.extend(txns.into_iter().map(|txn| Action { txn: Some(txn), ..Action::default() }));
        actions
    }

    /// The actions that give the table the columns of `schema`.
    pub(super) fn column_actions(&self, schema: &TableSchema) -> Vec<Action> {
        let protocol = Some(Protocol::of(schema)).filter(|protocol| !protocol.is_of(&self.schema));
        let protocol = protocol.map(|protocol| Action { protocol: Some(protocol), ..Action::default() });
        let meta_data = Action { meta_data: Some(self.meta_data(schema)), ..Action::default() };
        protocol.into_iter().chain([meta_data]).collect()
    }

    /// What the table has taken in with a commit to `state`: of a shared one, each bucket up to an offset of its topic.
    fn txns(&self, state: &TableState, at_ms: i64) -> Vec<Txn> {
        let table = format!("weir:{}:{}", self.writer.source, self.schema.table);
        if !state.is_shared() {
            return vec![Txn { app_id: table, version: state.commits as i64, last_updated: Some(at_ms) }];
        }
        let shares = state.shares.iter().zip(&self.state.shares).enumerate();
        let moved = shares.filter(|(bucket, (share, before))| self.buckets().owns(*bucket as u32) && share != before);
        let txn = |(bucket, (share, _)): (usize, (&BucketShare, _))| Txn {
            app_id: format!("{table}:{}:{bucket}", share.topic),
            version: share.offset,
            last_updated: Some(at_ms),
        };
        moved.map(txn).collect()
    }

    fn actions(&self, staged: &Staged, commit_id: String) -> Bytes {
        let record = CommitRecord {
            format: CommitRecord::FORMAT,
            source: self.writer.source.clone(),
            commit_id,
            state: staged.state.clone(),
            accounts: staged.accounts.clone(),
            cleans: staged.cleans.clone(),
        };
        let data_change = staged.data_change;
        let tells = data_change || tells_removals(&self.schema.layout);
        let remove = |number| {
            let remove = Remove { data_change: tells, ..self.files[number].remove(staged.at_ms) };
            Action { remove: Some(remove), ..Action::default() }
        };
        let add = |add: &Add| Action { add: Some(Add { data_change, ..add.clone() }), ..Action::default() };
        let mut actions = self.frame(staged.operation, record, staged.at_ms);
        if staged.evolves {
            actions.extend(self.column_actions(&staged.schema));
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
        let begun = std::time::Instant::now();
        let settled = self.settle_at(version, bytes, commit_id).await;
        counters().put(begun.elapsed());
        settled
    }

    async fn settle_at(&self, version: i64, bytes: Bytes, commit_id: &str) -> Result<Settled, TableError> {
        let mut tries = 0;
        loop {
            match self.put_once(version, bytes.clone(), commit_id).await {
                Err(error @ TableError::Store(_)) if tries < AMBIGUOUS_PUT_TRIES => {
                    tries += 1;
                    tracing::warn!(table = %self.schema.table, version, %error, "a commit whose outcome is not known is put again");
                    tokio::time::sleep(AMBIGUOUS_PUT_DELAY * (1 << tries)).await;
                }
                settled => return settled,
            }
        }
    }

    async fn put_once(&self, version: i64, bytes: Bytes, commit_id: &str) -> Result<Settled, TableError> {
        if let Put::Taken = self.log.put(version, bytes).await? {
            let Some(actions) = self.log.read_if_there(version).await? else { return Ok(Settled::Unread) };
            if !is_of(&actions, commit_id) {
                return Ok(Settled::Theirs(actions));
            }
        }
        // Logs are cleaned upwards: a process that was paused for long may find its version free because others have
        // been there and it is gone again.
        let unread = version > 0 && !self.log.has(version - 1).await?;
        Ok(if unread { Settled::Unread } else { Settled::Ours })
    }

    /// The commit is in: files and index follow. If the index cannot, the table cannot be gone on with.
    fn publish(&mut self, staged: Staged) -> Result<(), TableError> {
        let Staged { version, deaths, new_files, deletes, schema, state, clear, ends_load, vectors, .. } = staged;
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
        let owned = self.buckets().owned.clone();
        let ours = |new: &NewFile| new.file.bucket.is_none_or(|bucket| owned.contains(&bucket));
        // A file of several buckets that is split leaves others' rows in files of others.
        for NewFile { file, keys } in new_files.into_iter().filter(ours) {
            let number = self.next_file;
            self.next_file += 1;
            self.index.add_file(number, file.rows)?;
            self.unkept_rows += u64::from(file.rows);
            let rows = self.index.in_place(keys.len(), |row| keys.get(row));
            for block in lookahead(keys.len()) {
                let rows = &rows[block];
                self.index.fetch(rows.iter().map(|&row| keys.get(row as usize)));
                for &row in rows.iter().filter(|row| !file.dead.contains(**row)) {
                    self.index.put(keys.get(row as usize), RowAddress { file: number, row });
                }
            }
            self.files.insert(number, file);
        }
        // Only a chunk under way can be older than a delete, and it can be only while its bucket is loaded.
        self.unkept_rows += deletes.len() as u64;
        for block in lookahead(deletes.len()) {
            let deleted = &deletes[block];
            self.index.fetch(deleted.iter().map(|(key, _)| key.as_ref()));
            for (key, order) in deleted {
                self.index.delete(key, *order, |bucket| state.is_loading(bucket));
            }
        }
        // Only here has no key a row in them any more.
        deaths.files.iter().for_each(|number| self.index.remove_file(*number));
        if let Some(Clear { at, buckets }) = clear {
            buckets.into_iter().for_each(|bucket| self.index.raise_floor(bucket, at));
        }
        let (loading, streaming): (Vec<u32>, Vec<u32>) =
            self.buckets().owned.iter().copied().partition(|bucket| state.is_loading(*bucket));
        if loading.is_empty() {
            // Outside a load every change is newer than every row.
            self.order_cache.clear();
        }
        for bucket in streaming {
            self.index.raise_floor(bucket, state.greatest_of(bucket));
        }
        self.schema = schema;
        self.state = state;
        self.version = version;
        Ok(self.index.health()?)
    }

    /// A checkpoint in the background: neither the stream waits for it, nor does its failure matter to the table.
    pub(super) fn checkpoint_if_due(&self) {
        if !(self.version as u64).is_multiple_of(DELTA_CHECKPOINT_EVERY) {
            return;
        }
        let (warehouse, path, table) = (self.warehouse.clone(), self.path.clone(), self.schema.table.clone());
        tokio::spawn(async move {
            failpoint::reach(failpoint::DELTA_CHECKPOINT_BEFORE);
            let written = checkpoint::write(&warehouse, &path).await;
            failpoint::reach(failpoint::DELTA_CHECKPOINT_AFTER);
            if let Err(error) = written {
                tracing::warn!(%table, %error, "the log's checkpoint could not be written; reading takes longer until the next");
            }
        });
    }
}

/// Whether the actions are of the commit that is called `commit_id`.
fn is_of(actions: &[Action], commit_id: &str) -> bool {
    let info = actions.iter().find_map(|action| action.commit_info.as_ref());
    info.and_then(|info| info.weir.as_ref()).is_some_and(|record| record.commit_id == commit_id)
}
