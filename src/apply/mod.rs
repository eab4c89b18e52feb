//! Batches become a plan for a table, and the plan a commit. One [`Worker`] a table.
//!
//! In: a [`Subscription`]. Out: commits of a [`Table`], and [`Report`]s. [`reduce`], [`plan`] and [`conform`] decide
//! and do no I/O; the loop here does.
//!
//! A worker commits at the end of a publish, never inside one: only there does the boundary hold for its table.

pub mod chunks;
pub mod conform;
pub mod plan;
pub mod reduce;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use weir_model::schema::{Evolution, evolution};
use weir_model::{ChangeBatch, Order, OrderState, RecordKeys, TableId, TableSchema};

use self::chunks::{ChunkDesk, ChunkOutcome, WaitingChunk};
use self::conform::lake_rows;
use self::plan::{Known, StreamPlan};
use self::reduce::reduce;
use crate::table::{
    BucketRows, Clear, CommitOutcome, Located, PartialTransaction, RemoveBelow, RowAddress, SeedProgress, StagedChunk,
    Table, TableChange, TableError, TableState,
};
use crate::trace::{StageCount, Tally};
use crate::transport::{Boundary, Changes, Delivery, Item, Marker, PublishNumber, Subscription};

/// The bucket of every row: a table that is fed through `direct` is not sharded.
const BUCKET: u32 = 0;

/// What a worker tells its supervisor.
#[derive(Debug)]
pub enum Report {
    /// A commit; if there is a `number`, everything up to that publish is in the table.
    Committed { table: TableId, number: Option<PublishNumber>, version: i64, accounts: Vec<StageCount> },
    /// A load has begun durably: its progress is in the table.
    SeedBegun { table: TableId, plan: u64 },
    /// Every chunk of the load is in.
    SeedEnded { table: TableId, plan: u64 },
    /// The worker has ended with an error; nothing after the last commit is in the table.
    Stopped { table: TableId, error: WorkerError },
}

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error(transparent)]
    Table(#[from] TableError),
    /// Another service has taken over.
    #[error("another instance took over (epoch {epoch})")]
    Fenced { epoch: u64 },
    /// Someone else committed to the table; its state must be read again.
    #[error("another writer committed to the table in between")]
    Moved,
    #[error("{0}; re-seed it with `weir snapshot --table` once the source has the shape you want")]
    Schema(String),
    #[error("{0}")]
    Rows(String),
}

/// How a worker paces itself.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Time between two commits while changes flow.
    pub interval: Duration,
    /// Bytes that are committed without waiting.
    pub bytes_max: usize,
    /// True while nobody wants to wait: commit as soon as something is there.
    pub hurry: watch::Receiver<bool>,
    /// True while the transport waits for memory that workers hold: commit even in mid-transaction.
    pub pressure: watch::Receiver<bool>,
}

/// Applies one table's stream.
pub struct Worker<S> {
    table: Table,
    subscription: S,
    desk: ChunkDesk,
    reports: mpsc::UnboundedSender<Report>,
    pace: Pace,
    pending: Pending,
    last_commit: Option<Instant>,
}

/// Changes received and not committed.
#[derive(Debug, Default)]
struct Pending {
    batches: Vec<ChangeBatch>,
    sent: Tally,
    holds: Vec<tokio::sync::OwnedSemaphorePermit>,
    bytes: usize,
    partial_rows: u64,
    /// The newest publish received whole; its boundary is the table's when `batches` are committed.
    complete: Option<(PublishNumber, Arc<Boundary>)>,
    /// Items of a publish have been received, but not its last.
    inside_publish: bool,
}

impl Pending {
    fn receive(&mut self, changes: Changes) {
        self.bytes += changes.batch.bytes();
        self.sent.add(&changes.sent);
        self.partial_rows = changes.partial_rows;
        self.batches.push(changes.batch);
    }
}

impl<S: Subscription> Worker<S> {
    pub fn new(
        table: Table,
        subscription: S,
        desk: ChunkDesk,
        reports: mpsc::UnboundedSender<Report>,
        pace: Pace,
    ) -> Self {
        Self { table, subscription, desk, reports, pace, pending: Pending::default(), last_commit: None }
    }

    /// Runs until the subscription ends; what it has received by then is committed.
    pub async fn run(mut self) {
        let id = self.table.schema().table.clone();
        if let Err(error) = self.apply_all().await {
            let _ = self.reports.send(Report::Stopped { table: id, error });
        }
    }

    async fn apply_all(&mut self) -> Result<(), WorkerError> {
        loop {
            let due = self.due();
            tokio::select! {
                biased;
                () = sleep_until(due), if due.is_some() => self.commit_changes().await?,
                delivery = self.subscription.next() => match delivery {
                    Some(delivery) => self.receive(delivery).await?,
                    None if self.pending.inside_publish => return Ok(()),
                    None => return self.commit_changes().await,
                },
                Ok(()) = self.pace.hurry.changed() => {}
                Ok(()) = self.pace.pressure.changed() => {}
            }
        }
    }

    /// When the next commit is due; `None` while nothing can be committed.
    fn due(&self) -> Option<Instant> {
        let (_, boundary) = self.pending.complete.as_ref()?;
        if self.pending.inside_publish {
            return None;
        }
        if self.pending.bytes >= self.pace.bytes_max || *self.pace.pressure.borrow() {
            return Some(Instant::now());
        }
        // A transaction is shown whole unless it is larger than the memory for it.
        if boundary.partial.is_some() && self.pending.partial_rows > 0 {
            return None;
        }
        if *self.pace.hurry.borrow() {
            return Some(Instant::now());
        }
        Some(self.last_commit.map_or_else(Instant::now, |last| last + self.pace.interval))
    }

    async fn receive(&mut self, delivery: Delivery) -> Result<(), WorkerError> {
        let Delivery { number, boundary, item, last, hold } = delivery;
        match item {
            Item::Changes(changes) => {
                self.pending.receive(changes);
                self.pending.holds.extend(hold);
                self.pending.inside_publish = !last;
                if last {
                    self.pending.complete = Some((number, boundary));
                }
                Ok(())
            }
            Item::TransactionEnd => {
                self.pending.partial_rows = 0;
                self.pending.inside_publish = !last;
                if last {
                    self.pending.complete = Some((number, boundary));
                }
                Ok(())
            }
            Item::Marker(marker) => {
                // Capture sends markers in publishes of their own, so what is pending is complete.
                self.commit_changes().await?;
                self.apply_marker(marker, last.then_some((number, boundary))).await
            }
        }
    }

    /// Commits everything pending in one commit.
    async fn commit_changes(&mut self) -> Result<(), WorkerError> {
        let Some((number, boundary)) = self.pending.complete.take() else { return Ok(()) };
        let pending = std::mem::take(&mut self.pending);
        let evolve = evolve_to_hold(self.table.schema(), pending.batches.iter().map(|b| &b.schema))?;
        let lake = evolve.clone().map_or_else(|| self.table.schema().clone(), Arc::new);
        // By the batch's own names of the key's columns: they may be spelled in another case than the lake's.
        let keys_of = |batch: &ChangeBatch| RecordKeys::of(&batch.rows, &batch.schema.key_names());
        let keys: Vec<RecordKeys> = pending
            .batches
            .iter()
            .map(keys_of)
            .collect::<Result<_, _>>()
            .map_err(|error| WorkerError::Rows(error.to_string()))?;
        let StreamPlan { upserts, deletes, tally } = self.plan(&pending.batches, &keys).await?;
        let rows =
            lake_rows(&pending.batches, &upserts, &lake).map_err(|error| WorkerError::Rows(error.to_string()))?;
        let row_keys =
            RecordKeys::of(&rows, &lake.key_names()).map_err(|error| WorkerError::Rows(error.to_string()))?;
        let mut state =
            state_at(self.table.state(), &boundary, (!pending.batches.is_empty()).then_some(pending.partial_rows));
        // Not each batch's last: copies may come behind what is newer.
        if let Some(newest) = pending.batches.iter().flat_map(|batch| &batch.orders).max() {
            raise_orders(&mut state, *newest);
        }
        let mut accounts = pending.sent;
        accounts.add(&tally);
        let rows = vec![BucketRows { bucket: BUCKET, rows, keys: row_keys }];
        let change = TableChange { rows, deletes, evolve, accounts, ..TableChange::to(state) };
        self.put(change, Some(number)).await
    }

    /// What to do with the pending changes; reads orders from the table only where a change could lose.
    async fn plan(&mut self, batches: &[ChangeBatch], keys: &[RecordKeys]) -> Result<StreamPlan, WorkerError> {
        let reduced = reduce(batches, keys);
        let mut doubtful = Vec::new();
        for at in &reduced.winners {
            let located = self.table.locate(keys[at.batch as usize].get(at.row as usize));
            if let Located::Live(address) = located
                && reduce::order(batches, *at) <= self.table.file_greatest(address)
            {
                doubtful.push(address);
            }
        }
        let orders = self.table.orders_of(&doubtful).await?;
        let orders: HashMap<RowAddress, Order> = doubtful.into_iter().zip(orders).collect();
        let table = &self.table;
        Ok(plan::plan(
            batches,
            keys,
            reduced,
            |key| table.floor_of(key),
            |key| match table.locate(key) {
                Located::Live(address) => orders.get(&address).map_or(Known::LiveBelow, |order| Known::Live(*order)),
                Located::Deleted(order) => Known::Deleted(order),
                Located::Absent => Known::Absent,
            },
        ))
    }

    async fn apply_marker(&mut self, marker: Marker, complete: Option<Complete>) -> Result<(), WorkerError> {
        let id = self.table.schema().table.clone();
        let mut state = match &complete {
            Some((_, boundary)) => state_at(self.table.state(), boundary, None),
            None => self.table.state().clone(),
        };
        let number = complete.map(|(number, _)| number);
        match marker {
            Marker::Schema(schema) => {
                let evolve = evolve_to_hold(self.table.schema(), std::iter::once(&schema))?;
                self.put(TableChange { evolve, ..TableChange::to(state) }, number).await
            }
            Marker::Clear { at } => {
                raise_orders(&mut state, at);
                let clear = Clear { at, buckets: BTreeSet::from([BUCKET]) };
                self.put(TableChange { clear: Some(clear), ..TableChange::to(state) }, number).await
            }
            Marker::SeedBegin { plan, start } => {
                raise_orders(&mut state, start);
                state.seed = Some(SeedProgress { plan, done: Vec::new(), start });
                self.put(TableChange::to(state), number).await?;
                self.report(Report::SeedBegun { table: id, plan });
                Ok(())
            }
            Marker::SeedEnd => {
                let Some(seed) = state.seed.take() else { return self.put(TableChange::to(state), number).await };
                let remove = RemoveBelow { order: seed.start, buckets: BTreeSet::from([BUCKET]) };
                self.put(TableChange { remove_below: Some(remove), ..TableChange::to(state) }, number).await?;
                self.report(Report::SeedEnded { table: id, plan: seed.plan });
                Ok(())
            }
            Marker::Chunk { chunk } => match self.desk.take(&id, chunk) {
                Some(chunk) => self.merge_chunk(chunk, state, number).await,
                None => self.put(TableChange::to(state), number).await,
            },
        }
    }

    /// Merges a chunk whose upper bound the stream has passed, or refuses it.
    async fn merge_chunk(
        &mut self,
        chunk: WaitingChunk,
        mut state: TableState,
        number: Option<PublishNumber>,
    ) -> Result<(), WorkerError> {
        let under_way = state.seed.as_ref().is_some_and(|seed| seed.plan == chunk.plan && chunk.order0 > seed.start);
        if !under_way || !self.table.may_merge(BUCKET, chunk.order0) {
            let _ = chunk.outcome.send(ChunkOutcome::Refused);
            return self.put(TableChange::to(state), number).await;
        }
        state.order = state.order.max(OrderState(chunk.order0));
        if let Some(seed) = &mut state.seed
            && let Err(at) = seed.done.binary_search(&chunk.ordinal)
        {
            seed.done.insert(at, chunk.ordinal);
        }
        let evolve = evolve_to_hold(self.table.schema(), chunk.staged.iter().map(StagedChunk::schema))?;
        self.put(TableChange { staged: chunk.staged.into_iter().collect(), evolve, ..TableChange::to(state) }, number)
            .await?;
        let _ = chunk.outcome.send(ChunkOutcome::Merged);
        Ok(())
    }

    /// Commits and reports.
    async fn put(&mut self, change: TableChange, number: Option<PublishNumber>) -> Result<(), WorkerError> {
        match self.table.commit(change).await? {
            CommitOutcome::Committed { version, accounts } => {
                self.last_commit = Some(Instant::now());
                let table = self.table.schema().table.clone();
                self.report(Report::Committed { table, number, version, accounts });
                Ok(())
            }
            CommitOutcome::Moved => Err(WorkerError::Moved),
            CommitOutcome::Fenced { epoch } => Err(WorkerError::Fenced { epoch }),
        }
    }

    fn report(&self, report: Report) {
        // The supervisor is gone only while the process shuts down.
        let _ = self.reports.send(report);
    }
}

/// The newest publish that a table has whole.
type Complete = (PublishNumber, Arc<Boundary>);

/// The lake schema that holds rows of all of `sources`, or `None` if it already does.
fn evolve_to_hold<'a>(
    lake: &Arc<TableSchema>,
    sources: impl Iterator<Item = &'a Arc<TableSchema>>,
) -> Result<Option<TableSchema>, WorkerError> {
    let mut evolved: Option<TableSchema> = None;
    let mut last: Option<&Arc<TableSchema>> = None;
    for source in sources {
        // Thousands of batches share one schema.
        if last.replace(source).is_some_and(|last| Arc::ptr_eq(last, source)) {
            continue;
        }
        let current = evolved.as_ref().unwrap_or(lake);
        match evolution(current, source) {
            Evolution::None => {}
            Evolution::Add(columns) => {
                let mut next = current.clone();
                next.columns.extend(columns);
                evolved = Some(next);
            }
            Evolution::Refused(why) => return Err(WorkerError::Schema(why)),
        }
    }
    Ok(evolved)
}

/// The table's state once everything up to `boundary` is in. `partial_rows` is how much of the boundary's partial
/// transaction the table has, if it received any changes.
///
/// The table's own set may be ahead of the boundary while a restarted stream is read again, so sets are joined.
fn state_at(state: &TableState, boundary: &Boundary, partial_rows: Option<u64>) -> TableState {
    let gtid_set = state.gtid_set.union(&boundary.gtid_set);
    let partial = match (&boundary.partial, partial_rows) {
        (Some(gtid), Some(rows_done)) if rows_done > 0 && !gtid_set.contains(gtid) => {
            Some(PartialTransaction { gtid: gtid.clone(), rows_done })
        }
        _ => state.partial.clone().filter(|partial| !gtid_set.contains(&partial.gtid)),
    };
    TableState { gtid_set, partial, ..state.clone() }
}

/// Nothing that is handed out from here on may be at or below `newest`.
fn raise_orders(state: &mut TableState, newest: Order) {
    state.order = state.order.max(OrderState(newest));
    match state.greatest.first_mut() {
        Some(greatest) => *greatest = newest.max(*greatest),
        None => state.greatest.push(newest),
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
