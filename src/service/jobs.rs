//! Carries out what people and schedules have asked for: loads of parts beside the stream, and of whole tables.
//!
//! Jobs lie beside the tables as small objects, so that whoever asks need not be on this machine and what was asked survives
//! a restart. What to do about each is decided by [`step`], which is pure; a load does the work.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use weir_model::{TableId, clock};

use super::schedule::{self, Scheduler};
use super::seed::{LoadFigures, SeedError, running};
use super::supervisor::{Finished, LoadBegin, LoadUnderWay, Supervisor};
use crate::config::Config;
use crate::error::Error;
use crate::failpoint;
use crate::figures::standing;
use crate::state::jobs::{Ended, Job, JobEntry, JobId, JobOutcome, JobProgress, JobState, JobStore, Work, refusal};
use crate::state::schedules::ScheduleStore;
use crate::state::{Phase, StateError};
use crate::table::Warehouse;

/// The jobs of one source, as its supervisor knows them.
pub struct JobDesk {
    store: JobStore,
    scheduler: Scheduler,
    /// Tables that this incarnation loads anew because jobs asked for it that came before `begun_ms`.
    begun_anew: BTreeSet<TableId>,
    begun_ms: i64,
    /// Tables that the source has, as far as this incarnation has heard.
    listed: BTreeSet<TableId>,
    /// What has ended and may not have been written yet.
    ended: BTreeMap<JobId, Ending>,
    /// Jobs whose loads are given up, and what is heard of that: a job has ended once the stream knows that its load has, or
    /// the table would remember deletes for it for ever.
    giving_up: BTreeSet<JobId>,
    given_up: mpsc::UnboundedReceiver<(JobId, Option<Ending>)>,
    gave_up: mpsc::UnboundedSender<(JobId, Option<Ending>)>,
    /// Progress as it was last written.
    noted: BTreeMap<JobId, JobProgress>,
    /// Whether the last look has seen no job that was to be done; false before the first.
    is_idle: bool,
}

/// How a job ended, and how far it came.
#[derive(Debug, Clone)]
struct Ending {
    progress: Option<JobProgress>,
    outcome: JobOutcome,
}

impl Ending {
    fn new(ended: Ended, error: Option<String>, load: Option<&LoadUnderWay>) -> Self {
        let figures = load.map(|load| load.figures.as_ref());
        let count = |of: fn(&LoadFigures) -> u64| figures.map_or(0, of);
        let outcome = JobOutcome {
            ended,
            error,
            rows_read: count(|figures| figures.rows.load(Ordering::Relaxed)),
            removed: count(|figures| figures.removed.load(Ordering::Relaxed)),
            ended_ms: clock::now_ms(),
        };
        Self { progress: load.map(LoadUnderWay::progress), outcome }
    }
}

impl JobDesk {
    /// The jobs of the configured source. `begun_anew` are the tables that this incarnation loads because jobs, or whoever
    /// started it, asked for them; `listed` those that the source has.
    ///
    /// # Errors
    /// For a configuration that was not checked.
    pub fn new(
        config: &Config,
        warehouse: &Warehouse,
        begun_anew: BTreeSet<TableId>,
        listed: BTreeSet<TableId>,
    ) -> Result<Self, Error> {
        let state = warehouse.state_path(&config.source.name);
        let store = JobStore::new(warehouse.store().clone(), state.clone());
        let schedules = ScheduleStore::new(warehouse.store().clone(), state);
        let scheduler = Scheduler::new(store.clone(), schedules, schedule::configured(config)?);
        let (gave_up, given_up) = mpsc::unbounded_channel();
        Ok(Self {
            store,
            scheduler,
            begun_anew,
            begun_ms: clock::now_ms(),
            listed,
            ended: BTreeMap::new(),
            giving_up: BTreeSet::new(),
            given_up,
            gave_up,
            noted: BTreeMap::new(),
            is_idle: false,
        })
    }

    /// The source has got this table.
    pub fn appeared(&mut self, table: &TableId) {
        self.listed.insert(table.clone());
    }

    fn end(&mut self, id: &JobId, ending: Ending) {
        let JobOutcome { ended, rows_read, removed, .. } = &ending.outcome;
        tracing::info!(job = %id, outcome = ?ended, rows = rows_read, removed, "job ended");
        self.ended.insert(id.clone(), ending);
    }

    /// Hears what has become of loads that were given up. One that could not be is tried again.
    fn hear_given_up(&mut self) {
        while let Ok((id, ending)) = self.given_up.try_recv() {
            self.giving_up.remove(&id);
            if let Some(ending) = ending {
                self.end(&id, ending);
            }
        }
    }

    /// Whether it waits for nothing but its outcome to be written.
    fn is_over(&self, id: &JobId) -> bool {
        self.ended.contains_key(id) || self.giving_up.contains(id)
    }

    /// Makes durable what has ended.
    async fn write_ended(&mut self) -> Result<(), StateError> {
        while let Some((id, Ending { progress, outcome })) = self.ended.first_key_value() {
            if let Some(progress) = progress {
                self.store.note_progress(id, progress).await?;
            }
            failpoint::reach(failpoint::JOB_END_BEFORE);
            self.store.end(id, outcome).await?;
            failpoint::reach(failpoint::JOB_END_AFTER);
            let id = id.clone();
            self.noted.remove(&id);
            self.ended.remove(&id);
        }
        Ok(())
    }

    async fn note(&mut self, id: &JobId, progress: JobProgress) -> Result<(), StateError> {
        let same = |noted: &JobProgress| JobProgress { updated_ms: progress.updated_ms, ..noted.clone() } == progress;
        if self.noted.get(id).is_some_and(same) {
            return Ok(());
        }
        self.store.note_progress(id, &progress).await?;
        self.noted.insert(id.clone(), progress);
        Ok(())
    }
}

/// What is to be done about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Its table, or its turn, is not yet there.
    Wait,
    /// Its load goes on.
    Tell,
    /// Load the part; with the number of the plan that an earlier incarnation had come to, 0 if none.
    BeginPart { plan: u64 },
    /// Load the table anew, which takes an incarnation of its own.
    BeginAnew,
    /// It has been taken up in this incarnation.
    NoteBegun,
    /// It is over. With the plan of a load that is given up, if one was announced.
    End { ended: Ended, error: Option<String>, gives_up: Option<u64> },
}

impl Step {
    fn end(ended: Ended, error: impl Into<Option<String>>) -> Self {
        Self::End { ended, error: error.into(), gives_up: None }
    }
}

/// What the supervisor knows of a job's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TableNow {
    /// None if the table is not captured.
    phase: Option<Phase>,
    /// A load of it is under way, for this job or otherwise.
    loading: Loading,
    /// This incarnation loads it anew since the job, or somebody else before it began, asked for that.
    begun_anew: bool,
    /// The source has it, as far as is known.
    is_there: bool,
    /// Number of the plan of the job's own load; 0 if it has none.
    plan: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loading {
    None,
    OfJob,
    Other,
}

/// Decides by the job, those asked before it that have not ended, and its table.
fn step(entry: &JobEntry, earlier: &[JobEntry], table: TableNow) -> Step {
    let JobEntry { job, progress, cancelled, .. } = entry;
    let plan = progress.as_ref().map_or(0, |progress| progress.plan).max(table.plan);
    let is_running = progress.as_ref().is_some_and(|progress| progress.state == JobState::Running);
    // A table that has stopped is given a load of its whole, which ends any other.
    let gives_up = (plan > 0 && table.phase != Some(Phase::Stopped)).then_some(plan);
    if *cancelled && !(is_running && job.work == Work::Snapshot) {
        return Step::End { ended: Ended::Cancelled, error: None, gives_up };
    }
    if table.loading == Loading::OfJob {
        return Step::Tell;
    }
    if progress.is_none()
        && let Some(why) = refusal(job, earlier)
    {
        return Step::end(Ended::Refused, why);
    }
    let Some(phase) = table.phase.filter(|_| table.is_there) else {
        let why = format!("{} is not captured: the source has no such table, or no pattern matches it", job.table);
        return Step::end(Ended::Refused, why);
    };
    match &job.work {
        Work::Snapshot if is_running || table.begun_anew => match phase {
            Phase::Streaming => Step::end(Ended::Done, None),
            Phase::Stopped => Step::end(Ended::Failed, "the table stopped; `weir status` says why".to_owned()),
            // Not yet announced: if this incarnation ends now, the next knows nothing of it.
            Phase::Filling { restart: true } => Step::Wait,
            Phase::Filling { restart: false } if is_running => Step::Wait,
            Phase::Filling { restart: false } => Step::NoteBegun,
        },
        Work::Snapshot => match phase {
            Phase::Filling { .. } => Step::Wait,
            Phase::Streaming | Phase::Stopped => Step::BeginAnew,
        },
        Work::Backfill(_) => match phase {
            Phase::Streaming if table.loading == Loading::None => Step::BeginPart { plan },
            Phase::Stopped => Step::end(
                Ended::Failed,
                format!("the table has stopped; `weir snapshot --table {}` loads it anew", job.table),
            ),
            Phase::Streaming | Phase::Filling { .. } => Step::Wait,
        },
        Work::Newer(_) => Step::end(Ended::Refused, job.work.why_not().map(str::to_owned)),
    }
}

impl Supervisor {
    /// Looks at what is asked. Gives how the incarnation ends if tables are to be loaded anew. A store that is away is asked
    /// again at the next look.
    pub(super) async fn look_at_jobs(&mut self) -> Option<Finished> {
        match self.take_steps().await {
            Ok(anew) if anew.is_empty() => None,
            Ok(anew) => Some(Finished::LoadAnew(anew)),
            Err(error) => {
                tracing::warn!(%error, "what is asked of the service cannot be read or noted yet");
                None
            }
        }
    }

    async fn take_steps(&mut self) -> Result<Vec<TableId>, StateError> {
        self.jobs.hear_given_up();
        self.jobs.write_ended().await?;
        self.jobs.scheduler.tick(clock::now_ms()).await?;
        let open = self.jobs.store.unfinished().await?;
        let (mut anew, mut earlier) = (Vec::new(), Vec::new());
        for entry in &open {
            if self.jobs.is_over(&entry.job.id) {
                continue;
            }
            let table = self.table_now(&entry.job);
            match step(entry, &earlier, table) {
                Step::Wait => {}
                Step::Tell => self.tell_progress(&entry.job).await?,
                Step::BeginPart { plan } => self.begin_part(&entry.job, plan).await,
                Step::BeginAnew => anew.push(entry.job.table.clone()),
                Step::NoteBegun => {
                    let begun = running(0, &LoadFigures::default());
                    self.jobs.note(&entry.job.id, begun).await?;
                }
                Step::End { ended, error, gives_up } => {
                    let load = self.take_load_of(&entry.job);
                    let ending = Ending::new(ended, error, load.as_ref());
                    if entry.job.work == Work::Snapshot {
                        self.jobs.begun_anew.remove(&entry.job.table);
                    }
                    self.end_job(&entry.job, ending, gives_up);
                }
            }
            if !self.jobs.is_over(&entry.job.id) {
                earlier.push(entry.clone());
            }
        }
        self.jobs.write_ended().await?;
        self.jobs.is_idle = open.is_empty();
        Ok(anew)
    }

    fn table_now(&self, job: &Job) -> TableNow {
        let load = self.loads.get(&job.table);
        let own = load.filter(|load| load.is_for(&job.id));
        let loading = match (load, own) {
            (None, _) => Loading::None,
            (Some(_), None) => Loading::Other,
            (Some(_), Some(_)) => Loading::OfJob,
        };
        TableNow {
            phase: self.checkpoint.tables.get(&job.table).map(|standing| standing.phase),
            loading,
            begun_anew: self.jobs.begun_anew.contains(&job.table) && job.requested_ms <= self.jobs.begun_ms,
            is_there: self.jobs.listed.contains(&job.table),
            plan: own.map_or(0, |load| load.plan.load(Ordering::Acquire)),
        }
    }

    /// Takes out the load that was begun for a job, which ends.
    fn take_load_of(&mut self, job: &Job) -> Option<LoadUnderWay> {
        let is_own = self.loads.get(&job.table).is_some_and(|load| load.is_for(&job.id));
        if is_own { self.loads.remove(&job.table) } else { None }
    }

    /// Ends a job; if its load is given up, once the stream has been told.
    fn end_job(&mut self, job: &Job, ending: Ending, gives_up: Option<u64>) {
        let Some(plan) = gives_up else { return self.jobs.end(&job.id, ending) };
        self.jobs.giving_up.insert(job.id.clone());
        let (loader, gave_up, job) = (self.loader.clone(), self.jobs.gave_up.clone(), job.clone());
        tokio::spawn(async move {
            let ended = loader.end(&job.table, plan, true).await;
            if let Err(error) = &ended {
                tracing::debug!(job = %job.id, %error, "its load cannot be ended yet");
            }
            let _ = gave_up.send((job.id, ended.is_ok().then_some(ending)));
        });
    }

    async fn begin_part(&mut self, job: &Job, plan: u64) {
        let Work::Backfill(scope) = &job.work else { return };
        let begin = LoadBegin::Part { scope: scope.clone(), plan };
        let Some(mut load) = (self.load_of)(&job.table, begin) else {
            let why = format!("{} is not captured: it is gone from the source", job.table);
            return self.jobs.end(&job.id, Ending::new(Ended::Refused, Some(why), None));
        };
        if let Some(lake) = &self.lake {
            match lake.merging.part_under_way(&job.table, plan).await {
                Ok(resume) => load.resume = resume,
                Err(error) => return tracing::warn!(job = %job.id, %error, "the job begins later"),
            }
        }
        tracing::info!(job = %job.id, table = %job.table, "job begins");
        load.job = Some((self.jobs.store.clone(), job.id.clone()));
        self.start_load(load, Some(job.clone()));
    }

    async fn tell_progress(&mut self, job: &Job) -> Result<(), StateError> {
        let Some(load) = self.loads.get(&job.table) else { return Ok(()) };
        let progress = load.progress();
        self.jobs.note(&job.id, progress).await
    }

    /// A load of a part has ended.
    pub(super) async fn end_part(&mut self, load: &LoadUnderWay) {
        if let Some(job) = &load.job {
            self.jobs.end(&job.id, Ending::new(Ended::Done, None, Some(load)));
            self.finish_jobs().await;
        }
    }

    /// A load of a part has failed: its table streams on.
    pub(super) fn part_failed(&mut self, table: &TableId, error: &SeedError) {
        let Some(load) = self.loads.remove(table) else { return };
        // Whoever stopped the table or capture has said why, and the job is looked at again.
        let (Some(job), false) = (&load.job, matches!(error, SeedError::NotCaptured)) else { return };
        let way_out =
            "its table streams on; `weir backfill list` shows the job, ask for it again once the cause is mended";
        standing().note(Some(table), format!("job {} failed: {error}", job.id), way_out.into());
        let plan = load.plan.load(Ordering::Acquire);
        let ending = Ending::new(Ended::Failed, Some(error.to_string()), Some(&load));
        self.end_job(job, ending, (plan > 0).then_some(plan));
    }

    /// Whether everything that was asked has been done.
    pub(super) fn jobs_are_done(&self) -> bool {
        self.jobs.is_idle && self.jobs.ended.is_empty() && self.jobs.giving_up.is_empty()
    }

    /// Makes durable what has ended; what cannot be now, is at the next look.
    pub(super) async fn finish_jobs(&mut self) {
        self.jobs.hear_given_up();
        if let Err(error) = self.jobs.write_ended().await {
            tracing::warn!(%error, "how a job ended could not be noted yet");
        }
    }
}

impl LoadUnderWay {
    fn is_for(&self, job: &JobId) -> bool {
        self.job.as_ref().is_some_and(|of| of.id == *job)
    }

    fn progress(&self) -> JobProgress {
        running(self.plan.load(Ordering::Acquire), &self.figures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::jobs::{Bound, Origin, Scope};

    fn entry(work: Work, state: Option<(JobState, u64)>, cancelled: bool) -> JobEntry {
        let job = Job {
            id: JobId::new(1),
            table: TableId::new("shop", "orders"),
            work,
            origin: Origin::Command,
            requested_ms: 1,
        };
        let progress = state.map(|(state, plan)| JobProgress { state, plan, ..running(0, &LoadFigures::default()) });
        JobEntry { job, progress, outcome: None, cancelled }
    }

    fn backfill() -> Work {
        Work::Backfill(Scope::Range { from: Some(Bound(vec![5.into()])), to: None })
    }

    const FILLING: Phase = Phase::Filling { restart: false };

    fn table(phase: Phase, loading: Loading) -> TableNow {
        TableNow { phase: Some(phase), loading, begun_anew: false, is_there: true, plan: 0 }
    }

    fn ends(step: &Step) -> Option<Ended> {
        if let Step::End { ended, .. } = step { Some(*ended) } else { None }
    }

    #[test]
    fn a_backfill_waits_for_its_table_and_goes_on_with_its_plan() {
        let job = entry(backfill(), None, false);
        assert_eq!(step(&job, &[], table(Phase::Streaming, Loading::None)), Step::BeginPart { plan: 0 });
        assert_eq!(step(&job, &[], table(Phase::Streaming, Loading::Other)), Step::Wait);
        assert_eq!(step(&job, &[], table(FILLING, Loading::Other)), Step::Wait);
        assert_eq!(step(&job, &[], table(Phase::Streaming, Loading::OfJob)), Step::Tell);
        assert_eq!(ends(&step(&job, &[], table(Phase::Stopped, Loading::None))), Some(Ended::Failed));
        let streaming = table(Phase::Streaming, Loading::None);
        for nowhere in [TableNow { phase: None, ..streaming }, TableNow { is_there: false, ..streaming }] {
            assert_eq!(ends(&step(&job, &[], nowhere)), Some(Ended::Refused));
        }
        let killed = entry(backfill(), Some((JobState::Running, 7)), false);
        assert_eq!(step(&killed, &[], table(Phase::Streaming, Loading::None)), Step::BeginPart { plan: 7 });
    }

    #[test]
    fn one_that_is_under_way_twice_is_refused_but_not_for_itself_after_a_restart() {
        let (earlier, job) = (entry(backfill(), None, false), entry(backfill(), None, false));
        let now = table(Phase::Streaming, Loading::None);
        assert_eq!(ends(&step(&job, std::slice::from_ref(&earlier), now)), Some(Ended::Refused));
        let begun = entry(backfill(), Some((JobState::Running, 7)), false);
        assert_eq!(step(&begun, &[earlier], now), Step::BeginPart { plan: 7 });
    }

    #[test]
    fn a_cancelled_load_is_given_up_with_its_plan_and_one_that_has_not_begun_without() {
        let now = table(Phase::Streaming, Loading::OfJob);
        for (state, plan) in [(Some((JobState::Running, 7)), Some(7)), (None, None)] {
            let Step::End { ended, gives_up, .. } = step(&entry(backfill(), state, true), &[], now) else {
                panic!("a cancelled job ends");
            };
            assert_eq!((ended, gives_up), (Ended::Cancelled, plan));
        }
        // Begun a moment ago, and not yet told of.
        let begun = TableNow { plan: 9, ..now };
        assert!(matches!(step(&entry(backfill(), None, true), &[], begun), Step::End { gives_up: Some(9), .. }));
        let stopped = table(Phase::Stopped, Loading::None);
        let state = Some((JobState::Running, 7));
        assert!(matches!(step(&entry(backfill(), state, true), &[], stopped), Step::End { gives_up: None, .. }));
    }

    #[test]
    fn a_table_is_loaded_anew_in_an_incarnation_of_its_own() {
        let job = entry(Work::Snapshot, None, false);
        for phase in [Phase::Streaming, Phase::Stopped] {
            assert_eq!(step(&job, &[], table(phase, Loading::None)), Step::BeginAnew);
        }
        assert_eq!(step(&job, &[], table(FILLING, Loading::Other)), Step::Wait);
        let begun = TableNow { begun_anew: true, ..table(FILLING, Loading::Other) };
        assert_eq!(step(&job, &[], begun), Step::NoteBegun);
        let announced = |phase| TableNow { phase: Some(phase), ..begun };
        assert_eq!(step(&job, &[], announced(Phase::Filling { restart: true })), Step::Wait);
        assert_eq!(ends(&step(&job, &[], announced(Phase::Streaming))), Some(Ended::Done));
        assert_eq!(ends(&step(&job, &[], announced(Phase::Stopped))), Some(Ended::Failed));
        let noted = entry(Work::Snapshot, Some((JobState::Running, 0)), false);
        assert_eq!(step(&noted, &[], begun), Step::Wait);
        assert_eq!(ends(&step(&noted, &[], table(Phase::Streaming, Loading::None))), Some(Ended::Done));
        assert_eq!(ends(&step(&noted, &[], table(Phase::Stopped, Loading::None))), Some(Ended::Failed));
        // What has begun cannot be taken back.
        let cancelled = JobEntry { cancelled: true, ..noted };
        assert_eq!(step(&cancelled, &[], begun), Step::Wait);
    }

    #[test]
    fn what_a_newer_version_asked_for_is_refused() {
        let job = entry(Work::Newer(serde_json::json!({"polish": {}})), None, false);
        assert_eq!(ends(&step(&job, &[], table(Phase::Streaming, Loading::None))), Some(Ended::Refused));
    }
}
