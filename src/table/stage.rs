//! A commit worked out before anything is written but what had to be written again: which rows die, which files come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::{RecordBatch, UInt32Array};
use arrow_select::take::take_record_batch;
use bytes::Bytes;
use roaring::RoaringBitmap;
use uuid::Uuid;
use weir_model::{Order, RecordKey, RecordKeys, TableSchema, Window, clock};

use super::change::{AbsentKeys, BucketRows, Clear, TableChange, may_be_behind};
use super::chunk::{StagedChunk, StagedFile};
use super::deaths::Deaths;
use super::deletes::VectorFile;
use super::delta::{Add, vector_file_name};
use super::files::DataFile;
use super::marking::{MarkedFile, Marks};
use super::partition::{PartitionValues, file_rows, rows_by_partition};
use super::read::orders_of_batch;
use super::record::{TableState, keeps};
use super::statistics::with_dead_rows;
use super::writer::{EncodedFile, FileOrders, FileWriter, Placed, add_action};
use super::{Table, TableError};
use crate::trace::{Hop, StageCount, Tally};

/// A new data file and the keys of its rows; none in a table that is appended to.
pub(super) struct NewFile {
    pub file: DataFile,
    pub keys: RecordKeys,
}

/// A file that stays, with another vector.
pub(super) struct NewVector {
    pub number: u32,
    pub add: Add,
    pub dead: RoaringBitmap,
}

/// A commit that has been worked out: what it writes, and what the table is once it is in.
pub(super) struct Staged {
    /// What readers of the table's history see.
    pub(super) operation: &'static str,
    /// Whether the table's rows are others than before, or only lie otherwise.
    pub(super) data_change: bool,
    /// Files that no version names, and that go once this commit is in.
    pub(super) cleans: Vec<String>,
    /// The version that it is to be.
    pub(super) version: i64,
    /// Data and vectors, to be durable before the version is put.
    pub(super) objects: Vec<(String, Bytes)>,
    /// Files of rows that were written once more for this commit, and are durable: of no use without it.
    pub(super) rewritten: Vec<String>,
    /// Files of chunks that this commit does not name: of no use once it is in.
    pub(super) leftover: Vec<String>,
    pub(super) deaths: Deaths,
    pub(super) vectors: Vec<NewVector>,
    pub(super) new_files: Vec<NewFile>,
    pub(super) deletes: Vec<(RecordKey, Order)>,
    pub(super) schema: Arc<TableSchema>,
    pub(super) evolves: bool,
    pub(super) state: TableState,
    pub(super) clear: Option<Clear>,
    pub(super) ends_load: bool,
    pub(super) accounts: Vec<StageCount>,
    pub(super) at_ms: i64,
}

impl Staged {
    /// A commit that leaves the table's rows as they are.
    pub(super) fn of_upkeep(operation: &'static str, state: TableState, table: &Table) -> Self {
        Self {
            operation,
            data_change: false,
            cleans: Vec::new(),
            version: table.version + 1,
            objects: Vec::new(),
            rewritten: Vec::new(),
            leftover: Vec::new(),
            deaths: Deaths::default(),
            vectors: Vec::new(),
            new_files: Vec::new(),
            deletes: Vec::new(),
            schema: table.schema.clone(),
            evolves: false,
            state,
            clear: None,
            ends_load: false,
            accounts: Vec::new(),
            at_ms: clock::now_ms(),
        }
    }

    /// Files in the table's folder that no version names yet and that this one will.
    pub(super) fn names(&self) -> BTreeSet<String> {
        let written = self.objects.iter().map(|(name, _)| name);
        written.chain(self.new_files.iter().map(|new| &new.file.add.path)).cloned().collect()
    }

    /// Files of rows that were marked come with it; gives how many rows.
    fn take_marked(&mut self, marked: Vec<MarkedFile>) -> u64 {
        let mut rows = 0;
        for MarkedFile { file, keys } in marked {
            rows += u64::from(file.rows);
            self.rewritten.push(file.add.path.clone());
            self.new_files.push(NewFile { file, keys });
        }
        rows
    }

    /// A data file of rows of one bucket and partition, which have the lake table's columns.
    fn add_file(
        &mut self,
        rows: &RecordBatch,
        keys: RecordKeys,
        bucket: u32,
        partition: &PartitionValues,
    ) -> Result<(), TableError> {
        let (file, bytes) = encode_rows(&self.schema, rows, bucket, partition, self.at_ms)?;
        self.objects.push((file.add.path.clone(), bytes));
        self.new_files.push(NewFile { file, keys });
        Ok(())
    }
}

impl Table {
    /// Works the commit out. Nothing is written but what must be written again for it: chunks with other columns than the table's,
    /// rows that are marked, files that are copied. Orders are read where a chunk or the end of a load needs them.
    pub(super) async fn stage(&mut self, change: TableChange) -> Result<Staged, TableError> {
        let marks = change.marks(&self.schema);
        let TableChange { clear, evolve, rows, deletes, staged: chunks, absent, remove_below, state, mut accounts } =
            change;
        if !keeps(&self.state, &state, |bucket| !self.buckets().owns(bucket)) {
            return Err(self.rule("the state of a bucket changes that this writer does not have"));
        }
        let evolves = evolve.is_some();
        let schema = evolve.map_or_else(|| self.schema.clone(), Arc::new);
        let mut staged = Staged {
            operation: "MERGE",
            data_change: true,
            deletes,
            schema: schema.clone(),
            evolves,
            ends_load: remove_below.is_some(),
            clear,
            ..Staged::of_upkeep("", self.next_state(state, &schema)?, self)
        };
        if let Some(clear) = staged.clear.clone() {
            if marks {
                self.stage_marks(&Marks::of_clear(&clear), &mut staged).await?;
            } else {
                self.stage_clear(&clear, &mut staged.deaths);
            }
        }
        if let Some(remove) = &remove_below {
            let removed = if marks {
                self.stage_marks(&Marks::of_load(remove), &mut staged).await?
            } else {
                self.stage_remove_below(remove, &mut staged.deaths).await?
            };
            accounts.chunk_rows(Hop::ChunkRemoved, Window::of(remove.order.ts_ms), removed);
        }
        for rows in rows.into_iter().filter(|rows| rows.rows.num_rows() > 0) {
            if self.schema.layout.is_append() {
                may_be_behind(&rows, self.state.greatest_of(rows.bucket)).map_err(|rule| self.rule(rule))?;
            }
            self.stage_rows(rows, &mut staged)?;
        }
        let deletes = &staged.deletes;
        self.stage_deaths_of(deletes.len(), |nth| deletes[nth].0.as_ref(), &mut staged.deaths);
        for chunk in chunks {
            self.stage_chunk_file(chunk, &mut staged, &mut accounts).await?;
        }
        for absent in absent {
            let removed = self.stage_absent(absent, marks, &mut staged).await?;
            accounts.add(&removed);
        }
        self.stage_vectors(&mut staged).await?;
        staged.accounts = accounts.counts();
        // What dies, and before that what entered the change, follows from answers of the index.
        self.index.health()?;
        Ok(staged)
    }

    /// Rows that die and are in new files, marked as deleted; gives how many.
    async fn stage_marks(&mut self, marks: &Marks<'_>, staged: &mut Staged) -> Result<u64, TableError> {
        let marked = self.mark_deleted(marks, &staged.schema, &mut staged.deaths).await?;
        Ok(staged.take_marked(marked))
    }

    /// The rows of keys that a chunk did not find at the source die, or are marked, if they are older than the chunk. The
    /// deletes are remembered like those of the stream.
    async fn stage_absent(
        &mut self,
        absent: AbsentKeys,
        marks: bool,
        staged: &mut Staged,
    ) -> Result<Tally, TableError> {
        let (bucket, order0) = (absent.bucket, absent.order0);
        let gone = self.rows_of_absent(&absent).await?;
        let mut removed = gone.len() as u64;
        if marks {
            let mut rows: BTreeMap<u32, RoaringBitmap> = BTreeMap::new();
            for (_, address) in gone {
                rows.entry(address.file).or_default().insert(address.row);
            }
            let marked = self.mark_rows_deleted(bucket, rows, order0, &staged.schema, &mut staged.deaths).await?;
            removed = staged.take_marked(marked);
        } else {
            for (key, address) in gone {
                staged.deaths.row(address);
                staged.deletes.push((key, order0));
            }
        }
        let mut tally = Tally::default();
        tally.chunk_rows(Hop::ChunkRemoved, Window::of(order0.ts_ms), removed);
        Ok(tally)
    }

    /// Data files of rows, one a partition, and the death of what is live of their keys, in whatever partition it lies.
    fn stage_rows(&self, entering: BucketRows, staged: &mut Staged) -> Result<(), TableError> {
        let BucketRows { bucket, rows, keys } = entering;
        self.stage_deaths_of(keys.len(), |row| keys.get(row), &mut staged.deaths);
        let mut parts = rows_by_partition(&staged.schema, &rows)?;
        if parts.len() == 1
            && let Some((partition, _)) = parts.pop_first()
        {
            return staged.add_file(&rows, keys, bucket, &partition);
        }
        // One after another: a file is small once it is encoded.
        for (partition, picked) in parts {
            // A table that is appended to has none.
            let keys = if keys.is_empty() { RecordKeys::none() } else { keys.take(&picked) };
            let rows = take_record_batch(&rows, &UInt32Array::from(picked))?;
            staged.add_file(&rows, keys, bucket, &partition)?;
        }
        Ok(())
    }

    /// The chunk's file with a vector over the rows that lose; none if all do.
    async fn stage_chunk_file(
        &mut self,
        chunk: StagedChunk,
        staged: &mut Staged,
        accounts: &mut Tally,
    ) -> Result<(), TableError> {
        let name = chunk.file.name.clone();
        let chunk = chunk.conform(&staged.schema, &staged.state.absences).await?;
        if chunk.file.name != name {
            staged.rewritten.push(chunk.file.name.clone());
            staged.leftover.push(name);
        }
        let dead = self.stage_chunk(&chunk, &mut staged.deaths, accounts).await?;
        if dead.len() == chunk.rows() {
            staged.leftover.push(chunk.file.name);
            return Ok(());
        }
        let rows = chunk.rows() as u32;
        let orders = FileOrders { least: chunk.file.order0, greatest: chunk.file.order0 };
        let StagedFile { name: path, size, stats, bucket, partition, .. } = chunk.file;
        let placed = Placed { path, size: size as usize, stats, bucket, partition: &partition };
        let add = add_action(&staged.schema.layout, placed, orders, staged.at_ms);
        let file = DataFile { add, bucket: Some(bucket), rows, dead, orders };
        staged.new_files.push(NewFile { file, keys: chunk.keys });
        Ok(())
    }

    /// What becomes of the files of which rows die.
    pub(super) async fn stage_vectors(&self, staged: &mut Staged) -> Result<(), TableError> {
        if self.schema.layout.copies_on_write() {
            return self.stage_copies(staged).await;
        }
        let vector_file = self.mark_dead(staged);
        staged.objects.extend(vector_file);
        Ok(())
    }

    /// Every vector that changes; gives the file that holds them all. A file without a live row goes instead of getting
    /// a vector.
    fn mark_dead(&self, staged: &mut Staged) -> Option<(String, Bytes)> {
        let Staged { deaths, vectors, new_files, .. } = staged;
        let uuid = Uuid::new_v4();
        let mut vector_file = VectorFile::new(uuid);
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
        any.then(|| (vector_file_name(uuid), vector_file.finish()))
    }
}

/// A data file of rows of one bucket and partition, given in the lake table's columns, and its bytes.
pub(super) fn encode_rows(
    schema: &TableSchema,
    rows: &RecordBatch,
    bucket: u32,
    partition: &PartitionValues,
    at_ms: i64,
) -> Result<(DataFile, Bytes), TableError> {
    let orders = FileOrders::of(&orders_of_batch(rows));
    let mut writer = FileWriter::new(schema)?;
    writer.write(&file_rows(schema, rows)?)?;
    let EncodedFile { name, bytes, stats } = writer.finish()?;
    let path = partition.path_of(&schema.layout, &name);
    let placed = Placed { path, size: bytes.len(), stats, bucket, partition };
    let add = add_action(&schema.layout, placed, orders, at_ms);
    let file = DataFile { add, bucket: Some(bucket), rows: rows.num_rows() as u32, dead: RoaringBitmap::new(), orders };
    Ok((file, bytes))
}
