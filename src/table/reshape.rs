//! Data files written again with other columns: of wider types, or without what a column held before its name was used
//! again. No reader agrees with another on files of several types, so all of them change in one commit.
//!
//! A file that is written again keeps its rows in their places, the dead ones too, and with them its number, its deletion
//! vector and its tags: the index and what is known of dead rows stay as they are. Files of other writers' buckets are
//! written again as well; those writers take that in as a foreign commit. One file is in memory at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{ArrowError, DataType, Schema};
use arrow_select::nullif::nullif;
use bytes::Bytes;
use futures::TryStreamExt;
use uuid::Uuid;
use weir_model::key::keeps_form;
use weir_model::{Absences, ColumnType, Order, TableSchema, clock};

use super::change::CommitOutcome;
use super::commit::Settled;
use super::delta::{Action, Add};
use super::family::Theirs;
use super::files::removal;
use super::log::{Replay, serialise};
use super::partition::PartitionValues;
use super::read::orders_of_batch;
use super::record::{CommitRecord, TableState};
use super::scan::conform;
use super::sound::tells_removals;
use super::statistics::{rows_of, with_dead_rows};
use super::writer::{EncodedFile, FileOrders, FileWriter, orders_of_entry};
use super::{Table, TableError};

/// `values` of a column of type `from` as one of type `to` has them; NULL if it cannot hold them.
///
/// # Errors
/// When a value is not what its type says.
pub fn widened(values: &ArrayRef, from: &ColumnType, to: &ColumnType) -> Result<ArrayRef, ArrowError> {
    let wanted = to.arrow();
    if *values.data_type() == wanted {
        return Ok(values.clone());
    }
    if !from.widens_to(to) {
        return Ok(new_null_array(&wanted, values.len()));
    }
    cast_with_options(values, &wanted, &CastOptions { safe: false, ..CastOptions::default() })
}

/// Rows without the values of `columns` in those of an order up to each one's.
pub(super) fn without_former<'a>(
    rows: RecordBatch,
    columns: impl Iterator<Item = (&'a str, Order)>,
) -> Result<RecordBatch, ArrowError> {
    let mut orders: Option<Vec<Order>> = None;
    let schema = rows.schema();
    let (mut fields, mut values) = (schema.fields().to_vec(), rows.columns().to_vec());
    for (name, until) in columns {
        let Ok(at) = schema.index_of(name) else { continue };
        let orders = orders.get_or_insert_with(|| orders_of_batch(&rows));
        let former: BooleanArray = orders.iter().map(|order| Some(*order <= until)).collect();
        values[at] = nullif(&values[at], &former)?;
        fields[at] = Arc::new(fields[at].as_ref().clone().with_nullable(true));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), values, &options)
}

/// What becomes of the columns of data files.
#[derive(Debug)]
struct Reshaping {
    next: Arc<TableSchema>,
    absences: Absences,
    /// Columns that lose the values of rows up to an order.
    emptied: Vec<(String, Order)>,
    /// Columns that lose all of them, since what they held is of another type.
    begun_anew: BTreeSet<String>,
}

impl Reshaping {
    /// From a table with the columns of `lake` to one of `next`.
    ///
    /// # Errors
    /// Names the rule that is broken.
    fn of(lake: &TableSchema, before: &Absences, next: TableSchema, absences: Absences) -> Result<Self, &'static str> {
        if next.key != lake.key || next.layout != lake.layout || next.columns.len() < lake.columns.len() {
            return Err("the record key, the layout or a column of a table goes while its files are written again");
        }
        if !absences.may_follow(before) {
            return Err("what is known of columns that the source was without is forgotten");
        }
        let (mut emptied, mut begun_anew) = (Vec::new(), BTreeSet::new());
        for (at, (held, becomes)) in lake.columns.iter().zip(&next.columns).enumerate() {
            let name = &held.name;
            if *name != becomes.name {
                return Err("a column is moved while files are written again");
            }
            let goes = absences.emptied(name) > before.emptied(name);
            let changes = held.ty.arrow() != becomes.ty.arrow();
            let partitions = lake.layout.partitions.iter().any(|p| p.column.eq_ignore_ascii_case(name));
            let tells_keys = lake.key.contains(&at);
            if partitions && (goes || changes) || tells_keys && goes {
                return Err("a column goes that rows are told or laid out by");
            }
            if tells_keys && changes && !keeps_form(&held.ty.arrow(), &becomes.ty.arrow()) {
                return Err("record keys would get another form");
            }
            let is_exact = held.ty.fits(&becomes.ty);
            if !is_exact && !goes && !before.is_unused(name) {
                return Err("a column gets a type that does not hold all of its values");
            }
            if goes {
                emptied.push((name.clone(), absences.emptied(name)));
            }
            if !is_exact {
                begun_anew.insert(name.clone());
            }
        }
        Ok(Self { next: Arc::new(next), absences, emptied, begun_anew })
    }

    /// Whether rows are others than before, not only of other types.
    fn changes_rows(&self) -> bool {
        !self.emptied.is_empty() || !self.begun_anew.is_empty()
    }

    /// Rows of a file of this entry, as they will be stored.
    fn apply(&self, rows: RecordBatch, add: &Add) -> Result<RecordBatch, TableError> {
        let kept: Vec<usize> = (0..rows.num_columns())
            .filter(|at| !self.begun_anew.contains(rows.schema_ref().field(*at).name()))
            .collect();
        let rows =
            without_former(rows.project(&kept)?, self.emptied.iter().map(|(name, until)| (name.as_str(), *until)))?;
        conform(&rows, &self.next.file_arrow(), &[], add)
    }

    /// What tells whether a file that has been written again is as it must be.
    fn columns(&self) -> Arc<Columns> {
        let column = |column: &weir_model::Column| {
            (column.name.clone(), (column.ty.arrow(), self.absences.emptied(&column.name)))
        };
        Arc::new(self.next.columns.iter().map(column).collect())
    }
}

/// Type of each column, and the order up to which it is empty.
type Columns = BTreeMap<String, (DataType, Order)>;

/// A file that was written again, and is in no commit.
#[derive(Debug)]
struct Draft {
    /// Its entry, but for which of its rows are dead: that is what it says of the file in whose place it is to come.
    add: Add,
    columns: Arc<Columns>,
}

impl Draft {
    /// Its entry in the place of the file of `replaced`, of which rows may have died since it was written.
    fn entry(&self, replaced: &Add, data_change: bool) -> Add {
        let rows = rows_of(self.add.stats.as_deref()).filter(|_| replaced.deletion_vector.is_some());
        let stats = rows.map(|rows| with_dead_rows(self.add.stats.as_deref(), rows)).or(self.add.stats.clone());
        Add { stats, deletion_vector: replaced.deletion_vector.clone(), data_change, ..self.add.clone() }
    }

    /// Whether it is what a file of rows of these orders becomes. A column that has been added since is in neither.
    fn is_of(&self, columns: &Columns, orders: FileOrders) -> bool {
        self.columns.iter().all(|(name, (ty, emptied))| {
            let same_rows = |upto: &Order| {
                let (low, high) = (*emptied.min(upto), *emptied.max(upto));
                low == high || orders.greatest <= low || orders.least > high
            };
            columns.get(name).is_some_and(|(wanted, upto)| ty == wanted && same_rows(upto))
        })
    }
}

/// Files that were written again for a commit that was lost to another writer's, by the path of the file that each one is
/// of: most of them are still of use for the next.
#[derive(Debug, Default)]
pub(super) struct Drafts {
    files: BTreeMap<String, Draft>,
    /// The version up to which the log does not say that one of them will be removed.
    version: i64,
}

impl Table {
    /// Gives the table the columns of `next`, which are its own with wider types, or emptied, or with others behind them:
    /// every data file is written again, those of other writers' buckets too. `absences` is what is known then of columns
    /// that the source was without; those that it says are empty up to a greater order than before are emptied.
    ///
    /// What was written for a commit that was lost is kept for the next call, which must come behind [`Table::absorb`].
    ///
    /// # Errors
    /// As [`Table::commit`].
    pub async fn reshape(&mut self, next: TableSchema, absences: Absences) -> Result<CommitOutcome, TableError> {
        let began = (self.schema.clone(), self.state.absences.clone());
        if let Some(outcome) = self.catch_up(&BTreeSet::new()).await? {
            return Ok(outcome);
        }
        let id = self.schema.table.clone();
        let replay = self.log.replay(None).await?.ok_or(TableError::NoTable(id.clone()))?;
        if replay.version != self.version || began != (self.schema.clone(), self.state.absences.clone()) {
            return Ok(CommitOutcome::Moved);
        }
        let reshaping =
            Reshaping::of(&self.schema, &self.state.absences, next, absences).map_err(|rule| self.rule(rule))?;
        tracing::info!(table = %id, files = replay.files.len(), "columns change; the data files are written again");
        self.draft(&reshaping, &replay).await?;
        let state = self.next_state(self.state.clone(), &reshaping.next)?;
        let state = TableState { absences: reshaping.absences.clone(), ..state };
        let (version, commit_id) = (self.version + 1, Uuid::new_v4().to_string());
        let actions = self.reshaped_actions(&reshaping, &replay, &state, commit_id.clone());
        match self.settle(version, actions, &commit_id).await? {
            Settled::Ours => {
                self.publish_reshaped(version, reshaping.next, state)?;
                Ok(CommitOutcome::Committed { version, accounts: Vec::new() })
            }
            Settled::Unread => {
                // It may be in, and name them.
                self.drafts = Drafts::default();
                Ok(CommitOutcome::Moved)
            }
            Settled::Theirs(actions) => match self.judge(&actions, &BTreeSet::new()) {
                Theirs::Lost(fenced @ CommitOutcome::Fenced { .. }) => {
                    self.discard_drafts().await;
                    Ok(fenced)
                }
                _ => Ok(CommitOutcome::Moved),
            },
        }
    }

    /// Writes again every file of `replay` that has not been, and forgets what is of no use any more.
    async fn draft(&mut self, reshaping: &Reshaping, replay: &Replay) -> Result<(), TableError> {
        let columns = reshaping.columns();
        let cleaned = self.cleaned_since(self.drafts.version, replay.version).await?;
        let is_of_use = |path: &String, draft: &Draft| {
            let replaced = replay.files.get(path);
            let fits = replaced.is_some_and(|add| draft.is_of(&columns, orders_of_entry(add)));
            fits && cleaned.as_ref().is_some_and(|names| !names.contains(&draft.add.path))
        };
        let useless: Vec<String> = self
            .drafts
            .files
            .iter()
            .filter(|(path, draft)| !is_of_use(path, draft))
            .map(|(path, _)| path.clone())
            .collect();
        for path in useless {
            if let Some(draft) = self.drafts.files.remove(&path) {
                self.files().discard(&draft.add.path).await;
            }
        }
        self.drafts.version = replay.version;
        for (path, add) in &replay.files {
            if !self.drafts.files.contains_key(path) {
                let draft = Draft { add: self.written_again(add, reshaping).await?, columns: columns.clone() };
                self.drafts.files.insert(path.clone(), draft);
            }
        }
        Ok(())
    }

    /// Files that versions above `version`, up to `newest`, say will be removed; `None` if one of them is not to be had.
    async fn cleaned_since(&self, version: i64, newest: i64) -> Result<Option<BTreeSet<String>>, TableError> {
        let mut names = BTreeSet::new();
        if self.drafts.files.is_empty() {
            return Ok(Some(names));
        }
        for version in version + 1..=newest {
            let Some(actions) = self.log.read_if_there(version).await? else { return Ok(None) };
            let records = actions.into_iter().filter_map(|action| action.commit_info?.weir);
            names.extend(records.flat_map(|record| record.cleans));
        }
        Ok(Some(names))
    }

    /// The entry of the file of `add` once it has been written again; durable, and in no commit.
    async fn written_again(&self, add: &Add, reshaping: &Reshaping) -> Result<Add, TableError> {
        let layout = &self.schema.layout;
        let partition = PartitionValues::of_entry(layout, add);
        let mut writer = FileWriter::new(&reshaping.next)?;
        let mut batches = self.folder().rows(&add.path, add.size as u64).await?;
        let mut rows = 0;
        while let Some(batch) = batches.try_next().await? {
            rows += batch.num_rows() as u64;
            writer.write(&reshaping.apply(batch, add)?)?;
        }
        if rows_of(add.stats.as_deref()).is_some_and(|told| told != rows) {
            return Err(TableError::Damaged(format!("{} does not hold the rows its entry says", add.path)));
        }
        let EncodedFile { name, bytes, stats } = writer.finish()?;
        let path = partition.path_of(layout, &name);
        let size = bytes.len() as i64;
        self.files().put(&path, bytes).await?;
        Ok(Add {
            path,
            size,
            stats: Some(stats),
            partition_values: partition.entry(layout),
            modification_time: clock::now_ms(),
            deletion_vector: None,
            ..add.clone()
        })
    }

    /// The commit that puts every draft in the place of its file.
    fn reshaped_actions(&self, reshaping: &Reshaping, replay: &Replay, state: &TableState, commit_id: String) -> Bytes {
        let (at_ms, data_change) = (clock::now_ms(), reshaping.changes_rows());
        let record = CommitRecord {
            format: CommitRecord::FORMAT,
            source: self.writer.source.clone(),
            commit_id,
            state: state.clone(),
            accounts: Vec::new(),
            cleans: Vec::new(),
        };
        let mut actions = self.frame("CHANGE COLUMN", record, at_ms);
        actions.extend(self.column_actions(&reshaping.next));
        for (path, add) in &replay.files {
            let Some(draft) = self.drafts.files.get(path) else { continue };
            let mut remove = removal(add, at_ms);
            remove.data_change = data_change || tells_removals(&reshaping.next.layout);
            actions.push(Action { remove: Some(remove), ..Action::default() });
            actions.push(Action { add: Some(draft.entry(add, data_change)), ..Action::default() });
        }
        serialise(&actions)
    }

    /// The commit is in. Rows are where they were, so only the files' entries change.
    fn publish_reshaped(&mut self, version: i64, next: Arc<TableSchema>, state: TableState) -> Result<(), TableError> {
        let mut drafts = std::mem::take(&mut self.drafts).files;
        for file in self.files.values_mut() {
            let draft = drafts.remove(&file.add.path).expect("every file of the table was written again");
            file.add = draft.entry(&file.add, true);
            // A restart would have to read the keys of each, since it is another file.
            self.unkept_rows += u64::from(file.rows);
        }
        self.schema = next;
        self.state = state;
        self.version = version;
        self.checkpoint_if_due();
        Ok(self.index.health()?)
    }

    /// How many files wait for the next commit.
    #[cfg(test)]
    pub(super) fn drafts_figure(&self) -> usize {
        self.drafts.files.len()
    }

    /// Removes what was written again and will not be committed.
    pub(super) async fn discard_drafts(&mut self) {
        for draft in std::mem::take(&mut self.drafts).files.into_values() {
            self.files().discard(&draft.add.path).await;
        }
    }
}
