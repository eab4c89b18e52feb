//! Schedules at work: looks at the clock, asks for the jobs that are due, and tells of those that are not to be.
//!
//! In come the schedules of the configuration and those that commands added, out go jobs. It carries out none of them. A run
//! has the same id whoever asks for it, so neither a start anew nor a second service asks twice.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weir_model::{Minute, TableId};

use super::ms;
use crate::config::{Backfill, Config, KeyBound, KeyPart};
use crate::error::Error;
use crate::failpoint;
use crate::limits::{JOBS_FORGOTTEN_EVERY, JOBS_KEPT, JOBS_KEPT_MIN, SCHEDULE_CLOCK_BACK_MAX};
use crate::state::jobs::{Bound, Ended, Job, JobEntry, JobId, JobOutcome, JobStore, Origin, Scope, Work, refusal};
use crate::state::schedules::{Looked, Missed, Schedule, ScheduleId, ScheduleStore, Seen, due};
use crate::state::{Put, StateError};

/// Asks for the runs of schedules at their minutes. One of the running service's.
#[derive(Debug)]
pub struct Scheduler {
    jobs: JobStore,
    schedules: ScheduleStore,
    configured: Vec<Schedule>,
    /// `None` until the store has been asked.
    looked: Option<Looked>,
    /// When old jobs were looked for; ms since the epoch.
    forgot_ms: i64,
}

/// The schedules of the configuration whose tables are mirrored; the others have no effect, and a warning says so.
///
/// # Errors
/// Of kind [`crate::error::Kind::Config`], for a configuration that was not checked.
pub fn configured(config: &Config) -> Result<Vec<Schedule>, Error> {
    let patterns = config.patterns()?;
    let mut schedules = Vec::new();
    for (backfill, id) in config.backfills.iter().zip(config.backfill_ids()) {
        let Some(table) = backfill.table.as_ref().filter(|table| patterns.matches(table)) else { continue };
        schedules.push(schedule_of(backfill, id.clone(), table).map_err(|what| Error::config(what).at(id))?);
    }
    Ok(schedules)
}

fn schedule_of(backfill: &Backfill, id: String, table: &TableId) -> Result<Schedule, String> {
    let bound = |bound: &Option<KeyBound>| {
        let value = |part: &KeyPart| match part {
            KeyPart::Number(number) => json!(number),
            KeyPart::Text(text) => Value::String(text.clone()),
        };
        bound.as_ref().map(|bound| Bound(bound.parts().iter().map(value).collect()))
    };
    let scope = match (bound(&backfill.from), bound(&backfill.to)) {
        (None, None) => Scope::All,
        (from, to) => Scope::Range { from, to },
    };
    let cron = backfill.cron.parse().map_err(|error| format!("cron {error}"))?;
    Ok(Schedule { id: ScheduleId::try_from(id)?, table: table.clone(), cron, scope, added_ms: 0 })
}

impl Scheduler {
    /// Of the source whose `jobs` and `schedules` these are; `configured` stand in its configuration.
    pub fn new(jobs: JobStore, schedules: ScheduleStore, configured: Vec<Schedule>) -> Self {
        Self { jobs, schedules, configured, looked: None, forgot_ms: 0 }
    }

    /// Asks for what is due at `now_ms`, ms since the epoch, and returns the jobs that are to be carried out. Costs nothing
    /// until a minute has passed, so it can be called every few seconds.
    ///
    /// May be dropped at any point: what was not noted is looked at again, and a run that was asked for is not asked for twice.
    ///
    /// # Errors
    /// When the store cannot be had; the next tick tries again.
    pub async fn tick(&mut self, now_ms: i64) -> Result<Vec<JobId>, StateError> {
        let looked = match self.looked.take() {
            Some(looked) => looked,
            None => self.schedules.looked().await?.unwrap_or_default(),
        };
        let mut looked = self.looked.insert(looked).clone();
        if is_clock_wrong(&looked, now_ms) {
            tracing::warn!(
                "the clock stands before the last look at the schedules, by more than is believed; runs follow it from here on"
            );
            looked.looked_ms = now_ms;
        } else if Minute::of(now_ms) <= Minute::of(looked.looked_ms) {
            return Ok(Vec::new());
        }
        let mut schedules = self.schedules.list().await?;
        schedules.extend(self.configured.iter().cloned());
        let plan = plan(&looked, &schedules, now_ms);
        let requested = self.request(&plan.runs, now_ms).await?;
        if !requested.is_empty() {
            failpoint::reach(failpoint::SCHEDULE_FIRED);
        }
        // Without schedules there is nothing to remember: one that is added later begins when it was added.
        if !(schedules.is_empty() && looked.schedules.is_empty()) {
            self.schedules.note_looked(&plan.looked).await?;
            failpoint::reach(failpoint::SCHEDULE_NOTED);
        }
        self.looked = Some(plan.looked);
        for (schedule, missed) in &plan.missed {
            tell_missed(schedule, missed);
        }
        self.forget_old(now_ms).await;
        Ok(requested)
    }

    /// Now and then; nothing depends on it, so a failure is only logged.
    async fn forget_old(&mut self, now_ms: i64) {
        if now_ms - self.forgot_ms < ms(JOBS_FORGOTTEN_EVERY) {
            return;
        }
        self.forgot_ms = now_ms;
        if let Err(error) = self.jobs.forget_old(JOBS_KEPT_MIN, now_ms - ms(JOBS_KEPT)).await {
            tracing::warn!(%error, "jobs that ended long ago could not be removed");
        }
    }

    /// Asks for `runs`. One whose predecessor is under way is refused on the spot, so that lists show why it was not made.
    async fn request(&self, runs: &[(Schedule, Minute)], now_ms: i64) -> Result<Vec<JobId>, StateError> {
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let mut others = self.jobs.unfinished().await?;
        let mut requested = Vec::new();
        for (schedule, minute) in runs {
            let job = job_of(schedule, JobId::of_run(&schedule.id, *minute), now_ms);
            if self.jobs.request(&job).await? == Put::Taken {
                tracing::debug!(job = %job.id, "has been asked for already");
                continue;
            }
            if let Some(why) = refusal(&job, &others) {
                tracing::warn!(schedule = %schedule.id, table = %schedule.table, "the run of {minute} is refused: {why}");
                let outcome = JobOutcome::without_work(Ended::Refused, Some(why), now_ms);
                self.jobs.end(&job.id, &outcome).await?;
                continue;
            }
            tracing::info!(schedule = %schedule.id, table = %schedule.table, job = %job.id, "a scheduled backfill is due");
            requested.push(job.id.clone());
            others.push(JobEntry { job, progress: None, outcome: None, cancelled: false });
        }
        Ok(requested)
    }
}

/// The job that a run of `schedule` is, under `id`.
pub fn job_of(schedule: &Schedule, id: JobId, now_ms: i64) -> Job {
    Job {
        id,
        table: schedule.table.clone(),
        work: Work::Backfill(schedule.scope.clone()),
        origin: Origin::Schedule { id: schedule.id.clone() },
        requested_ms: now_ms,
    }
}

fn tell_missed(schedule: &Schedule, missed: &[Minute]) {
    if let Some(last) = missed.last() {
        tracing::warn!(
            schedule = %schedule.id, table = %schedule.table, runs = missed.len(),
            "scheduled backfills were missed, the last of {last}: no service ran then; `weir schedule run {}` makes up for them",
            schedule.id
        );
    }
}

fn is_clock_wrong(looked: &Looked, now_ms: i64) -> bool {
    looked.looked_ms.saturating_sub(now_ms) > ms(SCHEDULE_CLOCK_BACK_MAX)
}

/// What one look at the schedules comes to.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    looked: Looked,
    runs: Vec<(Schedule, Minute)>,
    /// Found at this look; never empty.
    missed: Vec<(Schedule, Vec<Minute>)>,
}

fn plan(looked: &Looked, schedules: &[Schedule], now_ms: i64) -> Plan {
    let mut seen = BTreeMap::new();
    let (mut runs, mut all_missed) = (Vec::new(), Vec::new());
    for schedule in schedules {
        let before = looked.schedules.get(&schedule.id).filter(|seen| seen.cron == schedule.cron);
        // One of the configuration begins when it is first seen, one of a command when it was added.
        let first_seen_ms = if schedule.added_ms > 0 { schedule.added_ms } else { now_ms };
        let since_ms = before.map_or(first_seen_ms, |seen| seen.since_ms);
        let due = due(&schedule.cron, looked.looked_ms.max(since_ms), now_ms);
        let missed = match due.fire {
            // It does what those before it would have done.
            Some(_) => None,
            None => add_missed(before.and_then(|seen| seen.missed), &due.missed),
        };
        seen.insert(schedule.id.clone(), Seen { cron: schedule.cron.clone(), since_ms, missed });
        runs.extend(due.fire.map(|minute| (schedule.clone(), minute)));
        if !due.missed.is_empty() {
            all_missed.push((schedule.clone(), due.missed));
        }
    }
    let looked = Looked { looked_ms: looked.looked_ms.max(now_ms), schedules: seen };
    Plan { looked, runs, missed: all_missed }
}

fn add_missed(before: Option<Missed>, found: &[Minute]) -> Option<Missed> {
    let Some(last) = found.last() else { return before };
    let count = before.map_or(0, |missed| missed.count) + found.len() as u64;
    Some(Missed { count, last: *last })
}

#[cfg(test)]
mod tests;
