//! Loads of whole tables beside the stream: plan, chunks, merge, end.
//!
//! A chunk attempt is bounded on both sides. Below, by an order handed out between two transactions, everything before
//! which must be visible to the SELECT. Above, by the binlog's end, read after the SELECT: once the stream has passed
//! it, whatever the SELECT saw has also come as an event. In between, the greater order wins.
//!
//! Rows without a key have no order of their own to win by. Such a table is read as of one moment, which its order is of,
//! too: see `open_at_one_moment`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use snapshot_loader::{
    ChunkRange, ChunkReader, PlanTarget, Progress, ReadOptions, TableProgress, Throttle, plan_chunks,
};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use weir_model::{Layout, LogPosition, TableId, Window, ZeroDates};
use weir_mysql::{MysqlError, RowConnection, SourceOptions, TableDescription, catalogue, server};

use super::kafka::merging::LakeMerging;
use crate::apply::Report;
use crate::apply::chunks::{ChunkDesk, ChunkOutcome, WaitingChunk};
use crate::capture::request::{ChunkOpening, ReadChunk, Request, SeedOpening};
use crate::limits::{
    CAPTURE_LOOKED_AT_EVERY, CHUNK_BATCH_BYTES, CHUNK_BYTES, CHUNK_RETRY_DELAY, CHUNK_ROWS, CHUNKS_WAITING_MAX,
    EXECUTED_WAIT_MAX, TABLE_LOCK_WAIT_MAX, TABLE_LOCKED_AGAIN_AFTER, TABLE_LOCKED_MAX,
};
use crate::state::{StateError, StateSeries};
use crate::table::{ChunkWriter, SeedProgress, StagedChunk, TableError, TableFiles};
use crate::transport::{ChunkContent, ChunkId, PublishNumber};

/// The chunks of one load, as they are kept beside the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeedPlan {
    pub table: TableId,
    /// The engine's estimate.
    pub rows_estimated: u64,
    pub chunks: Vec<ChunkRange>,
}

/// Why a load ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    #[error(transparent)]
    Loader(#[from] snapshot_loader::LoadError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the table is gone from the source, or its key is")]
    Gone,
    #[error(
        "{table} has no key, so it is read in one piece behind a short lock: {source}. Allow it with GRANT LOCK TABLES, or \
         follow the table without loading it by [source] snapshot = \"never\""
    )]
    Lock { table: TableId, source: Box<MysqlError> },
    /// Capture has ended or no longer captures the table; whoever ended it knows why.
    #[error("the table is no longer captured")]
    NotCaptured,
}

/// The table was altered or dropped between being described and being read: unknown column, no such table.
const SHAPE_CHANGED: [u16; 2] = [1054, 1146];

impl SeedError {
    /// Whether trying again may help: the next attempt describes the table anew, and the warehouse may be back.
    fn is_passing(&self) -> bool {
        let error = match self {
            Self::Mysql(error) | Self::Loader(snapshot_loader::LoadError::Mysql(error)) => error,
            Self::Lock { source: error, .. } => error.as_ref(),
            Self::Table(error) => return error.is_away(),
            Self::State(error) => return error.is_away(),
            _ => return false,
        };
        error.is_retryable() || error.code().is_some_and(|code| SHAPE_CHANGED.contains(&code))
    }
}

/// What all loads share.
#[derive(Clone)]
pub struct Loader {
    pub source: SourceOptions,
    pub throttle: Arc<Throttle>,
    pub requests: mpsc::Sender<Request>,
    pub merging: Merging,
    /// One permit a connection that reads chunks.
    pub connections: Arc<Semaphore>,
    pub progress: Arc<Progress>,
    pub next_chunk: Arc<AtomicU64>,
}

/// How a chunk that has been read comes into its table.
#[derive(Clone)]
pub enum Merging {
    /// The table's worker is in this process and takes it from the desk.
    Desk(ChunkDesk),
    /// Whoever has the table's buckets finds the chunk's files named in the stream; the table's log says when they are in.
    Lake(LakeMerging),
}

/// One table to be loaded.
#[derive(Clone)]
pub struct Load {
    pub table: TableId,
    pub key: Option<Vec<String>>,
    pub zero_dates: ZeroDates,
    /// How the lake keeps the table.
    pub layout: Layout,
    pub files: TableFiles,
    /// Buckets of the table: a chunk becomes a file for each.
    pub buckets: u32,
    /// A table that cannot take the source's rows becomes empty first and gets its columns.
    pub reset: bool,
    /// Where its plans are kept.
    pub plans: StateSeries,
    /// Number of the plan that it follows, for its supervisor; 0 before there is one.
    pub plan_under_way: Arc<AtomicU64>,
    /// Progress to go on from; none to begin anew.
    pub resume: Option<SeedProgress>,
}

impl Loader {
    /// Loads the whole table; returns once every chunk is in a commit and the end has been asked for.
    pub async fn load(&self, load: Load) -> Result<(), SeedError> {
        let (number, plan, done) = loop {
            match self.plan(&load).await {
                Ok(planned) => break planned,
                Err(error) if error.is_passing() => {
                    tracing::warn!(table = %load.table, %error, "the load is planned again");
                    tokio::time::sleep(CHUNK_RETRY_DELAY).await;
                }
                Err(error) => return Err(error),
            }
        };
        let chunks_left = plan.chunks.len() - done.len();
        let rows_left = plan.rows_estimated * chunks_left as u64 / plan.chunks.len().max(1) as u64;
        let progress = self.progress.table(&load.table, rows_left, chunks_left as u64);
        let plan = Arc::new(plan);
        let mut attempts = JoinSet::new();
        for ordinal in (0..plan.chunks.len() as u32).filter(|ordinal| !done.contains(ordinal)) {
            // Chunks that have been read wait for the stream; their keys are held in memory meanwhile.
            while attempts.len() >= CHUNKS_WAITING_MAX
                && let Some(finished) = attempts.join_next().await
            {
                rows_of(finished)?;
            }
            let (loader, load, plan, progress) = (self.clone(), load.clone(), plan.clone(), progress.clone());
            attempts.spawn(async move {
                let rows = loader.chunk(&load, number, ordinal, &plan.chunks[ordinal as usize], &progress).await?;
                progress.chunk_done();
                Ok(rows)
            });
        }
        while let Some(finished) = attempts.join_next().await {
            rows_of(finished)?;
        }
        let (reply, sent) = oneshot::channel();
        self.ask(Request::EndSeed { table: load.table.clone(), plan: number, reply }).await?;
        let sent = sent.await.ok().flatten().ok_or(SeedError::NotCaptured)?;
        if let Merging::Lake(lake) = &self.merging {
            lake.reached(&load.table, sent).await?;
            lake.settle_refusals(&load.table).await?;
            lake.report(Report::SeedEnded { table: load.table, plan: number });
        }
        Ok(())
    }

    /// The plan to follow: the one under way, or a fresh one that is announced in the stream.
    async fn plan(&self, load: &Load) -> Result<(u64, SeedPlan, BTreeSet<u32>), SeedError> {
        if let Some(progress) = &load.resume
            && let Some(bytes) = load.plans.read(progress.plan).await?
            && let Ok(plan) = serde_json::from_slice::<SeedPlan>(&bytes)
        {
            load.plan_under_way.store(progress.plan, Ordering::Release);
            return Ok((progress.plan, plan, progress.done.iter().copied().collect()));
        }
        let _permit = self.connections.acquire().await.map_err(|_| SeedError::NotCaptured)?;
        let mut connection = weir_mysql::connect(&self.source).await?;
        let description = self.describe(&mut connection, load).await?;
        let target = PlanTarget { rows: CHUNK_ROWS, bytes: CHUNK_BYTES };
        let chunks = plan_chunks(&mut connection, &description, &ChunkRange::all(), target).await?;
        let plan = SeedPlan { table: load.table.clone(), rows_estimated: description.approx_rows, chunks };
        let bytes = serde_json::to_vec(&plan).expect("a plan is plain data");
        let number = load.plans.append(bytes.into()).await?;
        load.plan_under_way.store(number, Ordering::Release);
        if let Merging::Lake(lake) = &self.merging {
            // Before the load is announced: one that was announced must find how far it is.
            lake.begin(&load.table, number).await?;
        }
        let (reply, answer) = oneshot::channel();
        let (table, schema) = (load.table.clone(), Arc::new(description.schema));
        self.ask(Request::BeginSeed(SeedOpening { table, plan: number, schema, reset: load.reset, reply })).await?;
        let begun = answer.await.ok().flatten().ok_or(SeedError::NotCaptured)?;
        if let Merging::Lake(lake) = &self.merging {
            lake.begun(&load.table, number, begun);
        }
        Ok((number, plan, BTreeSet::new()))
    }

    async fn describe(&self, connection: &mut weir_mysql::Conn, load: &Load) -> Result<TableDescription, SeedError> {
        let mut description = catalogue::describe(connection, &load.table).await?.ok_or(SeedError::Gone)?;
        description.schema.layout = load.layout.clone();
        match &load.key {
            Some(key) => description.with_key(key).map_err(|_| SeedError::Gone),
            None => Ok(description),
        }
    }

    /// Attempts one chunk until it is merged; returns its rows.
    async fn chunk(
        &self,
        load: &Load,
        plan: u64,
        ordinal: u32,
        range: &ChunkRange,
        progress: &TableProgress,
    ) -> Result<u64, SeedError> {
        loop {
            match self.attempt(load, plan, ordinal, range, progress).await {
                Ok(Some(rows)) => return Ok(rows),
                Ok(None) => tracing::info!(table = %load.table, chunk = ordinal, "chunk is read again"),
                Err(error) if error.is_passing() => {
                    tracing::warn!(table = %load.table, chunk = ordinal, %error, "chunk is read again");
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(CHUNK_RETRY_DELAY).await;
        }
    }

    /// One attempt; `None` if it was void or refused.
    async fn attempt(
        &self,
        load: &Load,
        plan: u64,
        ordinal: u32,
        range: &ChunkRange,
        progress: &TableProgress,
    ) -> Result<Option<u64>, SeedError> {
        let permit = self.connections.acquire().await.map_err(|_| SeedError::NotCaptured)?;
        self.throttle.before_chunk().await?;
        let mut connection = weir_mysql::connect(&self.source).await?;
        let mut rows = RowConnection::beside(&self.source, &mut connection).await?;
        let opening = if self.is_keyless(load, &mut connection).await? {
            self.open_at_one_moment(load, &mut rows).await?
        } else {
            self.open_beside_changes(load, &mut connection).await?
        };
        let Some(opening) = opening else { return Ok(None) };
        let staged = self.read(load, &mut connection, &mut rows, range, &opening).await?;
        let upper = server::binlog_end(&mut connection).await?;
        let server_uuid = server::server_facts(&mut connection).await?.server_uuid;
        drop((connection, rows));
        drop(permit);
        let rows = staged.iter().map(StagedChunk::rows).sum();
        let bytes = staged.iter().map(StagedChunk::bytes).sum();
        let names: Vec<String> = staged.iter().map(|staged| staged.name().to_owned()).collect();
        progress.add(rows, bytes);
        let parts = WaitingParts { plan, ordinal, staged, opening, upper, server_uuid };
        let fate = match &self.merging {
            Merging::Desk(desk) => self.merge_by_desk(desk, load, parts).await?,
            Merging::Lake(lake) => self.merge_by_lake(lake, load, parts).await?,
        };
        if fate == ChunkFate::Merged {
            return Ok(Some(rows));
        }
        progress.take_back(rows, bytes);
        if fate == ChunkFate::Unnamed {
            for name in names {
                load.files.discard(&name).await;
            }
        }
        Ok(None)
    }

    /// An order from which on every change is greater, once `connection` sees everything beneath.
    async fn open_beside_changes(
        &self,
        load: &Load,
        connection: &mut weir_mysql::Conn,
    ) -> Result<Option<ChunkOpening>, SeedError> {
        let opening = self.open_chunk(load, false).await?;
        let executed = server::wait_for_executed(connection, &opening.below, EXECUTED_WAIT_MAX).await?;
        Ok(executed.then_some(opening))
    }

    async fn open_chunk(&self, load: &Load, settles: bool) -> Result<ChunkOpening, SeedError> {
        let (reply, opening) = oneshot::channel();
        self.ask(Request::OpenChunk { table: load.table.clone(), settles, reply }).await?;
        opening.await.ok().flatten().ok_or(SeedError::NotCaptured)
    }

    async fn is_keyless(&self, load: &Load, connection: &mut weir_mysql::Conn) -> Result<bool, SeedError> {
        // Every other table has one.
        Ok(load.layout.is_append() && self.describe(connection, load).await?.schema.key.is_empty())
    }

    /// For rows that cannot be told apart: an order that divides the table's changes into those that `rows` sees from
    /// now on and all others. The table is locked against writers until capture has come to this moment.
    async fn open_at_one_moment(
        &self,
        load: &Load,
        rows: &mut RowConnection,
    ) -> Result<Option<ChunkOpening>, SeedError> {
        let locked = |source| SeedError::Lock { table: load.table.clone(), source: Box::new(source) };
        let mut locking = weir_mysql::connect(&self.source).await?;
        server::lock_table(&mut locking, &load.table, TABLE_LOCK_WAIT_MAX).await.map_err(locked)?;
        // No change of it is under way, so those that were made are in this set.
        let executed = server::executed_gtids(&mut locking).await?;
        let since = Instant::now();
        let opening = loop {
            let opening = self.open_chunk(load, true).await?;
            if executed.is_subset(&opening.below) {
                break Some(opening);
            }
            if since.elapsed() > TABLE_LOCKED_MAX {
                tracing::info!(table = %load.table, "the stream is too far behind to lock a table until it is here");
                break None;
            }
            tokio::time::sleep(CAPTURE_LOOKED_AT_EVERY).await;
        };
        if opening.is_some() {
            rows.begin_snapshot().await?;
        }
        server::unlock_tables(&mut locking).await?;
        if opening.is_none() {
            tokio::time::sleep(TABLE_LOCKED_AGAIN_AFTER).await;
        }
        Ok(opening)
    }

    /// Reads the range into final data files, one a bucket, that no commit names yet.
    async fn read(
        &self,
        load: &Load,
        connection: &mut weir_mysql::Conn,
        rows: &mut RowConnection,
        range: &ChunkRange,
        opening: &ChunkOpening,
    ) -> Result<Vec<StagedChunk>, SeedError> {
        let description = self.describe(connection, load).await?;
        let schema = Arc::new(description.schema.clone());
        let window = Window::of(opening.order0.ts_ms);
        let mut writer = ChunkWriter::create(load.files.clone(), schema, opening.order0, window, load.buckets)?;
        let options = ReadOptions { zero_dates: load.zero_dates, batch_bytes: CHUNK_BATCH_BYTES };
        let mut reader = ChunkReader::open(rows, &description, range, &options).await?;
        while let Some(batch) = reader.next_batch().await? {
            writer.write(&batch).await?;
            self.throttle.after_batch(batch.num_rows() as u64, batch.get_array_memory_size() as u64).await?;
        }
        Ok(writer.finish().await?)
    }

    /// Hands the chunk over to the table's worker and waits until it is in a commit.
    async fn merge_by_desk(&self, desk: &ChunkDesk, load: &Load, parts: WaitingParts) -> Result<ChunkFate, SeedError> {
        let chunk = ChunkId(self.next_chunk.fetch_add(1, Ordering::Relaxed));
        let (outcome, merged) = oneshot::channel();
        let WaitingParts { plan, ordinal, staged, opening, upper, server_uuid } = parts;
        desk.leave(&load.table, chunk, WaitingChunk { plan, ordinal, order0: opening.order0, staged, outcome });
        let read = ChunkRead { chunk, generation: opening.generation, upper, server_uuid, content: ChunkContent::Desk };
        if self.close(load, read).await?.is_none() {
            desk.take(&load.table, chunk);
            return Ok(ChunkFate::Unnamed);
        }
        let merged = merged.await.map_err(|_| SeedError::NotCaptured)? == ChunkOutcome::Merged;
        Ok(if merged { ChunkFate::Merged } else { ChunkFate::Unnamed })
    }

    /// Names the chunk's files in the stream and waits until every bucket has taken in its share, or refused it.
    async fn merge_by_lake(
        &self,
        lake: &LakeMerging,
        load: &Load,
        parts: WaitingParts,
    ) -> Result<ChunkFate, SeedError> {
        let chunk = ChunkId(self.next_chunk.fetch_add(1, Ordering::Relaxed));
        let WaitingParts { plan, ordinal, staged, opening, upper, server_uuid } = parts;
        let content = lake.content(plan, ordinal, opening.order0, &staged);
        // Keys are in memory no longer; whoever merges reads them from the files.
        drop(staged);
        let read = ChunkRead { chunk, generation: opening.generation, upper, server_uuid, content };
        let Some(number) = self.close(load, read).await? else { return Ok(ChunkFate::Unnamed) };
        lake.reached(&load.table, number).await?;
        if lake.was_refused(&load.table, chunk).await? {
            return Ok(ChunkFate::Refused);
        }
        lake.done(&load.table, plan, ordinal, chunk).await?;
        Ok(ChunkFate::Merged)
    }

    /// Tells capture that a chunk has been read; the publish of its marker, or none if the attempt was void.
    async fn close(&self, load: &Load, read: ChunkRead) -> Result<Option<PublishNumber>, SeedError> {
        let (sent, passed) = oneshot::channel();
        let ChunkRead { chunk, generation, upper, server_uuid, content } = read;
        let read = ReadChunk { table: load.table.clone(), chunk, generation, upper, server_uuid, content, sent };
        self.ask(Request::CloseChunk(read)).await?;
        passed.await.map_err(|_| SeedError::NotCaptured)
    }

    async fn ask(&self, request: Request) -> Result<(), SeedError> {
        self.requests.send(request).await.map_err(|_| SeedError::NotCaptured)
    }
}

fn rows_of(finished: Result<Result<u64, SeedError>, tokio::task::JoinError>) -> Result<u64, SeedError> {
    // An attempt is aborted only together with the load that waits for it.
    finished.unwrap_or(Err(SeedError::NotCaptured))
}

/// A chunk attempt that has been read.
struct WaitingParts {
    plan: u64,
    ordinal: u32,
    staged: Vec<StagedChunk>,
    opening: ChunkOpening,
    upper: LogPosition,
    server_uuid: String,
}

/// What capture is told of it.
struct ChunkRead {
    chunk: ChunkId,
    generation: u64,
    upper: LogPosition,
    server_uuid: String,
    content: ChunkContent,
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkFate {
    Merged,
    /// Some bucket could not take in its share; others may have, so the files stay.
    Refused,
    /// Nobody was told of its files.
    Unnamed,
}
