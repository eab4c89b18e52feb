//! Loads beside the stream, of whole tables and of parts: plan, chunks, merge, end.
//!
//! Reading order: `plan` (what is read, divided), `attempt` (how a chunk is read and merged so that the greater order wins),
//! `removal` (what is gone from the source), and [`Loader::load`] here, which runs them.

mod attempt;
mod plan;
mod removal;
mod standing;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use snapshot_loader::{Progress, Throttle};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio::task::JoinSet;
use weir_model::{Layout, LogPosition, Order, RowRules, RuleError, TableId, ZeroDates, clock};
use weir_mysql::{Conn, MysqlError, RowConnection, SourceOptions, TableDescription, catalogue, server};

use self::attempt::Taken;
pub use self::plan::{LoadScope, SeedPlan};
pub use self::standing::{LoadStanding, load_standing, stands};
use super::kafka::merging::LakeMerging;
use crate::apply::Report;
use crate::apply::chunks::ChunkDesk;
use crate::capture::request::{Request, SeedOpening};
use crate::failpoint;
use crate::limits::CHUNK_RETRY_DELAY;
use crate::state::jobs::{JobId, JobProgress, JobState, JobStore, Scope};
use crate::state::{StateError, StateSeries};
use crate::table::{SeedProgress, TableError, TableFiles};

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
    #[error(transparent)]
    Rules(#[from] RuleError),
    #[error(
        "{table} has no key, so it is read in one piece behind a short lock: {source}. Allow it with GRANT LOCK TABLES, or \
         follow the table without loading it by [source] snapshot = \"never\""
    )]
    Lock { table: TableId, source: Box<MysqlError> },
    /// The server that chunks are read from has changes that the streamed one lacks.
    #[error(
        "[source] snapshot_url names a server with transactions of its own ({errant}): what they changed would never come in \
         the stream. Read from another replica, or rid this one of them"
    )]
    Errant { errant: String },
    /// Capture has ended or no longer captures the table; whoever ended it knows why.
    #[error("the table is no longer captured")]
    NotCaptured,
}

/// The table was altered or dropped between being described and being read: unknown column, no such table.
pub(super) const SHAPE_CHANGED: [u16; 2] = [1054, 1146];

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
    /// The server that capture streams from.
    pub source: SourceOptions,
    /// The server that chunks are read from, if it is another one.
    pub replica: Option<SourceOptions>,
    pub throttle: Arc<Throttle>,
    pub requests: mpsc::Sender<Request>,
    pub merging: Merging,
    /// One permit a connection that reads chunks.
    pub connections: Arc<Semaphore>,
    /// Chunks of a table that are read, or wait to be merged, at once: what a kill makes to be read again.
    pub chunks_at_once: usize,
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

/// What a load has come to so far; its job tells of it.
#[derive(Debug, Default)]
pub struct LoadFigures {
    pub chunks: AtomicU64,
    pub chunks_done: AtomicU64,
    pub rows: AtomicU64,
    /// By the engine's statistics, of the whole plan.
    pub rows_estimated: AtomicU64,
    /// When the load was planned, ms since the epoch.
    pub begun_ms: AtomicI64,
    /// Keys that were found to be gone from the source.
    pub removed: AtomicU64,
}

/// What a job is told of its load.
pub fn running(plan: u64, figures: &LoadFigures) -> JobProgress {
    JobProgress {
        state: JobState::Running,
        plan,
        chunks: figures.chunks.load(Ordering::Relaxed),
        chunks_done: figures.chunks_done.load(Ordering::Relaxed),
        rows: figures.rows.load(Ordering::Relaxed),
        updated_ms: clock::now_ms(),
    }
}

/// A table, or a part of it, to be loaded.
#[derive(Clone)]
pub struct Load {
    pub table: TableId,
    pub key: Option<Vec<String>>,
    pub zero_dates: ZeroDates,
    /// What of its columns the lake gets.
    pub rules: RowRules,
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
    pub scope: LoadScope,
    pub figures: Arc<LoadFigures>,
    /// The job that asked for it, which is told the number of its plan.
    pub job: Option<(JobStore, JobId)>,
}

/// A load that has been planned and announced.
struct Planned {
    /// Number of the plan.
    number: u64,
    plan: SeedPlan,
    /// Ordinals of the chunks that are in.
    done: BTreeSet<u32>,
    /// What the load reads, and all that comes from its beginning on, has a greater order.
    start: Order,
}

impl Loader {
    /// Loads what `load` says; returns once every chunk is in a commit and the end has been asked for.
    pub async fn load(&self, load: Load) -> Result<(), SeedError> {
        let Planned { number, plan, done, start } = loop {
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
        load.figures.rows_estimated.store(plan.rows_estimated, Ordering::Relaxed);
        load.figures.begun_ms.store(plan.begun_ms, Ordering::Relaxed);
        load.figures.chunks.store(plan.chunks.len() as u64, Ordering::Relaxed);
        load.figures.chunks_done.store(done.len() as u64, Ordering::Relaxed);
        let plan = Arc::new(plan);
        let mut attempts = JoinSet::new();
        for ordinal in (0..plan.chunks.len() as u32).filter(|ordinal| !done.contains(ordinal)) {
            while attempts.len() >= self.chunks_at_once
                && let Some(finished) = attempts.join_next().await
            {
                taken_of(finished)?;
            }
            let (loader, load, plan, progress) = (self.clone(), load.clone(), plan.clone(), progress.clone());
            attempts.spawn(async move {
                let taken = loader.chunk(&load, number, ordinal, &plan.chunks[ordinal as usize], &progress).await?;
                progress.chunk_done();
                load.figures.chunks_done.fetch_add(1, Ordering::Relaxed);
                load.figures.rows.fetch_add(taken.rows, Ordering::Relaxed);
                load.figures.removed.fetch_add(taken.absent, Ordering::Relaxed);
                Ok(taken)
            });
        }
        while let Some(finished) = attempts.join_next().await {
            taken_of(finished)?;
        }
        failpoint::reach(failpoint::LOAD_DONE);
        if load.looks_for_absent() {
            let removed = self.remove_absent(&load, number, start, &progress).await?;
            load.figures.removed.fetch_add(removed, Ordering::Relaxed);
        }
        self.end(&load.table, number, load.scope.is_part()).await
    }

    /// Says that a load is over; of a part also one that has been given up.
    pub async fn end(&self, table: &TableId, plan: u64, part: bool) -> Result<(), SeedError> {
        let (reply, sent) = oneshot::channel();
        self.ask(Request::EndSeed { table: table.clone(), plan, part, reply }).await?;
        let sent = sent.await.ok().flatten().ok_or(SeedError::NotCaptured)?;
        if let Merging::Lake(lake) = &self.merging {
            lake.reached(table, sent).await?;
            // A part settles its own, chunk by chunk: by now another one may be under way.
            if !part {
                lake.settle_refusals(table).await?;
            }
            lake.report(Report::SeedEnded { table: table.clone(), plan });
        }
        Ok(())
    }

    /// The plan to follow: the one under way, or a fresh one that is announced in the stream.
    async fn plan(&self, load: &Load) -> Result<Planned, SeedError> {
        if let Some(SeedProgress { plan: number, done, start, .. }) = &load.resume
            && let Some(bytes) = load.plans.read(*number).await?
            && let Ok(plan) = serde_json::from_slice::<SeedPlan>(&bytes)
        {
            load.plan_under_way.store(*number, Ordering::Release);
            return Ok(Planned { number: *number, plan, done: done.iter().copied().collect(), start: *start });
        }
        let _permit = self.permit().await?;
        let mut connection = self.connect_to_read().await?;
        let description = self.describe(&mut connection, load).await?;
        let plan = plan::plan(&mut connection, &description, &load.scope).await?;
        let bytes = serde_json::to_vec(&plan).expect("a plan is plain data");
        let number = load.plans.append(bytes.into()).await?;
        failpoint::reach(failpoint::LOAD_PLANNED);
        load.plan_under_way.store(number, Ordering::Release);
        if let Merging::Lake(lake) = &self.merging {
            // Before the load is announced: one that was announced must find how far it is.
            lake.begin(&load.table, number, load.scope.is_part()).await?;
        }
        if let Some((jobs, job)) = &load.job {
            // Before it is announced: whoever finds that a load was given up must find its number.
            jobs.note_progress(job, &running(number, &load.figures)).await?;
        }
        let (reply, answer) = oneshot::channel();
        let rules = load.rules.bind(&description.schema)?;
        let schema = rules.map_or_else(|| Arc::new(description.schema), |rules| rules.schema().clone());
        let table = load.table.clone();
        let (reset, part) = (load.reset, load.scope.is_part());
        self.ask(Request::BeginSeed(SeedOpening { table, plan: number, schema, reset, part, reply })).await?;
        let begun = answer.await.ok().flatten().ok_or(SeedError::NotCaptured)?;
        if let Merging::Lake(lake) = &self.merging {
            lake.begun(&load.table, number, begun.number, part);
        }
        Ok(Planned { number, plan, done: BTreeSet::new(), start: begun.start })
    }

    /// Waits until one more connection may read rows.
    async fn permit(&self) -> Result<SemaphorePermit<'_>, SeedError> {
        self.connections.acquire().await.map_err(|_| SeedError::NotCaptured)
    }

    /// A connection to the server that rows are read from. A replica of the streamed one must have nothing of its own.
    async fn connect_to_read(&self) -> Result<Conn, SeedError> {
        let Some(replica) = &self.replica else { return Ok(weir_mysql::connect(&self.source).await?) };
        let mut connection = weir_mysql::connect(replica).await?;
        let there = server::executed_gtids(&mut connection).await?;
        // Asked second: it has by now whatever came from it.
        let here = server::executed_gtids(&mut weir_mysql::connect(&self.source).await?).await?;
        let errant = there.difference(&here);
        if errant.is_empty() { Ok(connection) } else { Err(SeedError::Errant { errant: errant.to_string() }) }
    }

    /// One for the rows themselves, to the server that `connection` leads to.
    async fn connect_for_rows(&self, connection: &mut Conn) -> Result<RowConnection, SeedError> {
        Ok(RowConnection::beside(self.replica.as_ref().unwrap_or(&self.source), connection).await?)
    }

    /// The end of the binlog of the server that capture streams from, and that server's uuid. `connection` is one that rows
    /// were read by.
    async fn end_of_stream(&self, mut connection: Conn) -> Result<(LogPosition, String), SeedError> {
        if self.replica.is_some() {
            connection = weir_mysql::connect(&self.source).await?;
        }
        let upper = server::binlog_end(&mut connection).await?;
        Ok((upper, server::server_facts(&mut connection).await?.server_uuid))
    }

    async fn describe(&self, connection: &mut weir_mysql::Conn, load: &Load) -> Result<TableDescription, SeedError> {
        let mut description = catalogue::describe(connection, &load.table).await?.ok_or(SeedError::Gone)?;
        description.schema.layout = load.layout.clone();
        match &load.key {
            Some(key) => description.with_key(key).map_err(|_| SeedError::Gone),
            None => Ok(description),
        }
    }

    async fn ask(&self, request: Request) -> Result<(), SeedError> {
        self.requests.send(request).await.map_err(|_| SeedError::NotCaptured)
    }
}

fn taken_of(finished: Result<Result<Taken, SeedError>, tokio::task::JoinError>) -> Result<Taken, SeedError> {
    // An attempt is aborted only together with the load that waits for it.
    finished.unwrap_or(Err(SeedError::NotCaptured))
}

impl Load {
    /// Whether rows of the lake in its range that it did not find must be looked for one by one: a load of the whole table
    /// tells them by their orders, one of keys knows which it asked for, and a log keeps what it has.
    fn looks_for_absent(&self) -> bool {
        let is_range = matches!(self.scope, LoadScope::Part(Scope::All | Scope::Range { .. }));
        is_range && !self.layout.is_append()
    }
}
