//! The table of the benchmark, written as the service writes it: chunks of a load, and a worker between the transport
//! within one process and the table.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use tokio::sync::{mpsc, watch};
use weir::apply::chunks::ChunkDesk;
use weir::apply::{Pace, Report, Worker};
use weir::limits::CHUNK_ROWS;
use weir::table::clean::{Look, Retention, clean_log, find_garbage, remove};
use weir::table::{
    Buckets, ChunkWriter, CommitOutcome, Effort, IndexBudget, IndexHome, RemoveBelow, SeedProgress, StagedChunk, Table,
    TableChange, TableError, TableFiles, TableState, Warehouse, Writer,
};
use weir::trace::Tally;
use weir::transport::direct::Direct;
use weir::transport::{Boundary, Changes, Item, Publish, PublishNumber, Publisher};
use weir_model::{ChangeBatch, Order, OrderState, TableSchema, Window};

use super::rows::{self, Random};

type Failed = Box<dyn std::error::Error>;

/// The service's default for queues, batches and write buffers.
const MEMORY_BYTES: usize = 256 << 20;
/// The service's default for key indexes.
const INDEX_BYTES: usize = 1 << 30;
/// Share of it that a worker commits without waiting, as the service has it.
const COMMIT_BYTES: usize = MEMORY_BYTES / 4;
/// The service's default.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// Chunks read side by side.
const CHUNKS_TOGETHER: usize = 2;
/// Rows in a batch of a chunk.
const CHUNK_BATCH_ROWS: u64 = 25_000;
/// The server whose transactions the table is told to hold.
const SERVER: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

/// Commits between two cleanings; the service cleans by time.
const CLEAN_EVERY: i64 = 100;

/// What the service does beside the stream: compaction of what pays, cleaning of what no version needs, a short log. Here
/// it comes behind each commit, so that its time is told by itself, and nothing is retained for readers.
async fn upkeep(table: &mut Table) -> Result<(), Failed> {
    if let Some(rewriting) = table.compaction(Effort::Steady) {
        let rewritten = rewriting.run().await?;
        table.commit_rewritten(rewritten).await?;
    }
    if table.version() % CLEAN_EVERY == 0 {
        let (warehouse, now_ms) = (table.warehouse().clone(), weir_model::clock::now_ms());
        let retention = Retention { kept: Duration::ZERO, look: Look::Thorough { alone: false } };
        let mut garbage = find_garbage(&warehouse, &rows::table_id(), retention, now_ms).await?;
        while !garbage.names.is_empty() {
            let (_, names) = table.commit_cleaning(&mut garbage).await?;
            remove(&table.files(), &names).await;
        }
        clean_log(&warehouse, &rows::table_id(), Duration::ZERO, table.version(), now_ms).await?;
    }
    Ok(())
}

/// The table, open for writing.
pub struct BenchTable {
    table: Table,
    folder: PathBuf,
}

impl BenchTable {
    /// Creates the table in `folder` and loads `rows` rows, whose keys are 1 to `rows`.
    pub async fn seed(folder: &Path, rows: u64) -> Result<Self, Failed> {
        let (schema, warehouse) = (rows::schema(), warehouse(folder)?);
        let table = Table::create(&warehouse, &schema, writer(folder), TableState::default(), Buckets::whole()).await?;
        let mut this = Self { table, folder: folder.to_owned() };
        let start = Order::new(1, 1);
        let mut state = this.table.state().clone();
        state.order = OrderState(start);
        state.greatest = vec![start];
        state.seed = Some(SeedProgress { plan: 1, done: Vec::new(), start, part: false });
        this.commit(TableChange::to(state)).await?;

        let (schema, files) = (Arc::new(schema), this.table.files());
        let chunks = (0..rows.div_ceil(CHUNK_ROWS)).map(|ordinal| {
            let keys = ordinal * CHUNK_ROWS + 1..((ordinal + 1) * CHUNK_ROWS).min(rows) + 1;
            let (schema, files) = (schema.clone(), files.clone());
            async move { tokio::spawn(chunk(files, schema, ordinal, keys)).await?.map_err(Failed::from) }
        });
        let mut chunks = futures::stream::iter(chunks).buffered(CHUNKS_TOGETHER);
        while let Some((ordinal, staged)) = chunks.try_next().await? {
            let mut state = this.table.state().clone();
            state.order = OrderState(order_of_chunk(ordinal));
            state.seed.as_mut().expect("the load is under way").done.push(ordinal as u32);
            this.commit(TableChange { staged, ..TableChange::to(state) }).await?;
        }
        drop(chunks);
        let mut state = this.table.state().clone();
        state.seed = None;
        let remove_below = Some(RemoveBelow { order: start, buckets: [0].into() });
        this.commit(TableChange { remove_below, ..TableChange::to(state) }).await?;
        Ok(this)
    }

    /// Opens the table in `folder`.
    pub async fn open(folder: &Path) -> Result<Self, Failed> {
        let table = Table::open(&warehouse(folder)?, &rows::table_id(), writer(folder), Buckets::whole()).await?;
        let table = table.ok_or("there is no table; begin with the phase `seed`")?;
        Ok(Self { table, folder: folder.to_owned() })
    }

    async fn commit(&mut self, change: TableChange) -> Result<(), Failed> {
        match self.table.commit(change).await? {
            CommitOutcome::Committed { .. } => Ok(()),
            other => Err(format!("somebody else writes the table: {other:?}").into()),
        }
    }

    /// Applies a backlog by a worker, while the publisher waits for memory as capture does. Gives the number of commits.
    pub async fn apply(self, batches: Vec<ChangeBatch>) -> Result<(Self, u64), Failed> {
        let begun = self.commits();
        let mut transport = Direct::new(MEMORY_BYTES);
        let subscription = transport.subscribe(&rows::table_id());
        let (reports, mut inbox) = mpsc::unbounded_channel();
        let (_unhurried, hurry) = watch::channel(false);
        let pressure = transport.pressure();
        let pace = Pace { interval: COMMIT_INTERVAL, bytes_max: COMMIT_BYTES, hurry, pressure };
        let worker = Worker::new(self.table, subscription, ChunkDesk::default(), reports, pace);
        let publishing = async move {
            for (number, batch) in (1..).zip(batches) {
                transport.publish(publish(batch, number, begun)?).await?;
            }
            transport.close();
            Ok::<(), Failed>(())
        };
        let applying = tokio::spawn(worker.run_to_end());
        publishing.await?;
        let table = applying.await??;
        inbox.close();
        let mut commits = 0;
        while let Some(report) = inbox.recv().await {
            commits += u64::from(matches!(report, Report::Committed { .. }));
        }
        Ok((Self { table, folder: self.folder }, commits))
    }

    pub async fn upkeep(&mut self) -> Result<(), Failed> {
        upkeep(&mut self.table).await
    }

    /// Keeps the key index for the next phase, as the service does when it ends.
    pub fn keep(&mut self) -> Result<(), Failed> {
        Ok(self.table.keeping(true).map_or(Ok(()), weir::table::Keeping::write)?)
    }

    /// Files, live rows and bytes of the files.
    pub fn figures(&self) -> (u64, u64, u64) {
        self.table.figures()
    }

    /// Keys in the index, and its bytes.
    pub fn index_figures(&self) -> (usize, usize) {
        self.table.index_figures()
    }

    /// How often the table has been committed to.
    pub fn commits(&self) -> u64 {
        self.table.state().commits
    }

    /// The last order that was handed out.
    pub fn order(&self) -> OrderState {
        self.table.state().order
    }
}

fn warehouse(folder: &Path) -> Result<Warehouse, Failed> {
    let lake = std::path::absolute(folder.join("lake"))?;
    let url = url::Url::from_directory_path(lake).map_err(|()| "not a folder's path")?;
    Ok(Warehouse::open(url.as_str(), &BTreeMap::new())?)
}

fn writer(folder: &Path) -> Writer {
    let budget = IndexBudget::new(INDEX_BYTES);
    Writer { index_home: IndexHome::new(budget, &folder.join("state")), ..Writer::new("bench", 1) }
}

fn order_of_chunk(ordinal: u64) -> Order {
    Order::new(1, 2 + ordinal as i64)
}

/// Writes one chunk, of the rows with `keys`.
async fn chunk(
    files: TableFiles,
    schema: Arc<TableSchema>,
    ordinal: u64,
    keys: Range<u64>,
) -> Result<(u64, Vec<StagedChunk>), TableError> {
    let mut writer = ChunkWriter::create(files, schema.clone(), order_of_chunk(ordinal), Window(0), 1)?;
    for first in keys.clone().step_by(CHUNK_BATCH_ROWS as usize) {
        let keys = first as i64..keys.end.min(first + CHUNK_BATCH_ROWS) as i64;
        writer.write(&rows::rows(&schema, keys, 0)).await?;
    }
    Ok((ordinal, writer.finish().await?))
}

/// A publish of one batch, the `number`th since the table had `begun` commits.
fn publish(batch: ChangeBatch, number: u64, begun: u64) -> Result<Publish, Failed> {
    let order = OrderState(batch.orders.last().copied().ok_or("an empty batch is published")?);
    let boundary = Boundary { gtid_set: format!("{SERVER}:1-{}", begun + number).parse()?, ..Boundary::default() };
    let changes = Changes { batch, sent: Tally::default(), partial_rows: 0 };
    Ok(Publish {
        number: PublishNumber(number),
        boundary: Arc::new(boundary),
        items: vec![(rows::table_id(), Item::Changes(changes))],
        order,
        partial_rows: BTreeMap::new(),
        standings: Vec::new(),
    })
}

/// Batches of updates of distinct random rows, for a table whose keys are 1 to the number of its rows.
pub struct Updates {
    schema: Arc<TableSchema>,
    random: Random,
    order: OrderState,
    /// Number of the next batch, over the life of the table.
    turn: u64,
    table_rows: u64,
    batch_rows: u64,
}

impl Updates {
    pub fn of(table: &BenchTable, batch_rows: u64) -> Result<Self, Failed> {
        let table_rows = table.figures().1;
        if batch_rows > table_rows {
            return Err("a commit cannot update more rows than there are".into());
        }
        let (schema, random) = (Arc::new(rows::schema()), Random::behind(table));
        Ok(Self { schema, random, order: table.order(), turn: table.commits(), table_rows, batch_rows })
    }

    pub fn next_batch(&mut self) -> ChangeBatch {
        let mut keys = HashSet::new();
        while (keys.len() as u64) < self.batch_rows {
            keys.insert(1 + self.random.below(self.table_rows) as i64);
        }
        // Sets have no order that could be repeated.
        let mut keys: Vec<i64> = keys.into_iter().collect();
        keys.sort_unstable_by_key(|key| key.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64));
        self.turn += 1;
        rows::changes(&self.schema, &keys, i64::MAX, self.turn, &mut self.order)
    }
}
