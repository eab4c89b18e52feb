//! Batches become a plan for a table, and the plan a commit. One [`Worker`] a table.
//!
//! In: a [`Subscription`]. Out: commits of a [`Table`], and [`Report`]s. [`reduce`], [`plan`] and [`conform`] decide
//! and do no I/O; the loop here does.
//!
//! A worker commits at the end of a publish, never inside one: only there does the boundary hold for its table. Over
//! Kafka it has some of a table's buckets, and others may have the rest: `shared` is what that takes.

pub mod chunks;
#[cfg(test)]
mod column_tests;
mod columns;
pub mod conform;
pub mod current;
pub mod fold;
mod folding;
#[cfg(test)]
mod image_tests;
#[cfg(test)]
mod key_tests;
pub mod log;
#[cfg(test)]
mod log_tests;
mod markers;
#[cfg(test)]
mod part_tests;
mod pending;
pub mod plan;
pub mod reduce;
mod shared;
mod state;
#[cfg(test)]
mod tests;
mod upkeep;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use weir_model::key::KeyRef;
use weir_model::{ChangeBatch, Order, RecordKeys, TableId};

use self::chunks::ChunkDesk;
use self::columns::schemas_of;
use self::conform::lake_rows;
use self::current::CurrentRows;
use self::folding::{Whole, make_whole, require_whole};
use self::log::log;
use self::markers::MarkerAt;
use self::pending::Pending;
use self::plan::{Known, StreamPlan};
use self::reduce::{ChangeAt, Lateness, reduce};
pub use self::shared::SharedTable;
use self::state::{advance, raise_orders, reads, state_at};
use self::upkeep::Jobs;
pub use self::upkeep::Upkeep;
use crate::failpoint;
use crate::figures::{counters, standing};
use crate::table::{BucketRows, CommitOutcome, Located, RowAddress, Table, TableChange, TableError};
use crate::trace::StageCount;
use crate::transport::{Boundary, Delivery, Item, PublishNumber, Subscription};

/// What a worker tells its supervisor.
#[derive(Debug)]
pub enum Report {
    /// A commit; if there is a `number`, everything up to that publish is in the table.
    Committed { table: TableId, number: Option<PublishNumber>, version: i64, accounts: Vec<StageCount> },
    /// Everything up to a publish is in the table, by commits that were reported before.
    Reached { table: TableId, number: PublishNumber },
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
    /// Rows by another record key: a load from the beginning makes up for it.
    #[error("{0}; re-seed it with `weir snapshot --table` once the source has the shape you want")]
    OtherKey(String),
    #[error("{0}")]
    Rows(String),
    /// The topic does not hold what the table has not taken in.
    #[error("{0}; load the table anew with `weir snapshot --table`")]
    Topic(String),
    /// The source has to be asked for rows, and did not answer before the worker had to end.
    #[error("the source did not give the rows of changes that leave columns out: {0}")]
    SourceAway(String),
}

impl WorkerError {
    /// Whether the warehouse could not be had: nothing is wrong with the table, and beginning again from what is durable
    /// may help.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Table(error) if error.is_away())
    }
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
    /// A marker of which some buckets' copies have come.
    marker: Option<MarkerAt>,
    last_commit: Option<Instant>,
    /// Whether memory has asked for a commit since upkeep was last thought of: changes come faster than they are taken in.
    is_behind: bool,
    /// The newest publish that something was received of.
    seen: PublishNumber,
    /// Why it cannot go on from where the table stands.
    failed: Option<WorkerError>,
    /// How to go on with a table that others write, too.
    shared: Option<SharedTable>,
    /// Who has the rows of changes that leave columns out, where the table cannot tell them.
    source: Option<Arc<dyn CurrentRows>>,
    jobs: Jobs,
}

impl<S: Subscription> Worker<S> {
    pub fn new(
        table: Table,
        subscription: S,
        desk: ChunkDesk,
        reports: mpsc::UnboundedSender<Report>,
        pace: Pace,
    ) -> Self {
        let (pending, marker, last_commit, shared, source) = (Pending::default(), None, None, None, None);
        let seen = PublishNumber::default();
        let (is_behind, failed, jobs) = (false, None, Jobs::new(None));
        Self {
            table,
            subscription,
            desk,
            reports,
            pace,
            pending,
            marker,
            last_commit,
            is_behind,
            seen,
            failed,
            shared,
            source,
            jobs,
        }
    }

    /// Reads rows at the source that changes leave columns of out.
    #[must_use]
    pub fn with_source(self, source: Arc<dyn CurrentRows>) -> Self {
        Self { source: Some(source), ..self }
    }

    /// Compacts and cleans the table, too.
    #[must_use]
    pub fn with_upkeep(self, upkeep: Upkeep) -> Self {
        Self { jobs: Jobs::new(Some(upkeep)), ..self }
    }

    /// For a table that others may write, too.
    #[must_use]
    pub fn shared(self, shared: SharedTable) -> Self {
        Self { shared: Some(shared), ..self }
    }

    /// Begins as if it had just failed with `error`.
    #[must_use]
    pub fn after(self, error: WorkerError) -> Self {
        Self { failed: Some(error), ..self }
    }

    /// Runs until the subscription ends; what it has received by then is committed.
    pub async fn run(mut self) {
        let id = self.table.schema().table.clone();
        standing().wrote(&id, self.table.now());
        loop {
            let Err(error) = self.apply_all().await else { return self.keep_index().await };
            // Nothing is wrong with the table: whoever begins where it stands tries again.
            if self.shared.is_some() && !matches!(error, WorkerError::SourceAway(_)) {
                // What follows is of no use without what failed, until a load makes up for it.
                match self.wait_for_a_load(error).await {
                    Ok(true) => continue,
                    Ok(false) => return,
                    Err(error) => {
                        let _ = self.reports.send(Report::Stopped { table: id, error });
                        return;
                    }
                }
            }
            let _ = self.reports.send(Report::Stopped { table: id, error });
            return;
        }
    }

    /// Runs until the subscription ends, and gives the table back: for whoever works on the table in between.
    ///
    /// # Errors
    /// What would have been reported as the worker's end.
    pub async fn run_to_end(mut self) -> Result<Table, WorkerError> {
        self.apply_all().await?;
        Ok(self.table)
    }

    async fn apply_all(&mut self) -> Result<(), WorkerError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        loop {
            if self.is_overdue() {
                self.commit_changes().await?;
                self.is_behind = true;
                continue;
            }
            if self.jobs.are_due() {
                self.tend().await?;
            }
            let due = self.due();
            let look = self.jobs.next_look();
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
                done = self.jobs.done(), if look.is_none() => self.end_upkeep(done).await?,
                () = sleep_until(look), if look.is_some() => {}
            }
        }
    }

    /// Whether memory asks for a commit: a timer for now fires later than what is ready to be received.
    fn is_overdue(&self) -> bool {
        let full = self.pending.bytes >= self.pace.bytes_max || *self.pace.pressure.borrow();
        full && self.pending.complete.is_some() && !self.pending.inside_publish
    }

    /// When the next commit is due unless memory asks for it; `None` while nothing can be committed.
    fn due(&self) -> Option<Instant> {
        let (_, boundary) = self.pending.complete.as_ref()?;
        if self.pending.inside_publish {
            return None;
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

    async fn receive(&mut self, mut delivery: Delivery) -> Result<(), WorkerError> {
        self.seen = self.seen.max(delivery.number);
        self.belongs_here(&delivery)?;
        if let Item::Marker(_) = &delivery.item {
            let gathered = MarkerAt::gather(&mut self.marker, delivery);
            // Capture sends markers in publishes of their own, so what is pending is complete.
            let committed = self.commit_changes().await;
            return match (committed, gathered) {
                (Ok(()), Some(marker)) => self.apply_marker(marker).await,
                (Ok(()), None) => Ok(()),
                (Err(error), gathered) => {
                    // It may be the load that makes up for what failed.
                    self.marker = gathered.or(self.marker.take());
                    Err(error)
                }
            };
        }
        let share = delivery.share.take();
        let Delivery { number, boundary, item, last, hold, .. } = delivery;
        match item {
            Item::Changes(changes) => {
                self.pending.receive(changes, share.clone());
                self.pending.holds.extend(hold);
            }
            Item::TransactionEnd => self.pending.partial_rows = 0,
            Item::Unreadable(why) => {
                self.commit_changes().await?;
                return Err(WorkerError::Topic(why));
            }
            Item::Marker(_) | Item::Nothing => {}
        }
        self.pending.place(number, boundary, last, share);
        Ok(())
    }

    /// Refuses messages of a topic that is not the one the table has been reading, but for the beginning of a load.
    fn belongs_here(&self, delivery: &Delivery) -> Result<(), WorkerError> {
        let Some(share) = &delivery.share else { return Ok(()) };
        let of_none = matches!(delivery.item, Item::Unreadable(_));
        if of_none || reads(self.table.state(), share) || markers::begins_a_load(&delivery.item) {
            return Ok(());
        }
        Err(WorkerError::Topic(format!(
            "bucket {} comes to messages of another topic at offset {}: the topic was deleted and made again",
            share.bucket,
            share.offset - 1
        )))
    }

    /// Commits everything pending in one commit.
    async fn commit_changes(&mut self) -> Result<(), WorkerError> {
        let Some((number, boundary)) = self.pending.complete.clone() else { return Ok(()) };
        if let Some(gtid) = boundary.partial.as_ref().filter(|_| self.pending.partial_rows > 0) {
            let table = &self.table.schema().table;
            tracing::info!(%table, %gtid, "a transaction that is larger than memory is shown in parts");
        }
        failpoint::reach(failpoint::CONSUMED);
        loop {
            self.pending.drop_applied(self.table.state());
            if self.shared.is_some() && self.pending.shares.is_empty() {
                // All of it is in: another owner of these buckets was faster.
                self.pending = Pending::default();
                return Ok(());
            }
            let Some(change) = self.change_of_pending(&boundary).await? else { continue };
            if self.put(change, Some(number)).await? {
                self.pending = Pending::default();
                return Ok(());
            }
        }
    }

    /// What is pending as a commit; `None` if it must be worked out again, since the table has been given other columns.
    async fn change_of_pending(&mut self, boundary: &Boundary) -> Result<Option<TableChange>, WorkerError> {
        let Some(fit) = self.fit(schemas_of(&self.pending.batches)).await? else { return Ok(None) };
        let batches = &self.pending.batches;
        let lake = fit.evolve.clone().map_or_else(|| self.table.schema().clone(), Arc::new);
        let keeps_all = lake.layout.is_append();
        let mut whole = Whole::default();
        let StreamPlan { upserts, deletes, tally } = if keeps_all {
            require_whole(batches)?;
            log(batches, &self.buckets_of_batches(), self.greatest())
        } else {
            // By the batch's own names of the key's columns: they may be spelled in another case than the lake's.
            let keys_of = |batch: &ChangeBatch| RecordKeys::of(&batch.rows, &batch.schema.key_names());
            let keys: Vec<RecordKeys> = batches
                .iter()
                .map(keys_of)
                .collect::<Result<_, _>>()
                .map_err(|error| WorkerError::Rows(error.to_string()))?;
            let lateness = self.lateness();
            let mut plan = plan_changes(&mut self.table, batches, &keys, lateness).await?;
            let is_ending = || *self.pace.hurry.borrow();
            whole = make_whole(&self.table, self.source.as_ref(), &self.pending, &keys, &mut plan, is_ending).await?;
            plan
        };
        let mut rows = Vec::new();
        for (bucket, upserts) in self.by_bucket(upserts) {
            let failed = |error: &dyn std::fmt::Display| WorkerError::Rows(error.to_string());
            let batch = lake_rows(batches, &upserts, &lake, &fit.absences, &whole).map_err(|error| failed(&error))?;
            let keys = if keeps_all { Ok(RecordKeys::none()) } else { RecordKeys::of(&batch, &lake.key_names()) };
            let keys = keys.map_err(|error| failed(&error))?;
            rows.push(BucketRows { bucket, rows: batch, keys });
        }
        let part = (!batches.is_empty()).then_some(self.pending.partial_rows);
        let mut state = state_at(self.table.state(), boundary, part);
        advance(&mut state, &self.pending.shares);
        for (bucket, newest) in self.pending.newest() {
            raise_orders(&mut state, bucket, newest);
        }
        let mut accounts = self.pending.sent.clone();
        accounts.add(&tally);
        Ok(Some(TableChange { rows, deletes, accounts, ..fit.change(state) }))
    }

    /// Only what travels through a topic can come twice.
    fn lateness(&self) -> Lateness {
        if self.shared.is_none() {
            return Lateness::default();
        }
        Lateness::new(self.greatest(), self.buckets_of_batches())
    }

    /// The greatest order that each of our buckets has come to in the stream.
    fn greatest(&self) -> BTreeMap<u32, Order> {
        let state = self.table.state();
        self.table.buckets().owned.iter().map(|bucket| (*bucket, state.greatest_of(*bucket))).collect()
    }

    fn buckets_of_batches(&self) -> Vec<u32> {
        (0..self.pending.batches.len()).map(|batch| self.pending.bucket(batch as u32)).collect()
    }

    /// Upserts by the bucket of their batch, each in its order.
    fn by_bucket(&self, upserts: Vec<ChangeAt>) -> BTreeMap<u32, Vec<ChangeAt>> {
        let mut by_bucket: BTreeMap<u32, Vec<ChangeAt>> = BTreeMap::new();
        for at in upserts {
            by_bucket.entry(self.pending.bucket(at.batch)).or_default().push(at);
        }
        by_bucket
    }

    /// Commits and reports. False if someone else has committed: that was taken in, and what is to be committed must be
    /// worked out again.
    async fn put(&mut self, change: TableChange, number: Option<PublishNumber>) -> Result<bool, WorkerError> {
        let begun = Instant::now();
        let outcome = match self.table.commit(change).await {
            Ok(outcome) => outcome,
            Err(error) => return self.open_after(error).await.map(|()| false),
        };
        if matches!(outcome, CommitOutcome::Committed { .. }) {
            counters().commit_took(begun.elapsed());
        }
        let is_in = self.take_outcome(outcome, number).await?;
        if is_in {
            self.last_commit = Some(Instant::now());
        }
        Ok(is_in)
    }

    /// Reports a commit that is in; false if it is not, since someone else has committed: that was taken in.
    async fn take_outcome(
        &mut self,
        outcome: CommitOutcome,
        number: Option<PublishNumber>,
    ) -> Result<bool, WorkerError> {
        match outcome {
            CommitOutcome::Committed { version, accounts } => {
                let table = self.table.schema().table.clone();
                counters().committed(&table);
                standing().wrote(&table, self.table.now());
                self.report(Report::Committed { table, number, version, accounts });
                Ok(true)
            }
            CommitOutcome::Moved => self.absorb().await.map(|()| false),
            CommitOutcome::Fenced { epoch } => Err(WorkerError::Fenced { epoch }),
        }
    }

    fn report(&self, report: Report) {
        // The supervisor is gone only while the process shuts down.
        let _ = self.reports.send(report);
    }
}

/// What to do with the pending changes; reads orders from the table only where a change could lose.
async fn plan_changes(
    table: &mut Table,
    batches: &[ChangeBatch],
    keys: &[RecordKeys],
    lateness: Lateness,
) -> Result<StreamPlan, WorkerError> {
    let reduced = reduce(batches, keys, lateness);
    let winners: Vec<KeyRef<'_>> =
        reduced.winners.iter().map(|at| keys[at.batch as usize].get(at.row as usize)).collect();
    let located = table.locate_all(&winners);
    let could_lose = |(at, located): (&ChangeAt, &Located)| match located {
        Located::Live(address) if reduce::order(batches, *at) <= table.file_greatest(*address) => Some(*address),
        _ => None,
    };
    let doubtful: Vec<RowAddress> = reduced.winners.iter().zip(&located).filter_map(could_lose).collect();
    let orders = table.orders_of(&doubtful).await?;
    let orders: HashMap<RowAddress, Order> = doubtful.into_iter().zip(orders).collect();
    let known = located.into_iter().map(|located| match located {
        Located::Live(address) => orders.get(&address).map_or(Known::LiveBelow, |order| Known::Live(*order)),
        Located::Deleted(order) => Known::Deleted(order),
        Located::Absent => Known::Absent,
    });
    let deletes = table.schema().layout.deletes;
    Ok(plan::plan(batches, keys, reduced, deletes, |key| table.floor_of(key), known))
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
