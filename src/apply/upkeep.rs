//! Upkeep of a table beside its stream: compaction and cleaning. One job at a time, in a task of its own; the worker
//! only commits what came of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use weir_model::clock;

use super::{Worker, WorkerError};
use crate::limits::{BACKLOG_FILES_MAX, CLEAN_EVERY, UPKEEP_JOBS_MAX, UPKEEP_LOOKED_AT_EVERY, UPKEEP_RETRY_DELAY};
use crate::table::clean::{Garbage, Look, Retention, find_garbage, remove};
use crate::table::{Effort, Rewritten, TableError};
use crate::transport::Subscription;

/// What all tables of a process share.
#[derive(Debug, Clone)]
pub struct Upkeep {
    permits: Arc<Semaphore>,
    /// Replaced files are kept so long for readers.
    kept: Duration,
}

impl Upkeep {
    pub fn new(kept: Duration) -> Self {
        Self { permits: Arc::new(Semaphore::new(UPKEEP_JOBS_MAX)), kept }
    }
}

/// The upkeep of one table.
pub(super) struct Jobs {
    upkeep: Option<Upkeep>,
    under_way: Option<Job>,
    next_look: Instant,
    next_clean: Instant,
    /// Version at which there was nothing to compact, and one at which there was nothing to clean.
    compact_at: Option<i64>,
    clean_at: Option<i64>,
}

enum Job {
    Keeping(AbortOnDropHandle<std::io::Result<()>>),
    Compaction(AbortOnDropHandle<Result<Rewritten, TableError>>),
    Cleaning(AbortOnDropHandle<Result<Garbage, TableError>>),
}

/// What came of a job.
pub(super) enum Done {
    Kept,
    Compacted(Rewritten),
    Found(Garbage),
    Failed(String),
}

impl Jobs {
    pub(super) fn new(upkeep: Option<Upkeep>) -> Self {
        let now = Instant::now();
        Self {
            upkeep,
            under_way: None,
            next_look: now + UPKEEP_LOOKED_AT_EVERY,
            next_clean: now + CLEAN_EVERY,
            compact_at: None,
            clean_at: None,
        }
    }

    /// When to look for something to do; `None` while something is being done.
    pub(super) fn next_look(&self) -> Option<Instant> {
        (self.upkeep.is_some() && self.under_way.is_none()).then_some(self.next_look)
    }

    /// Whether it is time to look, or a job is done: a stream that never pauses must not keep the worker from it.
    pub(super) fn are_due(&self) -> bool {
        match &self.under_way {
            None => self.next_look().is_some_and(|look| look <= Instant::now()),
            Some(Job::Keeping(task)) => task.is_finished(),
            Some(Job::Compaction(task)) => task.is_finished(),
            Some(Job::Cleaning(task)) => task.is_finished(),
        }
    }

    /// Waits for the job under way, if there is one.
    pub(super) async fn done(&mut self) -> Done {
        let done = match &mut self.under_way {
            None => std::future::pending().await,
            Some(Job::Keeping(task)) => task.await.map(|done| done.map(|()| Done::Kept).map_err(TableError::from)),
            Some(Job::Compaction(task)) => task.await.map(|done| done.map(Done::Compacted)),
            Some(Job::Cleaning(task)) => task.await.map(|done| done.map(Done::Found)),
        };
        self.under_way = None;
        match done {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => Done::Failed(error.to_string()),
            Err(error) => Done::Failed(error.to_string()),
        }
    }
}

impl<S: Subscription> Worker<S> {
    /// Does what is due.
    pub(super) async fn tend(&mut self) -> Result<(), WorkerError> {
        if self.jobs.under_way.is_some() {
            let done = self.jobs.done().await;
            return self.end_upkeep(done).await;
        }
        self.begin_upkeep();
        Ok(())
    }

    /// Begins what pays, if anything does and another table is not at it.
    fn begin_upkeep(&mut self) {
        self.jobs.next_look = Instant::now() + UPKEEP_LOOKED_AT_EVERY;
        // A backlog comes first: what it kills need not be written again before.
        let is_behind = std::mem::take(&mut self.is_behind) && self.table.figures().0 < BACKLOG_FILES_MAX;
        if is_behind || *self.pace.pressure.borrow() || *self.pace.hurry.borrow() {
            return;
        }
        let version = self.table.version();
        if self.jobs.upkeep.is_some()
            && let Some(keeping) = self.table.keeping(false)
        {
            let task = tokio::task::spawn_blocking(move || keeping.write());
            self.jobs.under_way = Some(Job::Keeping(AbortOnDropHandle::new(task)));
            return;
        }
        let Some(upkeep) = &self.jobs.upkeep else { return };
        // Of a shared table the owner of the first bucket cleans.
        let cleans = Instant::now() >= self.jobs.next_clean
            && self.jobs.clean_at != Some(version)
            && self.table.buckets().owns(0);
        let compacts = self.jobs.compact_at != Some(version);
        if !cleans && !compacts {
            return;
        }
        let Ok(permit) = upkeep.permits.clone().try_acquire_owned() else { return };
        self.jobs.under_way = if cleans { Some(self.cleaning(upkeep.kept, permit)) } else { self.compaction(permit) };
    }

    fn compaction(&mut self, permit: OwnedSemaphorePermit) -> Option<Job> {
        let Some(rewriting) = self.table.compaction(Effort::Steady) else {
            self.jobs.compact_at = Some(self.table.version());
            return None;
        };
        tracing::debug!(table = %self.table.schema().table, files = rewriting.files(), bytes = rewriting.bytes(), "compacting");
        Some(Job::Compaction(AbortOnDropHandle::new(tokio::spawn(async move {
            let _permit = permit;
            rewriting.run().await
        }))))
    }

    fn cleaning(&self, kept: Duration, permit: OwnedSemaphorePermit) -> Job {
        let (warehouse, table) = (self.table.warehouse().clone(), self.table.schema().table.clone());
        Job::Cleaning(AbortOnDropHandle::new(tokio::spawn(async move {
            let _permit = permit;
            find_garbage(&warehouse, &table, Retention { kept, look: Look::Quick }, clock::now_ms()).await
        })))
    }

    /// The stream has ended: what the index has learned is kept for the next start.
    pub(super) async fn keep_index(&mut self) {
        self.jobs.under_way = None;
        if self.jobs.upkeep.is_none() {
            return;
        }
        let Some(keeping) = self.table.keeping(true) else { return };
        match tokio::task::spawn_blocking(move || keeping.write()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(table = %self.table.schema().table, %error, "the key index is not kept"),
            Err(error) => tracing::warn!(table = %self.table.schema().table, %error, "the key index is not kept"),
        }
    }

    /// Commits what came of a job.
    pub(super) async fn end_upkeep(&mut self, done: Done) -> Result<(), WorkerError> {
        self.jobs.next_look = Instant::now();
        match done {
            Done::Kept => Ok(()),
            Done::Compacted(rewritten) => {
                let committed = self.table.commit_rewritten(rewritten).await;
                match committed {
                    Ok(None) => Ok(()),
                    Ok(Some(outcome)) => self.take_outcome(outcome, None).await.map(|_| ()),
                    Err(error) => self.open_after(error).await,
                }
            }
            Done::Found(garbage) => self.clean(garbage).await,
            Done::Failed(error) => {
                tracing::warn!(table = %self.table.schema().table, error, "upkeep is tried again later");
                self.jobs.next_look = Instant::now() + UPKEEP_RETRY_DELAY;
                self.jobs.next_clean = self.jobs.next_look.max(self.jobs.next_clean);
                Ok(())
            }
        }
    }

    async fn clean(&mut self, mut garbage: Garbage) -> Result<(), WorkerError> {
        self.jobs.next_clean = Instant::now() + CLEAN_EVERY;
        while !garbage.names.is_empty() {
            match self.table.commit_cleaning(&mut garbage).await {
                Ok((outcome, names)) => {
                    if !self.take_outcome(outcome, None).await? {
                        break;
                    }
                    tracing::debug!(table = %self.table.schema().table, files = names.len(), "removing what nothing names");
                    let files = self.table.files();
                    tokio::spawn(async move { remove(&files, &names).await });
                }
                Err(error) => return self.open_after(error).await,
            }
        }
        self.jobs.clean_at = Some(self.table.version());
        Ok(())
    }
}
