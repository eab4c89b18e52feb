//! What the commands about jobs share: asking for them, having them carried out, waiting, and showing them.

use std::time::Instant;

use jiff::Timestamp;
use serde::Serialize;
use weir_model::{TableId, clock};

use super::output::table;
use crate::config::{Config, Configured};
use crate::error::{Error, Exit};
use crate::limits::{JOB_POLL, JOB_SERVICE_AWAY_MAX, JOB_TOLD_EVERY};
use crate::service::{self, Reseed, Role, RunOptions};
use crate::state::jobs::{Ended, Job, JobEntry, JobId, JobOutcome, JobStore, Origin, Work, refusal};
use crate::state::schedules::ScheduleStore;
use crate::state::{Checkpoint, CheckpointLog, Put};
use crate::table::Warehouse;

/// The jobs and the schedules of the source.
pub(super) struct Asking {
    pub(super) jobs: JobStore,
    pub(super) schedules: ScheduleStore,
    checkpoints: CheckpointLog,
}

impl Asking {
    pub(super) fn open(config: &Config) -> Result<Self, Error> {
        let warehouse = Warehouse::open(&config.warehouse.url, &config.warehouse.options)?;
        let (store, state) = (warehouse.store(), warehouse.state_path(&config.source.name));
        Ok(Self {
            jobs: JobStore::new(store.clone(), state.clone()),
            schedules: ScheduleStore::new(store.clone(), state.clone()),
            checkpoints: CheckpointLog::new(store.clone(), state),
        })
    }

    /// Asks for all of `jobs`, or for none if one of them is refused.
    pub(super) async fn request(&self, jobs: &[Job]) -> Result<(), Error> {
        let mut others = self.jobs.unfinished().await?;
        for job in jobs {
            if let Some(why) = refusal(job, &others) {
                return Err(Error::failed(format!("the load of {} is refused: {why}", job.table)));
            }
            others.push(JobEntry { job: job.clone(), progress: None, outcome: None, cancelled: false });
        }
        for job in jobs {
            if self.jobs.request(job).await? == Put::Taken {
                return Err(Error::failed(format!("there is another job {}", job.id)));
            }
        }
        Ok(())
    }

    /// What the newest checkpoint says; that of a source without a service is empty.
    pub(super) async fn checkpoint(&mut self) -> Result<Checkpoint, Error> {
        Ok(self.checkpoints.read().await?.unwrap_or_default())
    }

    /// Waits for the running service to end `jobs`, and tells how far it is. Breaking off ends the waiting only.
    pub(super) async fn wait_for(&mut self, jobs: &[Job]) -> Result<Vec<JobOutcome>, Error> {
        tracing::info!("waiting for the service; if this is broken off, the work goes on");
        let mut outcomes = Vec::with_capacity(jobs.len());
        let mut told = Told::default();
        let mut alive = Instant::now();
        for job in jobs {
            loop {
                let entry = self.jobs.find(&job.id).await?;
                let entry = entry.ok_or_else(|| Error::failed(format!("job {} has disappeared", job.id)))?;
                told.tell(&entry);
                if let Some(outcome) = entry.outcome {
                    outcomes.push(outcome);
                    break;
                }
                if self.checkpoint().await?.is_live(clock::now_ms()) {
                    alive = Instant::now();
                } else if alive.elapsed() > JOB_SERVICE_AWAY_MAX {
                    return Err(Error::failed("the service has ended meanwhile")
                        .at(format!("job {}", job.id))
                        .way_out(
                            "start it again; it goes on with the job, and `weir backfill list` shows how it ends",
                        ));
                }
                tokio::time::sleep(JOB_POLL).await;
            }
        }
        Ok(outcomes)
    }

    /// Has `jobs` done: by the service, if one `is_running`, or here.
    pub(super) async fn have_done(
        &mut self,
        config: &Config,
        jobs: &[Job],
        is_running: bool,
    ) -> Result<Vec<JobOutcome>, Error> {
        if is_running { self.wait_for(jobs).await } else { self.carry_out(config, jobs).await }
    }

    /// Carries out `jobs` in this process, which becomes the service until everything is caught up.
    async fn carry_out(&self, config: &Config, jobs: &[Job]) -> Result<Vec<JobOutcome>, Error> {
        tracing::info!(jobs = jobs.len(), "no service runs; what is asked is carried out here");
        let options = RunOptions { until_caught_up: true, binlog_dir: None, reseed: Reseed::None };
        let mut run = service::run(&Configured::fixed(config.clone()), options, Role::Both).await;
        let mut outcomes = Vec::with_capacity(jobs.len());
        for job in jobs {
            let outcome = self.jobs.find(&job.id).await?.and_then(|entry| entry.outcome);
            outcomes.push(ended_here(job, outcome, std::mem::replace(&mut run, Ok(())))?);
        }
        Ok(outcomes)
    }
}

/// How `job` ended, which was carried out here by a `run` that may have failed.
fn ended_here(job: &Job, outcome: Option<JobOutcome>, run: Result<(), Error>) -> Result<JobOutcome, Error> {
    match (outcome, run) {
        (Some(outcome), Err(error)) if outcome.ended == Ended::Done => {
            tracing::warn!("the job is done, but: {}", error.in_a_line());
            Ok(outcome)
        }
        (Some(outcome), _) => Ok(outcome),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Err(Error::failed("the service ended before the job did")
            .at(format!("job {}", job.id))
            .way_out("`weir run` goes on with it, and `weir backfill list` shows how it ends")),
    }
}

/// Tells how a job ended; one that is not done is an error.
pub(super) fn conclude(job: &Job, outcome: &JobOutcome) -> Result<Exit, Error> {
    if outcome.ended == Ended::Done {
        let JobOutcome { rows_read, removed, .. } = outcome;
        tracing::info!(table = %job.table, rows_read, removed, "job {} is done", job.id);
        return Ok(Exit::Done);
    }
    let why = outcome.error.as_deref().map_or_else(String::new, |error| format!(": {error}"));
    Err(Error::failed(format!("job {} of {} {}{why}", job.id, job.table, verb(outcome.ended))))
}

fn verb(ended: Ended) -> &'static str {
    match ended {
        Ended::Done => "is done",
        Ended::Failed => "failed",
        Ended::Cancelled => "was cancelled",
        Ended::Refused => "was refused",
    }
}

/// What has been told of the job that is waited for.
#[derive(Default)]
struct Told {
    last: Option<(Instant, JobId, u64)>,
}

impl Told {
    /// A line when the job has got on, and every few seconds if not.
    fn tell(&mut self, entry: &JobEntry) {
        let Some(progress) = entry.progress.as_ref().filter(|_| entry.outcome.is_none()) else { return };
        let is_news = self.last.as_ref().is_none_or(|(at, id, done)| {
            *id != entry.job.id || *done != progress.chunks_done || at.elapsed() > JOB_TOLD_EVERY
        });
        if is_news {
            let (chunks, done, rows) = (progress.chunks, progress.chunks_done, progress.rows);
            tracing::info!(table = %entry.job.table, rows, "{}: {done} of {chunks} chunks", entry.state_name());
            self.last = Some((Instant::now(), entry.job.id.clone(), done));
        }
    }
}

/// A job as lists show it.
#[derive(Debug, Serialize)]
pub(super) struct JobView<'a> {
    id: &'a JobId,
    table: &'a TableId,
    work: &'a Work,
    /// The work in a few words.
    scope: String,
    state: &'static str,
    chunks: u64,
    chunks_done: u64,
    rows: u64,
    origin: String,
    requested_at: String,
    ended_at: Option<String>,
    removed: Option<u64>,
    error: Option<&'a str>,
}

impl<'a> JobView<'a> {
    pub(super) fn of(entry: &'a JobEntry) -> Self {
        let JobEntry { job, progress, outcome, .. } = entry;
        let outcome = outcome.as_ref();
        Self {
            id: &job.id,
            table: &job.table,
            work: &job.work,
            scope: job.work.to_string(),
            state: entry.state_name(),
            chunks: progress.as_ref().map_or(0, |progress| progress.chunks),
            chunks_done: progress.as_ref().map_or(0, |progress| progress.chunks_done),
            rows: outcome.map_or_else(|| progress.as_ref().map_or(0, |progress| progress.rows), |o| o.rows_read),
            origin: origin(&job.origin),
            requested_at: at(job.requested_ms),
            ended_at: outcome.map(|outcome| at(outcome.ended_ms)),
            removed: outcome.map(|outcome| outcome.removed),
            error: outcome.and_then(|outcome| outcome.error.as_deref()).or_else(|| job.work.why_not()),
        }
    }
}

fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Command => "command".into(),
        Origin::Schedule { id } => format!("schedule {id}"),
        Origin::Newer(_) => "a newer version".into(),
    }
}

/// A moment as lists show it: UTC, to the second.
pub(super) fn at(at_ms: i64) -> String {
    let at = Timestamp::from_millisecond(at_ms).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Jobs as people read them.
pub(super) fn listed(jobs: &[JobView<'_>]) -> String {
    let rows = jobs.iter().map(|job| {
        vec![
            job.id.to_string(),
            job.table.to_string(),
            job.scope.clone(),
            job.state.to_owned(),
            if job.chunks == 0 { "-".into() } else { format!("{}/{}", job.chunks_done, job.chunks) },
            job.rows.to_string(),
            job.origin.clone(),
            job.requested_at.clone(),
            job.error.unwrap_or_default().to_owned(),
        ]
    });
    table(&["id", "table", "scope", "state", "chunks", "rows", "asked by", "since", "error"], rows)
}
