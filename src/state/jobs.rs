//! Jobs: what people and schedules ask of the service, how far it is, and what became of it, as small objects under `jobs/`.
//!
//! `<id>.json` is the [`Job`], put if absent and never changed; `<id>.cancel` says that it is not wanted any more;
//! `<id>.progress.json` is overwritten by the running service; `<id>.outcome.json` is put if absent, so that the first
//! outcome stands. Who asks and who does it may be on different machines: all that they share is the warehouse. Nothing is
//! carried out here.

mod job;
mod refusal;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;
use serde_json::Value;

pub(super) use self::job::is_object_name;
pub use self::job::{Bound, Ended, Job, JobId, JobOutcome, JobProgress, JobState, Origin, Scope, Work};
pub use self::refusal::refusal;
use super::objects::{Found, ObjectFolder};
use super::{Put, StateError};
use crate::limits::JOBS_READ_TOGETHER;

/// How a job ended whose outcome a newer version wrote, or nobody can read.
const UNREADABLE: &str = "it has ended, and this version cannot read how";

/// A job and everything that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEntry {
    pub job: Job,
    pub progress: Option<JobProgress>,
    pub outcome: Option<JobOutcome>,
    /// Somebody does not want it any more.
    pub cancelled: bool,
}

impl JobEntry {
    /// `waiting`, `running`, `cancelling`, or how it ended.
    pub fn state_name(&self) -> &'static str {
        match (&self.outcome, self.cancelled, &self.progress) {
            (Some(outcome), ..) => outcome.ended.name(),
            (None, true, _) => "cancelling",
            (None, false, Some(JobProgress { state: JobState::Running, .. })) => "running",
            (None, false, _) => "waiting",
        }
    }
}

/// The jobs of one source. Clones share the place.
#[derive(Debug, Clone)]
pub struct JobStore {
    objects: ObjectFolder,
}

/// Which objects there are of a job.
#[derive(Debug, Clone, Copy, Default)]
struct Present {
    job: bool,
    cancel: bool,
    progress: bool,
    outcome: bool,
}

impl JobStore {
    /// Those under `state`, the folder of one source's state.
    pub fn new(store: Arc<dyn ObjectStore>, state: Path) -> Self {
        Self { objects: ObjectFolder::new(store, state.join("jobs")) }
    }

    /// Asks for a job; durable when it returns. [`Put::Taken`] if one of this id has been asked for already, which happens to
    /// runs of schedules only.
    pub async fn request(&self, job: &Job) -> Result<Put, StateError> {
        self.objects.put_absent(&job_name(&job.id), job).await
    }

    /// Every job, oldest first. One that disappears meanwhile has been forgotten; what is no job is passed over, and told once.
    pub async fn list(&self) -> Result<Vec<JobEntry>, StateError> {
        self.entries(|_| true).await
    }

    /// The jobs without an outcome, oldest first; reads nothing of the others, so that it can be asked often.
    pub async fn unfinished(&self) -> Result<Vec<JobEntry>, StateError> {
        self.entries(|present| !present.outcome).await
    }

    /// The job of this id, if there is one.
    pub async fn find(&self, id: &JobId) -> Result<Option<JobEntry>, StateError> {
        let cancel = self.objects.find::<Value>(&cancel_name(id)).await? != Found::Absent;
        self.entry(id.clone(), Present { job: true, cancel, progress: true, outcome: true }).await
    }

    /// Says that the job is not wanted any more. Whoever carries it out ends it; one that has ended is left as it is.
    pub async fn cancel(&self, id: &JobId) -> Result<(), StateError> {
        self.objects.put_absent(&cancel_name(id), &Value::Object(serde_json::Map::new())).await.map(|_| ())
    }

    /// Says how far the job is, in place of what was said before. For the running service.
    pub async fn note_progress(&self, id: &JobId, progress: &JobProgress) -> Result<(), StateError> {
        self.objects.put(&progress_name(id), progress).await
    }

    /// Ends the job: [`Put::Taken`] if it has ended otherwise already, which then stands.
    pub async fn end(&self, id: &JobId, outcome: &JobOutcome) -> Result<Put, StateError> {
        self.objects.put_absent(&outcome_name(id), outcome).await
    }

    /// Removes jobs that ended before `ended_before_ms`, but never the `keep` that ended last. Returns how many.
    ///
    /// A run of a schedule whose id is forgotten could be asked for again, so let `ended_before_ms` lie much further back than
    /// clocks are set.
    pub async fn forget_old(&self, keep: usize, ended_before_ms: i64) -> Result<usize, StateError> {
        let finished = self.entries(|present| present.outcome).await?;
        let old = forgotten(&finished, keep, ended_before_ms);
        for id in &old {
            // The job first: what is left of one that has none is nobody's.
            self.objects.remove(&job_name(id)).await?;
            self.remove_rest(id).await?;
        }
        for (id, present) in self.present().await? {
            // Asked once more: a list of a folder may leave out what is put while it is made.
            if !present.job && self.objects.find::<Value>(&job_name(&id)).await? == Found::Absent {
                self.remove_rest(&id).await?;
            }
        }
        Ok(old.len())
    }

    async fn remove_rest(&self, id: &JobId) -> Result<(), StateError> {
        for name in [cancel_name(id), progress_name(id), outcome_name(id)] {
            self.objects.remove(&name).await?;
        }
        Ok(())
    }

    async fn entries(&self, wanted: impl Fn(&Present) -> bool) -> Result<Vec<JobEntry>, StateError> {
        let there = self.present().await?.into_iter().filter(|(_, present)| present.job && wanted(present));
        let read = futures::stream::iter(there).map(|(id, present)| self.entry(id, present));
        let read: Vec<Option<JobEntry>> = read.buffered(JOBS_READ_TOGETHER).try_collect().await?;
        let mut entries: Vec<JobEntry> = read.into_iter().flatten().collect();
        entries.sort_by(|a, b| (a.job.requested_ms, &a.job.id).cmp(&(b.job.requested_ms, &b.job.id)));
        Ok(entries)
    }

    async fn entry(&self, id: JobId, present: Present) -> Result<Option<JobEntry>, StateError> {
        let job: Option<Job> = self.objects.find(&job_name(&id)).await?.read();
        // A copy under another name is no job of its own.
        let Some(job) = job.filter(|job| job.id == id) else { return Ok(None) };
        let progress = if present.progress { self.objects.find(&progress_name(&id)).await?.read() } else { None };
        let outcome = if present.outcome { self.objects.find(&outcome_name(&id)).await? } else { Found::Absent };
        let outcome = match outcome {
            Found::Absent => None,
            Found::Read(outcome) => Some(outcome),
            // It has ended all the same: nobody may do it once more.
            Found::Unreadable => Some(JobOutcome::without_work(Ended::Failed, Some(UNREADABLE.into()), 0)),
        };
        Ok(Some(JobEntry { job, progress, outcome, cancelled: present.cancel }))
    }

    /// Which objects there are, by job. Other names are not ours and are passed over.
    async fn present(&self) -> Result<BTreeMap<JobId, Present>, StateError> {
        let mut found: BTreeMap<JobId, Present> = BTreeMap::new();
        for name in self.objects.names().await? {
            let Some((id, kind)) = name.split_once('.') else { continue };
            let Ok(id) = JobId::try_from(id.to_owned()) else { continue };
            let present = found.entry(id).or_default();
            match kind {
                "json" => present.job = true,
                "cancel" => present.cancel = true,
                "progress.json" => present.progress = true,
                "outcome.json" => present.outcome = true,
                _ => {}
            }
        }
        Ok(found)
    }
}

/// Which of `finished` are removed.
fn forgotten(finished: &[JobEntry], keep: usize, ended_before_ms: i64) -> Vec<JobId> {
    let mut ended: Vec<(i64, &JobId)> = finished
        .iter()
        .filter_map(|entry| entry.outcome.as_ref().map(|outcome| (outcome.ended_ms, &entry.job.id)))
        .collect();
    ended.sort_unstable_by(|a, b| b.cmp(a));
    let old = ended.into_iter().skip(keep).filter(|(ended_ms, _)| *ended_ms < ended_before_ms);
    old.map(|(_, id)| id.clone()).collect()
}

fn job_name(id: &JobId) -> String {
    format!("{id}.json")
}

fn cancel_name(id: &JobId) -> String {
    format!("{id}.cancel")
}

fn progress_name(id: &JobId) -> String {
    format!("{id}.progress.json")
}

fn outcome_name(id: &JobId) -> String {
    format!("{id}.outcome.json")
}

#[cfg(test)]
mod tests;
