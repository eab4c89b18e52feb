//! Keeps one incarnation of the service together: what capture tells, what workers report, what is durable.
//!
//! The checkpoint object is the supervisor's: it advances only to where every healthy table is, and in the same write
//! says which tables are filling and which have stopped.

mod appeals;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use weir_model::{GtidSet, RowRules, TableId, clock};

use super::jobs::JobDesk;
use super::kafka::merging::LakeMerging;
use super::kafka::watch::LakeWatch;
use super::progress::Progress;
use super::proving::Proving;
use super::seed::{Load, LoadFigures, LoadScope, Loader, SeedError};
use super::shipping::{Patience, Shipper};
use super::status::way_out_of_stop;
use crate::apply::{Report, WorkerError};
use crate::capture::CaptureError;
use crate::capture::request::{Request, Told};
use crate::figures::{counters, standing};
use crate::limits::{
    APPEALS_LOOKED_AT_EVERY, CHECKPOINT_INTERVAL, CHECKPOINT_SOON, JOBS_LOOKED_AT_EVERY, PUBLISHER_ENDS_MAX,
    STANDING_TOLD_EVERY,
};
use crate::state::jobs::{Job, Scope};
use crate::state::{Checkpoint, CheckpointLog, Phase, PreparedStore, StateError, TableStanding};
use crate::trace::{Origin, Shipment};
use crate::transport::kafka::Durable;
use crate::transport::kafka::position::Position;
use crate::transport::{Boundary, PublishError, PublishNumber};

/// Why an incarnation ended without an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finished {
    /// It was asked to stop.
    Asked,
    /// Every table holds what it had to; the number is that of the tables that could not, because they stopped.
    CaughtUp { stopped: usize },
    /// A table's state moved under us: begin again from what is durable.
    Restart,
    /// These tables were asked to be loaded anew: begin again from what is durable, and them from their beginning.
    LoadAnew(Vec<TableId>),
}

/// What comes behind an incarnation in its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// Nothing, as far as is known.
    Ends,
    /// The next one, at once.
    GoesOn,
}

/// Why an incarnation cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("another instance took over (epoch {epoch}, ours is {ours})")]
    Fenced { epoch: u64, ours: u64 },
    #[error("{0}")]
    Trace(String),
    /// The warehouse could not be had, or its answer, for longer than requests are repeated.
    #[error("the warehouse is away: {table}: {error}")]
    Away { table: TableId, error: String },
}

impl Failure {
    /// Whether to begin again from what is durable once the warehouse is back.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Away { .. } => true,
            Self::State(error) => error.is_away(),
            Self::Capture(CaptureError::State(error)) => error.is_away(),
            Self::Capture(_) | Self::Fenced { .. } | Self::Trace(_) => false,
        }
    }
}

/// How a load is begun for a table; `None` if the table is not captured.
pub type LoadMaker = Box<dyn Fn(&TableId, LoadBegin) -> Option<Load> + Send>;

/// Where a load begins.
#[derive(Debug, Clone, PartialEq)]
pub enum LoadBegin {
    /// The whole table, from the beginning.
    Anew,
    /// The whole table, with the load that was under way.
    GoOn,
    /// A part, with the plan that was under way, if the table still is at it; 0 if there was none.
    Part { scope: Scope, plan: u64 },
}

impl LoadBegin {
    pub fn scope(&self) -> LoadScope {
        match self {
            Self::Anew | Self::GoOn => LoadScope::Whole,
            Self::Part { scope, .. } => LoadScope::Part(scope.clone()),
        }
    }
}

/// The channels and parts of one incarnation.
pub struct Supervisor {
    pub told: mpsc::UnboundedReceiver<Told>,
    pub reports: mpsc::UnboundedReceiver<Report>,
    pub requests: mpsc::Sender<Request>,
    pub hurry: watch::Sender<bool>,
    pub loader: Loader,
    pub load_of: LoadMaker,
    pub shipper: Shipper,
    /// Runs as long as it is held, as does the next one.
    pub _trace_upkeep: AbortOnDropHandle<()>,
    pub _log_cleaning: AbortOnDropHandle<()>,
    /// Reconciles beside the stream; none in a run that ends once it has caught up.
    pub proving: Option<Proving>,
    pub checkpoints: CheckpointLog,
    /// Rows of prepared XA transactions; those that the checkpoint has passed the end of are removed.
    pub prepared: PreparedStore,
    /// What this incarnation goes on from, or has come to since, is durable: over Kafka once it has published.
    pub position_is_durable: bool,
    /// What the last checkpoint said, or would say.
    pub checkpoint: Checkpoint,
    /// End once everything in this set is in the tables.
    pub target: Option<GtidSet>,
    /// Whether tables that appear are loaded.
    pub seeds: bool,
    /// Row rules of the tables that have some.
    pub rules: BTreeMap<TableId, RowRules>,
    pub progress: Progress,
    pub loads: BTreeMap<TableId, LoadUnderWay>,
    pub load_failures: mpsc::UnboundedReceiver<LoadFailure>,
    pub load_failed: mpsc::UnboundedSender<LoadFailure>,
    pub jobs: JobDesk,
    pub dirty: bool,
    /// The next checkpoint is not to wait for its turn.
    pub in_a_hurry: bool,
    /// Publishes that have become durable, where that takes a transport of its own.
    pub durable: mpsc::UnboundedReceiver<Durable>,
    /// The lake as other processes write it; none on `direct`, where the workers are here.
    pub lake: Option<Lake>,
}

/// What a supervisor needs of tables that other processes write.
pub struct Lake {
    pub watch: LakeWatch,
    pub merging: LakeMerging,
}

/// A load's task; dropped, it ends.
pub struct LoadUnderWay {
    task: JoinHandle<()>,
    /// Number of its plan, once it has one; 0 before.
    pub plan: Arc<AtomicU64>,
    /// It is of a part of the table, which goes on streaming.
    pub part: bool,
    pub job: Option<Job>,
    pub figures: Arc<LoadFigures>,
}

/// A load that could not go on.
pub struct LoadFailure {
    table: TableId,
    /// Number of its plan; 0 if it had none.
    plan: u64,
    error: SeedError,
}

impl Drop for LoadUnderWay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Supervisor {
    /// Supervises until `stop`, the target, or a failure. `capture` ends when capture does.
    pub async fn run(
        &mut self,
        stop: &CancellationToken,
        capture: &mut JoinHandle<Result<(), CaptureError>>,
    ) -> Result<Finished, Failure> {
        let mut tick = tokio::time::interval(CHECKPOINT_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut appeals = tokio::time::interval(APPEALS_LOOKED_AT_EVERY);
        appeals.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut jobs = tokio::time::interval(JOBS_LOOKED_AT_EVERY);
        jobs.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut telling = tokio::time::interval(STANDING_TOLD_EVERY);
        telling.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if std::mem::take(&mut self.in_a_hurry) {
                tick.reset_after(CHECKPOINT_SOON);
            }
            if self.is_caught_up() {
                return Ok(Finished::CaughtUp { stopped: self.count_stopped() });
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(Finished::Asked),
                Some(told) = self.told.recv() => self.on_told(told),
                Some(report) = self.reports.recv() => {
                    if let Some(finished) = self.on_report(report).await? {
                        return Ok(finished);
                    }
                }
                Some(durable) = self.durable.recv() => self.on_durable(durable),
                Some(failure) = self.load_failures.recv() => self.on_load_failed(&failure),
                ended = &mut *capture => {
                    ended.unwrap_or(Err(CaptureError::Publisher(PublishError::Closed)))?;
                    return Ok(Finished::Asked);
                }
                _ = tick.tick() => tokio::select! {
                    biased;
                    // A store that is away must not hold back the end. A write that is given up may be in all the same;
                    // the next one finds it.
                    () = stop.cancelled() => return Ok(Finished::Asked),
                    written = self.write_checkpoint() => written?,
                },
                _ = telling.tick() => self.tell_standing(),
                _ = appeals.tick(), if self.lake.is_some() => self.hear_appeals().await,
                _ = jobs.tick() => tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(Finished::Asked),
                    finished = self.look_at_jobs() => if let Some(finished) = finished {
                        return Ok(finished);
                    },
                },
            }
        }
    }

    /// Takes in what is left once workers and capture have ended, and makes it durable.
    pub async fn finish(&mut self, patience: Patience, afterwards: Afterwards) -> Result<(), Failure> {
        self.loads.clear();
        while let Ok(told) = self.told.try_recv() {
            self.on_told(told);
        }
        // Closed once the publisher has sent what it had taken over.
        while let Ok(Some(durable)) = tokio::time::timeout(PUBLISHER_ENDS_MAX, self.durable.recv()).await {
            self.on_durable(durable);
        }
        while let Ok(report) = self.reports.try_recv() {
            self.on_report(report).await?;
        }
        self.finish_jobs().await;
        if let Some(proving) = self.proving.take() {
            proving.finish().await;
        }
        self.checkpoint.running = afterwards == Afterwards::GoesOn;
        self.dirty = true;
        self.write_checkpoint().await?;
        match self.shipper.finish(patience).await {
            Err(unshipped) if patience == Patience::UntilAllIsIn => Err(Failure::Trace(unshipped.to_string())),
            Err(unshipped) => {
                tracing::warn!("{unshipped}");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn on_told(&mut self, told: Told) {
        match told {
            // It counts once it is durable.
            Told::Published { .. } if self.lake.is_some() => {}
            Told::Published { number, boundary, tables } => self.on_published(number, boundary, tables),
            Told::NeedsSeed { table, reason } => {
                self.jobs.appeared(&table);
                let known = self.checkpoint.tables.contains_key(&table);
                if self.seeds {
                    tracing::info!(%table, reason, "loading the table");
                    self.begin_load(&table, true);
                } else if known {
                    let error = format!(
                        "{reason}, and [source] snapshot = \"never\"; load it with `weir snapshot --table {table}`"
                    );
                    self.ask_to_stop(&table, &error);
                    self.stop_table(&table, error);
                } else {
                    self.stand(&table, Phase::Streaming, None);
                }
            }
            Told::Stopped { table, error } => self.stop_table(&table, error),
        }
    }

    fn on_published(&mut self, number: PublishNumber, boundary: Arc<Boundary>, tables: Vec<TableId>) {
        if self.target.as_ref().is_some_and(|target| target.is_subset(&boundary.gtid_set)) {
            self.hurry.send_replace(true);
        }
        // Capture goes on sending to a table that has stopped until it is told, and nobody commits that.
        let tables: Vec<TableId> = tables.into_iter().filter(|table| !self.is_stopped(table)).collect();
        self.progress.published(number, boundary, &tables);
        self.dirty = true;
    }

    /// What was published before this incarnation has yet to be seen in the tables.
    pub fn goes_on_from(&mut self, position: &Position) {
        let stopped = |table: &&TableId| {
            self.checkpoint.tables.get(*table).is_none_or(|standing| standing.phase == Phase::Stopped)
        };
        let tables: Vec<TableId> = position.ends.keys().filter(|table| !stopped(table)).cloned().collect();
        if let Some(lake) = &self.lake {
            lake.watch.goes_on_from(position, &tables);
        }
        self.on_published(position.publish, Arc::new(position.boundary.clone()), tables);
    }

    /// A publish is durable: what it counted goes to the trace, and its tables are looked at until they have it.
    fn on_durable(&mut self, durable: Durable) {
        self.position_is_durable = true;
        let Durable { number, boundary, mut touched, at_ms, counts } = durable;
        // Nobody takes in what is sent to a table that has stopped.
        touched.retain(|table, _| !self.is_stopped(table));
        if let Some(lake) = &self.lake {
            lake.watch.published(number, &touched);
        }
        self.checkpoint.published = true;
        self.on_published(number, boundary, touched.into_keys().collect());
        for (table, count) in &counts {
            counters().count(table, std::slice::from_ref(count));
        }
        if !counts.is_empty() {
            self.shipper.send(Shipment { origin: Origin::Capture, version: number.0 as i64, at_ms, counts });
        }
    }

    async fn on_report(&mut self, report: Report) -> Result<Option<Finished>, Failure> {
        match report {
            Report::Committed { table, number, version, accounts } => {
                if let Some(number) = number {
                    self.progress.committed(&table, number);
                    self.dirty = true;
                }
                counters().count(&table, &accounts);
                if let Some(proving) = &self.proving {
                    proving.note_change(&table);
                }
                self.shipper.send(Shipment::of_commit(table, version, clock::now_ms(), accounts));
            }
            Report::Reached { table, number } => {
                self.progress.committed(&table, number);
                self.dirty = true;
            }
            Report::SeedBegun { table, plan } => {
                if self.is_under_way(&table, plan) && !self.loads.get(&table).is_some_and(|load| load.part) {
                    self.stand(&table, Phase::Filling { restart: false }, None);
                    self.note_rules(&table);
                    // Until that is durable a kill makes the load begin anew.
                    self.in_a_hurry = true;
                }
            }
            Report::SeedEnded { table, plan } => {
                if self.is_under_way(&table, plan) {
                    match self.loads.remove(&table) {
                        Some(load) if load.part => self.end_part(&load).await,
                        _ => {
                            tracing::info!(%table, "loaded");
                            self.stand(&table, Phase::Streaming, None);
                        }
                    }
                }
            }
            Report::Stopped { error: WorkerError::Fenced { epoch }, .. } => {
                return Err(Failure::Fenced { epoch, ours: self.checkpoint.epoch });
            }
            Report::Stopped { table, error: error @ (WorkerError::Moved | WorkerError::SourceAway(_)) } => {
                tracing::warn!(%table, %error, "starting again from what is durable");
                return Ok(Some(Finished::Restart));
            }
            Report::Stopped { table, error } if error.is_away() => {
                return Err(Failure::Away { table, error: error.to_string() });
            }
            Report::Stopped { table, error } => {
                let error = error.to_string();
                self.ask_to_stop(&table, &error);
                self.stop_table(&table, error);
            }
        }
        Ok(None)
    }

    fn on_load_failed(&mut self, failure: &LoadFailure) {
        let LoadFailure { table, plan, error } = failure;
        if !self.is_under_way(table, *plan) {
            return;
        }
        if self.loads.get(table).is_some_and(|load| load.part) {
            return self.part_failed(table, error);
        }
        match error {
            // Whoever stopped the table has said why.
            SeedError::NotCaptured => {}
            error => {
                let error = format!("while it was loaded: {error}");
                self.ask_to_stop(table, &error);
                self.stop_table(table, error);
            }
        }
    }

    fn is_stopped(&self, table: &TableId) -> bool {
        self.checkpoint.tables.get(table).is_some_and(|standing| standing.phase == Phase::Stopped)
    }

    /// Whether `plan` is that of the table's load, and not of one that another has taken the place of.
    fn is_under_way(&self, table: &TableId, plan: u64) -> bool {
        self.loads.get(table).is_some_and(|load| load.plan.load(Ordering::Acquire) == plan)
    }

    /// Tells capture in a task of its own: it may be waiting for a source that is away.
    fn ask_to_stop(&self, table: &TableId, error: &str) {
        let (requests, table, error) = (self.requests.clone(), table.clone(), error.to_owned());
        tokio::spawn(async move { requests.send(Request::Stop { table, error }).await });
    }

    /// Starts the load of `table`, instead of one under way; from the beginning if `restart`.
    pub fn begin_load(&mut self, table: &TableId, restart: bool) {
        self.loads.remove(table);
        let begin = if restart { LoadBegin::Anew } else { LoadBegin::GoOn };
        let Some(load) = (self.load_of)(table, begin) else { return };
        match &load.resume {
            Some(_) => self.stand(table, Phase::Filling { restart: false }, None),
            None => self.stand(table, Phase::Filling { restart: true }, None),
        }
        self.start_load(load, None);
    }

    /// Runs a load, for a job or on our own account.
    pub(super) fn start_load(&mut self, load: Load, job: Option<Job>) {
        let (table, part) = (load.table.clone(), load.scope.is_part());
        let (plan, figures) = (load.plan_under_way.clone(), load.figures.clone());
        let (loader, failed, of, at) = (self.loader.clone(), self.load_failed.clone(), table.clone(), plan.clone());
        let task = tokio::spawn(async move {
            if let Err(error) = loader.load(load).await {
                let _ = failed.send(LoadFailure { table: of, plan: at.load(Ordering::Acquire), error });
            }
        });
        self.loads.insert(table, LoadUnderWay { task, plan, part, job, figures });
    }

    /// `table` streams without a load.
    pub fn note_streaming(&mut self, table: &TableId) {
        self.stand(table, Phase::Streaming, None);
        self.note_rules(table);
    }

    /// Every row of the table is made by the rules that it has, from here on, or once the load that has begun is over.
    fn note_rules(&mut self, table: &TableId) {
        let fingerprint = self.rules.get(table).map_or_else(String::new, RowRules::fingerprint);
        self.checkpoint.note_rules(table, fingerprint);
    }

    pub fn stop_table(&mut self, table: &TableId, error: String) {
        tracing::error!(%table, %error, "table stopped; the others go on");
        standing().note(Some(table), error.clone(), way_out_of_stop(table));
        self.loads.remove(table);
        self.loader.progress.remove(table);
        self.progress.stopped(table);
        if let Some(lake) = &self.lake {
            lake.watch.forget(table);
        }
        self.stand(table, Phase::Stopped, Some(error));
    }

    fn stand(&mut self, table: &TableId, phase: Phase, error: Option<String>) {
        let position = self.progress.newest().map_or(&self.checkpoint.gtid_set, |boundary| &boundary.gtid_set);
        let standing = self
            .checkpoint
            .tables
            .entry(table.clone())
            .or_insert_with(|| TableStanding::new(phase, position.clone(), None));
        let begins = phase == (Phase::Filling { restart: true });
        // One that has not begun keeps the set that it was to begin at.
        if begins && standing.phase != phase {
            standing.start_set = position.clone();
        }
        standing.phase = phase;
        standing.error = error;
        self.dirty = true;
    }

    /// The tables filling or stopped at this moment, with the position that every other table has reached.
    pub async fn write_checkpoint(&mut self) -> Result<(), Failure> {
        self.tell_proving();
        if !self.dirty && !self.checkpoint.running {
            return Ok(());
        }
        if let Some(safe) = self.progress.safe().cloned() {
            take_position(&mut self.checkpoint, &safe);
        }
        self.checkpoint.written_at_ms = clock::now_ms();
        self.checkpoint.config = standing().config();
        self.dirty = false;
        match self.checkpoints.write(&self.checkpoint).await? {
            crate::state::Written::Done => {
                let position = &self.checkpoint.gtid_set;
                let mut forgotten = self.prepared.forget_ended(position).await;
                if forgotten.is_ok() && self.position_is_durable {
                    forgotten = self.prepared.forget_former(self.checkpoint.begun).await;
                }
                if let Err(error) = forgotten {
                    tracing::warn!(%error, "rows of XA transactions that have ended stay for now");
                }
                Ok(())
            }
            crate::state::Written::Fenced { epoch } => Err(Failure::Fenced { epoch, ours: self.checkpoint.epoch }),
        }
    }

    fn tell_proving(&self) {
        let Some(proving) = &self.proving else { return };
        let tables = &self.checkpoint.tables;
        let streaming = tables.iter().filter(|(_, standing)| standing.phase == Phase::Streaming);
        proving.note_tables(tables.keys().cloned().collect(), streaming.map(|(table, _)| table.clone()).collect());
    }

    fn is_caught_up(&self) -> bool {
        let Some(target) = &self.target else { return false };
        let reached = self.progress.safe().map_or(&self.checkpoint.gtid_set, |boundary| &boundary.gtid_set);
        target.is_subset(reached)
            && self.jobs_are_done()
            && !self.checkpoint.tables.values().any(|standing| matches!(standing.phase, Phase::Filling { .. }))
    }

    fn count_stopped(&self) -> usize {
        self.checkpoint.tables.values().filter(|standing| standing.phase == Phase::Stopped).count()
    }
}

fn take_position(checkpoint: &mut Checkpoint, boundary: &Arc<Boundary>) {
    checkpoint.gtid_set = boundary.gtid_set.clone();
    checkpoint.last = boundary.last.clone();
    checkpoint.log = boundary.log.clone();
}
